// Records for the decoder: usual ones, odd but valid ones, wrong ones, and mutations of all three. Seeded, so that a
// difference can be replayed.

/// SplitMix64.
public struct FuzzRandom: Sendable {
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// 0..<count.
  public mutating func below(_ count: Int) -> Int { Int(next() % UInt64(count)) }

  public mutating func one<T>(of values: [T]) -> T { values[below(values.count)] }
}

/// An endless row of records.
public struct RecordSource: Sendable {
  private var random: FuzzRandom

  public init(seed: UInt64) { random = FuzzRandom(seed: seed) }

  /// A record as bytes: about a third usual, a third odd, a third mutated.
  public mutating func next() -> [UInt8] {
    switch random.below(6) {
    case 0, 1: return Array(usual().utf8)
    case 2: return Array(odd().utf8)
    case 3: return mutated(Array(odd().utf8))
    default: return mutated(Array(usual().utf8))
    }
  }

  /// A record laid out as producers write it.
  public mutating func usual() -> String {
    let gap = random.one(of: ["", " "])
    let source = random.one(of: [
      "", "", "", "", ",\(gap)\"source\":\(gap)\"phone\"", ",\(gap)\"source\":\(gap)17",
      ",\(gap)\"source\":\(gap)\"\"", ",\(gap)\"seq\":\(gap)\(random.below(1_000_000))",
    ])
    return
      "{\"uuid\":\(gap)\"\(user())\",\(gap)\"steps\":\(gap)\(random.below(20_000)),\(gap)\"timestamp\":\(gap)\(time())\(source)}"
  }

  /// Lower-case canonical mostly.
  mutating func user() -> String {
    switch random.below(8) {
    case 0: return "u\(random.below(1_000_000))"
    case 1: return String(uuid().uppercased())
    case 2: return String(repeating: "x", count: random.below(68))
    case 3: return uuid() + random.one(of: ["", "-", "0", "é", "\u{7F}"])
    default: return uuid()
    }
  }

  mutating func uuid() -> String {
    let digits = Array("0123456789abcdef")
    return String((0..<36).map { [8, 13, 18, 23].contains($0) ? "-" : digits[random.below(16)] })
  }

  /// A timestamp as a JSON value, mostly a real one near 2026-11-24.
  mutating func time() -> String {
    func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
    switch random.below(12) {
    case 2...7:
      let clock = "\(two(random.below(24))):\(two(random.below(60))):\(two(random.below(60)))"
      let offset = random.one(of: ["", "", "Z", "+01:00", ".25", ".000000001-0530"])
      return "\"2026-11-\(two(16 + random.below(9)))\(random.one(of: [" ", "T"]))\(clock)\(offset)\""
    case 0: return "\(1_795_500_000 + random.below(200_000))"
    case 1: return "\(1_795_500_000_000 + random.below(200_000_000))"
    default:
      let date =
        "\(random.one(of: ["2026", "2026", "2026", "1969", "1970", "9999"]))-11-\(two(random.below(32)))"
      let clock = "\(two(random.below(25))):\(two(random.below(61))):\(two(random.below(61)))"
      let fraction = random.one(of: ["", "", "", ".5", ".123456789", ".1234567890", "."])
      let offset = random.one(
        of: ["", "", "", "Z", "+01:00", "-05:00", "+0530", "-14", "+14:00", "+14:01", "z", "-00:00", "+1:00"])
      return "\"\(date)\(random.one(of: [" ", "T", "t", "_"]))\(clock)\(fraction)\(offset)\""
    }
  }

  private static let values = [
    "null", "true", "false", "0", "-0", "-1", "1", "12.0", "1e2", "12.5", "1e400", "-0.0", "1e-400", "100000",
    "100001",
    "9999999", "10000000", "18446744073709551615", "18446744073709551616", "-9223372036854775808",
    "-9223372036854775809", "01", "1.", ".5", "+1", "1795500000.25", "1795500000123.75", "99999999999",
    "100000000000", "-100000000000", "253402300799", "253402300800", "253402300799999", "253402300800000",
    "[]", "{}",
    "{\"a\": {\"b\": [{}, [ ], \"x\\u00e9\\\"\"]}, \"uuid\": -2.5}", "[[[[]]], {\"\": [true,null ,false]}]",
    "[1,{\"a\":[]}]", "{\"uuid\":1}", "\"\"", "\"\\u0000\"", "\"\\ud800\"", "\"\\ud83d\\ude00\"",
    "\"\\udc00\"",
    "\"a\\nb\"", "\"a\\\"b\"", "\"\\u0085\"", "\"\u{85}\"", "\"é\"", "\"\\/\"", "\"\\x\"", "\"u1\"",
    "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"", "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
    "\"2026-11-24 10:00:00\"", "\"2026-11-2\\u0034 10:00:00\"", "\"2026-02-29 10:00:00\"",
    "\"2024-02-29 10:00:00\"",
    "5e-324", "0.5", "1.7976931348623159e308", "1E2", "1e+2", "-12.0", "Infinity", "NaN", "tru", "'a'",
  ]

  private static let keys = [
    "uuid", "steps", "timestamp", "source", "\\u0075uid", "step\\u0073", "UUID", "uuid ", "", "x", "user",
    "sourc\\u0065",
  ]

  /// Valid or not: any order, unknown and repeated keys, values of every kind, odd white space.
  public mutating func odd() -> String {
    var members: [(String, String)] = [
      ("uuid", "\"\(user())\""), ("steps", "\(random.below(120_000))"), ("timestamp", time()),
    ]
    for _ in 0..<random.below(3) {
      members.append((random.one(of: RecordSource.keys), random.one(of: RecordSource.values)))
    }
    if random.below(3) == 0 { members[random.below(3)].1 = random.one(of: RecordSource.values) }
    if random.below(10) == 0 { members.remove(at: random.below(members.count)) }
    if random.below(2) == 0 { for i in members.indices { members.swapAt(i, random.below(members.count)) } }
    let spaces = random.below(2) == 0 ? [""] : ["", " ", "\n", "\t", "\r", "  "]
    var text = random.one(of: spaces) + "{"
    for (index, member) in members.enumerated() {
      text += index == 0 ? random.one(of: spaces) : random.one(of: spaces) + "," + random.one(of: spaces)
      text += "\"\(member.0)\"" + random.one(of: spaces) + ":" + random.one(of: spaces) + member.1
    }
    return text + random.one(of: spaces) + "}" + random.one(of: spaces)
  }

  /// One to three bytes changed, dropped, doubled or added, a run repeated, or the end cut off.
  public mutating func mutated(_ record: [UInt8]) -> [UInt8] {
    let interesting: [UInt8] = [
      0, 9, 10, 0x1F, 0x20, 0x22, 0x2C, 0x2D, 0x2E, 0x30, 0x31, 0x39, 0x3A, 0x5C, 0x5D, 0x5B, 0x65, 0x7B,
      0x7D, 0x7F,
      0x80, 0xC2, 0xEF, 0xFF,
    ]
    var bytes = record
    for _ in 0...random.below(3) {
      guard !bytes.isEmpty else { break }
      let place = random.below(bytes.count)
      switch random.below(8) {
      case 0: bytes.remove(at: place)
      case 1: bytes.insert(random.one(of: interesting), at: place)
      case 2: bytes[place] = random.one(of: interesting)
      case 3: bytes[place] = UInt8(truncatingIfNeeded: random.next())
      case 4: bytes[place] ^= 1 << UInt8(random.below(8))
      case 5: bytes.insert(bytes[place], at: place)
      case 6:
        if random.below(4) == 0 {
          bytes.removeSubrange(place...)
        } else {
          bytes[place] = bytes[random.below(bytes.count)]
        }
      default:
        let count = min(1 + random.below(12), bytes.count - place)
        bytes.insert(contentsOf: bytes[place..<place + count], at: random.below(bytes.count))
      }
    }
    return bytes
  }
}
