// The commands that look at a node: status, live.

import Console
import Posix
import QueryProtocol
import RankMySteps

extension Command {
  static let status = Command(
    name: "status", summary: "what a node is doing, shard by shard",
    usage: """
      rmsctl status
      rmsctl status --until caught-up --timeout 60s    wait until it has applied all there was

      usage: rmsctl status [--until caught-up]

      With --until: exit 0 once lag is 0 everywhere, 3 when --timeout (60s) has passed.

      """, flags: [Flag("--until", "CONDITION", "caught-up: every record that the brokers had is applied.")]
  ) { (arguments, context) throws(Failure) in
    try arguments.noWords()
    guard let condition = arguments.text("--until") else {
      let client = try context.connect()
      let answer = try context.asking { () throws(ClientError) in try client.status() }
      try context.output.show(Table(status: answer)) { $0.status(answer) }
      if !answer.problem.isEmpty { Output.note("rmsctl: \(answer.node): \(answer.problem)") }
      return
    }
    guard condition == "caught-up" else { throw .usage("--until \(condition): give caught-up") }
    let timeout = try arguments.duration("--timeout", default: .seconds(60))
    let answer = try waitUntilCaughtUp(context, timeout)
    try context.output.show(Table(status: answer)) { $0.status(answer) }
  }

  /// Asks until the brokers' ends are younger than the first question and every shard has reached its own.
  private static func waitUntilCaughtUp(_ context: Context, _ timeout: Duration) throws(Failure)
    -> StatusAnswer
  {
    let until = Clock.system.now + timeout
    let signals = try signals()
    var heardAtFirst: UInt64?
    var last = Failure.unreachable("\(context.address): not caught up after \(timeout)")
    while true {
      do throws(Failure) {
        let client = try context.connect()
        while true {
          let answer = try context.asking { () throws(ClientError) in try client.status() }
          let heard = answer.counter("end_offsets_heard")
          let first = heardAtFirst ?? heard
          heardAtFirst = min(first, heard)
          let shards = answer.shards.count
          let isWhole = shards > 0 && UInt64(shards) == answer.counter("topic_partitions")
          let lag = answer.shards.map(\.lag)
          if isWhole, heard >= first + 2, lag.allSatisfy({ $0 == 0 }) { return answer }
          let known = lag.map { $0 < 0 ? "?" : String($0) }.joined(separator: ", ")
          last = .unreachable(
            "\(context.address): not caught up in time: \(answer.state.name), lag by shard: \(known.isEmpty ? "?" : known)"
              + (([answer.problem] + answer.shards.map(\.reason)).first { !$0.isEmpty }.map { " (\($0))" }
                ?? ""))
          guard Clock.system.now < until else { throw last }
          try pause(signals)
        }
      } catch {
        guard case .unreachable = error, Clock.system.now < until else { throw error }
        try pause(signals)
      }
    }
  }

  /// What `pause` needs; Ctrl-C no longer ends the process by itself from here on.
  static func signals() throws(Failure) -> Signals {
    do throws(SystemError) { return try Signals([.interrupt, .terminate]) } catch {
      throw .refused("\(error)")
    }
  }

  /// Between two questions; Ctrl-C ends the command.
  static func pause(_ signals: Signals) throws(Failure) {
    if (try? signals.wait(.milliseconds(100))) ?? nil != nil { throw .interrupted }
  }

  static let live = Command(
    name: "live", summary: "the leaders as they move, with rates and lag",
    usage: """
      rmsctl live
      rmsctl live --board 2026-W48 --once      one picture, for scripts

      usage: rmsctl live [--board BOARD] [--limit N] [--every DURATION] [--once]

      Ends with Ctrl-C.

      """,
    flags: [
      Arguments.boardFlag, Flag("--limit", "N", "Rows, 1 to 1000 (10)."),
      Flag("--every", "DURATION", "Time between pictures, at least 100ms (500ms)."),
      Flag("--once", nil, "One picture, then end."),
    ]
  ) { (arguments, context) throws(Failure) in
    try arguments.noWords()
    let board = try arguments.board()
    let limit = try arguments.integer("--limit", default: 10, within: 1...1000)
    let every = max(.milliseconds(100), try arguments.duration("--every", default: .milliseconds(500)))
    let client = try context.connect()
    var live = LiveBoard(colour: context.output.colour)
    func picture() throws(Failure) -> String {
      let top = try context.asking { () throws(ClientError) in try client.top(board, limit: limit) }
      let status = try context.asking { () throws(ClientError) in try client.status() }
      return live.picture(
        top: top, status: status, now: Clock.system.now.nanoseconds / 1_000_000, width: Terminal.columns,
        height: arguments.has("--once") ? limit + 6 : Terminal.lines)
    }
    if arguments.has("--once") { return try Output.write(try picture()) }
    guard Terminal.isOutput else {
      throw .usage("live needs a terminal; rmsctl live --once prints one picture")
    }
    let signals = try signals()
    try Output.write(Screen.begin)
    defer { try? Output.write(Screen.end) }
    while true {
      try Output.write(Screen.frame(try picture()))
      if (try? signals.wait(every)) ?? nil != nil { throw .interrupted }
    }
  }
}

extension StatusAnswer {
  /// A named number; 0 if the node does not tell it.
  func counter(_ name: String) -> UInt64 { counters.first { $0.name == name }?.value ?? 0 }
}
