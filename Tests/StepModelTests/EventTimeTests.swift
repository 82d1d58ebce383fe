import StepModel
import Testing

@Suite struct EventTimeTests {
  static func read(_ text: String) -> EventTime? {
    Array(text.utf8).withUnsafeBytes { EventTime($0) }
  }

  @Test(
    "the accepted forms are read to the nanosecond",
    arguments: [
      ("2026-11-24 10:20:30", 37_230, 0, nil), ("2026-11-24T10:20:30", 37_230, 0, nil),
      ("2026-11-24 00:00:00", 0, 0, nil), ("2026-11-24 23:59:59", 86_399, 0, nil),
      ("2026-11-24T10:20:30Z", 37_230, 0, 0), ("2026-11-24 10:20:30Z", 37_230, 0, 0),
      ("2026-11-24 10:20:30.5", 37_230, 500_000_000, nil), ("2026-11-24 10:20:30.000000001", 37_230, 1, nil),
      ("2026-11-24 10:20:30.123456789Z", 37_230, 123_456_789, 0),
      ("2026-11-24T10:20:30+05:45", 37_230, 0, 20_700), ("2026-11-24T10:20:30-0330", 37_230, 0, -12_600),
      ("2026-11-24T10:20:30.25-08", 37_230, 250_000_000, -28_800),
      ("2026-11-24T10:20:30+14:00", 37_230, 0, 50_400),
      ("2026-11-24T10:20:30-14", 37_230, 0, -50_400), ("2026-11-24T10:20:30-00:00", 37_230, 0, 0),
    ] as [(String, Int32, Int32, Int32?)])
  func forms(text: String, second: Int32, nanosecond: Int32, offset: Int32?) throws {
    let time = try #require(Self.read(text))
    #expect(time.date.description == "2026-11-24")
    #expect(time.second == second && time.nanosecond == nanosecond && time.offset == offset)
  }

  @Test(
    "anything else is no time",
    arguments: [
      "", "2026-11-24", "2026-11-24 10:20", "2026-11-24 24:00:00", "2026-11-24 10:60:00",
      "2026-11-24 10:20:60",
      "2026-11-24 23:59:60", "2026-11-24t10:20:30", "2026-11-24T10:20:30z", "2026-11-24_10:20:30",
      "2026-11-24  10:20:30",
      "2026-11-24 10:20:30.", "2026-11-24 10:20:30.1234567890", "2026-11-24 10:20:30,5",
      "2026-11-24 10:20:30 Z",
      "2026-11-24 10:20:30ZZ", "2026-11-24 10:20:30+14:01", "2026-11-24 10:20:30-15",
      "2026-11-24 10:20:30+01:60",
      "2026-11-24 10:20:30+1", "2026-11-24 10:20:30+01:", "2026-11-24 10:20:30+01:0",
      "2026-11-24 10:20:30+01000",
      "2026-11-24 10:20:30+", "2026-11-24 10:20:30\u{2212}01", "2026-02-29 00:00:00", "2026-04-31 00:00:00",
      "2026-00-01 00:00:00", "2026-13-01 00:00:00", "2026-01-00 00:00:00", "1969-12-31 23:59:59",
      "0000-01-01 00:00:00",
      "10000-01-01 00:00:00", "2026/11/24 10:20:30", "2026-11-24 10-20-30", " 2026-11-24 10:20:30",
      "2026-11-24 10:20:3:",
      "202a-11-24 10:20:30", "2026-11-24 1\u{FF10}:20:30", "2026-W48-2 10:20:30",
    ])
  func refused(text: String) {
    #expect(Self.read(text) == nil, "\(text)")
  }

  @Test("every second of a day is read, and no other number of hours, minutes and seconds")
  func clock() {
    func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
    for value in 0..<100 {
      #expect((Self.read("2026-11-24 \(two(value)):00:00")?.second == Int32(value * 3600)) == (value < 24))
      #expect((Self.read("2026-11-24 00:\(two(value)):00")?.second == Int32(value * 60)) == (value < 60))
      #expect((Self.read("2026-11-24 00:00:\(two(value))")?.second == Int32(value)) == (value < 60))
    }
  }

  @Test("integers are seconds, from 1e11 on milliseconds")
  func integers() {
    #expect(EventTime(integer: 0)?.date == Day(number: 0))
    #expect(EventTime(integer: 1_795_514_400)?.date.description == "2026-11-24")
    #expect(EventTime(integer: 1_795_514_400)?.second == 36_000)
    #expect(EventTime(integer: 1_795_514_400_250)?.nanosecond == 250_000_000)
    #expect(EventTime(integer: 99_999_999_999)?.date.description == "5138-11-16")
    #expect(EventTime(integer: 100_000_000_000)?.date.description == "1973-03-03")
    #expect(EventTime(integer: 253_402_300_799_999)?.date.description == "9999-12-31")
    #expect(EventTime(integer: 1)?.offset == 0)
    for refused in [-1, -100_000_000_000, 253_402_300_800_000, Int64.max, Int64.min] {
      #expect(EventTime(integer: refused) == nil, "\(refused)")
    }
  }

  @Test("doubles are cut to nanoseconds")
  func doubles() {
    #expect(EventTime(real: 0.5)?.nanosecond == 500_000_000)
    #expect(EventTime(real: -0.0)?.date == Day(number: 0))
    #expect(EventTime(real: 0.999_999_999_9)?.nanosecond == 999_999_999)
    #expect(EventTime(real: Double.leastNonzeroMagnitude)?.nanosecond == 0)
    #expect(EventTime(real: 1_795_514_400.25)?.nanosecond == 250_000_000)
    // Milliseconds with a fraction: 123 ms and 750 µs.
    #expect(EventTime(real: 1_795_514_400_123.75)?.nanosecond == 123_750_000)
    #expect(EventTime(real: 1e11)?.date.description == "1973-03-03")
    #expect(EventTime(real: 99_999_999_999.5)?.date.description == "5138-11-16")
    for refused in [-0.5, -1, -1e11, 1e300, 253_402_300_800_000, .infinity, -.infinity, .nan] {
      #expect(EventTime(real: refused) == nil, "\(refused)")
    }
  }
}
