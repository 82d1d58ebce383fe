// Looking at topics, and making and deleting them, for tools and checks at start. Every call waits.
import CRdKafka

/// A client for questions about topics. Any thread, one at a time.
public final class Admin: @unchecked Sendable {
  // Goes before the client, which waits for what its queues hold.
  private let queue: Queue
  private let client: Client

  /// - Parameters:
  ///   - bootstrapServers: `host:port,…`.
  ///   - properties: librdkafka properties, without the `kafka.` prefix; those for consumers are left out.
  /// - Throws: `setting`.
  public init(
    bootstrapServers: String, properties: [(key: String, value: String)] = []
  ) throws(KafkaError) {
    let configuration = Configuration()
    configuration.withRaw { rd_kafka_conf_set_log_cb($0, nil) }
    for (key, value) in properties {
      guard configuration.value(key) != nil else { continue }
      try configuration.set(key, value)
    }
    try configuration.set("bootstrap.servers", bootstrapServers)
    client = try configuration.client(RD_KAFKA_PRODUCER, context: nil)
    queue = Queue(rd_kafka_queue_new(client.raw))
  }

  /// Describes a topic; a broker that refuses to show its configuration leaves those facts nil.
  ///
  /// - Parameters:
  ///   - topic: its name.
  ///   - timeoutMs: how long to wait for each of two answers, in milliseconds.
  /// - Returns: its facts.
  /// - Throws: `unknownTopic`, `failed`.
  public func facts(_ topic: String, timeoutMs: Int32 = 10_000) throws(KafkaError) -> TopicFacts {
    switch AdminRequests.look(client, topic, timeoutMs: timeoutMs) {
    case .plainTopic(let plain): return plain
    case .topicFailed(let error): throw error
    case .none, .topic, .configuration, .configurationFailed, .offsets, .offsetsFailed, .committed, .stored,
      .done, .other:
      break
    }
    AdminRequests.describeTopic(client, topic, queue, timeoutMs: timeoutMs)
    var facts: TopicFacts
    switch wait(topic, timeoutMs) {
    case .topic(let told): facts = told
    case .topicFailed(let error): throw error
    case .none: throw timedOut
    case .plainTopic, .configuration, .configurationFailed, .offsets, .offsetsFailed, .committed, .stored,
      .done,
      .other:
      preconditionFailure("an answer nobody asked for")
    }
    AdminRequests.describeConfiguration(client, topic, queue, timeoutMs: timeoutMs)
    if case .configuration(let policy, let type) = wait(topic, timeoutMs) {
      facts.cleanupPolicy = policy
      facts.timestampType = type
    }
    return facts
  }

  /// Begin and ends of a topic's partitions.
  ///
  /// - Parameters:
  ///   - facts: the topic.
  ///   - timeoutMs: how long to wait for each of three answers, in milliseconds.
  /// - Returns: by partition; partitions without a leader are missing.
  /// - Throws: `failed`.
  public func offsets(_ facts: TopicFacts, timeoutMs: Int32 = 10_000) throws(KafkaError) -> [Int32:
    OffsetRange]
  {
    var found: [AdminRequests.End: [Int32: Int64]] = [:]
    for end in AdminRequests.End.allCases {
      let partitions = Array(0..<facts.partitions)
      AdminRequests.listOffsets(client, facts.name, partitions, end, queue, timeoutMs: timeoutMs)
      switch wait(facts.name, timeoutMs) {
      case .offsets(end, let offsets): found[end] = offsets
      case .offsetsFailed(_, let failure): throw .failed(failure)
      case .none: throw timedOut
      case .offsets, .plainTopic, .topic, .topicFailed, .configuration, .configurationFailed, .committed,
        .stored,
        .done, .other:
        preconditionFailure("an answer nobody asked for")
      }
    }
    var ranges: [Int32: OffsetRange] = [:]
    for partition in 0..<facts.partitions {
      guard let low = found[.low]?[partition], let stable = found[.stable]?[partition],
        let high = found[.high]?[partition]
      else { continue }
      ranges[partition] = OffsetRange(low: low, stable: stable, high: high)
    }
    return ranges
  }

  /// Creates a topic.
  ///
  /// - Parameters:
  ///   - topic: its name.
  ///   - partitions: at least 1.
  ///   - replicas: copies of each partition; -1 takes the brokers' default.
  ///   - properties: topic configuration.
  ///   - timeoutMs: how long to wait, in milliseconds.
  /// - Throws: `failed`, also if it exists.
  public func createTopic(
    _ topic: String, partitions: Int32, replicas: Int32 = -1,
    properties: [(key: String, value: String)] = [], timeoutMs: Int32 = 30_000
  ) throws(KafkaError) {
    try AdminRequests.createTopic(
      client, topic, partitions: partitions, replicas: replicas, properties: properties, queue,
      timeoutMs: timeoutMs)
    try done(topic, timeoutMs)
  }

  /// Deletes a topic.
  ///
  /// - Parameters:
  ///   - topic: its name.
  ///   - timeoutMs: how long to wait, in milliseconds.
  /// - Throws: `failed`, also if it does not exist.
  public func deleteTopic(_ topic: String, timeoutMs: Int32 = 30_000) throws(KafkaError) {
    AdminRequests.deleteTopic(client, topic, queue, timeoutMs: timeoutMs)
    try done(topic, timeoutMs)
  }

  /// Deletes a topic's oldest records.
  ///
  /// - Parameters:
  ///   - topic: its name.
  ///   - before: by partition, the first offset that stays.
  ///   - timeoutMs: how long to wait, in milliseconds.
  /// - Throws: `failed`.
  public func deleteRecords(
    _ topic: String, before: [Int32: Int64], timeoutMs: Int32 = 30_000
  ) throws(KafkaError) {
    AdminRequests.deleteRecords(client, topic, before: before, queue, timeoutMs: timeoutMs)
    try done(topic, timeoutMs)
  }

  /// What a group has stored.
  ///
  /// - Parameters:
  ///   - group: its name.
  ///   - topic: the topic.
  ///   - partitions: how many of it, from 0.
  ///   - timeoutMs: how long to wait, in milliseconds.
  /// - Returns: by partition.
  /// - Throws: `failed`.
  public func groupOffsets(
    _ group: String, _ topic: String, partitions: Int32, timeoutMs: Int32 = 10_000
  ) throws(KafkaError) -> [GroupOffset] {
    AdminRequests.groupOffsets(client, group, topic, Array(0..<partitions), queue, timeoutMs: timeoutMs)
    guard case .stored(let stored?) = wait(topic, timeoutMs) else { throw timedOut }
    return stored.map { GroupOffset(partition: $0.key, $0.value) }.sorted { $0.partition < $1.partition }
  }

  /// Moves the offsets of a group without members, as an operator's tool does.
  ///
  /// - Parameters:
  ///   - group: its name.
  ///   - topic: the topic.
  ///   - offsets: by partition.
  ///   - timeoutMs: how long to wait, in milliseconds.
  /// - Throws: `failed`, also if the group has members.
  public func setGroupOffsets(
    _ group: String, _ topic: String, _ offsets: [Int32: Int64], timeoutMs: Int32 = 10_000
  ) throws(KafkaError) {
    AdminRequests.setGroupOffsets(client, group, topic, offsets, queue, timeoutMs: timeoutMs)
    try done(topic, timeoutMs)
  }

  private func done(_ topic: String, _ timeoutMs: Int32) throws(KafkaError) {
    switch wait(topic, timeoutMs) {
    case .done(.none): return
    case .done(.some(let failure)): throw .failed(failure)
    case .none: throw timedOut
    case .plainTopic, .topic, .topicFailed, .configuration, .configurationFailed, .offsets, .offsetsFailed,
      .committed, .stored, .other:
      preconditionFailure("an answer nobody asked for")
    }
  }

  /// Waits a little longer than librdkafka does, so that its own sentence comes through.
  private func wait(_ topic: String, _ timeoutMs: Int32) -> AdminReply? {
    AdminRequests.reply(queue, topic, timeoutMs: timeoutMs + 1_000)
  }

  private var timedOut: KafkaError {
    .failed(KafkaFailure(RD_KAFKA_RESP_ERR__TIMED_OUT, text: "no broker answered in time"))
  }
}
