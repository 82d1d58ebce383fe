// The other direction of the codec, as a server needs it: requests are read, answers are written.

@testable import CQL

extension Request {
  init(_ envelope: Envelope, _ version: ProtocolVersion) throws(CodecError) {
    guard let opcode = Opcode(rawValue: envelope.header.opcode) else {
      throw .unknown("the opcode", Int(envelope.header.opcode))
    }
    self = try envelope.body.withUnsafeBytes { raw in
      Result { () throws(CodecError) in
        var reader = WireReader(raw)
        return try Request(&reader, opcode, version)
      }
    }.get()
  }

  private init(_ reader: inout WireReader, _ opcode: Opcode, _ version: ProtocolVersion) throws(CodecError) {
    switch opcode {
    case .options: self = .options
    case .startup: self = .startup(try reader.stringMap())
    case .authResponse: self = .authResponse(try reader.ownedBytes() ?? [])
    case .register: self = .register(try reader.stringList().compactMap { EventKind(rawValue: $0) })
    case .query:
      let text = try reader.longString()
      self = .query(text, try QueryParameters(&reader, version))
    case .prepare:
      self = .prepare(try reader.longString())
      if version >= .v5 { _ = try reader.int() }
    case .execute:
      let id = try reader.shortBytes()
      let metadataID = version >= .v5 ? try reader.shortBytes() : []
      self = .execute(id: id, resultMetadataID: metadataID, try QueryParameters(&reader, version))
    case .batch: self = .batch(try BatchRequest(&reader, version))
    case .error, .ready, .authenticate, .supported, .result, .event, .authChallenge, .authSuccess:
      throw .malformed("\(opcode) from a client")
    }
  }
}

extension BoundValues {
  init(_ reader: inout WireReader) throws(CodecError) {
    self.init()
    var out = WireWriter()
    count = try reader.short()
    for _ in 0..<count {
      let length = try reader.int()
      out.int(length)
      if length > 0 { out.raw(try reader.raw(length)) }
    }
    bytes = out.bytes
  }
}

extension QueryParameters {
  init(_ reader: inout WireReader, _ version: ProtocolVersion) throws(CodecError) {
    self.init()
    consistency = try Consistency(&reader)
    let number = version == .v4 ? UInt32(try reader.byte()) : try reader.integer(UInt32.self)
    let flags = Flags(rawValue: number)
    if flags.contains(.values) { values = try BoundValues(&reader) }
    skipsMetadata = flags.contains(.skipMetadata)
    if flags.contains(.pageSize) { pageRows = try reader.integer() }
    if flags.contains(.pagingState) { pagingState = try reader.ownedBytes() }
    if flags.contains(.serialConsistency) { serialConsistency = try Consistency(&reader) }
    if flags.contains(.timestamp) { timestamp = try reader.integer() }
  }
}

extension BatchRequest {
  init(_ reader: inout WireReader, _ version: ProtocolVersion) throws(CodecError) {
    let number = try reader.byte()
    guard let kind = BatchKind(rawValue: number) else { throw .unknown("the kind of batch", Int(number)) }
    var statements: [Statement] = []
    for _ in 0..<(try reader.short()) {
      if try reader.byte() == 0 {
        let text = try reader.longString()
        statements.append(.text(text, try BoundValues(&reader)))
      } else {
        let id = try reader.shortBytes()
        statements.append(.prepared(id: id, try BoundValues(&reader)))
      }
    }
    self.init(kind: kind, statements: statements, consistency: try Consistency(&reader))
    let flagsNumber = version == .v4 ? UInt32(try reader.byte()) : try reader.integer(UInt32.self)
    let flags = QueryParameters.Flags(rawValue: flagsNumber)
    if flags.contains(.serialConsistency) { serialConsistency = try Consistency(&reader) }
    if flags.contains(.timestamp) { timestamp = try reader.integer() }
  }
}

/// Rows as a server has them.
struct ServedRows {
  var columns: [Column]
  var rows: [[Value]]
  var pagingState: [UInt8]?
  var newMetadataID: [UInt8]?
  var sendsMetadata = true
}

/// An answer as a server says it.
enum Answer {
  case error(ServerError)
  case ready
  case authenticate(String)
  case supported([String: [String]])
  case void
  case rows(ServedRows)
  case setKeyspace(String)
  case prepared(PreparedAnswer)
  case schemaChange(SchemaChange)
  case event(ServerEvent)
  case authChallenge([UInt8]?)
  case authSuccess([UInt8]?)

  struct PreparedAnswer {
    var id: [UInt8]
    var resultMetadataID: [UInt8]
    var markers: [Column]
    var partitionKey: [Int]
    var columns: [Column]
  }

  var opcode: Opcode {
    switch self {
    case .error: .error
    case .ready: .ready
    case .authenticate: .authenticate
    case .supported: .supported
    case .void, .rows, .setKeyspace, .prepared, .schemaChange: .result
    case .event: .event
    case .authChallenge: .authChallenge
    case .authSuccess: .authSuccess
    }
  }

  func body(_ version: ProtocolVersion) -> [UInt8] {
    var out = WireWriter()
    switch self {
    case .error(let error): error.write(version, into: &out)
    case .ready: break
    case .authenticate(let name): out.string(name)
    case .supported(let options):
      out.short(options.count)
      for (key, values) in options.sorted(by: { $0.key < $1.key }) {
        out.string(key)
        out.stringList(values)
      }
    case .void: out.int(1)
    case .rows(let rows):
      out.int(2)
      rows.write(into: &out)
    case .setKeyspace(let name):
      out.int(3)
      out.string(name)
    case .prepared(let prepared):
      out.int(4)
      prepared.write(version, into: &out)
    case .schemaChange(let change):
      out.int(5)
      change.write(into: &out)
    case .event(let event): event.write(into: &out)
    case .authChallenge(let token), .authSuccess(let token): out.bytesOrNull(token)
    }
    return out.bytes
  }
}

private func writeColumns(_ columns: [Column], into out: inout WireWriter) {
  for column in columns {
    out.string(column.keyspace)
    out.string(column.table)
    out.string(column.name)
    column.type.write(into: &out)
  }
}

extension ServedRows {
  func write(into out: inout WireWriter) {
    var flags: Int32 = 0
    if pagingState != nil { flags |= 2 }
    if !sendsMetadata { flags |= 4 }
    if newMetadataID != nil { flags |= 8 }
    out.integer(flags)
    out.int(columns.count)
    if let pagingState { out.bytesOrNull(pagingState) }
    if let newMetadataID { out.shortBytes(newMetadataID) }
    if sendsMetadata { writeColumns(columns, into: &out) }
    out.int(rows.count)
    for row in rows {
      for (value, column) in zip(row, columns) {
        do { try value.write(as: column.type, into: &out) } catch { preconditionFailure("\(error)") }
      }
    }
  }
}

extension Answer.PreparedAnswer {
  func write(_ version: ProtocolVersion, into out: inout WireWriter) {
    out.shortBytes(id)
    if version >= .v5 { out.shortBytes(resultMetadataID) }
    // One table for all, where there is one: the shorter form.
    let tables = Set(markers.map { [$0.keyspace, $0.table] })
    out.int(tables.count == 1 ? 1 : 0)
    out.int(markers.count)
    out.int(partitionKey.count)
    for index in partitionKey { out.short(index) }
    if tables.count == 1, let first = markers.first {
      out.string(first.keyspace)
      out.string(first.table)
      for marker in markers {
        out.string(marker.name)
        marker.type.write(into: &out)
      }
    } else {
      writeColumns(markers, into: &out)
    }
    out.int(0)
    out.int(columns.count)
    writeColumns(columns, into: &out)
  }
}

extension SchemaChange {
  func write(into out: inout WireWriter) {
    out.string(change)
    out.string(target)
    out.string(keyspace)
    if target != "KEYSPACE" { out.string(name) }
    if target == "FUNCTION" || target == "AGGREGATE" { out.stringList(argumentTypes) }
  }
}

extension ServerEvent {
  func write(into out: inout WireWriter) {
    switch self {
    case .topology(let change, let address, let port):
      ServerEvent.write(.topologyChange, change, address, port, into: &out)
    case .status(let change, let address, let port):
      ServerEvent.write(.statusChange, change, address, port, into: &out)
    case .schema(let change):
      out.string(EventKind.schemaChange.rawValue)
      change.write(into: &out)
    case .other(let kind): out.string(kind)
    }
  }

  private static func write(
    _ kind: EventKind, _ change: String, _ address: [UInt8], _ port: Int, into out: inout WireWriter
  ) {
    out.string(kind.rawValue)
    out.string(change)
    out.byte(UInt8(address.count))
    out.raw(address)
    out.int(port)
  }
}

extension ServerError {
  func write(_ version: ProtocolVersion, into out: inout WireWriter) {
    out.integer(code)
    out.string(message)
    func replicas(_ consistency: Consistency, _ first: Int, _ second: Int) {
      out.short(Int(consistency.rawValue))
      out.int(first)
      out.int(second)
    }
    func failures(_ failures: Failures) {
      out.int(failures.count)
      guard version >= .v5 else { return }
      for reason in failures.reasons {
        out.byte(UInt8(reason.address.count))
        out.raw(reason.address)
        out.short(reason.code)
      }
    }
    switch kind {
    case .unavailable(let consistency, let required, let alive): replicas(consistency, required, alive)
    case .writeTimeout(let consistency, let received, let required, let type, let contentions):
      replicas(consistency, received, required)
      out.string(type.name)
      if let contentions, version >= .v5 { out.short(contentions) }
    case .readTimeout(let consistency, let received, let required, let dataPresent):
      replicas(consistency, received, required)
      out.byte(dataPresent ? 1 : 0)
    case .readFailure(let consistency, let received, let required, let failed, let dataPresent):
      replicas(consistency, received, required)
      failures(failed)
      out.byte(dataPresent ? 1 : 0)
    case .writeFailure(let consistency, let received, let required, let failed, let type):
      replicas(consistency, received, required)
      failures(failed)
      out.string(type.name)
    case .casWriteUnknown(let consistency, let received, let required):
      replicas(consistency, received, required)
    case .function(let keyspace, let name, let types):
      out.string(keyspace)
      out.string(name)
      out.stringList(types)
    case .alreadyExists(let keyspace, let table):
      out.string(keyspace)
      out.string(table)
    case .unprepared(let id): out.shortBytes(id)
    case .server, .protocolError, .authentication, .overloaded, .bootstrapping, .truncate, .cdcWriteFailure,
      .syntax, .unauthorized, .invalid, .configuration, .other:
      break
    }
  }
}
