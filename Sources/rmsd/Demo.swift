// The demo: an embedded broker, six producers and a node in one process, over the same code as in production. The
// leaders are asked for over TCP like any client would.

import Console
import Glibc
import KafkaSource
import Node
import Posix
import QueryProtocol
import RankMySteps
import Synchronization
import Telemetry

enum Demo {
  static let topic = "steps"
  static let partitions: Int32 = 4
  static let producerCount = 6
  static let eventsPerSecond = 20_000
  /// Longest wait for the node to have read all that was produced.
  static let settleTime = Duration.seconds(30)

  static func run(_ given: Settings, seconds: Int?) -> Int32 {
    do throws(NodeError) {
      let signals = try NodeError.catching { () throws(SystemError) in try Signals() }
      let folder = try temporaryFolder()
      defer { clean(folder) }
      let brokers = try brokers()
      var settings = given
      settings.dataDir = folder
      settings.kafkaBootstrapServers = brokers.bootstrapServers
      settings.kafkaTopic = topic
      // Where clients ask unless told otherwise; if somebody listens there already, anywhere.
      do { _ = try Socket.listen(settings.queryListen) } catch {
        settings.queryListen = HostPort(host: "127.0.0.1", port: 0)
      }
      settings.httpListen = HostPort(host: "127.0.0.1", port: 0)
      let diagnostics = Diagnostics(level: .warning)
      let node = try NodeService(settings, diagnostics: diagnostics)
      try node.start()
      let producers = try (0..<producerCount).map { number throws(NodeError) in
        try DemoProducer(number, brokers.bootstrapServers)
      }
      let isLive = Terminal.isOutput
      Entry.show(
        isLive
          ? Screen.begin
          : "node listens on \(node.queryAddress); rmsctl --address \(node.queryAddress) top\ndata folder \(folder)\n"
      )
      let outcome = watch(node, folder, producers, signals, seconds: seconds, isLive: isLive)
      if isLive { Entry.show(Screen.end) }
      node.stop()
      withExtendedLifetime(brokers) {}
      return outcome
    } catch {
      Entry.say("rmsd: \(error)")
      return error.exitCode
    }
  }

  /// Shows the leaders until the time is up, a signal comes or the node fails; then lets the node read what is left.
  private static func watch(
    _ node: NodeService, _ folder: String, _ producers: [DemoProducer], _ signals: Signals, seconds: Int?,
    isLive: Bool
  ) -> Int32 {
    let clock = Clock.system
    let end = seconds.map { clock.now + .seconds($0) } ?? .never
    let client = try? RankClient.connect(host: node.queryAddress.host, port: node.queryAddress.port)
    var live = LiveBoard(colour: Terminal.isOutput)
    while clock.now < end, node.failure == nil {
      if (try? signals.wait(.milliseconds(500))) ?? nil != nil { break }
      guard isLive, let client, let top = try? client.top(.today, limit: 10),
        let status = try? client.status()
      else { continue }
      Entry.show(
        Screen.frame(
          live.picture(
            top: top, status: status, now: clock.now.nanoseconds / 1_000_000, width: Terminal.columns,
            height: Terminal.lines - 3)
            + "\nask it: rmsctl --address \(node.queryAddress) top\nits files: export RMS_DATA_DIR=\(folder)\n"
        ))
    }
    for producer in producers { producer.stop() }
    let produced = producers.reduce(0) { $0 + $1.counts.produced }
    let failed = producers.reduce(0) { $0 + $1.counts.failed }
    let settled = clock.now + settleTime
    var numbers: (counted: UInt64, rejected: UInt64) = (0, 0)
    while clock.now < settled, node.failure == nil {
      if let status = try? client?.status() {
        numbers.counted = status.shards.reduce(0) { $0 + $1.counted }
        numbers.rejected = status.shards.reduce(0) { $0 + $1.rejected.reduce(0, +) }
        if numbers.counted + numbers.rejected >= produced { break }
      }
      _ = try? signals.wait(.milliseconds(50))
    }
    if let top = try? client?.top(.today, limit: 10), !isLive {
      Entry.show(Table(rows: top).aligned(width: 0))
    }
    Entry.show("produced \(produced)  counted \(numbers.counted)  rejected \(numbers.rejected)\n")
    if let failure = node.failure {
      Entry.say("rmsd: \(failure)")
      return failure.exitCode
    }
    guard numbers.counted + numbers.rejected == produced, failed == 0 else {
      Entry.say("rmsd: the numbers do not add up (\(failed) records could not be produced)")
      return 1
    }
    return 0
  }

  private static func brokers() throws(NodeError) -> MockBrokers {
    do throws(KafkaError) {
      let brokers = try MockBrokers()
      try brokers.createTopic(topic, partitions: partitions)
      return brokers
    } catch { throw .kafka(error) }
  }

  private static func temporaryFolder() throws(NodeError) -> String {
    var template = Array("/tmp/rankmysteps-demo-XXXXXX".utf8CString)
    let made = template.withUnsafeMutableBufferPointer { $0.baseAddress.map { mkdtemp($0) != nil } ?? false }
    guard made else { throw .system(SystemError(call: "mkdtemp", errno: .current, subject: "/tmp")) }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  private static func clean(_ folder: String) {
    let files = Files()
    for name in (try? files.names(in: folder)) ?? [] {
      let path = folder + "/" + name
      if files.isFolder(path) { clean(path) } else { try? files.remove(path) }
    }
    rmdir(folder)
  }
}

/// One of the demo's producers: reports of its own users at a steady rate.
final class DemoProducer: Sendable {
  private let state = Mutex<(produced: UInt64, failed: UInt64)>((0, 0))
  private let stopping: WakeUp
  private let thread: Mutex<Thread?>

  var counts: (produced: UInt64, failed: UInt64) { state.withLock { $0 } }

  init(_ number: Int, _ bootstrapServers: String) throws(NodeError) {
    let producer: Producer
    do throws(KafkaError) {
      producer = try Producer(bootstrapServers: bootstrapServers, topic: Demo.topic)
    } catch { throw .kafka(error) }
    stopping = try NodeError.catching { () throws(SystemError) in try WakeUp() }
    thread = Mutex(nil)
    let started = try NodeError.catching { () throws(SystemError) in
      try Thread("producer-\(number + 1)") { [self] in run(producer, number) }
    }
    thread.withLock { $0 = started }
  }

  /// Ends the thread; every record is delivered or given up then.
  func stop() {
    stopping.signal()
    thread.withLock { $0.take() }?.join()
  }

  private func tell(_ producer: Producer) {
    let counts = producer.counts
    state.withLock { $0 = (counts.produced, counts.failed) }
  }

  private func run(_ producer: Producer, _ number: Int) {
    var plan = GeneratorPlan()
    plan.users = 12_000
    plan.seed = UInt64(number + 1)
    plan.badShare = 0.002
    plan.lateShare = 0.0005
    plan.futureShare = 0.0005
    var pace = Pace(perSecond: Demo.eventsPerSecond / Demo.producerCount, from: Clock.system.now)
    var generator = Generator(plan)
    // Ten milliseconds' worth of records at a time.
    while !stopping.wait(.milliseconds(10)) {
      for _ in 0..<pace.due(at: Clock.system.now) {
        let record = generator.next(at: Clock.system.wall / 1_000_000)
        // A record that cannot be queued is counted as failed by the producer's own reports, or ends the demo there.
        try? producer.produce(record.payload, key: record.key)
      }
      producer.serve()
      tell(producer)
    }
    producer.flush()
    tell(producer)
  }
}
