// The two checksums of CQL's version 5: a CRC24 over a segment's header, and zlib's CRC32 over its payload, begun with
// four fixed bytes.

extension Checksum {
  /// The CRC24 of a segment's header.
  ///
  /// - Parameters:
  ///   - header: the bytes, the first in the lowest eight bits.
  ///   - byteCount: how many of them count, 3 or 5.
  /// - Returns: 24 bits, stored little-endian behind the header.
  public static func crc24(_ header: UInt64, byteCount: Int) -> UInt32 {
    precondition((1...8).contains(byteCount), "a header of \(byteCount) bytes")
    var crc: UInt32 = 0x87_5060
    for index in 0..<byteCount {
      crc ^= UInt32(truncatingIfNeeded: header >> UInt64(8 * index) & 0xFF) << 16
      for _ in 0..<8 {
        crc <<= 1
        if crc & 0x100_0000 != 0 { crc ^= 0x197_4F0B }
      }
    }
    return crc
  }

  /// The CRC32 of a segment's payload: zlib's, over FA 2D 55 CA and then the payload.
  ///
  /// - Parameter payload: as on the wire, so compressed where it is.
  /// - Returns: 32 bits, stored little-endian behind the payload.
  /// - Complexity: O(bytes), about 2 bytes a cycle.
  public static func segmentCRC32(_ payload: UnsafeRawBufferPointer) -> UInt32 {
    // The register after the four bytes; their own checksum is its complement, 44777ED3.
    let start: UInt32 = ~0x4477_7ED3
    guard let place = payload.baseAddress else { return ~start }
    let words = payload.count &>> 3
    let crc = byTables(start, place, words, zlibTables)
    return ~rest(crc, place + 8 &* words, payload.count & 7, zlibTables)
  }

  nonisolated(unsafe) private static let zlibTables = makeTables(0xEDB8_8320)
}
