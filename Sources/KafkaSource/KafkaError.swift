// What can go wrong with the source, a case a reaction. The C error is copied out before it is freed.
import CRdKafka

/// An error of librdkafka or of a broker, copied out of C.
public struct KafkaFailure: Equatable, Sendable, CustomStringConvertible {
  /// librdkafka's error number: negative for the client's own, positive for a broker's.
  public let code: Int32
  /// Its short name, as `UNKNOWN_TOPIC_OR_PART`.
  public let name: String
  /// A sentence for people.
  public let text: String
  /// The client handle can never be used again.
  public let isFatal: Bool
  /// The same call may succeed later.
  public let isRetriable: Bool
  /// The partition belongs to another member of the group now.
  public let isPartitionLost: Bool

  /// - Parameters:
  ///   - code: librdkafka's error number.
  ///   - text: what librdkafka said about it; its standard text if nil.
  ///   - isFatal: whether librdkafka raised it as fatal.
  ///   - isRetriable: whether it may go away; decided by the code if nil.
  init(code: Int32, text: String? = nil, isFatal: Bool = false, isRetriable: Bool? = nil) {
    let error = rd_kafka_resp_err_t(rawValue: code)
    self.code = code
    name = String(cString: rd_kafka_err2name(error))
    self.text = text ?? String(cString: rd_kafka_err2str(error))
    self.isFatal = isFatal || error == RD_KAFKA_RESP_ERR__FATAL
    self.isRetriable = isRetriable ?? KafkaFailure.passes(error)
    switch error {
    case RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST, RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
      RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
      RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED:
      isPartitionLost = true
    default: isPartitionLost = false
    }
  }

  init(_ error: rd_kafka_resp_err_t, text: String? = nil) { self.init(code: error.rawValue, text: text) }

  /// The group is being rebalanced; the same call succeeds after it.
  var isRebalance: Bool {
    code == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS.rawValue || code == RD_KAFKA_RESP_ERR__WAIT_COORD.rawValue
  }

  /// Takes an error object and frees it; nil if there is none.
  ///
  /// - Parameter error: an owned `rd_kafka_error_t`.
  /// - Returns: its copy.
  static func take(_ error: OpaquePointer?) -> KafkaFailure? {
    guard let error else { return nil }
    defer { rd_kafka_error_destroy(error) }
    return KafkaFailure(
      code: rd_kafka_error_code(error).rawValue, text: String(cString: rd_kafka_error_string(error)),
      isFatal: rd_kafka_error_is_fatal(error) != 0, isRetriable: rd_kafka_error_is_retriable(error) != 0)
  }

  /// What ended a client for good; the error that says so only says that something did.
  ///
  /// - Parameter client: a client that raised a fatal error.
  /// - Returns: its copy.
  static func fatal(of client: OpaquePointer) -> KafkaFailure {
    var text = [CChar](repeating: 0, count: 512)
    let cause = rd_kafka_fatal_error(client, &text, text.count)
    return KafkaFailure(code: cause.rawValue, text: string(text), isFatal: true, isRetriable: false)
  }

  /// Errors that brokers coming back, or a topic being created, would end.
  private static func passes(_ error: rd_kafka_resp_err_t) -> Bool {
    switch error {
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__RESOLVE,
      RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE,
      RD_KAFKA_RESP_ERR__QUEUE_FULL, RD_KAFKA_RESP_ERR__WAIT_COORD, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
      RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED,
      RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
      RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
      RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
      return true
    default: return false
    }
  }

  /// `NAME: text`.
  public var description: String { "\(name): \(text)" }
}

/// Everything this module throws or reports; each case is something its caller acts on in its own way.
public enum KafkaError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A setting is unknown, refused or out of range: do not start. `key` is without the `kafka.` prefix.
  case setting(key: String, reason: String)
  /// The topic does not exist (yet): wait, it is looked for again.
  case unknownTopic(String)
  /// Brokers away, not authorised, coordinator busy…: wait while retriable, tell the operator otherwise.
  case failed(KafkaFailure)
  /// Records `from...to` are gone from the topic before they were read: fill from elsewhere or ask a person.
  case gap(partition: Int32, from: Int64, to: Int64)
  /// The topic ends before what was already read: stop and ask a person.
  case truncated(partition: Int32, offsetNext: Int64, end: Int64)
  /// A record batch fails its checksum: nothing of it was handed out; the partition stops.
  case corrupt(partition: Int32, KafkaFailure)
  /// A topic of the same name with another id: its offsets mean other records. Stop, start a new epoch by hand.
  case topicRecreated(topic: String, old: TopicID, new: TopicID)
  /// Compaction drops older increments of a key, so sums would be wrong: do not read it.
  case compacted(topic: String)
  /// The client handle is of no use any more (fenced, for example): end the process.
  case fatal(KafkaFailure)

  /// A sentence that names the thing and, where there is one, the remedy.
  public var description: String {
    switch self {
    case .setting(let key, let reason): "kafka.\(key): \(reason)"
    case .unknownTopic(let topic): "topic \(topic) does not exist; waiting for it to be created"
    case .failed(let failure): failure.description
    case .gap(let partition, let from, let to):
      "partition \(partition): gap: offsets \(from)..\(to) are no longer in the topic (retention)"
    case .truncated(let partition, let next, let end):
      "partition \(partition): the topic ends at offset \(end), but records up to \(next - 1) were already read;"
        + " the topic lost records"
    case .corrupt(let partition, let failure):
      "partition \(partition): a record batch fails its checksum and was not applied (\(failure.text))"
    case .topicRecreated(let topic, let old, let new):
      "topic \(topic) was recreated: id was \(old), is \(new); its offsets mean other records now"
    case .compacted(let topic):
      "topic \(topic) has cleanup.policy=compact, which drops increments of the same key;"
        + " use a topic with cleanup.policy=delete, or steps.mode = total"
    case .fatal(let failure) where failure.code == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID.rawValue:
      "another node joined the group under the name of this one, which owns nothing from now on; give each node a"
        + " node.id and a data folder of its own (\(failure.name))"
    case .fatal(let failure): "the Kafka client stopped for good: \(failure)"
    }
  }
}
