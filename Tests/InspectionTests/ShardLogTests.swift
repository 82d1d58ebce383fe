import Inspection
import Posix
import SegmentLog
import StepModel
import TestSupport
import Testing

@Suite struct ShardLogTests {
  /// Three segments of a few batches each, the last one not ended.
  private func written(_ data: TemporaryFolder, _ seed: Seed, partition: Int32 = 0, start: Int64 = 0) throws
    -> WrittenLog
  {
    let log = try WrittenLog(data, seed: seed, partition: partition, start: start)
    for segment in 0..<3 {
      for _ in 0..<3 { try log.give(rowCount: 12) }
      if segment < 2 { log.endSegment() }
    }
    return log
  }

  private func shard(_ data: TemporaryFolder) throws -> ShardLog {
    try #require(try ShardLog.all(in: data.path).first)
  }

  private func rows(_ shard: ShardLog, from offset: Int64 = 0) throws -> (
    rows: [GivenRow], reach: ShardLog.Reach?
  ) {
    var rows: [GivenRow] = []
    let reach = try shard.walk(from: offset) { batch in
      batch.from(offset).forEachRow { rows.append(GivenRow($0)) }
      return true
    }
    return (rows, reach)
  }

  @Test("a folder's shards are found by their names, and what was set aside is not among them")
  func shards() throws {
    let data = TemporaryFolder()
    _ = try written(data, Seed(1), partition: 11)
    _ = try written(data, Seed(2), partition: 2)
    for other in ["steps-2.00000000000000010000000000000002", "steps--1", "steps-x", "lost+found", "steps-7"]
    {
      try Files().makeFolder(data.path + "/" + other)
    }
    let found = try ShardLog.all(in: data.path)
    #expect(found.map(\.partition) == [2, 11])
    #expect(found.allSatisfy { $0.topic == "steps" })
    #expect(throws: InspectionError.self) { _ = try ShardLog.all(in: data.path + "/absent") }
  }

  @Test(
    "a walk from any offset gives the rows from there on, while the log is open and after",
    arguments: Seed.some(5))
  func walk(seed: Seed) throws {
    let data = TemporaryFolder()
    let log = try written(data, seed, start: 1_000)
    for isClosed in [false, true] {
      if isClosed { try log.close() }
      let end = log.batches.last?.upperBound ?? 0
      for offset in [0, 999] + Array(stride(from: Int64(1_000), through: end + 1, by: 11)) {
        let (found, reach) = try rows(try shard(data), from: offset)
        #expect(found == log.rows.filter { $0.offset >= offset }, "from \(offset)")
        #expect(reach?.from == 1_000 && reach?.origin == 1_000 && reach?.to == end)
        #expect(reach?.isComplete == true && reach?.damage == nil)
      }
    }
  }

  @Test("sealed segments read as the plain ones did, and a changed byte in one is damage")
  func sealed() throws {
    let data = TemporaryFolder()
    let log = try written(data, Seed(4))
    try log.close()
    let plain = try shard(data).summaries()
    let names = try log.segments()
    for name in names.prefix(2) { try log.seal(name) }
    let found = try shard(data).summaries()
    #expect(found.map(\.state) == [.sealed, .sealed, .active])
    #expect(found.map(\.next) == plain.map(\.next) && found.map(\.events) == plain.map(\.events))
    #expect(found[0].fileBytes < plain[0].bytes)
    #expect(try rows(try shard(data)).rows == log.rows)
    let name = try #require(try log.segments().first)
    let bytes = try log.bytes(name)
    var differing = 0
    for place in stride(from: 0, to: bytes.count, by: max(1, bytes.count / 60)) {
      var changed = bytes
      changed[place] ^= 0x04
      try log.write(changed, name)
      let state = try shard(data).summaries().first { $0.file == name }?.state
      let (found, reach) = try rows(try shard(data))
      // A match of LZ4 may point at the same bytes elsewhere: then nothing is changed.
      let isSame = state == .sealed && reach?.damage == nil && found == log.rows
      #expect(isSame || state == .damaged && reach?.damage != nil, "byte \(place)")
      differing += isSame ? 0 : 1
    }
    #expect(differing > 50)
  }

  @Test("snapshots are listed, the newest first, and one that does not check is named")
  func snapshots() throws {
    let data = TemporaryFolder()
    let log = try written(data, Seed(9))
    #expect(try shard(data).snapshots().isEmpty)
    for watermark in [Int64(5), 12] { try log.snapshot(at: watermark) }
    var found = try shard(data).snapshots()
    #expect(
      found.map(\.watermark) == [12, 5] && found.allSatisfy { $0.problem == nil && $0.fileBytes > 512 })
    var bytes = try log.bytes(found[0].file)
    bytes[600 % bytes.count] ^= 1
    try log.write(bytes, found[0].file)
    found = try shard(data).snapshots()
    #expect(found.map { $0.problem != nil } == [true, false])
    #expect(try shard(data).summaries().allSatisfy { $0.problem == nil })
  }

  @Test("a walk ends where it is told to")
  func stop() throws {
    let data = TemporaryFolder()
    let log = try written(data, Seed(3))
    var count = 0
    let reach = try shard(data).walk { _ in
      count += 1
      return count < 4
    }
    #expect(count == 4 && reach?.to == log.batches[3].upperBound)
  }

  @Test(
    "summaries tell of each file its bounds, records and state; a gap is no damage", arguments: Seed.some(3))
  func summaries(seed: Seed) throws {
    let data = TemporaryFolder()
    let log = try written(data, seed)
    try log.acceptGap(10)
    try log.give(rowCount: 5)
    let found = try shard(data).summaries()
    #expect(found.map(\.state) == [.closed, .closed, .active])
    #expect(found.map(\.from) == [log.batches[0], log.batches[3], log.batches[6]].map(\.lowerBound))
    #expect(found.map(\.next) == [log.batches[2], log.batches[5], log.batches[10]].map(\.upperBound))
    #expect(found.map(\.batches) == [3, 3, 5])
    for summary in found {
      let inside = log.rows.filter { $0.offset >= summary.from && $0.offset < summary.next }
      #expect(summary.events == UInt64(inside.filter { $0.reason == nil }.count))
      #expect(summary.rejected == UInt64(inside.filter { $0.reason != nil }.count))
      #expect(summary.problem == nil && summary.fileBytes >= summary.bytes && summary.bytes > 512)
    }
  }

  @Test("a changed byte anywhere but in the last segment is damage, with its file and a byte at or before it")
  func flipped() throws {
    let data = TemporaryFolder()
    let log = try written(data, Seed(5))
    try log.close()
    let name = try log.segments()[1]
    let bytes = try log.bytes(name)
    let content = try shard(data).summaries()[1].bytes
    for place in stride(from: 0, to: bytes.count, by: max(1, bytes.count / 120)) {
      var changed = bytes
      changed[place] ^= 0x10
      try log.write(changed, name)
      let summary = try #require(try shard(data).summaries().first { $0.file == name })
      #expect(summary.state == .damaged || summary.state == .refused, "byte \(place) of \(content)")
      #expect((summary.atByte ?? .max) <= place, "byte \(place): \(summary.atByte ?? -1)")
      let (found, reach) = try rows(try shard(data))
      #expect(reach?.damage != nil && reach?.isComplete == false)
      #expect(found.elementsEqual(log.rows.prefix(found.count)))
    }
    try log.write(bytes, name)
    #expect(try shard(data).summaries().allSatisfy { $0.problem == nil })
  }

  @Test("the last segment cut anywhere is torn, not damaged, and its whole batches are read")
  func torn() throws {
    let data = TemporaryFolder()
    let log = try written(data, Seed(6))
    let name = try #require(try log.segments().last)
    let bytes = try log.bytes(name)
    let content = try #require(try shard(data).summaries().last).bytes
    let before = log.batches[5].upperBound
    for length in stride(from: 0, to: content, by: max(1, content / 120)) {
      // What a crash leaves of a preallocated file.
      try log.write(Array(bytes[..<length]) + [UInt8](repeating: 0, count: bytes.count - length), name)
      let summary = try #require(try shard(data).summaries().last)
      let isBorder = summary.state == .active
      #expect(summary.state == .torn || isBorder, "cut at \(length): \(summary)")
      let (found, reach) = try rows(try shard(data))
      #expect(reach?.damage == nil, "cut at \(length)")
      let to = reach?.to ?? -1
      #expect(to == before || log.batches[6...].contains { $0.upperBound == to })
      #expect(found == log.rows.filter { $0.offset < to }, "cut at \(length)")
    }
  }

  @Test("a segment that is missing, of another shard, or gone at the beginning is named")
  func misplaced() throws {
    let data = TemporaryFolder()
    let log = try written(data, Seed(8))
    try log.close()
    let names = try log.segments()
    let middle = try log.bytes(names[1])
    try Files().remove(log.folder + "/" + names[1])
    var found = try shard(data).summaries()
    #expect(found.map(\.state) == [.closed, .damaged] && found[1].problem?.contains("ends at") == true)
    var reach = try rows(try shard(data)).reach
    #expect(reach?.to == log.batches[2].upperBound && reach?.damage != nil)
    try log.write(middle, names[1])
    try Files().remove(log.folder + "/" + names[0])
    found = try shard(data).summaries()
    #expect(found.allSatisfy { $0.problem == nil })
    let rest = try rows(try shard(data))
    reach = rest.reach
    #expect(reach?.from == log.batches[3].lowerBound && reach?.origin == 0 && reach?.isComplete == false)
    #expect(rest.rows == log.rows.filter { $0.offset >= log.batches[3].lowerBound })
    try Files().rename(log.folder, to: data.path + "/steps-5")
    #expect(throws: InspectionError.foreign(path: data.path + "/steps-5", found: "steps-0")) {
      _ = try shard(data).summaries()
    }
  }

  @Test(
    "an account read from the log is that of the rows that were given",
    arguments: [StepsMode.increment, .totalNewest],
    Seed.some(3))
  func account(mode: StepsMode, seed: Seed) throws {
    let data = TemporaryFolder()
    let logs = try [written(data, seed, partition: 0), written(data, Seed(seed.value &+ 1), partition: 1)]
    for name in WrittenLog.users {
      let user = try #require(UserID(name))
      for board in [BoardID.day(Day(number: 20_781)), .all] {
        var found = Explanation(user: user, board: board, mode: mode)
        for shard in try ShardLog.all(in: data.path) { #expect(try found.read(shard)?.isComplete == true) }
        var expected: UInt64 = 0
        var offsets: [Int64] = []
        for log in logs {
          var model = ModelShard(mode: mode, periods: ["day", "all"])
          for row in log.rows where row.user == name {
            let event = StepEvent(
              user: UserKey(high: 0, low: 0), offset: row.offset, timeOfDay: row.timeOfDay, steps: row.steps,
              day: row.day)
            _ = model.apply(name, event)
            if board == .all || row.day.number == 20_781 { offsets.append(row.offset) }
          }
          expected += model.boards[board]?.total(name) ?? 0
        }
        #expect(found.total == expected && found.events.map(\.offset) == offsets)
        let rejected = logs.flatMap { log in log.rows.filter { $0.record?.contains("\"\(name)\"") == true } }
        #expect(found.rejected.map(\.offset) == rejected.map(\.offset))
        #expect(found.rejected.map(\.reason) == rejected.compactMap(\.reason))
      }
    }
  }
}
