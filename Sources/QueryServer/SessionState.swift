// One client's session. Pure: bytes and time in, decisions out; the connection that drives it owns socket and memory.
//
//     greeting ── HELLO with a version we speak ──> open ── drain ──> draining
//        any of them ── what `CloseReason` lists ──> over; the driver drops the session

public import Posix
public import QueryProtocol

/// Why a connection was closed; the raw value is the label of `rms_closed_total`.
public enum CloseReason: String, Hashable, Sendable, CaseIterable {
  /// The client closed in order.
  case peer
  /// The connection broke.
  case reset
  /// No whole HELLO in time.
  case helloTimeout = "hello_timeout"
  /// Another message in place of HELLO, or HELLO again.
  case helloFirst = "hello_first"
  /// Another protocol.
  case foreign
  /// A length outside the bounds.
  case frameSize = "frame_size"
  /// Silent for too long.
  case idle
  /// Did not take its answers.
  case slowReader = "slow_reader"
  /// All clients together held too much memory, and this one most.
  case memory
  /// The node is leaving.
  case drain
  /// Not admitted.
  case refused

  /// What the client is told before; nil where nobody listens any more.
  public var refusal: Refusal? {
    switch self {
    case .peer, .reset, .helloFirst, .foreign, .frameSize, .refused: nil
    case .helloTimeout: Refusal(.idle, "no whole HELLO within 5 seconds")
    case .idle: Refusal(.idle, "nothing was heard for 60 seconds; send PING every 30")
    case .slowReader: Refusal(.idle, "answers were not read for 10 seconds")
    case .memory: Refusal(.overloaded, "clients hold too much memory, and this one most")
    case .drain: Refusal(.draining, "this node is leaving; ask another one")
    }
  }
}

/// What the front of the received bytes asks for.
public enum SessionStep {
  /// A request for the handler. Take it by `Turn.take` or leave it unconsumed.
  case request(Incoming, consumed: Int)
  /// Answer PING.
  case ping(id: UInt32, consumed: Int)
  /// Answer HELLO; the session is open.
  case hello(id: UInt32, HelloRequest, version: UInt8, consumed: Int)
  /// Answer ERROR and go on.
  case refuse(id: UInt32, Refusal, consumed: Int)
  /// Answer ERROR and close.
  case close(id: UInt32, Refusal, CloseReason)
  /// No whole frame: so many bytes in all make the next step possible.
  case incomplete(bytes: Int)
  /// As many requests wait as may: read nothing until one is answered.
  case full
}

/// The requests taken in one turn, and not answered yet. Reused by its reactor.
public struct Turn: Sendable {
  private(set) var ids: [UInt32] = []
  private var idMax: UInt32 = 0

  public init() { ids.reserveCapacity(Limits.inFlightMax) }

  /// Takes a request.
  ///
  /// - Parameter id: the request's, not in the turn yet.
  @inline(__always) public mutating func take(_ id: UInt32) {
    ids.append(id)
    if id > idMax { idMax = id }
  }

  /// Whether a request of this turn has the id. Ascending ids cost one comparison.
  @inline(__always) func contains(_ id: UInt32) -> Bool { id <= idMax && ids.contains(id) }

  /// The requests are answered or parked.
  public mutating func end() {
    ids.removeAll(keepingCapacity: true)
    idMax = 0
  }
}

/// What time makes of a session.
public enum SessionTick: Hashable, Sendable {
  /// Nothing; look again then at the latest.
  case wait(until: Moment)
  /// Close, and say why.
  case close(CloseReason)
}

/// The state of one session.
public struct SessionState: Sendable {
  /// A request that waits for a watermark.
  public struct Waiting: Hashable, Sendable {
    public let id: UInt32
    /// When it is answered `at_least_timeout`.
    public let until: Moment
  }

  private enum Phase: Hashable {
    /// No version agreed yet.
    case greeting(since: Moment)
    case open
    /// What came before the notice is answered, nothing else.
    case draining
  }

  private let limits: ServerLimits
  private let roles: Roles
  private var splitter = FrameSplitter.requests()
  private var phase: Phase
  private var heardAt: Moment
  /// Since when no byte of the waiting answers was taken; nil if no answer waits for the socket.
  private var stalledSince: Moment?
  /// Requests that wait for a watermark, in the order they came.
  public private(set) var waiting: [Waiting] = []

  /// - Parameters:
  ///   - limits: of the server.
  ///   - roles: what the client may do, as HELLO's answer announces it.
  ///   - now: when the client connected.
  public init(_ limits: ServerLimits, roles: Roles, now: Moment) {
    self.limits = limits
    self.roles = roles
    phase = .greeting(since: now)
    heardAt = now
  }

  /// Whether HELLO was answered.
  public var isOpen: Bool { phase == .open }

  /// Whether the session was told to end.
  public var isDraining: Bool { phase == .draining }

  /// Whether nothing may be read now: answers wait for the socket, or too many requests for a watermark.
  public var mustNotRead: Bool { stalledSince != nil || waiting.count >= limits.inFlightMax }

  /// Bytes arrived.
  ///
  /// - Parameter now: when.
  public mutating func heard(now: Moment) { heardAt = now }

  /// Looks at the front of the received bytes.
  ///
  /// - Parameters:
  ///   - bytes: all received bytes not consumed yet.
  ///   - turn: the requests taken and not answered.
  /// - Returns: what to do; drop the consumed bytes before asking again.
  /// - Complexity: O(frame), O(waiting requests) where ids do not ascend; no allocation.
  public mutating func next(_ bytes: UnsafeRawBufferPointer, _ turn: borrowing Turn) -> SessionStep {
    if turn.ids.count + waiting.count >= limits.inFlightMax { return .full }
    switch splitter.next(bytes) {
    case .incomplete(let count): return .incomplete(bytes: count)
    case .refused(let refusal): return .close(id: 0, refusal, SessionState.reason(refusal))
    case .frame(let frame, let consumed):
      let incoming: Incoming
      do throws(Refusal) {
        incoming = try Incoming.decode(frame)
      } catch {
        return refused(frame.id, error, consumed)
      }
      return judged(incoming, consumed, turn)
    }
  }

  private mutating func refused(_ id: UInt32, _ refusal: Refusal, _ consumed: Int) -> SessionStep {
    switch phase {
    case .greeting:
      if refusal.code == .foreign { return .close(id: 0, refusal, .foreign) }
      // Another HELLO may follow, under the same bounds and the same five seconds.
      splitter = .requests()
    case .open, .draining: break
    }
    return .refuse(id: id, refusal, consumed: consumed)
  }

  private mutating func judged(
    _ incoming: Incoming, _ consumed: Int, _ turn: borrowing Turn
  ) -> SessionStep {
    let id = incoming.id
    if case .hello(let hello) = incoming.request {
      guard case .greeting = phase else {
        return .close(id: id, Refusal(.helloFirst, "HELLO comes once"), .helloFirst)
      }
      guard let version = hello.versionChosen else {
        return refused(id, Refusal(.unsupportedVersion, "this server speaks version 1"), consumed)
      }
      phase = .open
      return .hello(id: id, hello, version: version, consumed: consumed)
    }
    switch phase {
    case .greeting: return .close(id: id, Refusal(.helloFirst, "the first message is HELLO"), .helloFirst)
    case .draining:
      return .refuse(id: id, Refusal(.draining, "this node is leaving; ask another one"), consumed: consumed)
    case .open: break
    }
    guard roles.isSuperset(of: incoming.request.role) else {
      return .refuse(
        id: id, Refusal(.notAllowed, "the role of this client does not allow this"), consumed: consumed)
    }
    if turn.contains(id) || (!waiting.isEmpty && waiting.contains { $0.id == id }) {
      return .refuse(
        id: id, Refusal(.duplicateID, "a request with this id is not answered yet"), consumed: consumed)
    }
    if incoming.deadlineMillis == 0 {
      return .refuse(
        id: id, Refusal(.deadlineExceeded, "the deadline was 0 on arrival"), consumed: consumed)
    }
    // A PING that waits for an offset is answered where watermarks are known.
    if case .ping = incoming.request, incoming.atLeast.isEmpty { return .ping(id: id, consumed: consumed) }
    return .request(incoming, consumed: consumed)
  }

  private static func reason(_ refusal: Refusal) -> CloseReason {
    switch refusal.code {
    case .foreign: .foreign
    case .helloFirst: .helloFirst
    // The splitter refuses nothing else.
    case .frameSize: .frameSize
    case let code: preconditionFailure("a splitter refused with \(code)")
    }
  }

  /// A request of the turn waits for a watermark.
  ///
  /// - Parameters:
  ///   - incoming: the request.
  ///   - now: the clock.
  /// - Returns: until when it waits.
  @discardableResult
  public mutating func park(_ incoming: Incoming, now: Moment) -> Moment {
    precondition(waiting.count < limits.inFlightMax, "\(waiting.count) requests wait already")
    let own = incoming.deadlineMillis.map { Duration.milliseconds(Int64($0)) }
    let until = now + min(own ?? limits.atLeastWithin, limits.atLeastWithin)
    waiting.append(Waiting(id: incoming.id, until: until))
    return until
  }

  /// A waiting request is answered.
  ///
  /// - Parameter index: in `waiting`.
  public mutating func answered(at index: Int) { waiting.remove(at: index) }

  /// Bytes of answers wait for the socket, or no longer do.
  ///
  /// - Parameters:
  ///   - count: bytes that wait.
  ///   - progressed: whether the socket took any since the last call.
  ///   - now: the clock.
  public mutating func output(waiting count: Int, progressed: Bool, now: Moment) {
    if count == 0 {
      // Taking the last answer is a sign of life.
      if stalledSince != nil { heardAt = max(heardAt, now) }
      stalledSince = nil
    } else if progressed || stalledSince == nil {
      stalledSince = now
    }
  }

  /// The node is leaving: nothing new is answered.
  public mutating func drain() { phase = .draining }

  /// Time passed.
  ///
  /// - Parameter now: the clock.
  /// - Returns: to close, or when to look again.
  public func tick(now: Moment) -> SessionTick {
    if let stalledSince {
      let end = stalledSince + limits.outputStalledAfter
      return now >= end ? .close(.slowReader) : .wait(until: earliest(end))
    }
    switch phase {
    case .greeting(let since):
      let end = since + limits.helloWithin
      return now >= end ? .close(.helloTimeout) : .wait(until: end)
    case .open, .draining:
      // Who waits for a watermark is not idle, and the wait is bounded.
      if let first = waiting.map(\.until).min() { return .wait(until: first) }
      let end = heardAt + limits.idleAfter
      return now >= end ? .close(.idle) : .wait(until: end)
    }
  }

  private func earliest(_ moment: Moment) -> Moment {
    waiting.map(\.until).min().map { min($0, moment) } ?? moment
  }
}
