// The commands that feed a topic: produce (a file of records) and generate (records out of a seed).

import Bytes
import Console
import Glibc
import KafkaSource
import Node
import Posix
import StepModel

extension Command {
  private static let kafkaFlags = [
    Flag("--bootstrap", "HOST:PORT,…", "Brokers (RMS_KAFKA_BOOTSTRAP_SERVERS; 127.0.0.1:9092)."),
    Flag("--topic", "TOPIC", "Topic (RMS_KAFKA_TOPIC; steps)."),
  ]

  static let produce = Command(
    name: "produce", summary: "put a file of records on a topic",
    usage: """
      rmsctl produce reports.ndjson --topic steps
      zcat day.gz | rmsctl produce -

      usage: rmsctl produce FILE [--topic TOPIC] [--bootstrap HOST:PORT]

      One record a line; the line is sent as it is. Its `uuid`, where it has one, is the record's key, so that a user
      stays in one partition.

      """, flags: kafkaFlags
  ) { (arguments, context) throws(Failure) in
    let path = try arguments.onlyWord("FILE")
    let descriptor = path == "-" ? 0 : open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .refused("\(path): \(String(cString: strerror(errno)))") }
    var status = stat()
    let size =
      fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFREG ? Int(status.st_size) : nil
    if status.st_mode & S_IFMT == S_IFDIR { throw .refused("\(path): a folder, not a file") }
    let producer = try producer(arguments)
    var progress = Progress(total: size, unit: "bytes")
    var lines = LineReader(descriptor: descriptor)
    while let line = try lines.next() {
      if line.isEmpty { continue }
      let failure: Failure? = line.withUnsafeBytes { bytes in
        do throws(Failure) {
          try send(producer, bytes, key: RecordKey.find(bytes))
          return nil
        } catch { return error }
      }
      if let failure { throw failure }
      progress.show(done: lines.bytesRead, records: producer.counts.produced)
    }
    try finish(producer, &progress, context)
  }

  static let generate = Command(
    name: "generate", summary: "put made-up records on a topic",
    usage: """
      rmsctl generate --count 1000000                              six sources, 72,000 users, as fast as it goes
      rmsctl generate --rate 5000 --zipf --bad 0.01 --seconds 60   a minute of traffic, 1 % of it bad

      usage: rmsctl generate [--count N] [--rate N] [--seconds N] [--users N] …

      """,
    flags: kafkaFlags + [
      Flag("--count", "N", "Records in all (1000000, or without end under --rate)."),
      Flag("--rate", "N", "Records a second (as fast as it goes)."),
      Flag("--seconds", "N", "End after so many seconds."),
      Flag("--users", "N", "Users (72000)."),
      Flag("--sources", "N", "Sources the users are divided among (6)."),
      Flag("--zipf", nil, "A few users report often, most seldom; all alike if not given."),
      Flag("--bad", "SHARE", "Share of bad records, 0 to 1 (0)."),
      Flag("--late", "SHARE", "Share of records that are too late (0)."),
      Flag("--future", "SHARE", "Share of records from the future (0)."),
      Flag("--seed", "N", "The same seed makes the same users and steps (1)."),
    ]
  ) { (arguments, context) throws(Failure) in
    try arguments.noWords()
    var plan = GeneratorPlan()
    plan.users = try arguments.integer("--users", default: 72_000, within: 1...1_000_000_000)
    plan.sources = try arguments.integer("--sources", default: 6, within: 1...1_000_000)
    plan.spread = arguments.has("--zipf") ? .zipf : .uniform
    plan.badShare = try arguments.share("--bad")
    plan.lateShare = try arguments.share("--late")
    plan.futureShare = try arguments.share("--future")
    guard plan.badShare + plan.lateShare + plan.futureShare <= 1 else {
      throw .usage("the shares add up to more than 1")
    }
    plan.seed = UInt64(try arguments.integer("--seed", default: 1, within: 0...Int.max))
    let rate =
      arguments.has("--rate") ? try arguments.integer("--rate", default: 1, within: 1...100_000_000) : nil
    let isEndless = rate != nil || arguments.has("--seconds")
    let count = try arguments.integer("--count", default: isEndless ? .max : 1_000_000, within: 1...Int.max)
    let seconds = try arguments.integer("--seconds", default: 1_000_000_000, within: 1...1_000_000_000)
    let signals: Signals
    do throws(SystemError) { signals = try Signals([.interrupt, .terminate]) } catch {
      throw .refused("\(error)")
    }
    let producer = try producer(arguments)
    var progress = Progress(total: count == .max ? nil : count, unit: "records")
    var generator = Generator(plan)
    let started = Clock.system.now
    var pace = rate.map { Pace(perSecond: $0, from: started) }
    var sent = 0
    let end = started + .seconds(seconds)
    while sent < count, Clock.system.now < end {
      let due = min(count - sent, pace?.due(at: Clock.system.now) ?? 1_000)
      let now = Clock.system.wall / 1_000_000
      for _ in 0..<due {
        let record = generator.next(at: now)
        try send(producer, record.payload, key: record.key)
      }
      sent += due
      progress.show(done: sent, records: producer.counts.produced)
      // Under a rate, ten milliseconds' worth of records at a time.
      if (try? signals.wait(.milliseconds(pace == nil ? 0 : 10))) ?? nil != nil { break }
    }
    try finish(producer, &progress, context)
  }

  private static func producer(_ arguments: Arguments) throws(Failure) -> Producer {
    func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
    let bootstrap =
      arguments.text("--bootstrap") ?? environment("RMS_KAFKA_BOOTSTRAP_SERVERS") ?? "127.0.0.1:9092"
    let topic = arguments.text("--topic") ?? environment("RMS_KAFKA_TOPIC") ?? "steps"
    do throws(KafkaError) {
      _ = try Admin(bootstrapServers: bootstrap).facts(topic, timeoutMs: 10_000)
      return try Producer(bootstrapServers: bootstrap, topic: topic)
    } catch {
      switch error {
      case .unknownTopic: throw .refused("\(bootstrap): topic \(topic) does not exist; create it first")
      default: throw .unreachable("\(bootstrap): \(error)")
      }
    }
  }

  private static func send(
    _ producer: Producer, _ bytes: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer?
  ) throws(Failure) {
    do throws(KafkaError) { try producer.produce(bytes, key: key) } catch { throw .refused("\(error)") }
  }

  private static func finish(_ producer: Producer, _ progress: inout Progress, _ context: Context)
    throws(Failure)
  {
    _ = producer.flush(timeoutMs: 60_000)
    progress.end()
    let counts = producer.counts
    let failed = counts.failed + UInt64(producer.pending)
    var table = Table(["#produced", "#failed", "#seconds"])
    table.rows = [["\(counts.produced)", "\(failed)", "\(progress.seconds)"]]
    try context.output.show(table) {
      $0.object {
        $0.member("produced", counts.produced)
        $0.member("failed", failed)
        $0.member("seconds", progress.seconds)
      }
    }
    if failed > 0 {
      throw .refused(
        "\(failed) records were not produced: \(counts.firstFailure.map { "\($0)" } ?? "no answer in time")")
    }
  }
}

extension Arguments {
  /// The flag's value as a share.
  func share(_ flag: String) throws(Failure) -> Double {
    guard let text = text(flag) else { return 0 }
    guard let value = Double(text), (0...1).contains(value) else {
      throw .usage("\(flag) \(text): give a share from 0 to 1, such as 0.01")
    }
    return value
  }
}

/// How far a long command is, on standard error, if that is a terminal.
struct Progress {
  private let total: Int?
  private let unit: String
  private let started = Clock.system.now
  private var shownAt = Moment(nanoseconds: 0)
  private let isShown = isatty(2) == 1

  init(total: Int?, unit: String) {
    self.total = total
    self.unit = unit
  }

  /// Seconds since it began, in milliseconds' steps.
  var seconds: Double { Double((Clock.system.now - started).nanoseconds / 1_000_000) / 1000 }

  mutating func show(done: Int, records: UInt64) {
    guard isShown else { return }
    let now = Clock.system.now
    guard now - shownAt >= .milliseconds(200) else { return }
    shownAt = now
    let share = total.map { $0 > 0 ? " \(min(100, done * 100 / $0)) %" : "" } ?? ""
    let rate = seconds > 0 ? Int(Double(records) / seconds) : 0
    FileHandle.note("\r\(records) records\(share)  \(rate)/s\u{1B}[K")
  }

  func end() { if isShown { FileHandle.note("\r\u{1B}[K") } }

  private enum FileHandle {
    static func note(_ text: String) { _ = text.withCString { write(2, $0, strlen($0)) } }
  }
}

/// Lines of a file or pipe, without their newlines.
struct LineReader {
  private let descriptor: Int32
  private var buffer: [UInt8] = []
  private var start = 0
  private var isAtEnd = false
  private(set) var bytesRead = 0

  /// Longest line: what a broker takes by default.
  static let lineBytesMax = 1 << 20

  init(descriptor: Int32) { self.descriptor = descriptor }

  mutating func next() throws(Failure) -> ArraySlice<UInt8>? {
    while true {
      if let end = buffer[start...].firstIndex(of: UInt8(ascii: "\n")) {
        defer { start = end + 1 }
        return buffer[start..<end]
      }
      if isAtEnd {
        defer { start = buffer.count }
        return start < buffer.count ? buffer[start...] : nil
      }
      guard buffer.count - start <= LineReader.lineBytesMax else {
        throw .refused("a line is longer than \(LineReader.lineBytesMax) bytes; is this one record a line?")
      }
      try fill()
    }
  }

  private mutating func fill() throws(Failure) {
    buffer.removeSubrange(..<start)
    start = 0
    let before = buffer.count
    buffer.append(contentsOf: repeatElement(0, count: 1 << 18))
    let count = buffer.withUnsafeMutableBytes { bytes in
      let room = UnsafeMutableRawBufferPointer(rebasing: bytes[before...])
      return read(descriptor, room.baseAddress, room.count)
    }
    buffer.removeLast((1 << 18) - max(0, count))
    guard count >= 0 else { throw .refused("cannot read: \(String(cString: strerror(errno)))") }
    bytesRead += count
    isAtEnd = count == 0
  }
}

/// The key of a record that is on its way to a topic.
enum RecordKey {
  /// The bytes of the first `"uuid": "…"` as they stand, or of its integer; nil if the record has none. Only chooses a
  /// partition: what the record means is decided by the node.
  ///
  /// - Parameter record: the record's bytes.
  /// - Returns: the key, borrowed from the record.
  static func find(_ record: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    let name = Array("\"uuid\"".utf8)
    var place = 0
    while place + name.count < record.count {
      guard record[place] == name[0], name.indices.allSatisfy({ record[place + $0] == name[$0] }) else {
        place += 1
        continue
      }
      var start = place + name.count
      while start < record.count, [0x20, 0x09, 0x3A].contains(record[start]) { start += 1 }
      let isText = start < record.count && record[start] == UInt8(ascii: "\"")
      if isText { start += 1 }
      var end = start
      let stops: [UInt8] = isText ? [0x22] : [0x2C, 0x7D, 0x20]
      while end < record.count, !stops.contains(record[end]) { end += 1 }
      return end > start ? UnsafeRawBufferPointer(rebasing: record[start..<end]) : nil
    }
    return nil
  }
}
