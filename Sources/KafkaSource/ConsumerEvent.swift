// What a poll hands over, and what a partition's state looks like from outside.

/// One thing that happened, in the order it is to be acted on.
public enum ConsumerEvent: Equatable, Sendable {
  /// Records of one partition, none of them handed out before under this assignment.
  case batch(PartitionBatch)
  /// The topic was found: its facts, before the first assignment and whenever they change.
  case topic(TopicFacts)
  /// Partitions are ours from now on, each read from the offset that `startOffset` gave; those without one wait.
  case assigned([Int32])
  /// Partitions are not ours any more: no record of theirs follows. `lost` if they went without a handover.
  case revoked([Int32], lost: Bool)
  /// Everything up to `offsetNext` was handed out, control records included: the watermark may move there.
  case endOfPartition(partition: Int32, offsetNext: Int64)
  /// The partition stands still for this reason; holds until `partitionCleared`.
  case partitionError(partition: Int32, KafkaError)
  /// The partition's error is over.
  case partitionCleared(partition: Int32)
  /// What the group had stored for a partition when it was assigned; once an assignment, and before anything of ours
  /// is committed over it. Reading does not depend on it.
  case groupOffset(GroupOffset)
  /// An open transaction holds back what committed readers see: nothing from `stable` to `high` has come for
  /// `heldMs` milliseconds. Told once, until it is over.
  case heldBack(partition: Int32, stable: Int64, high: Int64, heldMs: Int64)
  /// The last stable offset moves again.
  case heldBackEnded(partition: Int32)
  /// The topic, the group or the brokers fail; holds until `sourceCleared`. Retried all the while.
  case sourceError(KafkaError)
  /// The error of the whole source is over.
  case sourceCleared
  /// The topic has more partitions: users may have moved between them.
  case partitionsGrew(from: Int32, to: Int32)
  /// The client is of no use any more.
  case fatal(KafkaError)
  /// A line of librdkafka's own log; level as in syslog (3 error, 4 warning, 6 information).
  case log(level: Int32, text: String)
}

extension PartitionBatch: Equatable {
  /// Batches are equal only to themselves.
  public static func == (a: PartitionBatch, b: PartitionBatch) -> Bool { a === b }
}

/// The place of one assigned partition.
public struct PartitionStatus: Equatable, Sendable {
  /// The partition.
  public var partition: Int32
  /// `assigned`, `waiting`, `paused`, `stopped`…
  public var state: String
  /// Next offset expected: all before it was handed out or holds no record; -1 while the partition waits to be told.
  public var offsetNext: Int64
  /// Begin and ends as last heard of; nil until the brokers answered once.
  public var range: OffsetRange?
  /// Records dropped because they were handed out before, or belong to an earlier assignment.
  public var dropped: UInt64
  /// What holds the partition up; nil if nothing does.
  public var error: KafkaError?
  /// For how long an open transaction has held the last stable offset back, in milliseconds; 0 if none does.
  public var heldBackMs: Int64

  /// Offsets still to be read up to the last stable one; nil while the partition waits, and until the brokers
  /// answered once.
  public var lag: Int64? {
    guard let range, offsetNext >= 0 else { return nil }
    return max(0, range.stable - offsetNext)
  }

  /// Offsets that readers of committed records cannot see yet, for an open transaction; nil until the brokers
  /// answered once.
  public var heldBack: Int64? { range.map { $0.high - $0.stable } }

  /// Whether nothing that a reader of committed records could see is missing.
  public var isCaughtUp: Bool { lag == 0 && error == nil }
}
