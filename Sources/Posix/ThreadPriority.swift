// Which threads run first when cores are scarce, as far as any process may say it of its own threads.
//
//     priority     policy        nice   slice    when woken
//     answering    SCHED_OTHER     +0   0.1 ms   takes a core from those below, mostly at once
//     applying     SCHED_BATCH     +0   usual    waits until a core is given up
//     supplying    SCHED_BATCH    +10   usual    the same, and has a tenth of a core that others want
//
// Nice values count from the process's own. The kernel lets a thread lower itself and never rise again, and a thread
// begins as low as the one that starts it: whoever starts threads that apply must not be a supplier.

import CLinux
import Glibc

/// What a thread does for others, and so how soon it must run.
public enum ThreadPriority: Sendable, Hashable, CaseIterable {
  /// Somebody waits for what it does next, which is short.
  case answering
  /// Works through what there is; readers wait while it has a gate.
  case applying
  /// Brings work to those who apply it or clears up behind them. It is ahead of them in any case.
  case supplying

  /// Gives the calling thread this priority; threads that it starts afterwards begin with it. C: `sched_setattr`.
  ///
  /// - Returns: false if the kernel or a filter of system calls forbids it: the thread runs on as before.
  @discardableResult public func take() -> Bool {
    var attributes = rms_sched_attributes()
    attributes.size = UInt32(MemoryLayout<rms_sched_attributes>.size)
    let which = __priority_which_t(PRIO_PROCESS.rawValue)
    // Asked by the number of the process, the nice value is that of its first thread.
    attributes.nice = min(getpriority(which, id_t(getpid())) + nice, 19)
    switch self {
    case .answering:
      attributes.policy = rms_sched_other
      // Kernels before 6.12 ignore it.
      attributes.slice_nanoseconds = 100_000
    case .applying, .supplying: attributes.policy = rms_sched_batch
    }
    return rms_sched_set(&attributes) == 0
  }

  private var nice: Int32 {
    switch self {
    case .answering, .applying: 0
    case .supplying: 10
    }
  }
}
