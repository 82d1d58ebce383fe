import Bytes
import Posix
import QueryProtocol
import QueryServer
import StepModel
import Synchronization
import Telemetry
import TestSupport
import Testing

/// Answers RANK from a watermark that the test moves; STATUS; TOP with as many rows as asked.
private final class Answers: QueryHandler {
  let answerOverheadBytes = 64
  let watermark = Atomic<UInt64>(0)
  let batches = Mutex<[Int]>([])
  /// While true, queries stay in the handler.
  let isHeld = Atomic<Bool>(false)
  let inside = Atomic<Int>(0)

  func answer(_ batch: borrowing RequestBatch, into out: inout ByteWriter) {
    batches.withLock { $0.append(batch.count) }
    let mark = watermark.load(ordering: .acquiring)
    let context = AnswerContext(board: .all, shards: [ShardMark(partition: 0, watermark: mark, ageMillis: 0)])
    for index in 0..<batch.count {
      let request = batch.requests[index]
      if request.atLeast.contains(where: { $0.offset >= mark }) {
        batch.notYet(index)
        continue
      }
      switch request.request {
      case .rank(_, let user):
        if isHeld.load(ordering: .acquiring) {
          inside.add(1, ordering: .acquiringAndReleasing)
          while isHeld.load(ordering: .acquiring) { Thread.yield() }
        }
        let answer = RankAnswer(
          onBoard: true, rank: UInt64(user.count), tied: 1, steps: 5, users: 9, above: 0, nextAboveSteps: nil,
          nextBelowSteps: nil)
        ResponseWriter.rank(id: request.id, context, answer, into: &out)
      case .top(_, let limit, _):
        var rows = RowsWriter(.top, id: request.id, context, users: 9, totalSteps: 9, into: &out)
        for position in 0..<UInt64(limit) {
          rows.row(
            position: position, rank: position + 1, tied: 1, steps: 5,
            user: UserKey(high: position, low: 0), into: &out)
        }
        rows.end(into: &out)
      case .status:
        ResponseWriter.status(
          id: request.id,
          StatusAnswer(node: "n", cluster: "c", software: "s", state: .serving, uptimeMillis: 1), into: &out)
      case .hello, .ping, .around, .compare, .summary, .boards, .deadLetters, .admin:
        ResponseWriter.error(id: request.id, code: .unsupported, text: "not here", into: &out)
      }
    }
  }
}

/// A server and what it reports to.
private final class Fixture {
  let handler = Answers()
  let metrics = Metrics()
  let server: Server
  private var isDrained = false

  init(_ change: (inout ServerSettings) -> Void = { _ in }) throws {
    var settings = ServerSettings(
      listen: HostPort(host: "127.0.0.1", port: 0),
      hello: HelloAnswer(version: 1, node: "node-1", cluster: "test", software: "0"))
    settings.limits.lingerWithin = .seconds(5)
    change(&settings)
    server = try Server(
      settings, handler: handler, metrics: metrics, diagnostics: Diagnostics(sink: { _ in }))
  }

  func drain(within: Duration = .seconds(5)) {
    if isDrained { return }
    isDrained = true
    server.drain(within: within)
  }

  func client(greeted: Bool = true) throws -> Client {
    let client = try Client(server.address)
    if greeted {
      try client.send(hello())
      guard case .hello? = try client.answer()?.response else { throw Client.Unexpected() }
    }
    return client
  }

  func closed(_ reason: CloseReason) -> Int64 { metrics.counter(.closed, reason.rawValue).value }

  /// Waits until a metric has a value; the test hangs, and is killed by its limit, if it never has.
  func until(_ condition: () -> Bool) { while !condition() { Thread.yield() } }

  deinit { drain(within: .zero) }
}

/// A blocking client that shows frames.
private final class Client {
  struct Unexpected: Error {}

  private let socket: Descriptor
  private var bytes: [UInt8] = []

  init(_ address: HostPort) throws { socket = try Socket.connect(address, timeout: .seconds(5)) }

  var descriptor: Int32 { socket.number }

  func send(_ bytes: [UInt8]) throws {
    try bytes.withUnsafeBytes { all in
      var rest = all
      while rest.count > 0 {
        guard let sent = try Socket.send(socket.number, rest) else { continue }
        rest = UnsafeRawBufferPointer(rebasing: rest[sent...])
      }
    }
  }

  /// The next answer; nil once the server closed in order.
  func answer() throws -> (id: UInt32, response: Response)? {
    var splitter = FrameSplitter.answers()
    while true {
      let found = try bytes.withUnsafeBytes { raw -> (UInt32, Response, Int)? in
        switch splitter.next(raw) {
        case .frame(let frame, let consumed): (frame.id, try Response.decode(frame), consumed)
        case .incomplete: nil
        case .refused: throw Unexpected()
        }
      }
      if let (id, response, consumed) = found {
        bytes.removeFirst(consumed)
        return (id, response)
      }
      var room = [UInt8](repeating: 0, count: 64 << 10)
      let count = try room.withUnsafeMutableBytes { try Socket.receive(socket.number, into: $0) } ?? 0
      if count == 0 { return nil }
      bytes += room[..<count]
    }
  }

  /// The ids of the next answers, which are not decoded.
  func skip(_ count: Int) throws -> [UInt32] {
    var ids: [UInt32] = []
    var place = 0
    var room = [UInt8](repeating: 0, count: 256 << 10)
    while ids.count < count {
      while bytes.count - place >= 12 {
        let (length, id) = bytes.withUnsafeBytes { raw in
          (
            Int(raw.loadUnaligned(fromByteOffset: place, as: UInt32.self)),
            raw.loadUnaligned(fromByteOffset: place + 8, as: UInt32.self)
          )
        }
        if bytes.count - place < 4 + length { break }
        ids.append(id)
        place += 4 + length
      }
      if ids.count == count { break }
      bytes.removeFirst(place)
      place = 0
      let received = try room.withUnsafeMutableBytes { try Socket.receive(socket.number, into: $0) } ?? 0
      if received == 0 { break }
      bytes += room[..<received]
    }
    bytes.removeFirst(place)
    return ids
  }

  /// The id of the next answer, which must be to a RANK.
  func rankID() throws -> UInt32 {
    guard let (id, response) = try answer(), case .rank = response else { throw Unexpected() }
    return id
  }

  func error() throws -> String {
    guard let (id, response) = try answer() else { return "end" }
    guard case .error(let error) = response else { return "\(response)" }
    return "\(error.code) \(id)"
  }
}

private let waits = RequestOptions(atLeast: [AtLeast(partition: 0, offset: 7)])

@Suite(.timeLimit(.minutes(2))) struct ServerTests {
  @Test("many requests in one write come to the handler together and are all answered, PING without it")
  func pipelining() throws {
    let fixture = try Fixture()
    let client = try fixture.client()
    try client.send(rank(1))
    #expect(try client.answer()?.id == 1)
    fixture.handler.batches.withLock { $0.removeAll() }
    try client.send((2...201).flatMap { rank($0) } + frame(.ping, id: 500))
    var ids: Set<UInt32> = []
    while ids.count < 201, let id = try client.answer()?.id { ids.insert(id) }
    #expect(ids == Set(2...201).union([500]))
    let batches = fixture.handler.batches.withLock { $0 }
    #expect(batches.reduce(0, +) == 200 && batches.count < 20)
    fixture.until { fixture.metrics.counter(.queries, "rank", "ok").value == 201 }
    #expect(fixture.metrics.counter(.queries, "ping", "ok").value == 1)
  }

  @Test("HELLO is answered with the limits and the options that are not known")
  func greeting() throws {
    let fixture = try Fixture()
    let client = try fixture.client(greeted: false)
    try client.send(hello(options: [.init(key: "colour", value: "red")]))
    guard case .hello(let answer)? = try client.answer()?.response else { throw Client.Unexpected() }
    #expect(answer.node == "node-1" && answer.version == 1)
    #expect(answer.unknownOptions == ["colour"])
    #expect(answer.inFlightMax == 256)
  }

  @Test(
    "another protocol gets one error frame and the end, and is counted",
    arguments: [
      Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8),
      [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03],
      [0x00, 0x00, 0x00, 0x23, 0x00, 0x12, 0x00, 0x04, 0x00, 0x00, 0x00, 0x01],
    ])
  func foreign(bytes: [UInt8]) throws {
    let fixture = try Fixture()
    let client = try fixture.client(greeted: false)
    try client.send(bytes)
    #expect(try client.error() == "foreign 0")
    #expect(try client.error() == "end")
    #expect(fixture.closed(.foreign) == 1)
  }

  @Test(
    "a length of 0, 2^31-1 or 2^32-1 gets one error frame and the end",
    arguments: [0, 0x7FFF_FFFF, 0xFFFF_FFFF] as [UInt32])
  func lengths(length: UInt32) throws {
    let fixture = try Fixture()
    let client = try fixture.client()
    try client.send(withUnsafeBytes(of: length.littleEndian) { [UInt8]($0) })
    #expect(try client.error() == "frame_size 0")
    #expect(try client.error() == "end")
    #expect(fixture.closed(.frameSize) == 1)
  }

  @Test(
    "unknown opcode, reserved bits and deadline 0 are refused by id, the connection lives, the handler rests")
  func refusals() throws {
    let fixture = try Fixture()
    let client = try fixture.client()
    var unknown = frame(.ping, id: 2)
    unknown[4] = 99
    var reserved = frame(.ping, id: 3)
    reserved[6] = 1
    try client.send(unknown + reserved + rank(4, RequestOptions(deadlineMillis: 0)))
    #expect(try client.error() == "unknown_kind 2")
    #expect(try client.error() == "reserved_bits 3")
    #expect(try client.error() == "deadline_exceeded 4")
    #expect(fixture.handler.batches.withLock { $0 } == [])
    try client.send(rank(5))
    #expect(try client.answer()?.id == 5)
    #expect(fixture.metrics.counter(.queries, "rank", "deadline_exceeded").value == 1)
    #expect(fixture.metrics.counter(.queries, "unknown", "unknown_kind").value == 1)
  }

  @Test("the same id twice: the second is refused, the first answered")
  func duplicate() throws {
    let fixture = try Fixture()
    let client = try fixture.client()
    try client.send(rank(9, waits) + rank(9))
    #expect(try client.error() == "duplicate_id 9")
    fixture.handler.watermark.store(8, ordering: .releasing)
    fixture.server.watermarksMoved()
    #expect(try client.rankID() == 9)
  }

  @Test(
    "a request waits until its record is visible, others pass it, and nobody is forgotten",
    arguments: Seed.some(3))
  func atLeast(seed: Seed) throws {
    let fixture = try Fixture { $0.workerCount = 2 }
    let clients = try (0..<4).map { _ in try fixture.client() }
    // Watermarks move while requests arrive, so that some park between a look and a move.
    let handler = fixture.handler
    let server = fixture.server
    let mover = try Thread("mover") {
      for mark in 1...2_000 {
        handler.watermark.store(UInt64(mark), ordering: .releasing)
        server.watermarksMoved()
      }
    }
    var random = seed.random
    for client in clients {
      let bytes = (1...100).flatMap { id in
        rank(UInt32(id), RequestOptions(atLeast: [AtLeast(partition: 0, offset: random.next() % 2_000)]))
      }
      try client.send(bytes + rank(101))
    }
    for client in clients {
      var ids: Set<UInt32> = []
      while ids.count < 101, let (id, response) = try client.answer() {
        guard case .rank = response else { throw Client.Unexpected() }
        ids.insert(id)
      }
      #expect(ids == Set(1...101))
    }
    mover.join()
    #expect(fixture.metrics.gauge(.parkedRequests).value == 0)
  }

  @Test("a request that waits in vain is told so at its deadline")
  func atLeastTimeout() throws {
    let fixture = try Fixture()
    let client = try fixture.client()
    try client.send(rank(2, RequestOptions(deadlineMillis: 20, atLeast: waits.atLeast)))
    #expect(try client.error() == "at_least_timeout 2")
    try client.send(rank(2))
    #expect(try client.answer()?.id == 2)
  }

  @Test("frames cut at random and bytes mutated at random never stop the others", arguments: Seed.some(4))
  func hostile(seed: Seed) throws {
    let fixture = try Fixture()
    let good = try fixture.client()
    var random = seed.random
    for round in 0..<60 {
      let bad = try fixture.client(greeted: Bool.random(using: &random))
      var bytes = (1...5).flatMap { rank($0) }
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      // The server may close before all is sent.
      try? bad.send(Array(bytes[..<Int.random(in: 0...bytes.count, using: &random)]))
      try good.send(rank(UInt32(round + 1)))
      #expect(try good.answer()?.id == UInt32(round + 1))
    }
  }

  @Test("a client that asks and does not read: reading stops, memory is bounded, others are answered")
  func noReading() throws {
    let fixture = try Fixture()
    let deaf = try fixture.client()
    try Socket.setBuffers(deaf.descriptor, receiveBytes: 128 << 10)
    let requests = (1...10_000).map { id in
      frame(.top(board: .named(.all), limit: 1_000, from: .offset(0)), id: UInt32(id))
    }.flatMap { $0 }
    // 10,000 answers of 64 KiB each: sent as far as the server takes them.
    let sent = try requests.withUnsafeBytes { all in
      var place = 0
      for _ in 0..<10_000 where place < all.count {
        if fixture.metrics.gauge(.clientBytes).value > 0 { break }
        let piece = UnsafeRawBufferPointer(rebasing: all[place..<min(place + 256, all.count)])
        place += try Socket.send(deaf.descriptor, piece) ?? 0
      }
      return place
    }
    #expect(sent > 0)
    fixture.until { fixture.metrics.gauge(.clientBytes).value > 0 }
    let other = try fixture.client()
    for id in 1...200 {
      try other.send(rank(UInt32(id)))
      #expect(try other.answer()?.id == UInt32(id))
      #expect(fixture.metrics.gauge(.clientBytes).value < 3 << 20)
    }
    // The deaf client reads after all: every answer is there.
    let asked = sent / (requests.count / 10_000)
    #expect(try deaf.skip(asked) == (1...asked).map { UInt32($0) })
  }

  @Test("a client that takes nothing of its answers is closed, with the reason counted")
  func slowReader() throws {
    let fixture = try Fixture { $0.limits.outputStalledAfter = .milliseconds(50) }
    let deaf = try fixture.client()
    for id in 1...40 {
      try deaf.send(frame(.top(board: .named(.all), limit: 10_000, from: .offset(0)), id: UInt32(id)))
    }
    fixture.until { fixture.closed(.slowReader) == 1 }
    // The reason is counted first, then what the client held is given back.
    fixture.until { fixture.metrics.gauge(.connections).value == 0 }
    fixture.until { fixture.metrics.gauge(.clientBytes).value == 0 }
    #expect(fixture.closed(.slowReader) == 1)
  }

  @Test("over the memory of all clients, the largest is closed and the others stay")
  func memory() throws {
    let fixture = try Fixture { $0.limits.clientBytesMax = 4_096 }
    let small = try fixture.client()
    try small.send(rank(1))
    #expect(try small.answer()?.id == 1)
    let deaf = try fixture.client()
    for id in 1...40 {
      try? deaf.send(frame(.top(board: .named(.all), limit: 10_000, from: .offset(0)), id: UInt32(id)))
    }
    fixture.until { fixture.closed(.memory) == 1 }
    try small.send(rank(2))
    #expect(try small.answer()?.id == 2)
  }

  @Test("STATUS and newcomers are answered while every worker is busy")
  func statusUnderLoad() throws {
    let fixture = try Fixture()
    let busy = try fixture.client()
    fixture.handler.isHeld.store(true, ordering: .releasing)
    try busy.send(rank(1))
    fixture.until { fixture.handler.inside.load(ordering: .acquiring) > 0 }
    let admin = try fixture.client()
    try admin.send(frame(.status, id: 7))
    guard let (id, response) = try admin.answer(), case .status(let status) = response else {
      throw Client.Unexpected()
    }
    #expect(id == 7 && status.node == "n")
    fixture.handler.isHeld.store(false, ordering: .releasing)
    #expect(try busy.answer()?.id == 1)
    // A connection may ask both, in one write.
    try admin.send(frame(.status, id: 1) + rank(2) + frame(.status, id: 3) + rank(4))
    for expected in 1...4 { #expect(try admin.answer()?.id == UInt32(expected)) }
  }

  @Test("connections over the limit are told why, and room is made by those that leave")
  func admission() throws {
    let fixture = try Fixture { $0.limits.connectionsPerAddressMax = 2 }
    let first = try fixture.client()
    var second: Client? = try fixture.client()
    let third = try fixture.client(greeted: false)
    try third.send(hello())
    #expect(try third.error() == "too_many_connections 0")
    #expect(try third.error() == "end")
    #expect(fixture.metrics.counter(.connectionsRefused, "address_full").value == 1)
    #expect(second != nil)
    second = nil
    fixture.until { fixture.metrics.gauge(.connections).value == 1 }
    _ = try fixture.client()
    try first.send(frame(.ping, id: 1))
    #expect(try first.answer()?.id == 1)
  }

  @Test("a drain tells every client, answers what is under way, and refuses newcomers")
  func drain() throws {
    let fixture = try Fixture()
    let idle = try fixture.client()
    let busy = try fixture.client()
    try busy.send(rank(1, waits))
    fixture.until { fixture.metrics.gauge(.parkedRequests).value == 1 }
    let server = fixture.server
    let draining = try Thread("drain") { server.drain(within: .seconds(30)) }
    #expect(try idle.error() == "draining 0")
    #expect(try idle.error() == "end")
    #expect(try busy.error() == "draining 0")
    fixture.handler.watermark.store(8, ordering: .releasing)
    server.watermarksMoved()
    #expect(try busy.rankID() == 1)
    #expect(try busy.error() == "end")
    #expect(throws: SystemError.self) { _ = try Client(server.address) }
    // Both clients close now, so that the server need not wait for them.
    _ = consume idle
    _ = consume busy
    draining.join()
    #expect(fixture.closed(.drain) == 2)
  }

  @Test("a taken port is told by name")
  func portTaken() throws {
    let fixture = try Fixture()
    let address = fixture.server.address
    #expect(throws: ServerError.listen(.addressInUse(address))) {
      _ = try Server(
        ServerSettings(listen: address, hello: HelloAnswer(version: 1, node: "", cluster: "", software: "")),
        handler: Answers(), metrics: Metrics(), diagnostics: Diagnostics(sink: { _ in }))
    }
  }
}
