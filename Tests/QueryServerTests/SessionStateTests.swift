import Bytes
import Posix
import QueryProtocol
import QueryServer
import StepModel
import TestSupport
import Testing

/// A session with its clock and bytes; each event gives one word a decision.
private struct Script {
  var session: SessionState
  var turn = Turn()
  var now = Moment(nanoseconds: 1_000)
  var bytes: [UInt8] = []

  init(_ limits: ServerLimits = ServerLimits(), roles: Roles = [.query, .admin]) {
    session = SessionState(limits, roles: roles, now: now)
  }

  /// Bytes arrive; every whole frame is decided on, requests are taken, and the turn stays open.
  mutating func received(_ more: [UInt8]) -> [String] {
    session.heard(now: now)
    bytes += more
    var said: [String] = []
    while true {
      let step = bytes.withUnsafeBytes { raw in
        let step = session.next(raw, turn)
        if case .request(let incoming, _) = step, !incoming.atLeast.isEmpty {
          session.park(incoming, now: now)
        }
        return step
      }
      switch step {
      case .request(let incoming, let consumed):
        said.append("\(incoming.atLeast.isEmpty ? "ask" : "park") \(incoming.id)")
        if incoming.atLeast.isEmpty { turn.take(incoming.id) }
        bytes.removeFirst(consumed)
      case .ping(let id, let consumed):
        said.append("pong \(id)")
        bytes.removeFirst(consumed)
      case .hello(let id, _, let version, let consumed):
        said.append("hello \(id) v\(version)")
        bytes.removeFirst(consumed)
      case .refuse(let id, let refusal, let consumed):
        said.append("\(refusal.code) \(id)")
        bytes.removeFirst(consumed)
      case .close(let id, let refusal, let reason):
        said.append("\(refusal.code) \(id), close \(reason.rawValue)")
        return said
      case .incomplete(let count):
        if bytes.isEmpty { return said }
        said.append("incomplete, needs \(count)")
        return said
      case .full:
        said.append("full")
        return said
      }
    }
  }

  mutating func after(_ duration: Duration) -> SessionTick {
    now = now + duration
    return session.tick(now: now)
  }
}

func frame(_ request: OwnedRequest, id: UInt32, _ options: RequestOptions = RequestOptions()) -> [UInt8] {
  var writer = ByteWriter(limit: 1 << 20)
  RequestWriter.write(request, id: id, options: options, into: &writer)
  return writer.array
}

func hello(id: UInt32 = 1, versions: ClosedRange<UInt8> = 1...1, options: [OwnedRequest.Option] = [])
  -> [UInt8]
{
  frame(
    .hello(
      versionMin: versions.lowerBound, versionMax: versions.upperBound, client: .init(name: "test"),
      options: options), id: id)
}

func rank(_ id: UInt32, _ options: RequestOptions = RequestOptions()) -> [UInt8] {
  guard let user = UserID("anna") else { return [] }
  return frame(.rank(board: .named(.all), user: user), id: id, options)
}

private let waits = RequestOptions(atLeast: [AtLeast(partition: 0, offset: 7)])

@Suite struct SessionStateTests {
  @Test("HELLO comes first, then requests in the same bytes; a second HELLO closes")
  func greeting() {
    var script = Script()
    #expect(script.received(hello() + rank(2) + frame(.ping, id: 3)) == ["hello 1 v1", "ask 2", "pong 3"])
    #expect(script.received(hello(id: 4)) == ["hello_first 4, close hello_first"])
  }

  @Test("another message first closes")
  func requestFirst() {
    var script = Script()
    #expect(script.received(rank(1)) == ["hello_first 0, close hello_first"])
  }

  @Test("a version we do not speak is refused, and another HELLO may follow under the same bounds")
  func versions() {
    var script = Script()
    #expect(script.received(hello(versions: 7...9)) == ["unsupported_version 1"])
    #expect(!script.session.isOpen)
    var again = script
    #expect(again.received(hello(id: 2, versions: 1...9)) == ["hello 2 v1"])
    #expect(script.received(rank(2)) == ["hello_first 0, close hello_first"])
  }

  @Test(
    "HTTP, TLS and Kafka are refused as foreign",
    arguments: [
      Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8),
      [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03],
      [0x00, 0x00, 0x00, 0x23, 0x00, 0x12, 0x00, 0x04, 0x00, 0x00, 0x00, 0x01],
    ] as [[UInt8]])
  func foreign(bytes: [UInt8]) {
    var script = Script()
    #expect(script.received(bytes) == ["foreign 0, close foreign"])
  }

  @Test(
    "lengths outside the bounds close before more is read",
    arguments: [0, 7, 65_537, 0x7FFF_FFFF, 0xFFFF_FFFF] as [UInt32])
  func lengths(length: UInt32) {
    var script = Script()
    _ = script.received(hello())
    let bytes = withUnsafeBytes(of: length.littleEndian) { [UInt8]($0) }
    #expect(script.received(bytes) == ["frame_size 0, close frame_size"])
  }

  @Test("a byte a second never makes a HELLO: the five seconds run from the start")
  func trickle() {
    var script = Script()
    var closed: SessionTick?
    var seconds = 0
    for byte in hello() where closed == nil {
      _ = script.received([byte])
      if case .close(let reason) = script.after(.seconds(1)) { closed = .close(reason) }
      seconds += 1
    }
    #expect(closed == .close(.helloTimeout))
    #expect(seconds == 5)
  }

  @Test("a frame cut anywhere is kept until it is whole")
  func cut() {
    let bytes = hello() + rank(2) + rank(3)
    for place in 1..<bytes.count {
      var script = Script()
      let first = script.received(Array(bytes[..<place])).filter { !$0.hasPrefix("incomplete") }
      let second = script.received(Array(bytes[place...]))
      #expect(first + second == ["hello 1 v1", "ask 2", "ask 3"], "cut at \(place)")
    }
  }

  @Test("unknown kinds, reserved bits and bad payloads are refused by id, and the session goes on")
  func refusals() {
    var script = Script()
    _ = script.received(hello())
    var unknown = frame(.ping, id: 2)
    unknown[4] = 99
    var flags = frame(.ping, id: 3)
    flags[5] = 0x80
    var reserved = frame(.ping, id: 4)
    reserved[7] = 1
    var trailing = frame(.ping, id: 5) + [0]
    trailing[0] += 1
    let said = script.received(unknown + flags + reserved + trailing + frame(.ping, id: 0) + rank(6))
    #expect(
      said == ["unknown_kind 2", "reserved_bits 3", "reserved_bits 4", "malformed 5", "malformed 0", "ask 6"])
  }

  @Test(
    "an id that is not answered yet is refused, in the turn and among those that wait; afterwards it is free")
  func duplicates() {
    var script = Script()
    _ = script.received(hello())
    #expect(script.received(rank(5) + rank(4) + rank(5)) == ["ask 5", "ask 4", "duplicate_id 5"])
    script.turn.end()
    #expect(script.received(rank(5) + rank(9, waits)) == ["ask 5", "park 9"])
    script.turn.end()
    #expect(script.received(rank(9)) == ["duplicate_id 9"])
    script.session.answered(at: 0)
    #expect(script.received(rank(9)) == ["ask 9"])
  }

  @Test("who may not administer gives no orders, who may not ask gets no answers; PING is for all")
  func roles() {
    let asked = hello() + rank(2) + frame(.admin(.seal, partition: nil), id: 3) + frame(.ping, id: 4)
    var both = Script()
    #expect(both.received(asked) == ["hello 1 v1", "ask 2", "ask 3", "pong 4"])
    var asking = Script(roles: .query)
    #expect(asking.received(asked) == ["hello 1 v1", "ask 2", "not_allowed 3", "pong 4"])
    var ordering = Script(roles: .admin)
    #expect(ordering.received(asked) == ["hello 1 v1", "not_allowed 2", "ask 3", "pong 4"])
  }

  @Test("a deadline of 0 is refused without asking anybody")
  func lateOnArrival() {
    var script = Script()
    _ = script.received(hello())
    let late = RequestOptions(deadlineMillis: 0)
    #expect(script.received(rank(2, late) + rank(3)) == ["deadline_exceeded 2", "ask 3"])
  }

  @Test("256 requests may wait; then nothing is read until one is answered")
  func inFlight() {
    var script = Script()
    _ = script.received(hello())
    let said = script.received((1...300).flatMap { rank(UInt32($0), waits) })
    #expect(said.count == 257 && said.last == "full")
    #expect(script.session.mustNotRead)
    script.session.answered(at: 0)
    #expect(!script.session.mustNotRead)
    #expect(script.received([]) == ["park 257", "full"])
  }

  @Test("a waiting request ends at its own deadline or after ten seconds, whichever is sooner")
  func atLeast() {
    var script = Script()
    _ = script.received(hello())
    let start = script.now
    _ = script.received(rank(2, RequestOptions(deadlineMillis: 250, atLeast: waits.atLeast)))
    _ = script.received(rank(3, RequestOptions(deadlineMillis: 60_000, atLeast: waits.atLeast)))
    _ = script.received(rank(4, waits))
    #expect(script.session.waiting.map(\.id) == [2, 3, 4])
    #expect(
      script.session.waiting.map(\.until) == [
        start + .milliseconds(250), start + .seconds(10), start + .seconds(10),
      ])
    #expect(script.session.tick(now: script.now) == .wait(until: start + .milliseconds(250)))
  }

  @Test("silence of a minute closes; a ping starts the minute again")
  func idle() {
    var script = Script()
    _ = script.received(hello())
    #expect(script.after(.seconds(59)) == .wait(until: Moment(nanoseconds: 1_000) + .seconds(60)))
    #expect(script.received(frame(.ping, id: 2)) == ["pong 2"])
    #expect(script.after(.seconds(59)) == .wait(until: script.now + .seconds(1)))
    #expect(script.after(.seconds(1)) == .close(.idle))
  }

  @Test("answers that are not taken stop the reading, and close after ten seconds without progress")
  func slowReader() {
    var script = Script()
    _ = script.received(hello())
    script.session.output(waiting: 500, progressed: true, now: script.now)
    #expect(script.session.mustNotRead)
    #expect(script.after(.seconds(9)) == .wait(until: script.now + .seconds(1)))
    script.session.output(waiting: 400, progressed: true, now: script.now)
    #expect(script.after(.seconds(9)) == .wait(until: script.now + .seconds(1)))
    script.session.output(waiting: 400, progressed: false, now: script.now)
    var stalled = script
    #expect(stalled.after(.seconds(1)) == .close(.slowReader))
    script.session.output(waiting: 0, progressed: true, now: script.now)
    #expect(!script.session.mustNotRead)
    #expect(script.after(.seconds(59)) == .wait(until: script.now + .seconds(1)))
  }

  @Test("a draining session refuses what comes after the notice")
  func draining() {
    var script = Script()
    _ = script.received(hello())
    script.session.drain()
    #expect(script.received(rank(2)) == ["draining 2"])
  }

  @Test("every close reason has a label of its own, and those told to the client a refusal")
  func reasons() {
    #expect(Set(CloseReason.allCases.map(\.rawValue)).count == CloseReason.allCases.count)
    #expect(CloseReason.idle.refusal?.code == .idle)
    #expect(CloseReason.peer.refusal == nil)
  }
}

@Suite struct AdmissionTests {
  private let peers = (0..<400).map { PeerAddress(high: 0, low: UInt64($0)) }

  @Test("connections are limited in all, and those that left make room")
  func total() {
    var limits = ServerLimits()
    limits.connectionsMax = 100
    var admission = Admission(limits)
    let now = Moment(nanoseconds: 0)
    for peer in peers[..<100] { #expect(admission.connected(peer, now: now) == .admitted) }
    #expect(admission.connected(peers[100], now: now) == .full)
    admission.left(peers[3])
    #expect(admission.connected(peers[100], now: now) == .admitted)
    #expect(admission.count == 100)
  }

  @Test("an address is limited alone, in number and in speed")
  func address() {
    var limits = ServerLimits()
    limits.connectionsPerAddressMax = 5
    limits.connectionRatePerAddressMax = 8
    var admission = Admission(limits)
    var now = Moment(nanoseconds: 0)
    var verdicts = (0..<10).map { _ in admission.connected(peers[0], now: now) }
    #expect(
      verdicts == Array(repeating: .admitted, count: 5) + Array(repeating: .addressFull, count: 3)
        + Array(repeating: .addressTooFast, count: 2))
    #expect(admission.connected(peers[1], now: now) == .admitted)
    now = now + .seconds(1)
    admission.left(peers[0])
    verdicts = (0..<2).map { _ in admission.connected(peers[0], now: now) }
    #expect(verdicts == [.admitted, .addressFull])
  }

  @Test("the number of connections is lowered to the descriptor limit less 32")
  func descriptors() {
    var limits = ServerLimits()
    let isLowered = limits.fit(descriptorsMax: 256)
    #expect(isLowered)
    #expect(limits.connectionsMax == 224)
    limits = ServerLimits()
    let isLoweredAgain = limits.fit(descriptorsMax: 20_000)
    #expect(!isLoweredAgain)
    #expect(limits.connectionsMax == 10_000)
  }
}
