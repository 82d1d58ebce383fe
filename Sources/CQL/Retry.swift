// What to do about an attempt that failed: pure functions of the error, of whether the request may be run twice, and of
// what was tried before.

internal import Posix

/// Why an attempt on one node brought no result.
public enum AttemptError: Error, Hashable, Sendable {
  /// The server answered with an error.
  case server(ServerError)
  /// There was no connection, no free stream id or no room: nothing was sent.
  case notSent(String)
  /// The connection ended before the answer: it may or may not have been done.
  case lost(ConnectionError)
  /// No answer in time: it may or may not have been done.
  case timedOut
  /// The statement could not be prepared again on the node.
  case notPrepared(String)
  /// The answer is none to what was asked.
  case malformed(String)
}

extension AttemptError: CustomStringConvertible {
  /// A sentence for people.
  public var description: String {
    switch self {
    case .server(let error): "\(error)"
    case .notSent(let why): "not sent: \(why)"
    case .lost(let error): "no answer: \(error)"
    case .timedOut: "no answer in time"
    case .notPrepared(let why): "not prepared: \(why)"
    case .malformed(let what): "an answer that is none: \(what)"
    }
  }

  /// Whether the request may have been carried out all the same.
  public var isOutcomeUnknown: Bool {
    switch self {
    case .lost, .timedOut, .malformed: true
    case .notSent, .notPrepared: false
    case .server(let error):
      switch error.kind {
      case .writeTimeout, .writeFailure, .casWriteUnknown, .server, .overloaded, .cdcWriteFailure, .truncate,
        .other:
        true
      case .protocolError, .authentication, .unavailable, .bootstrapping, .readTimeout, .readFailure,
        .function, .syntax, .unauthorized, .invalid, .configuration, .alreadyExists, .unprepared:
        false
      }
    }
  }
}

enum RetryDecision: Equatable {
  /// Once more on the same node.
  case sameNode
  /// On the next node of the plan, after a pause if the cluster is busy.
  case nextNode(pauses: Bool)
  case fail

  /// Decides what follows an attempt. Each kind of error earns one retry, but what was never sent costs nothing.
  static func after(_ error: AttemptError, isIdempotent: Bool, earlier: [AttemptError]) -> RetryDecision {
    switch error {
    case .notSent: return .nextNode(pauses: false)
    case .lost, .timedOut:
      let hadOne = earlier.contains { $0 == .timedOut || $0.isLost }
      return isIdempotent && !hadOne ? .nextNode(pauses: false) : .fail
    case .notPrepared, .malformed: return .fail
    case .server(let error):
      if earlier.contains(where: { $0.code == error.code }) { return .fail }
      return after(error, isIdempotent: isIdempotent)
    }
  }

  private static func after(_ error: ServerError, isIdempotent: Bool) -> RetryDecision {
    switch error.kind {
    // Nothing was done.
    case .unavailable, .bootstrapping: return .nextNode(pauses: false)
    case .server, .truncate: return isIdempotent ? .nextNode(pauses: false) : .fail
    case .overloaded: return isIdempotent ? .nextNode(pauses: true) : .fail
    case .writeTimeout(_, _, _, .batchLog, _): return isIdempotent ? .sameNode : .fail
    case .writeTimeout: return isIdempotent ? .nextNode(pauses: true) : .fail
    // Enough replicas answered, the one with the data did not: it will now.
    case .readTimeout(_, let received, let required, let dataPresent):
      return received >= required && !dataPresent ? .sameNode : .fail
    case .protocolError, .authentication, .syntax, .unauthorized, .invalid, .configuration, .alreadyExists,
      .readFailure, .writeFailure, .function, .cdcWriteFailure, .casWriteUnknown, .unprepared, .other:
      return .fail
    }
  }
}

extension AttemptError {
  fileprivate var isLost: Bool {
    if case .lost = self { true } else { false }
  }

  fileprivate var code: Int32? {
    if case .server(let error) = self { error.code } else { nil }
  }
}

/// How many retries the cluster can bear: a tenth of the requests, and a few at once. Keeps a storm from feeding itself.
struct RetryBudget: Equatable {
  static let tenthsMax = 1000
  private var tenths = 100

  /// A request was asked.
  mutating func asked() { tenths = min(RetryBudget.tenthsMax, tenths + 1) }

  /// Takes a retry; false if none is left.
  mutating func take() -> Bool {
    guard tenths >= 10 else { return false }
    tenths -= 10
    return true
  }
}
