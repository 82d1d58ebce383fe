import Glibc
import Testing

@testable import KafkaSource

/// Against a real broker: `Ops/stack up kafka`, then RMS_KAFKA_BOOTSTRAP names it (and RMS_KAFKA_LOG its log folder).
private let bootstrap = getenv("RMS_KAFKA_BOOTSTRAP").map { String(cString: $0) }
private let logFolder = getenv("RMS_KAFKA_LOG").map { String(cString: $0) }
private let isRequired = getenv("RMS_REQUIRE_STACK").map { String(cString: $0) } == "1"

@Suite(.serialized, .enabled(if: bootstrap != nil || isRequired, "RMS_KAFKA_BOOTSTRAP names no broker"))
struct RealKafkaTests {
  typealias Seen = MockBrokerTests.Seen

  let brokers: String
  let admin: Admin

  init() throws {
    brokers = try #require(bootstrap, "RMS_REQUIRE_STACK=1, but RMS_KAFKA_BOOTSTRAP names no broker")
    admin = try Admin(bootstrapServers: brokers)
  }

  /// A topic of this run alone.
  func topic(_ name: String, partitions: Int32 = 1, _ properties: [(key: String, value: String)] = []) throws
    -> String
  {
    let topic = "swift-\(name)-\(getpid())"
    try admin.createTopic(topic, partitions: partitions, properties: properties)
    return topic
  }

  func consumer(_ topic: String, addsIncrements: Bool = true, start: Int64 = 0) throws -> Consumer {
    try Consumer(
      ConsumerSettings(
        bootstrapServers: brokers, topic: topic, groupID: "swift-\(topic)", addsIncrements: addsIncrements
      ) { _ in start })
  }

  @Test("a compacted topic is refused for increments before a record is read, and read for totals")
  func compacted() throws {
    let name = try topic("compact", [("cleanup.policy", "compact")])
    let facts = try admin.facts(name)
    #expect(facts.cleanupPolicy == "compact" && facts.isCompacted)
    #expect(facts.timestampType == "CreateTime")
    #expect(facts.id?.description.utf8.count == 22)
    let refused = try consumer(name)
    var seen = Seen()
    try #require(MockBrokerTests.poll(refused, &seen) { !$0.errors.isEmpty })
    #expect(seen.errors == [.compacted(topic: name)])
    #expect(refused.status.isEmpty)
    #expect(MockBrokerTests.close(refused, &seen))
    let read = try consumer(name, addsIncrements: false)
    try #require(MockBrokerTests.poll(read, &seen) { $0.ends[0] == 0 })
    #expect(MockBrokerTests.close(read, &seen))
    try admin.deleteTopic(name)
  }

  @Test("a topic that ends in aborted records and a control record is caught up, with no lag")
  func controlRecord() throws {
    let name = try topic("control")
    let producer = try Producer(bootstrapServers: brokers, topic: name, transactionalID: name)
    for aborted in [false, true, false, true] {
      try producer.begin()
      for i in 0..<10 { try producer.produce("\(aborted) \(i)", partition: 0) }
      producer.flush()
      if aborted { try producer.abort() } else { try producer.commit() }
    }
    let reader = try consumer(name)
    var seen = Seen()
    try #require(MockBrokerTests.poll(reader, &seen) { $0.ends[0] == 44 && reader.status[0].isCaughtUp })
    #expect(seen.records[0]?.count == 20)
    #expect(seen.records[0]?.allSatisfy { $0.payload?.hasPrefix("false") ?? false } ?? false)
    #expect(reader.status[0].offsetNext == 44)
    // An open transaction: high watermark moves, the stable end does not, and nothing is shown.
    try producer.begin()
    try producer.produce("open", partition: 0)
    producer.flush()
    try #require(MockBrokerTests.poll(reader, &seen) { _ in reader.status[0].range?.high == 45 })
    #expect(reader.status[0].range?.stable == 44 && reader.status[0].isCaughtUp)
    try producer.commit()
    try #require(
      MockBrokerTests.poll(reader, &seen) { ($0.records[0]?.count ?? 0) == 21 && $0.ends[0] == 46 })
    #expect(MockBrokerTests.close(reader, &seen))
    try admin.deleteTopic(name)
  }

  @Test(
    "records deleted before they were read are a gap by its offsets; going on after it is the operator's word"
  )
  func gap() throws {
    let name = try topic("gap")
    let producer = try Producer(bootstrapServers: brokers, topic: name)
    for i in 0..<100 { try producer.produce("\(i)", partition: 0) }
    #expect(producer.flush())
    try admin.deleteRecords(name, before: [0: 40])
    let reader = try consumer(name)
    var seen = Seen()
    try #require(MockBrokerTests.poll(reader, &seen) { !$0.errors.isEmpty })
    #expect(seen.errors == [.gap(partition: 0, from: 0, to: 39)])
    #expect(seen.records[0] == nil)
    reader.resume(0, at: 40)
    try #require(MockBrokerTests.poll(reader, &seen) { $0.ends[0] == 100 })
    #expect(seen.records[0]?.map(\.offset) == Array(40..<100))
    #expect(seen.events.contains(.partitionCleared(partition: 0)))
    #expect(MockBrokerTests.close(reader, &seen))
    try admin.deleteTopic(name)
  }

  @Test(
    "offsets that an operator moved are told as not ours, and reading begins where the caller says all the same"
  )
  func movedOffsets() throws {
    let name = try topic("moved")
    let producer = try Producer(bootstrapServers: brokers, topic: name)
    for i in 0..<100 { try producer.produce("\(i)", partition: 0) }
    #expect(producer.flush())
    // Nothing stored at first; what we stored and nobody touched at last.
    for (round, moved) in [Int64?.none, 0, 70, 100, nil].enumerated() {
      if let moved { try admin.setGroupOffsets("swift-\(name)", name, [0: moved]) }
      let reader = try consumer(name, start: 40)
      var seen = Seen()
      try #require(MockBrokerTests.poll(reader, &seen) { $0.ends[0] == 100 })
      #expect(seen.records[0]?.map(\.offset) == Array(40..<100))
      reader.commit([(0, 100)])
      let ours = GroupOffset(partition: 0, offset: 100, isOurs: true)
      let found = round < 4 ? GroupOffset(partition: 0, offset: moved, isOurs: false) : ours
      try #require(
        MockBrokerTests.poll(reader, &seen) { $0.events.contains(.groupOffset(found)) }, "round \(round)")
      try #require(
        MockBrokerTests.poll(reader, &seen) { _ in
          (try? admin.groupOffsets("swift-\(name)", name, partitions: 1)) == [ours]
        })
      #expect(MockBrokerTests.close(reader, &seen))
    }
    try admin.deleteTopic(name)
  }

  @Test("a topic that ends before our place stops the partition instead of starting over")
  func truncated() throws {
    let name = try topic("short")
    let producer = try Producer(bootstrapServers: brokers, topic: name)
    for i in 0..<10 { try producer.produce("\(i)", partition: 0) }
    #expect(producer.flush())
    let reader = try consumer(name, start: 500)
    var seen = Seen()
    try #require(MockBrokerTests.poll(reader, &seen) { !$0.errors.isEmpty })
    #expect(seen.errors == [.truncated(partition: 0, offsetNext: 500, end: 10)])
    #expect(MockBrokerTests.close(reader, &seen))
    try admin.deleteTopic(name)
  }

  @Test(
    "a recreated topic stops its partitions, both ids named, and none of its records is handed out, however fast it comes",
    arguments: [0, 3, 10], [2, 500])
  func recreated(before: Int, after: Int) throws {
    let name = try topic("again-\(before)-\(after)")
    let producer = try Producer(bootstrapServers: brokers, topic: name)
    for i in 0..<before { try producer.produce("\(i)", partition: 0) }
    #expect(producer.flush())
    let reader = try Consumer(
      ConsumerSettings(
        bootstrapServers: brokers, topic: name, groupID: "swift-\(name)",
        properties: [("debug", "metadata")]))
    var seen = Seen()
    try #require(MockBrokerTests.poll(reader, &seen) { $0.ends[0] == Int64(before) })
    let old = try #require(try admin.facts(name).id)
    let change = Thread {
      let admin = try Admin(bootstrapServers: brokers)
      try admin.deleteTopic(name)
      let end = ContinuousClock.now + .seconds(20)
      while (try? admin.createTopic(name, partitions: 1)) == nil, ContinuousClock.now < end {}
      let later = try Producer(bootstrapServers: brokers, topic: name)
      for i in 0..<after { try later.produce("new \(i)", partition: 0) }
      #expect(later.flush())
    }
    func isStopped(_ seen: Seen) -> Bool {
      seen.errors.contains { if case .topicRecreated = $0 { true } else { false } }
    }
    try #require(MockBrokerTests.poll(reader, &seen) { isStopped($0) })
    change.join()
    // Another client than the one that knows the old id: librdkafka up to 2.9 must not be asked for both.
    let new = try #require(try Admin(bootstrapServers: brokers).facts(name).id)
    #expect(old != new)
    let error = KafkaError.topicRecreated(topic: name, old: old, new: new)
    #expect(seen.events.contains(.partitionError(partition: 0, error)))
    let heard = reader.endsHeard
    var polls = 0
    let isWatched = MockBrokerTests.poll(reader, &seen) { _ in
      polls += 1
      return polls > 20
    }
    try #require(isWatched)
    #expect(reader.endsHeard == heard, "a client that knows both ids was asked once more")
    #expect((seen.records[0] ?? []).allSatisfy { $0.payload?.hasPrefix("new") == false })
    #expect((seen.records[0] ?? []).count == before)
    // The client itself says so as well, in order with the records.
    let changed = try #require(seen.lines.last { $0.contains("changed id from") })
    #expect(ConsumerCallbacks.newID(changed) == new, "\(changed)")
    #expect(MockBrokerTests.close(reader, &seen))
    try admin.deleteTopic(name)
  }

  @Test("a batch damaged on the broker's disk is not handed out; its partition stops there, others go on")
  func corrupt() throws {
    guard let logFolder else { return }
    let name = try topic("crc", partitions: 2)
    let producer = try Producer(
      bootstrapServers: brokers, topic: name, properties: [("compression.codec", "none")])
    for round in 0..<3 {
      for i in 0..<10 { try producer.produce("round \(round) record \(i)", partition: 0) }
      #expect(producer.flush())
    }
    for i in 0..<10 { try producer.produce("fine \(i)", partition: 1) }
    #expect(producer.flush())
    let path = "\(logFolder)/\(name)-0/00000000000000000000.log"
    let file = try #require(fopen(path, "r+"))
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = fread(&bytes, 1, bytes.count, file)
    let needle = Array("round 1 record 4".utf8)
    let place = try #require(
      (0..<count - needle.count).first { bytes[$0..<$0 + needle.count].elementsEqual(needle) })
    fseek(file, place, SEEK_SET)
    fputc(Int32(UInt8(ascii: "R")), file)
    fclose(file)
    let reader = try consumer(name)
    var seen = Seen()
    try #require(MockBrokerTests.poll(reader, &seen) { !$0.errors.isEmpty && $0.ends[1] == 10 })
    guard case .corrupt(0, _)? = seen.errors.first else {
      Issue.record("\(seen.errors)")
      return
    }
    #expect(seen.records[0]?.map(\.offset) == Array(0..<10))
    #expect(reader.status[0].offsetNext == 10)
    #expect(MockBrokerTests.close(reader, &seen))
    try admin.deleteTopic(name)
  }
}

/// A thread with a body that may fail, which fails the test.
private final class Thread {
  private var thread = pthread_t()

  init(_ body: @escaping @Sendable () throws -> Void) {
    let held = Unmanaged.passRetained(Body(run: body))
    let error = pthread_create(
      &thread, nil,
      { raw in
        guard let raw else { return nil }
        let body = Unmanaged<Body>.fromOpaque(raw).takeRetainedValue()
        do { try body.run() } catch { Issue.record(error) }
        return nil
      }, held.toOpaque())
    precondition(error == 0, "no thread: \(error)")
  }

  func join() { pthread_join(thread, nil) }

  private final class Body {
    let run: @Sendable () throws -> Void
    init(run: @escaping @Sendable () throws -> Void) { self.run = run }
  }
}
