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

/// Events that lie side by side, in the order of their offsets: what one call gives to a batch. Borrows everything.
@frozen public struct EventRun: BitwiseCopyable {
  public var events: UnsafePointer<StepEvent>
  /// The shard's number of each event's user, counted from 0 in the order of first appearance; `noNumber` if it has
  /// none.
  public var numbers: UnsafePointer<UInt32>
  /// Kafka timestamps.
  public var timestampsMs: UnsafePointer<Int64>
  /// The records' bytes; only those of events with unknown fields are looked at.
  public var payloads: UnsafePointer<UnsafeRawBufferPointer>
  public var count: Int

  /// - Parameters:
  ///   - events: as decoded; offsets rise.
  ///   - numbers: of their users.
  ///   - timestampsMs: of their records.
  ///   - payloads: of their records.
  ///   - count: how many there are of each.
  public init(
    events: UnsafePointer<StepEvent>, numbers: UnsafePointer<UInt32>, timestampsMs: UnsafePointer<Int64>,
    payloads: UnsafePointer<UnsafeRawBufferPointer>, count: Int
  ) {
    self.events = events
    self.numbers = numbers
    self.timestampsMs = timestampsMs
    self.payloads = payloads
    self.count = count
  }
}

/// Collects one batch and writes it. Owned by one thread; reused from batch to batch without allocation once its
/// memory has grown to the batches' size.
public final class BatchEncoder {
  /// The number of a user that has none: the id is written with the event.
  public static let noNumber = UInt32.max

  // One value, so that a call asks once for the access to it, not once a field and event.
  private var content = BatchRows()
  private var out: ByteWriter
  private var isOpen = false

  public init() {
    out = ByteWriter(limit: SegmentFormat.bodyBytesMax + SegmentFormat.batchHeaderBytes, reserved: 64 << 10)
  }

  /// Events and rejected records of the batch so far.
  public var rows: Int { content.count }

  /// Whether the batch should be finished before more comes: it holds 65,536 rows, or 4 MiB of payloads.
  public var isFull: Bool { content.isFull }

  /// Begins a batch.
  ///
  /// - Parameter first: watermark before it, 0 or more.
  public func begin(first: Int64) {
    precondition(!isOpen, "a batch was begun while another is open")
    isOpen = true
    content.begin(first: first)
  }

  /// Adds events until the batch is full. Offsets rise from call to call, those of rejected records included. Ids whose
  /// numbers are new to the segment, sources, and payloads of events with unknown fields are copied.
  ///
  /// - Parameter run: the events, 1 or more.
  /// - Returns: how many of them were taken, from the first on; none only if the batch was full already.
  /// - Complexity: O(events), no allocation; about 4 ns each.
  public func events(_ run: EventRun) -> Int { content.append(run) }

  /// Adds one event; as `events` otherwise.
  ///
  /// - Parameters:
  ///   - event: as decoded.
  ///   - number: of its user, as in a run.
  ///   - timestampMs: the record's Kafka timestamp.
  ///   - payload: the record's bytes.
  public func event(
    _ event: StepEvent, number: UInt32, timestampMs: Int64, payload: UnsafeRawBufferPointer
  ) {
    precondition(rows < SegmentFormat.batchRowsMax, "offset \(event.offset) in a batch of \(rows) rows")
    withUnsafePointer(to: event) { event in
      withUnsafePointer(to: number) { number in
        withUnsafePointer(to: timestampMs) { timestampMs in
          withUnsafePointer(to: payload) { payload in
            let run = EventRun(
              events: event, numbers: number, timestampsMs: timestampMs, payloads: payload, count: 1)
            _ = content.append(run)
          }
        }
      }
    }
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
    content.rejected(offset: offset, timestampMs: timestampMs, reason: reason, payload: payload)
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
    precondition(
      header.first == content.first && header.next > content.offsetLast, "next \(header.next) in a batch")
    isOpen = false
    out.removeAll()
    _ = out.extend(by: SegmentFormat.batchHeaderBytes)
    content.write(into: &out)
    precondition(!out.overflowed, "a batch of over \(SegmentFormat.bodyBytesMax) bytes")
    let bytes = out.unsafeBytes
    var header = header
    header.kind = .records
    header.bodyBytes = bytes.count - SegmentFormat.batchHeaderBytes
    header.eventCount = content.columns.count
    header.rejectedCount = content.rejectedOffsets.count
    header.bodyCheck = Checksum.crc32c(
      UnsafeRawBufferPointer(rebasing: bytes[SegmentFormat.batchHeaderBytes...]))
    let check = header.write(to: UnsafeMutableRawPointer(mutating: bytes.baseAddress!), identity: identity)
    body(bytes)
    return check
  }

  /// Forgets which users the segment knows: a new one begins. Call it between batches.
  public func forgetUsers() {
    precondition(!isOpen, "a segment began within a batch")
    content.seen.removeAll()
  }
}
