import Posix
import TestSupport
import Testing

@testable import CQL

/// Transcripts: what is told, what is sent, what is to be done.
@Suite struct ConnectionStateTests {
  /// A connection and the other end's codec.
  final class Talk {
    var state: ConnectionState
    var now = Moment(nanoseconds: 0)
    var out = WireWriter()
    var actions: [ConnectionState.Action] = []
    var reader = FrameReader()
    var writer = FrameWriter()
    var version = ProtocolVersion.v5

    init(_ change: (inout ConnectionSettings) -> Void = { _ in }) {
      var settings = ConnectionSettings()
      settings.compresses = false
      change(&settings)
      state = ConnectionState(settings)
    }

    /// What was sent since the last time.
    func sent() throws -> [(header: FrameHeader, request: Request)] {
      state.flush(into: &out)
      out.bytes.withUnsafeBytes { reader.append($0) }
      out.bytes.removeAll()
      var sent: [(FrameHeader, Request)] = []
      while let envelope = try reader.next() {
        let spoken = try #require(ProtocolVersion(rawValue: envelope.header.version))
        sent.append((envelope.header, try Request(envelope, spoken)))
      }
      return sent
    }

    func hear(_ answer: Answer, stream: Int16, _ version: ProtocolVersion? = nil) {
      let version = version ?? self.version
      var bytes = WireWriter()
      writer.write(
        FrameHeader(version: version, isResponse: true, stream: stream, opcode: answer.opcode, bodyBytes: 0),
        body: answer.body(version), into: &bytes)
      writer.flush(into: &bytes)
      bytes.bytes.withUnsafeBytes { state.received($0, at: now, into: &out, &actions) }
    }

    func took() -> [ConnectionState.Action] {
      defer { actions = [] }
      return actions
    }

    /// Through the handshake, in version 5 without compression.
    func becomeReady() throws {
      state.start(at: now, into: &out)
      _ = try sent()
      hear(.supported(["PROTOCOL_VERSIONS": ["4/v4", "5/v5"]]), stream: 0, .v4)
      _ = try sent()
      hear(.ready, stream: 0)
      reader.framing = .segments(lz4: false)
      writer.framing = .segments(lz4: false)
      #expect(took() == [.ready(.v5)])
    }

    func ask(_ tag: UInt64, until: Int64 = 12_000) -> Bool {
      state.ask(
        .query("q\(tag)", QueryParameters()), tag: tag, until: Moment(nanoseconds: until * 1_000_000),
        into: &out)
    }

    func expire(_ milliseconds: Int64) {
      now = Moment(nanoseconds: milliseconds * 1_000_000)
      state.expire(at: now, into: &out, &actions)
    }
  }

  @Test("the handshake asks what is spoken, in version 4, then starts in the best version and changes over")
  func handshake() throws {
    let talk = Talk { $0.credentials = .init(user: "cassandra", password: "cassandra") }
    talk.state.start(at: talk.now, into: &talk.out)
    let options = try talk.sent()
    #expect(options.map(\.request) == [.options] && options[0].header.version == 4)
    talk.hear(.supported(["PROTOCOL_VERSIONS": ["4/v4", "5/v5", "6/v6-beta"]]), stream: 0, .v4)
    let startup = try talk.sent()
    guard case .startup(let said)? = startup.first?.request else {
      Issue.record("no STARTUP")
      return
    }
    #expect(startup[0].header.version == 5 && said["CQL_VERSION"] == "3.0.0" && said["COMPRESSION"] == nil)
    #expect(said["DRIVER_NAME"] == "RankMySteps")
    talk.hear(.authenticate("any.class.Name"), stream: 0)
    // From AUTHENTICATE on, both sides send segments.
    talk.reader.framing = .segments(lz4: false)
    talk.writer.framing = .segments(lz4: false)
    #expect(
      try talk.sent().map(\.request) == [.authResponse(hex("0063617373616e64726100 63617373616e647261"))])
    #expect(talk.took() == [])
    talk.hear(.authSuccess(nil), stream: 0)
    #expect(talk.took() == [.ready(.v5)])
  }

  @Test("a version is refused in the words of each server, and what is next follows from them")
  func rejections() throws {
    func heard(_ text: String, asked: ProtocolVersion, answered: ProtocolVersion) throws -> ConnectionError? {
      let talk = Talk()
      talk.state = ConnectionState(ConnectionSettings(), first: .v4)
      talk.state.start(at: talk.now, into: &talk.out)
      if asked == .v5 {
        talk.hear(.supported(["PROTOCOL_VERSIONS": ["5/v5"]]), stream: 0, .v4)
      }
      let error = ServerError(code: 0x0A, message: text, kind: .protocolError)
      talk.hear(.error(error), stream: 0, answered)
      guard case .close(let reason)? = talk.took().last else { return nil }
      return reason
    }
    let invalid =
      "Invalid or unsupported protocol version (5); the lowest supported version is 3 and the greatest is 4"
    let beta = "Beta version of the protocol used (5/v5-beta), but USE_BETA flag is unset"
    let old = "Rejecting Protocol Version 4/v4 < 5/v5."
    #expect(try heard(invalid, asked: .v5, answered: .v4) == .versionRejected(invalid, next: .v4))
    #expect(try heard(beta, asked: .v5, answered: .v5) == .versionRejected(beta, next: .v4))
    #expect(try heard(old, asked: .v4, answered: .v5) == .versionRejected(old, next: .v5))
    #expect(try heard(invalid, asked: .v4, answered: .v4) == .versionRejected(invalid, next: nil))
    let other = ServerError(code: 0x0A, message: "no", kind: .protocolError)
    #expect(try heard("no", asked: .v5, answered: .v5) == .refused(other))
  }

  @Test("an answer goes to whoever asked on its stream, in any order")
  func answers() throws {
    let talk = Talk()
    try talk.becomeReady()
    for tag in 1...3 as ClosedRange<UInt64> { #expect(talk.ask(tag)) }
    let sent = try talk.sent()
    #expect(sent.map(\.header.stream) == [1, 2, 3])
    for stream in [3, 1, 2] as [Int16] { talk.hear(.setKeyspace("\(stream)"), stream: stream) }
    #expect(
      talk.took()
        == [3, 1, 2].map { .answer(tag: $0, Response(message: .result(.setKeyspace("\($0)")))) })
    #expect(talk.state.inFlight == 0)
  }

  @Test("a request that is too late is told so once; its id stays taken until the answer, which is dropped")
  func orphans() throws {
    let talk = Talk()
    try talk.becomeReady()
    #expect(talk.ask(1, until: 1000) && talk.ask(2, until: 3000))
    #expect(talk.state.expiresNext == Moment(nanoseconds: 1_000_000_000))
    talk.expire(999)
    #expect(talk.took() == [])
    talk.expire(1000)
    #expect(talk.took() == [.timedOut(tag: 1)] && talk.state.orphanCount == 1)
    #expect(talk.state.expiresNext == Moment(nanoseconds: 3_000_000_000))
    #expect(talk.ask(3))
    #expect(try talk.sent().map(\.header.stream) == [1, 2, 3])
    talk.hear(.void, stream: 1)
    #expect(talk.took() == [] && talk.state.orphanCount == 0)
    #expect(talk.ask(4))
    #expect(try talk.sent().map(\.header.stream) == [1])
  }

  @Test("too many old orphans end the connection; as many young ones do not")
  func manyOrphans() throws {
    let talk = Talk { $0.orphansMax = 10 }
    try talk.becomeReady()
    for tag in 1...11 as ClosedRange<UInt64> { #expect(talk.ask(tag, until: 1000)) }
    talk.expire(1000)
    #expect(talk.took().count == 11)
    #expect(talk.state.expiresNext == Moment(nanoseconds: 2_000_000_000))
    talk.expire(1999)
    #expect(talk.took() == [])
    talk.expire(2000)
    #expect(talk.took() == [.close(.tooManyOrphans)])
  }

  @Test("after silence a heartbeat is sent; without its answer the connection ends, and what waits is told")
  func heartbeat() throws {
    let talk = Talk()
    try talk.becomeReady()
    talk.expire(29_999)
    #expect(try talk.sent().isEmpty)
    talk.expire(30_000)
    #expect(try talk.sent().map(\.request) == [.options])
    talk.hear(.supported([:]), stream: 1)
    #expect(talk.took() == [])
    talk.expire(60_000)
    #expect(try talk.sent().map(\.request) == [.options])
    #expect(talk.ask(7, until: 90_000))
    talk.expire(65_000)
    #expect(talk.took() == [.lost(tag: 7, .silent), .close(.silent)])
  }

  @Test("an error on stream 0, an answer nobody asked for, and another version end the connection")
  func strangeAnswers() throws {
    let error = ServerError(code: 0x0A, message: "wrong", kind: .protocolError)
    let cases: [(Answer, Int16, ProtocolVersion)] = [
      (.error(error), 0, .v5), (.void, 0, .v5), (.void, 2, .v5), (.void, 999, .v5), (.void, 1, .v4),
      (.error(error), 1, .v5),
    ]
    for (answer, stream, version) in cases {
      let talk = Talk()
      try talk.becomeReady()
      #expect(talk.ask(1))
      talk.hear(answer, stream: stream, version)
      let actions = talk.took()
      guard case .close? = actions.last else {
        Issue.record("\(actions)")
        continue
      }
      #expect(actions.count == 2)
    }
  }

  @Test("events are told, unknown ones as well, and disturb nothing")
  func events() throws {
    let talk = Talk()
    try talk.becomeReady()
    talk.hear(.event(.other("NEW")), stream: -1)
    talk.hear(.event(.status(change: "UP", address: [1, 2, 3, 4], port: 5)), stream: -1)
    #expect(
      talk.took() == [.event(.other("NEW")), .event(.status(change: "UP", address: [1, 2, 3, 4], port: 5))])
  }

  @Test("as many requests as there are ids are taken, no id twice, and the next is refused")
  func allIDs() throws {
    let talk = Talk()
    try talk.becomeReady()
    for tag in 1...32_767 as ClosedRange<UInt64> { #expect(talk.ask(tag)) }
    #expect(!talk.ask(40_000))
    let streams = try talk.sent().map(\.header.stream)
    #expect(Set(streams).count == 32_767 && streams.min() == 1 && streams.max() == 32_767)
  }

  @Test("ids that are given back are taken again, whatever the order", arguments: Seed.some(20))
  func idsComeBack(seed: Seed) {
    var random = seed.random
    var ids = StreamIDs(max: 500)
    var taken: Set<Int16> = []
    for _ in 0..<4000 {
      if Bool.random(using: &random), let id = ids.take() {
        #expect(id > 0 && taken.insert(id).inserted)
      } else if let id = taken.randomElement(using: &random) {
        taken.remove(id)
        ids.give(id)
      }
      #expect(ids.count == taken.count)
    }
  }

  @Test(
    "bytes cut and changed at random end in an answer, an end, or a wait, never in a trap",
    arguments: Seed.some(60))
  func fuzz(seed: Seed) throws {
    var random = seed.random
    let talk = Talk()
    try talk.becomeReady()
    for tag in 1...5 as ClosedRange<UInt64> { #expect(talk.ask(tag)) }
    var bytes = WireWriter()
    for stream in 1...5 as ClosedRange<Int16> {
      let answer =
        [Answer.void, .setKeyspace("k"), .error(CodecTests.errors[12])].randomElement(using: &random) ?? .void
      talk.writer.write(
        FrameHeader(version: .v5, isResponse: true, stream: stream, opcode: answer.opcode, bodyBytes: 0),
        body: answer.body(.v5), into: &bytes)
      if Bool.random(using: &random) { talk.writer.flush(into: &bytes) }
    }
    talk.writer.flush(into: &bytes)
    var raw = bytes.bytes
    for _ in 0..<Int.random(in: 0...2, using: &random) {
      raw[Int.random(in: 0..<raw.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
    }
    var start = 0
    while start < raw.count {
      let end = min(raw.count, start + Int.random(in: 1...40, using: &random))
      raw[start..<end].withUnsafeBytes {
        talk.state.received($0, at: talk.now, into: &talk.out, &talk.actions)
      }
      start = end
    }
    talk.state.ended(.lost("end"), into: &talk.actions)
    // Each request is told of exactly once.
    let tags = talk.took().compactMap { action -> UInt64? in
      switch action {
      case .answer(let tag, _), .lost(let tag, _), .timedOut(let tag): tag
      case .ready, .event, .close: nil
      }
    }
    #expect(tags.sorted() == [1, 2, 3, 4, 5])
  }
}
