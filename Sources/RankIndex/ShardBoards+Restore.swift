// Boards from a snapshot: users in the order of their numbers, then each board from totals by number. What comes out
// answers as the boards did that the snapshot was made from, and goes on as they would.
public import StepModel

/// Why boards cannot be restored from what was given: it is damaged, or meant for other settings.
public enum RestoreError: Error, Equatable {
  /// Users are not given as numbers were: a segment of one form of ids after the other, only the last of each form
  /// less than full.
  case unordered(UserNumber)
  /// The number's user has another number already, or its total was given before.
  case repeated(UserNumber)
  /// A total or report is given for a number that no user has.
  case unknown(UserNumber)
  /// The shard ranks no such board, or has it already.
  case board(BoardID)
  /// More users than a shard can have.
  case full
}

extension ShardBoards {
  /// Makes room for users to be restored into an empty shard. Only speed depends on it.
  ///
  /// - Parameter users: how many will come; what is above the most a shard can have is ignored.
  public func reserve(users: Int) {
    owner.table.pointee.reserve(users: min(max(0, users), UserTable.usersMax))
  }

  /// Gives user numbers back to the users who had them: the next segment of `FrozenBoards.segmentNumbers` numbers.
  ///
  /// - Parameter keys: the ids in the order of their numbers, 1 to a segment full; all canonical UUIDs, or none. Only
  ///   the last segment of each form may be less than full.
  /// - Throws: `RestoreError`; the shard is to be thrown away then.
  /// - Complexity: O(users), about 50 ns each.
  public func restore(segment keys: UnsafeBufferPointer<UserKey>) throws(RestoreError) {
    try owner.table.pointee.restore(segment: keys)
  }

  /// Begins to restore a board, once all users are.
  ///
  /// - Parameter id: the period; the shard must rank it by its settings, and not have it yet.
  /// - Returns: what takes the totals; the board is the shard's after its `finish`.
  /// - Throws: `RestoreError.board`.
  public func restore(_ id: BoardID) throws(RestoreError) -> BoardRestoration {
    let isRanked =
      switch id {
      case .day: true
      case .week: hasWeek
      case .month: hasMonth
      case .all: hasAll
      }
    guard isRanked, boardsByID[id] == nil else { throw .board(id) }
    return BoardRestoration(makeBoard(id), owner: owner, shard: self)
  }
}

/// A board being restored. Used by one thread, before anybody reads the shard.
public final class BoardRestoration {
  private let board: Board
  private let owner: UserTableOwner
  private let shard: ShardBoards

  init(_ board: Board, owner: UserTableOwner, shard: ShardBoards) {
    self.board = board
    self.owner = owner
    self.shard = shard
    board.state.pointee.needRecords()
  }

  /// Takes totals of numbers in a row. Numbers may come in any order, each at most once.
  ///
  /// - Parameters:
  ///   - totals: a total a number; 0 where the user is not on the board.
  ///   - first: the number of the first.
  /// - Throws: `unknown`, `repeated`; the shard is to be thrown away then.
  public func totals(_ totals: UnsafeBufferPointer<UInt32>, from first: UserNumber) throws(RestoreError) {
    for i in 0..<totals.count where totals[i] != 0 {
      let number = UInt64(first) + UInt64(i)
      guard owner.table.pointee.isGiven(number) else {
        throw .unknown(first &+ UInt32(truncatingIfNeeded: i))
      }
      guard board.state.pointee.restore(UInt32(number), totals[i]) else { throw .repeated(UInt32(number)) }
    }
  }

  /// Takes the newest reports of numbers in a row, on a board that keeps them.
  ///
  /// - Parameters:
  ///   - reports: two words a number, as `FrozenPiece.reports`.
  ///   - first: the number of the first.
  /// - Throws: `board` if the board keeps none, `unknown`, `repeated`; the shard is to be thrown away then.
  public func reports(_ reports: UnsafeBufferPointer<Int64>, from first: UserNumber) throws(RestoreError) {
    guard let registers = board.state.pointee.registers else { throw .board(board.id) }
    for i in 0..<reports.count / 2 where reports[2 * i + 1] != 0 {
      let number = UInt64(first) + UInt64(i)
      guard owner.table.pointee.isGiven(number) else {
        throw .unknown(first &+ UInt32(truncatingIfNeeded: i))
      }
      guard registers[Int(number)].offsetNext == 0 else { throw .repeated(UInt32(number)) }
      registers[Int(number)] = Register(timeOfDay: reports[2 * i], offsetNext: reports[2 * i + 1])
    }
  }

  /// Puts everybody in place; the board is the shard's then.
  ///
  /// - Returns: the board.
  /// - Complexity: O(users), about 30 ns each; O(n log n) for users in crowds and beyond the dense totals.
  @discardableResult public func finish() -> Board {
    board.state.pointee.finishRestoring()
    shard.boardsByID[board.id] = board
    return board
  }
}
