// A reactor thread of the server. The front one accepts, greets, and answers STATUS; workers answer queries. A
// connection moves to where its next request is answered: so a strange or slow newcomer never waits behind queries,
// and STATUS is answered while every worker is busy.
//
// A turn: one read, all whole frames of it, one call of the handler, one write (Turns.swift).

internal import Bytes
internal import Posix
internal import QueryProtocol
internal import Synchronization
internal import Telemetry
internal import Transport

/// What other threads ask of a loop.
enum LoopMessage: Sendable {
  /// Take this connection over.
  case adopt(Connection)
  /// Ask the waiting requests again.
  case watermarksMoved
  /// Finish what is under way, by then at the latest.
  case drain(until: Moment)
}

/// What all loops of a server share.
final class ServerShared: Sendable {
  let settings: ServerSettings
  let handler: any QueryHandler
  let metrics: Metrics
  let diagnostics: Diagnostics
  let clock: Clock
  let admission: Mutex<Admission>
  /// Counts `watermarksMoved`: tells a request that parks whether it slept through one.
  let generation = Atomic<UInt64>(0)

  init(
    _ settings: ServerSettings, handler: any QueryHandler, metrics: Metrics, diagnostics: Diagnostics,
    clock: Clock
  ) {
    self.settings = settings
    self.handler = handler
    self.metrics = metrics
    self.diagnostics = diagnostics
    self.clock = clock
    admission = Mutex(Admission(settings.limits))
  }

  var limits: ServerLimits { settings.limits }
}

/// The part of a loop that other threads reach.
final class Mailbox: Sendable {
  private struct State {
    var messages: [LoopMessage] = []
    var isOpen = true
  }

  private let state = Mutex(State())
  private let watermarksPending = Atomic<Bool>(false)
  /// Requests that wait in this loop.
  let parkedCount = Atomic<Int>(0)
  let wakeUp: WakeUp

  init(_ wakeUp: WakeUp) { self.wakeUp = wakeUp }

  /// Leaves a message; false if the loop has ended.
  func post(_ message: LoopMessage) -> Bool {
    let (taken, first) = state.withLock { state in
      guard state.isOpen else { return (false, false) }
      state.messages.append(message)
      return (true, state.messages.count == 1)
    }
    if first { wakeUp.signal() }
    return taken
  }

  /// Tells that a watermark moved: nothing if nobody waits, or the loop has not looked at the last one yet.
  func watermarksMoved() {
    guard parkedCount.load(ordering: .sequentiallyConsistent) > 0 else { return }
    guard !watermarksPending.exchange(true, ordering: .acquiringAndReleasing) else { return }
    if !post(.watermarksMoved) { watermarksPending.store(false, ordering: .relaxed) }
  }

  /// Takes all messages.
  func take() -> [LoopMessage] {
    watermarksPending.store(false, ordering: .sequentiallyConsistent)
    return state.withLock { state in
      let messages = state.messages
      state.messages.removeAll(keepingCapacity: true)
      return messages
    }
  }

  /// Closes the mailbox if it is empty.
  func closeIfEmpty() -> Bool {
    state.withLock { state in
      if state.messages.isEmpty { state.isOpen = false }
      return !state.isOpen
    }
  }
}

/// One reactor thread. Unchecked: everything but `mailbox` belongs to the thread that runs it.
final class ReactorLoop: @unchecked Sendable {
  /// Bytes read in one turn.
  static let readBytesMax = 64 << 10
  /// Connections accepted before others get a turn.
  static let acceptsMax = 64
  /// Refused connections that may read their reason at the same time.
  static let refusedLingeringMax = 16

  let shared: ServerShared
  let isFront: Bool
  let mailbox: Mailbox
  let reactor: Reactor
  /// The workers' mailboxes; the front's, for workers.
  var workers: [Mailbox] = []
  var front: Mailbox?
  private var workerNext = 0

  var listener: Listener?
  private var listenerRegistration: Registration?
  private var refusedLingering = 0
  var connections: [Connection?] = []
  private var connectionCount = 0
  var again: [Connection] = []
  var parked: [Connection] = []
  private var drainUntil: Moment?

  let readBuffer: UnsafeMutableRawBufferPointer
  var out: ByteWriter
  let batch: UnsafeMutablePointer<Incoming>
  let outcomes: UnsafeMutablePointer<Bool>
  /// The frames that the batch borrows from, request by request.
  let frames: UnsafeMutablePointer<UnsafeRawBufferPointer>
  var turn = Turn()
  private var bytesHeld = 0

  let answered: [Telemetry.Counter?]
  let querySeconds: Histogram
  private let connectionsGauge: Gauge
  private let bytesGauge: Gauge
  let parkedGauge: Gauge

  /// Most bytes of answers that can be made in one turn: what may wait, one frame more, and its refusals.
  static func turnBytesMax(_ limits: ServerLimits) -> Int {
    limits.outputBytesMax + Limits.lengthBytes + Limits.frameOutBytesMax + 4096
  }

  init(_ shared: ServerShared, isFront: Bool) throws(SystemError) {
    self.shared = shared
    self.isFront = isFront
    reactor = try Reactor()
    mailbox = Mailbox(reactor.wakeUp)
    // A kept part of a frame, and one read behind it.
    readBuffer = .allocate(
      byteCount: ReactorLoop.readBytesMax * 2 + Limits.lengthBytes + Limits.frameInBytesMax, alignment: 16)
    out = ByteWriter(limit: ReactorLoop.turnBytesMax(shared.limits), reserved: 64 << 10)
    batch = .allocate(capacity: shared.limits.inFlightMax)
    outcomes = .allocate(capacity: shared.limits.inFlightMax)
    frames = .allocate(capacity: shared.limits.inFlightMax)
    outcomes.initialize(repeating: false, count: shared.limits.inFlightMax)
    var answered = [Telemetry.Counter?](repeating: nil, count: 256)
    for kind in Kind.allCases {
      answered[Int(kind.rawValue)] = shared.metrics.counter(.queries, "\(kind)", "ok")
    }
    self.answered = answered
    querySeconds = shared.metrics.histogram(.querySeconds)
    connectionsGauge = shared.metrics.gauge(.connections)
    bytesGauge = shared.metrics.gauge(.clientBytes)
    parkedGauge = shared.metrics.gauge(.parkedRequests)
  }

  deinit {
    readBuffer.deallocate()
    batch.deallocate()
    outcomes.deallocate()
    frames.deallocate()
  }

  var now: Moment { shared.clock.now }

  /// Runs until drained.
  func run() {
    do throws(SystemError) {
      if let descriptor = listener?.descriptor {
        listenerRegistration = try reactor.register(descriptor, .readable)
      }
      while true {
        let count = try reactor.wait(now: now, longest: again.isEmpty ? nil : .zero)
        for index in 0..<count { try handle(reactor.event(index)) }
        if !again.isEmpty { runAgain() }
        while let tag = reactor.dueTimer(now: now) { timer(tag) }
        if drainUntil != nil, connectionCount == 0, mailbox.closeIfEmpty() { return }
      }
    } catch {
      // The kernel refuses to tell what is ready: nothing can be served by this thread any more.
      shared.diagnostics.log(.error, "a reactor stopped", [.error: "\(error)"])
    }
  }

  private func handle(_ event: ReactorEvent) throws(SystemError) {
    switch event {
    case .stale: break
    case .woken: for message in mailbox.take() { receive(message) }
    case .ready(let registration, let readiness):
      if let connection = connection(registration.descriptor) {
        ready(connection, readiness)
      } else if registration == listenerRegistration {
        try acceptSome()
      }
    }
  }

  func connection(_ descriptor: Int32) -> Connection? {
    Int(descriptor) < connections.count ? connections[Int(descriptor)] : nil
  }

  private func receive(_ message: LoopMessage) {
    switch message {
    case .adopt(let connection):
      adopt(connection)
      if drainUntil != nil { drain(connection) }
    case .watermarksMoved:
      let waiting = parked
      parked.removeAll(keepingCapacity: true)
      for connection in waiting {
        connection.isInParked = false
        if !connection.session.waiting.isEmpty {
          connection.wantsRetry = true
          runLater(connection)
        }
      }
    case .drain(let until):
      drainUntil = until
      reactor.setTimer(until, tag: ReactorLoop.drainTag)
      if let listenerRegistration {
        try? reactor.unregister(listenerRegistration)
        self.listenerRegistration = nil
        listener = nil
      }
      for connection in connections { if let connection { drain(connection) } }
    }
  }

  /// Tag of the timer that ends a drain; no registration has it.
  private static let drainTag = UInt64.max
  /// Tag of the timer that listens again after descriptors ran out.
  private static let acceptTag = UInt64.max - 1

  private func timer(_ tag: UInt64) {
    if tag == ReactorLoop.drainTag {
      for connection in connections { if let connection { close(connection, .drain) } }
    } else if tag == ReactorLoop.acceptTag {
      if let listenerRegistration { try? reactor.change(listenerRegistration, .readable) }
    } else if let connection = connection(Int32(truncatingIfNeeded: tag & 0xFFFF_FFFF)),
      connection.registration?.number == UInt32(truncatingIfNeeded: tag >> 32)
    {
      connection.timerAt = .never
      timer(connection)
    }
  }

  // MARK: Connections come and go

  private func acceptSome() throws(SystemError) {
    for _ in 0..<ReactorLoop.acceptsMax {
      guard let outcome = try listener?.accept() else { return }
      switch outcome {
      case .none: return
      case .noDescriptors:
        shared.metrics.counter(.connectionsRefused, "no_descriptors").add()
        shared.diagnostics.log(.warning, "no descriptor left for a new connection; it waits")
        if let listenerRegistration { try reactor.change(listenerRegistration, []) }
        reactor.setTimer(now + .milliseconds(100), tag: ReactorLoop.acceptTag)
        return
      case .connection(let accepted): admit(accepted)
      }
    }
  }

  private func admit(_ accepted: Accepted) {
    let now = now
    let verdict = shared.admission.withLock { $0.connected(accepted.peer, now: now) }
    let connection = Connection(
      accepted, isAdmitted: verdict == .admitted, limits: shared.limits,
      roles: shared.settings.hello.roles, now: now, outputBytesMax: ReactorLoop.turnBytesMax(shared.limits))
    if verdict == .admitted {
      shared.metrics.counter(.connectionsAccepted).add()
      connectionsGauge.add(1)
      adopt(connection)
      return
    }
    shared.metrics.counter(.connectionsRefused, verdict.rawValue).add()
    shared.diagnostics.log(
      .warning, "a connection was refused", [.peer: "\(accepted.peer)", .reason: verdict.rawValue])
    adopt(connection)
    guard self.connection(connection.descriptor) === connection else { return }
    let refusal = Refusal(
      .tooManyConnections,
      verdict == .full
        ? "the node has as many connections as it takes" : "this address has as many connections as it may")
    say(connection, refusal)
    if refusedLingering < ReactorLoop.refusedLingeringMax {
      refusedLingering += 1
      linger(connection, .refused)
    } else {
      close(connection, .refused)
    }
  }

  private func adopt(_ connection: Connection) {
    do throws(SystemError) {
      // Bytes that wait for their turn come first: the buffer has room for one read behind a part of a frame.
      let interest: Readiness =
        connection.hasMore || connection.peerFinished || connection.session.mustNotRead ? [] : .readable
      connection.registration = try reactor.register(connection.descriptor, interest)
      connection.interest = interest
      while connections.count <= Int(connection.descriptor) { connections.append(nil) }
      connections[Int(connection.descriptor)] = connection
      connectionCount += 1
      connection.timerAt = .never
      connection.bytesCounted = 0
      account(connection)
      guard self.connection(connection.descriptor) === connection else { return }
      if !connection.session.waiting.isEmpty {
        mailbox.parkedCount.add(connection.session.waiting.count, ordering: .sequentiallyConsistent)
        listParked(connection)
        connection.wantsRetry = true
      }
      if connection.hasMore || connection.wantsRetry { runLater(connection) }
      schedule(connection)
    } catch {
      shared.diagnostics.log(.warning, "a connection cannot be watched", [.error: "\(error)"])
      discard(connection, .reset)
    }
  }

  /// Takes a connection out of this loop without closing it.
  private func release(_ connection: Connection) {
    if let registration = connection.registration { try? reactor.unregister(registration) }
    connection.registration = nil
    connections[Int(connection.descriptor)] = nil
    connectionCount -= 1
    changeBytes(-connection.bytesCounted)
    let waiting = connection.session.waiting.count
    if waiting > 0 { mailbox.parkedCount.subtract(waiting, ordering: .sequentiallyConsistent) }
    connection.isInAgain = false
    connection.isInParked = false
    parked.removeAll { $0 === connection }
    again.removeAll { $0 === connection }
  }

  /// Hands a connection to the thread that answers its next request.
  func migrate(_ connection: Connection) {
    release(connection)
    connection.hasMore = true
    let target: Mailbox?
    if isFront {
      let worker = connection.worker ?? workerNext
      if connection.worker == nil { workerNext = (workerNext + 1) % workers.count }
      connection.worker = worker
      target = workers[worker]
    } else {
      target = front
    }
    if target?.post(.adopt(connection)) != true { discard(connection, .drain) }
  }

  /// Closes a connection and counts why.
  func close(_ connection: Connection, _ reason: CloseReason) {
    let waiting = connection.session.waiting.count
    if waiting > 0 { parkedGauge.add(Int64(-waiting)) }
    release(connection)
    if !connection.isAdmitted && connection.lingerUntil != nil { refusedLingering -= 1 }
    discard(connection, connection.lingerUntil == nil ? reason : nil)
  }

  /// Closes the socket of a connection that no loop has.
  private func discard(_ connection: Connection, _ reason: CloseReason?) {
    SystemCall.close(connection.descriptor)
    if let reason, connection.isAdmitted { count(reason, connection) }
    if connection.isAdmitted {
      shared.admission.withLock { $0.left(connection.peer) }
      connectionsGauge.add(-1)
    }
  }

  private func count(_ reason: CloseReason, _ connection: Connection) {
    shared.metrics.counter(.closed, reason.rawValue).add()
    let level: DiagnosticLevel
    switch reason {
    case .peer, .drain, .reset: level = .debug
    case .helloTimeout, .helloFirst, .foreign, .frameSize, .idle, .slowReader, .memory, .refused:
      level = .info
    }
    shared.diagnostics.log(
      level, "a connection was closed", [.peer: "\(connection.peer)", .reason: reason.rawValue])
  }

  /// Says nothing more and throws away what comes, until the peer has read the last words and closes.
  func linger(_ connection: Connection, _ reason: CloseReason) {
    if connection.isAdmitted { count(reason, connection) }
    let waiting = connection.session.waiting.count
    if waiting > 0 {
      mailbox.parkedCount.subtract(waiting, ordering: .sequentiallyConsistent)
      parkedGauge.add(Int64(-waiting))
      for index in (0..<waiting).reversed() { connection.dropWaiting(at: index) }
    }
    connection.kept = []
    connection.hasMore = false
    let until = now + shared.limits.lingerWithin
    connection.lingerUntil = until
    if connection.output.isEmpty { Socket.finishSending(connection.descriptor) }
    if connection.peerFinished && connection.output.isEmpty {
      close(connection, reason)
      return
    }
    updateInterest(connection)
    account(connection)
    setTimer(connection, until)
  }

  // MARK: Drain

  /// Tells a connection that the node leaves, and closes it once nothing is owed to it.
  private func drain(_ connection: Connection) {
    if connection.lingerUntil != nil { return }
    let wasOpen = connection.session.isOpen
    connection.session.drain()
    if wasOpen, let refusal = CloseReason.drain.refusal { say(connection, refusal) }
    settle(connection)
  }

  /// Ends a draining or half-closed connection that nothing is owed to.
  func settle(_ connection: Connection) {
    guard self.connection(connection.descriptor) === connection, connection.lingerUntil == nil,
      connection.isSettled
    else { return }
    if connection.session.isDraining {
      linger(connection, .drain)
    } else if connection.peerFinished {
      close(connection, .peer)
    }
  }

  // MARK: Time and memory

  /// Sets the timer that the session asks for next.
  func schedule(_ connection: Connection) {
    if let until = connection.lingerUntil {
      setTimer(connection, until)
      return
    }
    switch connection.session.tick(now: now) {
    case .wait(let until): setTimer(connection, until)
    case .close: setTimer(connection, now)
    }
  }

  private func setTimer(_ connection: Connection, _ moment: Moment) {
    guard let registration = connection.registration, moment < connection.timerAt else { return }
    connection.timerAt = moment
    reactor.setTimer(
      moment, tag: UInt64(registration.number) << 32 | UInt64(UInt32(bitPattern: registration.descriptor)))
  }

  private func timer(_ connection: Connection) {
    let now = now
    if let until = connection.lingerUntil {
      if now >= until { close(connection, .drain) } else { setTimer(connection, until) }
      return
    }
    if connection.session.waiting.contains(where: { $0.until <= now }) {
      connection.wantsRetry = true
      runLater(connection)
    }
    switch connection.session.tick(now: now) {
    case .wait(let until): setTimer(connection, max(until, now + .milliseconds(1)))
    case .close(let reason): end(connection, reason)
    }
  }

  /// Tells the reason if the socket can take it, then closes.
  func end(_ connection: Connection, _ reason: CloseReason) {
    if connection.output.isEmpty, let refusal = reason.refusal {
      say(connection, refusal)
      if self.connection(connection.descriptor) === connection { linger(connection, reason) }
    } else {
      close(connection, reason)
    }
  }

  /// Counts the bytes held for a connection; closes the largest if all together hold too much.
  func account(_ connection: Connection) {
    let held = connection.bytesHeld
    if held == connection.bytesCounted { return }
    changeBytes(held - connection.bytesCounted)
    connection.bytesCounted = held
    // Each loop answers for its share, so that no thread looks into another's connections.
    let share = shared.limits.clientBytesMax / (shared.settings.workerCount + 1)
    while bytesHeld > share {
      guard let largest = connections.lazy.compactMap({ $0 }).max(by: { $0.bytesCounted < $1.bytesCounted }),
        largest.bytesCounted > 0
      else { return }
      end(largest, .memory)
      // Who lingers holds nothing but its last words.
      if self.connection(largest.descriptor) === largest, largest.bytesCounted > 0 { close(largest, .memory) }
    }
  }

  private func changeBytes(_ change: Int) {
    if change == 0 { return }
    bytesHeld += change
    bytesGauge.add(Int64(change))
  }

  func listParked(_ connection: Connection) {
    if connection.isInParked { return }
    connection.isInParked = true
    parked.append(connection)
  }

  func runLater(_ connection: Connection) {
    if connection.isInAgain { return }
    connection.isInAgain = true
    again.append(connection)
  }
}
