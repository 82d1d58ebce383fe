import Bytes
import Posix
import QueryProtocol
import RankMySteps
import StepModel
import TestSupport
import Testing

/// A client state with a clock moved by hand, and a node that answers what it is told to.
private final class Transcript {
  var state = ClientState(settings: ClientSettings(name: "test", seed: 7))
  var now = Moment(nanoseconds: 0)
  /// What the client sent since the last look.
  var sent = ByteWriter(limit: 1 << 20)

  /// Kinds and ids of the requests sent since the last look.
  func requests() -> [String] {
    var found: [String] = []
    var splitter = FrameSplitter.answers()
    var bytes = sent.array[...]
    while !bytes.isEmpty {
      let taken = Array(bytes).withUnsafeBytes { raw -> Int in
        guard case .frame(let frame, let length) = splitter.next(raw) else { return raw.count }
        found.append("\(Kind(rawValue: frame.kind).map { "\($0)" } ?? "?") \(frame.id)")
        return length
      }
      bytes = bytes.dropFirst(taken)
    }
    sent.removeAll()
    return found
  }

  func hear(_ bytes: [UInt8]) -> [ClientState.Action] {
    var actions: [ClientState.Action] = []
    let consumed = bytes.withUnsafeBytes { state.received($0, at: now, into: &actions) }
    #expect(consumed == bytes.count || actions.isEmpty)
    return actions
  }

  func hear(_ id: UInt32, _ response: Response) -> [ClientState.Action] {
    hear(bytes(id, response))
  }

  func bytes(_ id: UInt32, _ response: Response) -> [UInt8] {
    var out = ByteWriter(limit: 1 << 20)
    ResponseWriter.write(response, id: id, into: &out)
    return out.array
  }

  func greet(inFlightMax: UInt32 = 256) throws {
    try state.connect(at: now)
    state.connected(at: now, into: &sent)
    var hello = HelloAnswer(version: 1, node: "n", cluster: "c", software: "0")
    hello.inFlightMax = inFlightMax
    #expect(hear(1, .hello(hello)) == [])
    #expect(requests() == ["hello 1"])
  }

  func ask(_ request: OwnedRequest, _ options: RequestOptions = RequestOptions()) throws -> UInt32 {
    try state.ask(request, options: options, at: now, into: &sent)
  }

  func expire() -> [ClientState.Action] {
    var actions: [ClientState.Action] = []
    state.expire(at: now, into: &actions)
    return actions
  }

  func end(_ why: String) -> [ClientState.Action] {
    var actions: [ClientState.Action] = []
    state.ended(why, at: now, into: &actions)
    return actions
  }
}

private let rankAnswer = RankAnswer(onBoard: true, rank: 1, tied: 1, steps: 5, users: 1, above: 0)
private let rank = Response.rank(AnswerContext(board: .all), rankAnswer)
private let ada = OwnedRequest.rank(board: .today, user: UserID("ada")!)

@Suite("the client as a value")
struct ClientStateTests {
  @Test("HELLO comes first, then requests; answers find their requests in any order")
  func transcript() throws {
    let client = Transcript()
    try client.greet()
    #expect(try client.ask(.ping) == 2)
    #expect(try client.ask(ada) == 3)
    #expect(try client.ask(.boards) == 4)
    #expect(client.requests() == ["ping 2", "rank 3", "boards 4"])
    #expect(client.hear(3, rank) == [.answer(id: 3, rank)])
    let boards = Response.boards(BoardsAnswer(shards: [], missing: [], boards: []))
    #expect(
      client.hear(client.bytes(4, boards) + client.bytes(2, .ping)) == [
        .answer(id: 4, boards), .answer(id: 2, .ping),
      ])
    #expect(client.state.inFlight == 0)
  }

  @Test("requests may follow HELLO before it is answered")
  func early() throws {
    let client = Transcript()
    try client.state.connect(at: client.now)
    client.state.connected(at: client.now, into: &client.sent)
    #expect(try client.ask(.ping) == 2)
    #expect(client.requests() == ["hello 1", "ping 2"])
    let hello = Response.hello(HelloAnswer(version: 1, node: "n", cluster: "c", software: "0"))
    #expect(client.hear(client.bytes(1, hello) + client.bytes(2, .ping)) == [.answer(id: 2, .ping)])
  }

  @Test("nothing can be asked without a connection")
  func apart() throws {
    let client = Transcript()
    #expect(throws: ClientError.self) { try client.ask(.ping) }
  }

  @Test("a request carries its deadline, and expires a little after it; a late answer is dropped")
  func expiry() throws {
    let client = Transcript()
    try client.greet()
    let id = try client.ask(ada, RequestOptions(deadlineMillis: 200))
    let other = try client.ask(.ping)
    let frame = client.sent.array
    #expect(frame[5] == RequestFlags.deadline && frame[12] == 200)
    #expect(client.state.expiresNext == Moment(nanoseconds: 700_000_000))
    client.now = Moment(nanoseconds: 699_999_999)
    #expect(client.expire() == [])
    client.now = Moment(nanoseconds: 700_000_000)
    #expect(client.expire() == [.fail(id: id, .timedOut("RANK"))])
    #expect(client.expire() == [])
    #expect(client.state.inFlight == 2)
    #expect(client.hear(id, rank) == [])
    #expect(client.hear(other, .ping) == [.answer(id: other, .ping)])
    #expect(client.state.expiresNext == nil)
  }

  @Test("the node's error goes to the request, and the connection goes on")
  func refused() throws {
    let client = Transcript()
    try client.greet()
    let id = try client.ask(ada)
    let error = ErrorAnswer(code: .noSuchBoard, retryable: false, text: "no such board: 2026-W01")
    #expect(
      client.hear(id, .error(error)) == [
        .fail(id: id, .refused(code: .noSuchBoard, retryable: false, text: "no such board: 2026-W01"))
      ])
    let next = try client.ask(.ping)
    #expect(client.hear(next, .ping) == [.answer(id: next, .ping)])
  }

  @Test("an error without a request fails all that waits and closes")
  func connectionError() throws {
    let client = Transcript()
    try client.greet()
    let first = try client.ask(.ping)
    let second = try client.ask(ada)
    let error = ErrorAnswer(code: .idle, retryable: true, text: "silent for 60 s")
    let refused = ClientError.refused(code: .idle, retryable: true, text: "silent for 60 s")
    #expect(
      client.hear(0, .error(error)) == [
        .fail(id: first, refused), .fail(id: second, refused), .close(refused),
      ])
    #expect(client.state.inFlight == 0)
  }

  @Test("a node that leaves still answers what waits; the connection ends with the last answer")
  func leaving() throws {
    let it = Transcript()
    try it.greet()
    let (a, b) = (try it.ask(.ping), try it.ask(.ping))
    let draining = ErrorAnswer(code: .draining, retryable: true, text: "leaving")
    let why = ClientError.refused(code: .draining, retryable: true, text: "leaving")
    #expect(it.hear(0, .error(draining)) == [])
    #expect(it.hear(b, .ping) == [.answer(id: b, .ping)])
    #expect(it.hear(a, .ping) == [.answer(id: a, .ping), .close(why)])
    #expect(throws: ClientError.disconnected("nothing is connected")) { try it.ask(.ping) }
    // With nothing in flight it ends at once.
    let rested = Transcript()
    try rested.greet()
    #expect(rested.hear(0, .error(draining)) == [.close(why)])
  }

  @Test("an answer that nobody asked for, or of another kind, closes")
  func broken() throws {
    for (id, response) in [(UInt32(99), Response.ping), (2, rank)] {
      let client = Transcript()
      try client.greet()
      _ = try client.ask(.ping)
      let actions = client.hear(id, response)
      guard case .close(.protocolBroken)? = actions.last else {
        Issue.record("\(actions)")
        continue
      }
      #expect(actions.count == 2)
    }
  }

  @Test("frames of kinds that no request asks for are skipped", arguments: [192, 200, 254] as [UInt8])
  func unaskedKinds(kind: UInt8) throws {
    let transcript = Transcript()
    try transcript.greet()
    let id = try transcript.ask(ada)
    #expect(transcript.hear([12, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]) == [])
    #expect(transcript.hear(id, rank) == [.answer(id: id, rank)])
  }

  @Test("a frame of a wrong length closes, and bytes cut anywhere are the same bytes")
  func pieces() throws {
    let client = Transcript()
    try client.greet()
    let id = try client.ask(ada)
    let bytes = client.bytes(id, rank)
    for length in 0..<bytes.count { #expect(client.hear(Array(bytes[..<length])) == []) }
    #expect(client.hear(bytes) == [.answer(id: id, rank)])
    guard case .close(.protocolBroken)? = client.hear([1, 0, 0, 0]).last else {
      Issue.record("a length of 1 was taken")
      return
    }
  }

  @Test("no more requests wait than the node allows")
  func inFlight() throws {
    let client = Transcript()
    try client.greet(inFlightMax: 2)
    _ = try client.ask(.ping)
    let second = try client.ask(.ping)
    #expect(throws: ClientError.tooManyInFlight(max: 2)) { try client.ask(.ping) }
    _ = client.hear(second, .ping)
    #expect(throws: Never.self) { try client.ask(.ping) }
  }

  @Test("a peer of another protocol is named by its first bytes")
  func foreign() throws {
    let peers: [([UInt8], ForeignPeer)] = [
      (Array("HTTP/1.1 400 Bad Request\r\n".utf8), .http), ([0x15, 3, 1, 0, 2, 2, 70], .tls),
      (Array("SSH-2.0-OpenSSH".utf8), .ssh), (Array("-ERR unknown".utf8), .redis), ([0, 0, 0, 0], .unknown),
      (Array("220 mail".utf8), .unknown),
    ]
    for (bytes, peer) in peers {
      let client = Transcript()
      try client.state.connect(at: client.now)
      client.state.connected(at: client.now, into: &client.sent)
      #expect(client.hear(bytes) == [.close(.notRMS(peer))])
    }
  }

  @Test("a peer that closes without a word, or stays silent, is no rms port")
  func silent() throws {
    let closing = Transcript()
    try closing.state.connect(at: closing.now)
    closing.state.connected(at: closing.now, into: &closing.sent)
    #expect(closing.end("closed") == [.close(.notRMS(.closed))])
    let silent = Transcript()
    try silent.state.connect(at: silent.now)
    silent.state.connected(at: silent.now, into: &silent.sent)
    #expect(silent.state.expiresNext == Moment(nanoseconds: 5_000_000_000))
    silent.now = Moment(nanoseconds: 5_000_000_000)
    #expect(silent.expire() == [.close(.notRMS(.silent))])
  }

  @Test("failures lengthen the pause before the next try; a greeting ends it")
  func backoff() throws {
    let client = Transcript()
    let refused = ClientError.unreachable("connection refused")
    var pauses: [Int64] = []
    for _ in 0..<12 {
      try client.state.connect(at: client.now)
      client.state.connectFailed(refused, at: client.now)
      #expect(throws: refused) { try client.state.connect(at: client.now) }
      guard case .apart(let retryAt, _) = client.state.phase else {
        Issue.record("\(client.state.phase)")
        return
      }
      pauses.append(retryAt.nanoseconds - client.now.nanoseconds)
      client.now = retryAt
    }
    #expect(pauses[0] >= 50_000_000 && pauses[0] <= 100_000_000)
    #expect(pauses[5] > 2 * pauses[2])
    #expect(pauses.max() ?? 0 <= 10_000_000_000)
    try client.greet()
    #expect(client.end("reset") == [.close(.disconnected("reset"))])
    #expect(throws: Never.self) { try client.state.connect(at: client.now) }
  }

  @Test("a connection that ends fails what waited, and the next one starts anew")
  func ended() throws {
    let client = Transcript()
    try client.greet()
    let id = try client.ask(ada)
    _ = client.requests()
    #expect(client.end("reset") == [.fail(id: id, .disconnected("reset")), .close(.disconnected("reset"))])
    try client.greet()
    #expect(try client.ask(.ping) == 2)
  }
}
