// One Kafka partition's state and the one thread that writes it: restore it from the disk, then decode a chunk, apply it
// under the gate, hand it to the log, go on. Readers come in between chunks; nobody here waits for the disk.

import KafkaSource
import Posix
import QueryProtocol
import RankIndex
import SegmentLog
import StepModel
import Synchronization

/// What the shard's thread is given, in the order of the partition.
enum ShardWork {
  case batch(PartitionBatch)
  /// All records before this offset were given.
  case endOfPartition(offsetNext: Int64)
  /// Nothing more is read until this is over; nil: it is over.
  case problem(String?)
  /// A person accepted that the records before this offset are lost.
  case gapAccepted(offsetNext: Int64)
  /// Mark an image of the state as it is now, and give it away.
  case freeze(@Sendable (ShardImage?) -> Void)
  /// Finish the log's segment under way.
  case endSegment
}

/// The state of a shard as of one moment, for a snapshot.
struct ShardImage: Sendable {
  let boards: FrozenBoards
  let numbers: ShardNumbers
}

/// The numbers of a shard that answers and STATUS show. Changed inside a write turn of the gate.
struct ShardNumbers {
  /// Next Kafka offset not yet applied.
  var watermark: Int64 = 0
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
  /// What is on the disk.
  let store: ShardStore
  private(set) var boards: ShardBoards
  private(set) var numbers = ShardNumbers()
  private let settings: ClusterSettings
  private let queue = WorkQueue<ShardWork>(countMax: batchesWaitingMax)
  private let observer: any ShardObserver
  private let meters: ShardMeters
  private let clock: Clock
  private let restoredWatermark = Atomic<Int64>(-1)
  private var decoder: StepDecoder
  private var thread: Thread?
  /// User numbers seen so far.
  private var known = UserNumberSet()
  private var reasons = [RejectReason?](repeating: nil, count: chunkCount)
  /// Rejected records of the chunk, by `RejectReason.rawValue`.
  private var rejectedHere = [UInt64](repeating: 0, count: RejectReason.allCases.count)
  private let records = UnsafeMutablePointer<Record>.allocate(capacity: chunkCount)
  private let events = UnsafeMutablePointer<StepEvent>.allocate(capacity: chunkCount)
  private let places = UnsafeMutablePointer<Int32>.allocate(capacity: chunkCount)
  private let timestamps = UnsafeMutablePointer<Int64>.allocate(capacity: chunkCount)
  private let payloads = UnsafeMutablePointer<UnsafeRawBufferPointer>.allocate(capacity: chunkCount)
  private var users = UnsafeMutableBufferPointer<UserNumber>.allocate(capacity: chunkCount)
  private var outcomes = UnsafeMutableBufferPointer<ApplyOutcome>.allocate(capacity: chunkCount)

  /// - Parameters:
  ///   - store: what is on the disk; the shard's thread restores it.
  ///   - settings: those of the cluster.
  ///   - observer: told after each turn.
  ///   - meters: what all shards of the node count into.
  ///   - clock: tells how long records took to become visible.
  init(
    _ store: ShardStore, settings: ClusterSettings, observer: any ShardObserver, meters: ShardMeters,
    clock: Clock
  ) {
    partition = store.identity.partition
    self.store = store
    self.settings = settings
    self.observer = observer
    self.meters = meters
    self.clock = clock
    progress = ShardProgress(clock)
    boards = Shard.emptyBoards(settings)
    decoder = StepDecoder(settings: settings)
  }

  deinit {
    records.deallocate()
    events.deallocate()
    places.deallocate()
    timestamps.deallocate()
    payloads.deallocate()
    users.deallocate()
    outcomes.deallocate()
  }

  /// Starts the shard's thread: it restores what is on the disk, then does the work it is given.
  func start() throws(SystemError) {
    thread = try Thread("shard-\(partition)") { [self] in
      ThreadPriority.applying.take()
      restore()
      var taken: [ShardWork] = []
      while queue.take(into: &taken) {
        for work in taken {
          process(work)
          progress.done()
        }
      }
    }
  }

  /// Gives work; waits while too much waits already.
  ///
  /// - Returns: false if the shard was stopped; the work is dropped then.
  @discardableResult func give(_ work: ShardWork) -> Bool {
    progress.given()
    if queue.give(work) { return true }
    progress.done()
    return false
  }

  /// Ends the thread after what was given is done, and closes the log once that is durable.
  func stop() {
    queue.close()
    thread?.join()
    thread = nil
    store.close()
  }

  private static func emptyBoards(_ settings: ClusterSettings) -> ShardBoards {
    ShardBoards(
      mode: settings.stepsMode, week: settings.boardsWeek, month: settings.boardsMonth,
      all: settings.boardsAll, hashKey: HashKey(.random(in: 0 ... .max), .random(in: 0 ... .max)))
  }

  // MARK: - From the disk

  /// The watermark that the disk gave; nil until all of it is applied, and for good if it cannot be. Any thread.
  var restoredTo: Int64? {
    let watermark = restoredWatermark.load(ordering: .acquiring)
    return watermark < 0 ? nil : watermark
  }

  /// The newest snapshot, then the log behind it. Nobody sees the state before it is as it was.
  private func restore() {
    let before: (boards: ShardBoards, numbers: ShardNumbers)
    do throws(RestoreFailure) {
      var state = try store.load { Shard.emptyBoards(settings) }
      try store.replay { (batch) throws(RestoreFailure) in
        try replay(batch, on: state.boards, &state.numbers)
      }
      before = state
    } catch {
      return fail(error.description)
    }
    gate.write {
      boards = before.boards
      numbers = before.numbers
    }
    observer.shardLoaded(self)
    noteRestoredUsers()
    restoredWatermark.store(numbers.watermark, ordering: .releasing)
    observer.shardRestored(self)
  }

  /// A batch of the log: its events are applied again, and must come out as they did.
  private func replay(
    _ batch: DecodedBatch, on boards: ShardBoards, _ numbers: inout ShardNumbers
  ) throws(RestoreFailure) {
    if outcomes.count < batch.events.count {
      outcomes.deallocate()
      outcomes = .allocate(capacity: batch.events.count)
    }
    if let place = outcomes.baseAddress { boards.apply(batch.events, outcomes: place) }
    for outcome in outcomes[..<batch.events.count] {
      switch outcome {
      case .counted: numbers.counted += 1
      case .superseded:
        numbers.counted += 1
        numbers.superseded += 1
      case .overflow, .full: throw .disagrees(first: batch.header.first, next: batch.header.next)
      }
    }
    for record in batch.rejected { numbers.rejected[Int(record.reason.rawValue)] += 1 }
    numbers.watermark = batch.header.next
    numbers.clock = batch.header.clockMs
    numbers.newest = batch.header.newestMs
    progress.moved()
  }

  /// Whoever else has these users is told of, a chunk at a time so that no other shard waits for long.
  private func noteRestoredUsers() {
    var number: UserNumber = 0
    var given: [UserNumber] = []
    while number < boards.numbersEnd {
      given.removeAll(keepingCapacity: true)
      while number < boards.numbersEnd, given.count < Shard.chunkCount {
        if boards.isUser(number) { given.append(number) }
        number += 1
      }
      given.withUnsafeBufferPointer(noteUsers)
    }
  }

  // MARK: - From Kafka

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
      if offsetNext > numbers.watermark { store.pass(after: numbers, to: offsetNext) }
      gate.write {
        numbers.watermark = max(numbers.watermark, offsetNext)
        numbers.atEnd = true
        numbers.reachedEnd = true
      }
    case .gapAccepted(let offsetNext):
      guard numbers.failure == nil, offsetNext > numbers.watermark else { break }
      store.acceptGap(after: numbers, to: offsetNext)
      gate.write { numbers.watermark = offsetNext }
    case .freeze(let give):
      give(gate.write { boards.freeze().map { ShardImage(boards: $0, numbers: numbers) } })
    case .endSegment: store.endSegment()
    case .problem(let text):
      gate.write { numbers.problem = text }
    }
    observer.shardMoved(self)
  }

  /// Marks an image of the state as of now, behind the work that waits; waits for it. Any thread but the shard's.
  ///
  /// - Returns: the image; nil if there is one already, or the shard was stopped.
  func freeze() -> ShardImage? {
    let answer = WorkQueue<ShardImage?>(countMax: 1)
    guard give(.freeze { answer.give($0) }) else { return nil }
    var taken: [ShardImage?] = []
    return answer.take(into: &taken) ? taken[0] : nil
  }

  /// Ends the image that `freeze` gave; any thread.
  func thaw() { gate.write { boards.thaw() } }

  /// One chunk, at most `chunkCount` records: decode outside the gate, apply inside, then log.
  private func apply(_ batch: PartitionBatch, _ range: Range<Int>) {
    batch.read(range, into: records)
    let before = numbers
    var clock = before.clock
    var eventCount = 0
    var rejectedCount = 0
    decoder.reset()
    for index in 0..<range.count {
      let record = records[index]
      clock = max(clock, record.timestampMs)
      let reason = decoder.decode(
        payload(record), offset: record.offset, shardClock: clock, into: &events[eventCount])
      reasons[index] = reason
      if reason == nil {
        places[eventCount] = Int32(truncatingIfNeeded: index)
        eventCount += 1
      } else {
        rejectedCount += 1
      }
    }
    let usersBefore = boards.users
    var full = false
    gate.write {
      if let place = outcomes.baseAddress {
        boards.apply(
          UnsafeBufferPointer(start: events, count: eventCount), outcomes: place, numbers: users.baseAddress)
      }
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
    // Here nobody waits for us. If others want the core, better now than inside the next turn, where readers would wait
    // until the scheduler lets us go on; and who was let in by this turn's end runs at once.
    Thread.yield()
    if full {
      return fail("the shard has as many users as it can hold (2^27); give the topic more partitions")
    }
    log(range.count, eventCount, after: before)
    progress.moved()
    meters.applied(
      counted: numbers.counted - before.counted, newestMs: numbers.newest,
      wallMs: self.clock.wall / 1_000_000)
    if rejectedCount > 0 { meters.rejected(rejectedHere) }
    if boards.users > usersBefore {
      noteUsers(UnsafeBufferPointer(start: users.baseAddress, count: eventCount))
    }
    observer.shardMoved(self)
  }

  private func payload(_ record: Record) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: record.payload, count: record.payload == nil ? 0 : record.payloadBytes)
  }

  /// Hands the chunk to the log in the order of its offsets: what lies between rejected records in one run. One of large
  /// payloads becomes several batches.
  private func log(_ count: Int, _ eventCount: Int, after before: ShardNumbers) {
    for event in 0..<eventCount {
      let record = records[Int(places[event])]
      timestamps[event] = record.timestampMs
      payloads[event] = payload(record)
    }
    var clock = before.clock
    var index = 0
    var event = 0
    store.begin()
    while index < count {
      let first = index
      if let reason = reasons[index] {
        let record = records[index]
        store.rejected(
          offset: record.offset, timestampMs: record.timestampMs, reason: reason, payload: payload(record))
        // What would overflow was decoded like an event.
        if reason == .overflow { event += 1 }
        index += 1
      } else {
        let end = endOfRun(from: index, count)
        let taken = store.events(run(event, end - index))
        event += taken
        index += taken
      }
      for record in first..<index { clock = max(clock, records[record].timestampMs) }
      if store.isBatchFull || index == count {
        let last = records[index - 1]
        store.finish(next: last.offset + 1, clock: clock, newest: last.timestampMs)
        if index < count { store.begin() }
      }
    }
  }

  /// The next rejected record of the chunk, or its end.
  private func endOfRun(from start: Int, _ count: Int) -> Int {
    var end = start
    while end < count, reasons[end] == nil { end += 1 }
    return end
  }

  private func run(_ event: Int, _ count: Int) -> EventRun {
    guard let users = users.baseAddress else { preconditionFailure("a shard without room for users") }
    return EventRun(
      events: events + event, numbers: users + event, timestampsMs: timestamps + event,
      payloads: payloads + event, count: count)
  }

  /// Tells of users who are new here.
  private func noteUsers(_ numbers: UnsafeBufferPointer<UserNumber>) {
    var new: [UserNumber] = []
    for number in numbers where number != ShardBoards.noUser && known.insert(number) { new.append(number) }
    if !new.isEmpty { observer.usersAppeared(self, new) }
  }

  /// Counts the chunk's rejected records by reason.
  private func tally(_ count: Int) {
    for reason in rejectedHere.indices { rejectedHere[reason] = 0 }
    for index in 0..<count {
      if let reason = reasons[index] { rejectedHere[Int(reason.rawValue)] += 1 }
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
    let restoring = state == .restoring ? store.restoreProgress : (done: 0, all: 0)
    return ShardStatus(
      partition: UInt32(partition), state: state, reason: reason ?? "",
      watermark: numbers.watermark,
      endOffset: end, lag: end < 0 ? -1 : end - numbers.watermark, counted: numbers.counted,
      rejected: numbers.rejected,
      superseded: numbers.superseded, shardClockMillis: numbers.clock, users: UInt64(boards.users),
      durable: store.durable, snapshot: store.snapshotWatermark, sealed: store.sealedWatermark,
      restoredBytes: UInt64(restoring.done), restoreBytes: UInt64(restoring.all))
  }

  /// Why it stands still; nil while it does not. Call inside `gate.read`.
  var reason: String? { numbers.failure ?? numbers.problem ?? store.problem }

  /// What the shard is doing; call inside `gate.read`.
  var state: RunState {
    if reason != nil { return .stopped }
    if restoredTo == nil { return .restoring }
    return numbers.reachedEnd ? .serving : .catchingUp
  }
}

/// Who is told what shards do. Called on the shard's thread, outside its gate.
protocol ShardObserver: AnyObject, Sendable {
  /// All that was on the disk is applied: the shard answers from here on.
  func shardLoaded(_ shard: Shard)
  /// The shard can be read from Kafka.
  func shardRestored(_ shard: Shard)
  /// The watermark may have moved.
  func shardMoved(_ shard: Shard)
  /// Users appeared whom the shard had not seen before.
  func usersAppeared(_ shard: Shard, _ numbers: [UserNumber])
  /// The shard stopped for a reason of its own.
  func shardFailed(_ shard: Shard, _ reason: String)
}
