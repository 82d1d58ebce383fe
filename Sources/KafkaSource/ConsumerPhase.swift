// The words of the consumer's state: the phases of a partition, and what the driver owes.

extension ConsumerState {
  /// A partition's phase. `closed` is where all begin and end.
  enum Phase: Equatable {
    /// Ours and read. Next: paused, stopped, revoking.
    case assigned
    /// Ours, and nobody has said yet where to begin. Next: assigned, stopped, revoking.
    case waiting
    /// Ours, not read until resumed. Next: assigned, stopped, revoking.
    case paused
    /// Ours, not read until the cause is gone or someone decides. Next: assigned (cleared), revoking.
    case stopped(KafkaError)
    /// An offset is refused by the broker; answers about the topic and about begin and end, both younger than the
    /// refusal, say why. Next: assigned, stopped.
    case outOfRange
    /// Taken away during the running call, whose records of it are dropped. Next: closed, rewinding.
    case revoking
    /// Taken away and given back during one call, or kept through a rebalance (after which librdkafka before 2.13.2
    /// may go on one record too far): records of this call are dropped and read again from `start`.
    /// Without a start it waits to be told. Next: assigned, waiting.
    case rewinding(start: Int64?)
    /// Not ours. Next: assigned.
    case closed

    /// The word for status output.
    var name: String {
      switch self {
      case .assigned: "assigned"
      case .waiting: "waiting"
      case .paused: "paused"
      case .stopped, .outOfRange: "stopped"
      case .revoking, .rewinding: "revoking"
      case .closed: "closed"
      }
    }
  }

  /// What the driver owes after a happening, in order.
  enum Action: Equatable {
    /// Hand this to the caller.
    case tell(ConsumerEvent)
    /// Join the group.
    case subscribe
    /// Stop fetching the partition.
    case pause(Int32)
    /// Fetch the partition from this offset on.
    case resume(Int32, at: Int64)
    /// The same for one whose fetching has ended by an error, or never began: a seek does not revive it.
    case restart(Int32, at: Int64)
    /// Ask for begin and end of all partitions now.
    case askOffsets
    /// Ask what the topic is now; an answer to an older question does not count.
    case askTopic
  }

  struct Partition: Equatable {
    var phase = Phase.closed
    /// Number of the assignment; rises with each.
    var generation: UInt64 = 0
    var range: OffsetRange?
    var dropped: UInt64 = 0
    /// Next offset expected while `floors` holds the closed mark.
    var offsetNext: Int64 = 0
    /// The caller paused it: what clears an error does not start it.
    var isHeld = false
    /// librdkafka's fetching has ended, or never began: a seek does not revive it.
    var isFetchOver = false
    var heldBack = HeldBack()
    /// The topic's id is to be looked at before anything is made of a refused offset.
    var needsLook = false
    /// Where the log of our records' leader epoch ends, if the broker said that it ends before our place.
    var lostEnd: Int64?
    /// Answers in a row that put the end before our place.
    var shortHeard = 0
    /// Leader epoch of the last record handed out, and the offset after it.
    var epoch: Int32 = -1
    var epochNext: Int64 = -1
    /// The place at the last answer about begin and end, and for how many of them it has not moved.
    var placeHeard: Int64 = -1
    var stillHeard = 0
    /// How many of them are too many.
    var stillHeardMax = ConsumerState.stillHeardMax
  }
}
