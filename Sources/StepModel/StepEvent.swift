// What a record becomes: a step event, or a reason why it is none.

/// One accepted report, as decoded, in 64 bytes. The user key and the source may borrow from the record's bytes or the
/// decoder's arena.
@frozen public struct StepEvent: BitwiseCopyable {
  // The order of the fields fills the room that the key's one byte of length leaves.

  public var user: UserKey
  @usableFromInline var extras: RecordExtras
  /// 0...`event.steps_max`.
  public var steps: UInt32
  /// Kafka offset of the record.
  public var offset: Int64
  /// Event time, in nanoseconds after midnight UTC of `day`'s date (negative or over 24 h where the day's zone is
  /// not UTC); orders the reports of one user and day.
  public var timeOfDay: Int64
  @usableFromInline var sourceText: UnsafePointer<UInt8>?
  /// The day the event belongs to, by the rule of the cluster's zone.
  public var day: Day

  /// What the record says of its source: 0 to 32 bytes of UTF-8, an integer as its decimal text; nil if it says nothing.
  /// Borrowed, and valid as long as the key.
  @inlinable public var source: UnsafeRawBufferPointer? {
    guard let sourceText else { return nil }
    return UnsafeRawBufferPointer(start: sourceText, count: extras.sourceLength)
  }

  /// Whether the record's object has a member beyond the four known names, whatever it holds.
  @inlinable public var hasUnknownFields: Bool {
    get { extras.hasUnknownFields }
    set { extras.hasUnknownFields = newValue }
  }

  /// Longest source, in bytes of UTF-8.
  @inlinable public static var sourceBytesMax: Int { 32 }

  /// - Parameters:
  ///   - user: who walked.
  ///   - offset: Kafka offset of the record.
  ///   - timeOfDay: as the property.
  ///   - steps: as the property.
  ///   - day: as the property.
  ///   - source: at most `sourceBytesMax` bytes that outlive the event; nil if there is none.
  ///   - hasUnknownFields: as the property.
  @inlinable public init(
    user: UserKey, offset: Int64, timeOfDay: Int64, steps: UInt32, day: Day,
    source: UnsafeRawBufferPointer? = nil, hasUnknownFields: Bool = false
  ) {
    self.user = user
    self.offset = offset
    self.timeOfDay = timeOfDay
    self.steps = steps
    self.day = day
    extras = RecordExtras()
    extras.hasUnknownFields = hasUnknownFields
    sourceText = nil
    if let source {
      precondition(source.count <= StepEvent.sourceBytesMax, "a source of \(source.count) bytes")
      // An empty buffer may have no address; the source is there all the same.
      sourceText =
        source.baseAddress?.assumingMemoryBound(to: UInt8.self) ?? UnsafePointer(bitPattern: 1)
      extras.sourceLength = source.count
    }
  }

  /// All but the key's and the source's bytes in place.
  @inline(__always)
  init(fields: StepFields, offset: Int64, timeOfDay: Int64, day: Day) {
    user = fields.user
    extras = fields.extras
    steps = UInt32(truncatingIfNeeded: fields.steps)
    self.offset = offset
    self.timeOfDay = timeOfDay
    sourceText = fields.source
    self.day = day
  }
}

/// What an event says beside its count, in two bytes that travel together.
@frozen @usableFromInline struct RecordExtras: BitwiseCopyable {
  @usableFromInline var bits: UInt16 = 0

  @inlinable init() {}

  /// Bytes of the source, 0...32.
  @inlinable var sourceLength: Int {
    get { Int(bits & 0xFF) }
    set { bits = bits & 0xFF00 | UInt16(truncatingIfNeeded: newValue) & 0xFF }
  }

  @inlinable var hasUnknownFields: Bool {
    get { bits & 0x100 != 0 }
    set { bits = bits & ~0x100 | (newValue ? 0x100 : 0) }
  }
}

/// Why a record is not counted. The first that holds, in this order, is the one reported.
public enum RejectReason: UInt8, CaseIterable, Sendable, BitwiseCopyable {
  /// Not one valid JSON object, checked to its last byte.
  case malformed
  /// One of the four known keys occurs twice.
  case repeated
  /// `uuid`, `steps` or `timestamp` is absent.
  case missing
  /// One of the four has a JSON type or form that is not accepted.
  case type
  /// The user id is empty, over 64 bytes, or holds a control character.
  case user
  /// Negative, or above `event.steps_max`.
  case steps
  /// The timestamp has none of the accepted forms or names no real date or time.
  case time
  /// Event time is later than the shard clock and the slack.
  case future
  /// The event's day ended too long before the shard clock.
  case late
  /// The user's total would exceed 2^32-1.
  case overflow

  /// The word used in counters, dead letters and answers.
  public var name: String {
    switch self {
    case .malformed: "malformed"
    case .repeated: "repeated"
    case .missing: "missing"
    case .type: "type"
    case .user: "user"
    case .steps: "steps"
    case .time: "time"
    case .future: "future"
    case .late: "late"
    case .overflow: "overflow"
    }
  }
}

/// How reports make a user's total of a day.
public enum StepsMode: Hashable, Sendable {
  /// Each report adds.
  case increment
  /// Each report is the day's running total: the newest (event time, then offset) wins, also downward.
  case totalNewest
  /// Each report is the day's running total: the largest wins.
  case totalMax
}
