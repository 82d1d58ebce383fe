// What a node must answer, counted again the plain way: decoded record by record, added up in dictionaries, ranked by
// sorting.

import QueryProtocol
import StepModel
import TestSupport

/// A record as it was produced.
struct Produced {
  var text: String?
  var millis: Int64
}

/// Everything a node makes of the records of a topic.
struct NodeOracle {
  /// Where a user of a board stands.
  struct Standing: Equatable {
    var rank: UInt64
    var tied: UInt64
    var above: UInt64
    var nextAbove: UInt64?
    var nextBelow: UInt64?
  }

  private(set) var counted: UInt64 = 0
  private(set) var superseded: UInt64 = 0
  /// Dead letters by partition, in the order of offsets; where they are in the file is not told.
  private(set) var letters: [[DeadLettersAnswer.Letter]] = []
  /// Rows of every board that has any, in its order.
  private(set) var boards: [BoardID: [Row]] = [:]

  init(_ partitions: [[Produced]], _ settings: ClusterSettings) {
    var periods: Set<String> = ["day"]
    if settings.boardsWeek { periods.insert("week") }
    if settings.boardsMonth { periods.insert("month") }
    if settings.boardsAll { periods.insert("all") }
    var totals: [BoardID: [(user: String, total: UInt64)]] = [:]
    for (partition, records) in partitions.enumerated() {
      var shard = ModelShard(mode: settings.stepsMode, periods: periods)
      letters.append([])
      read(records, UInt32(partition), settings, into: &shard)
      for (id, board) in shard.boards where !board.rows.isEmpty { totals[id, default: []] += board.rows }
    }
    boards = totals.mapValues(NodeOracle.ranked)
  }

  private mutating func read(
    _ records: [Produced], _ partition: UInt32, _ settings: ClusterSettings, into shard: inout ModelShard
  ) {
    var decoder = StepDecoder(settings: settings)
    var clock: Int64 = -1
    for (offset, record) in records.enumerated() {
      clock = max(clock, record.millis)
      let bytes = Array((record.text ?? "").utf8)
      var event = StepEvent(
        user: UserKey(high: 0, low: 0), offset: 0, timeOfDay: 0, steps: 0, day: Day(number: 0))
      var user = ""
      decoder.reset()
      var reason = bytes.withUnsafeBytes { payload -> RejectReason? in
        let reason = decoder.decode(payload, offset: Int64(offset), shardClock: clock, into: &event)
        if reason == nil {
          user = String(unsafeUninitializedCapacity: UserID.bytesMax) {
            event.user.write(to: $0.baseAddress!)
          }
        }
        return reason
      }
      if reason == nil {
        switch shard.apply(user, event) {
        case .counted: counted += 1
        case .superseded:
          counted += 1
          superseded += 1
        case .overflow: reason = .overflow
        }
      }
      guard let reason else { continue }
      letters[Int(partition)].append(
        DeadLettersAnswer.Letter(
          position: 0, topic: NodeWorld.topic, partition: partition, offset: Int64(offset),
          timestamp: record.millis, reason: reason, bytes: record.text.map { _ in UInt32(bytes.count) },
          part: bytes))
    }
  }

  private static func ranked(_ totals: [(user: String, total: UInt64)]) -> [Row] {
    let sorted = totals.sorted {
      $0.total != $1.total ? $0.total > $1.total : $0.user.utf8.lexicographicallyPrecedes($1.user.utf8)
    }
    return sorted.enumerated().compactMap { index, row in
      guard let user = UserID(row.user) else { return nil }
      return Row(
        position: UInt64(index), rank: 1 + UInt64(sorted.filter { $0.total > row.total }.count),
        tied: UInt64(sorted.filter { $0.total == row.total }.count), steps: row.total, user: user)
    }
  }

  /// Where a total stands on a board.
  static func standing(_ steps: UInt64, _ rows: [Row]) -> Standing {
    let above = UInt64(rows.filter { $0.steps > steps }.count)
    return Standing(
      rank: above + 1, tied: steps == 0 ? 0 : UInt64(rows.filter { $0.steps == steps }.count), above: above,
      nextAbove: rows.map(\.steps).filter { $0 > steps }.min(),
      nextBelow: rows.map(\.steps).filter { $0 < steps }.max())
  }

  /// Steps at position ⌈q·N/100⌉ from the bottom.
  static func quantile(_ q: UInt8, _ rows: [Row]) -> UInt64 {
    rows.isEmpty ? 0 : rows[rows.count - max(1, (Int(q) * rows.count + 99) / 100)].steps
  }
}

/// A stream of good and bad records over partitions; users stay in one.
struct RecordStream {
  private(set) var partitions: [[Produced]]
  let users: [String]

  init(_ seed: Seed, partitions count: Int, records: Int, users userCount: Int) {
    var random = seed.random
    let users = KeyPool.mixed(userCount, using: &random).texts
    self.users = users
    partitions = Array(repeating: [], count: count)
    for index in 0..<records {
      let number = Int.random(in: 0..<userCount, using: &random)
      // Time goes on by 25 minutes a record, a fortnight in all or so; neighbours may be out of order.
      let millis =
        NodeWorld.noon + Int64(index) * 1_500_000 + Int64.random(in: -3_000_000...0, using: &random)
      partitions[number % count].append(
        Produced(text: RecordStream.text(users[number], millis, using: &random), millis: millis))
    }
  }

  private static func text(_ user: String, _ millis: Int64, using random: inout SeededGenerator) -> String? {
    func good(
      _ random: inout SeededGenerator, _ user: String, steps: String? = nil,
      hours: ClosedRange<Int64> = -48...0
    ) -> String {
      let steps = steps ?? String(Int.random(in: 0...12, using: &random) * 100)
      let time = millis + Int64.random(in: hours, using: &random) * 3_600_000
      let field = Bool.random(using: &random) ? #""source": "3", "# : ""
      return #"{\#(field)"uuid": "\#(user)", "steps": \#(steps), "timestamp": \#(time)}"#
    }
    switch Int.random(in: 0..<40, using: &random) {
    case 0: return nil
    case 1: return ""
    case 2: return #"{"uuid": "\#(user)", "steps": 5"#
    case 3: return #"{"uuid": "\#(user)", "steps": 5, "steps": 5, "timestamp": 1}"#
    case 4: return #"{"uuid": "\#(user)", "timestamp": 1}"#
    case 5: return good(&random, user, steps: "12.5")
    case 6: return good(&random, String(repeating: "x", count: 65))
    case 7: return good(&random, user, steps: "-1")
    case 8: return good(&random, user, steps: "4294967296")
    case 9: return #"{"uuid": "\#(user)", "steps": 5, "timestamp": "2026-02-30 00:00:00"}"#
    case 10: return good(&random, user, hours: 2...9)
    case 11: return good(&random, user, hours: -900 ... -400)
    case 12: return good(&random, user, steps: "4000000000")
    default: return good(&random, user)
    }
  }
}
