// rmsbench log: what the log costs and how fast it is, beside fio and lz4 in the same run.
//
// One line a figure: name, median, unit, least, most, over the rounds. CPU times are those of the thread alone. A
// checksum of what was encoded and read back ends the output.

import Glibc
internal import Posix
internal import SegmentLog
internal import StepModel
internal import Synchronization

private let usage = """
  usage: rmsbench log [--smoke] [--data-dir DIR] [--seconds N]

  Encodes, appends, seals and reads the log of one shard: UUID users, steps below 2,000, times all over a day, batches of
  10,000 events. Appending and syncing is set beside fio with the same bytes a sync, sealing beside `lz4 -b1`, where
  those programs are on the PATH.
  --smoke         small numbers, for a check that takes a second; fio and lz4 are left out
  --data-dir DIR  where the files go (default: the current folder); a folder in it is made and removed
  --seconds N     how long appending goes on (default 5)
  """

/// What `rmsbench log` runs with.
private struct LogBenchParameters {
  var users = [72_000, 1_000_000]
  var events = 2_000_000
  var rounds = 5
  var seconds = 5.0
  var segmentBytes = 64 << 20
  var folder = "."
  var besidePeers = true

  init?(_ arguments: [String]) {
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      switch argument {
      case "--smoke":
        users = [2_000]
        events = 20_000
        rounds = 2
        seconds = 0.1
        segmentBytes = 1 << 20
        besidePeers = false
      case "--data-dir":
        guard let text = rest.popFirst() else { return nil }
        folder = text
      case "--seconds":
        guard let text = rest.popFirst(), let value = Double(text), value > 0 else { return nil }
        seconds = value
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
    for users in parameters.users { try bench.encode(users: users) }
    try bench.append()
    try bench.seal()
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

private let batchEvents = 10_000

private func seconds(_ clock: clockid_t) -> Double {
  var time = timespec()
  clock_gettime(clock, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Counts and lets nothing else happen.
private final class Observer: LogObserver {
  let syncs = Atomic<Int>(0)
  func log(_ log: Log, durable watermark: Int64) { syncs.add(1, ordering: .relaxed) }
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

  /// A whole log, then what it took and holds.
  func encode(users: Int) throws {
    let (events, numbers) = events(parameters.events, users: users)
    var encodeTimes: [Double] = []
    var decodeTimes: [Double] = []
    var bytes = 0
    var sealed = 0
    for round in 0..<parameters.rounds {
      emptyFolder()
      let syncer = try LogSyncer()
      defer { syncer.stop() }
      let log = Log(
        identity: identity, folder: folder, position: LogPosition(watermark: 0, origin: 0),
        limits: LogLimits(segmentBytes: 1 << 30), syncer: syncer, observer: Observer())
      let start = seconds(CLOCK_THREAD_CPUTIME_ID)
      for first in stride(from: 0, to: events.count, by: batchEvents) {
        let end = min(events.count, first + batchEvents)
        log.begin()
        for index in first..<end {
          log.batch.event(
            events[index], number: numbers[index], timestampMs: 1_795_521_600_000 + Int64(index >> 10),
            payload: UnsafeRawBufferPointer(start: nil, count: 0))
        }
        _ = try log.finish(next: Int64(end), clockMs: 1_800_000_000_000, newestMs: 0)
      }
      encodeTimes.append((seconds(CLOCK_THREAD_CPUTIME_ID) - start) * 1e9 / Double(events.count))
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

  /// Appends as fast as the disk takes it.
  func append() throws {
    let (events, numbers) = events(batchEvents * 20, users: 72_000)
    var rates: [Double] = []
    var syncBytes: [Double] = []
    var cpus: [Double] = []
    for _ in 0..<(parameters.besidePeers ? 3 : 1) {
      emptyFolder()
      let syncer = try LogSyncer()
      defer { syncer.stop() }
      let observer = Observer()
      let log = Log(
        identity: identity, folder: folder, position: LogPosition(watermark: 0, origin: 0),
        limits: LogLimits(
          segmentBytes: parameters.segmentBytes, pendingBytesMax: 512 << 10, syncInterval: .seconds(1),
          syncBytes: 256 << 10),
        syncer: syncer, observer: observer)
      let start = seconds(CLOCK_MONOTONIC)
      let startCPU = seconds(CLOCK_PROCESS_CPUTIME_ID)
      var next: Int64 = 0
      var place = 0
      while seconds(CLOCK_MONOTONIC) - start < parameters.seconds {
        log.begin()
        for index in place..<(place + batchEvents) {
          var event = events[index]
          event.offset = next
          log.batch.event(
            event, number: numbers[index], timestampMs: 1_795_521_600_000,
            payload: UnsafeRawBufferPointer(start: nil, count: 0))
          next += 1
        }
        place = (place + batchEvents) % events.count
        if try !log.finish(next: next, clockMs: 1_800_000_000_000, newestMs: 0) { try log.waitForRoom() }
      }
      try log.flush()
      let took = seconds(CLOCK_MONOTONIC) - start
      cpus.append((seconds(CLOCK_PROCESS_CPUTIME_ID) - startCPU) * 1e9 / Double(next))
      try log.close()
      let bytes = try LogFolder.segments(in: folder).reduce(0) {
        $0 + (try Files().open(folder + "/" + $1.text, .read).bytesCount())
      }
      rates.append(Double(bytes) / took / 1e6)
      syncBytes.append(Double(bytes) / Double(max(1, observer.syncs.load(ordering: .relaxed))) / 1024)
    }
    tell("log.append", rates, "MB/s")
    tell("log.append-sync", syncBytes, "KiB/sync")
    tell("log.append-cpu", cpus, "ns-CPU/event")
    if parameters.besidePeers {
      fio(Int(syncBytes.sorted()[syncBytes.count / 2]), rates.sorted()[rates.count / 2])
    }
  }

  private func fio(_ kibibytes: Int, _ rate: Double) {
    emptyFolder()
    for (name, extra) in [("log.fio-append", ""), ("log.fio-overwrite", " --overwrite=1")] {
      let rates = (0..<3).compactMap { _ -> Double? in
        let line = output(
          "fio --name=j --filename='\(folder)/fio' --size=256m --bs=\(max(4, kibibytes / 4 * 4))k --rw=write "
            + "--ioengine=psync --fdatasync=1 --time_based --runtime=\(max(1, Int(parameters.seconds)))\(extra) "
            + "--output-format=terse --terse-version=3 2>/dev/null")
        if extra.isEmpty { try? Files().remove(folder + "/fio") }
        let fields = line.split(separator: ";", omittingEmptySubsequences: false)
        return fields.count > 47 ? Double(fields[47]).map { $0 * 1024 / 1e6 } : nil
      }
      guard rates.count == 3 else { return complain("rmsbench log: no fio on the PATH\n") }
      tell(name, rates, "MB/s")
      tell(name + "-ratio", [rate / rates.sorted()[1]], "x")
    }
  }

  /// Seals a segment of the usual size.
  func seal() throws {
    var times: [Double] = []
    var compressed: Double?
    var bytes = 0
    let (events, numbers) = events(min(parameters.events, 2_000_000), users: 72_000)
    for round in 0..<parameters.rounds {
      emptyFolder()
      let syncer = try LogSyncer()
      defer { syncer.stop() }
      let log = Log(
        identity: identity, folder: folder, position: LogPosition(watermark: 0, origin: 0), syncer: syncer,
        observer: Observer())
      for first in stride(from: 0, to: events.count, by: batchEvents) {
        log.begin()
        for index in first..<min(events.count, first + batchEvents) {
          log.batch.event(
            events[index], number: numbers[index], timestampMs: 1,
            payload: UnsafeRawBufferPointer(start: nil, count: 0))
        }
        _ = try log.finish(
          next: Int64(min(events.count, first + batchEvents)), clockMs: 1_800_000_000_000, newestMs: 0)
      }
      try log.close()
      if round == 0, parameters.besidePeers { compressed = lz4(SegmentName(base: 0, form: .plain).text) }
      let start = seconds(CLOCK_THREAD_CPUTIME_ID)
      bytes = try Sealer.seal(base: 0, in: folder, identity: identity).bytesBefore
      times.append(Double(bytes) / (seconds(CLOCK_THREAD_CPUTIME_ID) - start) / 1e6)
    }
    tell("log.seal", times, "MB/s-CPU")
    if let compressed {
      tell("log.lz4-b1", [compressed], "MB/s")
      tell("log.seal-ratio", [times.sorted()[times.count / 2] / compressed], "x")
    }
  }

  private func lz4(_ name: String) -> Double? {
    let text = output("lz4 -b1 -i3 '\(folder)/\(name)' 2>&1")
    // … -> … (x1.02), 1234.5 MB/s, 5678.9 MB/s
    let parts = text.split(whereSeparator: { " ,\r\n".contains($0) })
    let rates = parts.indices.filter { parts[$0] == "MB/s" && $0 > 0 }.compactMap { Double(parts[$0 - 1]) }
    return rates.suffix(2).first
  }

  private func output(_ command: String) -> String {
    guard let pipe = popen(command, "r") else { return "" }
    defer { pclose(pipe) }
    var bytes: [UInt8] = []
    var room = [UInt8](repeating: 0, count: 4_096)
    while case let count = fread(&room, 1, room.count, pipe), count > 0 { bytes += room[..<count] }
    return String(decoding: bytes, as: UTF8.self)
  }
}
