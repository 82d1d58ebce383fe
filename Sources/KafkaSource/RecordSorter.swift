// From what librdkafka handed over to one batch a partition: two passes over an array of pointers, one comparison
// and one counter a record, no allocation but the batches themselves.
import CRdKafka

/// The array that librdkafka fills, and the scratch to sort it by.
struct RecordSorter: ~Copyable {
  typealias Message = UnsafeMutablePointer<rd_kafka_message_t>

  /// Most records of one call.
  let capacity: Int
  /// Where the calls put their messages; entries `0..<count` of the last call are owned.
  let messages: UnsafeMutablePointer<Message?>
  /// How many of the context's actions come before the records.
  var actionsBefore = 0

  /// The partition of each message; -1 for those that are not handed out.
  private let places: UnsafeMutablePointer<Int32>
  /// By partition: how many records, then where the next one goes.
  private var counts: [Int32] = []
  private var targets: [UnsafeMutablePointer<Message?>?] = []
  private var touched: [Int32] = []
  private var ends: [(partition: Int32, offset: Int64)] = []

  init(capacity: Int) {
    self.capacity = capacity
    messages = .allocate(capacity: capacity)
    messages.initialize(repeating: nil, count: capacity)
    places = .allocate(capacity: capacity)
    places.initialize(repeating: -1, count: capacity)
  }

  deinit {
    messages.deallocate()
    places.deallocate()
  }

  /// Frees messages unseen.
  mutating func discard(_ count: Int) {
    for i in 0..<count { rd_kafka_message_destroy(messages[i]) }
  }

  /// Sorts the messages of one call.
  ///
  /// - Parameters:
  ///   - count: how many the call returned.
  ///   - context: state to check them against; trouble becomes actions, after the first `actionsBefore`.
  ///   - client: kept alive by the batches.
  /// - Returns: a batch event a partition, in the order of the partitions' first records.
  mutating func sort(_ count: Int, _ context: ConsumerContext, _ client: Client) -> [ConsumerEvent] {
    actionsBefore = context.actions.count
    guard count > 0 else { return [] }
    grow(to: context.state.floors.count)
    var next = 0
    while true {
      next = admit(from: next, to: count, &context.state)
      guard next < count else { break }
      if let message = messages[next] { trouble(message, context, client) }
      places[next] = -1
      next += 1
    }
    let batches = scatter(count, context, client)
    for end in ends { context.state.endOfPartition(end.partition, end.offset, into: &context.actions) }
    ends.removeAll(keepingCapacity: true)
    return batches
  }

  /// Checks records up to the next error.
  ///
  /// - Returns: place of the error, or `count`.
  private mutating func admit(from: Int, to count: Int, _ state: inout ConsumerState) -> Int {
    var i = from
    let places = places
    let messages = messages
    var fresh = touched
    touched = []
    state.floors.withUnsafeMutableBufferPointer { floors in
      counts.withUnsafeMutableBufferPointer { counts in
        while i < count {
          guard let message = messages[i], message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR else { break }
          let partition = message.pointee.partition
          let offset = message.pointee.offset
          let index = Int(partition)
          if index >= 0, index < floors.count, offset >= floors[index] {
            floors[index] = offset &+ 1
            if counts[index] == 0 { fresh.append(partition) }
            counts[index] &+= 1
            places[i] = partition
          } else {
            places[i] = -1
          }
          i += 1
        }
      }
    }
    touched = fresh
    return i
  }

  /// An error message in place of a record.
  private mutating func trouble(_ message: Message, _ context: ConsumerContext, _ client: Client) {
    let error = message.pointee.err
    let partition = message.pointee.partition
    if error == RD_KAFKA_RESP_ERR__PARTITION_EOF {
      // Told after the records of this call; void if more records of the partition follow in it.
      ends.append((partition, message.pointee.offset))
      return
    }
    let failure = KafkaFailure(error, text: rd_kafka_message_errstr(message).map { String(cString: $0) })
    switch error {
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
      context.state.offsetRefused(
        partition, lostEnd: RecordSorter.lostEnd(failure.text), into: &context.actions)
    case RD_KAFKA_RESP_ERR__BAD_MSG, RD_KAFKA_RESP_ERR__BAD_COMPRESSION, RD_KAFKA_RESP_ERR_INVALID_MSG:
      context.state.partitionFailed(
        partition, .corrupt(partition: partition, failure), into: &context.actions)
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
      RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
      context.state.vanished(into: &context.actions)
    case RD_KAFKA_RESP_ERR__FATAL:
      context.actions.append(.tell(.fatal(.fatal(KafkaFailure.fatal(of: client.raw)))))
    default:
      context.state.fail(.failed(failure), into: &context.actions)
    }
  }

  /// The end that a log truncation left, from librdkafka's sentence about it: its only trace.
  ///
  /// - Parameter text: the error's text.
  /// - Returns: offset after the last record left; nil if the text tells of no truncation.
  static func lostEnd(_ text: String) -> Int64? {
    guard text.contains("log truncation detected") || text.contains("No epoch found") else { return nil }
    let words = text.split(separator: " ")
    guard let at = words.firstIndex(of: "is"), at >= 2, words[at - 1] == "offset", at + 1 < words.count else {
      return 0
    }
    return max(0, Int64(words[at + 1]) ?? 0)
  }

  /// Moves the admitted messages into an array a partition and frees the others.
  private mutating func scatter(
    _ count: Int, _ context: ConsumerContext, _ client: Client
  ) -> [ConsumerEvent] {
    for partition in touched {
      targets[Int(partition)] = .allocate(capacity: Int(counts[Int(partition)]))
    }
    let messages = messages
    let places = places
    let counted = counts
    if touched.count == 1, let only = touched.first, Int(counted[Int(only)]) == count {
      targets[Int(only)]?.initialize(from: messages, count: count)
    } else {
      counts.withUnsafeMutableBufferPointer { left in
        targets.withUnsafeMutableBufferPointer { targets in
          for i in 0..<count {
            let partition = Int(places[i])
            if partition >= 0, let target = targets[partition] {
              target.advanced(by: Int(counted[partition] - left[partition])).initialize(to: messages[i])
              left[partition] -= 1
            } else if let message = messages[i] {
              if message.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR {
                context.state.drop(message.pointee.partition, 1)
              }
              rd_kafka_message_destroy(message)
            }
          }
        }
      }
    }
    var events: [ConsumerEvent] = []
    for partition in touched {
      let index = Int(partition)
      guard let target = targets[index] else { preconditionFailure("no room for partition \(partition)") }
      events.append(
        .batch(
          PartitionBatch(
            messages: target, count: Int(counted[index]),
            generation: context.state.partitions[index].generation, client: client)))
      if let last = target[Int(counted[index]) - 1] {
        context.state.handedOut(
          partition, last: last.pointee.offset, epoch: rd_kafka_message_leader_epoch(last))
      }
      targets[index] = nil
      counts[index] = 0
    }
    touched.removeAll(keepingCapacity: true)
    return events
  }

  private mutating func grow(to partitions: Int) {
    while counts.count < partitions {
      counts.append(0)
      targets.append(nil)
    }
  }
}
