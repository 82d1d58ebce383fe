// What bytes of the other side can be wrong about. None of it is recoverable on that connection.

/// Why received bytes are no CQL.
public enum CodecError: Error, Hashable, Sendable {
  /// They end too early: `wanted` bytes at `atByte`, of which `left` are there.
  case truncated(atByte: Int, wanted: Int, left: Int)
  /// A length or count that is negative or above its limit; nothing was reserved for it.
  case tooLong(String, count: Int, max: Int)
  /// A number that stands for nothing known: an opcode, a kind, a type.
  case unknown(String, Int)
  /// A checksum that does not fit its bytes.
  case checksum(String)
  /// Anything else that contradicts the protocol.
  case malformed(String)
}

extension CodecError: CustomStringConvertible {
  /// A sentence that finds the byte.
  public var description: String {
    switch self {
    case .truncated(let atByte, let wanted, let left):
      "the message ends early: \(wanted) bytes wanted at byte \(atByte), \(left) are there"
    case .tooLong(let what, let count, let max): "\(what): \(count), which is not in 0...\(max)"
    case .unknown(let what, let number): "\(what) \(number) is not known"
    case .checksum(let what): "the checksum of \(what) does not fit its bytes"
    case .malformed(let what): what
    }
  }
}

/// Limits of what is read and written, each checked before memory is reserved.
public enum CQLLimits {
  /// Longest body of an answer, in bytes: Cassandra's own limit of a message is 16 MiB unless raised; pages may be larger.
  public static let bodyBytesMax = 256 << 20
  /// Longest body of a request, in bytes; Cassandra discards longer ones unless told otherwise.
  public static let requestBytesMax = 16 << 20
  /// Columns of a result or markers of a statement.
  public static let columnsMax = 65_535
  /// Statements of a batch; their count is a [short].
  public static let batchStatementsMax = 65_535
  /// Nesting of a type.
  public static let typeDepthMax = 32
  /// Stream ids of a connection; 0 is kept for answers that belong to no request.
  public static let streamsMax = 32_767
}
