// What all commands that ask a node share: the connection, the board's name, and what to make of a failure.

import Node
import Posix
import QueryProtocol
import RankMySteps
import StepModel

extension Context {
  /// Connects to the node that was named.
  func connect() throws(Failure) -> RankClient {
    guard let target = HostPort(address) else {
      throw .usage("--address \(address): give HOST:PORT, such as 127.0.0.1:7670")
    }
    var settings = ClientSettings(name: "rmsctl")
    settings.connectTimeout = min(.seconds(5), timeout)
    settings.helloTimeout = min(.seconds(5), timeout)
    settings.requestTimeout = timeout
    return try asking { () throws(ClientError) in
      try RankClient.connect(host: target.host, port: target.port, settings: settings)
    }
  }

  /// Asks; a failure becomes the command's, with its exit code.
  func asking<R>(_ body: () throws(ClientError) -> R) throws(Failure) -> R {
    do throws(ClientError) { return try body() } catch {
      switch error {
      case .refused(.deadlineExceeded, _, let text), .refused(.atLeastTimeout, _, let text):
        throw .unreachable("\(address): \(text)")
      case .refused(.notAllowed, _, let text): throw .notAllowed("\(address): \(text)")
      case .refused(let code, _, let text): throw .refused("\(address): \(text) (\(code.name))")
      case .unreachable, .disconnected, .timedOut, .notRMS, .protocolBroken, .tooManyInFlight:
        throw .unreachable("\(address): \(error)")
      }
    }
  }

  /// Under `--strict` an answer that misses a shard is a failure, after it was shown.
  func check(_ missing: [UInt32]) throws(Failure) {
    if missing.isEmpty { return }
    let list = missing.map(String.init).joined(separator: ", ")
    if strict { throw .partial("the answer misses partitions \(list)") }
    Output.note("rmsctl: the answer misses partitions \(list)")
  }
}

extension Arguments {
  static let boardFlag = Flag("--board", "BOARD", "2026-11-24, 2026-W48, 2026-11 or all; today if not given.")

  /// The board that was named; today if none was.
  func board() throws(Failure) -> BoardName {
    guard let name = text("--board") else { return .today }
    guard let board = BoardID(name) else {
      throw .usage("--board \(name): no such date; a board is called 2026-11-24, 2026-W48, 2026-11 or all")
    }
    return .named(board)
  }

  /// A word as a user id.
  func user(_ word: String) throws(Failure) -> UserID {
    guard let user = UserID(word) else {
      throw .usage("'\(word)' is no user id: 1 to 64 bytes without control characters")
    }
    return user
  }
}
