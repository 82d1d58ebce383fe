// What a server says. A body begins with what the header's flags announce, in this order: tracing id (16 bytes),
// warnings [string list], custom payload [bytes map]. More bytes than are known at the end are legal and ignored.
//
// RESULT begins with an [int] kind: 1 void, 2 rows, 3 keyspace set, 4 prepared, 5 schema change.

/// What changed at the server without being asked for here.
public enum ServerEvent: Hashable, Sendable {
  /// `change` is NEW_NODE, REMOVED_NODE or MOVED_NODE.
  case topology(change: String, address: [UInt8], port: Int)
  /// `change` is UP or DOWN; a hint, no more.
  case status(change: String, address: [UInt8], port: Int)
  case schema(SchemaChange)
  /// A kind that this driver does not know.
  case other(String)
}

/// A change of the schema.
public struct SchemaChange: Hashable, Sendable {
  /// CREATED, UPDATED or DROPPED.
  public let change: String
  /// KEYSPACE, TABLE, TYPE, FUNCTION or AGGREGATE.
  public let target: String
  public let keyspace: String
  /// The table, type, function or aggregate; empty for a keyspace.
  public let name: String
  /// Types of a function's or aggregate's arguments.
  public let argumentTypes: [String]

  public init(change: String, target: String, keyspace: String, name: String, argumentTypes: [String]) {
    self.change = change
    self.target = target
    self.keyspace = keyspace
    self.name = name
    self.argumentTypes = argumentTypes
  }
}

enum QueryResult: Equatable {
  case void
  case rows(RowsResult)
  case setKeyspace(String)
  case prepared(PreparedResult)
  case schemaChange(SchemaChange)
}

enum Message: Equatable {
  case error(ServerError)
  case ready
  case authenticate(String)
  case supported([String: [String]])
  case result(QueryResult)
  case event(ServerEvent)
  case authChallenge([UInt8]?)
  case authSuccess([UInt8]?)
}

/// An answer with what its header's flags announced.
struct Response: Equatable {
  var message: Message
  var warnings: [String] = []
  var tracingID: CQLUUID?
  var payload: [String: [UInt8]] = [:]

  init(message: Message) { self.message = message }

  /// Takes the envelope's body over; rows stay in it, undecoded.
  init(_ envelope: consuming Envelope, _ version: ProtocolVersion) throws(CodecError) {
    let header = envelope.header
    let body = envelope.body
    guard header.isResponse else { throw .malformed("a request where an answer belongs") }
    guard let opcode = Opcode(rawValue: header.opcode) else {
      throw .unknown("the opcode", Int(header.opcode))
    }
    self = try body.withUnsafeBytes { raw in
      Result { () throws(CodecError) in try Response(raw, body, header.flags, opcode, version) }
    }.get()
  }

  private init(
    _ raw: UnsafeRawBufferPointer, _ body: [UInt8], _ flags: FrameFlags, _ opcode: Opcode,
    _ version: ProtocolVersion
  ) throws(CodecError) {
    var reader = WireReader(raw)
    if flags.contains(.tracing) {
      let high = try reader.integer(UInt64.self)
      tracingID = CQLUUID(high: high, low: try reader.integer())
    }
    if flags.contains(.warning) { warnings = try reader.stringList() }
    if flags.contains(.customPayload) { payload = try reader.bytesMap() }
    switch opcode {
    case .error: message = .error(try ServerError(&reader, version))
    case .ready: message = .ready
    case .authenticate: message = .authenticate(try reader.string())
    case .supported: message = .supported(try reader.stringMultimap())
    case .result: message = .result(try QueryResult(&reader, body, version))
    case .event: message = .event(try ServerEvent(&reader))
    case .authChallenge: message = .authChallenge(try reader.ownedBytes())
    case .authSuccess: message = .authSuccess(try reader.ownedBytes())
    case .startup, .options, .query, .prepare, .execute, .register, .batch, .authResponse:
      throw .malformed("the request \(opcode) where an answer belongs")
    }
  }
}

extension QueryResult {
  init(_ reader: inout WireReader, _ body: [UInt8], _ version: ProtocolVersion) throws(CodecError) {
    let kind = try reader.int()
    switch kind {
    case 1: self = .void
    case 2: self = .rows(try RowsResult(&reader, body))
    case 3: self = .setKeyspace(try reader.string())
    case 4: self = .prepared(try PreparedResult(&reader, version))
    case 5: self = .schemaChange(try SchemaChange(&reader))
    default: throw .unknown("the kind of result", kind)
    }
  }
}

extension SchemaChange {
  init(_ reader: inout WireReader) throws(CodecError) {
    change = try reader.string()
    target = try reader.string()
    keyspace = try reader.string()
    switch target {
    case "KEYSPACE":
      name = ""
      argumentTypes = []
    case "FUNCTION", "AGGREGATE":
      name = try reader.string()
      argumentTypes = try reader.stringList()
    default:
      // TABLE, TYPE, and whatever comes later.
      name = reader.left > 0 ? try reader.string() : ""
      argumentTypes = []
    }
  }
}

extension ServerEvent {
  init(_ reader: inout WireReader) throws(CodecError) {
    let kind = try reader.string()
    switch EventKind(rawValue: kind) {
    case .topologyChange:
      let change = try reader.string()
      let address = try reader.inetAddress()
      self = .topology(change: change, address: address, port: try reader.int())
    case .statusChange:
      let change = try reader.string()
      let address = try reader.inetAddress()
      self = .status(change: change, address: address, port: try reader.int())
    case .schemaChange: self = .schema(try SchemaChange(&reader))
    case nil: self = .other(kind)
    }
  }
}
