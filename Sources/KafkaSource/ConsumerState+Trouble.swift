// Trouble in one partition: what refuses an offset, what the ends of the partition say about it, and when it goes on.

extension ConsumerState {
  /// A partition reports an error instead of a record.
  ///
  /// - Parameters:
  ///   - partition: which.
  ///   - error: what; `corrupt` stops it, everything else is told and kept.
  ///   - out: actions are appended.
  mutating func partitionFailed(_ partition: Int32, _ error: KafkaError, into out: inout [Action]) {
    guard isOurs(partition), !noted(partition) else { return }
    stop(partition, error, into: &out)
  }

  /// The broker refuses the offset we want: begin and end will tell whether records are gone or the topic was cut.
  ///
  /// - Parameters:
  ///   - partition: which.
  ///   - lostEnd: where the log ends for the leader epoch of our last record, if before our place: the records from
  ///     there on are lost, whatever was written in their place since.
  ///   - out: actions are appended.
  mutating func offsetRefused(_ partition: Int32, lostEnd: Int64? = nil, into out: inout [Action]) {
    guard isOurs(partition), !noted(partition), partitions[Int(partition)].phase == .assigned else { return }
    let index = Int(partition)
    partitions[index].offsetNext = offsetNext(partition)
    partitions[index].phase = .outOfRange
    partitions[index].range = nil
    partitions[index].needsLook = true
    partitions[index].lostEnd = lostEnd
    partitions[index].shortHeard = 0
    floors[index] = ConsumerState.closedFloor
    out += [.askOffsets, .askTopic]
  }

  /// Trouble of a partition that is not read meanwhile comes again when it is: all it takes is a new start.
  private mutating func noted(_ partition: Int32) -> Bool {
    switch partitions[Int(partition)].phase {
    case .waiting, .paused:
      partitions[Int(partition)].isFetchOver = true
      return true
    case .assigned, .stopped, .outOfRange, .revoking, .rewinding, .closed: return false
    }
  }

  /// Begin and end of a partition were heard of.
  ///
  /// - Parameters:
  ///   - partition: which.
  ///   - range: where it begins and ends.
  ///   - nowNs: monotonic time.
  ///   - out: actions are appended.
  mutating func heard(
    _ partition: Int32, _ range: OffsetRange, nowNs: UInt64 = 0, into out: inout [Action]
  ) {
    guard isOurs(partition) else { return }
    let index = Int(partition)
    let next = offsetNext(partition)
    partitions[index].range = range
    switch partitions[index].heldBack.heard(range, nowNs: nowNs, maxMs: heldBackMsMax) {
    case .none: break
    case .long(let heldMs):
      out.append(
        .tell(
          .heldBack(partition: partition, stable: range.stable, high: range.high, heldMs: heldMs)))
    case .ended: out.append(.tell(.heldBackEnded(partition: partition)))
    }
    switch partitions[index].phase {
    case .outOfRange, .stopped(.gap): judge(partition, next, range, into: &out)
    case .assigned: nudge(partition, next, range, into: &out)
    case .waiting, .paused, .stopped, .revoking, .rewinding, .closed: return
    }
  }

  /// Says why an offset was refused, or that it was for a moment only.
  private mutating func judge(
    _ partition: Int32, _ next: Int64, _ range: OffsetRange, into out: inout [Action]
  ) {
    let index = Int(partition)
    guard !partitions[index].needsLook else { return }
    if next < range.low {
      stop(partition, .gap(partition: partition, from: next, to: range.low - 1), into: &out)
    } else if let end = partitions[index].lostEnd {
      stop(partition, .truncated(partition: partition, offsetNext: next, end: end), into: &out)
    } else if next > range.high {
      partitions[index].shortHeard += 1
      guard partitions[index].shortHeard >= ConsumerState.shortHeardMax else { return }
      stop(partition, .truncated(partition: partition, offsetNext: next, end: range.high), into: &out)
    } else {
      clear(partition, into: &out)
    }
  }

  /// Fetching has been seen to stop for good on a partition after a rebalance, with records ahead and no error:
  /// starting it anew at the very place heals that.
  private mutating func nudge(
    _ partition: Int32, _ next: Int64, _ range: OffsetRange, into out: inout [Action]
  ) {
    let index = Int(partition)
    if range.stable <= next || partitions[index].placeHeard != next {
      partitions[index].placeHeard = next
      partitions[index].stillHeard = 0
      partitions[index].stillHeardMax = ConsumerState.stillHeardMax
      return
    }
    partitions[index].stillHeard += 1
    let heard = partitions[index].stillHeard
    guard heard >= partitions[index].stillHeardMax else { return }
    // A slow connection may need longer for one fetch, which a new start throws away.
    partitions[index].stillHeardMax = min(2 * heard, ConsumerState.patienceMax)
    partitions[index].stillHeard = 0
    out.append(
      .tell(
        .log(level: 5, text: "partition \(partition) stands still at \(next) before records; fetched anew")))
    out.append(.restart(partition, at: next))
  }
}
