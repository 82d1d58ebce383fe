import Glibc
import KafkaSource
import Testing

/// Members that come and go on a real broker: `Ops/stack up kafka`, then RMS_KAFKA_BOOTSTRAP names it.
private let bootstrap = getenv("RMS_KAFKA_BOOTSTRAP").map { String(cString: $0) }
private let isRequired = getenv("RMS_REQUIRE_STACK").map { String(cString: $0) } == "1"
private let roundCount = getenv("RMS_MEMBER_ROUNDS").flatMap { Int(String(cString: $0)) } ?? 1

@Suite(.serialized, .enabled(if: bootstrap != nil || isRequired, "RMS_KAFKA_BOOTSTRAP names no broker"))
struct MembersTests {
  /// How far each partition was taken, by whichever member: where the next owner begins.
  final class Marks: @unchecked Sendable {
    // Unchecked: one thread polls all members in turn.
    var next: [Int64]

    init(_ partitions: Int32) { next = Array(repeating: 0, count: Int(partitions)) }
  }

  /// A member, and what it does with what it is told: a node in small.
  final class Member {
    let consumer: Consumer
    let marks: Marks
    var waiting: Set<Int32> = []

    init(_ brokers: String, _ topic: String, _ marks: Marks, restores: Bool) throws {
      self.marks = marks
      consumer = try Consumer(
        ConsumerSettings(
          bootstrapServers: brokers, topic: topic, groupID: topic,
          properties: [("heartbeat.interval.ms", "200"), ("session.timeout.ms", "6000")]
        ) { restores ? nil : marks.next[Int($0)] })
    }

    func poll() {
      var events: [ConsumerEvent] = []
      consumer.poll(timeoutMs: 5, into: &events)
      take(events)
      // What was restored is read from where the shard stands.
      for partition in waiting { consumer.resume(partition, at: marks.next[Int(partition)]) }
      waiting = []
      consumer.commit(consumer.status.map { ($0.partition, marks.next[Int($0.partition)]) })
    }

    func take(_ events: [ConsumerEvent]) {
      for event in events {
        switch event {
        case .batch(let batch):
          let index = Int(batch.partition)
          #expect(batch.offsetFirst == marks.next[index], "partition \(batch.partition)")
          for i in 0..<batch.count { #expect(batch.offset(i) == batch.offsetFirst + Int64(i)) }
          marks.next[index] = batch.offsetNext
          batch.release()
        case .assigned(let partitions): waiting.formUnion(partitions)
        case .revoked(let partitions, _): waiting.subtract(partitions)
        case .partitionError(_, let error), .sourceError(let error), .fatal(let error):
          Issue.record("\(error)")
        case .endOfPartition, .topic, .partitionCleared, .sourceCleared, .partitionsGrew, .groupOffset,
          .heldBack,
          .heldBackEnded, .log:
          continue
        }
      }
    }

    func close() {
      var events: [ConsumerEvent] = []
      #expect(consumer.close(into: &events))
      take(events)
    }
  }

  @Test(
    "members come and go under load and commit: each record reaches exactly one of them, exactly once",
    arguments: [false, true])
  func comeAndGo(restores: Bool) throws {
    let brokers = try #require(bootstrap, "RMS_REQUIRE_STACK=1, but RMS_KAFKA_BOOTSTRAP names no broker")
    let topic = "swift-members-\(restores)-\(getpid())"
    let admin = try Admin(bootstrapServers: brokers)
    let partitions: Int32 = 6
    try admin.createTopic(topic, partitions: partitions)
    let producer = try Producer(bootstrapServers: brokers, topic: topic)
    let marks = Marks(partitions)
    var members = [try Member(brokers, topic, marks, restores: restores)]
    var sent = Array(repeating: Int64(0), count: Int(partitions))
    var number = 0
    func pollAll(_ what: String, until done: () -> Bool) throws {
      let end = ContinuousClock.now + .seconds(40)
      while !done() {
        try #require(
          ContinuousClock.now < end, "\(what): \(marks.next) of \(sent), \(members.map(\.consumer.status))")
        for _ in 0..<20 {
          let partition = number % Int(partitions)
          try producer.produce("value \(number)", partition: Int32(partition))
          sent[partition] += 1
          number += 1
        }
        producer.serve()
        for member in members { member.poll() }
      }
    }
    func isShared() -> Bool {
      members.allSatisfy { !$0.consumer.status.isEmpty }
        && members.map(\.consumer.status.count).reduce(0, +) == Int(partitions)
    }
    for round in 0..<roundCount {
      while members.count < 3 { members.append(try Member(brokers, topic, marks, restores: restores)) }
      try pollAll("round \(round): shared among 3") { isShared() }
      let goal = number + 2_000
      try pollAll("round \(round): load") { number >= goal }
      members.remove(at: round % 3).close()
      try pollAll("round \(round): shared among 2") { isShared() }
    }
    #expect(producer.flush())
    let end = ContinuousClock.now + .seconds(40)
    while marks.next != sent {
      try #require(ContinuousClock.now < end, "\(marks.next) of \(sent)")
      for member in members { member.poll() }
    }
    for member in members { member.close() }
    let stored = try admin.groupOffsets(topic, topic, partitions: partitions)
    #expect(stored.allSatisfy { !$0.isForeign }, "\(stored)")
    try admin.deleteTopic(topic)
  }
}
