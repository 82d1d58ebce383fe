// A snapshot by byte offset (Protocol/snapshot.md has the rules). Integers are little-endian.
//
//   snapshot  = header, 512 bytes; a board block a board, each with its totals and reports; users blocks; end block
//
//   header                                              block
//   offset  bytes                                       offset  bytes
//        0      8  magic "RMS-SNP\n"                          0      1  kind: 1 board, 2 totals, 3 reports,
//        8      2  version, 1                                           4 users, 5 end
//       10      2  bytes of this header, 512                  1      1  form
//       12      4  partition                                  2      2  entries
//       16     16  topic id                                   4      4  first user number
//       32      8  fingerprint of the settings                8      4  bytes of the body
//       40      8  watermark                                 12      4  check: CRC32C of the header's check,
//       48      8  shard clock, ms since 1970                           bytes 0 to 11, and the body
//       56      8  newest Kafka timestamp, ms since 1970     16         body
//       64      8  counted
//       72      8  superseded                           body of a board              body of the end
//       80      4  users                                     0   1  period                0   8  users' offset
//       84      4  boards                                    1   3  zeros                 8   4  blocks before it
//       88      1  mode                                      4   4  ordinal              12   4  blocks from it on
//       89      1  reasons                                   8   8  sum of totals        16   4  CRC of the
//       90      2  flags, 0                                 16   4  users                         former's checks
//       92    128  rejected, by reason                                                   20   4  of the latter's
//      220      1  bytes of the topic's name, n
//      221      n  topic; zeros to byte 508
//      508      4  check: CRC32C of bytes 0 to 507

internal import Bytes
public import StepModel

/// Numbers of the format, and names of its files.
public enum SnapshotFormat {
  public static let version: UInt16 = 1
  public static let headerBytes = 512
  /// Numbers of one block of totals, reports or users.
  public static let chunkNumbers = 4096
  /// Most users of a shard.
  public static let usersMax = (1 << 27) - 1
  /// Most boards of a shard.
  public static let boardsMax = 65_536
  /// Longest body of a block: a chunk of ids of 64 bytes, each with its length.
  public static let bodyBytesMax = chunkNumbers * (1 + UserID.bytesMax)
  /// How many snapshots of a shard are kept.
  public static let keptCount = 2

  static let magic: [UInt8] = Array("RMS-SNP\n".utf8)
  static let blockBytes = 16
  static let boardBodyBytes = 20
  static let endBodyBytes = 24
  static let endBytes = blockBytes + endBodyBytes
  /// Reasons that every writer of this version knows.
  static let reasonsMin = 10
  static let reasonsMax = 16
  static let temporarySuffix = ".tmp"
  private static let suffix = ".snap"

  /// The name of the snapshot of a watermark.
  ///
  /// - Parameter watermark: 0 or more.
  /// - Returns: 20 digits and `.snap`.
  public static func name(watermark: Int64) -> String {
    let digits = String(watermark)
    return String(repeating: "0", count: 20 - digits.utf8.count) + digits + suffix
  }

  /// The watermark in a snapshot's name; nil if the name is none of a finished snapshot.
  ///
  /// - Parameter name: without its folder.
  /// - Returns: the watermark.
  public static func watermark(name: String) -> Int64? {
    guard name.utf8.count == 25, name.hasSuffix(suffix) else { return nil }
    let digits = name.utf8.dropLast(5)
    guard digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
    return Int64(String(decoding: digits, as: UTF8.self))
  }

  /// The snapshots among the names of a folder, the newest first.
  ///
  /// - Parameter names: all names in the shard's folder.
  /// - Returns: names and watermarks.
  public static func newestFirst(_ names: [String]) -> [(name: String, watermark: Int64)] {
    names.compactMap { name in watermark(name: name).map { (name, $0) } }.sorted { $0.1 > $1.1 }
  }

  /// What may be deleted once a snapshot has got its name and the folder is synced: snapshots older than the newest
  /// `keptCount`, and files whose writing was broken off. Call it while none is being written.
  ///
  /// - Parameter names: all names in the shard's folder.
  /// - Returns: names to delete, in the order given.
  public static func surplus(_ names: [String]) -> [String] {
    let kept = Set(newestFirst(names).prefix(keptCount).map(\.name))
    return names.filter { name in
      if name.hasSuffix(suffix + temporarySuffix) {
        return watermark(name: String(name.dropLast(temporarySuffix.utf8.count))) != nil
      }
      return watermark(name: name) != nil && !kept.contains(name)
    }
  }
}

/// The state of a shard, boards and users apart.
public struct SnapshotHeader: Hashable, Sendable {
  public var identity: LogIdentity
  public var mode: StepsMode
  /// Next Kafka offset not yet applied; also the file's name.
  public var watermark: Int64
  /// Greatest Kafka timestamp so far, milliseconds since 1970; -1 before the first record.
  public var clockMs: Int64
  /// Kafka timestamp of the newest applied record, milliseconds since 1970; -1 before the first.
  public var newestMs: Int64
  /// Records counted, those superseded included.
  public var counted: UInt64
  public var superseded: UInt64
  /// Records rejected, by `RejectReason.rawValue`.
  public var rejected: [UInt64]
  /// Users with a number.
  public var users: Int
  /// How many boards there are.
  public var boards: Int

  public init(
    identity: LogIdentity, mode: StepsMode, watermark: Int64, clockMs: Int64, newestMs: Int64,
    counted: UInt64,
    superseded: UInt64, rejected: [UInt64], users: Int, boards: Int
  ) {
    self.identity = identity
    self.mode = mode
    self.watermark = watermark
    self.clockMs = clockMs
    self.newestMs = newestMs
    self.counted = counted
    self.superseded = superseded
    self.rejected = rejected
    self.users = users
    self.boards = boards
  }

  /// Whether the fields fit each other and the format.
  var makesSense: Bool {
    watermark >= 0 && newestMs >= -1 && newestMs <= clockMs && superseded <= counted
      && rejected.count == RejectReason.allCases.count && (0...SnapshotFormat.usersMax).contains(users)
      && (0...SnapshotFormat.boardsMax).contains(boards)
  }

  /// The header's bytes.
  ///
  /// - Returns: 512 bytes, and the checksum at their end.
  func encoded() -> (bytes: [UInt8], check: UInt32) {
    precondition(makesSense, "a snapshot of \(self)")
    var out = ByteWriter(limit: SnapshotFormat.headerBytes, reserved: SnapshotFormat.headerBytes)
    out.bytes(SnapshotFormat.magic)
    out.integer(SnapshotFormat.version)
    out.integer(UInt16(SnapshotFormat.headerBytes))
    out.integer(identity.partition)
    out.integer(identity.topicID.high.byteSwapped)
    out.integer(identity.topicID.low.byteSwapped)
    out.integer(identity.fingerprint)
    out.integer(watermark)
    out.integer(clockMs)
    out.integer(newestMs)
    out.integer(counted)
    out.integer(superseded)
    out.integer(UInt32(users))
    out.integer(UInt32(boards))
    out.integer(mode.code)
    out.integer(UInt8(rejected.count))
    out.integer(UInt16(0))
    for index in 0..<SnapshotFormat.reasonsMax {
      out.integer(index < rejected.count ? rejected[index] : UInt64(0))
    }
    out.text8(identity.topic)
    out.bytes([UInt8](repeating: 0, count: SnapshotFormat.headerBytes - 4 - out.count))
    let check = Checksum.crc32c(out.unsafeBytes)
    out.integer(check)
    return (out.array, check)
  }

  /// Reads a header.
  ///
  /// - Parameters:
  ///   - bytes: the file's first 512 bytes.
  ///   - path: the file, for the error.
  /// - Returns: the header and its checksum.
  /// - Throws: `damaged` if it does not check or makes no sense; `newer` if another version wrote it.
  static func decode(
    _ bytes: UnsafeRawBufferPointer, path: String
  ) throws(LogError) -> (header: SnapshotHeader, check: UInt32) {
    func damaged(_ damage: Damage) -> LogError { .damaged(path: path, atByte: 0, damage) }
    let size = SnapshotFormat.headerBytes
    guard bytes.count == size else { throw damaged(.short) }
    guard bytes[..<8].elementsEqual(SnapshotFormat.magic) else { throw damaged(.magic) }
    func get<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, _ place: Int) -> T {
      T(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: T.self))
    }
    let check = get(UInt32.self, size - 4)
    guard Checksum.crc32c(UnsafeRawBufferPointer(rebasing: bytes[..<(size - 4)])) == check else {
      throw damaged(.headerChecksum)
    }
    func known(_ what: NewerThing, _ place: Int, _ found: Int, _ known: Int) throws(LogError) {
      if found > known {
        throw .newer(path: path, atByte: place, what: what, found: found, known: known)
      }
    }
    let reasons = Int(get(UInt8.self, 89))
    try known(.version, 8, Int(get(UInt16.self, 8)), Int(SnapshotFormat.version))
    try known(.flags, 90, Int(get(UInt16.self, 90)), 0)
    try known(.rowKind, 89, reasons, RejectReason.allCases.count)
    let all = (0..<SnapshotFormat.reasonsMax).map { get(UInt64.self, 92 + 8 * $0) }
    let nameEnd = 221 + Int(get(UInt8.self, 220))
    guard get(UInt16.self, 8) == SnapshotFormat.version, get(UInt16.self, 10) == UInt16(size),
      let mode = StepsMode(code: get(UInt8.self, 88)), reasons >= SnapshotFormat.reasonsMin,
      all[reasons...].allSatisfy({ $0 == 0 }),
      get(Int32.self, 12) >= 0, (222...size - 4).contains(nameEnd),
      nameEnd - 221 <= LogIdentity.topicBytesMax, bytes[nameEnd..<(size - 4)].allSatisfy({ $0 == 0 }),
      let topic = String(validating: bytes[221..<nameEnd], as: UTF8.self)
    else { throw damaged(.content(.value)) }
    let header = SnapshotHeader(
      identity: LogIdentity(
        topic: topic,
        topicID: .init(high: get(UInt64.self, 16).byteSwapped, low: get(UInt64.self, 24).byteSwapped),
        partition: get(Int32.self, 12), fingerprint: get(UInt64.self, 32)),
      mode: mode, watermark: get(Int64.self, 40), clockMs: get(Int64.self, 48),
      newestMs: get(Int64.self, 56), counted: get(UInt64.self, 64), superseded: get(UInt64.self, 72),
      rejected: Array(all.prefix(RejectReason.allCases.count)), users: Int(get(UInt32.self, 80)),
      boards: Int(get(UInt32.self, 84)))
    guard header.makesSense else { throw damaged(.content(.value)) }
    return (header, check)
  }
}

extension StepsMode {
  fileprivate var code: UInt8 {
    switch self {
    case .increment: 0
    case .totalNewest: 1
    case .totalMax: 2
    }
  }

  fileprivate init?(code: UInt8) {
    switch code {
    case 0: self = .increment
    case 1: self = .totalNewest
    case 2: self = .totalMax
    default: return nil
    }
  }
}

/// What a block holds.
enum SnapshotBlockKind: UInt8 {
  case board = 1
  case totals = 2
  case reports = 3
  case users = 4
  case end = 5
}

/// The header of a block.
struct SnapshotBlock: BitwiseCopyable {
  var kind: SnapshotBlockKind
  var form: UInt8
  var entries: Int
  var first: UInt32
  var bodyBytes: Int

  /// Writes the header before its body, which is in place, and its checksum.
  ///
  /// - Parameters:
  ///   - start: the block's first byte.
  ///   - seed: CRC32C of the check of the file's header.
  /// - Returns: the block's check.
  func write(to start: UnsafeMutableRawPointer, seed: UInt32) -> UInt32 {
    start.storeBytes(of: kind.rawValue, as: UInt8.self)
    start.storeBytes(of: form, toByteOffset: 1, as: UInt8.self)
    start.storeBytes(of: UInt16(entries).littleEndian, toByteOffset: 2, as: UInt16.self)
    start.storeBytes(of: first.littleEndian, toByteOffset: 4, as: UInt32.self)
    start.storeBytes(of: UInt32(bodyBytes).littleEndian, toByteOffset: 8, as: UInt32.self)
    let check = SnapshotBlock.check(start, bodyBytes, seed)
    start.storeBytes(of: check.littleEndian, toByteOffset: 12, as: UInt32.self)
    return check
  }

  /// The check of a block whose bytes are in place.
  static func check(_ start: UnsafeRawPointer, _ bodyBytes: Int, _ seed: UInt32) -> UInt32 {
    let head = Checksum.crc32c(UnsafeRawBufferPointer(start: start, count: 12), after: seed)
    return Checksum.crc32c(
      UnsafeRawBufferPointer(start: start + SnapshotFormat.blockBytes, count: bodyBytes), after: head)
  }

  /// CRC32C of some bytes and four more: how checks are summed up.
  static func sum(_ check: UInt32, after previous: UInt32 = 0) -> UInt32 {
    withUnsafeBytes(of: check.littleEndian) { Checksum.crc32c($0, after: previous) }
  }
}

/// A board in a snapshot.
public struct SnapshotBoard: Hashable, Sendable {
  /// The period.
  public var id: BoardID
  /// Users with a total of 1 or more.
  public var users: Int
  /// Sum of all totals.
  public var totalSteps: UInt64

  public init(id: BoardID, users: Int, totalSteps: UInt64) {
    self.id = id
    self.users = users
    self.totalSteps = totalSteps
  }

  /// Days of events: 1970-01-01 to 9999-12-31, and one more at either end for zones.
  private static let days: ClosedRange<Int32> = -1...2_932_897

  /// Period and ordinal: boards are in this order.
  var place: (period: UInt8, ordinal: Int32) {
    switch id {
    case .day(let day): (1, day.number)
    case .week(let monday): (2, monday.number)
    case .month(let month): (3, month)
    case .all: (4, 0)
    }
  }

  /// The board of a period and ordinal; nil if there is none.
  static func id(period: UInt8, ordinal: Int32) -> BoardID? {
    let day = Day(number: ordinal)
    switch period {
    case 1: return days.contains(ordinal) ? .day(day) : nil
    case 2:
      guard days.contains(ordinal) || days.contains(ordinal &+ 6), day.monday == day else { return nil }
      return .week(monday: day)
    case 3: return (-1...96_360).contains(ordinal) ? .month(ordinal) : nil
    case 4: return ordinal == 0 ? .all : nil
    default: return nil
    }
  }

  /// Writes the body of a board's block.
  ///
  /// - Parameter out: room for 20 bytes.
  func write(to out: UnsafeMutableRawPointer) {
    out.storeBytes(of: UInt32(place.period).littleEndian, as: UInt32.self)
    out.storeBytes(of: place.ordinal.littleEndian, toByteOffset: 4, as: Int32.self)
    out.storeBytes(of: totalSteps.littleEndian, toByteOffset: 8, as: UInt64.self)
    out.storeBytes(of: UInt32(users).littleEndian, toByteOffset: 16, as: UInt32.self)
  }

  /// Reads the body of a board's block; nil if it makes no sense.
  ///
  /// - Parameter body: 20 bytes.
  init?(body: UnsafeRawPointer) {
    let period = UInt32(littleEndian: body.loadUnaligned(as: UInt32.self))
    let ordinal = Int32(littleEndian: body.loadUnaligned(fromByteOffset: 4, as: Int32.self))
    guard period < 256, let id = SnapshotBoard.id(period: UInt8(period), ordinal: ordinal) else { return nil }
    self.id = id
    totalSteps = UInt64(littleEndian: body.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    users = Int(UInt32(littleEndian: body.loadUnaligned(fromByteOffset: 16, as: UInt32.self)))
  }

  /// Whether the boards of days keep the newest report of each user.
  func hasReports(_ mode: StepsMode) -> Bool { mode == .totalNewest && place.period == 1 }
}
