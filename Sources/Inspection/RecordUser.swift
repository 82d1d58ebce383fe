// Whom a record speaks of, although it is none. What was not counted may be cut, of the wrong type, or twice what it
// should be once; as long as its `uuid` can still be read, its user can be told why steps are missing.

internal import Bytes
public import StepModel

/// Reads the user out of records that were not counted. A value without state.
public enum RecordUser {
  /// The users that a record names at its top level, in their order; more than one where `uuid` is repeated.
  ///
  /// - Parameter record: the record's bytes, whatever they are.
  /// - Returns: the ids that can be read before the record breaks; empty where there is none.
  /// - Complexity: O(bytes).
  public static func all(in record: UnsafeRawBufferPointer) -> [UserID] {
    var scan = LenientScan(record)
    return scan.users()
  }
}

/// A walk over something like JSON, which stops where it can no longer tell keys from values.
private struct LenientScan {
  private static let key = Array("uuid".utf8)

  private let bytes: UnsafeRawBufferPointer
  private var place = 0

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  mutating func users() -> [UserID] {
    var found: [UserID] = []
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { place = 3 }
    skipSpace()
    guard take(UInt8(ascii: "{")) else { return [] }
    var depth = 1
    /// Whether the member that the walk is in, at the top level, is the user's; nil before its name.
    var isUser: Bool?
    while depth > 0, place < bytes.count {
      let byte = bytes[place]
      switch byte {
      case UInt8(ascii: "\""):
        guard let text = string() else { return found }
        guard depth == 1 else { continue }
        if isUser == nil {
          isUser = text == LenientScan.key
        } else if isUser == true {
          if let user = LenientScan.user(text) { found.append(user) }
          isUser = false
        }
        continue
      case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
      case UInt8(ascii: ",") where depth == 1: isUser = nil
      case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"):
        let text = number()
        if depth == 1, isUser == true {
          if let user = LenientScan.user(text) { found.append(user) }
          isUser = false
        }
        continue
      default: break
      }
      place += 1
    }
    return found
  }

  /// An id that is a text, or the text of an integer.
  private static func user(_ text: [UInt8]) -> UserID? {
    String(validating: text, as: UTF8.self).flatMap { UserID($0) }
  }

  private mutating func skipSpace() {
    while place < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[place]) { place += 1 }
  }

  private mutating func take(_ byte: UInt8) -> Bool {
    guard place < bytes.count, bytes[place] == byte else { return false }
    place += 1
    return true
  }

  /// The digits of an integer; empty, which is no id, for any other number and for one that the record's end cuts.
  private mutating func number() -> [UInt8] {
    let start = place
    var isInteger = true
    while place < bytes.count {
      switch bytes[place] {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): break
      case UInt8(ascii: "-") where place == start: break
      case UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"):
        isInteger = false
      default: return isInteger ? Array(bytes[start..<place]) : []
      }
      place += 1
    }
    return []
  }

  /// The string that begins here, its escapes resolved; nil if it does not end.
  private mutating func string() -> [UInt8]? {
    place += 1
    var text: [UInt8] = []
    while place < bytes.count {
      let byte = bytes[place]
      place += 1
      switch byte {
      case UInt8(ascii: "\""): return text
      case UInt8(ascii: "\\"):
        guard let scalar = escape() else { return nil }
        text += Array(String(scalar).utf8)
      default: text.append(byte)
      }
    }
    return nil
  }

  /// What stands for an escape whose backslash is behind.
  private mutating func escape() -> Unicode.Scalar? {
    guard place < bytes.count else { return nil }
    let byte = bytes[place]
    place += 1
    switch byte {
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{C}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"):
      guard let first = unit() else { return nil }
      guard (0xD800..<0xDC00).contains(first) else { return Unicode.Scalar(first) ?? "\u{FFFD}" }
      guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")), let second = unit(),
        (0xDC00..<0xE000).contains(second)
      else { return nil }
      return Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
    default: return Unicode.Scalar(byte)
    }
  }

  private mutating func unit() -> UInt32? {
    guard bytes.count - place >= 4 else { return nil }
    let digits = String(decoding: bytes[place..<(place + 4)], as: UTF8.self)
    place += 4
    return UInt32(digits, radix: 16)
  }
}
