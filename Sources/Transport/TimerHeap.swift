// Timers in order: a binary heap of moments with a tag each. Pure.

public import Posix

/// A binary heap of timers, earliest first; equal moments in the order they were set.
public struct TimerHeap: Sendable {
  private struct Entry {
    var moment: Moment
    var order: UInt64
    var tag: UInt64

    func precedes(_ other: Entry) -> Bool {
      moment != other.moment ? moment < other.moment : order < other.order
    }
  }

  private var entries: [Entry] = []
  private var orderNext: UInt64 = 0

  public init() {}

  /// Timers set and not taken.
  public var count: Int { entries.count }

  /// The earliest moment; nil if there are no timers.
  public var first: Moment? { entries.first?.moment }

  /// Sets a timer.
  ///
  /// - Parameters:
  ///   - moment: when.
  ///   - tag: comes back when it is due.
  /// - Complexity: O(log n).
  public mutating func push(_ moment: Moment, tag: UInt64) {
    entries.append(Entry(moment: moment, order: orderNext, tag: tag))
    orderNext += 1
    var child = entries.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard entries[child].precedes(entries[parent]) else { break }
      entries.swapAt(child, parent)
      child = parent
    }
  }

  /// Takes the earliest timer if it is due.
  ///
  /// - Parameter now: the clock.
  /// - Returns: its tag; nil if none is due.
  /// - Complexity: O(log n).
  public mutating func popDue(now: Moment) -> UInt64? {
    guard let first = entries.first, first.moment <= now else { return nil }
    let last = entries.removeLast()
    if entries.isEmpty { return first.tag }
    entries[0] = last
    var parent = 0
    while true {
      var smallest = parent
      for child in [2 * parent + 1, 2 * parent + 2]
      where child < entries.count && entries[child].precedes(entries[smallest]) { smallest = child }
      if smallest == parent { return first.tag }
      entries.swapAt(parent, smallest)
      parent = smallest
    }
  }
}
