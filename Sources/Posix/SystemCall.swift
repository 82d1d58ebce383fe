// The one wrapper around calls to the kernel. EINTR is retried, would-block is a value, an errno that proves our own
// bug (EBADF, EFAULT) traps, anything else is thrown with the call's name. Below it: the calls on descriptors.

import Glibc

/// Calls to the kernel. Every function is callable from any thread.
public enum SystemCall {
  /// Runs a call that fails with -1 until a signal no longer interrupts it.
  ///
  /// - Parameters:
  ///   - name: the C function, for the error.
  ///   - call: the call; repeated while it fails with EINTR.
  /// - Returns: the call's result; nil if it would block.
  /// - Throws: `SystemError` for any other errno; EBADF and EFAULT trap.
  @inlinable @inline(__always)
  public static func value<T: SignedInteger & FixedWidthInteger>(
    _ name: StaticString, _ call: () -> T
  ) throws(SystemError) -> T? {
    while true {
      let result = call()
      if result != -1 { return result }
      let error = Errno.current
      if error == .interrupted { continue }
      if error == .wouldBlock { return nil }
      throw failure(name, error)
    }
  }

  /// Runs a call that cannot block.
  ///
  /// - Parameters:
  ///   - name: the C function, for the error.
  ///   - call: the call; repeated while it fails with EINTR.
  /// - Returns: the call's result.
  /// - Throws: `SystemError` for any errno; EBADF and EFAULT trap.
  @inlinable @inline(__always) @discardableResult
  public static func run<T: SignedInteger & FixedWidthInteger>(
    _ name: StaticString, _ call: () -> T
  ) throws(SystemError) -> T {
    guard let result = try value(name, call) else { throw failure(name, .wouldBlock) }
    return result
  }

  /// Makes the error of a failed call; traps where the errno shows that we passed nonsense.
  ///
  /// - Parameters:
  ///   - name: the C function.
  ///   - errno: what it left.
  /// - Returns: the error to throw.
  public static func failure(_ name: StaticString, _ errno: Errno) -> SystemError {
    precondition(errno != .badDescriptor && errno != .badAddress, "\(name): \(errno), which is our own bug")
    return SystemError(call: name.description, errno: errno)
  }
}

extension SystemCall {
  /// Reads what is there, up to the buffer's size. C: `read`.
  ///
  /// - Parameters:
  ///   - descriptor: open for reading.
  ///   - buffer: where the bytes go.
  /// - Returns: bytes read, 0 at the end; nil if it would block.
  /// - Throws: `SystemError`.
  public static func read(
    _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SystemError) -> Int? {
    try value("read") { Glibc.read(descriptor, buffer.baseAddress, buffer.count) }
  }

  /// Writes what fits now. C: `write`.
  ///
  /// - Parameters:
  ///   - descriptor: open for writing.
  ///   - buffer: the bytes.
  /// - Returns: bytes written; nil if it would block.
  /// - Throws: `SystemError`.
  public static func write(
    _ descriptor: Int32, _ buffer: UnsafeRawBufferPointer
  ) throws(SystemError) -> Int? {
    try value("write") { Glibc.write(descriptor, buffer.baseAddress, buffer.count) }
  }

  /// Closes a descriptor. Errors are of no use to anybody here: data that must last is synced before. C: `close`.
  ///
  /// - Parameter descriptor: open; closed afterwards whatever the kernel says.
  public static func close(_ descriptor: Int32) {
    // Linux frees the number even when it reports EINTR: never repeat.
    let result = Glibc.close(descriptor)
    precondition(result == 0 || errno != EBADF, "close of descriptor \(descriptor), which is not open")
  }
}

/// The owner of a descriptor: closes it when it goes.
public struct Descriptor: ~Copyable, Sendable {
  public let number: Int32

  /// Takes over an open descriptor.
  ///
  /// - Parameter number: open, and closed by nobody else.
  public init(owning number: Int32) { self.number = number }

  /// Gives the descriptor away without closing it.
  ///
  /// - Returns: the descriptor, to be closed by the caller.
  public consuming func release() -> Int32 {
    let number = number
    discard self
    return number
  }

  deinit { SystemCall.close(number) }
}
