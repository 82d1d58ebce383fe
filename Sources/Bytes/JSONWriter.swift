// JSON text, written straight into bytes: for answers of the command line, diagnostic lines and dead letters.

import Glibc  // links the mathematics library that Double needs

/// Appends one JSON value to a byte array. The caller's order of calls is the document's order.
///
/// Not thread-safe. Every call is O(bytes written).
public struct JSONWriter {
  /// The text so far, UTF-8.
  public private(set) var bytes: [UInt8] = []
  private var needsComma = false

  public init() {}

  /// The text so far.
  public var text: String { String(decoding: bytes, as: UTF8.self) }

  /// `{ … }`.
  public mutating func object(_ body: (inout JSONWriter) -> Void) { nest("{", "}", body) }

  /// `[ … ]`.
  public mutating func array(_ body: (inout JSONWriter) -> Void) { nest("[", "]", body) }

  /// The key of the next value inside an object.
  public mutating func key(_ key: String) {
    comma()
    quote(key.utf8)
    bytes.append(UInt8(ascii: ":"))
    needsComma = false
  }

  public mutating func value(_ text: String) {
    comma()
    quote(text.utf8)
  }

  public mutating func value<Number: FixedWidthInteger>(_ number: Number) { raw(String(number)) }

  /// A finite number with the fewest digits that read back the same; no exponent below 2^63.
  public mutating func value(_ number: Double) {
    precondition(number.isFinite, "JSON has no \(number)")
    if let whole = Int64(exactly: number) { raw(String(whole)) } else { raw("\(number)") }
  }

  public mutating func value(_ flag: Bool) { raw(flag ? "true" : "false") }

  public mutating func null() { raw("null") }

  /// A key and its value in one call; nil becomes `null`.
  public mutating func member<Number: FixedWidthInteger>(_ name: String, _ number: Number?) {
    key(name)
    if let number { value(number) } else { null() }
  }

  public mutating func member(_ name: String, _ number: Double?) {
    key(name)
    if let number { value(number) } else { null() }
  }

  public mutating func member(_ name: String, _ text: String?) {
    key(name)
    if let text { value(text) } else { null() }
  }

  public mutating func member(_ name: String, _ flag: Bool) {
    key(name)
    value(flag)
  }

  private mutating func nest(
    _ open: Unicode.Scalar, _ close: Unicode.Scalar, _ body: (inout JSONWriter) -> Void
  ) {
    comma()
    bytes.append(UInt8(ascii: open))
    needsComma = false
    body(&self)
    bytes.append(UInt8(ascii: close))
    needsComma = true
  }

  private mutating func raw(_ text: String) {
    comma()
    bytes.append(contentsOf: text.utf8)
  }

  private mutating func comma() {
    if needsComma { bytes.append(UInt8(ascii: ",")) }
    needsComma = true
  }

  private mutating func quote(_ text: String.UTF8View) {
    bytes.append(UInt8(ascii: "\""))
    for byte in text {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"):
        bytes.append(UInt8(ascii: "\\"))
        bytes.append(byte)
      case 0..<0x20, 0x7F:
        bytes.append(contentsOf: "\\u00".utf8)
        bytes.append(JSONWriter.digits[Int(byte >> 4)])
        bytes.append(JSONWriter.digits[Int(byte & 15)])
      default: bytes.append(byte)
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }

  private static let digits = Array("0123456789abcdef".utf8)
}
