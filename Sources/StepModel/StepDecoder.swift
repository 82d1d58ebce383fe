// JSON records to step events, or to the one reason why they are none.
//
// Three roads, one answer:
//   StepScanner    the usual layout, byte for byte as producers write it; at the first surprise it hands over to
//   RecordReader   which reads any record member by member, wrong ones too, and leaves what is rare to
//   RecordJudge    simdjson's DOM over the whole record: what the other two are tested by
// All end in `finish`, which knows limits, time and day. No allocation a record (the judge grows for a record longer
// than all before it); nothing here reads a clock.

/// Decodes the records of one shard. One thread at a time.
public struct StepDecoder: ~Copyable {
  /// Most events between two `reset()`s.
  public static let eventsPerResetMax = 4096

  private let stepsMax: Int64
  private let futureSlack: Int64
  private let acceptLate: Int64
  private var clock: DayClock
  private var dates = DateCache()
  private var judge: RecordJudge
  private var arena: KeyArena

  /// - Parameter settings: those of the cluster.
  public init(settings: ClusterSettings) {
    stepsMax = Int64(settings.stepsMax)
    futureSlack = settings.futureSlack.milliseconds
    acceptLate = settings.acceptLate.milliseconds
    clock = DayClock(settings.dayRule)
    judge = RecordJudge()
    arena = KeyArena(keysMax: StepDecoder.eventsPerResetMax)
  }

  /// Decodes one record.
  ///
  /// A key that is no canonical UUID, and the source, borrow from `payload` or from this decoder: they are valid until
  /// the payload goes, and until `reset()`.
  ///
  /// - Parameters:
  ///   - payload: the record's value; empty for a null one.
  ///   - offset: its Kafka offset.
  ///   - shardClock: greatest Kafka record timestamp of the partition so far, this record's included, in milliseconds.
  ///   - event: filled if the record is accepted; otherwise undefined.
  /// - Returns: nil if accepted, otherwise the first reason of the table that holds (never `overflow`).
  /// - Complexity: O(length of the payload), no allocation.
  public mutating func decode(
    _ payload: UnsafeRawBufferPointer, offset: Int64, shardClock: Int64, into event: inout StepEvent
  ) -> RejectReason? {
    var fields = StepFields()
    guard let base = payload.baseAddress else { return .malformed }
    switch StepScanner.scan(base, base + payload.count, dates: &dates, into: &fields) {
    case .fields: return finish(fields, offset: offset, shardClock: shardClock, into: &event)
    case .unsure: return judged(payload, offset: offset, shardClock: shardClock, into: &event)
    case .rejected(let reason): return reason
    }
  }

  /// Forgets all keys and sources handed out; their memory is used again. Call it once a chunk, when its events are applied.
  public mutating func reset() { arena.reset() }

  /// What the judge alone says: the same as `decode` for every record, slower. For tests and benchmarks.
  ///
  /// - Parameters:
  ///   - payload: as for `decode`.
  ///   - offset: as for `decode`.
  ///   - shardClock: as for `decode`.
  ///   - event: as for `decode`.
  /// - Returns: as `decode`.
  @inline(never)
  public mutating func judged(
    _ payload: UnsafeRawBufferPointer, offset: Int64, shardClock: Int64, into event: inout StepEvent
  ) -> RejectReason? {
    var fields = StepFields()
    let keys = arena.used
    let reason =
      judge.read(payload, arena: &arena, dates: &dates, into: &fields)
      ?? finish(fields, offset: offset, shardClock: shardClock, into: &event)
    if reason != nil { arena.used = keys }
    return reason
  }

  /// Whether a record is decided without the judge. For tests and benchmarks: how much of an input goes the fast roads.
  ///
  /// - Parameter payload: as for `decode`.
  /// - Returns: false if the judge has to decide.
  public mutating func scans(_ payload: UnsafeRawBufferPointer) -> Bool {
    guard let base = payload.baseAddress else { return true }
    var fields = StepFields()
    switch StepScanner.scan(base, base + payload.count, dates: &dates, into: &fields) {
    case .fields, .rejected: return true
    case .unsure: return false
    }
  }

  /// The reasons from `steps` on, in their order; fills the event if none holds.
  @inline(__always)
  private mutating func finish(
    _ fields: StepFields, offset: Int64, shardClock: Int64, into event: inout StepEvent
  ) -> RejectReason? {
    guard fields.steps >= 0, fields.steps <= stepsMax else { return .steps }
    guard fields.timeIsValid else { return .time }
    let place = clock.place(fields.time)
    let nanosecond = Int64(fields.time.nanosecond)
    let (milliseconds, rest) = nanosecond.quotientAndRemainder(dividingBy: 1_000_000)
    // Event times and spans stay far below the range of Int64, a record's timestamp need not: it stands alone.
    let ahead = place.second * 1000 + milliseconds - futureSlack
    if ahead > shardClock || (ahead == shardClock && rest > 0) { return .future }
    if place.dayEnd * 1000 + acceptLate < shardClock { return .late }
    event = StepEvent(
      fields: fields, offset: offset,
      timeOfDay: (place.second - Int64(place.day.number) * 86_400) * 1_000_000_000 + nanosecond,
      day: place.day)
    return nil
  }
}

/// What both roads find in a record that has no reason up to `user`.
struct StepFields {
  var user = UserKey(high: 0, low: 0)
  /// Values outside the range of a setting may be clamped, never into it.
  var steps: Int64 = 0
  var time = EventTime(date: Day(number: 0), second: 0, nanosecond: 0, rawOffset: 0)
  /// False if the timestamp's reason is `time`.
  var timeIsValid = false
  /// nil if there is none; not nil, and no bytes, for an empty one.
  var source: UnsafePointer<UInt8>?
  /// The source's length, and whether a member has none of the four known names.
  var extras = RecordExtras()

  /// Takes the bytes of a source that is there.
  @inline(__always)
  mutating func setSource(_ text: UnsafeRawPointer, count: Int) {
    source = text.assumingMemoryBound(to: UInt8.self)
    extras.sourceLength = count
  }
}

/// Bytes of user ids and sources that cannot be borrowed from a payload.
struct KeyArena: ~Copyable {
  private let base: UnsafeMutableRawPointer
  private let capacity: Int
  /// Bytes in use; may be set back.
  var used = 0

  init(keysMax: Int) {
    // One more for a record that is rejected after its key was made.
    capacity = (keysMax + 1) * (UserID.bytesMax + StepEvent.sourceBytesMax)
    base = .allocate(byteCount: capacity, alignment: 8)
  }

  deinit { base.deallocate() }

  mutating func reset() { used = 0 }

  /// Copies a valid user id or source.
  ///
  /// - Returns: the copy, valid until `reset()`.
  mutating func copy(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    precondition(
      bytes.count <= capacity - used,
      "over \(StepDecoder.eventsPerResetMax) events decoded without reset()")
    let place = base + used
    place.copyMemory(from: bytes.baseAddress ?? UnsafeRawPointer(base), byteCount: bytes.count)
    used += bytes.count
    return UnsafeRawBufferPointer(start: place, count: bytes.count)
  }
}
