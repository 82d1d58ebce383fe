// What a topic is, as far as correctness depends on it: its identity, size and clean-up.

/// Kafka's id of a topic: two topics of one name that existed one after the other have different ids.
public struct TopicID: Hashable, Sendable, CustomStringConvertible {
  /// Bytes 0 to 7, big-endian.
  public let high: UInt64
  /// Bytes 8 to 15, big-endian.
  public let low: UInt64

  /// - Parameters:
  ///   - high: bytes 0 to 7, big-endian.
  ///   - low: bytes 8 to 15, big-endian.
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// Reads an id; nil if the text is not 22 characters of base 64.
  ///
  /// - Parameter text: Kafka's own spelling, in either alphabet.
  public init?(_ text: some StringProtocol) {
    let characters = Array(text.utf8)
    guard characters.count == 22 else { return nil }
    var high: UInt64 = 0
    var low: UInt64 = 0
    for (place, character) in characters.enumerated() {
      let value: UInt64
      switch character {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = UInt64(character) - 65
      case UInt8(ascii: "a")...UInt8(ascii: "z"): value = UInt64(character) - 71
      case UInt8(ascii: "0")...UInt8(ascii: "9"): value = UInt64(character) + 4
      case UInt8(ascii: "-"), UInt8(ascii: "+"): value = 62
      case UInt8(ascii: "_"), UInt8(ascii: "/"): value = 63
      default: return nil
      }
      // 22 characters hold 132 bits; the last four are padding.
      let bits: UInt64 = place == 21 ? 2 : 6
      high = high << bits | low >> (64 - bits)
      low = low << bits | value >> (6 - bits)
    }
    self.init(high: high, low: low)
  }

  /// The broker does not know topic ids (before Kafka 2.8).
  public var isZero: Bool { high == 0 && low == 0 }

  /// Kafka's own spelling: 22 characters of URL-safe base 64.
  public var description: String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
    var bytes = (0..<8).map { UInt8(truncatingIfNeeded: high >> UInt64(56 - 8 * $0)) }
    bytes += (0..<8).map { UInt8(truncatingIfNeeded: low >> UInt64(56 - 8 * $0)) }
    bytes += [0, 0]
    var text: [UInt8] = []
    for i in stride(from: 0, to: 18, by: 3) {
      let three = Int(bytes[i]) << 16 | Int(bytes[i + 1]) << 8 | Int(bytes[i + 2])
      for shift in [18, 12, 6, 0] { text.append(alphabet[three >> shift & 63]) }
    }
    return String(decoding: text.prefix(22), as: UTF8.self)
  }
}

/// What the brokers say about a topic.
public struct TopicFacts: Equatable, Sendable {
  /// Name of the topic.
  public var name: String
  /// Its id; nil where brokers have none.
  public var id: TopicID?
  /// Number of partitions, at least 1.
  public var partitions: Int32
  /// `cleanup.policy`; nil if the broker does not say (no right to describe configurations).
  public var cleanupPolicy: String?
  /// `message.timestamp.type`: `CreateTime` or `LogAppendTime`; nil if the broker does not say.
  public var timestampType: String?

  /// - Parameters:
  ///   - name: name of the topic.
  ///   - id: its id, if brokers have one.
  ///   - partitions: number of partitions.
  ///   - cleanupPolicy: `cleanup.policy`, if known.
  ///   - timestampType: `message.timestamp.type`, if known.
  public init(
    name: String, id: TopicID?, partitions: Int32, cleanupPolicy: String? = nil, timestampType: String? = nil
  ) {
    self.name = name
    self.id = id
    self.partitions = partitions
    self.cleanupPolicy = cleanupPolicy
    self.timestampType = timestampType
  }

  /// Whether older records of a key may vanish.
  public var isCompacted: Bool {
    cleanupPolicy?.split(separator: ",").contains { $0.filter { $0 != " " } == "compact" } ?? false
  }

  /// Why the topic must not be read; nil if it may be.
  ///
  /// - Parameters:
  ///   - expected: id the shards' state was made from; nil if there is no state.
  ///   - addsIncrements: whether each record adds to a total, so that none may vanish.
  /// - Returns: `topicRecreated` or `compacted`; nil if it may be read.
  public func refusal(expected: TopicID?, addsIncrements: Bool) -> KafkaError? {
    if let expected, let id, id != expected { return .topicRecreated(topic: name, old: expected, new: id) }
    if addsIncrements, isCompacted { return .compacted(topic: name) }
    return nil
  }
}

/// Where a partition begins and ends.
public struct OffsetRange: Equatable, Sendable {
  /// Oldest offset still there (low watermark).
  public var low: Int64
  /// Last stable offset: the end for who reads committed records.
  public var stable: Int64
  /// Offset after the last record of any kind (high watermark).
  public var high: Int64

  /// - Parameters:
  ///   - low: oldest offset still there.
  ///   - stable: last stable offset.
  ///   - high: offset after the last record.
  public init(low: Int64, stable: Int64, high: Int64) {
    self.low = low
    self.stable = stable
    self.high = high
  }
}
