// Orders to a node: snapshot, seal, shard accept-gap, shard adopt. The node answers at once; these commands then watch
// STATUS until the effect is there.

import Bytes
import Console
import Glibc
import Posix
import QueryProtocol
import RankMySteps

extension Command {
  static let snapshot = Command(
    name: "snapshot", summary: "write the shards' state to disk now",
    usage: """
      rmsctl snapshot                    every shard of the node
      rmsctl snapshot --partition 3

      usage: rmsctl snapshot [--partition P]

      Ends with 0 once there is a snapshot of what was applied when it was asked for, 3 when --timeout (60s) has passed.

      """, flags: [Arguments.partitionFlag]
  ) { (arguments, context) throws(Failure) in try carryOut(.snapshot, arguments, context) { $0.snapshot } }

  static let seal = Command(
    name: "seal", summary: "close and compress the segments being written",
    usage: """
      rmsctl seal                    every shard of the node
      rmsctl seal --partition 3

      usage: rmsctl seal [--partition P]

      Ends with 0 once what was applied when it was asked for is in sealed segments, 3 when --timeout (60s) has passed.

      """, flags: [Arguments.partitionFlag]
  ) { (arguments, context) throws(Failure) in try carryOut(.seal, arguments, context) { $0.sealed } }

  static let shard = Command(
    name: "shard", summary: "let a shard go on that waits for a person",
    usage: """
      rmsctl shard accept-gap 3      go on behind records that the brokers no longer have
      rmsctl shard adopt --yes       take the topic that is there now, on every partition

      usage: rmsctl shard accept-gap PARTITION [--yes]
             rmsctl shard adopt [PARTITION] [--yes]

      Says first what will be lost or set aside, and asks. Ends with 0 once the shards go on, 3 when --timeout (60s)
      has passed.

      """,
    flags: [
      Flag("--yes", nil, "Do not ask."),
      Flag("--dry-run", nil, "Say what would be done, and do nothing."),
    ]
  ) { (arguments, context) throws(Failure) in
    guard let word = arguments.words.first else { throw .usage("accept-gap or adopt?") }
    guard let verb = [AdminVerb.acceptGap, .adopt].first(where: { $0.name == word }) else {
      throw .usage("shard \(word): give accept-gap or adopt")
    }
    let rest = arguments.words.dropFirst()
    guard rest.count <= 1 else { throw .usage("one PARTITION, not \(rest.count)") }
    let partition = try rest.first.map { (text) throws(Failure) in try Arguments.partition(text) }
    if verb == .acceptGap, partition == nil {
      throw .usage("PARTITION is missing: rmsctl shard accept-gap 3")
    }
    try release(verb, partition, arguments, context)
  }

  // MARK: Snapshot and seal

  /// Orders, then asks until every shard has `reached` the watermark it had before the order.
  private static func carryOut(
    _ verb: AdminVerb, _ arguments: Arguments, _ context: Context, _ reached: (ShardStatus) -> Int64
  ) throws(Failure) {
    try arguments.noWords()
    let partition = try arguments.text("--partition").map { (text) throws(Failure) in
      try Arguments.partition(text)
    }
    let until = Clock.system.now + (try arguments.duration("--timeout", default: .seconds(60)))
    let signals = try signals()
    let client = try context.connect()
    let goals = try context.status(client).shards.filter { partition == nil || $0.partition == partition }
    let answer = try context.asking { () throws(ClientError) in try client.order(verb, partition: partition) }
    Output.note("rmsctl: \(context.address): \(answer)")
    while true {
      let now = try context.status(client).shards
      let steps = goals.map { goal in
        Step(wanted: goal, now: now.first { $0.partition == goal.partition }, reached: reached)
      }
      guard let open = steps.first(where: { !$0.isDone }) else {
        return try context.output.show(Table(steps, verb)) { $0.order(verb, answer, steps) }
      }
      guard Clock.system.now < until else {
        throw .unreachable(
          "\(context.address): no \(verb.name) in time: partition \(open.partition) is at \(open.reached) of \(open.wanted)"
            + (open.reason.isEmpty ? "" : " (\(open.reason))"))
      }
      try pause(signals)
    }
  }

  /// How far a shard is with an order.
  fileprivate struct Step {
    let partition: UInt32
    let wanted: Int64
    /// -1 if nothing is done, or the shard has left this node.
    let reached: Int64
    let reason: String

    init(wanted goal: ShardStatus, now: ShardStatus?, reached: (ShardStatus) -> Int64) {
      partition = goal.partition
      wanted = goal.watermark
      self.reached = now.map(reached) ?? -1
      reason = now?.reason ?? "the shard is no longer on this node"
    }

    /// Where nothing was applied, nothing is to be written.
    var isDone: Bool { reached >= wanted || wanted <= 0 }
  }

  // MARK: Shards that wait for a person

  /// Says what the order means, asks, orders, and waits until the shards no longer stand where they stood.
  private static func release(
    _ verb: AdminVerb, _ partition: UInt32?, _ arguments: Arguments, _ context: Context
  ) throws(Failure) {
    let client = try context.connect()
    let before = try context.status(client).shards.filter { partition == nil || $0.partition == partition }
    for shard in before {
      Output.note(
        "partition \(shard.partition): \(shard.state.name), watermark \(shard.watermark)"
          + (shard.reason.isEmpty ? "" : ": \(Terminal.escaped(shard.reason))"))
    }
    Output.note(meaning(verb))
    if arguments.has("--dry-run") { return }
    try confirm(arguments, "rmsctl shard \(verb.name)")
    let until = Clock.system.now + (try arguments.duration("--timeout", default: .seconds(60)))
    let signals = try signals()
    let answer = try context.asking { () throws(ClientError) in try client.order(verb, partition: partition) }
    Output.note("rmsctl: \(context.address): \(answer)")
    let waiting = before.filter { $0.state == .stopped }
    while true {
      let now = try context.status(client)
      let still = waiting.first { old in
        guard let new = now.shards.first(where: { $0.partition == old.partition }) else { return true }
        return new.state == .stopped && new.reason == old.reason
      }
      guard let still else {
        let shards = now.shards.filter { partition == nil || $0.partition == partition }
        var shown = now
        shown.shards = shards
        return try context.output.show(Table(status: shown)) { $0.status(shown) }
      }
      guard Clock.system.now < until else {
        throw .unreachable(
          "\(context.address): partition \(still.partition) still stands: \(still.reason)")
      }
      try pause(signals)
    }
  }

  private static func meaning(_ verb: AdminVerb) -> String {
    switch verb {
    case .acceptGap:
      "accept-gap: the records in the gap were not counted and are gone from the brokers; going on means that they never\n"
        + "will be. The gap is written into the log and stays visible there."
    case .adopt:
      "adopt: what is on disk of the topic as it was is set aside, not deleted, in a folder named after its topic id. The\n"
        + "boards of these partitions begin anew, from the first offset of the topic that is there now."
    case .snapshot, .seal: ""
    }
  }

  /// Asks on the terminal; where there is none, `--yes` must stand on the command line.
  private static func confirm(_ arguments: Arguments, _ what: String) throws(Failure) {
    if arguments.has("--yes") { return }
    guard isatty(0) == 1 else {
      throw .usage("\(what) cannot be undone, and there is no terminal to ask on: give --yes")
    }
    Output.ask("Go on? Type yes: ")
    guard readLine()?.lowercased() == "yes" else { throw .refused("not confirmed; nothing was done") }
  }
}

extension Context {
  /// STATUS.
  func status(_ client: RankClient) throws(Failure) -> StatusAnswer {
    try asking { () throws(ClientError) in try client.status() }
  }
}

extension Arguments {
  static let partitionFlag = Flag("--partition", "P", "This partition alone (all).")

  /// A partition's number.
  static func partition(_ text: String) throws(Failure) -> UInt32 {
    guard let number = Int32(text), number >= 0 else {
      throw .usage("partition \(text): give a whole number from 0 to \(Int32.max)")
    }
    return UInt32(number)
  }
}

extension Table {
  fileprivate init(_ steps: [Command.Step], _ verb: AdminVerb) {
    self.init(["#partition", "#watermark", verb == .seal ? "#sealed" : "#snapshot"])
    rows = steps.map { ["\($0.partition)", "\($0.wanted)", $0.reached < 0 ? "-" : "\($0.reached)"] }
  }
}

extension JSONWriter {
  /// `"watermark"` is that of the time of asking, `"snapshot"` or `"sealed"` what is there now.
  fileprivate mutating func order(_ verb: AdminVerb, _ answer: String, _ steps: [Command.Step]) {
    object {
      $0.member("order", verb.name)
      $0.member("answer", answer)
      $0.key("shards")
      $0.array {
        for step in steps {
          $0.object {
            $0.member("partition", step.partition)
            $0.member("watermark", step.wanted)
            $0.member(verb == .seal ? "sealed" : "snapshot", step.reached < 0 ? nil : step.reached)
          }
        }
      }
    }
  }
}
