// When a log writes, syncs, and begins a new segment: decided here, carried out by Log and LogSyncer. No file, thread
// or clock inside.
//
//     given ──taken──> written ──synced──> durable
//       │                 │
//       │                 └─ no room: the same bytes again after `retryInterval`, reported once; more is taken
//       │                    until `pendingBytesMax`, then the giver waits
//       └─ due: `syncBytes` wait, or the oldest has waited `syncInterval`, or somebody waits for it

internal import Posix

/// Limits of a log.
public struct LogLimits: Hashable, Sendable {
  /// A segment is finished once it holds so many bytes (`log.segment_bytes`).
  public var segmentBytes: Int
  /// A segment is finished once it is so old, when the next batch comes.
  public var segmentAge: Duration
  /// Bytes that may wait for the disk before the giver has to.
  public var pendingBytesMax: Int
  /// How long a batch waits for others before it is written and synced.
  public var syncInterval: Duration
  /// Bytes that are written and synced without waiting for more.
  public var syncBytes: Int
  /// How long a full disk is left alone.
  public var retryInterval: Duration

  /// - Parameters:
  ///   - segmentBytes: 64 KiB to 1 GiB.
  ///   - segmentAge: above zero.
  ///   - pendingBytesMax: 1 or more.
  ///   - syncInterval: 0 or more; at most 50 ms keeps commits fresh.
  ///   - syncBytes: 1 or more.
  ///   - retryInterval: above zero.
  public init(
    segmentBytes: Int = 64 << 20, segmentAge: Duration = .seconds(3_600), pendingBytesMax: Int = 64 << 20,
    syncInterval: Duration = .milliseconds(50), syncBytes: Int = 1 << 20,
    retryInterval: Duration = .seconds(1)
  ) {
    precondition((64 << 10...1 << 30).contains(segmentBytes), "segments of \(segmentBytes) bytes")
    precondition(segmentAge > .zero && syncInterval >= .zero && retryInterval > .zero, "a log's intervals")
    precondition(pendingBytesMax >= 1 && syncBytes >= 1, "a log's pending bytes")
    self.segmentBytes = segmentBytes
    self.segmentAge = segmentAge
    self.pendingBytesMax = pendingBytesMax
    self.syncInterval = syncInterval
    self.syncBytes = syncBytes
    self.retryInterval = retryInterval
  }
}

/// What one log has been given, and how far that is on its way.
struct AppendState {
  /// What the disk does.
  enum Disk: Hashable {
    /// Nothing is under way. From here: `writing`, `failed`.
    case idle
    /// What was given up to `upTo` is being written and synced. From here: `idle`, `full`, `failed`.
    case writing(upTo: Int64)
    /// The disk had no room for it; tried again at `retryAt`. From here: `writing`, `failed`.
    case full(upTo: Int64, retryAt: Moment)
    /// Final.
    case failed(LogError)
  }

  /// What a failed write leads to.
  enum Reaction: Hashable {
    /// The disk is full: say so, keep what waits.
    case reportFull
    /// It still is.
    case keep
    /// Say so and take nothing more.
    case fail(LogError)
  }

  let limits: LogLimits
  /// Watermark after the last batch that was given.
  private(set) var watermark: Int64
  /// Everything before it is on the disk.
  private(set) var durable: Int64
  private(set) var disk = Disk.idle
  /// Bytes given and not yet durable; those that were taken for writing among them.
  private(set) var pendingBytes = 0
  private var takenBytes = 0
  /// When the oldest batch came that nobody took yet.
  private var waitingSince: Moment?
  /// Somebody waits for it.
  private var hasUrgent = false
  /// Bytes of the segment under way, its header included; nil: there is none.
  private var segmentBytes: Int?
  private var segmentSince = Moment(nanoseconds: 0)

  init(limits: LogLimits, watermark: Int64) {
    self.limits = limits
    self.watermark = watermark
    durable = watermark
  }

  var failure: LogError? {
    if case .failed(let error) = disk { return error }
    return nil
  }

  /// Whether a segment is under way.
  var hasSegment: Bool { segmentBytes != nil }

  /// Whether more waits than may.
  var isOverfull: Bool { pendingBytes > limits.pendingBytesMax }

  /// Whether a batch that begins now needs a new segment.
  func mustBegin(at now: Moment) -> Bool {
    guard let segmentBytes else { return true }
    return segmentBytes >= limits.segmentBytes || now - segmentSince >= limits.segmentAge
  }

  mutating func segmentBegan(headerBytes: Int, at now: Moment) {
    segmentBytes = headerBytes
    segmentSince = now
  }

  mutating func segmentEnded() { segmentBytes = nil }

  /// A batch was given.
  mutating func gave(bytes: Int, next: Int64, at now: Moment) {
    precondition(next > watermark, "watermark \(next) after \(watermark)")
    guard let before = segmentBytes else { preconditionFailure("a batch was given outside a segment") }
    segmentBytes = before + bytes
    pendingBytes += bytes
    watermark = next
    if waitingSince == nil { waitingSince = now }
  }

  /// The segment under way is to be finished, whether or not bytes wait.
  mutating func endGiven(at now: Moment) {
    if waitingSince == nil { waitingSince = now }
    hasUrgent = true
  }

  /// Somebody waits for all that was given so far.
  mutating func want() {
    if waitingSince != nil { hasUrgent = true }
  }

  /// Whether nothing waits and nothing is under way.
  var isIdle: Bool { disk == .idle && waitingSince == nil }

  /// Takes nothing more.
  mutating func close(_ error: LogError) {
    if failure == nil { disk = .failed(error) }
  }

  /// When there is something to do; nil: not before more is given.
  var due: Moment? {
    switch disk {
    case .idle:
      guard let waitingSince else { return nil }
      if pendingBytes >= limits.syncBytes || hasUrgent { return Moment(nanoseconds: 0) }
      return waitingSince + limits.syncInterval
    case .full(_, let retryAt): return retryAt
    case .writing, .failed: return nil
    }
  }

  /// Takes what is there for writing: what waits, or what found no room before.
  ///
  /// - Returns: whether what waits is to be taken along; false: the same bytes as last time.
  mutating func take() -> Bool {
    switch disk {
    case .idle:
      disk = .writing(upTo: watermark)
      takenBytes = pendingBytes
      waitingSince = nil
      hasUrgent = false
      return true
    case .full(let upTo, _):
      disk = .writing(upTo: upTo)
      return false
    case .writing, .failed: preconditionFailure("bytes were taken while the disk is \(disk)")
    }
  }

  /// All that was taken is written and synced.
  ///
  /// - Returns: the watermark that is durable now.
  mutating func synced() -> Int64 {
    guard case .writing(let upTo) = disk else { preconditionFailure("a sync while the disk is \(disk)") }
    disk = .idle
    durable = upTo
    pendingBytes -= takenBytes
    takenBytes = 0
    return upTo
  }

  /// A write or a sync of what was taken failed.
  ///
  /// - Parameters:
  ///   - error: `syncFailed` is final; `system` with a full disk is not; any other is.
  ///   - wasFull: whether the disk was full already.
  ///   - now: the time.
  /// - Returns: what to do.
  mutating func failed(_ error: LogError, wasFull: Bool, at now: Moment) -> Reaction {
    guard case .writing(let upTo) = disk else { preconditionFailure("a failure while the disk is \(disk)") }
    if case .system(let system) = error, system.errno == .noSpace || system.errno == .quota {
      disk = .full(upTo: upTo, retryAt: now + limits.retryInterval)
      return wasFull ? .keep : .reportFull
    }
    disk = .failed(error)
    return .fail(error)
  }
}
