// The error numbers of the query protocol: one table. Numbers are never reused; Protocol/query.md section 6 prints
// the same rows, and a test compares the two.

/// Why a request, or a whole connection, was refused.
public struct ErrorCode: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
  public let rawValue: UInt16

  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// The payload does not have the layout of its kind, or the id is 0.
  public static let malformed = ErrorCode(rawValue: 1)
  /// No message has this kind.
  public static let unknownKind = ErrorCode(rawValue: 2)
  /// The client's version range and the server's do not meet.
  public static let unsupportedVersion = ErrorCode(rawValue: 3)
  /// Another message came before HELLO, or HELLO came again.
  public static let helloFirst = ErrorCode(rawValue: 4)
  /// The id belongs to a request that is not answered yet.
  public static let duplicateID = ErrorCode(rawValue: 5)
  /// More requests wait than HELLO's answer allows.
  public static let tooManyInFlight = ErrorCode(rawValue: 6)
  /// The frame is longer than HELLO's answer allows, or shorter than its header.
  public static let frameSize = ErrorCode(rawValue: 7)
  /// A limit, k, count or quantile is outside its bounds.
  public static let limitOutOfBounds = ErrorCode(rawValue: 8)
  /// The board is not kept here, or there is no such date.
  public static let noSuchBoard = ErrorCode(rawValue: 9)
  /// A user id is empty, too long, not UTF-8, or holds a control character.
  public static let badUser = ErrorCode(rawValue: 10)
  /// The request's time ran out before it was answered.
  public static let deadlineExceeded = ErrorCode(rawValue: 11)
  /// The awaited record was not applied in time.
  public static let atLeastTimeout = ErrorCode(rawValue: 12)
  /// The server has more work than it takes.
  public static let overloaded = ErrorCode(rawValue: 13)
  /// The node is leaving; another one answers.
  public static let draining = ErrorCode(rawValue: 14)
  /// The server failed; its log says how.
  public static let serverError = ErrorCode(rawValue: 15)
  /// The client's role does not allow this.
  public static let notAllowed = ErrorCode(rawValue: 16)
  /// The first bytes belong to another protocol.
  public static let foreign = ErrorCode(rawValue: 17)
  /// The topic has no such partition.
  public static let unknownPartition = ErrorCode(rawValue: 18)
  /// The message is known, but this server does not answer it.
  public static let unsupported = ErrorCode(rawValue: 19)
  /// A reserved flag or byte is not 0.
  public static let reservedBits = ErrorCode(rawValue: 20)
  /// The client was silent, or did not read, for too long.
  public static let idle = ErrorCode(rawValue: 21)
  /// The server has as many connections as it takes, in all or from this address.
  public static let tooManyConnections = ErrorCode(rawValue: 22)
  /// The node, or the shard, is in no state to carry the order out; the text says why.
  public static let notPossible = ErrorCode(rawValue: 23)

  /// A row of the table.
  public struct Row: Sendable {
    public let code: ErrorCode
    /// Stable name, as in Protocol/query.md and in JSON.
    public let name: String
    /// Whether the same request may succeed later, here or at another node.
    public let retryable: Bool
    /// Whether the server closes the connection after this error.
    public let closes: Bool
    /// What it means, for people.
    public let meaning: String
  }

  private static func row(
    _ code: ErrorCode, _ name: String, retryable: Bool = false, closes: Bool = false, _ meaning: String
  ) -> Row {
    Row(code: code, name: name, retryable: retryable, closes: closes, meaning: meaning)
  }

  /// All codes, in the order of their numbers.
  public static let table: [Row] = [
    row(.malformed, "malformed", "the payload does not have the layout of its kind, or the id is 0"),
    row(.unknownKind, "unknown_kind", "no message has this kind"),
    row(.unsupportedVersion, "unsupported_version", "no common version; the text names the server's range"),
    row(.helloFirst, "hello_first", closes: true, "HELLO comes first, and once"),
    row(.duplicateID, "duplicate_id", "a request with this id is not answered yet"),
    row(
      .tooManyInFlight, "too_many_in_flight", retryable: true, "more requests wait than HELLO's answer allows"
    ),
    row(
      .frameSize, "frame_size", closes: true, "the frame is longer than allowed, or shorter than its header"),
    row(.limitOutOfBounds, "limit_out_of_bounds", "a limit, k, count or quantile is outside its bounds"),
    row(.noSuchBoard, "no_such_board", "the board is not kept here, or there is no such date"),
    row(.badUser, "bad_user", "a user id is empty, over 64 bytes, not UTF-8, or holds a control character"),
    row(.deadlineExceeded, "deadline_exceeded", retryable: true, "the request's time ran out"),
    row(.atLeastTimeout, "at_least_timeout", retryable: true, "the awaited record was not applied in time"),
    row(.overloaded, "overloaded", retryable: true, "the server has more work than it takes"),
    row(.draining, "draining", retryable: true, "the node is leaving; ask another one"),
    row(.serverError, "internal", "the server failed; its log says how"),
    row(.notAllowed, "not_allowed", "the client's role does not allow this"),
    row(.foreign, "foreign", closes: true, "the first bytes belong to another protocol"),
    row(.unknownPartition, "unknown_partition", "the topic has no such partition"),
    row(.unsupported, "unsupported", "the message is known, but this server does not answer it"),
    row(.reservedBits, "reserved_bits", "a reserved flag or byte is not 0"),
    row(.idle, "idle", retryable: true, closes: true, "the client was silent, or did not read, for too long"),
    row(
      .tooManyConnections, "too_many_connections", retryable: true, closes: true,
      "the server has as many connections as it takes, in all or from this address"),
    row(.notPossible, "not_possible", "the node or the shard is in no state to do this; the text says why"),
  ]

  /// The code's row; nil for a number of a later version.
  public var row: Row? {
    let index = Int(rawValue) - 1
    return ErrorCode.table.indices.contains(index) ? ErrorCode.table[index] : nil
  }

  /// The stable name; `error 99` for a number of a later version.
  public var name: String { row?.name ?? "error \(rawValue)" }
}

extension ErrorCode: CustomStringConvertible {
  public var description: String { name }
}

/// Why a request is not carried out, to be written as an ERROR frame. Small and free of references.
public struct Refusal: Error, Sendable {
  public let code: ErrorCode
  /// A sentence for people.
  public let text: StaticString

  public init(_ code: ErrorCode, _ text: StaticString) {
    self.code = code
    self.text = text
  }
}

extension Refusal: Equatable {
  /// Two refusals are the same if their codes are: texts are for people.
  public static func == (a: Refusal, b: Refusal) -> Bool { a.code == b.code }
}
