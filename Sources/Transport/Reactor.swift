// A reactor: one thread that waits for descriptors, timers and wake-ups. It calls nobody: the owner's loop asks for
// events and acts on them, so that the owner's state is never entered from two sides.
//
//     let count = try reactor.wait(now: clock.now)
//     for index in 0..<count { switch reactor.event(index) { … } }
//     while let timer = reactor.dueTimer(now: clock.now) { … }
//
// A registration's number is packed beside its descriptor. Descriptors are reused by the kernel at once; an event that
// was queued for an earlier registration carries an earlier number and is dropped.

public import Posix

/// One watched descriptor: the descriptor and the number of this registration.
@frozen public struct Registration: Hashable, Sendable, BitwiseCopyable {
  /// The descriptor.
  public let descriptor: Int32
  /// Differs for each registration of the same descriptor.
  public let number: UInt32

  @inlinable init(descriptor: Int32, number: UInt32) {
    self.descriptor = descriptor
    self.number = number
  }

  @inlinable var token: UInt64 { UInt64(number) << 32 | UInt64(UInt32(bitPattern: descriptor)) }

  @inlinable init(token: UInt64) {
    descriptor = Int32(bitPattern: UInt32(truncatingIfNeeded: token))
    number = UInt32(truncatingIfNeeded: token >> 32)
  }
}

/// What a wait brought.
public enum ReactorEvent: Hashable, Sendable {
  /// A watched descriptor is ready.
  case ready(Registration, Readiness)
  /// Another thread called `wake`.
  case woken
  /// An event for a registration that is over; nothing to do.
  case stale
}

/// Descriptors, timers and wake-ups of one thread. Level-triggered.
///
/// Everything is for the owning thread, but for `wakeUp`, which any thread may signal.
public final class Reactor {
  /// Events taken in one wait.
  public static let eventsMax = 512

  /// Signal it from any thread to end a wait; signals before the next wait are one.
  public let wakeUp: WakeUp
  /// Timers; see `dueTimer`.
  private var timers = TimerHeap()
  private let epoll: Epoll
  /// Numbers of live registrations by descriptor; 0 where there is none.
  private var live: [UInt32] = []
  private var numberNext: UInt32 = 1

  private static let wakeNumber: UInt32 = .max

  /// - Throws: `SystemError` if the kernel gives no descriptor.
  public init() throws(SystemError) {
    epoll = try Epoll(eventsMax: Reactor.eventsMax)
    wakeUp = try WakeUp()
    try epoll.add(
      wakeUp.number, .readable,
      token: Registration(descriptor: wakeUp.number, number: Reactor.wakeNumber).token)
  }

  /// Begins to watch a descriptor.
  ///
  /// - Parameters:
  ///   - descriptor: not watched already.
  ///   - interest: what for; errors and hang-ups are always reported.
  /// - Returns: the registration that its events will carry.
  /// - Throws: `SystemError`.
  public func register(_ descriptor: Int32, _ interest: Readiness) throws(SystemError) -> Registration {
    precondition(descriptor >= 0, "descriptor \(descriptor)")
    while live.count <= Int(descriptor) { live.append(0) }
    precondition(live[Int(descriptor)] == 0, "descriptor \(descriptor) is watched already")
    let registration = Registration(descriptor: descriptor, number: numberNext)
    try epoll.add(descriptor, interest, token: registration.token)
    live[Int(descriptor)] = registration.number
    numberNext = numberNext >= Reactor.wakeNumber - 1 ? 1 : numberNext + 1
    return registration
  }

  /// Changes what a registration waits for.
  ///
  /// - Parameters:
  ///   - registration: a live one.
  ///   - interest: what for from now on; empty reports errors and hang-ups alone.
  /// - Throws: `SystemError`.
  public func change(_ registration: Registration, _ interest: Readiness) throws(SystemError) {
    precondition(isLive(registration), "the registration of descriptor \(registration.descriptor) is over")
    try epoll.change(registration.descriptor, interest, token: registration.token)
  }

  /// Ends a registration; call it before the descriptor is closed. Events still queued for it become stale.
  ///
  /// - Parameter registration: a live one.
  /// - Throws: `SystemError`.
  public func unregister(_ registration: Registration) throws(SystemError) {
    precondition(isLive(registration), "the registration of descriptor \(registration.descriptor) is over")
    live[Int(registration.descriptor)] = 0
    try epoll.remove(registration.descriptor)
  }

  /// Whether a registration still stands.
  ///
  /// - Parameter registration: any.
  /// - Returns: true until it is unregistered.
  public func isLive(_ registration: Registration) -> Bool {
    Int(registration.descriptor) < live.count && live[Int(registration.descriptor)] == registration.number
  }

  /// Waits until something is ready, a timer is due, or another thread wakes us.
  ///
  /// - Parameters:
  ///   - now: the monotonic clock.
  ///   - longest: wait no longer than this; nil waits as long as it takes.
  /// - Returns: how many events came; read each by `event(_:)` before the next wait.
  /// - Throws: `SystemError`.
  public func wait(now: Moment, longest: Duration? = nil) throws(SystemError) -> Int {
    var until = timers.first ?? .never
    if let longest { until = min(until, now + longest) }
    var milliseconds: Int32 = -1
    if until != .never {
      // Rounded up: a wait that ends early would only be repeated.
      let left = max(0, until.nanoseconds - now.nanoseconds)
      milliseconds = Int32(clamping: (left + 999_999) / 1_000_000)
    }
    return try epoll.wait(milliseconds: milliseconds)
  }

  /// An event of the last wait.
  ///
  /// - Parameter index: 0..<what `wait` returned.
  /// - Returns: what happened; stale if its registration ended since the kernel queued it.
  public func event(_ index: Int) -> ReactorEvent {
    let (token, readiness) = epoll.event(index)
    let registration = Registration(token: token)
    if registration.number == Reactor.wakeNumber {
      wakeUp.clear()
      return .woken
    }
    return isLive(registration) ? .ready(registration, readiness) : .stale
  }

  /// Sets a timer. Timers cannot be taken back: whoever set one looks, when it comes, whether it still matters.
  ///
  /// - Parameters:
  ///   - moment: when.
  ///   - tag: comes back when it is due.
  /// - Complexity: O(log timers).
  public func setTimer(_ moment: Moment, tag: UInt64) { timers.push(moment, tag: tag) }

  /// Takes a timer that is due; ask until nil.
  ///
  /// - Parameter now: the monotonic clock.
  /// - Returns: its tag, earliest first; nil if none is due.
  public func dueTimer(now: Moment) -> UInt64? { timers.popDue(now: now) }
}
