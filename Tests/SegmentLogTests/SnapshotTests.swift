// Snapshots: what was written is read back to the same state, and nothing else is read at all.
import Bytes
import Foundation
import FuzzBodies
import Posix
import RankIndex
import SegmentLog
import StepModel
import Synchronization
import TestSupport
import Testing

private let today = Day(number: 20_781)

private func randomEvents(
  _ count: Int, _ pool: KeyPool, from offset: inout Int64, _ random: inout SeededGenerator
)
  -> [StepEvent]
{
  (0..<count).map { _ in
    offset += 1
    return StepEvent(
      user: pool.keys.randomElement(using: &random) ?? pool.keys[0], offset: offset,
      timeOfDay: Int64.random(in: -5...40, using: &random),
      steps: [0, 1, 2, 3, 500, 70_000, 1 << 20, 3_000_000, .max].randomElement(using: &random) ?? 1,
      day: Day(number: today.number + Int32.random(in: 0...2, using: &random) * 3))
  }
}

private func read(_ bytes: [UInt8], longer: Bool) throws -> SnapshotShard {
  try SnapshotShard(
    from: try SnapshotReader(bytes: bytes, path: "snapshot", identity: SnapshotShard.identity), longer: longer
  )
}

private func encoded(_ shard: SnapshotShard) throws -> [UInt8] {
  let folder = TemporaryFolder()
  return try withExtendedLifetime(folder) { try shard.bytes(by: folder.path) }
}

@Suite("snapshots") struct SnapshotTests {
  @Test(
    "a snapshot written while events go on gives the shard of its moment, which goes on to the same state",
    arguments: Seed.some(8), [StepsMode.increment, .totalNewest, .totalMax])
  func roundTrip(seed: Seed, mode: StepsMode) throws {
    var random = seed.random
    let folder = TemporaryFolder()
    let pool = KeyPool.mixed(Int.random(in: 1...80, using: &random), using: &random)
    let longer = Bool.random(using: &random)
    var (live, still) = (SnapshotShard(mode: mode, longer: longer), SnapshotShard(mode: mode, longer: longer))
    var offset: Int64 = 0
    for _ in 0..<Int.random(in: 0...5, using: &random) {
      let events = randomEvents(Int.random(in: 1...90, using: &random), pool, from: &offset, &random)
      live.apply(events)
      still.apply(events)
    }
    var meanwhile: [StepEvent] = []
    let written = try live.write(into: folder.path) { boards in
      let events = randomEvents(Int.random(in: 0...20, using: &random), pool, from: &offset, &random)
      let outcomes = UnsafeMutablePointer<ApplyOutcome>.allocate(capacity: events.count + 1)
      events.withUnsafeBufferPointer { boards.apply($0, outcomes: outcomes) }
      outcomes.deallocate()
      meanwhile += events
    }
    #expect(try Files().names(in: folder.path) == [SnapshotFormat.name(watermark: still.header.watermark)])
    let bytes = try Files().read(whole: written.path)
    #expect(bytes.count == written.bytesCount)
    // The same state gives the same bytes, however it was come by.
    #expect(try encoded(still) == bytes)
    var back = try SnapshotShard(
      from: try SnapshotReader(path: written.path, identity: SnapshotShard.identity), longer: longer)
    #expect(back.header.watermark == still.header.watermark)
    let rest = meanwhile + randomEvents(100, pool, from: &offset, &random)
    back.apply(rest)
    still.apply(rest)
    #expect(try back.bytes(by: folder.path) == still.bytes(by: folder.path))
    for board in still.boards.boards {
      guard let twin = back.boards.board(board.id) else { Issue.record("no \(board.id)"); continue }
      #expect(allRows(twin) == allRows(board))
    }
  }

  private func allRows(_ board: Board) -> [BoardRow] {
    [BoardRow](unsafeUninitializedCapacity: board.users) { room, count in
      count = board.rows(
        from: 0, into: UnsafeMutableBufferPointer(start: room.baseAddress, count: board.users),
        scratch: RowScratch())
    }
  }

  @Test("many segments of both forms, with gaps between totals", arguments: Seed.some(1))
  func large(seed: Seed) throws {
    var random = seed.random
    let pool = KeyPool((0..<4_500).map { "walker \($0)" })
    var shard = SnapshotShard(mode: .totalNewest, longer: false)
    var offset: Int64 = 0
    func event(_ user: UserKey, _ day: Int32) -> StepEvent {
      offset += 1
      return StepEvent(
        user: user, offset: offset, timeOfDay: 1, steps: UInt32.random(in: 0...9, using: &random),
        day: Day(number: day))
    }
    for user in 0..<9_000 {
      var events = [event(UserKey(high: UInt64(user), low: 1), 20_781)]
      if user < 4_500 { events.append(event(pool.keys[user], 20_781)) }
      if user % 500 == 0 { events.append(event(UserKey(high: UInt64(user), low: 1), 20_782)) }
      shard.apply(events)
    }
    let folder = TemporaryFolder()
    let bytes = try shard.bytes(by: folder.path)
    let back = try read(bytes, longer: false)
    #expect(try back.bytes(by: folder.path) == bytes)
    for key in pool.keys { #expect(back.boards.number(of: key) == shard.boards.number(of: key)) }
  }

  @Test("a snapshot with any byte changed or cut off anywhere is refused by name")
  func damage() throws {
    let pool = KeyPool(["walker", "another"])
    var shard = SnapshotShard(mode: .totalNewest, longer: true)
    shard.apply([
      StepEvent(user: pool.keys[0], offset: 3, timeOfDay: 5, steps: 70, day: today),
      StepEvent(user: UserKey(high: 1, low: 2), offset: 4, timeOfDay: 6, steps: 80, day: today),
      StepEvent(user: pool.keys[1], offset: 5, timeOfDay: 7, steps: 0, day: Day(number: 20_700)),
    ])
    let bytes = try encoded(shard)
    func refusal(_ bytes: [UInt8]) -> LogError? {
      do throws(LogError) {
        let reader = try SnapshotReader(bytes: bytes, path: "snapshot", identity: SnapshotShard.identity)
        while try reader.next() != nil {}
        return nil
      } catch { return error }
    }
    #expect(refusal(bytes) == nil)
    for place in bytes.indices {
      for bit in [UInt8(1) << UInt8(place & 7), 255] {
        var changed = bytes
        changed[place] ^= bit
        guard case .damaged("snapshot", let byte, _) = refusal(changed) else {
          Issue.record("byte \(place), bit \(bit): \(String(describing: refusal(changed)))")
          continue
        }
        // Without its end block a file is torn where it ends.
        #expect(
          byte <= place || byte == bytes.count, "the block named begins at \(byte), the change is at \(place)"
        )
      }
    }
    for count in 0..<bytes.count {
      guard case .damaged("snapshot", _, .short) = refusal(Array(bytes[..<count])) else {
        Issue.record("cut at \(count): \(String(describing: refusal(Array(bytes[..<count]))))")
        continue
      }
    }
    #expect(refusal(bytes + [0]) != nil)
  }

  @Test("changed snapshots are refused or hold the state of their own bytes", arguments: Seed.some(4))
  func fuzz(seed: Seed) throws {
    let folder = TemporaryFolder()
    let run = try snapshotBody(seed: seed.value, count: 1_000, folder: folder.path)
    #expect(run.difference == nil)
    #expect(run.refused > 100)
  }

  @Test("a snapshot of another shard, topic or settings, or under another watermark's name, is refused")
  func foreign() throws {
    let folder = TemporaryFolder()
    let written = try SnapshotShard(mode: .increment, longer: false).write(into: folder.path)
    let mine = SnapshotShard.identity
    func refusal(_ topic: String, _ id: LogIdentity.TopicID, _ partition: Int32, _ print: UInt64)
      -> IdentityDifference.Field?
    {
      do {
        _ = try SnapshotReader(
          path: written.path,
          identity: LogIdentity(topic: topic, topicID: id, partition: partition, fingerprint: print))
      } catch {
        if case .foreign(_, _, let difference) = error { return difference.field }
      }
      return nil
    }
    #expect(refusal(mine.topic, mine.topicID, mine.partition, mine.fingerprint) == nil)
    #expect(refusal("step", mine.topicID, mine.partition, mine.fingerprint) == .topic)
    #expect(refusal(mine.topic, .init(high: 0, low: 1), mine.partition, mine.fingerprint) == .topicID)
    #expect(refusal(mine.topic, mine.topicID, 4, mine.fingerprint) == .partition)
    #expect(refusal(mine.topic, mine.topicID, mine.partition, 1) == .settings)
    let other = folder.path + "/" + SnapshotFormat.name(watermark: 17)
    try Files().rename(written.path, to: other)
    #expect(throws: LogError.damaged(path: other, atByte: 0, .content(.value))) {
      _ = try SnapshotReader(path: other, identity: mine)
    }
  }

  @Test("whatever call fails, an earlier snapshot stays and no broken one gets a name")
  func faults() throws {
    let pool = KeyPool(["walker"])
    var shard = SnapshotShard(mode: .increment, longer: false)
    let folder = TemporaryFolder()
    let earlier = try shard.write(into: folder.path)
    shard.apply([StepEvent(user: pool.keys[0], offset: 1, timeOfDay: 0, steps: 9, day: today)])
    let name = SnapshotFormat.name(watermark: shard.header.watermark)
    for failing in 0..<100 {
      let calls = Mutex((count: 0, last: FileCall.open))
      let files = Files(fault: { call, _ in
        calls.withLock { state in
          state = (state.count + 1, call)
          return state.count == failing + 1 ? .inputOutput : nil
        }
      })
      let error: LogError?
      do throws(LogError) {
        _ = try shard.write(into: folder.path, files: files)
        error = nil
      } catch let thrown { error = thrown }
      let names = try Files().names(in: folder.path)
      #expect(names.contains(SnapshotFormat.name(watermark: 0)), "call \(failing)")
      _ = try SnapshotReader(path: earlier.path, identity: SnapshotShard.identity)
      guard let error else {
        #expect(failing >= 5)
        #expect(try read(Files().read(whole: folder.path + "/" + name), longer: false).boards.users == 1)
        return
      }
      let (_, last) = calls.withLock { $0 }
      switch error {
      case .syncFailed: #expect(names.contains(name) == (failing == 4), "call \(failing)")
      default: #expect(names.count == 1, "call \(failing), \(last): \(error), \(names)")
      }
      if names.contains(name) { try Files().remove(folder.path + "/" + name) }
    }
  }

  @Test("the snapshots of a folder are told good or not, and what is too many goes")
  func folder() throws {
    let folder = TemporaryFolder()
    let pool = KeyPool(["walker"])
    var shard = SnapshotShard(mode: .increment, longer: false)
    var paths: [String] = []
    for offset in [Int64(3), 20, 100] {
      shard.apply([StepEvent(user: pool.keys[0], offset: offset, timeOfDay: 0, steps: 9, day: today)])
      paths.append(try shard.write(into: folder.path).path)
    }
    var bytes = try Files().read(whole: paths[1])
    bytes[600] ^= 1
    let file = try Files().open(paths[1], .replace)
    try bytes.withUnsafeBytes { try file.write($0, at: 0) }
    let findings = try SnapshotFolder.findings(folder.path, identity: SnapshotShard.identity)
    #expect(
      findings.map(\.facts) == [
        SnapshotFacts(watermark: 101, isGood: true), SnapshotFacts(watermark: 21, isGood: false),
        SnapshotFacts(watermark: 4, isGood: true),
      ])
    guard case .damaged(paths[1], _, _) = findings[1].refusal else {
      Issue.record("\(String(describing: findings[1].refusal))")
      return
    }
    #expect(try SnapshotFolder.removeSurplus(folder.path) == ["00000000000000000004.snap"])
    #expect(try SnapshotFolder.findings(folder.path, identity: SnapshotShard.identity).count == 2)
    #expect(try SnapshotFolder.findings(folder.path + "/none", identity: SnapshotShard.identity).isEmpty)
  }

  @Test("a snapshot taken by a thread of its own is the state of its moment", arguments: Seed.some(2))
  func threads(seed: Seed) throws {
    let folder = TemporaryFolder()
    let shard = ThreadedShard(seed)
    let writer = try Thread("writer") { shard.applyAll() }
    var snapshots: [(applied: Int, path: String)] = []
    while snapshots.count < 3 || !shard.isDone {
      guard let (image, applied) = shard.gate.write({ shard.boards.freeze().map { ($0, shard.applied) } })
      else {
        Issue.record("an image is alive")
        break
      }
      snapshots.append((applied, try shard.write(image, applied, into: folder.path)))
    }
    writer.join()
    for (applied, path) in [snapshots[0], snapshots[snapshots.count / 2], snapshots[snapshots.count - 1]] {
      let again = ThreadedShard(seed)
      again.apply(until: applied)
      guard let image = again.boards.freeze() else { Issue.record("an image is alive"); return }
      let other = TemporaryFolder()
      let expected = try again.write(image, applied, into: other.path)
      #expect(try Files().read(whole: expected) == Files().read(whole: path), "after \(applied) turns")
    }
  }

  @Test("two snapshots are kept, and nothing that is none is touched")
  func surplus() {
    let names = [40, 7, 5_000_000_000].map { SnapshotFormat.name(watermark: $0) }
    let others = [
      "00000000000000000040.seg", "00000000000000000001.snap.damaged", "1.snap", "x.tmp", ".snap",
    ]
    #expect(SnapshotFormat.surplus(names + others) == [names[1]])
    #expect(SnapshotFormat.surplus(Array(names.prefix(2)) + others) == [])
    #expect(SnapshotFormat.surplus([names[0] + ".tmp", names[1]]) == [names[0] + ".tmp"])
    #expect(SnapshotFormat.newestFirst(names + others).map(\.watermark) == [5_000_000_000, 40, 7])
    #expect(SnapshotFormat.watermark(name: "00000000000000000040.snap") == 40)
    #expect(SnapshotFormat.watermark(name: "99999999999999999999.snap") == nil)
    #expect(SnapshotFormat.name(watermark: .max) == "09223372036854775807.snap")
  }

  @Test("an image that does not add up makes no snapshot")
  func doesNotAddUp() throws {
    let folder = TemporaryFolder()
    var header = SnapshotShard(mode: .increment, longer: false).header
    header.boards = 1
    let board = SnapshotBoard(id: .day(today), users: 2, totalSteps: 7)
    do {
      let writer = try SnapshotWriter(folder: folder.path, header: header)
      try writer.board(board)
      try [UInt32(3), 3].withUnsafeBufferPointer { try writer.numbers($0, reports: nil, from: 0) }
      #expect(throws: LogError.self) { _ = try writer.finish() }
    }
    #expect(try Files().names(in: folder.path) == [])
  }
}

/// A shard whose events come from a seed, turn by turn, under a gate.
private final class ThreadedShard: @unchecked Sendable {
  // Unchecked: boards and `applied` are used in turns of the gate.
  static let turns = 200
  let gate = Gate()
  let boards = ShardBoards(mode: .totalNewest, week: true, month: false, all: true)
  private(set) var applied = 0
  private let done = Atomic(false)
  private let pool: KeyPool
  private var random: SeededGenerator
  private var offset: Int64 = 0

  init(_ seed: Seed) {
    random = seed.random
    pool = KeyPool.mixed(150, using: &random)
  }

  var isDone: Bool { done.load(ordering: .acquiring) }

  func applyAll() {
    apply(until: ThreadedShard.turns)
    done.store(true, ordering: .releasing)
  }

  func apply(until turn: Int) {
    let outcomes = UnsafeMutablePointer<ApplyOutcome>.allocate(capacity: 100)
    defer { outcomes.deallocate() }
    for _ in 0..<turn {
      let events = randomEvents(20, pool, from: &offset, &random)
      gate.write {
        events.withUnsafeBufferPointer { boards.apply($0, outcomes: outcomes) }
        applied += 1
      }
    }
  }

  /// Writes an image and ends it.
  func write(_ image: FrozenBoards, _ applied: Int, into folder: String) throws -> String {
    let header = SnapshotHeader(
      identity: SnapshotShard.identity, mode: .totalNewest, watermark: Int64(applied), clockMs: 0,
      newestMs: 0,
      counted: UInt64(applied), superseded: 0,
      rejected: [UInt64](repeating: 0, count: RejectReason.allCases.count), users: image.users,
      boards: image.boards.count)
    let writer = try SnapshotWriter(folder: folder, header: header)
    let piece = FrozenPiece()
    for (index, board) in image.boards.enumerated() {
      try writer.board(SnapshotBoard(id: board.id, users: board.users, totalSteps: board.totalSteps))
      while gate.read({ image.take(index, into: piece, numbersMax: 4096) }) {
        try writer.numbers(piece.totals, reports: board.hasReports ? piece.reports : nil, from: piece.first)
      }
    }
    gate.write { boards.thaw() }
    let keys = UnsafeMutableBufferPointer<UserKey>.allocate(capacity: FrozenBoards.segmentNumbers)
    defer { keys.deallocate() }
    for segment in 0..<image.segments {
      let count = image.users(ofSegment: segment, into: keys)
      try writer.users(UnsafeBufferPointer(rebasing: keys[..<count]))
    }
    return try writer.finish().path
  }
}

// MARK: Vectors

/// A file of `Protocol/vectors/snapshot`.
private struct SnapshotVector: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let text: String

  static let all: [SnapshotVector] = {
    let folder = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "../../Protocol/vectors/snapshot").standardizedFileURL.path()
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return names.filter { $0.hasSuffix(".hex") }.sorted().compactMap { name in
      (try? String(contentsOfFile: folder + "/" + name, encoding: .utf8)).map {
        SnapshotVector(testDescription: name, text: $0)
      }
    }
  }()

  /// Values, and bytes.
  func parsed() throws -> (values: [String: Any], bytes: [UInt8]) {
    var (values, digits): ([String: Any], String) = ([:], "")
    for line in text.split(separator: "\n") where !line.hasPrefix("#") {
      if let equals = line.range(of: " = ") {
        values[String(line[..<equals.lowerBound])] = try JSONSerialization.jsonObject(
          with: Data(line[equals.upperBound...].utf8), options: .fragmentsAllowed)
      } else {
        digits += line
      }
    }
    return (values, Hex.bytes(digits) ?? [])
  }
}

@Suite("the snapshot's vectors") struct SnapshotVectorTests {
  @Test("there are vectors of both sorts")
  func some() {
    #expect(SnapshotVector.all.contains { $0.testDescription.hasPrefix("refused-") })
    #expect(SnapshotVector.all.contains { $0.testDescription == "newest.hex" })
  }

  @Test(
    "a vector is read as it tells, or refused as it tells; what was read is written back to its bytes",
    arguments: SnapshotVector.all)
  fileprivate func vector(vector: SnapshotVector) throws {
    let (values, bytes) = try vector.parsed()
    if let refused = values["refused"] as? [Any] {
      let (what, byte) = try told(bytes)
      #expect(what == refused[0] as? String)
      if let byte { #expect(byte == refused[1] as? Int) }
      return
    }
    let longer = (values["board_totals"] as? [[String: Any]] ?? []).contains {
      ($0["board"] as? String)?.utf8.count != 10
    }
    #expect(try encoded(read(bytes, longer: longer)) == bytes)
    let found = try state(bytes)
    #expect(NSDictionary(dictionary: found) == NSDictionary(dictionary: values), "found \(found)")
  }

  /// How a snapshot is refused.
  private func told(_ bytes: [UInt8]) throws -> (String, byte: Int?) {
    do {
      _ = try read(bytes, longer: true)
      return ("accepted", nil)
    } catch let error as LogError {
      switch error {
      case .damaged(_, let byte, .short): return ("torn", byte)
      case .damaged(_, let byte, _): return ("damaged", byte)
      case .newer(_, let byte, _, _, _): return ("newer", byte)
      case .foreign(_, let byte, _): return ("foreign", byte)
      default: return ("\(error)", nil)
      }
    } catch is RestoreError {
      return ("damaged", nil)
    }
  }

  /// The state in the words of the vectors.
  private func state(_ bytes: [UInt8]) throws -> [String: Any] {
    let reader = try SnapshotReader(bytes: bytes, path: "vector", identity: SnapshotShard.identity)
    let header = reader.header
    var rejected: [String: UInt64] = [:]
    for reason in RejectReason.allCases { rejected[reason.name] = header.rejected[Int(reason.rawValue)] }
    let mode =
      switch header.mode {
      case .increment: "increment"
      case .totalNewest: "total-newest"
      case .totalMax: "total-max"
      }
    var (users, boards): ([[Any]], [[String: Any]]) = ([], [])
    var segment = 0
    while let part = try reader.next() {
      let last = boards.count - 1
      switch part {
      case .users(let keys):
        for (index, key) in keys.enumerated() {
          let id = String(unsafeUninitializedCapacity: 64) { room in
            room.baseAddress.map { key.write(to: UnsafeMutableRawPointer($0)) } ?? 0
          }
          users.append([segment * 4096 + index, id])
        }
        segment += 1
      case .board(let board):
        boards.append([
          "board": "\(board.id)", "users": board.users, "total_steps": board.totalSteps, "totals": [[Any]](),
        ])
        if header.mode == .totalNewest, board.id.kind == "day" { boards[last + 1]["reports"] = [[Any]]() }
      case .totals(let totals, let first):
        var found = boards[last]["totals"] as? [[Any]] ?? []
        for index in totals.indices where totals[index] != 0 {
          found.append([Int(first) + index, totals[index]])
        }
        boards[last]["totals"] = found
      case .reports(let reports, let first):
        var found = boards[last]["reports"] as? [[Any]] ?? []
        for index in 0..<reports.count / 2 where reports[2 * index + 1] != 0 {
          found.append([Int(first) + index, reports[2 * index], reports[2 * index + 1]])
        }
        boards[last]["reports"] = found
      }
    }
    var told: [String: Any] = ["user_ids": users, "board_totals": boards, "rejected": rejected, "mode": mode]
    told["topic"] = header.identity.topic
    told["topic_id"] = "\(header.identity.topicID)"
    told["partition"] = header.identity.partition
    told["fingerprint"] = "0123456789abcdef"
    told["watermark"] = header.watermark
    told["clock"] = header.clockMs
    told["newest"] = header.newestMs
    told["counted"] = header.counted
    told["superseded"] = header.superseded
    told["users"] = header.users
    told["boards"] = header.boards
    return told
  }
}
