// The notations of the protocol specification ([short], [string], [bytes]…): big-endian, lengths first. Reading checks
// each length against what is left before it reserves anything.

internal import Bytes

/// Appends the protocol's notations to an array.
struct WireWriter {
  var bytes: [UInt8] = []

  init() {}

  init(reserving count: Int) { bytes.reserveCapacity(count) }

  var count: Int { bytes.count }

  mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
    withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
  }

  /// [byte]
  mutating func byte(_ value: UInt8) { bytes.append(value) }
  /// [short]
  mutating func short(_ value: Int) { integer(UInt16(truncatingIfNeeded: value)) }
  /// [int]
  mutating func int(_ value: Int) { integer(Int32(truncatingIfNeeded: value)) }

  mutating func raw(_ more: some Collection<UInt8>) { bytes.append(contentsOf: more) }

  /// [string]: at most 65,535 bytes; whoever calls has checked that.
  mutating func string(_ text: String) {
    let utf8 = text.utf8
    precondition(utf8.count <= 65_535, "a [string] of \(utf8.count) bytes")
    short(utf8.count)
    raw(utf8)
  }

  /// [long string]
  mutating func longString(_ text: String) {
    let utf8 = text.utf8
    int(utf8.count)
    raw(utf8)
  }

  /// [bytes]; nil is null.
  mutating func bytesOrNull(_ value: [UInt8]?) {
    guard let value else { return int(-1) }
    int(value.count)
    raw(value)
  }

  /// [short bytes]: at most 65,535 bytes.
  mutating func shortBytes(_ value: [UInt8]) {
    precondition(value.count <= 65_535, "[short bytes] of \(value.count)")
    short(value.count)
    raw(value)
  }

  /// [string list]
  mutating func stringList(_ list: [String]) {
    short(list.count)
    for text in list { string(text) }
  }

  /// [string map], in the order of its keys, so that equal maps give equal bytes.
  mutating func stringMap(_ map: [String: String]) {
    short(map.count)
    for (key, value) in map.sorted(by: { $0.key < $1.key }) {
      string(key)
      string(value)
    }
  }

  /// Leaves four bytes for a length that is told later.
  mutating func openLength() -> Int {
    int(0)
    return bytes.count
  }

  /// Writes how much came since `openLength` returned `start`.
  mutating func closeLength(_ start: Int) {
    let count = UInt32(bytes.count - start)
    for index in 0..<4 {
      bytes[start - 4 + index] = UInt8(truncatingIfNeeded: count >> UInt32(24 - 8 * index))
    }
  }
}

/// Reads the protocol's notations from bytes that somebody else owns.
struct WireReader: BitwiseCopyable {
  private var reader: ByteReader

  init(_ bytes: UnsafeRawBufferPointer) { reader = ByteReader(bytes) }

  var position: Int { reader.position }
  var left: Int { reader.left }

  mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type = T.self) throws(CodecError)
    -> T
  {
    do throws(ByteError) { return try reader.integer(type).byteSwapped } catch { throw CodecError(error) }
  }

  mutating func raw(_ count: Int) throws(CodecError) -> UnsafeRawBufferPointer {
    do throws(ByteError) { return try reader.bytes(count) } catch { throw CodecError(error) }
  }

  mutating func byte() throws(CodecError) -> UInt8 { try integer() }
  mutating func short() throws(CodecError) -> Int { Int(try integer(UInt16.self)) }
  mutating func int() throws(CodecError) -> Int { Int(try integer(Int32.self)) }

  /// A count of things that take at least `bytesEach` bytes, so that it cannot ask for more memory than came.
  mutating func count(_ what: String, bytesEach: Int, max: Int) throws(CodecError) -> Int {
    let count = try int()
    let bound = bytesEach == 0 ? max : Swift.min(max, left / bytesEach)
    guard count >= 0, count <= bound else { throw .tooLong(what, count: count, max: bound) }
    return count
  }

  mutating func string() throws(CodecError) -> String { text(try raw(try short())) }

  mutating func longString() throws(CodecError) -> String {
    let count = try int()
    guard count >= 0 else { throw .tooLong("a [long string]", count: count, max: left) }
    return text(try raw(count))
  }

  /// [bytes] as a view; nil is null.
  mutating func bytesOrNull() throws(CodecError) -> UnsafeRawBufferPointer? {
    let count = try int()
    if count < 0 { return nil }
    return try raw(count)
  }

  /// [bytes] as a copy; nil is null.
  mutating func ownedBytes() throws(CodecError) -> [UInt8]? { try bytesOrNull().map { [UInt8]($0) } }

  mutating func shortBytes() throws(CodecError) -> [UInt8] { [UInt8](try raw(try short())) }

  mutating func stringList() throws(CodecError) -> [String] {
    var list: [String] = []
    for _ in 0..<(try short()) { list.append(try string()) }
    return list
  }

  mutating func stringMap() throws(CodecError) -> [String: String] {
    var map: [String: String] = [:]
    for _ in 0..<(try short()) {
      let key = try string()
      map[key] = try string()
    }
    return map
  }

  mutating func stringMultimap() throws(CodecError) -> [String: [String]] {
    var map: [String: [String]] = [:]
    for _ in 0..<(try short()) {
      let key = try string()
      map[key] = try stringList()
    }
    return map
  }

  /// [bytes map]; null values become empty.
  mutating func bytesMap() throws(CodecError) -> [String: [UInt8]] {
    var map: [String: [UInt8]] = [:]
    for _ in 0..<(try short()) {
      let key = try string()
      map[key] = try ownedBytes() ?? []
    }
    return map
  }

  /// [inet]'s address without a port, as [inetaddr].
  mutating func inetAddress() throws(CodecError) -> [UInt8] {
    let count = Int(try byte())
    guard count == 4 || count == 16 else { throw .malformed("an address of \(count) bytes") }
    return [UInt8](try raw(count))
  }

  private func text(_ bytes: UnsafeRawBufferPointer) -> String { String(decoding: bytes, as: UTF8.self) }
}

extension CodecError {
  init(_ error: ByteError) {
    switch error {
    case .truncated(let atByte, let wanted, let left):
      self = .truncated(atByte: atByte, wanted: wanted, left: left)
    case .trailing(let atByte, let left): self = .truncated(atByte: atByte, wanted: 0, left: left)
    }
  }
}
