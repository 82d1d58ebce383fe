// The driver's face: a session with a cluster. One thread of its own does all I/O; callers wait for it, or leave a
// closure. Any thread may use a session.
//
//     let session = try Session.connect(SessionSettings(contactPoints: [HostPort(host: "127.0.0.1", port: 9042)]))
//     let insert = try session.prepare("INSERT INTO steps.days (user, steps) VALUES (?, ?)")
//     try session.execute(insert.bind([.text("ada"), .int(4711)]))
//     for row in try session.execute(Statement("SELECT user, steps FROM steps.days")) {
//       let steps: Int32 = try row.get("steps")
//     }
//     session.close()

public import Posix
internal import Synchronization

/// How a session behaves.
public struct SessionSettings: Sendable {
  /// Where to find the cluster; names are resolved again when no node can be reached.
  public var contactPoints: [HostPort]
  /// Whose nodes are asked; nil takes that of the first node that answers.
  public var localDatacenter: String?
  /// Replicas that must answer, where a statement does not say.
  public var consistency = Consistency.localQuorum
  /// Longest wait for a request, all attempts together. Above the servers' own limits, so that they give up first.
  public var requestTimeout: Duration = .seconds(12)
  /// Requests under way at once; more are refused as busy.
  public var inFlightMax = 16_384
  /// Rows of a page, where a statement does not say.
  public var pageRows: Int32 = 5000
  /// Bytes that may wait for one node's socket; beyond that another node is asked.
  public var outputBytesMax = 32 << 20
  /// How connections behave.
  public var connection = ConnectionSettings()
  /// Of the jitter of reconnecting; different in each process.
  public var seed: UInt64 = 1

  /// The usual settings.
  ///
  /// - Parameter contactPoints: at least one.
  public init(contactPoints: [HostPort]) { self.contactPoints = contactPoints }
}

/// A session with a cluster. Closed by `close`, or when it goes.
public final class Session: Sendable {
  /// How the session behaves.
  public let settings: SessionSettings
  private let loop: SessionLoop
  private let thread: Thread
  private let isJoined = Mutex(false)

  private init(_ settings: SessionSettings) throws(CQLError) {
    self.settings = settings
    do throws(SystemError) {
      loop = try SessionLoop(settings)
      let loop = loop
      thread = try Thread("cql") { loop.run() }
    } catch {
      throw .connect([CQLError.NodeFailure(address: "this machine", error: .unreachable("\(error)"))])
    }
  }

  deinit { close() }

  /// Connects: returns once a node has told what the cluster consists of. Other nodes are connected meanwhile.
  ///
  /// - Parameter settings: where, and how.
  /// - Returns: an open session.
  /// - Throws: `connect`, with an error for each address that was tried.
  public static func connect(_ settings: SessionSettings) throws(CQLError) -> Session {
    let session = try Session(settings)
    let reply = Reply<Void>()
    session.loop.whenConnected { reply.fulfil($0) }
    do throws(CQLError) { try reply.wait() } catch {
      session.close()
      throw error
    }
    return session
  }

  /// Closes all connections and ends the thread; what is under way fails as `closed`. Again does nothing. Not from a
  /// completion.
  public func close() {
    let isMine = isJoined.withLock { done in
      defer { done = true }
      return !done
    }
    guard isMine else { return }
    loop.close()
    thread.join()
  }

  // MARK: Statements

  /// Prepares a statement on one node; others learn it when they need it.
  ///
  /// - Parameter text: CQL with `?` for values, names written `keyspace.table`, columns by name.
  /// - Returns: the statement, to be kept and bound as often as needed.
  /// - Throws: `failed`; its `error` is what the server has against the text.
  public func prepare(_ text: String) throws(CQLError) -> PreparedStatement {
    let reply = Reply<PreparedStatement>()
    try submit(.prepare(text)) { result in
      reply.fulfil(
        result.flatMap { outcome in
          if case .prepared(let statement) = outcome { return .success(statement) }
          return .failure(.failed(.init(error: .malformed("PREPARE was answered by rows"), attempts: [])))
        })
    }
    return try reply.wait()
  }

  /// Executes a statement and waits for its first page.
  ///
  /// - Parameter statement: text or bound.
  /// - Returns: the rows; none for a write. For a change of the schema it returns once all nodes agree, or after 10 s.
  /// - Throws: `failed`, `busy`, `tooLong`, `closed`.
  @discardableResult public func execute(_ statement: Statement) throws(CQLError) -> Page {
    try waitFor(.statement(statement))
  }

  /// Executes a batch and waits for it.
  ///
  /// - Parameter batch: its statements; all or none of those for one partition are done.
  /// - Returns: the rows of conditional statements; none otherwise.
  /// - Throws: `failed`, `busy`, `tooLong`, `closed`.
  @discardableResult public func execute(_ batch: Batch) throws(CQLError) -> Page {
    try waitFor(.batch(batch))
  }

  /// Executes without waiting.
  ///
  /// - Parameters:
  ///   - statement: text or bound.
  ///   - completion: called once, on the session's thread: it must be quick, and must not wait for this session.
  /// - Throws: `busy`, `tooLong`, `closed`; `completion` is not called then.
  public func execute(
    _ statement: Statement, completion: @escaping @Sendable (Result<Page, CQLError>) -> Void
  ) throws(CQLError) {
    try submit(.statement(statement)) { completion($0.map(\.page)) }
  }

  /// Executes a batch without waiting.
  ///
  /// - Parameters:
  ///   - batch: its statements.
  ///   - completion: called once, on the session's thread: it must be quick, and must not wait for this session.
  /// - Throws: `busy`, `tooLong`, `closed`; `completion` is not called then.
  public func execute(
    _ batch: Batch, completion: @escaping @Sendable (Result<Page, CQLError>) -> Void
  ) throws(CQLError) {
    try submit(.batch(batch)) { completion($0.map(\.page)) }
  }

  /// Reads all pages, the next one being fetched while one is looked at. Empty pages are passed over.
  ///
  /// - Parameters:
  ///   - statement: what to read; its `pagingState` is where to begin.
  ///   - body: called with each page on the calling thread; false ends it.
  /// - Throws: what `execute` throws, or `pagingLoop`.
  public func pages(_ statement: Statement, _ body: (Page) -> Bool) throws(CQLError) {
    var statement = statement
    var page = try execute(statement)
    while true {
      guard let next = page.pagingState else {
        if page.count > 0 { _ = body(page) }
        return
      }
      if page.count == 0, next == statement.pagingState { throw .pagingLoop }
      statement.pagingState = next
      let reply = Reply<Page>()
      try execute(statement) { reply.fulfil($0) }
      let goesOn = page.count == 0 || body(page)
      let fetched = Result { () throws(CQLError) in try reply.wait() }
      guard goesOn else { return }
      page = try fetched.get()
    }
  }

  /// Waits until all nodes have the same schema.
  ///
  /// - Parameter timeout: longest wait.
  /// - Returns: whether they agree.
  /// - Throws: what `execute` throws.
  public func waitForSchema(_ timeout: Duration = .seconds(10)) throws(CQLError) -> Bool {
    try waitForSchema(timeout, asking: nil)
  }

  /// The node that made a change is the one to ask: others may not have heard of it, and agree on what was before.
  private func waitForSchema(_ timeout: Duration, asking node: HostID?) throws(CQLError) -> Bool {
    let pause = Pause()
    let until = Clock.system.now + timeout
    while true {
      var versions: Set<CQLUUID> = []
      for text in [
        "SELECT schema_version FROM system.local WHERE key = 'local'",
        "SELECT schema_version, rpc_address FROM system.peers",
      ] {
        for row in try waitFor(.node(node, text)) {
          if let version = (try? row.optional("schema_version", as: CQLUUID.self)) ?? nil {
            versions.insert(version)
          }
        }
      }
      if versions.count == 1 { return true }
      guard Clock.system.now < until else { return false }
      pause.wait(.milliseconds(200))
    }
  }

  /// What the session sees of its cluster.
  ///
  /// - Returns: each node with its address, and whether it is connected.
  public func nodes() -> [NodeStatus] { loop.nodes() }

  /// A node as a session sees it.
  public struct NodeStatus: Hashable, Sendable {
    public let hostID: CQLUUID
    public let address: HostPort
    public let datacenter: String
    public let isConnected: Bool
    /// Version of the protocol that is spoken; nil where it is not connected.
    public let version: ProtocolVersion?
  }

  private func waitFor(_ work: Work) throws(CQLError) -> Page {
    let reply = Reply<Outcome>()
    try submit(work) { reply.fulfil($0) }
    let outcome = try reply.wait()
    // The change is made by then, whatever becomes of asking.
    if case .schemaChange(let node, _) = outcome { _ = try? waitForSchema(.seconds(10), asking: node) }
    return outcome.page
  }

  private func submit(
    _ work: Work, _ completion: @escaping @Sendable (Result<Outcome, CQLError>) -> Void
  ) throws(CQLError) {
    guard work.byteCount <= CQLLimits.requestBytesMax else {
      throw .tooLong(bytes: work.byteCount, max: CQLLimits.requestBytesMax)
    }
    try loop.submit(Job(work: work, completion: completion))
  }
}
