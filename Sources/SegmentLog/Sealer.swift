// A finished segment as one LZ4 frame, from which the program `lz4 -d` makes the segment again.
//
// Order of the file operations; after each a crash leaves a folder that recovery puts in order:
//   write `….seg.lz4.tmp`, sync it          a leftover: removed
//   read it from the disk, judge it         the same
//   rename it to `….seg.lz4`, sync folder   both forms: the sealed one is whole, the plain one is removed
//   remove `….seg`                          sealed
//
// Both are read in pieces of 4 MiB, each judged batch by batch as it comes by. The last batch's checksum stands for all
// before it, so what lies on the disk is the segment if it ends in the same.

public import Posix

/// Seals segments. Any thread, one at a time for a folder.
public enum Sealer {
  /// What sealing did.
  public struct Report: Hashable, Sendable {
    public let sealed: SegmentName
    public let bytesBefore: Int
    public let bytesAfter: Int
  }

  /// Seals a finished segment.
  ///
  /// - Parameters:
  ///   - base: the segment's base; nothing is written to its file any more.
  ///   - folder: the shard's folder.
  ///   - identity: whose log it is.
  ///   - files: the file system.
  /// - Returns: its size before and after.
  /// - Throws: `damaged` if the segment, or what was written of it, does not check: the plain one stays then; `newer`,
  ///   `foreign`, `tooLarge`, `system`, `syncFailed`.
  /// - Complexity: O(bytes); memory for a few pieces.
  @discardableResult
  public static func seal(
    base: Int64, in folder: String, identity: LogIdentity, files: Files = Files()
  ) throws(LogError) -> Report {
    let plain = folder + "/" + SegmentName(base: base, form: .plain).text
    let sealed = SegmentName(base: base, form: .sealed)
    let path = folder + "/" + sealed.text
    let temporary = path + Recovery.temporarySuffix
    let piece = UnsafeMutableRawBufferPointer.allocate(
      byteCount: LZ4FrameWriter.pieceBytes, alignment: 4_096)
    defer { piece.deallocate() }

    let source = try LogError.system { () throws(SystemError) in try files.open(plain, .read) }
    var bytesBefore = try bytesCount(of: source)
    let frame: (bytes: Int, check: UInt32)
    while true {
      var judge = SegmentJudge(path: plain, base: base, identity: identity)
      let bytes = try write(source, upTo: bytesBefore, to: temporary, piece, &judge, files)
      if judge.bytesGood == bytesBefore {
        frame = (bytes, judge.check)
        break
      }
      // Zeros at its end, as a crash leaves them, are no part of it.
      bytesBefore = judge.bytesGood
    }
    let opened = try read(
      temporary, SegmentJudge(path: temporary, base: base, identity: identity), piece, files)
    guard opened.check == frame.check, opened.bytes == bytesBefore else {
      throw .damaged(path: temporary, atByte: 0, .frame)
    }
    try LogError.system { () throws(SystemError) in try files.rename(temporary, to: path) }
    do throws(SystemError) { try files.syncFolder(folder) } catch {
      throw .syncFailed(path: folder, errno: error.errno)
    }
    try LogError.system { () throws(SystemError) in try files.remove(plain) }
    return Report(sealed: sealed, bytesBefore: bytesBefore, bytesAfter: frame.bytes)
  }

  /// The frame's size that a content would have; what compressing it takes, without files.
  ///
  /// - Parameter content: any bytes.
  /// - Returns: bytes.
  public static func frameBytes(of content: UnsafeRawBufferPointer) -> Int {
    var frame = LZ4FrameWriter(contentBytes: content.count)
    var count = 0
    for start in stride(from: 0, to: content.count, by: LZ4FrameWriter.pieceBytes) {
      let end = min(content.count, start + LZ4FrameWriter.pieceBytes)
      count += frame.piece(UnsafeRawBufferPointer(rebasing: content[start..<end])).count
    }
    return count + frame.end().count
  }

  private static func bytesCount(of file: borrowing File) throws(LogError) -> Int {
    let count: Int
    do throws(SystemError) { count = try file.bytesCount() } catch { throw .system(error) }
    guard count <= SegmentFormat.segmentBytesMax else {
      throw .tooLarge(path: file.path, bytes: count, bytesMax: SegmentFormat.segmentBytesMax)
    }
    return count
  }

  /// Fills a piece from a place on.
  private static func fill(
    _ piece: UnsafeMutableRawBufferPointer, from file: borrowing File, at place: Int, upTo end: Int
  ) throws(LogError) -> UnsafeRawBufferPointer {
    let wanted = min(piece.count, end - place)
    var filled = 0
    do throws(SystemError) {
      while filled < wanted {
        let rest = UnsafeMutableRawBufferPointer(rebasing: piece[filled..<wanted])
        let count = try file.read(at: place + filled, into: rest)
        if count == 0 { break }
        filled += count
      }
    } catch { throw .system(error) }
    guard filled == wanted else { throw .damaged(path: file.path, atByte: place + filled, .short) }
    return UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(piece)[..<wanted])
  }

  /// Writes and syncs the frame of a file's first bytes, and judges those.
  ///
  /// - Returns: bytes of the frame.
  private static func write(
    _ source: borrowing File, upTo end: Int, to path: String, _ piece: UnsafeMutableRawBufferPointer,
    _ judge: inout SegmentJudge, _ files: Files
  ) throws(LogError) -> Int {
    var frame = LZ4FrameWriter(contentBytes: end)
    let target = try LogError.system { () throws(SystemError) in try files.open(path, .replace) }
    var made = 0
    for place in stride(from: 0, to: end, by: piece.count) {
      let bytes = try fill(piece, from: source, at: place, upTo: end)
      try judge.take(bytes)
      try put(frame.piece(bytes), in: target, at: &made)
    }
    try judge.end()
    try put(frame.end(), in: target, at: &made)
    do throws(SystemError) { try target.sync() } catch { throw .syncFailed(path: path, errno: error.errno) }
    target.dropCache()
    return made
  }

  private static func put(
    _ bytes: UnsafeRawBufferPointer, in file: borrowing File, at place: inout Int
  ) throws(LogError) {
    do throws(SystemError) { try file.write(bytes, at: place) } catch { throw .system(error) }
    place += bytes.count
  }

  /// Opens the frame as it lies on the disk, and judges the content.
  ///
  /// - Returns: its bytes, and the checksum of its last batch.
  private static func read(
    _ path: String, _ judge: consuming SegmentJudge, _ piece: UnsafeMutableRawBufferPointer, _ files: Files
  ) throws(LogError) -> (bytes: Int, check: UInt32) {
    let file = try LogError.system { () throws(SystemError) in try files.open(path, .read) }
    let count = try bytesCount(of: file)
    var judge = judge
    var frame = LZ4FrameReader()
    for place in stride(from: 0, to: count, by: piece.count) {
      let bytes = try fill(piece, from: file, at: place, upTo: count)
      let isFrame = try frame.take(bytes) { (content) throws(LogError) in try judge.take(content) }
      guard isFrame else { throw .damaged(path: path, atByte: place, .frame) }
    }
    guard frame.isWhole else { throw .damaged(path: path, atByte: count, .frame) }
    try judge.end()
    return (judge.bytesGood, judge.check)
  }
}
