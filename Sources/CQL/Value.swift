// A value of any column, and its bytes. On the wire a value is [bytes]: an int32 length, then the content below; length
// -1 is null, -2 (in requests alone) unset. A bound null writes a tombstone, unset writes nothing.
//
//     ascii, text, blob  the bytes                       date      uint32, 2^31 is 1970-01-01
//     bigint, counter    int64                           time      int64, nanoseconds since midnight
//     int, smallint, tinyint  int32, int16, int8         duration  three vints: months, days, nanoseconds
//     boolean            one byte                        list, set int32 count, then [bytes] each
//     float, double      IEEE 754                        map       int32 count, then [bytes] of key and value
//     timestamp          int64, milliseconds since 1970  tuple, udt [bytes] each, in order
//     uuid, timeuuid     16 bytes                        varint    two's complement, shortest
//     inet               4 or 16 bytes                   decimal   int32 scale, then a varint

internal import Bytes

/// 16 bytes that name something.
public struct CQLUUID: Hashable, Sendable, CustomStringConvertible {
  public let high: UInt64
  public let low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// Reads 8-4-4-4-12 hexadecimal digits in either case; nil if it is none.
  public init?(_ text: String) {
    guard text.utf8.count == 36, let bytes = Hex.bytes(text.filter { $0 != "-" }), bytes.count == 16 else {
      return nil
    }
    let high = bytes[..<8].reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
    self.init(high: high, low: bytes[8...].reduce(0 as UInt64) { $0 << 8 | UInt64($1) })
  }

  /// 8-4-4-4-12 lower-case digits.
  public var description: String {
    var text = Hex.text((0..<8).map { UInt8(truncatingIfNeeded: high >> UInt64(56 - 8 * $0)) })
    text += Hex.text((0..<8).map { UInt8(truncatingIfNeeded: low >> UInt64(56 - 8 * $0)) })
    for place in [20, 16, 12, 8] { text.insert("-", at: text.index(text.startIndex, offsetBy: place)) }
    return text
  }
}

/// A value of a column or of a marker.
public indirect enum Value: Hashable, Sendable {
  /// No value; bound to a marker it writes a tombstone.
  case null
  /// Bound to a marker: leave the column as it is. Never in a row.
  case unset
  /// Zero bytes where the type's values have some: not null, and not a value either.
  case empty
  case text(String)
  case bigint(Int64)
  case int(Int32)
  case smallint(Int16)
  case tinyint(Int8)
  case boolean(Bool)
  case float(Float)
  case double(Double)
  case blob([UInt8])
  case uuid(CQLUUID)
  /// Milliseconds since 1970-01-01 UTC.
  case timestamp(Int64)
  /// Days since 1970-01-01.
  case date(Int32)
  /// Nanoseconds since midnight.
  case time(Int64)
  case duration(months: Int32, days: Int32, nanoseconds: Int64)
  /// 4 or 16 bytes.
  case inet([UInt8])
  /// Two's complement, big-endian, at least one byte.
  case varint([UInt8])
  /// `unscaled` · 10^-scale, `unscaled` as in `varint`.
  case decimal(scale: Int32, unscaled: [UInt8])
  case list([Value])
  case set([Value])
  case map([Entry])
  /// Fields in the order of the type.
  case tuple([Value])

  /// A key of a map with its value.
  public struct Entry: Hashable, Sendable {
    public let key: Value
    public let value: Value

    public init(_ key: Value, _ value: Value) {
      self.key = key
      self.value = value
    }
  }
}

/// A value that cannot be what the column or marker wants; the caller's mistake.
public enum ValueError: Error, Hashable, Sendable {
  /// The value's case does not go with the type.
  case mismatch(value: String, type: CQLType)
  /// The number of values differs from the markers of the statement.
  case count(given: Int, markers: Int)
  /// A row has no such column, or it was asked for as a Swift type that its CQL type does not give.
  case column(String)
  /// Unset outside of bound markers, or null inside a collection.
  case notHere(String)
}

extension ValueError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .mismatch(let value, let type): "\(value) does not go with the type \(type)"
    case .count(let given, let markers): "\(given) values for \(markers) markers"
    case .column(let what): what
    case .notHere(let what): what
    }
  }
}

// MARK: Values to bytes

extension Value {
  /// Appends the value with its length.
  func write(as type: CQLType, into out: inout WireWriter) throws(ValueError) {
    switch self {
    case .null: out.int(-1)
    case .unset: out.int(-2)
    default:
      let start = out.openLength()
      try writeContent(as: type, into: &out)
      out.closeLength(start)
    }
  }

  private func writeContent(as type: CQLType, into out: inout WireWriter) throws(ValueError) {
    switch (self, type) {
    case (.empty, _): break
    case (.text(let text), .text), (.text(let text), .ascii): out.raw(text.utf8)
    case (.bigint(let value), .bigint), (.bigint(let value), .counter): out.integer(value)
    case (.int(let value), .int): out.integer(value)
    case (.smallint(let value), .smallint): out.integer(value)
    case (.tinyint(let value), .tinyint): out.integer(value)
    case (.boolean(let value), .boolean): out.byte(value ? 1 : 0)
    case (.float(let value), .float): out.integer(value.bitPattern)
    case (.double(let value), .double): out.integer(value.bitPattern)
    case (.blob(let bytes), .blob), (.blob(let bytes), .custom), (.inet(let bytes), .inet),
      (.varint(let bytes), .varint):
      out.raw(bytes)
    case (.uuid(let value), .uuid), (.uuid(let value), .timeuuid):
      out.integer(value.high)
      out.integer(value.low)
    case (.timestamp(let value), .timestamp), (.time(let value), .time): out.integer(value)
    case (.date(let days), .date): out.integer(UInt32(bitPattern: days) ^ 0x8000_0000)
    case (.duration(let months, let days, let nanoseconds), .duration):
      out.vint(Int64(months))
      out.vint(Int64(days))
      out.vint(nanoseconds)
    case (.decimal(let scale, let unscaled), .decimal):
      out.integer(scale)
      out.raw(unscaled)
    case (.list(let values), .list(let element)), (.set(let values), .set(let element)):
      out.int(values.count)
      for value in values { try value.writeElement(as: element, into: &out) }
    case (.map(let entries), .map(let key, let value)):
      out.int(entries.count)
      for entry in entries {
        try entry.key.writeElement(as: key, into: &out)
        try entry.value.writeElement(as: value, into: &out)
      }
    case (.tuple(let values), .tuple(let types)):
      try Value.writeFields(values, types, of: type, into: &out)
    case (.tuple(let values), .udt(_, _, let fields)):
      try Value.writeFields(values, fields.map(\.type), of: type, into: &out)
    default: throw .mismatch(value: "\(self)", type: type)
    }
  }

  private func writeElement(as type: CQLType, into out: inout WireWriter) throws(ValueError) {
    switch self {
    case .null, .unset: throw .notHere("\(self) inside a collection")
    default: try write(as: type, into: &out)
    }
  }

  private static func writeFields(
    _ values: [Value], _ types: [CQLType], of type: CQLType, into out: inout WireWriter
  ) throws(ValueError) {
    guard values.count <= types.count else { throw .mismatch(value: "\(values.count) fields", type: type) }
    for (value, type) in zip(values, types) {
      if value == .unset { throw .notHere("unset inside a tuple") }
      try value.write(as: type, into: &out)
    }
  }
}

// MARK: Bytes to values

extension Value {
  /// Reads the content of a value; nil bytes are null.
  init(_ bytes: UnsafeRawBufferPointer?, as type: CQLType, depth: Int = 0) throws(CodecError) {
    guard let bytes else {
      self = .null
      return
    }
    guard depth <= CQLLimits.typeDepthMax else {
      throw .tooLong("the nesting of a value", count: depth, max: CQLLimits.typeDepthMax)
    }
    var reader = WireReader(bytes)
    switch type {
    case .text, .ascii: self = .text(String(decoding: bytes, as: UTF8.self))
    case .blob, .custom: self = .blob([UInt8](bytes))
    // Zero bytes are no tuple and no collection of nothing either: those have a count.
    case _ where bytes.isEmpty: self = .empty
    case .list(let element): self = .list(try Value.elements(&reader, element, depth))
    case .set(let element): self = .set(try Value.elements(&reader, element, depth))
    case .map(let keyType, let valueType):
      var entries: [Entry] = []
      for _ in 0..<(try reader.count("entries of a map", bytesEach: 8, max: .max)) {
        let key = try Value(try reader.bytesOrNull(), as: keyType, depth: depth + 1)
        entries.append(Entry(key, try Value(try reader.bytesOrNull(), as: valueType, depth: depth + 1)))
      }
      self = .map(entries)
    case .tuple(let types): self = .tuple(try Value.fields(&reader, types, depth))
    case .udt(_, _, let fields): self = .tuple(try Value.fields(&reader, fields.map(\.type), depth))
    default:
      self = try Value.scalar(&reader, bytes, type)
      if reader.left > 0, reader.position > 0 {
        throw .malformed("a value of type \(type) in \(bytes.count) bytes")
      }
    }
  }

  private static func scalar(
    _ reader: inout WireReader, _ bytes: UnsafeRawBufferPointer, _ type: CQLType
  ) throws(CodecError) -> Value {
    switch type {
    case .bigint, .counter: return .bigint(try reader.integer())
    case .int: return .int(try reader.integer())
    case .smallint: return .smallint(try reader.integer())
    case .tinyint: return .tinyint(try reader.integer())
    case .boolean: return .boolean(try reader.byte() != 0)
    case .float: return .float(Float(bitPattern: try reader.integer()))
    case .double: return .double(Double(bitPattern: try reader.integer()))
    case .timestamp: return .timestamp(try reader.integer())
    case .time: return .time(try reader.integer())
    case .date: return .date(Int32(bitPattern: try reader.integer(UInt32.self) ^ 0x8000_0000))
    case .uuid, .timeuuid:
      let high = try reader.integer(UInt64.self)
      return .uuid(CQLUUID(high: high, low: try reader.integer()))
    case .duration:
      let months = try reader.vint()
      let days = try reader.vint()
      let nanoseconds = try reader.vint()
      guard let months = Int32(exactly: months), let days = Int32(exactly: days) else {
        throw .malformed("a duration of \(months) months and \(days) days")
      }
      return .duration(months: months, days: days, nanoseconds: nanoseconds)
    case .decimal:
      let scale = try reader.integer(Int32.self)
      return .decimal(scale: scale, unscaled: [UInt8](try reader.raw(reader.left)))
    case .varint: return .varint([UInt8](bytes))
    case .inet:
      guard bytes.count == 4 || bytes.count == 16 else {
        throw .malformed("an inet of \(bytes.count) bytes")
      }
      return .inet([UInt8](bytes))
    case .text, .ascii, .blob, .custom, .list, .set, .map, .tuple, .udt:
      preconditionFailure("\(type) is read before")
    }
  }

  private static func elements(
    _ reader: inout WireReader, _ type: CQLType, _ depth: Int
  ) throws(CodecError) -> [Value] {
    var values: [Value] = []
    for _ in 0..<(try reader.count("elements of a collection", bytesEach: 4, max: .max)) {
      values.append(try Value(try reader.bytesOrNull(), as: type, depth: depth + 1))
    }
    return values
  }

  /// Fields that were added to the type later are missing at the end, and null.
  private static func fields(
    _ reader: inout WireReader, _ types: [CQLType], _ depth: Int
  ) throws(CodecError) -> [Value] {
    var values: [Value] = []
    for type in types {
      if reader.left == 0 {
        values.append(.null)
      } else {
        values.append(try Value(try reader.bytesOrNull(), as: type, depth: depth + 1))
      }
    }
    return values
  }
}

// MARK: vint: as many leading ones in the first byte as bytes follow, zigzag

extension WireWriter {
  mutating func vint(_ value: Int64) {
    let zigzag = UInt64(bitPattern: value &<< 1 ^ value &>> 63)
    // 7 bits fit in one byte, 14 in two, and so on up to 8 bytes behind the first.
    let significant = 64 - max(1, zigzag | 1).leadingZeroBitCount
    let more = min(8, (significant - 1) / 7)
    if more == 8 {
      byte(0xFF)
      integer(zigzag)
      return
    }
    let ones = UInt8(truncatingIfNeeded: ~(0xFF >> more))
    byte(ones | UInt8(truncatingIfNeeded: zigzag >> UInt64(8 * more)))
    for index in (0..<more).reversed() { byte(UInt8(truncatingIfNeeded: zigzag >> UInt64(8 * index))) }
  }
}

extension WireReader {
  mutating func vint() throws(CodecError) -> Int64 {
    let first = try byte()
    let more = (~first).leadingZeroBitCount
    var zigzag = more >= 7 ? 0 : UInt64(first & (0xFF >> UInt8(more)))
    for _ in 0..<more { zigzag = zigzag << 8 | UInt64(try byte()) }
    return Int64(bitPattern: zigzag >> 1) ^ -Int64(bitPattern: zigzag & 1)
  }
}
