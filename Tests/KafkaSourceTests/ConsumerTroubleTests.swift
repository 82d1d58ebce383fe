import Testing

@testable import KafkaSource

/// Trouble in one partition, happenings in, actions out.
@Suite struct ConsumerTroubleTests {
  /// Whether the state hands the record out.
  func admit(_ state: inout ConsumerState, _ partition: Int32, _ offset: Int64) -> Bool {
    state.admit(partition, offset)
  }

  func expect(_ is: Bool, _ wanted: Bool, at location: SourceLocation = #_sourceLocation) {
    #expect(`is` == wanted, sourceLocation: location)
  }

  @Test("a start below what retention left is a gap, told by its offsets, and never jumped over")
  func gap() {
    var state = ConsumerStateTests.reading()
    var out: [ConsumerState.Action] = []
    state.offsetRefused(0, into: &out)
    #expect(out == [.askOffsets, .askTopic])
    out = []
    state.heard(0, OffsetRange(low: 100, stable: 200, high: 200), into: &out)
    #expect(out == [], "whether it is the same topic is asked first")
    state.described(ConsumerStateTests.facts(), into: &out)
    #expect(out == [.askOffsets])
    out = []
    state.heard(0, OffsetRange(low: 100, stable: 200, high: 200), into: &out)
    let gap = KafkaError.gap(partition: 0, from: 0, to: 99)
    #expect(out == [.pause(0), .tell(.partitionError(partition: 0, gap))])
    #expect(gap.description.contains("gap: offsets 0..99"))
    expect(admit(&state, 0, 100), false)
    #expect(!state.status()[0].isCaughtUp)
    out = []
    state.heard(0, OffsetRange(low: 100, stable: 300, high: 300), into: &out)
    #expect(out == [], "told once")
    state.resume(0, at: 100, into: &out)
    #expect(out == [.tell(.partitionCleared(partition: 0)), .restart(0, at: 100)])
    expect(admit(&state, 0, 100), true)
  }

  @Test("a topic that ends before our place stops the partition for good; a passing dip of its end does not")
  func truncated() {
    var state = ConsumerStateTests.reading()
    var out: [ConsumerState.Action] = []
    expect(admit(&state, 0, 999), true)
    func hear(_ high: Int64) {
      out = []
      state.heard(0, OffsetRange(low: 0, stable: high, high: high), into: &out)
    }
    state.offsetRefused(0, into: &out)
    state.described(ConsumerStateTests.facts(), into: &out)
    for _ in 1..<ConsumerState.shortHeardMax {
      hear(500)
      #expect(out == [])
    }
    hear(1200)
    #expect(out == [.restart(0, at: 1000)])
    out = []
    state.offsetRefused(0, into: &out)
    state.described(ConsumerStateTests.facts(), into: &out)
    for _ in 1..<ConsumerState.shortHeardMax { hear(500) }
    #expect(out == [], "dips are counted anew")
    hear(700)
    let error = KafkaError.truncated(partition: 0, offsetNext: 1000, end: 700)
    #expect(out == [.pause(0), .tell(.partitionError(partition: 0, error))])
    // What grows past our place since are other records.
    hear(1200)
    #expect(out == [])
    expect(admit(&state, 0, 1000), false)
    state.resume(0, at: 700, into: &out)
    #expect(out == [.tell(.partitionCleared(partition: 0)), .restart(0, at: 700)])
  }

  @Test("records lost and written over stop the partition, although the topic has grown past our place")
  func writtenOver() {
    var state = ConsumerStateTests.reading()
    var out: [ConsumerState.Action] = []
    expect(admit(&state, 0, 999), true)
    state.offsetRefused(0, lostEnd: 800, into: &out)
    state.described(ConsumerStateTests.facts(), into: &out)
    out = []
    state.heard(0, OffsetRange(low: 0, stable: 2000, high: 2000), into: &out)
    let error = KafkaError.truncated(partition: 0, offsetNext: 1000, end: 800)
    #expect(out == [.pause(0), .tell(.partitionError(partition: 0, error))])
    out = []
    state.heard(0, OffsetRange(low: 0, stable: 3000, high: 3000), into: &out)
    #expect(out == [])
  }

  @Test(
    "the end of a truncated log is read from librdkafka's sentence, and from no other",
    arguments: [
      (
        "Partition log truncation detected at offset 1000 (leader epoch 3): broker end offset is 800 (offset leader"
          + " epoch 4). Reset to INVALID.: Local: Partition log truncation detected (broker 1)",
        Int64?.some(800)
      ),
      (
        "No epoch found less or equal to offset 9 (leader epoch 3): broker end offset is -1 (offset leader epoch -1)."
          + " Reset using configured policy.: Local: Partition log truncation detected (broker 1)",
        Int64?.some(0)
      ),
      (
        "fetch failed due to requested offset not available on the broker: Broker: Offset out of range (broker 1)",
        nil
      ),
    ])
  func lostEnd(text: String, end: Int64?) {
    #expect(RecordSorter.lostEnd(text) == end)
  }

  @Test("another id in the client's metadata stops every partition at once, whatever else was wrong with it")
  func idSeen() {
    var state = ConsumerStateTests.reading()
    var out: [ConsumerState.Action] = []
    state.idSeen(ConsumerStateTests.id, into: &out)
    state.idSeen(TopicID(high: 0, low: 0), into: &out)
    #expect(out == [])
    state.offsetRefused(1, into: &out)
    state.described(ConsumerStateTests.facts(), into: &out)
    state.heard(1, OffsetRange(low: 5, stable: 9, high: 9), into: &out)
    out = []
    let error = KafkaError.topicRecreated(
      topic: "steps", old: ConsumerStateTests.id, new: ConsumerStateTests.other)
    state.idSeen(ConsumerStateTests.other, into: &out)
    #expect(
      out == [
        .tell(.sourceError(error)), .pause(0), .tell(.partitionError(partition: 0, error)), .pause(1),
        .tell(.partitionError(partition: 1, error)),
      ])
    expect(admit(&state, 0, 0), false)
    out = []
    state.idSeen(ConsumerStateTests.other, into: &out)
    state.described(ConsumerStateTests.facts(id: ConsumerStateTests.other), into: &out)
    state.resume(0, at: 0, into: &out)
    #expect(out == [])
  }

  @Test("the new id is read from librdkafka's line, and from no other")
  func newID() {
    let line =
      "[thrd:main]: Topic my.topic changed id from AAECAwQFBgcICQoLDA0ODw to _____________________w"
    #expect(ConsumerCallbacks.newID(line) == TopicID(high: .max, low: .max))
    #expect(ConsumerCallbacks.newID("[thrd:main]: Topic a changed id from AAECAwQFBgcICQoLDA0ODw to") == nil)
    #expect(ConsumerCallbacks.newID("[thrd:main]: Topic my.topic [0] Leader 1 Epoch 0") == nil)
  }

  @Test("a damaged batch stops its partition alone, at the offset before it, until someone decides")
  func corrupt() {
    var state = ConsumerStateTests.reading()
    var out: [ConsumerState.Action] = []
    expect(admit(&state, 0, 6), true)
    let error = KafkaError.corrupt(partition: 0, KafkaFailure(code: -199, text: "CRC mismatch"))
    state.partitionFailed(0, error, into: &out)
    #expect(out == [.pause(0), .tell(.partitionError(partition: 0, error))])
    expect(admit(&state, 0, 8), false)
    expect(admit(&state, 1, 8), true)
    out = []
    state.heard(0, OffsetRange(low: 0, stable: 10, high: 10), into: &out)
    #expect(out == [], "knowing the ends heals no damage")
    state.resume(0, at: nil, into: &out)
    #expect(out == [.tell(.partitionCleared(partition: 0)), .restart(0, at: 7)])
  }

  @Test("a partition that stands still with records ahead is fetched anew from its very place")
  func nudges() {
    var state = ConsumerStateTests.reading()
    var out: [ConsumerState.Action] = []
    let range = OffsetRange(low: 0, stable: 9, high: 9)
    expect(admit(&state, 0, 3), true)
    for _ in 0..<ConsumerState.stillHeardMax { state.heard(0, range, into: &out) }
    #expect(out == [])
    func answers() -> Int {
      for count in 1...100 {
        state.heard(0, range, into: &out)
        guard out.contains(.restart(0, at: 4)) else { continue }
        out = []
        return count
      }
      return 0
    }
    // Each time with more patience, so that one slow fetch is not thrown away for ever.
    #expect((0..<7).map { _ in answers() } == [1, 4, 8, 16, 32, 64, 64])
    expect(admit(&state, 0, 3), false)
    expect(admit(&state, 0, 8), true)
    out = []
    for _ in 0..<20 { state.heard(0, range, into: &out) }
    #expect(out == [], "nothing is ahead")
  }

  @Test(
    "a last stable offset that an open transaction holds back is told once, with how long, and its end too")
  func heldBack() {
    var state = ConsumerState(topic: "steps", topicID: nil, addsIncrements: true, heldBackMsMax: 5_000)
    var out: [ConsumerState.Action] = []
    state.described(ConsumerStateTests.facts(1), into: &out)
    state.assigned([(0, 0)], into: &out)
    out = []
    let second: UInt64 = 1_000_000_000
    func hear(_ stable: Int64, _ high: Int64, _ seconds: UInt64) {
      state.endOfPartition(0, stable, into: &out)
      out = []
      state.heard(0, OffsetRange(low: 0, stable: stable, high: high), nowNs: seconds * second, into: &out)
    }
    hear(10, 12, 100)
    hear(10, 20, 104)
    #expect(out == [] && state.status(nowNs: 104 * second)[0].heldBackMs == 4_000)
    // One that moves is no hanging one, however much lies behind it.
    hear(11, 30, 105)
    hear(11, 40, 109)
    #expect(out == [] && state.status(nowNs: 109 * second)[0].heldBack == 29)
    hear(11, 50, 111)
    #expect(out == [.tell(.heldBack(partition: 0, stable: 11, high: 50, heldMs: 6_000))])
    hear(11, 60, 130)
    #expect(out == [] && state.status(nowNs: 131 * second)[0].heldBackMs == 26_000)
    hear(60, 60, 140)
    #expect(out == [.tell(.heldBackEnded(partition: 0))])
    #expect(state.status(nowNs: 150 * second)[0].heldBackMs == 0)
    hear(60, 60, 190)
    #expect(out == [])
  }
}
