import Posix
import StepModel
import Synchronization
import TestSupport

@testable import SegmentLog

/// Notes what a log says.
final class LogNotes: LogObserver {
  enum Note: Equatable {
    case durable(Int64)
    case finished(String)
    case full(String)
    case room
    case failed(LogError)
  }

  private let notes = Mutex<[Note]>([])

  var all: [Note] { notes.withLock { $0 } }
  var durable: Int64? {
    all.compactMap { note -> Int64? in
      if case .durable(let watermark) = note { watermark } else { nil }
    }.last
  }
  var failures: [LogError] {
    all.compactMap { note in
      if case .failed(let error) = note { error } else { nil }
    }
  }

  private func add(_ note: Note) { notes.withLock { $0.append(note) } }

  func log(_ log: Log, durable watermark: Int64) { add(.durable(watermark)) }
  func log(_ log: Log, finished segment: String) {
    add(.finished(String(segment.split(separator: "/").last ?? "")))
  }
  func log(_ log: Log, diskFull path: String) { add(.full(path)) }
  func logHasRoom(_ log: Log) { add(.room) }
  func log(_ log: Log, failed error: LogError) { add(.failed(error)) }
}

/// A shard's folder with a log, and what was given to it.
final class LogWorld {
  let temporary: TemporaryFolder
  var folder: String { temporary.path }
  let notes = LogNotes()
  let syncer: LogSyncer
  var limits: LogLimits
  var files: Files
  private(set) var log: Log
  private(set) var source: BatchSource
  /// Every batch that was given.
  private(set) var given: [ModelBatch] = []

  init(
    seed: Seed, limits: LogLimits = LogLimits(segmentBytes: 64 << 10, syncInterval: .zero),
    files: Files = Files()
  ) throws {
    temporary = TemporaryFolder()
    self.limits = limits
    self.files = files
    source = BatchSource(seed: seed)
    syncer = try LogSyncer()
    log = Log(
      identity: walkers, folder: temporary.path,
      position: LogPosition(watermark: source.next, origin: source.next), limits: limits, files: files,
      syncer: syncer, observer: notes)
  }

  deinit { syncer.stop() }

  @discardableResult
  func give(rowsMax: Int = 50) throws -> Bool {
    let batch = source.batch(rowsMax: rowsMax)
    log.begin()
    log.batch.add(batch)
    let hasRoom = try log.finish(next: batch.next, clockMs: 1 << 60, newestMs: 1)
    given.append(batch)
    return hasRoom
  }

  /// Ends the log under way and goes on with a new one where recovery says.
  func restart(snapshots: [SnapshotFacts] = []) throws -> Recovery {
    let recovery = try recover(snapshots: snapshots)
    if let position = recovery.plan.position {
      log = Log(
        identity: walkers, folder: folder, position: position, limits: limits, files: files, syncer: syncer,
        observer: notes)
      source.restart(at: position.watermark)
      given.removeAll { $0.next > position.watermark }
    }
    return recovery
  }

  func recover(snapshots: [SnapshotFacts] = []) throws -> Recovery {
    let recovery = try Recovery(folder: folder, identity: walkers, snapshots: snapshots)
    try recovery.apply()
    return recovery
  }

  /// All rows up to a watermark.
  func rows(from start: Int64 = 0, to end: Int64 = .max) -> [ModelRow] {
    given.flatMap(\.rows).filter { $0.offset >= start && $0.offset < end }.map(\.read)
  }
}

extension Recovery {
  /// All rows that a replay gives.
  func rows() throws -> [ModelRow] {
    var rows: [ModelRow] = []
    try replay { batch, _ in batch.forEachRow { rows.append(ModelRow($0)) } }
    return rows
  }
}
