// rmsctl explain: why a user has the total that they have, event by event, and what was not counted. Read from the log
// and the dead letters in a data folder.

import Bytes
import Console
import Glibc
import Inspection
import Node
import StepModel

extension Command {
  static let explain = Command(
    name: "explain", summary: "every event that made a user's total, and every record that did not count",
    usage: """
      rmsctl explain anna --data-dir /var/lib/rankmysteps
      rmsctl explain anna --board 2026-W48 --data-dir /var/lib/rankmysteps -o json

      usage: rmsctl explain USER [--board BOARD] --data-dir DIR

      Ends at the total that rmsctl rank shows, if the log still holds everything; from which offset on it does is said.
      Records that were not counted are found by the uuid in them, as long as it can be read.

      """, flags: [Arguments.boardFlag, Arguments.dataFlag]
  ) { (arguments, context) throws(Failure) in
    let user = try arguments.user(try arguments.onlyWord("USER"))
    let folder = try arguments.dataFolder()
    let settings = try inspecting { () throws(InspectionError) in try FolderSettings(folder: folder) }
    let board = try explained(arguments, settings)
    let shards = try inspecting { () throws(InspectionError) in try ShardLog.all(in: folder) }.filter {
      $0.topic == settings.topic
    }
    guard !shards.isEmpty else { throw .refused("\(folder) holds no log of \(settings.topic)") }
    var account = Account(Explanation(user: user, board: board, mode: settings.mode))
    for shard in shards { try account.read(shard) }
    try account.readDeadLetters(folder, settings.topic)
    try context.output.show(Table(account: account)) { $0.account(account) }
    for note in account.notes { Output.note("rmsctl: \(note)") }
    if context.strict, account.spans.contains(where: { !$0.isComplete }) {
      throw .partial("the log does not hold everything")
    }
  }

  /// The board that was named; otherwise the day that it is now in the zone of the folder's settings.
  private static func explained(_ arguments: Arguments, _ settings: FolderSettings) throws(Failure) -> BoardID
  {
    if case .named(let board) = try arguments.board() { return board }
    guard let rule = try? DayRule(settings.zone) else {
      throw .usage("--board BOARD is missing: the zone \(settings.zone) of the data folder is not known here")
    }
    return .day(rule.day(atMilliseconds: Int64(time(nil)) * 1_000))
  }
}

/// A user's account, and from where it comes.
private struct Account {
  /// What the log of one partition holds.
  struct Span {
    let partition: Int32
    let from: Int64
    let to: Int64
    let isComplete: Bool
  }

  var explanation: Explanation
  private(set) var spans: [Span] = []
  private(set) var notes: [String] = []

  init(_ explanation: Explanation) { self.explanation = explanation }

  mutating func read(_ shard: ShardLog) throws(Failure) {
    let partition = shard.partition
    let reach: ShardLog.Reach?
    do throws(InspectionError) { reach = try explanation.read(shard) } catch { throw .refused("\(error)") }
    guard let reach else {
      notes.append("partition \(partition): no segment can be read")
      return
    }
    spans.append(
      Span(partition: partition, from: reach.from, to: reach.to, isComplete: reach.isComplete))
    if let damage = reach.damage {
      notes.append("partition \(partition): read up to offset \(reach.to), then \(damage)")
    }
    if reach.from > reach.origin {
      notes.append(
        "partition \(partition): the log reaches back to offset \(reach.from); events before it are in the total and not listed"
      )
    }
  }

  /// What was not counted before the log's beginning is in the dead-letter file alone.
  mutating func readDeadLetters(_ folder: String, _ topic: String) throws(Failure) {
    do throws(DeadLetterError) {
      let reader = try DeadLetterReader(folder: folder)
      var position = 0
      while true {
        let page = try reader.read(from: position, limit: 1_000)
        if page.letters.isEmpty { return }
        position = page.next
        for letter in page.letters where letter.topic == topic {
          letter.payload?.withUnsafeBytes {
            explanation.addRejected(
              $0, partition: letter.partition, offset: letter.offset, timestampMs: letter.timestamp,
              reason: letter.reason)
          }
        }
      }
    } catch {
      switch error {
      case .disk(let error): notes.append("dead letters were not read: \(error)")
      case .damaged(let path, let place):
        notes.append("\(path) is damaged at byte \(place) and was read up to there")
      }
    }
  }
}

extension Table {
  fileprivate init(account: Account) {
    self.init([
      "#partition", "#offset", "time", "day", "source", "#steps", "#total", "remark", "record",
    ])
    let explanation = account.explanation
    rows = explanation.events.map { event in
      [
        "\(event.partition)", "\(event.offset)", Instant.text(day: event.day, nanoseconds: event.timeOfDay),
        event.day.description, event.source ?? "", "\(event.steps)", "\(event.total)",
        event.isSuperseded ? "superseded" : "", "",
      ]
    }
    rows += explanation.rejected.map { record in
      [
        "\(record.partition)", "\(record.offset)", "", "", "", "", "", "not counted: \(record.reason.name)",
        String(decoding: record.record.prefix(200), as: UTF8.self),
      ]
    }
  }
}

extension JSONWriter {
  /// `"log"` says for each partition from which offset on the log reaches back, and whether it holds everything.
  fileprivate mutating func account(_ account: Account) {
    let explanation = account.explanation
    object {
      $0.member("user", explanation.user.text)
      $0.member("board", explanation.board.description)
      $0.member("mode", explanation.mode == .increment ? "increment" : "total")
      $0.member("steps", explanation.total)
      $0.key("events")
      $0.array { for event in explanation.events { $0.event(event) } }
      $0.key("rejected")
      $0.array {
        for record in explanation.rejected {
          $0.object {
            $0.member("partition", record.partition)
            $0.member("offset", record.offset)
            $0.member("timestamp_ms", record.timestampMs)
            $0.member("reason", record.reason.name)
            $0.member("base64", Base64.text(record.record))
          }
        }
      }
      $0.key("log")
      $0.array {
        for span in account.spans {
          $0.object {
            $0.member("partition", span.partition)
            $0.member("from", span.from)
            $0.member("next", span.to)
            $0.member("complete", span.isComplete)
          }
        }
      }
    }
  }

  private mutating func event(_ event: Explanation.Event) {
    object {
      $0.member("partition", event.partition)
      $0.member("offset", event.offset)
      $0.member("timestamp_ms", event.timestampMs)
      $0.member("time", Instant.text(day: event.day, nanoseconds: event.timeOfDay))
      $0.member("day", event.day.description)
      $0.member("source", event.source)
      $0.member("steps", event.steps)
      $0.member("superseded", event.isSuperseded)
      $0.member("total", event.total)
    }
  }
}
