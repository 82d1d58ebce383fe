// Tokens of JSON where they stand: strings, numbers and known names, by the word where it pays.

enum JSON {
  static var quote: UInt8 { 0x22 }
  static var comma: UInt8 { 0x2C }
  static var minus: UInt8 { 0x2D }
  static var point: UInt8 { 0x2E }
  static var zero: UInt8 { 0x30 }
  static var nine: UInt8 { 0x39 }
  static var colon: UInt8 { 0x3A }
  static var space: UInt8 { 0x20 }
  static var openBrace: UInt8 { 0x7B }
  static var closeBrace: UInt8 { 0x7D }
  static var openBracket: UInt8 { 0x5B }
  static var closeBracket: UInt8 { 0x5D }

  /// What ends the innermost level: an object if the lowest bit is set, otherwise an array.
  @inline(__always)
  static func closing(_ objects: UInt64) -> UInt8 { objects & 1 == 1 ? closeBrace : closeBracket }

  @inline(__always)
  static func isDigit(_ byte: UInt8) -> Bool { byte &- zero <= 9 }

  /// The first eight bytes of a literal, as a load sees them.
  @inline(__always)
  static func word(_ literal: StaticString) -> UInt64 {
    UnsafeRawPointer(literal.utf8Start).loadUnaligned(as: UInt64.self)
  }

  /// The first four bytes of a literal, as a load sees them.
  @inline(__always)
  static func half(_ literal: StaticString) -> UInt32 {
    UnsafeRawPointer(literal.utf8Start).loadUnaligned(as: UInt32.self)
  }

  @inline(__always)
  static func skipSpace(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) {
    while p < end, p.byte <= space, p.byte == space || p.byte == 0x0A || p.byte == 0x0D || p.byte == 0x09 {
      p += 1
    }
  }

  /// The bit of a known key (uuid, steps, timestamp, source), 0 for any other.
  @inline(__always)
  static func known(_ key: UnsafeRawPointer, count: Int) -> UInt8 {
    switch count {
    case 4: key.half == half("uuid") ? 0b0001 : 0
    case 5: key.half == half("step") && key[4] == 0x73 ? 0b0010 : 0
    case 6: key.half == half("sour") && (key + 2).half == half("urce") ? 0b1000 : 0
    case 9: key.word == word("timestam") && key[8] == 0x70 ? 0b0100 : 0
    default: 0
    }
  }

  /// A known key with its closing quote, from its first byte on: its bit, and `p` behind the quote; 0, and nothing
  /// moved, if it is not to be seen at once.
  @inline(__always)
  static func knownAtOnce(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> UInt8 {
    guard end - p >= 10 else { return 0 }
    let head = UInt64(littleEndian: p.word)
    if head << 24 == UInt64(littleEndian: word("uuid\"\0\0\0")) << 24 {
      p += 5
      return 0b0001
    }
    if head << 16 == UInt64(littleEndian: word("steps\"\0\0")) << 16 {
      p += 6
      return 0b0010
    }
    if head == UInt64(littleEndian: word("timestam")), p[8] == 0x70, p[9] == quote {
      p += 10
      return 0b0100
    }
    if head << 8 == UInt64(littleEndian: word("source\"\0")) << 8 {
      p += 7
      return 0b1000
    }
    return 0
  }

  // MARK: Strings

  /// What a string is made of.
  enum Text {
    /// Printable ASCII without escapes.
    case plain
    /// Valid UTF-8 without escapes; may hold anything but U+0000–001F.
    case odd
    /// Valid, and has an escape: its bytes are not its text.
    case escaped
    /// Does not end, is no UTF-8, has a wrong escape, or holds a control character.
    case malformed

    /// Whether its bytes are its text.
    @inline(__always)
    var isReadable: Bool { self == .plain || self == .odd }

    /// What it makes of a part that needs its text.
    @inline(__always)
    var part: RecordReader.Part {
      switch self {
      case .plain, .odd: .valid
      case .escaped: .unsure
      case .malformed: .malformed
      }
    }
  }

  /// A string from its first byte on; moves to the quote that ends it, if it is not malformed.
  @inline(__always)
  static func text(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> Text {
    while end - p >= 8 {
      let special = special(UInt64(littleEndian: p.word))
      if special == 0 {
        p += 8
        continue
      }
      p += special.trailingZeroBitCount >> 3
      if p.byte == quote { return .plain }
      break
    }
    // A place of its own, so that `p` can stay in a register.
    var rest = p
    let text = oddText(&rest, end)
    p = rest
    return text
  }

  /// High bits of bytes that are not ASCII, below space, a quote, a backslash, or DEL. The lowest one set is exact.
  @inline(__always)
  static func special(_ bytes: UInt64) -> UInt64 {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let quotes = bytes ^ (ones &* 0x22)
    let slashes = bytes ^ (ones &* 0x5C)
    return (bytes | (bytes &- ones &* 0x20) | (quotes &- ones) | (slashes &- ones) | (bytes &+ ones))
      & (ones &* 0x80)
  }

  /// The rest of a string from its first special byte on, or of the last bytes of a record.
  @inline(never)
  private static func oddText(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> Text {
    var kind = Text.plain
    while p < end {
      let byte = p.byte
      switch byte {
      case quote: return kind
      case 0x5C:
        kind = .escaped
        let length = escape(p, end)
        if length == 0 { return .malformed }
        p += length
      case 0..<0x20: return .malformed
      case 0x7F:
        if kind == .plain { kind = .odd }
        p += 1
      case 0..<0x7F:
        // A run of plain ones by the word.
        repeat {
          p += 1
          while end - p >= 8, special(UInt64(littleEndian: p.word)) == 0 { p += 8 }
        } while p < end && p.byte >= 0x20 && p.byte < 0x7F && p.byte != quote && p.byte != 0x5C
      default:
        if kind == .plain { kind = .odd }
        let length = character(p, end)
        if length == 0 { return .malformed }
        p += length
      }
    }
    return .malformed
  }

  /// Bytes of the escape at `p`, both halves of a surrogate pair counted; 0 if it is none, or half a pair.
  private static func escape(_ p: UnsafeRawPointer, _ end: UnsafeRawPointer) -> Int {
    guard end - p >= 2 else { return 0 }
    switch p[1] {
    case quote, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74: return 2
    case 0x75: break
    default: return 0
    }
    guard let first = fourHex(p + 2, end) else { return 0 }
    guard first & 0xF800 == 0xD800 else { return 6 }
    guard first < 0xDC00, end - p >= 12, p[6] == 0x5C, p[7] == 0x75, let second = fourHex(p + 8, end),
      second & 0xFC00 == 0xDC00
    else { return 0 }
    return 12
  }

  private static func fourHex(_ p: UnsafeRawPointer, _ end: UnsafeRawPointer) -> UInt32? {
    guard end - p >= 4 else { return nil }
    var value: UInt32 = 0
    for place in 0..<4 {
      switch p[place] {
      case zero...nine: value = value << 4 | UInt32(p[place] - zero)
      case 0x41...0x46, 0x61...0x66: value = value << 4 | UInt32(p[place] & 7 + 9)
      default: return nil
      }
    }
    return value
  }

  /// Bytes of the character above U+007F at `p`; 0 if it is not well formed (Unicode, table 3-7).
  @inline(__always)
  private static func character(_ p: UnsafeRawPointer, _ end: UnsafeRawPointer) -> Int {
    let length: Int
    // Bounds of the second byte; the others are 80...BF.
    var seconds: ClosedRange<UInt8> = 0x80...0xBF
    switch p.byte {
    case 0xC2...0xDF: length = 2
    case 0xE0...0xEF:
      length = 3
      if p.byte == 0xE0 { seconds = 0xA0...0xBF }
      if p.byte == 0xED { seconds = 0x80...0x9F }
    case 0xF0...0xF4:
      length = 4
      if p.byte == 0xF0 { seconds = 0x90...0xBF }
      if p.byte == 0xF4 { seconds = 0x80...0x8F }
    default: return 0
    }
    guard end - p >= length, seconds.contains(p[1]) else { return 0 }
    for place in 2..<4 where place < length {
      guard p[place] & 0xC0 == 0x80 else { return 0 }
    }
    return length
  }

  // MARK: Numbers

  /// Most digits of which each number has a double of its own.
  static var exactDigitsMax: Int { 15 }

  /// A number as it is written.
  struct Number {
    enum Kind {
      case integer
      /// Has a fraction.
      case real
      /// Has an exponent, or over 18 digits before the point.
      case unsure
      case malformed
    }

    var kind: Kind
    /// All digits with the sign, point left out; of a fraction beyond `exactDigitsMax` digits in all it means nothing.
    var mantissa: Int64 = 0
    /// Of a fraction: digits in all, and those behind the point.
    var digits = 0
    var fractionDigits = 0

    @inline(__always)
    var part: RecordReader.Part {
      switch kind {
      case .integer, .real: .valid
      case .unsure: .unsure
      case .malformed: .malformed
      }
    }
  }

  /// A number of 1 to 7 digits without leading zeros, out of the eight bytes at `p`; moves behind it.
  @inline(__always)
  static func shortNumber(_ p: inout UnsafeRawPointer) -> Int64? {
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

  /// A number from its sign or first digit on; moves behind it. What stands there then is for the caller to judge.
  @inline(__always)
  static func number(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> Number {
    if end - p > 8 {
      var behind = p
      if let value = shortNumber(&behind), behind.byte == comma || behind.byte == closeBrace {
        p = behind
        return Number(kind: .integer, mantissa: value)
      }
    }
    let isNegative = p.byte == minus
    if isNegative { p += 1 }
    let start = p
    var value: Int64 = 0
    while p < end, isDigit(p.byte) {
      value = value &* 10 &+ Int64(p.byte &- zero)
      p += 1
    }
    let count = p - start
    guard count >= 1, count == 1 || start.byte != zero else { return Number(kind: .malformed) }
    guard count <= 18 else { return Number(kind: .unsure) }
    guard p < end, p.byte == point || p.byte | 0x20 == 0x65 else {
      return Number(kind: .integer, mantissa: isNegative ? -value : value)
    }
    var rest = p
    let number = real(&rest, end, value, count, isNegative: isNegative)
    p = rest
    return number
  }

  /// What follows the integer part: a fraction, an exponent or both.
  @inline(never)
  private static func real(
    _ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer, _ whole: Int64, _ count: Int, isNegative: Bool
  ) -> Number {
    guard p.byte == point else { return Number(kind: .unsure) }
    p += 1
    let start = p
    var value = whole
    while p < end, isDigit(p.byte) {
      value = value &* 10 &+ Int64(p.byte &- zero)
      p += 1
    }
    let fraction = p - start
    guard fraction >= 1 else { return Number(kind: .malformed) }
    if p < end, p.byte | 0x20 == 0x65 { return Number(kind: .unsure) }
    return Number(
      kind: .real, mantissa: isNegative ? 0 &- value : value, digits: count + fraction,
      fractionDigits: fraction)
  }

  /// Ten to the `exponent`, 0...18.
  static func power(_ exponent: Int) -> Int64 {
    var power: Int64 = 1
    for _ in 0..<exponent { power *= 10 }
    return power
  }
}

extension UnsafeRawPointer {
  /// Eight bytes.
  @inline(__always)
  var word: UInt64 { loadUnaligned(as: UInt64.self) }

  /// Four bytes.
  @inline(__always)
  var half: UInt32 { loadUnaligned(as: UInt32.self) }

  @inline(__always)
  var byte: UInt8 { load(as: UInt8.self) }

  @inline(__always)
  subscript(place: Int) -> UInt8 { load(fromByteOffset: place, as: UInt8.self) }
}
