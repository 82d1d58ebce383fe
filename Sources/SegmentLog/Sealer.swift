// A finished segment as one LZ4 frame, from which the program `lz4 -d` makes the segment again.
//
// Order of the file operations; after each a crash leaves a folder that recovery puts in order:
//   write `….seg.lz4.tmp`, sync it          a leftover: removed
//   read it from the disk, compare          the same
//   rename it to `….seg.lz4`, sync folder   both forms: the sealed one is whole, the plain one is removed
//   remove `….seg`                          sealed

internal import Glibc
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
  /// - Throws: `damaged` if the segment, or what was written of it, does not check: the plain one stays then; `system`,
  ///   `syncFailed`.
  /// - Complexity: O(bytes); memory for the segment twice.
  @discardableResult
  public static func seal(
    base: Int64, in folder: String, identity: LogIdentity, files: Files = Files()
  ) throws(LogError) -> Report {
    let plain = SegmentName(base: base, form: .plain)
    let sealed = SegmentName(base: base, form: .sealed)
    let image = try SegmentImage(plain, in: folder, files: files)
    let facts = SegmentScan.facts(of: image, identity: identity)
    switch facts.finding {
    case .whole: break
    case .refused(let error): throw error
    case .broken(let byte, let damage): throw .damaged(path: image.path, atByte: byte, damage)
    case .headless(let damage): throw .damaged(path: image.path, atByte: 0, damage)
    case .unmade, .unread: throw .damaged(path: image.path, atByte: 0, .short)
    }
    let content = UnsafeRawBufferPointer(rebasing: image.bytes[..<facts.bytesGood])
    let path = folder + "/" + sealed.text
    let temporary = path + Recovery.temporarySuffix
    let count = try write(content, to: temporary, files)
    try compare(content, with: temporary, files)
    do throws(SystemError) { try files.rename(temporary, to: path) } catch { throw .system(error) }
    do throws(SystemError) { try files.syncFolder(folder) } catch {
      throw .syncFailed(path: folder, errno: error.errno)
    }
    do throws(SystemError) { try files.remove(image.path) } catch { throw .system(error) }
    return Report(sealed: sealed, bytesBefore: content.count, bytesAfter: count)
  }

  private static func write(
    _ content: UnsafeRawBufferPointer, to path: String, _ files: Files
  ) throws(LogError) -> Int {
    let frame = LZ4Frame.compress(content)
    defer { frame.memory.deallocate() }
    let target = try LogError.system { () throws(SystemError) in try files.open(path, .replace) }
    try LogError.system { () throws(SystemError) in
      try target.write(
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(frame.memory)[..<frame.bytesCount]), at: 0)
    }
    do throws(SystemError) { try target.sync() } catch { throw .syncFailed(path: path, errno: error.errno) }
    target.dropCache()
    return frame.bytesCount
  }

  private static func compare(
    _ content: UnsafeRawBufferPointer, with path: String, _ files: Files
  ) throws(LogError) {
    let file = try SegmentImage.read(path, files)
    defer { file.deallocate() }
    guard let opened = LZ4Frame.decompress(UnsafeRawBufferPointer(file), bytesMax: content.count + 1) else {
      throw .damaged(path: path, atByte: 0, .frame)
    }
    defer { opened.memory.deallocate() }
    let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(opened.memory)[..<opened.bytesCount])
    guard opened.isWhole, bytes.count == content.count, let mine = content.baseAddress,
      let theirs = bytes.baseAddress, memcmp(theirs, mine, bytes.count) == 0
    else { throw .damaged(path: path, atByte: 0, .frame) }
  }
}
