// The one thread of a node that writes and syncs logs: all that came in during a round goes to the disk in the next,
// one write and one sync a log, so that the disk itself sets the pace.

internal import Glibc
public import Posix

/// Told how logs fare, on the sync thread: be quick, and never call back into a log from here but for `durable`.
public protocol LogObserver: AnyObject, Sendable {
  /// Everything before the watermark is on the disk.
  func log(_ log: Log, durable watermark: Int64)
  /// A segment is finished: nothing is written to this file any more, and it can be sealed.
  func log(_ log: Log, finished segment: String)
  /// The disk has no room. What was given waits and is tried again; give no more until `diskHasRoom`.
  func log(_ log: Log, diskFull path: String)
  /// What waited for room is on the disk.
  func logHasRoom(_ log: Log)
  /// The log takes nothing any more; said once. After `syncFailed` the process must end.
  func log(_ log: Log, failed error: LogError)
}

/// Writes and syncs the logs of a node on a thread of its own.
public final class LogSyncer: @unchecked Sendable {
  // Unchecked: `logs`, `stopping` and all of a log that `Log` marks so are touched under `mutex` alone.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let changed: UnsafeMutablePointer<pthread_cond_t>
  private var logs: [Log] = []
  private var stopping = false
  private var thread: Thread?
  let clock: Clock

  /// Starts the thread.
  ///
  /// - Parameter clock: tells when the disk is due.
  /// - Throws: `SystemError` if the kernel has no thread to give.
  public init(clock: Clock = .system) throws(SystemError) {
    self.clock = clock
    mutex = .allocate(capacity: 1)
    changed = .allocate(capacity: 1)
    pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(changed, &attributes)
    pthread_condattr_destroy(&attributes)
    thread = try Thread("log-sync") { [unowned self] in
      ThreadPriority.supplying.take()
      run()
    }
  }

  deinit {
    precondition(thread == nil, "a syncer went away that was not stopped")
    pthread_cond_destroy(changed)
    pthread_mutex_destroy(mutex)
    changed.deallocate()
    mutex.deallocate()
  }

  /// Ends the thread; what waits is left alone, so close the logs before.
  public func stop() {
    locked { stopping = true }
    thread?.join()
    thread = nil
  }

  func add(_ log: Log) { locked { logs.append(log) } }

  func remove(_ log: Log) { locked { logs.removeAll { $0 === log } } }

  /// Runs a body under the mutex and wakes whoever waits.
  func locked<R>(_ body: () -> R) -> R {
    pthread_mutex_lock(mutex)
    defer {
      pthread_cond_broadcast(changed)
      pthread_mutex_unlock(mutex)
    }
    return body()
  }

  /// Runs a body under the mutex; nobody is woken.
  @inline(__always)
  func quietly<R>(_ body: () -> R) -> R {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return body()
  }

  /// Waits under the mutex until a condition holds, which whoever changes it must tell by `locked`.
  func wait(until holds: () -> Bool) {
    pthread_mutex_lock(mutex)
    while !holds() { pthread_cond_wait(changed, mutex) }
    pthread_mutex_unlock(mutex)
  }

  private func run() {
    var round: [Log] = []
    while waitForWork(&round) {
      for log in round { log.write() }
      locked { for log in round { log.settle() } }
      for log in round { log.report() }
      locked { for log in round { log.rest() } }
    }
  }

  /// Waits until a log is due, then takes from all that have something.
  ///
  /// - Returns: false at the end.
  private func waitForWork(_ round: inout [Log]) -> Bool {
    round.removeAll(keepingCapacity: true)
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while !stopping {
      let due = logs.compactMap(\.due).min() ?? .never
      if due <= clock.now {
        let now = clock.now
        for log in logs where log.take(at: now) { round.append(log) }
        return true
      }
      if due == .never {
        pthread_cond_wait(changed, mutex)
      } else {
        var until = timespec(
          tv_sec: Int(due.nanoseconds / 1_000_000_000), tv_nsec: Int(due.nanoseconds % 1_000_000_000))
        pthread_cond_timedwait(changed, mutex, &until)
      }
    }
    return false
  }
}
