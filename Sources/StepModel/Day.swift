// Civil dates without Foundation: days, ISO weeks and months as small integers.

/// A civil date, counted in days since 1970-01-01 (proleptic Gregorian calendar).
@frozen public struct Day: Hashable, Comparable, Sendable, BitwiseCopyable {
  /// Days since 1970-01-01; negative before it.
  public let number: Int32

  /// - Parameter number: days since 1970-01-01.
  @inlinable public init(number: Int32) { self.number = number }

  /// The date of a year, month and day; nil if there is no such date (2026-02-30).
  ///
  /// - Parameters:
  ///   - year: 0...9999.
  ///   - month: 1...12.
  ///   - day: 1...31.
  public init?(year: Int, month: Int, day: Int) {
    guard (0...9999).contains(year), (1...12).contains(month), day >= 1,
      day <= Day.count(year: year, month: month)
    else { return nil }
    // Days before the year and month in a calendar whose year starts in March, so that leap days come last.
    let y = month <= 2 ? year - 1 : year
    let era = (y >= 0 ? y : y - 399) / 400
    let yearOfEra = y - era * 400
    let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
    let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
    number = Int32(era * 146_097 + dayOfEra - 719_468)
  }

  /// Year, month (1...12) and day of the month (1...31).
  public var civil: (year: Int, month: Int, day: Int) {
    let z = Int(number) + 719_468
    let era = (z >= 0 ? z : z - 146_096) / 146_097
    let dayOfEra = z - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let mp = (5 * dayOfYear + 2) / 153
    let month = mp < 10 ? mp + 3 : mp - 9
    return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * mp + 2) / 5 + 1)
  }

  /// Monday = 1 ... Sunday = 7 (ISO 8601).
  public var isoWeekday: Int { Int((number % 7 + 7 + 3) % 7) + 1 }

  /// The Monday of this date's ISO week.
  public var monday: Day { Day(number: number - Int32(isoWeekday) + 1) }

  /// Months since 1970-01.
  public var month: Int32 {
    let (year, month, _) = civil
    return Int32((year - 1970) * 12 + month - 1)
  }

  @inlinable public static func < (a: Day, b: Day) -> Bool { a.number < b.number }

  /// Days of a month, 28...31.
  public static func count(year: Int, month: Int) -> Int {
    switch month {
    case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
    case 4, 6, 9, 11: 30
    default: 31
    }
  }
}

extension Day: CustomStringConvertible {
  /// `2026-11-24`.
  public var description: String {
    let (year, month, day) = civil
    return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))"
  }
}

func padded(_ value: Int, _ width: Int) -> String {
  let digits = String(value)
  return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
}
