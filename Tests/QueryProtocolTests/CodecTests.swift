import Bytes
import QueryProtocol
import StepModel
import TestSupport
import Testing

@Suite("encoding and decoding under stress")
struct CodecTests {
  private static func user(_ random: inout SeededGenerator) -> UserID {
    let pool = ["a", "Z", "0", "-", " ", "é", "ß", "歩", "👣", "\u{10FFFF}", "\u{A0}"]
    var text = ""
    for _ in 0..<Int.random(in: 1...16, using: &random) { text += pool.randomElement(using: &random) ?? "a" }
    return UserID(text) ?? UserID("ada")!
  }

  private static func board(_ random: inout SeededGenerator) -> BoardID {
    switch Int.random(in: 0..<4, using: &random) {
    case 0: .day(Day(number: Int32.random(in: 0...2_932_896, using: &random)))
    case 1: .week(monday: Day(number: Int32.random(in: 0...400_000, using: &random) * 7 + 4))
    case 2: .month(Int32.random(in: 0...96_359, using: &random))
    default: .all
    }
  }

  private static func rows(_ random: inout SeededGenerator) -> RowsAnswer {
    var context = AnswerContext(
      board: board(&random), state: BoardState.allCases.randomElement(using: &random) ?? .live)
    for partition in 0..<UInt32.random(in: 0...40, using: &random) {
      context.shards.append(
        ShardMark(
          partition: partition, watermark: .random(in: 0 ... .max, using: &random),
          ageMillis: .random(in: 0 ... .max, using: &random),
          flags: Bool.random(using: &random) ? .usersElsewhere : []))
    }
    context.missing = (0..<Int.random(in: 0...3, using: &random)).map { UInt32($0) }
    var answer = RowsAnswer(
      context: context, users: .random(in: 0 ... .max, using: &random),
      totalSteps: .random(in: 0 ... .max, using: &random))
    for _ in 0..<Int.random(in: 0...30, using: &random) {
      answer.rows.append(
        Row(
          position: .random(in: 0 ... .max, using: &random), rank: .random(in: 0 ... .max, using: &random),
          tied: .random(in: 0 ... .max, using: &random), steps: .random(in: 0 ... .max, using: &random),
          user: user(&random)))
    }
    for _ in 0..<Int.random(in: 0...3, using: &random) { answer.absent.append(user(&random)) }
    return answer
  }

  @Test("any request reads back as it was written", arguments: Seed.some(100))
  func requests(seed: Seed) throws {
    var random = seed.random
    let board = Bool.random(using: &random) ? BoardName.today : .named(CodecTests.board(&random))
    let user = CodecTests.user(&random)
    let users = (0..<Int.random(in: 1...256, using: &random)).map { _ in CodecTests.user(&random) }
    let requests: [OwnedRequest] = [
      .top(board: board, limit: .random(in: 1...10_000, using: &random), from: .offset(random.next())),
      .top(board: board, limit: 1, from: .after(steps: random.next(), user: user)),
      .rank(board: board, user: user),
      .around(board: board, user: user, k: .random(in: 0...4_999, using: &random)),
      .compare(board: board, users: users),
      .summary(board: board, quantiles: (0..<100).map { _ in UInt8.random(in: 1...100, using: &random) }),
      .deadLetters(
        position: random.next(), limit: .random(in: 1...200, using: &random),
        skip: .random(in: 0 ... .max, using: &random)),
      .admin(
        AdminVerb.allCases.randomElement(using: &random) ?? .seal,
        partition: .random(in: 0...UInt32(Int32.max), using: &random)),
      .admin(.snapshot, partition: nil),
    ]
    let waits = (0..<Int.random(in: 0...16, using: &random)).map {
      AtLeast(partition: UInt32($0), offset: random.next())
    }
    let options = RequestOptions(
      deadlineMillis: Bool.random(using: &random) ? .random(in: 0 ... .max, using: &random) : nil,
      atLeast: waits)
    for request in requests {
      var out = ByteWriter(limit: 1 << 17)
      RequestWriter.write(request, id: .random(in: 1 ... .max, using: &random), options: options, into: &out)
      let incoming = try Incoming.decode(try #require(onlyFrame(out.unsafeBytes)))
      #expect(OwnedRequest(incoming.request) == request)
      #expect(incoming.deadlineMillis == options.deadlineMillis)
      #expect(Array(incoming.atLeast) == waits)
    }
  }

  @Test("any rows read back as they were written", arguments: Seed.some(100))
  func answers(seed: Seed) throws {
    var random = seed.random
    let answer = CodecTests.rows(&random)
    for response in [Response.top(answer), .around(answer), .compare(answer)] {
      var out = ByteWriter(limit: 1 << 20, reserved: 16)
      ResponseWriter.write(response, id: 7, into: &out)
      #expect(try Response.decode(try #require(onlyFrame(out.unsafeBytes))) == response)
    }
  }

  @Test("random and mutated bytes are refused or decoded, never a trap", arguments: Seed.some(200))
  func mutated(seed: Seed) {
    var random = seed.random
    for vector in Vector.all {
      var bytes = vector.bytes
      for _ in 0..<Int.random(in: 1...4, using: &random) where !bytes.isEmpty {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes[place] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &random) ?? 0
        case 2: bytes.removeSubrange(place..<min(bytes.count, place + 3))
        default: bytes.insert(contentsOf: [0xFF, 0xFF, 0xFF, 0xFF], at: place)
        }
      }
      exercise(bytes)
      if bytes.count >= 12 {
        // The same with a length that fits, so that the payload is reached.
        let length = UInt32(bytes.count - 4)
        for index in 0..<4 { bytes[index] = UInt8(truncatingIfNeeded: length >> (8 * index)) }
        exercise(bytes)
      }
    }
  }

  private func exercise(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { raw in
      for var splitter in [FrameSplitter.requests(), FrameSplitter.answers()] {
        guard case .frame(let frame, let consumed) = splitter.next(raw) else { continue }
        #expect(consumed <= raw.count)
        if let incoming = try? Incoming.decode(frame) {
          // What was accepted must be good all the way: told, owned and written it gives the same bytes.
          var out = ByteWriter(limit: 1 << 17)
          let options = RequestOptions(
            deadlineMillis: incoming.deadlineMillis, atLeast: Array(incoming.atLeast))
          RequestWriter.write(OwnedRequest(incoming.request), id: incoming.id, options: options, into: &out)
          #expect(out.array == Array(raw[..<consumed]))
        }
        if let response = try? Response.decode(frame), case .top(let answer) = response {
          #expect(answer.rows.count * 34 <= frame.payload.count)
        }
      }
    }
  }

  @Test("a count larger than the bytes behind it is refused before anything is reserved")
  func counts() throws {
    let top = try #require(Vector.named("answer-top-empty"))
    // The count of rows is followed by the count of absent users: the last six bytes.
    var bytes = top.bytes
    for index in 0..<4 { bytes[bytes.count - 6 + index] = 0xFF }
    bytes.withUnsafeBytes { raw in
      #expect(throws: AnswerError.self) { try Response.decode(try #require(onlyFrame(raw))) }
    }
  }

  @Test("an answer that does not fit gives way to an error, and that to nothing")
  func overflow() throws {
    let answer = RowsAnswer(
      context: AnswerContext(board: .all), users: 1, totalSteps: 1,
      rows: Array(repeating: Row(position: 0, rank: 1, tied: 1, steps: 1, user: UserID("ada")!), count: 10))
    var out = ByteWriter(limit: 200)
    ResponseWriter.ping(id: 1, into: &out)
    ResponseWriter.rows(.top, id: 2, answer, into: &out)
    #expect(out.overflowed == false)
    let failure = try Response.decode(
      try #require(onlyFrame(UnsafeRawBufferPointer(rebasing: out.unsafeBytes[12...]))))
    guard case .error(let error) = failure else {
      Issue.record("\(failure)")
      return
    }
    #expect(error.code == .serverError)
    var small = ByteWriter(limit: 40)
    ResponseWriter.ping(id: 1, into: &small)
    ResponseWriter.rows(.top, id: 2, answer, into: &small)
    #expect(small.overflowed == true)
    #expect(small.count == 12)
  }

  @Test(
    "a sentence of any length travels, at most 512 bytes of it, never half a character",
    arguments: Seed.some(20))
  func sentences(seed: Seed) throws {
    var random = seed.random
    let pool = ["a", "é", "歩", "👣", "e\u{301}"]
    var text = ""
    for _ in 0..<Int.random(in: 0...700, using: &random) { text += pool.randomElement(using: &random) ?? "" }
    var out = ByteWriter(limit: 1 << 12)
    ResponseWriter.write(.admin(AdminAnswer(text: text)), id: 1, into: &out)
    guard case .admin(let answer) = try Response.decode(try #require(onlyFrame(out.unsafeBytes))) else {
      Issue.record("another kind")
      return
    }
    #expect(answer.text.utf8.count <= 512)
    #expect(answer.text.utf8.count > 508 || answer.text == text)
    #expect(text.utf8.starts(with: answer.text.utf8))
  }

  @Test("bytes are a user id exactly where their text is one", arguments: Seed.some(100))
  func users(seed: Seed) {
    var random = seed.random
    let pieces: [[UInt8]] = [
      [0x61], [0x7F], [0x1F], [0x20], [0xC2, 0x9F], [0xC2, 0xA0], [0xC3, 0xA9], [0x80], [0xE6, 0xAD, 0xA9],
      [0xED, 0xA0, 0x80], [0xF0, 0x9F, 0x91, 0xA3],
    ]
    for _ in 0..<100 {
      var bytes: [UInt8] = []
      for _ in 0..<Int.random(in: 0...30, using: &random) {
        bytes +=
          Int.random(in: 0..<8, using: &random) == 0 ? pieces.randomElement(using: &random) ?? [] : [0x62]
      }
      let text = String(validating: bytes, as: UTF8.self)
      let expected = text.flatMap { UserID($0) } != nil
      #expect(bytes.withUnsafeBytes { UserCheck.isValid($0) } == expected, "\(Hex.text(bytes))")
    }
  }

  @Test("every byte at every place of an id is judged as in its text")
  func userBytes() {
    for length in [1, 2, 7, 8, 9, 15, 16, 17, 36, 63, 64, 65] {
      for place in 0..<length {
        for byte in UInt8.min...UInt8.max {
          var bytes = [UInt8](repeating: 0x61, count: length)
          bytes[place] = byte
          let expected = length <= 64 && byte >= 0x20 && byte < 0x7F
          let found = bytes.withUnsafeBytes { UserCheck.isValid($0) }
          if found != expected { Issue.record("byte \(byte) at \(place) of \(length)") }
        }
      }
    }
  }

  @Test("UUIDs are written as their texts", arguments: Seed.some(50))
  func uuids(seed: Seed) throws {
    var random = seed.random
    for _ in 0..<20 {
      let key = UserKey(high: random.next(), low: random.next())
      var text = [UInt8](repeating: 0, count: 36)
      text.withUnsafeMutableBytes { _ = key.write(to: $0.baseAddress!) }
      var out = ByteWriter(limit: 4_096)
      var rows = RowsWriter(.top, id: 1, AnswerContext(board: .all), users: 1, totalSteps: 1, into: &out)
      rows.row(position: 0, rank: 1, tied: 1, steps: 1, user: key, into: &out)
      rows.end(into: &out)
      guard case .top(let answer) = try Response.decode(try #require(onlyFrame(out.unsafeBytes))) else {
        continue
      }
      #expect(answer.rows.first?.user.text == String(decoding: text, as: UTF8.self))
    }
  }

  @Test("versions are negotiated to the newest both speak")
  func versions() throws {
    for (low, high, chosen) in [(1, 1, 1), (0, 9, 1), (2, 9, nil), (0, 0, nil)] as [(UInt8, UInt8, UInt8?)] {
      var out = ByteWriter(limit: 4_096)
      RequestWriter.write(
        .hello(versionMin: low, versionMax: high, client: .init(name: "x"), options: []), id: 1, into: &out)
      let incoming = try Incoming.decode(try #require(onlyFrame(out.unsafeBytes)))
      guard case .hello(let hello) = incoming.request else { continue }
      #expect(hello.versionChosen == chosen)
    }
  }

  @Test("board names on the wire are those with a name in text, and no others")
  func boards() throws {
    for (number, week) in [(4, "1970-W02"), (-3, "1970-W01"), (20_780, "2026-W48")] as [(Int32, String)] {
      let board = BoardID.week(monday: Day(number: number))
      #expect(board.description == week)
      #expect(BoardID(week) == board)
    }
    #expect(BoardID("9999-12-31") == .day(Day(number: 2_932_896)))
    #expect(BoardID("9999-12") == .month(96_359))
  }
}
