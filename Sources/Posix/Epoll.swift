// The kernel's readiness queue and the wake-up descriptor, as owners of their descriptors.

import CLinux
import Glibc

/// What is waited for on a descriptor, and what came.
public struct Readiness: OptionSet, Hashable, Sendable {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Bytes or a connection can be read.
  public static let readable = Readiness(rawValue: rms_epollin)
  /// Bytes can be written.
  public static let writable = Readiness(rawValue: rms_epollout)
  /// The peer sends no more.
  public static let peerFinished = Readiness(rawValue: rms_epollrdhup)
  /// The connection is gone in both directions; always reported.
  public static let hungUp = Readiness(rawValue: rms_epollhup)
  /// An error waits on the descriptor; always reported.
  public static let failed = Readiness(rawValue: rms_epollerr)
}

/// One readiness queue, level-triggered. Used by one thread. C: `epoll`.
public struct Epoll: ~Copyable {
  private let descriptor: Descriptor
  private let events: UnsafeMutablePointer<epoll_event>
  private let eventsMax: Int

  /// - Parameter eventsMax: events taken in one wait.
  /// - Throws: `SystemError`.
  public init(eventsMax: Int) throws(SystemError) {
    descriptor = Descriptor(owning: try SystemCall.run("epoll_create1") { epoll_create1(rms_epoll_flags) })
    events = .allocate(capacity: eventsMax)
    self.eventsMax = eventsMax
  }

  deinit { events.deallocate() }

  /// Begins to watch a descriptor.
  ///
  /// - Parameters:
  ///   - number: the descriptor.
  ///   - interest: what for.
  ///   - token: comes back with each event.
  /// - Throws: `SystemError`.
  public func add(_ number: Int32, _ interest: Readiness, token: UInt64) throws(SystemError) {
    try control(EPOLL_CTL_ADD, number, interest, token)
  }

  /// Changes what a descriptor is watched for.
  ///
  /// - Parameters:
  ///   - number: the descriptor.
  ///   - interest: what for from now on.
  ///   - token: comes back with each event.
  /// - Throws: `SystemError`.
  public func change(_ number: Int32, _ interest: Readiness, token: UInt64) throws(SystemError) {
    try control(EPOLL_CTL_MOD, number, interest, token)
  }

  /// Stops watching a descriptor; call before closing it.
  ///
  /// - Parameter number: the descriptor.
  /// - Throws: `SystemError`.
  public func remove(_ number: Int32) throws(SystemError) { try control(EPOLL_CTL_DEL, number, [], 0) }

  private func control(
    _ operation: Int32, _ number: Int32, _ interest: Readiness, _ token: UInt64
  ) throws(SystemError) {
    var event = epoll_event()
    event.events = interest.rawValue
    event.data.u64 = token
    try SystemCall.run("epoll_ctl") { epoll_ctl(descriptor.number, operation, number, &event) }
  }

  /// Waits for events. C: `epoll_wait`.
  ///
  /// - Parameter milliseconds: longest wait; -1 waits for ever, 0 only looks.
  /// - Returns: how many came; read them by `event(_:)` before the next wait.
  /// - Throws: `SystemError`.
  public func wait(milliseconds: Int32) throws(SystemError) -> Int {
    Int(
      try SystemCall.run("epoll_wait") {
        epoll_wait(descriptor.number, events, Int32(eventsMax), milliseconds)
      })
  }

  /// Waits for events until a moment, to within what timers of the thread may come late: finer than milliseconds.
  /// C: `ppoll`, `epoll_wait`.
  ///
  /// - Parameters:
  ///   - until: when at the latest; `Moment.never` waits for ever.
  ///   - now: the monotonic clock.
  /// - Returns: how many came; read them by `event(_:)` before the next wait.
  /// - Throws: `SystemError`.
  public func wait(until: Moment, now: Moment) throws(SystemError) -> Int {
    if until == .never { return try wait(milliseconds: -1) }
    var ready = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
    let left = max(0, until.nanoseconds &- now.nanoseconds)
    var longest = timespec(tv_sec: Int(left / 1_000_000_000), tv_nsec: Int(left % 1_000_000_000))
    try SystemCall.run("ppoll") { ppoll(&ready, 1, &longest, nil) }
    return try wait(milliseconds: 0)
  }

  /// An event of the last wait.
  ///
  /// - Parameter index: 0..<what `wait` returned.
  /// - Returns: the token given with the descriptor, and what came.
  public func event(_ index: Int) -> (token: UInt64, readiness: Readiness) {
    (events[index].data.u64, Readiness(rawValue: events[index].events))
  }
}

/// A descriptor that any thread can make readable. C: `eventfd`.
public final class WakeUp: Sendable {
  private let descriptor: Descriptor

  /// - Throws: `SystemError`.
  public init() throws(SystemError) {
    descriptor = Descriptor(owning: try SystemCall.run("eventfd") { eventfd(0, rms_eventfd_flags) })
  }

  /// Watch this for reading.
  public var number: Int32 { descriptor.number }

  /// Makes the descriptor readable. Any thread.
  public func signal() {
    var one: UInt64 = 1
    // A full counter would block; it is readable then all the same.
    _ = withUnsafeBytes(of: &one) { try? SystemCall.write(descriptor.number, $0) }
  }

  /// Waits for a signal and leaves it standing.
  ///
  /// - Parameter timeout: longest wait.
  /// - Returns: whether it was signalled.
  public func wait(_ timeout: Duration) -> Bool {
    var ready = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
    return poll(&ready, 1, Int32(clamping: max(0, timeout.nanoseconds / 1_000_000))) == 1
  }

  /// Makes it unreadable again, until the next signal.
  public func clear() {
    var count: UInt64 = 0
    _ = withUnsafeMutableBytes(of: &count) { try? SystemCall.read(descriptor.number, into: $0) }
  }
}
