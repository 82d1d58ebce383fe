// A node from end to end: records in, answers out, against a count that is too simple to be wrong.

import Bytes
import KafkaSource
import Node
import Posix
import QueryProtocol
import RankMySteps
import StepModel
import TestSupport
import Testing

@Suite(.serialized) struct NodeServiceTests {
  private struct Case: Sendable, CustomStringConvertible {
    let seed: Seed
    let mode: StepsMode
    var description: String { "\(mode), \(seed)" }
  }

  private static let cases = zip(
    Seed.some(4), [StepsMode.increment, .totalNewest, .totalMax, .increment]
  ).map { Case(seed: $0, mode: $1) }

  @Test("every answer of a node equals a plain count over all of its records", arguments: cases)
  private func oracle(each: Case) throws {
    let stream = RecordStream(each.seed, partitions: 4, records: 500, users: 24)
    let world = try NodeWorld(partitions: 4) { settings in
      settings.stepsMode = each.mode == .increment ? "increment" : "total"
      settings.stepsTotalPolicy = each.mode == .totalMax ? "max" : "newest"
      settings.eventStepsMax = 4_294_967_295
      settings.boardsWeek = true
      settings.boardsMonth = true
      settings.boardsAll = true
    }
    for (partition, records) in stream.partitions.enumerated() {
      for record in records { try world.produce(record.text, partition, at: record.millis) }
    }
    let oracle = NodeOracle(stream.partitions, try world.settings.cluster())
    let status = try world.settled()
    #expect(status.counted == oracle.counted)
    #expect(status.rejected == UInt64(oracle.letters.reduce(0) { $0 + $1.count }))
    #expect(status.counted + status.rejected == 500)
    #expect(status.shards.reduce(0) { $0 + $1.superseded } == oracle.superseded)
    // The stream must have something of everything, or the comparison says little.
    #expect(Set(oracle.letters.joined().map(\.reason)).count >= RejectReason.allCases.count - 1)
    try checkBoards(world, oracle)
    for (id, rows) in oracle.boards {
      try checkRows(world, .named(id), rows)
      try checkUsers(world, .named(id), rows, stream.users)
    }
    let letters = try world.deadLetters(atLeast: status.rejected)
    for partition in 0..<4 {
      let found = letters.filter { $0.partition == UInt32(partition) }.map { letter in
        var letter = letter
        letter.position = 0
        return letter
      }
      #expect(found == oracle.letters[partition])
    }
    #expect(letters.count == Int(status.rejected))
  }

  private func checkBoards(_ world: NodeWorld, _ oracle: NodeOracle) throws {
    let boards = try world.client.boards()
    #expect(Set(boards.boards.map(\.board)) == Set(oracle.boards.keys))
    #expect(boards.missing.isEmpty && boards.shards.map(\.watermark) == world.counts.map(UInt64.init))
    for entry in boards.boards {
      let rows = oracle.boards[entry.board] ?? []
      #expect(entry.users == UInt64(rows.count), "\(entry.board)")
      #expect(entry.totalSteps == rows.reduce(0) { $0 + $1.steps }, "\(entry.board)")
    }
  }

  private func checkRows(_ world: NodeWorld, _ board: BoardName, _ rows: [Row]) throws {
    #expect(try world.client.top(board, limit: 10_000).rows == rows, "\(board)")
    var paged: [Row] = []
    try world.client.pages(board, pageRows: 7) { page in
      paged += page.rows
      return true
    }
    #expect(paged == rows, "\(board) by cursor")
    for start in stride(from: 0, through: rows.count, by: 9) {
      let page = try world.client.top(board, limit: 5, offset: UInt64(start)).rows
      #expect(page == Array(rows[start...].prefix(5)), "\(board) from \(start)")
    }
    let quantiles: [UInt8] = [1, 10, 25, 50, 75, 90, 99, 100]
    let summary = try world.client.summary(board, quantiles: quantiles)
    #expect(summary.users == UInt64(rows.count) && summary.totalSteps == rows.reduce(0) { $0 + $1.steps })
    #expect(summary.quantiles.map(\.steps) == quantiles.map { NodeOracle.quantile($0, rows) }, "\(board)")
  }

  private func checkUsers(_ world: NodeWorld, _ board: BoardName, _ rows: [Row], _ users: [String]) throws {
    let places = Dictionary(uniqueKeysWithValues: rows.enumerated().map { ($1.user, $0) })
    let everybody = (users + ["nobody"]).compactMap { UserID($0) }
    for user in everybody {
      let answer = try world.client.rank(user, board).answer
      let place = places[user]
      let steps = place.map { rows[$0].steps } ?? 0
      let standing = NodeOracle.Standing(
        rank: answer.rank, tied: answer.tied, above: answer.above, nextAbove: answer.nextAboveSteps,
        nextBelow: answer.nextBelowSteps)
      #expect(standing == NodeOracle.standing(steps, rows), "\(user.text) on \(board)")
      #expect(answer.onBoard == (place != nil) && answer.steps == steps)
      let around = try world.client.around(user, k: 3, board)
      if let place {
        let start = max(0, min(place - 3, rows.count - 7))
        #expect(around.rows == Array(rows[start...].prefix(7)), "around \(user.text) on \(board)")
      } else {
        #expect(around.rows.isEmpty && around.absent == [user])
      }
    }
    let compared = try world.client.compare(everybody, board)
    #expect(compared.rows == rows, "\(board)")
    #expect(compared.absent == everybody.filter { places[$0] == nil })
  }

  @Test("a query waits until the record it names is visible, also before its shard or topic is there")
  func atLeast() throws {
    let world = try NodeWorld(partitions: 2)
    let asking = try NodeWorld.connect(world.node)
    let id = try asking.send(
      .top(board: NodeWorld.day, limit: 10, from: .offset(0)),
      options: RequestOptions(
        deadlineMillis: NodeWorld.patienceMillis, atLeast: [AtLeast(partition: 1, offset: 1)]))
    _ = try world.status { $0.counter("parked_requests") == 1 }
    try world.report("ada", 100, 1)
    _ = try world.settled()
    _ = try world.status { $0.counter("parked_requests") == 1 }
    try world.report("ada", 50, 1)
    #expect(world.producer.flush())
    let answer = try #require(try asking.receive())
    #expect(answer.id == id)
    guard case .top(let top) = try answer.result.get() else {
      Issue.record("\(answer)")
      return
    }
    #expect(top.rows.map(\.steps) == [150])
    #expect(top.context.shards[1].watermark == 2)
  }

  @Test(
    "a query whose record does not come fails with at_least_timeout, of no partition with unknown_partition")
  func atLeastTimeout() throws {
    let world = try NodeWorld(partitions: 1)
    try world.report("ada", 1, 0)
    _ = try world.settled()
    func refusal(_ partition: UInt32) -> ErrorCode? {
      let options = RequestOptions(deadlineMillis: 80, atLeast: [AtLeast(partition: partition, offset: 1)])
      do { _ = try world.client.top(NodeWorld.day, limit: 1, options: options) } catch {
        if case .refused(let code, _, _) = error { return code }
      }
      return nil
    }
    #expect(refusal(0) == .atLeastTimeout)
    #expect(refusal(1) == .unknownPartition)
    #expect(try world.client.status().counter("parked_requests") == 0)
  }

  @Test("a user in two partitions is told of in STATUS and answers, and RANK adds the totals up")
  func usersElsewhere() throws {
    let world = try NodeWorld(partitions: 3)
    try world.report("ada", 10, 0)
    try world.report("ben", 12, 2)
    #expect(try world.settled().counter("users_elsewhere") == 0)
    try world.report("ada", 5, 1)
    _ = try world.settled()
    _ = try world.status { $0.counter("users_elsewhere") > 0 }
    let ranked = try world.client.rank(try #require(UserID("ada")), NodeWorld.day)
    #expect(ranked.context.shards.map(\.flags) == [.usersElsewhere, .usersElsewhere, []])
    #expect(ranked.answer.steps == 15 && ranked.answer.rank == 1 && ranked.answer.users == 2)
  }

  @Test("a node that reads its topic anew writes no dead letter twice")
  func restart() throws {
    let stream = RecordStream(Seed(11), partitions: 2, records: 400, users: 10)
    let world = try NodeWorld(partitions: 2)
    for (partition, records) in stream.partitions.enumerated() {
      for record in records { try world.produce(record.text, partition, at: record.millis) }
    }
    let before = try world.settled()
    let letters = try world.deadLetters(atLeast: before.rejected)
    #expect(letters.count == Int(before.rejected) && !letters.isEmpty)
    try world.restart()
    let after = try world.settled()
    #expect(after.counted == before.counted && after.rejected == before.rejected)
    #expect(try world.deadLetters() == letters)
    try world.produce("{", 0, at: NodeWorld.noon + 9_000_000_000)
    _ = try world.settled()
    _ = try world.status { _ in (try? world.deadLetters().count) == letters.count + 1 }
  }

  @Test("a node that stops still answers what it was asked before")
  func drain() throws {
    let world = try NodeWorld(partitions: 1)
    try world.report("ada", 7, 0)
    _ = try world.settled()
    let asking = try NodeWorld.connect(world.node)
    let id = try asking.send(
      .top(board: NodeWorld.day, limit: 10, from: .offset(0)),
      options: RequestOptions(
        deadlineMillis: NodeWorld.patienceMillis, atLeast: [AtLeast(partition: 0, offset: 1)]))
    _ = try world.status { $0.counter("parked_requests") == 1 }
    let node = world.node
    let stopping = try Thread("stopping") { node.stop() }
    let end = Clock.system.now + .seconds(4)
    while (try? NodeWorld.connect(node)) != nil, Clock.system.now < end {}
    try world.report("ada", 1, 0)
    #expect(world.producer.flush())
    let answer = try #require(try asking.receive())
    guard answer.id == id, case .top(let top) = try answer.result.get() else {
      Issue.record("\(answer)")
      return
    }
    #expect(top.rows.map(\.steps) == [8])
    stopping.join()
    world.wasStopped()
  }

  @Test("a page of TOP that was kept is not shown once the board has moved")
  func keptPages() throws {
    let world = try NodeWorld(partitions: 2)
    for step in 1...40 {
      try world.report("user \(step % 3)", step * 10, step % 2)
      #expect(world.producer.flush())
      let options = world.all
      let first = try world.client.top(NodeWorld.day, limit: 2, options: options)
      let again = try world.client.top(NodeWorld.day, limit: 2, options: options)
      #expect(first.rows == again.rows && first.users == again.users)
      #expect(first.context.shards.map(\.watermark) == world.counts.map(UInt64.init))
      #expect(first.totalSteps == UInt64((1...step).reduce(0) { $0 + $1 * 10 }), "after \(step)")
    }
  }

  @Test("ranks asked for together, of several boards and some waiting, are each those of their user")
  func mixedRanks() throws {
    let world = try NodeWorld(partitions: 2) { $0.boardsAll = true }
    for number in 0..<64 {
      try world.report("user \(number)", 1_000 - number, number % 2)
      try world.produce(
        #"{"uuid": "user \#(number)", "steps": 2000, "timestamp": "2026-11-23 12:00:00"}"#, number % 2)
    }
    let status = try world.settled()
    #expect(status.rejected == 0)
    // One more for each partition, for which every fifth request waits.
    let waited = (0..<2).map { AtLeast(partition: UInt32($0), offset: UInt64(world.counts[$0])) }
    let boards = [NodeWorld.day, .named(.all), .named(.day(Day(number: 20_780)))]
    var frames = ByteWriter(limit: 1 << 20)
    for number in 0..<64 {
      let user = try #require(UserID("user \(63 - number)"))
      RequestWriter.write(
        .rank(board: boards[number % 3], user: user), id: UInt32(100 + number),
        options: RequestOptions(
          deadlineMillis: NodeWorld.patienceMillis, atLeast: number % 5 == 0 ? waited : []), into: &frames)
    }
    try world.client.sendFrames(frames.unsafeBytes)
    try world.report("user 0", 0, 0)
    try world.report("user 1", 0, 1)
    #expect(world.producer.flush())
    var answers: [UInt32: Response] = [:]
    try world.client.receiveFrames(64) { answers[$0.id] = try? Response.decode($0) }
    for number in 0..<64 {
      guard case .rank(let context, let answer)? = answers[UInt32(100 + number)] else {
        Issue.record("request \(number): \(answers[UInt32(100 + number)] as Any)")
        continue
      }
      let own = UInt64(1_000 - (63 - number))
      #expect(answer.steps == [own, own + 2_000, 2_000][number % 3], "request \(number)")
      #expect(answer.rank == (number % 3 == 2 ? 1 : UInt64(64 - number)), "request \(number)")
      #expect(.named(context.board) == boards[number % 3])
      if number % 5 == 0 { #expect(context.shards.map(\.watermark) == world.counts.map(UInt64.init)) }
    }
  }
}
