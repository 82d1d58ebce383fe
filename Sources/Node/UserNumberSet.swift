// A set of user numbers of one shard, a bit each.

import RankIndex

/// One thread at a time.
struct UserNumberSet {
  private var words: [UInt64] = []

  /// Takes a number.
  ///
  /// - Parameter number: of a user.
  /// - Returns: whether it is new to the set.
  @inline(__always) mutating func insert(_ number: UserNumber) -> Bool {
    let word = Int(number >> 6)
    if word >= words.count {
      words += [UInt64](repeating: 0, count: max(word + 1 - words.count, words.count))
    }
    let bit = UInt64(1) << UInt64(number & 63)
    if words[word] & bit != 0 { return false }
    words[word] |= bit
    return true
  }
}
