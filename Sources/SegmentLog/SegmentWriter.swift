// The files of a log under way: what was given becomes segments. Used by the sync thread alone.

internal import Bytes
internal import Posix

/// Bytes on their way to the disk, with the places where segments end and begin.
struct PendingBytes: ~Copyable {
  enum Mark {
    case end
    case begin(SegmentHeader)
  }

  var bytes: ByteWriter
  /// Each before the byte at `place`.
  var marks: [(place: Int, mark: Mark)] = []
  /// What of it is done, so that a second attempt goes on there.
  var bytesDone = 0
  var marksDone = 0

  init() { bytes = ByteWriter(limit: .max, reserved: 64 << 10) }

  mutating func removeAll() {
    bytes.removeAll()
    // A burst's memory is not kept for ever.
    bytes.shrink(to: 8 << 20)
    marks.removeAll(keepingCapacity: true)
    bytesDone = 0
    marksDone = 0
  }
}

/// An open file, so that there may be none.
private final class OpenFile {
  let file: File
  init(_ file: consuming File) { self.file = file }
}

/// The segment that is being written.
struct SegmentWriter: ~Copyable {
  private let folder: String
  private let files: Files
  private let segmentBytes: Int
  private var open: OpenFile?
  private var place = 0
  /// Finished since they were last asked for.
  var finished: [String] = []

  init(folder: String, files: Files, segmentBytes: Int) {
    self.folder = folder
    self.files = files
    self.segmentBytes = segmentBytes
  }

  /// Writes what is left of pending bytes, and syncs it.
  ///
  /// - Throws: `syncFailed`; `system` for a full disk, after which the rest can be written later; `writeFailed`.
  mutating func write(_ pending: inout PendingBytes) throws(LogError) {
    while pending.marksDone < pending.marks.count {
      let (end, mark) = pending.marks[pending.marksDone]
      try write(&pending, upTo: end)
      switch mark {
      case .end: try finish()
      case .begin(let header): try begin(header)
      }
      pending.marksDone += 1
    }
    try write(&pending, upTo: pending.bytes.count)
    try sync()
  }

  private mutating func write(_ pending: inout PendingBytes, upTo end: Int) throws(LogError) {
    if pending.bytesDone == end { return }
    let bytes = UnsafeRawBufferPointer(rebasing: pending.bytes.unsafeBytes[pending.bytesDone..<end])
    do throws(SystemError) {
      guard let open else { preconditionFailure("bytes outside a segment") }
      try open.file.write(bytes, at: place)
    } catch { throw SegmentWriter.writeError(error) }
    place += bytes.count
    pending.bytesDone = end
  }

  /// What was written is on the disk afterwards.
  private func sync() throws(LogError) {
    guard let open else { return }
    do throws(SystemError) { try open.file.sync() } catch { throw SegmentWriter.syncError(error) }
  }

  /// Ends the segment: synced, and as long as what it holds.
  mutating func finish() throws(LogError) {
    guard let open else { return }
    do throws(SystemError) { try open.file.truncate(bytesCount: place) } catch {
      throw SegmentWriter.writeError(error)
    }
    try sync()
    finished.append(open.file.path)
    self.open = nil
  }

  /// Makes the next segment. Everything before it is synced, which is what the file's being there says.
  private mutating func begin(_ header: SegmentHeader) throws(LogError) {
    precondition(open == nil, "a segment began before the last was finished")
    let path = folder + "/" + SegmentName(base: header.base, form: .plain).text
    do throws(LogError) {
      try make(path, header)
    } catch {
      // Half a segment is of no use to a second attempt.
      if case .system = error, open != nil {
        open = nil
        try? files.remove(path)
      }
      throw error
    }
  }

  private mutating func make(_ path: String, _ header: SegmentHeader) throws(LogError) {
    do throws(SystemError) {
      let made = OpenFile(try files.open(path, .create))
      open = made
      try made.file.reserve(bytesCount: segmentBytes)
      try made.file.write(all: header.encoded().bytes, at: 0)
    } catch { throw SegmentWriter.writeError(error) }
    try sync()
    do throws(SystemError) { try files.syncFolder(folder) } catch { throw SegmentWriter.syncError(error) }
    place = SegmentFormat.segmentHeaderBytes
  }

  private static func writeError(_ error: SystemError) -> LogError {
    if error.errno == .noSpace || error.errno == .quota { return .system(error) }
    return .writeFailed(path: error.subject ?? error.call, errno: error.errno)
  }

  private static func syncError(_ error: SystemError) -> LogError {
    .syncFailed(path: error.subject ?? error.call, errno: error.errno)
  }
}

extension File {
  /// Writes an array's bytes at a place, as `write` does.
  borrowing func write(all bytes: [UInt8], at offset: Int) throws(SystemError) {
    // The closure of `withUnsafeBytes` does not pass typed errors on.
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
    defer { copy.deallocate() }
    copy.copyBytes(from: bytes)
    try write(UnsafeRawBufferPointer(copy), at: offset)
  }
}
