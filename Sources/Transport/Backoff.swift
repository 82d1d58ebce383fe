// How long to wait before the next try: doubling, capped, jittered so that many who failed together do not return
// together. Pure: the jitter comes from a seed.

/// Delays between tries.
public struct Backoff: Hashable, Sendable {
  /// The first delay, before jitter.
  public let first: Duration
  /// No delay is longer.
  public let longest: Duration
  private var triesFailed = 0
  private var state: UInt64

  /// - Parameters:
  ///   - first: the first delay, before jitter.
  ///   - longest: no delay is longer.
  ///   - seed: of the jitter; different for each client, for instance its process id.
  public init(first: Duration = .milliseconds(100), longest: Duration = .seconds(10), seed: UInt64) {
    precondition(first > .zero && first <= longest, "a first delay of \(first), at most \(longest)")
    self.first = first
    self.longest = longest
    state = seed
  }

  /// A try failed.
  ///
  /// - Returns: how long to wait: between half and all of min(longest, first · 2^failures).
  public mutating func failed() -> Duration {
    // 2^40 times the first delay is beyond any cap.
    let full = min(longest, first * (1 << min(triesFailed, 40)))
    triesFailed += 1
    state &+= 0x9E37_79B9_7F4A_7C15
    var bits = state
    bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
    bits ^= bits >> 31
    return full / 2 + full / 2 * Int(bits >> 48) / 65_536
  }

  /// A try succeeded: the next failure waits the first delay again.
  public mutating func succeeded() { triesFailed = 0 }
}
