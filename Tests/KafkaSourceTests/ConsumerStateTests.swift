import Testing

@testable import KafkaSource

/// Happenings in, actions out, a line each.
@Suite struct ConsumerStateTests {
  static let id = TopicID(high: 1, low: 2)
  static let other = TopicID(high: 3, low: 4)

  static func facts(_ partitions: Int32 = 2, id: TopicID = id, policy: String = "delete") -> TopicFacts {
    TopicFacts(name: "steps", id: id, partitions: partitions, cleanupPolicy: policy)
  }

  /// A state that has joined the group and owns partitions 0 and 1 from offset 0.
  static func reading() -> ConsumerState {
    var state = ConsumerState(topic: "steps", topicID: nil, addsIncrements: true)
    var out: [ConsumerState.Action] = []
    state.described(facts(), into: &out)
    state.assigned([(0, 0), (1, 0)], into: &out)
    return state
  }

  /// Whether the state hands the record out.
  func admit(_ state: inout ConsumerState, _ partition: Int32, _ offset: Int64) -> Bool {
    state.admit(partition, offset)
  }

  func expect(_ is: Bool, _ wanted: Bool, at location: SourceLocation = #_sourceLocation) {
    #expect(`is` == wanted, sourceLocation: location)
  }

  @Test("the group is joined only once the topic is known, and facts are told once")
  func joins() {
    var state = ConsumerState(topic: "steps", topicID: nil, addsIncrements: true)
    var out: [ConsumerState.Action] = []
    state.fail(.unknownTopic("steps"), into: &out)
    state.fail(.unknownTopic("steps"), into: &out)
    #expect(out == [.tell(.sourceError(.unknownTopic("steps")))])
    out = []
    state.described(Self.facts(), into: &out)
    #expect(out == [.tell(.sourceCleared), .tell(.topic(Self.facts())), .subscribe])
    out = []
    state.described(Self.facts(), into: &out)
    #expect(out == [])
  }

  @Test("a record is handed out once, in rising order, and only of partitions that are ours")
  func admits() {
    var state = Self.reading()
    expect(admit(&state, 0, 0), true)
    expect(admit(&state, 0, 5), true)
    expect(admit(&state, 0, 5), false)
    expect(admit(&state, 0, 3), false)
    expect(admit(&state, 7, 0), false)
    expect(admit(&state, -1, 0), false)
    expect(admit(&state, 1, 0), true)
    #expect(state.status().map(\.offsetNext) == [6, 1])
    #expect(state.status().map(\.dropped) == [2, 0])
  }

  @Test("records of a partition taken away during the call are dropped")
  func revokes() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    state.revoked([0], lost: false, into: &out)
    #expect(out == [.tell(.revoked([0], lost: false))])
    expect(admit(&state, 0, 1), false)
    out = []
    state.callEnded(into: &out)
    #expect(state.owned == [1])
    out = []
    state.revoked([0], lost: false, into: &out)
    #expect(out == [])
  }

  @Test("what is kept through a rebalance goes on exactly where it stood, whatever came meanwhile")
  func keeps() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    state.endOfPartition(1, 7, into: &out)
    out = []
    state.revoked([0], lost: false, into: &out)
    // Offset 7 was skipped: taking 8 would lose it for good.
    expect(admit(&state, 1, 8), false)
    out = []
    state.callEnded(into: &out)
    #expect(out == [.resume(1, at: 7)])
    expect(admit(&state, 1, 7), true)
    state.assigned([(0, 0)], into: &out)
    expect(admit(&state, 1, 9), false)
    expect(admit(&state, 0, 0), true)
    out = []
    state.callEnded(into: &out)
    #expect(out == [.resume(1, at: 8)])
  }

  @Test("a partition taken and given back in one call is read again from its start")
  func rewinds() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    state.revoked([0], lost: true, into: &out)
    state.assigned([(0, 40)], into: &out)
    expect(admit(&state, 0, 500), false)
    out = []
    state.callEnded(into: &out)
    #expect(out == [.resume(0, at: 40), .resume(1, at: 0)])
    expect(admit(&state, 0, 39), false)
    expect(admit(&state, 0, 40), true)
  }

  @Test("the end of a partition moves the place past control records, unless records came after it")
  func ends() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    state.heard(0, OffsetRange(low: 0, stable: 11, high: 11), into: &out)
    expect(admit(&state, 0, 9), true)
    #expect(state.status()[0].lag == 1)
    state.endOfPartition(0, 11, into: &out)
    #expect(out == [.tell(.endOfPartition(partition: 0, offsetNext: 11))])
    #expect(state.status()[0].isCaughtUp)
    out = []
    expect(admit(&state, 0, 20), true)
    state.endOfPartition(0, 12, into: &out)
    #expect(out == [])
    #expect(state.status()[0].offsetNext == 21)
  }

  @Test("an open transaction holds the end back: caught up at the last stable offset")
  func hangingTransaction() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    state.heard(0, OffsetRange(low: 0, stable: 10, high: 500), into: &out)
    state.endOfPartition(0, 10, into: &out)
    #expect(state.status()[0].isCaughtUp)
    #expect(state.status()[0].range?.high == 500)
  }

  @Test("a recreated topic stops every shard, both ids named, and nothing clears it")
  func recreated() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    let error = KafkaError.topicRecreated(topic: "steps", old: Self.id, new: Self.other)
    state.described(Self.facts(id: Self.other), into: &out)
    #expect(
      out == [
        .tell(.sourceError(error)), .pause(0), .tell(.partitionError(partition: 0, error)), .pause(1),
        .tell(.partitionError(partition: 1, error)),
      ])
    #expect(error.description.contains(Self.id.description))
    #expect(error.description.contains(Self.other.description))
    out = []
    state.cleared(into: &out)
    state.resume(0, at: nil, into: &out)
    state.fail(.unknownTopic("steps"), into: &out)
    #expect(out == [])
    expect(admit(&state, 0, 0), false)
    state.revoked([0, 1], lost: false, into: &out)
    state.callEnded(into: &out)
    state.assigned([(0, 0)], into: &out)
    expect(admit(&state, 0, 0), false)
  }

  @Test(
    "while the topic is gone nothing counts; the same id goes on where it stood, another one stops for good")
  func vanished() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    expect(admit(&state, 0, 0), true)
    state.vanished(into: &out)
    expect(admit(&state, 0, 1), false)
    #expect(out.contains(.askTopic))
    var same = state
    out = []
    same.described(Self.facts(), into: &out)
    #expect(out.contains(.restart(0, at: 1)) && out.contains(.tell(.partitionCleared(partition: 0))))
    expect(admit(&same, 0, 1), true)
    out = []
    state.described(Self.facts(id: Self.other), into: &out)
    let error = KafkaError.topicRecreated(topic: "steps", old: Self.id, new: Self.other)
    #expect(out.contains(.tell(.partitionError(partition: 0, error))))
    #expect(out.contains(.tell(.partitionError(partition: 1, error))))
    expect(admit(&state, 0, 1), false)
  }

  @Test("state made from another topic is never read on: the id given at start counts")
  func recreatedWhileAway() {
    var state = ConsumerState(topic: "steps", topicID: Self.other, addsIncrements: true)
    var out: [ConsumerState.Action] = []
    state.described(Self.facts(), into: &out)
    #expect(out == [.tell(.sourceError(.topicRecreated(topic: "steps", old: Self.other, new: Self.id)))])
    #expect(!state.isSubscribed)
  }

  @Test("a compacted topic is refused where records add up, and read where they are totals")
  func compacted() {
    var state = ConsumerState(topic: "steps", topicID: nil, addsIncrements: true)
    var out: [ConsumerState.Action] = []
    state.described(Self.facts(policy: "compact,delete"), into: &out)
    #expect(out == [.tell(.sourceError(.compacted(topic: "steps")))])
    out = []
    state.described(Self.facts(), into: &out)
    #expect(out == [.tell(.sourceCleared), .tell(.topic(Self.facts())), .subscribe])
    var totals = ConsumerState(topic: "steps", topicID: nil, addsIncrements: false)
    out = []
    totals.described(Self.facts(policy: "compact"), into: &out)
    #expect(out == [.tell(.topic(Self.facts(policy: "compact"))), .subscribe])
  }

  @Test("more partitions are noticed")
  func grows() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    state.described(Self.facts(8), into: &out)
    #expect(out == [.tell(.topic(Self.facts(8))), .tell(.partitionsGrew(from: 2, to: 8))])
  }

  @Test("a paused partition hands out nothing and goes on where it stood")
  func pauses() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    expect(admit(&state, 0, 3), true)
    state.pause(0, into: &out)
    expect(admit(&state, 0, 4), false)
    state.pause(0, into: &out)
    state.resume(0, at: nil, into: &out)
    state.resume(0, at: nil, into: &out)
    #expect(out == [.pause(0), .resume(0, at: 4)])
    expect(admit(&state, 0, 4), true)
  }

  @Test(
    "a partition without a start is ours and unread: neither records, ends nor refusals count until told where"
  )
  func waits() {
    var state = ConsumerState(topic: "steps", topicID: nil, addsIncrements: true)
    var out: [ConsumerState.Action] = []
    state.described(Self.facts(), into: &out)
    out = []
    state.assigned([(0, nil), (1, 0)], into: &out)
    #expect(out == [.tell(.assigned([0, 1])), .askOffsets])
    out = []
    expect(admit(&state, 0, 0), false)
    expect(admit(&state, 1, 0), true)
    state.endOfPartition(0, 7, into: &out)
    state.offsetRefused(0, into: &out)
    state.partitionFailed(0, .corrupt(partition: 0, KafkaFailure(code: -199)), into: &out)
    state.heard(0, OffsetRange(low: 100, stable: 200, high: 200), into: &out)
    state.pause(0, into: &out)
    state.resume(0, at: nil, into: &out)
    state.callEnded(into: &out)
    #expect(out == [])
    #expect(state.owned == [0, 1])
    let status = state.status()[0]
    #expect(status.state == "waiting" && status.offsetNext == -1 && status.lag == nil && !status.isCaughtUp)
    state.resume(0, at: 150, into: &out)
    #expect(out == [.restart(0, at: 150)])
    expect(admit(&state, 0, 149), false)
    expect(admit(&state, 0, 150), true)
  }

  @Test(
    "told to begin where retention was already, a waiting partition stops with the gap, and goes on after it")
  func waitsThenGap() {
    var state = ConsumerState(topic: "steps", topicID: nil, addsIncrements: true)
    var out: [ConsumerState.Action] = []
    state.described(Self.facts(1), into: &out)
    state.assigned([(0, nil)], into: &out)
    state.resume(0, at: 40, into: &out)
    state.offsetRefused(0, into: &out)
    state.described(Self.facts(1), into: &out)
    out = []
    let range = OffsetRange(low: 100, stable: 200, high: 200)
    state.heard(0, range, into: &out)
    let gap = KafkaError.gap(partition: 0, from: 40, to: 99)
    #expect(out == [.pause(0), .tell(.partitionError(partition: 0, gap))])
    out = []
    state.heard(0, range, into: &out)
    #expect(out == [])
    state.resume(0, at: 100, into: &out)
    #expect(out == [.tell(.partitionCleared(partition: 0)), .restart(0, at: 100)])
    out = []
    state.heard(0, range, into: &out)
    #expect(out == [])
    expect(admit(&state, 0, 100), true)
  }

  @Test(
    "one that waits while the topic is gone, or is told to begin then, starts only when the topic is back")
  func waitsWhileVanished() {
    var state = ConsumerState(topic: "steps", topicID: nil, addsIncrements: true)
    var out: [ConsumerState.Action] = []
    state.described(Self.facts(), into: &out)
    state.assigned([(0, nil), (1, nil)], into: &out)
    out = []
    state.vanished(into: &out)
    let gone = KafkaError.unknownTopic("steps")
    #expect(out == [.tell(.sourceError(gone)), .askTopic])
    out = []
    state.resume(0, at: 12, into: &out)
    #expect(out == [.pause(0), .tell(.partitionError(partition: 0, gone))])
    expect(admit(&state, 0, 12), false)
    out = []
    state.described(Self.facts(), into: &out)
    #expect(out == [.tell(.sourceCleared), .tell(.partitionCleared(partition: 0)), .restart(0, at: 12)])
    expect(admit(&state, 0, 12), true)
    #expect(state.status()[1].state == "waiting")
  }

  @Test("given back in the same call without a start, a partition waits from then on")
  func waitsAfterRewind() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    state.revoked([0], lost: true, into: &out)
    state.assigned([(0, nil)], into: &out)
    expect(admit(&state, 0, 0), false)
    out = []
    state.callEnded(into: &out)
    #expect(out == [.resume(1, at: 0)])
    #expect(state.status()[0].state == "waiting")
  }

  @Test("a partition paused by the caller stays so when the trouble that stopped it is over")
  func pausesThroughTrouble() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    expect(admit(&state, 0, 5), true)
    state.pause(0, into: &out)
    state.vanished(into: &out)
    state.pause(1, into: &out)
    out = []
    state.described(Self.facts(), into: &out)
    #expect(
      out == [
        .tell(.sourceCleared), .tell(.partitionCleared(partition: 0)), .tell(.partitionCleared(partition: 1)),
      ])
    #expect(state.status().map(\.state) == ["paused", "paused"])
    out = []
    state.resume(0, at: nil, into: &out)
    state.resume(1, at: nil, into: &out)
    #expect(out == [.restart(0, at: 6), .restart(1, at: 0)])
    // Taking back a pause does not take back a gap.
    state.offsetRefused(0, into: &out)
    state.described(Self.facts(), into: &out)
    state.heard(0, OffsetRange(low: 50, stable: 60, high: 60), into: &out)
    state.pause(0, into: &out)
    out = []
    state.resume(0, at: nil, into: &out)
    #expect(out == [])
    #expect(state.status()[0].error == .gap(partition: 0, from: 6, to: 49))
  }

  @Test("an error of the brokers is kept until one answers")
  func brokersAway() {
    var state = Self.reading()
    var out: [ConsumerState.Action] = []
    let away = KafkaError.failed(KafkaFailure(code: -187))
    state.fail(away, into: &out)
    #expect(out == [.tell(.sourceError(away))])
    #expect(state.sourceError == away)
    out = []
    state.described(Self.facts(), into: &out)
    #expect(out == [.tell(.sourceCleared)])
    #expect(state.sourceError == nil)
  }

  @Test("topic ids are written as Kafka writes them, and read in either alphabet")
  func topicIDs() {
    for id in [
      TopicID(high: 0, low: 0), TopicID(high: .max, low: .max), TopicID(high: 0x0123_4567_89ab_cdef, low: 77),
    ] {
      #expect(TopicID(id.description) == id)
    }
    #expect(TopicID("+++++++++++++++++++++w") == TopicID("---------------------w"))
    for bad in ["", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAA=="] {
      #expect(TopicID(bad) == nil)
    }
    #expect(TopicID(high: 0, low: 0).description == "AAAAAAAAAAAAAAAAAAAAAA")
    #expect(TopicID(high: .max, low: .max).description == "_____________________w")
    #expect(
      TopicID(high: 0x0001_0203_0405_0607, low: 0x0809_0A0B_0C0D_0E0F).description == "AAECAwQFBgcICQoLDA0ODw"
    )
  }
}
