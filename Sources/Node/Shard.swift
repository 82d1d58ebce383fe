// One Kafka partition's state and the one thread that writes it: decode a chunk, apply it under the gate, put what was
// not counted into the dead-letter file, go on. Readers come in between chunks.

import KafkaSource
import Posix
import QueryProtocol
import RankIndex
import StepModel

/// What the shard's thread is given, in the order of the partition.
enum ShardWork {
  case batch(PartitionBatch)
  /// All records before this offset were given.
  case endOfPartition(offsetNext: Int64)
  /// Nothing more is read until this is over; nil: it is over.
  case problem(String?)
}

/// The numbers of a shard that answers and STATUS show. Changed inside a write turn of the gate.
struct ShardNumbers {
  /// Next Kafka offset not yet applied.
  var watermark: Int64
  /// Greatest Kafka record timestamp so far, milliseconds since 1970; -1 before the first record.
  var clock: Int64 = -1
  /// Kafka timestamp of the newest applied record, milliseconds since 1970; -1 before the first.
  var newest: Int64 = -1
  var counted: UInt64 = 0
  var superseded: UInt64 = 0
  /// By `RejectReason.rawValue`.
  var rejected = [UInt64](repeating: 0, count: RejectReason.allCases.count)
  /// Whether the end of the partition was reached with the last work.
  var atEnd = false
  /// Whether it was ever reached.
  var reachedEnd = false
  /// Users of this shard that were seen in another one too.
  var usersElsewhere: UInt64 = 0
  /// Why the shard itself applies nothing any more; stays until the node ends. Nil while all is well.
  var failure: String?
  /// Why its source gives nothing now; nil while all is well.
  var problem: String?
}

/// One shard. `boards` and `numbers` are read inside `gate.read` only.
final class Shard: @unchecked Sendable {
  // Unchecked: `boards` and `numbers` are written by the shard's thread inside a write turn of `gate`; everything else
  // that changes belongs to that thread.

  /// Records of one write turn: about 150 µs, so that a reader waits no longer.
  static let chunkCount = 1_024
  /// Batches that may wait; each pins up to 10,000 records inside librdkafka.
  static let batchesWaitingMax = 4

  let partition: Int32
  let gate = Gate()
  /// Whether the thread goes on; asked without the gate.
  let progress: ShardProgress
  private(set) var boards: ShardBoards
  private(set) var numbers: ShardNumbers
  private let topic: String
  private let queue = WorkQueue<ShardWork>(countMax: batchesWaitingMax)
  private let deadLetters: DeadLetters
  private let observer: any ShardObserver
  private let meters: ShardMeters
  private let clock: Clock
  private var decoder: StepDecoder
  private var thread: Thread?
  private var reasons = [RejectReason?](repeating: nil, count: chunkCount)
  /// Rejected records of the chunk, by `RejectReason.rawValue`.
  private var rejectedHere = [UInt64](repeating: 0, count: RejectReason.allCases.count)
  private let records = UnsafeMutablePointer<Record>.allocate(capacity: chunkCount)
  private let events = UnsafeMutablePointer<StepEvent>.allocate(capacity: chunkCount)
  private let places = UnsafeMutablePointer<Int32>.allocate(capacity: chunkCount)
  private let outcomes = UnsafeMutablePointer<ApplyOutcome>.allocate(capacity: chunkCount)

  /// - Parameters:
  ///   - partition: the Kafka partition.
  ///   - topic: its topic.
  ///   - start: first offset to apply.
  ///   - settings: those of the cluster.
  ///   - deadLetters: where rejected records go.
  ///   - observer: told after each turn.
  ///   - meters: what all shards of the node count into.
  ///   - clock: tells how long records took to become visible.
  init(
    partition: Int32, topic: String, start: Int64, settings: ClusterSettings, deadLetters: DeadLetters,
    observer: any ShardObserver, meters: ShardMeters, clock: Clock
  ) {
    self.partition = partition
    self.topic = topic
    self.deadLetters = deadLetters
    self.observer = observer
    self.meters = meters
    self.clock = clock
    progress = ShardProgress(clock)
    numbers = ShardNumbers(watermark: start)
    boards = ShardBoards(
      mode: settings.stepsMode, week: settings.boardsWeek, month: settings.boardsMonth,
      all: settings.boardsAll, hashKey: HashKey(.random(in: 0 ... .max), .random(in: 0 ... .max)))
    decoder = StepDecoder(settings: settings)
  }

  deinit {
    records.deallocate()
    events.deallocate()
    places.deallocate()
    outcomes.deallocate()
  }

  /// Starts the shard's thread.
  func start() throws(SystemError) {
    thread = try Thread("shard-\(partition)") { [self] in
      var taken: [ShardWork] = []
      while queue.take(into: &taken) {
        for work in taken {
          process(work)
          progress.done()
        }
      }
    }
  }

  /// Gives work; waits while too much waits already. Called by the one thread that reads Kafka.
  func give(_ work: ShardWork) {
    progress.given()
    if !queue.give(work) { progress.done() }
  }

  /// Ends the thread after what was given is done.
  func stop() {
    queue.close()
    thread?.join()
    thread = nil
  }

  private func process(_ work: ShardWork) {
    switch work {
    case .batch(let batch):
      var index = 0
      // Behind a failure a record is missing: none after it may count.
      while index < batch.count, numbers.failure == nil {
        let count = min(Shard.chunkCount, batch.count - index)
        apply(batch, index..<(index + count))
        index += count
      }
      batch.release()
    case .endOfPartition(let offsetNext):
      guard numbers.failure == nil else { break }
      gate.write {
        numbers.watermark = max(numbers.watermark, offsetNext)
        numbers.atEnd = true
        numbers.reachedEnd = true
      }
    case .problem(let text):
      gate.write { numbers.problem = text }
    }
    observer.shardMoved(self)
  }

  /// One chunk, at most `chunkCount` records: decode outside the gate, apply inside.
  private func apply(_ batch: PartitionBatch, _ range: Range<Int>) {
    batch.read(range, into: records)
    let clockBefore = numbers.clock
    var clock = clockBefore
    var eventCount = 0
    var rejectedCount = 0
    decoder.reset()
    for index in 0..<range.count {
      let record = records[index]
      clock = max(clock, record.timestampMs)
      let payload = UnsafeRawBufferPointer(
        start: record.payload, count: record.payload == nil ? 0 : record.payloadBytes)
      let reason = decoder.decode(
        payload, offset: record.offset, shardClock: clock, into: &events[eventCount])
      reasons[index] = reason
      if reason == nil {
        places[eventCount] = Int32(truncatingIfNeeded: index)
        eventCount += 1
      } else {
        rejectedCount += 1
      }
    }
    let usersBefore = boards.users
    let countedBefore = numbers.counted
    var full = false
    gate.write {
      boards.apply(UnsafeBufferPointer(start: events, count: eventCount), outcomes: outcomes)
      for index in 0..<eventCount {
        switch outcomes[index] {
        case .counted: numbers.counted += 1
        case .superseded:
          numbers.counted += 1
          numbers.superseded += 1
        case .overflow:
          reasons[Int(places[index])] = .overflow
          rejectedCount += 1
        case .full: full = true
        }
      }
      if rejectedCount > 0 {
        tally(range.count)
        for reason in rejectedHere.indices { numbers.rejected[reason] += rejectedHere[reason] }
      }
      numbers.watermark = records[range.count - 1].offset + 1
      numbers.clock = clock
      numbers.newest = records[range.count - 1].timestampMs
      numbers.atEnd = false
    }
    if full { fail("the shard has as many users as it can hold (2^27); give the topic more partitions") }
    progress.moved()
    meters.applied(
      counted: numbers.counted - countedBefore, newestMs: numbers.newest, wallMs: self.clock.wall / 1_000_000)
    if rejectedCount > 0 {
      meters.rejected(rejectedHere)
      bury(range.count)
    }
    if boards.users > usersBefore { observer.usersAppeared(self, usersBefore..<boards.users) }
    observer.shardMoved(self)
  }

  /// Counts the chunk's rejected records by reason.
  private func tally(_ count: Int) {
    for reason in rejectedHere.indices { rejectedHere[reason] = 0 }
    for index in 0..<count {
      if let reason = reasons[index] { rejectedHere[Int(reason.rawValue)] += 1 }
    }
  }

  /// Writes the chunk's rejected records to the dead-letter file; a disk that refuses stops the shard.
  private func bury(_ count: Int) {
    var batch = deadLetters.batch(topic: topic, partition: partition)
    for index in 0..<count {
      guard let reason = reasons[index] else { continue }
      let record = records[index]
      batch.add(
        offset: record.offset, timestamp: record.timestampMs, reason: reason,
        payload: UnsafeRawBufferPointer(
          start: record.payload, count: record.payload == nil ? 0 : record.payloadBytes))
    }
    do throws(DeadLetterError) {
      try deadLetters.append(batch)
    } catch {
      let text =
        switch error {
        case .disk(let error):
          "dead letters cannot be written: \(error); make room or repair the disk, then restart"
        case .damaged(let path, let place): "dead letters: \(path) is damaged at byte \(place)"
        }
      fail(text)
    }
  }

  private func fail(_ reason: String) {
    gate.write { numbers.failure = reason }
    observer.shardFailed(self, reason)
  }

  /// Notes that users of this shard were seen in another one.
  func noteUsersElsewhere(_ count: Int) {
    gate.write { numbers.usersElsewhere += UInt64(count) }
  }

  /// STATUS of this shard; call inside `gate.read`.
  ///
  /// - Parameter endOffset: next offset the broker will give, if it was heard of.
  /// - Returns: the shard's numbers.
  func status(endOffset: Int64?) -> ShardStatus {
    let end = endOffset.map { max($0, numbers.watermark) } ?? (numbers.reachedEnd ? numbers.watermark : -1)
    return ShardStatus(
      partition: UInt32(partition), state: state, reason: numbers.failure ?? numbers.problem ?? "",
      watermark: numbers.watermark,
      endOffset: end, lag: end < 0 ? -1 : end - numbers.watermark, counted: numbers.counted,
      rejected: numbers.rejected,
      superseded: numbers.superseded, shardClockMillis: numbers.clock, users: UInt64(boards.users))
  }

  /// What the shard is doing; call inside `gate.read`.
  var state: RunState {
    if numbers.failure != nil || numbers.problem != nil { return .stopped }
    return numbers.reachedEnd ? .serving : .catchingUp
  }
}

/// Who is told what shards do. Called on the shard's thread, outside its gate.
protocol ShardObserver: AnyObject, Sendable {
  /// The watermark may have moved.
  func shardMoved(_ shard: Shard)
  /// Users appeared whom the shard had not seen before, by number.
  func usersAppeared(_ shard: Shard, _ numbers: Range<Int>)
  /// The shard stopped for a reason of its own.
  func shardFailed(_ shard: Shard, _ reason: String)
}
