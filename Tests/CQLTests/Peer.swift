// A server of the tests' own: a node of a cluster on loopback, in both versions, compressed or not, that answers what a
// small table would, and obeys rules: a condition on what it hears, and a reaction instead of its usual answer.

import Bytes
import Posix
import Synchronization
import Transport

@testable import CQL

/// What a peer hears.
struct Heard {
  var request: Request
  /// Counts the peer's connections from 1.
  var connection: Int
  var version: ProtocolVersion
}

enum Reaction: Sendable {
  case answer(Answer)
  /// Answers, then closes.
  case answerAndClose(Answer)
  /// Never answers.
  case ignore
  /// Keeps the usual answer until `release`.
  case withhold
  case close
  /// These bytes instead of an answer, as they are.
  case raw([UInt8])
  /// The usual answer with its bytes, framing included, changed.
  case corrupt(@Sendable (inout [UInt8]) -> Void)
  /// The usual answer on another stream.
  case onStream(Int16)
  /// Stops reading from the connection.
  case stopReading
}

/// Unchecked: what the thread owns is touched by it alone; the rest is behind a lock.
final class Peer: @unchecked Sendable {
  struct Rule: Sendable {
    var times: Int
    var condition: @Sendable (Heard) -> Bool
    var reaction: Reaction
  }

  struct Settings: Sendable {
    var versions = ["3/v3", "4/v4", "5/v5", "6/v6-beta"]
    var compression = ["lz4", "snappy"]
    var password: String?
    var hasPeersV2 = true
    var datacenter = "dc1"
  }

  /// A node of the cluster this peer tells of.
  struct Node: Sendable {
    var hostID: CQLUUID
    var address: HostPort
    var datacenter: String
    var tokens: [Int64]
  }

  private struct Shared {
    var rules: [Rule] = []
    var log: [Request] = []
    var isStopping = false
    var releases = false
    var events: [ServerEvent] = []
    var connections = 0
    var open = 0
    var nodes: [Node] = []
    var forgets = false
    var metadataID: [UInt8] = [1]
    var columns = 1
  }

  private final class Client {
    let number: Int
    let socket: Descriptor
    var registration: Registration?
    var reader = FrameReader()
    var writer = FrameWriter()
    var version: ProtocolVersion?
    var compresses = false
    var isRegistered = false
    var isReading = true
    var withheld: [(FrameHeader, Answer)] = []
    var out = WireWriter()

    init(_ number: Int, _ socket: consuming Descriptor) {
      self.number = number
      self.socket = socket
    }
  }

  let settings: Settings
  let hostID: CQLUUID
  let address: HostPort
  private let listener: Listener
  private let reactor: Reactor
  private let shared = Mutex(Shared())
  private var clients: [Int32: Client] = [:]
  private var prepared: [[UInt8]: String] = [:]
  private var thread: Thread?

  init(_ settings: Settings = Settings(), number: UInt64 = 1, port: UInt16 = 0) throws {
    self.settings = settings
    hostID = CQLUUID(high: 0xCA55_A2D2_A000_4000, low: number)
    listener = try Listener(HostPort(host: "127.0.0.1", port: port))
    address = listener.address
    reactor = try Reactor()
    let own = Node(hostID: hostID, address: address, datacenter: settings.datacenter, tokens: [0])
    shared.withLock { $0.nodes = [own] }
    thread = try Thread("peer") { [unowned(unsafe) self] in run() }
  }

  deinit { stop() }

  // MARK: What tests say

  /// Reacts so to the next `times` requests for which the condition holds.
  func when(
    _ times: Int = .max, _ condition: @escaping @Sendable (Heard) -> Bool, _ reaction: Reaction
  ) {
    shared.withLock { $0.rules.append(Rule(times: times, condition: condition, reaction: reaction)) }
  }

  func clearRules() { shared.withLock { $0.rules = [] } }

  /// Requests heard so far, but for the handshake and questions about the cluster.
  var heard: [Request] {
    shared.withLock { $0.log }.filter { request in
      switch request {
      case .options, .startup, .authResponse, .register: false
      case .query(let text, _): !text.contains("system")
      case .prepare, .execute, .batch: true
      }
    }
  }

  /// All requests, in order.
  var heardAll: [Request] { shared.withLock { $0.log } }
  /// Connections accepted so far.
  var connections: Int { shared.withLock { $0.connections } }
  /// Connections open now.
  var open: Int { shared.withLock { $0.open } }

  func tell(_ nodes: [Node]) { shared.withLock { $0.nodes = nodes } }
  /// Forgets every prepared statement.
  func forget() { shared.withLock { $0.forgets = true } }

  /// Rows have one column more from now on, and another id.
  func changeColumns() {
    shared.withLock { shared in
      shared.columns += 1
      shared.metadataID = [UInt8(shared.columns)]
    }
  }

  func release() {
    shared.withLock { $0.releases = true }
    reactor.wakeUp.signal()
  }

  func send(_ event: ServerEvent) {
    shared.withLock { $0.events.append(event) }
    reactor.wakeUp.signal()
  }

  func stop() {
    let was = shared.withLock { shared in
      defer { shared.isStopping = true }
      return shared.isStopping
    }
    if was { return }
    reactor.wakeUp.signal()
    thread?.join()
    thread = nil
  }

  // MARK: The thread

  private func run() {
    guard let accepting = try? reactor.register(listener.descriptor, .readable) else { return }
    while !shared.withLock({ $0.isStopping }) {
      guard let count = try? reactor.wait(now: Clock.system.now) else { return }
      for index in 0..<count {
        switch reactor.event(index) {
        case .stale: break
        case .woken: woken()
        case .ready(let registration, _):
          if registration == accepting { accept() } else { read(registration.descriptor) }
        }
      }
    }
    for client in clients.values { close(client) }
    try? reactor.unregister(accepting)
  }

  private func accept() {
    guard case .connection(let accepted)? = try? listener.accept() else { return }
    let number = shared.withLock { shared in
      shared.connections += 1
      shared.open += 1
      return shared.connections
    }
    let client = Client(number, Descriptor(owning: accepted.descriptor))
    client.registration = try? reactor.register(accepted.descriptor, .readable)
    clients[accepted.descriptor] = client
  }

  private func close(_ client: Client) {
    guard clients.removeValue(forKey: client.socket.number) != nil else { return }
    if let registration = client.registration { try? reactor.unregister(registration) }
    client.registration = nil
    shared.withLock { $0.open -= 1 }
  }

  private func woken() {
    let (releases, events) = shared.withLock { shared in
      defer {
        shared.releases = false
        shared.events = []
      }
      return (shared.releases, shared.events)
    }
    for client in Array(clients.values) {
      if releases {
        let withheld = client.withheld
        client.withheld = []
        for (header, answer) in withheld { say(answer, to: client, header) }
        if !client.isReading, let registration = client.registration {
          client.isReading = true
          try? reactor.change(registration, .readable)
        }
      }
      if client.isRegistered, let version = client.version {
        for event in events {
          let header = FrameHeader(
            version: version, isResponse: true, stream: -1, opcode: .event, bodyBytes: 0)
          client.writer.write(header, body: Answer.event(event).body(version), into: &client.out)
        }
      }
      send(client)
    }
  }

  private func read(_ descriptor: Int32) {
    guard let client = clients[descriptor] else { return }
    var buffer = [UInt8](repeating: 0, count: 65_536)
    let got = buffer.withUnsafeMutableBytes { raw in
      Result { () throws(SystemError) in try Socket.receive(descriptor, into: raw) }
    }
    guard case .success(let received?) = got, received > 0 else {
      if case .success(nil) = got { return }
      close(client)
      return
    }
    buffer[..<received].withUnsafeBytes { client.reader.append($0) }
    do {
      while let envelope = try client.reader.next() { try hear(envelope, from: client) }
    } catch {
      close(client)
      return
    }
    send(client)
  }

  private func send(_ client: Client) {
    guard clients[client.socket.number] === client else { return }
    client.writer.flush(into: &client.out)
    var sent = 0
    // Blocks where the driver does not read: it always does.
    while sent < client.out.count {
      let bytes = client.out.bytes
      let got = bytes[sent...].withUnsafeBytes { raw in
        Result { () throws(SystemError) in try Socket.send(client.socket.number, raw) }
      }
      switch got {
      case .success(let count?): sent += count
      case .success(nil): Thread.yield()
      case .failure:
        close(client)
        return
      }
    }
    client.out.bytes.removeAll()
  }

  private func hear(_ envelope: Envelope, from client: Client) throws {
    let header = envelope.header
    guard let version = ProtocolVersion(rawValue: header.version),
      settings.versions.contains("\(header.version)/v\(header.version)")
    else {
      let highest = settings.versions.contains("5/v5") ? ProtocolVersion.v5 : .v4
      let text = "Invalid or unsupported protocol version (\(header.version)); supported versions are (…)"
      let error = ServerError(code: 0x0A, message: text, kind: .protocolError)
      var refusal = FrameHeader(version: highest, isResponse: true, stream: 0, opcode: .error, bodyBytes: 0)
      refusal.bodyBytes = 0
      client.writer.write(refusal, body: Answer.error(error).body(.v4), into: &client.out)
      return
    }
    client.version = version
    let request = try Request(envelope, version)
    let said = Heard(request: request, connection: client.number, version: version)
    let reaction = shared.withLock { shared -> Reaction? in
      shared.log.append(request)
      guard let index = shared.rules.firstIndex(where: { $0.times > 0 && $0.condition(said) }) else {
        return nil
      }
      shared.rules[index].times -= 1
      return shared.rules[index].reaction
    }
    try react(reaction ?? .answer(usual(request, client)), header, client, request)
  }

  private func react(
    _ reaction: Reaction, _ header: FrameHeader, _ client: Client, _ request: Request
  ) throws {
    switch reaction {
    case .answer(let answer): say(answer, to: client, header)
    case .answerAndClose(let answer):
      say(answer, to: client, header)
      send(client)
      close(client)
    case .ignore: break
    case .withhold: client.withheld.append((header, usual(request, client)))
    case .close: close(client)
    case .raw(let bytes):
      client.writer.flush(into: &client.out)
      client.out.raw(bytes)
    case .corrupt(let change):
      client.writer.flush(into: &client.out)
      let start = client.out.count
      say(usual(request, client), to: client, header)
      client.writer.flush(into: &client.out)
      var bytes = Array(client.out.bytes[start...])
      change(&bytes)
      client.out.bytes.replaceSubrange(start..., with: bytes)
    case .onStream(let stream):
      var other = header
      other.stream = stream
      say(usual(request, client), to: client, other)
    case .stopReading:
      client.isReading = false
      if let registration = client.registration { try reactor.change(registration, []) }
    }
  }

  private func say(_ answer: Answer, to client: Client, _ asked: FrameHeader) {
    guard let version = client.version else { return }
    let header = FrameHeader(
      version: version, isResponse: true, stream: asked.stream, opcode: answer.opcode, bodyBytes: 0)
    client.writer.write(header, body: answer.body(version), into: &client.out)
    switch answer {
    case .ready where asked.opcode == Opcode.startup.rawValue, .authenticate: changeOver(client, version)
    case .ready, .error, .supported, .void, .rows, .setKeyspace, .prepared, .schemaChange, .event,
      .authChallenge, .authSuccess:
      break
    }
  }

  private func changeOver(_ client: Client, _ version: ProtocolVersion) {
    switch version {
    case .v4:
      client.writer.framing = client.compresses ? .plainLZ4 : .plain
      client.reader.framing = client.writer.framing
    case .v5:
      client.writer.framing = .segments(lz4: client.compresses)
      client.reader.framing = client.writer.framing
    }
  }
}

// MARK: What a small table answers

extension Peer {
  static let marker = Column(keyspace: "k", table: "t", name: "key", type: .int)

  private func usual(_ request: Request, _ client: Client) -> Answer {
    switch request {
    case .options:
      return .supported(["PROTOCOL_VERSIONS": settings.versions, "COMPRESSION": settings.compression])
    case .startup(let options):
      client.compresses = options["COMPRESSION"] == "lz4"
      return settings.password == nil ? .ready : .authenticate("org.example.Passwords")
    case .authResponse(let token):
      let right = [0] + Array("user".utf8) + [0] + Array((settings.password ?? "").utf8)
      return token == right
        ? .authSuccess(nil)
        : .error(ServerError(code: 0x100, message: "wrong password", kind: .authentication))
    case .register:
      client.isRegistered = true
      return .ready
    case .prepare(let text):
      let id = Array("\(text.utf8.count) \(text)".utf8)
      prepared[id] = text
      return .prepared(preparedAnswer(id, text))
    case .query(let text, _): return text.contains("system") ? system(text) : result(text, nil, true)
    case .execute(let id, let metadataID, let parameters):
      return execute(id, metadataID, parameters)
    case .batch(let batch):
      forgetIfTold()
      for case .prepared(let id, _) in batch.statements where prepared[id] == nil { return unprepared(id) }
      return .void
    }
  }

  private func forgetIfTold() {
    let forgets = shared.withLock { shared in
      defer { shared.forgets = false }
      return shared.forgets
    }
    if forgets { prepared = [:] }
  }

  private func unprepared(_ id: [UInt8]) -> Answer {
    .error(ServerError(code: 0x2500, message: "unprepared", kind: .unprepared(id: id)))
  }

  private func execute(_ id: [UInt8], _ metadataID: [UInt8], _ parameters: QueryParameters) -> Answer {
    forgetIfTold()
    guard let text = prepared[id] else { return unprepared(id) }
    let key = parameters.values.map { Array($0.bytes.suffix(4)) } ?? []
    let answer = result(text, key, !parameters.skipsMetadata)
    guard case .rows(var rows) = answer else { return answer }
    let current = shared.withLock { $0.metadataID }
    if parameters.skipsMetadata, !metadataID.isEmpty, metadataID != current {
      rows.newMetadataID = current
      rows.sendsMetadata = true
    }
    return .rows(rows)
  }

  private var columns: [Column] {
    (0..<shared.withLock { $0.columns }).map {
      Column(keyspace: "k", table: "t", name: $0 == 0 ? "key" : "more\($0)", type: .int)
    }
  }

  private func preparedAnswer(_ id: [UInt8], _ text: String) -> Answer.PreparedAnswer {
    let markers = text.filter { $0 == "?" }.map { _ in Self.marker }
    return .init(
      id: id, resultMetadataID: shared.withLock { $0.metadataID }, markers: markers,
      partitionKey: markers.isEmpty ? [] : [0], columns: text.hasPrefix("SELECT") ? columns : [])
  }

  /// SELECT gives one row with the key that was bound.
  private func result(_ text: String, _ key: [UInt8]?, _ sendsMetadata: Bool) -> Answer {
    guard text.hasPrefix("SELECT") else { return .void }
    let number = (key ?? [0, 0, 0, 0]).reduce(0 as UInt32) { $0 << 8 | UInt32($1) }
    let row = columns.indices.map { Value.int($0 == 0 ? Int32(bitPattern: number) : Int32($0)) }
    return .rows(ServedRows(columns: columns, rows: [row], sendsMetadata: sendsMetadata))
  }

  private func system(_ text: String) -> Answer {
    let (nodes, others) = shared.withLock { shared in
      (shared.nodes.filter { $0.hostID == hostID }, shared.nodes.filter { $0.hostID != hostID })
    }
    func column(_ name: String, _ type: CQLType) -> Column {
      Column(keyspace: "system", table: "local", name: name, type: type)
    }
    if text.contains("system_schema.keyspaces") {
      let map = Value.map([
        .init(.text("class"), .text("org.apache.cassandra.locator.SimpleStrategy")),
        .init(.text("replication_factor"), .text("2")),
      ])
      return .rows(
        ServedRows(
          columns: [column("keyspace_name", .text), column("replication", .map(.text, .text))],
          rows: [[.text("k"), map]]))
    }
    let isV2 = text.contains("peers_v2")
    if isV2, !settings.hasPeersV2 {
      return .error(ServerError(code: 0x2200, message: "unconfigured table peers_v2", kind: .invalid))
    }
    let served = text.contains("system.local") ? nodes : others
    let columns = [
      column("host_id", .uuid), column(isV2 ? "native_address" : "rpc_address", .inet),
      column("data_center", .text), column("rack", .text), column("tokens", .set(.text)),
      column("native_port", .int), column("schema_version", .uuid),
    ]
    return .rows(
      ServedRows(
        columns: columns,
        rows: served.map { node in
          [
            .uuid(node.hostID), .inet([127, 0, 0, 1]), .text(node.datacenter), .text("r1"),
            .set(node.tokens.map { .text("\($0)") }), .int(Int32(node.address.port)),
            .uuid(CQLUUID(high: 1, low: 1)),
          ]
        }))
  }
}
