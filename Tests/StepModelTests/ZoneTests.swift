import Glibc
import StepModel
import Testing

@Suite struct ZoneTests {
  /// From Python's zoneinfo (fold 0): a local time, its instant, its day, the instant at which that day ends.
  static let moments: [(String, String, Int64, String, Int64)] = [
    ("Europe/Berlin", "2026-03-29 01:59:59", 1_774_745_999, "2026-03-29", 1_774_821_600),
    ("Europe/Berlin", "2026-03-29 02:30:00", 1_774_747_800, "2026-03-29", 1_774_821_600),
    ("Europe/Berlin", "2026-03-29 03:00:00", 1_774_746_000, "2026-03-29", 1_774_821_600),
    ("Europe/Berlin", "2026-10-25 01:59:59", 1_792_886_399, "2026-10-25", 1_792_969_200),
    ("Europe/Berlin", "2026-10-25 02:30:00", 1_792_888_200, "2026-10-25", 1_792_969_200),
    ("Europe/Berlin", "2026-10-25 03:00:00", 1_792_893_600, "2026-10-25", 1_792_969_200),
    ("America/New_York", "2026-03-08 02:15:00", 1_772_954_100, "2026-03-08", 1_773_028_800),
    ("America/New_York", "2026-11-01 01:15:00", 1_793_510_100, "2026-11-01", 1_793_595_600),
    ("Australia/Lord_Howe", "2026-04-05 01:45:00", 1_775_313_900, "2026-04-05", 1_775_395_800),
    ("Australia/Lord_Howe", "2026-10-04 02:10:00", 1_791_042_000, "2026-10-04", 1_791_118_800),
    ("Asia/Kathmandu", "1985-12-31 23:59:59", 504_901_799, "1985-12-31", 504_901_800),
    ("Asia/Kathmandu", "1986-01-01 00:10:00", 504_902_400, "1986-01-01", 504_987_300),
    ("Asia/Kathmandu", "2026-11-24 00:00:00", 1_795_457_700, "2026-11-24", 1_795_544_100),
    ("Pacific/Apia", "2011-12-29 23:59:59", 1_325_239_199, "2011-12-29", 1_325_239_200),
    ("Pacific/Apia", "2011-12-30 12:00:00", 1_325_282_400, "2011-12-31", 1_325_325_600),
    ("Pacific/Apia", "2011-12-31 00:00:00", 1_325_239_200, "2011-12-31", 1_325_325_600),
    ("America/Sao_Paulo", "2018-11-04 00:30:00", 1_541_302_200, "2018-11-04", 1_541_383_200),
    ("America/St_Johns", "2010-11-06 23:30:00", 1_289_095_200, "2010-11-06", 1_289_097_000),
    ("America/St_Johns", "2010-11-07 00:00:30", 1_289_097_030, "2010-11-07", 1_289_187_000),
    ("Africa/Monrovia", "1971-06-01 00:00:00", 44_585_070, "1971-06-01", 44_671_470),
    ("Europe/Berlin", "2100-07-01 00:00:00", 4_118_076_000, "2100-07-01", 4_118_162_400),
    ("America/New_York", "2099-12-31 23:59:59", 4_102_462_799, "2099-12-31", 4_102_462_800),
    ("Europe/Berlin", "2026-11-24 23:30:00Z", 1_795_563_000, "2026-11-25", 1_795_647_600),
    ("America/New_York", "2026-11-25 03:00:00+01:00", 1_795_572_000, "2026-11-24", 1_795_582_800),
  ]

  @Test("a repeated hour means the first, a skipped one is shifted forward", arguments: moments.indices)
  func local(row: Int) throws {
    let (zone, text, instant, day, dayEnd) = Self.moments[row]
    let rule = try DayRule(zone)
    let settings = ClusterSettings(dayRule: rule, acceptLate: .zero, futureSlack: .zero)
    let record = Array("{\"uuid\":\"u\",\"steps\":1,\"timestamp\":\"\(text)\"}".utf8)
    // The decoder shows an instant by its day and time of day, and the day's end by where `late` begins.
    let date = try #require(rule.day(atMilliseconds: instant * 1000))
    #expect(date.description == day)
    #expect(rule.startMilliseconds(of: Day(number: date.number + 1)) == dayEnd * 1000)
    let last = max(instant * 1000, dayEnd * 1000)
    #expect(
      outcome(record, clock: last, settings)
        == .accepted(
          user: "u", steps: 1, day: date, timeOfDay: (instant - Int64(date.number) * 86_400) * 1_000_000_000,
          offset: 7, source: nil, others: false))
    #expect(outcome(record, clock: last + 1, settings) == .rejected(.late))
    #expect(outcome(record, clock: instant * 1000 - 1, settings) == .rejected(.future))
  }

  @Test(
    "the starts of all days and the days of many instants, 1970 to 2024, are those of Python's zoneinfo",
    arguments: [
      ("Europe/Berlin", 0x37a5_6adf_dd47_c462, 0xd0c4_9c2f_ead3_d7dd),
      ("America/New_York", 0xf9ca_7561_bb6e_abaa, 0x6fef_9988_9418_d803),
      ("Australia/Lord_Howe", 0x92f9_6866_cd3d_5e62, 0xec8d_b9fd_0c79_eeef),
      ("Asia/Kathmandu", 0xe0c6_71c1_51c7_0c8d, 0xfc78_d01e_1bc0_b62c),
      ("Pacific/Apia", 0xd1e7_7177_0f2e_f3fc, 0x1a68_84e2_dc19_92c0),
    ] as [(String, UInt64, UInt64)])
  func wholeYears(zone: String, starts: UInt64, days: UInt64) throws {
    func add(_ hash: inout UInt64, _ value: Int64) {
      for shift in stride(from: 0, to: 64, by: 8) {
        hash = (hash ^ (UInt64(bitPattern: value) >> UInt64(shift) & 255)) &* 0x100_0000_01B3
      }
    }
    let rule = try DayRule(zone)
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for number in 0..<Int32(20_089) { add(&hash, rule.startMilliseconds(of: Day(number: number))) }
    #expect(hash == starts)
    hash = 0xCBF2_9CE4_8422_2325
    for second in stride(from: Int64(0), to: 20_089 * 86_400, by: 21_600 * 3 + 17) {
      add(&hash, Int64(rule.day(atMilliseconds: second * 1000).number))
    }
    #expect(hash == days)
  }

  @Test("board periods start and end at local midnight")
  func boards() throws {
    let rule = try DayRule("Europe/Berlin")
    func period(_ name: String) throws -> Range<Int64>? { rule.milliseconds(of: try #require(BoardID(name))) }
    #expect(try period("2026-03-29") == 1_774_738_800_000..<1_774_821_600_000)
    #expect(try period("2026-10-25") == 1_792_879_200_000..<1_792_969_200_000)
    #expect(try period("2026-W44") == 1_792_969_200_000..<1_793_574_000_000)
    #expect(try period("2026-10") == 1_790_805_600_000..<1_793_487_600_000)
    #expect(try period("all") == nil)
    #expect(try DayRule("Pacific/Apia").milliseconds(of: .day(Day(number: 15_338)))?.isEmpty == true)
    #expect(DayRule.event.day(atMilliseconds: -1) == Day(number: -1))
    #expect(DayRule.event.startMilliseconds(of: Day(number: 1)) == 86_400_000)
  }

  @Test(
    "a name that is no zone says where zones are looked for",
    arguments: ["Europe/Atlantis", "", "../../etc/passwd", "/etc/passwd", "Europe", "Mars Base", "EVENT"])
  func unknown(name: String) {
    #expect(throws: StepModelError.zoneUnknown(name: name, searched: "/usr/share/zoneinfo")) {
      try DayRule(name)
    }
    #expect(
      "\(StepModelError.zoneUnknown(name: name, searched: Zone.directory))".contains("/usr/share/zoneinfo"))
  }
}

/// Files made here: what the footer says, and what damage does.
@Suite struct ZoneFileTests {
  /// A folder with one zone, `Made`.
  func withZone<R>(_ bytes: [UInt8], _ body: (String) throws -> R) throws -> R {
    var path = Array("/tmp/zone-XXXXXX".utf8CString)
    let directory = try #require(mkdtemp(&path).map { String(cString: $0) })
    defer {
      unlink(directory + "/Made")
      rmdir(directory)
    }
    let file = try #require(fopen(directory + "/Made", "wb"))
    fwrite(bytes, 1, bytes.count, file)
    fclose(file)
    return try body(directory)
  }

  static func big(_ value: Int64, _ count: Int) -> [UInt8] {
    (0..<count).reversed().map { UInt8(truncatingIfNeeded: value >> Int64(8 * $0)) }
  }

  /// A version 2 file: an empty first part, then the changes, then the rule.
  static func file(
    changes: [(Int64, Int32)] = [], offset: Int32, footer: String, version: String = "2", leaps: Int64 = 0
  ) -> [UInt8] {
    func header(_ times: Int, _ types: Int, _ leaps: Int64) -> [UInt8] {
      var bytes = Array("TZif\(version)".utf8)
      bytes += [UInt8](repeating: 0, count: 15)
      for count in [0, 0, leaps, Int64(times), Int64(types), 4] { bytes += big(count, 4) }
      return bytes
    }
    let type = [UInt8](repeating: 0, count: 2)
    let name = Array("UTC\0".utf8)
    var bytes = header(0, 1, 0)
    bytes += big(0, 4)
    bytes += type
    bytes += name
    bytes += header(changes.count, changes.count + 1, leaps)
    for change in changes { bytes += big(change.0, 8) }
    for index in changes.indices { bytes.append(UInt8(index + 1)) }
    bytes += big(Int64(offset), 4) + type
    for change in changes { bytes += big(Int64(change.1), 4) + type }
    bytes += name
    bytes += [UInt8](repeating: 0, count: Int(leaps) * 12)
    bytes += Array("\n\(footer)\n".utf8)
    return bytes
  }

  static func offsets(_ zone: Zone, _ texts: [String]) -> [Int64] {
    let rule = DayRule.zone(zone)
    return texts.map { text in
      let date = BoardID(text)?.days?.lowerBound ?? Day(number: 0)
      return (Int64(date.number) * 86_400_000 - rule.startMilliseconds(of: date)) / 1000
    }
  }

  @Test("the footer's rule holds for all years after the last change")
  func footer() throws {
    let bytes = Self.file(offset: 3600, footer: "CET-1CEST,M3.5.0,M10.5.0/3")
    let zone = try withZone(bytes) { try Zone(name: "Made", directory: $0) }
    #expect(
      Self.offsets(
        zone,
        ["1970-01-01", "2026-03-29", "2026-03-30", "2026-10-25", "2026-10-26", "2100-07-01", "9999-07-01"])
        == [3600, 3600, 7200, 7200, 3600, 7200, 7200])
  }

  @Test(
    "every form of a rule is understood",
    arguments: [
      ("<+0545>-5:45", [20_700, 20_700]), ("EST5EDT,M3.2.0,M11.1.0", [-18_000, -14_400]),
      ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", [39_600, 37_800]),
      ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", [-7200, -3600]),
      ("EST5EDT4,J60,J300", [-18_000, -14_400]), ("EST5EDT,0/0,J365/25", [-14_400, -14_400]),
      ("IST-2IDT,M3.4.4/26,M10.5.0", [7200, 10_800]), ("AAA0BBB-1:30:15,59/-167,299/167", [0, 5415]),
    ])
  func rules(footer: String, expected: [Int64]) throws {
    let bytes = Self.file(offset: Int32(expected[0]), footer: footer)
    let zone = try withZone(bytes) { try Zone(name: "Made", directory: $0) }
    #expect(Self.offsets(zone, ["2026-01-15", "2026-07-15"]) == expected, "\(footer)")
    #expect(Self.offsets(zone, ["2400-01-15", "2400-07-15"]) == expected, "\(footer)")
  }

  @Test("equal rules have equal fingerprints, whatever the file's shape; other rules have others")
  func fingerprints() throws {
    func zone(_ bytes: [UInt8]) throws -> Zone {
      try withZone(bytes) { try Zone(name: "Made", directory: $0) }
    }
    let rule = "CET-1CEST,M3.5.0,M10.5.0/3"
    let slim = try zone(Self.file(changes: [(0, 3600)], offset: 0, footer: rule))
    // 2026-03-29 01:00 UTC and 2026-10-25 01:00 UTC written out are what the rule says anyway; those before are not.
    let start = try zone(Self.file(changes: [(0, 3600), (1_774_746_000, 7200)], offset: 0, footer: rule))
    let fat = try zone(Self.file(changes: [(0, 3600), (1, 3600)], offset: 0, footer: rule))
    #expect(slim.fingerprint == fat.fingerprint)
    #expect(slim.fingerprint != start.fingerprint)
    #expect(slim.fingerprint.utf8.count == 16)
    let utc = try Zone(name: "UTC")
    let same = try Zone(name: "Etc/UTC")
    let other = try Zone(name: "Europe/Berlin")
    #expect(utc.fingerprint == same.fingerprint && utc != same)
    #expect(utc.fingerprint != other.fingerprint)
  }

  @Test("a damaged file is named with what is wrong")
  func damage() throws {
    let good = Self.file(changes: [(0, 3600), (86_400, 7200)], offset: 0, footer: "UTC0")
    func reason(_ bytes: [UInt8]) throws -> String? {
      try withZone(bytes) { directory in
        do throws(StepModelError) {
          _ = try Zone(name: "Made", directory: directory)
          return nil
        } catch {
          guard case .zoneUnreadable("Made", directory + "/Made", let reason) = error else {
            return "\(error)"
          }
          return reason
        }
      }
    }
    #expect(try reason(good) == nil)
    for count in 0..<good.count { #expect(try reason(Array(good[0..<count])) != nil, "\(count) bytes") }
    #expect(try reason(Array("TZIF".utf8) + good[4...]) == "not a TZif file")
    #expect(try reason(Self.file(offset: 0, footer: "UTC0", version: "1"))?.contains("version 1") == true)
    #expect(try reason(Self.file(offset: 0, footer: "UTC0", leaps: 1)) == "a zone with leap seconds")
    #expect(
      try reason(Self.file(changes: [(5, 0), (5, 3600)], offset: 0, footer: "UTC0")) == "times out of order")
    #expect(try reason(Self.file(offset: 1_000_000, footer: "UTC0"))?.contains("offset") == true)
    for footer in [
      "UTC", "5", "CET-1CEST", "CET-1CEST,M3.5.0", "CET-1CEST,M13.5.0,M10.5.0", "CET-1CEST,M3.5.0,M10.5.0/",
      "UTC0 ",
    ] {
      #expect(
        try reason(Self.file(offset: 0, footer: footer))?.contains("not understood") == true, "\(footer)")
    }
  }
}
