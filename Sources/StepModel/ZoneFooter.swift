// The rule in a TZif footer: a POSIX TZ string, with the hours of RFC 8536 (−167...167).
//
//   name offset [name [offset] , date [/time] , date [/time]]
//   date   Mm.w.d (w = 5: the last), Jn (1...365, without 29 February), n (0...365)

/// What is in force after the last change of a zone's file.
struct ZoneFooter {
  /// The day of a year on which a change falls.
  enum Date: Equatable {
    case weekday(month: Int, week: Int, weekday: Int)
    case julian(Int)
    case zeroBased(Int)
  }

  /// A change, in seconds of local time since midnight of its date.
  struct Moment: Equatable {
    var date: Date
    var second: Int64
  }

  struct Summer: Equatable {
    var offset: Int32
    var start: Moment
    var end: Moment
  }

  /// Seconds east of UTC.
  var offset: Int32
  var summer: Summer?

  /// Reads a rule; nil if it is none.
  init?(_ text: [UInt8]) {
    var reader = Reader(text)
    guard reader.name(), let west = reader.time() else { return nil }
    offset = Int32(-west)
    if reader.atEnd { return }
    guard reader.name() else { return nil }
    var summerOffset = offset + 3600
    if !reader.next(is: ",") {
      guard let west = reader.time() else { return nil }
      summerOffset = Int32(-west)
    }
    guard reader.take(","), let start = reader.moment(), reader.take(","), let end = reader.moment(),
      reader.atEnd
    else { return nil }
    summer = Summer(offset: summerOffset, start: start, end: end)
  }

  /// The changes of one year, in order.
  func changes(year: Int) -> [ZoneRules.Change] {
    guard let summer else { return [] }
    let start = ZoneRules.Change(
      instant: ZoneFooter.second(summer.start, year: year) - Int64(offset), offset: summer.offset)
    let end = ZoneRules.Change(
      instant: ZoneFooter.second(summer.end, year: year) - Int64(summer.offset), offset: offset)
    return start.instant <= end.instant ? [start, end] : [end, start]
  }

  /// Local seconds since 1970 at which a change falls.
  private static func second(_ moment: Moment, year: Int) -> Int64 {
    let january = dayNumber(year: year, month: 1)
    let leap = Day.count(year: year, month: 2) == 29
    let day: Int
    switch moment.date {
    case .zeroBased(let days): day = january + days
    case .julian(let days): day = january + days - 1 + (leap && days >= 60 ? 1 : 0)
    case .weekday(let month, let week, let weekday):
      let first = dayNumber(year: year, month: month)
      // 1970-01-01 was a Thursday, 4 in this count.
      let firstWeekday = ((first + 4) % 7 + 7) % 7
      var date = (weekday - firstWeekday + 7) % 7 + (week - 1) * 7
      while date >= Day.count(year: year, month: month) { date -= 7 }
      day = first + date
    }
    return Int64(day) * 86_400 + moment.second
  }

  /// Days since 1970 of the first of a month; years may go beyond 9999.
  private static func dayNumber(year: Int, month: Int) -> Int {
    // 400 years are 146,097 days, whatever the century.
    let cycles = year >= 9600 ? 1 : 0
    guard let day = Day(year: year - 400 * cycles, month: month, day: 1) else {
      preconditionFailure("no month \(month) of \(year)")
    }
    return Int(day.number) + cycles * 146_097
  }

  private struct Reader {
    let text: [UInt8]
    var place = 0

    init(_ text: [UInt8]) { self.text = text }

    var atEnd: Bool { place == text.count }

    func next(is character: Unicode.Scalar) -> Bool {
      place < text.count && text[place] == UInt8(ascii: character)
    }

    mutating func take(_ character: Unicode.Scalar) -> Bool {
      guard next(is: character) else { return false }
      place += 1
      return true
    }

    /// A name: letters, or anything within `<` and `>`.
    mutating func name() -> Bool {
      let start = place
      if take("<") {
        while !atEnd && !next(is: ">") { place += 1 }
        return take(">") && place > start + 2
      }
      while !atEnd, isLetter(text[place]) { place += 1 }
      return place > start
    }

    private func isLetter(_ byte: UInt8) -> Bool {
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }

    mutating func number(_ range: ClosedRange<Int>) -> Int? {
      let start = place
      var value = 0
      while !atEnd, place < start + 3, text[place] >= 0x30, text[place] <= 0x39 {
        value = value * 10 + Int(text[place] - 0x30)
        place += 1
      }
      return place > start && range.contains(value) ? value : nil
    }

    /// `[±]h[:m[:s]]` in seconds.
    mutating func time() -> Int64? {
      let negative = take("-")
      if !negative { _ = take("+") }
      guard let hours = number(0...167) else { return nil }
      var seconds = hours * 3600
      if take(":") {
        guard let minutes = number(0...59) else { return nil }
        seconds += minutes * 60
        if take(":") {
          guard let rest = number(0...59) else { return nil }
          seconds += rest
        }
      }
      return Int64(negative ? -seconds : seconds)
    }

    mutating func moment() -> Moment? {
      guard let date = date() else { return nil }
      if !take("/") { return Moment(date: date, second: 7200) }
      guard let second = time() else { return nil }
      return Moment(date: date, second: second)
    }

    private mutating func date() -> Date? {
      if take("M") {
        guard let month = number(1...12), take("."), let week = number(1...5), take("."),
          let weekday = number(0...6)
        else { return nil }
        return .weekday(month: month, week: week, weekday: weekday)
      }
      if take("J") { return number(1...365).map { .julian($0) } }
      return number(0...365).map { .zeroBased($0) }
    }
  }
}
