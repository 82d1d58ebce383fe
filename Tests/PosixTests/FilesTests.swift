import Posix
import Synchronization
import TestSupport
import Testing

/// Fails the n-th call of one kind.
private final class NthCall: Sendable {
  private let left: Mutex<Int>
  init(_ n: Int) { left = Mutex(n) }
  var isNow: Bool {
    left.withLock {
      $0 -= 1
      return $0 == 0
    }
  }
}

private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

@Suite struct FilesTests {
  @Test("what is written is read back, wherever it was put")
  func roundTrip() throws {
    let folder = TemporaryFolder()
    let files = Files()
    let path = folder.path + "/a"
    let file = try files.open(path, .create)
    try Array("hello world".utf8).withUnsafeBytes { bytes in try file.write(bytes, at: 0)
    }
    try Array("W".utf8).withUnsafeBytes { bytes in try file.write(bytes, at: 6) }
    try file.sync()
    try files.syncFolder(folder.path)
    #expect(try file.bytesCount() == 11)
    #expect(text(try files.read(whole: path)) == "hello World")
    try file.truncate(bytesCount: 5)
    #expect(text(try files.read(whole: path)) == "hello")
    #expect(throws: SystemError(call: "open", errno: .exists, subject: path)) {
      _ = try files.open(path, .create).path
    }
  }

  @Test("appending adds to the end, over several openings")
  func appending() throws {
    let folder = TemporaryFolder()
    let path = folder.path + "/log"
    for word in ["one ", "two"] {
      let file = try Files().open(path, .append)
      try Array(word.utf8).withUnsafeBytes { bytes in try file.append(bytes) }
    }
    #expect(text(try Files().read(whole: path)) == "one two")
  }

  @Test("folders are made with their parents, and a file in the way is named")
  func folders() throws {
    let folder = TemporaryFolder()
    let files = Files()
    try files.makeFolder(folder.path + "/a/b/c")
    try files.makeFolder(folder.path + "/a/b/c")
    #expect(files.isFolder(folder.path + "/a/b/c"))
    _ = try files.open(folder.path + "/a/x", .create).path
    #expect(throws: SystemError(call: "mkdir", errno: .notFolder, subject: folder.path + "/a/x")) {
      try files.makeFolder(folder.path + "/a/x/y")
    }
    #expect(try files.names(in: folder.path + "/a") == ["b", "x"])
  }

  @Test("a renamed file replaces the other one")
  func renaming() throws {
    let folder = TemporaryFolder()
    let files = Files()
    for name in ["new", "old"] {
      let file = try files.open(folder.path + "/" + name, .create)
      try Array(name.utf8).withUnsafeBytes { bytes in try file.write(bytes, at: 0) }
    }
    try files.rename(folder.path + "/new", to: folder.path + "/old")
    #expect(text(try files.read(whole: folder.path + "/old")) == "new")
    #expect(!files.exists(folder.path + "/new"))
  }

  @Test("a file over the bound and a folder are refused")
  func refused() throws {
    let folder = TemporaryFolder()
    let file = try Files().open(folder.path + "/big", .create)
    try file.truncate(bytesCount: 200_000)
    #expect(throws: SystemError.self) { try Files().read(whole: folder.path + "/big", bytesMax: 199_999) }
    #expect(try Files().read(whole: folder.path + "/big", bytesMax: 200_000).count == 200_000)
    #expect(throws: SystemError(call: "read", errno: .isFolder, subject: folder.path)) {
      try Files().read(whole: folder.path)
    }
  }

  @Test(
    "the n-th call fails, with its name and path, and the earlier ones did their work", arguments: [1, 2, 3])
  func faults(n: Int) throws {
    let folder = TemporaryFolder()
    let nth = NthCall(n)
    let files = Files(fault: { call, _ in call == .pwrite && nth.isNow ? .noSpace : nil })
    let path = folder.path + "/f"
    let file = try files.open(path, .append)
    var written = 0
    #expect(throws: SystemError(call: "pwrite", errno: .noSpace, subject: path)) {
      for _ in 0..<3 {
        try [7].withUnsafeBytes { bytes in try file.append(bytes) }
        written += 1
      }
    }
    #expect(written == n - 1)
    #expect(try files.read(whole: path).count == (n - 1) * 8)
  }

  @Test("a write that takes a part at a time writes all of it")
  func shortWrites() throws {
    let folder = TemporaryFolder()
    let files = Files(writeBytesMax: 3) { _, _ in nil }
    let file = try files.open(folder.path + "/f", .create)
    try Array("hello world".utf8).withUnsafeBytes { bytes in try file.write(bytes, at: 2) }
    #expect(text(try files.read(whole: folder.path + "/f")) == "\0\0hello world")
  }

  @Test("reserved room reads as zeros, and a locked file is not locked twice")
  func reserveAndLock() throws {
    let folder = TemporaryFolder()
    let file = try Files().open(folder.path + "/f", .create)
    try file.reserve(bytesCount: 10_000)
    #expect(try Files().read(whole: folder.path + "/f") == [UInt8](repeating: 0, count: 10_000))
    #expect(try file.lock())
    let second = try Files().open(folder.path + "/f", .update)
    #expect(try !second.lock())
    let full = Files { call, _ in call == .fallocate ? .noSpace : nil }
    let third = try full.open(folder.path + "/g", .create)
    #expect(throws: SystemError(call: "fallocate", errno: .noSpace, subject: folder.path + "/g")) {
      try third.reserve(bytesCount: 1)
    }
  }

  @Test("a missing file is told with its path and the system's sentence")
  func missing() {
    do {
      _ = try Files().read(whole: "/nowhere/at/all")
      Issue.record("read a file that is not there")
    } catch {
      #expect(error.errno == .noSuchFile)
      #expect("\(error)" == "open /nowhere/at/all: No such file or directory")
    }
  }
}
