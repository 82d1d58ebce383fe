// What a shard has on the disk: its log, its snapshots, and its part of the dead-letter file, each never ahead of the one
// before it.
//
//     shard thread   rows ──────────────> log (memory) ─┐
//     sync thread                                       └─ write, sync ─> dead letters ─> durable
//     ingest, keeper                                                                      └─> commit, snapshot
//
// On the way back: the newest snapshot that checks, then the log behind it.

import Posix
import QueryProtocol
import RankIndex
import SegmentLog
import StepModel
import Synchronization
import Telemetry

/// Why a shard cannot be restored from its folder. It stands still then, and nothing in the folder is changed.
enum RestoreFailure: Error, CustomStringConvertible {
  case log(LogError)
  /// A snapshot's content does not make boards.
  case boards(RestoreError)
  /// There are files, and none of them leads to a state.
  case noStart(folder: String)
  /// Events of the log do not come out as they did when they were logged.
  case disagrees(first: Int64, next: Int64)

  var description: String {
    switch self {
    case .log(let error): "\(error)"
    case .boards(let error): "the snapshot makes no boards: \(error)"
    case .noStart(let folder):
      "\(folder) holds neither a good snapshot nor the log's beginning; rmsctl shard adopt sets it aside and reads the"
        + " topic from its beginning"
    case .disagrees(let first, let next):
      "the log's events from offset \(first) to \(next) do not fit the state before them; rmsctl shard adopt sets the"
        + " shard's folder aside and reads the topic from its beginning"
    }
  }
}

/// The files of one shard. Which thread may call what is said at each group.
final class ShardStore: @unchecked Sendable {
  // Unchecked: `log` and `letters` belong to the shard's thread; everything that others see is atomic or under a mutex.

  let identity: LogIdentity
  /// The shard's folder.
  let folder: String
  private let world: StoreWorld
  private var recovery: Recovery?
  private var log: Log?
  private var letters: DeadLetters.Batch?
  private let waiting = Mutex(Waiting())
  private let writing = Mutex<Bool>(false)
  private let durableMark = Atomic<Int64>(-1)
  private let snapshotMark = Atomic<Int64>(-1)
  private let sealedMark = Atomic<Int64>(-1)
  private let behind = Atomic<Bool>(false)
  private let loggedBytes = Atomic<Int>(0)
  private let isClosed = Atomic<Bool>(false)
  private let durableMoved: WakeUp
  private let restoredBytes = Atomic<Int>(0)
  private let restoreBytes = Atomic<Int>(0)

  private struct Schedule {
    /// When the last snapshot was begun, or the shard.
    var snapshotAt: Moment
    /// Bytes the log had been given by then.
    var bytesAtSnapshot = 0
    private var retentionDueMs: Int64 = 0

    init(snapshotAt: Moment) { self.snapshotAt = snapshotAt }

    mutating func retentionIsDue(_ nowMs: Int64) -> Bool {
      guard nowMs >= retentionDueMs else { return false }
      retentionDueMs = nowMs + 60_000
      return true
    }
  }

  private let schedule: Mutex<Schedule>

  private struct Waiting: Sendable {
    /// Dead letters that the log holds only in memory, with the watermark behind them.
    var letters: [(next: Int64, batch: DeadLetters.Batch)] = []
    /// What the log has made durable; the mark that others see follows once the dead letters are written.
    var logged: Int64 = -1
    /// Finished segments that are not sealed yet, oldest first.
    var finished: [String] = []
    /// Why the log, or the dead-letter file, cannot be written now.
    var logProblem: String?
    var letterProblem: String?
  }

  /// - Parameters:
  ///   - identity: whose files they are.
  ///   - world: what all stores of the node share.
  /// - Throws: `SystemError` if the kernel has no descriptor to give.
  init(_ identity: LogIdentity, _ world: StoreWorld) throws(SystemError) {
    self.identity = identity
    self.world = world
    durableMoved = try WakeUp()
    schedule = Mutex(Schedule(snapshotAt: world.clock.now))
    folder = world.dataDir + "/" + identity.folderName
  }

  // MARK: Any thread

  /// Everything before it is in the log and, if it was rejected, in the dead-letter file; -1 until restored.
  var durable: Int64 { durableMark.load(ordering: .acquiring) }

  /// Watermark of the newest snapshot; -1 if there is none.
  var snapshotWatermark: Int64 { snapshotMark.load(ordering: .acquiring) }

  /// Watermark behind the newest sealed segment; -1 if there is none.
  var sealedWatermark: Int64 { sealedMark.load(ordering: .acquiring) }

  /// Whether more waits for the disk than should: the shard is to be given nothing more for a while.
  var isBehind: Bool { behind.load(ordering: .acquiring) || problem != nil }

  /// Why nothing can be written now; nil while all is well.
  var problem: String? { waiting.withLock { $0.logProblem ?? $0.letterProblem } }

  /// Bytes read of those there are to read.
  var restoreProgress: (done: Int, all: Int) {
    (restoredBytes.load(ordering: .relaxed), restoreBytes.load(ordering: .relaxed))
  }

  // MARK: The shard's thread, before all else

  /// Finds the newest snapshot that checks and that the log goes on from, and puts the folder in order.
  ///
  /// - Parameter fresh: makes empty boards.
  /// - Returns: boards and numbers as of that snapshot, or empty ones where the log begins.
  /// - Throws: why there is no state; nothing was changed then.
  func load(_ fresh: () -> ShardBoards) throws(RestoreFailure) -> (boards: ShardBoards, numbers: ShardNumbers)
  {
    let names: [String]
    do throws(SystemError) {
      if !world.files.isFolder(folder) {
        try world.files.makeFolder(folder)
        try world.files.syncFolder(world.dataDir)
      }
      names = try world.files.names(in: folder)
    } catch { throw .log(.system(error)) }
    var facts: [SnapshotFacts] = []
    for (name, watermark) in SnapshotFormat.newestFirst(names) {
      guard let loaded = try snapshot(name, fresh()) else {
        facts.append(SnapshotFacts(watermark: watermark, isGood: false))
        continue
      }
      facts.append(SnapshotFacts(watermark: watermark, isGood: true))
      let recovery = try plan(facts)
      guard case .snapshot(watermark) = recovery.plan.start else { continue }
      try begin(recovery)
      snapshotMark.store(watermark, ordering: .releasing)
      return loaded
    }
    let recovery = try plan(facts)
    var numbers = ShardNumbers()
    switch recovery.plan.start {
    case .empty: break
    case .origin(let watermark): numbers.watermark = watermark
    case .snapshot, .nothing: throw .noStart(folder: folder)
    case .refused: throw .log(recovery.plan.refusal ?? .closed(path: folder))
    }
    try begin(recovery)
    return (fresh(), numbers)
  }

  /// Reads the log from there on, then opens it for what comes.
  ///
  /// - Parameter apply: is lent each batch.
  /// - Throws: why the state cannot be restored.
  func replay(_ apply: (DecodedBatch) throws(RestoreFailure) -> Void) throws(RestoreFailure) {
    guard let recovery else { preconditionFailure("a log is read that was not planned") }
    self.recovery = nil
    do {
      try recovery.replay { batch, progress in
        restoredBytes.store(progress.bytesDone, ordering: .relaxed)
        restoreBytes.store(progress.bytesTotal, ordering: .relaxed)
        try apply(batch)
        for record in batch.rejected {
          bury(
            offset: record.offset, timestampMs: record.timestampMs, reason: record.reason,
            payload: record.payload ?? UnsafeRawBufferPointer(start: nil, count: 0))
        }
        handOverLetters(batch.header.next)
      }
    } catch let error as LogError {
      throw .log(error)
    } catch let error as RestoreFailure {
      throw error
    } catch {
      throw .log(.closed(path: folder))
    }
    let position = recovery.plan.position ?? LogPosition(watermark: 0, origin: 0)
    loggedBytes.store(restoreBytes.load(ordering: .relaxed), ordering: .relaxed)
    waiting.withLock { $0.logged = position.watermark }
    writeLetters()
    log = Log(
      identity: identity, folder: folder, position: position, limits: world.limits, files: world.files,
      syncer: world.syncer, observer: self)
  }

  /// A snapshot's boards; nil if it is damaged.
  private func snapshot(
    _ name: String, _ boards: ShardBoards
  ) throws(RestoreFailure) -> (boards: ShardBoards, numbers: ShardNumbers)? {
    do throws(RestoreFailure) {
      let reader: SnapshotReader
      do throws(LogError) {
        reader = try SnapshotReader(path: folder + "/" + name, identity: identity, files: world.files)
      } catch { throw .log(error) }
      restoredBytes.store(0, ordering: .relaxed)
      restoreBytes.store(reader.bytesCount, ordering: .relaxed)
      let numbers = try ShardSnapshot.load(reader, into: boards) { bytes in
        restoredBytes.add(bytes, ordering: .relaxed)
      }
      return (boards, numbers)
    } catch {
      switch error {
      case .log(.damaged), .boards:
        world.diagnostics.log(
          .error, "a snapshot is damaged and not used",
          [.path: folder + "/" + name, .reason: error.description])
        return nil
      case .log, .noStart, .disagrees: throw error
      }
    }
  }

  private func plan(_ snapshots: [SnapshotFacts]) throws(RestoreFailure) -> Recovery {
    do throws(LogError) {
      return try Recovery(folder: folder, identity: identity, snapshots: snapshots, files: world.files)
    } catch { throw .log(error) }
  }

  /// Carries the plan out and tells of what was wrong.
  private func begin(_ recovery: Recovery) throws(RestoreFailure) {
    let plan = recovery.plan
    do throws(LogError) { try recovery.apply() } catch {
      if case .syncFailed = error { world.onFailure(.log(error)) }
      throw .log(error)
    }
    for row in plan.rows {
      let path = folder + "/" + row.facts.name.text
      switch row.action {
      case .keep, .trim: break
      case .cut(_, _, let lost):
        world.diagnostics.log(
          .warning, "a torn tail of the log was cut; its records are read from Kafka again",
          [.path: path, .bytes: "\(lost)", .watermark: "\(row.facts.end)", .reason: row.reason])
      case .setAsideTail, .setAside:
        world.diagnostics.log(
          .error, "the log is damaged; the file was set aside", [.path: path, .reason: row.reason])
      case .remove:
        world.diagnostics.log(.info, "a superfluous segment was removed", [.path: path, .reason: row.reason])
      case .refuse: break
      }
      switch row.action {
      case .keep, .trim, .cut, .setAsideTail:
        if row.facts.name.form == .sealed {
          sealedMark.store(max(sealedWatermark, row.facts.end), ordering: .releasing)
        } else {
          waiting.withLock { $0.finished.append(path) }
        }
      case .setAside, .remove, .refuse: break
      }
    }
    if let lost = plan.lost {
      world.diagnostics.log(
        .error, "records that were in the log are read from Kafka again",
        [.partition: "\(identity.partition)", .from: "\(lost.lowerBound)", .to: "\(lost.upperBound)"])
    }
    self.recovery = recovery
  }

  // MARK: The shard's thread

  /// Whether the batch under way should be finished before more comes.
  var isBatchFull: Bool { log?.batch.isFull ?? false }

  /// Begins a batch at the shard's watermark.
  func begin() { log?.begin() }

  /// Takes events until the batch is full.
  ///
  /// - Parameter run: events without rejected records between them.
  /// - Returns: how many it took; all once the log is closed.
  func events(_ run: EventRun) -> Int { log?.batch.events(run) ?? run.count }

  /// Takes a record that was not counted.
  func rejected(
    offset: Int64, timestampMs: Int64, reason: RejectReason, payload: UnsafeRawBufferPointer
  ) {
    log?.batch.rejected(offset: offset, timestampMs: timestampMs, reason: reason, payload: payload)
    bury(offset: offset, timestampMs: timestampMs, reason: reason, payload: payload)
  }

  /// Ends the batch and hands it over; waits for nothing.
  func finish(next: Int64, clock: Int64, newest: Int64) {
    handOverLetters(next)
    give(next) { (log) throws(LogError) in try log.finish(next: next, clockMs: clock, newestMs: newest) }
  }

  /// Notes that offsets without records were passed.
  func pass(after numbers: ShardNumbers, to next: Int64) {
    give(next) { (log) throws(LogError) in
      try log.pass(to: next, clockMs: numbers.clock, newestMs: numbers.newest)
    }
  }

  /// Notes that a person accepted the loss of all records before an offset.
  func acceptGap(after numbers: ShardNumbers, to next: Int64) {
    give(next) { (log) throws(LogError) in
      try log.acceptGap(to: next, clockMs: numbers.clock, newestMs: numbers.newest)
    }
  }

  /// Finishes the segment under way, so that it is sealed.
  func endSegment() { log?.endSegment() }

  /// Takes all to the disk and closes the log. Nothing of the shard's is called afterwards but marks.
  func close() {
    do throws(LogError) { try log?.close() } catch {
      world.diagnostics.log(.error, "the log did not close", [.path: folder, .reason: error.description])
    }
    log = nil
    isClosed.store(true, ordering: .releasing)
    durableMoved.signal()
  }

  private func give(_ next: Int64, _ body: (Log) throws(LogError) -> Bool) {
    guard let log else { return }
    do throws(LogError) {
      if try !body(log) {
        behind.store(true, ordering: .releasing)
        // The sync may have been faster than this word of it, and nothing else would take it back.
        if log.durable >= next { behind.store(false, ordering: .releasing) }
      }
      loggedBytes.add(log.bytesOfLastBatch, ordering: .relaxed)
    } catch {
      // The log has told its observer why; the process is on its way out.
    }
  }

  private func bury(offset: Int64, timestampMs: Int64, reason: RejectReason, payload: UnsafeRawBufferPointer)
  {
    let batch = letters ?? world.deadLetters.batch(of: identity)
    letters = batch
    batch.add(offset: offset, timestamp: timestampMs, reason: reason, payload: payload)
  }

  private func handOverLetters(_ next: Int64) {
    guard let batch = letters else { return }
    letters = nil
    if batch.bytes > 0 { waiting.withLock { $0.letters.append((next, batch)) } }
  }

  // MARK: The keeper's thread

  /// Writes the dead letters that the log holds durably; what the disk refuses is tried again later.
  func writeLetters() {
    // Two threads may come; whoever looks at the store meanwhile does not wait for the disk.
    writing.withLock { _ in
      while let batch = nextLetters() {
        do throws(DeadLetterError) {
          try world.deadLetters.append(batch)
        } catch {
          return lettersFailed(error)
        }
        waiting.withLock { _ = $0.letters.removeFirst() }
      }
    }
    durableMoved.signal()
  }

  /// Notes why dead letters wait; said once until they do not.
  private func lettersFailed(_ error: DeadLetterError) {
    world.deadLetterFailures.add()
    let text = "dead letters cannot be written: \(error); make room or repair the disk"
    let isNew = waiting.withLock { waiting in
      defer { waiting.letterProblem = text }
      return waiting.letterProblem == nil
    }
    guard isNew else { return }
    let path = DeadLetters.path(world.dataDir)
    if case .disk(let system) = error, system.errno == .noSpace || system.errno == .quota {
      world.diagnostics.log(.error, "the disk is full", [.path: path])
    } else {
      world.diagnostics.log(.error, "dead letters cannot be written", [.path: path, .reason: "\(error)"])
    }
  }

  /// The next dead letters that the log holds durably; if there are none, what it holds is durable as a whole.
  private func nextLetters() -> DeadLetters.Batch? {
    waiting.withLock { waiting in
      if let first = waiting.letters.first, first.next <= waiting.logged { return first.batch }
      waiting.letterProblem = nil
      durableMark.store(waiting.logged, ordering: .releasing)
      return nil
    }
  }

  /// Bytes of log since the last snapshot: what a restart would read.
  var bytesSinceSnapshot: Int {
    loggedBytes.load(ordering: .relaxed) - schedule.withLock { $0.bytesAtSnapshot }
  }

  /// When the last snapshot was tried, or the shard began.
  var snapshotAt: Moment { schedule.withLock { $0.snapshotAt } }

  /// Notes that a snapshot is tried now.
  func snapshotBegins() {
    let bytes = loggedBytes.load(ordering: .relaxed)
    schedule.withLock {
      $0.snapshotAt = world.clock.now
      $0.bytesAtSnapshot = bytes
    }
  }

  /// Gives a snapshot its name once log and dead letters are as far, and removes those it makes superfluous.
  ///
  /// - Parameters:
  ///   - writer: has written everything.
  ///   - watermark: of the snapshot.
  /// - Returns: false if the log was closed before; there is no snapshot then.
  /// - Throws: what the disk says.
  func finish(_ writer: SnapshotWriter, watermark: Int64) throws(LogError) -> Bool {
    while durable < watermark {
      if isClosed.load(ordering: .acquiring) { return false }
      if durableMoved.wait(.milliseconds(200)) { durableMoved.clear() }
      writeLetters()
    }
    do throws(DeadLetterError) { try world.deadLetters.sync() } catch {
      throw .syncFailed(path: DeadLetters.path(world.dataDir), errno: .inputOutput)
    }
    _ = try writer.finish()
    snapshotMark.store(watermark, ordering: .releasing)
    try SnapshotFolder.removeSurplus(folder, files: world.files)
    return true
  }

  /// Seals the finished segments, oldest first.
  ///
  /// - Throws: why one was not; it stays as it is until the next start, the others are left for the next time.
  func seal() throws(LogError) {
    while let path = waiting.withLock({ $0.finished.isEmpty ? nil : $0.finished.removeFirst() }) {
      guard let name = SegmentName(String(path.dropFirst(folder.utf8.count + 1))), name.form == .plain else {
        preconditionFailure("\(path) is no segment of \(folder)")
      }
      try Sealer.seal(base: name.base, in: folder, identity: identity, files: world.files)
      try noteSealed()
    }
  }

  private func noteSealed() throws(LogError) {
    let names = try LogFolder.segments(in: folder, files: world.files)
    // A sealed segment ends where the next begins; behind the last one there is nothing older than what is durable.
    guard let last = names.lastIndex(where: { $0.form == .sealed }) else { return }
    sealedMark.store(last + 1 < names.count ? names[last + 1].base : durable, ordering: .releasing)
  }

  /// Removes segments that are past their time and that no snapshot needs, once a minute.
  ///
  /// - Parameters:
  ///   - retention: the rule.
  ///   - nowMs: the time, milliseconds since 1970.
  /// - Throws: what the disk says.
  func retain(_ retention: Retention, nowMs: Int64) throws(LogError) {
    guard schedule.withLock({ $0.retentionIsDue(nowMs) }) else { return }
    let kept = try LogFolder.kept(in: folder, watermark: max(0, durable), nowMs: nowMs, files: world.files)
    do throws(SystemError) {
      let snapshots = SnapshotFormat.newestFirst(try world.files.names(in: folder)).map(\.watermark)
      let names = retention.removable(
        kept, snapshotOldest: snapshots.count < SnapshotFormat.keptCount ? nil : snapshots.min(),
        confirmed: nil, nowMs: nowMs)
      for name in names {
        try world.files.remove(folder + "/" + name.text)
        world.diagnostics.log(.info, "an old segment was removed", [.path: folder + "/" + name.text])
      }
      if !names.isEmpty { try world.files.syncFolder(folder) }
    } catch { throw .system(error) }
  }
}

extension ShardStore: LogObserver {
  func log(_ log: Log, durable watermark: Int64) {
    waiting.withLock { $0.logged = watermark }
    behind.store(false, ordering: .releasing)
    writeLetters()
  }

  func log(_ log: Log, finished segment: String) { waiting.withLock { $0.finished.append(segment) } }

  func log(_ log: Log, diskFull path: String) {
    let text = "\(path): no space left; nothing is read from Kafka until there is"
    waiting.withLock { $0.logProblem = text }
    world.diagnostics.log(.error, "the disk is full", [.path: path])
  }

  func logHasRoom(_ log: Log) {
    waiting.withLock { $0.logProblem = nil }
    world.diagnostics.log(.info, "the disk has room again", [.path: folder])
  }

  func log(_ log: Log, failed error: LogError) {
    world.diagnostics.log(.error, "the log failed", [.path: folder, .reason: error.description])
    // What waits for the log to go on would wait for ever.
    isClosed.store(true, ordering: .releasing)
    durableMoved.signal()
    world.onFailure(.log(error))
  }
}

// MARK: - Folders

extension ShardStore {
  /// The shards of a topic in a data folder, by partition.
  ///
  /// - Parameters:
  ///   - world: where.
  ///   - topic: which topic.
  ///   - fingerprint: of the settings.
  /// - Returns: whose files they are, as the newest of each folder says; a folder without any readable file is left
  ///   out, and refused or filled when its partition is assigned.
  /// - Throws: `system` if the folder cannot be read.
  static func found(
    in world: StoreWorld, topic: String, fingerprint: UInt64
  ) throws(LogError) -> [LogIdentity] {
    var found: [LogIdentity] = []
    for (name, partition) in try folders(world, topic) {
      guard let topicID = try topicID(world.dataDir + "/" + name, world.files) else { continue }
      found.append(
        LogIdentity(topic: topic, topicID: topicID, partition: partition, fingerprint: fingerprint))
    }
    return found.sorted { $0.partition < $1.partition }
  }

  /// Moves shards' folders out of the way, each to a name of its own.
  ///
  /// - Parameters:
  ///   - world: where.
  ///   - topic: which topic.
  ///   - partition: which shard; all if nil.
  /// - Returns: the new names.
  /// - Throws: `system`.
  static func setAside(
    in world: StoreWorld, topic: String, partition: Int32?
  ) throws(LogError) -> [String] {
    var moved: [String] = []
    let when = world.clock.wall / 1_000_000
    for (name, number) in try folders(world, topic) where partition == nil || number == partition {
      let target = world.dataDir + "/" + name + ".aside-\(when)"
      do throws(SystemError) { try world.files.rename(world.dataDir + "/" + name, to: target) } catch {
        throw .system(error)
      }
      moved.append(target)
    }
    do throws(SystemError) { try world.files.syncFolder(world.dataDir) } catch { throw .system(error) }
    return moved
  }

  private static func folders(
    _ world: StoreWorld, _ topic: String
  ) throws(LogError) -> [(name: String, partition: Int32)] {
    do throws(SystemError) {
      return try world.files.names(in: world.dataDir).compactMap { name in
        guard name.hasPrefix(topic + "-"), let partition = Int32(name.dropFirst(topic.utf8.count + 1)),
          partition >= 0, name == "\(topic)-\(partition)"
        else { return nil }
        return (name, partition)
      }
    } catch { throw .system(error) }
  }

  /// The topic id in the newest file that tells one.
  private static func topicID(_ folder: String, _ files: Files) throws(LogError) -> LogIdentity.TopicID? {
    for name in try LogFolder.segments(in: folder, files: files).reversed() {
      if let header = try? LogFolder.header(of: name, in: folder, files: files) {
        return header.identity.topicID
      }
    }
    let names: [String]
    do throws(SystemError) { names = try files.names(in: folder) } catch { throw .system(error) }
    for (name, _) in SnapshotFormat.newestFirst(names) {
      if let header = try? SnapshotHeader(path: folder + "/" + name, files: files) {
        return header.identity.topicID
      }
    }
    return nil
  }
}
