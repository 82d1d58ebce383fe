// TZif files (RFC 8536, versions 2 and up), as /usr/share/zoneinfo holds them.
//
//   header   44 bytes: "TZif", version, 15 unused, then six counts of 4 bytes (big-endian):
//            isutcnt, isstdcnt, leapcnt, timecnt, typecnt, charcnt
//   data     timecnt × instant, timecnt × type index (1), typecnt × (offset 4, isdst 1, name index 1), charcnt,
//            leapcnt × (instant + 4), isstdcnt, isutcnt; instants of 4 bytes
//   then     the same header and data again with instants of 8 bytes, which is what we read
//   footer   "\n", POSIX TZ rule for all times after the last instant, "\n"

import Glibc

/// What a zone's file says: the offset before all changes, and the changes in order up to the year 10000.
struct ZoneRules: Equatable {
  struct Change: Equatable {
    /// Seconds since 1970 UTC.
    var instant: Int64
    /// Seconds east of UTC from then on.
    var offset: Int32
  }

  var offsetBefore: Int32 = 0
  var changes: [Change] = []
}

enum ZoneFile {
  /// Largest file that is read; the largest of tzdata has 4 KiB.
  static let bytesMax = 1 << 20
  /// Longest name; the longest of tzdata has 32 characters.
  static let nameBytesMax = 128

  /// Reads a zone's file.
  ///
  /// - Parameters:
  ///   - name: path below the folder; letters, digits, `_`, `+`, `-` and `/` only.
  ///   - directory: where zones are.
  /// - Returns: the zone's rules.
  /// - Throws: `zoneUnknown`, `zoneUnreadable`.
  static func read(name: String, directory: String) throws(StepModelError) -> ZoneRules {
    let path = directory + "/" + name
    guard isName(name) else { throw .zoneUnknown(name: name, searched: directory) }
    guard let file = fopen(path, "rb") else {
      if errno == ENOENT || errno == ENOTDIR { throw .zoneUnknown(name: name, searched: directory) }
      throw .zoneUnreadable(name: name, path: path, reason: String(cString: strerror(errno)))
    }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16_384)
    while bytes.count <= bytesMax {
      let count = fread(&chunk, 1, chunk.count, file)
      if count == 0 { break }
      bytes += chunk[0..<count]
    }
    if ferror(file) != 0 {
      // A folder opens for reading, and fails here.
      if errno == EISDIR { throw .zoneUnknown(name: name, searched: directory) }
      throw .zoneUnreadable(name: name, path: path, reason: String(cString: strerror(errno)))
    }
    do throws(Damage) {
      guard bytes.count <= bytesMax else { throw Damage("over \(bytesMax) bytes") }
      return try rules(of: bytes)
    } catch {
      throw .zoneUnreadable(name: name, path: path, reason: error.reason)
    }
  }

  private static func isName(_ name: String) -> Bool {
    guard (1...nameBytesMax).contains(name.utf8.count), name.utf8.first != UInt8(ascii: "/") else {
      return false
    }
    return name.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "+"), UInt8(ascii: "-"),
        UInt8(ascii: "/"):
        true
      default: false
      }
    }
  }

  /// Why bytes are no usable zone.
  struct Damage: Error {
    let reason: String

    init(_ reason: String) { self.reason = reason }
  }

  /// Reads the bytes of a TZif file.
  static func rules(of bytes: [UInt8]) throws(Damage) -> ZoneRules {
    var place = 0
    let old = try header(bytes, &place)
    guard old.version >= UInt8(ascii: "2") else { throw Damage("version 1 holds no 64-bit times") }
    try skip(old.dataCount(instantCount: 4), bytes, &place)
    let counts = try header(bytes, &place)
    guard counts.types >= 1, counts.leaps == 0 else {
      throw Damage(counts.leaps == 0 ? "no offset in it" : "a zone with leap seconds")
    }
    let data = place
    try skip(counts.dataCount(instantCount: 8), bytes, &place)

    let indexes = data + counts.times * 8
    let types = indexes + counts.times
    func offset(_ type: Int) throws(Damage) -> Int32 {
      guard type < counts.types else { throw Damage("offset \(type) of \(counts.types)") }
      let offset = Int32(truncatingIfNeeded: big(bytes, types + type * 6, 4))
      guard abs(Int64(offset)) <= 26 * 3600 else { throw Damage("an offset of \(offset) seconds") }
      return offset
    }
    var rules = ZoneRules(offsetBefore: try offset(0))
    for index in 0..<counts.times {
      let instant = Int64(bitPattern: big(bytes, data + index * 8, 8))
      if let last = rules.changes.last, instant <= last.instant { throw Damage("times out of order") }
      rules.changes.append(.init(instant: instant, offset: try offset(Int(bytes[indexes + index]))))
    }
    try continueAfterLast(&rules, footer: try footer(bytes, place))
    return rules
  }

  /// Appends what the footer's rule says for all years after the last change.
  private static func continueAfterLast(_ rules: inout ZoneRules, footer: [UInt8]) throws(Damage) {
    if footer.isEmpty { return }
    guard let rule = ZoneFooter(footer) else {
      throw Damage("rule \"\(String(decoding: footer, as: UTF8.self))\" not understood")
    }
    // Years before 1960 do not matter to any record.
    let lastInstant = rules.changes.last?.instant ?? .min
    let yearFirst = max(1960, lastInstant < -86_400 * 3650 ? 1960 : year(of: lastInstant) - 1)
    guard yearFirst <= 10_000 else { return }
    if rule.summer == nil, (rules.changes.last?.offset ?? rules.offsetBefore) != rule.offset {
      rules.changes.append(.init(instant: max(lastInstant + 1, -86_400 * 3653), offset: rule.offset))
    }
    for year in yearFirst...10_000 {
      for change in rule.changes(year: year) where change.instant > lastInstant {
        if let last = rules.changes.last, last.instant >= change.instant { rules.changes.removeLast() }
        rules.changes.append(change)
      }
    }
  }

  private static func year(of instant: Int64) -> Int {
    Day(number: Int32(clamping: instant / 86_400)).civil.year
  }

  private struct Counts {
    var version: UInt8
    var isUTC, isStandard, leaps, times, types, characters: Int

    func dataCount(instantCount: Int) -> Int {
      times * (instantCount + 1) + types * 6 + characters + leaps * (instantCount + 4) + isStandard + isUTC
    }
  }

  private static func header(_ bytes: [UInt8], _ place: inout Int) throws(Damage) -> Counts {
    let start = place
    try skip(44, bytes, &place)
    guard bytes[start..<start + 4].elementsEqual("TZif".utf8) else { throw Damage("not a TZif file") }
    func count(_ index: Int) -> Int { Int(big(bytes, start + 20 + index * 4, 4)) }
    return Counts(
      version: bytes[start + 4], isUTC: count(0), isStandard: count(1), leaps: count(2), times: count(3),
      types: count(4), characters: count(5))
  }

  private static func skip(_ count: Int, _ bytes: [UInt8], _ place: inout Int) throws(Damage) {
    guard count <= bytes.count - place else { throw Damage("cut off after \(bytes.count) bytes") }
    place += count
  }

  private static func footer(_ bytes: [UInt8], _ place: Int) throws(Damage) -> [UInt8] {
    let newline = UInt8(ascii: "\n")
    guard place < bytes.count, bytes[place] == newline,
      let end = bytes[(place + 1)...].firstIndex(of: newline)
    else { throw Damage("no rule at its end") }
    return Array(bytes[(place + 1)..<end])
  }

  /// A big-endian number of 4 or 8 bytes.
  private static func big(_ bytes: [UInt8], _ place: Int, _ count: Int) -> UInt64 {
    bytes[place..<place + count].reduce(0) { $0 << 8 | UInt64($1) }
  }
}
