// What a client says. Layouts as in the specifications of versions 4 and 5; where they differ the version decides:
// query parameters have one byte of flags in 4 and four in 5, PREPARE ends with flags in 5, EXECUTE carries the result
// metadata's id in 5.

/// Values bound to a statement's markers, encoded as they travel: count, then [value] each.
struct BoundValues: Equatable, Sendable {
  var count = 0
  var bytes: [UInt8] = []
}

/// What goes with a statement.
struct QueryParameters: Equatable, Sendable {
  var consistency = Consistency.localQuorum
  var values: BoundValues?
  var skipsMetadata = false
  /// Rows of a page; nil asks for all at once.
  var pageRows: Int32?
  var pagingState: [UInt8]?
  var serialConsistency: Consistency?
  /// Microseconds since 1970, of all that is written.
  var timestamp: Int64?

  struct Flags: OptionSet {
    let rawValue: UInt32
    static let values = Flags(rawValue: 0x01)
    static let skipMetadata = Flags(rawValue: 0x02)
    static let pageSize = Flags(rawValue: 0x04)
    static let pagingState = Flags(rawValue: 0x08)
    static let serialConsistency = Flags(rawValue: 0x10)
    static let timestamp = Flags(rawValue: 0x20)
  }

  fileprivate var flags: Flags {
    var flags: Flags = []
    if values != nil { flags.insert(.values) }
    if skipsMetadata { flags.insert(.skipMetadata) }
    if pageRows != nil { flags.insert(.pageSize) }
    if pagingState != nil { flags.insert(.pagingState) }
    if serialConsistency != nil { flags.insert(.serialConsistency) }
    if timestamp != nil { flags.insert(.timestamp) }
    return flags
  }

  fileprivate func write(_ version: ProtocolVersion, into out: inout WireWriter) {
    out.short(Int(consistency.rawValue))
    out.flags(flags.rawValue, version)
    if let values {
      out.short(values.count)
      out.raw(values.bytes)
    }
    if let pageRows { out.integer(pageRows) }
    if let pagingState { out.bytesOrNull(pagingState) }
    if let serialConsistency { out.short(Int(serialConsistency.rawValue)) }
    if let timestamp { out.integer(timestamp) }
  }
}

/// Statements that are sent, and written, together.
struct BatchRequest: Equatable, Sendable {
  enum Statement: Equatable, Sendable {
    case text(String, BoundValues)
    case prepared(id: [UInt8], BoundValues)
  }

  var kind: BatchKind
  var statements: [Statement]
  var consistency: Consistency
  var serialConsistency: Consistency?
  var timestamp: Int64?
}

/// What holds a batch together.
public enum BatchKind: UInt8, Hashable, Sendable {
  /// All or nothing, by a log on two more nodes.
  case logged = 0
  /// Atomic and isolated within one partition, and nothing beyond that.
  case unlogged = 1
  /// Of counters.
  case counter = 2
}

/// Kinds of events a connection can register for.
enum EventKind: String, Equatable, Sendable, CaseIterable {
  case topologyChange = "TOPOLOGY_CHANGE"
  case statusChange = "STATUS_CHANGE"
  case schemaChange = "SCHEMA_CHANGE"
}

enum Request: Equatable, Sendable {
  case options
  case startup([String: String])
  case authResponse([UInt8])
  case register([EventKind])
  case query(String, QueryParameters)
  case prepare(String)
  /// `resultMetadataID` travels in version 5 alone.
  case execute(id: [UInt8], resultMetadataID: [UInt8], QueryParameters)
  case batch(BatchRequest)

  var opcode: Opcode {
    switch self {
    case .options: .options
    case .startup: .startup
    case .authResponse: .authResponse
    case .register: .register
    case .query: .query
    case .prepare: .prepare
    case .execute: .execute
    case .batch: .batch
    }
  }

  /// The message without its header.
  func body(_ version: ProtocolVersion) -> [UInt8] {
    var out = WireWriter()
    switch self {
    case .options: break
    case .startup(let options): out.stringMap(options)
    case .authResponse(let token): out.bytesOrNull(token)
    case .register(let kinds): out.stringList(kinds.map(\.rawValue))
    case .query(let text, let parameters):
      out.longString(text)
      parameters.write(version, into: &out)
    case .prepare(let text):
      out.longString(text)
      if version >= .v5 { out.int(0) }
    case .execute(let id, let resultMetadataID, let parameters):
      if let values = parameters.values { out.bytes.reserveCapacity(values.bytes.count + 96) }
      out.shortBytes(id)
      if version >= .v5 { out.shortBytes(resultMetadataID) }
      parameters.write(version, into: &out)
    case .batch(let batch): batch.write(version, into: &out)
    }
    return out.bytes
  }
}

extension BatchRequest {
  fileprivate func write(_ version: ProtocolVersion, into out: inout WireWriter) {
    precondition(
      statements.count <= CQLLimits.batchStatementsMax, "a batch of \(statements.count) statements")
    out.byte(kind.rawValue)
    out.short(statements.count)
    for statement in statements {
      switch statement {
      case .text(let text, let values):
        out.byte(0)
        out.longString(text)
        out.short(values.count)
        out.raw(values.bytes)
      case .prepared(let id, let values):
        out.byte(1)
        out.shortBytes(id)
        out.short(values.count)
        out.raw(values.bytes)
      }
    }
    out.short(Int(consistency.rawValue))
    var flags: QueryParameters.Flags = []
    if serialConsistency != nil { flags.insert(.serialConsistency) }
    if timestamp != nil { flags.insert(.timestamp) }
    out.flags(flags.rawValue, version)
    if let serialConsistency { out.short(Int(serialConsistency.rawValue)) }
    if let timestamp { out.integer(timestamp) }
  }
}

extension WireWriter {
  fileprivate mutating func flags(_ flags: UInt32, _ version: ProtocolVersion) {
    switch version {
    case .v4: byte(UInt8(truncatingIfNeeded: flags))
    case .v5: integer(flags)
    }
  }
}
