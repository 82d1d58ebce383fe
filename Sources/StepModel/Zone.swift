// An IANA time zone as one sorted table of offset changes, far enough for every year a record may name.
//
// The table is read from the TZif file of the system and continued with the rule in its footer, so that looking up is
// a binary search and nothing else. Local times that occur twice mean the first; those skipped are shifted forward by
// the length of the gap. Both are the offset before the change: so a segment between two changes owns the local times
//
//   [from + max(offset before, offset), until + max(offset, offset after))
//
// and those ranges tile the local time line.

/// A time zone of the IANA database. Immutable, shared between threads.
public final class Zone: Sendable {
  /// Where zones are looked for.
  public static let directory = "/usr/share/zoneinfo"

  /// The name it was opened by.
  public let name: String
  /// A hash of all changes of offset in 1970...9999, 16 hexadecimal digits: equal rules, equal fingerprint, whatever
  /// the shape of the file.
  public let fingerprint: String

  /// Instants of the changes, in seconds since 1970 UTC, ascending.
  private let changes: [Int64]
  /// First local second of the segment that starts at the change of the same index.
  private let localStarts: [Int64]
  /// Seconds east of UTC: before the first change, then after each.
  private let offsets: [Int64]

  /// Opens a zone of the system.
  ///
  /// - Parameter name: an IANA name, such as `Europe/Berlin`.
  /// - Throws: `zoneUnknown` if there is no such file, `zoneUnreadable` if it is no usable zone.
  public convenience init(name: String) throws(StepModelError) {
    try self.init(name: name, directory: Zone.directory)
  }

  /// Opens a zone of another folder.
  ///
  /// - Parameters:
  ///   - name: an IANA name.
  ///   - directory: a folder laid out as `/usr/share/zoneinfo`.
  /// - Throws: as `init(name:)`.
  public convenience init(name: String, directory: String) throws(StepModelError) {
    self.init(name: name, rules: try ZoneFile.read(name: name, directory: directory))
  }

  init(name: String, rules: ZoneRules) {
    self.name = name
    var changes: [Int64] = []
    var offsets = [Int64(rules.offsetBefore)]
    for change in rules.changes {
      // Changes of the abbreviation alone do not matter here.
      if offsets[offsets.count - 1] == Int64(change.offset) { continue }
      changes.append(change.instant)
      offsets.append(Int64(change.offset))
    }
    self.changes = changes
    self.offsets = offsets
    localStarts = changes.indices.map { changes[$0] + max(offsets[$0], offsets[$0 + 1]) }
    fingerprint = Zone.fingerprint(changes: changes, offsets: offsets)
  }

  /// A stretch of time with one offset.
  struct Segment {
    /// Instants [from, until).
    var from = Int64.max
    var until = Int64.min
    /// Local seconds [localFrom, localUntil).
    var localFrom = Int64.max
    var localUntil = Int64.min
    /// Seconds east of UTC.
    var offset: Int64 = 0
  }

  /// - Complexity: O(log changes).
  func segment(at instant: Int64) -> Segment { segment(Zone.count(changes, upTo: instant)) }

  /// - Complexity: O(log changes).
  func segment(atLocal local: Int64) -> Segment { segment(Zone.count(localStarts, upTo: local)) }

  private func segment(_ index: Int) -> Segment {
    Segment(
      from: index == 0 ? .min : changes[index - 1],
      until: index == changes.count ? .max : changes[index],
      localFrom: index == 0 ? .min : localStarts[index - 1],
      localUntil: index == changes.count ? .max : localStarts[index],
      offset: offsets[index])
  }

  /// How many of the sorted values are at or below `value`.
  private static func count(_ values: [Int64], upTo value: Int64) -> Int {
    var low = 0
    var high = values.count
    while low < high {
      let middle = (low + high) / 2
      if values[middle] <= value { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// FNV-1a over the offset in force at 1970-01-01 −14:00 and every later change up to the year 9999.
  private static func fingerprint(changes: [Int64], offsets: [Int64]) -> String {
    var hash = StableHash()
    let first = count(changes, upTo: -14 * 3600)
    hash.add(UInt64(bitPattern: offsets[first]))
    for index in first..<changes.count where changes[index] < EventTime.secondsEnd {
      hash.add(UInt64(bitPattern: changes[index]))
      hash.add(UInt64(bitPattern: offsets[index + 1]))
    }
    return hash.hex
  }
}

extension Zone: Hashable {
  public static func == (a: Zone, b: Zone) -> Bool { a.name == b.name && a.fingerprint == b.fingerprint }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(name)
    hasher.combine(fingerprint)
  }
}

/// FNV-1a, 64 bits: the same on every machine and in every version.
struct StableHash {
  private var value: UInt64 = 0xCBF2_9CE4_8422_2325

  mutating func add(byte: UInt8) { value = (value ^ UInt64(byte)) &* 0x100_0000_01B3 }

  /// Adds eight bytes, the lowest first.
  mutating func add(_ word: UInt64) {
    for shift in stride(from: UInt64(0), to: 64, by: 8) {
      add(byte: UInt8(truncatingIfNeeded: word >> shift))
    }
  }

  mutating func add(_ text: String) { for byte in text.utf8 { add(byte: byte) } }

  /// 16 hexadecimal digits.
  var hex: String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.utf8.count) + digits
  }
}
