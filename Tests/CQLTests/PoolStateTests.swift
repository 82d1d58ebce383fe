import Posix
import Testing

@testable import CQL

@Suite struct PoolStateTests {
  static func host(_ number: Int) -> HostPort { HostPort(host: "127.0.0.\(number)", port: 9042) }

  static func node(_ number: Int, datacenter: String = "dc1", at address: Int? = nil) -> NodeInfo {
    NodeInfo(
      hostID: CQLUUID(high: 0, low: UInt64(number)), address: host(address ?? number), datacenter: datacenter,
      rack: "r1", tokens: [Int64(number)])
  }

  static func topology(_ nodes: [NodeInfo]) -> Topology {
    Topology(local: nodes[0], nodes: nodes, replication: [:])
  }

  static func at(_ seconds: Int64) -> Moment { Moment(nanoseconds: seconds * 1_000_000_000) }

  /// The links that are to be dialled, by target.
  static func dials(_ actions: [PoolState.Action]) -> [HostPort: Int] {
    var dials: [HostPort: Int] = [:]
    for case .dial(let id, let target, _, _) in actions { dials[target] = id }
    return dials
  }

  /// A pool whose nodes are all connected, and their links.
  static func connected(_ nodes: [NodeInfo]) -> (pool: PoolState, links: [Int]) {
    var pool = PoolState(localDatacenter: nil, seed: 1)
    let first = dials(pool.contacts([nodes[0].address], at: at(0)))[nodes[0].address] ?? 0
    _ = pool.opened(first, .v5, at: at(0))
    let others = dials(pool.discovered(topology(nodes), by: first, at: at(0)))
    var links = [first]
    for node in nodes.dropFirst() {
      guard let id = others[node.address] else { continue }
      _ = pool.opened(id, .v5, at: at(0))
      links.append(id)
    }
    return (pool, links)
  }

  @Test("contact points are tried in turn until one opens; with none, their errors are told")
  func contactPoints() {
    var pool = PoolState(localDatacenter: nil, seed: 1)
    let targets = [Self.host(1), Self.host(2)]
    let first = pool.contacts(targets, at: Self.at(0))
    #expect(first == [.dial(1, targets[0], first: .v4, max: .v5)])
    let second = pool.ended(1, .unreachable("x"), at: Self.at(0))
    #expect(second == [.dial(2, targets[1], first: .v4, max: .v5)])
    var other = pool
    let failures = [
      PoolState.Failure(target: targets[0], error: .unreachable("x")),
      PoolState.Failure(target: targets[1], error: .silent),
    ]
    #expect(pool.ended(2, .silent, at: Self.at(0)) == [.giveUp(failures)])
    #expect(other.opened(2, .v5, at: Self.at(0)) == [.discover(2)])
  }

  @Test("a version is stepped down once, for all nodes, and stepped up where 4 is no longer allowed")
  func versions() {
    var pool = PoolState(localDatacenter: nil, seed: 1)
    _ = pool.contacts([Self.host(1)], at: Self.at(0))
    #expect(
      pool.ended(1, .versionRejected("", next: .v4), at: Self.at(0))
        == [.dial(2, Self.host(1), first: .v4, max: .v4)])
    guard case .giveUp? = pool.ended(2, .versionRejected("", next: .v4), at: Self.at(0)).first else {
      Issue.record("the same version is tried again and again")
      return
    }
    var newer = PoolState(localDatacenter: nil, seed: 1)
    _ = newer.contacts([Self.host(1)], at: Self.at(0))
    #expect(
      newer.ended(1, .versionRejected("", next: .v5), at: Self.at(0))
        == [.dial(2, Self.host(1), first: .v5, max: .v5)])
  }

  @Test("nodes of the local datacenter are dialled, others are not, and a node is its host id")
  func members() {
    var pool = PoolState(localDatacenter: nil, seed: 1)
    _ = pool.contacts([Self.host(1)], at: Self.at(0))
    _ = pool.opened(1, .v5, at: Self.at(0))
    let nodes = [Self.node(1), Self.node(2), Self.node(3, datacenter: "dc2")]
    let actions = pool.discovered(Self.topology(nodes), by: 1, at: Self.at(0))
    #expect(Set(Self.dials(actions).keys) == [Self.host(2)])
    #expect(pool.usable == [nodes[0].hostID])
    _ = pool.opened(Self.dials(actions)[Self.host(2)] ?? 0, .v5, at: Self.at(0))
    #expect(Set(pool.usable) == [nodes[0].hostID, nodes[1].hostID])
    // The second node moves to another address: its link there goes, and it is dialled at the new one.
    let moved = pool.discovered(
      Self.topology([nodes[0], Self.node(2, at: 9)]), by: 1, at: Self.at(1))
    #expect(moved.contains(.close(Self.dials(actions)[Self.host(2)] ?? 0)))
    #expect(Self.dials(moved)[Self.host(9)] != nil)
  }

  @Test("a lost node is dialled again with growing pauses, for as long as it is a member")
  func reconnecting() {
    var (pool, links) = Self.connected([Self.node(1), Self.node(2)])
    #expect(links.count == 2)
    var now = Self.at(10)
    var pauses: [Duration] = []
    for _ in 0..<8 {
      #expect(pool.ended(links[1], .lost("x"), at: now).isEmpty)
      let next = pool.expiresNext
      pauses.append(next - now)
      #expect(Self.dials(pool.expire(at: Moment(nanoseconds: next.nanoseconds - 1))).isEmpty)
      now = next
      links[1] = Self.dials(pool.expire(at: now))[Self.host(2)] ?? 0
    }
    #expect(pauses.first.map { $0 >= .milliseconds(50) && $0 <= .milliseconds(100) } == true)
    #expect(pauses.last.map { $0 > .seconds(3) && $0 <= .seconds(10) } == true)
    let gone = pool.discovered(Self.topology([Self.node(1)]), by: links[0], at: now)
    #expect(gone == [.close(links[1])])
  }

  @Test("the control link's end hands its work to another link; the last link's end resolves the names again")
  func control() {
    var (pool, links) = Self.connected([Self.node(1), Self.node(2)])
    #expect(pool.ended(links[0], .lost("x"), at: Self.at(1)) == [.discover(links[1])])
    #expect(pool.ended(links[1], .lost("x"), at: Self.at(1)).isEmpty)
    var actions: [PoolState.Action] = []
    for _ in 0..<20 where !actions.contains(.resolve) { actions += pool.expire(at: pool.expiresNext) }
    #expect(actions.contains(.resolve))
    let again = Self.dials(pool.contacts([Self.host(7)], at: Self.at(5)))[Self.host(7)] ?? 0
    #expect(pool.opened(again, .v5, at: Self.at(5)) == [.discover(again)])
    _ = pool.discovered(Self.topology([Self.node(1, at: 7)]), by: again, at: Self.at(5))
    #expect(pool.usable == [Self.node(1).hostID])
  }

  @Test("a flood of events asks once, a second later; without events everything is asked each minute")
  func events() {
    var (pool, links) = Self.connected([Self.node(1)])
    #expect(pool.expiresNext == Self.at(60))
    for _ in 0..<100 {
      #expect(
        pool.heard(.topology(change: "NEW_NODE", address: [127, 0, 0, 9], port: 1), at: Self.at(10)).isEmpty)
    }
    #expect(pool.expiresNext == Self.at(11))
    #expect(pool.expire(at: Self.at(11)) == [.discover(links[0])])
    #expect(pool.expiresNext == Self.at(71))
    // DOWN for a node that answers is a rumour.
    _ = pool.heard(.status(change: "DOWN", address: [127, 0, 0, 1], port: 9042), at: Self.at(20))
    #expect(pool.usable == [Self.node(1).hostID])
  }
}

@Suite struct ExecutionTests {
  static let a = CQLUUID(high: 0, low: 1)
  static let b = CQLUUID(high: 0, low: 2)
  static let now = Moment(nanoseconds: 0)

  static func execution(_ plan: [CQLUUID], isIdempotent: Bool = true, statements: [String] = []) -> Execution
  {
    Execution(
      plan: plan, until: Moment(nanoseconds: 12_000_000_000), isIdempotent: isIdempotent,
      statements: statements.map { ForgottenStatement(text: $0, id: Array($0.utf8)) })
  }

  static func server(_ kind: ServerError.Kind) -> AttemptError {
    .server(ServerError(code: 0x1001, message: "", kind: kind))
  }

  @Test("a busy node is left for the next one after a pause that grows, within the deadline")
  func overloaded() {
    var budget = RetryBudget()
    var execution = Self.execution([Self.a, Self.b])
    #expect(execution.next(at: Self.now) == .send(node: Self.a))
    let action = execution.failed(Self.server(.overloaded), at: Self.now, budget: &budget)
    #expect(action == .wait(until: Self.now + .milliseconds(50)))
    #expect(execution.next(at: Self.now + .milliseconds(50)) == .send(node: Self.b))
    let error = Self.server(.overloaded)
    #expect(execution.failed(error, at: Self.now, budget: &budget) == .finish(error))
    var late = Self.execution([Self.a, Self.b])
    _ = late.next(at: Self.now)
    #expect(late.failed(error, at: Self.now + .milliseconds(11_990), budget: &budget) == .finish(error))
  }

  @Test("a storm of errors earns a tenth of retries and no more")
  func budget() {
    var budget = RetryBudget()
    var retries = 0
    for _ in 0..<10_000 {
      budget.asked()
      var execution = Self.execution([Self.a, Self.b])
      _ = execution.next(at: Self.now)
      if case .wait = execution.failed(Self.server(.overloaded), at: Self.now, budget: &budget) {
        retries += 1
      }
    }
    #expect((1000...1011).contains(retries))
  }

  @Test("what was not sent goes to each node of the plan once, idempotent or not, and costs no retry")
  func notSent() {
    var budget = RetryBudget()
    let before = budget
    var execution = Self.execution([Self.a, Self.b], isIdempotent: false)
    _ = execution.next(at: Self.now)
    #expect(execution.failed(.notSent("x"), at: Self.now, budget: &budget) == .send(node: Self.b))
    #expect(execution.failed(.notSent("y"), at: Self.now, budget: &budget) == .finish(.notSent("y")))
    #expect(budget == before)
    var nobody = Self.execution([])
    #expect(nobody.next(at: Self.now) == .finish(.notSent("no node is connected")))
  }

  @Test("all statements of a request are prepared again, in order, before it is sent once more")
  func preparing() throws {
    var budget = RetryBudget()
    var execution = Self.execution([Self.a, Self.b], statements: ["p", "q"])
    _ = execution.next(at: Self.now)
    let forgot = Self.server(.unprepared(id: Array("q".utf8)))
    #expect(execution.failed(forgot, at: Self.now, budget: &budget) == .prepare(node: Self.a, text: "p"))
    func prepared(_ text: String) throws -> QueryResult {
      let answer = Answer.PreparedAnswer(
        id: Array(text.utf8), resultMetadataID: [], markers: [], partitionKey: [], columns: [])
      guard case .result(let result) = try CodecTests.heard(.prepared(answer)) else { return .void }
      return result
    }
    #expect(execution.answered(try prepared("p")) == .prepare(node: Self.a, text: "q"))
    #expect(execution.answered(try prepared("q")) == .send(node: Self.a))
    #expect(execution.answered(.void) == .finish(nil))
    // A connection that ends while preparing had nothing of the request on it.
    var other = Self.execution([Self.a, Self.b], isIdempotent: false, statements: ["p"])
    _ = other.next(at: Self.now)
    _ = other.failed(Self.server(.unprepared(id: Array("p".utf8))), at: Self.now, budget: &budget)
    #expect(other.failed(.lost(.silent), at: Self.now, budget: &budget) == .send(node: Self.b))
  }

  @Test("an unknown outcome is known as such")
  func outcomes() {
    let timeout = ServerError.Kind.writeTimeout(.one, received: 0, required: 1, .simple, contentions: nil)
    #expect(AttemptError.timedOut.isOutcomeUnknown && AttemptError.lost(.silent).isOutcomeUnknown)
    #expect(Self.server(timeout).isOutcomeUnknown)
    #expect(!AttemptError.notSent("").isOutcomeUnknown)
    #expect(!Self.server(.unavailable(.one, required: 1, alive: 0)).isOutcomeUnknown)
  }
}
