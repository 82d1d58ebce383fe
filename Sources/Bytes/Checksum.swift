// CRC32C (Castagnoli, reflected, 0x82F63B78): by the processor's own instruction where it has one, three stretches at a
// time; elsewhere eight bytes a step with eight tables.

internal import CChecksum

/// CRC32C of bytes, as in iSCSI, ext4 and Kafka.
public enum Checksum {
  /// The checksum of `bytes`; or, given the checksum of what came before, that of both together.
  ///
  /// - Parameters:
  ///   - bytes: the bytes to sum up.
  ///   - previous: checksum of the bytes before these; 0 for none.
  /// - Returns: the finished checksum; "123456789" gives E3069283.
  /// - Complexity: O(bytes), about 8 bytes a cycle by the instruction, 2 by tables.
  public static func crc32c(_ bytes: UnsafeRawBufferPointer, after previous: UInt32 = 0) -> UInt32 {
    guard let place = bytes.baseAddress else { return previous }
    let words = bytes.count &>> 3
    let crc = hasInstruction ? byInstruction(~previous, place, words) : byTables(~previous, place, words)
    return ~rest(crc, place + 8 &* words, bytes.count & 7)
  }

  /// The same by tables, whatever the processor has.
  static func crc32cByTables(_ bytes: UnsafeRawBufferPointer, after previous: UInt32 = 0) -> UInt32 {
    guard let place = bytes.baseAddress else { return previous }
    let words = bytes.count &>> 3
    return ~rest(byTables(~previous, place, words), place + 8 &* words, bytes.count & 7)
  }

  private static let hasInstruction = rms_has_crc32c() != 0

  /// Words of each of three stretches that are summed up side by side.
  private static let stretchWords = 512

  private static func byInstruction(_ crc: UInt32, _ start: UnsafeRawPointer, _ words: Int) -> UInt32 {
    var crc = crc
    var place = start
    var left = words
    while left >= 3 * stretchWords {
      var sums: (UInt32, UInt32, UInt32) = (crc, 0, 0)
      withUnsafeMutableBytes(of: &sums) {
        rms_crc32c_three($0.baseAddress?.assumingMemoryBound(to: UInt32.self), place, stretchWords)
      }
      crc = behindStretch(behindStretch(sums.0) ^ sums.1) ^ sums.2
      place += 24 * stretchWords
      left -= 3 * stretchWords
    }
    return rms_crc32c(crc, place, left)
  }

  /// The effect of a register when a stretch of zeros follows; the effects of its four bytes add up.
  private static func behindStretch(_ crc: UInt32) -> UInt32 {
    let table = stretchTable
    return table[Int(crc & 0xFF)] ^ table[256 + Int(crc >> 8 & 0xFF)] ^ table[512 + Int(crc >> 16 & 0xFF)]
      ^ table[768 + Int(crc >> 24)]
  }

  /// Byte k of a register at 256·k: what becomes of it behind a stretch of zeros.
  nonisolated(unsafe) private static let stretchTable: UnsafePointer<UInt32> = {
    let zeros = UnsafeMutableRawPointer.allocate(byteCount: 8 * stretchWords, alignment: 8)
    defer { zeros.deallocate() }
    zeros.initializeMemory(as: UInt8.self, repeating: 0, count: 8 * stretchWords)
    let table = UnsafeMutablePointer<UInt32>.allocate(capacity: 4 * 256)
    for byte in 0..<4 {
      for value in 0..<256 {
        table[256 * byte + value] = byTables(UInt32(value) << UInt32(8 * byte), zeros, stretchWords)
      }
    }
    return UnsafePointer(table)
  }()

  private static func byTables(_ crc: UInt32, _ start: UnsafeRawPointer, _ words: Int) -> UInt32 {
    byTables(crc, start, words, tables)
  }

  static func byTables(
    _ crc: UInt32, _ start: UnsafeRawPointer, _ words: Int, _ table: UnsafePointer<UInt32>
  ) -> UInt32 {
    var crc = crc
    var place = start
    for _ in 0..<words {
      let word = UInt64(littleEndian: place.loadUnaligned(as: UInt64.self)) ^ UInt64(crc)
      // Split in two so that no expression waits for more than four look-ups.
      let low =
        table[1792 + Int(word & 0xFF)] ^ table[1536 + Int(word >> 8 & 0xFF)]
        ^ table[1280 + Int(word >> 16 & 0xFF)] ^ table[1024 + Int(word >> 24 & 0xFF)]
      let high =
        table[768 + Int(word >> 32 & 0xFF)] ^ table[512 + Int(word >> 40 & 0xFF)]
        ^ table[256 + Int(word >> 48 & 0xFF)] ^ table[Int(word >> 56)]
      crc = low ^ high
      place += 8
    }
    return crc
  }

  /// The last bytes, fewer than eight.
  private static func rest(_ crc: UInt32, _ place: UnsafeRawPointer, _ count: Int) -> UInt32 {
    rest(crc, place, count, tables)
  }

  static func rest(
    _ crc: UInt32, _ place: UnsafeRawPointer, _ count: Int, _ table: UnsafePointer<UInt32>
  ) -> UInt32 {
    var crc = crc
    for i in 0..<count {
      crc = crc >> 8 ^ table[Int((crc ^ UInt32(place.load(fromByteOffset: i, as: UInt8.self))) & 0xFF)]
    }
    return crc
  }

  /// Table k at 256·k: the effect of a byte followed by k zero bytes. Filled once, never written again, never freed.
  nonisolated(unsafe) private static let tables = makeTables(0x82F6_3B78)

  /// The eight tables of a reflected polynomial.
  static func makeTables(_ polynomial: UInt32) -> UnsafePointer<UInt32> {
    let table = UnsafeMutablePointer<UInt32>.allocate(capacity: 8 * 256)
    for byte in 0..<256 {
      var crc = UInt32(byte)
      for _ in 0..<8 { crc = crc >> 1 ^ (crc & 1 == 1 ? polynomial : 0) }
      table[byte] = crc
    }
    for index in 256..<2048 {
      let before = table[index - 256]
      table[index] = before >> 8 ^ table[Int(before & 0xFF)]
    }
    return UnsafePointer(table)
  }
}
