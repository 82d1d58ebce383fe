// Every metric of the program, declared once: name, kind, unit by the name's ending, labels, help. The registry, the
// Prometheus text and the documentation derive from this table.

/// A metric's row of the table.
public enum Metric: Int, CaseIterable, Sendable {
  case buildInfo
  case shardState
  case events
  case badRecords
  case deadLetterFailures
  case watermark
  case kafkaLag
  case visibleDelay
  case lastEvent
  case users
  case usersElsewhere
  case diskFree
  case rebalances
  case queries
  case querySeconds
  case connections
  case connectionsAccepted
  case connectionsRefused
  case closed
  case clientBytes
  case parkedRequests
  case partialAnswers

  /// How a metric behaves.
  public enum Kind: String, Sendable {
    /// Only grows.
    case counter
    /// Goes up and down.
    case gauge
    /// A distribution of seconds.
    case histogram
  }

  /// What the table says of a metric.
  public struct Row: Sendable {
    /// Prometheus name; its ending is the unit.
    public let name: String
    public let kind: Kind
    /// Names of the labels, in order.
    public let labels: [String]
    public let help: String
  }

  /// The metric's row.
  public var row: Row {
    switch self {
    case .buildInfo:
      gauge("rms_build_info", ["version"], "Always 1; the version is the label.")
    case .shardState:
      gauge("rms_shard_state", ["partition", "state"], "1 for the state a shard is in, 0 for the others.")
    case .events:
      counter("rms_events_total", ["result"], "Records applied, by result: counted or rejected.")
    case .badRecords:
      counter("rms_bad_records_total", ["reason"], "Records rejected, by reason.")
    case .deadLetterFailures:
      counter("rms_dead_letter_failures_total", [], "Writes to the dead-letter file that failed.")
    case .watermark:
      gauge("rms_watermark_offset", ["partition"], "Next Kafka offset not yet applied.")
    case .kafkaLag:
      gauge("rms_kafka_lag_records", ["partition"], "Records in Kafka not yet applied.")
    case .visibleDelay:
      histogram(
        "rms_visible_delay_seconds", [],
        "From a record's Kafka timestamp to its visibility; the last record of each chunk.")
    case .lastEvent:
      gauge(
        "rms_last_event_timestamp_seconds", ["partition"], "Kafka timestamp of the last record applied.")
    case .users:
      gauge("rms_users", [], "Users known to this node's shards.")
    case .usersElsewhere:
      gauge("rms_users_elsewhere", [], "Users found in more than one of this node's shards.")
    case .diskFree:
      gauge("rms_disk_free_bytes", [], "Free space where the data folder is.")
    case .rebalances:
      counter("rms_rebalances_total", [], "Times the group gave this node partitions or took some.")
    case .queries:
      counter("rms_queries_total", ["op", "code"], "Requests answered, by message and error code or ok.")
    case .querySeconds:
      histogram("rms_query_seconds", [], "From a request's last byte to its answer's first.")
    case .connections:
      gauge("rms_connections", [], "Client connections now.")
    case .connectionsAccepted:
      counter("rms_connections_accepted_total", [], "Client connections accepted.")
    case .connectionsRefused:
      counter("rms_connections_refused_total", ["reason"], "Client connections refused, by limit.")
    case .closed:
      counter("rms_closed_total", ["reason"], "Client connections closed, by reason.")
    case .clientBytes:
      gauge("rms_client_buffer_bytes", [], "Memory held for clients' requests and answers.")
    case .parkedRequests:
      gauge("rms_parked_requests", [], "Requests that wait for a watermark.")
    case .partialAnswers:
      counter("rms_partial_answers_total", [], "Answers that missed a shard.")
    }
  }

  private func counter(_ name: String, _ labels: [String], _ help: String) -> Row {
    Row(name: name, kind: .counter, labels: labels, help: help)
  }

  private func gauge(_ name: String, _ labels: [String], _ help: String) -> Row {
    Row(name: name, kind: .gauge, labels: labels, help: help)
  }

  private func histogram(_ name: String, _ labels: [String], _ help: String) -> Row {
    Row(name: name, kind: .histogram, labels: labels, help: help)
  }
}
