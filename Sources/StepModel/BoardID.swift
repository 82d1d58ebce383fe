// The names of boards: `2026-11-24`, `2026-W48`, `2026-11`, `all`.

/// The period that a board ranks.
public enum BoardID: Hashable, Sendable {
  /// One civil day.
  case day(Day)
  /// An ISO week, by its Monday.
  case week(monday: Day)
  /// A month, in months since 1970-01.
  case month(Int32)
  /// All time.
  case all

  /// Reads a board's name; nil if it is none, or names no real date, week or month.
  ///
  /// - Parameter name: `2026-11-24`, `2026-W48`, `2026-11` or `all`.
  public init?(_ name: String) {
    if name == "all" {
      self = .all
      return
    }
    let text = Array(name.utf8)
    func digits(_ range: Range<Int>) -> Int? {
      var value = 0
      for byte in text[range] {
        guard byte >= 0x30, byte <= 0x39 else { return nil }
        value = value * 10 + Int(byte - 0x30)
      }
      return value
    }
    let dash = UInt8(ascii: "-")
    guard text.count >= 7, text[4] == dash, let year = digits(0..<4), (1970...9999).contains(year) else {
      return nil
    }
    switch text.count {
    case 10:
      guard text[7] == dash, let month = digits(5..<7), let day = digits(8..<10),
        let date = Day(year: year, month: month, day: day)
      else { return nil }
      self = .day(date)
    case 8:
      guard text[5] == UInt8(ascii: "W"), let week = digits(6..<8), week >= 1,
        let first = Day(year: year, month: 1, day: 4)
      else { return nil }
      let monday = Day(number: first.monday.number + Int32(week - 1) * 7)
      guard BoardID.isoYear(monday: monday) == year else { return nil }
      self = .week(monday: monday)
    case 7:
      guard let month = digits(5..<7), (1...12).contains(month) else { return nil }
      self = .month(Int32((year - 1970) * 12 + month - 1))
    default: return nil
    }
  }

  /// First day of the period, and the first day after it; nil for all time.
  public var days: Range<Day>? {
    switch self {
    case .day(let day): return day..<Day(number: day.number + 1)
    case .week(let monday): return monday..<Day(number: monday.number + 7)
    case .month(let month):
      func first(_ month: Int32) -> Day? {
        Day(year: 1970 + Int(month) / 12, month: Int(month) % 12 + 1, day: 1)
      }
      guard let start = first(month) else { return nil }
      return
        start..<Day(
          number: start.number + Int32(Day.count(year: 1970 + Int(month) / 12, month: Int(month) % 12 + 1)))
    case .all: return nil
    }
  }

  /// `day`, `week`, `month` or `all`.
  public var kind: String {
    switch self {
    case .day: "day"
    case .week: "week"
    case .month: "month"
    case .all: "all"
    }
  }

  /// The year an ISO week belongs to: that of its Thursday.
  private static func isoYear(monday: Day) -> Int { Day(number: monday.number + 3).civil.year }
}

extension BoardID: CustomStringConvertible {
  /// The board's name, as `init(_:)` reads it.
  public var description: String {
    switch self {
    case .day(let day): return day.description
    case .week(let monday):
      let year = BoardID.isoYear(monday: monday)
      guard let first = Day(year: year, month: 1, day: 4)?.monday else { return "week \(monday.number)" }
      return "\(padded(year, 4))-W\(padded(Int(monday.number - first.number) / 7 + 1, 2))"
    case .month(let month): return "\(padded(1970 + Int(month) / 12, 4))-\(padded(Int(month) % 12 + 1, 2))"
    case .all: return "all"
    }
  }
}
