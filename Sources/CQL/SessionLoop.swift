// The session's thread: waits, hears, asks, and obeys the values that know what to do: `PoolState` (which links),
// `ConnectionState` (one link), `Execution` (one request), `Discovery` (what the cluster is). What other threads reach
// is in `shared`; everything else belongs to the thread that runs `run`.

internal import Posix
internal import Synchronization
internal import Transport

/// Unchecked: see above.
final class SessionLoop: @unchecked Sendable {
  /// A request under way.
  struct Running {
    var job: Job
    var execution: Execution
  }

  private struct Shared {
    var jobs: [Job] = []
    var isClosing = false
    /// Jobs accepted and not completed.
    var inFlight = 0
    var connected: [@Sendable (Result<Void, CQLError>) -> Void] = []
    var firstResult: Result<Void, CQLError>?
    var nodes: [Session.NodeStatus] = []
  }

  let settings: SessionSettings
  private let shared = Mutex(Shared())
  let reactor: Reactor
  let clock = Clock.system
  var pool: PoolState
  var ring = TokenRing([])
  var topology: Topology?
  var links: [PoolState.LinkID: SessionLink] = [:]
  private var linkOf: [Int32: SessionLink] = [:]
  private var dirty: [SessionLink] = []
  var running: [UInt64: Running] = [:]
  private var tagNext: UInt64 = 1
  var budget = RetryBudget()
  var turn = 0
  /// A chain of questions under way, by the tag of the one that waits.
  var discoveries: [UInt64: (link: PoolState.LinkID, discovery: Discovery)] = [:]
  private let readBuffer = UnsafeMutableRawBufferPointer.allocate(
    byteCount: SessionLink.readBytesMax, alignment: 16)

  /// The timer that looks at all deadlines; others carry the tag of a request that pauses.
  private static let deadlineTag = UInt64.max
  private var deadlineTimer = Moment.never

  init(_ settings: SessionSettings) throws(SystemError) {
    self.settings = settings
    reactor = try Reactor()
    pool = PoolState(
      localDatacenter: settings.localDatacenter, versionMax: settings.connection.versionMax,
      seed: settings.seed)
  }

  deinit { readBuffer.deallocate() }

  var now: Moment { clock.now }

  // MARK: What other threads call

  func submit(_ job: Job) throws(CQLError) {
    let (error, isFirst) = shared.withLock { shared -> (CQLError?, Bool) in
      if shared.isClosing { return (.closed, false) }
      if shared.inFlight >= settings.inFlightMax { return (.busy(inFlightMax: settings.inFlightMax), false) }
      shared.inFlight += 1
      shared.jobs.append(job)
      return (nil, shared.jobs.count == 1)
    }
    if let error { throw error }
    if isFirst { reactor.wakeUp.signal() }
  }

  func whenConnected(_ body: @escaping @Sendable (Result<Void, CQLError>) -> Void) {
    let result = shared.withLock { shared -> Result<Void, CQLError>? in
      if shared.firstResult == nil { shared.connected.append(body) }
      return shared.firstResult
    }
    if let result { body(result) }
  }

  func close() {
    shared.withLock { $0.isClosing = true }
    reactor.wakeUp.signal()
  }

  func nodes() -> [Session.NodeStatus] { shared.withLock { $0.nodes } }

  // MARK: The thread

  func run() {
    resolve()
    do throws(SystemError) {
      while !shared.withLock({ $0.isClosing }) {
        takeJobs()
        sendAll()
        setDeadline()
        let count = try reactor.wait(now: now)
        for index in 0..<count {
          if case .ready(let registration, let readiness) = reactor.event(index),
            let link = linkOf[registration.descriptor]
          {
            ready(link, readiness)
          }
        }
        while let tag = reactor.dueTimer(now: now) { timer(tag) }
      }
    } catch {
      connected(.failure(.connect([.init(address: "this machine", error: .lost("\(error)"))])))
    }
    end()
  }

  private func end() {
    shared.withLock { $0.isClosing = true }
    for link in Array(links.values) { drop(link) }
    let waiting =
      running.values.map(\.job)
      + shared.withLock { shared in
        defer { shared.jobs = [] }
        return shared.jobs
      }
    running = [:]
    for job in waiting { job.completion(.failure(.closed)) }
    connected(.failure(.closed))
    shared.withLock { $0.nodes = [] }
  }

  func connected(_ result: Result<Void, CQLError>) {
    let waiting = shared.withLock { shared in
      if shared.firstResult == nil { shared.firstResult = result }
      defer { shared.connected = [] }
      return shared.connected
    }
    for body in waiting { body(result) }
  }

  private func takeJobs() {
    let jobs = shared.withLock { shared in
      defer { shared.jobs.removeAll(keepingCapacity: true) }
      return shared.jobs
    }
    for job in jobs { start(job) }
  }

  func complete(_ job: Job, _ result: Result<Outcome, CQLError>) {
    shared.withLock { $0.inFlight -= 1 }
    job.completion(result)
  }

  func nextTag() -> UInt64 {
    defer { tagNext += 1 }
    return tagNext
  }

  /// Sets the one timer of all deadlines, if it must ring earlier than it would.
  private func setDeadline() {
    var next = pool.expiresNext
    for link in links.values {
      next = min(next, link.isConnecting ? link.connectUntil : link.state.expiresNext)
    }
    guard next < deadlineTimer else { return }
    deadlineTimer = next
    reactor.setTimer(next, tag: SessionLoop.deadlineTag)
  }

  private func timer(_ tag: UInt64) {
    guard tag == SessionLoop.deadlineTag else {
      resume(tag)
      return
    }
    let now = now
    deadlineTimer = .never
    obey(pool.expire(at: now))
    for link in Array(links.values) {
      var actions: [ConnectionState.Action] = []
      if link.isConnecting {
        if now >= link.connectUntil {
          link.state.ended(.unreachable("no answer from \(link.target) in time"), into: &actions)
        }
      } else {
        link.state.expire(at: now, into: &link.out, &actions)
      }
      mark(link)
      obey(actions, of: link)
    }
  }

  // MARK: Sockets

  private func ready(_ link: SessionLink, _ readiness: Readiness) {
    var actions: [ConnectionState.Action] = []
    do throws(SystemError) {
      if link.isConnecting {
        if let error = try Socket.pendingError(link.socket.number) {
          link.state.ended(.unreachable("\(link.target): \(error)"), into: &actions)
        } else {
          link.isConnecting = false
          link.state.start(at: now, into: &link.out)
        }
      } else if readiness != .writable {
        // A few reads, then others get their turn; epoll tells again of what is left.
        for _ in 0..<4 {
          guard try link.receive(into: readBuffer, at: now, &actions) else { break }
        }
      }
    } catch {
      link.state.ended(link.isConnecting ? .unreachable("\(error)") : .lost("\(error)"), into: &actions)
    }
    mark(link)
    obey(actions, of: link)
  }

  /// The link has something to send, or room for it.
  func mark(_ link: SessionLink) {
    if link.isDirty { return }
    link.isDirty = true
    dirty.append(link)
  }

  private func sendAll() {
    // What is sent here may fail, which may ask elsewhere: until nothing is left.
    while let link = dirty.popLast() {
      link.isDirty = false
      guard links[link.id] === link, !link.isConnecting else { continue }
      var actions: [ConnectionState.Action] = []
      do throws(SystemError) {
        try link.send()
        let interest: Readiness = link.waitsToSend ? [.readable, .writable] : .readable
        if let registration = link.registration, link.interest != interest {
          try reactor.change(registration, interest)
          link.interest = interest
        }
      } catch { link.state.ended(.lost("\(error)"), into: &actions) }
      obey(actions, of: link)
    }
  }

  // MARK: The pool's orders

  func obey(_ actions: [PoolState.Action]) {
    for action in actions {
      switch action {
      case .dial(let id, let target, let first, let max): dial(id, target, first, max)
      case .close(let id):
        guard let link = links[id] else { break }
        var ends: [ConnectionState.Action] = []
        link.state.ended(.closed, into: &ends)
        obey(ends, of: link)
      case .discover(let id): discover(id)
      case .resolve: resolve()
      case .giveUp(let failures):
        let nodes = failures.map { CQLError.NodeFailure(address: "\($0.target)", error: $0.error) }
        connected(.failure(.connect(nodes)))
      }
    }
  }

  private func resolve() {
    var targets: [HostPort] = []
    for point in settings.contactPoints {
      for address in SocketAddress.resolve(point) {
        if let target = address.hostPort, !targets.contains(target) { targets.append(target) }
      }
    }
    obey(pool.contacts(targets, at: now))
  }

  private func dial(
    _ id: PoolState.LinkID, _ target: HostPort, _ first: ProtocolVersion, _ versionMax: ProtocolVersion
  ) {
    do throws(SystemError) {
      guard let address = SocketAddress.resolve(target).first else {
        throw SystemError(call: "getaddrinfo", errno: .addressNotAvailable, subject: "\(target)")
      }
      let socket = try Socket.startConnecting(address)
      let number = socket.number
      let link = SessionLink(
        id, target, socket, ConnectionState(settings.connection, first: first, max: versionMax),
        connectUntil: now + settings.connection.connectTimeout, outputBytesMax: settings.outputBytesMax)
      link.registration = try reactor.register(number, .writable)
      links[id] = link
      linkOf[number] = link
    } catch {
      obey(pool.ended(id, .unreachable("\(error)"), at: now))
    }
  }

  /// Takes a link out and closes its socket.
  func drop(_ link: SessionLink) {
    if let registration = link.registration { try? reactor.unregister(registration) }
    link.registration = nil
    links[link.id] = nil
    linkOf[link.socket.number] = nil
    discoveries = discoveries.filter { $0.value.link != link.id }
  }

  /// Shows other threads what the pool looks like.
  func publish() {
    let nodes = pool.nodes.map { info in
      let link = pool.link(info.hostID).flatMap { links[$0] }
      var version: ProtocolVersion?
      if case .ready(let spoken)? = link?.state.phase { version = spoken }
      return Session.NodeStatus(
        hostID: info.hostID, address: info.address, datacenter: info.datacenter, isConnected: link != nil,
        version: version)
    }
    shared.withLock { $0.nodes = nodes.sorted { "\($0.address)" < "\($1.address)" } }
  }
}
