import TestSupport
import Testing

@testable import CQL

@Suite struct ValueTests {
  static func bytes(_ value: Value, _ type: CQLType) throws -> [UInt8] {
    var out = WireWriter()
    try value.write(as: type, into: &out)
    return out.bytes
  }

  static func read(_ bytes: [UInt8], _ type: CQLType) throws -> Value {
    try bytes.withUnsafeBytes { raw in
      var reader = WireReader(raw)
      return try Value(try reader.bytesOrNull(), as: type)
    }
  }

  struct Sample: Sendable {
    let value: Value
    let type: CQLType
    let content: String

    init(_ value: Value, _ type: CQLType, _ content: String) {
      self.value = value
      self.type = type
      self.content = content
    }
  }

  static let pair = CQLType.udt(
    keyspace: "k", name: "pair", fields: [.init(name: "a", type: .int), .init(name: "b", type: .text)])
  static let samples: [Sample] = [
    Sample(.int(-1), .int, "ffffffff"), Sample(.bigint(.min), .bigint, "8000000000000000"),
    Sample(.bigint(1), .counter, "0000000000000001"), Sample(.smallint(-2), .smallint, "fffe"),
    Sample(.tinyint(127), .tinyint, "7f"), Sample(.boolean(true), .boolean, "01"),
    Sample(.boolean(false), .boolean, "00"), Sample(.float(1.5), .float, "3fc00000"),
    Sample(.double(-0.5), .double, "bfe0000000000000"), Sample(.text("é"), .text, "c3a9"),
    Sample(.text(""), .text, ""), Sample(.text("a"), .ascii, "61"), Sample(.blob([0, 255]), .blob, "00ff"),
    Sample(.date(0), .date, "80000000"), Sample(.date(20_781), .date, "8000512d"),
    Sample(.date(.min), .date, "00000000"), Sample(.timestamp(-1), .timestamp, "ffffffffffffffff"),
    Sample(.time(1), .time, "0000000000000001"), Sample(.inet([127, 0, 0, 1]), .inet, "7f000001"),
    Sample(.uuid(CQLUUID(high: 1, low: 2)), .uuid, "00000000000000010000000000000002"),
    Sample(.varint([0, 0x80]), .varint, "0080"), Sample(.varint([0xFF, 0x7F]), .varint, "ff7f"),
    Sample(.decimal(scale: 2, unscaled: [5]), .decimal, "0000000205"),
    Sample(.duration(months: 0, days: 128_000, nanoseconds: -1), .duration, "00 c3e800 01"),
    Sample(
      .duration(months: .min, days: .max, nanoseconds: .min), .duration,
      "f0ffffffff f0fffffffe ffffffffffffffffff"),
    Sample(.list([.int(1), .int(2)]), .list(.int), "00000002 00000004 00000001 00000004 00000002"),
    Sample(.set([]), .set(.text), "00000000"),
    Sample(
      .map([.init(.text("a"), .boolean(true))]), .map(.text, .boolean), "00000001 00000001 61 00000001 01"),
    Sample(.tuple([.int(1), .null]), .tuple([.int, .text]), "00000004 00000001 ffffffff"),
    Sample(.tuple([.int(1), .text("x")]), pair, "00000004 00000001 00000001 78"),
    Sample(.empty, .int, ""), Sample(.empty, .timestamp, ""),
    Sample(.blob([1]), .custom("org.x.VectorType"), "01"),
  ]

  @Test("values have the bytes of the specification, and come back from them", arguments: samples)
  func samples(sample: Sample) throws {
    let bytes = try Self.bytes(sample.value, sample.type)
    #expect(bytes.dropFirst(4).elementsEqual(hex(sample.content)))
    #expect(try Self.read(bytes, sample.type) == sample.value)
  }

  @Test("null is -1 and unset is -2, for every type")
  func nullAndUnset() throws {
    for sample in Self.samples {
      #expect(try Self.bytes(.null, sample.type) == hex("ffffffff"))
      #expect(try Self.bytes(.unset, sample.type) == hex("fffffffe"))
      #expect(try Self.read(hex("ffffffff"), sample.type) == .null)
    }
  }

  @Test("a duration's numbers come back whatever their length", arguments: Seed.some(60))
  func vints(seed: Seed) throws {
    var random = seed.random
    let shift = Int64.random(in: 0..<64, using: &random)
    let value = Int64.random(in: .min ... .max, using: &random) >> shift
    var out = WireWriter()
    out.vint(value)
    try out.bytes.withUnsafeBytes { raw in
      var reader = WireReader(raw)
      let read = try reader.vint()
      #expect(read == value && reader.left == 0)
    }
  }

  @Test("a value of the wrong type, and null inside a collection, are the caller's mistakes")
  func mistakes() {
    #expect(throws: ValueError.mismatch(value: "int(1)", type: .text)) { try Self.bytes(.int(1), .text) }
    #expect(throws: ValueError.self) { try Self.bytes(.list([.null]), .list(.int)) }
    #expect(throws: ValueError.self) { try Self.bytes(.tuple([.unset]), .tuple([.int])) }
    #expect(throws: ValueError.self) { try Self.bytes(.tuple([.int(1), .int(2)]), .tuple([.int])) }
  }

  @Test("fields that a type gained later are null")
  func fewerFields() throws {
    #expect(try Self.read(hex("00000008 00000004 00000001"), Self.pair) == .tuple([.int(1), .null]))
  }

  @Test("values of a wrong length are refused")
  func lengths() {
    let wrong: [(String, CQLType)] = [
      ("00000003 000001", .int), ("00000005 0000000001", .int), ("00000003 010203", .inet),
      ("00000004 7fffffff", .list(.int)),
    ]
    for (content, type) in wrong {
      #expect(throws: CodecError.self, "\(type)") { try Self.read(hex(content), type) }
    }
  }

  @Test("types come back as they were written")
  func types() throws {
    for sample in Self.samples {
      var out = WireWriter()
      sample.type.write(into: &out)
      try out.bytes.withUnsafeBytes { raw in
        var reader = WireReader(raw)
        let read = try CQLType(&reader)
        #expect(read == sample.type)
      }
    }
  }

  @Test("a uuid is read and written in its usual form")
  func uuids() {
    let text = "00112233-4455-6677-8899-aabbccddeeff"
    #expect(CQLUUID(text) == CQLUUID(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF))
    #expect(CQLUUID(text.uppercased())?.description == text)
    #expect(CQLUUID("0011") == nil)
  }
}
