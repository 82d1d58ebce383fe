// Requests, written by clients. Every function appends one whole frame; layouts stand at `Request`.

public import Bytes
public import StepModel

/// What may accompany any request but HELLO.
public struct RequestOptions: Equatable, Sendable {
  /// Milliseconds to wait for the answer; nil for no bound.
  public var deadlineMillis: UInt32?
  /// Records that the answer must reflect, at most `Limits.atLeastMax`.
  public var atLeast: [AtLeast]

  public init(deadlineMillis: UInt32? = nil, atLeast: [AtLeast] = []) {
    self.deadlineMillis = deadlineMillis
    self.atLeast = atLeast
  }
}

/// A request that owns what it says.
public enum OwnedRequest: Equatable, Sendable {
  case hello(versionMin: UInt8, versionMax: UInt8, client: ClientName, options: [Option])
  case ping
  case top(board: BoardName, limit: UInt32, from: Start)
  case rank(board: BoardName, user: UserID)
  case around(board: BoardName, user: UserID, k: UInt32)
  case compare(board: BoardName, users: [UserID])
  case summary(board: BoardName, quantiles: [UInt8])
  case boards
  case status
  /// Dead letters from a position in the node's file, 0 or as an answer named it.
  /// Each value from byte `skip` on.
  case deadLetters(position: UInt64, limit: UInt32, skip: UInt32)
  /// An order; nil is all partitions.
  case admin(AdminVerb, partition: UInt32?)

  /// Where a page begins.
  public enum Start: Equatable, Sendable {
    case offset(UInt64)
    /// Strictly after this row: the last one of the page before.
    case after(steps: UInt64, user: UserID)
  }

  /// An option of HELLO.
  public struct Option: Equatable, Sendable {
    public var key: String
    public var value: String

    public init(key: String, value: String) {
      self.key = key
      self.value = value
    }
  }

  /// Who asks.
  public struct ClientName: Equatable, Sendable {
    public var name: String
    public var language: String
    public var version: String

    public init(name: String, language: String = "swift", version: String = "1") {
      self.name = name
      self.language = language
      self.version = version
    }
  }

  /// The request's kind.
  public var kind: Kind {
    switch self {
    case .hello: .hello
    case .ping: .ping
    case .top: .top
    case .rank: .rank
    case .around: .around
    case .compare: .compare
    case .summary: .summary
    case .boards: .boards
    case .status: .status
    case .deadLetters: .deadLetters
    case .admin: .admin
    }
  }
}

/// Encodes requests.
public enum RequestWriter {
  /// Appends a request.
  ///
  /// - Parameters:
  ///   - request: counts beyond the protocol's fields are cut (255 texts, 65,535 users); the server judges the rest.
  ///   - id: not 0, and not of a request that waits for its answer.
  ///   - options: deadline and offsets to wait for.
  ///   - out: where the frame is appended.
  public static func write(
    _ request: OwnedRequest, id: UInt32, options: RequestOptions = RequestOptions(),
    into out: inout ByteWriter
  ) {
    let start = begin(request.kind, id: id, options, &out)
    switch request {
    case .hello(let versionMin, let versionMax, let client, let options):
      hello(versionMin, versionMax, client, options, &out)
    case .ping, .boards, .status: break
    case .deadLetters(let position, let limit, let skip):
      out.integer(position)
      out.integer(limit)
      out.integer(skip)
    case .admin(let verb, let partition):
      out.integer(verb.rawValue)
      out.integer(partition.map { Int32(clamping: $0) } ?? -1)
    case .top(let board, let limit, let from):
      out.board(board)
      out.integer(limit)
      switch from {
      case .offset(let offset):
        out.integer(UInt8(0))
        out.integer(offset)
      case .after(let steps, let user):
        out.integer(UInt8(1))
        out.integer(steps)
        out.text8(user.text)
      }
    case .rank(let board, let user):
      out.board(board)
      out.text8(user.text)
    case .around(let board, let user, let k):
      out.board(board)
      out.text8(user.text)
      out.integer(k)
    case .compare(let board, let users):
      out.board(board)
      out.integer(UInt16(clamping: users.count))
      for user in users.prefix(65_535) { out.text8(user.text) }
    case .summary(let board, let quantiles):
      out.board(board)
      out.integer(UInt8(clamping: quantiles.count))
      for quantile in quantiles.prefix(255) { out.integer(quantile) }
    }
    end(start, &out)
  }

  /// Appends a RANK without owning the user id: for load generators.
  ///
  /// - Parameters:
  ///   - board: the board.
  ///   - user: a valid user id.
  ///   - id: not 0, unused.
  ///   - out: where the frame is appended.
  /// - Complexity: O(length of the id), no allocation once the buffer has grown.
  public static func rank(
    board: BoardName, user: UnsafeRawBufferPointer, id: UInt32, into out: inout ByteWriter
  ) {
    let start = header(.rank, 0, id, &out)
    out.board(board)
    out.bytes8(user)
    end(start, &out)
  }

  private static func hello(
    _ versionMin: UInt8, _ versionMax: UInt8, _ client: OwnedRequest.ClientName,
    _ options: [OwnedRequest.Option], _ out: inout ByteWriter
  ) {
    out.integer(HelloRequest.magic)
    out.integer(versionMin)
    out.integer(versionMax)
    out.text8(client.name)
    out.text8(client.language)
    out.text8(client.version)
    out.integer(UInt8(clamping: options.count))
    for option in options.prefix(255) {
      out.text8(option.key)
      out.text8(option.value)
    }
  }

  private static func begin(
    _ kind: Kind, id: UInt32, _ options: RequestOptions, _ out: inout ByteWriter
  ) -> Int {
    var flags: UInt8 = 0
    if options.deadlineMillis != nil { flags |= RequestFlags.deadline }
    if !options.atLeast.isEmpty { flags |= RequestFlags.atLeast }
    let start = header(kind, flags, id, &out)
    if let deadline = options.deadlineMillis { out.integer(deadline) }
    if !options.atLeast.isEmpty {
      out.integer(UInt8(clamping: options.atLeast.count))
      for wait in options.atLeast.prefix(255) {
        out.integer(wait.partition)
        out.integer(wait.offset)
      }
    }
    return start
  }

  private static func header(_ kind: Kind, _ flags: UInt8, _ id: UInt32, _ out: inout ByteWriter) -> Int {
    let start = out.count
    out.integer(UInt32(0))
    out.integer(kind.rawValue)
    out.integer(flags)
    out.integer(UInt16(0))
    out.integer(id)
    return start
  }

  private static func end(_ start: Int, _ out: inout ByteWriter) {
    out.patch(UInt32(truncatingIfNeeded: out.count &- start &- Limits.lengthBytes), at: start)
  }
}
