import Posix
import TestSupport
import Testing
import Transport

private func pair() throws -> (Int32, Int32) {
  let listener = try Socket.listen(HostPort(host: "127.0.0.1", port: 0))
  let client = try Socket.connect(try Socket.localAddress(listener.number), timeout: .seconds(5))
  let accepted = try #require(try Socket.accept(listener.number))
  return (client.release(), accepted.descriptor)
}

private func send(_ descriptor: Int32, _ count: Int = 1) throws {
  try [UInt8](repeating: 1, count: count).withUnsafeBytes { bytes in
    _ = try Socket.send(descriptor, bytes)
  }
}

@Suite struct ReactorTests {
  @Test("an event queued for an earlier registration of the same descriptor is stale")
  func stale() throws {
    let reactor = try Reactor()
    let (clientA, serverA) = try pair()
    let (clientB, serverB) = try pair()
    defer { for descriptor in [clientA, serverA, clientB, serverB] { SystemCall.close(descriptor) } }
    let a = try reactor.register(serverA, .readable)
    let b = try reactor.register(serverB, .readable)
    try send(clientA)
    try send(clientB)
    // Both events are in one batch; acting on the first replaces the other's registration, as a close and an
    // accept that gets the same number would.
    #expect(try reactor.wait(now: Clock.system.now) == 2)
    guard case .ready(let first, _) = reactor.event(0) else {
      Issue.record("no first event")
      return
    }
    let other = first == a ? b : a
    try reactor.unregister(other)
    let renewed = try reactor.register(other.descriptor, .readable)
    #expect(reactor.event(1) == .stale)
    #expect(reactor.isLive(renewed) && !reactor.isLive(other))
  }

  @Test("a wake-up from another thread ends the wait, and many are one")
  func wakeUp() throws {
    let reactor = try Reactor()
    let wakeUp = reactor.wakeUp
    let thread = try Thread("waker") { for _ in 0..<5 { wakeUp.signal() } }
    thread.join()
    #expect(try reactor.wait(now: Clock.system.now) == 1)
    #expect(reactor.event(0) == .woken)
    #expect(try reactor.wait(now: Clock.system.now, longest: .zero) == 0)
  }

  @Test("interest can be taken away and given back")
  func interest() throws {
    let reactor = try Reactor()
    let (client, server) = try pair()
    defer { for descriptor in [client, server] { SystemCall.close(descriptor) } }
    let registration = try reactor.register(server, .readable)
    try send(client)
    try reactor.change(registration, [])
    #expect(try reactor.wait(now: Clock.system.now, longest: .zero) == 0)
    try reactor.change(registration, [.readable, .writable])
    #expect(try reactor.wait(now: Clock.system.now, longest: .zero) == 1)
    #expect(reactor.event(0) == .ready(registration, [.readable, .writable]))
    try reactor.unregister(registration)
    #expect(try reactor.wait(now: Clock.system.now, longest: .zero) == 0)
  }

  @Test("a timer ends the wait when it is due, and comes with its tag")
  func timer() throws {
    let reactor = try Reactor()
    let clock = Clock.system
    let due = clock.now + .milliseconds(3)
    reactor.setTimer(due, tag: 42)
    #expect(reactor.dueTimer(now: due + .nanoseconds(-1)) == nil)
    #expect(try reactor.wait(now: clock.now) == 0)
    #expect(clock.now >= due)
    #expect(reactor.dueTimer(now: clock.now) == 42)
    #expect(reactor.dueTimer(now: clock.now) == nil)
  }

  @Test("a listener tells its port, accepts, and says when nobody waits")
  func listener() throws {
    let listener = try Listener(HostPort(host: "127.0.0.1", port: 0))
    #expect(listener.address.port > 0)
    #expect(try listener.accept() == .none)
    let client = try Socket.connect(listener.address, timeout: .seconds(5))
    guard case .connection(let accepted) = try listener.accept() else {
      Issue.record("nobody waits")
      return
    }
    #expect("\(accepted.peer)" == "127.0.0.1")
    SystemCall.close(accepted.descriptor)
    _ = client.number
  }
}
