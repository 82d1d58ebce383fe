// The admin requests we use, sent without waiting: the answer comes as an event on a queue.
import CRdKafka
import Glibc

/// An answer to one of the requests below.
enum AdminReply: Equatable {
  /// The topic, without its configuration.
  case topic(TopicFacts)
  /// The topic as plain metadata shows it, from brokers without a controller to ask for more.
  case plainTopic(TopicFacts)
  /// The topic could not be described.
  case topicFailed(KafkaError)
  /// The two configuration entries; nil where the broker did not say.
  case configuration(cleanupPolicy: String?, timestampType: String?)
  /// The configuration could not be read.
  case configurationFailed(KafkaFailure)
  /// By partition, the offset asked for; partitions that failed are missing.
  case offsets(AdminRequests.End, [Int32: Int64])
  /// Offsets could not be read.
  case offsetsFailed(AdminRequests.End, KafkaFailure)
  /// Offsets the group has stored for us now, by partition, and why others are missing.
  case committed([Int32: Int64], KafkaFailure?)
  /// What the group has stored; nil if it could not be read.
  case stored([Int32: StoredOffset]?)
  /// A topic was created or deleted, or why not.
  case done(KafkaFailure?)
  /// Nothing of ours.
  case other
}

enum AdminRequests {
  /// Which offset of a partition is asked for.
  enum End: Int, Equatable, CaseIterable {
    case low = 1
    case stable = 2
    case high = 3
  }

  /// Looks for a topic and for a controller among the brokers, waiting; before anything else is done with a client.
  ///
  /// - Returns: what is known already: that there is no such topic, no broker, or no controller to describe it (the
  ///   mock cluster has none); nil if it is there and can be described.
  static func look(_ client: Client, _ topic: String, timeoutMs: Int32) -> AdminReply? {
    guard let raw = rd_kafka_topic_new(client.raw, topic, nil) else {
      return .topicFailed(.failed(KafkaFailure(rd_kafka_last_error())))
    }
    defer { rd_kafka_topic_destroy(raw) }
    var metadata: UnsafePointer<rd_kafka_metadata>?
    let error = rd_kafka_metadata(client.raw, 0, raw, &metadata, timeoutMs)
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata else {
      let text = error == RD_KAFKA_RESP_ERR__TRANSPORT ? "no broker answers" : nil
      return .topicFailed(.failed(KafkaFailure(error, text: text)))
    }
    defer { rd_kafka_metadata_destroy(metadata) }
    guard metadata.pointee.topic_cnt > 0 else { return .topicFailed(.unknownTopic(topic)) }
    let found = metadata.pointee.topics[0]
    switch found.err {
    case RD_KAFKA_RESP_ERR_NO_ERROR: break
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
      return .topicFailed(.unknownTopic(topic))
    default: return .topicFailed(.failed(KafkaFailure(found.err)))
    }
    guard found.partition_cnt > 0, found.partition_cnt <= ConsumerState.partitionsMax else {
      return .topicFailed(.unknownTopic(topic))
    }
    let controller = rd_kafka_controllerid(client.raw, 0)
    for i in 0..<Int(metadata.pointee.broker_cnt) where metadata.pointee.brokers[i].id == controller {
      return nil
    }
    return .plainTopic(TopicFacts(name: topic, id: nil, partitions: found.partition_cnt))
  }

  static func describeTopic(_ client: Client, _ topic: String, _ queue: borrowing Queue, timeoutMs: Int32) {
    let options = makeOptions(client, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeoutMs)
    defer { rd_kafka_AdminOptions_destroy(options) }
    topic.withCString { name in
      var names: [UnsafePointer<CChar>?] = [name]
      let topics = rd_kafka_TopicCollection_of_topic_names(&names, 1)
      rd_kafka_DescribeTopics(client.raw, topics, options, queue.raw)
      rd_kafka_TopicCollection_destroy(topics)
    }
  }

  static func describeConfiguration(
    _ client: Client, _ topic: String, _ queue: borrowing Queue, timeoutMs: Int32
  ) {
    let options = makeOptions(client, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeoutMs)
    defer { rd_kafka_AdminOptions_destroy(options) }
    var resources: [OpaquePointer?] = [rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic)]
    rd_kafka_DescribeConfigs(client.raw, &resources, 1, options, queue.raw)
    rd_kafka_ConfigResource_destroy(resources[0])
  }

  /// Asks for one end of several partitions.
  static func listOffsets(
    _ client: Client, _ topic: String, _ partitions: [Int32], _ end: End, _ queue: borrowing Queue,
    timeoutMs: Int32
  ) {
    let options = makeOptions(client, RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeoutMs)
    defer { rd_kafka_AdminOptions_destroy(options) }
    let isolation =
      end == .stable ? RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED : RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
    if let error = rd_kafka_AdminOptions_set_isolation_level(options, isolation) {
      rd_kafka_error_destroy(error)
    }
    rd_kafka_AdminOptions_set_opaque(options, UnsafeMutableRawPointer(bitPattern: end.rawValue))
    let spec = end == .low ? RD_KAFKA_OFFSET_SPEC_EARLIEST : RD_KAFKA_OFFSET_SPEC_LATEST
    let list = PartitionList(topic: topic, partitions.map { ($0, Int64(spec.rawValue)) })
    rd_kafka_ListOffsets(client.raw, list.raw, options, queue.raw)
  }

  static func createTopic(
    _ client: Client, _ topic: String, partitions: Int32, replicas: Int32,
    properties: [(key: String, value: String)], _ queue: borrowing Queue, timeoutMs: Int32
  ) throws(KafkaError) {
    var text = [CChar](repeating: 0, count: 512)
    guard let new = rd_kafka_NewTopic_new(topic, partitions, replicas, &text, text.count) else {
      throw .failed(KafkaFailure(RD_KAFKA_RESP_ERR__INVALID_ARG, text: string(text)))
    }
    defer { rd_kafka_NewTopic_destroy(new) }
    for (key, value) in properties { _ = rd_kafka_NewTopic_set_config(new, key, value) }
    let options = makeOptions(client, RD_KAFKA_ADMIN_OP_CREATETOPICS, timeoutMs)
    defer { rd_kafka_AdminOptions_destroy(options) }
    var topics: [OpaquePointer?] = [new]
    rd_kafka_CreateTopics(client.raw, &topics, 1, options, queue.raw)
  }

  static func deleteTopic(_ client: Client, _ topic: String, _ queue: borrowing Queue, timeoutMs: Int32) {
    let options = makeOptions(client, RD_KAFKA_ADMIN_OP_DELETETOPICS, timeoutMs)
    defer { rd_kafka_AdminOptions_destroy(options) }
    var topics: [OpaquePointer?] = [rd_kafka_DeleteTopic_new(topic)]
    rd_kafka_DeleteTopics(client.raw, &topics, 1, options, queue.raw)
    rd_kafka_DeleteTopic_destroy(topics[0])
  }

  /// Deletes the records of partitions below an offset.
  static func deleteRecords(
    _ client: Client, _ topic: String, before: [Int32: Int64], _ queue: borrowing Queue, timeoutMs: Int32
  ) {
    let options = makeOptions(client, RD_KAFKA_ADMIN_OP_DELETERECORDS, timeoutMs)
    defer { rd_kafka_AdminOptions_destroy(options) }
    let list = PartitionList(topic: topic, before.map { ($0.key, $0.value) })
    var requests: [OpaquePointer?] = [rd_kafka_DeleteRecords_new(list.raw)]
    rd_kafka_DeleteRecords(client.raw, &requests, 1, options, queue.raw)
    rd_kafka_DeleteRecords_destroy(requests[0])
  }

  /// Commits offsets with our mark.
  static func commit(
    _ client: Client, _ topic: String, _ offsets: [(partition: Int32, offset: Int64)],
    _ queue: borrowing Queue
  ) -> KafkaFailure? {
    let list = PartitionList(topic: topic, offsets)
    for i in 0..<offsets.count {
      let mark = GroupOffsets.mark(offsets[i].offset)
      // librdkafka frees it with the list.
      list.raw.pointee.elems[i].metadata = UnsafeMutableRawPointer(strdup(mark))
      list.raw.pointee.elems[i].metadata_size = mark.utf8.count
    }
    let error = rd_kafka_commit_queue(client.raw, list.raw, queue.raw, nil, nil)
    return error == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : KafkaFailure(error)
  }

  /// Asks what the group has stored.
  static func groupOffsets(
    _ client: Client, _ group: String, _ topic: String, _ partitions: [Int32], _ queue: borrowing Queue,
    timeoutMs: Int32
  ) {
    let options = makeOptions(client, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, timeoutMs)
    defer { rd_kafka_AdminOptions_destroy(options) }
    let list = PartitionList(topic: topic, partitions.map { ($0, 0) })
    var requests: [OpaquePointer?] = [rd_kafka_ListConsumerGroupOffsets_new(group, list.raw)]
    rd_kafka_ListConsumerGroupOffsets(client.raw, &requests, 1, options, queue.raw)
    rd_kafka_ListConsumerGroupOffsets_destroy(requests[0])
  }

  /// Moves the stored offsets of a group without members.
  static func setGroupOffsets(
    _ client: Client, _ group: String, _ topic: String, _ offsets: [Int32: Int64], _ queue: borrowing Queue,
    timeoutMs: Int32
  ) {
    let options = makeOptions(client, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS, timeoutMs)
    defer { rd_kafka_AdminOptions_destroy(options) }
    let list = PartitionList(topic: topic, offsets.map { ($0.key, $0.value) })
    var requests: [OpaquePointer?] = [rd_kafka_AlterConsumerGroupOffsets_new(group, list.raw)]
    rd_kafka_AlterConsumerGroupOffsets(client.raw, &requests, 1, options, queue.raw)
    rd_kafka_AlterConsumerGroupOffsets_destroy(requests[0])
  }

  /// Waits for an answer.
  ///
  /// - Parameters:
  ///   - queue: where answers come.
  ///   - topic: the topic that was asked about.
  ///   - timeoutMs: 0 does not wait.
  /// - Returns: the answer; nil if none came.
  static func reply(_ queue: borrowing Queue, _ topic: String, timeoutMs: Int32) -> AdminReply? {
    guard let event = rd_kafka_queue_poll(queue.raw, timeoutMs) else { return nil }
    defer { rd_kafka_event_destroy(event) }
    let error = rd_kafka_event_error(event)
    var failure: KafkaFailure?
    if error != RD_KAFKA_RESP_ERR_NO_ERROR {
      failure = KafkaFailure(error, text: rd_kafka_event_error_string(event).map { String(cString: $0) })
    }
    switch rd_kafka_event_type(event) {
    case RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT: return topicReply(event, topic, failure)
    case RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT: return configurationReply(event, failure)
    case RD_KAFKA_EVENT_LISTOFFSETS_RESULT: return offsetsReply(event, failure)
    case RD_KAFKA_EVENT_CREATETOPICS_RESULT:
      var count = 0
      let result = rd_kafka_event_CreateTopics_result(event)
      return .done(failure ?? first(rd_kafka_CreateTopics_result_topics(result, &count), count))
    case RD_KAFKA_EVENT_DELETETOPICS_RESULT:
      var count = 0
      let result = rd_kafka_event_DeleteTopics_result(event)
      return .done(failure ?? first(rd_kafka_DeleteTopics_result_topics(result, &count), count))
    case RD_KAFKA_EVENT_DELETERECORDS_RESULT: return .done(failure)
    case RD_KAFKA_EVENT_ALTERCONSUMERGROUPOFFSETS_RESULT:
      var count = 0
      let result = rd_kafka_event_AlterConsumerGroupOffsets_result(event)
      let groups = rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &count)
      return .done(failure ?? firstOfGroups(groups, count))
    case RD_KAFKA_EVENT_OFFSET_COMMIT: return commitReply(event, failure)
    case RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT: return storedReply(event, failure)
    default: return .other
    }
  }

  private static func first(
    _ topics: UnsafeMutablePointer<OpaquePointer?>?, _ count: Int
  ) -> KafkaFailure? {
    guard count > 0, let topic = topics?[0] else { return nil }
    let error = rd_kafka_topic_result_error(topic)
    guard error != RD_KAFKA_RESP_ERR_NO_ERROR else { return nil }
    return KafkaFailure(error, text: rd_kafka_topic_result_error_string(topic).map { String(cString: $0) })
  }

  private static func topicReply(
    _ event: OpaquePointer, _ topic: String, _ failure: KafkaFailure?
  ) -> AdminReply {
    if let failure { return .topicFailed(.failed(failure)) }
    var count = 0
    let result = rd_kafka_event_DescribeTopics_result(event)
    guard let topics = rd_kafka_DescribeTopics_result_topics(result, &count), count > 0,
      let description = topics[0]
    else { return .topicFailed(.unknownTopic(topic)) }
    let error = rd_kafka_TopicDescription_error(description)
    let code = rd_kafka_error_code(error)
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
      if code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART { return .topicFailed(.unknownTopic(topic)) }
      return .topicFailed(.failed(KafkaFailure(code)))
    }
    var partitions = 0
    _ = rd_kafka_TopicDescription_partitions(description, &partitions)
    var id: TopicID?
    if let uuid = rd_kafka_TopicDescription_topic_id(description) {
      let told = TopicID(
        high: UInt64(bitPattern: rd_kafka_Uuid_most_significant_bits(uuid)),
        low: UInt64(bitPattern: rd_kafka_Uuid_least_significant_bits(uuid)))
      if !told.isZero { id = told }
    }
    guard partitions > 0, partitions <= Int(ConsumerState.partitionsMax) else {
      return .topicFailed(.unknownTopic(topic))
    }
    return .topic(TopicFacts(name: topic, id: id, partitions: Int32(partitions)))
  }

  private static func configurationReply(_ event: OpaquePointer, _ failure: KafkaFailure?) -> AdminReply {
    if let failure { return .configurationFailed(failure) }
    var count = 0
    let result = rd_kafka_event_DescribeConfigs_result(event)
    guard let resources = rd_kafka_DescribeConfigs_result_resources(result, &count), count > 0,
      let resource = resources[0]
    else { return .configurationFailed(KafkaFailure(RD_KAFKA_RESP_ERR__BAD_MSG)) }
    let error = rd_kafka_ConfigResource_error(resource)
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR else { return .configurationFailed(KafkaFailure(error)) }
    var values: [String: String] = [:]
    var entries = 0
    if let configs = rd_kafka_ConfigResource_configs(resource, &entries) {
      for i in 0..<entries {
        guard let entry = configs[i], let value = rd_kafka_ConfigEntry_value(entry),
          let name = rd_kafka_ConfigEntry_name(entry)
        else { continue }
        values[String(cString: name)] = String(cString: value)
      }
    }
    return .configuration(
      cleanupPolicy: values["cleanup.policy"], timestampType: values["message.timestamp.type"])
  }

  private static func offsetsReply(_ event: OpaquePointer, _ failure: KafkaFailure?) -> AdminReply {
    let tag = rd_kafka_event_opaque(event).map { Int(bitPattern: $0) } ?? 0
    guard let end = End(rawValue: tag) else { return .other }
    if let failure { return .offsetsFailed(end, failure) }
    var offsets: [Int32: Int64] = [:]
    var count = 0
    let result = rd_kafka_event_ListOffsets_result(event)
    if let infos = rd_kafka_ListOffsets_result_infos(result, &count) {
      for i in 0..<count {
        guard let info = infos[i], let place = rd_kafka_ListOffsetsResultInfo_topic_partition(info),
          place.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR, place.pointee.offset >= 0
        else { continue }
        offsets[place.pointee.partition] = place.pointee.offset
      }
    }
    return .offsets(end, offsets)
  }

  /// The first failure of an answer about groups.
  private static func firstOfGroups(
    _ groups: UnsafeMutablePointer<OpaquePointer?>?, _ count: Int
  ) -> KafkaFailure? {
    guard count > 0, let group = groups?[0] else { return nil }
    if let error = rd_kafka_group_result_error(group) {
      return KafkaFailure(rd_kafka_error_code(error), text: String(cString: rd_kafka_error_string(error)))
    }
    guard let list = rd_kafka_group_result_partitions(group) else { return nil }
    for i in 0..<Int(list.pointee.cnt) where list.pointee.elems[i].err != RD_KAFKA_RESP_ERR_NO_ERROR {
      return KafkaFailure(list.pointee.elems[i].err)
    }
    return nil
  }

  private static func commitReply(_ event: OpaquePointer, _ failure: KafkaFailure?) -> AdminReply {
    guard failure == nil, let list = rd_kafka_event_topic_partition_list(event) else {
      return .committed([:], failure)
    }
    var stored: [Int32: Int64] = [:]
    var refusal: KafkaFailure?
    for i in 0..<Int(list.pointee.cnt) {
      let place = list.pointee.elems[i]
      if place.err == RD_KAFKA_RESP_ERR_NO_ERROR {
        stored[place.partition] = place.offset
      } else {
        refusal = KafkaFailure(place.err)
      }
    }
    return .committed(stored, refusal)
  }

  private static func storedReply(_ event: OpaquePointer, _ failure: KafkaFailure?) -> AdminReply {
    var count = 0
    let result = rd_kafka_event_ListConsumerGroupOffsets_result(event)
    guard failure == nil, let groups = rd_kafka_ListConsumerGroupOffsets_result_groups(result, &count),
      count > 0, let group = groups[0], rd_kafka_group_result_error(group) == nil,
      let list = rd_kafka_group_result_partitions(group)
    else { return .stored(nil) }
    var stored: [Int32: StoredOffset] = [:]
    for i in 0..<Int(list.pointee.cnt) {
      let place = list.pointee.elems[i]
      guard place.err == RD_KAFKA_RESP_ERR_NO_ERROR else { continue }
      let metadata = UnsafeRawBufferPointer(start: place.metadata, count: place.metadata_size)
      stored[place.partition] = StoredOffset(
        offset: place.offset, metadata: String(decoding: metadata, as: UTF8.self))
    }
    return .stored(stored)
  }

  private static func makeOptions(
    _ client: Client, _ operation: rd_kafka_admin_op_t, _ timeoutMs: Int32
  ) -> OpaquePointer? {
    let options = rd_kafka_AdminOptions_new(client.raw, operation)
    var text = [CChar](repeating: 0, count: 128)
    _ = rd_kafka_AdminOptions_set_request_timeout(options, timeoutMs, &text, text.count)
    return options
  }
}
