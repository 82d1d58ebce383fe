// rmsbench query: load over TCP. One thread, its own readiness queue, as cheap as valkey-benchmark: requests are made
// once and only their user ids are overwritten; answers are counted by hopping from length to length.

internal import Bytes
import Glibc
import Node
internal import Posix
internal import QueryProtocol
internal import QueryServer
internal import StepModel
internal import Telemetry

private let usage = """
  usage: rmsbench query [--address HOST:PORT] [--kind ping|rank|top] [--connections N] [--pipeline P]
                        [--requests N] [--users N] [--seed S] [--board D] [--limit N] [--rate R] [--server-pid PID]
         rmsbench query --serve HOST:PORT

  Prints requests a second, latency percentiles and CPU. Without --address the server is a toy in this process that
  answers PING as rmsd does and everything else from a constant; --serve runs that toy alone until it is stopped.
  --pipeline    requests of a connection under way at a time; the next ones are sent when all are answered
  --rate        open loop: R requests a second, each timed from the moment it was due, not from when it was sent;
                the client sleeps in between, and says how late it sent
  --users       user ids asked for: those that `rmsctl generate --users N --seed S` reports for
  --server-pid  also prints the CPU time of that process a request
  """

/// What is asked.
private enum QueryKind: String { case ping, rank, top }

/// Options of `rmsbench query`.
private struct QueryOptions {
  var address: HostPort?
  var serve: HostPort?
  var kind = QueryKind.rank
  var connections = 50
  var pipeline = 32
  var requests = 1_000_000
  var users = 72_000
  var seed: UInt64 = 1
  var board = BoardName.today
  var limit: UInt32 = 10
  var rate: Int?
  var serverPID: Int?

  /// Prints what is wrong and exits with 2 if the arguments make no sense.
  init(_ arguments: [String]) {
    func fail(_ text: String) -> Never {
      complain("rmsbench query: \(text)\n\(usage)\n")
      exit(2)
    }
    if arguments.contains("--help") {
      print(usage)
      exit(0)
    }
    var rest = arguments[...]
    while let option = rest.popFirst() {
      guard let value = rest.popFirst() else { fail("\(option) needs a value") }
      func number(_ range: ClosedRange<Int>) -> Int {
        guard let number = Int(value), range.contains(number) else {
          fail("\(option) \(value): not in \(range)")
        }
        return number
      }
      func hostPort() -> HostPort {
        guard let address = HostPort(value) else { fail("\(option) \(value): no HOST:PORT") }
        return address
      }
      switch option {
      case "--address": address = hostPort()
      case "--serve": serve = hostPort()
      case "--kind":
        guard let kind = QueryKind(rawValue: value) else { fail("--kind \(value): ping, rank or top") }
        self.kind = kind
      case "--connections": connections = number(1...10_000)
      case "--pipeline": pipeline = number(1...Limits.inFlightMax)
      case "--requests": requests = number(1...1_000_000_000)
      case "--users": users = number(1...100_000_000)
      case "--seed": seed = UInt64(number(0...Int.max))
      case "--limit": limit = UInt32(number(1...Limits.rowsMax))
      case "--rate": rate = number(1...10_000_000)
      case "--server-pid": serverPID = number(1...Int(Int32.max))
      case "--board":
        guard let board = BoardID(value) else {
          fail("--board \(value): a board is 2026-11-24, 2026-W48, 2026-11, all")
        }
        self.board = .named(board)
      default: fail("no option \(option)")
      }
    }
  }
}

/// Runs `rmsbench query`.
///
/// - Parameter arguments: what follows the verb.
func queryBench(arguments: [String]) {
  let options = QueryOptions(arguments)
  do {
    if let address = options.serve {
      try serveToy(address)
      return
    }
    var toy: Server?
    if options.address == nil { toy = try makeToy(HostPort(host: "127.0.0.1", port: 0)) }
    guard let address = options.address ?? toy?.address else { return }
    let load = try QueryLoad(options, address)
    let result = try options.rate == nil ? load.closedLoop() : load.openLoop()
    result.print(options, inProcess: toy != nil)
    load.close()
    toy?.drain(within: .seconds(1))
  } catch {
    complain("rmsbench query: \(error)\n")
    exit(3)
  }
}

// MARK: The toy

/// Answers from constants: what a query costs without any board.
private final class ToyHandler: QueryHandler {
  let answerOverheadBytes = 64
  let context = AnswerContext(
    board: .all,
    shards: (0..<4).map { ShardMark(partition: UInt32($0), watermark: 1_000, ageMillis: 1) })
  let answer = RankAnswer(
    onBoard: true, rank: 123, tied: 2, steps: 12_000, users: 72_000, above: 122, nextAboveSteps: 12_010,
    nextBelowSteps: 11_990)

  func answer(_ batch: borrowing RequestBatch, into out: inout ByteWriter) {
    for request in batch.requests {
      switch request.request {
      case .rank: ResponseWriter.rank(id: request.id, context, answer, into: &out)
      case .top(_, let limit, _):
        var rows = RowsWriter(.top, id: request.id, context, users: 72_000, totalSteps: 1, into: &out)
        for position in 0..<UInt64(limit) {
          rows.row(
            position: position, rank: position + 1, tied: 1, steps: 20_000 - position,
            user: UserKey(high: position, low: 1), into: &out)
        }
        rows.end(into: &out)
      case .hello, .ping, .around, .compare, .summary, .boards, .status, .deadLetters, .admin:
        ResponseWriter.error(
          id: request.id, code: .unsupported, text: "the toy does not answer this", into: &out)
      }
    }
  }
}

private func makeToy(_ address: HostPort) throws(ServerError) -> Server {
  var settings = ServerSettings(
    listen: address, hello: HelloAnswer(version: 1, node: "toy", cluster: "bench", software: "rmsbench"))
  settings.limits.connectionsPerAddressMax = 10_000
  settings.limits.connectionRatePerAddressMax = 10_000
  return try Server(
    settings, handler: ToyHandler(), metrics: Metrics(), diagnostics: Diagnostics(level: .warning))
}

private func serveToy(_ address: HostPort) throws {
  let signals = try Signals([.terminate, .interrupt])
  let server = try makeToy(address)
  print("serving on \(server.address), pid \(getpid())")
  fflush(nil)
  while try signals.wait() == nil {}
  server.drain(within: .seconds(1))
}

// MARK: Users

/// The users that `rmsctl generate` puts on a topic, by seed and number.
enum BenchUsers {
  static let idBytes = 36

  /// - Parameters:
  ///   - count: how many.
  ///   - seed: of the generator.
  /// - Returns: the ids as text, 36 bytes each, one after the other.
  static func texts(_ count: Int, seed: UInt64) -> UnsafeMutableRawPointer {
    let texts = UnsafeMutableRawPointer.allocate(byteCount: count * idBytes, alignment: 8)
    for index in 0..<count { Generator.userKey(index, seed: seed).write(to: texts + index * idBytes) }
    return texts
  }
}

/// SplitMix64.
struct BenchRandom {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// The next number below a bound, which is above 0.
  mutating func below(_ bound: UInt64) -> UInt64 { next().multipliedFullWidth(by: bound).high }
}

// MARK: The load

/// What a run showed.
private struct QueryResult {
  var answered = 0
  var errors = 0
  var elapsed = Duration.zero
  var latency = Histogram.Snapshot()
  /// Open loop: how long after it was due each request was sent.
  var sentLate = Histogram.Snapshot()
  var clientCPU = 0.0
  var serverCPU: Double?

  func print(_ options: QueryOptions, inProcess: Bool) {
    let seconds = Double(elapsed.nanoseconds) / 1e9
    func micros(_ percent: Double, of times: Histogram.Snapshot) -> String {
      "\(times.percentile(percent).map { $0 / 1_000 } ?? 0) µs"
    }
    var text = "\(options.kind) × \(options.connections) connections × \(options.pipeline)"
    text += options.rate.map { ", open loop at \($0)/s" } ?? ""
    text += ": \(Int(Double(answered) / seconds)) requests/s, p50 \(micros(50, of: latency)), "
    text +=
      "p99 \(micros(99, of: latency)), max \(micros(100, of: latency)), \(answered) answered, \(errors) errors, "
    text += "\(inProcess ? "client and server" : "client") CPU \(nanos(clientCPU)) ns a request"
    if let serverCPU { text += ", server CPU \(nanos(serverCPU)) ns a request" }
    if options.rate != nil { text += ", sent late p99 \(micros(99, of: sentLate))" }
    Swift.print(text)
  }

  private func nanos(_ seconds: Double) -> Int { answered == 0 ? 0 : Int(seconds * 1e9 / Double(answered)) }
}

/// One connection of the load.
private struct LoadConnection {
  var descriptor: Int32
  /// Answers still to come.
  var waiting = 0
  /// When the requests under way were sent; by id in open loop.
  var sentAt = Int64(0)
  /// Bytes at the start of `buffer` that are a part of an answer.
  var kept = 0
  let buffer: UnsafeMutableRawPointer
  /// Open loop: when each request under way was due, by id - 1.
  let dueAt: UnsafeMutablePointer<Int64>
  /// Open loop: ids not under way.
  var freeIDs: [UInt32] = []
}

/// The load generator.
private final class QueryLoad {
  private static let bufferBytes = 2 << 20

  private let options: QueryOptions
  private let epoll: Epoll
  private var connections: [LoadConnection] = []
  private let users: UnsafeMutableRawPointer
  private var random: BenchRandom
  /// `pipeline` requests, one after the other; user ids are overwritten before each sending.
  private var requests = ByteWriter(limit: 16 << 20)
  private var requestBytes = 0
  private var userAt: Int?
  /// Open loop: the connection that sent last.
  private var turn = 0
  private var result = QueryResult()

  init(_ options: QueryOptions, _ address: HostPort) throws {
    self.options = options
    epoll = try Epoll(eventsMax: 512)
    random = BenchRandom(seed: options.seed ^ 0x5EED)
    users =
      options.kind == .rank
      ? BenchUsers.texts(options.users, seed: options.seed) : .allocate(byteCount: 1, alignment: 1)
    makeRequests()
    for index in 0..<options.connections {
      let connection = try QueryLoad.connect(address)
      connections.append(
        LoadConnection(
          descriptor: connection, buffer: .allocate(byteCount: QueryLoad.bufferBytes, alignment: 16),
          dueAt: .allocate(capacity: Limits.inFlightMax)))
      connections[index].freeIDs = (1...UInt32(options.pipeline)).reversed()
      try epoll.add(connection, .readable, token: UInt64(index))
    }
  }

  private func makeRequests() {
    let any = UserID("00000000-0000-0000-0000-000000000000")
    for id in 1...UInt32(options.pipeline) {
      let start = requests.count
      switch options.kind {
      case .ping: RequestWriter.write(.ping, id: id, into: &requests)
      case .top:
        RequestWriter.write(
          .top(board: options.board, limit: options.limit, from: .offset(0)), id: id, into: &requests)
      case .rank:
        guard let any else { return }
        RequestWriter.write(.rank(board: options.board, user: any), id: id, into: &requests)
        userAt = requests.count - start - BenchUsers.idBytes
      }
      requestBytes = requests.count - start
    }
  }

  /// Connects, says HELLO and waits for the answer; non-blocking afterwards.
  private static func connect(_ address: HostPort) throws -> Int32 {
    let connection = try Socket.connect(address, timeout: .seconds(5))
    var hello = ByteWriter(limit: 4096)
    RequestWriter.write(
      .hello(versionMin: 1, versionMax: 1, client: .init(name: "rmsbench"), options: []), id: 1, into: &hello)
    _ = try Socket.send(connection.number, hello.unsafeBytes)
    var room = [UInt8](repeating: 0, count: 4096)
    let count = try room.withUnsafeMutableBytes { try Socket.receive(connection.number, into: $0) } ?? 0
    guard count > 4, room[4] == Kind.hello.answer else { throw LoadError.noHello }
    let flags = fcntl(connection.number, F_GETFL)
    _ = fcntl(connection.number, F_SETFL, flags | O_NONBLOCK)
    return connection.release()
  }

  enum LoadError: Error, CustomStringConvertible {
    case noHello
    case closed

    var description: String {
      switch self {
      case .noHello: "the server did not answer HELLO"
      case .closed: "the server closed a connection"
      }
    }
  }

  func close() {
    for connection in connections {
      SystemCall.close(connection.descriptor)
      connection.buffer.deallocate()
      connection.dueAt.deallocate()
    }
    users.deallocate()
  }

  // MARK: Closed loop

  /// Each connection sends its requests when all earlier ones are answered.
  func closedLoop() throws -> QueryResult {
    let start = begin()
    var toSend = options.requests
    for index in connections.indices where toSend > 0 {
      try sendAll(index)
      toSend -= options.pipeline
    }
    while result.answered < options.requests {
      let ready = try epoll.wait(milliseconds: 10_000)
      if ready == 0 { throw LoadError.closed }
      for event in 0..<ready {
        let index = Int(epoll.event(event).token)
        let answers = try receive(index) { _ in }
        connections[index].waiting -= answers
        result.answered += answers
        guard connections[index].waiting == 0 else { continue }
        let now = Clock.system.now.nanoseconds
        result.latency.record(
          nanoseconds: UInt64(now - connections[index].sentAt), times: UInt64(options.pipeline))
        if toSend > 0 {
          try sendAll(index)
          toSend -= options.pipeline
        }
      }
      if toSend <= 0 && connections.allSatisfy({ $0.waiting == 0 }) { break }
    }
    end(start)
    return result
  }

  private func sendAll(_ index: Int) throws {
    if let userAt {
      for request in 0..<options.pipeline { overwriteUser(at: request * requestBytes + userAt) }
    }
    connections[index].waiting = options.pipeline
    connections[index].sentAt = Clock.system.now.nanoseconds
    try send(index, requests.unsafeBytes)
  }

  private func overwriteUser(at place: Int) {
    let user = Int((random.next() >> 32) &* UInt64(options.users) >> 32)
    let target = UnsafeMutableRawPointer(mutating: requests.unsafeBytes.baseAddress.unsafelyUnwrapped) + place
    target.copyMemory(from: users + user * BenchUsers.idBytes, byteCount: BenchUsers.idBytes)
  }

  private func send(_ index: Int, _ bytes: UnsafeRawBufferPointer) throws {
    var rest = bytes
    while rest.count > 0 {
      guard let sent = try Socket.send(connections[index].descriptor, rest) else {
        var ready = pollfd(fd: connections[index].descriptor, events: Int16(POLLOUT), revents: 0)
        poll(&ready, 1, 1_000)
        continue
      }
      rest = UnsafeRawBufferPointer(rebasing: rest[sent...])
    }
  }

  /// Reads once; returns how many whole answers came, and lends the id of each.
  private func receive(_ index: Int, _ body: (UInt32) -> Void) throws -> Int {
    let buffer = connections[index].buffer
    let kept = connections[index].kept
    let room = UnsafeMutableRawBufferPointer(start: buffer + kept, count: QueryLoad.bufferBytes - kept)
    guard let received = try Socket.receive(connections[index].descriptor, into: room) else { return 0 }
    if received == 0 { throw LoadError.closed }
    let end = kept + received
    var place = 0
    var answers = 0
    while end - place >= Limits.lengthBytes + Limits.headerBytes {
      let length = Limits.lengthBytes + Int((buffer + place).loadUnaligned(as: UInt32.self))
      if end - place < length { break }
      if (buffer + place + 4).load(as: UInt8.self) == Kind.error { result.errors += 1 }
      body((buffer + place + 8).loadUnaligned(as: UInt32.self))
      answers += 1
      place += length
    }
    if place > 0 && place < end { memmove(buffer, buffer + place, end - place) }
    connections[index].kept = end - place
    return answers
  }

  // MARK: Open loop

  /// Requests are due at a fixed rate, whatever the answers do; a late one counts from when it was due. The thread
  /// sleeps until the next is due or an answer comes: one that spins would take a core from what it measures.
  func openLoop() throws -> QueryResult {
    // Timers come late by so much at most; the usual 50 µs would be a part of every answer's time.
    Thread.setTimerSlack(nanoseconds: 1_000)
    let rate = Double(options.rate ?? 1)
    let start = begin()
    let first = Clock.system.now.nanoseconds
    func due(_ number: Int) -> Int64 { first + Int64(Double(number) * 1e9 / rate) }
    var sent = 0
    while result.answered < options.requests {
      let next = try sendDue(&sent, due)
      let ready = try epoll.wait(until: next, now: Clock.system.now)
      for event in 0..<ready {
        let index = Int(epoll.event(event).token)
        let read = Clock.system.now.nanoseconds
        result.answered += try receive(index) { id in
          result.latency.record(nanoseconds: UInt64(max(0, read - connections[index].dueAt[Int(id) - 1])))
          connections[index].freeIDs.append(id)
        }
      }
    }
    end(start)
    return result
  }

  /// Sends what is due, by one connection after the other. One without a free id is passed over; with all in use the
  /// due request waits, and its time runs.
  ///
  /// - Returns: when the next is due; never if only an answer can be next.
  private func sendDue(_ sent: inout Int, _ due: (Int) -> Int64) throws -> Moment {
    var tried = 0
    while sent < options.requests, tried < connections.count {
      let now = Clock.system.now.nanoseconds
      if due(sent) > now { return Moment(nanoseconds: due(sent)) }
      turn = (turn + 1) % connections.count
      guard let id = connections[turn].freeIDs.popLast() else {
        tried += 1
        continue
      }
      tried = 0
      result.sentLate.record(nanoseconds: UInt64(now - due(sent)))
      connections[turn].dueAt[Int(id) - 1] = due(sent)
      let place = (Int(id) - 1) * requestBytes
      if let userAt { overwriteUser(at: place + userAt) }
      try send(turn, UnsafeRawBufferPointer(rebasing: requests.unsafeBytes[place..<place + requestBytes]))
      sent += 1
    }
    return .never
  }

  // MARK: CPU

  private struct Start {
    var now: Moment
    var clientCPU: Double
    var serverCPU: Double?
  }

  private func begin() -> Start {
    Start(
      now: Clock.system.now, clientCPU: QueryLoad.ownCPU(),
      serverCPU: options.serverPID.flatMap { QueryLoad.cpu(pid: $0) })
  }

  private func end(_ start: Start) {
    result.elapsed = Clock.system.now - start.now
    result.clientCPU = QueryLoad.ownCPU() - start.clientCPU
    if let before = start.serverCPU, let after = options.serverPID.flatMap({ QueryLoad.cpu(pid: $0) }) {
      result.serverCPU = after - before
    }
  }

  private static func ownCPU() -> Double {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    return seconds(usage.ru_utime) + seconds(usage.ru_stime)
  }

  /// CPU seconds of a process: fields 14 and 15 of its `stat`, in ticks.
  private static func cpu(pid: Int) -> Double? {
    guard let bytes = try? Files().read(whole: "/proc/\(pid)/stat") else { return nil }
    // The name in field 2 may hold anything up to the last parenthesis.
    let text = String(decoding: bytes, as: UTF8.self)
    guard let close = text.lastIndex(of: ")") else { return nil }
    let fields = text[text.index(after: close)...].split(separator: " ")
    guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else {
      return nil
    }
    return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
  }
}
