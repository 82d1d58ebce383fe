// The fast road: records as producers write them, read without looking at any byte twice.
//
//   {"uuid":"<id>","steps":<digits>,"timestamp":"<date> <time><offset>","source":<text>}
//
// compact, or with one space after `:` and `,`, offset and source optional, is compared a word at a time. At the first
// surprise the rest of the record is for `RecordReader`, member by member.
//
// Mine: ids of 1 to 64 printable ASCII characters without `\`, steps of up to 7 digits, timestamps with or without a
// fraction, with `Z`, `±hh:mm` or nothing behind it. A reason up to `user` never comes from here.

enum StepScanner {
  /// Reads a record.
  ///
  /// - Parameters:
  ///   - base: first byte.
  ///   - end: behind the last byte.
  ///   - dates: the date cache.
  ///   - fields: filled if the answer is `fields`; the key and the source borrow from the record.
  /// - Returns: what the record is; `unsure` if the judge has to decide.
  @inline(__always)
  static func scan(
    _ base: UnsafeRawPointer, _ end: UnsafeRawPointer, dates: inout DateCache, into fields: inout StepFields
  ) -> Reading {
    var p = base
    let seen = layout(&p, end, &dates, &fields)
    if seen == 0b0111, p < end {
      if p.byte == JSON.closeBrace, p + 1 == end { return .fields }
      if p.byte == JSON.comma, source(p, end, &fields) { return .fields }
    }
    return RecordReader.read(p, end, seen: seen, &dates, &fields)
  }

  /// The three members in their usual order; moves behind the last one it has read.
  ///
  /// - Parameters:
  ///   - base: first byte.
  ///   - end: behind the last byte.
  ///   - dates: the date cache.
  ///   - fields: what was read.
  /// - Returns: a bit a member: uuid, steps, timestamp.
  @inline(__always)
  private static func layout(
    _ base: inout UnsafeRawPointer, _ end: UnsafeRawPointer, _ dates: inout DateCache,
    _ fields: inout StepFields
  ) -> UInt8 {
    var p = base
    // Enough to look for a closing quote at once; nothing that short is worth it.
    guard end - p >= 48, p.word == JSON.word("{\"uuid\":") else { return 0 }
    p += 8
    if p.byte == JSON.space { p += 1 }
    guard p.byte == JSON.quote else { return 0 }
    p += 1
    if end - p > 36, p[36] == JSON.quote, UserKey.readCanonicalUUID(p, into: &fields.user) {
      p += 36
    } else {
      guard let close = plainEnd(p, end, countMax: UserID.bytesMax), close > p else { return 0 }
      fields.user = UserKey(text: UnsafeRawBufferPointer(start: p, count: close - p))
      p = close
    }
    base = p + 1

    // ","steps": and up to eight digits; the shortest rest of a record is longer than this look-ahead.
    guard end - p >= 20, p[1] == JSON.comma else { return 0b0001 }
    p += p[2] == JSON.space ? 3 : 2
    guard p.word == JSON.word("\"steps\":") else { return 0b0001 }
    p += p[8] == JSON.space ? 9 : 8
    guard let steps = JSON.shortNumber(&p), p.byte == JSON.comma else { return 0b0001 }
    fields.steps = steps
    base = p

    // ,"timestamp":, the bare form in its quotes and the brace: no record is shorter.
    guard end - p >= 35 else { return 0b0011 }
    p += p[1] == JSON.space ? 2 : 1
    guard p.word == JSON.word("\"timesta"), (p + 4).word == JSON.word("estamp\":") else { return 0b0011 }
    p += p[12] == JSON.space ? 13 : 12
    guard p.byte == JSON.quote else { return 0b0011 }
    p += 1
    guard let time = EventTime(closed: &p, end, dates: &dates) else { return 0b0011 }
    fields.time = time
    fields.timeIsValid = true
    base = p
    return 0b0111
  }

  /// `,"source":` with a plain text, and the record's end.
  @inline(__always)
  private static func source(
    _ start: UnsafeRawPointer, _ end: UnsafeRawPointer, _ fields: inout StepFields
  ) -> Bool {
    var p = start
    guard end - p >= 13 else { return false }
    p += p[1] == JSON.space ? 2 : 1
    guard p.word == JSON.word("\"source\""), p[8] == JSON.colon else { return false }
    p += p[9] == JSON.space ? 10 : 9
    guard p < end, p.byte == JSON.quote else { return false }
    p += 1
    guard let close = plainEnd(p, end, countMax: StepEvent.sourceBytesMax), close + 2 == end,
      close[1] == JSON.closeBrace
    else { return false }
    fields.setSource(p, count: close - p)
    return true
  }

  /// The quote that ends a string of at most `countMax` printable ASCII characters without `\`; nil otherwise.
  @inline(__always)
  private static func plainEnd(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer, countMax: Int)
    -> UnsafeRawPointer?
  {
    var p = start
    while end - p >= 8 {
      let special = JSON.special(UInt64(littleEndian: p.word))
      if special == 0 {
        p += 8
        continue
      }
      p += special.trailingZeroBitCount >> 3
      return p.byte == JSON.quote && p - start <= countMax ? p : nil
    }
    while p < end {
      let byte = p.byte
      if byte == JSON.quote { return p - start <= countMax ? p : nil }
      guard byte >= 0x20, byte < 0x7F, byte != 0x5C else { return nil }
      p += 1
    }
    return nil
  }
}
