// What callers leave for the session's thread, and how they wait.

internal import Glibc
internal import Posix
internal import Synchronization

/// What is to be done.
enum Work: Sendable {
  case prepare(String)
  case statement(Statement)
  case batch(Batch)
  /// A query for this node alone; nil means the one that tells about the cluster.
  case node(HostID?, String)

  var byteCount: Int {
    switch self {
    case .prepare(let text), .node(_, let text): text.utf8.count
    case .statement(let statement):
      if case .text(let text) = statement.kind { text.utf8.count } else { statement.values.bytes.count + 64 }
    case .batch(let batch): batch.byteCount
    }
  }
}

/// What came of it.
enum Outcome: Sendable {
  case page(Page)
  case prepared(PreparedStatement)
  /// With the node that did it.
  case schemaChange(HostID?, Page)

  var page: Page {
    switch self {
    case .page(let page), .schemaChange(_, let page): page
    case .prepared: Page(warnings: [])
    }
  }
}

struct Job: Sendable {
  var work: Work
  var completion: @Sendable (Result<Outcome, CQLError>) -> Void
}

/// A result that one thread waits for and another brings.
final class Reply<Value: Sendable>: Sendable {
  private let result = Mutex<Result<Value, CQLError>?>(nil)
  private let pause = Pause()

  func fulfil(_ value: Result<Value, CQLError>) {
    result.withLock { $0 = value }
    pause.end()
  }

  func wait() throws(CQLError) -> Value {
    while true {
      if let value = result.withLock({ $0 }) { return try value.get() }
      pause.wait(nil)
    }
  }
}

/// A thread's wait that another may end.
final class Pause: @unchecked Sendable {
  // Unchecked: `isOver` is touched under `mutex` alone.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>
  private var isOver = false

  init() {
    mutex = .allocate(capacity: 1)
    condition = .allocate(capacity: 1)
    pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  /// Ends every wait, the ones to come as well.
  func end() {
    pthread_mutex_lock(mutex)
    isOver = true
    pthread_cond_broadcast(condition)
    pthread_mutex_unlock(mutex)
  }

  /// Waits for `end`, at most that long; nil waits as long as it takes.
  func wait(_ longest: Duration?) {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    guard let longest else {
      while !isOver { pthread_cond_wait(condition, mutex) }
      return
    }
    let until = (Clock.system.now + longest).nanoseconds
    var time = timespec(tv_sec: Int(until / 1_000_000_000), tv_nsec: Int(until % 1_000_000_000))
    while !isOver, pthread_cond_timedwait(condition, mutex, &time) == 0 {}
  }
}
