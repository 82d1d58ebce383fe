import Synchronization
import Telemetry
import TestSupport
import Testing

private final class Lines: Sendable {
  private let lines = Mutex<[String]>([])
  var all: [String] { lines.withLock { $0 } }
  func add(_ line: String) { lines.withLock { $0.append(line) } }
}

@Suite struct DiagnosticsTests {
  @Test("a text line has time, level, sentence and fields; values that could forge one are quoted")
  func text() {
    let lines = Lines()
    let log = Diagnostics(clock: VirtualClock().clock, sink: lines.add)
    log.log(.info, "listening", [.address: "127.0.0.1:7670"])
    log.log(
      .warning, "odd", [.user: "a b", .client: "x\n2026 error=1", .path: "", .peer: "\u{1B}[31m\u{202E}"])
    #expect(
      lines.all == [
        "2026-11-24T12:00:00.000Z info listening address=127.0.0.1:7670\n",
        "2026-11-24T12:00:00.000Z warning odd user=\"a b\" client=\"x\\n2026 error=1\" path=\"\" "
          + "peer=\"\\u001b[31m\\u202e\"\n",
      ])
  }

  @Test("a JSON line is one object")
  func json() {
    let lines = Lines()
    let log = Diagnostics(format: .json, clock: VirtualClock().clock, sink: lines.add)
    log.log(.error, "stopped", [.reason: "a \"b\""])
    #expect(
      lines.all == [
        #"{"time":"2026-11-24T12:00:00.000Z","level":"error","message":"stopped","reason":"a \"b\""}"# + "\n"
      ])
  }

  @Test("levels below the bound are dropped")
  func level() {
    let lines = Lines()
    let log = Diagnostics(level: .warning, clock: VirtualClock().clock, sink: lines.add)
    log.log(.info, "dropped")
    log.log(.warning, "kept")
    #expect(lines.all.count == 1)
  }

  @Test("repeats of a sentence are held back, counted, and told once the window is over")
  func repeats() {
    let lines = Lines()
    let time = VirtualClock()
    let log = Diagnostics(clock: time.clock, sink: lines.add)
    for _ in 0..<25 { log.log(.info, "again") }
    log.log(.info, "another")
    #expect(lines.all.count == Diagnostics.repeatsMax + 1)
    time.advance(Diagnostics.repeatWindow)
    log.log(.info, "again")
    #expect(lines.all.last == "2026-11-24T12:00:10.000Z info again held_back=15\n")
    log.log(.info, "again")
    #expect(lines.all.last == "2026-11-24T12:00:10.000Z info again\n")
  }
}
