// Which day an event belongs to, and when a day starts and ends.

/// The cluster's rule for days (`day.zone`).
public enum DayRule: Hashable, Sendable {
  /// The date in one zone for all.
  case zone(Zone)
  /// The date in the timestamp's own offset, UTC where it has none: the user's own midnight.
  case event

  /// Reads the setting.
  ///
  /// - Parameter setting: an IANA name, or `event`.
  /// - Throws: `zoneUnknown`, `zoneUnreadable`.
  public init(_ setting: String) throws(StepModelError) {
    self = setting == "event" ? .event : .zone(try Zone(name: setting))
  }

  /// The setting as it is written.
  public var name: String {
    switch self {
    case .zone(let zone): zone.name
    case .event: "event"
    }
  }

  /// The date of an instant in the cluster's zone (of UTC for `event`): what "today" is.
  ///
  /// - Parameter instant: milliseconds since 1970 UTC, within the years 0...9999.
  /// - Returns: the day.
  /// - Complexity: O(log changes of the zone).
  public func day(atMilliseconds instant: Int64) -> Day {
    let second = instant.floorDivided(by: 1000)
    switch self {
    case .zone(let zone):
      let local = second + zone.segment(at: second).offset
      return Day(number: Int32(clamping: local.floorDivided(by: 86_400)))
    case .event: return Day(number: Int32(clamping: second.floorDivided(by: 86_400)))
    }
  }

  /// The instant at which a day starts: its local midnight, the first if it occurs twice, shifted forward if it is
  /// skipped (of UTC for `event`). A day ends where the next one starts.
  ///
  /// - Parameter day: a day.
  /// - Returns: milliseconds since 1970 UTC.
  /// - Complexity: O(log changes of the zone).
  public func startMilliseconds(of day: Day) -> Int64 {
    let local = Int64(day.number) * 86_400
    switch self {
    case .zone(let zone): return (local - zone.segment(atLocal: local).offset) * 1000
    case .event: return local * 1000
    }
  }

  /// Start and end of a board's period, in milliseconds since 1970 UTC; nil for all time.
  ///
  /// - Parameter board: any board.
  /// - Returns: where its first day starts, and where the first day after it starts.
  public func milliseconds(of board: BoardID) -> Range<Int64>? {
    guard let days = board.days else { return nil }
    let start = startMilliseconds(of: days.lowerBound)
    return start..<max(start, startMilliseconds(of: days.upperBound))
  }
}

/// Places event times on the time line and into days; remembers the last segment and day, where most events fall.
struct DayClock {
  /// nil for `event`.
  private let zone: Zone?
  private var segment = Zone.Segment()
  /// Instants [from, until) that have the remembered day.
  private var from = Int64.max
  private var until = Int64.min
  private var day = Day(number: 0)
  private var dayEnd: Int64 = 0

  init(_ rule: DayRule) {
    switch rule {
    case .zone(let zone): self.zone = zone
    case .event: zone = nil
    }
  }

  /// An event time, resolved.
  struct Place {
    /// Seconds since 1970 UTC; the nanoseconds are the event time's own.
    var second: Int64
    var day: Day
    /// Seconds since 1970 UTC at which the day ends.
    var dayEnd: Int64
  }

  @inline(__always)
  mutating func place(_ time: EventTime) -> Place {
    let local = time.localSecond
    guard let zone else {
      let offset = Int64(time.rawOffset == EventTime.noOffset ? 0 : time.rawOffset)
      return Place(
        second: local - offset, day: time.date, dayEnd: (Int64(time.date.number) + 1) * 86_400 - offset)
    }
    let second: Int64
    if time.rawOffset == EventTime.noOffset {
      if local < segment.localFrom || local >= segment.localUntil { segment = zone.segment(atLocal: local) }
      second = local - segment.offset
    } else {
      second = local - Int64(time.rawOffset)
    }
    if second < from || second >= until { remember(second, zone) }
    return Place(second: second, day: day, dayEnd: dayEnd)
  }

  /// Makes the day of an instant the remembered one.
  @inline(never)
  private mutating func remember(_ second: Int64, _ zone: Zone) {
    if second < segment.from || second >= segment.until { segment = zone.segment(at: second) }
    let offset = segment.offset
    let number = (second + offset).floorDivided(by: 86_400)
    day = Day(number: Int32(number))
    // Only within the segment: around a change a date may come in two pieces.
    from = max(segment.from, number * 86_400 - offset)
    until = min(segment.until, (number + 1) * 86_400 - offset)
    let midnight = (number + 1) * 86_400
    dayEnd =
      midnight >= segment.localFrom && midnight < segment.localUntil
      ? midnight - offset : midnight - zone.segment(atLocal: midnight).offset
  }
}

extension Int64 {
  /// Division that rounds down, for a positive divisor.
  func floorDivided(by divisor: Int64) -> Int64 {
    let (quotient, rest) = quotientAndRemainder(dividingBy: divisor)
    return rest < 0 ? quotient - 1 : quotient
  }
}
