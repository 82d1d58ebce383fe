// A connection as a value: handshake, stream ids, deadlines, orphans, heartbeat. No socket, no clock: the driver tells
// what came and when, sends what is written, and obeys the actions.
//
//     opened ──start──> probing ──SUPPORTED──> starting ──READY──────────────────────────────> ready
//                          │                      └──AUTHENTICATE──> authenticating ──SUCCESS──> ready
//                          └───────────────┴────────────────────────────┴──────────────────────┴──> closed
//
// A request that is not answered in time is told so at once, but keeps its stream id until the answer comes, which is
// dropped then: an id in use is never given to another request.

internal import Posix

/// How connections behave.
public struct ConnectionSettings: Sendable {
  /// Name and password, sent in the clear to a server that asks for them.
  public struct Credentials: Hashable, Sendable {
    public let user: String
    public let password: String

    public init(user: String, password: String) {
      self.user = user
      self.password = password
    }
  }

  public var credentials: Credentials?
  /// Compress by LZ4 if the server can.
  public var compresses = true
  /// Longest time for connecting, and again for the handshake.
  public var connectTimeout: Duration = .seconds(5)
  /// Silence after which a heartbeat is sent.
  public var heartbeatInterval: Duration = .seconds(30)
  /// Longest wait for its answer.
  public var heartbeatTimeout: Duration = .seconds(5)
  /// More unanswered requests than this, the oldest older than `orphanAge`, end the connection.
  public var orphansMax = 1024
  public var orphanAge: Duration = .seconds(1)
  /// Requests under way at once, 1...32,767.
  public var inFlightMax = CQLLimits.streamsMax
  /// Highest version to speak.
  public var versionMax = ProtocolVersion.v5
  /// What the program calls itself, for the server's list of clients.
  public var applicationName = "rankmysteps"

  public init() {}
}

struct ConnectionState {
  enum Phase: Equatable {
    case opened
    /// OPTIONS is out, in this version.
    case probing(ProtocolVersion, until: Moment)
    case starting(ProtocolVersion, until: Moment)
    case authenticating(ProtocolVersion, until: Moment, rounds: Int)
    case ready(ProtocolVersion)
    case closed
  }

  enum Action: Equatable {
    /// Requests may be asked from now on.
    case ready(ProtocolVersion)
    case answer(tag: UInt64, Response)
    /// No answer in time; what came of it is unknown.
    case timedOut(tag: UInt64)
    /// The connection ended first; what came of it is unknown.
    case lost(tag: UInt64, ConnectionError)
    case event(ServerEvent)
    /// Close the socket; all that waited has been told.
    case close(ConnectionError)
  }

  private struct Slot {
    var tag: UInt64
    var until: Moment
    var isTaken = false
    var orphanedAt: Moment?
  }

  /// The tag of heartbeats; no request has it.
  static let heartbeatTag = UInt64.max

  private(set) var phase = Phase.opened
  private let settings: ConnectionSettings
  private let versionFirst: ProtocolVersion
  private let versionMax: ProtocolVersion
  private var writer = FrameWriter()
  private var reader = FrameReader()
  private var ids: StreamIDs
  private var slots: [Slot] = []
  private(set) var orphanCount = 0
  private var compresses = false
  private var heardAt = Moment(nanoseconds: .min)
  private var heartbeatIsOut = false
  /// No deadline lies before it.
  private var deadlineNext = Moment.never

  /// Its first message is in version `first`; no version above `max` is agreed to.
  init(_ settings: ConnectionSettings, first: ProtocolVersion = .v4, max: ProtocolVersion = .v5) {
    self.settings = settings
    versionFirst = first
    versionMax = max
    ids = StreamIDs(max: settings.inFlightMax)
  }

  /// Requests under way, orphans included.
  var inFlight: Int { ids.count }

  var isReady: Bool {
    if case .ready = phase { true } else { false }
  }

  // MARK: Handshake

  /// The socket is connected.
  mutating func start(at now: Moment, into out: inout WireWriter) {
    guard case .opened = phase else { preconditionFailure("start while \(phase)") }
    heardAt = now
    phase = .probing(versionFirst, until: now + settings.connectTimeout)
    write(.options, versionFirst, stream: 0, into: &out)
  }

  private mutating func write(
    _ request: Request, _ version: ProtocolVersion, stream: Int16, into out: inout WireWriter
  ) {
    writer.write(
      FrameHeader(version: version, stream: stream, opcode: request.opcode, bodyBytes: 0),
      body: request.body(version), into: &out)
  }

  private mutating func startUp(
    _ supported: [String: [String]], until: Moment, into out: inout WireWriter
  ) -> ConnectionError? {
    guard let version = ConnectionState.version(supported, max: versionMax) else {
      let offered = supported["PROTOCOL_VERSIONS", default: []].joined(separator: ", ")
      return .versionRejected("it offers \(offered)", next: nil)
    }
    compresses = settings.compresses && supported["COMPRESSION", default: []].contains("lz4")
    var options = [
      "CQL_VERSION": "3.0.0", "DRIVER_NAME": "RankMySteps", "DRIVER_VERSION": "1",
      "APPLICATION_NAME": settings.applicationName,
    ]
    if compresses { options["COMPRESSION"] = "lz4" }
    write(.startup(options), version, stream: 0, into: &out)
    // The answer may be compressed already; STARTUP itself never is.
    if version == .v4, compresses { reader.framing = .plainLZ4 }
    phase = .starting(version, until: until)
    return nil
  }

  /// The highest version both sides speak; a server that lists none speaks 4.
  static func version(_ supported: [String: [String]], max: ProtocolVersion) -> ProtocolVersion? {
    guard let offered = supported["PROTOCOL_VERSIONS"] else { return .v4 }
    return ProtocolVersion.allCases.reversed().first { version in
      version <= max
        && offered.contains { $0.hasPrefix("\(version.rawValue)/") && !$0.hasSuffix("-beta") }
    }
  }

  /// From READY or AUTHENTICATE on, both directions are framed as the version says.
  private mutating func changeOver(_ version: ProtocolVersion) {
    switch version {
    case .v4: writer.framing = compresses ? .plainLZ4 : .plain
    case .v5:
      writer.framing = .segments(lz4: compresses)
      reader.framing = .segments(lz4: compresses)
    }
  }

  private mutating func becomeReady(_ version: ProtocolVersion, into actions: inout [Action]) {
    phase = .ready(version)
    actions.append(.ready(version))
  }

  private func token() -> [UInt8]? {
    settings.credentials.map { [0] + Array($0.user.utf8) + [0] + Array($0.password.utf8) }
  }

  private static func rejection(
    _ error: ServerError, _ asked: ProtocolVersion, _ answered: UInt8
  ) -> ConnectionError {
    let isAboutVersions =
      error.message.contains("Invalid or unsupported protocol version")
      || error.message.contains("Beta version of the protocol used")
    let isAllowedNoMore = error.message.contains("Rejecting Protocol Version")
    switch asked {
    case .v5 where isAboutVersions: return .versionRejected(error.message, next: .v4)
    case .v4 where (isAboutVersions || isAllowedNoMore) && answered >= 5:
      return .versionRejected(error.message, next: .v5)
    case .v4 where isAboutVersions || isAllowedNoMore, .v5 where isAllowedNoMore:
      return .versionRejected(error.message, next: nil)
    case .v4, .v5: return error.kind == .authentication ? .authentication(error.message) : .refused(error)
    }
  }

  /// An answer while the handshake goes on; returns why the connection must end.
  private mutating func shake(
    _ response: Response, header: FrameHeader, into out: inout WireWriter, _ actions: inout [Action]
  ) -> ConnectionError? {
    switch (phase, response.message) {
    case (.probing(let version, _), .error(let error)), (.starting(let version, _), .error(let error)),
      (.authenticating(let version, _, _), .error(let error)):
      return ConnectionState.rejection(error, version, header.version)
    case (.probing(_, let until), .supported(let supported)):
      return startUp(supported, until: until, into: &out)
    case (.starting(let version, _), .ready):
      changeOver(version)
      becomeReady(version, into: &actions)
      return nil
    case (.starting(let version, let until), .authenticate(let name)):
      changeOver(version)
      guard let token = token() else { return .authentication("it asks for a password (\(name))") }
      write(.authResponse(token), version, stream: 0, into: &out)
      phase = .authenticating(version, until: until, rounds: 1)
      return nil
    case (.authenticating(let version, let until, let rounds), .authChallenge):
      // PLAIN has nothing more to say than it said; two servers in the field ask once more.
      guard let token = token(), rounds < 3 else {
        return .authentication("it asks for more than a password")
      }
      write(.authResponse(token), version, stream: 0, into: &out)
      phase = .authenticating(version, until: until, rounds: rounds + 1)
      return nil
    case (.authenticating(let version, _, _), .authSuccess):
      becomeReady(version, into: &actions)
      return nil
    case (.probing, _), (.starting, _), (.authenticating, _):
      return .protocolBroken("opcode \(header.opcode) during the handshake")
    case (.opened, _), (.ready, _), (.closed, _): preconditionFailure("a handshake while \(phase)")
    }
  }

  // MARK: Asking

  /// Asks; `flush` sends. The tag comes back with the answer. False if no stream id is free; nothing was written then.
  mutating func ask(_ request: Request, tag: UInt64, until: Moment, into out: inout WireWriter) -> Bool {
    guard case .ready(let version) = phase else { preconditionFailure("ask while \(phase)") }
    guard let id = ids.take() else { return false }
    while slots.count <= Int(id) { slots.append(Slot(tag: 0, until: .never)) }
    slots[Int(id)] = Slot(tag: tag, until: until, isTaken: true)
    deadlineNext = min(deadlineNext, until)
    write(request, version, stream: id, into: &out)
    return true
  }

  /// Packs what was asked since the last time.
  mutating func flush(into out: inout WireWriter) { writer.flush(into: &out) }

  // MARK: Hearing

  /// Bytes came.
  mutating func received(
    _ bytes: UnsafeRawBufferPointer, at now: Moment, into out: inout WireWriter, _ actions: inout [Action]
  ) {
    if case .closed = phase { return }
    heardAt = now
    reader.append(bytes)
    do throws(CodecError) {
      while let envelope = try reader.next() {
        if let error = try take(envelope, into: &out, &actions) {
          close(error, into: &actions)
          return
        }
      }
    } catch {
      close(.protocolBroken("\(error)"), into: &actions)
    }
  }

  private mutating func take(
    _ envelope: Envelope, into out: inout WireWriter, _ actions: inout [Action]
  ) throws(CodecError) -> ConnectionError? {
    let header = envelope.header
    guard case .ready(let version) = phase else {
      // Whoever rejects a version may answer in another one; errors begin alike in all of them.
      let response = try Response(envelope, ProtocolVersion(rawValue: header.version) ?? .v4)
      let error = shake(response, header: header, into: &out, &actions)
      if error == nil { writer.flush(into: &out) }
      return error
    }
    guard header.version == version.rawValue else {
      return .protocolBroken("an answer in version \(header.version) instead of \(version.rawValue)")
    }
    if header.stream == -1 {
      if case .event(let event) = try Response(envelope, version).message { actions.append(.event(event)) }
      return nil
    }
    guard header.stream > 0, Int(header.stream) < slots.count, slots[Int(header.stream)].isTaken else {
      if case .error(let error) = try Response(envelope, version).message { return .refused(error) }
      return .protocolBroken("an answer on stream \(header.stream), which nobody asked on")
    }
    let slot = slots[Int(header.stream)]
    let response = try Response(envelope, version)
    slots[Int(header.stream)].isTaken = false
    ids.give(header.stream)
    if slot.orphanedAt != nil {
      orphanCount -= 1
    } else if slot.tag == ConnectionState.heartbeatTag {
      heartbeatIsOut = false
    } else {
      actions.append(.answer(tag: slot.tag, response))
    }
    // After this the server closes, and it has not read what else is under way.
    if case .error(let error) = response.message, error.kind == .protocolError {
      return .protocolBroken("it says: \(error.message)")
    }
    return nil
  }

  // MARK: Time and ends

  /// When `expire` has something to do next.
  var expiresNext: Moment {
    switch phase {
    case .opened, .closed: .never
    case .probing(_, let until), .starting(_, let until), .authenticating(_, let until, _): until
    case .ready: min(deadlineNext, heartbeatIsOut ? .never : heardAt + settings.heartbeatInterval)
    }
  }

  /// Time has passed. O(highest stream id in use), about once a request timeout.
  mutating func expire(at now: Moment, into out: inout WireWriter, _ actions: inout [Action]) {
    switch phase {
    case .opened, .closed: return
    case .probing(_, let until), .starting(_, let until), .authenticating(_, let until, _):
      if now >= until { close(.handshakeTimedOut, into: &actions) }
      return
    case .ready: break
    }
    if now >= deadlineNext, let error = expireRequests(at: now, &actions) {
      close(error, into: &actions)
      return
    }
    if !heartbeatIsOut, now >= heardAt + settings.heartbeatInterval {
      heartbeatIsOut = true
      // No free id means that answers are due, which will be missed on their own.
      if ask(
        .options, tag: ConnectionState.heartbeatTag, until: now + settings.heartbeatTimeout, into: &out)
      {
        flush(into: &out)
      } else {
        close(.silent, into: &actions)
      }
    }
  }

  private mutating func expireRequests(at now: Moment, _ actions: inout [Action]) -> ConnectionError? {
    deadlineNext = .never
    var oldest = Moment.never
    for index in slots.indices where slots[index].isTaken {
      if let orphanedAt = slots[index].orphanedAt {
        oldest = min(oldest, orphanedAt)
      } else if slots[index].until > now {
        deadlineNext = min(deadlineNext, slots[index].until)
      } else if slots[index].tag == ConnectionState.heartbeatTag {
        return .silent
      } else {
        slots[index].orphanedAt = now
        orphanCount += 1
        oldest = min(oldest, now)
        actions.append(.timedOut(tag: slots[index].tag))
      }
    }
    guard orphanCount > settings.orphansMax else { return nil }
    if now >= oldest + settings.orphanAge { return .tooManyOrphans }
    deadlineNext = min(deadlineNext, oldest + settings.orphanAge)
    return nil
  }

  /// The connection ended, by the peer, by a failing call, or because it is no longer wanted.
  mutating func ended(_ why: ConnectionError, into actions: inout [Action]) {
    if case .closed = phase { return }
    close(why, into: &actions)
  }

  private mutating func close(_ error: ConnectionError, into actions: inout [Action]) {
    phase = .closed
    for slot in slots
    where slot.isTaken && slot.orphanedAt == nil && slot.tag != ConnectionState.heartbeatTag {
      actions.append(.lost(tag: slot.tag, error))
    }
    slots = []
    actions.append(.close(error))
  }
}
