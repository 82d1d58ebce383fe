import FuzzBodies
import StepModel
import Testing

/// Decodes one record by both roads, which must agree.
func outcome(_ bytes: [UInt8], clock: Int64 = noon, _ settings: ClusterSettings) -> Outcome {
  var decoder = StepDecoder(settings: settings)
  return bytes.withUnsafeBytes { payload in
    var event = StepEvent(
      user: UserKey(high: 0, low: 0), offset: 0, timeOfDay: 0, steps: 0, day: Day(number: 0))
    let judged = Outcome(decoder.judged(payload, offset: 7, shardClock: clock, into: &event), event)
    let decoded = Outcome(decoder.decode(payload, offset: 7, shardClock: clock, into: &event), event)
    #expect(decoded == judged, "\(String(decoding: bytes, as: UTF8.self))")
    return decoded
  }
}

func outcome(_ text: String, clock: Int64 = noon, zone: String = "UTC") throws -> Outcome {
  outcome(Array(text.utf8), clock: clock, ClusterSettings(dayRule: try DayRule(zone)))
}

/// 2026-11-24 12:00 UTC.
let noon: Int64 = 1_795_521_600_000
private let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
private let today = Day(number: 20_781)

/// A record of three values as they stand in JSON.
private func record(
  uuid user: String = "\"u1\"", steps: String = "5", timestamp: String = "\"2026-11-24 10:00:00\"",
  more: String = ""
) -> String {
  "{\"uuid\": \(user), \"steps\": \(steps), \"timestamp\": \(timestamp)\(more)}"
}

@Suite struct StepDecoderTests {
  @Test("the original's record becomes a step event")
  func original() throws {
    let text = record(uuid: "\"\(uuid)\"", steps: "1234")
    #expect(
      try outcome(text)
        == .accepted(
          user: uuid, steps: 1234, day: today, timeOfDay: 36_000_000_000_000, offset: 7, source: nil,
          others: false
        ))
  }

  static let rejectedRecords: [(RejectReason, String)] = [
    (RejectReason.malformed, ""), (.malformed, " "), (.malformed, "[]"), (.malformed, "5"),
    (.malformed, "{} x"),
    (.malformed, "\u{FEFF}" + record()), (.malformed, record() + record()), (.malformed, record() + "\0"),
    (.malformed, record(more: ", \"x\": \"\\ud800\"")), (.malformed, record(more: ", \"x\": \"\\udc00\"")),
    (.malformed, record(more: ", \"\\ud800\": 1")),
    (.malformed, record(more: ", \"x\": 18446744073709551616")),
    (.malformed, record(more: ", \"x\": -9223372036854775809")),
    (.malformed, record(more: ", \"x\": 1e400")),
    (.malformed, record(more: ", \"x\": [1e400]")), (.malformed, record(more: ",")),
    (.malformed, record(steps: "05")),
    (.malformed, record(steps: "+5")), (.malformed, record(steps: "5.")),
    (.malformed, record(steps: "NaN")),
    (.malformed, record(uuid: "\"a\tb\"")), (.malformed, record(uuid: "'a'")),
    (.malformed, record() + "\u{0C}"),
    (.malformed, "{\"uuid\""), (.malformed, String(record().dropLast())),
    (.repeated, record(more: ", \"uuid\": \"u1\"")), (.repeated, record(more: ", \"\\u0075uid\": null")),
    (.repeated, record(more: ", \"steps\": 5")),
    (.repeated, record(more: ", \"source\": 1, \"source\": 1")),
    (.missing, "{}"), (.missing, "{\"uuid\": \"u1\", \"steps\": 1}"),
    (.missing, "{\"uuid\": \"u1\", \"timestamp\": 1}"),
    (.missing, "{\"steps\": 1, \"timestamp\": 1}"),
    (.missing, "{\"x\": {\"uuid\": 1}, \"steps\": 1, \"timestamp\": 1}"),
    (.type, record(uuid: "null")), (.type, record(uuid: "1.0")), (.type, record(uuid: "1e2")),
    (.type, record(uuid: "true")), (.type, record(uuid: "[\"u1\"]")), (.type, record(steps: "12.5")),
    (.type, record(steps: "\"12\"")), (.type, record(steps: "null")), (.type, record(steps: "-0.5")),
    (.type, record(timestamp: "null")), (.type, record(timestamp: "{}")),
    (.type, record(timestamp: "false")),
    (.type, record(more: ", \"source\": null")), (.type, record(more: ", \"source\": 1.0")),
    (.type, record(more: ", \"source\": \"\(String(repeating: "x", count: 33))\"")),
    (.type, record(more: ", \"source\": \"\(String(repeating: "é", count: 17))\"")),
    (.user, record(uuid: "\"\"")), (.user, record(uuid: "\"\(String(repeating: "x", count: 65))\"")),
    (.user, record(uuid: "\"\(String(repeating: "é", count: 33))\"")),
    (.user, record(uuid: "\"a\\u0000\"")),
    (.user, record(uuid: "\"\\n\"")), (.user, record(uuid: "\"\u{7F}\"")),
    (.user, record(uuid: "\"\u{80}\"")),
    (.user, record(uuid: "\"a\u{9F}\"")), (.user, record(uuid: "\"\\u0085\"")),
    (.steps, record(steps: "-1")), (.steps, record(steps: "100001")), (.steps, record(steps: "-1.0")),
    (.steps, record(steps: "1e30")), (.steps, record(steps: "-1e30")),
    (.steps, record(steps: "18446744073709551615")),
    (.time, record(timestamp: "\"yesterday\"")), (.time, record(timestamp: "\"\"")),
    (.time, record(timestamp: "\"2026-02-29 10:00:00\"")),
    (.time, record(timestamp: "\"1969-12-31 23:59:59\"")),
    (.time, record(timestamp: "\"\(String(repeating: "\\u0000", count: 10)) 10:00:00\"")),
    (.time, record(timestamp: "-1")), (.time, record(timestamp: "-0.5")),
    (.time, record(timestamp: "253402300800000")),
    (.time, record(timestamp: "18446744073709551615")), (.time, record(timestamp: "1e300")),
    (.future, record(timestamp: "\"2026-11-24 12:10:01\"")),
    (.future, record(timestamp: "\"2026-11-24 12:10:00.000000001\"")),
    (.future, record(timestamp: "\"9999-12-31 23:59:59-14:00\"")),
    (.late, record(timestamp: "\"2026-11-15 23:59:59\"")), (.late, record(timestamp: "0")),
  ]

  @Test("each reason of the table has its records", arguments: rejectedRecords)
  func reasons(reason: RejectReason, text: String) throws {
    #expect(try outcome(text) == .rejected(reason), "\(text)")
  }

  @Test("the first reason of the table wins")
  func precedence() throws {
    // A record of two faults for each pair of neighbours, and for pairs further apart.
    let fault: [(RejectReason, uuid: String?, steps: String?, timestamp: String?, more: String)] = [
      (.malformed, nil, nil, nil, ", \"z\": 01"),
      (.repeated, nil, nil, nil, ", \"source\": 1, \"source\": 2"),
      (.type, nil, nil, nil, ", \"source\": null"), (.user, "\"\"", nil, nil, ""),
      (.steps, nil, "-1", nil, ""),
      (.time, nil, nil, "\"x\"", ""), (.future, nil, nil, "\"2027-01-01 00:00:00\"", ""),
      (.late, nil, nil, "\"2020-01-01 00:00:00\"", ""),
    ]
    for (index, first) in fault.enumerated() {
      for second in fault[(index + 1)...] where first.timestamp == nil || second.timestamp == nil {
        let text = record(
          uuid: first.uuid ?? second.uuid ?? "\"u1\"", steps: first.steps ?? second.steps ?? "5",
          timestamp: first.timestamp ?? second.timestamp ?? "\"2026-11-24 10:00:00\"",
          more: first.more + second.more)
        #expect(try outcome(text) == .rejected(first.0), "\(first.0) before \(second.0): \(text)")
      }
    }
    // An absent member can stand beside any fault that is not its own.
    #expect(try outcome("{\"uuid\": 1, \"uuid\": 2}") == .rejected(.repeated))
    #expect(try outcome("{\"uuid\": null, \"steps\": -1}") == .rejected(.missing))
    #expect(try outcome("{\"uuid\": \"\", \"timestamp\": \"x\"}") == .rejected(.missing))
    #expect(try outcome("{\"uuid\": 1.5, \"steps\": 1,}") == .rejected(.malformed))
  }

  static let acceptedRecords: [(String, String, UInt32)] = [
    (record(), "u1", 5), (record(uuid: "17"), "17", 5),
    (record(uuid: "-9223372036854775808"), "-9223372036854775808", 5),
    (record(uuid: "18446744073709551615"), "18446744073709551615", 5), (record(uuid: "-0"), "0", 5),
    (record(uuid: "\"\\u0075\\u0031\""), "u1", 5), (record(uuid: "\"\\ud83d\\ude00\""), "😀", 5),
    (record(uuid: "\"日本\""), "日本", 5), (record(uuid: "\"\u{A0}\""), "\u{A0}", 5),
    (record(uuid: "\"a\\\"b\\\\\""), "a\"b\\", 5),
    (record(uuid: "\"\(uuid.uppercased())\""), uuid.uppercased(), 5),
    (record(uuid: "\"\(String(repeating: "x", count: 64))\""), String(repeating: "x", count: 64), 5),
    (record(steps: "0"), "u1", 0), (record(steps: "-0"), "u1", 0), (record(steps: "-0.0"), "u1", 0),
    (record(steps: "12.0"), "u1", 12), (record(steps: "1e2"), "u1", 100),
    (record(steps: "1E+2"), "u1", 100),
    (record(steps: "100000"), "u1", 100_000), (record(steps: "99999.99999999999999"), "u1", 100_000),
    (record(more: ", \"source\": \"\(String(repeating: "x", count: 32))\""), "u1", 5),
    (record(more: ", \"source\": 18446744073709551615"), "u1", 5),
    (record(more: ", \"source\": \"\""), "u1", 5),
    (record(more: ", \"x\": {\"uuid\": null, \"uuid\": [1.5e300]}, \"X\": -1.5"), "u1", 5),
    ("\r\n\t " + record() + " \n", "u1", 5),
    ("{\"timestamp\":1795514400,\"steps\":5,\"uuid\":\"u1\",\"x\":true}", "u1", 5),
    ("{\"timest\\u0061mp\": 1795514400123, \"steps\": 5, \"uuid\": \"u1\"}", "u1", 5),
  ]

  @Test("odd but valid records are accepted", arguments: acceptedRecords)
  func accepted(text: String, user: String, steps: UInt32) throws {
    guard case .accepted(let gotUser, let gotSteps, let day, _, _, _, _) = try outcome(text) else {
      Issue.record("\(text): \(try outcome(text))")
      return
    }
    #expect(gotUser == user && gotSteps == steps && day == today, "\(text)")
  }

  static let sources: [(String, String?, Bool)] = [
    ("", nil, false), (", \"source\": \"phone\"", "phone", false), (",\"source\":\"\"", "", false),
    (", \"source\": 17", "17", false), (", \"source\": -17", "-17", false), (", \"source\": 0", "0", false),
    (", \"source\": -0", "0", false), (", \"source\": 18446744073709551615", "18446744073709551615", false),
    (", \"source\": -9223372036854775808", "-9223372036854775808", false),
    (", \"source\": \"\(String(repeating: "x", count: 32))\"", String(repeating: "x", count: 32), false),
    (", \"sourc\\u0065\": \"\\u00e9\"", "é", false), (", \"source\": \"a\\u0000b\"", "a\0b", false),
    (", \"x\": 1", nil, true), (", \"x\": [1]", nil, true), (", \"source\": \"a\", \"\": null", "a", true),
    (", \"\\u0078\": 1, \"source\": 5", "5", true), (", \"x\": {\"source\": 5}", nil, true),
  ]

  @Test("source and unknown members are reported, absent ones apart from empty ones", arguments: sources)
  func sources(more: String, source: String?, others: Bool) throws {
    guard case .accepted(_, _, _, _, _, let gotSource, let gotOthers) = try outcome(record(more: more)) else {
      Issue.record("\(more): \(try outcome(record(more: more)))")
      return
    }
    #expect(gotSource == source && gotOthers == others, "\(more)")
  }

  @Test("an event takes 64 bytes, and one made by hand keeps an empty source apart from none")
  func size() {
    #expect(MemoryLayout<StepEvent>.stride == 64)
    func event(_ source: UnsafeRawBufferPointer?) -> StepEvent {
      StepEvent(
        user: UserKey(high: 0, low: 0), offset: 0, timeOfDay: 0, steps: 0, day: today, source: source)
    }
    #expect(event(nil).source == nil)
    #expect(event(UnsafeRawBufferPointer(start: nil, count: 0)).source?.count == 0)
    Array("phone".utf8).withUnsafeBytes { #expect(event($0).source.map(Array.init) == Array("phone".utf8)) }
  }

  @Test(
    "nesting of 1,024 is valid, one more is malformed, whatever is innermost",
    arguments: ["1", "[]", "{}", "\"[\""])
  func nesting(innermost: String) throws {
    let own = innermost == "[]" || innermost == "{}" ? 1 : 0
    func text(_ levels: Int) -> String {
      let lists = levels - 1 - own
      return record(
        more: ", \"x\": " + String(repeating: "[", count: lists) + innermost
          + String(repeating: "]", count: lists))
    }
    #expect(try outcome(text(1024)) != .rejected(.malformed))
    #expect(try outcome(text(1025)) == .rejected(.malformed))
    #expect(try outcome(text(5000)) == .rejected(.malformed))
  }

  @Test("bytes that are no UTF-8 are malformed, wherever they are")
  func notUTF8() {
    let settings = ClusterSettings(dayRule: .event)
    for wrong: [UInt8] in [[0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xC3]] {
      for place in ["uuid", "x"] {
        let head = place == "x" ? "{\"x\": \"" : "{\"uuid\": \""
        let tail =
          place == "x"
          ? "\", \"uuid\": 1, \"steps\": 1, \"timestamp\": 1795514400}"
          : "\", \"steps\": 1, \"timestamp\": 1795514400}"
        #expect(outcome(head.utf8 + wrong + tail.utf8, settings) == .rejected(.malformed))
      }
    }
    #expect(outcome([], settings) == .rejected(.malformed))
  }

  @Test("a long record is read whole, and memory for it does not stay")
  func long() throws {
    let filler = String(repeating: "0123456789abcdef", count: 200_000)
    #expect(try outcome(record(more: ", \"x\": \"\(filler)\"")) != .rejected(.malformed))
    #expect(try outcome(record(more: ", \"x\": \"\(filler)\"}")) == .rejected(.malformed))
  }

  @Test("future and late are decided at the edge by the shard clock alone")
  func edges() throws {
    let text = record(timestamp: "\"2026-11-24 10:00:00\"")
    let event = noon - 7_200_000
    let dayEnd = noon + 43_200_000
    #expect(try outcome(text, clock: event - 600_001) == .rejected(.future))
    #expect(try outcome(text, clock: event - 600_000) != .rejected(.future))
    #expect(try outcome(text, clock: dayEnd + 8 * 86_400_000) != .rejected(.late))
    #expect(try outcome(text, clock: dayEnd + 8 * 86_400_000 + 1) == .rejected(.late))
    #expect(try outcome(text, clock: .max) == .rejected(.late))
    #expect(try outcome(text, clock: .min) == .rejected(.future))
    // In the timestamp's own offset the day ends when the user's midnight comes.
    let west = record(timestamp: "\"2026-11-24 10:00:00-05:00\"")
    let westEnd = dayEnd + 5 * 3_600_000
    #expect(try outcome(west, clock: westEnd + 8 * 86_400_000, zone: "event") != .rejected(.late))
    #expect(try outcome(west, clock: westEnd + 8 * 86_400_000 + 1, zone: "event") == .rejected(.late))
  }

  @Test("settings move the bounds")
  func settings() throws {
    let settings = ClusterSettings(
      dayRule: .event, acceptLate: .zero, futureSlack: .zero, stepsMax: 4_294_967_295)
    func read(_ text: String, _ clock: Int64) -> Outcome { outcome(Array(text.utf8), clock: clock, settings) }
    #expect(read(record(steps: "4294967295"), noon) != .rejected(.steps))
    #expect(read(record(steps: "4294967296"), noon) == .rejected(.steps))
    #expect(read(record(), noon - 7_200_000) != .rejected(.future))
    #expect(read(record(), noon - 7_200_001) == .rejected(.future))
    #expect(read(record(), noon + 43_200_001) == .rejected(.late))
  }

  @Test("the user's own midnight decides in event mode, the cluster's otherwise")
  func midnight() throws {
    let text = record(timestamp: "\"2026-11-24T23:59:59.9-05:00\"")
    let clock = noon + 86_400_000
    func day(_ outcome: Outcome) -> Day? {
      if case .accepted(_, _, let day, _, _, _, _) = outcome { return day }
      return nil
    }
    #expect(day(try outcome(text, clock: clock, zone: "event")) == today)
    #expect(day(try outcome(text, clock: clock)) == Day(number: today.number + 1))
    #expect(day(try outcome(text, clock: clock, zone: "America/New_York")) == today)
  }

  @Test("an event five days late counts, one ten days late is late")
  func fiveDays() throws {
    let day: Int64 = 86_400_000
    #expect(try outcome(record(), clock: noon + 5 * day) != .rejected(.late))
    #expect(try outcome(record(), clock: noon + 10 * day) == .rejected(.late))
  }

  @Test("keys of a chunk stay valid until reset, and rejected records take no room")
  func keys() throws {
    var decoder = StepDecoder(settings: ClusterSettings(dayRule: .event))
    for _ in 0..<2 {
      var events: [StepEvent] = []
      for index in 0..<StepDecoder.eventsPerResetMax {
        // Escapes, so that the texts are the decoder's own and not the record's.
        let user = "\\u00e9" + String(repeating: "x", count: 56) + String(1_000_00 + index)
        var event = StepEvent(
          user: UserKey(high: 0, low: 0), offset: 0, timeOfDay: 0, steps: 0, day: Day(number: 0))
        let source = ", \"source\": \"\\u00fc\(String(repeating: "s", count: 30))\""
        Array(record(uuid: "\"\(user)\"", more: source).utf8).withUnsafeBytes {
          #expect(decoder.decode($0, offset: 0, shardClock: noon, into: &event) == nil)
        }
        events.append(event)
        Array(record(uuid: "\"\(user)\"", timestamp: "0", more: source).utf8).withUnsafeBytes { payload in
          var other = event
          #expect(decoder.decode(payload, offset: 0, shardClock: noon, into: &other) == .late)
        }
      }
      for (index, event) in events.enumerated() {
        guard case .accepted(let user, _, _, _, _, let source, _) = Outcome(nil, event) else { continue }
        #expect(user == "é" + String(repeating: "x", count: 56) + String(1_000_00 + index))
        #expect(source == "\u{FC}" + String(repeating: "s", count: 30))
      }
      decoder.reset()
    }
  }
}
