// From the Kafka consumer to the shards: one thread polls, makes a shard when a partition is assigned, hands each its
// batches in order, and keeps what the brokers say about ends and errors.

import KafkaSource
import Posix
import StepModel
import Synchronization
import Telemetry

/// The shards of a node and what is known about their source. Any thread may read.
final class ShardSet: Sendable {
  /// A view of the source, copied whole.
  struct Source {
    /// Shards by partition, ascending.
    var shards: [Shard] = []
    /// Partitions of the topic; 0 until the topic was found.
    var partitions: Int32 = 0
    /// Next offset the broker will give, by partition, as last heard of.
    var ends: [Int32: Int64] = [:]
    /// How often the brokers were asked for ends and answered, for those who wait for fresh ones.
    var endsHeard: UInt64 = 0
    /// What is wrong with the source as a whole.
    var problem: String?
    var topicID: String?
  }

  private let source = Mutex(Source())

  var now: Source { source.withLock { $0 } }

  func change(_ body: (inout Source) -> Void) { source.withLock { body(&$0) } }
}

/// The thread that reads Kafka.
final class Ingest: @unchecked Sendable {
  // Unchecked: everything that changes belongs to the polling thread; `stopping` is atomic.
  private let consumer: Consumer
  private let shards: ShardSet
  private let makeShard: (Int32) throws(SystemError) -> Shard
  private let diagnostics: Diagnostics
  private let stopping = Atomic<Bool>(false)
  private let onFatal: @Sendable (KafkaError) -> Void
  private let rebalances: Counter
  private var thread: Thread?
  private var byPartition: [Int32: Shard] = [:]
  private var endsHeard: UInt64 = 0

  /// - Parameters:
  ///   - settings: how to read.
  ///   - shards: where shards are shown.
  ///   - diagnostics: where events are told.
  ///   - rebalances: counts partitions coming and going.
  ///   - makeShard: makes a shard that is not started yet.
  ///   - onFatal: called once, on the polling thread, when the client is of no use any more.
  /// - Throws: `KafkaError.setting`.
  init(
    _ settings: ConsumerSettings, shards: ShardSet, diagnostics: Diagnostics, rebalances: Counter,
    makeShard: @escaping (Int32) throws(SystemError) -> Shard,
    onFatal: @escaping @Sendable (KafkaError) -> Void
  ) throws(KafkaError) {
    consumer = try Consumer(settings)
    self.shards = shards
    self.diagnostics = diagnostics
    self.rebalances = rebalances
    self.makeShard = makeShard
    self.onFatal = onFatal
  }

  /// Starts polling.
  func start() throws(SystemError) {
    thread = try Thread("kafka") { [self] in run() }
  }

  /// Leaves the group, ends the thread and the shards.
  func stop() {
    stopping.store(true, ordering: .releasing)
    consumer.wake()
    thread?.join()
    thread = nil
  }

  private func run() {
    var events: [ConsumerEvent] = []
    while !stopping.load(ordering: .acquiring) {
      events.removeAll(keepingCapacity: true)
      consumer.poll(timeoutMs: 100, into: &events)
      for event in events { take(event) }
      noteEnds()
    }
    events.removeAll()
    _ = consumer.close(into: &events)
    for event in events { take(event) }
    for shard in byPartition.values { shard.stop() }
  }

  private func take(_ event: ConsumerEvent) {
    switch event {
    case .batch(let batch): byPartition[batch.partition]?.give(.batch(batch))
    case .endOfPartition(let partition, let offsetNext):
      byPartition[partition]?.give(.endOfPartition(offsetNext: offsetNext))
    case .topic(let facts):
      shards.change {
        $0.partitions = facts.partitions
        $0.topicID = facts.id?.description
      }
      diagnostics.log(
        .info, "topic found",
        [.topic: facts.name, .count: "\(facts.partitions)", .id: facts.id?.description ?? "-"])
      if facts.timestampType == "CreateTime" {
        diagnostics.log(
          .warning, "record timestamps come from producers, who can close days early by them",
          [.topic: facts.name, .remedy: "set message.timestamp.type=LogAppendTime"])
      }
    case .assigned(let partitions): assign(partitions)
    case .revoked(let partitions, let lost): revoke(partitions, lost: lost)
    case .partitionError(let partition, let error):
      diagnostics.log(
        .error, "partition stands still", [.partition: "\(partition)", .reason: error.description])
      byPartition[partition]?.give(.problem(error.description))
    case .partitionCleared(let partition):
      diagnostics.log(.info, "partition goes on", [.partition: "\(partition)"])
      byPartition[partition]?.give(.problem(nil))
    case .sourceError(let error):
      diagnostics.log(.warning, "the source fails; tried again", [.reason: error.description])
      shards.change { $0.problem = error.description }
    case .sourceCleared:
      diagnostics.log(.info, "the source is back")
      shards.change { $0.problem = nil }
    case .partitionsGrew(let from, let to):
      diagnostics.log(
        .warning, "the topic has more partitions; users may have moved between shards",
        [.from: "\(from)", .to: "\(to)"])
    case .groupOffset(let stored):
      guard stored.isForeign else { break }
      diagnostics.log(
        .warning, "the group's offset was moved by someone else; ignored, the shard's own watermark rules",
        [.partition: "\(stored.partition)", .offset: "\(stored.offset ?? -1)"])
    case .heldBack(let partition, let stable, let high, let heldMs):
      diagnostics.log(
        .warning, "an open transaction holds records back",
        [
          .partition: "\(partition)", .offset: "\(stable)", .count: "\(high - stable)",
          .reason: "nothing after it can be read for \(heldMs / 1000) s",
          .remedy: "end it: kafka-transactions.sh find-hanging, then abort",
        ])
    case .heldBackEnded(let partition):
      diagnostics.log(.info, "no open transaction holds records back any more", [.partition: "\(partition)"])
    case .fatal(let error):
      diagnostics.log(.error, "the Kafka client stopped for good", [.reason: error.description])
      stopping.store(true, ordering: .releasing)
      onFatal(error)
    case .log(let level, let text):
      let grave: DiagnosticLevel = level <= 3 ? .error : level == 4 ? .warning : level <= 6 ? .info : .debug
      diagnostics.log(grave, "librdkafka", [.reason: text])
    }
  }

  private func assign(_ partitions: [Int32]) {
    rebalances.add()
    for partition in partitions where byPartition[partition] == nil {
      do throws(SystemError) {
        let shard = try makeShard(partition)
        try shard.start()
        byPartition[partition] = shard
      } catch {
        diagnostics.log(
          .error, "a shard cannot start", [.partition: "\(partition)", .reason: error.description])
      }
    }
    show()
    diagnostics.log(
      .info, "shards assigned", [.shard: partitions.sorted().map(String.init).joined(separator: ",")])
  }

  private func revoke(_ partitions: [Int32], lost: Bool) {
    rebalances.add()
    for partition in partitions {
      byPartition.removeValue(forKey: partition)?.stop()
    }
    show()
    diagnostics.log(
      .info, "shards given up",
      [
        .shard: partitions.sorted().map(String.init).joined(separator: ","),
        .reason: lost ? "lost" : "rebalance",
      ])
  }

  private func show() {
    let sorted = byPartition.values.sorted { $0.partition < $1.partition }
    shards.change { $0.shards = sorted }
  }

  private func noteEnds() {
    let heard = consumer.endsHeard
    if heard == endsHeard { return }
    endsHeard = heard
    let ends = consumer.status.compactMap { status in status.range.map { (status.partition, $0.stable) } }
    shards.change {
      $0.endsHeard = heard
      for (partition, end) in ends { $0.ends[partition] = end }
    }
  }
}
