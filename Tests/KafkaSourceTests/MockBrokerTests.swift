import Glibc
import KafkaSource
import Posix
import Testing

/// End to end against brokers inside the process.
@Suite(.serialized) struct MockBrokerTests {
  /// What a run of polls saw.
  struct Seen {
    var records: [Int32: [(offset: Int64, timestampMs: Int64, key: String?, payload: String?)]] = [:]
    var events: [ConsumerEvent] = []
    var ends: [Int32: Int64] = [:]
    var errors: [KafkaError] = []
    var lines: [String] = []

    mutating func take(_ new: [ConsumerEvent]) {
      for event in new {
        switch event {
        case .batch(let batch):
          for i in 0..<batch.count {
            records[batch.partition, default: []].append(
              (
                batch.offset(i), batch.timestampMs(i),
                batch.key(i).map { String(decoding: $0, as: UTF8.self) },
                batch.payload(i).map { String(decoding: $0, as: UTF8.self) }
              ))
          }
          batch.release()
        case .endOfPartition(let partition, let offset):
          ends[partition] = offset
          events.append(event)
        case .partitionError(_, let error), .sourceError(let error), .fatal(let error):
          errors.append(error)
          events.append(event)
        case .log(_, let line): lines.append(line)
        case .topic, .assigned, .revoked, .partitionCleared, .sourceCleared, .partitionsGrew, .groupOffset,
          .heldBack, .heldBackEnded:
          events.append(event)
        }
      }
    }
  }

  /// Polls until the condition holds; a broken promise fails after a while instead of hanging.
  static func poll(
    _ consumer: Consumer, _ seen: inout Seen, until done: (Seen) -> Bool
  ) -> Bool {
    let end = ContinuousClock.now + .seconds(12)
    while !done(seen) {
      guard ContinuousClock.now < end else { return false }
      var events: [ConsumerEvent] = []
      consumer.poll(timeoutMs: 100, into: &events)
      seen.take(events)
    }
    return true
  }

  static func close(_ consumer: Consumer, _ seen: inout Seen) -> Bool {
    var events: [ConsumerEvent] = []
    let left = consumer.close(into: &events)
    seen.take(events)
    return left
  }

  @Test("what is produced is consumed: every record once, by partition, in order, nulls and timestamps kept")
  func endToEnd() throws {
    let brokers = try MockBrokers(brokers: 1)
    try brokers.createTopic("steps", partitions: 3)
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: "steps")
    for i in 0..<3_000 {
      try producer.produce("value \(i)", key: "user \(i % 50)", timestampMs: 1_700_000_000_000 + Int64(i))
    }
    try producer.produce(nil, partition: 1, timestampMs: 7)
    try producer.produce("", partition: 1, timestampMs: 8)
    #expect(producer.flush())
    #expect(producer.counts.produced == 3_002 && producer.counts.failed == 0)

    let consumer = try Consumer(
      ConsumerSettings(
        bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g", batchCountMax: 700))
    var seen = Seen()
    try #require(Self.poll(consumer, &seen) { $0.ends.count == 3 })
    #expect(seen.records.values.map(\.count).reduce(0, +) == 3_002)
    var users: [String: Int32] = [:]
    for (partition, records) in seen.records {
      #expect(records.map(\.offset) == Array(0..<Int64(records.count)))
      #expect(seen.ends[partition] == Int64(records.count))
      for record in records where record.key != nil {
        let user = record.key ?? ""
        #expect(users[user, default: partition] == partition, "a user keeps to one partition")
        users[user] = partition
        let number = record.payload.flatMap { Int64($0.dropFirst(6)) }
        #expect(number.map { $0 + 1_700_000_000_000 } == record.timestampMs)
      }
    }
    let last = seen.records[1]?.suffix(2) ?? []
    #expect(last.map(\.payload) == [nil, ""])
    #expect(last.map(\.timestampMs) == [7, 8])
    try #require(Self.poll(consumer, &seen) { _ in consumer.status.allSatisfy(\.isCaughtUp) })
    #expect(consumer.status.count == 3)
    #expect(Self.close(consumer, &seen))
    #expect(seen.events.last == .revoked([0, 1, 2], lost: false))
    #expect(seen.errors.isEmpty)
  }

  @Test("reading starts where the caller says, partition by partition")
  func startOffsets() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 2)
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: "steps")
    for i in 0..<200 { try producer.produce("\(i)", partition: Int32(i % 2)) }
    #expect(producer.flush())
    let consumer = try Consumer(
      ConsumerSettings(bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g") {
        $0 == 0 ? 60 : 100
      })
    var seen = Seen()
    try #require(Self.poll(consumer, &seen) { $0.ends.count == 2 })
    #expect(seen.records[0]?.map(\.offset) == Array(60..<100))
    #expect(seen.records[1] == nil)
    #expect(seen.ends == [0: 100, 1: 100])
    // New records follow, and nothing comes twice.
    try producer.produce("more", partition: 1)
    #expect(producer.flush())
    try #require(Self.poll(consumer, &seen) { $0.ends[1] == 101 })
    #expect(seen.records[1]?.map(\.offset) == [100])
    #expect(Self.close(consumer, &seen))
  }

  @Test("a partition without a start waits unread, then begins where it is told to, others meanwhile go on")
  func waits() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 2)
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: "steps")
    for i in 0..<400 { try producer.produce("\(i)", partition: Int32(i % 2)) }
    #expect(producer.flush())
    let consumer = try Consumer(
      ConsumerSettings(bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g") {
        $0 == 0 ? nil : 0
      })
    var seen = Seen()
    try #require(Self.poll(consumer, &seen) { $0.ends[1] == 200 })
    let heard = consumer.endsHeard
    try #require(Self.poll(consumer, &seen) { _ in consumer.endsHeard >= heard + 2 })
    #expect(seen.records[0] == nil && seen.ends[0] == nil && seen.errors.isEmpty)
    #expect(consumer.status[0].state == "waiting" && consumer.status[0].lag == nil)
    #expect(consumer.status[0].range?.high == 200 && !consumer.status[0].isCaughtUp)
    consumer.resume(0, at: 150)
    try #require(Self.poll(consumer, &seen) { $0.ends[0] == 200 })
    #expect(seen.records[0]?.map(\.offset) == Array(150..<200))
    #expect(consumer.status.allSatisfy { $0.isCaughtUp })
    #expect(Self.close(consumer, &seen))
  }

  @Test("a partition told to begin outside its topic stops with the reason, as one whose offset is refused")
  func waitsThenRefused() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 1)
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: "steps")
    for i in 0..<10 { try producer.produce("\(i)", partition: 0) }
    #expect(producer.flush())
    let consumer = try Consumer(
      ConsumerSettings(bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g") { _ in nil })
    var seen = Seen()
    try #require(Self.poll(consumer, &seen) { _ in consumer.status.first?.range != nil })
    #expect(seen.errors.isEmpty)
    consumer.resume(0, at: 500)
    try #require(Self.poll(consumer, &seen) { !$0.errors.isEmpty })
    #expect(seen.errors == [.truncated(partition: 0, offsetNext: 500, end: 10)])
    consumer.resume(0, at: 4)
    try #require(Self.poll(consumer, &seen) { $0.ends[0] == 10 })
    #expect(seen.records[0]?.map(\.offset) == Array(4..<10))
    #expect(Self.close(consumer, &seen))
  }

  @Test(
    "offsets are committed with our mark, and only those of partitions that are ours")
  func commits() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 2)
    let settings = ConsumerSettings(
      bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g")
    func told(_ seen: Seen) -> [GroupOffset] {
      seen.events.compactMap { if case .groupOffset(let stored) = $0 { stored } else { nil } }
    }
    let first = try Consumer(settings)
    var seen = Seen()
    try #require(Self.poll(first, &seen) { told($0).count == 2 })
    #expect(told(seen).allSatisfy { $0.offset == nil && !$0.isOurs && !$0.isForeign })
    // In the running case offsets go out by themselves; what is not ours is dropped.
    first.commit([(0, 7), (1, 9), (5, 3)])
    let admin = try Admin(bootstrapServers: brokers.bootstrapServers)
    func stored() -> [GroupOffset] { (try? admin.groupOffsets("g", "steps", partitions: 2)) ?? [] }
    try #require(Self.poll(first, &seen) { _ in stored().last?.offset == 9 })
    #expect(
      stored() == [
        GroupOffset(partition: 0, offset: 7, isOurs: true),
        GroupOffset(partition: 1, offset: 9, isOurs: true),
      ])
    first.commit([(0, 8)], synchronously: true)
    #expect(stored().first?.offset == 8)
    #expect(Self.close(first, &seen))
    first.commit([(0, 99)], synchronously: true)
    #expect(stored().first?.offset == 8, "nothing is committed of partitions given up")
  }

  @Test("a paused partition rests while others go on, and loses nothing")
  func pauses() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 2)
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: "steps")
    let consumer = try Consumer(
      ConsumerSettings(
        bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g", batchCountMax: 100))
    var seen = Seen()
    for i in 0..<2_000 { try producer.produce("\(i)", partition: Int32(i % 2)) }
    #expect(producer.flush())
    try #require(Self.poll(consumer, &seen) { !($0.records[0] ?? []).isEmpty })
    consumer.pause(0)
    let rest = seen.records[0]?.count
    try #require(Self.poll(consumer, &seen) { $0.ends[1] == 1_000 })
    #expect(seen.records[0]?.count == rest)
    consumer.resume(0)
    try #require(Self.poll(consumer, &seen) { $0.ends[0] == 1_000 })
    #expect(seen.records[0]?.map(\.offset) == Array(0..<1_000))
    #expect(Self.close(consumer, &seen))
  }

  @Test("two members share the partitions, and a record reaches exactly one of them")
  func rebalances() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 4)
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: "steps")
    func settings() -> ConsumerSettings {
      ConsumerSettings(
        bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g",
        properties: [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "200")])
    }
    let first = try Consumer(settings())
    var seenFirst = Seen()
    try #require(Self.poll(first, &seenFirst) { _ in first.status.count == 4 })
    let second = try Consumer(settings())
    var seenSecond = Seen()
    /// Polls both in turn, as two nodes would.
    func pollBoth(_ until: (Seen, Seen) -> Bool) -> Bool {
      let end = ContinuousClock.now + .seconds(20)
      while !until(seenFirst, seenSecond) {
        guard ContinuousClock.now < end else { return false }
        var events: [ConsumerEvent] = []
        first.poll(timeoutMs: 20, into: &events)
        seenFirst.take(events)
        events = []
        second.poll(timeoutMs: 20, into: &events)
        seenSecond.take(events)
      }
      return true
    }
    try #require(pollBoth { _, _ in first.status.count == 2 && second.status.count == 2 })
    for i in 0..<400 { try producer.produce("\(i)", partition: Int32(i % 4)) }
    #expect(producer.flush())
    let mine = Set(first.status.map(\.partition))
    let theirs = Set(second.status.map(\.partition))
    try #require(
      pollBoth { one, two in
        mine.allSatisfy { one.ends[$0] == 100 } && theirs.allSatisfy { two.ends[$0] == 100 }
      })
    #expect(mine.union(theirs) == [0, 1, 2, 3])
    #expect(Set(seenFirst.records.keys) == mine && Set(seenSecond.records.keys) == theirs)
    // The first leaves; the second takes over and reads the rest from where it is told: the start.
    #expect(Self.close(first, &seenFirst))
    try #require(Self.poll(second, &seenSecond) { seen in (0..<4).allSatisfy { seen.ends[$0] == 100 } })
    for partition in 0..<4 {
      #expect(seenSecond.records[Int32(partition)]?.map(\.offset) == Array(0..<100))
    }
    #expect(Self.close(second, &seenSecond))
  }

  @Test("a topic that does not exist is waited for, in clear words, and read once it is there")
  func unknownTopic() throws {
    let brokers = try MockBrokers()
    let consumer = try Consumer(
      ConsumerSettings(bootstrapServers: brokers.bootstrapServers, topic: "later", groupID: "g"))
    var seen = Seen()
    try #require(Self.poll(consumer, &seen) { _ in consumer.sourceError != nil || consumer.topic != nil })
    try? brokers.createTopic("later", partitions: 1)
    try #require(Self.poll(consumer, &seen) { $0.ends[0] == 0 })
    #expect(consumer.sourceError == nil)
    #expect(Self.close(consumer, &seen))
  }

  @Test("brokers that are away are an error that is kept, and over when they come back")
  func brokersAway() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 1)
    try brokers.setBroker(1, isUp: false)
    let consumer = try Consumer(
      ConsumerSettings(bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g"))
    var seen = Seen()
    try #require(Self.poll(consumer, &seen) { _ in consumer.sourceError != nil })
    #expect(consumer.topic == nil)
    try brokers.setBroker(1, isUp: true)
    try #require(Self.poll(consumer, &seen) { $0.ends[0] == 0 })
    #expect(consumer.sourceError == nil)
    #expect(seen.events.contains(.sourceCleared))
    #expect(Self.close(consumer, &seen))
  }

  @Test("threads that librdkafka starts for a consumer yield to the process's others")
  func threadsYield() throws {
    let brokers = try MockBrokers()
    let consumer = try Consumer(
      ConsumerSettings(bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g"))
    // Field 2 of a thread's `stat` is its name in parentheses, 19 its nice value.
    func nice(_ thread: String) -> (name: Substring, nice: Int)? {
      guard let bytes = try? Files().read(whole: "/proc/self/task/\(thread)/stat") else { return nil }
      let parts = String(decoding: bytes, as: UTF8.self).split { $0 == "(" || $0 == ")" }
      guard parts.count == 3, let nice = Int(parts[2].split(separator: " ")[16]) else { return nil }
      return (parts[1], nice)
    }
    let own = nice("\(getpid())")?.nice ?? 0
    let threads = try Files().names(in: "/proc/self/task").compactMap { nice($0) }
    for name in ["rdk:main", "rdk:broker-1"] {
      #expect(threads.contains { $0.name == name && $0.nice == min(own + 10, 19) }, "\(name) of \(threads)")
    }
    var seen = Seen()
    #expect(Self.close(consumer, &seen))
  }

  @Test("batches outlive their consumer, and are released on another thread")
  func batchesOutlive() async throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 1)
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: "steps")
    for i in 0..<100 { try producer.produce("value \(i)", partition: 0) }
    #expect(producer.flush())
    var kept: [PartitionBatch] = []
    do {
      let consumer = try Consumer(
        ConsumerSettings(bootstrapServers: brokers.bootstrapServers, topic: "steps", groupID: "g"))
      let end = ContinuousClock.now + .seconds(12)
      while kept.isEmpty, ContinuousClock.now < end {
        var events: [ConsumerEvent] = []
        consumer.poll(timeoutMs: 100, into: &events)
        for case .batch(let batch) in events { kept.append(batch) }
      }
      var events: [ConsumerEvent] = []
      consumer.close(into: &events)
    }
    let batches = kept
    kept = []
    let read = await Task.detached {
      var texts: [String] = []
      for batch in batches {
        var records = [Record](
          repeating: Record(payload: nil, payloadBytes: 0, offset: 0, timestampMs: 0), count: batch.count)
        records.withUnsafeMutableBufferPointer {
          if let base = $0.baseAddress { batch.read(0..<batch.count, into: base) }
        }
        for record in records {
          texts.append(
            String(
              decoding: UnsafeRawBufferPointer(start: record.payload, count: record.payloadBytes),
              as: UTF8.self))
        }
        batch.release()
        #expect(batch.count == 0)
      }
      return texts
    }.value
    #expect(read.first == "value 0")
    #expect(read == (0..<read.count).map { "value \($0)" })
  }

  @Test("transactions begin, commit and abort")
  func transactions() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 1)
    let producer = try Producer(
      bootstrapServers: brokers.bootstrapServers, topic: "steps", transactionalID: "t")
    try producer.begin()
    try producer.produce("kept", partition: 0)
    try producer.commit()
    try producer.begin()
    try producer.produce("void", partition: 0)
    try producer.abort()
    #expect(producer.counts.produced >= 1)
  }

  @Test("a topic's facts and offsets can be asked for")
  func admin() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 2)
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: "steps")
    for i in 0..<10 { try producer.produce("\(i)", partition: 1) }
    #expect(producer.flush())
    let admin = try Admin(bootstrapServers: brokers.bootstrapServers)
    let facts = try admin.facts("steps")
    #expect(facts.partitions == 2)
    let offsets = try admin.offsets(facts)
    #expect(offsets[0] == OffsetRange(low: 0, stable: 0, high: 0))
    #expect(offsets[1] == OffsetRange(low: 0, stable: 10, high: 10))
  }
}
