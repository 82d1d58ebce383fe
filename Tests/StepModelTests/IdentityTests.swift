import StepModel
import TestSupport
import Testing

@Suite struct DayTests {
  @Test("day numbers and dates are each other's inverse, over the years 1970 to 9999")
  func inverse() {
    var number: Int32 = 0
    for year in 1970...9999 where year < 2110 || year > 9990 || year % 97 == 0 {
      if let first = Day(year: year, month: 1, day: 1) { number = first.number }
      for month in 1...12 {
        for day in 1...Day.count(year: year, month: month) {
          let date = Day(year: year, month: month, day: day)
          #expect(date?.number == number)
          let civil = Day(number: number).civil
          #expect(civil == (year, month, day))
          number += 1
        }
      }
    }
    #expect(Day(year: 1970, month: 1, day: 1)?.number == 0)
    #expect(Day(year: 2026, month: 11, day: 24)?.number == 20_781)
    #expect(Day(year: 2000, month: 2, day: 29) != nil && Day(year: 2100, month: 2, day: 29) == nil)
    #expect(Day(number: -1).description == "1969-12-31")
  }

  @Test("weeks start on Monday, also before 1970")
  func weeks() {
    #expect(Day(number: 0).isoWeekday == 4)
    #expect(Day(number: -1).isoWeekday == 3 && Day(number: -8).isoWeekday == 3)
    #expect(Day(number: 20_781).monday.description == "2026-11-23")
    #expect(Day(number: 20_780).monday == Day(number: 20_780).monday)
    #expect(Day(number: 20_781).month == 682)
    #expect(Day(number: -1).month == -1)
  }
}

@Suite struct BoardIDTests {
  @Test(
    "a board's name is read and written alike",
    arguments: [
      "2026-11-24", "1970-01-01", "9999-12-31", "2024-02-29", "2026-W48", "2026-W01", "2026-W53", "2020-W53",
      "1970-W01", "2026-11", "1970-01",
      "9999-12", "all",
    ])
  func names(name: String) throws {
    #expect(try #require(BoardID(name)).description == name)
  }

  @Test(
    "other names are no boards",
    arguments: [
      "", "2026", "2026-02-29", "2026-00", "2026-13", "2026-W00", "2026-W54", "2025-W53", "1969-12-31",
      "2026-1-1", "ALL",
      "2026-w48", "2026-11-24 ", "2026/11/24", "+026-11-24", "today", "2026-11-2x",
    ])
  func refused(name: String) {
    #expect(BoardID(name) == nil)
  }

  @Test("a period holds the days of its name")
  func periods() throws {
    func days(_ name: String) throws -> String? {
      try #require(BoardID(name)).days.map { "\($0.lowerBound) \($0.upperBound)" }
    }
    #expect(try days("2026-11-24") == "2026-11-24 2026-11-25")
    #expect(try days("2026-W48") == "2026-11-23 2026-11-30")
    #expect(try days("2026-W01") == "2025-12-29 2026-01-05")
    #expect(try days("2020-W53") == "2020-12-28 2021-01-04")
    #expect(try days("2024-02") == "2024-02-01 2024-03-01")
    #expect(try days("2026-12") == "2026-12-01 2027-01-01")
    #expect(try days("all") == nil)
  }
}

@Suite struct UserIDTests {
  @Test("ids of 1 to 64 bytes without control characters are valid")
  func valid() {
    #expect(
      UserID("a") != nil && UserID(String(repeating: "é", count: 32)) != nil && UserID("\u{A0} ") != nil)
    for wrong in [
      "", String(repeating: "x", count: 65), String(repeating: "é", count: 33), "\0", "a\n", "\u{7F}",
      "\u{80}", "x\u{9F}",
    ] {
      #expect(UserID(wrong) == nil, "\(Array(wrong.utf8))")
    }
  }

  @Test("order and equality are those of the bytes, not of Unicode")
  func order() throws {
    let composed = try #require(UserID("\u{E9}"))
    let decomposed = try #require(UserID("e\u{301}"))
    #expect(composed != decomposed && decomposed < composed)
    #expect(Set([composed, decomposed]).count == 2)
  }

  @Test("a canonical UUID becomes 16 bytes and back, in the order of its text", arguments: Seed.some(8))
  func uuids(seed: Seed) throws {
    var random = seed.random
    func text() -> String {
      let digits = Array("0123456789abcdef")
      return String(
        (0..<36).map { [8, 13, 18, 23].contains($0) ? "-" : digits[Int.random(in: 0..<16, using: &random)] })
    }
    let a = text()
    let b = text()
    let keyA = try #require(Array(a.utf8).withUnsafeBytes { UserKey.canonicalUUID($0) })
    let keyB = try #require(Array(b.utf8).withUnsafeBytes { UserKey.canonicalUUID($0) })
    #expect(((keyA.high, keyA.low) < (keyB.high, keyB.low)) == (a < b))
    let written = [UInt8](unsafeUninitializedCapacity: 36) { buffer, count in
      if let base = buffer.baseAddress { count = keyA.write(to: base) }
    }
    #expect(String(decoding: written, as: UTF8.self) == a)
    // Any other byte at any place makes it another id.
    var bytes = Array(a.utf8)
    for place in 0..<36 {
      let good = bytes[place]
      for wrong in UInt8.min...UInt8.max where wrong != good {
        let isDigit = (0x30...0x39).contains(wrong) || (0x61...0x66).contains(wrong)
        bytes[place] = wrong
        let read = bytes.withUnsafeBytes { UserKey.canonicalUUID($0) }
        #expect((read != nil) == (isDigit && good != 0x2D), "byte \(wrong) at \(place) of \(a)")
      }
      bytes[place] = good
    }
    for count in [0, 35, 37] {
      #expect(Array((a + "0").utf8).prefix(count).withUnsafeBytes { UserKey.canonicalUUID($0) } == nil)
    }
  }
}

@Suite struct ClusterSettingsTests {
  @Test("the fingerprint changes with every setting and with nothing else")
  func fingerprint() throws {
    let base = ClusterSettings(dayRule: try DayRule("UTC"))
    var others = [base]
    func add(_ change: (inout ClusterSettings) throws -> Void) rethrows {
      var other = base
      try change(&other)
      others.append(other)
    }
    add { $0.stepsMode = .totalNewest }
    add { $0.stepsMode = .totalMax }
    add { $0.dayRule = .event }
    try add { $0.dayRule = try DayRule("Europe/Berlin") }
    add { $0.acceptLate = .seconds(1) }
    add { $0.futureSlack = .milliseconds(1) }
    add { $0.stepsMax = 1 }
    add { $0.boardsWeek = true }
    add { $0.boardsMonth = true }
    add { $0.boardsAll = true }
    #expect(Set(others.map(\.fingerprint)).count == others.count)
    #expect(ClusterSettings(dayRule: try DayRule("UTC")).fingerprint == base.fingerprint)
    #expect(base.text.hasPrefix("steps.mode = increment\nday.zone = UTC, rules "))
    // A value that must not change: clusters compare it across versions.
    #expect(ClusterSettings(dayRule: .event).fingerprint == "1990fddb734e3191")
  }
}
