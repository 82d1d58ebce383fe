import Testing

@testable import KafkaSource

@Suite struct TopicWatchTests {
  func due(_ watch: inout TopicWatch, _ nowNs: UInt64, _ hasPartitions: Bool) -> [TopicWatch.Question] {
    watch.due(nowNs: nowNs, hasPartitions: hasPartitions)
  }

  func received(_ watch: inout TopicWatch, _ reply: AdminReply, _ nowNs: UInt64) -> TopicWatch.Finding {
    watch.received(reply, nowNs: nowNs)
  }

  @Test("the topic is looked at every second, missing or not, once at a time")
  func topic() {
    var watch = TopicWatch()
    #expect(due(&watch, 0, false) == [.topic])
    #expect(due(&watch, 50_000_000_000, false) == [])
    #expect(
      received(&watch, .topicFailed(.unknownTopic("t")), 51_000_000_000) == .failed(.unknownTopic("t")))
    #expect(due(&watch, 51_900_000_000, false) == [])
    #expect(due(&watch, 52_000_000_000, false) == [.topic])
    let bare = TopicFacts(name: "t", id: nil, partitions: 3)
    #expect(received(&watch, .topic(bare), 53_000_000_000) == .ask(.configuration))
    var whole = bare
    whole.cleanupPolicy = "delete"
    let reply = AdminReply.configuration(cleanupPolicy: "delete", timestampType: nil)
    #expect(received(&watch, reply, 53_000_000_000) == .topic(whole))
    #expect(due(&watch, 53_900_000_000, false) == [])
    #expect(due(&watch, 54_000_000_000, false) == [.topic])
    // A configuration once known does not vanish because one answer failed.
    _ = received(&watch, .topic(bare), 64_000_000_000)
    #expect(
      received(&watch, .configurationFailed(KafkaFailure(code: -185)), 64_000_000_000) == .topic(whole))
  }

  @Test("begin and ends of partitions mean something only together, in whatever order they come")
  func offsets() {
    var watch = TopicWatch()
    _ = due(&watch, 0, false)
    #expect(due(&watch, 1, true) == [.offsets(.low), .offsets(.stable), .offsets(.high)])
    #expect(due(&watch, 2, true) == [])
    #expect(received(&watch, .offsets(.high, [0: 9, 1: 5]), 3) == .nothing)
    #expect(received(&watch, .offsets(.low, [0: 1, 1: 2]), 4) == .nothing)
    let ranges: [Int32: OffsetRange] = [0: OffsetRange(low: 1, stable: 7, high: 9)]
    #expect(received(&watch, .offsets(.stable, [0: 7]), 5) == .ranges(ranges))
    #expect(due(&watch, 6, true) == [])
    watch.hurryOffsets()
    #expect(due(&watch, 7, true).count == 3)
  }
}
