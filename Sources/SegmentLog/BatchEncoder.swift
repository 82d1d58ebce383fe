// A shard's records as the body of a batch, column by column.
//
//   body  = users; sources; literals; events, if there are any; kept payloads; rejected records, if there are any
//
//   users    u32 count; if not 0: column of numbers, column of id codes, the ids' bytes
//   sources  u32 count; if not 0: column of lengths, their bytes
//   literals u32 count; if not 0: column of id codes, the ids' bytes
//   events   columns of row kind, offset, Kafka timestamp, user, steps, day; u8 unit of time; columns of time, source
//   kept     u32 count; if not 0: column of event indices, column of lengths, the payloads' bytes
//   rejected columns of offset, Kafka timestamp, reason, length code; the payloads' bytes
//
// A user's id is written when its number first occurs in the segment; later events carry the number alone.
// Protocol/segment.md tells what each column holds.

internal import Bytes
public import StepModel

/// Collects one batch and writes it. Owned by one thread; reused from batch to batch without allocation once its
/// memory has grown to the batches' size.
public final class BatchEncoder {
  /// The number of a user that has none: the id is written with the event.
  public static let noNumber = UInt32.max
  /// Payload bytes from which on a batch should be finished.
  static let payloadBytesFull = 4 << 20

  private var columns = EventColumns()
  private var users: IDList
  private var userNumbers = Numbers<UInt32>()
  private var literals: IDList
  private var sources = SourceTable()
  private var keptIndices = Numbers<UInt32>()
  private var keptLengths = Numbers<UInt32>()
  private var kept: ByteWriter
  private var rejectedOffsets = Numbers<Int64>()
  private var rejectedTimes = Numbers<Int64>()
  private var rejectedReasons = Numbers<UInt8>()
  private var rejectedCodes = Numbers<Int64>()
  private var rejectedPayloads: ByteWriter
  private var seen = UserBits()
  private var out: ByteWriter

  private var first: Int64 = 0
  private var offsetLast: Int64 = -1
  private var isOpen = false

  public init() {
    users = IDList()
    literals = IDList()
    kept = ByteWriter(limit: SegmentFormat.bodyBytesMax)
    rejectedPayloads = ByteWriter(limit: SegmentFormat.bodyBytesMax)
    out = ByteWriter(limit: SegmentFormat.bodyBytesMax + SegmentFormat.batchHeaderBytes, reserved: 64 << 10)
  }

  /// Events and rejected records of the batch so far.
  public var rows: Int { columns.count + rejectedOffsets.count }

  /// Whether the batch should be finished before more comes: it holds 65,536 rows, or 4 MiB of payloads.
  public var isFull: Bool {
    rows >= SegmentFormat.batchRowsMax || kept.count + rejectedPayloads.count >= BatchEncoder.payloadBytesFull
  }

  /// Begins a batch.
  ///
  /// - Parameter first: watermark before it, 0 or more.
  public func begin(first: Int64) {
    precondition(!isOpen, "a batch was begun while another is open")
    isOpen = true
    self.first = first
    offsetLast = first - 1
    columns.count = 0
    users.removeAll()
    userNumbers.count = 0
    literals.removeAll()
    sources.removeAll()
    keptIndices.count = 0
    keptLengths.count = 0
    kept.removeAll()
    rejectedOffsets.count = 0
    rejectedTimes.count = 0
    rejectedReasons.count = 0
    rejectedCodes.count = 0
    rejectedPayloads.removeAll()
  }

  /// Adds an event. Offsets rise from call to call, those of rejected records included.
  ///
  /// - Parameters:
  ///   - event: as decoded; its id, if the number is new to the segment, and its source are copied.
  ///   - number: the shard's number of the user, counted from 0 in the order of first appearance; `noNumber` if it
  ///     has none.
  ///   - timestampMs: the record's Kafka timestamp.
  ///   - payload: the record's bytes; copied if the event has unknown fields.
  /// - Complexity: O(1), no allocation.
  public func event(
    _ event: StepEvent, number: UInt32, timestampMs: Int64, payload: UnsafeRawBufferPointer
  ) {
    precondition(
      event.offset > offsetLast && rows < SegmentFormat.batchRowsMax, "offset \(event.offset) in a batch")
    offsetLast = event.offset
    if number == BatchEncoder.noNumber {
      literals.append(event.user)
    } else if seen.insert(number) {
      userNumbers.append(number)
      users.append(event.user)
    }
    if event.hasUnknownFields && payload.count > 0 {
      keptIndices.append(UInt32(truncatingIfNeeded: columns.count))
      keptLengths.append(UInt32(truncatingIfNeeded: payload.count))
      kept.bytes(payload)
    }
    let source: UInt32 = if let source = event.source { sources.index(of: source) } else { 0 }
    columns.append(
      skip: event.offset &- first &- Int64(columns.count), timestamp: timestampMs, user: number &+ 1,
      steps: event.steps, day: event.day.number, time: event.timeOfDay, source: source)
  }

  /// Adds a record that was not counted, byte for byte.
  ///
  /// - Parameters:
  ///   - offset: the record's Kafka offset.
  ///   - timestampMs: the record's Kafka timestamp.
  ///   - reason: why.
  ///   - payload: its bytes, copied; without an address for a null payload.
  public func rejected(
    offset: Int64, timestampMs: Int64, reason: RejectReason, payload: UnsafeRawBufferPointer
  ) {
    precondition(offset > offsetLast && rows < SegmentFormat.batchRowsMax, "offset \(offset) in a batch")
    offsetLast = offset
    rejectedOffsets.append(offset &- first)
    rejectedTimes.append(timestampMs)
    rejectedReasons.append(reason.rawValue)
    rejectedCodes.append(payload.baseAddress == nil ? 0 : Int64(payload.count) + 1)
    rejectedPayloads.bytes(payload)
  }

  /// Ends the batch and lends its bytes, header included.
  ///
  /// - Parameters:
  ///   - header: first, next, clock, newest, marks and the check before are taken; the rest is filled in.
  ///   - identity: whose batch it is.
  ///   - body: is lent the bytes.
  /// - Returns: the batch's check.
  func finish(
    _ header: BatchHeader, identity: LogIdentity, _ body: (UnsafeRawBufferPointer) -> Void
  ) -> UInt32 {
    precondition(isOpen && rows > 0, "a batch is finished that is not open, or empty")
    precondition(header.first == first && header.next > offsetLast, "next \(header.next) in a batch")
    isOpen = false
    out.removeAll()
    _ = out.extend(by: SegmentFormat.batchHeaderBytes)
    writeBody()
    precondition(!out.overflowed, "a batch of over \(SegmentFormat.bodyBytesMax) bytes")
    let bytes = out.unsafeBytes
    var header = header
    header.kind = .records
    header.bodyBytes = bytes.count - SegmentFormat.batchHeaderBytes
    header.eventCount = columns.count
    header.rejectedCount = rejectedOffsets.count
    header.bodyCheck = Checksum.crc32c(
      UnsafeRawBufferPointer(rebasing: bytes[SegmentFormat.batchHeaderBytes...]))
    let check = header.write(to: UnsafeMutableRawPointer(mutating: bytes.baseAddress!), identity: identity)
    body(bytes)
    return check
  }

  /// Forgets which users the segment knows: a new one begins. Call it between batches.
  public func forgetUsers() {
    precondition(!isOpen, "a segment began within a batch")
    seen.removeAll()
  }

  private func writeBody() {
    out.integer(UInt32(truncatingIfNeeded: userNumbers.count))
    if userNumbers.count > 0 {
      userNumbers.write(into: &out)
      users.write(into: &out)
    }
    sources.write(into: &out)
    out.integer(UInt32(truncatingIfNeeded: literals.count))
    if literals.count > 0 { literals.write(into: &out) }
    if columns.count > 0 { columns.write(into: &out) }
    out.integer(UInt32(truncatingIfNeeded: keptIndices.count))
    if keptIndices.count > 0 {
      keptIndices.write(into: &out)
      keptLengths.write(into: &out)
      out.bytes(kept.unsafeBytes)
    }
    if rejectedOffsets.count > 0 {
      rejectedOffsets.write(into: &out)
      rejectedTimes.write(into: &out)
      rejectedReasons.write(into: &out)
      rejectedCodes.write(into: &out)
      out.bytes(rejectedPayloads.unsafeBytes)
    }
  }
}

/// Which user numbers have occurred, a bit each.
struct UserBits: ~Copyable {
  private var words = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
  private var wordCount = 1

  init() { words[0] = 0 }

  deinit { words.deallocate() }

  /// Marks a number.
  ///
  /// - Returns: whether it is new.
  @inline(__always)
  mutating func insert(_ number: UInt32) -> Bool {
    let word = Int(number &>> 6)
    if word >= wordCount { grow(to: word + 1) }
    let bit: UInt64 = 1 &<< UInt64(number & 63)
    if words[word] & bit != 0 { return false }
    words[word] |= bit
    return true
  }

  mutating func removeAll() { words.update(repeating: 0, count: wordCount) }

  @inline(never)
  private mutating func grow(to count: Int) {
    let larger = max(count, wordCount * 2)
    let new = UnsafeMutablePointer<UInt64>.allocate(capacity: larger)
    new.update(from: words, count: wordCount)
    (new + wordCount).update(repeating: 0, count: larger - wordCount)
    words.deallocate()
    words = new
    wordCount = larger
  }
}
