// A node over brokers inside the process, asked over TCP like any other.

import KafkaSource
import Node
import Posix
import QueryProtocol
import RankMySteps
import StepModel
import Telemetry
import TestSupport
import Testing

/// What a test of a node needs: brokers with a topic, a producer, a folder, the node, a client of it.
final class NodeWorld {
  static let topic = "steps"
  /// Longest wait for anything; a broken promise fails after it.
  static let patienceMillis: UInt32 = 30_000
  /// 2026-11-24T12:00:00Z, a Tuesday.
  static let noon: Int64 = 1_795_521_600_000

  let brokers: MockBrokers
  let folder = TemporaryFolder()
  let producer: Producer
  let settings: Settings
  private(set) var node: NodeService
  private(set) var client: RankClient
  private var isRunning = true
  private var starts = 1
  /// Records produced, by partition.
  private(set) var counts: [Int]

  /// - Parameters:
  ///   - partitions: of the topic.
  ///   - files: the node's file system.
  ///   - change: changes the node's settings.
  /// - Throws: what keeps brokers, node or client from starting.
  init(partitions: Int, files: Files = Files(), _ change: (inout Settings) -> Void = { _ in }) throws {
    brokers = try MockBrokers()
    try brokers.createTopic(NodeWorld.topic, partitions: Int32(partitions))
    producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: NodeWorld.topic)
    counts = Array(repeating: 0, count: partitions)
    var settings = NodeWorld.settings(folder.path, brokers.bootstrapServers)
    change(&settings)
    self.settings = settings
    node = try NodeService(settings, diagnostics: NodeWorld.quiet, files: files)
    try node.start()
    client = try NodeWorld.connect(node)
  }

  deinit { if isRunning { node.stop() } }

  /// Nothing of a node is told.
  static var quiet: Diagnostics { Diagnostics(sink: { _ in }) }

  static func settings(_ folder: String, _ bootstrapServers: String) -> Settings {
    var settings = Settings.defaults
    settings.dataDir = folder
    settings.queryListen = HostPort(host: "127.0.0.1", port: 0)
    settings.httpListen = HostPort(host: "127.0.0.1", port: 0)
    settings.kafkaBootstrapServers = bootstrapServers
    settings.kafkaTopic = topic
    return settings
  }

  static func connect(_ node: NodeService) throws -> RankClient {
    var settings = ClientSettings(name: "test")
    settings.requestTimeout = .milliseconds(Int(patienceMillis))
    return try RankClient.connect(
      host: node.queryAddress.host, port: node.queryAddress.port, settings: settings)
  }

  /// Puts a record on a partition; it gets that partition's next offset.
  func produce(_ text: String?, _ partition: Int, at millis: Int64 = NodeWorld.noon) throws {
    if let text {
      try producer.produce(text, partition: Int32(partition), timestampMs: millis)
    } else {
      try producer.produce(nil, partition: Int32(partition), timestampMs: millis)
    }
    counts[partition] += 1
  }

  /// A report at noon.
  func report(_ user: String, _ steps: Int, _ partition: Int) throws {
    try produce(
      #"{"uuid": "\#(user)", "steps": \#(steps), "timestamp": "2026-11-24 12:00:00"}"#, partition)
  }

  /// Waits for all that was produced.
  var all: RequestOptions {
    RequestOptions(
      deadlineMillis: NodeWorld.patienceMillis,
      atLeast: counts.enumerated().filter { $0.element > 0 }.map {
        AtLeast(partition: UInt32($0.offset), offset: UInt64($0.element - 1))
      })
  }

  /// The node's state once all that was produced is applied.
  func settled() throws -> StatusAnswer {
    #expect(producer.flush())
    let end = Clock.system.now + .milliseconds(Int(NodeWorld.patienceMillis))
    while true {
      // A node waits for ten seconds at most; a shard without records may be restored after the others.
      do {
        let status = try client.status(options: all)
        let isWhole =
          status.shards.count == counts.count && status.shards.allSatisfy { $0.state != .restoring }
        if isWhole || Clock.system.now >= end { return status }
      } catch {
        guard case .refused(.atLeastTimeout, _, _) = error, Clock.system.now < end else { throw error }
      }
    }
  }

  /// Asks for STATUS until a condition holds.
  func status(until holds: (StatusAnswer) -> Bool) throws -> StatusAnswer {
    let end = Clock.system.now + .milliseconds(Int(NodeWorld.patienceMillis))
    var answer = try client.status()
    while !holds(answer), Clock.system.now < end { answer = try client.status() }
    #expect(holds(answer), "\(answer)")
    return answer
  }

  /// Every dead letter, in the order of the file.
  func deadLetters() throws -> [DeadLettersAnswer.Letter] {
    var letters: [DeadLettersAnswer.Letter] = []
    var position: UInt64 = 0
    while true {
      let page = try client.deadLetters(from: position, limit: 50)
      if page.letters.isEmpty { return letters }
      letters += page.letters
      position = page.next
    }
  }

  /// Every dead letter, once there are so many: those of a chunk are written right after its watermark moved.
  func deadLetters(atLeast count: UInt64) throws -> [DeadLettersAnswer.Letter] {
    _ = try status { _ in (try? deadLetters().count).map { $0 >= count } ?? false }
    return try deadLetters()
  }

  /// Stops the node and starts another one on the same folder and topic; in a group of its own, because the brokers
  /// here keep a member that has left until its session is over.
  func restart() throws {
    stop()
    starts += 1
    var settings = settings
    settings.kafkaGroupID += "-\(starts)"
    node = try NodeService(settings, diagnostics: NodeWorld.quiet)
    try node.start()
    isRunning = true
    client = try NodeWorld.connect(node)
  }

  func stop() {
    client.close()
    node.stop()
    isRunning = false
  }

  /// The test itself has stopped the node.
  func wasStopped() { isRunning = false }

  /// The day of `noon`.
  static let day = BoardName.named(.day(Day(number: 20_781)))
}

extension StatusAnswer {
  func counter(_ name: String) -> UInt64 { counters.first { $0.name == name }?.value ?? 0 }

  var counted: UInt64 { shards.reduce(0) { $0 + $1.counted } }

  var rejected: UInt64 { shards.reduce(0) { $0 + $1.rejected.reduce(0, +) } }
}
