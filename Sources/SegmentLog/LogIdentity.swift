// Whose log it is. Every file of a shard carries this, so that a file in the wrong place is refused by name.

/// A shard's name in its files.
public struct LogIdentity: Hashable, Sendable {
  /// The 16 bytes that Kafka gives a topic when it is created; a recreated topic has others.
  @frozen public struct TopicID: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
    /// Bytes 0 to 7, big-endian.
    public let high: UInt64
    /// Bytes 8 to 15, big-endian.
    public let low: UInt64

    @inlinable public init(high: UInt64, low: UInt64) {
      self.high = high
      self.low = low
    }

    /// 32 hexadecimal digits.
    public var description: String { TopicID.digits(high) + TopicID.digits(low) }
  }

  /// Longest topic name, in bytes of UTF-8: Kafka's own limit.
  public static let topicBytesMax = 249

  /// The topic's name.
  public let topic: String
  public let topicID: TopicID
  public let partition: Int32
  /// `ClusterSettings.fingerprint` as a number: under other settings the same records make another state.
  public let fingerprint: UInt64

  /// - Parameters:
  ///   - topic: 1 to `topicBytesMax` bytes of UTF-8.
  ///   - topicID: which incarnation of the topic.
  ///   - partition: 0 or more.
  ///   - fingerprint: of the cluster's settings.
  public init(topic: String, topicID: TopicID, partition: Int32, fingerprint: UInt64) {
    precondition(
      (1...LogIdentity.topicBytesMax).contains(topic.utf8.count),
      "a topic's name of \(topic.utf8.count) bytes")
    precondition(partition >= 0, "partition \(partition)")
    self.topic = topic
    self.topicID = topicID
    self.partition = partition
    self.fingerprint = fingerprint
  }

  /// The shard's folder below the data folder.
  public var folderName: String { "\(topic)-\(partition)" }

  /// The first thing in which another identity differs.
  ///
  /// - Parameter other: what a file says.
  /// - Returns: the field with both values; nil if they are the same.
  public func difference(_ other: LogIdentity) -> IdentityDifference? {
    if other.topic != topic {
      return IdentityDifference(field: .topic, found: other.topic, expected: topic)
    }
    if other.topicID != topicID {
      return IdentityDifference(field: .topicID, found: "\(other.topicID)", expected: "\(topicID)")
    }
    if other.partition != partition {
      return IdentityDifference(field: .partition, found: "\(other.partition)", expected: "\(partition)")
    }
    if other.fingerprint != fingerprint {
      return IdentityDifference(
        field: .settings, found: TopicID.digits(other.fingerprint),
        expected: TopicID.digits(fingerprint))
    }
    return nil
  }
}

/// In what a file belongs to somebody else.
public struct IdentityDifference: Hashable, Sendable, CustomStringConvertible {
  /// What differs.
  public enum Field: Hashable, Sendable {
    case topic
    case topicID
    case partition
    /// The fingerprint of the cluster's settings.
    case settings
  }

  public let field: Field
  public let found: String
  public let expected: String

  public init(field: Field, found: String, expected: String) {
    self.field = field
    self.found = found
    self.expected = expected
  }

  /// `topic id 00… found, 11… expected`.
  public var description: String {
    let name =
      switch field {
      case .topic: "topic"
      case .topicID: "topic id"
      case .partition: "partition"
      case .settings: "settings fingerprint"
      }
    return "\(name) \(found) found, \(expected) expected"
  }
}

extension LogIdentity.TopicID {
  /// 16 hexadecimal digits.
  static func digits(_ word: UInt64) -> String {
    let text = String(word, radix: 16)
    return String(repeating: "0", count: 16 - text.utf8.count) + text
  }
}
