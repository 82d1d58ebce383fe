// librdkafka's callbacks of a consumer. All but one run inside `poll` (or `close`), on its thread: they act on the
// assignment, note what happened, and return. The other one runs first on each thread of librdkafka.
import CRdKafka
import Glibc
import Posix

/// What the callbacks may touch: the consumer's state, and the actions it asks for meanwhile.
final class ConsumerContext {
  var state: ConsumerState
  var group = GroupOffsets()
  var actions: [ConsumerState.Action] = []
  let startOffset: @Sendable (Int32) -> Int64?
  /// Whether librdkafka's debug lines are handed on.
  let showsDebug: Bool

  init(state: ConsumerState, startOffset: @escaping @Sendable (Int32) -> Int64?, showsDebug: Bool) {
    self.state = state
    self.startOffset = startOffset
    self.showsDebug = showsDebug
  }

  /// The context behind a callback's opaque pointer.
  static func of(_ opaque: UnsafeMutableRawPointer?) -> ConsumerContext? {
    opaque.map { Unmanaged<ConsumerContext>.fromOpaque($0).takeUnretainedValue() }
  }
}

enum ConsumerCallbacks {
  /// Registers all of them.
  static func install(_ configuration: borrowing Configuration) {
    configuration.withRaw { raw in
      // librdkafka's threads fetch ahead of what is applied: they may be the last to run.
      rd_kafka_conf_interceptor_add_on_new(
        raw, "priority",
        { client, _, _, _, _ in
          rd_kafka_interceptor_add_on_thread_start(
            client, "priority",
            { _, _, _, _ in
              ThreadPriority.supplying.take()
              return RD_KAFKA_RESP_ERR_NO_ERROR
            }, nil)
        }, nil)
      rd_kafka_conf_set_rebalance_cb(raw) { client, code, list, opaque in
        guard let client, let list, let context = ConsumerContext.of(opaque) else { return }
        ConsumerCallbacks.rebalance(client, code, list, context)
      }
      rd_kafka_conf_set_error_cb(raw) { client, code, reason, opaque in
        guard let client, let context = ConsumerContext.of(opaque) else { return }
        ConsumerCallbacks.error(client, code, reason.map { String(cString: $0) }, context)
      }
      rd_kafka_conf_set_stats_cb(raw) { _, text, _, opaque in
        guard let text, let context = ConsumerContext.of(opaque) else { return 0 }
        context.group.rests(strstr(text, "\"join_state\": \"steady\"") != nil)
        return 0
      }
      rd_kafka_conf_set_log_cb(raw) { client, level, _, line in
        guard let client, let line, let context = ConsumerContext.of(rd_kafka_opaque(client)) else { return }
        ConsumerCallbacks.log(level, line, context)
      }
    }
  }

  /// A line of librdkafka's log. Debug lines are made for the sake of one of them.
  private static func log(_ level: Int32, _ line: UnsafePointer<CChar>, _ context: ConsumerContext) {
    if level >= 7 {
      if strstr(line, "changed id from") != nil, let id = newID(String(cString: line)) {
        context.state.idSeen(id, into: &context.actions)
      }
      guard context.showsDebug else { return }
    }
    context.actions.append(.tell(.log(level: level, text: String(cString: line))))
  }

  /// The new id in librdkafka's line `Topic NAME changed id from ID to ID`; nil in any other.
  static func newID(_ line: String) -> TopicID? {
    let words = line.split(separator: " ")
    guard let at = words.firstIndex(of: "changed"), at + 5 < words.count,
      words[at + 1] == "id", words[at + 2] == "from", words[at + 4] == "to"
    else { return nil }
    return TopicID(words[at + 5])
  }

  /// Runs inside a poll. Owes librdkafka an assign or unassign of exactly the partitions it names.
  private static func rebalance(
    _ client: OpaquePointer, _ code: rd_kafka_resp_err_t,
    _ list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>, _ context: ConsumerContext
  ) {
    let count = Int(list.pointee.cnt)
    var failure: KafkaFailure?
    if code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
      var starts: [(partition: Int32, offset: Int64?)] = []
      for i in 0..<count {
        let partition = list.pointee.elems[i].partition
        let offset = context.startOffset(partition).map { max(0, $0) }
        list.pointee.elems[i].offset = offset ?? 0
        starts.append((partition, offset))
      }
      failure = assign(client, list, starts)
      if failure == nil {
        context.state.assigned(starts, into: &context.actions)
        context.group.assigned(starts.map(\.partition))
      }
    } else {
      // A handover, or an error of the group: either way the partitions named are not ours from here on.
      let lost = code != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS || rd_kafka_assignment_lost(client) != 0
      let taken = (0..<count).map { list.pointee.elems[$0].partition }
      context.state.revoked(taken, lost: lost, into: &context.actions)
      context.group.revoked(taken)
      failure = KafkaFailure.take(rd_kafka_incremental_unassign(client, list))
    }
    if let failure { context.state.fail(.failed(failure), into: &context.actions) }
    // No `rd_kafka_yield` here: the batch call (librdkafka 2.8) looks at that flag after it has taken the next record
    // off its queue, and drops it. The record would be lost, and the client would wait for it for ever when it ends.
  }

  /// Assigns, so that those that wait are not fetched. A pause of ours outlives the assignment it was made in.
  private static func assign(
    _ client: OpaquePointer, _ list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>,
    _ starts: [(partition: Int32, offset: Int64?)]
  ) -> KafkaFailure? {
    rd_kafka_resume_partitions(client, list)
    if let failure = KafkaFailure.take(rd_kafka_incremental_assign(client, list)) { return failure }
    let waiting = starts.indices.filter { starts[$0].offset == nil }
    guard !waiting.isEmpty else { return nil }
    let topic = list.pointee.elems[0].topic.map { String(cString: $0) } ?? ""
    let paused = PartitionList(topic: topic, waiting.map { (starts[$0].partition, 0) })
    rd_kafka_pause_partitions(client, paused.raw)
    return nil
  }

  /// Errors of the whole client. Most are passing: librdkafka goes on by itself, we tell and keep them.
  private static func error(
    _ client: OpaquePointer, _ code: Int32, _ reason: String?, _ context: ConsumerContext
  ) {
    if code == RD_KAFKA_RESP_ERR__FATAL.rawValue {
      context.actions.append(.tell(.fatal(.fatal(KafkaFailure.fatal(of: client)))))
      return
    }
    let failure = KafkaFailure(code: code, text: reason)
    switch rd_kafka_resp_err_t(rawValue: code) {
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, RD_KAFKA_RESP_ERR__RESOLVE, RD_KAFKA_RESP_ERR__AUTHENTICATION,
      RD_KAFKA_RESP_ERR__SSL:
      context.state.fail(.failed(failure), into: &context.actions)
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
      RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
      context.state.vanished(into: &context.actions)
    default:
      // One connection of many, mostly: for the log, not for the state.
      context.actions.append(.tell(.log(level: 4, text: failure.description)))
    }
  }
}
