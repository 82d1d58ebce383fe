// What librdkafka costs by itself: the same settings and the same batch call, every record counted and thrown away.
// The consumer is measured against it.
import CRdKafka

/// Counts a topic's records without looking at them.
public final class BareReader {
  // Goes before the client, which waits for what its queues hold.
  private let queue: Queue
  private let client: Client
  private let settings: ConsumerSettings

  /// - Parameter settings: as for a consumer; the group is not joined.
  /// - Throws: `setting`.
  public init(_ settings: ConsumerSettings) throws(KafkaError) {
    self.settings = settings
    let configuration = try settings.configuration()
    try configuration.set("log.queue", "false")
    client = try configuration.client(RD_KAFKA_CONSUMER, context: nil)
    rd_kafka_poll_set_consumer(client.raw)
    queue = Queue(rd_kafka_queue_get_consumer(client.raw))
  }

  /// Reads all partitions from offset 0 until each reports its end.
  ///
  /// - Parameters:
  ///   - partitions: how many the topic has.
  ///   - started: called at the first record, for taking the time.
  /// - Returns: records seen.
  public func count(partitions: Int32, started: () -> Void) -> UInt64 {
    let list = PartitionList(topic: settings.topic, (0..<partitions).map { ($0, 0) })
    rd_kafka_assign(client.raw, list.raw)
    let capacity = settings.batchCountMax
    let messages = UnsafeMutablePointer<UnsafeMutablePointer<rd_kafka_message_t>?>.allocate(
      capacity: capacity)
    defer { messages.deallocate() }
    var records: UInt64 = 0
    var ends: Set<Int32> = []
    while ends.count < Int(partitions) {
      let count = rd_kafka_consume_batch_queue(queue.raw, 200, messages, capacity)
      if count > 0, records == 0 { started() }
      for i in 0..<max(0, count) {
        guard let message = messages[i] else { continue }
        if message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR {
          records += 1
        } else if message.pointee.err == RD_KAFKA_RESP_ERR__PARTITION_EOF {
          ends.insert(message.pointee.partition)
        }
        rd_kafka_message_destroy(message)
      }
    }
    rd_kafka_assign(client.raw, nil)
    return records
  }
}
