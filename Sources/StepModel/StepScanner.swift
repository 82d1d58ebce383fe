// The fast road: records laid out as producers write them, read without looking at any byte twice.
//
//   {"uuid":"<id>","steps":<digits>,"timestamp":<"text" or digits>}      compact
//   {"uuid": "<id>", "steps": <digits>, "timestamp": <…>}                one space after `:` and `,`
//   the same with "source":<"text" or digits> as last member
//
// Mine: ids of 1 to 64 printable ASCII characters without `\`, steps of 1 to 7 digits, timestamps of printable ASCII
// or of 1 to 18 digits. Everything else (escapes, other orders, other keys, signs, fractions, non-ASCII, white space
// elsewhere, anything wrong) is "not mine", so that a reason up to `user` never comes from here.

enum StepScanner {
  /// Reads a record of a usual layout.
  ///
  /// - Parameters:
  ///   - base: first byte.
  ///   - end: behind the last byte.
  ///   - dates: the date cache.
  ///   - fields: filled if the answer is true; the key borrows from the record.
  /// - Returns: false if it is not laid out so; nothing is known then.
  @inline(__always)
  static func scan(
    _ base: UnsafeRawPointer, _ end: UnsafeRawPointer, dates: inout DateCache, into fields: inout StepFields
  ) -> Bool {
    // Enough to look for a closing quote at once; nothing that short is worth a fast road.
    guard end - base >= 48, base.word == word("{\"uuid\":") else { return false }
    var p = base + 8
    if p.byte == space { p += 1 }
    guard p.byte == quote else { return false }
    p += 1
    if end - p > 36, p[36] == quote, let uuid = UserKey.canonicalUUID(at: p) {
      fields.user = uuid
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
    guard p < end else { return false }
    return timestamp(&p, end, &dates, &fields) && finish(p, end)
  }

  /// The timestamp at `p`; moves behind it.
  @inline(__always)
  private static func timestamp(
    _ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer, _ dates: inout DateCache, _ fields: inout StepFields
  ) -> Bool {
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
    if let time = EventTime(number: number) {
      fields.time = time
      fields.timeIsValid = true
    } else {
      fields.timeIsValid = false
    }
    return true
  }

  /// The end of the record, or one more member, `source`.
  @inline(__always)
  private static func finish(_ p: UnsafeRawPointer, _ end: UnsafeRawPointer) -> Bool {
    guard p < end else { return false }
    if p.byte == brace { return p + 1 == end }
    return source(p, end)
  }

  @inline(never)
  private static func source(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> Bool {
    var p = start
    guard end - p >= 13, p.byte == comma else { return false }
    p += p[1] == space ? 2 : 1
    guard p.word == word("\"source\""), p[8] == colon else { return false }
    p += p[9] == space ? 10 : 9
    if p.byte == quote {
      guard let close = plainEnd(p + 1, end, countMax: RecordJudge.sourceBytesMax) else { return false }
      p = close + 1
    } else {
      guard digits(&p, end) != nil else { return false }
    }
    return p + 1 == end && p.byte == brace
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
  private static var brace: UInt8 { 0x7D }

  /// The first eight bytes of a literal, as a load sees them.
  @inline(__always)
  private static func word(_ literal: StaticString) -> UInt64 {
    UnsafeRawPointer(literal.utf8Start).loadUnaligned(as: UInt64.self)
  }
}

extension UnsafeRawPointer {
  /// Eight bytes.
  @inline(__always)
  fileprivate var word: UInt64 { loadUnaligned(as: UInt64.self) }

  @inline(__always)
  fileprivate var byte: UInt8 { load(as: UInt8.self) }

  @inline(__always)
  fileprivate subscript(place: Int) -> UInt8 { load(fromByteOffset: place, as: UInt8.self) }
}
