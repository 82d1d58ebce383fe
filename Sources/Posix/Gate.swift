// The lock of a shard: one writer that works in short turns, readers that ask in between. Readers that wait for the end
// of a turn are let in before the next; a writer that waits is passed by few readers. So neither can starve the other.
//
//     writer  ▇▇▇▇▇ turn ▇▇▇▇▇|            comes ···|···· woken ····|▇▇▇▇▇ turn
//     reader A      waits ····|▇ in ▇|      ▇▇ in ▇▇|   |           |
//     reader B        waits ··|▇▇ in ▇▇▇|           |   |           |
//     reader C                                      |   |▇▇ in ▇▇|  |
//
// A woken writer has the gate only once it runs. When cores are scarce that takes the scheduler milliseconds, and whoever
// asks meanwhile would wait for a gate with nobody inside: reader C does not. It passes the writer, which is woken again
// when C leaves; at most `GateState.readersPassingMax` readers do so, later ones wait for the turn.

import Glibc

/// A lock for one shard, fair to both sides. Readers share it; a writer has it alone. Its rules are `GateState`'s.
///
/// An uncontended turn costs two locks of a mutex, about 40 ns; a contended one sleeps in the kernel.
public final class Gate: @unchecked Sendable {
  // Unchecked: everything below is touched under `mutex` alone.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let readersMayEnter: UnsafeMutablePointer<pthread_cond_t>
  private let writerMayEnter: UnsafeMutablePointer<pthread_cond_t>
  private var state = GateState()

  public init() {
    mutex = .allocate(capacity: 1)
    readersMayEnter = .allocate(capacity: 1)
    writerMayEnter = .allocate(capacity: 1)
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(readersMayEnter, nil)
    pthread_cond_init(writerMayEnter, nil)
  }

  deinit {
    precondition(!state.isWriting && state.reading == 0, "a gate went away with somebody inside")
    pthread_cond_destroy(writerMayEnter)
    pthread_cond_destroy(readersMayEnter)
    pthread_mutex_destroy(mutex)
    writerMayEnter.deallocate()
    readersMayEnter.deallocate()
    mutex.deallocate()
  }

  /// Takes a reader's turn, beside other readers. Not reentrant.
  ///
  /// - Parameter body: runs while no writer is inside; keep it short.
  /// - Returns: what `body` returns.
  /// - Throws: what `body` throws.
  @inlinable public func read<R: ~Copyable, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
    enterReading()
    defer { leaveReading() }
    return try body()
  }

  /// Takes a writer's turn, alone. Leave it every 200 µs or so: whoever waits is let in before the next turn.
  ///
  /// - Parameter body: runs with nobody else inside.
  /// - Returns: what `body` returns.
  /// - Throws: what `body` throws.
  @inlinable public func write<R: ~Copyable, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
    enterWriting()
    defer { leaveWriting() }
    return try body()
  }

  /// Begins a reader's turn; `leaveReading` must follow on the same thread.
  public func enterReading() {
    pthread_mutex_lock(mutex)
    if case .waits(let phase) = state.readerCame() {
      while !state.isReaderInside(phase) { pthread_cond_wait(readersMayEnter, mutex) }
    }
    pthread_mutex_unlock(mutex)
  }

  /// Ends a reader's turn; the last reader wakes a waiting writer.
  public func leaveReading() {
    pthread_mutex_lock(mutex)
    wake(state.readerLeft())
    pthread_mutex_unlock(mutex)
  }

  /// Begins a writer's turn; `leaveWriting` must follow on the same thread.
  public func enterWriting() {
    pthread_mutex_lock(mutex)
    if case .waits(let ticket) = state.writerCame() {
      repeat { pthread_cond_wait(writerMayEnter, mutex) } while !state.writerRuns(ticket)
    }
    pthread_mutex_unlock(mutex)
  }

  /// Ends a writer's turn; everybody who waits to read is let in first, then the next writer.
  public func leaveWriting() {
    pthread_mutex_lock(mutex)
    wake(state.writerLeft())
    pthread_mutex_unlock(mutex)
  }

  /// Who waits at this moment.
  ///
  /// - Complexity: O(1), under the gate's mutex.
  public var waiting: (readers: Int, writers: Int) {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return (state.readersWaiting, state.writersWaiting)
  }

  /// Called under the mutex.
  private func wake(_ who: GateState.Wake) {
    switch who {
    case .nobody: break
    case .readers: pthread_cond_broadcast(readersMayEnter)
    case .writer: pthread_cond_signal(writerMayEnter)
    case .writers: pthread_cond_broadcast(writerMayEnter)
    }
  }
}
