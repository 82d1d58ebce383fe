// From the one thread that reads Kafka to the one thread of a shard: bounded, in order.

import Glibc

/// A bounded queue with one taker. A full queue makes the giver wait, which is the back-pressure towards Kafka.
final class WorkQueue<Work>: @unchecked Sendable {
  // Unchecked: everything below is touched under `mutex` alone.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let changed: UnsafeMutablePointer<pthread_cond_t>
  private let countMax: Int
  private var waiting: [Work] = []
  private var closed = false

  /// - Parameter countMax: most pieces of work that may wait, 1 or more.
  init(countMax: Int) {
    precondition(countMax >= 1, "a queue holds something")
    self.countMax = countMax
    mutex = .allocate(capacity: 1)
    changed = .allocate(capacity: 1)
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(changed, nil)
    waiting.reserveCapacity(countMax)
  }

  deinit {
    pthread_cond_destroy(changed)
    pthread_mutex_destroy(mutex)
    changed.deallocate()
    mutex.deallocate()
  }

  /// Adds work at the end; waits while the queue is full.
  ///
  /// - Returns: false if the queue is closed; the work is dropped then.
  @discardableResult func give(_ work: Work) -> Bool {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while waiting.count >= countMax && !closed { pthread_cond_wait(changed, mutex) }
    if closed { return false }
    waiting.append(work)
    pthread_cond_broadcast(changed)
    return true
  }

  /// Takes all that waits, in order; waits while there is nothing.
  ///
  /// - Parameter taken: emptied, then filled.
  /// - Returns: false once the queue is closed and empty.
  func take(into taken: inout [Work]) -> Bool {
    taken.removeAll(keepingCapacity: true)
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while waiting.isEmpty && !closed { pthread_cond_wait(changed, mutex) }
    if waiting.isEmpty { return false }
    swap(&waiting, &taken)
    pthread_cond_broadcast(changed)
    return true
  }

  /// Refuses further work; what waits is still taken.
  func close() {
    pthread_mutex_lock(mutex)
    closed = true
    pthread_cond_broadcast(changed)
    pthread_mutex_unlock(mutex)
  }
}
