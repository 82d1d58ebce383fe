// A clock that a test moves by hand.

public import Posix
import Synchronization

/// Time that stands still until it is moved.
public final class VirtualClock: Sendable {
  private let elapsed: Mutex<Int64>
  private let wallStart: Int64

  /// - Parameters:
  ///   - now: first reading of the monotonic clock, in nanoseconds.
  ///   - wall: first reading of the wall clock, in nanoseconds since 1970; 2026-11-24T12:00:00Z unless told otherwise.
  public init(now: Int64 = 1_000_000_000, wall: Int64 = 1_795_521_600_000_000_000) {
    elapsed = Mutex(now)
    wallStart = wall - now
  }

  /// Moves both clocks on.
  ///
  /// - Parameter duration: how far.
  public func advance(_ duration: Duration) { elapsed.withLock { $0 += duration.nanoseconds } }

  /// The clock to hand to code under test.
  public var clock: Clock {
    Clock(
      now: { [self] in Moment(nanoseconds: elapsed.withLock { $0 }) },
      wall: { [self] in elapsed.withLock { $0 } + wallStart })
  }
}
