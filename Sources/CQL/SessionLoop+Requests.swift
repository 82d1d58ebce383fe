// Requests on the session's thread: which nodes, what is sent, what the answers mean.

internal import Posix
internal import Transport

extension SessionLoop {
  // MARK: Asking

  func start(_ job: Job) {
    budget.asked()
    let now = now
    let tag = nextTag()
    let execution = Execution(
      plan: plan(job.work), until: now + settings.requestTimeout, isIdempotent: job.work.isIdempotent,
      statements: job.work.forgotten)
    running[tag] = Running(job: job, execution: execution)
    resume(tag)
  }

  /// Begins, or goes on after a pause.
  func resume(_ tag: UInt64) {
    guard let action = running[tag]?.execution.next(at: now) else { return }
    obey(action, of: tag)
  }

  /// Nodes in order of preference: replicas first, the less busy of the first two before the other; then the others.
  private func plan(_ work: Work) -> [HostID] {
    if case .node(let asked, _) = work {
      let control = pool.nodes.first { pool.control != nil && pool.link($0.hostID) == pool.control }
      return [asked ?? control?.hostID].compactMap { $0 }
    }
    let usable = pool.usable
    guard usable.count > 1 else { return usable }
    turn &+= 1
    var preferred: [HostID] = []
    if let (token, keyspace) = work.route, let replication = topology?.replication[keyspace] {
      preferred = ring.replicas(token, replication).filter { usable.contains($0) }
      if !work.keepsReplicaOrder { rotate(&preferred) }
      if preferred.count > 1, !work.keepsReplicaOrder, inFlight(preferred[1]) < inFlight(preferred[0]) {
        preferred.swapAt(0, 1)
      }
    }
    var others = usable.filter { !preferred.contains($0) }
    rotate(&others)
    return preferred + others
  }

  private func rotate(_ nodes: inout [HostID]) {
    guard nodes.count > 1 else { return }
    let shift = turn % nodes.count
    nodes = Array(nodes[shift...] + nodes[..<shift])
  }

  private func inFlight(_ node: HostID) -> Int {
    pool.link(node).flatMap { links[$0]?.state.inFlight } ?? .max
  }

  private func obey(_ action: Execution.Action, of tag: UInt64) {
    var action = action
    while let work = running[tag]?.job.work {
      switch action {
      case .wait(let until):
        reactor.setTimer(until, tag: tag)
        return
      case .finish(let error):
        guard let error else { preconditionFailure("a result is finished where it is decoded") }
        finish(tag, error)
        return
      case .send(let node):
        if let next = send(work.request(settings), to: node, tag) { action = next } else { return }
      case .prepare(let node, let text):
        if let next = send(.prepare(text), to: node, tag) { action = next } else { return }
      }
    }
  }

  /// Sends on the node's link; what to do instead where that is not possible.
  private func send(_ request: Request, to node: HostID, _ tag: UInt64) -> Execution.Action? {
    guard let id = pool.link(node), let link = links[id], link.state.isReady else {
      return failed(.notSent("the node is not connected"), tag)
    }
    guard !link.isCongested else { return failed(.notSent("too much waits for the node's socket"), tag) }
    guard let until = running[tag]?.execution.until,
      link.state.ask(request, tag: tag, until: until, into: &link.out)
    else { return failed(.notSent("no stream id is free"), tag) }
    mark(link)
    return nil
  }

  private func failed(_ error: AttemptError, _ tag: UInt64) -> Execution.Action? {
    running[tag]?.execution.failed(error, at: now, budget: &budget)
  }

  private func finish(_ tag: UInt64, _ error: AttemptError) {
    guard let ended = running.removeValue(forKey: tag) else { return }
    let attempts = ended.execution.attempts.map { attempt in
      CQLError.Attempt(
        node: pool.address(attempt.node).map { "\($0)" } ?? "\(attempt.node)", error: attempt.error)
    }
    complete(ended.job, .failure(.failed(.init(error: error, attempts: attempts))))
  }

  // MARK: Hearing

  func obey(_ actions: [ConnectionState.Action], of link: SessionLink) {
    for action in actions {
      switch action {
      case .ready(let version):
        obey(pool.opened(link.id, version, at: now))
        publish()
      case .answer(let tag, let response):
        if discoveries[tag] != nil { discovered(tag, response) } else { answered(tag, response) }
      case .timedOut(let tag): attemptFailed(tag, .timedOut)
      case .lost(let tag, let error): attemptFailed(tag, .lost(error))
      case .event(let event): obey(pool.heard(event, at: now))
      case .close(let error):
        drop(link)
        obey(pool.ended(link.id, error, at: now))
        publish()
      }
    }
  }

  private func attemptFailed(_ tag: UInt64, _ error: AttemptError) {
    if let (link, _) = discoveries.removeValue(forKey: tag) {
      obey(pool.notDiscovered(by: link, at: now))
    } else if let action = failed(error, tag) {
      obey(action, of: tag)
    }
  }

  private func answered(_ tag: UInt64, _ response: Response) {
    switch response.message {
    case .error(let error): attemptFailed(tag, .server(error))
    case .result(let result):
      // Prepared again after a change of the table, a statement may give other columns.
      if case .prepared(let again) = result, let columns = again.columns {
        for statement in running[tag]?.job.work.prepared ?? [] where statement.id == again.id {
          statement.adopt(again.resultMetadataID, columns)
        }
      }
      guard let action = running[tag]?.execution.answered(result) else { return }
      if case .finish(nil) = action {
        finish(tag, result, response.warnings)
      } else {
        obey(action, of: tag)
      }
    case .ready, .authenticate, .supported, .event, .authChallenge, .authSuccess:
      attemptFailed(tag, .malformed("an answer that belongs to no request"))
    }
  }

  private func finish(_ tag: UInt64, _ result: QueryResult, _ warnings: [String]) {
    guard let work = running[tag]?.job.work else { return }
    let outcome: Outcome
    do throws(CodecError) {
      switch (result, work) {
      case (.prepared(let prepared), .prepare(let text)):
        outcome = .prepared(PreparedStatement(text: text, prepared))
      case (.prepared, _), (_, .prepare): throw .malformed("a result of another kind than was asked for")
      case (.void, _), (.setKeyspace, _): outcome = .page(Page(warnings: warnings))
      case (.schemaChange, _):
        outcome = .schemaChange(running[tag]?.execution.node, Page(warnings: warnings))
      case (.rows(let rows), _): outcome = .page(try page(rows, work, warnings))
      }
    } catch {
      finish(tag, .malformed("\(error)"))
      return
    }
    if let job = running.removeValue(forKey: tag)?.job { complete(job, .success(outcome)) }
  }

  private func page(_ rows: RowsResult, _ work: Work, _ warnings: [String]) throws(CodecError) -> Page {
    guard case .statement(let statement) = work, case .prepared(let prepared) = statement.kind else {
      return try Page(rows, columns: nil, warnings: warnings)
    }
    if let id = rows.newMetadataID, let columns = rows.columns { prepared.adopt(id, columns) }
    return try Page(rows, columns: prepared.currentShape.columns, warnings: warnings)
  }

  // MARK: Discovery

  /// Registers for events, then asks what the cluster is.
  func discover(_ id: PoolState.LinkID) {
    guard let link = links[id], !discoveries.values.contains(where: { $0.link == id }) else { return }
    let discovery = Discovery(connectedTo: link.target)
    // Events that are registered for twice still come once.
    let tag = nextTag()
    guard
      link.state.ask(
        .register(EventKind.allCases), tag: tag, until: now + settings.requestTimeout, into: &link.out)
    else { return }
    discoveries[tag] = (id, discovery)
    mark(link)
  }

  private func discovered(_ tag: UInt64, _ response: Response) {
    guard let (id, asked) = discoveries.removeValue(forKey: tag), let link = links[id] else { return }
    var discovery = asked
    let step: Discovery.Step
    switch response.message {
    case .ready: step = discovery.first
    case .result(.rows(let rows)):
      do throws(CodecError) {
        step = discovery.answered(try Page(rows, columns: nil, warnings: response.warnings))
      } catch { step = .failed(.malformed("\(error)")) }
    case .error(let error): step = discovery.failed(.server(error))
    case .authenticate, .supported, .result, .event, .authChallenge, .authSuccess:
      step = .failed(.malformed("an answer that belongs to no request"))
    }
    switch step {
    case .ask(let text):
      var parameters = QueryParameters()
      parameters.consistency = .one
      let tag = nextTag()
      guard
        link.state.ask(
          .query(text, parameters), tag: tag, until: now + settings.requestTimeout, into: &link.out)
      else {
        obey(pool.notDiscovered(by: id, at: now))
        return
      }
      discoveries[tag] = (id, discovery)
      mark(link)
    case .done(let topology):
      self.topology = topology
      ring = TokenRing(topology.nodes)
      obey(pool.discovered(topology, by: id, at: now))
      publish()
      connected(.success(()))
    case .failed: obey(pool.notDiscovered(by: id, at: now))
    }
  }
}

extension Work {
  var isIdempotent: Bool {
    switch self {
    case .prepare, .node: true
    case .statement(let statement): statement.isIdempotent
    case .batch(let batch): batch.isIdempotent
    }
  }

  /// Conditional statements meet the fewest others where all clients ask the same replica first.
  var keepsReplicaOrder: Bool {
    switch self {
    case .prepare, .node: false
    case .statement(let statement): statement.serialConsistency != nil
    case .batch(let batch): batch.serialConsistency != nil
    }
  }

  var route: (token: Int64, keyspace: String)? {
    let statement: Statement?
    switch self {
    case .prepare, .node: statement = nil
    case .statement(let one): statement = one
    case .batch(let batch): statement = batch.statements.first
    }
    guard let token = statement?.token, let keyspace = statement?.keyspace else { return nil }
    return (token, keyspace)
  }

  var prepared: [PreparedStatement] {
    func prepared(_ statement: Statement) -> PreparedStatement? {
      if case .prepared(let prepared) = statement.kind { prepared } else { nil }
    }
    return switch self {
    case .prepare, .node: []
    case .statement(let statement): [prepared(statement)].compactMap { $0 }
    case .batch(let batch): batch.statements.compactMap(prepared)
    }
  }

  /// Prepared statements that a node may have forgotten, each once.
  var forgotten: [ForgottenStatement] {
    switch self {
    case .prepare, .node: return []
    case .statement(let statement): return statement.forgotten.map { [$0] } ?? []
    case .batch(let batch):
      var found: [ForgottenStatement] = []
      for case let forgotten? in batch.statements.lazy.map(\.forgotten) where found.last != forgotten {
        if !found.contains(forgotten) { found.append(forgotten) }
      }
      return found
    }
  }

  func request(_ settings: SessionSettings) -> Request {
    switch self {
    case .prepare(let text): return .prepare(text)
    case .node(_, let text):
      var parameters = QueryParameters()
      parameters.consistency = .one
      return .query(text, parameters)
    case .statement(let statement): return statement.request(settings)
    case .batch(let batch):
      let statements = batch.statements.map { statement -> BatchRequest.Statement in
        switch statement.kind {
        case .text(let text): .text(text, statement.values)
        case .prepared(let prepared): .prepared(id: prepared.id, statement.values)
        }
      }
      return .batch(
        BatchRequest(
          kind: batch.kind, statements: statements, consistency: batch.consistency ?? settings.consistency,
          serialConsistency: batch.serialConsistency, timestamp: batch.timestamp))
    }
  }
}

extension Statement {
  fileprivate func request(_ settings: SessionSettings) -> Request {
    var parameters = QueryParameters()
    parameters.consistency = consistency ?? settings.consistency
    parameters.serialConsistency = serialConsistency
    parameters.timestamp = timestamp
    parameters.pageRows = pageRows ?? settings.pageRows
    parameters.pagingState = pagingState
    switch kind {
    case .text(let text): return .query(text, parameters)
    case .prepared(let prepared):
      let shape = prepared.currentShape
      parameters.values = values.count > 0 ? values : nil
      parameters.skipsMetadata = shape.columns != nil
      return .execute(id: prepared.id, resultMetadataID: shape.metadataID, parameters)
    }
  }
}
