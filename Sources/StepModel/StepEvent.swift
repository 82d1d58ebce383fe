// What a record becomes: a step event, or a reason why it is none.

/// One accepted report, as decoded. The user key may borrow from the record's bytes or the decoder's arena.
@frozen public struct StepEvent: BitwiseCopyable {
  public var user: UserKey
  /// Kafka offset of the record.
  public var offset: Int64
  /// Event time, in nanoseconds after midnight UTC of `day`'s date (negative or over 24 h where the day's zone is
  /// not UTC); orders the reports of one user and day.
  public var timeOfDay: Int64
  /// 0...`event.steps_max`.
  public var steps: UInt32
  /// The day the event belongs to, by the rule of the cluster's zone.
  public var day: Day

  @inlinable public init(user: UserKey, offset: Int64, timeOfDay: Int64, steps: UInt32, day: Day) {
    self.user = user
    self.offset = offset
    self.timeOfDay = timeOfDay
    self.steps = steps
    self.day = day
  }
}

/// Why a record is not counted. The first that holds, in this order, is the one reported.
public enum RejectReason: UInt8, CaseIterable, Sendable {
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
