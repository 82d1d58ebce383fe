// A connection's turn: read once, take every whole frame, call the handler once, write once.

internal import Bytes
internal import Posix
internal import QueryProtocol
internal import Synchronization
internal import Telemetry
internal import Transport

/// How the look at the received bytes ended.
private enum Fate {
  /// All whole frames are taken.
  case wait
  /// Whole frames are left: the answers of this turn are enough.
  case more
  /// As many requests wait as may.
  case full
  /// The next request is answered by another thread.
  case migrate
  case close(CloseReason)
}

extension ReactorLoop {
  /// A descriptor is ready.
  func ready(_ connection: Connection, _ readiness: Readiness) {
    if !readiness.isDisjoint(with: .writable) {
      flush(connection)
      guard self.connection(connection.descriptor) === connection else { return }
    }
    if !readiness.isDisjoint(with: .readable) && connection.interest.contains(.readable) {
      if connection.lingerUntil != nil { discardInput(connection) } else { read(connection) }
    } else if !readiness.isDisjoint(with: [.failed, .hungUp]) {
      close(connection, .reset)
    }
  }

  /// One read, and what follows from it.
  private func read(_ connection: Connection) {
    let keptCount = connection.kept.count
    if keptCount > 0 {
      connection.kept.withUnsafeBytes { readBuffer.copyMemory(from: $0) }
    }
    let room = UnsafeMutableRawBufferPointer(
      rebasing: readBuffer[keptCount..<keptCount + ReactorLoop.readBytesMax])
    let received: Int
    do throws(SystemError) {
      guard let count = try Socket.receive(connection.descriptor, into: room) else { return }
      received = count
    } catch {
      close(connection, .reset)
      return
    }
    let now = now
    if received == 0 {
      connection.peerFinished = true
    } else {
      connection.session.heard(now: now)
    }
    process(connection, UnsafeRawBufferPointer(rebasing: readBuffer[..<(keptCount + received)]), now)
  }

  /// Takes the whole frames of the bytes, answers them, sends the answers, keeps the rest.
  private func process(_ connection: Connection, _ bytes: UnsafeRawBufferPointer, _ now: Moment) {
    out.removeAll()
    let (consumed, count, fate) = take(connection, bytes)
    if count > 0 { ask(connection, count, now) }
    keep(connection, UnsafeRawBufferPointer(rebasing: bytes[consumed...]))
    turn.end()
    guard send(connection, now) else { return }
    switch fate {
    case .wait:
      connection.hasMore = false
      if connection.peerFinished { connection.kept = [] }
    case .more:
      connection.hasMore = true
      if connection.output.isEmpty { runLater(connection) }
    case .full:
      connection.hasMore = !connection.kept.isEmpty
    case .migrate:
      if connection.output.isEmpty {
        migrate(connection)
        return
      }
      connection.hasMore = true
    case .close(let reason):
      linger(connection, reason)
      return
    }
    updateInterest(connection)
    account(connection)
    if connection.peerFinished || connection.session.isDraining { settle(connection) }
  }

  /// Takes requests into the batch; answers at once what needs no handler.
  private func take(
    _ connection: Connection, _ bytes: UnsafeRawBufferPointer
  ) -> (consumed: Int, count: Int, fate: Fate) {
    var consumed = 0
    var count = 0
    var cost = 0
    let outputBytesMax = shared.limits.outputBytesMax
    let overhead = shared.handler.answerOverheadBytes
    while true {
      if out.count + cost >= outputBytesMax { return (consumed, count, .more) }
      let rest = UnsafeRawBufferPointer(rebasing: bytes[consumed...])
      switch connection.session.next(rest, turn) {
      case .request(let incoming, let length):
        let isAdmin = incoming.request.isAdmin
        if isAdmin != isFront { return (consumed, count, .migrate) }
        let size = AnswerSize.max(incoming.request, overhead: overhead)
        if count > 0 && out.count + cost + size > outputBytesMax { return (consumed, count, .more) }
        batch[count] = incoming
        frames[count] = UnsafeRawBufferPointer(rebasing: rest[..<length])
        count += 1
        cost += size
        consumed += length
        turn.take(incoming.id)
        if isAdmin { return (consumed, count, .more) }
      case .ping(let id, let length):
        ResponseWriter.ping(id: id, into: &out)
        answered[Int(Kind.ping.rawValue)]?.add()
        consumed += length
      case .hello(let id, let hello, let version, let length):
        greet(id, hello, version)
        consumed += length
      case .refuse(let id, let refusal, let length):
        ResponseWriter.refusal(id: id, refusal, into: &out)
        countError(bytes[consumed + 4], refusal.code)
        consumed += length
      case .close(let id, let refusal, let reason):
        ResponseWriter.refusal(id: id, refusal, into: &out)
        return (consumed, count, .close(reason))
      case .incomplete: return (consumed, count, .wait)
      case .full: return (consumed, count, .full)
      }
    }
  }

  private func greet(_ id: UInt32, _ hello: HelloRequest, _ version: UInt8) {
    var answer = shared.settings.hello
    answer.version = version
    answer.inFlightMax = UInt32(shared.limits.inFlightMax)
    hello.forEachOption { key, _ in answer.unknownOptions.append(String(decoding: key, as: UTF8.self)) }
    ResponseWriter.hello(id: id, answer, into: &out)
    answered[Int(Kind.hello.rawValue)]?.add()
  }

  private func countError(_ kind: UInt8, _ code: ErrorCode) {
    let op = Kind(rawValue: kind).map { "\($0)" } ?? "unknown"
    shared.metrics.counter(.queries, op, code.name).add()
  }

  /// Calls the handler with the first `count` requests of the batch; parks those that wait.
  private func ask(_ connection: Connection, _ count: Int, _ now: Moment) {
    let generation = shared.generation.load(ordering: .sequentiallyConsistent)
    let start = out.count
    shared.handler.answer(
      RequestBatch(requests: UnsafeBufferPointer(start: batch, count: count), outcomes: outcomes, now: now),
      into: &out)
    var parkedNow = 0
    for index in 0..<count where outcomes[index] {
      outcomes[index] = false
      park(connection, batch[index], frames[index], now)
      parkedNow += 1
    }
    countAnswers(count, from: start)
    querySeconds.record(
      nanoseconds: UInt64(max(0, self.now.nanoseconds - now.nanoseconds)), times: UInt64(count))
    if parkedNow > 0 {
      mailbox.parkedCount.add(parkedNow, ordering: .sequentiallyConsistent)
      parkedGauge.add(Int64(parkedNow))
      listParked(connection)
      schedule(connection)
      // A watermark that moved between the handler's look and the count above woke nobody.
      if shared.generation.load(ordering: .sequentiallyConsistent) != generation {
        connection.wantsRetry = true
        runLater(connection)
      }
    }
  }

  private func park(
    _ connection: Connection, _ incoming: Incoming, _ frame: UnsafeRawBufferPointer, _ now: Moment
  ) {
    connection.session.park(incoming, now: now)
    connection.keepWaiting(frame)
  }

  /// Counts the frames that the handler wrote.
  private func countAnswers(_ count: Int, from start: Int) {
    var place = start
    let bytes = out.unsafeBytes
    var kind: UInt8 = 0
    var run: Int64 = 0
    while place + Limits.lengthBytes + Limits.headerBytes <= bytes.count {
      let length = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self)))
      let frameKind = bytes[place + 4]
      if frameKind == Kind.error {
        let id = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: place + 8, as: UInt32.self))
        let code = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: place + 12, as: UInt16.self))
        let asked = (0..<count).first { batch[$0].id == id }.map { batch[$0].request.kind.rawValue }
        countError(asked ?? 0, ErrorCode(rawValue: code))
      } else if frameKind == kind {
        run += 1
      } else {
        if run > 0 { answered[Int(kind & ~Kind.answerBit)]?.add(run) }
        kind = frameKind
        run = 1
      }
      place += Limits.lengthBytes + length
    }
    if run > 0 { answered[Int(kind & ~Kind.answerBit)]?.add(run) }
  }

  /// Keeps bytes that were not consumed; nothing is held for a connection that rests between requests.
  private func keep(_ connection: Connection, _ rest: UnsafeRawBufferPointer) {
    if rest.isEmpty {
      if !connection.kept.isEmpty { connection.kept = [] }
    } else {
      connection.kept = [UInt8](rest)
    }
  }

  // MARK: Again

  /// Runs the connections that need no event: requests are left, or waiting ones must be asked again.
  func runAgain() {
    let list = again
    again = []
    for connection in list {
      connection.isInAgain = false
      guard self.connection(connection.descriptor) === connection, connection.lingerUntil == nil else {
        continue
      }
      resume(connection)
    }
  }

  /// Goes on with a connection whose answers are all taken by the socket.
  private func resume(_ connection: Connection) {
    guard connection.output.isEmpty else { return }
    if connection.wantsRetry && !connection.session.waiting.isEmpty {
      retry(connection)
      guard self.connection(connection.descriptor) === connection, connection.output.isEmpty else { return }
    }
    if connection.hasMore && !connection.session.mustNotRead {
      connection.hasMore = false
      let count = connection.kept.count
      connection.kept.withUnsafeBytes { readBuffer.copyMemory(from: $0) }
      process(connection, UnsafeRawBufferPointer(rebasing: readBuffer[..<count]), now)
    } else {
      updateInterest(connection)
      account(connection)
      settle(connection)
    }
  }

  /// Asks the waiting requests again; those out of time are refused.
  private func retry(_ connection: Connection) {
    let now = now
    connection.wantsRetry = false
    out.removeAll()
    let generation = shared.generation.load(ordering: .sequentiallyConsistent)
    let before = connection.session.waiting.count
    var asked: [Int] = []
    var cost = 0
    let overhead = shared.handler.answerOverheadBytes
    var done: [Int] = []
    for index in 0..<before {
      let waiting = connection.session.waiting[index]
      if waiting.until <= now {
        ResponseWriter.refusal(
          id: waiting.id, Refusal(.atLeastTimeout, "the awaited record was not applied in time"), into: &out)
        countError(connection.waitingFrames[index][4], .atLeastTimeout)
        done.append(index)
        continue
      }
      guard let incoming = decode(connection.waitingFrames[index]) else {
        preconditionFailure("a waiting frame no longer decodes")
      }
      let size = AnswerSize.max(incoming.request, overhead: overhead)
      if !asked.isEmpty && out.count + cost + size > shared.limits.outputBytesMax {
        connection.wantsRetry = true
        break
      }
      cost += size
      batch[asked.count] = incoming
      asked.append(index)
    }
    if !asked.isEmpty {
      let start = out.count
      shared.handler.answer(
        RequestBatch(
          requests: UnsafeBufferPointer(start: batch, count: asked.count), outcomes: outcomes, now: now),
        into: &out)
      countAnswers(asked.count, from: start)
      for (place, index) in asked.enumerated() {
        if outcomes[place] { outcomes[place] = false } else { done.append(index) }
      }
    }
    for index in done.sorted(by: >) { connection.dropWaiting(at: index) }
    if !done.isEmpty {
      mailbox.parkedCount.subtract(done.count, ordering: .sequentiallyConsistent)
      parkedGauge.add(Int64(-done.count))
    }
    if !connection.session.waiting.isEmpty {
      listParked(connection)
      if shared.generation.load(ordering: .sequentiallyConsistent) != generation {
        connection.wantsRetry = true
      }
    }
    guard send(connection, now) else { return }
    if connection.wantsRetry { runLater(connection) }
    schedule(connection)
  }

  /// A waiting frame as a request; it borrows from the frame.
  private func decode(_ bytes: UnsafeRawBufferPointer) -> Incoming? {
    var splitter = FrameSplitter.answers()
    guard case .frame(let frame, _) = splitter.next(bytes) else { return nil }
    return try? Incoming.decode(frame)
  }

  // MARK: Output

  /// Sends the answers in `out`; what the socket does not take waits. False if the connection is gone.
  private func send(_ connection: Connection, _ now: Moment) -> Bool {
    guard !out.isEmpty else { return true }
    var sent = 0
    do throws(SystemError) {
      if connection.output.isEmpty { sent = try Socket.send(connection.descriptor, out.unsafeBytes) ?? 0 }
    } catch {
      close(connection, .reset)
      return false
    }
    if sent == out.count { return true }
    let rest = UnsafeRawBufferPointer(rebasing: out.unsafeBytes[sent...])
    guard connection.output.append(rest) else {
      close(connection, .slowReader)
      return false
    }
    connection.output.flush()
    connection.session.output(waiting: connection.output.count, progressed: sent > 0, now: now)
    schedule(connection)
    updateInterest(connection)
    account(connection)
    return self.connection(connection.descriptor) === connection
  }

  /// Sends one ERROR that answers no request, behind what waits already.
  func say(_ connection: Connection, _ refusal: Refusal) {
    out.removeAll()
    ResponseWriter.refusal(id: 0, refusal, into: &out)
    _ = send(connection, now)
  }

  /// The socket takes bytes again.
  private func flush(_ connection: Connection) {
    let ready = connection.output.ready
    if ready.isEmpty { return }
    do throws(SystemError) {
      guard let sent = try Socket.send(connection.descriptor, ready) else { return }
      connection.output.sent(sent)
      connection.session.output(waiting: connection.output.count, progressed: sent > 0, now: now)
    } catch {
      close(connection, .reset)
      return
    }
    account(connection)
    guard self.connection(connection.descriptor) === connection, connection.output.isEmpty else { return }
    if connection.lingerUntil != nil {
      Socket.finishSending(connection.descriptor)
      updateInterest(connection)
    } else if connection.hasMore || connection.wantsRetry {
      updateInterest(connection)
      runLater(connection)
    } else {
      updateInterest(connection)
      settle(connection)
    }
  }

  /// Throws away what a refused or leaving client still sends.
  private func discardInput(_ connection: Connection) {
    do throws(SystemError) {
      let room = UnsafeMutableRawBufferPointer(rebasing: readBuffer[..<ReactorLoop.readBytesMax])
      if try Socket.receive(connection.descriptor, into: room) == 0 { close(connection, .peer) }
    } catch {
      close(connection, .reset)
    }
  }

  /// Watches the socket for what can be used now.
  func updateInterest(_ connection: Connection) {
    guard let registration = connection.registration else { return }
    var interest: Readiness = []
    if !connection.output.isEmpty { interest.insert(.writable) }
    if connection.lingerUntil != nil {
      interest.insert(.readable)
    } else if !connection.session.mustNotRead && !connection.peerFinished && !connection.hasMore {
      interest.insert(.readable)
    }
    if interest == connection.interest { return }
    do throws(SystemError) {
      try reactor.change(registration, interest)
      connection.interest = interest
    } catch {
      close(connection, .reset)
    }
  }
}

extension Request {
  /// Whether the front thread answers it: what is asked about the node or ordered from it, and may read files.
  var isAdmin: Bool {
    switch self {
    case .status, .deadLetters, .admin: true
    case .hello, .ping, .top, .rank, .around, .compare, .summary, .boards: false
    }
  }
}
