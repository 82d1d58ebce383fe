// A node: data folder, dead letters, shards fed by Kafka, a query server over them. Wiring, nothing else.

import Bytes
import HTTPFace
import KafkaSource
public import Posix
import QueryProtocol
import QueryServer
import RankIndex
import StepModel
import Synchronization
public import Telemetry

/// One node in this process. Start it once, stop it once.
public final class NodeService: Sendable {
  let facts: NodeFacts
  private let shards: NodeShards
  private let server: Server
  private let face: NodeFace
  private let http: HTTPListener
  private let disk: DiskWatch
  private let failed: Mutex<NodeError?>
  private let observer: NodeObserver

  /// Where queries are answered; the port is the real one if the setting was 0.
  public var queryAddress: HostPort { server.address }

  /// Where probes and metrics are served; the port is the real one if the setting was 0.
  public var httpAddress: HostPort { http.address }

  /// Why the node cannot go on; nil while it can.
  public var failure: NodeError? { failed.withLock { $0 } }

  /// Opens the data folder and answers queries, probes and scrapes from here on; reads nothing from Kafka yet.
  ///
  /// - Parameters:
  ///   - settings: every value checked.
  ///   - diagnostics: where the node tells what happens.
  ///   - clock: tells the time; days and ages in answers come from it, totals never.
  ///   - files: the file system.
  /// - Throws: `NodeError`, each case with its exit code.
  public init(
    _ settings: Settings, diagnostics: Diagnostics, clock: Clock = .system, files: Files = Files()
  ) throws(NodeError) {
    let cluster: ClusterSettings
    do throws(SettingsProblems) { cluster = try settings.cluster() } catch { throw .settings(error) }
    let folder = try NodeService.openFolder(settings, cluster, settings.dataInit == "auto", files)
    let deadLetters = try NodeService.openDeadLetters(settings, diagnostics, files)
    let metrics = Metrics()
    let facts = NodeFacts(
      settings: settings, cluster: cluster, folder: folder, deadLetters: deadLetters, metrics: metrics,
      diagnostics: diagnostics,
      clock: clock)
    let observer = NodeObserver(facts)
    self.facts = facts
    self.observer = observer
    failed = Mutex(nil)
    let face = NodeFace(facts)
    self.face = face
    let consumer = ConsumerSettings(
      bootstrapServers: settings.kafkaBootstrapServers, topic: settings.kafkaTopic,
      groupID: settings.kafkaGroupID, instanceID: settings.groupInstanceID,
      properties: settings.kafkaOther.sorted { $0.key < $1.key }.map { ($0.key, $0.value) },
      addsIncrements: cluster.stepsMode == .increment,
      heldBackMsMax: settings.kafkaHeldBackMax.components.seconds * 1000)
    shards = try NodeShards(facts, consumer, observer: observer, files: files)
    http = try NodeService.listenHTTP(settings.httpListen, face)
    diagnostics.log(.info, "probes and metrics are served", [.address: "\(http.address)"])
    var limits = ServerLimits()
    limits.connectionsMax = settings.queryConnectionsMax
    limits.connectionsPerAddressMax = settings.queryConnectionsPerAddressMax
    limits.connectionRatePerAddressMax = max(
      limits.connectionRatePerAddressMax, settings.queryConnectionsPerAddressMax)
    var serving = ServerSettings(
      listen: settings.queryListen,
      hello: HelloAnswer(
        version: Limits.version, node: settings.nodeID, cluster: settings.clusterName, software: Version.text)
    )
    serving.workerCount = settings.queryThreads
    serving.limits = limits
    do throws(ServerError) {
      server = try Server(
        serving, handler: NodeQueries(facts), metrics: metrics, diagnostics: diagnostics, clock: clock)
    } catch {
      switch error {
      case .listen(let error): throw .listen(error)
      case .system(let error): throw .system(error)
      }
    }
    do throws(SystemError) {
      disk = try DiskWatch(
        folder, state: facts.disk, floor: settings.dataFreeMin, files: files, diagnostics: diagnostics
      ) { [weak observer] in observer?.fail(.folder(.gone(path: folder.path))) }
    } catch { throw .system(error) }
    observer.onFailure = { [weak self] error in self?.failed.withLock { $0 = $0 ?? error } }
    observer.onMove = { [weak server] in server?.watermarksMoved() }
  }

  /// Restores what the data folder holds, and reads Kafka from there on.
  ///
  /// - Throws: `system` if the kernel has no thread to give.
  public func start() throws(NodeError) {
    try NodeError.catching { () throws(SystemError) in try disk.start() }
    try shards.start(clientID: "\(facts.settings.nodeID)@\(server.address)")
    facts.diagnostics.log(
      .info, "node started",
      [.node: facts.settings.nodeID, .address: "\(server.address)", .topic: facts.settings.kafkaTopic])
  }

  /// Finishes the requests under way, leaves the group and ends all threads; not ready from the first moment on.
  public func stop() {
    face.stopping()
    server.drain(within: .seconds(5))
    shards.stop()
    http.stop()
    disk.stop()
    facts.folder.release()
    facts.diagnostics.log(.info, "node stopped", [.node: facts.settings.nodeID])
  }

  private static func listenHTTP(_ address: HostPort, _ face: NodeFace) throws(NodeError) -> HTTPListener {
    do throws(HTTPFaceError) {
      return try HTTPListener(address) { face.answer($0) }
    } catch {
      switch error {
      case .listen(let error): throw .listenHTTP(error)
      case .system(let error): throw .system(error)
      }
    }
  }

  /// Makes `data.dir` a data folder of this node, whatever `data.init` says; does nothing if it is one.
  ///
  /// - Parameters:
  ///   - settings: every value checked.
  ///   - files: the file system.
  /// - Throws: `NodeError`.
  public static func initialiseFolder(_ settings: Settings, files: Files = Files()) throws(NodeError) {
    let cluster: ClusterSettings
    do throws(SettingsProblems) { cluster = try settings.cluster() } catch { throw .settings(error) }
    _ = try openFolder(settings, cluster, true, files)
  }

  private static func openFolder(
    _ settings: Settings, _ cluster: ClusterSettings, _ initialises: Bool, _ files: Files
  ) throws(NodeError) -> DataFolder {
    do throws(DataFolderError) {
      return try DataFolder(settings, cluster, initialises: initialises, files: files)
    } catch { throw .folder(error) }
  }

  private static func openDeadLetters(
    _ settings: Settings, _ diagnostics: Diagnostics, _ files: Files
  ) throws(NodeError) -> DeadLetters {
    do throws(DeadLetterError) {
      let deadLetters = try DeadLetters(folder: settings.dataDir, files: files)
      if deadLetters.tornBytes > 0 {
        diagnostics.log(
          .warning, "a torn record at the end of the dead-letter file was cut",
          [.bytes: "\(deadLetters.tornBytes)", .path: DeadLetters.path(settings.dataDir)])
      }
      return deadLetters
    } catch {
      if case .disk(let error) = error { throw .folder(.disk(error)) }
      throw .deadLetters(error)
    }
  }
}

/// Answers requests for the server; each thread that asks gets an answerer of its own.
final class NodeQueries: QueryHandler {
  private let facts: NodeFacts
  private let idle = Mutex(Idle())

  /// Answerers that no thread has now; whoever takes one has it alone.
  private struct Idle: @unchecked Sendable { var answerers: [Answerer] = [] }

  init(_ facts: NodeFacts) { self.facts = facts }

  /// Header and context of an answer over as many shards as a cluster may have.
  var answerOverheadBytes: Int { 64 + 25 * max(1, Int(facts.shards.now.partitions)) }

  func answer(_ batch: borrowing RequestBatch, into out: inout ByteWriter) {
    let answerer = idle.withLock { $0.answerers.popLast() } ?? Answerer(facts)
    answerer.answer(batch, into: &out)
    idle.withLock { $0.answerers.append(answerer) }
  }
}

/// What shards tell the rest of the node.
final class NodeObserver: ShardObserver, @unchecked Sendable {
  // Unchecked: the closures are set once, before any shard exists.
  private let facts: NodeFacts
  var onMove: () -> Void = {}
  var onRestored: () -> Void = {}
  var onFailure: (NodeError) -> Void = { _ in }

  init(_ facts: NodeFacts) { self.facts = facts }

  func shardLoaded(_ shard: Shard) {
    facts.shards.change { source in
      source.restoring.removeAll { $0 === shard }
      source.shards.append(shard)
      source.shards.sort { $0.partition < $1.partition }
    }
  }

  func shardRestored(_ shard: Shard) { onRestored() }

  func shardMoved(_ shard: Shard) { onMove() }

  func shardFailed(_ shard: Shard, _ reason: String) {
    facts.diagnostics.log(.error, "shard stopped", [.partition: "\(shard.partition)", .reason: reason])
  }

  func fail(_ error: NodeError) { onFailure(error) }

  /// A user who is in another shard too was not kept in one partition: said, and counted.
  func usersAppeared(_ shard: Shard, _ numbers: [UserNumber]) {
    var found = 0
    for other in facts.shards.now.shards where other !== shard {
      let count = other.gate.read { () -> Int in
        guard other.boards.users > 0 else { return 0 }
        return numbers.reduce(0) {
          $0 + (other.boards.number(of: shard.boards.user($1)) == nil ? 0 : 1)
        }
      }
      if count > 0 {
        found += count
        other.noteUsersElsewhere(count)
      }
    }
    guard found > 0 else { return }
    shard.noteUsersElsewhere(found)
    facts.diagnostics.log(
      .warning, "users report in more than one partition; their totals add up in RANK, order is per shard",
      [.shard: "\(shard.partition)", .users: "\(found)", .remedy: "key the records by user id"])
  }
}
