// Boards to a snapshot and back: the image that the shard marked, piece by piece, and the snapshot's parts into empty
// boards.

import Posix
import RankIndex
import SegmentLog
import StepModel

enum ShardSnapshot {
  /// Writes the image's file, whole but for its name.
  ///
  /// - Parameters:
  ///   - image: of the shard; thawed by the caller afterwards.
  ///   - shard: whose gate keeps pieces apart from the writer.
  ///   - files: the file system.
  /// - Returns: the snapshot, to be finished once the log is as far.
  /// - Throws: `LogError`.
  static func write(_ image: ShardImage, of shard: Shard, files: Files) throws(LogError) -> SnapshotWriter {
    let numbers = image.numbers
    let boards = image.boards
    let writer = try SnapshotWriter(
      folder: shard.store.folder,
      header: SnapshotHeader(
        identity: shard.store.identity, mode: shard.boards.mode, watermark: numbers.watermark,
        clockMs: numbers.clock, newestMs: numbers.newest, counted: numbers.counted,
        superseded: numbers.superseded, rejected: numbers.rejected, users: boards.users,
        boards: boards.boards.count), files: files)
    let piece = FrozenPiece()
    for (index, board) in boards.boards.enumerated() {
      try writer.board(SnapshotBoard(id: board.id, users: board.users, totalSteps: board.totalSteps))
      while shard.gate.read({ boards.take(index, into: piece) }) {
        try writer.numbers(piece.totals, reports: board.hasReports ? piece.reports : nil, from: piece.first)
      }
    }
    let keys = UnsafeMutableBufferPointer<UserKey>.allocate(capacity: FrozenBoards.segmentNumbers)
    defer { keys.deallocate() }
    for segment in 0..<boards.segments {
      let count = boards.users(ofSegment: segment, into: keys)
      try writer.users(UnsafeBufferPointer(rebasing: keys[..<count]))
    }
    return writer
  }

  /// Reads a snapshot into empty boards.
  ///
  /// - Parameters:
  ///   - reader: just opened.
  ///   - boards: nobody reads them yet; to be thrown away if this fails.
  ///   - progress: told how many bytes were read.
  /// - Returns: the numbers that go with the boards.
  /// - Throws: what does not check, or makes no boards.
  static func load(
    _ reader: SnapshotReader, into boards: ShardBoards, progress: (Int) -> Void
  ) throws(RestoreFailure) -> ShardNumbers {
    let header = reader.header
    boards.reserve(users: header.users)
    var board: BoardRestoration?
    while true {
      let part: SnapshotPart?
      do throws(LogError) { part = try reader.next() } catch { throw .log(error) }
      guard let part else { break }
      do throws(RestoreError) {
        switch part {
        case .users(let keys):
          try boards.restore(segment: keys)
          progress(keys.count * 16)
        case .board(let next):
          board?.finish()
          board = try boards.restore(next.id)
        case .totals(let totals, let first):
          try board?.totals(totals, from: first)
          progress(totals.count * 4)
        case .reports(let reports, let first): try board?.reports(reports, from: first)
        }
      } catch { throw .boards(error) }
    }
    board?.finish()
    var numbers = ShardNumbers()
    numbers.watermark = header.watermark
    numbers.clock = header.clockMs
    numbers.newest = header.newestMs
    numbers.counted = header.counted
    numbers.superseded = header.superseded
    for (reason, count) in header.rejected.enumerated() where reason < numbers.rejected.count {
      numbers.rejected[reason] = count
    }
    return numbers
  }
}
