// Files and folders: the few calls that logs, dead letters and settings need. `Files` is the seam: a test hands one
// in whose n-th call fails, so that full disks and failed syncs are played without either.

import Glibc

/// The calls of `Files`, as faults name them.
public enum FileCall: String, Hashable, Sendable, CaseIterable {
  case open, pread, pwrite, fdatasync, fsync, fstat, rename, mkdir, unlink, ftruncate, readdir, fallocate,
    flock
}

/// The file system, as the process sees it. Calls block; callable from any thread.
public struct Files: Sendable {
  /// Asked before each call; an errno makes the call fail with it, without reaching the kernel.
  public typealias Fault = @Sendable (FileCall, _ path: String) -> Errno?

  /// Longest file that `read(whole:)` takes unless told otherwise, in bytes.
  public static let wholeBytesMax = 16 << 20

  let fault: Fault?
  /// Most bytes that one write takes.
  let writeBytesMax: Int

  /// The machine's files.
  public init() {
    fault = nil
    writeBytesMax = .max
  }

  /// Files whose calls may fail.
  ///
  /// - Parameters:
  ///   - writeBytesMax: most bytes that one write takes, so that longer ones are short writes.
  ///   - fault: decides before each call.
  public init(writeBytesMax: Int = .max, fault: @escaping Fault) {
    precondition(writeBytesMax >= 1, "a write takes a byte at least")
    self.fault = fault
    self.writeBytesMax = writeBytesMax
  }

  /// How a file is opened.
  public enum Mode: Hashable, Sendable {
    /// Must exist; for reading.
    case read
    /// Made if absent; for reading and writing at any place.
    case update
    /// Made if absent; every write goes to the end.
    case append
    /// Must not exist; for reading and writing.
    case create
    /// Made if absent, emptied if not; for reading and writing.
    case replace

    fileprivate var flags: Int32 {
      switch self {
      case .read: O_RDONLY
      case .update: O_RDWR | O_CREAT
      case .append: O_WRONLY | O_CREAT | O_APPEND
      case .create: O_RDWR | O_CREAT | O_EXCL
      case .replace: O_RDWR | O_CREAT | O_TRUNC
      }
    }
  }

  /// Opens a file. C: `open`.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - mode: what for.
  ///   - permissions: of a file that is made, before the process's mask.
  /// - Returns: the open file; closed when it goes.
  /// - Throws: `SystemError` about the path.
  public func open(_ path: String, _ mode: Mode, permissions: UInt32 = 0o640) throws(SystemError) -> File {
    try check(.open, path)
    let number = try naming(path) { () throws(SystemError) in
      try SystemCall.run("open") { Glibc.open(path, mode.flags | O_CLOEXEC, mode_t(permissions)) }
    }
    return File(descriptor: Descriptor(owning: number), path: path, files: self)
  }

  /// Makes a folder and the folders above it; does nothing where they are. C: `mkdir`.
  ///
  /// - Parameters:
  ///   - path: the folder.
  ///   - permissions: of folders that are made, before the process's mask.
  /// - Throws: `SystemError` about the part that failed; `Errno.notFolder` if a file is in the way.
  public func makeFolder(_ path: String, permissions: UInt32 = 0o750) throws(SystemError) {
    var ends = path.utf8.indices.dropFirst().filter { path.utf8[$0] == UInt8(ascii: "/") }
    ends.append(path.endIndex)
    for end in ends {
      let part = String(path[..<end])
      try check(.mkdir, part)
      if mkdir(part, mode_t(permissions)) == 0 { continue }
      let error = Errno.current
      guard isFolder(part) else {
        throw SystemError(call: "mkdir", errno: error == .exists ? .notFolder : error, subject: part)
      }
    }
  }

  /// Whether the path is a folder; links are followed. C: `stat`.
  public func isFolder(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }

  /// Whether anything is at the path. C: `access`.
  public func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  /// Whether this process may write the file at the path: it is there, its rights and its file system allow it.
  /// C: `access`.
  public func isWritable(_ path: String) -> Bool { access(path, W_OK) == 0 }

  /// Bytes that this process may still write to the file system of a path. C: `statvfs`.
  ///
  /// - Parameter path: a file or folder that is there.
  /// - Returns: the bytes.
  /// - Throws: `SystemError`.
  public func freeBytes(_ path: String) throws(SystemError) -> UInt64 {
    var status = statvfs()
    do { try SystemCall.run("statvfs") { statvfs(path, &status) } } catch { throw error.about(path) }
    return UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize)).partialValue
  }

  /// Puts a file in another's place, as one step. Lasting only after `syncFolder`. C: `rename`.
  ///
  /// - Parameters:
  ///   - source: the file.
  ///   - target: its new path; a file there is replaced.
  /// - Throws: `SystemError` about the source.
  public func rename(_ source: String, to target: String) throws(SystemError) {
    try check(.rename, source)
    try naming(source) { () throws(SystemError) in
      _ = try SystemCall.run("rename") { Glibc.rename(source, target) }
    }
  }

  /// Removes a file. C: `unlink`.
  ///
  /// - Parameter path: the file.
  /// - Throws: `SystemError` about the path.
  public func remove(_ path: String) throws(SystemError) {
    try check(.unlink, path)
    try naming(path) { () throws(SystemError) in _ = try SystemCall.run("unlink") { unlink(path) } }
  }

  /// Makes names in a folder last: files made, renamed or removed there. C: `fsync` of the folder.
  ///
  /// - Parameter path: the folder.
  /// - Throws: `SystemError` about the path.
  public func syncFolder(_ path: String) throws(SystemError) {
    try check(.fsync, path)
    try naming(path) { () throws(SystemError) in
      let folder = Descriptor(
        owning: try SystemCall.run("open") { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
      try SystemCall.run("fsync") { fsync(folder.number) }
    }
  }

  /// Names in a folder, `.` and `..` left out, in byte order. C: `readdir`.
  ///
  /// - Parameter path: the folder.
  /// - Returns: the names.
  /// - Throws: `SystemError` about the path.
  public func names(in path: String) throws(SystemError) -> [String] {
    try check(.readdir, path)
    guard let folder = opendir(path) else {
      throw SystemError(call: "opendir", errno: .current, subject: path)
    }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  /// Reads a small file.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - bytesMax: longer ones are refused before memory is taken.
  /// - Returns: its bytes.
  /// - Throws: `SystemError` about the path; `Errno.isFolder` for a folder, EFBIG for a file over `bytesMax`.
  public func read(whole path: String, bytesMax: Int = wholeBytesMax) throws(SystemError) -> [UInt8] {
    if isFolder(path) { throw SystemError(call: "read", errno: .isFolder, subject: path) }
    let file = try open(path, .read)
    // Not the size of `fstat`: files of /proc report none.
    var bytes: [UInt8] = []
    var room = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      var result: Result<Int, SystemError> = .success(0)
      room.withUnsafeMutableBytes { buffer in
        do throws(SystemError) {
          result = .success(try file.read(at: bytes.count, into: buffer))
        } catch { result = .failure(error) }
      }
      let count = try result.get()
      if count == 0 { return bytes }
      guard bytes.count + count <= bytesMax else {
        throw SystemError(call: "read", errno: Errno(rawValue: EFBIG), subject: path)
      }
      bytes += room[..<count]
    }
  }

  func check(_ call: FileCall, _ path: String) throws(SystemError) {
    if let fault, let errno = fault(call, path) {
      throw SystemError(call: call.rawValue, errno: errno, subject: path)
    }
  }
}

/// An open file; closed when it goes.
public struct File: ~Copyable, Sendable {
  let descriptor: Descriptor
  /// The path it was opened by.
  public let path: String
  let files: Files

  /// Bytes of the file. C: `fstat`.
  ///
  /// - Returns: its size.
  /// - Throws: `SystemError` about the path.
  public borrowing func bytesCount() throws(SystemError) -> Int {
    try files.check(.fstat, path)
    var status = stat()
    let number = descriptor.number
    try naming(path) { () throws(SystemError) in _ = try SystemCall.run("fstat") { fstat(number, &status) } }
    return Int(status.st_size)
  }

  /// Reads from a place, as much as one call gives. C: `pread`.
  ///
  /// - Parameters:
  ///   - offset: bytes from the start.
  ///   - buffer: where the bytes go.
  /// - Returns: bytes read; 0 at the end of the file.
  /// - Throws: `SystemError` about the path.
  public borrowing func read(
    at offset: Int, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SystemError) -> Int {
    try files.check(.pread, path)
    let number = descriptor.number
    return try naming(path) { () throws(SystemError) in
      try SystemCall.run("pread") { pread(number, buffer.baseAddress, buffer.count, off_t(offset)) }
    }
  }

  /// Writes all bytes at a place; short writes are continued. C: `pwrite`.
  ///
  /// - Parameters:
  ///   - bytes: what to write.
  ///   - offset: bytes from the start.
  /// - Throws: `SystemError` about the path; a part may be written then.
  public borrowing func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(SystemError) {
    let number = descriptor.number
    try writeAll(bytes) { rest, done in pwrite(number, rest.baseAddress, rest.count, off_t(offset + done)) }
  }

  /// Writes all bytes at the end of a file opened with `.append`; short writes are continued. C: `write`.
  ///
  /// - Parameter bytes: what to write.
  /// - Throws: `SystemError` about the path; a part may be written then.
  public borrowing func append(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
    let number = descriptor.number
    try writeAll(bytes) { rest, _ in Glibc.write(number, rest.baseAddress, rest.count) }
  }

  /// Makes what was written last. After a failure nothing is known about the pages: do not try again.
  /// C: `fdatasync`.
  ///
  /// - Throws: `SystemError` about the path.
  public borrowing func sync() throws(SystemError) {
    try files.check(.fdatasync, path)
    let number = descriptor.number
    try naming(path) { () throws(SystemError) in _ = try SystemCall.run("fdatasync") { fdatasync(number) } }
  }

  /// Cuts or extends the file. C: `ftruncate`.
  ///
  /// - Parameter count: its size afterwards, in bytes.
  /// - Throws: `SystemError` about the path.
  public borrowing func truncate(bytesCount count: Int) throws(SystemError) {
    try files.check(.ftruncate, path)
    let number = descriptor.number
    try naming(path) { () throws(SystemError) in
      _ = try SystemCall.run("ftruncate") { ftruncate(number, off_t(count)) }
    }
  }

  /// Reserves room on the disk, so that later writes within it neither meet a full disk nor move the file's end. What
  /// was not written reads as zeros. C: `posix_fallocate`.
  ///
  /// - Parameter count: bytes from the start; the file is at least as long afterwards.
  /// - Throws: `SystemError` about the path; `Errno.noSpace` if there is no such room.
  public borrowing func reserve(bytesCount count: Int) throws(SystemError) {
    try files.check(.fallocate, path)
    while true {
      let result = posix_fallocate(descriptor.number, 0, off_t(count))
      if result == 0 { return }
      if result == EINTR { continue }
      throw SystemError(call: "posix_fallocate", errno: Errno(rawValue: result), subject: path)
    }
  }

  /// Takes the file for this opening of it alone; given back when it is closed, or its process ends. C: `flock`.
  ///
  /// - Returns: false if another opening has it.
  /// - Throws: `SystemError` about the path.
  public borrowing func lock() throws(SystemError) -> Bool {
    try files.check(.flock, path)
    let number = descriptor.number
    return try naming(path) { () throws(SystemError) in
      try SystemCall.value("flock") { flock(number, LOCK_EX | LOCK_NB) } != nil
    }
  }

  /// Gives the file's cached pages back, so that what is read next comes from the disk. Advice only: synced pages go,
  /// others stay. C: `posix_fadvise`.
  public borrowing func dropCache() { _ = posix_fadvise(descriptor.number, 0, 0, POSIX_FADV_DONTNEED) }

  /// Whether the file at its path is still this one: neither removed, replaced nor hidden by a mount. C: `stat`.
  public borrowing func isAtItsPath() -> Bool {
    var there = stat()
    var here = stat()
    return stat(path, &there) == 0 && fstat(descriptor.number, &here) == 0 && there.st_ino == here.st_ino
      && there.st_dev == here.st_dev
  }

  private borrowing func writeAll(
    _ bytes: UnsafeRawBufferPointer, _ call: (UnsafeRawBufferPointer, _ done: Int) -> Int
  ) throws(SystemError) {
    var done = 0
    while done < bytes.count {
      try files.check(.pwrite, path)
      let rest = UnsafeRawBufferPointer(
        rebasing: bytes[done..<(done + min(bytes.count - done, files.writeBytesMax))])
      done += try naming(path) { () throws(SystemError) in try SystemCall.run("write") { call(rest, done) } }
    }
  }
}

/// Adds the path to an error.
private func naming<R>(_ path: String, _ body: () throws(SystemError) -> R) throws(SystemError) -> R {
  do { return try body() } catch { throw error.about(path) }
}
