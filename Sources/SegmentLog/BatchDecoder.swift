// The body of a batch back into records. Total: any bytes give a batch or an error, and memory is taken only for what
// the bytes really hold.

internal import Bytes
public import StepModel

/// Reads the batches of one segment in order. One thread; what it lends is valid until the next batch is read.
public final class BatchDecoder {
  private var users = UserDictionary()
  private var literals = Numbers<UserKey>()
  private var sources = Numbers<UnsafeRawBufferPointer>()
  private var events = Numbers<StepEvent>()
  private var timestamps = Numbers<Int64>()
  private var kept = Numbers<KeptPayload>()
  private var rejections = Numbers<RejectedRecord>()

  public init() {}

  /// Forgets the users of a segment; call it before the first batch of the next.
  public func reset() { users.removeAll() }

  /// Reads one batch, whose header and checksums were judged before.
  ///
  /// - Parameters:
  ///   - header: the batch's header.
  ///   - body: the bytes behind it.
  ///   - path: the file, for the error.
  ///   - atByte: where the header lies in it, for the error.
  /// - Returns: the batch; its events and payloads borrow from `body` and from this decoder.
  /// - Throws: `damaged` if the content makes no sense, `newer` if it holds a kind of row that is not known.
  /// - Complexity: O(rows), no allocation once the memory has grown.
  public func decode(
    _ header: BatchHeader, body: UnsafeRawBufferPointer, path: String, atByte: Int
  ) throws(LogError) -> DecodedBatch {
    events.count = 0
    timestamps.count = 0
    kept.count = 0
    rejections.count = 0
    literals.count = 0
    sources.count = 0
    if header.kind == .records {
      do throws(BodyFault) {
        try read(header, body)
      } catch {
        switch error {
        case .content(let fault): throw LogError.damaged(path: path, atByte: atByte, .content(fault))
        case .rowKind(let kind):
          throw LogError.newer(path: path, atByte: atByte, what: .rowKind, found: kind, known: 0)
        case .reason(let reason):
          throw LogError.newer(
            path: path, atByte: atByte, what: .reason, found: reason,
            known: Int(RejectReason.overflow.rawValue))
        }
      }
    }
    return DecodedBatch(
      header: header, events: UnsafeBufferPointer(start: events.values, count: events.count),
      timestampsMs: UnsafeBufferPointer(start: timestamps.values, count: timestamps.count),
      kept: UnsafeBufferPointer(start: kept.values, count: kept.count),
      rejected: UnsafeBufferPointer(start: rejections.values, count: rejections.count))
  }

  private func read(_ header: BatchHeader, _ body: UnsafeRawBufferPointer) throws(BodyFault) {
    var reader = ByteReader(body)
    try readUsers(&reader)
    try readSources(&reader)
    try readLiterals(&reader)
    if header.eventCount > 0 { try readEvents(header, &reader) }
    try readKept(header, &reader)
    if header.rejectedCount > 0 { try readRejected(header, &reader) }
    if reader.left != 0 { throw .content(.length) }
    if header.rejectedCount > 0 { try checkApart() }
  }

  /// The count of a list of which each entry takes at least some bits of what is left.
  private func count(_ reader: inout ByteReader, max: Int) throws(BodyFault) -> Int {
    guard let count = try? reader.integer(UInt32.self), Int(count) <= max else { throw .content(.length) }
    return Int(count)
  }

  private func column(_ reader: inout ByteReader, _ count: Int) throws(BodyFault) -> ColumnView {
    guard let view = ColumnView(&reader, count: count) else { throw .content(.length) }
    return view
  }

  private func bytes(_ reader: inout ByteReader, _ count: Int) throws(BodyFault) -> UnsafeRawBufferPointer {
    guard let bytes = try? reader.bytes(count) else { throw .content(.length) }
    return bytes
  }

  private func readUsers(_ reader: inout ByteReader) throws(BodyFault) {
    let count = try count(&reader, max: SegmentFormat.batchRowsMax)
    if count == 0 { return }
    let numbers = try column(&reader, count)
    let codes = try column(&reader, count)
    for i in 0..<count {
      let key = try readID(&reader, codes[i])
      guard let number = UInt32(exactly: numbers[i]), number != BatchEncoder.noNumber else {
        throw .content(.value)
      }
      if !users.define(number, key) { throw .content(.user) }
    }
  }

  private func readID(_ reader: inout ByteReader, _ code: Int64) throws(BodyFault) -> UserKey {
    if code == 0 {
      let raw = try bytes(&reader, 16)
      return UserKey(
        high: UInt64(bigEndian: raw.loadUnaligned(as: UInt64.self)),
        low: UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }
    guard (1...Int64(UserID.bytesMax)).contains(code) else { throw .content(.value) }
    let text = try bytes(&reader, Int(code))
    guard UTF8Check.isValid(text), UserID.isValid(text) else { throw .content(.userID) }
    let key = UserKey(text)
    // A canonical UUID has one form here: 16 bytes.
    if key.text == nil { throw .content(.userID) }
    return key
  }

  private func readSources(_ reader: inout ByteReader) throws(BodyFault) {
    let count = try count(&reader, max: SegmentFormat.batchRowsMax)
    if count == 0 { return }
    let lengths = try column(&reader, count)
    for i in 0..<count {
      guard (0...Int64(StepEvent.sourceBytesMax)).contains(lengths[i]) else { throw .content(.value) }
      let text = try bytes(&reader, Int(lengths[i]))
      guard UTF8Check.isValid(text) else { throw .content(.value) }
      sources.append(text)
    }
  }

  private func readLiterals(_ reader: inout ByteReader) throws(BodyFault) {
    let count = try count(&reader, max: SegmentFormat.batchRowsMax)
    if count == 0 { return }
    let codes = try column(&reader, count)
    for i in 0..<count { literals.append(try readID(&reader, codes[i])) }
  }

  private func readEvents(_ header: BatchHeader, _ reader: inout ByteReader) throws(BodyFault) {
    let count = header.eventCount
    let kinds = try column(&reader, count)
    for i in 0..<(kinds.width == 0 ? 1 : count) where kinds[i] != 0 {
      throw .rowKind(Int(truncatingIfNeeded: kinds[i]))
    }
    let skips = try column(&reader, count)
    let times = try column(&reader, count)
    let refs = try column(&reader, count)
    let steps = try column(&reader, count)
    let days = try column(&reader, count)
    guard let unit = try? reader.integer(UInt8.self), let unit = TimeUnit(rawValue: unit) else {
      throw .content(.value)
    }
    let timesOfDay = try column(&reader, count)
    let sourceRefs = try column(&reader, count)
    var literalNext = 0
    var offsetLast = header.first - 1
    for i in 0..<count {
      let offset = header.first &+ skips[i] &+ Int64(i)
      guard offset > offsetLast, offset < header.next else { throw .content(.order) }
      offsetLast = offset
      guard let ref = UInt32(exactly: refs[i]), let stepCount = UInt32(exactly: steps[i]),
        let day = Int32(exactly: days[i]), let sourceRef = Int(exactly: sourceRefs[i]), sourceRef >= 0,
        sourceRef <= sources.count
      else { throw .content(.value) }
      let (time, overflow) = timesOfDay[i].multipliedReportingOverflow(by: unit.nanoseconds)
      if overflow { throw .content(.value) }
      var key: UserKey
      if ref == 0 {
        guard literalNext < literals.count else { throw .content(.user) }
        key = literals.values[literalNext]
        literalNext += 1
      } else {
        guard let known = users[ref - 1] else { throw .content(.user) }
        key = known
      }
      events.append(
        StepEvent(
          user: key, offset: offset, timeOfDay: time, steps: stepCount, day: Day(number: day),
          source: sourceRef == 0 ? nil : sources.values[sourceRef - 1]))
      timestamps.append(times[i])
    }
    if literalNext != literals.count { throw .content(.user) }
  }

  private func readKept(_ header: BatchHeader, _ reader: inout ByteReader) throws(BodyFault) {
    let count = try count(&reader, max: header.eventCount)
    if count == 0 { return }
    let indices = try column(&reader, count)
    let lengths = try column(&reader, count)
    var last: Int64 = -1
    for i in 0..<count {
      guard indices[i] > last, indices[i] < Int64(header.eventCount) else { throw .content(.order) }
      guard (1...Int64(SegmentFormat.bodyBytesMax)).contains(lengths[i]) else { throw .content(.value) }
      last = indices[i]
      let payload = try bytes(&reader, Int(lengths[i]))
      kept.append(KeptPayload(index: Int(last), bytes: payload))
      // In two steps: the compiler's thread sanitizer (6.0.3) does not get through a change in place.
      var event = events.values[Int(last)]
      event.hasUnknownFields = true
      events.values[Int(last)] = event
    }
  }

  private func readRejected(_ header: BatchHeader, _ reader: inout ByteReader) throws(BodyFault) {
    let count = header.rejectedCount
    let offsets = try column(&reader, count)
    let times = try column(&reader, count)
    let reasons = try column(&reader, count)
    let codes = try column(&reader, count)
    var offsetLast = header.first - 1
    for i in 0..<count {
      let offset = header.first &+ offsets[i]
      guard offset > offsetLast, offset < header.next else { throw .content(.order) }
      offsetLast = offset
      guard let raw = UInt8(exactly: reasons[i]), let reason = RejectReason(rawValue: raw) else {
        throw .reason(Int(truncatingIfNeeded: reasons[i]))
      }
      guard (0...Int64(SegmentFormat.bodyBytesMax)).contains(codes[i]) else { throw .content(.value) }
      let payload = codes[i] == 0 ? nil : try bytes(&reader, Int(codes[i]) - 1)
      rejections.append(
        RejectedRecord(offset: offset, timestampMs: times[i], reason: reason, payload: payload))
    }
  }

  /// No offset is an event and rejected as well.
  private func checkApart() throws(BodyFault) {
    var event = 0
    for i in 0..<rejections.count {
      let offset = rejections.values[i].offset
      while event < events.count, events.values[event].offset < offset { event += 1 }
      if event < events.count, events.values[event].offset == offset { throw .content(.order) }
    }
  }
}

/// Why a body is not read.
private enum BodyFault: Error {
  case content(ContentFault)
  case rowKind(Int)
  case reason(Int)
}

/// The bytes of an event that has unknown fields.
public struct KeptPayload: BitwiseCopyable {
  /// Which event of the batch.
  public let index: Int
  public let bytes: UnsafeRawBufferPointer
}

/// A record that was not counted.
public struct RejectedRecord: BitwiseCopyable {
  public let offset: Int64
  /// Kafka timestamp, milliseconds since 1970.
  public let timestampMs: Int64
  public let reason: RejectReason
  /// Byte for byte; nil for a null payload.
  public let payload: UnsafeRawBufferPointer?
}

/// One batch, borrowed from its decoder: valid until that reads the next, or goes.
public struct DecodedBatch {
  public let header: BatchHeader
  /// In the order of their offsets.
  public private(set) var events: UnsafeBufferPointer<StepEvent>
  /// Kafka timestamps of `events`, milliseconds since 1970.
  public private(set) var timestampsMs: UnsafeBufferPointer<Int64>
  /// Payloads of those events that have unknown fields, `index` rising.
  public private(set) var kept: UnsafeBufferPointer<KeptPayload>
  /// In the order of their offsets.
  public private(set) var rejected: UnsafeBufferPointer<RejectedRecord>
  /// Index of the first event in the batch as it was written; `kept` counts from there.
  public private(set) var eventsDropped = 0

  init(
    header: BatchHeader, events: UnsafeBufferPointer<StepEvent>, timestampsMs: UnsafeBufferPointer<Int64>,
    kept: UnsafeBufferPointer<KeptPayload>, rejected: UnsafeBufferPointer<RejectedRecord>
  ) {
    self.header = header
    self.events = events
    self.timestampsMs = timestampsMs
    self.kept = kept
    self.rejected = rejected
  }

  /// The batch without what lies before a watermark.
  ///
  /// - Parameter watermark: of a state that reflects a part of the batch.
  /// - Returns: the rows from there on.
  public func from(_ watermark: Int64) -> DecodedBatch {
    var rest = self
    if watermark <= header.first { return rest }
    let eventsBefore = events.firstIndex { $0.offset >= watermark } ?? events.count
    rest.events = UnsafeBufferPointer(rebasing: events[eventsBefore...])
    rest.timestampsMs = UnsafeBufferPointer(rebasing: timestampsMs[eventsBefore...])
    rest.eventsDropped = eventsDropped + eventsBefore
    let keptBefore = kept.firstIndex { $0.index >= rest.eventsDropped } ?? kept.count
    rest.kept = UnsafeBufferPointer(rebasing: kept[keptBefore...])
    let rejectedBefore = rejected.firstIndex { $0.offset >= watermark } ?? rejected.count
    rest.rejected = UnsafeBufferPointer(rebasing: rejected[rejectedBefore...])
    return rest
  }

  /// One row of a batch.
  public enum Row {
    /// A counted event with its Kafka timestamp, and its bytes if they were kept.
    case event(StepEvent, timestampMs: Int64, payload: UnsafeRawBufferPointer?)
    case rejected(RejectedRecord)
  }

  /// Calls a body for every row in the order of the offsets.
  ///
  /// - Parameter body: is lent the row.
  /// - Throws: what `body` throws.
  public func forEachRow<E: Error>(_ body: (Row) throws(E) -> Void) throws(E) {
    var rejection = 0
    var keptNext = 0
    for i in events.indices {
      while rejection < rejected.count, rejected[rejection].offset < events[i].offset {
        try body(.rejected(rejected[rejection]))
        rejection += 1
      }
      var payload: UnsafeRawBufferPointer?
      if keptNext < kept.count, kept[keptNext].index == i + eventsDropped {
        payload = kept[keptNext].bytes
        keptNext += 1
      }
      try body(.event(events[i], timestampMs: timestampsMs[i], payload: payload))
    }
    while rejection < rejected.count {
      try body(.rejected(rejected[rejection]))
      rejection += 1
    }
  }
}
