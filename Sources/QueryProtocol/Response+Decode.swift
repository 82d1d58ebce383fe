// Frame to answer, for clients. Counts are compared with the bytes that are there before anything is reserved.
// Bytes after the last known field are skipped: a later server may say more.

internal import Bytes
internal import StepModel

/// Why an answer could not be read.
public struct AnswerError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Kind of the frame.
  public let kind: UInt8
  /// Index in the payload where reading stopped.
  public let atByte: Int
  /// What was expected there.
  public let expected: String

  public var description: String { "answer of kind \(kind), byte \(atByte): expected \(expected)" }
}

extension Response {
  /// Decodes an answer.
  ///
  /// - Parameter frame: a whole frame; nothing of it is kept.
  /// - Returns: the answer, owned.
  /// - Throws: where and why it is none.
  /// - Complexity: O(payload); allocates no more than a small multiple of it.
  public static func decode(_ frame: Frame) throws(AnswerError) -> Response {
    var payload = AnswerPayload(frame)
    if frame.kind == Kind.error { return .error(try payload.error()) }
    guard frame.kind & Kind.answerBit != 0, let kind = Kind(rawValue: frame.kind & ~Kind.answerBit) else {
      throw payload.expected("the kind of an answer")
    }
    switch kind {
    case .hello: return .hello(try payload.hello())
    case .ping: return .ping
    case .top: return .top(try payload.rows())
    case .rank:
      let context = try payload.context()
      return .rank(context, try payload.rank())
    case .around: return .around(try payload.rows())
    case .compare: return .compare(try payload.rows())
    case .summary: return .summary(try payload.summary())
    case .boards: return .boards(try payload.boards())
    case .status: return .status(try payload.status())
    case .deadLetters: return .deadLetters(try payload.deadLetters())
    case .admin: return .admin(AdminAnswer(text: try payload.text16()))
    case .history, .subscribe, .topology:
      throw payload.expected("a kind of this version")
    }
  }
}

private struct AnswerPayload {
  let kind: UInt8
  var reader: ByteReader

  init(_ frame: Frame) {
    kind = frame.kind
    reader = ByteReader(frame.payload)
  }

  private init(kind: UInt8, _ bytes: UnsafeRawBufferPointer) {
    self.kind = kind
    reader = ByteReader(bytes)
  }

  func expected(_ what: String) -> AnswerError {
    AnswerError(kind: kind, atByte: reader.position, expected: what)
  }

  mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type = T.self) throws(AnswerError)
    -> T
  {
    do { return try reader.integer(type) } catch { throw expected("\(MemoryLayout<T>.size) more bytes") }
  }

  mutating func bytes(_ count: Int) throws(AnswerError) -> UnsafeRawBufferPointer {
    do { return try reader.bytes(count) } catch { throw expected("\(count) more bytes") }
  }

  /// A count of things that take at least `each` bytes.
  mutating func count<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type, each: Int
  ) throws(AnswerError) -> Int {
    let count = Int(truncatingIfNeeded: try integer(type))
    guard count >= 0, count <= reader.left / each else { throw expected("\(count) entries") }
    return count
  }

  mutating func text(_ length: Int) throws(AnswerError) -> String {
    let bytes = try bytes(length)
    guard UTF8Check.isValid(bytes) else { throw expected("UTF-8 text") }
    return String(decoding: bytes, as: UTF8.self)
  }

  mutating func text8() throws(AnswerError) -> String { try text(Int(try integer(UInt8.self))) }

  mutating func text16() throws(AnswerError) -> String { try text(Int(try integer(UInt16.self))) }

  mutating func user() throws(AnswerError) -> UserID {
    guard let user = UserID(try text8()) else { throw expected("a user id") }
    return user
  }

  mutating func board() throws(AnswerError) -> BoardID {
    let kind = try integer(UInt8.self)
    let number = try integer(Int32.self)
    guard case .named(let board)? = BoardName.from(kind: kind, number: number) else {
      throw expected("a board")
    }
    return board
  }

  mutating func boardState() throws(AnswerError) -> BoardState {
    guard let state = BoardState(rawValue: try integer()) else { throw expected("a board's state") }
    return state
  }

  mutating func runState() throws(AnswerError) -> RunState {
    guard let state = RunState(rawValue: try integer()) else { throw expected("a node's state") }
    return state
  }

  mutating func marks() throws(AnswerError) -> (shards: [ShardMark], missing: [UInt32]) {
    var shards: [ShardMark] = []
    let shardCount = try count(UInt16.self, each: ResponseWriter.markBytes)
    shards.reserveCapacity(shardCount)
    for _ in 0..<shardCount {
      let partition = try integer(UInt32.self)
      let watermark = try integer(UInt64.self)
      let age = try integer(UInt64.self)
      shards.append(
        ShardMark(
          partition: partition, watermark: watermark, ageMillis: age,
          flags: ShardFlags(rawValue: try integer())))
    }
    var missing: [UInt32] = []
    for _ in 0..<(try count(UInt16.self, each: 4)) { missing.append(try integer()) }
    return (shards, missing)
  }

  mutating func context() throws(AnswerError) -> AnswerContext {
    let board = try board()
    let state = try boardState()
    let (shards, missing) = try marks()
    return AnswerContext(board: board, state: state, shards: shards, missing: missing)
  }

  mutating func error() throws(AnswerError) -> ErrorAnswer {
    let code = ErrorCode(rawValue: try integer())
    let flags = try integer(UInt8.self)
    return ErrorAnswer(code: code, retryable: flags & 1 != 0, text: try text16())
  }

  mutating func hello() throws(AnswerError) -> HelloAnswer {
    let version = try integer(UInt8.self)
    let versionMin = try integer(UInt8.self)
    let versionMax = try integer(UInt8.self)
    let node = try text8()
    let cluster = try text8()
    let software = try text8()
    var answer = HelloAnswer(version: version, node: node, cluster: cluster, software: software, roles: [])
    answer.serverVersionMin = versionMin
    answer.serverVersionMax = versionMax
    answer.frameInBytesMax = try integer()
    answer.frameOutBytesMax = try integer()
    answer.inFlightMax = try integer()
    answer.rowsMax = try integer()
    answer.idsMax = try integer()
    answer.roles = Roles(rawValue: try integer())
    for _ in 0..<(try count(UInt8.self, each: 1)) { answer.unknownOptions.append(try text8()) }
    return answer
  }

  mutating func rank() throws(AnswerError) -> RankAnswer {
    let onBoard = try integer(UInt8.self)
    guard onBoard <= 1 else { throw expected("0 or 1") }
    let rank = try integer(UInt64.self)
    let tied = try integer(UInt64.self)
    let steps = try integer(UInt64.self)
    let users = try integer(UInt64.self)
    let above = try integer(UInt64.self)
    let next = try integer(UInt8.self)
    let nextAbove = try integer(UInt64.self)
    let nextBelow = try integer(UInt64.self)
    return RankAnswer(
      onBoard: onBoard == 1, rank: rank, tied: tied, steps: steps, users: users, above: above,
      nextAboveSteps: next & 1 != 0 ? nextAbove : nil, nextBelowSteps: next & 2 != 0 ? nextBelow : nil)
  }

  mutating func rows() throws(AnswerError) -> RowsAnswer {
    let context = try context()
    let users = try integer(UInt64.self)
    let totalSteps = try integer(UInt64.self)
    let rowCount = try count(UInt32.self, each: 34)
    var rows: [Row] = []
    rows.reserveCapacity(rowCount)
    for _ in 0..<rowCount {
      let position = try integer(UInt64.self)
      let rank = try integer(UInt64.self)
      let tied = try integer(UInt64.self)
      let steps = try integer(UInt64.self)
      rows.append(Row(position: position, rank: rank, tied: tied, steps: steps, user: try user()))
    }
    var absent: [UserID] = []
    for _ in 0..<(try count(UInt16.self, each: 2)) { absent.append(try user()) }
    return RowsAnswer(context: context, users: users, totalSteps: totalSteps, rows: rows, absent: absent)
  }

  mutating func summary() throws(AnswerError) -> SummaryAnswer {
    let context = try context()
    let users = try integer(UInt64.self)
    let totalSteps = try integer(UInt64.self)
    var quantiles: [Quantile] = []
    for _ in 0..<(try count(UInt8.self, each: 9)) {
      let q = try integer(UInt8.self)
      quantiles.append(Quantile(q: q, steps: try integer()))
    }
    return SummaryAnswer(context: context, users: users, totalSteps: totalSteps, quantiles: quantiles)
  }

  mutating func boards() throws(AnswerError) -> BoardsAnswer {
    let (shards, missing) = try marks()
    var boards: [BoardEntry] = []
    for _ in 0..<(try count(UInt32.self, each: 38)) {
      let board = try board()
      let state = try boardState()
      let users = try integer(UInt64.self)
      let totalSteps = try integer(UInt64.self)
      let starts = try integer(Int64.self)
      let ends = try integer(Int64.self)
      boards.append(
        BoardEntry(
          board: board, state: state, users: users, totalSteps: totalSteps,
          startsMillis: starts == .min ? nil : starts, endsMillis: ends == .max ? nil : ends))
    }
    return BoardsAnswer(shards: shards, missing: missing, boards: boards)
  }

  mutating func deadLetters() throws(AnswerError) -> DeadLettersAnswer {
    var answer = DeadLettersAnswer(letters: [], next: try integer())
    for _ in 0..<(try count(UInt16.self, each: 38)) {
      let position = try integer(UInt64.self)
      let topic = try text8()
      let partition = try integer(UInt32.self)
      let offset = try integer(Int64.self)
      let timestamp = try integer(Int64.self)
      guard let reason = RejectReason(rawValue: try integer(UInt8.self)) else { throw expected("a reason") }
      let total = try integer(UInt32.self)
      let part = Array(try bytes(Int(try integer(UInt32.self))))
      answer.letters.append(
        DeadLettersAnswer.Letter(
          position: position, topic: topic, partition: partition, offset: offset, timestamp: timestamp,
          reason: reason, bytes: total == .max ? nil : total, part: part))
    }
    return answer
  }

  mutating func status() throws(AnswerError) -> StatusAnswer {
    let node = try text8()
    let cluster = try text8()
    let software = try text8()
    let state = try runState()
    var answer = StatusAnswer(
      node: node, cluster: cluster, software: software, state: state, uptimeMillis: try integer())
    for _ in 0..<(try count(UInt16.self, each: 105)) {
      // Whatever a later server adds to a shard stays within its length.
      var shard = AnswerPayload(kind: kind, try bytes(Int(try integer(UInt16.self))))
      answer.shards.append(try shard.shardStatus())
    }
    for _ in 0..<(try count(UInt16.self, each: 9)) {
      let name = try text8()
      answer.counters.append(Counter(name: name, value: try integer()))
    }
    answer.problem = try text16()
    return answer
  }

  mutating func shardStatus() throws(AnswerError) -> ShardStatus {
    let partition = try integer(UInt32.self)
    var shard = ShardStatus(partition: partition, state: try runState())
    shard.reason = try text8()
    shard.watermark = try integer()
    shard.endOffset = try integer()
    shard.lag = try integer()
    shard.counted = try integer()
    shard.rejected = []
    for _ in 0..<(try count(UInt8.self, each: 8)) { shard.rejected.append(try integer()) }
    shard.superseded = try integer()
    shard.shardClockMillis = try integer()
    shard.users = try integer()
    shard.durable = try integer()
    shard.snapshot = try integer()
    shard.sealed = try integer()
    shard.restoredBytes = try integer()
    shard.restoreBytes = try integer()
    return shard
  }
}
