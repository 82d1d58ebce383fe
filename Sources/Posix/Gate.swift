// The lock of a shard: one writer that works in short turns, readers that ask in between. Phase-fair: a reader waits
// for at most the turn under way, a writer for at most the readers let in before it, so neither can starve the other.
//
//     writer  ▇▇▇▇▇ turn ▇▇▇▇▇|                   |▇▇▇▇▇ turn
//     reader A      waits ····|▇ in ▇|            |
//     reader B        waits ··|▇▇ in ▇▇▇|         |
//     reader C                   waits (a writer is due) ··········|▇ in

import Glibc

/// A phase-fair lock for one shard. Readers share it; a writer has it alone.
///
/// An uncontended turn costs two locks of a mutex, about 40 ns; a contended one sleeps in the kernel.
public final class Gate: @unchecked Sendable {
  // Unchecked: everything below is touched under `mutex` alone.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let readersMayEnter: UnsafeMutablePointer<pthread_cond_t>
  private let writerMayEnter: UnsafeMutablePointer<pthread_cond_t>
  private var writing = false
  private var reading = 0
  private var readersWaiting = 0
  private var writersWaiting = 0
  /// Counts the hand-overs to readers: whoever waited since an earlier number is let in.
  private var readerPhase: UInt64 = 0
  /// Tickets of writers: served in order.
  private var writerTicketNext: UInt64 = 0
  private var writerTicketServed: UInt64 = 0

  public init() {
    mutex = .allocate(capacity: 1)
    readersMayEnter = .allocate(capacity: 1)
    writerMayEnter = .allocate(capacity: 1)
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(readersMayEnter, nil)
    pthread_cond_init(writerMayEnter, nil)
  }

  deinit {
    precondition(!writing && reading == 0, "a gate went away with somebody inside")
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
    if !writing && writersWaiting == 0 {
      reading += 1
    } else {
      readersWaiting += 1
      let phase = readerPhase
      // `leaveWriting` counts us in before it wakes us.
      while readerPhase == phase { pthread_cond_wait(readersMayEnter, mutex) }
    }
    pthread_mutex_unlock(mutex)
  }

  /// Ends a reader's turn; the last reader hands over to a waiting writer.
  public func leaveReading() {
    pthread_mutex_lock(mutex)
    precondition(reading > 0, "a reader left that had not entered")
    reading -= 1
    if reading == 0 && writersWaiting > 0 { admitWriter() }
    pthread_mutex_unlock(mutex)
  }

  /// Begins a writer's turn; `leaveWriting` must follow on the same thread.
  public func enterWriting() {
    pthread_mutex_lock(mutex)
    if !writing && reading == 0 && writersWaiting == 0 {
      writing = true
    } else {
      writersWaiting += 1
      writerTicketNext += 1
      let ticket = writerTicketNext
      while writerTicketServed < ticket { pthread_cond_wait(writerMayEnter, mutex) }
    }
    pthread_mutex_unlock(mutex)
  }

  /// Ends a writer's turn; everybody who waits to read is let in first, then the next writer.
  public func leaveWriting() {
    pthread_mutex_lock(mutex)
    precondition(writing, "a writer left that had not entered")
    writing = false
    if readersWaiting > 0 {
      reading += readersWaiting
      readersWaiting = 0
      readerPhase += 1
      pthread_cond_broadcast(readersMayEnter)
    } else if writersWaiting > 0 {
      admitWriter()
    }
    pthread_mutex_unlock(mutex)
  }

  /// Who waits at this moment.
  ///
  /// - Complexity: O(1), under the gate's mutex.
  public var waiting: (readers: Int, writers: Int) {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return (readersWaiting, writersWaiting)
  }

  /// Hands the gate to the writer who has waited longest. Called under the mutex.
  private func admitWriter() {
    writersWaiting -= 1
    writing = true
    writerTicketServed += 1
    if writersWaiting == 0 {
      pthread_cond_signal(writerMayEnter)
    } else {
      pthread_cond_broadcast(writerMayEnter)
    }
  }
}
