// A node that starts again from its disk: the same answers, nothing read twice, nothing missing.

import KafkaSource
import Posix
import QueryProtocol
import RankMySteps
import StepModel
import TestSupport
import Testing

@testable import Node

@Suite(.serialized) struct RestartTests {
  private func answers(_ world: NodeWorld) throws -> [RowsAnswer] {
    try world.client.boards().boards.map { try world.client.top(.named($0.board), limit: 10_000) }
  }

  @Test(
    "a node that starts again answers as before and goes on, from log, from snapshot, and from both",
    arguments: Seed.some(6))
  func restarts(seed: Seed) throws {
    var random = seed.random
    let mode = ["increment", "total"].randomElement(using: &random) ?? ""
    let policy = ["newest", "max"].randomElement(using: &random) ?? ""
    let stream = RecordStream(seed, partitions: 2, records: 600, users: 24)
    let world = try NodeWorld(partitions: 2) { settings in
      settings.stepsMode = mode
      settings.stepsTotalPolicy = policy
      settings.eventStepsMax = 4_294_967_295
      settings.boardsWeek = true
      settings.boardsAll = true
      settings.logSegmentBytes = 64 << 10
    }
    let rounds = 4
    for round in 0..<rounds {
      for (partition, records) in stream.partitions.enumerated() {
        let span = records.count / rounds
        for record in records[(round * span)..<((round + 1) * span)] {
          try world.produce(record.text, partition, at: record.millis)
        }
      }
      let before = try world.settled()
      if Bool.random(using: &random) {
        _ = try world.client.order(.snapshot, partition: nil)
        _ = try world.status { now in
          zip(now.shards, before.shards).allSatisfy { $0.snapshot >= $1.watermark }
        }
      }
      if Bool.random(using: &random) { _ = try world.client.order(.seal, partition: nil) }
      let wanted = try answers(world)
      let letters = try world.deadLetters(atLeast: before.rejected)
      try world.restart()
      let after = try world.settled()
      for (new, old) in zip(after.shards, before.shards) {
        #expect(new.watermark == old.watermark && new.counted == old.counted && new.users == old.users)
        #expect(new.superseded == old.superseded && new.rejected == old.rejected)
        #expect(new.shardClockMillis == old.shardClockMillis)
      }
      let found = try answers(world)
      #expect(found.map(\.rows) == wanted.map(\.rows), "round \(round), \(mode) \(policy)")
      #expect(
        found.map(\.users) == wanted.map(\.users) && found.map(\.totalSteps) == wanted.map(\.totalSteps))
      #expect(try world.deadLetters(atLeast: after.rejected) == letters)
    }
    let oracle = NodeOracle(
      stream.partitions.map { Array($0.prefix($0.count / rounds * rounds)) }, try world.settings.cluster())
    let status = try world.client.status()
    #expect(status.counted == oracle.counted)
    for (id, rows) in oracle.boards {
      #expect(try world.client.top(.named(id), limit: 10_000).rows == rows, "\(id)")
    }
  }

  @Test(
    "while the brokers are away a node that starts again answers from its disk, and says before what is missing"
  )
  func brokersAway() throws {
    let world = try NodeWorld(partitions: 2)
    try world.report("ada", 10, 0)
    try world.report("ben", 20, 1)
    _ = try world.settled()
    world.stop()
    var settings = world.settings
    settings.kafkaBootstrapServers = "127.0.0.1:1"
    let node = try NodeService(settings, diagnostics: NodeWorld.quiet)
    defer { node.stop() }
    let client = try NodeWorld.connect(node)
    var top = try client.top(NodeWorld.day, limit: 10)
    #expect(top.rows.isEmpty && top.context.missing == [0, 1])
    try node.start()
    top = try client.top(NodeWorld.day, limit: 10)
    let end = Clock.system.now + .seconds(20)
    while !top.context.missing.isEmpty || top.rows.isEmpty, Clock.system.now < end {
      top = try client.top(NodeWorld.day, limit: 10)
    }
    #expect(top.rows.map(\.steps) == [20, 10] && top.context.missing.isEmpty)
    #expect(top.context.shards.map(\.watermark) == [1, 1])
  }
}
