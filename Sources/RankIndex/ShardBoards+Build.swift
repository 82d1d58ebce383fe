// Building a board from rows that are already in order, as a snapshot or a standing holds them.
public import StepModel

/// One row to build a board from.
@frozen public struct BuildRow: BitwiseCopyable {
  /// The user; the key's bytes must be good during the call.
  public var user: UserKey
  /// Steps, 1 or more.
  public var total: UInt32

  @inlinable public init(user: UserKey, total: UInt32) {
    self.user = user
    self.total = total
  }
}

/// Why a board cannot be built from the rows given.
public enum BuildError: Error, Equatable {
  /// A row is not after the one before it in the board's order, or its total is 0: the input is damaged.
  case unordered(row: Int)
  /// The shard has 2^27-1 users.
  case full
}

extension ShardBoards {
  /// Builds a board that is absent or empty, in one pass and without a descent a user. The boards that include it are
  /// not touched. In `totalNewest` mode the users' newest reports are not known afterwards: the next one wins.
  ///
  /// - Parameters:
  ///   - id: the period.
  ///   - rows: all rows, in the board's order.
  /// - Throws: `BuildError`; the board is dropped then.
  /// - Complexity: O(rows).
  public func build(_ id: BoardID, from rows: UnsafeBufferPointer<BuildRow>) throws(BuildError) {
    let state = state(of: id)
    precondition(state.pointee.users == 0, "board \(id) has users already")
    let table = owner.table
    for i in 0..<rows.count {
      let row = rows[i]
      let isAfter =
        i == 0 || row.total < rows[i - 1].total
        || row.total == rows[i - 1].total && UserTable.compare(rows[i - 1].user, row.user) < 0
      guard isAfter, row.total > 0 else {
        drop(id)
        throw .unordered(row: i)
      }
      let number = table.pointee.number(row.user, hash: table.pointee.hash(row.user))
      guard number != UserTable.none else {
        drop(id)
        throw .full
      }
      state.pointee.needRecords()
      guard state.pointee.records[Int(number)].total == 0 else {
        drop(id)
        throw .unordered(row: i)
      }
      state.pointee.append(number, row.total)
    }
  }
}
