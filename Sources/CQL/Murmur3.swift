// Cassandra's Murmur3 token: the first half of MurmurHash3 x64 128 with seed 0, with a mistake that every node makes, so
// that every client must: the bytes behind the last whole block of 16 are sign-extended before they are shifted in.

enum Murmur3 {
  /// The token of a partition key's bytes.
  static func token(_ key: UnsafeRawBufferPointer) -> Int64 {
    if key.isEmpty { return .min }
    let hash = Int64(bitPattern: hash(key))
    return hash == .min ? .max : hash
  }

  private static let c1: UInt64 = 0x87C3_7B91_1142_53D5
  private static let c2: UInt64 = 0x4CF5_AD43_2745_937F

  private static func rotate(_ value: UInt64, _ by: UInt64) -> UInt64 { value << by | value >> (64 - by) }

  private static func finish(_ value: UInt64) -> UInt64 {
    var value = value
    value = (value ^ value >> 33) &* 0xFF51_AFD7_ED55_8CCD
    value = (value ^ value >> 33) &* 0xC4CE_B9FE_1A85_EC53
    return value ^ value >> 33
  }

  private static func hash(_ key: UnsafeRawBufferPointer) -> UInt64 {
    var h1: UInt64 = 0
    var h2: UInt64 = 0
    let blocks = key.count / 16
    for block in 0..<blocks {
      let k1 = UInt64(littleEndian: key.loadUnaligned(fromByteOffset: 16 * block, as: UInt64.self))
      let k2 = UInt64(littleEndian: key.loadUnaligned(fromByteOffset: 16 * block + 8, as: UInt64.self))
      h1 ^= rotate(k1 &* c1, 31) &* c2
      h1 = (rotate(h1, 27) &+ h2) &* 5 &+ 0x52DC_E729
      h2 ^= rotate(k2 &* c2, 33) &* c1
      h2 = (rotate(h2, 31) &+ h1) &* 5 &+ 0x3849_5AB5
    }
    var k1: UInt64 = 0
    var k2: UInt64 = 0
    let tail = key.count - 16 * blocks
    for index in 0..<tail {
      let byte = UInt64(bitPattern: Int64(Int8(bitPattern: key[16 * blocks + index])))
      if index < 8 { k1 ^= byte << UInt64(8 * index) } else { k2 ^= byte << UInt64(8 * (index - 8)) }
    }
    if tail > 8 { h2 ^= rotate(k2 &* c2, 33) &* c1 }
    if tail > 0 { h1 ^= rotate(k1 &* c1, 31) &* c2 }
    h1 ^= UInt64(key.count)
    h2 ^= UInt64(key.count)
    h1 = h1 &+ h2
    h2 = h2 &+ h1
    h1 = finish(h1)
    h2 = finish(h2)
    return h1 &+ h2
  }
}
