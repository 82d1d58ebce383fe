// The consumer's memory as a value: which partitions are ours, what comes next in each, what stands still and why.
// No librdkafka in here: happenings in, actions out, so that every sequence of them can be written down as a test.

/// The state of one consumer.
struct ConsumerState: Equatable {
  /// Most partitions a topic may have here; a number beyond it is a broken answer.
  static let partitionsMax: Int32 = 100_000
  /// Answers in a row that put a partition's end before our place, after which the topic has lost records: the high
  /// watermark passes through such dips while leaders change.
  static let shortHeardMax = 3
  /// Answers in a row that show records ahead of a place that does not move, after which it is fetched anew.
  static let stillHeardMax = 2
  /// The most of them, after new starts that changed nothing.
  static let patienceMax = 64
  /// Floor of a partition none of whose records is wanted.
  static let closedFloor = Int64.max

  /// Name of the topic.
  let topic: String
  /// Whether a record adds to a total, so that compaction must be refused.
  let addsIncrements: Bool
  /// How long an open transaction may last untold, in milliseconds.
  let heldBackMsMax: Int64
  /// Id the shards' state belongs to; set by the first answer if the caller had none.
  private(set) var topicID: TopicID?
  private(set) var facts: TopicFacts?
  var partitions: [Partition] = []
  /// By partition, the least offset still wanted: the one comparison a record costs.
  var floors: [Int64] = []
  private(set) var isSubscribed = false
  private(set) var sourceError: KafkaError?
  private(set) var generation: UInt64 = 0

  /// - Parameters:
  ///   - topic: name of the topic.
  ///   - topicID: id the caller's state was made from; nil if it has none.
  ///   - addsIncrements: whether a record adds to a total.
  ///   - heldBackMsMax: how long an open transaction may last untold, in milliseconds.
  init(topic: String, topicID: TopicID?, addsIncrements: Bool, heldBackMsMax: Int64 = 60_000) {
    self.topic = topic
    self.topicID = topicID
    self.addsIncrements = addsIncrements
    self.heldBackMsMax = heldBackMsMax
  }

  // MARK: - The topic

  /// The brokers described the topic.
  ///
  /// - Parameters:
  ///   - new: its facts.
  ///   - out: actions are appended.
  mutating func described(_ new: TopicFacts, into out: inout [Action]) {
    if let refusal = new.refusal(expected: topicID, addsIncrements: addsIncrements) {
      fail(refusal, into: &out)
      stopAll(refusal, into: &out)
      return
    }
    cleared(into: &out)
    looked(into: &out)
    let old = facts
    guard old != new else { return }
    facts = new
    if let id = new.id { topicID = id }
    out.append(.tell(.topic(new)))
    if let old, new.partitions > old.partitions {
      out.append(.tell(.partitionsGrew(from: old.partitions, to: new.partitions)))
    }
    if !isSubscribed {
      isSubscribed = true
      out.append(.subscribe)
    }
  }

  /// The topic is the one it was: what waited for that may be judged by the next answer about begin and end.
  private mutating func looked(into out: inout [Action]) {
    let waiting = partitions.indices.filter { partitions[$0].needsLook }
    for index in waiting { partitions[index].needsLook = false }
    if !waiting.isEmpty { out.append(.askOffsets) }
  }

  /// librdkafka's own metadata show another id of the topic: said in order with the records, so that none of the new
  /// topic is handed out, while the looks at the topic come a second apart.
  ///
  /// - Parameters:
  ///   - id: the id.
  ///   - out: actions are appended.
  mutating func idSeen(_ id: TopicID, into out: inout [Action]) {
    guard let topicID, id != topicID, !id.isZero else { return }
    let error = KafkaError.topicRecreated(topic: topic, old: topicID, new: id)
    fail(error, into: &out)
    stopAll(error, into: &out)
  }

  /// The topic could not be described, or the brokers are away: kept until cleared, told once.
  ///
  /// - Parameters:
  ///   - error: why.
  ///   - out: actions are appended.
  mutating func fail(_ error: KafkaError, into out: inout [Action]) {
    guard !isRecreated, sourceError != error, !isRefused || ConsumerState.isRefusal(error) else { return }
    sourceError = error
    out.append(.tell(.sourceError(error)))
  }

  /// The topic is gone from the brokers, for a moment or for good. A topic of the same name may follow, whose offsets
  /// mean other records: nothing that comes now counts until its id was looked at.
  mutating func vanished(into out: inout [Action]) {
    let error = KafkaError.unknownTopic(topic)
    fail(error, into: &out)
    if sourceError == error { stopAll(error, into: &out) }
    out.append(.askTopic)
  }

  /// A broker answered usefully: whatever was wrong with all of them is over.
  mutating func cleared(into out: inout [Action]) {
    guard !isRecreated, let error = sourceError else { return }
    sourceError = nil
    out.append(.tell(.sourceCleared))
    for index in partitions.indices where partitions[index].phase == .stopped(error) {
      clear(Int32(index), into: &out)
    }
  }

  /// Whether the topic is another one now; only a new consumer ends that.
  var isRecreated: Bool {
    if case .topicRecreated = sourceError { true } else { false }
  }

  private var isRefused: Bool { sourceError.map(ConsumerState.isRefusal) ?? false }

  private static func isRefusal(_ error: KafkaError) -> Bool {
    switch error {
    case .topicRecreated, .compacted: true
    case .setting, .unknownTopic, .failed, .gap, .truncated, .corrupt, .fatal: false
    }
  }

  private mutating func stopAll(_ error: KafkaError, into out: inout [Action]) {
    for index in partitions.indices {
      switch partitions[index].phase {
      case .assigned, .paused, .outOfRange, .stopped(.unknownTopic): stop(Int32(index), error, into: &out)
      // Whatever else was wrong: that the records are others' outweighs it.
      case .stopped: if ConsumerState.isRefusal(error) { stop(Int32(index), error, into: &out) }
      case .waiting, .revoking, .rewinding, .closed: continue
      }
    }
  }

  /// What keeps every partition from being read just now; nil if nothing does.
  private var halt: KafkaError? {
    guard let error = sourceError, isRefused || error == .unknownTopic(topic) else { return nil }
    return error
  }

  // MARK: - Assignments

  /// Partitions were assigned.
  ///
  /// - Parameters:
  ///   - starts: partition and first offset wanted of each; nil for those that wait to be told.
  ///   - out: actions are appended.
  mutating func assigned(_ starts: [(partition: Int32, offset: Int64?)], into out: inout [Action]) {
    generation += 1
    var given: [Int32] = []
    for (partition, offset) in starts {
      precondition(
        partition >= 0 && partition < ConsumerState.partitionsMax && offset ?? 0 >= 0,
        "assigned partition \(partition) at \(offset ?? 0)")
      grow(to: Int(partition) + 1)
      let index = Int(partition)
      switch partitions[index].phase {
      case .revoking, .rewinding: partitions[index].phase = .rewinding(start: offset)
      case .closed, .assigned, .waiting, .paused, .stopped, .outOfRange:
        partitions[index].phase = offset == nil ? .waiting : .assigned
        floors[index] = offset ?? ConsumerState.closedFloor
      }
      partitions[index].generation = generation
      partitions[index].offsetNext = offset ?? -1
      partitions[index].range = nil
      partitions[index].isHeld = false
      partitions[index].isFetchOver = false
      partitions[index].heldBack = HeldBack()
      partitions[index].needsLook = false
      partitions[index].epoch = -1
      given.append(partition)
    }
    rewindKept(since: generation)
    guard !given.isEmpty else { return }
    out.append(.tell(.assigned(given)))
    if isRefused, let error = sourceError { stopAll(error, into: &out) }
    out.append(.askOffsets)
  }

  /// Partitions were taken away.
  ///
  /// - Parameters:
  ///   - taken: the partitions.
  ///   - lost: whether without a handover.
  ///   - out: actions are appended.
  mutating func revoked(_ taken: [Int32], lost: Bool, into out: inout [Action]) {
    var gone: [Int32] = []
    for partition in taken {
      let index = Int(partition)
      guard partitions.indices.contains(index), partitions[index].phase != .closed else { continue }
      partitions[index].offsetNext = offsetNext(partition)
      partitions[index].phase = .revoking
      floors[index] = ConsumerState.closedFloor
      gone.append(partition)
    }
    rewindKept(since: generation + 1)
    if !gone.isEmpty { out.append(.tell(.revoked(gone, lost: lost))) }
  }

  /// librdkafka pauses what is kept during a rebalance and resumes it at its own idea of the place, which an end of
  /// the partition has moved one too far (librdkafka 5213, fixed in 2.13.2): the record there would be lost. So
  /// nothing that comes now counts, and the place is set anew.
  private mutating func rewindKept(since generation: UInt64) {
    for index in partitions.indices
    where partitions[index].phase == .assigned && partitions[index].generation < generation {
      partitions[index].offsetNext = floors[index]
      partitions[index].phase = .rewinding(start: floors[index])
      floors[index] = ConsumerState.closedFloor
    }
  }

  /// The records of the running call are sorted out: from here on assignments are whole again.
  mutating func callEnded(into out: inout [Action]) {
    for index in partitions.indices {
      switch partitions[index].phase {
      case .revoking: partitions[index].phase = .closed
      case .rewinding(nil): partitions[index].phase = .waiting
      case .rewinding(let start?):
        partitions[index].phase = .assigned
        floors[index] = start
        out.append(.resume(Int32(index), at: start))
      case .assigned, .waiting, .paused, .stopped, .outOfRange, .closed: continue
      }
    }
  }

  // MARK: - Records

  /// Whether a record is handed out: ours, and strictly above all that was before. Counts it if not.
  mutating func admit(_ partition: Int32, _ offset: Int64) -> Bool {
    let index = Int(partition)
    guard floors.indices.contains(index), offset >= floors[index] else {
      drop(partition, 1)
      return false
    }
    floors[index] = offset + 1
    return true
  }

  /// Counts dropped records.
  mutating func drop(_ partition: Int32, _ count: UInt64) {
    if partitions.indices.contains(Int(partition)) { partitions[Int(partition)].dropped += count }
  }

  /// The reader reached the end of a partition.
  ///
  /// - Parameters:
  ///   - partition: which.
  ///   - offset: offset after all that is in it, control records included.
  ///   - out: actions are appended.
  mutating func endOfPartition(_ partition: Int32, _ offset: Int64, into out: inout [Action]) {
    let index = Int(partition)
    guard floors.indices.contains(index), partitions[index].phase == .assigned, offset >= floors[index] else {
      return
    }
    floors[index] = offset
    if var range = partitions[index].range {
      range.stable = max(range.stable, offset)
      range.high = max(range.high, range.stable)
      partitions[index].range = range
    }
    out.append(.tell(.endOfPartition(partition: partition, offsetNext: offset)))
  }

  // MARK: - The caller's wishes

  /// Stops reading a partition for a while; one that stands still already does not start when its trouble is over.
  mutating func pause(_ partition: Int32, into out: inout [Action]) {
    guard isOurs(partition) else { return }
    let index = Int(partition)
    switch partitions[index].phase {
    case .assigned:
      partitions[index].offsetNext = offsetNext(partition)
      partitions[index].phase = .paused
      partitions[index].isHeld = true
      floors[index] = ConsumerState.closedFloor
      out.append(.pause(partition))
    case .stopped, .outOfRange: partitions[index].isHeld = true
    case .waiting, .paused, .revoking, .rewinding, .closed: return
    }
  }

  /// Reads a waiting, paused or stopped partition.
  ///
  /// - Parameters:
  ///   - partition: which.
  ///   - offset: where to go on; where it stood if nil.
  ///   - out: actions are appended.
  mutating func resume(_ partition: Int32, at offset: Int64?, into out: inout [Action]) {
    precondition(offset ?? 0 >= 0, "partition \(partition) resumed at \(offset ?? 0)")
    guard isOurs(partition) else { return }
    let index = Int(partition)
    let wasHeld = partitions[index].isHeld
    switch partitions[index].phase {
    case .waiting:
      guard let offset else { return }
      partitions[index].offsetNext = offset
      if let halt { stop(partition, halt, into: &out) } else { clear(partition, into: &out) }
    case .paused:
      partitions[index].isHeld = false
      if let offset { partitions[index].offsetNext = offset }
      if partitions[index].isFetchOver {
        clear(partition, into: &out)
        return
      }
      partitions[index].phase = .assigned
      floors[index] = partitions[index].offsetNext
      out.append(.resume(partition, at: floors[index]))
    case .stopped, .outOfRange:
      partitions[index].isHeld = false
      if let offset { partitions[index].offsetNext = offset } else if wasHeld { return }
      if halt == nil { clear(partition, into: &out) }
    case .assigned, .revoking, .rewinding, .closed: return
    }
  }

  /// The last record handed out of a partition, for its leader epoch: a topic whose log was cut below it, and has grown
  /// since, is told from one that was not.
  mutating func handedOut(_ partition: Int32, last offset: Int64, epoch: Int32) {
    partitions[Int(partition)].epoch = epoch
    partitions[Int(partition)].epochNext = offset + 1
  }

  // MARK: - Looking in

  /// Leader epoch of the record right before an offset; -1 if it is not known. One from further before would be
  /// wrong: control records between may be of later epochs.
  func epoch(_ partition: Int32, before offset: Int64) -> Int32 {
    let state = partitions[Int(partition)]
    return state.epochNext == offset ? state.epoch : -1
  }

  /// Next offset expected of a partition of ours.
  func offsetNext(_ partition: Int32) -> Int64 {
    let floor = floors[Int(partition)]
    return floor == ConsumerState.closedFloor ? partitions[Int(partition)].offsetNext : floor
  }

  /// Our partitions, ascending.
  var owned: [Int32] { partitions.indices.map { Int32($0) }.filter(isOurs) }

  /// The state of our partitions, ascending.
  func status(nowNs: UInt64 = 0) -> [PartitionStatus] {
    owned.map { partition in
      let state = partitions[Int(partition)]
      var error: KafkaError?
      if case .stopped(let reason) = state.phase { error = reason }
      return PartitionStatus(
        partition: partition, state: state.phase.name, offsetNext: offsetNext(partition), range: state.range,
        dropped: state.dropped, error: error, heldBackMs: state.heldBack.lengthMs(nowNs))
    }
  }

  func isOurs(_ partition: Int32) -> Bool {
    guard partitions.indices.contains(Int(partition)) else { return false }
    switch partitions[Int(partition)].phase {
    case .assigned, .waiting, .paused, .stopped, .outOfRange: return true
    case .revoking, .rewinding, .closed: return false
    }
  }

  mutating func stop(_ partition: Int32, _ error: KafkaError, into out: inout [Action]) {
    let index = Int(partition)
    guard partitions[index].phase != .stopped(error) else { return }
    partitions[index].offsetNext = offsetNext(partition)
    partitions[index].phase = .stopped(error)
    floors[index] = ConsumerState.closedFloor
    out.append(.pause(partition))
    out.append(.tell(.partitionError(partition: partition, error)))
  }

  mutating func clear(_ partition: Int32, into out: inout [Action]) {
    let index = Int(partition)
    if case .stopped = partitions[index].phase {
      out.append(.tell(.partitionCleared(partition: partition)))
    }
    if partitions[index].isHeld {
      if partitions[index].phase == .outOfRange { out.append(.pause(partition)) }
      partitions[index].phase = .paused
      partitions[index].isFetchOver = true
      return
    }
    partitions[index].phase = .assigned
    partitions[index].isFetchOver = false
    partitions[index].lostEnd = nil
    floors[index] = partitions[index].offsetNext
    out.append(.restart(partition, at: floors[index]))
  }

  private mutating func grow(to count: Int) {
    while partitions.count < count {
      partitions.append(Partition())
      floors.append(ConsumerState.closedFloor)
    }
  }
}
