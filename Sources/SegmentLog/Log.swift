// A shard's log: its thread gives batches, the sync thread takes them to the disk, and says what is durable.
//
//     shard thread   begin ─ batch.event… ─ finish ──┐ copies the bytes, goes on
//     sync thread                                    └─> write, sync ─> observer: durable up to a watermark

public import Posix
internal import Synchronization

/// Where a log goes on: what recovery found, or the start of a new shard.
public struct LogPosition: Hashable, Sendable {
  /// Next Kafka offset that is not in the log.
  public var watermark: Int64
  /// Watermark at which the shard's state was empty.
  public var origin: Int64
  /// `check` of the last batch; 0 if there is none.
  public var checkBefore: UInt32

  /// - Parameters:
  ///   - watermark: `origin` or more.
  ///   - origin: 0 or more.
  ///   - checkBefore: of the last batch on the disk.
  public init(watermark: Int64, origin: Int64, checkBefore: UInt32 = 0) {
    precondition(origin >= 0 && watermark >= origin, "watermark \(watermark), origin \(origin)")
    self.watermark = watermark
    self.origin = origin
    self.checkBefore = checkBefore
  }
}

/// The log of one shard. One thread gives (all functions but `durable` belong to it), the syncer's thread writes.
public final class Log: @unchecked Sendable {
  // Unchecked: `state`, `pending` and `isBusy` are touched under the syncer's mutex; `taken`, `writer`, `outcome` by its thread;
  // the rest by the giving thread.

  public let identity: LogIdentity
  /// The shard's folder.
  public let folder: String
  /// Takes the rows of the batch under way.
  public let batch = BatchEncoder()
  /// Bytes of the batch given last. The giving thread.
  public private(set) var bytesOfLastBatch = 0
  private let limits: LogLimits
  private let syncer: LogSyncer
  private let observer: any LogObserver
  private let origin: Int64
  private var check: UInt32
  private var watermark: Int64
  private let durableMark: Atomic<Int64>

  private var state: AppendState
  private var pending = PendingBytes()
  /// From when bytes are taken until the observer was told.
  private var isBusy = false

  private var taken = PendingBytes()
  private var writer: SegmentWriter
  private var outcome: Result<Void, LogError> = .success(())
  private var wasFull = false
  private var reports: [Report] = []

  private enum Report {
    case durable(Int64)
    case full(String)
    case room
    case failed(LogError)
  }

  /// A log that goes on at a position. A file is made with the first batch; there must be none of that base yet.
  ///
  /// - Parameters:
  ///   - identity: whose log it is.
  ///   - folder: the shard's folder, which is there.
  ///   - position: where it goes on.
  ///   - limits: of the log.
  ///   - files: the file system.
  ///   - syncer: writes and syncs it; must run until `close`.
  ///   - observer: told on the syncer's thread.
  public init(
    identity: LogIdentity, folder: String, position: LogPosition, limits: LogLimits = LogLimits(),
    files: Files = Files(), syncer: LogSyncer, observer: any LogObserver
  ) {
    self.identity = identity
    self.folder = folder
    self.limits = limits
    self.syncer = syncer
    self.observer = observer
    origin = position.origin
    check = position.checkBefore
    watermark = position.watermark
    durableMark = Atomic(position.watermark)
    state = AppendState(limits: limits, watermark: position.watermark)
    writer = SegmentWriter(folder: folder, files: files, segmentBytes: limits.segmentBytes)
    syncer.add(self)
  }

  // MARK: The giving thread

  /// Everything before it is on the disk. Any thread.
  public var durable: Int64 { durableMark.load(ordering: .acquiring) }

  /// Begins a batch at the log's watermark; its rows go to `batch`, then `finish` follows.
  public func begin() {
    beginSegment()
    batch.begin(first: watermark)
  }

  /// Ends the batch and gives it to the sync thread; copies its bytes and does not wait.
  ///
  /// - Parameters:
  ///   - next: watermark after the batch.
  ///   - clockMs: shard clock after it.
  ///   - newestMs: Kafka timestamp of the newest record so far.
  /// - Returns: whether there is room for more; if not, more waits for the disk than may, and `waitForRoom` comes before
  ///   the next batch.
  /// - Throws: what the log failed with; `closed` after `close`.
  public func finish(next: Int64, clockMs: Int64, newestMs: Int64) throws(LogError) -> Bool {
    let header = header(.records, next: next, clockMs: clockMs, newestMs: newestMs)
    var result: Result<Bool, LogError> = .success(true)
    check = batch.finish(header, identity: identity) { result = give($0, next: next) }
    return try result.get()
  }

  /// Notes that the watermark passed offsets that hold no records.
  ///
  /// - Parameters:
  ///   - next: watermark afterwards, above the log's.
  ///   - clockMs: the shard clock.
  ///   - newestMs: Kafka timestamp of the newest record so far.
  /// - Returns: as `finish`.
  /// - Throws: as `finish`.
  public func pass(to next: Int64, clockMs: Int64, newestMs: Int64) throws(LogError) -> Bool {
    try giveEmpty(header(.position, next: next, clockMs: clockMs, newestMs: newestMs))
  }

  /// Notes that an operator accepted the loss of all records up to an offset.
  ///
  /// - Parameters:
  ///   - next: watermark afterwards, above the log's.
  ///   - clockMs: the shard clock.
  ///   - newestMs: Kafka timestamp of the newest record so far.
  /// - Returns: as `finish`.
  /// - Throws: as `finish`.
  public func acceptGap(to next: Int64, clockMs: Int64, newestMs: Int64) throws(LogError) -> Bool {
    try giveEmpty(header(.gap, next: next, clockMs: clockMs, newestMs: newestMs))
  }

  /// Waits until less waits for the disk than may.
  ///
  /// - Throws: what the log failed with.
  public func waitForRoom() throws(LogError) {
    syncer.wait { !state.isOverfull || state.failure != nil }
    try checkFailure()
  }

  /// Has all that was given written and synced, and waits for it.
  ///
  /// - Throws: what the log failed with.
  public func flush() throws(LogError) {
    syncer.locked { state.want() }
    syncer.wait { state.durable >= watermark || state.failure != nil }
    try checkFailure()
  }

  /// Finishes the segment under way, so that it can be sealed; the next batch begins another. Does not wait.
  public func endSegment() {
    syncer.locked {
      guard state.hasSegment, state.failure == nil else { return }
      pending.marks.append((pending.bytes.count, .end))
      state.segmentEnded()
      state.endGiven(at: syncer.clock.now)
    }
  }

  /// Writes and syncs all, finishes the segment, and takes nothing more. The observer is told before this returns.
  ///
  /// - Throws: what the log failed with.
  public func close() throws(LogError) {
    endSegment()
    defer { syncer.remove(self) }
    syncer.locked { state.want() }
    syncer.wait { !isBusy && (state.isIdle || state.failure != nil) }
    let failure = syncer.locked { () -> LogError? in
      let failure = state.failure
      state.close(.closed(path: folder))
      return failure
    }
    if let failure { throw failure }
  }

  private func checkFailure() throws(LogError) {
    if let failure = syncer.quietly({ state.failure }) { throw failure }
  }

  private func beginSegment() {
    let now = syncer.clock.now
    let (must, has) = syncer.quietly { (state.mustBegin(at: now), state.hasSegment) }
    if !must { return }
    // The file is made once all before its base is synced, so the base is the mark.
    let header = SegmentHeader(
      identity: identity, base: watermark, origin: origin, createdMs: syncer.clock.wall / 1_000_000,
      syncedMark: watermark, checkBefore: check)
    check = header.encoded().check
    batch.forgetUsers()
    syncer.quietly {
      if has { pending.marks.append((pending.bytes.count, .end)) }
      pending.marks.append((pending.bytes.count, .begin(header)))
      state.segmentBegan(headerBytes: SegmentFormat.segmentHeaderBytes, at: now)
    }
  }

  private func header(_ kind: BatchKind, next: Int64, clockMs: Int64, newestMs: Int64) -> BatchHeader {
    BatchHeader(
      kind: kind, bodyBytes: 0, first: watermark, next: next, clockMs: clockMs, newestMs: newestMs,
      syncedMark: durable, eventCount: 0, rejectedCount: 0, checkBefore: check, bodyCheck: 0)
  }

  private func giveEmpty(_ header: BatchHeader) throws(LogError) -> Bool {
    beginSegment()
    var header = header
    header.checkBefore = check
    let bytes = UnsafeMutableRawBufferPointer.allocate(
      byteCount: SegmentFormat.batchHeaderBytes, alignment: 8)
    defer { bytes.deallocate() }
    guard let base = bytes.baseAddress else { preconditionFailure("no memory for a batch header") }
    check = header.write(to: base, identity: identity)
    return try give(UnsafeRawBufferPointer(bytes), next: header.next).get()
  }

  private func give(_ bytes: UnsafeRawBufferPointer, next: Int64) -> Result<Bool, LogError> {
    let result = syncer.quietly { () -> (Result<Bool, LogError>, wake: Bool) in
      if let failure = state.failure { return (.failure(failure), false) }
      let dueBefore = state.due
      pending.bytes.bytes(bytes)
      state.gave(bytes: bytes.count, next: next, at: syncer.clock.now)
      return (.success(!state.isOverfull), state.due != dueBefore)
    }
    if result.wake { syncer.locked {} }
    watermark = next
    bytesOfLastBatch = bytes.count
    return result.0
  }

  // MARK: The sync thread

  /// When there is something to do. Under the mutex.
  var due: Moment? { state.due }

  /// Takes what waits. Under the mutex.
  ///
  /// - Returns: whether there is anything to write.
  func take(at now: Moment) -> Bool {
    guard let due = state.due else { return false }
    // Whoever is there when another log is due goes along; a full disk is left alone until its time.
    if case .full = state.disk, due > now { return false }
    isBusy = true
    wasFull = !state.take()
    if !wasFull {
      taken.removeAll()
      swap(&taken, &pending)
    }
    return true
  }

  func write() {
    do throws(LogError) {
      try writer.write(&taken)
      outcome = .success(())
    } catch { outcome = .failure(error) }
  }

  /// Notes what became of it. Under the mutex.
  func settle() {
    switch outcome {
    case .success:
      let watermark = state.synced()
      durableMark.store(watermark, ordering: .releasing)
      if wasFull { reports.append(.room) }
      reports.append(.durable(watermark))
    case .failure(let error):
      switch state.failed(error, wasFull: wasFull, at: syncer.clock.now) {
      case .reportFull:
        if case .system(let system) = error { reports.append(.full(system.subject ?? folder)) }
      case .keep: break
      case .fail(let error): reports.append(.failed(error))
      }
    }
  }

  /// The observer was told. Under the mutex.
  func rest() { isBusy = false }

  func report() {
    for path in writer.finished { observer.log(self, finished: path) }
    writer.finished.removeAll()
    for report in reports {
      switch report {
      case .durable(let watermark): observer.log(self, durable: watermark)
      case .full(let path): observer.log(self, diskFull: path)
      case .room: observer.logHasRoom(self)
      case .failed(let error): observer.log(self, failed: error)
      }
    }
    reports.removeAll(keepingCapacity: true)
  }
}
