// Changed snapshots: whatever the bytes, a reader refuses them or has the very state that gives those bytes.

internal import Bytes
public import Posix
public import RankIndex
public import SegmentLog
public import StepModel

/// A shard that writes and reads snapshots of itself in a folder.
public struct SnapshotShard {
  /// Its boards.
  public var boards: ShardBoards
  /// The state beside them; users and boards are filled in when it is written.
  public var header: SnapshotHeader
  /// Whether weeks, months and all time are ranked.
  public let longer: Bool

  /// - Parameters:
  ///   - mode: how reports make totals.
  ///   - longer: whether weeks, months and all time are ranked.
  public init(mode: StepsMode, longer: Bool) {
    boards = ShardBoards(mode: mode, week: longer, month: longer, all: longer)
    header = SnapshotHeader(
      identity: SnapshotShard.identity, mode: mode, watermark: 0, clockMs: -1, newestMs: -1, counted: 0,
      superseded: 0, rejected: [UInt64](repeating: 0, count: RejectReason.allCases.count), users: 0, boards: 0
    )
    self.longer = longer
  }

  /// Whose snapshots these are.
  public static let identity = LogIdentity(
    topic: "steps", topicID: .init(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF), partition: 3,
    fingerprint: 0x0123_4567_89AB_CDEF)

  /// Applies events, one after the other in the partition.
  public mutating func apply(_ events: [StepEvent]) {
    let outcomes = UnsafeMutablePointer<ApplyOutcome>.allocate(capacity: max(1, events.count))
    defer { outcomes.deallocate() }
    events.withUnsafeBufferPointer { boards.apply($0, outcomes: outcomes) }
    for (index, event) in events.enumerated() {
      switch outcomes[index] {
      case .counted: header.counted += 1
      case .superseded:
        header.counted += 1
        header.superseded += 1
      case .overflow: header.rejected[Int(RejectReason.overflow.rawValue)] += 1
      case .full: preconditionFailure("a small shard is full")
      }
      header.watermark = event.offset + 1
      header.clockMs = event.offset
      header.newestMs = event.offset
    }
  }

  /// Writes a snapshot of this moment.
  ///
  /// - Parameters:
  ///   - folder: where.
  ///   - files: the file system.
  ///   - meanwhile: called between pieces; may apply events to the boards.
  /// - Returns: the file.
  /// - Throws: `LogError`.
  public func write(
    into folder: String, files: Files = Files(), meanwhile: (ShardBoards) -> Void = { _ in }
  ) throws(LogError) -> SnapshotWriter.Written {
    guard let image = boards.freeze() else { preconditionFailure("an image is alive") }
    defer { boards.thaw() }
    var header = header
    header.users = image.users
    header.boards = image.boards.count
    let writer = try SnapshotWriter(folder: folder, header: header, files: files)
    let piece = FrozenPiece()
    for (index, board) in image.boards.enumerated() {
      try writer.board(SnapshotBoard(id: board.id, users: board.users, totalSteps: board.totalSteps))
      meanwhile(boards)
      while image.take(index, into: piece) {
        try writer.numbers(piece.totals, reports: board.hasReports ? piece.reports : nil, from: piece.first)
        meanwhile(boards)
      }
    }
    let keys = UnsafeMutableBufferPointer<UserKey>.allocate(capacity: FrozenBoards.segmentNumbers)
    defer { keys.deallocate() }
    for segment in 0..<image.segments {
      let count = image.users(ofSegment: segment, into: keys)
      try writer.users(UnsafeBufferPointer(rebasing: keys[..<count]))
      meanwhile(boards)
    }
    return try writer.finish()
  }

  /// The bytes of a snapshot of this moment.
  ///
  /// - Parameter folder: for the file, which is removed.
  /// - Returns: the whole file.
  /// - Throws: `LogError`.
  public func bytes(by folder: String) throws(LogError) -> [UInt8] {
    let written = try write(into: folder)
    do {
      let bytes = try Files().read(whole: written.path, bytesMax: 1 << 30)
      try Files().remove(written.path)
      return bytes
    } catch { throw .system(error) }
  }

  /// The shard in a snapshot.
  ///
  /// - Parameters:
  ///   - reader: opened.
  ///   - longer: as in the settings that the fingerprint stands for.
  /// - Throws: `LogError`, `RestoreError`.
  public init(from reader: SnapshotReader, longer: Bool) throws {
    self.init(mode: reader.header.mode, longer: longer)
    header = reader.header
    boards.reserve(users: header.users)
    var board: BoardRestoration?
    while let part = try reader.next() {
      switch part {
      case .users(let keys): try boards.restore(segment: keys)
      case .board(let next):
        board?.finish()
        board = try boards.restore(next.id)
      case .totals(let totals, let first): try board?.totals(totals, from: first)
      case .reports(let reports, let first): try board?.reports(reports, from: first)
      }
    }
    board?.finish()
  }
}

/// How a run went.
public struct SnapshotRun: Sendable {
  /// What went wrong, if anything.
  public var difference: String?
  /// Changed snapshots that were read all the same, each to the state of its own bytes.
  public var accepted = 0
  /// Those refused by the reader.
  public var refused = 0
  /// Those refused by the boards.
  public var notRestored = 0
}

/// Changes snapshots of small shards and reads them.
///
/// - Parameters:
///   - seed: starts shards and changes.
///   - count: how many changed snapshots.
///   - folder: for files.
/// - Returns: what was seen; stops at the first difference.
/// - Throws: `LogError` where the folder cannot be used.
public func snapshotBody(seed: UInt64, count: Int, folder: String) throws -> SnapshotRun {
  var random = FuzzRandom(seed: seed)
  var run = SnapshotRun()
  var (original, longer): ([UInt8], Bool) = ([], false)
  for index in 0..<count {
    if index % 50 == 0 {
      let shard = randomShard(&random)
      longer = shard.longer
      original = try shard.bytes(by: folder)
    }
    let changed = changedSnapshot(original, &random)
    do {
      let reader = try SnapshotReader(bytes: changed, path: "snapshot", identity: SnapshotShard.identity)
      let shard = try SnapshotShard(from: reader, longer: longer)
      run.accepted += 1
      if try shard.bytes(by: folder) == changed { continue }
      run.difference = "change \(index) of seed \(seed) was read as another state: \(Hex.text(changed))"
      return run
    } catch is LogError {
      run.refused += 1
    } catch is RestoreError {
      run.notRestored += 1
    }
  }
  return run
}

private func randomShard(_ random: inout FuzzRandom) -> SnapshotShard {
  var shard = SnapshotShard(
    mode: random.one(of: [.increment, .totalNewest, .totalMax]), longer: random.below(2) == 0)
  let users = 1 + random.below(12)
  let texts: [[UInt8]] = (0..<users).map { Array("walker \($0)".utf8) }
  let events = random.below(40)
  for offset in 0..<events {
    let user = random.below(users)
    texts[user].withUnsafeBytes { text in
      let key = user % 3 == 0 ? UserKey(text) : UserKey(high: UInt64(user), low: 5)
      shard.apply([
        StepEvent(
          user: key, offset: Int64(offset), timeOfDay: Int64(random.below(9)),
          steps: random.one(of: [0, 1, 2, 300, 1 << 20, .max]),
          day: Day(number: 20_781 + Int32(random.below(3))))
      ])
    }
  }
  return shard
}

/// One to four changes of bytes, blocks or ends; most of them with all checks made right again, so that what stands
/// behind the checks is tried.
private func changedSnapshot(_ original: [UInt8], _ random: inout FuzzRandom) -> [UInt8] {
  var bytes = original
  for _ in 0...random.below(4) {
    guard bytes.count > 1 else { break }
    let place =
      random.below(2) == 0 || bytes.count <= 512
      ? random.below(bytes.count) : 512 + random.below(bytes.count - 512)
    switch random.below(7) {
    case 0: bytes[place] ^= 1 << UInt8(random.below(8))
    case 1: bytes[place] = random.one(of: [0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFF])
    case 2: bytes[place] &+= random.one(of: [1, 255, 16])
    case 3: if random.below(3) == 0 { bytes.removeSubrange(place...) }
    case 4: bytes.insert(random.one(of: [0, 1, 0xFF]), at: place)
    case 5: bytes.remove(at: place)
    default:
      // A block twice, or gone.
      let blocks = blockStarts(bytes)
      guard let block = blocks.isEmpty ? nil : random.one(of: blocks) else { break }
      let end = blocks.first { $0 > block } ?? bytes.count
      if random.below(2) == 0 {
        bytes.insert(contentsOf: bytes[block..<end], at: random.one(of: blocks))
      } else {
        bytes.removeSubrange(block..<end)
      }
    }
  }
  return random.below(5) == 0 ? bytes : resealed(bytes)
}

/// Where blocks begin, as far as lengths make sense.
private func blockStarts(_ bytes: [UInt8]) -> [Int] {
  var starts: [Int] = []
  var at = 512
  while at + 16 <= bytes.count {
    let length = (0..<4).reduce(0) { $0 | Int(bytes[at + 8 + $1]) << (8 * $1) }
    guard at + 16 + length <= bytes.count else { break }
    starts.append(at)
    at += 16 + length
  }
  return starts
}

/// The bytes with every check made right, and the end block telling of the blocks there are.
private func resealed(_ bytes: [UInt8]) -> [UInt8] {
  var bytes = bytes
  guard bytes.count >= 512 else { return bytes }
  func put(_ value: UInt32, _ at: Int) {
    for i in 0..<4 { bytes[at + i] = UInt8(value >> UInt32(8 * i) & 255) }
  }
  func crc(_ range: Range<Int>, _ after: UInt32 = 0) -> UInt32 {
    bytes.withUnsafeBytes { Checksum.crc32c(UnsafeRawBufferPointer(rebasing: $0[range]), after: after) }
  }
  put(crc(0..<508), 508)
  let seed = crc(508..<512)
  var (counts, checks): ([UInt32], [UInt32]) = ([0, 0], [0, 0])
  var usersAt: Int?
  for start in blockStarts(bytes) {
    let length = (0..<4).reduce(0) { $0 | Int(bytes[start + 8 + $1]) << (8 * $1) }
    let isEnd = bytes[start] == 5 && length == 24
    if isEnd || bytes[start] == 4 { usersAt = usersAt ?? start }
    if isEnd {
      put(UInt32(usersAt ?? start), start + 16)
      put(0, start + 20)
      for i in 0..<2 {
        put(counts[i], start + 24 + 4 * i)
        put(checks[i], start + 32 + 4 * i)
      }
    }
    put(crc(start + 16..<start + 16 + length, crc(start..<start + 12, seed)), start + 12)
    let section = usersAt == nil ? 0 : 1
    counts[section] += 1
    checks[section] = crc(start + 12..<start + 16, checks[section])
  }
  return bytes
}
