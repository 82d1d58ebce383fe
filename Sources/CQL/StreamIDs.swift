// The stream ids of a connection: which are free. Pure. Id 0 is never given out, so that an error that the server could
// not attribute, which comes on 0, is nobody's answer.

struct StreamIDs {
  private var taken: [UInt64] = [1]
  private var searchFrom = 0
  /// Ids given out.
  private(set) var count = 0
  let max: Int

  init(max: Int = CQLLimits.streamsMax) {
    precondition((1...CQLLimits.streamsMax).contains(max), "\(max) stream ids")
    self.max = max
  }

  /// The lowest free id; nil if as many as allowed are out. O(1) amortised over ids that come back in order.
  mutating func take() -> Int16? {
    guard count < max else { return nil }
    while searchFrom < taken.count, taken[searchFrom] == .max { searchFrom += 1 }
    if searchFrom == taken.count { taken.append(0) }
    let bit = (~taken[searchFrom]).trailingZeroBitCount
    taken[searchFrom] |= 1 << UInt64(bit)
    count += 1
    return Int16(truncatingIfNeeded: searchFrom * 64 + bit)
  }

  mutating func give(_ id: Int16) {
    let word = Int(id) / 64
    let mask: UInt64 = 1 << UInt64(id % 64)
    precondition(id > 0 && word < taken.count && taken[word] & mask != 0, "stream \(id) was not taken")
    taken[word] &= ~mask
    searchFrom = min(searchFrom, word)
    count -= 1
  }
}
