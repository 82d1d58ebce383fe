// The seam between server and node: whole requests of one connection's turn in, frames out.

public import Bytes
public import Posix
public import QueryProtocol

/// Answers requests. The server answers HELLO and PING itself, refuses what is malformed, repeated, late or too much,
/// and hands on the rest.
public protocol QueryHandler: AnyObject, Sendable {
  /// Bytes that any answer takes beside its rows: header, context, marks of all shards.
  var answerOverheadBytes: Int { get }

  /// Answers the requests of one turn.
  ///
  /// Called on a reactor's thread, on several at once. Batches hold queries alone, or one request about the node alone
  /// (STATUS, dead letters, orders); those come on a thread of their own that no query is answered on. For each request
  /// append exactly one whole frame with its id to `out`, in any order, or say `batch.notYet`. Blocking here stops
  /// all connections of the reactor.
  ///
  /// - Parameters:
  ///   - batch: the requests; they borrow from the server's buffer and die when this returns.
  ///   - out: where frames are appended; room is reserved for the longest answers to all of the batch.
  func answer(_ batch: borrowing RequestBatch, into out: inout ByteWriter)
}

/// The whole requests that one connection sent in one turn.
public struct RequestBatch: ~Copyable {
  /// The requests, in the order they came; 1...256.
  public let requests: UnsafeBufferPointer<Incoming>
  /// When they were read.
  public let now: Moment
  let outcomes: UnsafeMutablePointer<Bool>

  /// A batch over somebody's memory.
  ///
  /// - Parameters:
  ///   - requests: outlive the batch.
  ///   - outcomes: one for each request, set to false; true afterwards for those that wait.
  ///   - now: when they were read.
  public init(requests: UnsafeBufferPointer<Incoming>, outcomes: UnsafeMutablePointer<Bool>, now: Moment) {
    self.requests = requests
    self.outcomes = outcomes
    self.now = now
  }

  /// How many requests.
  public var count: Int { requests.count }

  /// A shard's watermark has not reached the request's at_least: ask again after `Server.watermarksMoved`. No frame
  /// may be written for it; the server answers `at_least_timeout` when its time is up.
  ///
  /// - Parameter index: of the request.
  public func notYet(_ index: Int) {
    precondition(index >= 0 && index < requests.count, "request \(index) of \(requests.count)")
    outcomes[index] = true
  }

  /// Whether `notYet` was said.
  ///
  /// - Parameter index: of the request.
  /// - Returns: true if it was.
  public func isNotYet(_ index: Int) -> Bool { outcomes[index] }
}

/// What a request may cost, before it is carried out.
enum AnswerSize {
  /// Bytes of a row with the longest user id.
  static let rowBytesMax = 33 + 64
  /// Fixed fields of the longest answer without rows: RANK.
  static let fixedBytesMax = 128

  /// Most bytes of the answer to a request.
  static func max(_ request: Request, overhead: Int) -> Int {
    let rows: Int
    switch request {
    case .hello, .ping, .rank: rows = 0
    case .top(_, let limit, _): rows = limit
    case .around(_, _, let k): rows = 2 * k + 1
    case .compare(_, let users): rows = users.count
    case .summary: rows = 10
    case .boards, .status, .deadLetters, .admin: return Limits.lengthBytes + Limits.frameOutBytesMax
    }
    return min(
      fixedBytesMax + overhead + rows * rowBytesMax, Limits.lengthBytes + Limits.frameOutBytesMax)
  }

  private static func min(_ a: Int, _ b: Int) -> Int { a < b ? a : b }
}
