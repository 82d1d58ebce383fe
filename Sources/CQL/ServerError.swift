// ERROR: an [int] code, a [string] message, and for some codes more. A code nobody knows is an error like any other.
//
//     1000 unavailable    cl, required [int], alive [int]
//     1100 write timeout  cl, received, block for, write type [string]; version 5 and type CAS: contentions [short]
//     1200 read timeout   cl, received, block for, data present [byte]
//     1300 read failure   cl, received, block for, failures, data present [byte]
//     1400 function       keyspace, name, argument types [string list]
//     1500 write failure  cl, received, block for, failures, write type [string]
//     1700 CAS unknown    cl, received, block for
//     2400 exists         keyspace, table
//     2500 unprepared     id [short bytes]
//
// `failures` is an [int] count in version 4; version 5 follows it by as many [inetaddr] and [short] reasons.

/// An error that a server answered.
public struct ServerError: Error, Hashable, Sendable {
  /// The number of the specification, whether or not `kind` knows it.
  public let code: Int32
  /// The server's sentence.
  public let message: String
  public let kind: Kind

  public init(code: Int32, message: String, kind: Kind) {
    self.code = code
    self.message = message
    self.kind = kind
  }

  /// A case a reaction.
  public enum Kind: Hashable, Sendable {
    case server
    case protocolError
    case authentication
    case unavailable(Consistency, required: Int, alive: Int)
    case overloaded
    case bootstrapping
    case truncate
    /// `contentions` of a conditional write, in version 5.
    case writeTimeout(Consistency, received: Int, required: Int, WriteType, contentions: Int?)
    case readTimeout(Consistency, received: Int, required: Int, dataPresent: Bool)
    case readFailure(Consistency, received: Int, required: Int, Failures, dataPresent: Bool)
    case function(keyspace: String, name: String, argumentTypes: [String])
    case writeFailure(Consistency, received: Int, required: Int, Failures, WriteType)
    case cdcWriteFailure
    case casWriteUnknown(Consistency, received: Int, required: Int)
    case syntax
    case unauthorized
    case invalid
    case configuration
    /// The table is empty where a keyspace exists already.
    case alreadyExists(keyspace: String, table: String)
    case unprepared(id: [UInt8])
    /// A code that this driver does not know.
    case other
  }

  /// What was being written.
  public enum WriteType: Hashable, Sendable {
    case simple, batch, unloggedBatch, counter, batchLog, cas, view, cdc
    case other(String)

    static let names: [(String, WriteType)] = [
      ("SIMPLE", .simple), ("BATCH", .batch), ("UNLOGGED_BATCH", .unloggedBatch), ("COUNTER", .counter),
      ("BATCH_LOG", .batchLog), ("CAS", .cas), ("VIEW", .view), ("CDC", .cdc),
    ]

    init(_ name: String) { self = WriteType.names.first { $0.0 == name }?.1 ?? .other(name) }

    var name: String {
      if case .other(let name) = self { return name }
      return WriteType.names.first { $0.1 == self }?.0 ?? ""
    }
  }

  /// Replicas that failed, and in version 5 why.
  public struct Failures: Hashable, Sendable {
    public let count: Int
    public let reasons: [Reason]

    public init(count: Int, reasons: [Reason]) {
      self.count = count
      self.reasons = reasons
    }

    /// One replica's reason: 0 unknown, 1 too many tombstones, 2 timeout, 3 schema, 4 read size, 5 node down, 6 index.
    public struct Reason: Hashable, Sendable {
      /// 4 or 16 bytes.
      public let address: [UInt8]
      public let code: Int

      public init(address: [UInt8], code: Int) {
        self.address = address
        self.code = code
      }
    }
  }
}

extension ServerError: CustomStringConvertible {
  /// The code in hexadecimal, as the specification has it, and the server's sentence.
  public var description: String {
    let digits = String(UInt32(bitPattern: code), radix: 16)
    return "server error \(String(repeating: "0", count: max(0, 4 - digits.count)))\(digits): \(message)"
  }
}

extension ServerError {
  init(_ reader: inout WireReader, _ version: ProtocolVersion) throws(CodecError) {
    code = try reader.integer()
    message = try reader.string()
    switch code {
    case 0x0000: kind = .server
    case 0x000A: kind = .protocolError
    case 0x0100: kind = .authentication
    case 0x1000:
      let consistency = try Consistency(&reader)
      let required = try reader.int()
      kind = .unavailable(consistency, required: required, alive: try reader.int())
    case 0x1001: kind = .overloaded
    case 0x1002: kind = .bootstrapping
    case 0x1003: kind = .truncate
    case 0x1100, 0x1200, 0x1300, 0x1500, 0x1700:
      kind = try ServerError.replicas(code, &reader, version)
    case 0x1400:
      let keyspace = try reader.string()
      let name = try reader.string()
      kind = .function(keyspace: keyspace, name: name, argumentTypes: try reader.stringList())
    case 0x1600: kind = .cdcWriteFailure
    case 0x2000: kind = .syntax
    case 0x2100: kind = .unauthorized
    case 0x2200: kind = .invalid
    case 0x2300: kind = .configuration
    case 0x2400:
      let keyspace = try reader.string()
      kind = .alreadyExists(keyspace: keyspace, table: try reader.string())
    case 0x2500: kind = .unprepared(id: try reader.shortBytes())
    default: kind = .other
    }
  }

  /// Errors that count replicas.
  private static func replicas(
    _ code: Int32, _ reader: inout WireReader, _ version: ProtocolVersion
  ) throws(CodecError) -> Kind {
    let consistency = try Consistency(&reader)
    let received = try reader.int()
    let required = try reader.int()
    switch code {
    case 0x1100:
      let type = WriteType(try reader.string())
      // Some servers of version 5 leave the contentions out.
      let contentions = version >= .v5 && type == .cas && reader.left >= 2 ? try reader.short() : nil
      return .writeTimeout(
        consistency, received: received, required: required, type, contentions: contentions)
    case 0x1200:
      return .readTimeout(
        consistency, received: received, required: required, dataPresent: try reader.byte() != 0)
    case 0x1300:
      let failures = try Failures(&reader, version)
      return .readFailure(
        consistency, received: received, required: required, failures, dataPresent: try reader.byte() != 0)
    case 0x1500:
      let failures = try Failures(&reader, version)
      return .writeFailure(
        consistency, received: received, required: required, failures, WriteType(try reader.string()))
    case 0x1700: return .casWriteUnknown(consistency, received: received, required: required)
    default: preconditionFailure("error \(code) counts no replicas")
    }
  }
}

extension ServerError.Failures {
  init(_ reader: inout WireReader, _ version: ProtocolVersion) throws(CodecError) {
    switch version {
    case .v4:
      count = try reader.int()
      reasons = []
    case .v5:
      count = try reader.count("failed replicas", bytesEach: 7, max: CQLLimits.columnsMax)
      var reasons: [Reason] = []
      for _ in 0..<count {
        let address = try reader.inetAddress()
        reasons.append(Reason(address: address, code: try reader.short()))
      }
      self.reasons = reasons
    }
  }
}
