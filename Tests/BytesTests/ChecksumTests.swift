import TestSupport
import Testing

@testable import Bytes

@Suite("checksums, hexadecimal text, UTF-8")
struct ChecksumTests {
  /// A bit at a time: the definition.
  private func slow(_ bytes: [UInt8]) -> UInt32 {
    var crc = UInt32.max
    for byte in bytes {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82F6_3B78 : crc >> 1 }
    }
    return ~crc
  }

  @Test("CRC32C of known texts (RFC 3720, B.4)")
  func known() {
    #expect(Array("123456789".utf8).withUnsafeBytes { Checksum.crc32c($0) } == 0xE306_9283)
    #expect([UInt8](repeating: 0, count: 32).withUnsafeBytes { Checksum.crc32c($0) } == 0x8A91_36AA)
    #expect([UInt8](repeating: 0xFF, count: 32).withUnsafeBytes { Checksum.crc32c($0) } == 0x62A8_AB43)
    #expect([UInt8]().withUnsafeBytes { Checksum.crc32c($0) } == 0)
  }

  @Test("CRC32C is that of its definition, whole or in parts, at any alignment", arguments: Seed.some(50))
  func parts(seed: Seed) {
    var random = seed.random
    let bytes = (0..<Int.random(in: 0..<100, using: &random)).map { _ in
      UInt8.random(in: 0...255, using: &random)
    }
    let cut = Int.random(in: 0...bytes.count, using: &random)
    bytes.withUnsafeBytes { raw in
      let first = Checksum.crc32c(UnsafeRawBufferPointer(rebasing: raw[..<cut]))
      #expect(Checksum.crc32c(UnsafeRawBufferPointer(rebasing: raw[cut...]), after: first) == slow(bytes))
    }
  }

  @Test("CRC32C of long stretches is the same by the processor and by tables", arguments: Seed.some(20))
  func stretches(seed: Seed) {
    var random = seed.random
    let bytes = (0..<Int.random(in: 12_000..<40_000, using: &random)).map { _ in
      UInt8.random(in: 0...255, using: &random)
    }
    let begin = Int.random(in: 0..<9, using: &random)
    let before = UInt32.random(in: 0 ... .max, using: &random)
    bytes.withUnsafeBytes { raw in
      let part = UnsafeRawBufferPointer(rebasing: raw[begin...])
      let tables = Checksum.crc32cByTables(part, after: before)
      #expect(Checksum.crc32c(part, after: before) == tables)
      #expect(begin > 0 || before > 0 || tables == slow(bytes))
      #expect(Checksum.crc32cByTables(raw) == slow(bytes))
    }
  }

  @Test("hexadecimal text reads back, and bad text is none")
  func hex() {
    let all = (0...255).map { UInt8($0) }
    #expect(Hex.bytes(Hex.text(all)) == all)
    #expect(Hex.bytes(" 0A ff\n") == [10, 255])
    for bad in ["0", "0g", "0 a", "é0"] { #expect(Hex.bytes(bad) == nil, "\(bad)") }
    let dump = Array("GET / HTTP/1.1\r\nHost".utf8).withUnsafeBytes { Hex.dump($0, bytesMax: 17) }
    #expect(dump.contains("GET / HTTP/1.1.."))
    #expect(dump.hasSuffix("… 3 more bytes"))
  }

  @Test("UTF-8 is accepted exactly where Swift's own decoder repairs nothing", arguments: Seed.some(200))
  func utf8(seed: Seed) {
    var random = seed.random
    let edges: [UInt8] = [
      0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEE,
      0xEF,
      0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
    ]
    for _ in 0..<200 {
      let bytes = (0..<Int.random(in: 0..<12, using: &random)).map { _ in edges.randomElement(using: &random)!
      }
      let expected = String(validating: bytes, as: UTF8.self) != nil
      #expect(bytes.withUnsafeBytes { UTF8Check.isValid($0) } == expected, "\(Hex.text(bytes))")
    }
  }
}
