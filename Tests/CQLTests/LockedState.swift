import Synchronization

/// What a pipeline counts.
final class LockedState: Sendable {
  struct Counts: Sendable {
    var open = 0
    var isWaitedFor = false
    var problems: Set<String> = []
  }

  private let counts = Mutex(Counts())

  @discardableResult func change<R: Sendable>(_ body: (inout Counts) -> R) -> R {
    counts.withLock { counts in body(&counts) }
  }
}
