import Bytes
import Foundation
import Posix
import QueryProtocol
import RankMySteps
import StepModel
import TestSupport
import Testing
import Transport

/// A peer on loopback that serves some connections, one after the other, in a thread of its own.
private final class ScriptedPeer: Sendable {
  enum Behaviour: Sendable {
    /// Sends this as soon as it has received something, then closes.
    case says([UInt8])
    /// Reads, never writes, until the client closes.
    case silent
    /// A node that answers PING and RANK, and closes after so many requests beyond HELLO.
    case node(requestsMax: Int)
    /// A node that answers HELLO and nothing else.
    case stuck
  }

  private let listener: Listener

  init(_ connections: [Behaviour]) throws {
    listener = try Listener(HostPort(host: "127.0.0.1", port: 0))
    Thread.detachNewThread { [self] in
      for behaviour in connections {
        guard let socket = accept() else { return }
        serve(socket, behaviour)
        SystemCall.close(socket)
      }
    }
  }

  var port: UInt16 { listener.address.port }

  private static func waits(_ descriptor: Int32) -> Bool {
    var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&ready, 1, 10_000) > 0
  }

  private func accept() -> Int32? {
    while ScriptedPeer.waits(listener.descriptor) {
      if case .connection(let accepted)? = try? listener.accept() { return accepted.descriptor }
    }
    return nil
  }

  private func serve(_ socket: Int32, _ behaviour: Behaviour) {
    var splitter = FrameSplitter.requests()
    var kept: [UInt8] = []
    var requests = 0
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while ScriptedPeer.waits(socket) {
      let count = recv(socket, &chunk, chunk.count, 0)
      guard count > 0 else { return }
      kept += chunk[..<count]
      var out = ByteWriter(limit: 1 << 24)
      var more = true
      var done = false
      switch behaviour {
      case .silent: continue
      case .says(let bytes):
        out.bytes(bytes)
        done = true
      case .node, .stuck:
        while more {
          let consumed = kept.withUnsafeBytes { bytes -> Int in
            guard case .frame(let frame, let length) = splitter.next(bytes) else { return 0 }
            requests += ScriptedPeer.answer(frame, behaviour, into: &out)
            return length
          }
          kept.removeFirst(consumed)
          more = consumed > 0
        }
        if case .node(let requestsMax) = behaviour { done = requests >= requestsMax }
      }
      var sent = 0
      let bytes = out.array
      while sent < bytes.count {
        let count = bytes.withUnsafeBytes {
          send(socket, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
        }
        if count > 0 { sent += count } else if errno != EAGAIN { return }
      }
      if done { return }
    }
  }

  /// Returns 1 for a request other than HELLO.
  private static func answer(_ frame: Frame, _ behaviour: Behaviour, into out: inout ByteWriter) -> Int {
    guard let incoming = try? Incoming.decode(frame) else { return 1 }
    if case .hello = incoming.request {
      ResponseWriter.hello(
        id: frame.id, HelloAnswer(version: 1, node: "peer", cluster: "test", software: "0"), into: &out)
      return 0
    }
    if case .stuck = behaviour { return 1 }
    if case .rank(_, let user) = incoming.request {
      // The length of the id as rank, so that answers can be told apart.
      let rank = RankAnswer(
        onBoard: true, rank: UInt64(user.count), tied: 1, steps: 1, users: 100, above: UInt64(user.count) - 1)
      ResponseWriter.rank(id: frame.id, AnswerContext(board: .all), rank, into: &out)
    } else {
      ResponseWriter.ping(id: frame.id, into: &out)
    }
    return 1
  }
}

@Suite("the client over loopback", .timeLimit(.minutes(1)))
struct LoopbackTests {
  private func connect(_ peer: ScriptedPeer, _ settings: ClientSettings = ClientSettings()) throws
    -> RankClient
  {
    try RankClient.connect(host: "127.0.0.1", port: peer.port, settings: settings)
  }

  @Test("a port of another protocol is named, at once")
  func foreign() throws {
    let peer = try ScriptedPeer([
      .says(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)), .says([0x15, 3, 1, 0, 2, 2, 70]), .says([]),
    ])
    #expect(throws: ClientError.notRMS(.http)) { try connect(peer) }
    #expect(throws: ClientError.notRMS(.tls)) { try connect(peer) }
    #expect(throws: ClientError.notRMS(.closed)) { try connect(peer) }
  }

  @Test("a port that never answers HELLO is no rms port")
  func silent() throws {
    var settings = ClientSettings()
    settings.helloTimeout = .milliseconds(50)
    let peer = try ScriptedPeer([.silent])
    #expect(throws: ClientError.notRMS(.silent)) { try connect(peer, settings) }
  }

  @Test("nobody at the port is unreachable, and the address is named")
  func unreachable() throws {
    let port = try Listener(HostPort(host: "127.0.0.1", port: 0)).address.port
    do {
      _ = try RankClient.connect(host: "127.0.0.1", port: port)
      Issue.record("connected to nobody")
    } catch {
      guard case .unreachable(let why) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(why.contains("127.0.0.1:\(port)"))
    }
  }

  @Test("a connection that the node closed is made anew, and the question asked again")
  func reconnects() throws {
    var settings = ClientSettings()
    settings.helloTimeout = .milliseconds(500)
    let peer = try ScriptedPeer([.node(requestsMax: 1), .node(requestsMax: 2)])
    let client = try connect(peer, settings)
    #expect(client.server?.node == "peer")
    try client.ping()
    try client.ping()
    try client.ping()
    // Nobody takes the third connection.
    #expect(throws: ClientError.notRMS(.silent)) { try client.ping() }
  }

  @Test("a node that does not answer in time is timed out, and only that request")
  func timesOut() throws {
    var settings = ClientSettings()
    settings.requestTimeout = .milliseconds(40)
    settings.grace = .milliseconds(10)
    let client = try connect(try ScriptedPeer([.stuck]), settings)
    #expect(throws: ClientError.timedOut("PING")) { try client.ping() }
    #expect(throws: ClientError.timedOut("STATUS")) { try client.status() }
    client.close()
    #expect(client.server == nil)
  }

  @Test("many requests travel at once, by value and as frames")
  func pipelined() throws {
    let client = try connect(try ScriptedPeer([.node(requestsMax: 20_064)]))
    var expected: [UInt32: UInt64] = [:]
    for length in 1...64 {
      let user = try #require(UserID(String(repeating: "x", count: length)))
      expected[try client.send(.rank(board: .today, user: user))] = UInt64(length)
    }
    while let (id, result) = try client.receive() {
      guard case .success(.rank(_, let answer)) = result else {
        Issue.record("\(result)")
        return
      }
      #expect(answer.rank == expected.removeValue(forKey: id))
    }
    #expect(expected.isEmpty)
    var frames = ByteWriter(limit: 1 << 22)
    for id in UInt32(1)...20_000 {
      Array("ada".utf8).withUnsafeBytes {
        RequestWriter.rank(board: .today, user: $0, id: id + 1, into: &frames)
      }
    }
    try client.sendFrames(frames.unsafeBytes)
    var sum: UInt64 = 0
    try client.receiveFrames(20_000) { sum += UInt64($0.id - 1) }
    #expect(sum == 20_000 * 20_001 / 2)
  }
}
