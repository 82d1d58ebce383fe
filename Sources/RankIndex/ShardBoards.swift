// All boards of a shard: step events in, totals on every board of their day changed together.
//
// One writer calls `apply` and `drop`; readers use the boards only while it does not (the owner keeps them apart). What
// any reader is told is a function of the events applied, in their order, and of the settings alone.
public import StepModel

/// What became of a step event.
public enum ApplyOutcome: UInt8, Sendable {
  /// Counted on all boards of its day.
  case counted
  /// Seen, but an earlier report of the user and day stands: it was newer, or larger where the largest wins.
  case superseded
  /// A total of the user would exceed 2^32-1; no board changed. The event is to be rejected as `overflow`.
  case overflow
  /// The shard has 2^27-1 users and this one is new; no board changed. The shard cannot go on.
  case full
}

/// The boards of one shard and the users they share.
public final class ShardBoards: @unchecked Sendable {
  /// How reports make totals.
  public let mode: StepsMode
  let owner: UserTableOwner
  let hasWeek: Bool
  let hasMonth: Bool
  let hasAll: Bool
  var boardsByID: [BoardID: Board] = [:]
  /// Where the events of recent days go, newest use first.
  private var routes: [Route] = []
  let batch: BatchScratch
  /// The image that is alive.
  var image: FrozenBoards?

  /// An empty shard with a board a day, and others by setting.
  ///
  /// - Parameters:
  ///   - mode: how reports make totals.
  ///   - week: whether ISO weeks are ranked.
  ///   - month: whether months are ranked.
  ///   - all: whether all time is ranked.
  ///   - hashKey: moves users about in memory and changes no answer; random bits keep outsiders from slowing it.
  public init(mode: StepsMode, week: Bool, month: Bool, all: Bool, hashKey: HashKey = .known) {
    self.mode = mode
    hasWeek = week
    hasMonth = month
    hasAll = all
    owner = UserTableOwner(hashKey: hashKey)
    batch = BatchScratch()
  }

  deinit { batch.destroy() }

  /// Users ever counted by the shard.
  public var users: Int { owner.table.pointee.count }

  /// What stands for a user's number where there is none.
  public static let noUser: UserNumber = UserTable.none

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

  /// Numbers from here on are no user's. Below it some may be free: ids of one form fill whole segments.
  public var numbersEnd: UserNumber { UserNumber(owner.table.pointee.numbersEnd) }

  /// Whether a number is a user's.
  ///
  /// - Parameter number: any.
  /// - Returns: whether `user(_:)` may be asked for it.
  public func isUser(_ number: UserNumber) -> Bool { owner.table.pointee.isGiven(UInt64(number)) }

  /// A user's id; its bytes are good as long as the shard or one of its boards lives.
  ///
  /// - Parameter number: a user's, as `isUser` has it.
  /// - Returns: the id as a key.
  public func user(_ number: UserNumber) -> UserKey { owner.table.pointee.userKey(number) }

  /// Memory of the user table and all boards, in bytes.
  public var memoryBytes: Int {
    owner.table.pointee.bytes + boardsByID.values.reduce(0) { $0 + $1.memoryBytes }
  }

  /// The boards there are, in no order: those of all days counted so far and not dropped.
  public var boards: [Board] { Array(boardsByID.values) }

  /// A board; nil if nothing was counted on it.
  ///
  /// - Parameter id: the period.
  /// - Returns: the board, good to keep while the caller reads it.
  public func board(_ id: BoardID) -> Board? { boardsByID[id] }

  /// Forgets a board and gives its memory back, once no reader holds it. The longer boards that include it stay as
  /// they are. An event of a dropped period starts an empty board; the caller refuses such events as `late`.
  ///
  /// - Parameter id: the period.
  /// - Returns: whether there was such a board.
  @discardableResult public func drop(_ id: BoardID) -> Bool {
    routes.removeAll()
    return boardsByID.removeValue(forKey: id) != nil
  }

  /// Where the events of a day go; makes the boards that are missing.
  func route(_ day: Day) -> Route {
    if let first = routes.first, first.day == day { return first }
    if let index = routes.firstIndex(where: { $0.day == day }) {
      routes.swapAt(0, index)
      return routes[0]
    }
    let route = Route(
      day: day,
      daily: state(of: .day(day)),
      week: hasWeek ? state(of: .week(monday: day.monday)) : nil,
      month: hasMonth ? state(of: .month(day.month)) : nil,
      all: hasAll ? state(of: .all) : nil)
    routes.insert(route, at: 0)
    if routes.count > ShardBoards.routesMax { routes.removeLast() }
    return route
  }

  /// Days whose boards are found without a look-up.
  static let routesMax = 16

  /// The memory of a board, which is made if there is none.
  func state(of id: BoardID) -> UnsafeMutablePointer<BoardState> {
    if let board = boardsByID[id] { return board.state }
    let board = makeBoard(id)
    boardsByID[id] = board
    return board.state
  }

  /// An empty board, not yet one of the shard's.
  func makeBoard(_ id: BoardID) -> Board {
    Board(id: id, owner: owner, withRegisters: mode == .totalNewest && id.kind == "day")
  }
}

/// The boards that the events of one day change.
struct Route: BitwiseCopyable {
  let day: Day
  let daily: UnsafeMutablePointer<BoardState>
  let week: UnsafeMutablePointer<BoardState>?
  let month: UnsafeMutablePointer<BoardState>?
  let all: UnsafeMutablePointer<BoardState>?

  /// Calls `body` with each board, the day's first.
  @inline(__always) func forEach(_ body: (UnsafeMutablePointer<BoardState>) -> Void) {
    body(daily)
    if let week { body(week) }
    if let month { body(month) }
    if let all { body(all) }
  }
}
