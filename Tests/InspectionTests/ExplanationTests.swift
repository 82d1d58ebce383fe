import Inspection
import StepModel
import TestSupport
import Testing

@Suite struct ExplanationTests {
  private static let user = UserID("ada")!

  private func event(_ offset: Int64, _ day: Int32, _ time: Int64, _ steps: UInt32) -> StepEvent {
    StepEvent(
      user: UserKey(high: 0, low: 0), offset: offset, timeOfDay: time, steps: steps, day: Day(number: day))
  }

  @Test(
    "the account ends at the total of the boards, in every mode and on every board",
    arguments: [StepsMode.increment, .totalNewest, .totalMax], Seed.some(20))
  func agrees(mode: StepsMode, seed: Seed) {
    var random = seed.random
    let boards: [BoardID] = [
      .day(Day(number: 20_780)), .day(Day(number: 20_781)), .day(Day(number: 20_789)),
      .week(monday: Day(number: 20_780)), .month(Day(number: 20_780).month), .all,
    ]
    var accounts = boards.map { Explanation(user: ExplanationTests.user, board: $0, mode: mode) }
    var expected = boards.map { _ in UInt64(0) }
    for partition in 0..<Int32(2) {
      var shard = ModelShard(mode: mode, periods: ["day", "week", "month", "all"])
      var totals = boards.map { _ in UInt64(0) }
      for offset in 0..<Int64(60) {
        let event = event(
          offset, Int32.random(in: 20_780...20_789, using: &random), Int64.random(in: 0...5, using: &random),
          UInt32.random(in: 0...9, using: &random))
        guard shard.apply("ada", event) != .overflow else { continue }
        for index in accounts.indices {
          let count = accounts[index].events.count
          accounts[index].add(event, partition: partition, timestampMs: 7)
          let isIn = boards[index].days.map { $0.contains(event.day) } ?? true
          #expect(accounts[index].events.count == count + (isIn ? 1 : 0))
          totals[index] = shard.boards[boards[index]]?.total("ada") ?? 0
          #expect(accounts[index].total == expected[index] + totals[index])
          if isIn { #expect(accounts[index].events.last?.total == accounts[index].total) }
        }
      }
      for index in boards.indices { expected[index] += totals[index] }
    }
    for account in accounts {
      let counting = account.events.filter { !$0.isSuperseded }
      #expect(counting.reduce(0) { $0 + UInt64($1.steps) } == account.total, "\(account.board)")
      if mode == .increment { #expect(counting.count == account.events.count) }
    }
  }

  @Test("rejected records are the user's alone, once each, in order")
  func rejected() {
    var account = Explanation(user: ExplanationTests.user, board: .all, mode: .increment)
    func add(_ text: String?, _ partition: Int32, _ offset: Int64) {
      Array((text ?? "").utf8).withUnsafeBytes { bytes in
        account.addRejected(
          text == nil ? nil : bytes, partition: partition, offset: offset, timestampMs: 1, reason: .malformed)
      }
    }
    add(#"{"uuid":"ada","steps":"#, 1, 4)
    add(#"{"uuid":"ben","steps":"#, 1, 5)
    add(nil, 1, 6)
    add(#"{"uuid":"ada"}"#, 0, 9)
    add(#"{"uuid":"ada","steps":"#, 1, 4)
    #expect(account.rejected.map(\.partition) == [0, 1])
    #expect(account.rejected.map(\.offset) == [9, 4])
    #expect(String(decoding: account.rejected[0].record, as: UTF8.self) == #"{"uuid":"ada"}"#)
    #expect(account.events.isEmpty && account.total == 0)
  }
}

@Suite struct FolderSettingsTests {
  @Test("what a folder says of topic, mode and zone is read; what is absent or unknown is named")
  func texts() throws {
    for (mode, word) in [
      (.increment, "increment"), (.totalNewest, "total, newest"), (.totalMax, "total, max"),
    ] as [(StepsMode, String)] {
      let cluster = ClusterSettings(stepsMode: mode, dayRule: try DayRule("Europe/Berlin"))
      #expect(cluster.text.contains("steps.mode = \(word)\n"))
      let text = "RankMySteps data folder, format 1\nkafka.topic = my = steps\n\(cluster.text)"
      let settings = try FolderSettings(text: text, path: "f")
      #expect(settings.mode == mode && settings.topic == "my = steps" && settings.zone == "Europe/Berlin")
      for key in ["steps.mode", "kafka.topic", "day.zone"] {
        let without = text.split(separator: "\n").filter { !$0.hasPrefix(key) }.joined(separator: "\n")
        #expect(throws: InspectionError.settings(path: "f", key: key)) {
          _ = try FolderSettings(text: without, path: "f")
        }
      }
      #expect(throws: InspectionError.settings(path: "f", key: "steps.mode")) {
        _ = try FolderSettings(text: text.replacing("= \(word)", with: "= guessed"), path: "f")
      }
    }
    let events = ClusterSettings(dayRule: .event)
    #expect(try FolderSettings(text: "kafka.topic = t\n" + events.text, path: "f").zone == "event")
  }
}
