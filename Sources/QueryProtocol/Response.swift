// The answers, as owned values: what a client decodes, and what a server fills in where speed does not matter.
// Byte layouts stand at the writers (ResponseWriter.swift) and in Protocol/query.md section 5.

public import StepModel

/// An answer.
public enum Response: Equatable, Sendable {
  case hello(HelloAnswer)
  case ping
  case top(RowsAnswer)
  case rank(AnswerContext, RankAnswer)
  case around(RowsAnswer)
  case compare(RowsAnswer)
  case summary(SummaryAnswer)
  case boards(BoardsAnswer)
  case status(StatusAnswer)
  case deadLetters(DeadLettersAnswer)
  case admin(AdminAnswer)
  case error(ErrorAnswer)
}

/// Why there is no answer.
public struct ErrorAnswer: Equatable, Sendable {
  public var code: ErrorCode
  /// Whether the same request may succeed later, here or at another node; holds for unknown codes too.
  public var retryable: Bool
  /// A sentence for people.
  public var text: String

  public init(code: ErrorCode, retryable: Bool, text: String) {
    self.code = code
    self.retryable = retryable
    self.text = text
  }
}

/// Who the server is and what it allows.
public struct HelloAnswer: Equatable, Sendable {
  /// The version both speak from here on.
  public var version: UInt8
  public var serverVersionMin: UInt8 = Limits.versionMin
  public var serverVersionMax: UInt8 = Limits.version
  public var node: String
  public var cluster: String
  /// The server program's own version.
  public var software: String
  public var frameInBytesMax = UInt32(Limits.frameInBytesMax)
  public var frameOutBytesMax = UInt32(Limits.frameOutBytesMax)
  public var inFlightMax = UInt32(Limits.inFlightMax)
  public var rowsMax = UInt32(Limits.rowsMax)
  public var idsMax = UInt32(Limits.idsMax)
  public var roles: Roles
  /// Keys of the client's options that this server does not know.
  public var unknownOptions: [String] = []

  public init(
    version: UInt8, node: String, cluster: String, software: String, roles: Roles = [.query, .admin]
  ) {
    self.version = version
    self.node = node
    self.cluster = cluster
    self.software = software
    self.roles = roles
  }
}

/// What a connection may do.
public struct Roles: OptionSet, Hashable, Sendable {
  public let rawValue: UInt8

  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// May ask.
  public static let query = Roles(rawValue: 1)
  /// May change the node's state.
  public static let admin = Roles(rawValue: 2)
}

/// How far a shard's state reaches that an answer reflects.
@frozen public struct ShardMark: Hashable, Sendable, BitwiseCopyable {
  public var partition: UInt32
  /// Next Kafka offset not yet applied.
  public var watermark: UInt64
  /// How old the state is, in milliseconds: 0 where all that the broker has is applied, otherwise the node's clock
  /// minus the Kafka timestamp of the newest applied record; `unknownAge` if there is none.
  public var ageMillis: UInt64
  public var flags: ShardFlags

  /// `ageMillis` of a shard that has applied nothing yet.
  public static let unknownAge = UInt64.max

  @inlinable public init(partition: UInt32, watermark: UInt64, ageMillis: UInt64, flags: ShardFlags = []) {
    self.partition = partition
    self.watermark = watermark
    self.ageMillis = ageMillis
    self.flags = flags
  }
}

/// What else there is to know of a shard in an answer.
@frozen public struct ShardFlags: OptionSet, Hashable, Sendable, BitwiseCopyable {
  public let rawValue: UInt8

  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Some user was seen in this shard and in another: their totals add up in RANK, order is per shard.
  public static let usersElsewhere = ShardFlags(rawValue: 1)
}

/// Whether a board still moves.
public enum BoardState: UInt8, Sendable, CaseIterable {
  /// Events of its period are still accepted.
  case live = 0
  /// Too old for further events.
  case closed = 1
  /// The final order of a closed day.
  case standing = 2

  /// The word in JSON.
  public var name: String {
    switch self {
    case .live: "live"
    case .closed: "closed"
    case .standing: "standing"
    }
  }
}

/// What every answer about a board begins with. A server keeps one and refills it.
public struct AnswerContext: Equatable, Sendable {
  /// The board answered for, resolved where the request said today.
  public var board: BoardID
  public var state: BoardState
  /// The shards this answer reflects, ascending.
  public var shards: [ShardMark]
  /// Partitions this answer lacks, ascending.
  public var missing: [UInt32]

  public init(board: BoardID, state: BoardState = .live, shards: [ShardMark] = [], missing: [UInt32] = []) {
    self.board = board
    self.state = state
    self.shards = shards
    self.missing = missing
  }
}

/// A user's line on a board.
public struct Row: Hashable, Sendable {
  /// Index in the board's order, from 0.
  public var position: UInt64
  /// 1 + users with strictly more steps.
  public var rank: UInt64
  /// Users who share the rank, this one included.
  public var tied: UInt64
  public var steps: UInt64
  public var user: UserID

  public init(position: UInt64, rank: UInt64, tied: UInt64, steps: UInt64, user: UserID) {
    self.position = position
    self.rank = rank
    self.tied = tied
    self.steps = steps
    self.user = user
  }
}

/// The answer to TOP, AROUND and COMPARE: rows in the board's order.
public struct RowsAnswer: Equatable, Sendable {
  public var context: AnswerContext
  /// Users on the board.
  public var users: UInt64
  /// Steps of all of them.
  public var totalSteps: UInt64
  public var rows: [Row]
  /// Users asked for by AROUND or COMPARE who are not on the board, in the order asked.
  public var absent: [UserID]

  public init(
    context: AnswerContext, users: UInt64, totalSteps: UInt64, rows: [Row] = [], absent: [UserID] = []
  ) {
    self.context = context
    self.users = users
    self.totalSteps = totalSteps
    self.rows = rows
    self.absent = absent
  }
}

/// The answer to RANK, beside its context.
@frozen public struct RankAnswer: Hashable, Sendable, BitwiseCopyable {
  /// Whether the user has steps on the board. If not, the other fields say where a total of 0 would stand.
  public var onBoard: Bool
  /// 1 + above.
  public var rank: UInt64
  /// Users who share the rank, this one included; 0 if not on the board.
  public var tied: UInt64
  public var steps: UInt64
  /// Users on the board.
  public var users: UInt64
  /// Users with strictly more steps.
  public var above: UInt64
  /// The smallest total greater than the user's; nil if there is none.
  public var nextAboveSteps: UInt64?
  /// The greatest total smaller than the user's; nil if there is none.
  public var nextBelowSteps: UInt64?

  @inlinable public init(
    onBoard: Bool, rank: UInt64, tied: UInt64, steps: UInt64, users: UInt64, above: UInt64,
    nextAboveSteps: UInt64? = nil, nextBelowSteps: UInt64? = nil
  ) {
    self.onBoard = onBoard
    self.rank = rank
    self.tied = tied
    self.steps = steps
    self.users = users
    self.above = above
    self.nextAboveSteps = nextAboveSteps
    self.nextBelowSteps = nextBelowSteps
  }
}

/// A quantile of a board.
@frozen public struct Quantile: Hashable, Sendable, BitwiseCopyable {
  /// 1...100.
  public var q: UInt8
  /// Steps at position ⌈q·users/100⌉ from the bottom; 0 on an empty board.
  public var steps: UInt64

  @inlinable public init(q: UInt8, steps: UInt64) {
    self.q = q
    self.steps = steps
  }
}

/// The answer to SUMMARY.
public struct SummaryAnswer: Equatable, Sendable {
  public var context: AnswerContext
  public var users: UInt64
  public var totalSteps: UInt64
  /// In the order asked.
  public var quantiles: [Quantile]

  public init(context: AnswerContext, users: UInt64, totalSteps: UInt64, quantiles: [Quantile]) {
    self.context = context
    self.users = users
    self.totalSteps = totalSteps
    self.quantiles = quantiles
  }
}

/// A board that is kept.
public struct BoardEntry: Equatable, Sendable {
  public var board: BoardID
  public var state: BoardState
  public var users: UInt64
  public var totalSteps: UInt64
  /// First instant of the period, milliseconds since 1970 UTC; nil for all time.
  public var startsMillis: Int64?
  /// First instant after the period, milliseconds since 1970 UTC; nil for all time.
  public var endsMillis: Int64?

  public init(
    board: BoardID, state: BoardState, users: UInt64, totalSteps: UInt64, startsMillis: Int64?,
    endsMillis: Int64?
  ) {
    self.board = board
    self.state = state
    self.users = users
    self.totalSteps = totalSteps
    self.startsMillis = startsMillis
    self.endsMillis = endsMillis
  }
}

/// The answer to BOARDS.
public struct BoardsAnswer: Equatable, Sendable {
  public var shards: [ShardMark]
  public var missing: [UInt32]
  public var boards: [BoardEntry]

  public init(shards: [ShardMark], missing: [UInt32], boards: [BoardEntry]) {
    self.shards = shards
    self.missing = missing
    self.boards = boards
  }
}

/// What a node, or a shard of it, is doing.
public enum RunState: UInt8, Sendable, CaseIterable {
  case starting = 0
  /// Loads what is durable.
  case restoring = 1
  /// Reads what Kafka has beyond that.
  case catchingUp = 2
  case serving = 3
  /// Hands over; new requests are refused.
  case draining = 4
  /// Stopped, for the reason beside it.
  case stopped = 5

  /// The word in JSON.
  public var name: String {
    switch self {
    case .starting: "starting"
    case .restoring: "restoring"
    case .catchingUp: "catching-up"
    case .serving: "serving"
    case .draining: "draining"
    case .stopped: "stopped"
    }
  }
}

/// A shard in STATUS.
public struct ShardStatus: Equatable, Sendable {
  public var partition: UInt32
  public var state: RunState
  /// Why, for people; empty where the state says it all. At most 255 bytes travel.
  public var reason: String
  public var watermark: Int64
  /// Next offset the broker will give; -1 unknown.
  public var endOffset: Int64
  /// Records not yet applied; -1 unknown.
  public var lag: Int64
  /// Events counted since the state began.
  public var counted: UInt64
  /// Rejected records by `RejectReason.rawValue`.
  public var rejected: [UInt64]
  /// Reports of a running total that a newer one had overtaken.
  public var superseded: UInt64
  /// Greatest Kafka record timestamp so far, milliseconds since 1970 UTC; -1 if none.
  public var shardClockMillis: Int64
  /// Users ever seen by the shard.
  public var users: UInt64
  /// Next offset after what is in the log and synced; -1 unknown.
  public var durable: Int64
  /// Watermark of the newest snapshot on disk; -1 none.
  public var snapshot: Int64
  /// Next offset after the newest sealed segment; -1 none.
  public var sealed: Int64
  /// While the shard restores, the bytes it has read of those it has to read; both 0 otherwise.
  public var restoredBytes: UInt64
  public var restoreBytes: UInt64

  public init(
    partition: UInt32, state: RunState, reason: String = "", watermark: Int64 = 0, endOffset: Int64 = -1,
    lag: Int64 = -1, counted: UInt64 = 0,
    rejected: [UInt64] = Array(repeating: 0, count: RejectReason.allCases.count), superseded: UInt64 = 0,
    shardClockMillis: Int64 = -1, users: UInt64 = 0, durable: Int64 = -1, snapshot: Int64 = -1,
    sealed: Int64 = -1, restoredBytes: UInt64 = 0, restoreBytes: UInt64 = 0
  ) {
    self.partition = partition
    self.state = state
    self.reason = reason
    self.watermark = watermark
    self.endOffset = endOffset
    self.lag = lag
    self.counted = counted
    self.rejected = rejected
    self.superseded = superseded
    self.shardClockMillis = shardClockMillis
    self.users = users
    self.durable = durable
    self.snapshot = snapshot
    self.sealed = sealed
    self.restoredBytes = restoredBytes
    self.restoreBytes = restoreBytes
  }
}

/// A named number in STATUS.
public struct Counter: Hashable, Sendable {
  public var name: String
  public var value: UInt64

  public init(name: String, value: UInt64) {
    self.name = name
    self.value = value
  }
}

/// The answer to STATUS.
public struct StatusAnswer: Equatable, Sendable {
  public var node: String
  public var cluster: String
  /// The program's version.
  public var software: String
  public var state: RunState
  public var uptimeMillis: UInt64
  public var shards: [ShardStatus]
  /// Any further numbers, by name; new names may appear at any time.
  public var counters: [Counter]
  /// What keeps the whole node from its work, for people; empty if nothing does. At most 512 bytes travel.
  public var problem: String

  public init(
    node: String, cluster: String, software: String, state: RunState, uptimeMillis: UInt64,
    shards: [ShardStatus] = [], counters: [Counter] = [], problem: String = ""
  ) {
    self.node = node
    self.cluster = cluster
    self.software = software
    self.state = state
    self.uptimeMillis = uptimeMillis
    self.shards = shards
    self.counters = counters
    self.problem = problem
  }
}

/// The answer to DEADLETTERS: records that were not counted, in the order they were put away.
public struct DeadLettersAnswer: Equatable, Sendable {
  /// One record.
  public struct Letter: Equatable, Sendable {
    /// Where it is in the node's file: to ask for this one again.
    public var position: UInt64
    public var topic: String
    public var partition: UInt32
    /// Kafka offset.
    public var offset: Int64
    /// Kafka timestamp, milliseconds since 1970 UTC.
    public var timestamp: Int64
    public var reason: RejectReason
    /// Bytes of the record's value; nil if it was null.
    public var bytes: UInt32?
    /// The value from the byte asked for, at most `Limits.deadLetterBytesMax` bytes, or
    /// `Limits.deadLetterPartBytesMax` of the only record of an answer to a limit of 1.
    public var part: [UInt8]

    public init(
      position: UInt64, topic: String, partition: UInt32, offset: Int64, timestamp: Int64,
      reason: RejectReason, bytes: UInt32?, part: [UInt8]
    ) {
      self.position = position
      self.topic = topic
      self.partition = partition
      self.offset = offset
      self.timestamp = timestamp
      self.reason = reason
      self.bytes = bytes
      self.part = part
    }
  }

  public var letters: [Letter]
  /// Position to ask from for the records after these.
  public var next: UInt64

  public init(letters: [Letter], next: UInt64) {
    self.letters = letters
    self.next = next
  }
}

/// The answer to ADMIN: the order is taken.
public struct AdminAnswer: Equatable, Sendable {
  /// What happens now, a sentence for people; at most 512 bytes travel.
  public var text: String

  public init(text: String) { self.text = text }
}
