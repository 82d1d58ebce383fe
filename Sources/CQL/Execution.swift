// One request from asking to its result: which node next, when, what to prepare again. Pure; `Session` obeys.
//
//     attempting ──result──> done
//      │   ▲   └─UNPREPARED─> preparing ──all prepared──> attempting, same node; after two rounds: done
//      ▼   │
//     pausing (overloaded)   the next node, or no node: done

internal import Posix

/// A statement of a request that a node may have forgotten.
struct ForgottenStatement: Equatable {
  var text: String
  var id: [UInt8]
}

struct Execution {
  enum Action: Equatable {
    case send(node: HostID)
    case prepare(node: HostID, text: String)
    case wait(until: Moment)
    case finish(AttemptError?)
  }

  /// What was tried, for whoever reads the failure.
  struct Attempt: Hashable {
    var node: HostID
    var error: AttemptError
  }

  static let roundsMax = 2
  static let pauseFirst: Duration = .milliseconds(50)

  let until: Moment
  let isIdempotent: Bool
  /// Statements the request runs by id, each once.
  let statements: [ForgottenStatement]
  /// Nodes in order of preference.
  private let plan: [HostID]
  private var planNext = 0
  private(set) var node: HostID?
  private(set) var attempts: [Attempt] = []
  private var rounds = 0
  /// How many of `statements` are prepared again in this round; nil while nothing is being prepared.
  private var prepared: Int?

  init(plan: [HostID], until: Moment, isIdempotent: Bool, statements: [ForgottenStatement]) {
    self.plan = plan
    self.until = until
    self.isIdempotent = isIdempotent
    self.statements = statements
  }

  /// Begins, or goes on after a pause.
  mutating func next(at now: Moment) -> Action {
    guard now < until else { return .finish(attempts.last?.error ?? .timedOut) }
    guard planNext < plan.count else {
      return .finish(attempts.last?.error ?? .notSent("no node is connected"))
    }
    node = plan[planNext]
    planNext += 1
    rounds = 0
    prepared = nil
    return .send(node: plan[planNext - 1])
  }

  /// The node answered what was asked of it, PREPARE or the request itself, without an error.
  mutating func answered(_ result: QueryResult) -> Action {
    guard let node else { preconditionFailure("an answer before anything was sent") }
    guard let index = prepared else { return .finish(nil) }
    guard case .prepared(let statement) = result else {
      return .finish(.malformed("PREPARE was answered by another result"))
    }
    guard statement.id == statements[index].id else {
      return .finish(.notPrepared("the node gives another id to: \(statements[index].text)"))
    }
    if index + 1 < statements.count {
      prepared = index + 1
      return .prepare(node: node, text: statements[index + 1].text)
    }
    prepared = nil
    return .send(node: node)
  }

  /// The attempt failed.
  mutating func failed(_ error: AttemptError, at now: Moment, budget: inout RetryBudget) -> Action {
    guard let node else { preconditionFailure("a failure before anything was sent") }
    if case .server(let server) = error, case .unprepared(let id) = server.kind, prepared == nil {
      return prepareAgain(id, on: node, error)
    }
    let earlier = attempts.map(\.error)
    attempts.append(Attempt(node: node, error: error))
    // While preparing, nothing of the request itself was under way: any node will do.
    let decision = RetryDecision.after(error, isIdempotent: isIdempotent || prepared != nil, earlier: earlier)
    switch decision {
    case .fail: return .finish(error)
    case .sameNode:
      guard now < until, budget.take() else { return .finish(error) }
      prepared = nil
      return .send(node: node)
    case .nextNode(let pauses):
      // What was never sent burdens nobody, and a connection ends once for all that was under way on it.
      switch error {
      case .notSent, .lost: return next(at: now)
      case .server, .timedOut, .notPrepared, .malformed: break
      }
      guard budget.take() else { return .finish(error) }
      let pause = Execution.pauseFirst * (1 << min(attempts.count - 1, 6))
      guard pauses else { return next(at: now) }
      // A cluster of one node may be asked again, too, once it had time.
      if planNext == plan.count { planNext = 0 }
      return now + pause < until ? .wait(until: now + pause) : .finish(error)
    }
  }

  private mutating func prepareAgain(_ id: [UInt8], on node: HostID, _ error: AttemptError) -> Action {
    guard statements.contains(where: { $0.id == id }) else {
      attempts.append(Attempt(node: node, error: error))
      return .finish(.notPrepared("the node misses a statement that was not sent"))
    }
    guard rounds < Execution.roundsMax else {
      let error = AttemptError.notPrepared("the node forgets it at once, \(rounds) times")
      attempts.append(Attempt(node: node, error: error))
      return .finish(error)
    }
    rounds += 1
    prepared = 0
    return .prepare(node: node, text: statements[0].text)
  }
}
