// The timestamps a record may carry, read without Foundation:
//
//   YYYY-MM-DD HH:MM:SS[.f]   or with T; f is 1 to 9 digits; then nothing, Z, ±hh:mm, ±hhmm or ±hh (at most 14:00)
//   number                    epoch seconds, fractions allowed; from 1e11 on (either sign) milliseconds
//
// Years are 1970...9999 as written (of UTC for numbers); there is no second 60 and no hour 24.

/// A moment as a record names it: a civil date and time, and the offset it was written with, if any.
@frozen public struct EventTime: Equatable, Sendable, BitwiseCopyable {
  /// The date as written (of UTC for numbers).
  public var date: Day
  /// Seconds since midnight of that date, 0...86,399.
  public var second: Int32
  /// 0...999,999,999.
  public var nanosecond: Int32
  /// Seconds east of UTC; nil if the text has neither `Z` nor an offset. Numbers have 0.
  @inlinable public var offset: Int32? { rawOffset == EventTime.noOffset ? nil : rawOffset }

  @usableFromInline var rawOffset: Int32
  @usableFromInline static let noOffset = Int32.min

  @inlinable init(date: Day, second: Int32, nanosecond: Int32, rawOffset: Int32) {
    self.date = date
    self.second = second
    self.nanosecond = nanosecond
    self.rawOffset = rawOffset
  }

  /// Seconds since 1970-01-01 00:00 of the clock the time was written by.
  @inlinable var localSecond: Int64 { Int64(date.number) * 86_400 + Int64(second) }

  /// Reads a text; nil if it has none of the forms, or names no real date or time.
  ///
  /// - Parameter text: bytes without the quotes, unescaped.
  public init?(_ text: UnsafeRawBufferPointer) {
    guard let base = text.baseAddress else { return nil }
    var dates = DateCache()
    self.init(base, count: text.count, dates: &dates)
  }

  /// Largest magnitude of a number read as seconds; from here on it is milliseconds.
  static let millisecondsFrom = 100_000_000_000.0
  /// The first second after the year 9999.
  static let secondsEnd: Int64 = 253_402_300_800

  /// Reads an integer: seconds, or milliseconds from 1e11 on; nil outside the years 1970...9999.
  public init?(integer number: Int64) {
    if number >= 100_000_000_000 || number <= -100_000_000_000 {
      let (seconds, rest) = number.quotientAndRemainder(dividingBy: 1000)
      guard number >= 0 else { return nil }
      self.init(seconds: seconds, nanosecond: Int32(rest) * 1_000_000)
    } else {
      self.init(seconds: number, nanosecond: 0)
    }
  }

  /// Reads a number with fraction or exponent, of which the double counts: its floor are whole seconds (or
  /// milliseconds from 1e11 on), what remains is cut, not rounded, to nanoseconds. Nil outside the years 1970...9999.
  public init?(real number: Double) {
    let whole = number.rounded(.down)
    guard whole >= 0, whole < Double(EventTime.secondsEnd) * 1000 else { return nil }
    if number >= EventTime.millisecondsFrom {
      let (seconds, rest) = Int64(whole).quotientAndRemainder(dividingBy: 1000)
      self.init(
        seconds: seconds, nanosecond: Int32(rest) * 1_000_000 + Int32((number - whole) * 1_000_000))
    } else {
      self.init(seconds: Int64(whole), nanosecond: Int32((number - whole) * 1_000_000_000))
    }
  }

  private init?(seconds: Int64, nanosecond: Int32) {
    guard seconds >= 0, seconds < EventTime.secondsEnd else { return nil }
    let (days, second) = seconds.quotientAndRemainder(dividingBy: 86_400)
    self.init(
      date: Day(number: Int32(days)), second: Int32(second), nanosecond: nanosecond, rawOffset: 0)
  }
}

/// The last date read: reports come in runs of the same ten characters.
struct DateCache {
  // No text has these bytes: they are no UTF-8.
  private var head = UInt64.max
  private var tail = UInt16.max
  private var day = Day(number: 0)
  /// The last ten bytes that were no date: wrong ones come in runs too.
  private var wrongHead = UInt64.max
  private var wrongTail = UInt16.max

  /// The date in the ten bytes at `text`; nil if they are not `YYYY-MM-DD`, no real date, or before 1970.
  @inline(__always)
  mutating func date(_ text: UnsafeRawPointer) -> Day? {
    let head = text.loadUnaligned(as: UInt64.self)
    let tail = text.loadUnaligned(fromByteOffset: 8, as: UInt16.self)
    if head == self.head && tail == self.tail { return day }
    if head == wrongHead && tail == wrongTail { return nil }
    guard let read = DateCache.read(text) else {
      wrongHead = head
      wrongTail = tail
      return nil
    }
    self.head = head
    self.tail = tail
    day = read
    return read
  }

  @inline(never)
  private static func read(_ text: UnsafeRawPointer) -> Day? {
    func digits(_ from: Int, _ count: Int) -> Int? {
      var value = 0
      for place in from..<from + count {
        let byte = text.load(fromByteOffset: place, as: UInt8.self)
        guard byte >= 0x30, byte <= 0x39 else { return nil }
        value = value * 10 + Int(byte - 0x30)
      }
      return value
    }
    let dash = UInt8(ascii: "-")
    guard text.load(fromByteOffset: 4, as: UInt8.self) == dash,
      text.load(fromByteOffset: 7, as: UInt8.self) == dash,
      let year = digits(0, 4), year >= 1970, let month = digits(5, 2), (1...12).contains(month),
      let day = digits(8, 2)
    else { return nil }
    return Day(year: year, month: month, day: day)
  }
}

extension EventTime {
  /// Bytes of `YYYY-MM-DD HH:MM:SS`.
  static let bareCount = 19

  /// The bare form, 19 bytes, without fraction and offset.
  @inline(__always)
  init?(bare text: UnsafeRawPointer, dates: inout DateCache) {
    guard let date = dates.date(text) else { return nil }
    let separator = text.load(fromByteOffset: 10, as: UInt8.self)
    guard separator == UInt8(ascii: " ") || separator == UInt8(ascii: "T"),
      let second = EventTime.secondOfDay(text + 11)
    else { return nil }
    self.init(date: date, second: second, nanosecond: 0, rawOffset: EventTime.noOffset)
  }

  /// The bare form or one with a fraction, `Z`, `±hh:mm` or nothing behind it, and the quote that ends it.
  ///
  /// - Parameters:
  ///   - p: its first byte; moved behind the quote, or not at all.
  ///   - end: behind the last byte that may be read.
  ///   - dates: the date cache.
  @inline(__always)
  init?(closed p: inout UnsafeRawPointer, _ end: UnsafeRawPointer, dates: inout DateCache) {
    guard end - p > EventTime.bareCount, var time = EventTime(bare: p, dates: &dates) else { return nil }
    var close = p + EventTime.bareCount
    if close.byte != JSON.quote {
      if close.byte == JSON.point {
        guard let (behind, nanosecond) = EventTime.fraction(close + 1, end) else { return nil }
        close = behind
        time.nanosecond = nanosecond
      }
      if close.byte != JSON.quote {
        guard let offset = EventTime.closedOffset(&close, end) else { return nil }
        time.rawOffset = offset
      }
    }
    p = close + 1
    self = time
  }

  /// One to nine digits at `p` as nanoseconds, and the byte behind them.
  @inline(never)
  private static func fraction(_ p: UnsafeRawPointer, _ end: UnsafeRawPointer) -> (UnsafeRawPointer, Int32)? {
    var value: Int32 = 0
    var scale: Int32 = 1_000_000_000
    var place = p
    while place < end, JSON.isDigit(place.byte) {
      guard scale > 1 else { return nil }
      value = value &* 10 &+ Int32(place.byte &- JSON.zero)
      scale /= 10
      place += 1
    }
    return place > p && place < end ? (place, value &* scale) : nil
  }

  /// Any text form.
  init?(_ text: UnsafeRawPointer, count: Int, dates: inout DateCache) {
    guard count >= EventTime.bareCount, count <= EventTime.longestCount,
      var time = EventTime(bare: text, dates: &dates)
    else { return nil }
    var place = EventTime.bareCount
    if place < count, text.load(fromByteOffset: place, as: UInt8.self) == UInt8(ascii: ".") {
      place += 1
      let first = place
      var fraction: Int32 = 0
      while place < count, place < first + 9, let digit = EventTime.digit(text, place) {
        fraction = fraction * 10 + digit
        place += 1
      }
      guard place > first else { return nil }
      for _ in (place - first)..<9 { fraction *= 10 }
      time.nanosecond = fraction
    }
    if place < count {
      guard let offset = EventTime.offset(text + place, count: count - place) else { return nil }
      time.rawOffset = offset
    }
    self = time
  }

  /// Bytes of the longest form: nine digits of fraction and `+hh:mm`.
  static let longestCount = bareCount + 10 + 6

  @inline(__always)
  private static func digit(_ text: UnsafeRawPointer, _ place: Int) -> Int32? {
    let byte = text.load(fromByteOffset: place, as: UInt8.self)
    return byte >= 0x30 && byte <= 0x39 ? Int32(byte - 0x30) : nil
  }

  /// `Z`, `±hh:mm`, `±hhmm` or `±hh`, at most 14:00 either way, in seconds.
  private static func offset(_ text: UnsafeRawPointer, count: Int) -> Int32? {
    let sign = text.load(as: UInt8.self)
    if sign == UInt8(ascii: "Z") { return count == 1 ? 0 : nil }
    guard sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-"), count >= 3,
      let h1 = digit(text, 1), let h2 = digit(text, 2)
    else { return nil }
    var minutes: Int32 = 0
    if count > 3 {
      let place = text.load(fromByteOffset: 3, as: UInt8.self) == UInt8(ascii: ":") ? 4 : 3
      guard count == place + 2, let m1 = digit(text, place), let m2 = digit(text, place + 1) else {
        return nil
      }
      minutes = m1 * 10 + m2
      guard minutes < 60 else { return nil }
    }
    let total = (h1 * 10 + h2) * 60 + minutes
    guard total <= 14 * 60 else { return nil }
    return (sign == UInt8(ascii: "-") ? -total : total) * 60
  }

  /// `Z"` or `±hh:mm"` at `p`, in seconds; moves to the quote. Nil, and nothing moved, if neither is there.
  @inline(__always)
  private static func closedOffset(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> Int32? {
    guard end - p >= 2 else { return nil }
    if p.byte == UInt8(ascii: "Z") {
      guard p[1] == JSON.quote else { return nil }
      p += 1
      return 0
    }
    // An offset, its quote and the record's brace are eight bytes.
    guard end - p >= 8 else { return nil }
    let bytes = UInt64(littleEndian: p.word)
    // As in `secondOfDay`: sign, two digits, colon, two digits, quote; the last byte does not count.
    let marks = (bytes ^ 0x0022_3030_3A30_3000) & 0x00FF_FFFF_FFFF_FF00
    guard ((marks &+ 0x007F_7676_7F76_7600) | marks) & 0x0080_8080_8080_8000 == 0 else { return nil }
    let sign = UInt8(truncatingIfNeeded: bytes)
    guard sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") else { return nil }
    let pairs = (marks &* 10) &+ (marks >> 8)
    let hour = Int32(truncatingIfNeeded: pairs >> 8 & 0xFF)
    let minute = Int32(truncatingIfNeeded: pairs >> 32 & 0xFF)
    let total = hour &* 60 &+ minute
    guard minute < 60, total <= 14 * 60 else { return nil }
    p += 6
    return (sign == UInt8(ascii: "-") ? -total : total) &* 60
  }

  /// Seconds since midnight of `HH:MM:SS`, eight bytes at once; nil if it is no time of a day.
  @inline(__always)
  private static func secondOfDay(_ text: UnsafeRawPointer) -> Int32? {
    // Exclusive or turns right digits into 0...9 and right colons into 0; anything else sets a high bit below.
    let bytes =
      UInt64(littleEndian: text.loadUnaligned(as: UInt64.self)) ^ 0x3030_3A30_303A_3030
    guard ((bytes &+ 0x7676_7F76_767F_7676) | bytes) & 0x8080_8080_8080_8080 == 0 else { return nil }
    let pairs = (bytes &* 10) &+ (bytes >> 8)
    let hour = UInt32(truncatingIfNeeded: pairs) & 0xFF
    let minute = UInt32(truncatingIfNeeded: pairs >> 24) & 0xFF
    let second = UInt32(truncatingIfNeeded: pairs >> 48) & 0xFF
    guard hour < 24, minute < 60, second < 60 else { return nil }
    return Int32(bitPattern: hour &* 3600 &+ minute &* 60 &+ second)
  }
}
