// The fast road: records as producers write them, read without looking at any byte twice.
//
//   {"uuid":"<id>","steps":<digits>,"timestamp":<"text" or digits>}      compact, or with one space after `:` and `,`
//
// is compared a word at a time. From the first surprise on, `members` reads member by member: any order, any white
// space, `source`, unknown keys with scalar values.
//
// Mine: ids of 1 to 64 printable ASCII characters without `\`, steps of up to 18 digits, timestamps of printable ASCII
// or of up to 18 digits. Everything else (escapes, non-ASCII, repeated or missing keys, other kinds of values, objects
// and arrays, anything wrong) is "not mine", so that a reason up to `user` never comes from here.

enum StepScanner {
  /// Reads a record.
  ///
  /// - Parameters:
  ///   - base: first byte.
  ///   - end: behind the last byte.
  ///   - dates: the date cache.
  ///   - fields: filled if the answer is true; the key borrows from the record.
  /// - Returns: false if the judge has to decide; nothing is known then.
  @inline(__always)
  static func scan(
    _ base: UnsafeRawPointer, _ end: UnsafeRawPointer, dates: inout DateCache, into fields: inout StepFields
  ) -> Bool {
    var p = base
    guard layout(&p, end, &dates, &fields) else {
      p = base
      skipSpace(&p, end)
      guard p < end, p.byte == openBrace else { return false }
      return members(p, end, seen: 0, &dates, &fields)
    }
    if p < end, p.byte == closeBrace, p + 1 == end { return true }
    return members(p, end, seen: 0b0111, &dates, &fields)
  }

  /// The three members in their usual order; moves behind the timestamp.
  @inline(__always)
  private static func layout(
    _ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer, _ dates: inout DateCache, _ fields: inout StepFields
  ) -> Bool {
    // Enough to look for a closing quote at once; nothing that short is worth it.
    guard end - p >= 48, p.word == word("{\"uuid\":") else { return false }
    p += 8
    if p.byte == space { p += 1 }
    guard p.byte == quote else { return false }
    p += 1
    if end - p > 36, p[36] == quote, UserKey.readCanonicalUUID(p, into: &fields.user) {
      p += 36
    } else {
      guard let close = plainEnd(p, end, countMax: UserID.bytesMax), close > p else { return false }
      fields.user = UserKey(text: UnsafeRawBufferPointer(start: p, count: close - p))
      p = close
    }

    // ","steps": and up to eight digits; the shortest rest of a record is longer than this look-ahead.
    guard end - p >= 20, p[1] == comma else { return false }
    p += p[2] == space ? 3 : 2
    guard p.word == word("\"steps\":") else { return false }
    p += p[8] == space ? 9 : 8
    guard let steps = shortNumber(&p) else { return false }
    fields.steps = steps

    guard end - p >= 16, p.byte == comma else { return false }
    p += p[1] == space ? 2 : 1
    guard p.word == word("\"timesta"), (p + 4).word == word("estamp\":") else { return false }
    p += p[12] == space ? 13 : 12
    return timestamp(&p, end, &dates, &fields)
  }

  /// Members up to the end of the record: from its brace on, or those behind the usual three.
  ///
  /// - Parameters:
  ///   - start: where the brace is, or behind the timestamp.
  ///   - end: behind the last byte.
  ///   - seen: a bit a known key already read: uuid, steps, timestamp, source.
  ///   - dates: the date cache.
  ///   - fields: as for `scan`.
  /// - Returns: as `scan`.
  @inline(never)
  private static func members(
    _ start: UnsafeRawPointer, _ end: UnsafeRawPointer, seen: UInt8, _ dates: inout DateCache,
    _ fields: inout StepFields
  ) -> Bool {
    var p = start
    var seen = seen
    if seen != 0 { skipSpace(&p, end) }
    // The caller has seen the brace; a comma is seen here.
    var atBrace = seen == 0
    while true {
      guard p < end else { return false }
      if !atBrace, p.byte != comma { break }
      atBrace = false
      p += 1
      skipSpace(&p, end)
      guard p < end, p.byte == quote else { return false }
      p += 1
      guard let close = plainEnd(p, end, countMax: keyBytesMax) else { return false }
      let key = known(p, count: close - p)
      p = close + 1
      skipSpace(&p, end)
      guard p < end, p.byte == colon else { return false }
      p += 1
      skipSpace(&p, end)
      guard p < end, seen & key == 0 else { return false }
      seen |= key
      switch key {
      case 0b0001: guard user(&p, end, &fields) else { return false }
      case 0b0010:
        guard let steps = digits(&p, end) else { return false }
        fields.steps = steps
      case 0b0100: guard timestamp(&p, end, &dates, &fields) else { return false }
      case 0b1000: guard source(&p, end, &fields) else { return false }
      default:
        guard scalar(&p, end) else { return false }
        fields.hasUnknownFields = true
      }
      skipSpace(&p, end)
    }
    guard p.byte == closeBrace, seen & 0b0111 == 0b0111 else { return false }
    p += 1
    skipSpace(&p, end)
    return p == end
  }

  /// Longest key that is read here.
  private static var keyBytesMax: Int { 64 }

  /// The bit of a known key, 0 for any other.
  @inline(__always)
  private static func known(_ key: UnsafeRawPointer, count: Int) -> UInt8 {
    switch count {
    case 4: key.half == half("uuid") ? 0b0001 : 0
    case 5: key.half == half("step") && key[4] == 0x73 ? 0b0010 : 0
    case 6: key.half == half("sour") && (key + 2).half == half("urce") ? 0b1000 : 0
    case 9: key.word == word("timestam") && key[8] == 0x70 ? 0b0100 : 0
    default: 0
    }
  }

  @inline(__always)
  private static func skipSpace(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) {
    while p < end, p.byte == space || p.byte == 0x0A || p.byte == 0x0D || p.byte == 0x09 { p += 1 }
  }

  @inline(__always)
  private static func user(
    _ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer, _ fields: inout StepFields
  ) -> Bool {
    guard p.byte == quote else { return false }
    p += 1
    if end - p > 36, p[36] == quote, UserKey.readCanonicalUUID(p, into: &fields.user) {
      p += 37
      return true
    }
    guard let close = plainEnd(p, end, countMax: UserID.bytesMax), close > p else { return false }
    fields.user = UserKey(text: UnsafeRawBufferPointer(start: p, count: close - p))
    p = close + 1
    return true
  }

  @inline(__always)
  private static func source(
    _ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer, _ fields: inout StepFields
  ) -> Bool {
    if p.byte != quote {
      // Digits without leading zeros are their own decimal text.
      let start = p
      guard digits(&p, end) != nil else { return false }
      fields.setSource(start, count: p - start)
      return true
    }
    p += 1
    guard let close = plainEnd(p, end, countMax: StepEvent.sourceBytesMax) else { return false }
    fields.setSource(p, count: close - p)
    p = close + 1
    return true
  }

  /// The value of an unknown key: a plain string, a number of up to 18 digits with an optional fraction (so in range
  /// of everything), or a literal name.
  @inline(__always)
  private static func scalar(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> Bool {
    switch p.byte {
    case quote:
      guard let close = plainEnd(p + 1, end, countMax: Int.max) else { return false }
      p = close + 1
      return true
    case 0x2D, 0x30...0x39:
      if p.byte == 0x2D { p += 1 }
      guard digits(&p, end) != nil else { return false }
      if p < end, p.byte == 0x2E {
        p += 1
        let start = p
        while p < end, p.byte &- 0x30 <= 9 { p += 1 }
        guard p > start, p - start <= 18 else { return false }
      }
      // A digit too many or an exponent is for the judge: no member ends so.
      return true
    case 0x74 where end - p >= 4 && p.half == half("true"), 0x6E where end - p >= 4 && p.half == half("null"):
      p += 4
      return true
    case 0x66 where end - p >= 5 && (p + 1).half == half("alse"):
      p += 5
      return true
    default: return false
    }
  }

  /// The timestamp at `p`; moves behind it.
  @inline(__always)
  private static func timestamp(
    _ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer, _ dates: inout DateCache, _ fields: inout StepFields
  ) -> Bool {
    guard p < end else { return false }
    if p.byte != quote { return numericTimestamp(&p, end, &fields) }
    p += 1
    if end - p > EventTime.bareCount, p[EventTime.bareCount] == quote,
      let time = EventTime(bare: p, dates: &dates)
    {
      fields.time = time
      fields.timeIsValid = true
      p += EventTime.bareCount + 1
      return true
    }
    return longTimestamp(&p, end, &dates, &fields)
  }

  @inline(never)
  private static func longTimestamp(
    _ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer, _ dates: inout DateCache, _ fields: inout StepFields
  ) -> Bool {
    guard let close = plainEnd(p, end, countMax: EventTime.longestCount) else { return false }
    if let time = EventTime(p, count: close - p, dates: &dates) {
      fields.time = time
      fields.timeIsValid = true
    } else {
      fields.timeIsValid = false
    }
    p = close + 1
    return true
  }

  @inline(never)
  private static func numericTimestamp(
    _ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer, _ fields: inout StepFields
  ) -> Bool {
    guard let number = digits(&p, end) else { return false }
    if let time = EventTime(integer: number) {
      fields.time = time
      fields.timeIsValid = true
    } else {
      fields.timeIsValid = false
    }
    return true
  }

  /// The quote that ends a string of at most `countMax` printable ASCII characters without `\`; nil otherwise.
  @inline(__always)
  private static func plainEnd(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer, countMax: Int)
    -> UnsafeRawPointer?
  {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let highs: UInt64 = 0x8080_8080_8080_8080
    var p = start
    while end - p >= 8 {
      let bytes = UInt64(littleEndian: p.word)
      // High bits: not ASCII, below space, a quote, a backslash, or DEL. The lowest one set is exact.
      let quotes = bytes ^ (ones &* 0x22)
      let slashes = bytes ^ (ones &* 0x5C)
      let special =
        (bytes | (bytes &- ones &* 0x20) | (quotes &- ones) | (slashes &- ones) | (bytes &+ ones)) & highs
      if special == 0 {
        p += 8
        continue
      }
      p += special.trailingZeroBitCount >> 3
      return p.byte == quote && p - start <= countMax ? p : nil
    }
    while p < end {
      let byte = p.byte
      if byte == quote { return p - start <= countMax ? p : nil }
      guard byte >= 0x20, byte < 0x7F, byte != 0x5C else { return nil }
      p += 1
    }
    return nil
  }

  /// A number of 1 to 7 digits without leading zeros, out of the eight bytes at `p`; moves behind it.
  @inline(__always)
  private static func shortNumber(_ p: inout UnsafeRawPointer) -> Int64? {
    var bytes = UInt64(littleEndian: p.word) ^ 0x3030_3030_3030_3030
    let others = ((bytes &+ 0x7676_7676_7676_7676) | bytes) & 0x8080_8080_8080_8080
    // Bits of the digits; the lowest bit of `others` is exact, what a carry makes of the higher ones does not matter.
    let bits = others.trailingZeroBitCount & ~7
    guard bits >= 8, bits < 64, bits == 8 || bytes & 0xFF != 0 else { return nil }
    p += bits >> 3
    bytes <<= UInt64(64 - bits)
    // Pairs, fours, eight: the first digit is the lowest byte.
    bytes = (bytes &* 10 &+ bytes >> 8) & 0x00FF_00FF_00FF_00FF
    bytes = (bytes &* 100 &+ bytes >> 16) & 0x0000_FFFF_0000_FFFF
    return Int64(truncatingIfNeeded: (bytes &* 10_000 &+ bytes >> 32) & 0xFFFF_FFFF)
  }

  /// A number of 1 to 18 digits without leading zeros; moves behind it.
  @inline(__always)
  private static func digits(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> Int64? {
    let start = p
    var value: Int64 = 0
    while p < end, p.byte &- 0x30 <= 9 {
      guard p - start < 18 else { return nil }
      value = value &* 10 &+ Int64(p.byte &- 0x30)
      p += 1
    }
    let count = p - start
    return count >= 1 && (count == 1 || start.byte != 0x30) ? value : nil
  }

  private static var quote: UInt8 { 0x22 }
  private static var comma: UInt8 { 0x2C }
  private static var colon: UInt8 { 0x3A }
  private static var space: UInt8 { 0x20 }
  private static var openBrace: UInt8 { 0x7B }
  private static var closeBrace: UInt8 { 0x7D }

  /// The first eight bytes of a literal, as a load sees them.
  @inline(__always)
  private static func word(_ literal: StaticString) -> UInt64 {
    UnsafeRawPointer(literal.utf8Start).loadUnaligned(as: UInt64.self)
  }
}

extension StepScanner {
  /// The first four bytes of a literal, as a load sees them.
  @inline(__always)
  private static func half(_ literal: StaticString) -> UInt32 {
    UnsafeRawPointer(literal.utf8Start).loadUnaligned(as: UInt32.self)
  }
}

extension UnsafeRawPointer {
  /// Eight bytes.
  @inline(__always)
  fileprivate var word: UInt64 { loadUnaligned(as: UInt64.self) }

  /// Four bytes.
  @inline(__always)
  fileprivate var half: UInt32 { loadUnaligned(as: UInt32.self) }

  @inline(__always)
  fileprivate var byte: UInt8 { load(as: UInt8.self) }

  @inline(__always)
  fileprivate subscript(place: Int) -> UInt8 { load(fromByteOffset: place, as: UInt8.self) }
}
