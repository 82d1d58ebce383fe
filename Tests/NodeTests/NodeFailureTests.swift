// What a node makes of a world that fails: disks, ports, folders, settings.

import KafkaSource
import Posix
import QueryProtocol
import RankMySteps
import StepModel
import Synchronization
import Telemetry
import TestSupport
import Testing

@testable import Node

@Suite(.serialized) struct NodeFailureTests {
  /// A disk that can be filled.
  private final class Disk: Sendable {
    private let full = Atomic<Bool>(false)

    var files: Files {
      Files { [self] call, _ in call == .pwrite && full.load(ordering: .acquiring) ? .noSpace : nil }
    }

    func fill() { full.store(true, ordering: .releasing) }
    func free() { full.store(false, ordering: .releasing) }
  }

  @Test("a full disk stops the shard with a dead letter, for that reason, while answers go on")
  func fullDisk() throws {
    let disk = Disk()
    let world = try NodeWorld(partitions: 2, files: disk.files)
    try world.report("ada", 10, 0)
    try world.report("ben", 20, 1)
    #expect(try world.settled().state != .stopped)
    disk.fill()
    try world.produce("{", 0)
    #expect(world.producer.flush())
    let status = try world.status { $0.shards.first?.state == .stopped }
    #expect(status.state == .stopped)
    #expect(status.shards[0].reason.contains("dead letters cannot be written"))
    #expect(status.shards[0].reason.contains("No space"))
    try world.report("ben", 5, 1)
    #expect(world.producer.flush())
    let top = try world.client.top(
      NodeWorld.day, limit: 10,
      options: RequestOptions(
        deadlineMillis: NodeWorld.patienceMillis, atLeast: [AtLeast(partition: 1, offset: 1)]))
    #expect(top.rows.map(\.steps) == [25, 10])
  }

  @Test("a shard that stopped for a missing dead letter does not go on when its source does")
  func staysStopped() throws {
    let brokers = try MockBrokers()
    try brokers.createTopic(NodeWorld.topic, partitions: 1)
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: NodeWorld.topic)
    let disk = Disk()
    let folder = TemporaryFolder()
    let shard = Shard(
      partition: 0, topic: NodeWorld.topic, start: 0,
      settings: try NodeWorld.settings(folder.path, "").cluster(),
      deadLetters: try DeadLetters(folder: folder.path, files: disk.files), observer: Deaf(),
      meters: ShardMeters(Metrics()), clock: .system)
    try shard.start()
    let consumer = try Consumer(
      ConsumerSettings(bootstrapServers: brokers.bootstrapServers, topic: NodeWorld.topic, groupID: "g"))
    /// Produces a record and gives the shard what the consumer makes of it.
    func pass(_ text: String) throws {
      try producer.produce(text, partition: 0, timestampMs: NodeWorld.noon)
      #expect(producer.flush())
      let end = Clock.system.now + .seconds(20)
      var given = 0
      while given == 0, Clock.system.now < end {
        var events: [ConsumerEvent] = []
        consumer.poll(timeoutMs: 100, into: &events)
        for case .batch(let batch) in events {
          given += batch.count
          shard.give(.batch(batch))
        }
      }
      #expect(given == 1)
    }
    disk.fill()
    try pass("{")
    let end = Clock.system.now + .seconds(20)
    while shard.gate.read({ shard.numbers.failure == nil }), Clock.system.now < end {}
    disk.free()
    shard.give(.problem("the source fails"))
    shard.give(.problem(nil))
    try pass(#"{"uuid": "ada", "steps": 1, "timestamp": 1795521600}"#)
    shard.give(.endOfPartition(offsetNext: 2))
    shard.stop()
    #expect(shard.numbers.watermark == 1 && shard.numbers.counted == 0)
    #expect(shard.state == .stopped)
    #expect(shard.status(endOffset: nil).reason.contains("dead letters"))
    var events: [ConsumerEvent] = []
    consumer.close(into: &events)
  }

  private final class Deaf: ShardObserver {
    func shardMoved(_ shard: Shard) {}
    func usersAppeared(_ shard: Shard, _ numbers: Range<Int>) {}
    func shardFailed(_ shard: Shard, _ reason: String) {}
  }

  @Test("a board of a topic that is not here as a whole is never called closed")
  func closed() throws {
    let world = try NodeWorld(partitions: 1)
    try world.report("ada", 3, 0)
    try world.produce("{", 0, at: NodeWorld.noon + 30 * 86_400_000)
    _ = try world.settled()
    #expect(try world.client.top(NodeWorld.day, limit: 1).context.state == .closed)
    world.node.facts.shards.change { $0.partitions = 2 }
    let partial = try world.client.top(NodeWorld.day, limit: 1).context
    #expect(partial.state == .live && partial.missing == [1])
  }

  private func exitCode(
    _ files: Files = Files(), _ change: (inout Settings) -> Void
  ) -> Int32? {
    let folder = TemporaryFolder()
    var settings = NodeWorld.settings(folder.path, "127.0.0.1:1")
    change(&settings)
    do {
      _ = try NodeService(settings, diagnostics: NodeWorld.quiet, files: files)
      return nil
    } catch {
      return error.exitCode
    }
  }

  @Test("what keeps a node from starting has its own exit code")
  func exitCodes() throws {
    let taken = try Socket.listen(HostPort(host: "127.0.0.1", port: 0))
    let port = try Socket.localAddress(taken.number)
    #expect(exitCode { $0.queryListen = port } == 69)
    #expect(exitCode { $0.queryListen = HostPort(host: "192.0.2.1", port: 0) } == 69)
    let denied = Files { call, _ in call == .mkdir ? .accessDenied : nil }
    #expect(exitCode(denied) { $0.dataDir += "/new" } == 77)
    let readOnly = Files { call, _ in call == .open ? .readOnly : nil }
    #expect(exitCode(readOnly) { _ in } == 77)
    #expect(
      exitCode {
        $0.dataDir += "/new"
        $0.dataInit = "strict"
      } == 78)
    let folder = TemporaryFolder()
    _ = try Files().open(folder.path + "/file", .create)
    #expect(exitCode { $0.dataDir = folder.path + "/file" } == 78)
    #expect(exitCode(Files { call, _ in call == .fstat ? .inputOutput : nil }) { _ in } == 74)
    #expect(exitCode { $0.dayZone = "Mars/Olympus" } == 78)
    #expect(exitCode { $0.kafkaOther["no.such.key"] = "1" } == 78)
    #expect(exitCode { $0.dataDir += "/made/on/the/way" } == nil)
  }

  @Test("what a failed write left behind spoils neither reading nor what is written next")
  func failedWrite() throws {
    let folder = TemporaryFolder()
    let path = DeadLetters.path(folder.path)
    let disk = TornDisk()
    let letters = try DeadLetters(folder: folder.path, files: disk.files)
    func write(_ partition: Int32, _ bytes: Int) throws {
      var batch = letters.batch(topic: "steps", partition: partition)
      [UInt8](repeating: 7, count: bytes).withUnsafeBytes {
        batch.add(offset: 1, timestamp: 2, reason: .malformed, payload: $0)
      }
      try letters.append(batch)
    }
    try write(0, 10)
    disk.isTorn.store(true, ordering: .releasing)
    #expect(throws: DeadLetterError.self) { try write(1, 100) }
    #expect(try letters.read(from: 0, limit: 9).letters.map(\.partition) == [0])
    disk.isTorn.store(false, ordering: .releasing)
    try write(2, 10)
    #expect(try letters.read(from: 0, limit: 9).letters.map(\.partition) == [0, 2])
    let again = try DeadLetters(folder: folder.path)
    #expect(again.tornBytes == 0)
    #expect(try again.read(from: 0, limit: 9).letters.map(\.partition) == [0, 2])
    #expect(try Files().read(whole: path).count == again.read(from: 0, limit: 9).next)
  }

  /// A disk that takes the beginning of a write and then is full.
  private final class TornDisk: Sendable {
    let isTorn = Atomic<Bool>(false)

    var files: Files {
      Files { [self] call, path in
        guard call == .pwrite, isTorn.load(ordering: .acquiring) else { return nil }
        let half = [UInt8](repeating: 0xEE, count: 900)
        _ = half.withUnsafeBytes { bytes in
          try? Files().open(path, .append).append(bytes)
        }
        return .noSpace
      }
    }
  }
}
