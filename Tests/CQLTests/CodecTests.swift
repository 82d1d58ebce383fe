import TestSupport
import Testing

@testable import CQL

@Suite struct CodecTests {
  static let versions = ProtocolVersion.allCases

  static func envelope(_ version: ProtocolVersion, _ request: Request) -> Envelope {
    let body = request.body(version)
    return Envelope(
      header: FrameHeader(version: version, stream: 1, opcode: request.opcode, bodyBytes: body.count),
      body: body)
  }

  static func envelope(_ version: ProtocolVersion, _ answer: Answer) -> Envelope {
    let body = answer.body(version)
    return Envelope(
      header: FrameHeader(
        version: version, isResponse: true, stream: 1, opcode: answer.opcode, bodyBytes: body.count),
      body: body)
  }

  static func heard(_ answer: Answer, _ version: ProtocolVersion = .v5) throws -> Message {
    try Response(envelope(version, answer), version).message
  }

  @Test("STARTUP is byte for byte as drivers send it")
  func startup() {
    var out = WireWriter()
    let request = Request.startup(["CQL_VERSION": "3.0.0"])
    var writer = FrameWriter()
    writer.write(
      FrameHeader(version: .v5, stream: 0, opcode: .startup, bodyBytes: 0), body: request.body(.v5),
      into: &out)
    #expect(out.bytes == hex("0500000001000000160001000b43514c5f56455253494f4e0005332e302e30"))
  }

  @Test("query parameters have one byte of flags in version 4 and four in version 5, in the specified order")
  func parameters() {
    var parameters = QueryParameters()
    parameters.values = BoundValues(count: 1, bytes: hex("00000004 00000007"))
    parameters.skipsMetadata = true
    parameters.pageRows = 100
    parameters.pagingState = [0xAB]
    parameters.serialConsistency = .localSerial
    parameters.timestamp = 1
    let rest = "0001 00000004 00000007 00000064 00000001ab 0009 0000000000000001"
    let execute = Request.execute(id: [1, 2], resultMetadataID: [3], parameters)
    #expect(execute.body(.v4) == hex("0002 0102 0006 3f" + rest))
    #expect(execute.body(.v5) == hex("0002 0102 0001 03 0006 0000003f" + rest))
    #expect(Request.prepare("x").body(.v4) == hex("00000001 78"))
    #expect(Request.prepare("x").body(.v5) == hex("00000001 78 00000000"))
  }

  @Test("every request is read as it was written", arguments: versions)
  func requests(version: ProtocolVersion) throws {
    var parameters = QueryParameters()
    parameters.values = BoundValues(count: 3, bytes: hex("00000001 05 ffffffff fffffffe"))
    parameters.timestamp = .max
    let batch = BatchRequest(
      kind: .unlogged,
      statements: [
        .text("a", BoundValues()), .prepared(id: [1], BoundValues(count: 1, bytes: hex("00000000"))),
      ], consistency: .one, serialConsistency: .serial, timestamp: -1)
    let id: [UInt8] = version == .v5 ? [9, 9] : []
    let requests: [Request] = [
      .options, .startup(["A": "b", "C": ""]), .authResponse([0, 1]), .register(EventKind.allCases),
      .query("SELECT ä", parameters), .prepare("p"),
      .execute(id: [1], resultMetadataID: id, QueryParameters()), .batch(batch),
    ]
    for request in requests { #expect(try Request(Self.envelope(version, request), version) == request) }
  }

  static let failures = ServerError.Failures(
    count: 2,
    reasons: [
      .init(address: [10, 0, 0, 1], code: 1), .init(address: [UInt8](repeating: 1, count: 16), code: 99),
    ])

  static func error(_ code: Int32, _ kind: ServerError.Kind) -> ServerError {
    ServerError(code: code, message: "ü", kind: kind)
  }

  static let errors: [ServerError] = [
    error(0, .server), error(0x0A, .protocolError), error(0x100, .authentication),
    error(0x1000, .unavailable(.quorum, required: 2, alive: 1)), error(0x1001, .overloaded),
    error(0x1002, .bootstrapping), error(0x1003, .truncate),
    error(0x1100, .writeTimeout(.one, received: 0, required: 1, .batchLog, contentions: nil)),
    error(0x1100, .writeTimeout(.serial, received: 0, required: 1, .cas, contentions: 3)),
    error(0x1100, .writeTimeout(.one, received: 0, required: 1, .other("NEW"), contentions: nil)),
    error(0x1200, .readTimeout(.two, received: 1, required: 2, dataPresent: true)),
    error(0x1300, .readFailure(.localOne, received: 1, required: 2, failures, dataPresent: false)),
    error(0x1400, .function(keyspace: "k", name: "f", argumentTypes: ["int", "text"])),
    error(0x1500, .writeFailure(.all, received: 1, required: 2, failures, .view)),
    error(0x1600, .cdcWriteFailure), error(0x1700, .casWriteUnknown(.serial, received: 1, required: 2)),
    error(0x2000, .syntax), error(0x2100, .unauthorized), error(0x2200, .invalid),
    error(0x2300, .configuration), error(0x2400, .alreadyExists(keyspace: "k", table: "")),
    error(0x2500, .unprepared(id: [1, 2, 3])), error(0x4321, .other),
  ]

  @Test("every error is read with its fields, and a code nobody knows is read as well", arguments: errors)
  func errors(error: ServerError) throws {
    #expect(try Self.heard(.error(error)) == .error(error))
    // Version 4 counts failed replicas and tells nothing of them; contentions it has none.
    guard case .error(let old) = try Self.heard(.error(error), .v4) else {
      Issue.record("no error")
      return
    }
    #expect(old.code == error.code && old.message == error.message)
    switch old.kind {
    case .readFailure(_, _, _, let failures, _), .writeFailure(_, _, _, let failures, _):
      #expect(failures == ServerError.Failures(count: 2, reasons: []))
    case .writeTimeout(_, _, _, _, let contentions): #expect(contentions == nil)
    default: #expect(old == error)
    }
  }

  @Test("every other answer is read as it was said", arguments: versions)
  func answers(version: ProtocolVersion) throws {
    let changes = [
      SchemaChange(change: "CREATED", target: "FUNCTION", keyspace: "k", name: "f", argumentTypes: ["int"]),
      SchemaChange(change: "DROPPED", target: "KEYSPACE", keyspace: "k", name: "", argumentTypes: []),
      SchemaChange(change: "UPDATED", target: "TABLE", keyspace: "k", name: "t", argumentTypes: []),
    ]
    func expect(_ answer: Answer, _ message: Message) throws {
      #expect(try Self.heard(answer, version) == message)
    }
    try expect(.ready, .ready)
    try expect(.authenticate("org.x.Y"), .authenticate("org.x.Y"))
    let options = ["COMPRESSION": ["lz4", "snappy"], "X": []]
    try expect(.supported(options), .supported(options))
    try expect(.void, .result(.void))
    try expect(.setKeyspace("k"), .result(.setKeyspace("k")))
    try expect(.authChallenge([1]), .authChallenge([1]))
    try expect(.authSuccess(nil), .authSuccess(nil))
    for change in changes {
      try expect(.schemaChange(change), .result(.schemaChange(change)))
      try expect(.event(.schema(change)), .event(.schema(change)))
    }
    let v6 = [UInt8](repeating: 0, count: 15) + [1]
    for event in [
      ServerEvent.topology(change: "MOVED_NODE", address: v6, port: 9042),
      .status(change: "DOWN", address: [127, 0, 0, 1], port: 1), .other("GRACEFUL_DISCONNECT"),
    ] { try expect(.event(event), .event(event)) }
  }

  static let columns = [
    Column(keyspace: "k", table: "t", name: "a", type: .int),
    Column(keyspace: "k", table: "t", name: "b", type: .map(.text, .list(.uuid))),
  ]

  @Test("a prepared statement's answer is read in both forms of its metadata", arguments: versions)
  func prepared(version: ProtocolVersion) throws {
    let other = Column(keyspace: "k", table: "u", name: "c", type: .blob)
    for markers in [Self.columns, [], [Self.columns[0], other]] {
      let key = markers.isEmpty ? [] : [1, 0]
      let answer = Answer.PreparedAnswer(
        id: [1, 2], resultMetadataID: [3], markers: markers, partitionKey: key, columns: Self.columns)
      guard case .result(.prepared(let result)) = try Self.heard(.prepared(answer), version) else {
        Issue.record("not prepared")
        return
      }
      #expect(result.id == [1, 2] && result.resultMetadataID == (version == .v5 ? [3] : []))
      #expect(result.markers == markers && result.partitionKey == key && result.columns == Self.columns)
    }
  }

  @Test("tracing, warnings and payload precede every answer, errors too", arguments: 0..<8)
  func announced(bits: Int) throws {
    for answer in [Answer.setKeyspace("k"), .error(Self.errors[3])] {
      let plain = try Self.heard(answer, .v4)
      var envelope = Self.envelope(.v4, answer)
      var out = WireWriter()
      if bits & 1 != 0 {
        envelope.header.flags.insert(.tracing)
        out.raw(hex("000102030405060708090a0b0c0d0e0f"))
      }
      if bits & 2 != 0 {
        envelope.header.flags.insert(.warning)
        out.stringList(["one", "two"])
      }
      if bits & 4 != 0 {
        envelope.header.flags.insert(.customPayload)
        out.short(1)
        out.string("key")
        out.bytesOrNull([7])
      }
      // Bytes behind what is known are legal.
      envelope.body = out.bytes + envelope.body + [1, 2, 3]
      let response = try Response(envelope, .v4)
      #expect(response.message == plain)
      let tracingID = bits & 1 != 0 ? "00010203-0405-0607-0809-0a0b0c0d0e0f" : nil
      #expect(response.tracingID?.description == tracingID)
      #expect(response.warnings == (bits & 2 != 0 ? ["one", "two"] : []))
      #expect(response.payload == (bits & 4 != 0 ? ["key": [7]] : [:]))
    }
  }

  @Test("counts that lie are refused before anything is reserved for them")
  func hostileCounts() {
    func result(_ text: String) -> Message? {
      let body = hex(text)
      let header = FrameHeader(
        version: .v5, isResponse: true, stream: 1, opcode: .result, bodyBytes: body.count)
      return try? Response(Envelope(header: header, body: body), .v5).message
    }
    #expect(result("00000002 00000004 00000001 00000001 00000004 00000007") != nil)
    #expect(result("00000002 00000004 00000001 7fffffff 00000004 00000007") == nil, "rows")
    #expect(result("00000002 00000004 00000000 7fffffff 00000004 00000007") == nil, "rows without columns")
    #expect(result("00000002 00000000 7fffffff 00000001 00000004 00000007") == nil, "columns")
    #expect(result("00000002 00000000 ffffffff") == nil, "columns below none")
    #expect(result("00000004 0001 01 0001 01 00000000 00000001 7fffffff") == nil, "parts of a key")
    // A type nested without end.
    #expect(
      result(
        "00000002 00000001 00000001 0000 0000 0001 61" + String(repeating: "0020", count: 100_000)) == nil)
  }

  @Test(
    "bytes cut or changed anywhere give an answer or a typed error, never a trap", arguments: Seed.some(40))
  func mutated(seed: Seed) throws {
    var random = seed.random
    let served = ServedRows(
      columns: Self.columns, rows: [[.int(1), .map([.init(.text("x"), .list([]))])], [.null, .null]],
      pagingState: [1], newMetadataID: [2])
    let answers: [Answer] =
      Self.errors.map { .error($0) } + [
        .rows(served), .supported(["A": ["b"]]),
        .event(.status(change: "UP", address: [1, 2, 3, 4], port: 1)),
        .prepared(
          .init(
            id: [1], resultMetadataID: [2], markers: Self.columns, partitionKey: [0], columns: Self.columns)),
      ]
    for answer in answers {
      for version in Self.versions {
        let envelope = Self.changed(Self.envelope(version, answer), &random)
        guard let response = try? Response(envelope, version) else { continue }
        if case .result(.rows(let rows)) = response.message, let columns = rows.columns {
          Self.readAll(rows, columns)
        }
      }
    }
  }

  static func changed(_ envelope: Envelope, _ random: inout SeededGenerator) -> Envelope {
    var envelope = envelope
    for _ in 0..<Int.random(in: 1...3, using: &random) where !envelope.body.isEmpty {
      let place = Int.random(in: 0..<envelope.body.count, using: &random)
      switch Int.random(in: 0..<3, using: &random) {
      case 0: envelope.body[place] = UInt8.random(in: 0...255, using: &random)
      case 1: envelope.body.removeSubrange(place...)
      default: envelope.header.flags = FrameFlags(rawValue: UInt8.random(in: 0...31, using: &random))
      }
    }
    return envelope
  }

  static func readAll(_ rows: RowsResult, _ columns: [Column]) {
    rows.body.withUnsafeBytes { raw in
      var reader = WireReader(raw)
      _ = try? reader.raw(rows.rowsStart)
      for _ in 0..<rows.rowCount {
        for column in columns {
          guard let bytes = try? reader.bytesOrNull() else { return }
          _ = try? Value(bytes, as: column.type)
        }
      }
    }
  }
}
