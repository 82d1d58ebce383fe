// rmsbench kafka: what reading costs, by the node's own consumer or by librdkafka alone, and filling a topic for it.
import Glibc
import KafkaSource

/// `rmsbench kafka`.
enum KafkaBench {
  static let usage = """
    usage: rmsbench kafka --bootstrap HOST:PORT --topic NAME [--bare] [--batch N] [--set KEY=VALUE]…
           rmsbench kafka --bootstrap HOST:PORT --topic NAME --fill N [--partitions P] [--users U]
           rmsbench kafka --bootstrap HOST:PORT --topic NAME --create P [--config KEY=VALUE]…
           rmsbench kafka --bootstrap HOST:PORT --topic NAME --delete
           rmsbench kafka --bootstrap HOST:PORT --topic NAME --produce FILE [--set KEY=VALUE]…

    Reads the whole topic once, from its first record to the end of every partition, and prints records a second and
    CPU seconds per million records, of all threads and of the calling one. --bare makes the same batch call without
    the node's consumer around it. --fill creates the topic and produces N step events of about 92 bytes.
    --produce sends what a file lists, a record a line: key, payload in hex (- for a null one), record timestamp in
    milliseconds and, if wanted, the partition, between tabs. Lines !begin, !commit and !abort make it transactional.
    """

  struct Options {
    var bootstrap = ""
    var topic = ""
    var isBare = false
    var batch = 10_000
    var fill: Int?
    var create: Int32?
    var isDelete = false
    var produce: String?
    var configs: [(key: String, value: String)] = []
    var partitions: Int32 = 4
    var users = 72_000
    var properties: [(key: String, value: String)] = []
  }

  /// Runs the command.
  ///
  /// - Parameter arguments: what follows `kafka`. Ends with exit code 1 on failure, 2 on wrong usage.
  static func run(_ arguments: [String]) {
    if arguments.first == "--help" { return print(usage) }
    guard let options = parse(arguments) else {
      complain(usage + "\n")
      exit(2)
    }
    do throws(KafkaError) {
      try act(options)
    } catch {
      complain("rmsbench: \(error)\n")
      exit(1)
    }
  }

  private static func act(_ options: Options) throws(KafkaError) {
    if options.isDelete { return try Admin(bootstrapServers: options.bootstrap).deleteTopic(options.topic) }
    if let partitions = options.create {
      let admin = try Admin(bootstrapServers: options.bootstrap)
      return try admin.createTopic(options.topic, partitions: partitions, properties: options.configs)
    }
    if let path = options.produce {
      return try RecordFile.send(path, options.bootstrap, options.topic, properties: options.properties)
    }
    if let count = options.fill { return try fill(options, count) }
    try read(options)
  }

  private static func parse(_ arguments: [String]) -> Options? {
    var options = Options()
    var rest = arguments[...]
    while let word = rest.popFirst() {
      if word == "--bare" {
        options.isBare = true
        continue
      }
      if word == "--delete" {
        options.isDelete = true
        continue
      }
      guard let value = rest.popFirst() else { return nil }
      switch word {
      case "--bootstrap": options.bootstrap = value
      case "--topic": options.topic = value
      case "--batch":
        guard let number = Int(value), (1...100_000).contains(number) else { return nil }
        options.batch = number
      case "--fill":
        guard let number = Int(value), number > 0 else { return nil }
        options.fill = number
      case "--partitions":
        guard let number = Int32(value), (1...1_000).contains(number) else { return nil }
        options.partitions = number
      case "--users":
        guard let number = Int(value), number > 0 else { return nil }
        options.users = number
      case "--create":
        guard let number = Int32(value), (1...1_000).contains(number) else { return nil }
        options.create = number
      case "--produce": options.produce = value
      case "--set", "--config":
        guard let cut = value.firstIndex(of: "=") else { return nil }
        let pair = (String(value[..<cut]), String(value[value.index(after: cut)...]))
        if word == "--set" { options.properties.append(pair) } else { options.configs.append(pair) }
      default: return nil
      }
    }
    return options.bootstrap.isEmpty || options.topic.isEmpty ? nil : options
  }

  // MARK: - Reading

  private static func read(_ options: Options) throws(KafkaError) {
    let facts = try Admin(bootstrapServers: options.bootstrap).facts(options.topic)
    let settings = ConsumerSettings(
      bootstrapServers: options.bootstrap, topic: options.topic, groupID: "rmsbench-\(getpid())",
      properties: options.properties, addsIncrements: false, batchCountMax: options.batch)
    var start = Usage.now
    let records =
      options.isBare
      ? try BareReader(settings).count(partitions: facts.partitions) { start = Usage.now }
      : try consume(settings, partitions: facts.partitions) { start = Usage.now }
    let end = Usage.now
    let seconds = end.wall - start.wall
    let millions = Double(records) / 1e6
    print(
      """
      \(options.isBare ? "bare" : "consumer") records \(records) seconds \(rounded(seconds)) \
      records/s \(Int(Double(records) / seconds)) cpu_s/M \(rounded((end.process - start.process) / millions)) \
      calling_thread_cpu_s/M \(rounded((end.thread - start.thread) / millions))
      """)
  }

  private static func consume(
    _ settings: ConsumerSettings, partitions: Int32, started: () -> Void
  ) throws(KafkaError) -> UInt64 {
    let consumer = try Consumer(settings)
    var events: [ConsumerEvent] = []
    var records: UInt64 = 0
    var ends: Set<Int32> = []
    while ends.count < Int(partitions) {
      events.removeAll(keepingCapacity: true)
      consumer.poll(timeoutMs: 200, into: &events)
      for event in events {
        switch event {
        case .batch(let batch):
          if records == 0 { started() }
          records += UInt64(batch.count)
          batch.release()
        case .endOfPartition(let partition, _): ends.insert(partition)
        case .fatal(let error), .partitionError(_, let error): throw error
        case .sourceError(let error): complain("rmsbench: \(error)\n")
        case .topic, .assigned, .revoked, .partitionCleared, .sourceCleared, .partitionsGrew, .groupOffset,
          .heldBack, .heldBackEnded, .log:
          continue
        }
      }
    }
    events.removeAll()
    return records
  }

  // MARK: - Filling

  private static func fill(_ options: Options, _ count: Int) throws(KafkaError) {
    let admin = try Admin(bootstrapServers: options.bootstrap)
    try admin.createTopic(options.topic, partitions: options.partitions)
    let producer = try Producer(bootstrapServers: options.bootstrap, topic: options.topic, lingerMs: 50)
    let start = Usage.now
    // A record a user, patched in place: the user's number ends the id, the steps are two digits.
    var record = Array(
      #"{"uuid":"00000000-0000-4000-8000-000000000000","steps":10,"timestamp":"2026-11-24 12:00:00"}"#.utf8)
    var random: UInt64 = 42
    for _ in 0..<count {
      random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let user = Int(truncatingIfNeeded: random >> 33) % options.users
      var id = mixed(UInt64(user))
      for place in Array(9..<17) + Array(33..<45) {
        let digit = UInt8(id & 15)
        record[place] = digit < 10 ? 0x30 + digit : 0x57 + digit
        id = id >> 4 | id << 60
      }
      let steps = Int(random >> 20 & 63) + 10
      record[54] = 0x30 + UInt8(steps / 10)
      record[55] = 0x30 + UInt8(steps % 10)
      let result: Result<Void, KafkaError> = record.withUnsafeBytes { bytes in
        Result { () throws(KafkaError) in
          try producer.produce(
            bytes, key: UnsafeRawBufferPointer(rebasing: bytes[9..<45]), timestampMs: 1_795_521_600_000)
        }
      }
      try result.get()
    }
    guard producer.flush(timeoutMs: 120_000), producer.counts.failed == 0 else {
      complain("rmsbench: \(producer.pending) undelivered, \(producer.counts)\n")
      exit(1)
    }
    print("produced \(producer.counts.produced) seconds \(rounded(Usage.now.wall - start.wall))")
  }

  /// Spreads small numbers over all 64 bits.
  private static func mixed(_ value: UInt64) -> UInt64 {
    var z = value &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  private static func rounded(_ value: Double) -> Double { (value * 1_000).rounded() / 1_000 }
}

/// Wall and CPU seconds at one moment.
struct Usage {
  var wall: Double
  /// Of all threads.
  var process: Double
  /// Of the calling thread.
  var thread: Double

  static var now: Usage {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Usage(
      wall: Double(time.tv_sec) + Double(time.tv_nsec) / 1e9, process: cpu(CLOCK_PROCESS_CPUTIME_ID),
      thread: cpu(CLOCK_THREAD_CPUTIME_ID))
  }

  private static func cpu(_ clock: clockid_t) -> Double {
    var time = timespec()
    clock_gettime(clock, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
