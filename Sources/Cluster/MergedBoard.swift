// One board over several shards: what a reader sees as a single ranking. Exact, because counts add up: users above a
// total in all shards are the sum of those in each, and so are rows before a row.
//
//     shard 0   9 7 7 4        merged position of a row = sum over shards of the rows before it
//     shard 1   8 7 2          page from position p: find where p falls in each shard, then merge k ways
//
// The caller keeps the shards still (inside their gates) from `open` to `close`.

public import QueryProtocol
public import RankIndex
public import StepModel

/// A row of a merged board; the key is good as long as the shards stand still.
public struct MergedRow {
  public var position: Int
  public var rank: Int
  public var tied: Int
  public var steps: UInt64
  public var user: UserKey

  public init(position: Int, rank: Int, tied: Int, steps: UInt64, user: UserKey) {
    self.position = position
    self.rank = rank
    self.tied = tied
    self.steps = steps
    self.user = user
  }
}

/// A board as the sum of its shards. One reader has one and opens it on a board after the other; not for two threads.
public final class MergedBoard {
  private let tiesSortedMax: Int

  /// Users of all shards. A user counted in two shards counts twice here.
  public private(set) var users = 0
  /// Steps of all users.
  public private(set) var totalSteps: UInt64 = 0

  /// Keeps the boards alive; they are read through `parts`, without counting references for each question.
  private var owned: [Board] = []
  private var parts: UnsafeMutablePointer<Unmanaged<Board>>
  private var partsMax = 8
  private var count = 0
  private let rowScratch = RowScratch()
  private var rows: [[BoardRow]] = []
  private var starts: [Int] = []
  private var ends: [Int] = []
  private var cuts: [Int] = []

  /// - Parameter tiesSortedMax: users of one total up to this many are sorted to find a place among them; beyond,
  ///   places are found by bisection.
  public init(tiesSortedMax: Int = 4_096) {
    self.tiesSortedMax = tiesSortedMax
    parts = .allocate(capacity: partsMax)
  }

  deinit { parts.deallocate() }

  /// Reads these boards from here on.
  ///
  /// - Parameter boards: the same period in each shard that has it; they stand still until `close`.
  public func open(_ boards: [Board]) {
    if boards.count > partsMax {
      parts.deallocate()
      partsMax = boards.count * 2
      parts = .allocate(capacity: partsMax)
    }
    owned = boards
    count = boards.count
    users = 0
    totalSteps = 0
    for (index, board) in boards.enumerated() {
      parts[index] = Unmanaged.passUnretained(board)
      users += board.users
      totalSteps += board.totalSteps
    }
    while rows.count < count { rows.append([]) }
  }

  /// Lets go of the boards.
  public func close() {
    owned.removeAll(keepingCapacity: true)
    count = 0
    users = 0
    totalSteps = 0
  }

  @inline(__always) private func part<R>(_ index: Int, _ body: (Board) -> R) -> R {
    parts[index]._withUnsafeGuaranteedRef(body)
  }

  /// Looks many users up in all shards at once, which overlaps their waits for memory.
  ///
  /// - Parameters:
  ///   - keys: the ids.
  ///   - found: room for as many entries: the user's total over all shards, and in how many shards there is one.
  public func totals(
    of keys: UnsafeBufferPointer<UserKey>, into found: UnsafeMutablePointer<(total: UInt64, shards: Int)>
  ) {
    for index in 0..<keys.count { found[index] = (0, 0) }
    withUnsafeTemporaryAllocation(of: UInt32.self, capacity: keys.count) { totals in
      for shard in 0..<count {
        part(shard) { $0.totals(of: keys, into: totals) }
        for index in 0..<keys.count where totals[index] > 0 {
          found[index].total += UInt64(totals[index])
          found[index].shards += 1
        }
      }
    }
  }

  // MARK: Counting

  /// Users with strictly more steps.
  ///
  /// - Complexity: O(shards).
  public func countAbove(_ steps: UInt64) -> Int {
    guard let steps = UInt32(exactly: steps) else { return 0 }
    var count = 0
    for index in 0..<self.count { count += part(index) { $0.countAbove(steps) } }
    return count
  }

  /// Users with exactly so many steps.
  public func tied(_ steps: UInt64) -> Int {
    guard let steps = UInt32(exactly: steps) else { return 0 }
    var count = 0
    for index in 0..<self.count { count += part(index) { $0.tied(steps) } }
    return count
  }

  /// The total at a position from the top; nil past the end.
  ///
  /// - Complexity: O(32 · shards).
  public func total(at position: Int) -> UInt32? {
    guard position >= 0, position < users else { return nil }
    if count == 1 { return part(0) { $0.total(at: position) } }
    var low: UInt32 = 1
    var high = UInt32.max
    // The smallest total with at most `position` users above it.
    while low < high {
      let middle = low + (high - low) / 2
      if countAbove(UInt64(middle)) <= position { high = middle } else { low = middle + 1 }
    }
    return low
  }

  /// The nearest-rank quantile: the total at position ⌈q·users/100⌉ from the bottom; 0 on an empty board.
  ///
  /// - Parameter percent: 1...100.
  /// - Returns: steps.
  public func quantile(_ percent: Int) -> UInt32 {
    let fromBottom = (percent * users + 99) / 100
    return total(at: users - max(1, fromBottom)) ?? 0
  }

  /// Where a user stands. Counted in several shards, the totals add up, and the user is one.
  ///
  /// - Parameter user: any user id.
  /// - Returns: the answer, and in how many shards the user was found.
  public func rank(_ user: UserKey) -> (answer: RankAnswer, foundIn: Int) {
    var total: UInt64 = 0
    var foundIn = 0
    for index in 0..<count {
      let steps = part(index) { board in board.number(of: user).map { board.total(of: $0) } ?? 0 }
      if steps > 0 {
        total += UInt64(steps)
        foundIn += 1
      }
    }
    return (rank(total: total, foundIn: foundIn), foundIn)
  }

  /// The answer for a total that a user has in so many shards; 0 and 0 for a user who is on none.
  public func rank(total: UInt64, foundIn: Int) -> RankAnswer {
    let above = countAbove(total)
    // In several shards, the parts are smaller than their sum: none of them is above it or ties with it.
    let tied = foundIn == 0 ? 0 : foundIn == 1 ? tied(total) : tied(total) + 1
    return RankAnswer(
      onBoard: foundIn > 0, rank: UInt64(above + 1), tied: UInt64(tied), steps: total,
      users: UInt64(users - max(0, foundIn - 1)), above: UInt64(above), nextAboveSteps: nextAbove(total),
      nextBelowSteps: nextBelow(total))
  }

  /// The greatest total that a user has in any one shard; 0 for none.
  ///
  /// - Parameter user: any user id.
  /// - Returns: steps.
  public func greatestPart(of user: UserKey) -> UInt32 {
    owned.reduce(0) { greatest, board in
      max(greatest, board.number(of: user).map { board.total(of: $0) } ?? 0)
    }
  }

  private func nextAbove(_ steps: UInt64) -> UInt64? {
    guard let steps = UInt32(exactly: steps) else { return nil }
    var best = UInt64.max
    for index in 0..<count {
      if let next = part(index, { $0.nextAbove(steps) }) { best = min(best, UInt64(next)) }
    }
    return best == .max ? nil : best
  }

  private func nextBelow(_ steps: UInt64) -> UInt64? {
    var best: UInt64 = 0
    for index in 0..<count {
      let next = part(index) { steps > UInt64(UInt32.max) ? $0.total(at: 0) : $0.nextBelow(UInt32(steps)) }
      if let next { best = max(best, UInt64(next)) }
    }
    return best == 0 ? nil : best
  }

  /// Rows strictly before (steps, user) in the board's order, whether that row exists or not.
  public func position(steps: UInt64, user: UserKey) -> Int {
    guard let steps = UInt32(exactly: steps) else { return 0 }
    return (0..<count).reduce(0) { sum, index in sum + part(index) { $0.position(steps: steps, user: user) } }
  }

  // MARK: Rows

  /// Reads rows in the board's order.
  ///
  /// - Parameters:
  ///   - position: the first row wanted, 0 at the top.
  ///   - limit: most rows wanted.
  ///   - body: called with each row in order.
  /// - Complexity: O(rows · shards), and at most a few thousand ids sorted to find the first row.
  public func rows(from position: Int, limit: Int, _ body: (MergedRow) -> Void) {
    guard position < users, limit > 0 else { return }
    place(position)
    merge(first: position, limit: limit, body)
  }

  /// Reads the rows strictly after a row of the board's order, which need not exist any more.
  ///
  /// - Parameters:
  ///   - steps: the row's total.
  ///   - user: the row's user.
  ///   - limit: most rows wanted.
  ///   - body: called with each row in order.
  public func rows(after steps: UInt64, user: UserKey, limit: Int, _ body: (MergedRow) -> Void) {
    starts.removeAll(keepingCapacity: true)
    for board in owned {
      guard let steps = UInt32(exactly: steps), steps > 0 else {
        starts.append(steps == 0 ? board.users : 0)
        continue
      }
      let isHere = board.number(of: user).map { board.total(of: $0) == steps } ?? false
      starts.append(board.position(steps: steps, user: user) + (isHere ? 1 : 0))
    }
    merge(first: starts.reduce(0, +), limit: limit, body)
  }

  /// Sets `starts` to the rows of each shard that come before a merged position.
  private func place(_ position: Int) {
    starts.removeAll(keepingCapacity: true)
    guard count > 1, position > 0, let total = total(at: position) else {
      starts.append(contentsOf: repeatElement(count == 1 ? position : 0, count: count))
      return
    }
    for board in owned { starts.append(board.countAbove(total)) }
    let skip = position - starts.reduce(0, +)
    guard skip > 0 else { return }
    if tied(UInt64(total)) <= tiesSortedMax {
      skipSorting(skip, total)
    } else {
      skipBisecting(skip, total)
    }
  }

  /// Moves `starts` past `skip` users of one total, by reading all who have it.
  private func skipSorting(_ skip: Int, _ total: UInt32) {
    for (index, board) in owned.enumerated() {
      read(index, from: starts[index], count: board.tied(total))
    }
    cuts = owned.map { _ in 0 }
    for _ in 0..<skip {
      guard let index = first() else { return }
      cuts[index] += 1
      starts[index] += 1
    }
  }

  /// Moves `starts` past `skip` users of one total by bisection: a row from the middle of the longest range left tells
  /// for every shard how many of its users come before that row.
  private func skipBisecting(_ skip: Int, _ total: UInt32) {
    let above = starts
    cuts = owned.map { _ in 0 }
    ends = owned.map { $0.tied(total) }
    while true {
      var widest = 0
      for index in owned.indices
      where ends[index] - cuts[index] > ends[widest] - cuts[widest] {
        widest = index
      }
      guard ends[widest] > cuts[widest], cuts.reduce(0, +) < skip else { break }
      let middle = (cuts[widest] + ends[widest]) / 2
      read(widest, from: above[widest] + middle, count: 1)
      guard let row = rows[widest].first else { break }
      let user = owned[widest].user(row.number)
      let before = owned.indices.map { owned[$0].position(steps: total, user: user) - above[$0] }
      let sum = before.reduce(0, +)
      if sum < skip {
        for index in owned.indices { cuts[index] = max(cuts[index], before[index]) }
        cuts[widest] = middle + 1
      } else {
        for index in owned.indices { ends[index] = min(ends[index], before[index]) }
        if sum == skip { cuts = ends }
      }
    }
    for index in owned.indices { starts[index] = above[index] + cuts[index] }
  }

  /// Merges the shards' rows from `starts` on.
  private func merge(first position: Int, limit: Int, _ body: (MergedRow) -> Void) {
    for index in owned.indices { read(index, from: starts[index], count: limit) }
    cuts = owned.map { _ in 0 }
    var position = position
    var total: UInt32 = 0
    var rank = 0
    var sharing = 0
    for _ in 0..<limit {
      guard let index = first() else { return }
      let row = rows[index][cuts[index]]
      cuts[index] += 1
      if row.total != total {
        // A total first met at the page's start may have begun before it; later ones begin where they are met.
        rank = (total == 0 ? countAbove(UInt64(row.total)) : position) + 1
        total = row.total
        sharing = tied(UInt64(total))
      }
      body(
        MergedRow(
          position: position, rank: rank, tied: sharing, steps: UInt64(row.total),
          user: owned[index].user(row.number)))
      position += 1
    }
  }

  /// The shard whose next unread row comes first; nil if there is none.
  private func first() -> Int? {
    var best: Int?
    for index in owned.indices where cuts[index] < rows[index].count {
      guard let other = best else {
        best = index
        continue
      }
      let row = rows[index][cuts[index]]
      let leader = rows[other][cuts[other]]
      if row.total != leader.total {
        if row.total > leader.total { best = index }
      } else if MergedBoard.precedes(owned[index].user(row.number), owned[other].user(leader.number)) {
        best = index
      }
    }
    return best
  }

  private func read(_ index: Int, from position: Int, count limit: Int) {
    let board = owned[index]
    let count = max(0, min(limit, board.users - position))
    rows[index].removeAll(keepingCapacity: true)
    guard count > 0 else { return }
    rows[index] = Array(unsafeUninitializedCapacity: count) { room, written in
      written = board.rows(from: position, into: room, scratch: rowScratch)
    }
  }

  /// Whether one id comes before another in byte order.
  public static func precedes(_ a: UserKey, _ b: UserKey) -> Bool {
    if a.text == nil, b.text == nil { return a.high != b.high ? a.high < b.high : a.low < b.low }
    return withUnsafeTemporaryAllocation(byteCount: 2 * UserID.bytesMax, alignment: 8) { room in
      guard let start = room.baseAddress else { return false }
      let lengthA = a.write(to: start)
      let lengthB = b.write(to: start + UserID.bytesMax)
      let textA = UnsafeRawBufferPointer(start: start, count: lengthA)
      let textB = UnsafeRawBufferPointer(start: start + UserID.bytesMax, count: lengthB)
      return textA.lexicographicallyPrecedes(textB)
    }
  }
}
