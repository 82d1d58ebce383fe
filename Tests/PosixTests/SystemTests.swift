import Glibc
import Posix
import Synchronization
import TestSupport
import Testing

@Suite struct SystemTests {
  @Test("an interrupted call is repeated, would-block is a value, anything else is thrown with its name")
  func wrapper() throws {
    var results: [(Int, Int32)] = [(-1, EINTR), (-1, EINTR), (5, 0)]
    func next() -> Int {
      let (result, error) = results.removeFirst()
      errno = error
      return result
    }
    #expect(try SystemCall.value("read", next) == 5)
    results = [(-1, EINTR), (-1, EAGAIN)]
    #expect(try SystemCall.value("read", next) == nil)
    results = [(-1, ENOSPC)]
    #expect(throws: SystemError(call: "read", errno: .noSpace)) { try SystemCall.value("read", next) }
    results = [(-1, EAGAIN)]
    #expect(throws: SystemError(call: "read", errno: .wouldBlock)) { try SystemCall.run("read", next) }
  }

  @Test("an address is read with and without brackets; nonsense is not")
  func addresses() {
    #expect(HostPort("127.0.0.1:7670") == HostPort(host: "127.0.0.1", port: 7670))
    #expect(HostPort("[::1]:7670") == HostPort(host: "::1", port: 7670))
    #expect(HostPort("[::1]:7670")?.description == "[::1]:7670")
    for text in ["", "host", "host:", ":7670", "host:65536", "host:-1", "::1:7670", "host:7670x"] {
      #expect(HostPort(text) == nil, "\(text)")
    }
  }

  @Test("a taken port and a foreign address are told by name")
  func listening() throws {
    let first = try Socket.listen(HostPort(host: "127.0.0.1", port: 0))
    let taken = try Socket.localAddress(first.number)
    #expect(throws: ListenError.addressInUse(taken)) { _ = try Socket.listen(taken).number }
    #expect("\(ListenError.addressInUse(taken))".contains("\(taken)"))
    let foreign = HostPort(host: "192.0.2.1", port: 7670)
    #expect(throws: ListenError.notOurs(foreign)) { _ = try Socket.listen(foreign).number }
  }

  @Test("a connection carries bytes both ways and tells its peer; nobody listening is an error")
  func connecting() throws {
    let listener = try Socket.listen(HostPort(host: "127.0.0.1", port: 0))
    let address = try Socket.localAddress(listener.number)
    let client = try Socket.connect(address, timeout: .seconds(5))
    let accepted = try #require(try Socket.accept(listener.number))
    let server = Descriptor(owning: accepted.descriptor)
    #expect("\(accepted.peer)" == "127.0.0.1")
    try [1, 2, 3, 4].withUnsafeBytes { bytes in
      _ = try Socket.send(client.number, UnsafeRawBufferPointer(rebasing: bytes[..<4]))
    }
    var room = [UInt8](repeating: 0, count: 16)
    let received = try room.withUnsafeMutableBytes { buffer in
      try Socket.receive(server.number, into: buffer)
    }
    #expect(received == 4)
    let nothing = try room.withUnsafeMutableBytes { buffer in
      try Socket.receive(server.number, into: buffer)
    }
    #expect(nothing == nil)
    _ = consume listener
    #expect(throws: SystemError(call: "connect", errno: .connectionRefused, subject: "\(address)")) {
      _ = try Socket.connect(address, timeout: .seconds(5)).number
    }
  }

  @Test("the descriptor limit is at its hard bound after raising, and open descriptors are counted")
  func descriptors() throws {
    var limit = rlimit()
    #expect(try DescriptorLimit.raise() > 0)
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    #expect(limit.rlim_cur == limit.rlim_max)
    #expect((DescriptorLimit.open() ?? 0) >= 3)
  }

  @Test("a thread takes its priority, counted from the process's own, as often as it is told")
  func priorities() throws {
    let which = __priority_which_t(PRIO_PROCESS.rawValue)
    let own = getpriority(which, id_t(getpid()))
    let expected: [(ThreadPriority, policy: Int32, nice: Int32)] = [
      (.answering, SCHED_OTHER, own), (.applying, 3, own), (.supplying, 3, min(own + 10, 19)),
    ]
    for (priority, policy, nice) in expected {
      let seen = Mutex<[Int32]>([])
      let thread = try Thread("priority") {
        for _ in 0..<2 {
          let isTaken = priority.take()
          seen.withLock { $0 += [isTaken ? 1 : 0, sched_getscheduler(0), getpriority(which, 0)] }
        }
      }
      thread.join()
      #expect(seen.withLock { $0 } == [1, policy, nice, 1, policy, nice], "\(priority)")
    }
  }

  @Test("a thread runs under its name and can be joined")
  func threads() throws {
    let name = Mutex("")
    let thread = try Thread("rms-reactor-0-and-more") {
      let bytes = (try? Files().read(whole: "/proc/thread-self/comm")) ?? []
      name.withLock { $0 = String(decoding: bytes, as: UTF8.self) }
    }
    thread.join()
    #expect(name.withLock { $0 } == "rms-reactor-0-a\n")
  }
}
