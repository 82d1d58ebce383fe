// One period's ranking within a shard: exact ranks, ties, pages, percentiles, over users who come and move by the
// million. What is promised here of order is DESIGN's: steps descending, then user id bytes ascending.
//
// Threads: one writer (the shard's, through `ShardBoards`) and any number of readers, never at the same time; the
// owner of the shard keeps them apart. Reading changes nothing, so readers need no scratch of the board's own.
internal import CPrefetch
public import StepModel

/// What a board knows of one user it was asked about.
@frozen public struct UserRank: Hashable, Sendable, BitwiseCopyable {
  /// The user's number; `Board.noUser` if the shard has never counted the user.
  public var number: UserNumber
  /// Steps; 0 if the user is not on the board.
  public var total: UInt32
  /// Users with strictly more steps: the rank is 1 more.
  public var above: UInt32
  /// Users with exactly as many, the user included; 0 if the user is not on the board.
  public var tied: UInt32

  @inlinable public init(number: UserNumber, total: UInt32, above: UInt32, tied: UInt32) {
    self.number = number
    self.total = total
    self.above = above
    self.tied = tied
  }
}

/// The memory of a shard's user table, owned by its boards and the shard together.
final class UserTableOwner: @unchecked Sendable {
  let table: UnsafeMutablePointer<UserTable>

  init(hashKey: HashKey) {
    table = .allocate(capacity: 1)
    table.initialize(to: UserTable(hashKey: hashKey))
  }

  deinit {
    table.pointee.destroy()
    table.deallocate()
  }
}

/// One period's ranking within a shard.
public final class Board: @unchecked Sendable {
  /// Stands for a user whom the shard has never counted.
  public static let noUser = UserNumber.max

  /// The period.
  public let id: BoardID
  let state: UnsafeMutablePointer<BoardState>
  private let owner: UserTableOwner

  init(id: BoardID, owner: UserTableOwner, withRegisters: Bool) {
    self.id = id
    self.owner = owner
    state = .allocate(capacity: 1)
    state.initialize(to: BoardState(table: owner.table, withRegisters: withRegisters))
  }

  deinit {
    state.pointee.destroy()
    state.deallocate()
  }

  /// Users on the board: those with a total of 1 or more.
  public var users: Int { state.pointee.users }

  /// Sum of all totals on the board.
  public var totalSteps: UInt64 { state.pointee.totalSteps }

  /// Memory of this board alone, in bytes (the user table is shared by the shard's boards).
  public var memoryBytes: Int { state.pointee.bytes }

  // MARK: Users

  /// The number of a user; nil if the shard has never counted the user.
  ///
  /// - Parameter user: the id.
  /// - Returns: the shard's number for the user, or nil.
  /// - Complexity: O(1) expected.
  public func number(of user: UserKey) -> UserNumber? {
    let table = owner.table
    let number = table.pointee.find(user, hash: table.pointee.hash(user))
    return number == UserTable.none ? nil : number
  }

  /// A user's id; its bytes are good as long as the shard or one of its boards lives.
  ///
  /// - Parameter number: as this shard gave it.
  /// - Returns: the id as a key.
  public func user(_ number: UserNumber) -> UserKey { owner.table.pointee.userKey(number) }

  /// A user's steps; 0 if the user is not on the board.
  ///
  /// - Parameter number: as this shard gave it.
  /// - Returns: steps on this board.
  public func total(of number: UserNumber) -> UInt32 {
    Int(number) < state.pointee.numbersEnd ? state.pointee.records[Int(number)].total : 0
  }

  /// Looks up many users at once, overlapping their waits for memory: several times faster than one by one.
  ///
  /// - Parameters:
  ///   - keys: the ids.
  ///   - ranks: room for as many answers, in the same order. A user not on the board gets total 0, tied 0 and
  ///     everybody above.
  public func ranks(of keys: UnsafeBufferPointer<UserKey>, into ranks: UnsafeMutableBufferPointer<UserRank>) {
    precondition(ranks.count >= keys.count, "room for \(ranks.count) ranks, \(keys.count) asked")
    inBatches(keys) { first, count, hashes, done in
      find(first, count, hashes)
      rankBatch(first, count, hashes, ranks, from: done)
    }
  }

  /// Steps of many users at once; 0 for those not on the board. Cheaper than `ranks`.
  ///
  /// - Parameters:
  ///   - keys: the ids.
  ///   - totals: room for as many, in the same order.
  public func totals(of keys: UnsafeBufferPointer<UserKey>, into totals: UnsafeMutableBufferPointer<UInt32>) {
    precondition(totals.count >= keys.count, "room for \(totals.count) totals, \(keys.count) asked")
    inBatches(keys) { first, count, hashes, done in
      find(first, count, hashes)
      for i in 0..<count {
        let number = owner.table.pointee.find(first[i], hash: hashes[i])
        totals[done + i] = number == UserTable.none ? 0 : total(of: number)
      }
    }
  }

  static let batchUsers = 32

  /// Cuts keys into batches that the caches hold.
  @inline(__always) private func inBatches(
    _ keys: UnsafeBufferPointer<UserKey>,
    _ body: (UnsafePointer<UserKey>, _ count: Int, UnsafeMutablePointer<UInt64>, _ done: Int) -> Void
  ) {
    guard let first = keys.baseAddress else { return }
    withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Board.batchUsers) { hashes in
      guard let hashes = hashes.baseAddress else { return }
      var done = 0
      while done < keys.count {
        let count = min(Board.batchUsers, keys.count - done)
        body(first + done, count, hashes, done)
        done += count
      }
    }
  }

  /// Hashes the keys and asks memory for what finding them needs.
  @inline(__always) private func find(
    _ keys: UnsafePointer<UserKey>, _ count: Int, _ hashes: UnsafeMutablePointer<UInt64>
  ) {
    let (table, state) = (owner.table, self.state)
    for i in 0..<count {
      hashes[i] = table.pointee.hash(keys[i])
      table.pointee.prefetchSlot(hashes[i])
    }
    for i in 0..<count {
      let number = table.pointee.guess(hashes[i])
      if number != UserTable.none { state.pointee.prefetchRecord(number) }
    }
  }

  private func rankBatch(
    _ keys: UnsafePointer<UserKey>, _ count: Int, _ hashes: UnsafeMutablePointer<UInt64>,
    _ all: UnsafeMutableBufferPointer<UserRank>, from done: Int
  ) {
    guard let ranks = all.baseAddress.map({ $0 + done }) else { return }
    let (table, state) = (owner.table, self.state)
    for i in 0..<count {
      let number = table.pointee.find(keys[i], hash: hashes[i])
      let total =
        number != UserTable.none && Int(number) < state.pointee.numbersEnd
        ? state.pointee.records[Int(number)].total : 0
      // Until the last stage, `tied` and `above` hold the place in the list.
      let place = total < DenseTotals.limit ? (leaf: 0, before: 0) : state.pointee.list.locate(total)
      ranks[i] = UserRank(number: number, total: total, above: place.before, tied: place.leaf)
    }
    for i in 0..<count {
      let rank = state.pointee.rank(ranks[i].total, at: (leaf: ranks[i].tied, before: ranks[i].above))
      ranks[i].above = UInt32(truncatingIfNeeded: rank.above)
      ranks[i].tied = UInt32(truncatingIfNeeded: rank.tied)
    }
  }

  // MARK: Steps

  /// Users with strictly more steps.
  ///
  /// - Parameter steps: any total, whether anybody has it or not.
  /// - Returns: users; the rank of such a total is 1 more.
  /// - Complexity: 128 additions below 2^20 steps, O(log n) blocks above.
  public func countAbove(_ steps: UInt32) -> Int { state.pointee.countAbove(steps) }

  /// Users with exactly so many steps; 0 for 0 steps.
  ///
  /// - Parameter steps: any total.
  /// - Returns: users who share the total.
  public func tied(_ steps: UInt32) -> Int { steps == 0 ? 0 : state.pointee.tied(steps) }

  /// The smallest total on the board above a given one; nil if there is none.
  ///
  /// - Parameter steps: any total.
  /// - Returns: a total that somebody has.
  public func nextAbove(_ steps: UInt32) -> UInt32? {
    if let near = state.pointee.dense.nearAbove(steps) { return near }
    let above = state.pointee.countAbove(steps)
    return above == 0 ? nil : state.pointee.total(at: above - 1)
  }

  /// The greatest total on the board below a given one; nil if there is none.
  ///
  /// - Parameter steps: any total.
  /// - Returns: a total that somebody has.
  public func nextBelow(_ steps: UInt32) -> UInt32? {
    guard steps > 1 else { return nil }
    if let near = state.pointee.dense.nearBelow(steps) { return near }
    let above = state.pointee.countAbove(steps - 1)
    return above >= users ? nil : state.pointee.total(at: above)
  }

  /// The total at a position from the top; nil past the end.
  ///
  /// - Parameter position: 0 is the greatest total.
  /// - Returns: steps of the row at the position.
  public func total(at position: Int) -> UInt32? {
    (0..<users).contains(position) ? state.pointee.total(at: position) : nil
  }

  /// The nearest-rank quantile: the total at position ⌈percent · users / 100⌉ from the bottom, counted from 1; nil
  /// on an empty board.
  ///
  /// - Parameter percent: 0...100; 0 gives the smallest total.
  /// - Returns: always a total that somebody has.
  public func quantile(_ percent: Int) -> UInt32? {
    precondition((0...100).contains(percent), "a quantile of \(percent) %")
    let place = max(1, (percent * users + 99) / 100)
    return total(at: users - place)
  }

  // MARK: Order

  /// A user's position, 0 at the top; nil if the user is not on the board.
  ///
  /// - Parameter number: as this shard gave it.
  /// - Returns: the index of the user's row.
  /// - Complexity: that of `countAbove`, plus one look at each user with the same total, at most 2,048 of them.
  public func position(of number: UserNumber) -> Int? {
    let total = total(of: number)
    guard total > 0 else { return nil }
    return state.pointee.position(Probe(total: total, number: number, in: owner.table))
  }

  /// Rows that stand strictly before (steps, user) in the board's order, whether that row exists here or not: what a
  /// merge over shards adds up.
  ///
  /// - Parameters:
  ///   - steps: 1 or more.
  ///   - user: any user id.
  /// - Returns: how many rows of this board come first.
  /// - Complexity: as `position(of:)`.
  public func position(steps: UInt32, user: UserKey) -> Int {
    state.pointee.position(Probe(total: steps, key: user))
  }

  /// Reads rows in the board's order.
  ///
  /// - Parameters:
  ///   - position: the first row wanted, 0 at the top.
  ///   - rows: filled from its start; its count is the most rows wanted.
  ///   - scratch: the reader's own.
  /// - Returns: rows written; fewer than wanted only at the board's end.
  /// - Complexity: O(rows) plus sorting the ties met, at most 2,048 users each time.
  public func rows(
    from position: Int, into rows: UnsafeMutableBufferPointer<BoardRow>, scratch: RowScratch
  ) -> Int {
    guard position >= 0, let start = rows.baseAddress else { return 0 }
    return state.pointee.rows(from: position, into: start, limit: rows.count, scratch: scratch)
  }
}
