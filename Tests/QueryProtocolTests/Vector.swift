// The vectors of Protocol/vectors, and messages told in their words.

import Bytes
import Foundation
import QueryProtocol
import StepModel

/// One file of `Protocol/vectors`.
struct Vector: Sendable, CustomStringConvertible {
  let name: String
  /// `name = JSON value` lines in the file's order.
  let fields: [String: String]
  let bytes: [UInt8]

  var description: String { name }

  static let folder = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "../../Protocol").standardizedFileURL

  /// All of them, by name.
  static let all: [Vector] = {
    let folder = Vector.folder.appending(path: "vectors").path()
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return names.filter { $0.hasSuffix(".hex") }.sorted().compactMap { name in
      (try? String(contentsOfFile: folder + "/" + name, encoding: .utf8)).map { Vector(name, $0) }
    }
  }()

  static func named(_ name: String) -> Vector? { all.first { $0.name == name + ".hex" } }

  private init(_ name: String, _ text: String) {
    self.name = name
    var fields: [String: String] = [:]
    var digits = ""
    for line in text.split(separator: "\n") where !line.hasPrefix("#") {
      if let equals = line.range(of: " = ") {
        fields[String(line[..<equals.lowerBound])] = String(line[equals.upperBound...])
      } else {
        digits += line
      }
    }
    self.fields = fields
    bytes = Hex.bytes(digits) ?? []
  }

  /// The name of the error that a server answers with; nil for a good message.
  var refused: String? { fields["refused"]?.trimmingCharacters(in: ["\""]) }

  /// The values, without those that speak of the vector itself.
  var values: [String: String] { fields.filter { $0.key != "first" } }
}

/// Values as JSON text, in the form that the vectors have.
enum Told {
  static func text(_ text: String) -> String {
    "\"" + text.replacingOccurrences(of: "\\", with: "\\\\").replacingOccurrences(of: "\"", with: "\\\"")
      + "\""
  }

  static func text(_ bytes: UnsafeRawBufferPointer) -> String { text(String(decoding: bytes, as: UTF8.self)) }

  static func list(_ parts: [String]) -> String { "[" + parts.joined(separator: ", ") + "]" }

  static func number<T: FixedWidthInteger>(_ value: T?) -> String { value.map { "\($0)" } ?? "null" }

  static func request(_ incoming: Incoming) -> [String: String] {
    var told = ["frame": "\"request\"", "id": "\(incoming.id)"]
    if let deadline = incoming.deadlineMillis { told["deadline_ms"] = "\(deadline)" }
    if !incoming.atLeast.isEmpty {
      told["at_least"] = list(incoming.atLeast.map { "[\($0.partition), \($0.offset)]" })
    }
    switch incoming.request {
    case .hello(let hello):
      told["kind"] = "\"hello\""
      told["version_min"] = "\(hello.versionMin)"
      told["version_max"] = "\(hello.versionMax)"
      told["name"] = text(hello.name)
      told["language"] = text(hello.language)
      told["version"] = text(hello.version)
      var options: [String] = []
      hello.forEachOption { options.append(list([text($0), text($1)])) }
      told["options"] = list(options)
    case .ping: told["kind"] = "\"ping\""
    case .top(let board, let limit, let from):
      told["kind"] = "\"top\""
      told["board"] = text(board.description)
      told["limit"] = "\(limit)"
      switch from {
      case .offset(let offset): told["offset"] = "\(offset)"
      case .after(let steps, let user): told["after"] = list(["\(steps)", text(user)])
      }
    case .rank(let board, let user):
      told["kind"] = "\"rank\""
      told["board"] = text(board.description)
      told["user"] = text(user)
    case .around(let board, let user, let k):
      told["kind"] = "\"around\""
      told["board"] = text(board.description)
      told["user"] = text(user)
      told["k"] = "\(k)"
    case .compare(let board, let users):
      told["kind"] = "\"compare\""
      told["board"] = text(board.description)
      told["users"] = list(users.map { text($0) })
    case .summary(let board, let quantiles):
      told["kind"] = "\"summary\""
      told["board"] = text(board.description)
      told["quantiles"] = list(quantiles.map { "\($0)" })
    case .boards: told["kind"] = "\"boards\""
    case .status: told["kind"] = "\"status\""
    case .deadLetters(let position, let limit, let skip):
      told["kind"] = "\"deadletters\""
      told["position"] = "\(position)"
      told["limit"] = "\(limit)"
      told["skip"] = "\(skip)"
    case .admin(let verb, let partition):
      told["kind"] = "\"admin\""
      told["verb"] = text(verb.name)
      told["partition"] = number(partition)
    }
    return told
  }

  static func marks(_ shards: [ShardMark], _ missing: [UInt32]) -> [String: String] {
    [
      "shards": list(
        shards.map { "[\($0.partition), \($0.watermark), \($0.ageMillis), \($0.flags.rawValue)]" }),
      "missing": list(missing.map { "\($0)" }),
    ]
  }

  static func context(_ context: AnswerContext) -> [String: String] {
    marks(context.shards, context.missing).merging(
      ["board": text(context.board.description), "state": text(context.state.name)]) { first, _ in first }
  }

  static func rows(_ kind: String, _ answer: RowsAnswer) -> [String: String] {
    context(answer.context).merging([
      "kind": text(kind), "users": "\(answer.users)", "total_steps": "\(answer.totalSteps)",
      "rows": list(
        answer.rows.map {
          list(["\($0.position)", "\($0.rank)", "\($0.tied)", "\($0.steps)", text($0.user.text)])
        }),
      "absent": list(answer.absent.map { text($0.text) }),
    ]) { first, _ in first }
  }

  static func answer(id: UInt32, _ response: Response) -> [String: String] {
    var told: [String: String]
    switch response {
    case .hello(let answer):
      told = [
        "kind": "\"hello\"", "version": "\(answer.version)", "server_min": "\(answer.serverVersionMin)",
        "server_max": "\(answer.serverVersionMax)", "node": text(answer.node),
        "cluster": text(answer.cluster),
        "software": text(answer.software), "frame_in": "\(answer.frameInBytesMax)",
        "frame_out": "\(answer.frameOutBytesMax)", "in_flight": "\(answer.inFlightMax)",
        "rows_max": "\(answer.rowsMax)", "ids_max": "\(answer.idsMax)", "roles": "\(answer.roles.rawValue)",
        "unknown_options": list(answer.unknownOptions.map { text($0) }),
      ]
    case .ping: told = ["kind": "\"ping\""]
    case .top(let answer): told = rows("top", answer)
    case .around(let answer): told = rows("around", answer)
    case .compare(let answer): told = rows("compare", answer)
    case .rank(let marks, let answer):
      told = context(marks).merging([
        "kind": "\"rank\"", "on_board": answer.onBoard ? "1" : "0", "rank": "\(answer.rank)",
        "tied": "\(answer.tied)",
        "steps": "\(answer.steps)", "users": "\(answer.users)", "above": "\(answer.above)",
        "next_above_steps": number(answer.nextAboveSteps), "next_below_steps": number(answer.nextBelowSteps),
      ]) { first, _ in first }
    case .summary(let answer):
      told = context(answer.context).merging([
        "kind": "\"summary\"", "users": "\(answer.users)", "total_steps": "\(answer.totalSteps)",
        "quantiles": list(answer.quantiles.map { "[\($0.q), \($0.steps)]" }),
      ]) { first, _ in first }
    case .boards(let answer):
      told = marks(answer.shards, answer.missing)
      told["kind"] = "\"boards\""
      told["boards"] = list(
        answer.boards.map {
          list([
            text($0.board.description), text($0.state.name), "\($0.users)", "\($0.totalSteps)",
            number($0.startsMillis), number($0.endsMillis),
          ])
        })
    case .status(let answer): told = status(answer)
    case .deadLetters(let answer): told = deadLetters(answer)
    case .admin(let answer): told = ["kind": "\"admin\"", "text": text(answer.text)]
    case .error(let answer):
      told = [
        "kind": "\"error\"", "code": "\(answer.code.rawValue)", "retryable": answer.retryable ? "1" : "0",
        "text": text(answer.text),
      ]
    }
    told["frame"] = "\"answer\""
    told["id"] = "\(id)"
    return told
  }

  static func deadLetters(_ answer: DeadLettersAnswer) -> [String: String] {
    [
      "kind": "\"deadletters\"", "next": "\(answer.next)",
      "letters": list(
        answer.letters.map { letter in
          list([
            "\(letter.position)", text(letter.topic), "\(letter.partition)", "\(letter.offset)",
            "\(letter.timestamp)", text(letter.reason.name), number(letter.bytes),
            text(Hex.text(letter.part)),
          ])
        }),
    ]
  }

  static func status(_ answer: StatusAnswer) -> [String: String] {
    [
      "kind": "\"status\"", "node": text(answer.node), "cluster": text(answer.cluster),
      "software": text(answer.software), "state": text(answer.state.name),
      "uptime_ms": "\(answer.uptimeMillis)",
      "shards": list(
        answer.shards.map { shard in
          list([
            "\(shard.partition)", text(shard.state.name), text(shard.reason), "\(shard.watermark)",
            "\(shard.endOffset)", "\(shard.lag)", "\(shard.counted)", list(shard.rejected.map { "\($0)" }),
            "\(shard.superseded)", "\(shard.shardClockMillis)", "\(shard.users)", "\(shard.durable)",
            "\(shard.snapshot)", "\(shard.sealed)", "\(shard.restoredBytes)", "\(shard.restoreBytes)",
          ])
        }),
      "counters": list(answer.counters.map { list([text($0.name), "\($0.value)"]) }),
      "problem": text(answer.problem),
    ]
  }
}

extension OwnedRequest {
  /// A copy of a decoded request.
  init(_ request: Request) {
    func owned(_ bytes: UnsafeRawBufferPointer) -> String { String(decoding: bytes, as: UTF8.self) }
    func user(_ bytes: UnsafeRawBufferPointer) -> UserID {
      guard let user = UserID(owned(bytes)) else { preconditionFailure("decoded a bad user id") }
      return user
    }
    switch request {
    case .hello(let hello):
      var options: [Option] = []
      hello.forEachOption { options.append(Option(key: owned($0), value: owned($1))) }
      let client = ClientName(
        name: owned(hello.name), language: owned(hello.language), version: owned(hello.version))
      self = .hello(
        versionMin: hello.versionMin, versionMax: hello.versionMax, client: client, options: options)
    case .ping: self = .ping
    case .top(let board, let limit, .offset(let offset)):
      self = .top(board: board, limit: UInt32(limit), from: .offset(offset))
    case .top(let board, let limit, .after(let steps, let last)):
      self = .top(board: board, limit: UInt32(limit), from: .after(steps: steps, user: user(last)))
    case .rank(let board, let id): self = .rank(board: board, user: user(id))
    case .around(let board, let id, let k): self = .around(board: board, user: user(id), k: UInt32(k))
    case .compare(let board, let users): self = .compare(board: board, users: users.map(user))
    case .summary(let board, let quantiles): self = .summary(board: board, quantiles: Array(quantiles))
    case .boards: self = .boards
    case .status: self = .status
    case .deadLetters(let position, let limit, let skip):
      self = .deadLetters(position: position, limit: UInt32(limit), skip: UInt32(skip))
    case .admin(let verb, let partition): self = .admin(verb, partition: partition)
    }
  }
}

/// The one frame that `bytes` hold.
func onlyFrame(_ bytes: UnsafeRawBufferPointer) -> Frame? {
  var splitter = FrameSplitter.answers()
  guard case .frame(let frame, let consumed) = splitter.next(bytes), consumed == bytes.count else {
    return nil
  }
  return frame
}
