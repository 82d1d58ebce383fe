import Synchronization
import TestSupport
import Testing

@testable import Posix

/// Two numbers that are equal whenever no writer is inside. Unchecked: the gate under test guards them.
private final class Pair: @unchecked Sendable {
  var first = 0
  var second = 0
}

@Suite struct GateTests {
  @Test("readers never see a writer's half-done turn, and no turn is lost", arguments: [1, 2])
  func exclusion(writers: Int) throws {
    let gate = Gate()
    let pair = Pair()
    let turns = 3_000
    let torn = Atomic(0)
    let done = Atomic(0)
    var threads: [Thread] = []
    for _ in 0..<writers {
      threads.append(
        try Thread("writer") {
          for _ in 0..<turns {
            gate.write {
              pair.first += 1
              pair.second += 1
            }
          }
          done.add(1, ordering: .relaxed)
        })
    }
    for _ in 0..<3 {
      threads.append(
        try Thread("reader") {
          while done.load(ordering: .relaxed) < writers {
            gate.read { if pair.first != pair.second { torn.add(1, ordering: .relaxed) } }
          }
        })
    }
    for thread in threads { thread.join() }
    #expect(torn.load(ordering: .relaxed) == 0)
    #expect(pair.first == turns * writers)
  }

  @Test("a reader that waits is let in before the writer's next turn")
  func readerNext() throws {
    // The writer takes its second turn only after it saw the reader wait for the first to end.
    let gate = Gate()
    let order = Mutex<[String]>([])
    gate.enterWriting()
    let reader = try Thread("reader") {
      gate.read { order.withLock { $0.append("read") } }
    }
    while gate.waiting.readers == 0 { Thread.yield() }
    gate.leaveWriting()
    gate.write { order.withLock { $0.append("write") } }
    reader.join()
    #expect(order.withLock { $0 } == ["read", "write"])
  }

  @Test("a reader passes a writer that waits for another reader")
  func passing() throws {
    let gate = Gate()
    let order = Mutex<[String]>([])
    gate.enterReading()
    let writer = try Thread("writer") { gate.write { order.withLock { $0.append("write") } } }
    while gate.waiting.writers == 0 { Thread.yield() }
    let passed = Atomic(false)
    let reader = try Thread("reader") {
      gate.read {
        order.withLock { $0.append("read") }
        passed.store(true, ordering: .releasing)
      }
    }
    while !passed.load(ordering: .acquiring) && gate.waiting.readers == 0 { Thread.yield() }
    gate.leaveReading()
    writer.join()
    reader.join()
    #expect(order.withLock { $0 } == ["read", "write"])
  }

  @Test("once as many readers as may have passed a writer, it is let in before those that come after")
  func writerNext() throws {
    let gate = Gate()
    let order = Mutex<[String]>([])
    gate.enterReading()
    let writer = try Thread("writer") { gate.write { order.withLock { $0.append("write") } } }
    while gate.waiting.writers == 0 { Thread.yield() }
    for _ in 0..<GateState.readersPassingMax { gate.enterReading() }
    let reader = try Thread("reader") { gate.read { order.withLock { $0.append("read") } } }
    while gate.waiting.readers == 0 { Thread.yield() }
    for _ in 0...GateState.readersPassingMax { gate.leaveReading() }
    writer.join()
    reader.join()
    #expect(order.withLock { $0 } == ["write", "read"])
  }

  @Test("readers share the gate")
  func sharing() throws {
    let gate = Gate()
    gate.enterReading()
    let other = try Thread("other") { gate.read {} }
    other.join()
    gate.leaveReading()
  }
}
