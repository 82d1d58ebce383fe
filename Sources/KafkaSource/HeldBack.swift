// How long a partition's last stable offset has not moved while there are records behind it: an open transaction, or
// one whose producer is gone and which no broker ends. Kafka reports it as no error at all.

/// The hold of one partition, from the answers about its ends.
struct HeldBack: Equatable {
  /// What an answer changes for who is told about holds.
  enum Change: Equatable {
    case none
    /// It lasts longer than allowed; said once.
    case long(heldMs: Int64)
    /// One that was said to be long is over.
    case ended
  }

  private var stable: Int64 = -1
  private var sinceNs: UInt64 = 0
  private var isHeld = false
  private var isTold = false

  /// Takes an answer about the ends.
  ///
  /// - Parameters:
  ///   - range: the ends.
  ///   - nowNs: monotonic time.
  ///   - maxMs: how long a hold may last before it is said, in milliseconds.
  /// - Returns: what is new.
  mutating func heard(_ range: OffsetRange, nowNs: UInt64, maxMs: Int64) -> Change {
    if range.high > range.stable, isHeld, range.stable == stable {
      let heldMs = lengthMs(nowNs)
      guard !isTold, heldMs >= maxMs else { return .none }
      isTold = true
      return .long(heldMs: heldMs)
    }
    let wasTold = isTold
    (stable, sinceNs, isHeld, isTold) = (range.stable, nowNs, range.high > range.stable, false)
    return wasTold ? .ended : .none
  }

  /// How long the hold has lasted, in milliseconds; 0 if there is none.
  func lengthMs(_ nowNs: UInt64) -> Int64 {
    isHeld && nowNs > sinceNs ? Int64((nowNs - sinceNs) / 1_000_000) : 0
  }
}
