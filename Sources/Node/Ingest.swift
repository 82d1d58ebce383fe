// From the Kafka consumer to the shards: one thread polls, makes a shard when a partition is assigned, lets it be read
// from its own watermark once it is restored, hands each its batches in order, holds partitions back while the disk
// cannot keep up, commits what is durable, and keeps what the brokers say about ends and errors.

import KafkaSource
import Posix
import StepModel
import Synchronization
import Telemetry

/// The shards of a node and what is known about their source. Any thread may read.
final class ShardSet: Sendable {
  /// A view of the source, copied whole.
  struct Source {
    /// Shards that answer, by partition, ascending.
    var shards: [Shard] = []
    /// Shards that are being restored, or could not be, likewise.
    var restoring: [Shard] = []
    /// Offsets that the brokers have no more and a shard needs, by partition, until a person accepts the loss.
    var gaps: [Int32: ClosedRange<Int64>] = [:]
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
  private let disk: DiskState
  private let makeShard: (Int32, TopicID?) throws(SystemError) -> Shard
  private let diagnostics: Diagnostics
  private let stopping = Atomic<Bool>(false)
  private let onFatal: @Sendable (KafkaError) -> Void
  private let rebalances: Counter
  private var thread: Thread?
  private var byPartition: [Int32: Shard] = [:]
  /// Restored from the data folder before any partition was ours.
  private var unassigned: [Int32: Shard]
  /// Partitions that are read, from their shard's watermark on.
  private var reading: Set<Int32> = []
  /// Partitions held back for the disk's sake.
  private var held: Set<Int32> = []
  /// Losses that a person accepted, not yet acted upon.
  private let accepted = Mutex<[Int32: Int64]>([:])
  private let beforeShardsStop = Mutex<@Sendable () -> Void>({})
  private var topicID: TopicID?
  private var endsHeard: UInt64 = 0

  /// - Parameters:
  ///   - settings: how to read.
  ///   - shards: where shards are shown.
  ///   - disk: whether anything may be written.
  ///   - restored: shards of the data folder, started; they answer until their partition is somebody else's.
  ///   - diagnostics: where events are told.
  ///   - rebalances: counts partitions coming and going.
  ///   - makeShard: makes a shard of a partition of the topic with this id, not started yet.
  ///   - onFatal: called once, on the polling thread, when the client is of no use any more.
  /// - Throws: `KafkaError.setting`.
  init(
    _ settings: ConsumerSettings, shards: ShardSet, disk: DiskState, restored: [Shard],
    diagnostics: Diagnostics, rebalances: Counter,
    makeShard: @escaping (Int32, TopicID?) throws(SystemError) -> Shard,
    onFatal: @escaping @Sendable (KafkaError) -> Void
  ) throws(KafkaError) {
    var settings = settings
    settings.startOffset = { _ in nil }
    consumer = try Consumer(settings)
    self.shards = shards
    self.disk = disk
    unassigned = Dictionary(uniqueKeysWithValues: restored.map { ($0.partition, $0) })
    topicID = settings.topicID
    self.diagnostics = diagnostics
    self.rebalances = rebalances
    self.makeShard = makeShard
    self.onFatal = onFatal
  }

  /// Starts polling.
  func start() throws(SystemError) {
    thread = try Thread("kafka") { [self] in
      // Not lower: the threads of shards begin with the priority of this one, which starts them.
      ThreadPriority.applying.take()
      run()
    }
  }

  /// Ends reading, then the shards once all they were given is durable, commits that, leaves the group and ends the
  /// thread.
  ///
  /// - Parameter idle: called when nothing more is read, while the shards' threads still are there.
  func stop(_ idle: @escaping @Sendable () -> Void) {
    beforeShardsStop.withLock { $0 = idle }
    stopping.store(true, ordering: .releasing)
    consumer.wake()
    thread?.join()
    thread = nil
  }

  /// Looks at the shards again soon. Any thread.
  func wake() { consumer.wake() }

  /// A person accepts that what a shard needs and the brokers have no more is lost. Any thread.
  ///
  /// - Parameters:
  ///   - partition: which.
  ///   - offsetNext: where reading goes on.
  func acceptGap(_ partition: Int32, offsetNext: Int64) {
    accepted.withLock { $0[partition] = offsetNext }
    consumer.wake()
  }

  private func run() {
    var events: [ConsumerEvent] = []
    while !stopping.load(ordering: .acquiring) {
      events.removeAll(keepingCapacity: true)
      consumer.poll(timeoutMs: 100, into: &events)
      for event in events {
        take(event)
        // Between batches, not at the end of a slice of milliseconds, goes on whoever waits for the core.
        Thread.yield()
      }
      readRestored()
      holdBack()
      passGaps()
      consumer.commit(byPartition.values.map { ($0.partition, $0.store.durable) })
      noteEnds()
    }
    beforeShardsStop.withLock { $0 }()
    let all = Array(byPartition.values) + Array(unassigned.values)
    for shard in all { shard.stop() }
    consumer.commit(byPartition.values.map { ($0.partition, $0.store.durable) }, synchronously: true)
    events.removeAll()
    _ = consumer.close(into: &events)
    for event in events {
      if case .log = event { take(event) }
    }
  }

  /// Reads a partition once its shard knows where.
  private func readRestored() {
    for (partition, shard) in byPartition where !reading.contains(partition) {
      guard let watermark = shard.restoredTo else { continue }
      reading.insert(partition)
      consumer.resume(partition, at: watermark)
    }
  }

  /// Records that no disk can take stay with the brokers.
  private func holdBack() {
    let full = disk.problem != nil
    for (partition, shard) in byPartition where reading.contains(partition) {
      if full || shard.store.isBehind {
        held.insert(partition)
        consumer.pause(partition)
      } else if held.remove(partition) != nil {
        consumer.resume(partition)
      }
    }
  }

  private func passGaps() {
    let losses = accepted.withLock { losses in
      defer { losses = [:] }
      return losses
    }
    for (partition, offsetNext) in losses {
      guard let shard = byPartition[partition] else { continue }
      diagnostics.log(
        .warning, "a gap was accepted: its records are lost",
        [.partition: "\(partition)", .to: "\(offsetNext)"])
      shard.give(.gapAccepted(offsetNext: offsetNext))
      shards.change { $0.gaps[partition] = nil }
      consumer.resume(partition, at: offsetNext)
    }
  }

  private func take(_ event: ConsumerEvent) {
    switch event {
    case .batch(let batch): byPartition[batch.partition]?.give(.batch(batch))
    case .endOfPartition(let partition, let offsetNext):
      byPartition[partition]?.give(.endOfPartition(offsetNext: offsetNext))
    case .topic(let facts):
      topicID = facts.id ?? topicID
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
      if case .gap(_, let from, let to) = error { shards.change { $0.gaps[partition] = from...to } }
      byPartition[partition]?.give(.problem(error.description))
    case .partitionCleared(let partition):
      diagnostics.log(.info, "partition goes on", [.partition: "\(partition)"])
      shards.change { $0.gaps[partition] = nil }
      byPartition[partition]?.give(.problem(nil))
    case .sourceError(let error):
      diagnostics.log(.warning, "the source fails; tried again", [.reason: error.description])
      shards.change { $0.problem = error.description }
      // A topic that is refused is never joined: the shards that wait for it hear of it here.
      switch error {
      case .topicRecreated, .compacted:
        for shard in unassigned.values { shard.give(.problem(error.description)) }
      case .setting, .unknownTopic, .failed, .gap, .truncated, .corrupt, .fatal: break
      }
    case .sourceCleared:
      diagnostics.log(.info, "the source is back")
      shards.change { $0.problem = nil }
      for shard in unassigned.values { shard.give(.problem(nil)) }
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
    for partition in partitions {
      reading.remove(partition)
      held.remove(partition)
      guard byPartition[partition] == nil else { continue }
      if let shard = unassigned.removeValue(forKey: partition) {
        byPartition[partition] = shard
        continue
      }
      do throws(SystemError) {
        let shard = try makeShard(partition, topicID)
        byPartition[partition] = shard
        shards.change { $0.restoring.append(shard) }
        try shard.start()
      } catch {
        diagnostics.log(
          .error, "a shard cannot start", [.partition: "\(partition)", .reason: error.description])
      }
    }
    // The group has spoken: what it did not give us is somebody else's.
    for shard in unassigned.values { giveUp(shard) }
    unassigned.removeAll()
    diagnostics.log(
      .info, "shards assigned", [.shard: partitions.sorted().map(String.init).joined(separator: ",")])
  }

  private func revoke(_ partitions: [Int32], lost: Bool) {
    rebalances.add()
    for partition in partitions {
      reading.remove(partition)
      held.remove(partition)
      if let shard = byPartition.removeValue(forKey: partition) { giveUp(shard) }
    }
    diagnostics.log(
      .info, "shards given up",
      [
        .shard: partitions.sorted().map(String.init).joined(separator: ","),
        .reason: lost ? "lost" : "rebalance",
      ])
  }

  /// Ends a shard; what is on the disk stays there.
  private func giveUp(_ shard: Shard) {
    shards.change { source in
      source.shards.removeAll { $0 === shard }
      source.restoring.removeAll { $0 === shard }
      source.gaps[shard.partition] = nil
    }
    shard.stop()
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
