// Rows of a board, and the scratch memory in which a reader puts ties in order.
//
// The index keeps users with equal steps in no order; whoever reads them sorts copies of their keys, here.
internal import CPrefetch

/// One row of a board.
@frozen public struct BoardRow: Hashable, Sendable, BitwiseCopyable {
  /// The user, by the shard's number.
  public var number: UserNumber
  /// Steps, 1 or more.
  public var total: UInt32

  @inlinable public init(number: UserNumber, total: UInt32) {
    self.number = number
    self.total = total
  }
}

/// Memory a reader lends to `Board.rows`; one reader at a time. It grows to the largest tie that is kept unsorted
/// (a few thousand users) and stays.
public final class RowScratch {
  private(set) var keys: UnsafeMutablePointer<SortKey>
  private var capacity: Int

  /// Scratch of 48 KB.
  public init() {
    capacity = 3 * 1024
    keys = .allocate(capacity: capacity)
  }

  deinit { keys.deallocate() }

  func need(_ count: Int) {
    guard count > capacity else { return }
    keys.deallocate()
    capacity = count
    keys = .allocate(capacity: capacity)
  }
}

/// A user as sorting sees it: (total descending, id ascending) is (descent, prefix, exact id) ascending.
struct SortKey: BitwiseCopyable {
  var prefix: UInt64
  var number: UInt32
  /// `UInt32.max` - total.
  var descent: UInt32
}

struct KeySorter {
  let users: UnsafeMutablePointer<UserTable>

  @inline(__always) func precedes(_ a: SortKey, _ b: SortKey) -> Bool {
    if a.descent != b.descent { return a.descent < b.descent }
    if a.prefix != b.prefix { return a.prefix < b.prefix }
    return users.pointee.precedes(a.number, b.number)
  }

  /// Fills in the prefixes of keys that have their numbers.
  func fill(_ keys: UnsafeMutablePointer<SortKey>, _ count: Int) {
    for i in 0..<min(16, count) { rms_prefetch(users.pointee.ids + Int(keys[i].number)) }
    for i in 0..<count {
      if i + 16 < count { rms_prefetch(users.pointee.ids + Int(keys[i + 16].number)) }
      keys[i].prefix = users.pointee.prefix(keys[i].number)
    }
  }

  /// Sorts in place.
  ///
  /// - Complexity: O(n log n) whatever the input: past a depth the range is sorted by heap.
  func sort(_ keys: UnsafeMutablePointer<SortKey>, _ count: Int) {
    // Depth 2 log2 n.
    sort(keys, 0, count, depth: 2 * (Int.bitWidth - count.leadingZeroBitCount))
  }

  private func sort(_ keys: UnsafeMutablePointer<SortKey>, _ from: Int, _ to: Int, depth: Int) {
    var (low, high, depth) = (from, to, depth)
    while high - low > 16 {
      if depth == 0 { return heapSort(keys + low, high - low) }
      depth -= 1
      let cut = partition(keys, low, high)
      if cut - low < high - cut {
        sort(keys, low, cut, depth: depth)
        low = cut
      } else {
        sort(keys, cut, high, depth: depth)
        high = cut
      }
    }
    insertionSort(keys + low, high - low)
  }

  /// Moves the `nth` smallest to its place, smaller ones before it, greater ones after it.
  func select(_ keys: UnsafeMutablePointer<SortKey>, _ count: Int, nth: Int) {
    var (low, high, depth) = (0, count, 2 * (Int.bitWidth - count.leadingZeroBitCount))
    while high - low > 16 {
      if depth == 0 { return heapSort(keys + low, high - low) }
      depth -= 1
      let cut = partition(keys, low, high)
      if nth < cut { high = cut } else { low = cut }
    }
    insertionSort(keys + low, high - low)
  }

  /// Orders keys only so far that each multiple of `piece` holds the key it would hold in full order, with smaller
  /// ones before and greater ones after it.
  ///
  /// - Complexity: O(n log(n / piece)) expected.
  func selectMultiples(_ keys: UnsafeMutablePointer<SortKey>, _ count: Int, piece: Int) {
    let pieces = (count + piece - 1) / piece
    guard pieces > 1 else { return select(keys, count, nth: 0) }
    let middle = pieces / 2 * piece
    select(keys, count, nth: middle)
    selectMultiples(keys, middle, piece: piece)
    selectMultiples(keys + middle, count - middle, piece: piece)
  }

  /// Hoare's partition around the median of three.
  ///
  /// - Returns: a cut strictly inside: nothing before it is greater than anything after it.
  private func partition(_ keys: UnsafeMutablePointer<SortKey>, _ low: Int, _ high: Int) -> Int {
    let (a, b, c) = (keys[low], keys[(low + high) / 2], keys[high - 1])
    let pivot: SortKey
    if precedes(a, b) {
      pivot = precedes(b, c) ? b : precedes(a, c) ? c : a
    } else {
      pivot = precedes(a, c) ? a : precedes(b, c) ? c : b
    }
    var (i, j) = (low - 1, high)
    while true {
      repeat { i += 1 } while precedes(keys[i], pivot)
      repeat { j -= 1 } while precedes(pivot, keys[j])
      if i >= j { return j + 1 }
      let moved = keys[i]
      keys[i] = keys[j]
      keys[j] = moved
    }
  }

  private func insertionSort(_ keys: UnsafeMutablePointer<SortKey>, _ count: Int) {
    guard count > 1 else { return }
    for i in 1..<count {
      let key = keys[i]
      var j = i
      while j > 0 && precedes(key, keys[j - 1]) {
        keys[j] = keys[j - 1]
        j -= 1
      }
      keys[j] = key
    }
  }

  private func heapSort(_ keys: UnsafeMutablePointer<SortKey>, _ count: Int) {
    func sink(_ start: Int, _ end: Int) {
      var root = start
      while 2 * root + 1 < end {
        var child = 2 * root + 1
        if child + 1 < end && precedes(keys[child], keys[child + 1]) { child += 1 }
        guard precedes(keys[root], keys[child]) else { return }
        let moved = keys[root]
        keys[root] = keys[child]
        keys[child] = moved
        root = child
      }
    }
    guard count > 1 else { return }
    for start in stride(from: count / 2 - 1, through: 0, by: -1) { sink(start, count) }
    for end in stride(from: count - 1, to: 0, by: -1) {
      let moved = keys[0]
      keys[0] = keys[end]
      keys[end] = moved
      sink(0, end)
    }
  }
}
