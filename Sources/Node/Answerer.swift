// Requests to answers, over the shards of this node. All requests that arrived together are answered from one moment:
// the shards' gates are entered once, and every answer of the batch carries the same watermarks.

import Bytes
import Cluster
import Posix
import QueryProtocol
import QueryServer
import RankIndex
import StepModel

/// What one thread needs to answer a batch. Not shared between threads.
final class Answerer: @unchecked Sendable {
  // Unchecked: one thread has it at a time.
  private let node: NodeFacts
  private let merged = MergedBoard()
  private var source = ShardSet.Source()
  /// Wall clock of the batch, milliseconds since 1970.
  private var now: Int64 = 0
  /// The day of `now`, once it was asked for.
  private var today: Day?
  private var marks: [ShardMark] = []
  private var missing: [UInt32] = []
  private var context: AnswerContext
  /// The board that `merged` and `context` are filled for.
  private var opened: BoardID?
  private var ranker = Ranker()
  private var pages = PageCache()

  init(_ node: NodeFacts) {
    self.node = node
    context = AnswerContext(board: .all)
  }

  /// What became of a request.
  enum Outcome { case answered, notYet }

  /// Enters the shards' gates; `leave` must follow.
  func enter() {
    source = node.shards.now
    now = node.clock.wall / 1_000_000
    opened = nil
    today = nil
    marks.removeAll(keepingCapacity: true)
    missing.removeAll(keepingCapacity: true)
    for shard in source.shards {
      shard.gate.enterReading()
      let numbers = shard.numbers
      // What the brokers have by now is unknown while they are away or the partition stands still.
      let atEnd =
        numbers.atEnd && numbers.failure == nil && numbers.problem == nil && source.problem == nil
      let age =
        atEnd ? 0 : numbers.newest < 0 ? ShardMark.unknownAge : UInt64(max(0, now - numbers.newest))
      marks.append(
        ShardMark(
          partition: UInt32(shard.partition), watermark: UInt64(numbers.watermark), ageMillis: age,
          flags: numbers.usersElsewhere > 0 ? .usersElsewhere : []))
    }
    if source.shards.count < Int(source.partitions) {
      let here = Set(source.shards.map(\.partition))
      for partition in 0..<source.partitions where !here.contains(partition) {
        missing.append(UInt32(partition))
      }
    }
    pages.keep(at: marks)
    if !missing.isEmpty { node.metrics.counter(.partialAnswers).add() }
  }

  /// Leaves the gates; does nothing outside them.
  func leave() {
    for shard in source.shards { shard.gate.leaveReading() }
    merged.close()
    source.shards = []
  }

  /// Looks up the users of RANK requests together, which overlaps their waits for memory. Requests given here are
  /// answered faster by `answer`, and alike.
  ///
  /// - Parameters:
  ///   - board: the board of all of them.
  ///   - users: their ids, borrowed until `leave`.
  func prepareRanks(_ board: BoardName, _ users: [UnsafeRawBufferPointer]) {
    guard open(board) == nil else { return }
    ranker.look(users, in: merged)
  }

  /// Answers a request.
  ///
  /// - Returns: `notYet` if the records it waits for are not applied; nothing was written then.
  func answer(_ incoming: Incoming, into out: inout ByteWriter) -> Outcome {
    let id = incoming.id
    for wait in incoming.atLeast {
      guard let index = marks.firstIndex(where: { $0.partition == wait.partition }) else {
        // A partition that is on its way here, or a topic that is not found yet, may come in time.
        guard source.partitions > 0, wait.partition >= source.partitions else { return .notYet }
        ResponseWriter.refusal(
          id: id, Refusal(.unknownPartition, "at_least names a partition that the topic does not have"),
          into: &out)
        return .answered
      }
      if marks[index].watermark <= wait.offset { return .notYet }
    }
    switch incoming.request {
    case .hello:
      ResponseWriter.refusal(id: id, Refusal(.helloFirst, "HELLO comes first, and once"), into: &out)
    case .ping: ResponseWriter.ping(id: id, into: &out)
    case .top(let board, let limit, let from): top(id, board, limit, from, &out)
    case .rank(let board, let user): rank(id, board, user, &out)
    case .around(let board, let user, let k): around(id, board, user, k, &out)
    case .compare(let board, let users): compare(id, board, users, &out)
    case .summary(let board, let quantiles): summary(id, board, quantiles, &out)
    case .boards: ResponseWriter.boards(id: id, boardsAnswer(), into: &out)
    case .status: ResponseWriter.status(id: id, node.status(source), into: &out)
    case .deadLetters(let position, let limit, let skip): deadLetters(id, position, limit, skip, &out)
    case .admin(let verb, let partition): order(id, verb, partition, &out)
    }
    return .answered
  }

  // MARK: One request each

  private func rank(_ id: UInt32, _ name: BoardName, _ user: UnsafeRawBufferPointer, _ out: inout ByteWriter)
  {
    if let refusal = open(name) { return ResponseWriter.refusal(id: id, refusal, into: &out) }
    let answer = ranker.rank(user, in: merged)
    ResponseWriter.rank(id: id, context, answer, into: &out)
  }

  private func top(_ id: UInt32, _ name: BoardName, _ limit: Int, _ from: TopStart, _ out: inout ByteWriter) {
    if let refusal = open(name) { return ResponseWriter.refusal(id: id, refusal, into: &out) }
    let start = out.count
    var first: UInt64?
    if case .offset(let offset) = from { first = offset }
    if let first, let board = opened, let tail = pages.find(board, first, limit) {
      return tail.withUnsafeBytes { ResponseWriter.rows(.top, id: id, context, tail: $0, into: &out) }
    }
    var rows = rowsWriter(.top, id, &out)
    switch from {
    case .offset(let offset):
      merged.rows(from: Int(clamping: offset), limit: limit) { row($0, &rows, &out) }
    case .after(let steps, let user):
      merged.rows(after: steps, user: UserKey(user), limit: limit) { row($0, &rows, &out) }
    }
    rows.end(into: &out)
    if let first, let board = opened, limit <= PageCache.limitMax, out.count > rows.tailAt,
      out.unsafeBytes[start + Limits.lengthBytes] == Kind.top.answer
    {
      pages.add(board, first, limit, UnsafeRawBufferPointer(rebasing: out.unsafeBytes[rows.tailAt...]))
    }
  }

  private func around(
    _ id: UInt32, _ name: BoardName, _ user: UnsafeRawBufferPointer, _ k: Int, _ out: inout ByteWriter
  ) {
    if let refusal = open(name) { return ResponseWriter.refusal(id: id, refusal, into: &out) }
    var rows = rowsWriter(.around, id, &out)
    let key = UserKey(user)
    // Counted in several shards, the user has several rows; the window is around the greatest.
    let steps = merged.greatestPart(of: key)
    if steps > 0 {
      let position = merged.position(steps: UInt64(steps), user: key)
      let start = max(0, min(position - k, merged.users - (2 * k + 1)))
      merged.rows(from: start, limit: 2 * k + 1) { row($0, &rows, &out) }
    } else {
      rows.absent(user, into: &out)
    }
    rows.end(into: &out)
  }

  private func compare(_ id: UInt32, _ name: BoardName, _ users: UserList, _ out: inout ByteWriter) {
    if let refusal = open(name) { return ResponseWriter.refusal(id: id, refusal, into: &out) }
    var found: [MergedRow] = []
    var absent: [UnsafeRawBufferPointer] = []
    var seen = Set<UserID>()
    for user in users {
      let id = UserID(String(decoding: user, as: UTF8.self))
      guard let id, seen.insert(id).inserted else { continue }
      let key = UserKey(user)
      let (answer, foundIn) = merged.rank(key)
      guard foundIn > 0 else {
        absent.append(user)
        continue
      }
      found.append(
        MergedRow(
          position: merged.position(steps: answer.steps, user: key), rank: Int(answer.rank),
          tied: Int(answer.tied),
          steps: answer.steps, user: key))
    }
    found.sort { $0.steps != $1.steps ? $0.steps > $1.steps : MergedBoard.precedes($0.user, $1.user) }
    var rows = rowsWriter(.compare, id, &out)
    for each in found { row(each, &rows, &out) }
    for user in absent { rows.absent(user, into: &out) }
    rows.end(into: &out)
  }

  private func summary(
    _ id: UInt32, _ name: BoardName, _ quantiles: UnsafeRawBufferPointer, _ out: inout ByteWriter
  ) {
    if let refusal = open(name) { return ResponseWriter.refusal(id: id, refusal, into: &out) }
    let answer = SummaryAnswer(
      context: context, users: UInt64(merged.users), totalSteps: merged.totalSteps,
      quantiles: quantiles.map { Quantile(q: $0, steps: UInt64(merged.quantile(Int($0)))) })
    ResponseWriter.summary(id: id, answer, into: &out)
  }

  private func boardsAnswer() -> BoardsAnswer {
    var sums: [BoardID: (users: UInt64, steps: UInt64)] = [:]
    for shard in source.shards {
      for board in shard.boards.boards where board.users > 0 {
        let sum = sums[board.id] ?? (0, 0)
        sums[board.id] = (sum.users + UInt64(board.users), sum.steps + board.totalSteps)
      }
    }
    let entries = sums.map { id, sum in
      let period = node.cluster.dayRule.milliseconds(of: id)
      return BoardEntry(
        board: id, state: state(of: id), users: sum.users, totalSteps: sum.steps,
        startsMillis: period?.lowerBound,
        endsMillis: period?.upperBound)
    }
    return BoardsAnswer(
      shards: marks, missing: missing, boards: entries.sorted { BoardOrder.precedes($0.board, $1.board) })
  }

  /// Reads a file, so the gates are left first: no shard waits for a disk. The request is alone in its batch.
  private func deadLetters(
    _ id: UInt32, _ position: UInt64, _ limit: Int, _ skip: Int, _ out: inout ByteWriter
  ) {
    leave()
    let bytesMax = limit == 1 ? Limits.deadLetterPartBytesMax : Limits.deadLetterBytesMax
    do throws(DeadLetterError) {
      let page = try node.deadLetters.read(from: Int(clamping: position), limit: limit)
      let answer = DeadLettersAnswer(
        letters: page.letters.map { letter in
          DeadLettersAnswer.Letter(
            position: UInt64(letter.position), topic: letter.topic, partition: UInt32(letter.partition),
            offset: letter.offset, timestamp: letter.timestamp, reason: letter.reason,
            bytes: letter.payload.map { UInt32(clamping: $0.count) },
            part: Array((letter.payload ?? []).dropFirst(skip).prefix(bytesMax)))
        }, next: UInt64(page.next))
      ResponseWriter.deadLetters(id: id, answer, into: &out)
    } catch {
      ResponseWriter.error(
        id: id, code: .serverError, text: "the dead-letter file cannot be read: \(error)", into: &out)
    }
  }

  /// The node's desk is asked outside the gates: it may need a shard's own turn.
  private func order(_ id: UInt32, _ verb: AdminVerb, _ partition: UInt32?, _ out: inout ByteWriter) {
    let partitions = source.partitions
    leave()
    if let partition, partitions > 0, partition >= partitions {
      return ResponseWriter.refusal(
        id: id, Refusal(.unknownPartition, "the topic has no such partition"), into: &out)
    }
    do throws(AdminRefusal) {
      let text = try node.desk.order(verb, partition: partition.map { Int32(clamping: $0) })
      ResponseWriter.admin(id: id, AdminAnswer(text: text), into: &out)
    } catch {
      ResponseWriter.error(id: id, code: error.code, text: error.text, into: &out)
    }
  }

  // MARK: The board

  /// Fills `boards` and `context` for a board; a refusal if this cluster does not keep it.
  private func open(_ name: BoardName) -> Refusal? {
    let id: BoardID
    switch name {
    case .today:
      let day = today ?? node.cluster.dayRule.day(atMilliseconds: now)
      today = day
      id = .day(day)
    case .named(let named): id = named
    }
    if opened == id { return nil }
    switch id {
    case .day: break
    case .week where !node.cluster.boardsWeek:
      return Refusal(.noSuchBoard, "weeks are not ranked here (boards.week)")
    case .month where !node.cluster.boardsMonth:
      return Refusal(.noSuchBoard, "months are not ranked here (boards.month)")
    case .all where !node.cluster.boardsAll:
      return Refusal(.noSuchBoard, "all time is not ranked here (boards.all)")
    case .week, .month, .all: break
    }
    merged.open(source.shards.compactMap { $0.boards.board(id) })
    ranker.reset()
    context = AnswerContext(board: id, state: state(of: id), shards: marks, missing: missing)
    opened = id
    return nil
  }

  /// Closed once every shard's clock is past the last moment at which an event of the period is accepted; a shard that
  /// is not here may accept one yet.
  private func state(of id: BoardID) -> BoardState {
    guard let end = node.cluster.dayRule.milliseconds(of: id)?.upperBound, !source.shards.isEmpty,
      missing.isEmpty
    else { return .live }
    // In `event` mode a day ends with its last offset, UTC-14:00.
    let lastEnd = node.cluster.dayRule.name == "event" ? end + 14 * 3_600_000 : end
    let late = lastEnd + node.cluster.acceptLate.nanoseconds / 1_000_000
    return source.shards.allSatisfy { $0.numbers.clock > late } ? .closed : .live
  }

  private func rowsWriter(_ kind: Kind, _ id: UInt32, _ out: inout ByteWriter)
    -> RowsWriter
  {
    RowsWriter(kind, id: id, context, users: UInt64(merged.users), totalSteps: merged.totalSteps, into: &out)
  }

  private func row(_ row: MergedRow, _ rows: inout RowsWriter, _ out: inout ByteWriter) {
    rows.row(
      position: UInt64(row.position), rank: UInt64(row.rank), tied: UInt64(row.tied), steps: row.steps,
      user: row.user,
      into: &out)
  }
}

/// Order of boards in lists: days, weeks, months, all time; newest first.
enum BoardOrder {
  static func precedes(_ a: BoardID, _ b: BoardID) -> Bool {
    let (kindA, numberA) = place(a)
    let (kindB, numberB) = place(b)
    return kindA != kindB ? kindA < kindB : numberA > numberB
  }

  private static func place(_ id: BoardID) -> (kind: Int, number: Int32) {
    switch id {
    case .day(let day): (0, day.number)
    case .week(let monday): (1, monday.number)
    case .month(let month): (2, month)
    case .all: (3, 0)
    }
  }
}

/// Ranks of users who were asked for together.
struct Ranker {
  private var users: [UnsafeRawBufferPointer] = []
  private var keys: [UserKey] = []
  private var found: [(total: UInt64, shards: Int)] = []
  /// The next user that `rank` expects.
  private var next = 0

  mutating func reset() {
    users.removeAll(keepingCapacity: true)
    next = 0
  }

  /// Looks all users up in all shards.
  mutating func look(_ users: [UnsafeRawBufferPointer], in merged: MergedBoard) {
    self.users = users
    next = 0
    keys.removeAll(keepingCapacity: true)
    for user in users { keys.append(UserKey(user)) }
    if found.count < keys.count { found = Array(repeating: (0, 0), count: keys.count) }
    found.withUnsafeMutableBufferPointer { found in
      keys.withUnsafeBufferPointer { keys in
        if let found = found.baseAddress { merged.totals(of: keys, into: found) }
      }
    }
  }

  /// The answer for a user; quick if users come in the order in which `look` got them.
  mutating func rank(_ user: UnsafeRawBufferPointer, in merged: MergedBoard) -> RankAnswer {
    // Requests that were not answered leave gaps; the bytes are the same ones that `look` got.
    while next < users.count, users[next].baseAddress != user.baseAddress { next += 1 }
    guard next < users.count else { return merged.rank(UserKey(user)).answer }
    defer { next += 1 }
    return merged.rank(total: found[next].total, foundIn: found[next].shards)
  }
}

/// Pages of TOP as they were written, good until a watermark moves: a shard's state is a function of its watermark.
struct PageCache {
  /// Rows of a page that is kept, at most.
  static let limitMax = 100
  /// Pages that are kept, at most.
  static let pagesMax = 16

  private struct Page {
    let board: BoardID
    let first: UInt64
    let limit: Int
    let tail: [UInt8]
  }

  private var watermarks: [UInt64] = []
  private var partitions: [UInt32] = []
  private var pages: [Page] = []

  /// Forgets all pages unless the shards are the same and stand where they stood.
  mutating func keep(at marks: [ShardMark]) {
    var isSame = marks.count == watermarks.count
    for index in marks.indices where isSame {
      isSame = marks[index].watermark == watermarks[index] && marks[index].partition == partitions[index]
    }
    if isSame { return }
    pages.removeAll(keepingCapacity: true)
    watermarks = marks.map(\.watermark)
    partitions = marks.map(\.partition)
  }

  /// The page's bytes after its context; valid until the cache changes.
  func find(_ board: BoardID, _ first: UInt64, _ limit: Int) -> [UInt8]? {
    for page in pages where page.first == first && page.limit == limit && page.board == board {
      return page.tail
    }
    return nil
  }

  mutating func add(_ board: BoardID, _ first: UInt64, _ limit: Int, _ tail: UnsafeRawBufferPointer) {
    if pages.count >= PageCache.pagesMax { pages.removeFirst() }
    pages.append(Page(board: board, first: first, limit: limit, tail: Array(tail)))
  }
}

extension Answerer {
  /// Answers all requests of one turn from one moment.
  func answer(_ batch: borrowing RequestBatch, into out: inout ByteWriter) {
    enter()
    defer { leave() }
    prepare(batch.requests)
    for index in 0..<batch.count {
      switch answer(batch.requests[index], into: &out) {
      case .answered: break
      case .notYet: batch.notYet(index)
      }
    }
  }

  /// Looks up together the users of all RANK requests of the first such request's board.
  private func prepare(_ requests: UnsafeBufferPointer<Incoming>) {
    var board: BoardName?
    var users: [UnsafeRawBufferPointer] = []
    for incoming in requests {
      guard case .rank(let name, let user) = incoming.request else { continue }
      if board == nil { board = name }
      if board == name { users.append(user) }
    }
    if let board, users.count > 1 { prepareRanks(board, users) }
  }
}
