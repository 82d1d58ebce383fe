// Why a user has the total that they have: the events that made it, one by one, and what was not counted. Pure: rows of
// the log go in, in any number of partitions, an account comes out.

internal import Glibc
internal import SegmentLog
public import StepModel

/// A user's account on one board. Give it the rows of each partition in the order of their offsets.
public struct Explanation: Sendable {
  /// A report that was counted.
  public struct Event: Equatable, Sendable {
    public let partition: Int32
    public let offset: Int64
    /// Kafka timestamp, milliseconds since 1970.
    public let timestampMs: Int64
    public let day: Day
    /// Nanoseconds after midnight UTC of the day's date.
    public let timeOfDay: Int64
    public let steps: UInt32
    /// What the record says of its source; nil if nothing.
    public let source: String?
    /// The user's total on the board after this event.
    public fileprivate(set) var total: UInt64
    /// Where reports are running totals: another report decides this one's day.
    public fileprivate(set) var isSuperseded: Bool
  }

  /// A record that names the user and was not counted.
  public struct Rejected: Equatable, Sendable {
    public let partition: Int32
    public let offset: Int64
    /// Kafka timestamp, milliseconds since 1970.
    public let timestampMs: Int64
    public let reason: RejectReason
    /// The record's bytes.
    public let record: [UInt8]
  }

  public let user: UserID
  public let board: BoardID
  public let mode: StepsMode
  /// By partition, then in the order of the offsets.
  public private(set) var events: [Event] = []
  /// By partition, then in the order of the offsets.
  public var rejected: [Rejected] {
    rejections.values.sorted { ($0.partition, $0.offset) < ($1.partition, $1.offset) }
  }
  /// The total that the events make: what RANK says of the user, if the log holds all of them.
  public private(set) var total: UInt64 = 0

  private struct Place: Hashable {
    let partition: Int32
    let offset: Int64
  }

  private struct Daily: Hashable {
    let partition: Int32
    let day: Day
  }

  /// Where reports are running totals, the event that decides a partition's day.
  private var deciding: [Daily: Int] = [:]
  private var rejections: [Place: Rejected] = [:]
  private let days: Range<Day>?

  /// - Parameters:
  ///   - user: whose account.
  ///   - board: of which board.
  ///   - mode: how reports make a total; that of the settings under which the log was written.
  public init(user: UserID, board: BoardID, mode: StepsMode) {
    self.user = user
    self.board = board
    self.mode = mode
    days = board.days
  }

  /// Takes all that a shard's log says of the user.
  ///
  /// - Parameter shard: of a partition that was not read yet.
  /// - Returns: how far the log reaches; nil if nothing of it can be read.
  /// - Throws: `InspectionError` if a file cannot be read at all.
  public mutating func read(_ shard: ShardLog) throws(InspectionError) -> ShardLog.Reach? {
    let user = user
    var account = self
    let result: Result<ShardLog.Reach?, InspectionError> = user.withKey { key in
      Result { () throws(InspectionError) in
        try shard.walk { batch in
          account.take(batch, of: key, shard.partition)
          return true
        }
      }
    }
    self = account
    return try result.get()
  }

  private mutating func take(_ batch: DecodedBatch, of key: UserKey, _ partition: Int32) {
    for index in batch.events.indices where Explanation.isSame(batch.events[index].user, key) {
      add(batch.events[index], partition: partition, timestampMs: batch.timestampsMs[index])
    }
    for record in batch.rejected {
      addRejected(
        record.payload, partition: partition, offset: record.offset, timestampMs: record.timestampMs,
        reason: record.reason)
    }
  }

  private static func isSame(_ a: UserKey, _ b: UserKey) -> Bool {
    guard let text = a.text, let other = b.text else {
      return a.text == nil && b.text == nil && a.high == b.high && a.low == b.low
    }
    return a.length == b.length && memcmp(text, other, a.length) == 0
  }

  /// Takes an event of the user; one of another period is left out.
  ///
  /// - Parameters:
  ///   - event: counted, and of this user.
  ///   - partition: its partition.
  ///   - timestampMs: its Kafka timestamp.
  public mutating func add(_ event: StepEvent, partition: Int32, timestampMs: Int64) {
    if let days, !days.contains(event.day) { return }
    let source = event.source.map { String(decoding: $0, as: UTF8.self) }
    var row = Event(
      partition: partition, offset: event.offset, timestampMs: timestampMs, day: event.day,
      timeOfDay: event.timeOfDay, steps: event.steps, source: source, total: 0, isSuperseded: false)
    switch mode {
    case .increment: total += UInt64(event.steps)
    case .totalNewest, .totalMax:
      let daily = Daily(partition: partition, day: event.day)
      if let index = deciding[daily], !decides(row, over: events[index]) {
        row.isSuperseded = true
      } else {
        if let index = deciding[daily] {
          events[index].isSuperseded = true
          total -= UInt64(events[index].steps)
        }
        total += UInt64(event.steps)
        deciding[daily] = events.count
      }
    }
    row.total = total
    events.append(row)
  }

  private func decides(_ new: Event, over old: Event) -> Bool {
    mode == .totalMax ? new.steps >= old.steps : (new.timeOfDay, new.offset) >= (old.timeOfDay, old.offset)
  }

  /// Takes a record that was not counted, if it names the user. The same record from two places is one.
  ///
  /// - Parameters:
  ///   - record: its bytes; nil for a null value, which names nobody.
  ///   - partition: its partition.
  ///   - offset: its Kafka offset.
  ///   - timestampMs: its Kafka timestamp.
  ///   - reason: why it was not counted.
  public mutating func addRejected(
    _ record: UnsafeRawBufferPointer?, partition: Int32, offset: Int64, timestampMs: Int64,
    reason: RejectReason
  ) {
    guard let record, RecordUser.all(in: record).contains(user) else { return }
    rejections[Place(partition: partition, offset: offset)] = Rejected(
      partition: partition, offset: offset, timestampMs: timestampMs, reason: reason, record: Array(record))
  }
}
