// Version 5 wraps envelopes in segments, from the byte after READY or AUTHENTICATE on. Little-endian here:
//
//     without compression             with LZ4
//     3 bytes: bits 0-16 length,      5 bytes: bits 0-16 length on the wire, 17-33 uncompressed length (0: left raw),
//              17 self-contained               34 self-contained
//     3 bytes: CRC24 of those         3 bytes: CRC24 of those
//     payload                         payload
//     4 bytes: CRC32 of the payload   4 bytes: CRC32 of the payload as on the wire
//
// A self-contained segment holds whole envelopes; any other a part of exactly one.

internal import Bytes

struct SegmentHeader: Equatable {
  static let payloadBytesMax = 131_071

  var wireBytes: Int
  /// 0 where the payload was left raw, and always without compression.
  var uncompressedBytes: Int
  var isSelfContained: Bool

  /// Bytes of a header with its checksum.
  static func byteCount(compressed: Bool) -> Int { compressed ? 8 : 6 }

  func write(compressed: Bool, into out: inout WireWriter) {
    let numberBytes = compressed ? 5 : 3
    var word = UInt64(wireBytes)
    if compressed {
      word |= UInt64(uncompressedBytes) << 17
      if isSelfContained { word |= 1 << 34 }
    } else if isSelfContained {
      word |= 1 << 17
    }
    let crc = Checksum.crc24(word, byteCount: numberBytes)
    for index in 0..<numberBytes { out.byte(UInt8(truncatingIfNeeded: word >> UInt64(8 * index))) }
    for index in 0..<3 { out.byte(UInt8(truncatingIfNeeded: crc >> UInt32(8 * index))) }
  }

  /// Reads a header of as many bytes as `byteCount` says.
  init(_ bytes: UnsafeRawBufferPointer, compressed: Bool) throws(CodecError) {
    let numberBytes = compressed ? 5 : 3
    guard bytes.count >= numberBytes + 3 else {
      throw .truncated(atByte: 0, wanted: numberBytes + 3, left: bytes.count)
    }
    var word: UInt64 = 0
    for index in 0..<numberBytes { word |= UInt64(bytes[index]) << UInt64(8 * index) }
    var crc: UInt32 = 0
    for index in 0..<3 { crc |= UInt32(bytes[numberBytes + index]) << UInt32(8 * index) }
    guard Checksum.crc24(word, byteCount: numberBytes) == crc else { throw .checksum("a segment's header") }
    wireBytes = Int(word & 0x1_FFFF)
    uncompressedBytes = compressed ? Int(word >> 17 & 0x1_FFFF) : 0
    isSelfContained = word >> (compressed ? 34 : 17) & 1 == 1
  }

  init(wireBytes: Int, uncompressedBytes: Int, isSelfContained: Bool) {
    self.wireBytes = wireBytes
    self.uncompressedBytes = uncompressedBytes
    self.isSelfContained = isSelfContained
  }
}

enum Segment {
  /// Appends one segment.
  ///
  /// - Parameters:
  ///   - payload: at most `SegmentHeader.payloadBytesMax` bytes.
  ///   - isSelfContained: whether it holds whole envelopes.
  ///   - compressed: whether LZ4 was agreed; a payload that does not shrink stays raw all the same.
  ///   - out: appended to.
  static func write(
    _ payload: UnsafeRawBufferPointer, isSelfContained: Bool, compressed: Bool, into out: inout WireWriter
  ) {
    precondition(payload.count <= SegmentHeader.payloadBytesMax, "a payload of \(payload.count) bytes")
    if compressed, let block = LZ4Block.compress(payload) {
      SegmentHeader(
        wireBytes: block.count, uncompressedBytes: payload.count, isSelfContained: isSelfContained
      ).write(compressed: true, into: &out)
      block.withUnsafeBytes { finish($0, into: &out) }
    } else {
      SegmentHeader(wireBytes: payload.count, uncompressedBytes: 0, isSelfContained: isSelfContained)
        .write(compressed: compressed, into: &out)
      finish(payload, into: &out)
    }
  }

  private static func finish(_ wire: UnsafeRawBufferPointer, into out: inout WireWriter) {
    out.raw(wire)
    let crc = Checksum.segmentCRC32(wire)
    out.integer(crc.byteSwapped)
  }
}
