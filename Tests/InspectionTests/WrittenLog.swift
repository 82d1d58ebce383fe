// A data folder with logs, written by the log itself, and a plain list of what was given to it.

import Posix
import SegmentLog
import StepModel
import TestSupport

/// A row as it was given.
struct GivenRow: Equatable, Sendable {
  let offset: Int64
  var user = ""
  var steps: UInt32 = 0
  var day = Day(number: 0)
  var timeOfDay: Int64 = 0
  var source: String?
  var reason: RejectReason?
  var record: String?

  init(offset: Int64) { self.offset = offset }

  init(_ row: DecodedBatch.Row) {
    switch row {
    case .event(let event, _, _):
      self.init(offset: event.offset)
      user = String(unsafeUninitializedCapacity: UserID.bytesMax) { event.user.write(to: $0.baseAddress!) }
      steps = event.steps
      day = event.day
      timeOfDay = event.timeOfDay
      source = event.source.map { String(decoding: $0, as: UTF8.self) }
    case .rejected(let rejected):
      self.init(offset: rejected.offset)
      reason = rejected.reason
      record = rejected.payload.map { String(decoding: $0, as: UTF8.self) }
    }
  }
}

/// One shard's log of a data folder.
final class WrittenLog {
  static let users = ["ada", "ben", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "👣"]

  private final class Deaf: LogObserver {
    func log(_ log: Log, durable watermark: Int64) {}
    func log(_ log: Log, finished segment: String) {}
    func log(_ log: Log, diskFull path: String) {}
    func logHasRoom(_ log: Log) {}
    func log(_ log: Log, failed error: LogError) {}
  }

  let data: TemporaryFolder
  let partition: Int32
  let folder: String
  private(set) var rows: [GivenRow] = []
  /// Bounds of the batches.
  private(set) var batches: [Range<Int64>] = []
  private var random: SeededGenerator
  private let syncer: LogSyncer
  private let log: Log
  private var next: Int64

  init(_ data: TemporaryFolder, seed: Seed, partition: Int32 = 0, start: Int64 = 0) throws {
    self.data = data
    self.partition = partition
    folder = "\(data.path)/steps-\(partition)"
    try Files().makeFolder(folder)
    random = seed.random
    syncer = try LogSyncer()
    next = start
    log = Log(
      identity: LogIdentity(
        topic: "steps", topicID: .init(high: 1, low: 2), partition: partition, fingerprint: 7),
      folder: folder, position: LogPosition(watermark: start, origin: start),
      limits: LogLimits(segmentBytes: 64 << 10, syncInterval: .zero), syncer: syncer, observer: Deaf())
  }

  deinit { syncer.stop() }

  /// Gives a batch of random rows, and has it synced.
  func give(rowCount: Int) throws {
    log.begin()
    let first = next
    for _ in 0..<rowCount {
      next += Int64.random(in: 0...2, using: &random)
      if Int.random(in: 0..<5, using: &random) == 0 { giveRejected() } else { giveEvent() }
      next += 1
    }
    _ = try log.finish(next: next, clockMs: 1 << 40, newestMs: 7)
    try log.flush()
    batches.append(first..<next)
  }

  /// Ends the segment; the next batch begins another.
  func endSegment() { log.endSegment() }

  func acceptGap(_ count: Int64) throws {
    _ = try log.acceptGap(to: next + count, clockMs: 1 << 40, newestMs: 7)
    try log.flush()
    batches.append(next..<(next + count))
    next += count
  }

  func close() throws { try log.close() }

  /// Writes a snapshot of a state without users.
  func snapshot(at watermark: Int64) throws {
    let header = SnapshotHeader(
      identity: log.identity, mode: .increment, watermark: watermark, clockMs: 7, newestMs: 7, counted: 0,
      superseded: 0, rejected: [UInt64](repeating: 0, count: RejectReason.allCases.count), users: 0, boards: 0
    )
    _ = try SnapshotWriter(folder: folder, header: header).finish()
  }

  /// Seals a segment that is written to its end.
  func seal(_ name: String) throws {
    guard let segment = SegmentName(name) else { preconditionFailure("\(name) is no segment") }
    try Sealer.seal(base: segment.base, in: folder, identity: log.identity)
  }

  private func giveEvent() {
    let number = Int.random(in: 0..<WrittenLog.users.count, using: &random)
    var row = GivenRow(offset: next)
    row.user = WrittenLog.users[number]
    row.steps = UInt32.random(in: 0...50, using: &random)
    row.day = Day(number: 20_780 + Int32.random(in: 0...2, using: &random))
    row.timeOfDay = Int64.random(in: 0...9, using: &random) * 1_000_000_000
    row.source = ["watch", "phone", nil].randomElement(using: &random) ?? nil
    rows.append(row)
    let source = Array((row.source ?? "").utf8)
    source.withUnsafeBytes { bytes in
      UserID(row.user)?.withKey { key in
        log.batch.event(
          StepEvent(
            user: key, offset: row.offset, timeOfDay: row.timeOfDay, steps: row.steps, day: row.day,
            source: row.source == nil ? nil : bytes),
          number: UInt32(number), timestampMs: 7, payload: UnsafeRawBufferPointer(start: nil, count: 0))
      }
    }
  }

  private func giveRejected() {
    var row = GivenRow(offset: next)
    row.reason = RejectReason.allCases.randomElement(using: &random)
    row.record =
      Bool.random(using: &random)
      ? "{\"uuid\":\"\(WrittenLog.users.randomElement(using: &random) ?? "")\",\"steps\":" : nil
    rows.append(row)
    Array((row.record ?? "").utf8).withUnsafeBytes {
      log.batch.rejected(
        offset: row.offset, timestampMs: 7, reason: row.reason ?? .late,
        payload: row.record == nil ? UnsafeRawBufferPointer(start: nil, count: 0) : $0)
    }
  }

  /// The segments' files by name, in order.
  func segments() throws -> [String] { try Files().names(in: folder).sorted() }

  func bytes(_ name: String) throws -> [UInt8] { try Files().read(whole: folder + "/" + name) }

  func write(_ bytes: [UInt8], _ name: String) throws {
    let file = try Files().open(folder + "/" + name, .replace)
    try bytes.withUnsafeBytes { bytes throws in try file.write(bytes, at: 0) }
  }
}
