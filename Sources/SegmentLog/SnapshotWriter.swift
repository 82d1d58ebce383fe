// Writes a snapshot piece by piece under a temporary name, and gives it its name once it is whole and on the disk.
//
// The caller's order is the file's: for each board `board`, then its numbers from the lowest on; then the users, segment
// by segment; then `finish`. Sums and counts are compared on the way: an image that does not add up makes no snapshot.
//
// While boards are written nothing is synced, so that their image is soon taken whole; from then on every
// `syncBytes`, so that the disk never has much to do at once and the log's own syncs need not wait for it.
internal import Bytes
public import Posix
public import StepModel

/// A snapshot being written; used by one thread. If it goes before `finish`, its file goes too.
public final class SnapshotWriter {
  /// A finished snapshot.
  public struct Written: Hashable, Sendable {
    /// Where it is.
    public let path: String
    /// Its size.
    public let bytesCount: Int
  }

  /// Bytes that are handed to the kernel at once.
  static let flushBytes = 1 << 20
  /// Bytes after which what was written is synced.
  static let syncBytes = 32 << 20

  private let file: File
  private let files: Files
  private let folder: String
  private let path: String
  private let header: SnapshotHeader
  private let seed: UInt32
  private let room: UnsafeMutableRawPointer
  private var filled = 0
  private var flushed = 0
  private var synced = 0
  private var usersAt: Int?
  private var blocks = (boards: UInt32(0), users: UInt32(0))
  private var checks = (boards: UInt32(0), users: UInt32(0))
  private var boards = 0
  private var board: SnapshotBoard?
  private var sums = (users: 0, totalSteps: UInt64(0))
  private var numbersNext: UInt32 = 0
  private var users = 0
  private var isFinished = false

  /// Begins a snapshot; one that was broken off under the same name is replaced.
  ///
  /// - Parameters:
  ///   - folder: the shard's folder, which is there.
  ///   - header: the state at the moment of the image.
  ///   - files: the file system.
  /// - Throws: `LogError.system`.
  public init(folder: String, header: SnapshotHeader, files: Files = Files()) throws(LogError) {
    self.folder = folder
    self.files = files
    self.header = header
    path = folder + "/" + SnapshotFormat.name(watermark: header.watermark)
    do { file = try files.open(path + SnapshotFormat.temporarySuffix, .replace) } catch {
      throw .system(error)
    }
    room = .allocate(
      byteCount: SnapshotWriter.flushBytes + SnapshotFormat.blockBytes + SnapshotFormat.bodyBytesMax,
      alignment: 16)
    let (bytes, check) = header.encoded()
    seed = SnapshotBlock.sum(check)
    room.copyMemory(from: bytes, byteCount: bytes.count)
    filled = bytes.count
  }

  deinit {
    room.deallocate()
    // Best effort: what stays is removed as surplus later.
    if !isFinished { try? files.remove(path + SnapshotFormat.temporarySuffix) }
  }

  /// Begins a board.
  ///
  /// - Parameter board: after the one before: days, weeks, months, all time; then by date.
  /// - Throws: `damaged` if the board before does not add up; what writing throws.
  public func board(_ board: SnapshotBoard) throws(LogError) {
    precondition(usersAt == nil, "board \(board.id) after users")
    if let before = self.board {
      precondition(before.place < board.place, "board \(board.id) after \(before.id)")
    }
    try endBoard()
    self.board = board
    boards += 1
    numbersNext = 0
    board.write(to: place)
    try end(
      SnapshotBlock(kind: .board, form: 0, entries: 0, first: 0, bodyBytes: SnapshotFormat.boardBodyBytes))
  }

  /// Writes totals, and reports, of user numbers in a row.
  ///
  /// - Parameters:
  ///   - totals: a total a number, 0 for users who are not on the board; a multiple of 4,096 of them, or the board's
  ///     last.
  ///   - reports: two words a number, time of day and offset + 1, on boards of days in `totalNewest` mode; else nil.
  ///   - first: the number of the first, a multiple of 4,096, not before the end of the numbers given before.
  /// - Throws: what writing throws.
  public func numbers(
    _ totals: UnsafeBufferPointer<UInt32>, reports: UnsafeBufferPointer<Int64>?, from first: UInt32
  ) throws(LogError) {
    let chunk = SnapshotFormat.chunkNumbers
    guard let board else { preconditionFailure("numbers from \(first) before any board") }
    precondition(
      first >= numbersNext && Int(first) % chunk == 0, "numbers from \(first) after \(numbersNext)")
    precondition(
      (reports != nil) == board.hasReports(header.mode)
        && reports?.count ?? 0 == (reports == nil ? 0 : 2 * totals.count),
      "\(reports?.count ?? 0) words of reports for \(totals.count) totals on board \(board.id)")
    var done = 0
    while done < totals.count {
      let count = min(chunk, totals.count - done)
      let number = first + UInt32(done)
      try write(UnsafeBufferPointer(rebasing: totals[done..<done + count]), from: number)
      if let reports {
        try write(UnsafeBufferPointer(rebasing: reports[2 * done..<2 * (done + count)]), from: number)
      }
      done += count
      numbersNext = number + UInt32(chunk)
    }
  }

  private func write(_ totals: UnsafeBufferPointer<UInt32>, from first: UInt32) throws(LogError) {
    var count = 0
    var sum: UInt64 = 0
    for total in totals {
      count += total == 0 ? 0 : 1
      sum += UInt64(total)
    }
    guard count > 0 else { return }
    var end = totals.count
    while totals[end - 1] == 0 { end -= 1 }
    sums.users += count
    sums.totalSteps &+= sum
    let isSparse = 6 * count < 4 * end
    let body = place
    if isSparse {
      var entry = 0
      for i in 0..<end where totals[i] != 0 {
        body.storeBytes(of: UInt16(i).littleEndian, toByteOffset: 2 * entry, as: UInt16.self)
        body.storeBytes(of: totals[i].littleEndian, toByteOffset: 2 * count + 4 * entry, as: UInt32.self)
        entry += 1
      }
    } else {
      for i in 0..<end {
        body.storeBytes(of: totals[i].littleEndian, toByteOffset: 4 * i, as: UInt32.self)
      }
    }
    try self.end(
      SnapshotBlock(
        kind: .totals, form: isSparse ? 1 : 0, entries: isSparse ? count : end, first: first,
        bodyBytes: isSparse ? 6 * count : 4 * end))
  }

  private func write(_ reports: UnsafeBufferPointer<Int64>, from first: UInt32) throws(LogError) {
    var (count, end) = (0, 0)
    for i in 0..<reports.count / 2 where reports[2 * i + 1] != 0 {
      count += 1
      end = i + 1
    }
    guard count > 0 else { return }
    let isSparse = 18 * count < 16 * end
    let body = place
    var out = isSparse ? 2 * count : 0
    var entry = 0
    for i in 0..<end {
      let isThere = reports[2 * i + 1] != 0
      if isSparse {
        if !isThere { continue }
        body.storeBytes(of: UInt16(i).littleEndian, toByteOffset: 2 * entry, as: UInt16.self)
        entry += 1
      }
      body.storeBytes(of: isThere ? reports[2 * i].littleEndian : 0, toByteOffset: out, as: Int64.self)
      body.storeBytes(of: reports[2 * i + 1].littleEndian, toByteOffset: out + 8, as: Int64.self)
      out += 16
    }
    try self.end(
      SnapshotBlock(
        kind: .reports, form: isSparse ? 1 : 0, entries: isSparse ? count : end, first: first, bodyBytes: out)
    )
  }

  /// Writes the ids of the next segment of user numbers.
  ///
  /// - Parameter keys: the users in the order of their numbers; 1 to 4,096, all canonical UUIDs or none.
  /// - Throws: `damaged` if the last board does not add up; what writing throws.
  public func users(_ keys: UnsafeBufferPointer<UserKey>) throws(LogError) {
    precondition((1...SnapshotFormat.chunkNumbers).contains(keys.count), "a segment of \(keys.count) users")
    if usersAt == nil { try beginUsers() }
    let first = blocks.users * UInt32(SnapshotFormat.chunkNumbers)
    let isText = keys[0].text != nil
    let body = place
    var out = isText ? keys.count : 0
    for i in 0..<keys.count {
      let key = keys[i]
      precondition((key.text != nil) == isText, "user \(first + UInt32(i)) has an id of the other form")
      if isText {
        body.storeBytes(of: UInt8(key.length), toByteOffset: i, as: UInt8.self)
        out += key.write(to: body + out)
      } else {
        body.storeBytes(of: key.high.bigEndian, toByteOffset: out, as: UInt64.self)
        body.storeBytes(of: key.low.bigEndian, toByteOffset: out + 8, as: UInt64.self)
        out += 16
      }
    }
    users += keys.count
    try end(
      SnapshotBlock(kind: .users, form: isText ? 1 : 0, entries: keys.count, first: first, bodyBytes: out))
  }

  private func beginUsers() throws(LogError) {
    try endBoard()
    guard boards == header.boards else { throw doesNotAddUp }
    usersAt = flushed + filled
  }

  /// Ends the file, syncs it, gives it its name and syncs the folder.
  ///
  /// - Returns: the snapshot, which will be there after a crash.
  /// - Throws: `damaged` if users or the last board do not add up; `syncFailed`; what writing throws. There is no
  ///   snapshot then, unless only the folder's sync failed.
  public func finish() throws(LogError) -> Written {
    if usersAt == nil { try beginUsers() }
    guard users == header.users, let usersAt else { throw doesNotAddUp }
    let body = place
    body.storeBytes(of: UInt64(usersAt).littleEndian, as: UInt64.self)
    body.storeBytes(of: blocks.boards.littleEndian, toByteOffset: 8, as: UInt32.self)
    body.storeBytes(of: blocks.users.littleEndian, toByteOffset: 12, as: UInt32.self)
    body.storeBytes(of: checks.boards.littleEndian, toByteOffset: 16, as: UInt32.self)
    body.storeBytes(of: checks.users.littleEndian, toByteOffset: 20, as: UInt32.self)
    try end(SnapshotBlock(kind: .end, form: 0, entries: 0, first: 0, bodyBytes: SnapshotFormat.endBodyBytes))
    try flush()
    try sync()
    do {
      try files.rename(path + SnapshotFormat.temporarySuffix, to: path)
      isFinished = true
    } catch { throw .system(error) }
    do { try files.syncFolder(folder) } catch { throw .syncFailed(path: folder, errno: error.errno) }
    return Written(path: path, bytesCount: flushed)
  }

  // MARK: Blocks

  private var doesNotAddUp: LogError {
    .damaged(path: path + SnapshotFormat.temporarySuffix, atByte: flushed + filled, .content(.value))
  }

  /// Where the next block's body goes; there is room for the longest.
  private var place: UnsafeMutableRawPointer { room + filled + SnapshotFormat.blockBytes }

  private func endBoard() throws(LogError) {
    if let board, sums != (board.users, board.totalSteps) { throw doesNotAddUp }
    sums = (0, 0)
    board = nil
  }

  /// Ends a block whose body is in place.
  private func end(_ block: SnapshotBlock) throws(LogError) {
    let check = block.write(to: room + filled, seed: seed)
    switch block.kind {
    case .board, .totals, .reports:
      blocks.boards += 1
      checks.boards = SnapshotBlock.sum(check, after: checks.boards)
    case .users:
      blocks.users += 1
      checks.users = SnapshotBlock.sum(check, after: checks.users)
    case .end: break
    }
    filled += SnapshotFormat.blockBytes + block.bodyBytes
    guard filled >= SnapshotWriter.flushBytes else { return }
    try flush()
    if usersAt != nil && flushed - synced >= SnapshotWriter.syncBytes { try sync() }
  }

  private func flush() throws(LogError) {
    do {
      try file.write(UnsafeRawBufferPointer(start: room, count: filled), at: flushed)
    } catch { throw .system(error) }
    flushed += filled
    filled = 0
  }

  private func sync() throws(LogError) {
    do { try file.sync() } catch { throw .syncFailed(path: file.path, errno: error.errno) }
    synced = flushed
  }
}
