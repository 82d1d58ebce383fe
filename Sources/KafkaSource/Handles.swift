// Owners of librdkafka objects: each frees its object once, when it goes away, and lends the pointer to this module
// alone.
import CRdKafka

/// Owns a configuration until a client takes it over.
struct Configuration: ~Copyable {
  private var raw: OpaquePointer?

  init() { raw = rd_kafka_conf_new() }

  deinit { if let raw { rd_kafka_conf_destroy(raw) } }

  /// Lends the configuration; valid inside `body` only.
  func withRaw(_ body: (OpaquePointer) -> Void) { if let raw { body(raw) } }

  /// Sets one property.
  ///
  /// - Parameters:
  ///   - key: librdkafka's name.
  ///   - value: its text.
  /// - Throws: `setting`, with librdkafka's own sentence.
  func set(_ key: String, _ value: String) throws(KafkaError) {
    var text = [CChar](repeating: 0, count: 512)
    guard rd_kafka_conf_set(raw, key, value, &text, text.count) == RD_KAFKA_CONF_OK else {
      throw .setting(key: key, reason: string(text))
    }
  }

  /// A property's value as it stands; nil if there is no such property.
  func value(_ key: String) -> String? {
    var text = [CChar](repeating: 0, count: 4096)
    var bytes = text.count
    guard rd_kafka_conf_get(raw, key, &text, &bytes) == RD_KAFKA_CONF_OK else { return nil }
    return string(text)
  }

  /// Makes a client of the configuration, which is used up by it.
  ///
  /// - Parameters:
  ///   - type: producer or consumer.
  ///   - context: what callbacks get as their opaque; kept alive as long as the client is.
  /// - Returns: the client.
  /// - Throws: `setting` if the properties contradict each other.
  consuming func client(_ type: rd_kafka_type_t, context: AnyObject?) throws(KafkaError) -> Client {
    var text = [CChar](repeating: 0, count: 512)
    if let context { rd_kafka_conf_set_opaque(raw, Unmanaged.passUnretained(context).toOpaque()) }
    guard let client = rd_kafka_new(type, raw, &text, text.count) else {
      throw .setting(key: "*", reason: string(text))
    }
    raw = nil
    return Client(client, context: context)
  }
}

/// Owns a client. Shared: batches keep it alive, since librdkafka waits for its messages when it is destroyed.
///
/// librdkafka's client is thread-safe; the pointer never changes.
final class Client: @unchecked Sendable {
  let raw: OpaquePointer
  /// What the callbacks' opaque points to: lives at least as long as the C object.
  private let context: AnyObject?

  init(_ raw: OpaquePointer, context: AnyObject?) {
    self.raw = raw
    self.context = context
  }

  deinit { rd_kafka_destroy_flags(raw, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
}

/// Owns a queue, or a reference to one of the client's own queues.
struct Queue: ~Copyable {
  let raw: OpaquePointer

  /// - Parameter raw: an owned reference.
  init(_ raw: OpaquePointer) { self.raw = raw }

  deinit { rd_kafka_queue_destroy(raw) }
}

/// Owns a topic handle of a producer.
struct Topic: ~Copyable {
  let raw: OpaquePointer

  init(_ raw: OpaquePointer) { self.raw = raw }

  deinit { rd_kafka_topic_destroy(raw) }
}

/// Owns a list of partitions with offsets.
struct PartitionList: ~Copyable {
  let raw: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>

  /// - Parameters:
  ///   - topic: name of the topic all entries are of.
  ///   - entries: partition and offset of each.
  init(topic: String, _ entries: [(partition: Int32, offset: Int64)]) {
    raw = rd_kafka_topic_partition_list_new(Int32(entries.count))
    for entry in entries {
      rd_kafka_topic_partition_list_add(raw, topic, entry.partition).pointee.offset = entry.offset
    }
  }

  /// Says of which leader epoch the record before an entry's offset is.
  ///
  /// - Parameters:
  ///   - epoch: the epoch; -1 for an unknown one.
  ///   - index: place in the list.
  func setLeaderEpoch(_ epoch: Int32, at index: Int) {
    rd_kafka_topic_partition_set_leader_epoch(raw.pointee.elems + index, epoch)
  }

  deinit { rd_kafka_topic_partition_list_destroy(raw) }
}

/// The text of a C buffer up to its NUL.
func string(_ buffer: [CChar]) -> String {
  String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
