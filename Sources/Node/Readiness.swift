// Is the node alive, is it ready: named checks over a view of its state, and the page that shows them.

import HTTPFace

/// A named condition; `problem` says why it does not hold, nil if it does.
struct HealthCheck: Equatable {
  let name: String
  let problem: String?
}

/// What readiness is judged by, read off the node at one moment.
struct ReadinessView {
  var isStopping = false
  var sourceProblem: String?
  /// Partitions of the topic; 0 until it was found.
  var partitions: Int32 = 0
  var shards = 0
  /// Partitions not caught up once yet, ascending.
  var catchingUp: [Int32] = []
  /// Stopped partitions, ascending, each with its reason.
  var stopped: [(partition: Int32, reason: String)] = []
  /// Partitions whose thread stands still.
  var stuck: [Int32] = []
  var deadLettersAreWritable = true
  var diskFreeBytes: UInt64?

  /// The checks, in the order in which a node passes them.
  var checks: [HealthCheck] {
    [
      HealthCheck(name: "node", problem: isStopping ? "stopping" : nil),
      HealthCheck(name: "kafka", problem: sourceProblem),
      HealthCheck(name: "topic", problem: partitions > 0 ? nil : "not found yet"),
      HealthCheck(name: "shards", problem: shardsProblem),
      HealthCheck(
        name: "stopped",
        problem: stopped.isEmpty
          ? nil : stopped.map { "shard \($0.partition): \($0.reason)" }.joined(separator: "; ")),
      HealthCheck(
        name: "dead-letters",
        problem: !deadLettersAreWritable ? "not writable" : diskFreeBytes == 0 ? "the disk is full" : nil),
    ]
  }

  private var shardsProblem: String? {
    if !stuck.isEmpty { return "stuck: " + stuck.map(String.init).joined(separator: ",") }
    if !catchingUp.isEmpty { return "catching up: \(catchingUp.count)" }
    return shards == 0 ? "none assigned" : nil
  }
}

/// The page of `/readyz`.
enum HealthPage {
  /// Shows the checks.
  ///
  /// - Parameters:
  ///   - checks: all there are.
  ///   - arguments: `verbose` shows all lines also when all is well; `exclude=NAME` leaves a check out, any number.
  /// - Returns: 200 if no check that counts has a problem, else 503 with a line for each check; 400 if `exclude`
  ///   names no check, so that a misspelt probe is found out at once.
  static func answer(_ checks: [HealthCheck], _ arguments: [HTTPRequest.Argument]) -> HTTPAnswer {
    let excluded = Set(arguments.filter { $0.name == "exclude" }.map(\.value))
    guard excluded.isSubset(of: checks.map(\.name)) else {
      let names = checks.map(\.name).joined(separator: ", ")
      return HTTPAnswer(status: 400, body: "exclude takes one of \(names)\n")
    }
    var isReady = true
    var lines = ""
    for check in checks {
      if excluded.contains(check.name) {
        lines += "[+]\(check.name) excluded\n"
      } else if let problem = check.problem {
        isReady = false
        lines += "[-]\(check.name) \(oneLine(problem))\n"
      } else {
        lines += "[+]\(check.name) ok\n"
      }
    }
    let isVerbose = arguments.contains { $0.name == "verbose" }
    return HTTPAnswer(
      status: isReady ? 200 : 503,
      body: isReady ? isVerbose ? lines + "ready\n" : "ok\n" : lines + "not ready\n")
  }

  private static func oneLine(_ text: String) -> String {
    String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 32 || $0.value == 127 ? " " : $0 }))
  }
}
