// Whether a shard's thread goes on, told without the shard's gate: whoever asks may not wait for the thread it asks for.

import Posix
import Synchronization

/// Work given and done, and when something last moved. One thread gives, one works, any asks.
final class ShardProgress: Sendable {
  /// A thread that moves nothing for so long, with work waiting, is stuck.
  static let stuckAfter = Duration.seconds(10)

  private let clock: Clock
  private let unfinished = Atomic<Int>(0)
  private let movedAt: Atomic<Int64>

  init(_ clock: Clock) {
    self.clock = clock
    movedAt = Atomic(clock.now.nanoseconds)
  }

  /// A piece of work waits from now on. Time without work does not count.
  func given() {
    if unfinished.load(ordering: .acquiring) == 0 { moved() }
    unfinished.add(1, ordering: .acquiringAndReleasing)
  }

  /// A part of the work is done.
  func moved() { movedAt.store(clock.now.nanoseconds, ordering: .releasing) }

  /// A piece of work is done.
  func done() {
    moved()
    unfinished.subtract(1, ordering: .acquiringAndReleasing)
  }

  /// How long nothing moved though work waits; nil while that is shorter than `stuckAfter`.
  var stuck: Duration? {
    guard unfinished.load(ordering: .acquiring) > 0 else { return nil }
    let still = clock.now - Moment(nanoseconds: movedAt.load(ordering: .acquiring))
    return still >= ShardProgress.stuckAfter ? still : nil
  }
}
