// What a process asks of the kernel about itself: descriptors it may have, signals as a descriptor, threads.

import CLinux
import Glibc

/// How many descriptors this process may have open.
public enum DescriptorLimit {
  /// Raises the soft limit to the hard one. C: `getrlimit`, `setrlimit`.
  ///
  /// - Returns: the limit afterwards.
  /// - Throws: `SystemError` if the limit cannot be read.
  public static func raise() throws(SystemError) -> Int {
    var limit = rlimit()
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    try SystemCall.run("getrlimit") { getrlimit(resource, &limit) }
    if limit.rlim_cur < limit.rlim_max {
      let hard = rlimit(rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max)
      // A refusal leaves the soft limit, which is what we then report.
      if withUnsafePointer(to: hard, { setrlimit(resource, $0) }) == 0 { limit = hard }
    }
    return Int(clamping: limit.rlim_cur)
  }

  /// Descriptors open now, counted in `/proc/self/fd`.
  ///
  /// - Returns: the count; nil where there is no `/proc`.
  public static func open() -> Int? {
    guard let folder = opendir("/proc/self/fd") else { return nil }
    defer { closedir(folder) }
    var count = -3  // `.`, `..` and the folder's own descriptor
    while readdir(folder) != nil { count += 1 }
    return count
  }
}

/// A signal that asks something of the process.
public enum Signal: Hashable, Sendable, CaseIterable {
  /// SIGTERM: stop in order.
  case terminate
  /// SIGINT: stop in order; Ctrl-C.
  case interrupt
  /// SIGHUP: read the settings again.
  case hangUp

  fileprivate var number: Int32 {
    switch self {
    case .terminate: SIGTERM
    case .interrupt: SIGINT
    case .hangUp: SIGHUP
    }
  }
}

/// Signals read from a descriptor instead of interrupting a thread. C: `signalfd`.
public final class Signals: Sendable {
  private let descriptor: Descriptor

  /// Blocks the signals in the calling thread and in every thread it starts afterwards, and opens the descriptor.
  /// Also ignores SIGPIPE for the whole process. Call before any thread starts.
  ///
  /// - Parameter signals: those to read here.
  /// - Throws: `SystemError`.
  public init(_ signals: [Signal] = Signal.allCases) throws(SystemError) {
    signal(SIGPIPE, SIG_IGN)
    var set = sigset_t()
    sigemptyset(&set)
    for signal in signals { sigaddset(&set, signal.number) }
    pthread_sigmask(SIG_BLOCK, &set, nil)
    descriptor = Descriptor(owning: try SystemCall.run("signalfd") { signalfd(-1, &set, rms_signalfd_flags) })
  }

  /// Waits for a signal.
  ///
  /// - Parameter timeout: longest wait; nil waits for ever.
  /// - Returns: the signal; nil at the timeout.
  /// - Throws: `SystemError`.
  public func wait(_ timeout: Duration? = nil) throws(SystemError) -> Signal? {
    var ready = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
    let milliseconds = timeout.map { Int32(clamping: max(0, $0.nanoseconds / 1_000_000)) } ?? -1
    try SystemCall.run("poll") { poll(&ready, 1, milliseconds) }
    var info = signalfd_siginfo()
    let got = try withUnsafeMutableBytes(of: &info) { (bytes) throws(SystemError) in
      try SystemCall.read(descriptor.number, into: bytes)
    }
    guard got != nil else { return nil }
    return Signal.allCases.first { $0.number == Int32(info.ssi_signo) }
  }
}

/// A thread of the kernel.
public final class Thread: @unchecked Sendable {
  // Unchecked: `handle` is written once in `init` and read once in `join`.
  private let handle: pthread_t

  private final class Start {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }

  /// Starts a thread. It runs to the end of `body`; `join` must be called once. C: `pthread_create`.
  ///
  /// - Parameters:
  ///   - name: as `ps` shows it, at most 15 bytes; the rest is cut.
  ///   - body: what it does.
  /// - Throws: `SystemError` if the kernel has no thread to give.
  public init(_ name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    let start = Unmanaged.passRetained(Start(name: name, body: body))
    var handle = pthread_t()
    let result = pthread_create(
      &handle, nil,
      { argument in
        guard let argument else { return nil }
        let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
        _ = CLinux.pthread_setname_np(
          pthread_self(), String(decoding: start.name.utf8.prefix(15), as: UTF8.self))
        start.body()
        return nil
      }, start.toOpaque())
    guard result == 0 else {
      start.release()
      throw SystemError(call: "pthread_create", errno: Errno(rawValue: result), subject: name)
    }
    self.handle = handle
  }

  /// Sets how late timers of the calling thread may come, 50 µs unless told otherwise. C: `prctl(PR_SET_TIMERSLACK)`.
  ///
  /// - Parameter nanoseconds: 1 or more.
  public static func setTimerSlack(nanoseconds: UInt) { _ = rms_set_timer_slack(nanoseconds) }

  /// Lets another thread run. C: `sched_yield`.
  public static func yield() { sched_yield() }

  /// Waits for the thread's end.
  public func join() { pthread_join(handle, nil) }
}
