// Frame to request. Order of the checks: id, flags and reserved bits, kind, then the payload from front to back.
// Everything that a server hands on is checked here: sizes, UTF-8, user ids, boards, bounds, no bytes left over.

internal import Bytes
internal import StepModel

extension Incoming {
  /// Decodes a request.
  ///
  /// - Parameter frame: a whole frame; what is returned borrows from its payload.
  /// - Returns: the request, valid as long as the frame's bytes.
  /// - Throws: the refusal to answer with; the connection goes on unless the code's row says otherwise.
  /// - Complexity: O(payload); no allocation.
  public static func decode(_ frame: Frame) throws(Refusal) -> Incoming {
    guard frame.id != 0 else { throw Refusal(.malformed, "a request's id is not 0") }
    guard frame.flags & ~RequestFlags.known == 0, frame.reserved == 0 else {
      throw Refusal(.reservedBits, "reserved flags and bytes are 0")
    }
    guard let kind = Kind(rawValue: frame.kind) else {
      throw Refusal(.unknownKind, "no message has this kind")
    }
    var payload = Payload(frame.payload)
    var deadline: UInt32?
    if frame.flags & RequestFlags.deadline != 0 { deadline = try payload.integer() }
    var atLeast = AtLeastList(UnsafeRawBufferPointer(start: nil, count: 0))
    if frame.flags & RequestFlags.atLeast != 0 {
      let count = Int(try payload.integer(UInt8.self))
      guard (1...Limits.atLeastMax).contains(count) else {
        throw Refusal(.limitOutOfBounds, "at_least names 1 to 16 partitions")
      }
      atLeast = AtLeastList(try payload.bytes(count * AtLeastList.entryBytes))
    }
    let request = try payload.request(kind)
    guard payload.reader.left == 0 else {
      throw Refusal(.malformed, "bytes are left after the payload of this kind")
    }
    return Incoming(id: frame.id, deadlineMillis: deadline, atLeast: atLeast, request: request)
  }
}

/// Reads a payload; whatever does not fit is a refusal.
private struct Payload {
  var reader: ByteReader

  init(_ bytes: UnsafeRawBufferPointer) { reader = ByteReader(bytes) }

  mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type = T.self) throws(Refusal) -> T
  {
    do { return try reader.integer(type) } catch { throw Payload.short }
  }

  mutating func bytes(_ count: Int) throws(Refusal) -> UnsafeRawBufferPointer {
    do { return try reader.bytes(count) } catch { throw Payload.short }
  }

  static var short: Refusal { Refusal(.malformed, "the payload is shorter than its kind") }

  mutating func text() throws(Refusal) -> UnsafeRawBufferPointer {
    let text = try bytes(Int(try integer(UInt8.self)))
    guard UTF8Check.isValid(text) else { throw Refusal(.malformed, "a text is not UTF-8") }
    return text
  }

  mutating func user() throws(Refusal) -> UnsafeRawBufferPointer {
    let user = try bytes(Int(try integer(UInt8.self)))
    guard UserCheck.isValid(user) else {
      throw Refusal(.badUser, "a user id is 1 to 64 bytes of UTF-8 without control characters")
    }
    return user
  }

  mutating func board() throws(Refusal) -> BoardName {
    let kind = try integer(UInt8.self)
    let number = try integer(Int32.self)
    guard let board = BoardName.from(kind: kind, number: number) else {
      throw Refusal(.noSuchBoard, "no board has this kind and number")
    }
    return board
  }

  mutating func request(_ kind: Kind) throws(Refusal) -> Request {
    switch kind {
    case .hello: return .hello(try hello())
    case .ping: return .ping
    case .top: return try top()
    case .rank:
      let board = try board()
      return .rank(board: board, user: try user())
    case .around:
      let board = try board()
      let user = try user()
      let k = try integer(UInt32.self)
      guard k <= Limits.aroundMax else { throw Refusal(.limitOutOfBounds, "k is 0 to 4999") }
      return .around(board: board, user: user, k: Int(k))
    case .compare: return try compare()
    case .summary:
      let board = try board()
      let quantiles = try bytes(Int(try integer(UInt8.self)))
      for quantile in quantiles where quantile < 1 || quantile > 100 {
        throw Refusal(.limitOutOfBounds, "a quantile is 1 to 100")
      }
      guard quantiles.count <= Limits.quantilesMax else {
        throw Refusal(.limitOutOfBounds, "SUMMARY takes at most 100 quantiles")
      }
      return .summary(board: board, quantiles: quantiles)
    case .boards: return .boards
    case .status: return .status
    case .deadLetters:
      let position = try integer(UInt64.self)
      let limit = try integer(UInt32.self)
      guard limit >= 1, limit <= Limits.deadLettersMax else {
        throw Refusal(.limitOutOfBounds, "limit is 1 to 200")
      }
      return .deadLetters(position: position, limit: Int(limit), skip: Int(try integer(UInt32.self)))
    case .admin: return try admin()
    case .history, .subscribe, .topology:
      throw Refusal(.unsupported, "this server does not answer this kind")
    }
  }

  mutating func top() throws(Refusal) -> Request {
    let board = try board()
    let limit = try integer(UInt32.self)
    guard limit >= 1, limit <= Limits.rowsMax else {
      throw Refusal(.limitOutOfBounds, "limit is 1 to 10000")
    }
    switch try integer(UInt8.self) {
    case 0: return .top(board: board, limit: Int(limit), from: .offset(try integer()))
    case 1:
      let steps = try integer(UInt64.self)
      return .top(board: board, limit: Int(limit), from: .after(steps: steps, user: try user()))
    default: throw Refusal(.malformed, "TOP begins at 0 an offset or 1 a cursor")
    }
  }

  mutating func admin() throws(Refusal) -> Request {
    guard let verb = AdminVerb(rawValue: try integer(UInt8.self)) else {
      throw Refusal(.unsupported, "this server knows no such order")
    }
    let partition = try integer(Int32.self)
    guard partition >= (verb == .acceptGap ? 0 : -1) else {
      throw Refusal(.unknownPartition, "a partition is 0 or more; -1 is all, but not for accept-gap")
    }
    return .admin(verb, partition: partition < 0 ? nil : UInt32(partition))
  }

  mutating func compare() throws(Refusal) -> Request {
    let board = try board()
    let count = Int(try integer(UInt16.self))
    guard count >= 1, count <= Limits.idsMax else {
      throw Refusal(.limitOutOfBounds, "COMPARE takes 1 to 256 users")
    }
    let start = reader.position
    for _ in 0..<count { _ = try user() }
    let users = UnsafeRawBufferPointer(rebasing: reader.bytes[start..<reader.position])
    return .compare(board: board, users: UserList(users, count: count))
  }

  mutating func hello() throws(Refusal) -> HelloRequest {
    guard try integer(UInt32.self) == HelloRequest.magic else {
      throw Refusal(.foreign, "HELLO begins with RMS1")
    }
    let versionMin = try integer(UInt8.self)
    let versionMax = try integer(UInt8.self)
    let name = try text()
    let language = try text()
    let version = try text()
    let count = Int(try integer(UInt8.self))
    guard count <= Limits.optionsMax else {
      throw Refusal(.limitOutOfBounds, "HELLO takes at most 32 options")
    }
    let start = reader.position
    for _ in 0..<count * 2 { _ = try text() }
    return HelloRequest(
      versionMin: versionMin, versionMax: versionMax, name: name, language: language, version: version,
      optionCount: count, options: UnsafeRawBufferPointer(rebasing: reader.bytes[start..<reader.position]))
  }
}
