// What a consumer is told, and which of librdkafka's own properties may not be changed because correctness needs them.
import CRdKafka

/// Everything a consumer needs to start.
public struct ConsumerSettings: Sendable {
  /// `host:port,…`.
  public var bootstrapServers: String
  /// The one topic that is read.
  public var topic: String
  /// The consumer group; membership only, reading never starts from its offsets.
  public var groupID: String
  /// The name under which this process is a member of the group, at most one at a time: killed and back within the
  /// session's timeout it has its partitions again at once, and of two of one name the older is fenced. Nil for a new
  /// member at each start, for whose predecessor the group waits that timeout.
  public var instanceID: String?
  /// Sent with each request; carries the node's advertised address.
  public var clientID: String
  /// librdkafka properties by name, without the `kafka.` prefix, in the order given.
  public var properties: [(key: String, value: String)]
  /// Id of the topic the caller's state was made from; nil if there is no state yet.
  public var topicID: TopicID?
  /// Whether a record adds to a total: compacted topics are then refused.
  public var addsIncrements: Bool
  /// Most records taken from librdkafka at a time, all partitions together.
  public var batchCountMax: Int
  /// How long an open transaction may hold a partition's last stable offset back before it is told, in
  /// milliseconds.
  public var heldBackMsMax: Int64
  /// First offset wanted of a partition that is assigned; nil lets it wait, unread, until `resume` names one. Called
  /// inside `poll`, on its thread.
  public var startOffset: @Sendable (_ partition: Int32) -> Int64?

  /// - Parameters:
  ///   - bootstrapServers: `host:port,…`.
  ///   - topic: the topic.
  ///   - groupID: the consumer group.
  ///   - instanceID: name of this member of the group; nil for a new member at each start.
  ///   - clientID: name in requests and broker logs.
  ///   - properties: librdkafka properties, without the `kafka.` prefix.
  ///   - topicID: id the caller's state was made from.
  ///   - addsIncrements: whether compacted topics are refused.
  ///   - batchCountMax: most records a poll takes, 1...100,000.
  ///   - heldBackMsMax: when to tell of an open transaction, in milliseconds.
  ///   - startOffset: first offset wanted of a partition; nil to wait for `resume`.
  public init(
    bootstrapServers: String, topic: String, groupID: String, instanceID: String? = nil,
    clientID: String = "rankmysteps",
    properties: [(key: String, value: String)] = [], topicID: TopicID? = nil, addsIncrements: Bool = true,
    batchCountMax: Int = 10_000, heldBackMsMax: Int64 = 60_000,
    startOffset: @escaping @Sendable (_ partition: Int32) -> Int64? = { _ in 0 }
  ) {
    self.bootstrapServers = bootstrapServers
    self.topic = topic
    self.groupID = groupID
    self.instanceID = instanceID
    self.clientID = clientID
    self.properties = properties
    self.topicID = topicID
    self.addsIncrements = addsIncrements
    self.batchCountMax = batchCountMax
    self.heldBackMsMax = heldBackMsMax
    self.startOffset = startOffset
  }

  /// Checks everything that can be checked without a broker, the properties by librdkafka itself.
  ///
  /// - Throws: `setting` with the key and a sentence.
  public func validate() throws(KafkaError) { _ = try configuration() }

  /// A table row a property that may not be changed: what it is fixed to, and why.
  static let fixed: [(key: String, value: String, why: String)] = [
    ("enable.auto.commit", "false", "offsets are committed only after the records are in the log"),
    ("enable.auto.offset.store", "false", "offsets are committed only after the records are in the log"),
    (
      "auto.offset.reset", "error",
      "a start position comes from the shard's own state; a jump would lose records"
    ),
    ("isolation.level", "read_committed", "records of aborted transactions must not be counted"),
    ("check.crcs", "true", "a damaged record batch must not be counted"),
    ("enable.partition.eof", "true", "the end of a partition decides when a shard has caught up"),
    (
      "partition.assignment.strategy", "cooperative-sticky",
      "shards that stay must not be stopped by a rebalance"
    ),
    ("group.protocol", "classic", "the new protocol refuses a start position chosen by the client"),
    (
      "statistics.interval.ms", "5000",
      "offsets are committed while the group rests, which the statistics tell"
    ),
    (
      "allow.auto.create.topics", "false",
      "reading must not create a topic with the broker's default partitions"
    ),
  ]

  /// What is fast for small records; any of it may be changed.
  static let tuned: [(key: String, value: String)] = [
    ("queued.min.messages", "500000"),
    ("queued.max.messages.kbytes", "65536"),
    ("fetch.message.max.bytes", "4194304"),
    ("fetch.max.bytes", "67108864"),
    ("fetch.wait.max.ms", "20"),
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("socket.nagle.disable", "true"),
    ("reconnect.backoff.max.ms", "2000"),
  ]

  /// The debug lines asked for; empty for none.
  var debug: String { properties.last { $0.key == "debug" }?.value ?? "" }

  func configuration() throws(KafkaError) -> Configuration {
    guard !bootstrapServers.isEmpty else {
      throw .setting(key: "bootstrap.servers", reason: "is empty; give host:port[,host:port…]")
    }
    guard (1...249).contains(topic.utf8.count) else {
      throw .setting(key: "topic", reason: "is empty or longer than 249 bytes")
    }
    guard !groupID.isEmpty else { throw .setting(key: "group.id", reason: "is empty") }
    guard (1...100_000).contains(batchCountMax) else {
      throw .setting(key: "batch", reason: "takes 1 to 100000 records, not \(batchCountMax)")
    }
    let configuration = Configuration()
    for (key, value) in ConsumerSettings.tuned { try configuration.set(key, value) }
    try configuration.set("bootstrap.servers", bootstrapServers)
    try configuration.set("group.id", groupID)
    try configuration.set("client.id", clientID)
    for (key, value) in properties {
      // The older name of the same thing; librdkafka warns whenever it is set.
      let name = key == "auto.commit.enable" ? "enable.auto.commit" : key
      if let row = ConsumerSettings.fixed.first(where: { $0.key == name }) {
        guard value == row.value else {
          throw .setting(key: key, reason: "is fixed to \(row.value): \(row.why); remove the line")
        }
      }
      try configuration.set(key, value)
    }
    if let instanceID { try configuration.set("group.instance.id", instanceID) }
    for row in ConsumerSettings.fixed { try configuration.set(row.key, row.value) }
    try configuration.set("log.queue", "true")
    return configuration
  }
}
