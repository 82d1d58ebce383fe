// Reads a snapshot: users first, then the boards, everything compared on the way with checks, sums and counts. What was
// read may be used only once `next` has said that there is nothing more: until then damage may still be found.
internal import Bytes
public import Posix
public import StepModel

/// A part of a snapshot. What it lends is good until the next part is read.
public enum SnapshotPart {
  /// The ids of the next segment of 4,096 user numbers, in the order of numbers: all canonical UUIDs, or none.
  case users(UnsafeBufferPointer<UserKey>)
  /// A board begins; its totals and reports follow.
  case board(SnapshotBoard)
  /// A total a number, from a number on; 0 for users who are not on the board.
  case totals(UnsafeBufferPointer<UInt32>, from: UInt32)
  /// Two words a number, time of day and offset + 1, from a number on; both 0 for users without report.
  case reports(UnsafeBufferPointer<Int64>, from: UInt32)
}

/// A snapshot being read; used by one thread.
public final class SnapshotReader {
  /// The state, boards and users apart.
  public let header: SnapshotHeader
  /// Bytes of the file.
  public let bytesCount: Int
  private let path: String
  private let window: SnapshotWindow
  private let seed: UInt32
  private let end: End
  private var at: Int
  private var inUsers = true
  private var isDone = false
  private var blocks: UInt32 = 0
  private var checks: UInt32 = 0
  /// Users of each segment.
  private var segmentUsers: [UInt16] = []
  private var users = 0
  private var partialForms: Set<UInt8> = []
  private var boards = 0
  private var board: SnapshotBoard?
  private var sums = (users: 0, totalSteps: UInt64(0))
  private var order = (first: Int64(-1), kind: UInt8(0))
  private let keys: UnsafeMutableBufferPointer<UserKey>
  private let totals: UnsafeMutableBufferPointer<UInt32>
  private let reports: UnsafeMutableBufferPointer<Int64>

  /// What the end block says.
  private struct End {
    var at: Int
    var usersAt: Int
    var blocks: (boards: UInt32, users: UInt32)
    var checks: (boards: UInt32, users: UInt32)
  }

  /// Opens a file and judges its header and its end.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - identity: whose it must be.
  ///   - files: the file system.
  /// - Throws: `damaged`, with `.short` for a file that is torn; `newer`; `foreign`; `system`.
  public convenience init(path: String, identity: LogIdentity, files: Files = Files()) throws(LogError) {
    let source: FileSource
    do { source = FileSource(try files.open(path, .read)) } catch { throw .system(error) }
    try self.init(try SnapshotWindow(source), path: path, identity: identity)
  }

  /// Reads a snapshot in memory.
  ///
  /// - Parameters:
  ///   - bytes: the whole file.
  ///   - path: its name; the watermark must fit if it is a snapshot's.
  ///   - identity: whose it must be.
  /// - Throws: as the other.
  public convenience init(bytes: [UInt8], path: String, identity: LogIdentity) throws(LogError) {
    try self.init(try SnapshotWindow(BytesSource(bytes)), path: path, identity: identity)
  }

  private init(_ window: SnapshotWindow, path: String, identity: LogIdentity) throws(LogError) {
    self.window = window
    self.path = path
    bytesCount = window.bytesCount
    guard bytesCount >= SnapshotFormat.headerBytes + SnapshotFormat.endBytes else {
      throw .damaged(path: path, atByte: bytesCount, .short)
    }
    let bytes = try window.bytes(at: 0, SnapshotFormat.headerBytes)
    let (header, check) = try SnapshotHeader.decode(bytes, path: path)
    let name = path.utf8.split(separator: UInt8(ascii: "/")).last.map { String(decoding: $0, as: UTF8.self) }
    if let named = name.flatMap(SnapshotFormat.watermark(name:)), named != header.watermark {
      throw .damaged(path: path, atByte: 0, .content(.value))
    }
    if let difference = identity.difference(header.identity) {
      throw .foreign(path: path, atByte: 0, difference)
    }
    self.header = header
    seed = SnapshotBlock.sum(check)
    end = try SnapshotReader.readEnd(window, path, seed)
    at = end.usersAt
    keys = .allocate(capacity: SnapshotFormat.chunkNumbers)
    totals = .allocate(capacity: SnapshotFormat.chunkNumbers)
    reports = .allocate(capacity: 2 * SnapshotFormat.chunkNumbers)
  }

  deinit {
    keys.deallocate()
    totals.deallocate()
    reports.deallocate()
  }

  /// Reads on: all users, then each board with its totals and reports.
  ///
  /// - Returns: the next part; nil once all was read and everything fits.
  /// - Throws: `damaged` naming the block; `system`. Nothing of the snapshot may be used then.
  public func next() throws(LogError) -> SnapshotPart? {
    if isDone { return nil }
    if inUsers {
      if at < end.at { return try nextUsers() }
      guard users == header.users, blocks == end.blocks.users, checks == end.checks.users else {
        throw damaged(end.at, .content(.length))
      }
      (inUsers, at, blocks, checks) = (false, SnapshotFormat.headerBytes, 0, 0)
    }
    if at < end.usersAt { return try nextOfBoard() }
    try endBoard(at)
    guard boards == header.boards, blocks == end.blocks.boards, checks == end.checks.boards else {
      throw damaged(end.at, .content(.length))
    }
    isDone = true
    return nil
  }

  private func damaged(_ byte: Int, _ damage: Damage) -> LogError {
    .damaged(path: path, atByte: byte, damage)
  }

  // MARK: The end block

  private static func readEnd(
    _ window: SnapshotWindow, _ path: String, _ seed: UInt32
  ) throws(LogError) -> End {
    let at = window.bytesCount - SnapshotFormat.endBytes
    let bytes = try window.bytes(at: at, SnapshotFormat.endBytes)
    guard let start = bytes.baseAddress else { throw .damaged(path: path, atByte: at, .short) }
    func get<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, _ place: Int) -> T {
      T(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: T.self))
    }
    let isEnd =
      get(UInt64.self, 0) == UInt64(SnapshotBlockKind.end.rawValue)
      && get(UInt32.self, 8) == UInt32(SnapshotFormat.endBodyBytes)
      && get(UInt32.self, 12) == SnapshotBlock.check(start, SnapshotFormat.endBodyBytes, seed)
    guard isEnd else { throw try tornOrDamaged(window, path) }
    let usersAt = get(UInt64.self, 16)
    guard usersAt >= UInt64(SnapshotFormat.headerBytes), usersAt <= UInt64(at) else {
      throw .damaged(path: path, atByte: at, .content(.length))
    }
    return End(
      at: at, usersAt: Int(usersAt), blocks: (get(UInt32.self, 24), get(UInt32.self, 28)),
      checks: (get(UInt32.self, 32), get(UInt32.self, 36)))
  }

  /// A file without a valid end: torn if its blocks reach beyond it, else damaged.
  private static func tornOrDamaged(_ window: SnapshotWindow, _ path: String) throws(LogError) -> LogError {
    var at = SnapshotFormat.headerBytes
    while at + SnapshotFormat.blockBytes <= window.bytesCount {
      let bytes = try window.bytes(at: at, SnapshotFormat.blockBytes)
      let bodyBytes = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self)))
      guard bodyBytes <= SnapshotFormat.bodyBytesMax else {
        return .damaged(path: path, atByte: at, .content(.length))
      }
      let next = at + SnapshotFormat.blockBytes + bodyBytes
      if next > window.bytesCount { break }
      switch SnapshotBlockKind(rawValue: bytes[0]) {
      case .board, .totals, .reports, .users: at = next
      case .end, nil: return .damaged(path: path, atByte: at, .bodyChecksum)
      }
    }
    return .damaged(path: path, atByte: at, .short)
  }

  // MARK: Blocks

  /// Reads the block at `at` and steps over it.
  ///
  /// - Parameter limit: where its section ends.
  /// - Returns: its header, and where its body is.
  /// - Throws: `damaged`, `system`.
  private func readBlock(before limit: Int) throws(LogError) -> (SnapshotBlock, UnsafeRawPointer) {
    let size = SnapshotFormat.blockBytes
    let start = at
    guard start + size <= limit else { throw damaged(start, .content(.length)) }
    let head = try window.bytes(at: start, size)
    func get<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, _ place: Int) -> T {
      T(littleEndian: head.loadUnaligned(fromByteOffset: place, as: T.self))
    }
    let bodyBytes = Int(get(UInt32.self, 8))
    let check = get(UInt32.self, 12)
    guard bodyBytes <= SnapshotFormat.bodyBytesMax, start + size + bodyBytes <= limit else {
      throw damaged(start, .content(.length))
    }
    let (kind, form) = (SnapshotBlockKind(rawValue: head[0]), head[1])
    let (entries, first) = (Int(get(UInt16.self, 2)), get(UInt32.self, 4))
    let all = try window.bytes(at: start, size + bodyBytes)
    guard let place = all.baseAddress, SnapshotBlock.check(place, bodyBytes, seed) == check else {
      throw damaged(start, .bodyChecksum)
    }
    guard let kind, form <= 1, Int(first) % SnapshotFormat.chunkNumbers == 0 else {
      throw damaged(start, .content(.value))
    }
    at = start + size + bodyBytes
    blocks += 1
    checks = SnapshotBlock.sum(check, after: checks)
    let block = SnapshotBlock(kind: kind, form: form, entries: entries, first: first, bodyBytes: bodyBytes)
    return (block, place + size)
  }

  // MARK: Users

  private func nextUsers() throws(LogError) -> SnapshotPart {
    let start = at
    let (block, body) = try readBlock(before: end.at)
    let count = block.entries
    guard block.kind == .users, Int(block.first) == segmentUsers.count * SnapshotFormat.chunkNumbers,
      (1...SnapshotFormat.chunkNumbers).contains(count), !partialForms.contains(block.form)
    else { throw damaged(start, .content(.order)) }
    users += count
    guard users <= header.users else { throw damaged(start, .content(.length)) }
    segmentUsers.append(UInt16(count))
    if count < SnapshotFormat.chunkNumbers { partialForms.insert(block.form) }
    if block.form == 0 {
      guard block.bodyBytes == 16 * count else { throw damaged(start, .content(.length)) }
      for i in 0..<count {
        keys[i] = UserKey(
          high: UInt64(bigEndian: body.loadUnaligned(fromByteOffset: 16 * i, as: UInt64.self)),
          low: UInt64(bigEndian: body.loadUnaligned(fromByteOffset: 16 * i + 8, as: UInt64.self)))
      }
    } else {
      try readTexts(UnsafeRawBufferPointer(start: body, count: block.bodyBytes), count, start)
    }
    return .users(UnsafeBufferPointer(rebasing: keys[..<count]))
  }

  private func readTexts(_ body: UnsafeRawBufferPointer, _ count: Int, _ start: Int) throws(LogError) {
    guard body.count >= count else { throw damaged(start, .content(.length)) }
    var place = count
    for i in 0..<count {
      let length = Int(body[i])
      guard place + length <= body.count else { throw damaged(start, .content(.length)) }
      let id = UnsafeRawBufferPointer(rebasing: body[place..<place + length])
      guard UserID.isValid(id), UTF8Check.isValid(id) else {
        throw damaged(start, .content(.userID))
      }
      keys[i] = UserKey(id)
      guard keys[i].text != nil else { throw damaged(start, .content(.userID)) }
      place += length
    }
    guard place == body.count else { throw damaged(start, .content(.length)) }
  }

  // MARK: Boards

  private func nextOfBoard() throws(LogError) -> SnapshotPart {
    let start = at
    let (block, body) = try readBlock(before: end.usersAt)
    switch block.kind {
    case .board:
      try endBoard(start)
      let before = board?.place ?? (0, 0)
      guard block.form == 0, block.entries == 0, block.first == 0,
        block.bodyBytes == SnapshotFormat.boardBodyBytes, let next = SnapshotBoard(body: body),
        before < next.place, boards < header.boards
      else { throw damaged(start, .content(.order)) }
      board = next
      boards += 1
      order = (-1, 0)
      return .board(next)
    case .totals, .reports:
      guard let board, (Int64(block.first), block.kind.rawValue) > order,
        block.kind == .totals || board.hasReports(header.mode)
      else { throw damaged(start, .content(.order)) }
      order = (Int64(block.first), block.kind.rawValue)
      return block.kind == .totals ? try readTotals(block, body, start) : try readReports(block, body, start)
    case .users, .end: throw damaged(start, .content(.order))
    }
  }

  private func endBoard(_ start: Int) throws(LogError) {
    if let board, sums != (board.users, board.totalSteps) { throw damaged(start, .content(.value)) }
    sums = (0, 0)
  }

  /// Checks the shape of a block of entries.
  ///
  /// - Returns: the number after the last one, less `first`.
  private func readShape(
    _ block: SnapshotBlock, _ body: UnsafeRawPointer, width: Int, _ start: Int
  ) throws(LogError) -> Int {
    let segment = Int(block.first) / SnapshotFormat.chunkNumbers
    guard (1...SnapshotFormat.chunkNumbers).contains(block.entries),
      block.bodyBytes == block.entries * (width + 2 * Int(block.form))
    else { throw damaged(start, .content(.length)) }
    var end = block.entries
    if block.form == 1 {
      end = 0
      for entry in 0..<block.entries {
        let place = Int(SnapshotReader.place(body, entry))
        guard place >= end else { throw damaged(start, .content(.order)) }
        end = place + 1
      }
    }
    guard segment < segmentUsers.count, end <= Int(segmentUsers[segment]) else {
      throw damaged(start, .content(.user))
    }
    return end
  }

  /// Which number of the chunk an entry of form 1 is about.
  private static func place(_ body: UnsafeRawPointer, _ entry: Int) -> UInt16 {
    UInt16(littleEndian: body.loadUnaligned(fromByteOffset: 2 * entry, as: UInt16.self))
  }

  private func readTotals(
    _ block: SnapshotBlock, _ body: UnsafeRawPointer, _ start: Int
  ) throws(LogError) -> SnapshotPart {
    let end = try readShape(block, body, width: 4, start)
    func total(_ entry: Int, _ offset: Int) -> UInt32 {
      UInt32(littleEndian: body.loadUnaligned(fromByteOffset: offset + 4 * entry, as: UInt32.self))
    }
    if block.form == 0 {
      for i in 0..<end { totals[i] = total(i, 0) }
    } else {
      for i in 0..<end { totals[i] = 0 }
      for i in 0..<block.entries { totals[Int(SnapshotReader.place(body, i))] = total(i, 2 * block.entries) }
    }
    var count = 0
    var sum: UInt64 = 0
    for i in 0..<end {
      count &+= totals[i] == 0 ? 0 : 1
      sum &+= UInt64(totals[i])
    }
    guard totals[end - 1] != 0, block.form == 0 || count == block.entries,
      (block.form == 1) == (6 * count < 4 * end)
    else { throw damaged(start, .content(.value)) }
    sums.users += count
    sums.totalSteps &+= sum
    return .totals(UnsafeBufferPointer(rebasing: totals[..<end]), from: block.first)
  }

  private func readReports(
    _ block: SnapshotBlock, _ body: UnsafeRawPointer, _ start: Int
  ) throws(LogError) -> SnapshotPart {
    let end = try readShape(block, body, width: 16, start)
    if block.form == 1 { for i in 0..<2 * end { reports[i] = 0 } }
    let offset = block.form == 0 ? 0 : 2 * block.entries
    var count = 0
    for entry in 0..<block.entries {
      let from = offset + 16 * entry
      let time = Int64(littleEndian: body.loadUnaligned(fromByteOffset: from, as: Int64.self))
      let next = Int64(littleEndian: body.loadUnaligned(fromByteOffset: from + 8, as: Int64.self))
      guard next >= 1 || next == 0 && time == 0 else { throw damaged(start, .content(.value)) }
      let place = block.form == 0 ? entry : Int(SnapshotReader.place(body, entry))
      reports[2 * place] = time
      reports[2 * place + 1] = next
      count += next == 0 ? 0 : 1
    }
    guard reports[2 * end - 1] != 0, block.form == 0 || count == block.entries,
      (block.form == 1) == (18 * count < 16 * end)
    else { throw damaged(start, .content(.value)) }
    return .reports(UnsafeBufferPointer(rebasing: reports[..<(2 * end)]), from: block.first)
  }
}

// MARK: Where the bytes come from

/// A file's bytes, or an array.
private protocol SnapshotSource {
  func bytesCount() throws(SystemError) -> Int
  /// As `File.read`.
  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int
}

private final class FileSource: SnapshotSource {
  private let file: File

  init(_ file: consuming File) { self.file = file }

  func bytesCount() throws(SystemError) -> Int { try file.bytesCount() }

  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
    try file.read(at: offset, into: buffer)
  }
}

private struct BytesSource: SnapshotSource {
  private let bytes: [UInt8]

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  func bytesCount() -> Int { bytes.count }

  func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) -> Int {
    let count = max(0, min(buffer.count, bytes.count - offset))
    buffer.copyBytes(from: bytes[offset..<offset + count])
    return count
  }
}

/// Part of a file in memory; lends what is asked for until it is asked again.
private final class SnapshotWindow {
  private static let roomBytes = 1 << 20

  let bytesCount: Int
  private let source: any SnapshotSource
  private let room: UnsafeMutableRawBufferPointer
  private var start = 0
  private var count = 0

  init(_ source: any SnapshotSource) throws(LogError) {
    self.source = source
    do { bytesCount = try source.bytesCount() } catch { throw .system(error) }
    room = .allocate(byteCount: min(max(bytesCount, 1), SnapshotWindow.roomBytes), alignment: 16)
  }

  deinit { room.deallocate() }

  /// Lends bytes of the file, which must be there.
  ///
  /// - Parameters:
  ///   - place: the first.
  ///   - wanted: how many; at most the longest block.
  /// - Returns: the bytes, good until the next call.
  /// - Throws: `system`; EIO if the file became shorter.
  func bytes(at place: Int, _ wanted: Int) throws(LogError) -> UnsafeRawBufferPointer {
    if place < start || place > start + count { (start, count) = (place, 0) }
    if place + wanted > start + count {
      let kept = start + count - place
      if let base = room.baseAddress, kept > 0 {
        base.copyMemory(from: base + (place - start), byteCount: kept)
      }
      (start, count) = (place, kept)
      while count < wanted {
        let rest = UnsafeMutableRawBufferPointer(rebasing: room[count...])
        let got: Int
        do { got = try source.read(at: start + count, into: rest) } catch { throw .system(error) }
        if got == 0 { throw .system(SystemError(call: "pread", errno: .inputOutput)) }
        count += got
      }
    }
    return UnsafeRawBufferPointer(rebasing: room[place - start..<place - start + wanted])
  }
}
