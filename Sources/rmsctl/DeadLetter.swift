// rmsctl deadletter: the records that were not counted, listed or written out byte for byte; from a node, or from a data
// folder without one.

import Bytes
import Console
import Node
import QueryProtocol
import RankMySteps
import StepModel

extension Command {
  static let deadletter = Command(
    name: "deadletter", summary: "records that were not counted, with their reasons",
    usage: """
      rmsctl deadletter ls
      rmsctl deadletter ls --reason malformed -o json
      rmsctl deadletter cat --partition 0 --offset 17 --raw > record.json
      rmsctl deadletter cat --data-dir /var/lib/rankmysteps | jq .

      usage: rmsctl deadletter ls|cat [--partition P] [--offset N] [--reason REASON] [--limit N] [--data-dir DIR]

      ls lists them, with the first 4,096 bytes of each in JSON. cat writes all of their bytes, each record followed by a
      newline, or by nothing with --raw; with -o json as base64 beside their place and reason.

      """,
    flags: [
      Arguments.partitionFlag, Flag("--offset", "N", "The record at this offset alone."),
      Flag("--reason", "REASON", RejectReason.allCases.map(\.name).joined(separator: ", ") + "."),
      Flag("--limit", "N", "At most so many records (all)."),
      Flag("--data-dir", "DIR", "Read the file in this data folder instead of asking a node."),
      Flag("--raw", nil, "cat: nothing between the records."),
    ]
  ) { (arguments, context) throws(Failure) in
    let verb = try arguments.onlyWord("ls or cat")
    let filter = try LetterFilter(arguments)
    switch verb {
    case "ls":
      var letters: [DeadLettersAnswer.Letter] = []
      try filter.walk(arguments, context) { (letter, _) throws(Failure) in letters.append(letter) }
      try context.output.show(Table(deadLetters: letters)) { $0.deadLetters(letters) }
    case "cat": try cat(filter, arguments, context)
    default: throw .usage("deadletter \(verb): give ls or cat")
    }
  }

  private static func cat(
    _ filter: LetterFilter, _ arguments: Arguments, _ context: Context
  ) throws(Failure) {
    let isRaw = arguments.has("--raw")
    guard arguments.text("--output") == "json" else {
      return try filter.walk(arguments, context) { (letter, whole) throws(Failure) in
        let bytes = try whole()
        if bytes == nil {
          Output.note("rmsctl: partition \(letter.partition) offset \(letter.offset): a null value")
        }
        try Output.write((bytes ?? []) + (isRaw ? [] : [0x0A]))
      }
    }
    // A record at a time: all of them together may be more than memory holds.
    var isFirst = true
    try Output.write("{\"records\":[")
    try filter.walk(arguments, context) { (letter, whole) throws(Failure) in
      var all = letter
      all.part = try whole() ?? []
      var writer = JSONWriter()
      writer.deadLetter(all)
      try Output.write((isFirst ? "" : ",") + writer.text)
      isFirst = false
    }
    try Output.write("]}\n")
  }
}

/// Which dead letters are wanted, and the walk over them.
private struct LetterFilter {
  let partition: UInt32?
  let offset: Int64?
  let reason: RejectReason?
  let limit: Int

  /// Bytes of a listed record.
  private static let listedBytesMax = Limits.deadLetterBytesMax

  init(_ arguments: Arguments) throws(Failure) {
    limit = try arguments.integer("--limit", default: Int.max, within: 1...Int.max)
    partition = try arguments.text("--partition").map { (text) throws(Failure) in
      try Arguments.partition(text)
    }
    let place = try arguments.integer("--offset", default: -1, within: 0...Int.max)
    offset = place < 0 ? nil : Int64(place)
    guard let name = arguments.text("--reason") else {
      reason = nil
      return
    }
    reason = RejectReason.allCases.first { $0.name == name }
    guard reason != nil else {
      throw .usage(
        "--reason \(name): give one of \(RejectReason.allCases.map(\.name).joined(separator: ", "))")
    }
  }

  private func wants(_ letter: DeadLettersAnswer.Letter) -> Bool {
    (partition == nil || letter.partition == partition) && (offset == nil || letter.offset == offset)
      && (reason == nil || letter.reason == reason)
  }

  /// What is done with a letter; `whole` brings all of its bytes, nil for a null value.
  typealias Body = (
    _ letter: DeadLettersAnswer.Letter, _ whole: () throws(Failure) -> [UInt8]?
  ) throws(Failure) -> Void

  /// Every wanted letter, in the order of the file.
  func walk(_ arguments: Arguments, _ context: Context, _ body: Body) throws(Failure) {
    if let folder = arguments.text("--data-dir") { return try walk(folder: folder, body) }
    let client = try context.connect()
    var position: UInt64 = 0
    var left = limit
    while left > 0 {
      let page = try context.asking { () throws(ClientError) in try client.deadLetters(from: position) }
      if page.letters.isEmpty { return }
      position = page.next
      for letter in page.letters.filter(wants).prefix(left) {
        left -= 1
        try body(letter) { () throws(Failure) in
          try context.asking { () throws(ClientError) in try client.wholeValue(of: letter) }
        }
      }
    }
  }

  private func walk(folder: String, _ body: Body) throws(Failure) {
    let reader = try LetterFilter.reading { () throws(DeadLetterError) in
      try DeadLetterReader(folder: folder)
    }
    var position = 0
    var left = limit
    while left > 0 {
      let page = try LetterFilter.reading { () throws(DeadLetterError) in
        try reader.read(from: position, limit: Limits.deadLettersMax)
      }
      if page.letters.isEmpty { return }
      position = page.next
      for stored in page.letters where left > 0 {
        let letter = DeadLettersAnswer.Letter(
          position: UInt64(stored.position), topic: stored.topic, partition: UInt32(stored.partition),
          offset: stored.offset, timestamp: stored.timestamp, reason: stored.reason,
          bytes: stored.payload.map { UInt32(clamping: $0.count) },
          part: Array((stored.payload ?? []).prefix(LetterFilter.listedBytesMax)))
        guard wants(letter) else { continue }
        left -= 1
        try body(letter) { stored.payload }
      }
    }
  }

  private static func reading<R: ~Copyable>(_ body: () throws(DeadLetterError) -> R) throws(Failure) -> R {
    do throws(DeadLetterError) { return try body() } catch {
      switch error {
      case .disk(let error): throw .refused("\(error)")
      case .damaged(let path, let place): throw .refused("\(path) is damaged at byte \(place)")
      }
    }
  }
}

extension Table {
  init(deadLetters letters: [DeadLettersAnswer.Letter]) {
    self.init(["topic", "#partition", "#offset", "reason", "#bytes", "record"])
    rows = letters.map { letter in
      [
        letter.topic, "\(letter.partition)", "\(letter.offset)", letter.reason.name,
        letter.bytes.map { "\($0)" } ?? "null",
        String(decoding: letter.part.prefix(200), as: UTF8.self),
      ]
    }
  }
}

extension JSONWriter {
  /// `"bytes"` is the length of the record's value, null for a null one; `"base64"` its first 4,096 bytes.
  mutating func deadLetters(_ letters: [DeadLettersAnswer.Letter]) {
    object {
      $0.key("records")
      $0.array { for letter in letters { $0.deadLetter(letter) } }
    }
  }

  /// One of them, with the bytes that it has here.
  mutating func deadLetter(_ letter: DeadLettersAnswer.Letter) {
    object {
      $0.member("topic", letter.topic)
      $0.member("partition", letter.partition)
      $0.member("offset", letter.offset)
      $0.member("reason", letter.reason.name)
      $0.member("bytes", letter.bytes)
      $0.member("timestamp_ms", letter.timestamp)
      $0.member("base64", letter.bytes == nil ? nil : Base64.text(letter.part))
    }
  }
}
