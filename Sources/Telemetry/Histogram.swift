// Latencies in buckets whose width grows with the value: 32 to each doubling, so that any percentile is at most 3.2 %
// above the truth. Recording is one relaxed atomic addition to a bucket and one to the sum.
//
//     value < 32:  bucket = value
//     else:        e = index of the top bit (5...63), bucket = (e - 4) · 32 + the next 5 bits below it

import Synchronization

/// A histogram of nanoseconds. Any thread records and reads.
public final class Histogram: Sendable {
  static let bucketCount = 60 * 32

  private struct Cells: @unchecked Sendable {
    // Unchecked: atomics in memory that lives as long as the histogram.
    let buckets: UnsafeMutablePointer<Atomic<UInt64>>
  }

  private let cells: Cells
  private let sum = Atomic<UInt64>(0)
  private let largest = Atomic<UInt64>(0)

  public init() {
    cells = Cells(buckets: .allocate(capacity: Histogram.bucketCount))
    for index in 0..<Histogram.bucketCount { (cells.buckets + index).initialize(to: Atomic(0)) }
  }

  deinit {
    cells.buckets.deinitialize(count: Histogram.bucketCount)
    cells.buckets.deallocate()
  }

  /// The bucket of a value.
  static func bucket(_ value: UInt64) -> Int {
    if value < 32 { return Int(value) }
    let top = 63 - value.leadingZeroBitCount
    return (top - 4) * 32 + Int(value >> UInt64(top - 5) & 31)
  }

  /// The greatest value of a bucket.
  static func upperBound(_ bucket: Int) -> UInt64 {
    if bucket < 32 { return UInt64(bucket) }
    let top = UInt64(bucket / 32 + 4)
    let low = 1 << top | UInt64(bucket % 32) << (top - 5)
    return low + (1 << (top - 5) - 1)
  }

  /// Records a value.
  ///
  /// - Parameters:
  ///   - nanoseconds: the value.
  ///   - times: how often it occurred.
  public func record(nanoseconds: UInt64, times: UInt64 = 1) {
    cells.buckets[Histogram.bucket(nanoseconds)].add(times, ordering: .relaxed)
    sum.add(nanoseconds &* times, ordering: .relaxed)
    // Not `Atomic.max`: Swift 6.0.3 compares unsigned integers as signed ones there.
    var seen = largest.load(ordering: .relaxed)
    while nanoseconds > seen {
      let (exchanged, original) = largest.weakCompareExchange(
        expected: seen, desired: nanoseconds, ordering: .relaxed)
      if exchanged { break }
      seen = original
    }
  }

  /// Records a duration; a negative one counts as 0.
  ///
  /// - Parameter duration: the value.
  public func record(_ duration: Duration) {
    let (seconds, attoseconds) = duration.components
    record(nanoseconds: UInt64(max(0, seconds * 1_000_000_000 + attoseconds / 1_000_000_000)))
  }

  /// A copy of the counts; values recorded meanwhile may be missing from it.
  ///
  /// - Returns: the copy.
  public func snapshot() -> Snapshot {
    var snapshot = Snapshot()
    for index in 0..<Histogram.bucketCount {
      snapshot.buckets[index] = cells.buckets[index].load(ordering: .relaxed)
    }
    snapshot.count = snapshot.buckets.reduce(0, &+)
    snapshot.sum = sum.load(ordering: .relaxed)
    snapshot.largest = largest.load(ordering: .relaxed)
    return snapshot
  }

  /// Counts of a moment, or gathered by one thread.
  public struct Snapshot: Hashable, Sendable {
    fileprivate var buckets = [UInt64](repeating: 0, count: bucketCount)
    /// Values recorded.
    public fileprivate(set) var count: UInt64 = 0
    /// Their sum, in nanoseconds.
    public fileprivate(set) var sum: UInt64 = 0
    /// The greatest, in nanoseconds.
    public fileprivate(set) var largest: UInt64 = 0

    public init() {}

    /// Records a value.
    ///
    /// - Parameters:
    ///   - nanoseconds: the value.
    ///   - times: how often it occurred.
    public mutating func record(nanoseconds: UInt64, times: UInt64 = 1) {
      buckets[bucket(nanoseconds)] += times
      count += times
      sum &+= nanoseconds &* times
      largest = max(largest, nanoseconds)
    }

    /// Adds another's counts.
    ///
    /// - Parameter other: the other.
    public mutating func merge(_ other: Snapshot) {
      for index in buckets.indices { buckets[index] += other.buckets[index] }
      count += other.count
      sum &+= other.sum
      largest = max(largest, other.largest)
    }

    /// The value below or at which a share of all lies.
    ///
    /// - Parameter percent: 0...100.
    /// - Returns: nanoseconds, at most 3.2 % above the truth; nil if nothing was recorded.
    public func percentile(_ percent: Double) -> UInt64? {
      guard count > 0 else { return nil }
      let wanted = max(1, UInt64((percent / 100 * Double(count)).rounded(.up)))
      var seen: UInt64 = 0
      for (index, bucketCount) in buckets.enumerated() where bucketCount > 0 {
        seen += bucketCount
        if seen >= wanted { return min(upperBound(index), largest) }
      }
      return largest
    }

    /// The mean, in nanoseconds; nil if nothing was recorded.
    public var mean: UInt64? { count > 0 ? sum / count : nil }

    /// Values in buckets that lie wholly at or below a bound.
    ///
    /// - Parameter nanoseconds: the bound.
    /// - Returns: their count.
    public func countUpTo(nanoseconds: UInt64) -> UInt64 {
      var total: UInt64 = 0
      for (index, bucketCount) in buckets.enumerated() {
        if upperBound(index) > nanoseconds { break }
        total += bucketCount
      }
      return total
    }
  }
}
