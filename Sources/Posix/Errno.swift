// Error numbers of the kernel as values: typed, named, each that we react to explained.

public import Glibc

/// An error number of the kernel.
public struct Errno: RawRepresentable, Hashable, Sendable {
  public let rawValue: Int32

  @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }

  /// The calling thread's last error number. C: `errno`.
  @inlinable public static var current: Errno { Errno(rawValue: errno) }

  /// EPERM: not permitted whatever the file's mode.
  public static let notPermitted = Errno(rawValue: EPERM)
  /// ENOENT: no such file or folder.
  public static let noSuchFile = Errno(rawValue: ENOENT)
  /// EINTR: a signal came first; the wrapper repeats the call.
  public static let interrupted = Errno(rawValue: EINTR)
  /// EIO: the device failed. After a failed sync the page cache can no longer be trusted.
  public static let inputOutput = Errno(rawValue: EIO)
  /// EBADF: not an open descriptor: our own bug, the wrapper traps.
  public static let badDescriptor = Errno(rawValue: EBADF)
  /// EAGAIN, EWOULDBLOCK: nothing to be had now; a value, never thrown.
  public static let wouldBlock = Errno(rawValue: EAGAIN)
  /// ENOMEM: the kernel has no memory for this.
  public static let noMemory = Errno(rawValue: ENOMEM)
  /// EACCES: the mode or owner of the file forbids it; for a bind, a port under 1024.
  public static let accessDenied = Errno(rawValue: EACCES)
  /// EFAULT: a pointer outside our memory: our own bug, the wrapper traps.
  public static let badAddress = Errno(rawValue: EFAULT)
  /// EEXIST: the file or folder is there already.
  public static let exists = Errno(rawValue: EEXIST)
  /// ENOTDIR: a part of the path is no folder.
  public static let notFolder = Errno(rawValue: ENOTDIR)
  /// EISDIR: a folder where a file was meant.
  public static let isFolder = Errno(rawValue: EISDIR)
  /// EINVAL: an argument the kernel does not take.
  public static let invalid = Errno(rawValue: EINVAL)
  /// EMFILE: this process has as many descriptors as it may have.
  public static let tooManyDescriptors = Errno(rawValue: EMFILE)
  /// ENFILE: the whole system has as many open files as it may have.
  public static let tooManyFilesInSystem = Errno(rawValue: ENFILE)
  /// EFBIG: longer than a file may be, or than it is read.
  public static let fileTooLarge = Errno(rawValue: EFBIG)
  /// ENOSPC: the device is full, or has no inodes left.
  public static let noSpace = Errno(rawValue: ENOSPC)
  /// EROFS: the file system is mounted read-only.
  public static let readOnly = Errno(rawValue: EROFS)
  /// EPIPE: the reader is gone.
  public static let brokenPipe = Errno(rawValue: EPIPE)
  /// EDQUOT: the user's share of the disk is used up.
  public static let quota = Errno(rawValue: EDQUOT)
  /// EADDRINUSE: another socket listens on this address.
  public static let addressInUse = Errno(rawValue: EADDRINUSE)
  /// EADDRNOTAVAIL: no interface of this machine has the address.
  public static let addressNotAvailable = Errno(rawValue: EADDRNOTAVAIL)
  /// ECONNABORTED: the peer left between its connect and our accept.
  public static let connectionAborted = Errno(rawValue: ECONNABORTED)
  /// ECONNRESET: the peer dropped the connection.
  public static let connectionReset = Errno(rawValue: ECONNRESET)
  /// ECONNREFUSED: nobody listens there.
  public static let connectionRefused = Errno(rawValue: ECONNREFUSED)
  /// ETIMEDOUT: the peer did not answer in time.
  public static let timedOut = Errno(rawValue: ETIMEDOUT)
  /// EHOSTUNREACH: no route to the peer.
  public static let hostUnreachable = Errno(rawValue: EHOSTUNREACH)
  /// EINPROGRESS: the connect goes on in the background.
  public static let inProgress = Errno(rawValue: EINPROGRESS)
}

extension Errno: CustomStringConvertible {
  /// The system's sentence for the number, as `strerror` has it.
  public var description: String {
    var text = [CChar](repeating: 0, count: 128)
    // The overlay imports the XSI form, which fills the buffer and returns 0.
    guard strerror_r(rawValue, &text, text.count) == 0 else { return "error \(rawValue)" }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// A call to the kernel that failed: which one, on what, and why.
public struct SystemError: Error, Hashable, Sendable {
  /// The C function's name.
  public let call: String
  public let errno: Errno
  /// The path or address it was about; nil where there is none.
  public let subject: String?

  public init(call: String, errno: Errno, subject: String? = nil) {
    self.call = call
    self.errno = errno
    self.subject = subject
  }

  /// The same failure, with what it was about.
  ///
  /// - Parameter subject: a path or an address.
  /// - Returns: the error, naming it.
  public func about(_ subject: String) -> SystemError {
    SystemError(call: call, errno: errno, subject: subject)
  }
}

extension SystemError: CustomStringConvertible {
  /// `open /var/lib/rmsd/x: No such file or directory`.
  public var description: String { "\(call)\(subject.map { " " + $0 } ?? ""): \(errno)" }
}
