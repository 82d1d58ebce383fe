// What the stores of all shards of a node share.

import Posix
import SegmentLog
import StepModel
import Telemetry

/// Handed to each store; holds no state of its own.
struct StoreWorld: Sendable {
  let dataDir: String
  let limits: LogLimits
  let files: Files
  let syncer: LogSyncer
  let deadLetters: DeadLetters
  let diagnostics: Diagnostics
  let deadLetterFailures: Counter
  let clock: Clock
  /// Told once if the disk fails for good: the process must end.
  let onFailure: @Sendable (NodeError) -> Void
}

extension ClusterSettings {
  /// `fingerprint` as the number that files carry.
  var fingerprintNumber: UInt64 { UInt64(fingerprint, radix: 16) ?? 0 }
}
