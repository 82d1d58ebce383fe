// The header of a snapshot alone: whose it is, before anybody knows whose it should be.

public import Posix

extension SnapshotHeader {
  /// Reads a file's header.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - files: the file system.
  /// - Throws: `damaged`, `newer`, `system`. What follows the header is not judged.
  public init(path: String, files: Files = Files()) throws(LogError) {
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: SnapshotFormat.headerBytes, alignment: 8)
    defer { room.deallocate() }
    var count = 0
    do throws(SystemError) {
      let file = try files.open(path, .read)
      count = try file.read(at: 0, into: room)
    } catch { throw .system(error) }
    let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(room)[..<count])
    guard count == SnapshotFormat.headerBytes else { throw .damaged(path: path, atByte: count, .short) }
    self = try SnapshotHeader.decode(bytes, path: path).header
  }
}
