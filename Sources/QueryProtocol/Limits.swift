// The bounds of the query protocol, each with its reason. Protocol/query.md section 7 prints the same numbers.

/// What a peer may send, at most.
public enum Limits {
  /// Newest protocol version spoken here.
  public static let version: UInt8 = 1
  /// Oldest protocol version spoken here.
  public static let versionMin: UInt8 = 1

  /// Bytes before a frame's length counts: the length itself.
  public static let lengthBytes = 4
  /// Kind, flags, reserved bits and id: the least a frame's length may say.
  public static let headerBytes = 8
  /// Length of a request at most. Holds a COMPARE of 256 ids of 64 bytes four times over.
  public static let frameInBytesMax = 65_536
  /// Length of an answer at most. Holds 10,000 rows of 64-byte ids and the marks of 1,024 shards.
  public static let frameOutBytesMax = 1_048_576
  /// Length of a connection's first frame at most: what a stranger may make us keep.
  public static let helloBytesMax = 4_096
  /// Requests of one connection that may wait for their answers.
  public static let inFlightMax = 256
  /// Rows of one answer.
  public static let rowsMax = 10_000
  /// Neighbours on each side in AROUND: 2·k + 1 rows fit.
  public static let aroundMax = (rowsMax - 1) / 2
  /// Users of one COMPARE.
  public static let idsMax = 256
  /// Quantiles of one SUMMARY.
  public static let quantilesMax = 100
  /// Partitions a request may wait for.
  public static let atLeastMax = 16
  /// Options of a HELLO.
  public static let optionsMax = 32
  /// Shards of one cluster: as many marks fit beside a full page of rows.
  public static let shardsMax = 1_024
  /// Records of one DEADLETTERS answer: as many fit with `deadLetterBytesMax` bytes each.
  public static let deadLettersMax = 200
  /// Bytes of a dead letter that travel in DEADLETTERS; longer ones are cut, their length is told.
  public static let deadLetterBytesMax = 4_096
  /// Bytes of the one dead letter of an answer to a limit of 1: a long one travels in few answers.
  public static let deadLetterPartBytesMax = 1_000_000
  /// Boards listed by BOARDS.
  public static let boardsMax = 16_384
  /// Counters listed by STATUS.
  public static let countersMax = 1_024
}
