// rmsbench log: what the log costs and how fast it is. Ops/bench sets it beside fio and lz4.
//
// One line a figure: name, median, unit, least, most, over the rounds. CPU times are those of the thread alone. A
// checksum of what was encoded and read back ends the output.

import Glibc
internal import Posix
internal import SegmentLog
internal import StepModel
internal import Synchronization

private let usage = """
  usage: rmsbench log [--smoke] [--only PART] [--data-dir DIR] [--seconds N] [--rounds N] [--segment FILE]

  Encodes, appends, seals and reads the log of one shard: UUID users, steps below 2,000, times all over a day.
  --smoke         small numbers, for a check that takes a second
  --only PART     encode, append, paced or seal
                    encode  batches of 1,024 events, as a node has them, and all of them read again
                    append  10,000 events a sync, as fast as disk and processor go; then events that keep 100 bytes of
                            their records, 256 KiB a sync, where the disk alone sets the pace; from given to durable
                    paced   256 KiB each 5 ms: from given to durable
                    seal    a segment of 2,000,000 events: its steps apart, and all of it
  --data-dir DIR  where the files go (default: the current folder); a folder in it is made and removed
  --seconds N     how long appending goes on (default 5)
  --rounds N      how often each is repeated (default 5)
  --segment FILE  keep a copy of the segment that is sealed
  """

/// What `rmsbench log` runs with.
private struct LogBenchParameters {
  enum Part: String, CaseIterable { case encode, append, paced, seal }

  var users = [72_000, 1_000_000]
  var events = 2_000_000
  var rounds = 5
  var seconds = 5.0
  var folder = "."
  var parts = Part.allCases
  var segment: String?

  init?(_ arguments: [String]) {
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      switch argument {
      case "--smoke":
        users = [2_000]
        events = 20_000
        rounds = 2
        seconds = 0.1
      case "--only":
        guard let text = rest.popFirst(), let part = Part(rawValue: text) else { return nil }
        parts = [part]
      case "--data-dir":
        guard let text = rest.popFirst() else { return nil }
        folder = text
      case "--seconds":
        guard let text = rest.popFirst(), let value = Double(text), value > 0 else { return nil }
        seconds = value
      case "--rounds":
        guard let text = rest.popFirst(), let value = Int(text), value > 0 else { return nil }
        rounds = value
      case "--segment":
        guard let text = rest.popFirst() else { return nil }
        segment = text
      default: return nil
      }
    }
  }
}

/// Runs the benchmark; ends the process with 1 if what was read back differs, with 2 for a wrong argument.
///
/// - Parameter arguments: those after `log`.
func logBench(_ arguments: [String]) {
  guard let parameters = LogBenchParameters(arguments) else {
    print(usage)
    exit(arguments == ["--help"] ? 0 : 2)
  }
  let folder = parameters.folder + "/rmsbench-log-\(getpid())"
  let bench = LogBench(parameters, folder: folder)
  do {
    try Files().makeFolder(folder)
    for part in parameters.parts {
      switch part {
      case .encode: for users in parameters.users { try bench.encode(users: users) }
      case .append:
        try bench.append("log.append", keptBytes: 0, pace: nil)
        try bench.append("log.append-kept", keptBytes: 100, pace: nil)
      case .paced: try bench.append("log.paced", keptBytes: 100, pace: .milliseconds(5))
      case .seal: try bench.seal()
      }
    }
  } catch {
    complain("rmsbench log: \(error)\n")
    exit(1)
  }
  bench.emptyFolder()
  rmdir(folder)
  if !bench.isRight { print("log.wrong what was read back differs") }
  print("log.checksum \(bench.checksum) hash")
  if !bench.isRight { exit(1) }
}

/// Events of a batch, as a node gives them: one turn of a shard.
private let turnEvents = 1_024

private func seconds(_ clock: clockid_t) -> Double {
  var time = timespec()
  clock_gettime(clock, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Notes when what was given became durable.
private final class Observer: LogObserver {
  struct Notes {
    /// Batches that are not durable yet: watermark behind each, and when it was given.
    var given: [(next: Int64, at: Moment)] = []
    var microseconds: [Double] = []
    var syncs = 0
  }

  let notes = Mutex(Notes())

  func gave(_ next: Int64) {
    let now = Clock.system.now
    notes.withLock { $0.given.append((next, now)) }
  }

  func log(_ log: Log, durable watermark: Int64) {
    let now = Clock.system.now
    notes.withLock { notes in
      notes.syncs += 1
      let done = notes.given.prefix { $0.next <= watermark }.count
      for batch in notes.given[..<done] {
        notes.microseconds.append(Double((now - batch.at).nanoseconds) / 1e3)
      }
      notes.given.removeFirst(done)
    }
  }

  func log(_ log: Log, finished segment: String) {}
  func log(_ log: Log, diskFull path: String) { complain("rmsbench log: \(path): the disk is full\n") }
  func logHasRoom(_ log: Log) {}
  func log(_ log: Log, failed error: LogError) { complain("rmsbench log: \(error)\n") }
}

private final class LogBench {
  private let parameters: LogBenchParameters
  private let folder: String
  private(set) var checksum: UInt64 = 0
  private(set) var isRight = true
  private let identity = LogIdentity(
    topic: "steps", topicID: .init(high: 1, low: 2), partition: 0, fingerprint: 3)

  init(_ parameters: LogBenchParameters, folder: String) {
    self.parameters = parameters
    self.folder = folder
  }

  func emptyFolder() {
    guard let names = try? Files().names(in: folder) else { return }
    for name in names { try? Files().remove(folder + "/" + name) }
  }

  private func tell(_ name: String, _ values: [Double], _ unit: String) {
    func text(_ value: Double) -> String {
      let tenths = Int((value * 100).rounded())
      return "\(tenths / 100).\(tenths % 100 < 10 ? "0" : "")\(tenths % 100)"
    }
    let sorted = values.sorted()
    print(
      "\(name) \(text(sorted[sorted.count / 2])) \(unit) \(text(sorted[0])) \(text(sorted[sorted.count - 1]))"
    )
  }

  /// Events of so many users, and their numbers.
  private func events(_ count: Int, users: Int) -> (events: [StepEvent], numbers: [UInt32]) {
    var state: UInt64 = 7
    func random() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var z = state
      z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
      z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
      return z ^ (z >> 31)
    }
    // Numbers in the order of first appearance, as a shard gives them.
    var known = [UInt32](repeating: .max, count: users)
    var next: UInt32 = 0
    var numbers: [UInt32] = []
    let events = (0..<count).map { index -> StepEvent in
      let user = Int(random() % UInt64(users))
      if known[user] == .max {
        known[user] = next
        next += 1
      }
      numbers.append(known[user])
      return StepEvent(
        user: userKey(UInt64(user)), offset: Int64(index),
        timeOfDay: Int64(random() % 86_400) * 1_000_000_000,
        steps: UInt32(random() % 2_000), day: Day(number: 20_781))
    }
    return (events, numbers)
  }

  /// Gives events as one run, as a shard does.
  private func give(
    _ log: Log, _ events: [StepEvent], _ numbers: [UInt32], _ timestamps: [Int64],
    _ payloads: [UnsafeRawBufferPointer]
  ) {
    events.withUnsafeBufferPointer { events in
      numbers.withUnsafeBufferPointer { numbers in
        timestamps.withUnsafeBufferPointer { timestamps in
          payloads.withUnsafeBufferPointer { payloads in
            guard let event = events.baseAddress, let number = numbers.baseAddress,
              let timestamp = timestamps.baseAddress, let payload = payloads.baseAddress
            else { return }
            let taken = log.batch.events(
              EventRun(
                events: event, numbers: number, timestampsMs: timestamp, payloads: payload,
                count: events.count))
            precondition(taken == events.count, "a batch took \(taken) events of \(events.count)")
          }
        }
      }
    }
  }

  /// A whole log, then what it took and holds. A turn's events are in the processor's cache when they are encoded, as
  /// they are in a shard, which has just decoded and applied them.
  func encode(users: Int) throws {
    let (events, numbers) = events(parameters.events, users: users)
    var encodeTimes: [Double] = []
    var decodeTimes: [Double] = []
    var bytes = 0
    var sealed = 0
    let nothing = [UnsafeRawBufferPointer](
      repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: turnEvents)
    for round in 0..<parameters.rounds {
      emptyFolder()
      let syncer = try LogSyncer()
      defer { syncer.stop() }
      let log = Log(
        identity: identity, folder: folder, position: LogPosition(watermark: 0, origin: 0),
        limits: LogLimits(segmentBytes: 1 << 30), syncer: syncer, observer: Observer())
      var took = 0.0
      for first in stride(from: 0, to: events.count, by: turnEvents) {
        let end = min(events.count, first + turnEvents)
        let turn = Array(events[first..<end])
        let users = Array(numbers[first..<end])
        let timestamps = (first..<end).map { 1_795_521_600_000 + Int64($0 >> 10) }
        let start = seconds(CLOCK_THREAD_CPUTIME_ID)
        log.begin()
        give(log, turn, users, timestamps, nothing)
        _ = try log.finish(next: Int64(end), clockMs: 1_800_000_000_000, newestMs: 0)
        took += seconds(CLOCK_THREAD_CPUTIME_ID) - start
      }
      encodeTimes.append(took * 1e9 / Double(events.count))
      try log.close()
      try decode(events, &decodeTimes)
      if round == parameters.rounds - 1 {
        let report = try Sealer.seal(base: 0, in: folder, identity: identity)
        bytes = report.bytesBefore
        sealed = report.bytesAfter
      }
    }
    tell("log.\(users).encode", encodeTimes, "ns-CPU/event")
    tell("log.\(users).replay", decodeTimes, "ns-CPU/event")
    tell("log.\(users).bytes", [Double(bytes) / Double(events.count)], "bytes/event")
    tell("log.\(users).bytes-sealed", [Double(sealed) / Double(events.count)], "bytes/event")
  }

  private func decode(_ events: [StepEvent], _ times: inout [Double]) throws {
    let start = seconds(CLOCK_THREAD_CPUTIME_ID)
    let recovery = try Recovery(folder: folder, identity: identity, snapshots: [])
    var sum: UInt64 = 0
    var count = 0
    try recovery.replay { batch, _ in
      for event in batch.events {
        sum = sum &* 31 &+ (event.user.high ^ UInt64(event.steps) ^ UInt64(bitPattern: event.timeOfDay))
        count += 1
      }
    }
    times.append((seconds(CLOCK_THREAD_CPUTIME_ID) - start) * 1e9 / Double(max(1, count)))
    var expected: UInt64 = 0
    for event in events {
      expected =
        expected &* 31 &+ (event.user.high ^ UInt64(event.steps) ^ UInt64(bitPattern: event.timeOfDay))
    }
    isRight = isRight && sum == expected && count == events.count
    checksum = sum
  }

  /// Appends as fast as disk and processor take it, or a batch each `pace`.
  ///
  /// - Parameters:
  ///   - name: of the figures.
  ///   - keptBytes: payload kept with each event; with 0 a batch has 10,000 events, else 256 KiB.
  ///   - pace: nil for as fast as it goes.
  /// - Throws: what the log or the disk says.
  func append(_ name: String, keptBytes: Int, pace: Duration?) throws {
    let count = keptBytes == 0 ? 10_000 : (256 << 10) / (keptBytes + 7)
    let all = events(count * 20, users: 72_000)
    let batches = (0..<20).map { index -> (events: [StepEvent], numbers: [UInt32]) in
      let range = (index * count)..<((index + 1) * count)
      return (Array(all.events[range]), Array(all.numbers[range]))
    }
    let timestamps = [Int64](repeating: 1_795_521_600_000, count: count)
    let timer = try WakeUp()
    let payload = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, keptBytes), alignment: 8)
    defer { payload.deallocate() }
    payload.initializeMemory(as: UInt8.self, repeating: 0x20)
    let payloads = [UnsafeRawBufferPointer](
      repeating: UnsafeRawBufferPointer(rebasing: payload[..<keptBytes]), count: count)
    var rates: [Double] = []
    var eventRates: [Double] = []
    var syncBytes: [Double] = []
    var cpus: [Double] = []
    var medians: [Double] = []
    var tails: [Double] = []
    for _ in 0..<parameters.rounds {
      emptyFolder()
      let syncer = try LogSyncer()
      defer { syncer.stop() }
      let observer = Observer()
      let log = Log(
        identity: identity, folder: folder, position: LogPosition(watermark: 0, origin: 0),
        limits: LogLimits(pendingBytesMax: 512 << 10, syncInterval: .zero), syncer: syncer, observer: observer
      )
      let start = Clock.system.now
      let startCPU = seconds(CLOCK_PROCESS_CPUTIME_ID)
      var next: Int64 = 0
      var bytes = 0
      var index = 0
      while Clock.system.now - start < .seconds(parameters.seconds) {
        var events = batches[index % 20].events
        let numbers = batches[index % 20].numbers
        for place in 0..<count {
          events[place].offset = next + Int64(place)
          events[place].hasUnknownFields = keptBytes > 0
        }
        log.begin()
        give(log, events, numbers, timestamps, payloads)
        next += Int64(count)
        index += 1
        observer.gave(next)
        if try !log.finish(next: next, clockMs: 1_800_000_000_000, newestMs: 0) { try log.waitForRoom() }
        bytes += log.bytesOfLastBatch
        if let pace {
          let left = start + pace * index - Clock.system.now
          if left > .zero { _ = timer.wait(left) }
        }
      }
      try log.flush()
      let took = Double((Clock.system.now - start).nanoseconds) / 1e9
      cpus.append((seconds(CLOCK_PROCESS_CPUTIME_ID) - startCPU) * 1e9 / Double(next))
      try log.close()
      let notes = observer.notes.withLock { ($0.syncs, $0.microseconds.sorted()) }
      rates.append(Double(bytes) / took / 1e6)
      eventRates.append(Double(next) / took / 1e6)
      syncBytes.append(Double(bytes) / Double(max(1, notes.0)) / 1024)
      medians.append(notes.1[notes.1.count / 2])
      tails.append(notes.1[notes.1.count * 99 / 100])
    }
    tell(name + ".rate", rates, "MB/s")
    tell(name + ".events", eventRates, "M-events/s")
    tell(name + ".sync", syncBytes, "KiB/sync")
    tell(name + ".cpu", cpus, "ns-CPU/event")
    tell(name + ".durable-p50", medians, "us")
    tell(name + ".durable-p99", tails, "us")
  }

  /// Seals a segment, and compresses its content alone.
  func seal() throws {
    var sealTimes: [Double] = []
    var sealWalls: [Double] = []
    var frameTimes: [Double] = []
    var ratios: [Double] = []
    let (events, numbers) = events(parameters.events, users: 72_000)
    for round in 0..<parameters.rounds {
      emptyFolder()
      let syncer = try LogSyncer()
      defer { syncer.stop() }
      let log = Log(
        identity: identity, folder: folder, position: LogPosition(watermark: 0, origin: 0), syncer: syncer,
        observer: Observer())
      for first in stride(from: 0, to: events.count, by: turnEvents) {
        log.begin()
        let end = min(events.count, first + turnEvents)
        for index in first..<end {
          log.batch.event(
            events[index], number: numbers[index], timestampMs: 1,
            payload: UnsafeRawBufferPointer(start: nil, count: 0))
        }
        _ = try log.finish(next: Int64(end), clockMs: 1_800_000_000_000, newestMs: 0)
      }
      try log.close()
      let path = folder + "/" + SegmentName(base: 0, form: .plain).text
      let content = try Files().read(whole: path, bytesMax: 1 << 30)
      if round == 0, let kept = parameters.segment {
        let file = try Files().open(kept, .replace)
        try content.withUnsafeBytes { try file.write($0, at: 0) }
      }
      let frameStart = seconds(CLOCK_THREAD_CPUTIME_ID)
      let frameBytes = content.withUnsafeBytes { Sealer.frameBytes(of: $0) }
      let megabytes = Double(content.count) / 1e6
      frameTimes.append(megabytes / (seconds(CLOCK_THREAD_CPUTIME_ID) - frameStart))
      let start = seconds(CLOCK_THREAD_CPUTIME_ID)
      let wall = seconds(CLOCK_MONOTONIC)
      let report = try Sealer.seal(base: 0, in: folder, identity: identity)
      sealTimes.append(megabytes / (seconds(CLOCK_THREAD_CPUTIME_ID) - start))
      sealWalls.append(megabytes / (seconds(CLOCK_MONOTONIC) - wall))
      isRight = isRight && report.bytesAfter == frameBytes && report.bytesBefore == content.count
      ratios.append(Double(report.bytesBefore) / Double(report.bytesAfter))
    }
    tell("log.frame", frameTimes, "MB/s-CPU")
    tell("log.seal", sealTimes, "MB/s-CPU")
    tell("log.seal-wall", sealWalls, "MB/s")
    tell("log.lz4-ratio", ratios, "x")
  }
}
