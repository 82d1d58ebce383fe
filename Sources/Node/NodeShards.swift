// The shards of a node from the data folder to Kafka: restored at the start, read from their own watermarks, kept in
// order, and what an administrator orders for them.

import KafkaSource
import Posix
import QueryProtocol
import SegmentLog
import StepModel
import Synchronization
import Telemetry

/// One a node. Started once, stopped once.
final class NodeShards: Sendable {
  private let facts: NodeFacts
  private let consumer: ConsumerSettings
  private let world: StoreWorld
  private let observer: NodeObserver
  private let meters: ShardMeters
  private let keeper: Keeper
  private let state = Mutex(State())

  private struct State: ~Copyable {
    var ingest: Ingest?
    /// Name in requests and broker logs.
    var clientID = ""
    /// Whether the topic is being adopted; the thread that does it.
    var adoption: Thread?
    var isStopping = false
  }

  /// - Parameters:
  ///   - facts: of the node.
  ///   - consumer: how Kafka is read.
  ///   - observer: told by shards.
  ///   - files: the file system.
  /// - Throws: `NodeError`.
  init(
    _ facts: NodeFacts, _ consumer: ConsumerSettings, observer: NodeObserver, files: Files
  ) throws(NodeError) {
    self.facts = facts
    self.consumer = consumer
    self.observer = observer
    meters = ShardMeters(facts.metrics)
    // Whatever is wrong with the settings is said before anything starts.
    do throws(KafkaError) { try consumer.validate() } catch { throw .kafka(error) }
    do throws(SystemError) {
      world = StoreWorld(
        dataDir: facts.settings.dataDir, limits: LogLimits(segmentBytes: facts.settings.logSegmentBytes),
        files: files, syncer: try LogSyncer(clock: facts.clock), deadLetters: facts.deadLetters,
        diagnostics: facts.diagnostics,
        deadLetterFailures: facts.metrics.counter(.deadLetterFailures), clock: facts.clock,
        onFailure: { [weak observer] in observer?.fail($0) })
      keeper = try Keeper(facts.shards, world, settings: facts.settings, clock: facts.clock)
    } catch { throw .system(error) }
    try findShards()
  }

  /// A node that was never started has a thread to end all the same.
  deinit { world.syncer.stop() }

  /// Restores what the data folder holds, and reads Kafka from there.
  ///
  /// - Parameter clientID: name in requests and broker logs.
  /// - Throws: `kafka`, `log`, `system`.
  func start(clientID: String) throws(NodeError) {
    // Before any shard's thread is there to call it.
    observer.onRestored = { [weak self] in self?.state.withLock { $0.ingest?.wake() } }
    state.withLock { $0.clientID = clientID }
    let ingest = try makeIngest()
    try NodeError.catching { () throws(SystemError) in
      try keeper.start()
      try ingest.start()
    }
    state.withLock { $0.ingest = ingest }
    facts.desk.open(self)
  }

  /// Ends reading, takes all to the disk, and ends all threads.
  func stop() {
    let adoption = state.withLock { state -> Thread? in
      state.isStopping = true
      return state.adoption.take()
    }
    adoption?.join()
    keeper.stop()
    let ingest = state.withLock { $0.ingest.take() }
    ingest?.stop { [keeper] in keeper.lastSnapshots() }
    world.syncer.stop()
  }

  /// Makes the shards that the data folder holds. Nothing of them is restored yet, and whoever asks is told so.
  private func findShards() throws(NodeError) {
    var found: [LogIdentity] = []
    do throws(LogError) {
      found = try ShardStore.found(
        in: world, topic: consumer.topic, fingerprint: facts.cluster.fingerprintNumber)
    } catch { throw .log(error) }
    let identities = found
    let shards = try NodeError.catching { () throws(SystemError) in
      try identities.map { (identity) throws(SystemError) in try makeShard(identity) }
    }
    facts.shards.change { source in
      source.restoring = shards
      source.partitions = (shards.map(\.partition).max() ?? -1) + 1
    }
  }

  /// Starts the shards that were found, and makes the consumer that will feed them.
  private func makeIngest() throws(NodeError) -> Ingest {
    let restored = facts.shards.now.restoring
    try NodeError.catching { () throws(SystemError) in for shard in restored { try shard.start() } }
    var settings = consumer
    settings.clientID = state.withLock { $0.clientID }
    settings.topicID = restored.first.map {
      let id = $0.store.identity.topicID
      return TopicID(high: id.high, low: id.low)
    }
    if settings.topicID?.isZero ?? false { settings.topicID = nil }
    do throws(KafkaError) {
      return try Ingest(
        settings, shards: facts.shards, disk: facts.disk, restored: restored, diagnostics: facts.diagnostics,
        rebalances: facts.metrics.counter(.rebalances),
        makeShard: { [self] partition, topicID throws(SystemError) in
          try makeShard(
            LogIdentity(
              topic: consumer.topic, topicID: .init(high: topicID?.high ?? 0, low: topicID?.low ?? 0),
              partition: partition, fingerprint: facts.cluster.fingerprintNumber))
        }, onFatal: { [weak observer] in observer?.fail(.kafka($0)) })
    } catch { throw .kafka(error) }
  }

  private func makeShard(_ identity: LogIdentity) throws(SystemError) -> Shard {
    Shard(
      try ShardStore(identity, world), settings: facts.cluster, observer: observer, meters: meters,
      clock: facts.clock)
  }
}

extension NodeShards: NodeAdmin {
  func order(_ verb: AdminVerb, partition: Int32?) throws(AdminRefusal) -> String {
    let source = facts.shards.now
    let ours = (source.shards + source.restoring).map(\.partition).sorted()
    if let partition, !ours.contains(partition) {
      throw .unknownPartition(
        "partition \(partition) is no shard of this node, which has \(ours.map(String.init).joined(separator: ", "))"
      )
    }
    let wanted = partition.map { [$0] } ?? ours
    guard !wanted.isEmpty else { throw .notPossible("this node has no shards yet") }
    switch verb {
    case .snapshot:
      try mustBeRestored(wanted, source)
      for partition in wanted { keeper.orderSnapshot(partition) }
      return "snapshots of \(wanted.count) shards are being written"
    case .seal:
      try mustBeRestored(wanted, source)
      for partition in wanted { keeper.orderSeal(partition) }
      return "the segments of \(wanted.count) shards are being sealed"
    case .acceptGap:
      guard let partition, let gap = source.gaps[partition] else {
        throw .notPossible("there is no gap in partition \(partition.map(String.init) ?? "?") to accept")
      }
      state.withLock { $0.ingest?.acceptGap(partition, offsetNext: gap.upperBound + 1) }
      return "partition \(partition) goes on after the gap of offsets \(gap.lowerBound)..\(gap.upperBound)"
    case .adopt: return try adopt(partition, source)
    }
  }

  private func mustBeRestored(_ partitions: [Int32], _ source: ShardSet.Source) throws(AdminRefusal) {
    for shard in source.shards + source.restoring where partitions.contains(shard.partition) {
      guard shard.restoredTo == nil else { continue }
      throw .notPossible(
        shard.gate.read { shard.numbers.failure }.map { "partition \(shard.partition) is stopped: \($0)" }
          ?? "partition \(shard.partition) is still being restored")
    }
  }

  /// Sets folders aside and begins anew; on a thread of its own, because all shards are stopped first.
  private func adopt(_ partition: Int32?, _ source: ShardSet.Source) throws(AdminRefusal) -> String {
    let stopped = (source.shards + source.restoring).filter { shard in
      (partition == nil || shard.partition == partition) && shard.gate.read { shard.reason != nil }
    }
    guard source.problem != nil || !stopped.isEmpty else {
      throw .notPossible("nothing is wrong here: the shards are of the topic as it is, and none is stopped")
    }
    var refusal: AdminRefusal?
    state.withLock { state in
      guard !state.isStopping, state.adoption == nil else {
        refusal = .notPossible("the node is stopping, or adopting the topic already")
        return
      }
      do throws(SystemError) {
        state.adoption = try Thread("adopt") { [self] in
          begin(without: partition)
          self.state.withLock { $0.adoption = nil }
        }
      } catch { refusal = .failed("no thread to do it: \(error)") }
    }
    if let refusal { throw refusal }
    return partition.map { "partition \($0) is set aside and read from the beginning" }
      ?? "all shards are set aside, and the topic is read from its beginning"
  }

  private func begin(without partition: Int32?) {
    let old = state.withLock { $0.ingest.take() }
    old?.stop {}
    facts.shards.change { source in
      source.shards = []
      source.restoring = []
      source.gaps = [:]
      source.ends = [:]
      source.partitions = 0
      source.problem = nil
    }
    do {
      let moved = try ShardStore.setAside(in: world, topic: consumer.topic, partition: partition)
      facts.diagnostics.log(
        .warning, "shards were set aside by an administrator; the topic is read anew",
        [.path: moved.joined(separator: " ")])
      try findShards()
      let ingest = try makeIngest()
      try NodeError.catching { () throws(SystemError) in try ingest.start() }
      let stops = state.withLock { state -> Bool in
        if !state.isStopping { state.ingest = ingest }
        return state.isStopping
      }
      if stops { ingest.stop {} }
    } catch let error as NodeError {
      observer.fail(error)
    } catch let error as LogError {
      observer.fail(.log(error))
    } catch {
      observer.fail(.system(SystemError(call: "adopt", errno: .inputOutput)))
    }
  }
}
