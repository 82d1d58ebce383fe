// The consumer of one topic: one thread polls, everything that happened comes back as values. It reads what is
// committed, from where it is told to, checks every batch's checksum, and hands nothing out twice.
import CRdKafka
import Glibc
import Synchronization

/// Reads one topic as a member of a group. One thread at a time calls it; only `wake()` may come from another.
///
/// Duties of its driver, in order: poll until `close`; act on events in the order given; apply a batch before
/// taking the `endOfPartition` after it as the watermark; never end the process for a `sourceError` or a
/// `partitionError` on its own account; on `fatal` end it.
public final class Consumer: @unchecked Sendable {
  private let settings: ConsumerSettings
  private let context: ConsumerContext
  private var link: Link
  /// Address of the link's queue, for `wake` alone, which other threads may be in while the link is replaced.
  private let wakeable = Mutex<Int>(0)
  private var watch = TopicWatch()
  private var sorter: RecordSorter
  private var isClosing = false
  private var hasLetGo = false

  /// Starts a client; joins the group only once the topic is known and not refused. No broker need be up.
  ///
  /// - Parameter settings: what to read and how.
  /// - Throws: `setting`.
  public init(_ settings: ConsumerSettings) throws(KafkaError) {
    self.settings = settings
    context = ConsumerContext(
      state: ConsumerState(
        topic: settings.topic, topicID: settings.topicID, addsIncrements: settings.addsIncrements,
        heldBackMsMax: settings.heldBackMsMax),
      startOffset: settings.startOffset, showsDebug: !settings.debug.isEmpty)
    link = try Link(settings, context)
    sorter = RecordSorter(capacity: settings.batchCountMax)
    let address = Int(bitPattern: link.queue.raw)
    wakeable.withLock { $0 = address }
  }

  /// A client of librdkafka with its queues.
  private final class Link {
    // The order matters at the end: what waits in a queue holds partitions, which the client waits for.
    let queue: Queue
    let answers: Queue
    let client: Client

    init(_ settings: ConsumerSettings, _ context: ConsumerContext) throws(KafkaError) {
      let configuration = try settings.configuration()
      // The only word about a topic's new id that comes in order with the records is a debug line.
      try configuration.set("debug", settings.debug.isEmpty ? "metadata" : "\(settings.debug),metadata")
      ConsumerCallbacks.install(configuration)
      client = try configuration.client(RD_KAFKA_CONSUMER, context: context)
      rd_kafka_set_log_queue(client.raw, nil)
      rd_kafka_poll_set_consumer(client.raw)
      queue = Queue(rd_kafka_queue_get_consumer(client.raw))
      answers = Queue(rd_kafka_queue_new(client.raw))
    }
  }

  private var client: Client { link.client }

  /// Takes what is there; waits for the first thing if nothing is.
  ///
  /// - Parameters:
  ///   - timeoutMs: longest wait, in milliseconds; at most 500, so that questions to the brokers go out in time.
  ///   - events: what happened is appended.
  /// - Complexity: O(records), one allocation per partition with records, none per record.
  public func poll(timeoutMs: Int32, into events: inout [ConsumerEvent]) {
    if !hasLetGo { ask() }
    let count = fetch(min(timeoutMs, 500))
    listen()
    let batches = sorter.sort(count, context, client)
    context.state.callEnded(into: &context.actions)
    if !hasLetGo { commitDue() }
    // What callbacks noted comes first (assignments before their records), what records brought last.
    act(into: &events, between: batches)
    if context.state.isRecreated { letGo() }
  }

  /// The topic is another one, whose records nobody wants: a client takes the place of the one that knew both, and is
  /// told of no topic. Up to librdkafka 2.9 the entry of the old id is freed but stays in an index of its metadata, and
  /// every later look at it reads freed memory (librdkafka 4778).
  private func letGo() {
    guard !hasLetGo, let fresh = try? Link(settings, context) else { return }
    hasLetGo = true
    let address = Int(bitPattern: fresh.queue.raw)
    wakeable.withLock { $0 = address }
    link = fresh
  }

  /// Ends a waiting `poll` early. Any thread.
  public func wake() { wakeable.withLock { rd_kafka_queue_yield(OpaquePointer(bitPattern: $0)) } }

  /// Stops reading a partition of ours; what librdkafka holds of it is dropped and fetched again later.
  ///
  /// - Parameter partition: which; others than ours are ignored.
  public func pause(_ partition: Int32) { change { $0.pause(partition, into: &$1) } }

  /// Reads a waiting, paused or stopped partition: also the way to accept a gap, by an offset after it. An offset
  /// outside the topic stops the partition with `gap` or `truncated`.
  ///
  /// - Parameters:
  ///   - partition: which; others than ours are ignored.
  ///   - offset: where to go on; where it stood if nil. One that waits needs it. A partition paused while it was
  ///     stopped goes back to stopped if nil.
  public func resume(_ partition: Int32, at offset: Int64? = nil) {
    change { $0.resume(partition, at: offset, into: &$1) }
  }

  /// Commits next offsets to the group, each with our mark. They are advice for tools that show lag: nothing is ever
  /// read from them, they go out every five seconds while the group rests, the last ones noted win, and those of
  /// partitions that are not ours are dropped. A failure is told once, as a `log` event of `poll`.
  ///
  /// - Parameters:
  ///   - offsets: by partition, the offset after all that is durable.
  ///   - synchronously: sends at once and waits for the answer: for the end, before `close`.
  ///   - timeoutMs: longest wait, in milliseconds.
  public func commit(
    _ offsets: [(partition: Int32, offset: Int64)], synchronously: Bool = false, timeoutMs: Int32 = 3_000
  ) {
    context.group.want(offsets)
    guard synchronously, !isClosing, !hasLetGo else { return }
    let end = monotonicNs() + UInt64(max(0, timeoutMs)) * 1_000_000
    while context.group.isSending, monotonicNs() < end { listen(timeoutMs: 20) }
    guard commitDue(isLast: true) else { return }
    while context.group.isSending, monotonicNs() < end { listen(timeoutMs: 20) }
  }

  /// State, place and lag of the partitions that are ours, ascending.
  public var status: [PartitionStatus] { context.state.status(nowNs: monotonicNs()) }

  /// How often the brokers told begin and ends of all partitions: two more than before a question was asked means
  /// that the ends in `status` are younger than the question.
  public private(set) var endsHeard: UInt64 = 0

  /// The topic as last described; nil until it was found.
  public var topic: TopicFacts? { context.state.facts }

  /// What is wrong with the source as a whole; nil if nothing is.
  public var sourceError: KafkaError? { context.state.sourceError }

  /// Leaves the group, also as a named member, so that its partitions go to others at once; and stops. Records still
  /// in librdkafka are dropped.
  ///
  /// - Parameters:
  ///   - timeoutMs: longest wait for the group, in milliseconds.
  ///   - events: the last revocations are appended.
  /// - Returns: whether the group was left in time.
  @discardableResult
  public func close(timeoutMs: Int32 = 5_000, into events: inout [ConsumerEvent]) -> Bool {
    guard !isClosing else { return rd_kafka_consumer_closed(client.raw) != 0 }
    isClosing = true
    let end = monotonicNs() + UInt64(max(0, timeoutMs)) * 1_000_000
    if settings.instanceID != nil { leave(until: end) }
    _ = KafkaFailure.take(rd_kafka_consumer_close_queue(client.raw, link.queue.raw))
    while rd_kafka_consumer_closed(client.raw) == 0, monotonicNs() < end { discard() }
    context.state.revoked(context.state.owned, lost: false, into: &context.actions)
    context.state.callEnded(into: &context.actions)
    act(into: &events, between: [])
    return rd_kafka_consumer_closed(client.raw) != 0
  }

  /// A named member that is closed stays in the group until its session times out (KIP-345), and no administrator's
  /// call of librdkafka removes it; but one that ends its subscription leaves: it has no id any more as soon as the
  /// broker is asked to let it go, and closing waits for the answer.
  private func leave(until endNs: UInt64) {
    guard rd_kafka_fatal_error(client.raw, nil, 0) == RD_KAFKA_RESP_ERR_NO_ERROR,
      rd_kafka_unsubscribe(client.raw) == RD_KAFKA_RESP_ERR_NO_ERROR
    else { return }
    while isMember, monotonicNs() < endNs { discard() }
  }

  private var isMember: Bool {
    guard let id = rd_kafka_memberid(client.raw) else { return false }
    defer { rd_kafka_mem_free(client.raw, id) }
    return id.pointee != 0
  }

  private func discard() {
    let count = rd_kafka_consume_batch_queue(link.queue.raw, 10, sorter.messages, sorter.capacity)
    if count > 0 { sorter.discard(count) }
  }

  // MARK: - One poll

  /// The batch call waits until its array is full, so it only ever takes what is there; the wait is for one record.
  private func fetch(_ timeoutMs: Int32) -> Int {
    let there = rd_kafka_consume_batch_queue(link.queue.raw, 0, sorter.messages, sorter.capacity)
    if there > 0 || timeoutMs <= 0 || !context.actions.isEmpty { return max(0, there) }
    guard let first = rd_kafka_consume_queue(link.queue.raw, timeoutMs) else { return 0 }
    sorter.messages[0] = first
    guard sorter.capacity > 1 else { return 1 }
    return 1
      + max(0, rd_kafka_consume_batch_queue(link.queue.raw, 0, sorter.messages + 1, sorter.capacity - 1))
  }

  private func ask() {
    let questions = watch.due(nowNs: monotonicNs(), hasPartitions: !context.state.owned.isEmpty)
    for question in questions { send(question) }
    let unheard = context.group.question(nowNs: monotonicNs())
    guard !unheard.isEmpty else { return }
    AdminRequests.groupOffsets(
      client, settings.groupID, settings.topic, unheard, link.answers, timeoutMs: TopicWatch.requestTimeoutMs)
  }

  /// - Returns: whether anything was sent.
  @discardableResult
  private func commitDue(isLast: Bool = false) -> Bool {
    let due = context.group.due(isLast: isLast)
    guard !due.isEmpty else { return false }
    context.group.sent()
    if let failure = AdminRequests.commit(client, settings.topic, due, link.answers) {
      take(.committed([:], failure))
    }
    return true
  }

  private func send(_ question: TopicWatch.Question) {
    let timeoutMs = TopicWatch.requestTimeoutMs
    switch question {
    case .topic:
      // Until the topic is known there is nothing to poll for, so the look may wait a little; brokers without a
      // controller (the mock cluster) never tell an id and are looked at this way again and again.
      if topic?.id == nil, let reply = AdminRequests.look(client, settings.topic, timeoutMs: 500) {
        take(reply)
      } else {
        AdminRequests.describeTopic(client, settings.topic, link.answers, timeoutMs: timeoutMs)
      }
    case .configuration:
      AdminRequests.describeConfiguration(client, settings.topic, link.answers, timeoutMs: timeoutMs)
    case .offsets(let end):
      AdminRequests.listOffsets(
        client, settings.topic, context.state.owned, end, link.answers, timeoutMs: timeoutMs)
    }
  }

  private func listen(timeoutMs: Int32 = 0) {
    var timeoutMs = timeoutMs
    while let reply = AdminRequests.reply(link.answers, settings.topic, timeoutMs: timeoutMs) {
      take(reply)
      timeoutMs = 0
    }
  }

  private func take(_ reply: AdminReply) {
    if case .committed(let stored, let failure) = reply {
      if let event = context.group.committed(stored, failure) { context.actions.append(.tell(event)) }
      return
    }
    if case .stored(let found) = reply {
      let events = context.group.heard(found, nowNs: monotonicNs())
      context.actions += events.map { .tell($0) }
      return
    }
    switch watch.received(reply, nowNs: monotonicNs()) {
    case .ask(let question): send(question)
    case .topic(let facts): context.state.described(facts, into: &context.actions)
    case .failed(let error): context.state.fail(error, into: &context.actions)
    case .ranges(let ranges):
      endsHeard += 1
      let nowNs = monotonicNs()
      for (partition, range) in ranges {
        context.state.heard(partition, range, nowNs: nowNs, into: &context.actions)
      }
    case .nothing: break
    }
  }

  private func change(_ body: (inout ConsumerState, inout [ConsumerState.Action]) -> Void) {
    body(&context.state, &context.actions)
    var kept: [ConsumerState.Action] = []
    for action in context.actions { if !perform(action) { kept.append(action) } }
    context.actions = kept
  }

  /// Obeys the state's actions and tells its events, with the records between those of the callbacks and the rest.
  private func act(into events: inout [ConsumerEvent], between batches: [ConsumerEvent]) {
    let actions = context.actions
    context.actions.removeAll(keepingCapacity: true)
    let early = sorter.actionsBefore
    for action in actions[..<early] { obey(action, into: &events) }
    events += batches
    for action in actions[early...] { obey(action, into: &events) }
    sorter.actionsBefore = 0
  }

  private func obey(_ action: ConsumerState.Action, into events: inout [ConsumerEvent]) {
    if case .tell(let event) = action { events.append(event) } else { _ = perform(action) }
  }

  /// - Returns: false if the action is for the caller.
  private func perform(_ action: ConsumerState.Action) -> Bool {
    switch action {
    case .tell: return false
    case .subscribe:
      let list = PartitionList(topic: settings.topic, [(RD_KAFKA_PARTITION_UA, 0)])
      let error = rd_kafka_subscribe(client.raw, list.raw)
      if error != RD_KAFKA_RESP_ERR_NO_ERROR {
        context.state.fail(.failed(KafkaFailure(error)), into: &context.actions)
      }
    case .pause(let partition):
      let list = PartitionList(topic: settings.topic, [(partition, 0)])
      rd_kafka_pause_partitions(client.raw, list.raw)
    case .resume(let partition, let offset):
      // The place is ours to say: librdkafka's own idea of it has been wrong after errors and ends of partitions.
      let list = PartitionList(topic: settings.topic, [(partition, offset)])
      rd_kafka_resume_partitions(client.raw, list.raw)
      _ = KafkaFailure.take(rd_kafka_seek_partitions(client.raw, list.raw, 0))
    case .restart(let partition, let offset):
      let list = PartitionList(topic: settings.topic, [(partition, offset)])
      list.setLeaderEpoch(context.state.epoch(partition, before: offset), at: 0)
      rd_kafka_resume_partitions(client.raw, list.raw)
      _ = KafkaFailure.take(rd_kafka_incremental_unassign(client.raw, list.raw))
      if let failure = KafkaFailure.take(rd_kafka_incremental_assign(client.raw, list.raw)) {
        context.state.fail(.failed(failure), into: &context.actions)
      }
    case .askOffsets: watch.hurryOffsets()
    case .askTopic: watch.hurryTopic()
    }
    return true
  }
}

/// Monotonic time in nanoseconds.
func monotonicNs() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
