// rmsctl log: the segments of a data folder, their records, and whether every byte of them is as it was written. Reads
// files alone; no node is asked, and none is disturbed.

import Bytes
import Console
import Glibc
import Inspection
import SegmentLog
import StepModel

extension Command {
  static let log = Command(
    name: "log", summary: "the log in a data folder: its files, its records, its checksums",
    usage: """
      rmsctl log ls --data-dir /var/lib/rankmysteps
      rmsctl log cat --data-dir /var/lib/rankmysteps --partition 3 --offset 1200 --count 10
      rmsctl log verify --data-dir /var/lib/rankmysteps

      usage: rmsctl log ls|cat|verify --data-dir DIR [--topic T] [--partition P]
             rmsctl log cat --data-dir DIR … [--offset N] [--count N]

      ls: files with their offsets, records and bytes. cat: a line a record, counted or not. verify: every checksum and
      that each batch follows the one before; ends with 1 and names file and byte where that does not hold. A node may
      write to the folder all the while.

      """,
    flags: [
      Arguments.dataFlag, Flag("--topic", "TOPIC", "This topic alone (all)."), Arguments.partitionFlag,
      Flag("--offset", "N", "cat: from this Kafka offset on (0)."),
      Flag("--count", "N", "cat: at most so many records (all)."),
    ]
  ) { (arguments, context) throws(Failure) in
    let verb = try arguments.onlyWord("ls, cat or verify")
    let shards = try arguments.shards()
    switch verb {
    case "ls": try list(shards, context)
    case "cat": try cat(shards, arguments, context)
    case "verify": try verify(shards, context)
    default: throw .usage("log \(verb): give ls, cat or verify")
    }
  }

  // MARK: ls and verify

  fileprivate typealias Listed = (
    shard: ShardLog, files: [SegmentSummary], snapshots: [ShardLog.Snapshot]
  )

  private static func summaries(_ shards: [ShardLog]) throws(Failure) -> [Listed] {
    var listed: [Listed] = []
    for shard in shards {
      let files = try inspecting { () throws(InspectionError) in try shard.summaries() }
      let snapshots = try inspecting { () throws(InspectionError) in try shard.snapshots() }
      listed.append((shard, files, snapshots))
    }
    return listed
  }

  private static func list(_ shards: [ShardLog], _ context: Context) throws(Failure) {
    let listed = try summaries(shards)
    try context.output.show(Table(files: listed)) { $0.files(listed) }
  }

  /// Checksums and chains by the files' summaries, the content of each batch by reading it.
  private static func verify(_ shards: [ShardLog], _ context: Context) throws(Failure) {
    let listed = try summaries(shards)
    try context.output.show(Table(files: listed)) { $0.files(listed) }
    var problems: [String] = []
    for (shard, files, snapshots) in listed {
      problems += snapshots.compactMap { $0.problem.map { "\($0)" } }
      for file in files where file.state == .damaged || file.state == .refused {
        problems.append(
          "\(shard.path)/\(file.file)" + (file.atByte.map { ", byte \($0)" } ?? "") + ": "
            + (file.problem ?? file.state.rawValue))
      }
      for file in files where file.state == .torn {
        Output.note(
          "rmsctl: \(shard.path)/\(file.file), byte \(file.atByte ?? 0): the end is not whole: being written, or torn by a crash"
        )
      }
      let reach = try inspecting { () throws(InspectionError) in try shard.walk { _ in true } }
      let isSaid = files.contains { $0.state == .damaged || $0.state == .refused }
      if let damage = reach?.damage, !isSaid {
        problems.append("\(damage)")
      }
    }
    guard problems.isEmpty else { throw .refused(problems.joined(separator: "\nrmsctl: ")) }
  }

  // MARK: cat

  private static func cat(_ shards: [ShardLog], _ arguments: Arguments, _ context: Context) throws(Failure) {
    let offset = Int64(try arguments.integer("--offset", default: 0, within: 0...Int.max))
    var left = try arguments.integer("--count", default: Int.max, within: 1...Int.max)
    var printer = RecordPrinter(context.output)
    try printer.begin()
    for shard in shards where left > 0 {
      var failure: Failure?
      let reach = try inspecting { () throws(InspectionError) in
        try shard.walk(from: offset) { batch in
          do throws(Failure) {
            try records(of: batch, in: shard, from: offset) { (record) throws(Failure) in
              guard left > 0 else { return }
              left -= 1
              try printer.add(record)
            }
          } catch { failure = error }
          return failure == nil && left > 0
        }
      }
      if let failure { throw failure }
      if let damage = reach?.damage {
        try printer.end()
        throw .refused("\(damage)")
      }
    }
    try printer.end()
  }

  private static func records(
    of batch: DecodedBatch, in shard: ShardLog, from offset: Int64,
    _ body: (LoggedRecord) throws(Failure) -> Void
  ) throws(Failure) {
    if batch.header.kind == .gap {
      return try body(LoggedRecord(gap: batch.header.first..<batch.header.next, in: shard))
    }
    try batch.from(offset).forEachRow { (row) throws(Failure) in try body(LoggedRecord(row, in: shard)) }
  }

  /// What reading a data folder says, as the command's failure.
  static func inspecting<R>(_ body: () throws(InspectionError) -> R) throws(Failure) -> R {
    do throws(InspectionError) { return try body() } catch { throw .refused("\(error)") }
  }
}

extension Arguments {
  static let dataFlag = Flag("--data-dir", "DIR", "The node's data folder (RMS_DATA_DIR).")

  /// The folder that must be named.
  func dataFolder() throws(Failure) -> String {
    if let folder = text("--data-dir") { return folder }
    guard let folder = getenv("RMS_DATA_DIR") else {
      throw .usage("--data-dir DIR is missing: the node's data folder (or RMS_DATA_DIR)")
    }
    return String(cString: folder)
  }

  /// The shards of the folder, as far as they are wanted.
  func shards() throws(Failure) -> [ShardLog] {
    let folder = try dataFolder()
    let partition = try text("--partition").map { (text) throws(Failure) in try Arguments.partition(text) }
    let topic = text("--topic")
    let all = try Command.inspecting { () throws(InspectionError) in try ShardLog.all(in: folder) }
    let wanted = all.filter { shard in
      (topic == nil || shard.topic == topic)
        && (partition == nil || shard.partition == partition.map(Int32.init))
    }
    guard !wanted.isEmpty else {
      throw .refused(
        all.isEmpty ? "\(folder) holds no log" : "\(folder) holds no log of that topic and partition")
    }
    return wanted
  }
}

/// A record as it stands in the log, ready to be shown.
struct LoggedRecord {
  let topic: String
  let partition: Int32
  let offset: Int64
  /// Kafka timestamp, milliseconds since 1970; nil for a gap.
  var timestampMs: Int64?
  var user: String?
  var steps: UInt32?
  var time: String?
  var day: String?
  var source: String?
  /// Why it was not counted; nil if it was.
  var reason: String?
  /// The record's bytes, where the log has kept them.
  var payload: [UInt8]?
  /// First offset behind an accepted gap.
  var gapNext: Int64?

  init(gap: Range<Int64>, in shard: ShardLog) {
    (topic, partition, offset) = (shard.topic, shard.partition, gap.lowerBound)
    gapNext = gap.upperBound
    reason = "gap"
  }

  init(_ row: DecodedBatch.Row, in shard: ShardLog) {
    (topic, partition) = (shard.topic, shard.partition)
    switch row {
    case .event(let event, let timestamp, let bytes):
      offset = event.offset
      timestampMs = timestamp
      user = String(unsafeUninitializedCapacity: UserID.bytesMax) { buffer in
        buffer.baseAddress.map { event.user.write(to: $0) } ?? 0
      }
      steps = event.steps
      time = Instant.text(day: event.day, nanoseconds: event.timeOfDay)
      day = event.day.description
      source = event.source.map { String(decoding: $0, as: UTF8.self) }
      payload = bytes.map { Array($0) }
    case .rejected(let record):
      offset = record.offset
      timestampMs = record.timestampMs
      reason = record.reason.name
      payload = record.payload.map { Array($0) }
    }
  }

  /// What is shown of the bytes in a table.
  var shown: String {
    if let gapNext { return "offsets \(offset)..\(gapNext - 1) were accepted as lost" }
    return payload.map { String(decoding: $0.prefix(200), as: UTF8.self) } ?? ""
  }
}

/// Writes records in the form of `-o` as they come: a log may be longer than memory.
private struct RecordPrinter {
  private static let pageRows = 1_000

  private let output: Output
  private var table = RecordPrinter.page
  private var isFirst = true

  init(_ output: Output) { self.output = output }

  private static var page: Table {
    Table(["#partition", "#offset", "user", "#steps", "time", "day", "source", "reason", "record"])
  }

  mutating func begin() throws(Failure) {
    if output.format == .json { try Output.write("{\"records\":[") }
  }

  mutating func add(_ record: LoggedRecord) throws(Failure) {
    guard output.format == .json else {
      table.rows.append([
        "\(record.partition)", "\(record.offset)", record.user ?? "", record.steps.map { "\($0)" } ?? "",
        record.time ?? "", record.day ?? "", record.source ?? "", record.reason ?? "", record.shown,
      ])
      if table.rows.count == RecordPrinter.pageRows { try flush() }
      return
    }
    var writer = JSONWriter()
    writer.record(record)
    try Output.write((isFirst ? "" : ",\n") + writer.text)
    isFirst = false
  }

  mutating func end() throws(Failure) {
    if output.format == .json { return try Output.write("]}\n") }
    if isFirst || !table.rows.isEmpty { try flush() }
  }

  private mutating func flush() throws(Failure) {
    switch output.format {
    case .table: try Output.write(table.aligned(width: Terminal.columns))
    case .csv, .tsv:
      let text = table.separated(by: output.format == .csv ? "," : "\t")
      let rows = isFirst ? text[...] : text.drop { $0 != "\n" }.dropFirst()
      try Output.write(String(rows))
    case .json: break
    }
    isFirst = false
    table = RecordPrinter.page
  }
}

extension Table {
  fileprivate init(files listed: [Command.Listed]) {
    self.init([
      "topic", "#partition", "file", "state", "#from", "#next", "#events", "#rejected", "#bytes",
      "#file bytes",
      "problem",
    ])
    for (shard, files, snapshots) in listed {
      rows += snapshots.map { snapshot in
        [
          shard.topic, "\(shard.partition)", snapshot.file,
          snapshot.problem == nil ? "snapshot" : "damaged", "-", "\(snapshot.watermark)", "-", "-", "-",
          "\(snapshot.fileBytes)", snapshot.problem.map { "\($0)" } ?? "",
        ]
      }
      rows += files.map { file in
        let isKnown = file.state != .setAside
        let numbers = [file.from, file.next].map { $0 < 0 ? "-" : "\($0)" }
        let counts = ["\(file.events)", "\(file.rejected)", "\(file.bytes)", "\(file.fileBytes)"]
        let problem = file.problem.map { text in (file.atByte.map { "byte \($0): " } ?? "") + text }
        return [shard.topic, "\(shard.partition)", file.file, file.state.rawValue] + numbers
          + (isKnown ? counts : ["-", "-", "-", "-"]) + [problem ?? ""]
      }
    }
  }
}

extension JSONWriter {
  /// `"next"` is the first offset behind the file's records; `"bytes"` counts them uncompressed.
  fileprivate mutating func files(_ listed: [Command.Listed]) {
    object {
      $0.key("files")
      $0.array {
        for (shard, files, _) in listed { for file in files { $0.file(file, shard) } }
      }
      $0.key("snapshots")
      $0.array {
        for (shard, _, snapshots) in listed { for each in snapshots { $0.snapshot(each, shard) } }
      }
    }
  }

  private mutating func snapshot(_ snapshot: ShardLog.Snapshot, _ shard: ShardLog) {
    object {
      $0.member("topic", shard.topic)
      $0.member("partition", shard.partition)
      $0.member("file", snapshot.file)
      $0.member("watermark", snapshot.watermark)
      $0.member("file_bytes", snapshot.fileBytes)
      $0.member("problem", snapshot.problem.map { "\($0)" })
    }
  }

  private mutating func file(_ file: SegmentSummary, _ shard: ShardLog) {
    object {
      $0.member("topic", shard.topic)
      $0.member("partition", shard.partition)
      $0.member("file", file.file)
      $0.member("state", file.state.rawValue)
      $0.member("from", file.from < 0 ? nil : file.from)
      $0.member("next", file.next < 0 ? nil : file.next)
      $0.member("batches", file.batches)
      $0.member("events", file.events)
      $0.member("rejected", file.rejected)
      $0.member("bytes", file.bytes)
      $0.member("file_bytes", file.fileBytes)
      $0.member("problem", file.problem)
      $0.member("at_byte", file.atByte)
    }
  }

  /// `"kind"` is event, rejected or gap; `"base64"` the record's bytes, where the log has kept them.
  fileprivate mutating func record(_ record: LoggedRecord) {
    object {
      $0.member("kind", record.gapNext != nil ? "gap" : record.reason == nil ? "event" : "rejected")
      $0.member("topic", record.topic)
      $0.member("partition", record.partition)
      $0.member("offset", record.offset)
      if let next = record.gapNext { return $0.member("next", next) }
      $0.member("timestamp_ms", record.timestampMs)
      if record.reason == nil {
        $0.member("user", record.user)
        $0.member("steps", record.steps)
        $0.member("time", record.time)
        $0.member("day", record.day)
        $0.member("source", record.source)
      } else {
        $0.member("reason", record.reason)
      }
      $0.member("base64", record.payload.map { Base64.text($0) })
    }
  }
}
