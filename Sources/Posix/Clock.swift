// Time as a value that is passed in: cores take a `Moment`, threads ask a `Clock`, tests hold one they move by hand.

import Glibc

/// A reading of the monotonic clock.
@frozen public struct Moment: Hashable, Comparable, Sendable, BitwiseCopyable {
  /// Nanoseconds since some start that never changes while the machine is up.
  public var nanoseconds: Int64

  @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

  @inlinable public static func < (a: Moment, b: Moment) -> Bool { a.nanoseconds < b.nanoseconds }

  @inlinable public static func + (a: Moment, b: Duration) -> Moment {
    Moment(nanoseconds: a.nanoseconds &+ b.nanoseconds)
  }

  @inlinable public static func - (a: Moment, b: Moment) -> Duration {
    .nanoseconds(a.nanoseconds &- b.nanoseconds)
  }

  /// Later than anything that is waited for.
  @inlinable public static var never: Moment { Moment(nanoseconds: .max) }
}

extension Duration {
  /// The whole duration in nanoseconds; durations over 292 years do not occur here.
  @inlinable public var nanoseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds &* 1_000_000_000 &+ attoseconds / 1_000_000_000
  }
}

/// The two clocks of a process.
public struct Clock: Sendable {
  private let readNow: @Sendable () -> Moment
  private let readWall: @Sendable () -> Int64

  /// A clock of one's own, for tests.
  ///
  /// - Parameters:
  ///   - now: the monotonic clock.
  ///   - wall: the wall clock, in nanoseconds since 1970-01-01 UTC.
  public init(now: @escaping @Sendable () -> Moment, wall: @escaping @Sendable () -> Int64) {
    readNow = now
    readWall = wall
  }

  /// The machine's clocks.
  public static let system = Clock(
    now: { Moment(nanoseconds: read(CLOCK_MONOTONIC)) }, wall: { read(CLOCK_REALTIME) })

  /// The monotonic clock.
  public var now: Moment { readNow() }

  /// The wall clock, in nanoseconds since 1970-01-01 UTC.
  public var wall: Int64 { readWall() }

  private static func read(_ clock: clockid_t) -> Int64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }
}
