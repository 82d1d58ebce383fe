// One board over several shards: what a reader sees as a single ranking. Exact, because counts add up: users above a
// total in all shards are the sum of those in each, and so are rows before a row.
//
//     shard 0   9 7 7 4        merged position of a row = sum over shards of the rows before it
//     shard 1   8 7 2          page from position p: find where p falls in each shard, then merge k ways
//
// The caller keeps the shards still (inside their gates) from `init` to the last answer.

public import QueryProtocol
public import RankIndex
public import StepModel

/// Memory that a reader lends to merged boards; one reader at a time. It grows to the largest page asked for.
public final class MergeScratch {
  fileprivate var rowScratch = RowScratch()
  fileprivate var rows: [[BoardRow]] = []
  fileprivate var starts: [Int] = []
  fileprivate var ends: [Int] = []
  fileprivate var cuts: [Int] = []

  public init() {}
}

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

/// A board as the sum of its shards.
public struct MergedBoard {
  /// Ties up to this many are sorted to find a place among them; beyond, places are found by bisection.
  static let tiesSortedMax = 4_096

  private let boards: [Board]
  private let scratch: MergeScratch

  /// Users of all shards. A user counted in two shards counts twice here.
  public let users: Int
  /// Steps of all users.
  public let totalSteps: UInt64

  /// - Parameters:
  ///   - boards: the same period in each shard that has it.
  ///   - scratch: the reader's own.
  public init(_ boards: [Board], scratch: MergeScratch) {
    self.boards = boards
    self.scratch = scratch
    users = boards.reduce(0) { $0 + $1.users }
    totalSteps = boards.reduce(0) { $0 + $1.totalSteps }
    while scratch.rows.count < boards.count { scratch.rows.append([]) }
  }

  // MARK: Counting

  /// Users with strictly more steps.
  ///
  /// - Complexity: O(shards).
  public func countAbove(_ steps: UInt64) -> Int {
    guard let steps = UInt32(exactly: steps) else { return 0 }
    var count = 0
    for board in boards { count += board.countAbove(steps) }
    return count
  }

  /// Users with exactly so many steps.
  public func tied(_ steps: UInt64) -> Int {
    guard let steps = UInt32(exactly: steps) else { return 0 }
    var count = 0
    for board in boards { count += board.tied(steps) }
    return count
  }

  /// The total at a position from the top; nil past the end.
  ///
  /// - Complexity: O(32 · shards).
  public func total(at position: Int) -> UInt32? {
    guard position >= 0, position < users else { return nil }
    if boards.count == 1 { return boards[0].total(at: position) }
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
    for board in boards {
      guard let number = board.number(of: user) else { continue }
      let steps = board.total(of: number)
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

  private func nextAbove(_ steps: UInt64) -> UInt64? {
    guard let steps = UInt32(exactly: steps) else { return nil }
    var best: UInt32?
    for board in boards {
      if let next = board.nextAbove(steps) { best = min(best ?? next, next) }
    }
    return best.map(UInt64.init)
  }

  private func nextBelow(_ steps: UInt64) -> UInt64? {
    var best: UInt32?
    for board in boards {
      let next = steps > UInt64(UInt32.max) ? board.total(at: 0) : board.nextBelow(UInt32(steps))
      if let next { best = max(best ?? next, next) }
    }
    return best.map(UInt64.init)
  }

  /// Rows strictly before (steps, user) in the board's order, whether that row exists or not.
  public func position(steps: UInt64, user: UserKey) -> Int {
    guard let steps = UInt32(exactly: steps) else { return 0 }
    return boards.reduce(0) { $0 + $1.position(steps: steps, user: user) }
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
    scratch.starts.removeAll(keepingCapacity: true)
    for board in boards {
      guard let steps = UInt32(exactly: steps), steps > 0 else {
        scratch.starts.append(steps == 0 ? board.users : 0)
        continue
      }
      let isHere = board.number(of: user).map { board.total(of: $0) == steps } ?? false
      scratch.starts.append(board.position(steps: steps, user: user) + (isHere ? 1 : 0))
    }
    merge(first: scratch.starts.reduce(0, +), limit: limit, body)
  }

  /// Sets `starts` to the rows of each shard that come before a merged position.
  private func place(_ position: Int) {
    scratch.starts.removeAll(keepingCapacity: true)
    guard boards.count > 1, let total = total(at: position) else {
      scratch.starts.append(contentsOf: boards.map { _ in boards.count == 1 ? position : 0 })
      return
    }
    for board in boards { scratch.starts.append(board.countAbove(total)) }
    let skip = position - scratch.starts.reduce(0, +)
    guard skip > 0 else { return }
    if tied(UInt64(total)) <= MergedBoard.tiesSortedMax {
      skipSorting(skip, total)
    } else {
      skipBisecting(skip, total)
    }
  }

  /// Moves `starts` past `skip` users of one total, by reading all who have it.
  private func skipSorting(_ skip: Int, _ total: UInt32) {
    for (index, board) in boards.enumerated() {
      read(index, from: scratch.starts[index], count: board.tied(total))
    }
    scratch.cuts = boards.map { _ in 0 }
    for _ in 0..<skip {
      guard let index = first() else { return }
      scratch.cuts[index] += 1
      scratch.starts[index] += 1
    }
  }

  /// Moves `starts` past `skip` users of one total by bisection: a row from the middle of the longest range left tells
  /// for every shard how many of its users come before that row.
  private func skipBisecting(_ skip: Int, _ total: UInt32) {
    let above = scratch.starts
    scratch.cuts = boards.map { _ in 0 }
    scratch.ends = boards.map { $0.tied(total) }
    while true {
      var widest = 0
      for index in boards.indices
      where scratch.ends[index] - scratch.cuts[index] > scratch.ends[widest] - scratch.cuts[widest] {
        widest = index
      }
      guard scratch.ends[widest] > scratch.cuts[widest], scratch.cuts.reduce(0, +) < skip else { break }
      let middle = (scratch.cuts[widest] + scratch.ends[widest]) / 2
      read(widest, from: above[widest] + middle, count: 1)
      guard let row = scratch.rows[widest].first else { break }
      let user = boards[widest].user(row.number)
      let before = boards.indices.map { boards[$0].position(steps: total, user: user) - above[$0] }
      let sum = before.reduce(0, +)
      if sum < skip {
        for index in boards.indices { scratch.cuts[index] = max(scratch.cuts[index], before[index]) }
        scratch.cuts[widest] = middle + 1
      } else {
        for index in boards.indices { scratch.ends[index] = min(scratch.ends[index], before[index]) }
        if sum == skip { scratch.cuts = scratch.ends }
      }
    }
    for index in boards.indices { scratch.starts[index] = above[index] + scratch.cuts[index] }
  }

  /// Merges the shards' rows from `starts` on.
  private func merge(first position: Int, limit: Int, _ body: (MergedRow) -> Void) {
    for index in boards.indices { read(index, from: scratch.starts[index], count: limit) }
    scratch.cuts = boards.map { _ in 0 }
    var position = position
    var total: UInt32 = 0
    var rank = 0
    var sharing = 0
    for _ in 0..<limit {
      guard let index = first() else { return }
      let row = scratch.rows[index][scratch.cuts[index]]
      scratch.cuts[index] += 1
      if row.total != total {
        // A total first met at the page's start may have begun before it; later ones begin where they are met.
        rank = (total == 0 ? countAbove(UInt64(row.total)) : position) + 1
        total = row.total
        sharing = tied(UInt64(total))
      }
      body(
        MergedRow(
          position: position, rank: rank, tied: sharing, steps: UInt64(row.total),
          user: boards[index].user(row.number)))
      position += 1
    }
  }

  /// The shard whose next unread row comes first; nil if there is none.
  private func first() -> Int? {
    var best: Int?
    for index in boards.indices where scratch.cuts[index] < scratch.rows[index].count {
      guard let other = best else {
        best = index
        continue
      }
      let row = scratch.rows[index][scratch.cuts[index]]
      let leader = scratch.rows[other][scratch.cuts[other]]
      if row.total != leader.total {
        if row.total > leader.total { best = index }
      } else if MergedBoard.precedes(boards[index].user(row.number), boards[other].user(leader.number)) {
        best = index
      }
    }
    return best
  }

  private func read(_ index: Int, from position: Int, count: Int) {
    let board = boards[index]
    let count = max(0, min(count, board.users - position))
    scratch.rows[index].removeAll(keepingCapacity: true)
    guard count > 0 else { return }
    scratch.rows[index] = Array(unsafeUninitializedCapacity: count) { room, written in
      written = board.rows(from: position, into: room, scratch: scratch.rowScratch)
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
