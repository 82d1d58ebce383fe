import Posix
import TestSupport
import Testing

@testable import CQL

/// The whole driver against peers on loopback.
@Suite struct SessionTests {
  static func settings(_ peers: [Peer], _ change: (inout SessionSettings) -> Void = { _ in })
    -> SessionSettings
  {
    var settings = SessionSettings(contactPoints: peers.map(\.address))
    settings.requestTimeout = .seconds(5)
    change(&settings)
    return settings
  }

  static func cluster(_ count: UInt64) throws -> [Peer] {
    let peers = try (1...count).map { try Peer(number: $0) }
    let nodes = peers.enumerated().map { index, peer in
      Peer.Node(
        hostID: peer.hostID, address: peer.address, datacenter: "dc1",
        tokens: [Int64.max / Int64(count) * Int64(index)])
    }
    for peer in peers { peer.tell(nodes) }
    return peers
  }

  /// Waits for what other threads bring about, at most 10 s.
  static func eventually(_ condition: () -> Bool) -> Bool {
    let until = Clock.system.now + .seconds(10)
    let pause = Pause()
    while !condition() {
      if Clock.system.now > until { return false }
      pause.wait(.milliseconds(2))
    }
    return true
  }

  /// Waits until so many nodes are connected.
  static func isConnected(_ session: Session, to count: Int) -> Bool {
    eventually { session.nodes().filter(\.isConnected).count == count }
  }

  /// A cluster, and a session with all of it.
  static func connected(to count: Int) throws -> (peers: [Peer], session: Session) {
    let peers = try cluster(UInt64(count))
    let session = try Session.connect(settings(peers))
    #expect(isConnected(session, to: count))
    return (peers, session)
  }

  static func end(_ peers: [Peer], _ session: Session) {
    session.close()
    for peer in peers { peer.stop() }
  }

  static func failure(_ body: () throws(CQLError) -> Void) -> CQLError.Failure? {
    do throws(CQLError) { try body() } catch {
      if case .failed(let failure) = error { return failure }
    }
    return nil
  }

  static func isExecute(_ heard: Heard) -> Bool {
    if case .execute = heard.request { true } else { false }
  }

  static func error(_ code: Int32, _ kind: ServerError.Kind) -> Answer {
    .error(ServerError(code: code, message: "rule", kind: kind))
  }

  @Test(
    "a session settles at the best common version, and questions have their own answers in each way to talk")
  func versions() throws {
    let offers: [([String], [String], ProtocolVersion)] = [
      (["3/v3", "4/v4", "5/v5", "6/v6-beta"], ["snappy", "lz4"], .v5), (["4/v4", "5/v5"], [], .v5),
      (["3/v3", "4/v4", "5/v5-beta"], ["lz4"], .v4), (["4/v4"], [], .v4), (["5/v5"], ["lz4"], .v5),
    ]
    for (versions, compression, best) in offers {
      let peer = try Peer(Peer.Settings(versions: versions, compression: compression))
      defer { peer.stop() }
      let session = try Session.connect(Self.settings([peer]))
      defer { session.close() }
      let select = try session.prepare("SELECT key FROM k.t WHERE key = ?")
      let pipeline = Pipeline(session)
      for key in 0..<500 as Range<Int32> {
        pipeline.execute(try select.bind([.int(key)])) { (try? $0.first?.get("key", as: Int32.self)) == key }
      }
      #expect(pipeline.wait() == [], "\(versions)")
      #expect(session.nodes().map(\.version) == [best], "\(versions)")
    }
  }

  @Test(
    "a server that rejects version 5 although it offers it is asked in version 4 over a second connection")
  func fallsBack() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let refusal = ServerError(
      code: 0x0A, message: "Beta version of the protocol used (5/v5-beta)", kind: .protocolError)
    peer.when(
      1, { if case .startup = $0.request { $0.version == .v5 } else { false } }, .answer(.error(refusal)))
    var settings = Self.settings([peer])
    settings.connection.versionMax = .v5
    let session = try? Session.connect(settings)
    defer { session?.close() }
    #expect(peer.connections == 2)
    #expect(session?.nodes().count == 1)
  }

  @Test(
    "a wrong or a missing password is told once, by name, and not tried again", arguments: ["wrong", nil])
  func passwords(password: String?) throws {
    let peer = try Peer(Peer.Settings(password: "right"))
    defer { peer.stop() }
    var settings = Self.settings([peer])
    settings.connection.credentials = password.map { .init(user: "user", password: $0) }
    do throws(CQLError) {
      try Session.connect(settings).close()
      Issue.record("let in")
    } catch {
      guard case .connect(let failures) = error, case .authentication(let text)? = failures.first?.error
      else {
        Issue.record("\(error)")
        return
      }
      #expect(text.contains("password") && failures.count == 1)
    }
    #expect(peer.connections == 1)
    settings.connection.credentials = .init(user: "user", password: "right")
    let session = try Session.connect(settings)
    #expect(try session.execute(Statement("SELECT")).count == 1)
    session.close()
  }

  @Test("nobody at the address is told with the address")
  func nobody() throws {
    let listener = try Peer()
    let address = listener.address
    listener.stop()
    do throws(CQLError) {
      try Session.connect(SessionSettings(contactPoints: [HostPort(host: "127.0.0.1", port: 1), address]))
        .close()
      Issue.record("connected")
    } catch {
      guard case .connect(let failures) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(failures.first?.address == "127.0.0.1:1")
    }
  }

  @Test("a late answer is dropped, and its stream id is nobody else's before")
  func lateAnswers() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]) { $0.requestTimeout = .milliseconds(150) })
    defer { session.close() }
    let select = try session.prepare("SELECT key FROM k.t WHERE key = ?")
    peer.when(20, Self.isExecute, .withhold)
    let late = Pipeline(session)
    for key in 0..<20 as Range<Int32> { late.execute(try select.bind([.int(key)])) }
    #expect(late.wait() == ["no answer in time"])
    let later = Pipeline(session)
    for key in 100..<200 as Range<Int32> {
      if key == 150 { peer.release() }
      later.execute(try select.bind([.int(key)])) { (try? $0.first?.get("key", as: Int32.self)) == key }
    }
    #expect(later.wait() == [])
    #expect(peer.connections == 1)
  }

  @Test("an answer on a stream that nobody asked on ends the connection, and a new one is made")
  func foreignStream() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]))
    defer { session.close() }
    let select = try session.prepare("SELECT key FROM k.t WHERE key = ?")
    peer.when(1, Self.isExecute, .onStream(4711))
    let statement = try select.bind([.int(1)])
    let failure = Self.failure { () throws(CQLError) in try session.execute(statement) }
    guard case .lost(.protocolBroken(let text))? = failure?.error else {
      Issue.record("\(String(describing: failure))")
      return
    }
    #expect(text.contains("4711") && failure?.isOutcomeUnknown == true)
    #expect(Self.eventually { peer.connections == 2 && session.nodes().first?.isConnected == true })
    #expect(try session.execute(statement).count == 1)
  }

  @Test(
    "any damaged byte of an answer in version 5 is an unknown outcome, never a wrong row",
    arguments: Seed.some(12))
  func damagedAnswers(seed: Seed) throws {
    var random = seed.random
    let place = Int.random(in: 0...60, using: &random)
    let bit = UInt8(1) << UInt8.random(in: 0..<8, using: &random)
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]) { $0.requestTimeout = .milliseconds(400) })
    defer { session.close() }
    let select = try session.prepare("SELECT key FROM k.t WHERE key = ?")
    peer.when(1, Self.isExecute, .corrupt { $0[place % $0.count] ^= bit })
    let statement = try select.bind([.int(1)])
    let failure = Self.failure { () throws(CQLError) in try session.execute(statement) }
    #expect(failure?.isOutcomeUnknown == true)
  }

  @Test("a forgotten statement is prepared again on that connection, and the request sent once more")
  func unprepared() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]))
    defer { session.close() }
    let select = try session.prepare("SELECT key FROM k.t WHERE key = ?")
    let insert = try session.prepare("INSERT INTO k.t (key) VALUES (?)")
    peer.forget()
    let before = peer.heard.count
    #expect(try session.execute(select.bind([.int(5)])).first?.get("key", as: Int32.self) == 5)
    #expect(peer.heard.count - before == 3)
    peer.forget()
    var batch = Batch(.unlogged)
    batch.add(try insert.bind([.int(1)]))
    batch.add(try insert.bind([.int(2)]))
    try session.execute(batch)
    guard case .batch(let sent)? = peer.heard.last else {
      Issue.record("no batch")
      return
    }
    #expect(sent.statements.count == 2)
  }

  @Test("a node that forgets at once, or gives another id, fails the request after two rounds at most")
  func forgetful() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]))
    defer { session.close() }
    let select = try session.prepare("SELECT key FROM k.t WHERE key = ?")
    let statement = try select.bind([.int(1)])
    peer.when(.max, Self.isExecute, .answer(Self.error(0x2500, .unprepared(id: select.id))))
    let before = peer.heard.count
    let failure = Self.failure { () throws(CQLError) in try session.execute(statement) }
    guard case .notPrepared? = failure?.error else {
      Issue.record("\(String(describing: failure))")
      return
    }
    #expect(peer.heard.count - before == 5)
    let other = Answer.PreparedAnswer(
      id: [9], resultMetadataID: [], markers: [], partitionKey: [], columns: [])
    peer.when(1, { if case .prepare = $0.request { true } else { false } }, .answer(.prepared(other)))
    guard
      case .notPrepared(let text)? = Self.failure({ () throws(CQLError) in try session.execute(statement) })?
        .error
    else {
      Issue.record("another id was taken")
      return
    }
    #expect(text.contains("another id"))
  }

  @Test("rows with new columns are read by those, and later ones need no telling")
  func newColumns() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]))
    defer { session.close() }
    let select = try session.prepare("SELECT * FROM k.t WHERE key = ?")
    #expect(try session.execute(select.bind([.int(1)])).columns.count == 1)
    peer.changeColumns()
    for _ in 0..<2 {
      let page = try session.execute(select.bind([.int(2)]))
      #expect(page.columns.map(\.name) == ["key", "more1"])
      #expect(try page.first?.get("more1", as: Int32.self) == 1)
    }
    guard case .execute(_, let metadataID, _)? = peer.heard.last else {
      Issue.record("no execute")
      return
    }
    #expect(metadataID == [2])
  }

  @Test("a scan goes through empty pages to the end; a page that repeats itself without rows is an error")
  func emptyPages() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]))
    defer { session.close() }
    func page(_ keys: [Int32], next: UInt8?) -> Answer {
      .rows(
        ServedRows(columns: [Peer.marker], rows: keys.map { [.int($0)] }, pagingState: next.map { [$0] }))
    }
    @Sendable func state(_ heard: Heard) -> [UInt8]? {
      if case .query("SELECT all", let parameters) = heard.request {
        parameters.pagingState ?? []
      } else {
        nil
      }
    }
    peer.when(1, { state($0) == [] }, .answer(page([1, 2], next: 1)))
    for empty in 1..<50 as Range<UInt8> {
      peer.when(1, { state($0) == [empty] }, .answer(page([], next: empty + 1)))
    }
    peer.when(1, { state($0) == [50] }, .answer(page([3], next: 51)))
    peer.when(1, { state($0) == [51] }, .answer(page([], next: nil)))
    var keys: [Int32] = []
    var pages = 0
    try session.pages(Statement("SELECT all")) { page in
      pages += 1
      keys += page.compactMap { try? $0.get("key", as: Int32.self) }
      return true
    }
    #expect(keys == [1, 2, 3] && pages == 2)
    peer.when(.max, { state($0) != nil }, .answer(page([], next: 7)))
    #expect(throws: CQLError.pagingLoop) { try session.pages(Statement("SELECT all")) { _ in true } }
  }

  @Test("each error is tried again as often and as far as its kind allows")
  func retries() throws {
    let (peers, session) = try Self.connected(to: 3)
    defer { Self.end(peers, session) }
    let insert = try session.prepare("INSERT INTO k.t (key) VALUES (?)")
    for peer in peers { #expect(try Self.prepareOn(peer, session, insert)) }
    let timeout = ServerError.Kind.writeTimeout(.one, received: 0, required: 1, .simple, contentions: nil)
    let log = ServerError.Kind.writeTimeout(.one, received: 0, required: 1, .batchLog, contentions: nil)
    let failed = ServerError.Kind.readFailure(
      .one, received: 0, required: 1, .init(count: 1, reasons: [.init(address: [127, 0, 0, 1], code: 1)]),
      dataPresent: false)
    let late = ServerError.Kind.readTimeout(.one, received: 1, required: 1, dataPresent: false)
    // Code, kind, attempts if idempotent, attempts if not, nodes asked if idempotent.
    let table: [(Int32, ServerError.Kind, Int, Int, Int)] = [
      (0x0000, .server, 2, 1, 2), (0x1000, .unavailable(.one, required: 1, alive: 0), 2, 2, 2),
      (0x1001, .overloaded, 2, 1, 2), (0x1002, .bootstrapping, 2, 2, 2), (0x1100, timeout, 2, 1, 2),
      (0x1100, log, 2, 1, 1), (0x1200, late, 2, 2, 1), (0x1300, failed, 1, 1, 1), (0x2200, .invalid, 1, 1, 1),
      (0x1700, .casWriteUnknown(.one, received: 0, required: 1), 1, 1, 1), (0x4321, .other, 1, 1, 1),
    ]
    for (code, kind, idempotent, other, nodes) in table {
      for peer in peers {
        peer.clearRules()
        peer.when(.max, Self.isExecute, .answer(Self.error(code, kind)))
      }
      var statement = try insert.bind([.int(1)])
      for isIdempotent in [true, false] {
        statement.isIdempotent = isIdempotent
        let asked = statement
        let failure = Self.failure { () throws(CQLError) in try session.execute(asked) }
        #expect(failure?.attempts.count == (isIdempotent ? idempotent : other), "\(kind)")
        if isIdempotent { #expect(Set(failure?.attempts.map(\.node) ?? []).count == nodes, "\(kind)") }
      }
    }
  }

  /// Runs the statement until the peer has learnt it.
  static func prepareOn(_ peer: Peer, _ session: Session, _ statement: PreparedStatement) throws -> Bool {
    for key in 0..<200 as Range<Int32> {
      try session.execute(statement.bind([.int(key)]))
      let knows = peer.heard.contains { if case .execute = $0 { true } else { false } }
      if knows { return true }
    }
    return false
  }

  @Test("requests go to replicas of their key, shared among them")
  func routing() throws {
    let (peers, session) = try Self.connected(to: 3)
    defer { Self.end(peers, session) }
    let insert = try session.prepare("INSERT INTO k.t (key) VALUES (?)")
    let ring = TokenRing(
      peers.enumerated().map { index, peer in
        NodeInfo(
          hostID: peer.hostID, address: peer.address, datacenter: "dc1", rack: "r1",
          tokens: [Int64.max / 3 * Int64(index)])
      })
    for key in 0..<200 as Range<Int32> {
      let statement = try insert.bind([.int(key)])
      let replicas = ring.replicas(try #require(statement.token), .simple(2))
      let before = peers.map(\.heard.count)
      try session.execute(statement)
      for (index, peer) in peers.enumerated() where peer.heard.count > before[index] {
        #expect(replicas.contains(peer.hostID), "key \(key)")
      }
    }
    #expect(peers.allSatisfy { $0.heard.count > 15 })
  }

  @Test("a node that ends its connections is gone round without a failed idempotent request, and comes back")
  func lostNode() throws {
    let (peers, session) = try Self.connected(to: 3)
    defer { Self.end(peers, session) }
    let insert = try session.prepare("INSERT INTO k.t (key) VALUES (?)")
    // The control link's node among them.
    for peer in peers {
      peer.when(1, Self.isExecute, .close)
      let pipeline = Pipeline(session)
      for key in 0..<100 as Range<Int32> {
        var statement = try insert.bind([.int(key)])
        statement.isIdempotent = true
        pipeline.execute(statement)
      }
      #expect(pipeline.wait() == [])
      #expect(Self.isConnected(session, to: 3))
    }
  }

  @Test("a node that joins is found by its event, one that leaves is let go")
  func topologyChanges() throws {
    let peers = try Self.cluster(2)
    let third = try Peer(number: 3)
    defer { for peer in peers + [third] { peer.stop() } }
    let session = try Session.connect(Self.settings([peers[0]]))
    defer { session.close() }
    #expect(Self.isConnected(session, to: 2))
    let nodes = (peers + [third]).map {
      Peer.Node(hostID: $0.hostID, address: $0.address, datacenter: "dc1", tokens: [Int64($0.hostID.low)])
    }
    for peer in peers + [third] { peer.tell(nodes) }
    // A flood, one of them of a kind nobody knows.
    for _ in 0..<50 {
      peers[0].send(.other("GRACEFUL_DISCONNECT"))
      peers[0].send(.topology(change: "NEW_NODE", address: [127, 0, 0, 1], port: Int(third.address.port)))
    }
    #expect(Self.isConnected(session, to: 3))
    for peer in peers + [third] { peer.tell([nodes[0], nodes[2]]) }
    peers[0].send(.topology(change: "REMOVED_NODE", address: [127, 0, 0, 1], port: 1))
    #expect(
      Self.eventually { session.nodes().map(\.hostID).sorted { $0.low < $1.low }.map(\.low) == [1, 3] })
    #expect(Self.eventually { peers[1].open == 0 })
  }

  @Test(
    "after a change of the schema the node that made it is asked whether all agree, not one that may not know yet"
  )
  func schemaAgreement() throws {
    let (peers, session) = try Self.connected(to: 3)
    defer { Self.end(peers, session) }
    let change = SchemaChange(change: "CREATED", target: "TABLE", keyspace: "k", name: "t", argumentTypes: [])
    @Sendable func text(_ request: Request) -> String {
      if case .query(let text, _) = request { text } else { "" }
    }
    for peer in peers { peer.when(.max, { text($0.request) == "CREATE" }, .answer(.schemaChange(change))) }
    for _ in 0..<6 { try session.execute(Statement("CREATE")) }
    for peer in peers {
      let texts = peer.heardAll.map(text)
      #expect(texts.filter { $0 == "CREATE" }.count == 2)
      #expect(texts.filter { $0.contains("schema_version") }.count == 4)
    }
  }

  @Test("a server without peers_v2 is asked for peers")
  func oldPeers() throws {
    let peer = try Peer(Peer.Settings(hasPeersV2: false))
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]))
    defer { session.close() }
    #expect(session.nodes().map(\.hostID) == [peer.hostID])
  }

  @Test("more requests than the session allows are refused as busy; what was accepted is answered")
  func busy() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]) { $0.inFlightMax = 10 })
    defer { session.close() }
    let select = try session.prepare("SELECT key FROM k.t WHERE key = ?")
    peer.when(10, Self.isExecute, .withhold)
    let pipeline = Pipeline(session)
    for key in 0..<10 as Range<Int32> { pipeline.execute(try select.bind([.int(key)])) }
    let one = try select.bind([.int(11)])
    #expect(throws: CQLError.busy(inFlightMax: 10)) { try session.execute(one) }
    #expect(Self.eventually { peer.heard.count == 11 })
    peer.release()
    #expect(pipeline.wait() == [])
    #expect(try session.execute(one).count == 1)
  }

  @Test(
    "a server that stops reading costs bounded memory: the rest is refused unsent, and what was sent is answered"
  )
  func stopsReading() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(
      Self.settings([peer]) {
        $0.outputBytesMax = 1 << 20
        $0.connection.compresses = false
      })
    defer { session.close() }
    let text = "SELECT " + String(repeating: "x", count: 20_000)
    @Sendable func isLong(_ heard: Heard) -> Bool {
      if case .query(let said, _) = heard.request { said.utf8.count > 20_000 } else { false }
    }
    peer.when(1, isLong, .stopReading)
    let pipeline = Pipeline(session)
    pipeline.execute(Statement(text))
    #expect(Self.eventually { peer.heard.count >= 1 })
    for _ in 0..<2000 { pipeline.execute(Statement(text)) }
    // The first is never answered: its reaction was to stop.
    peer.release()
    let problems = pipeline.wait()
    #expect(problems.contains("not sent: too much waits for the node's socket"))
    #expect(problems.isSubset(of: ["not sent: too much waits for the node's socket", "no answer in time"]))
    #expect(try session.execute(Statement("SELECT 1")).count == 1)
  }

  @Test("closing fails what is under way, and what comes after")
  func closing() throws {
    let peer = try Peer()
    defer { peer.stop() }
    let session = try Session.connect(Self.settings([peer]))
    peer.when(1, { if case .query("SELECT 1", _) = $0.request { true } else { false } }, .ignore)
    let pipeline = Pipeline(session)
    pipeline.execute(Statement("SELECT 1"))
    #expect(Self.eventually { peer.heard.count == 1 })
    session.close()
    #expect(pipeline.wait() == ["the session is closed"])
    #expect(throws: CQLError.closed) { try session.execute(Statement("SELECT 1")) }
    #expect(Self.eventually { peer.open == 0 })
  }

  @Test("a connection reset in any state of the handshake is told, and the next contact point is used")
  func resets() throws {
    let states: [@Sendable (Heard) -> Bool] = [
      { if case .options = $0.request { true } else { false } },
      { if case .startup = $0.request { true } else { false } },
      { if case .authResponse = $0.request { true } else { false } },
      { if case .register = $0.request { true } else { false } },
      { if case .query = $0.request { true } else { false } },
    ]
    for (index, state) in states.enumerated() {
      let bad = try Peer(Peer.Settings(password: "right"))
      let good = try Peer(Peer.Settings(password: "right"), number: 2)
      defer {
        bad.stop()
        good.stop()
      }
      bad.when(1, state, .close)
      var settings = Self.settings([bad, good])
      settings.connection.credentials = .init(user: "user", password: "right")
      let session = try Session.connect(settings)
      #expect(session.nodes().map(\.hostID) == [good.hostID], "state \(index)")
      session.close()
    }
  }
}
