// A producer for tools, the demo and tests: every record is accounted for as produced or failed.
import CRdKafka

/// Sends records to one topic. One thread at a time.
public final class Producer: @unchecked Sendable {
  /// What the delivery reports said so far.
  public struct Counts: Equatable, Sendable {
    /// Records a broker has acknowledged.
    public var produced: UInt64 = 0
    /// Records given up, each with its reason told by librdkafka.
    public var failed: UInt64 = 0
    /// The reason of the first failure.
    public var firstFailure: KafkaFailure?
  }

  /// Where the delivery callback counts; it runs inside this producer's own calls.
  private final class Reports {
    var counts = Counts()
    var fatal: KafkaFailure?
  }

  private let reports = Reports()
  // Goes before the client, which waits for its topics.
  private let topic: Topic
  private let client: Client
  private var sinceServed = 0
  private let isTransactional: Bool

  /// - Parameters:
  ///   - bootstrapServers: `host:port,…`.
  ///   - topic: the topic.
  ///   - transactionalID: makes it transactional; nil for an idempotent producer.
  ///   - properties: librdkafka properties over the defaults, without the `kafka.` prefix.
  ///   - lingerMs: longest wait for a batch to fill, in milliseconds.
  /// - Throws: `setting`; `failed` if a transactional producer finds no coordinator.
  public init(
    bootstrapServers: String, topic: String, transactionalID: String? = nil,
    properties: [(key: String, value: String)] = [], lingerMs: Int32 = 5
  ) throws(KafkaError) {
    let configuration = Configuration()
    try configuration.set("bootstrap.servers", bootstrapServers)
    try configuration.set("linger.ms", String(lingerMs))
    try configuration.set("enable.idempotence", "true")
    try configuration.set("batch.num.messages", "10000")
    try configuration.set("batch.size", "1000000")
    try configuration.set("queue.buffering.max.messages", "500000")
    try configuration.set("queue.buffering.max.kbytes", "131072")
    // The default partitioner of Java's clients: a key, and so a user, has one place whoever writes it.
    try configuration.set("partitioner", "murmur2_random")
    if configuration.value("builtin.features")?.split(separator: ",").contains("lz4") ?? false {
      try configuration.set("compression.codec", "lz4")
    }
    for (key, value) in properties { try configuration.set(key, value) }
    isTransactional = transactionalID != nil
    if let transactionalID { try configuration.set("transactional.id", transactionalID) }
    Producer.installCallbacks(configuration)
    client = try configuration.client(RD_KAFKA_PRODUCER, context: reports)
    guard let raw = rd_kafka_topic_new(client.raw, topic, nil) else {
      throw .failed(KafkaFailure(rd_kafka_last_error()))
    }
    self.topic = Topic(raw)
    if isTransactional { try check(rd_kafka_init_transactions(client.raw, 30_000)) }
  }

  /// What became of the records so far.
  public var counts: Counts { reports.counts }

  /// Records not yet reported on.
  public var pending: Int { Int(rd_kafka_outq_len(client.raw)) }

  /// Queues a record; the bytes are copied. Waits while the queue is full.
  ///
  /// - Parameters:
  ///   - payload: the value; nil for a null value.
  ///   - key: the key; nil for none.
  ///   - partition: where to; nil lets the key decide (at random without one).
  ///   - timestampMs: record timestamp in milliseconds since 1970; nil takes the clock.
  /// - Throws: `failed`, `fatal`.
  public func produce(
    _ payload: UnsafeRawBufferPointer?, key: UnsafeRawBufferPointer? = nil, partition: Int32? = nil,
    timestampMs: Int64? = nil
  ) throws(KafkaError) {
    sinceServed += 1
    if sinceServed >= 1_000 {
      sinceServed = 0
      rd_kafka_poll(client.raw, 0)
    }
    while true {
      let error = rms_kafka_produce(
        client.raw, topic.raw, partition ?? RD_KAFKA_PARTITION_UA, timestampMs ?? 0, Producer.start(key),
        key?.count ?? 0, Producer.start(payload), payload?.count ?? 0)
      if error == RD_KAFKA_RESP_ERR_NO_ERROR { return }
      if let fatal = reports.fatal { throw .fatal(fatal) }
      guard error == RD_KAFKA_RESP_ERR__QUEUE_FULL else { throw .failed(KafkaFailure(error)) }
      rd_kafka_poll(client.raw, 50)
    }
  }

  /// Queues a record of text; the convenience of tests and tools.
  ///
  /// - Parameters:
  ///   - text: the value.
  ///   - key: the key; nil for none.
  ///   - partition: where to; nil lets the key decide.
  ///   - timestampMs: record timestamp in milliseconds since 1970; nil takes the clock.
  /// - Throws: `failed`, `fatal`.
  public func produce(
    _ text: String, key: String? = nil, partition: Int32? = nil, timestampMs: Int64? = nil
  ) throws(KafkaError) {
    var text = Array(text.utf8)
    var name = key.map { Array($0.utf8) } ?? []
    let result: Result<Void, KafkaError> = text.withUnsafeMutableBytes { payload in
      name.withUnsafeMutableBytes { bytes in
        Result { () throws(KafkaError) in
          try produce(
            UnsafeRawBufferPointer(payload), key: key == nil ? nil : UnsafeRawBufferPointer(bytes),
            partition: partition, timestampMs: timestampMs)
        }
      }
    }
    try result.get()
  }

  /// Takes delivery reports without waiting.
  public func serve() { rd_kafka_poll(client.raw, 0) }

  /// Waits until every record is reported on.
  ///
  /// - Parameter timeoutMs: longest wait, in milliseconds.
  /// - Returns: whether all are.
  @discardableResult
  public func flush(timeoutMs: Int32 = 30_000) -> Bool {
    rd_kafka_flush(client.raw, timeoutMs) == RD_KAFKA_RESP_ERR_NO_ERROR
  }

  /// Begins a transaction.
  ///
  /// - Throws: `failed`, `fatal`.
  public func begin() throws(KafkaError) { try check(rd_kafka_begin_transaction(client.raw)) }

  /// Commits the transaction, all of its records first.
  ///
  /// - Throws: `failed`, `fatal`.
  public func commit() throws(KafkaError) { try check(rd_kafka_commit_transaction(client.raw, 30_000)) }

  /// Aborts the transaction. Records not yet sent count as failed, sent ones as produced; no committed reader sees
  /// either.
  ///
  /// - Throws: `failed`, `fatal`.
  public func abort() throws(KafkaError) { try check(rd_kafka_abort_transaction(client.raw, 30_000)) }

  private func check(_ error: OpaquePointer?) throws(KafkaError) {
    guard let failure = KafkaFailure.take(error) else { return }
    throw failure.isFatal ? .fatal(failure) : .failed(failure)
  }

  /// An empty key or value is not a missing one: it needs an address.
  private static func start(_ bytes: UnsafeRawBufferPointer?) -> UnsafeRawPointer? {
    guard let bytes else { return nil }
    return bytes.baseAddress ?? UnsafeRawPointer(bitPattern: 1)
  }

  private static func installCallbacks(_ configuration: borrowing Configuration) {
    configuration.withRaw { raw in
      rd_kafka_conf_set_log_cb(raw, nil)
      rd_kafka_conf_set_dr_msg_cb(raw) { _, message, opaque in
        guard let message, let opaque else { return }
        let reports = Unmanaged<Reports>.fromOpaque(opaque).takeUnretainedValue()
        if message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR {
          reports.counts.produced += 1
        } else {
          reports.counts.failed += 1
          if reports.counts.firstFailure == nil {
            reports.counts.firstFailure = KafkaFailure(message.pointee.err)
          }
        }
      }
      rd_kafka_conf_set_error_cb(raw) { client, code, reason, opaque in
        guard let client, let opaque, code == RD_KAFKA_RESP_ERR__FATAL.rawValue else { return }
        var text = [CChar](repeating: 0, count: 512)
        let cause = rd_kafka_fatal_error(client, &text, text.count)
        Unmanaged<Reports>.fromOpaque(opaque).takeUnretainedValue().fatal = KafkaFailure(
          code: cause.rawValue, text: string(text), isFatal: true, isRetriable: false)
      }
    }
  }
}
