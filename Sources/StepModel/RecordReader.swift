// The second road: any JSON object, read member by member and checked to its last byte, without the judge's passes.
//
// It knows the whole grammar and the whole table of reasons up to `user`, so that wrong records cost no more than odd
// ones. What it leaves to the judge ("unsure"): escapes in keys and in the values of known keys, exponents, integers of
// over 18 digits, numbers of over 15 digits with a fraction where their value counts, nesting over 60.
//
// Malformed is what it says at the first byte that no JSON text could have there; any other reason only once the whole
// record is read.

/// What reading a record by hand comes to.
enum Reading {
  /// No reason up to `user`; the fields are filled.
  case fields
  /// The judge has to decide; nothing is known.
  case unsure
  /// The first reason of the table, one of `malformed`, `repeated`, `missing`, `type` and `user`.
  case rejected(RejectReason)
}

enum RecordReader {
  typealias Place = UnsafeRawPointer

  /// How the reading of a part went.
  enum Part {
    case valid
    case unsure
    case malformed

    @inline(__always)
    var reading: Reading { self == .unsure ? .unsure : .rejected(.malformed) }
  }

  /// Reasons that are known before the record is at its end.
  private struct Faults: OptionSet {
    let rawValue: UInt8
    static let repeated = Faults(rawValue: 1)
    static let type = Faults(rawValue: 2)
    static let user = Faults(rawValue: 4)
  }

  /// Reads a record, or the rest of one.
  ///
  /// - Parameters:
  ///   - start: its first byte, or the one behind a member.
  ///   - end: behind the last byte.
  ///   - seen: a bit a known key already read: uuid, steps, timestamp, source; 0 from the first byte on.
  ///   - dates: the date cache.
  ///   - fields: filled if the answer is `fields`.
  /// - Returns: what the record is.
  @inline(never)
  static func read(
    _ start: Place, _ end: Place, seen: UInt8, _ dates: inout DateCache, _ fields: inout StepFields
  ) -> Reading {
    var p = start
    var seen = seen
    var faults: Faults = []
    JSON.skipSpace(&p, end)
    var isFirst = seen == 0
    if isFirst {
      guard p < end, p.byte == JSON.openBrace else { return .rejected(.malformed) }
      p += 1
      JSON.skipSpace(&p, end)
    }
    while true {
      guard p < end else { return .rejected(.malformed) }
      if p.byte == JSON.closeBrace { break }
      if !isFirst {
        guard p.byte == JSON.comma else { return .rejected(.malformed) }
        p += 1
        JSON.skipSpace(&p, end)
      }
      isFirst = false
      var key: UInt8 = 0
      var part = name(&p, end, &key)
      guard part == .valid else { return part.reading }
      if key == 0 {
        fields.extras.hasUnknownFields = true
        part = value(&p, end)
      } else if seen & key != 0 {
        faults.insert(.repeated)
        part = value(&p, end)
      } else {
        seen |= key
        switch key {
        case 0b0001: part = user(&p, end, &fields, &faults)
        case 0b0010: part = steps(&p, end, &fields, &faults)
        case 0b0100: part = timestamp(&p, end, &dates, &fields, &faults)
        default: part = source(&p, end, &fields, &faults)
        }
      }
      guard part == .valid else { return part.reading }
      JSON.skipSpace(&p, end)
    }
    p += 1
    JSON.skipSpace(&p, end)
    guard p == end else { return .rejected(.malformed) }
    if faults.isEmpty && seen & 0b0111 == 0b0111 { return .fields }
    if faults.contains(.repeated) { return .rejected(.repeated) }
    if seen & 0b0111 != 0b0111 { return .rejected(.missing) }
    return .rejected(faults.contains(.type) ? .type : .user)
  }

  // MARK: Members

  /// A key and its colon: the bit of a known one, 0 for any other.
  @inline(__always)
  private static func name(_ p: inout Place, _ end: Place, _ key: inout UInt8) -> Part {
    guard p < end, p.byte == JSON.quote else { return .malformed }
    p += 1
    key = JSON.knownAtOnce(&p, end)
    if key == 0 {
      let start = p
      let text = JSON.text(&p, end)
      guard text.isReadable else { return text.part }
      key = JSON.known(start, count: p - start)
      p += 1
    }
    JSON.skipSpace(&p, end)
    guard p < end, p.byte == JSON.colon else { return .malformed }
    p += 1
    JSON.skipSpace(&p, end)
    return p < end ? .valid : .malformed
  }

  @inline(__always)
  private static func user(
    _ p: inout Place, _ end: Place, _ fields: inout StepFields, _ faults: inout Faults
  ) -> Part {
    switch p.byte {
    case JSON.quote:
      p += 1
      if end - p > 36, p[36] == JSON.quote, UserKey.readCanonicalUUID(p, into: &fields.user) {
        p += 37
        return .valid
      }
      let start = p
      let text = JSON.text(&p, end)
      guard text.isReadable else { return text.part }
      let bytes = UnsafeRawBufferPointer(start: start, count: p - start)
      p += 1
      if bytes.count == 0 || bytes.count > UserID.bytesMax || (text == .odd && !UserID.isValid(bytes)) {
        faults.insert(.user)
      } else {
        fields.user = UserKey(text: bytes)
      }
      return .valid
    case JSON.minus, JSON.zero...JSON.nine:
      let start = p
      let number = JSON.number(&p, end)
      if number.kind == .integer {
        // Its own decimal text, but for -0.
        if number.mantissa == 0 && p - start > 1 { return .unsure }
        fields.user = UserKey(text: UnsafeRawBufferPointer(start: start, count: p - start))
      } else {
        faults.insert(.type)
      }
      return number.part
    default:
      faults.insert(.type)
      return value(&p, end)
    }
  }

  @inline(__always)
  private static func steps(
    _ p: inout Place, _ end: Place, _ fields: inout StepFields, _ faults: inout Faults
  ) -> Part {
    guard p.byte == JSON.minus || JSON.isDigit(p.byte) else {
      faults.insert(.type)
      return value(&p, end)
    }
    let number = JSON.number(&p, end)
    switch number.kind {
    case .integer: fields.steps = number.mantissa
    case .real:
      // Up to 15 digits have doubles of their own: one is integral exactly if the text is.
      guard number.digits <= JSON.exactDigitsMax else { return .unsure }
      let (whole, rest) = number.mantissa.quotientAndRemainder(dividingBy: JSON.power(number.fractionDigits))
      fields.steps = whole
      if rest != 0 { faults.insert(.type) }
    case .unsure, .malformed: break
    }
    return number.part
  }

  @inline(__always)
  private static func timestamp(
    _ p: inout Place, _ end: Place, _ dates: inout DateCache, _ fields: inout StepFields,
    _ faults: inout Faults
  ) -> Part {
    let time: EventTime?
    switch p.byte {
    case JSON.quote:
      p += 1
      if let closed = EventTime(closed: &p, end, dates: &dates) {
        time = closed
        break
      }
      let start = p
      let text = JSON.text(&p, end)
      guard text.isReadable else { return text.part }
      time = EventTime(start, count: p - start, dates: &dates)
      p += 1
    case JSON.minus, JSON.zero...JSON.nine:
      let number = JSON.number(&p, end)
      switch number.kind {
      case .integer: time = EventTime(integer: number.mantissa)
      case .real:
        // Both sides are exact, so the quotient is the double nearest to the text.
        guard number.digits <= JSON.exactDigitsMax else { return .unsure }
        time = EventTime(real: Double(number.mantissa) / Double(JSON.power(number.fractionDigits)))
      case .unsure, .malformed: return number.part
      }
    default:
      faults.insert(.type)
      return value(&p, end)
    }
    if let time { fields.time = time }
    fields.timeIsValid = time != nil
    return .valid
  }

  @inline(__always)
  private static func source(
    _ p: inout Place, _ end: Place, _ fields: inout StepFields, _ faults: inout Faults
  ) -> Part {
    switch p.byte {
    case JSON.quote:
      p += 1
      let start = p
      let text = JSON.text(&p, end)
      guard text.isReadable else { return text.part }
      if p - start > StepEvent.sourceBytesMax {
        faults.insert(.type)
      } else {
        fields.setSource(start, count: p - start)
      }
      p += 1
      return .valid
    case JSON.minus, JSON.zero...JSON.nine:
      let start = p
      let number = JSON.number(&p, end)
      if number.kind == .integer {
        if number.mantissa == 0 && p - start > 1 { return .unsure }
        fields.setSource(start, count: p - start)
      } else {
        faults.insert(.type)
      }
      return number.part
    default:
      faults.insert(.type)
      return value(&p, end)
    }
  }

  // MARK: Values that do not count

  /// Any value.
  @inline(__always)
  private static func value(_ p: inout Place, _ end: Place) -> Part {
    guard p < end else { return .malformed }
    guard p.byte == JSON.openBrace || p.byte == JSON.openBracket else { return scalar(&p, end) }
    var rest = p
    let part = nested(&rest, end)
    p = rest
    return part
  }

  /// A string, a number or a literal name.
  @inline(__always)
  private static func scalar(_ p: inout Place, _ end: Place) -> Part {
    guard p < end else { return .malformed }
    switch p.byte {
    case JSON.quote:
      p += 1
      let text = JSON.text(&p, end)
      p += 1
      return text == .malformed ? .malformed : .valid
    case JSON.minus, JSON.zero...JSON.nine: return JSON.number(&p, end).part
    case 0x74 where end - p >= 4 && p.half == JSON.half("true"),
      0x6E where end - p >= 4 && p.half == JSON.half("null"):
      p += 4
      return .valid
    case 0x66 where end - p >= 5 && (p + 1).half == JSON.half("alse"):
      p += 5
      return .valid
    default: return .malformed
    }
  }

  /// Deepest nesting below the record's own object; a bit a level below.
  private static var depthMax: Int { 60 }

  /// An object or an array with all that is in it.
  @inline(never)
  private static func nested(_ p: inout Place, _ end: Place) -> Part {
    // The lowest bit is the innermost level: 1 for an object.
    var objects: UInt64 = 0
    var depth = 0
    while true {
      guard p < end else { return .malformed }
      if p.byte == JSON.openBrace || p.byte == JSON.openBracket {
        guard depth < depthMax else { return .unsure }
        objects = objects << 1 | (p.byte == JSON.openBrace ? 1 : 0)
        depth += 1
        p += 1
        JSON.skipSpace(&p, end)
        guard p < end else { return .malformed }
        if p.byte != JSON.closing(objects) {
          if objects & 1 == 1 {
            var key: UInt8 = 0
            let part = name(&p, end, &key)
            guard part == .valid else { return part }
          }
          continue
        }
      } else {
        let part = scalar(&p, end)
        guard part == .valid else { return part }
        JSON.skipSpace(&p, end)
      }
      // Behind a value: what ends here ends, and the next one begins behind a comma.
      while p < end, p.byte == JSON.closing(objects) {
        p += 1
        objects >>= 1
        depth -= 1
        if depth == 0 { return .valid }
        JSON.skipSpace(&p, end)
      }
      guard p < end, p.byte == JSON.comma else { return .malformed }
      p += 1
      JSON.skipSpace(&p, end)
      if objects & 1 == 1 {
        var key: UInt8 = 0
        let part = name(&p, end, &key)
        guard part == .valid else { return part }
      }
    }
  }
}
