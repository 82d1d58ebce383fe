import Glibc
import Posix
import TestSupport
import Testing

@testable import CQL

/// Against a real cluster: `Ops/stack up cassandra`, then RMS_CASSANDRA_POINTS has its contact points, with commas.
private let points = getenv("RMS_CASSANDRA_POINTS").map { String(cString: $0) }
private let isRequired = getenv("RMS_REQUIRE_STACK").map { String(cString: $0) } == "1"

@Suite(.serialized, .enabled(if: points != nil || isRequired, "RMS_CASSANDRA_POINTS names no cluster"))
struct RealCassandraTests {
  let contactPoints: [HostPort]
  let session: Session
  let keyspace = "swift_\(getpid())"

  init() throws {
    let text = try #require(points, "RMS_REQUIRE_STACK=1, but RMS_CASSANDRA_POINTS names no cluster")
    contactPoints = text.split(separator: ",").compactMap { HostPort(String($0)) }
    session = try Self.connect(contactPoints)
    try session.execute(
      Statement(
        """
        CREATE KEYSPACE IF NOT EXISTS \(keyspace)
        WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
        """))
  }

  static func connect(
    _ points: [HostPort], _ version: ProtocolVersion = .v5, compresses: Bool = true
  ) throws -> Session {
    var settings = SessionSettings(contactPoints: points)
    // Asked for only where passwords are: `Ops/stack up cassandra --auth`.
    settings.connection.credentials = .init(user: "cassandra", password: "cassandra")
    settings.connection.versionMax = version
    settings.connection.compresses = compresses
    return try Session.connect(settings)
  }

  /// A table of this run and test alone.
  func table(_ name: String, _ columns: String) throws -> String {
    let table = "\(keyspace).\(name)"
    try session.execute(Statement("DROP TABLE IF EXISTS \(table)"))
    try session.execute(Statement("CREATE TABLE \(table) (\(columns))"))
    return table
  }

  @Test("all four ways to talk give the same rows, and the server's list of clients shows who talks how")
  func versions() throws {
    let table = try table("versions", "k int PRIMARY KEY, v text")
    for version in ProtocolVersion.allCases {
      for compresses in [false, true] {
        let session = try Self.connect(contactPoints, version, compresses: compresses)
        defer { session.close() }
        let insert = try session.prepare("INSERT INTO \(table) (k, v) VALUES (?, ?)")
        for k in 0..<20 {
          try session.execute(
            insert.bind([.int(Int32(k)), .text(String(repeating: "ä\(k)", count: 50 * k))]))
        }
        let select = try session.prepare("SELECT k, v FROM \(table) WHERE k = ?")
        for k in 0..<20 {
          let row = try #require(try session.execute(select.bind([.int(Int32(k))])).first)
          #expect(try row.get("k", as: Int32.self) == Int32(k))
          #expect(try row.get("v", as: String.self) == String(repeating: "ä\(k)", count: 50 * k))
        }
        #expect(session.nodes().allSatisfy { $0.version == version || !$0.isConnected })
        let clients = try session.execute(
          Statement("SELECT driver_name, protocol_version FROM system_views.clients"))
        #expect(
          try clients.contains {
            try $0.optional("driver_name", as: String.self) == "RankMySteps"
              && $0.get("protocol_version", as: Int32.self) == Int32(version.rawValue)
          })
      }
    }
  }

  @Test("our token of a key is the server's, for keys of one part and of three")
  func tokens() throws {
    var random = Seed(7).random
    let one = try table("tokens", "k blob PRIMARY KEY")
    let three = try table("tokens3", "a text, b int, c uuid, PRIMARY KEY ((a, b, c))")
    let insertOne = try session.prepare("INSERT INTO \(one) (k) VALUES (?)")
    let insertThree = try session.prepare("INSERT INTO \(three) (a, b, c) VALUES (?, ?, ?)")
    var expected: Set<Int64> = []
    let pipeline = Pipeline(session)
    for index in 0..<1500 {
      let key = (0..<Int.random(in: 1...40, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      let statement = try insertOne.bind([.blob(key)])
      expected.insert(try #require(statement.token))
      pipeline.execute(statement)
      let other = try insertThree.bind([
        .text(index % 50 == 0 ? "" : "user-é-\(index)"), .int(Int32(truncatingIfNeeded: random.next())),
        .uuid(CQLUUID(high: random.next(), low: random.next())),
      ])
      expected.insert(try #require(other.token))
      pipeline.execute(other)
    }
    #expect(pipeline.wait() == [])
    var got: Set<Int64> = []
    for (table, key) in [(one, "k"), (three, "a, b, c")] {
      try session.pages(Statement("SELECT token(\(key)) AS t FROM \(table)")) { page in
        for row in page { if let token = (try? row.get("t", as: Int64.self)) { got.insert(token) } }
        return true
      }
    }
    #expect(got == expected)
  }

  static let samples: [(String, [Value])] = [
    ("ascii", [.text("a"), .text("")]), ("bigint", [.bigint(.min), .bigint(.max)]),
    ("blob", [.blob([0, 255]), .blob([])]), ("boolean", [.boolean(true), .boolean(false)]),
    ("date", [.date(.min), .date(0), .date(.max)]),
    ("decimal", [.decimal(scale: -3, unscaled: [0xFF, 0x01])]),
    ("double", [.double(-0.0), .double(.greatestFiniteMagnitude)]),
    (
      "duration",
      [
        .duration(months: 1, days: 2, nanoseconds: 256_000), .duration(months: -1, days: -2, nanoseconds: -3),
        .duration(months: .max, days: .max, nanoseconds: .max),
      ]
    ),
    ("float", [.float(1.5)]), ("inet", [.inet([127, 0, 0, 1]), .inet([UInt8](repeating: 7, count: 16))]),
    ("int", [.int(.min), .int(.max), .empty]), ("smallint", [.smallint(.min)]), ("tinyint", [.tinyint(.min)]),
    ("text", [.text("é🏃"), .text("")]), ("time", [.time(0), .time(86_399_999_999_999)]),
    ("timestamp", [.timestamp(-1), .timestamp(.max)]),
    ("uuid", [.uuid(CQLUUID(high: 1, low: .max))]),
    ("varint", [.varint([0, 0x80]), .varint([0xFF, 0x7F])]),
    ("list<int>", [.list([.int(1), .int(-1)])]), ("set<text>", [.set([.text("a"), .text("b")])]),
    ("map<text, bigint>", [.map([.init(.text("k"), .bigint(1))])]),
    ("tuple<int, text>", [.tuple([.int(1), .null])]),
    (
      "frozen<map<int, frozen<list<uuid>>>>",
      [.map([.init(.int(1), .list([.uuid(CQLUUID(high: 1, low: 2))]))])]
    ),
  ]

  @Test("every type comes back as it was bound; unset leaves a value, null deletes it")
  func types() throws {
    for (index, (type, values)) in Self.samples.enumerated() {
      let table = try table("type\(index)", "k int PRIMARY KEY, v \(type)")
      let insert = try session.prepare("INSERT INTO \(table) (k, v) VALUES (?, ?)")
      let select = try session.prepare("SELECT v FROM \(table) WHERE k = 1")
      for value in values + [.unset, .null] {
        try session.execute(insert.bind([.int(1), value]))
        let row = try #require(try session.execute(select.bind([])).first)
        let expected: Value? = value == .unset ? values.last : value == .null ? nil : value
        #expect(try row.optional("v", as: Value.self) == expected, "\(type)")
      }
    }
  }

  @Test(
    "long values and pages pass intact, around the length of a segment too",
    arguments: ProtocolVersion.allCases, [false, true])
  func longOnes(version: ProtocolVersion, compresses: Bool) throws {
    let table = try table("long", "k int PRIMARY KEY, v blob")
    let session = try Self.connect(contactPoints, version, compresses: compresses)
    defer { session.close() }
    let insert = try session.prepare("INSERT INTO \(table) (k, v) VALUES (?, ?)")
    let select = try session.prepare("SELECT k, v FROM \(table) WHERE k = ?")
    var random = Seed(3).random
    // Where a request, and an answer, just fits into a segment of ours, or of the server's 131,060 bytes.
    let around = version == .v5 ? (130_988...131_005).map { $0 } + (131_018...131_036).map { $0 } : []
    let sizes = [5_000_000, 131_071, 262_142] + around
    for size in sizes {
      var bytes = [UInt8](repeating: 0, count: size)
      for place in stride(from: 0, to: size, by: 3) {
        bytes[place] = UInt8(truncatingIfNeeded: random.next())
      }
      try session.execute(insert.bind([.int(Int32(size)), .blob(bytes)]))
      let row = try #require(try session.execute(select.bind([.int(Int32(size))])).first)
      let got: [UInt8] = try row.get("v")
      #expect(got == bytes, "\(size) bytes")
    }
  }

  @Test("pages of every size give each row once, and a page's state goes on in another session")
  func paging() throws {
    let table = try table("pages", "p int, c int, PRIMARY KEY (p, c)")
    let insert = try session.prepare("INSERT INTO \(table) (p, c) VALUES (?, ?)")
    for p in 0..<4 {
      var batch = Batch(.unlogged)
      for c in 0..<250 { batch.add(try insert.bind([.int(Int32(p)), .int(Int32(c))])) }
      try session.execute(batch)
    }
    for rows in [1, 7, 250, 1000, 5000] as [Int32] {
      var statement = Statement("SELECT p, c FROM \(table)")
      statement.pageRows = rows
      var seen: [Int32] = []
      var pages = 0
      try session.pages(statement) { page in
        pages += 1
        for row in page {
          if let p: Int32 = try? row.get("p"), let c: Int32 = try? row.get("c") { seen.append(1000 * p + c) }
        }
        return true
      }
      #expect(seen.count == 1000 && Set(seen).count == 1000, "pages of \(rows)")
      #expect(pages >= Int((1000 + rows - 1) / rows))
    }
    var statement = Statement("SELECT p, c FROM \(table)")
    statement.pageRows = 600
    let first = try session.execute(statement)
    let other = try Self.connect(contactPoints)
    defer { other.close() }
    statement.pagingState = try #require(first.pagingState)
    #expect(try other.execute(statement).count == 400)
  }

  @Test(
    "a changed table is noticed while its statements run: prepared again, and read by its new columns",
    arguments: ProtocolVersion.allCases)
  func changedTable(version: ProtocolVersion) throws {
    let table = try table("changed", "k int PRIMARY KEY, a int")
    let session = try Self.connect(contactPoints, version)
    defer { session.close() }
    let insert = try session.prepare("INSERT INTO \(table) (k, a) VALUES (?, ?)")
    let select = try session.prepare("SELECT * FROM \(table) WHERE k = ?")
    try session.execute(insert.bind([.int(1), .int(10)]))
    #expect(try session.execute(select.bind([.int(1)])).columns.map(\.name) == ["k", "a"])
    for column in 0..<3 {
      try session.execute(Statement("ALTER TABLE \(table) ADD aa\(column) text"))
      try session.execute(insert.bind([.int(1), .int(11)]))
      let page = try session.execute(select.bind([.int(1)]))
      #expect(page.columns.count == 3 + column)
      let row = try #require(page.first)
      #expect(try row.get("a", as: Int32.self) == 11)
      #expect(try row.optional("aa\(column)", as: String.self) == nil)
    }
  }

  @Test("a wrong password is refused in both versions, and told so", arguments: ProtocolVersion.allCases)
  func wrongPassword(version: ProtocolVersion) throws {
    var settings = session.settings
    settings.connection.versionMax = version
    settings.connection.credentials = nil
    // A server that asks for none lets everybody in.
    if let session = try? Session.connect(settings) { return session.close() }
    settings.connection.credentials = .init(user: "cassandra", password: "wrong")
    do throws(CQLError) {
      try Session.connect(settings).close()
      Issue.record("let in")
    } catch {
      guard case .connect(let failures) = error, case .authentication? = failures.first?.error else {
        Issue.record("\(error)")
        return
      }
    }
  }

  @Test("20,000 requests at once over one connection are answered, each its own question")
  func many() throws {
    let table = try table("many", "k int PRIMARY KEY, v int")
    var settings = session.settings
    settings.contactPoints = [contactPoints[0]]
    settings.inFlightMax = 20_000
    let session = try Session.connect(settings)
    defer { session.close() }
    let insert = try session.prepare("INSERT INTO \(table) (k, v) VALUES (?, ?)")
    let select = try session.prepare("SELECT v FROM \(table) WHERE k = ?")
    let writes = Pipeline(session)
    for k in 0..<20_000 { writes.execute(try insert.bind([.int(Int32(k)), .int(Int32(3 * k))])) }
    #expect(writes.wait() == [])
    let reads = Pipeline(session)
    for k in 0..<20_000 {
      reads.execute(try select.bind([.int(Int32(k))])) { page in
        (try? page.first?.get("v", as: Int32.self)) == Int32(3 * k)
      }
    }
    #expect(reads.wait() == [])
  }

  @Test("errors of the server come typed, with their sentence, and are not tried again")
  func errors() throws {
    func kind(_ text: String) -> ServerError.Kind? {
      do throws(CQLError) { try session.execute(Statement(text)) } catch {
        guard case .failed(let failure) = error, case .server(let server) = failure.error else { return nil }
        #expect(failure.attempts.count == 1 && !server.message.isEmpty)
        return server.kind
      }
      return nil
    }
    #expect(kind("SELEC") == .syntax)
    #expect(kind("SELECT x FROM \(keyspace).nowhere") == .invalid)
    let again =
      "CREATE KEYSPACE \(keyspace) WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
    #expect(kind(again) == .alreadyExists(keyspace: keyspace, table: ""))
    #expect(throws: CQLError.self) { try session.prepare("INSERT INTO nowhere.t (a) VALUES (?)") }
  }

  @Test("write times bound by the caller decide, whatever the order of writing")
  func timestamps() throws {
    let table = try table("stamps", "k int PRIMARY KEY, v int")
    let insert = try session.prepare("INSERT INTO \(table) (k, v) VALUES (?, ?) USING TIMESTAMP ?")
    for stamp in [30, 10, 20] as [Int64] {
      try session.execute(insert.bind([.int(1), .int(Int32(stamp)), .bigint(stamp)]))
    }
    var plain = Statement("INSERT INTO \(table) (k, v) VALUES (1, 25)")
    plain.timestamp = 25
    try session.execute(plain)
    let row = try #require(try session.execute(Statement("SELECT v, writetime(v) AS w FROM \(table)")).first)
    #expect(try row.get("v", as: Int32.self) == 30 && row.get("w", as: Int64.self) == 30)
  }

  @Test("a condition is applied once")
  func conditions() throws {
    let table = try table("conditions", "k int PRIMARY KEY, v int")
    var insert = Statement("INSERT INTO \(table) (k, v) VALUES (1, 1) IF NOT EXISTS")
    insert.serialConsistency = .serial
    #expect(try session.execute(insert).first?.get("[applied]", as: Bool.self) == true)
    #expect(try session.execute(insert).first?.get("[applied]", as: Bool.self) == false)
  }
}

/// Many requests under way, and what went wrong with them.
final class Pipeline: Sendable {
  private let session: Session
  private let state = LockedState()
  private let done = Pause()

  init(_ session: Session) { self.session = session }

  func execute(_ statement: Statement, _ check: @escaping @Sendable (Page) -> Bool = { _ in true }) {
    state.change { $0.open += 1 }
    do throws(CQLError) {
      try session.execute(statement) { [self] result in
        switch result {
        case .success(let page): finished(check(page) ? nil : "another answer")
        case .failure(let error): finished("\(error)")
        }
      }
    } catch { finished("\(error)") }
  }

  private func finished(_ problem: String?) {
    let isLast = state.change { state in
      state.open -= 1
      if let problem { state.problems.insert(problem) }
      return state.open == 0 && state.isWaitedFor
    }
    if isLast { done.end() }
  }

  /// Waits for all; the problems, each once.
  func wait() -> Set<String> {
    let isOver = state.change { state in
      state.isWaitedFor = true
      return state.open == 0
    }
    if !isOver { done.wait(nil) }
    return state.change { $0.problems }
  }
}
