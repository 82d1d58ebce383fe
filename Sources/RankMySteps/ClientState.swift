// A connection as a value: ids, HELLO first, deadlines, who waits for what, when to connect again. No socket, no
// clock: the driver (RankClient) tells what happened and when, and obeys the actions.
//
//     apart ──connect──> connecting ──connected──> greeting ──HELLO answered──> ready
//       ^                    │                        │                           │
//       └────── connectFailed┴──────── ended ─────────┴────────── ended ──────────┘   each failure lengthens the pause
//
// Requests may be asked in `greeting` and `ready`. An answer that comes after its request has expired is dropped; its
// id is not used again before that.

public import Bytes
public import Posix
public import QueryProtocol
public import Transport

/// How a client behaves; the same for every connection it makes.
public struct ClientSettings: Sendable {
  /// Longest wait for a connection.
  public var connectTimeout: Duration = .seconds(5)
  /// Longest wait for HELLO's answer.
  public var helloTimeout: Duration = .seconds(5)
  /// Longest wait for an answer; the node is told, and answers what it can by then.
  public var requestTimeout: Duration = .seconds(10)
  /// What the answer's way may take beyond the deadline that the node was told.
  public var grace: Duration = .milliseconds(500)
  /// Who asks, for the node's list of clients.
  public var name: OwnedRequest.ClientName
  /// Options of HELLO.
  public var options: [OwnedRequest.Option] = []
  /// The pause before connecting again after a failure.
  public var backoff: Backoff

  /// The usual settings.
  ///
  /// - Parameters:
  ///   - name: what the program calls itself.
  ///   - seed: of the jitter between tries.
  public init(name: String = "RankMySteps", seed: UInt64 = 1) {
    self.name = OwnedRequest.ClientName(name: name)
    backoff = Backoff(seed: seed)
  }
}

/// The pure half of a client.
public struct ClientState: Sendable {
  /// Where the connection is.
  public enum Phase: Equatable, Sendable {
    /// No connection, and none to be tried before `retryAt`; `error` ended the last one.
    case apart(retryAt: Moment, error: ClientError?)
    case connecting
    /// HELLO is on its way.
    case greeting(until: Moment)
    case ready(HelloAnswer)
  }

  /// What the driver has to do.
  public enum Action: Equatable, Sendable {
    /// Hand the answer to whoever asked.
    case answer(id: UInt32, Response)
    /// Tell whoever asked that there is no answer.
    case fail(id: UInt32, ClientError)
    /// Close the socket; all that waited has been told.
    case close(ClientError)
  }

  private struct Waiting: Sendable {
    var kind: Kind
    var until: Moment
    /// Nobody waits any more; the answer will be dropped.
    var expired: Bool
  }

  /// Id of every HELLO; requests count on from there.
  static let helloID: UInt32 = 1

  public private(set) var phase: Phase
  private let settings: ClientSettings
  private var backoff: Backoff
  private var splitter: FrameSplitter
  private var waiting: [UInt32: Waiting] = [:]
  private var idNext: UInt32 = ClientState.helloID + 1
  /// Kinds of frames that no request asked for; version 1 has none.
  static let unaskedKinds: ClosedRange<UInt8> = 192...254
  /// No request waits beyond this many; HELLO's answer says how many.
  private var inFlightMax = Limits.inFlightMax
  private var receivedAny = false
  /// What the node said when it began to leave; the connection ends with the last answer.
  private var leaving: ClientError?

  public init(settings: ClientSettings) {
    self.settings = settings
    backoff = settings.backoff
    phase = .apart(retryAt: Moment(nanoseconds: .min), error: nil)
    splitter = .answers()
  }

  /// Requests that wait for their answers, expired ones included: the node counts those, too.
  public var inFlight: Int { waiting.count }

  /// When `expire` has something to do next; nil if nothing waits.
  ///
  /// - Complexity: O(requests in flight).
  public var expiresNext: Moment? {
    var next: Moment?
    if case .greeting(let until) = phase { next = until }
    for request in waiting.values where !request.expired { next = min(next ?? request.until, request.until) }
    return next
  }

  // MARK: Connecting

  /// Asks to connect.
  ///
  /// - Parameter now: the time.
  /// - Throws: the error of the last try while its pause lasts; nothing changes then.
  public mutating func connect(at now: Moment) throws(ClientError) {
    switch phase {
    case .apart(let retryAt, let error):
      if now < retryAt, let error { throw error }
      phase = .connecting
    case .connecting, .greeting, .ready: preconditionFailure("connect while \(phase)")
    }
  }

  /// The connection could not be made.
  ///
  /// - Parameters:
  ///   - error: why.
  ///   - now: the time.
  public mutating func connectFailed(_ error: ClientError, at now: Moment) {
    guard case .connecting = phase else { preconditionFailure("connectFailed while \(phase)") }
    phase = .apart(retryAt: now + backoff.failed(), error: error)
  }

  /// The connection is made: says HELLO.
  ///
  /// - Parameters:
  ///   - now: the time.
  ///   - out: what to send.
  public mutating func connected(at now: Moment, into out: inout ByteWriter) {
    guard case .connecting = phase else { preconditionFailure("connected while \(phase)") }
    splitter = .answers()
    receivedAny = false
    leaving = nil
    idNext = ClientState.helloID + 1
    inFlightMax = Limits.inFlightMax
    RequestWriter.write(
      .hello(
        versionMin: Limits.versionMin, versionMax: Limits.version, client: settings.name,
        options: settings.options),
      id: ClientState.helloID, into: &out)
    phase = .greeting(until: now + settings.helloTimeout)
  }

  // MARK: Asking

  /// Sends a request.
  ///
  /// - Parameters:
  ///   - request: anything but HELLO.
  ///   - options: a deadline (the settings' one if nil) and what the answer must reflect.
  ///   - now: the time.
  ///   - out: what to send.
  /// - Returns: the id that its answer will carry.
  /// - Throws: `disconnected` without a connection, `tooManyInFlight`.
  public mutating func ask(
    _ request: OwnedRequest, options: RequestOptions = RequestOptions(), at now: Moment,
    into out: inout ByteWriter
  ) throws(ClientError) -> UInt32 {
    switch phase {
    case .apart, .connecting: throw .disconnected("nothing is connected")
    case .greeting, .ready: break
    }
    guard waiting.count < inFlightMax else { throw .tooManyInFlight(max: inFlightMax) }
    var options = options
    let timeout = options.deadlineMillis.map { Duration.milliseconds(Int64($0)) } ?? settings.requestTimeout
    options.deadlineMillis = options.deadlineMillis ?? UInt32(clamping: timeout.nanoseconds / 1_000_000)
    while waiting[idNext] != nil { advanceID() }
    let id = idNext
    advanceID()
    waiting[id] = Waiting(kind: request.kind, until: now + timeout + settings.grace, expired: false)
    RequestWriter.write(request, id: id, options: options, into: &out)
    return id
  }

  private mutating func advanceID() { idNext = idNext == .max ? ClientState.helloID + 1 : idNext + 1 }

  // MARK: Hearing

  /// Bytes came.
  ///
  /// - Parameters:
  ///   - bytes: all received bytes that were not consumed before.
  ///   - now: the time.
  ///   - actions: appended to; after `close` nothing more comes.
  /// - Returns: how many of the bytes are done with.
  public mutating func received(
    _ bytes: UnsafeRawBufferPointer, at now: Moment, into actions: inout [Action]
  ) -> Int {
    if !receivedAny, let peer = ForeignPeer.recognise(bytes) {
      end(.notRMS(peer), at: now, into: &actions)
      return bytes.count
    }
    var consumed = 0
    while consumed < bytes.count {
      switch splitter.next(UnsafeRawBufferPointer(rebasing: bytes[consumed...])) {
      case .incomplete: return consumed
      case .refused(let refusal):
        end(.protocolBroken("\(refusal.text)"), at: now, into: &actions)
        return bytes.count
      case .frame(let frame, let length):
        consumed += length
        receivedAny = true
        if let error = take(frame, into: &actions) {
          end(error, at: now, into: &actions)
          return bytes.count
        }
      }
    }
    return consumed
  }

  /// Takes one frame.
  ///
  /// - Returns: why the connection must end; nil if it goes on.
  private mutating func take(_ frame: Frame, into actions: inout [Action]) -> ClientError? {
    // A later node may push what this client does not know; nothing waits for it.
    if ClientState.unaskedKinds.contains(frame.kind) { return nil }
    let response: Response
    do throws(AnswerError) { response = try Response.decode(frame) } catch {
      return .protocolBroken("\(error)")
    }
    if case .error(let error) = response, frame.id == 0 {
      // A node that leaves still answers what waits, then closes.
      guard error.code == .draining, !waiting.isEmpty else { return ClientError(error) }
      leaving = ClientError(error)
      return nil
    }
    if case .greeting = phase {
      guard frame.id == ClientState.helloID else { return .protocolBroken("an answer before that to HELLO") }
      switch response {
      case .hello(let answer):
        phase = .ready(answer)
        inFlightMax = max(1, Int(answer.inFlightMax))
        backoff.succeeded()
        return nil
      case .error(let error): return ClientError(error)
      default: return .protocolBroken("kind \(frame.kind) answers HELLO")
      }
    }
    guard let request = waiting.removeValue(forKey: frame.id) else {
      return .protocolBroken("an answer to \(frame.id), which nobody asked")
    }
    let whyOver = waiting.isEmpty ? leaving : nil
    if case .error(let error) = response {
      if !request.expired { actions.append(.fail(id: frame.id, ClientError(error))) }
      return whyOver
    }
    guard frame.kind == request.kind.answer else {
      actions.append(.fail(id: frame.id, .protocolBroken("kind \(frame.kind) answers \(request.kind)")))
      return .protocolBroken("kind \(frame.kind) answers \(request.kind)")
    }
    if !request.expired { actions.append(.answer(id: frame.id, response)) }
    return whyOver
  }

  /// The connection ended, by the peer or by a failing call.
  ///
  /// - Parameters:
  ///   - why: what the system said.
  ///   - now: the time.
  ///   - actions: appended to, `close` last.
  public mutating func ended(_ why: String, at now: Moment, into actions: inout [Action]) {
    switch phase {
    case .greeting where !receivedAny: end(.notRMS(.closed), at: now, into: &actions)
    case .greeting, .ready: end(.disconnected(why), at: now, into: &actions)
    case .apart, .connecting: preconditionFailure("ended while \(phase)")
    }
  }

  /// Time has passed.
  ///
  /// - Parameters:
  ///   - now: the time.
  ///   - actions: appended to.
  public mutating func expire(at now: Moment, into actions: inout [Action]) {
    if case .greeting(let until) = phase, now >= until {
      end(.notRMS(.silent), at: now, into: &actions)
      return
    }
    for (id, request) in waiting.sorted(by: { $0.key < $1.key })
    where !request.expired && now >= request.until {
      waiting[id]?.expired = true
      actions.append(.fail(id: id, .timedOut("\(request.kind)".uppercased())))
    }
  }

  /// Fails all that waits, and closes.
  private mutating func end(_ error: ClientError, at now: Moment, into actions: inout [Action]) {
    for (id, request) in waiting.sorted(by: { $0.key < $1.key }) where !request.expired {
      actions.append(.fail(id: id, error))
    }
    waiting.removeAll()
    // A connection that once was ready may be made anew at once; one that never was waits its pause.
    if case .ready = phase {
      phase = .apart(retryAt: now, error: error)
    } else {
      phase = .apart(retryAt: now + backoff.failed(), error: error)
    }
    actions.append(.close(error))
  }
}
