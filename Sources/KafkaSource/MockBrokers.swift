// librdkafka's mock cluster: brokers inside the process, for the demo and for tests. A partition keeps about 5 MB.
import CRdKafka

/// Kafka brokers inside this process, on loopback. They end with the last reference.
public final class MockBrokers: @unchecked Sendable {
  private let client: Client
  private let cluster: OpaquePointer

  /// `host:port,…` for clients.
  public let bootstrapServers: String

  /// - Parameter brokers: how many, 1...10.
  /// - Throws: `setting`, `failed`.
  public init(brokers: Int32 = 1) throws(KafkaError) {
    precondition((1...10).contains(brokers), "\(brokers) mock brokers")
    let configuration = Configuration()
    configuration.withRaw { rd_kafka_conf_set_log_cb($0, nil) }
    client = try configuration.client(RD_KAFKA_PRODUCER, context: nil)
    guard let cluster = rd_kafka_mock_cluster_new(client.raw, brokers) else {
      throw .failed(KafkaFailure(RD_KAFKA_RESP_ERR__FAIL, text: "the mock cluster did not start"))
    }
    self.cluster = cluster
    bootstrapServers = String(cString: rd_kafka_mock_cluster_bootstraps(cluster))
    rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
  }

  deinit { rd_kafka_mock_cluster_destroy(cluster) }

  /// Creates a topic.
  ///
  /// - Parameters:
  ///   - topic: its name.
  ///   - partitions: at least 1.
  /// - Throws: `failed`.
  public func createTopic(_ topic: String, partitions: Int32) throws(KafkaError) {
    try check(rd_kafka_mock_topic_create(cluster, topic, partitions, 1))
  }

  /// Takes a broker away, or brings it back.
  ///
  /// - Parameters:
  ///   - broker: 1 for the first.
  ///   - isUp: whether it answers from now on.
  /// - Throws: `failed`.
  public func setBroker(_ broker: Int32, isUp: Bool) throws(KafkaError) {
    try check(
      isUp ? rd_kafka_mock_broker_set_up(cluster, broker) : rd_kafka_mock_broker_set_down(cluster, broker))
  }

  private func check(_ error: rd_kafka_resp_err_t) throws(KafkaError) {
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR else { throw .failed(KafkaFailure(error)) }
  }
}
