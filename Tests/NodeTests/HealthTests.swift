// What a node says of its health, from values and a clock moved by hand.

import TestSupport
import Testing

@testable import Node

@Suite struct HealthTests {
  private static let sound: ReadinessView = {
    var view = ReadinessView()
    view.partitions = 4
    view.shards = 4
    view.diskFreeBytes = 1 << 30
    return view
  }()

  @Test("a thread is stuck only with work waiting and nothing moved for the whole time")
  func stuck() {
    let time = VirtualClock()
    let progress = ShardProgress(time.clock)
    time.advance(.seconds(100))
    #expect(progress.stuck == nil, "nothing waits")
    progress.given()
    progress.given()
    #expect(progress.stuck == nil, "the idle time before does not count")
    time.advance(ShardProgress.stuckAfter - .nanoseconds(1))
    #expect(progress.stuck == nil)
    time.advance(.nanoseconds(1))
    #expect(progress.stuck == ShardProgress.stuckAfter)
    progress.moved()
    #expect(progress.stuck == nil)
    time.advance(.seconds(11))
    progress.done()
    #expect(progress.stuck == nil)
    time.advance(.seconds(12))
    #expect(progress.stuck == .seconds(12), "one of two pieces still waits")
    progress.done()
    time.advance(.seconds(12))
    #expect(progress.stuck == nil)
  }

  @Test("each fault fails the check of its name, alone, and leaving that one out makes ready")
  func faults() {
    let faults: [(String, String, (inout ReadinessView) -> Void)] = [
      ("node", "[-]node stopping\n", { $0.isStopping = true }),
      ("kafka", "[-]kafka away\n", { $0.sourceProblem = "away" }),
      ("topic", "[-]topic not found yet\n", { $0.partitions = 0 }),
      ("shards", "[-]shards catching up: 2\n", { $0.catchingUp = [1, 3] }),
      ("shards", "[-]shards none assigned\n", { $0.shards = 0 }),
      ("shards", "[-]shards stuck: 3\n", { $0.stuck = [3] }),
      ("stopped", "[-]stopped shard 2: a b\n", { $0.stopped = [(2, "a\nb")] }),
      ("dead-letters", "[-]dead-letters not writable\n", { $0.deadLettersAreWritable = false }),
      ("dead-letters", "[-]dead-letters the disk is full\n", { $0.diskFreeBytes = 0 }),
    ]
    for (name, line, fault) in faults {
      var view = Self.sound
      fault(&view)
      let answer = HealthPage.answer(view.checks, [])
      #expect(answer.status == 503)
      #expect(answer.body.contains(line))
      #expect(answer.body.split(separator: "\n").filter { $0.hasPrefix("[-]") }.count == 1)
      let without = HealthPage.answer(view.checks, [.init("verbose"), .init("exclude", name)])
      #expect(without.status == 200)
      #expect(without.body.contains("[+]\(name) excluded\n"))
    }
  }

  @Test("a sound node is ready in one word, or in all of them; an unknown check is refused")
  func sound() {
    let checks = Self.sound.checks
    #expect(HealthPage.answer(checks, []).body == "ok\n")
    #expect(
      HealthPage.answer(checks, [.init("verbose")]).body
        == checks.map { "[+]\($0.name) ok\n" }.joined() + "ready\n")
    #expect(HealthPage.answer(checks, [.init("exclude", "kafk")]).status == 400)
  }
}
