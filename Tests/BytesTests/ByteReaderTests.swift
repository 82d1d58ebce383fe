import Bytes
import TestSupport
import Testing

@Suite("reading and writing bytes")
struct ByteReaderTests {
  @Test("a read past the end throws, says where, and consumes nothing")
  func truncated() {
    let bytes: [UInt8] = [1, 2, 3]
    bytes.withUnsafeBytes { raw in
      var reader = ByteReader(raw)
      #expect(throws: Never.self) { try reader.integer(UInt16.self) }
      #expect(throws: ByteError.truncated(atByte: 2, wanted: 4, left: 1)) { try reader.integer(UInt32.self) }
      #expect(reader.left == 1)
      #expect(throws: ByteError.truncated(atByte: 2, wanted: 2, left: 1)) { try reader.bytes(2) }
      #expect(throws: ByteError.trailing(atByte: 2, left: 1)) { try reader.end() }
      #expect(throws: ByteError.truncated(atByte: 2, wanted: -1, left: 1)) { try reader.bytes(-1) }
    }
  }

  @Test("what is written is read back", arguments: Seed.some(20))
  func roundTrip(seed: Seed) throws {
    var random = seed.random
    var writer = ByteWriter(limit: 100_000, reserved: 16)
    var expected: [(Int, UInt64, [UInt8])] = []
    for _ in 0..<200 {
      let value = random.next() as UInt64
      let kind = Int.random(in: 0..<5, using: &random)
      let bytes = (0..<Int.random(in: 0..<40, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      expected.append((kind, value, bytes))
      switch kind {
      case 0: writer.integer(UInt8(truncatingIfNeeded: value))
      case 1: writer.integer(UInt16(truncatingIfNeeded: value))
      case 2: writer.integer(Int32(truncatingIfNeeded: value))
      case 3: writer.integer(value)
      default: bytes.withUnsafeBytes { writer.bytes8($0) }
      }
    }
    var reader = ByteReader(writer.unsafeBytes)
    for (kind, value, bytes) in expected {
      switch kind {
      case 0: #expect(try reader.integer() == UInt8(truncatingIfNeeded: value))
      case 1: #expect(try reader.integer() == UInt16(truncatingIfNeeded: value))
      case 2: #expect(try reader.integer() == Int32(truncatingIfNeeded: value))
      case 3: #expect(try reader.integer() == value)
      default: #expect(Array(try reader.bytes8()) == bytes)
      }
    }
    try reader.end()
  }

  @Test("integers are little-endian")
  func littleEndian() {
    var writer = ByteWriter(limit: 64)
    writer.integer(UInt32(0x0403_0201))
    writer.integer(Int16(-2))
    #expect(writer.array == [1, 2, 3, 4, 0xFE, 0xFF])
  }

  @Test("an append beyond the limit is dropped, and so are later ones until it is truncated")
  func limit() {
    var writer = ByteWriter(limit: 20, reserved: 16)
    writer.bytes(Array(repeating: 7, count: 18))
    writer.integer(UInt32(1))
    #expect(writer.overflowed == true)
    writer.integer(UInt8(1))
    #expect(writer.count == 18)
    #expect(writer.capacity <= 20)
    writer.truncate(to: 16)
    writer.integer(UInt32(9))
    #expect(writer.overflowed == false)
    #expect(writer.array.suffix(5) == [7, 9, 0, 0, 0])
  }

  @Test("a patch changes bytes already written and no others")
  func patch() {
    var writer = ByteWriter(limit: 64)
    writer.integer(UInt32(0))
    writer.integer(UInt8(5))
    writer.patch(UInt32(0x0A0B_0C0D), at: 0)
    writer.patch(UInt32.max, at: 2)
    #expect(writer.array == [0x0D, 0x0C, 0x0B, 0x0A, 5])
  }

  @Test("memory is kept between uses and given back on demand")
  func reuse() {
    var writer = ByteWriter(limit: 1 << 20)
    writer.bytes(Array(repeating: 1, count: 5_000))
    let capacity = writer.capacity
    writer.removeFirst(4_990)
    #expect(writer.array == Array(repeating: 1, count: 10))
    writer.removeAll()
    #expect(writer.capacity == capacity)
    writer.integer(UInt8(3))
    writer.shrink(to: 64)
    #expect(writer.capacity == 64)
    #expect(writer.array == [3])
  }

  @Test("texts too long for their length are cut at a character")
  func cutText() throws {
    var writer = ByteWriter(limit: 1_000)
    writer.text8(String(repeating: "é", count: 200))
    var reader = ByteReader(writer.unsafeBytes)
    let text = try reader.bytes8()
    #expect(text.count == 254)
    #expect(UTF8Check.isValid(text))
    try reader.end()
  }
}
