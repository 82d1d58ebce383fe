// The library's face: a blocking client of one node.
//
//     let client = try RankClient.connect(host: "127.0.0.1", port: 7670)
//     let top = try client.top(limit: 10)
//     let mine = try client.rank(UserID("ada")!)
//
// A client belongs to one thread at a time. It connects again by itself: a request that finds its connection gone, as
// after a minute of silence, is asked once more over a new one. Only reads travel, so that does no harm.

internal import Bytes
public import Posix
public import QueryProtocol
public import StepModel
internal import Transport

/// A client of one node; not for use by two threads at once.
public final class RankClient {
  /// Whom it asks.
  public let target: HostPort
  private let settings: ClientSettings
  private var state: ClientState
  private var wire: Wire?
  private var output = ByteWriter(limit: 64 * (Limits.frameInBytesMax + Limits.lengthBytes))
  private var actions: [ClientState.Action] = []
  private var outcomes: [(id: UInt32, result: Result<Response, ClientError>)] = []

  private init(_ target: HostPort, _ settings: ClientSettings) {
    self.target = target
    self.settings = settings
    state = ClientState(settings: settings)
  }

  /// Connects and says HELLO.
  ///
  /// - Parameters:
  ///   - host: a name or address.
  ///   - port: the node's query port.
  ///   - settings: times, names, options.
  /// - Returns: a client whose node has answered.
  /// - Throws: `unreachable`, `notRMS`, `refused` (no common version, too many connections…), `timedOut`.
  public static func connect(
    host: String, port: UInt16, settings: ClientSettings = ClientSettings()
  ) throws(ClientError) -> RankClient {
    let client = RankClient(HostPort(host: host, port: port), settings)
    try client.ensureConnected()
    return client
  }

  /// What the node said of itself; nil while there is no connection.
  public var server: HelloAnswer? {
    if case .ready(let answer) = state.phase { answer } else { nil }
  }

  /// Closes the connection; the next request makes a new one.
  public func close() {
    guard wire != nil else { return }
    state.ended("closed here", at: Clock.system.now, into: &actions)
    obey()
    outcomes.removeAll()
  }

  // MARK: Questions

  /// Asks for a round trip.
  ///
  /// - Returns: how long it took.
  /// - Throws: `ClientError`.
  @discardableResult public func ping() throws(ClientError) -> Duration {
    let start = Clock.system.now
    guard case .ping = try ask(.ping) else { throw RankClient.unexpected }
    return Clock.system.now - start
  }

  /// The rows from a position on.
  ///
  /// - Parameters:
  ///   - board: whose rows.
  ///   - limit: rows at most, 1...10,000.
  ///   - offset: position of the first one.
  ///   - options: deadline, at_least.
  /// - Returns: fewer rows than the limit only at the end.
  /// - Throws: `ClientError`.
  public func top(
    _ board: BoardName = .today, limit: Int, offset: UInt64 = 0, options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> RowsAnswer {
    try rows(.top(board: board, limit: UInt32(clamping: limit), from: .offset(offset)), options)
  }

  /// The rows after one: the next page.
  ///
  /// - Parameters:
  ///   - row: the last row of the page before.
  ///   - board: its board, as the answer named it: today may be another day by now.
  ///   - limit: rows at most, 1...10,000.
  ///   - options: deadline, at_least.
  /// - Returns: fewer rows than the limit only at the end.
  /// - Throws: `ClientError`.
  public func top(
    after row: Row, of board: BoardID, limit: Int, options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> RowsAnswer {
    try rows(
      .top(
        board: .named(board), limit: UInt32(clamping: limit), from: .after(steps: row.steps, user: row.user)),
      options)
  }

  /// All rows, page after page.
  ///
  /// - Parameters:
  ///   - board: whose rows.
  ///   - pageRows: rows of a page, 1...10,000.
  ///   - options: deadline, at_least; for each page.
  ///   - body: called with each page, the last one included; false ends it.
  /// - Throws: `ClientError`.
  public func pages(
    _ board: BoardName = .today, pageRows: Int = Limits.rowsMax, options: RequestOptions = RequestOptions(),
    _ body: (RowsAnswer) -> Bool
  ) throws(ClientError) {
    var page = try top(board, limit: pageRows, options: options)
    while body(page), page.rows.count >= pageRows, let last = page.rows.last {
      page = try top(after: last, of: page.context.board, limit: pageRows, options: options)
    }
  }

  /// Where a user stands.
  ///
  /// - Parameters:
  ///   - user: who.
  ///   - board: where.
  ///   - options: deadline, at_least.
  /// - Returns: the answer with its context; `Ranked.standing` computes the percentages.
  /// - Throws: `ClientError`.
  public func rank(
    _ user: UserID, _ board: BoardName = .today, options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> Ranked {
    guard case .rank(let context, let answer) = try ask(.rank(board: board, user: user), options) else {
      throw RankClient.unexpected
    }
    return Ranked(context: context, answer: answer)
  }

  /// A user and the neighbours.
  ///
  /// - Parameters:
  ///   - user: who.
  ///   - k: rows on each side, 0...4,999.
  ///   - board: where.
  ///   - options: deadline, at_least.
  /// - Returns: 2·k + 1 rows if the board has so many; none, and the user in `absent`, if not on the board.
  /// - Throws: `ClientError`.
  public func around(
    _ user: UserID, k: Int, _ board: BoardName = .today, options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> RowsAnswer {
    try rows(.around(board: board, user: user, k: UInt32(clamping: k)), options)
  }

  /// Some users among each other.
  ///
  /// - Parameters:
  ///   - users: 1...256.
  ///   - board: where.
  ///   - options: deadline, at_least.
  /// - Returns: rows in the board's order; who is not on it in `absent`.
  /// - Throws: `ClientError`.
  public func compare(
    _ users: [UserID], _ board: BoardName = .today, options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> RowsAnswer {
    try rows(.compare(board: board, users: users), options)
  }

  /// A board in numbers.
  ///
  /// - Parameters:
  ///   - board: which.
  ///   - quantiles: 1...100, at most 100 of them.
  ///   - options: deadline, at_least.
  /// - Returns: users, steps, and the quantiles in the order asked.
  /// - Throws: `ClientError`.
  public func summary(
    _ board: BoardName = .today, quantiles: [UInt8] = [10, 25, 50, 75, 90, 99],
    options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> SummaryAnswer {
    guard case .summary(let answer) = try ask(.summary(board: board, quantiles: quantiles), options) else {
      throw RankClient.unexpected
    }
    return answer
  }

  /// All boards the node keeps.
  ///
  /// - Parameter options: deadline, at_least.
  /// - Returns: the boards with their sizes and periods.
  /// - Throws: `ClientError`.
  public func boards(options: RequestOptions = RequestOptions()) throws(ClientError) -> BoardsAnswer {
    guard case .boards(let answer) = try ask(.boards, options) else { throw RankClient.unexpected }
    return answer
  }

  /// What the node is doing.
  ///
  /// - Parameter options: deadline, at_least.
  /// - Returns: states, watermarks, counters.
  /// - Throws: `ClientError`.
  public func status(options: RequestOptions = RequestOptions()) throws(ClientError) -> StatusAnswer {
    guard case .status(let answer) = try ask(.status, options) else { throw RankClient.unexpected }
    return answer
  }

  /// Records that were not counted, a page of them.
  ///
  /// - Parameters:
  ///   - position: 0, `next` of the page before, or the position of one record.
  ///   - limit: records at most, 1...200; 1 brings more of the one record's bytes.
  ///   - skip: bytes of each value that are left out at its beginning.
  ///   - options: deadline, at_least.
  /// - Returns: no records at the end.
  /// - Throws: `ClientError`.
  public func deadLetters(
    from position: UInt64 = 0, limit: Int = Limits.deadLettersMax, skip: Int = 0,
    options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> DeadLettersAnswer {
    let answer = try ask(
      .deadLetters(position: position, limit: UInt32(clamping: limit), skip: UInt32(clamping: skip)), options)
    guard case .deadLetters(let answer) = answer else { throw RankClient.unexpected }
    return answer
  }

  /// The whole value of a record that was not counted.
  ///
  /// - Parameter letter: as a page of `deadLetters` brought it, from its first byte on.
  /// - Returns: every byte; nil for a null value.
  /// - Throws: `ClientError`; `protocolBroken` if the node no longer has the record there.
  public func wholeValue(of letter: DeadLettersAnswer.Letter) throws(ClientError) -> [UInt8]? {
    guard let total = letter.bytes else { return nil }
    let length = Int(total)
    var bytes = letter.part
    while bytes.count < length {
      let page = try deadLetters(from: letter.position, limit: 1, skip: bytes.count)
      guard let next = page.letters.first, !next.part.isEmpty, next.partition == letter.partition,
        next.offset == letter.offset, next.topic == letter.topic
      else { throw .protocolBroken("no record of offset \(letter.offset) where the node said it was") }
      bytes += next.part
    }
    return bytes
  }

  /// Orders the node to do something; its effect shows in STATUS.
  ///
  /// - Parameters:
  ///   - verb: what.
  ///   - partition: where; nil for all of the node's shards.
  ///   - options: deadline, at_least.
  /// - Returns: the node's sentence about what happens now.
  /// - Throws: `ClientError`; `refused` with `notAllowed`, `notPossible` or `unknownPartition` where it does not.
  public func order(
    _ verb: AdminVerb, partition: UInt32?, options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> String {
    guard case .admin(let answer) = try ask(.admin(verb, partition: partition), options) else {
      throw RankClient.unexpected
    }
    return answer.text
  }

  private func rows(_ request: OwnedRequest, _ options: RequestOptions) throws(ClientError) -> RowsAnswer {
    switch try ask(request, options) {
    case .top(let answer), .around(let answer), .compare(let answer): return answer
    case .hello, .ping, .rank, .summary, .boards, .status, .deadLetters, .admin, .error:
      throw RankClient.unexpected
    }
  }

  /// `ClientState` lets no answer of another kind through.
  private static var unexpected: ClientError { .protocolBroken("an answer of another kind") }

  /// Asks one question and waits for its answer.
  ///
  /// - Parameters:
  ///   - request: anything but HELLO.
  ///   - options: deadline, at_least.
  /// - Returns: an answer of the request's kind, never an error.
  /// - Throws: `ClientError`.
  public func ask(
    _ request: OwnedRequest, _ options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> Response {
    let fresh = wire == nil
    do throws(ClientError) { return try askOnce(request, options) } catch {
      // A connection that rested may be gone without our knowing: once more over a new one.
      guard case .disconnected = error, !fresh else { throw error }
      return try askOnce(request, options)
    }
  }

  private func askOnce(_ request: OwnedRequest, _ options: RequestOptions) throws(ClientError) -> Response {
    let id = try send(request, options: options)
    while true {
      if let index = outcomes.firstIndex(where: { $0.id == id }) {
        return try outcomes.remove(at: index).result.get()
      }
      try turn(until: state.expiresNext ?? .never)
    }
  }

  // MARK: Many at once

  /// Requests sent and not received yet, and answers that wait to be received.
  public var inFlight: Int { state.inFlight + outcomes.count }

  /// Sends a request without waiting for the answer.
  ///
  /// - Parameters:
  ///   - request: anything but HELLO.
  ///   - options: deadline, at_least.
  /// - Returns: the id that `receive` will give with the answer.
  /// - Throws: `ClientError`.
  public func send(
    _ request: OwnedRequest, options: RequestOptions = RequestOptions()
  ) throws(ClientError) -> UInt32 {
    try ensureConnected()
    let now = Clock.system.now
    let id = try state.ask(request, options: options, at: now, into: &output)
    do throws(ClientError) { try flush(until: now + settings.requestTimeout) } catch {
      // The caller learns it from the throw, and never had the id.
      outcomes.removeAll { $0.id == id }
      throw error
    }
    return id
  }

  /// Waits for the next answer, whichever request it belongs to.
  ///
  /// - Returns: id and answer, or why there is none; nil if nothing is in flight.
  /// - Throws: `ClientError` if the connection could not be used at all.
  public func receive() throws(ClientError) -> (id: UInt32, result: Result<Response, ClientError>)? {
    while outcomes.isEmpty {
      guard state.inFlight > 0 else { return nil }
      try turn(until: state.expiresNext ?? .never)
    }
    return outcomes.removeFirst()
  }

  /// Sends whole frames as they are: for load generators, which count their own ids. Must not be mixed with requests
  /// in flight of the other functions.
  ///
  /// - Parameter frames: encoded by `RequestWriter`, ids above 1.
  /// - Throws: `ClientError`.
  public func sendFrames(_ frames: UnsafeRawBufferPointer) throws(ClientError) {
    try ensureConnected()
    guard let wire else { throw .disconnected("nothing is connected") }
    try settle(wire.send(frames, until: Clock.system.now + settings.requestTimeout), "sending")
  }

  /// Receives frames as they are: the counterpart of `sendFrames`.
  ///
  /// - Parameters:
  ///   - count: how many to wait for.
  ///   - body: called with each, in the order they came; the frame borrows its bytes.
  /// - Throws: `ClientError`.
  public func receiveFrames(_ count: Int, _ body: (Frame) -> Void) throws(ClientError) {
    var splitter = FrameSplitter.answers()
    var left = count
    let until = Clock.system.now + settings.requestTimeout
    while left > 0 {
      guard let wire else { throw .disconnected("nothing is connected") }
      let bytes = wire.received
      var consumed = 0
      splitting: while left > 0 {
        switch splitter.next(UnsafeRawBufferPointer(rebasing: bytes[consumed...])) {
        case .frame(let frame, let length):
          body(frame)
          consumed += length
          left -= 1
        case .incomplete: break splitting
        case .refused(let refusal): throw .protocolBroken("\(refusal.text)")
        }
      }
      wire.drop(consumed)
      if left > 0 { try settle(wire.receive(until: until), "receiving") }
    }
  }

  // MARK: The driver

  private func ensureConnected() throws(ClientError) {
    if case .ready = state.phase { return }
    try state.connect(at: Clock.system.now)
    do throws(SystemError) { wire = try Wire(target, timeout: settings.connectTimeout) } catch {
      let failure = ClientError.unreachable("\(error)")
      state.connectFailed(failure, at: Clock.system.now)
      throw failure
    }
    output.removeAll()
    state.connected(at: Clock.system.now, into: &output)
    try flush(until: Clock.system.now + settings.helloTimeout)
    while case .greeting(let until) = state.phase { try turn(until: until) }
    guard case .apart(_, let error?) = state.phase else { return }
    throw error
  }

  /// Receives once and lets the state judge it.
  private func turn(until: Moment) throws(ClientError) {
    guard let wire else { throw .disconnected("nothing is connected") }
    let outcome = wire.receive(until: until)
    let now = Clock.system.now
    switch outcome {
    case .done:
      let consumed = state.received(wire.received, at: now, into: &actions)
      wire.drop(consumed)
    case .late: state.expire(at: now, into: &actions)
    case .ended(let why): state.ended(why, at: now, into: &actions)
    }
    obey()
  }

  private func flush(until: Moment) throws(ClientError) {
    guard let wire else { throw .disconnected("nothing is connected") }
    let outcome = wire.send(output.unsafeBytes, until: until)
    output.removeAll()
    try settle(outcome, "sending")
  }

  /// Ends the connection where sending or receiving failed; half a frame cannot be taken back.
  private func settle(_ outcome: Wire.Outcome, _ what: String) throws(ClientError) {
    let why: String
    switch outcome {
    case .done: return
    case .late: why = "\(what) took too long"
    case .ended(let reason): why = reason
    }
    state.ended(why, at: Clock.system.now, into: &actions)
    obey()
    guard case .apart(_, let error?) = state.phase else { return }
    throw error
  }

  private func obey() {
    for action in actions {
      switch action {
      case .answer(let id, let response): outcomes.append((id, .success(response)))
      case .fail(let id, let error): outcomes.append((id, .failure(error)))
      case .close: wire = nil
      }
    }
    actions.removeAll(keepingCapacity: true)
  }
}

/// The answer to RANK.
public struct Ranked: Equatable, Sendable {
  public var context: AnswerContext
  public var answer: RankAnswer

  /// The percentages; nil if the user is not on the board.
  public var standing: Standing? {
    answer.onBoard ? Standing(above: answer.above, tied: answer.tied, users: answer.users) : nil
  }
}
