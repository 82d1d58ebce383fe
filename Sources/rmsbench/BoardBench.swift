// Boards in process: increments and ranks by the batch, ties at their worst, totals beyond the dense range, memory.
//
// One line a figure: name, median, unit, least, most, over the rounds. Keys are computed from a random user index, so
// that no table is walked in memory order; hashing the key is inside the time, making the event is not. Ranks are
// compared with a count over a plain array in the same run, and a checksum of all answers ends the output: it must be
// the same on every machine.
internal import Glibc
internal import RankIndex
internal import StepModel

/// What `rmsbench board` runs with.
private struct BoardBenchParameters {
  var users = [72_000, 100_000, 1_000_000, 10_000_000]
  var tiedUsers = 1_000_000
  var beyondUsers = 1_000_000
  var rounds = 5
  var eventsMax = 2_000_000
  var ranksCount = 1_000_000
  var pagesCount = 2_000
  var only = ""

  init?(arguments: [String]) {
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      switch argument {
      case "--smoke":
        users = [2_000, 20_000]
        tiedUsers = 5_000
        beyondUsers = 5_000
        rounds = 3
        eventsMax = 20_000
        ranksCount = 5_000
        pagesCount = 50
      case "--users":
        guard let text = rest.popFirst(), let count = Int(text), count > 0 else { return nil }
        users = [count]
      case "--only":
        guard let text = rest.popFirst() else { return nil }
        only = text
      default: return nil
      }
    }
  }

  func wants(_ part: String) -> Bool { only.isEmpty || only == part }
}

private let usage = """
  usage: rmsbench board [--smoke] [--users N] [--only increments|ties|beyond|boards]
    --smoke    small numbers, for a check that takes a second
    --users N  one size instead of 72 K, 100 K, 1 M and 10 M users
    --only P   one part only
  """

/// Runs the benchmark and prints its figures; ends the process with 1 if an answer was wrong, with 2 for a wrong
/// argument.
///
/// - Parameter arguments: those after `board`.
func boardBench(_ arguments: [String]) {
  guard let parameters = BoardBenchParameters(arguments: arguments) else {
    print(usage)
    exit(arguments == ["--help"] ? 0 : 2)
  }
  var bench = BoardBench(parameters: parameters)
  bench.warmUp()
  if parameters.wants("increments") { for count in parameters.users { bench.increments(users: count) } }
  if parameters.wants("ties") { bench.ties() }
  if parameters.wants("beyond") { bench.beyond() }
  if parameters.wants("boards") { bench.fourBoards() }
  if bench.wrong != 0 { print("board.wrong \(bench.wrong) answers") }
  print("board.checksum \(bench.checksum) hash")
  if bench.wrong != 0 { exit(1) }
}

private let today = Day(number: 20_781)
private let batchEvents = 1_024

/// The key of user `index`: as random as a UUID, and needing no memory.
@inline(__always) func userKey(_ index: UInt64) -> UserKey {
  func mixed(_ value: UInt64) -> UInt64 {
    var z = value &* 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
  return UserKey(high: mixed(2 &* index &+ 1), low: mixed(2 &* index &+ 2))
}

private struct BoardBench {
  let parameters: BoardBenchParameters
  var checksum: UInt64 = 0xCBF2_9CE4_8422_2325
  var wrong = 0
  private var random = BenchRandom(seed: 1)
  private let events: UnsafeMutablePointer<StepEvent>
  private let outcomes: UnsafeMutablePointer<ApplyOutcome>

  init(parameters: BoardBenchParameters) {
    self.parameters = parameters
    events = .allocate(capacity: batchEvents)
    outcomes = .allocate(capacity: batchEvents)
  }

  // MARK: Parts

  /// Brings the program's own pages in, so that they do not count as an index's memory.
  mutating func warmUp() {
    let totals = UnsafeMutablePointer<UInt32>.allocate(capacity: 100)
    defer { totals.deallocate() }
    totals.initialize(repeating: 1, count: 100)
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: false)
    preload(shard, totals, 100)
    _ = run(shard, totals, 100, batchEvents, batch: batchEvents)
  }

  mutating func increments(users: Int) {
    let totals = UnsafeMutablePointer<UInt32>.allocate(capacity: users)
    defer { totals.deallocate() }
    for i in 0..<users { totals[i] = UInt32(random.below(20_000)) + 1 }
    let residentBefore = residentBytes()
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: false)
    let load = Stopwatch()
    preload(shard, totals, users)
    print("board.load.\(users) \(rounded(load.seconds * 1e9 / Double(users))) ns")
    let resident = residentBytes() - residentBefore
    let count = min(parameters.eventsMax, 10 * users)
    measure("board.increment.\(users)") { bench in bench.run(shard, totals, users, count, batch: batchEvents)
    }
    measure("board.increment-single.\(users)") { bench in
      bench.run(shard, totals, users, count / 4, batch: 1)
    }
    guard let board = shard.board(.day(today)) else { return }
    measure("board.rank.\(users)") { bench in bench.ranks(board, users, bench.parameters.ranksCount) }
    print("board.resident.\(users) \(rounded(Double(resident) / Double(users))) bytes/user")
    let residentAfter = Double(residentBytes() - residentBefore) / Double(users)
    print("board.resident-after.\(users) \(rounded(residentAfter)) bytes/user")
    print("board.accounted.\(users) \(rounded(Double(shard.memoryBytes) / Double(users))) bytes/user")
    check(board, totals, users)
  }

  mutating func ties() {
    let users = parameters.tiedUsers
    let totals = UnsafeMutablePointer<UInt32>.allocate(capacity: users)
    defer { totals.deallocate() }
    totals.initialize(repeating: 5_000, count: users)
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: false)
    preload(shard, totals, users)
    guard let board = shard.board(.day(today)) else { return }
    pages(board, users, "board.ties.\(users)")
    measure("board.ties-rank.\(users)") { bench in bench.ranks(board, users, bench.parameters.ranksCount) }
    measure("board.ties-increment.\(users)") { bench in
      bench.run(shard, totals, users, users / 10, batch: batchEvents)
    }
    pages(board, users, "board.ties-after.\(users)")
    check(board, totals, users)
  }

  mutating func beyond() {
    let users = parameters.beyondUsers
    let totals = UnsafeMutablePointer<UInt32>.allocate(capacity: users)
    defer { totals.deallocate() }
    for i in 0..<users { totals[i] = (1 << 20) + UInt32(random.below(20_000_000)) }
    let residentBefore = residentBytes()
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: false)
    preload(shard, totals, users)
    let resident = Double(residentBytes() - residentBefore) / Double(users)
    print("board.beyond-resident.\(users) \(rounded(resident)) bytes/user")
    measure("board.beyond-increment.\(users)") { bench in
      bench.run(shard, totals, users, bench.parameters.eventsMax / 2, batch: batchEvents)
    }
    guard let board = shard.board(.day(today)) else { return }
    measure("board.beyond-rank.\(users)") { bench in bench.ranks(board, users, bench.parameters.ranksCount) }
    pages(board, users, "board.beyond.\(users)")
    check(board, totals, users)
  }

  /// Day, week, month and all time together.
  mutating func fourBoards() {
    let users = parameters.beyondUsers
    let totals = UnsafeMutablePointer<UInt32>.allocate(capacity: users)
    defer { totals.deallocate() }
    for i in 0..<users { totals[i] = UInt32(random.below(20_000)) + 1 }
    let shard = ShardBoards(mode: .increment, week: true, month: true, all: true)
    preload(shard, totals, users)
    measure("board.increment-four.\(users)") { bench in
      bench.run(shard, totals, users, bench.parameters.eventsMax, batch: batchEvents)
    }
    guard let board = shard.board(.all) else { return }
    check(board, totals, users)
  }

  // MARK: Work

  private mutating func preload(_ shard: ShardBoards, _ totals: UnsafeMutablePointer<UInt32>, _ users: Int) {
    var done = 0
    while done < users {
      let count = min(batchEvents, users - done)
      for i in 0..<count {
        events[i] = StepEvent(
          user: userKey(UInt64(done + i)), offset: 0, timeOfDay: 0, steps: totals[done + i], day: today)
      }
      shard.apply(UnsafeBufferPointer(start: events, count: count), outcomes: outcomes)
      done += count
    }
  }

  /// - Returns: seconds and CPU seconds in `apply`, per event in nanoseconds.
  private mutating func run(
    _ shard: ShardBoards, _ totals: UnsafeMutablePointer<UInt32>, _ users: Int, _ count: Int, batch: Int
  ) -> (wall: Double, cpu: Double) {
    var (wall, cpu, done) = (0.0, 0.0, 0)
    while done < count {
      for i in 0..<batchEvents {
        let user = random.below(UInt64(users))
        let steps = UInt32(random.below(200)) + 1
        events[i] = StepEvent(user: userKey(user), offset: 0, timeOfDay: 0, steps: steps, day: today)
        totals[Int(user)] += steps
      }
      let watch = Stopwatch()
      var from = 0
      while from < batchEvents {
        shard.apply(UnsafeBufferPointer(start: events + from, count: batch), outcomes: outcomes + from)
        from += batch
      }
      wall += watch.seconds
      cpu += watch.cpuSeconds
      for i in 0..<batchEvents where outcomes[i] != .counted { wrong += 1 }
      done += batchEvents
    }
    return (wall * 1e9 / Double(done), cpu * 1e9 / Double(done))
  }

  private mutating func ranks(_ board: Board, _ users: Int, _ count: Int) -> (wall: Double, cpu: Double) {
    var keys = [UserKey](repeating: userKey(0), count: 32)
    var ranks = [UserRank](repeating: UserRank(number: 0, total: 0, above: 0, tied: 0), count: 32)
    var (wall, cpu, done) = (0.0, 0.0, 0)
    while done < count {
      // 32 batches of 32 a measurement, so that reading the clock does not count.
      let indices = (0..<1024).map { _ in random.below(UInt64(users)) }
      let all = indices.map { userKey($0) }
      let watch = Stopwatch()
      for group in 0..<32 {
        for i in 0..<32 { keys[i] = all[group * 32 + i] }
        keys.withUnsafeBufferPointer { keys in
          ranks.withUnsafeMutableBufferPointer { board.ranks(of: keys, into: $0) }
        }
        checksum = (checksum ^ UInt64(ranks[group].above)) &* 0x100_0000_01B3
      }
      wall += watch.seconds
      cpu += watch.cpuSeconds
      done += 1024
    }
    return (wall * 1e9 / Double(done), cpu * 1e9 / Double(done))
  }

  /// Latency of top, around and deep pages.
  private mutating func pages(_ board: Board, _ users: Int, _ name: String) {
    let rows = UnsafeMutableBufferPointer<BoardRow>.allocate(capacity: 100)
    defer { rows.deallocate() }
    let scratch = RowScratch()
    var times: [String: [Double]] = [:]
    for _ in 0..<parameters.pagesCount {
      var watch = Stopwatch()
      var count = board.rows(
        from: 0, into: UnsafeMutableBufferPointer(rebasing: rows[..<10]), scratch: scratch)
      times["top10", default: []].append(watch.seconds)
      checksum = (checksum ^ UInt64(rows[count - 1].total)) &* 0x100_0000_01B3
      let key = userKey(random.below(UInt64(users)))
      watch = Stopwatch()
      if let position = board.number(of: key).flatMap({ board.position(of: $0) }) {
        let from = max(0, position - 5)
        count = board.rows(
          from: from, into: UnsafeMutableBufferPointer(rebasing: rows[..<11]), scratch: scratch)
        times["around5", default: []].append(watch.seconds)
        let mine = rows[position - from]
        if UserKeyText(board.user(mine.number)) != UserKeyText(key) { wrong += 1 }
      } else {
        wrong += 1
      }
      let deep = Int(random.below(UInt64(users - 100)))
      watch = Stopwatch()
      count = board.rows(from: deep, into: rows, scratch: scratch)
      times["page100", default: []].append(watch.seconds)
      if count != 100 { wrong += 1 }
    }
    for (page, times) in times.sorted(by: { $0.key < $1.key }) {
      let sorted = times.sorted()
      let (median, p99) = (sorted[sorted.count / 2], sorted[sorted.count * 99 / 100])
      print("\(name).\(page).p50 \(rounded(median * 1e6)) us")
      print("\(name).\(page).p99 \(rounded(p99 * 1e6)) us")
    }
  }

  /// Compares a sample of ranks with a count over the plain totals.
  private mutating func check(_ board: Board, _ totals: UnsafeMutablePointer<UInt32>, _ users: Int) {
    var steps: UInt64 = 0
    for i in 0..<users { steps += UInt64(totals[i]) }
    if board.totalSteps != steps || board.users != users { wrong += 1 }
    let sorted = UnsafeMutableBufferPointer(start: totals, count: users).sorted(by: >)
    for _ in 0..<200 {
      let user = Int(random.below(UInt64(users)))
      let total = totals[user]
      let above = firstIndex(sorted) { $0 <= total }
      let notBelow = firstIndex(sorted) { $0 < total }
      let keys = [userKey(UInt64(user))]
      var ranks = [UserRank(number: 0, total: 0, above: 0, tied: 0)]
      keys.withUnsafeBufferPointer { keys in
        ranks.withUnsafeMutableBufferPointer { board.ranks(of: keys, into: $0) }
      }
      let rank = ranks[0]
      if rank.total != total || Int(rank.above) != above || Int(rank.tied) != notBelow - above { wrong += 1 }
      if board.total(at: above) != total || board.quantile(50) != sorted[users - (users + 1) / 2] {
        wrong += 1
      }
      checksum = (checksum ^ UInt64(rank.above)) &* 0x100_0000_01B3
    }
  }

  private mutating func measure(_ name: String, _ round: (inout BoardBench) -> (wall: Double, cpu: Double)) {
    var (walls, cpus): ([Double], [Double]) = ([], [])
    for _ in 0..<parameters.rounds {
      let time = round(&self)
      walls.append(time.wall)
      cpus.append(time.cpu)
    }
    walls.sort()
    cpus.sort()
    print(
      "\(name) \(rounded(walls[walls.count / 2])) ns \(rounded(walls[0])) \(rounded(walls[walls.count - 1]))")
    print(
      "\(name).cpu \(rounded(cpus[cpus.count / 2])) ns \(rounded(cpus[0])) \(rounded(cpus[cpus.count - 1]))")
  }
}

// MARK: Tools

/// Wall and CPU time since it was made.
struct Stopwatch {
  private let wall = Stopwatch.now(CLOCK_MONOTONIC)
  private let cpu = Stopwatch.now(CLOCK_THREAD_CPUTIME_ID)

  var seconds: Double { Stopwatch.now(CLOCK_MONOTONIC) - wall }
  var cpuSeconds: Double { Stopwatch.now(CLOCK_THREAD_CPUTIME_ID) - cpu }

  private static func now(_ clock: clockid_t) -> Double {
    var time = timespec()
    clock_gettime(clock, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
}

/// An id as text, for comparing.
private struct UserKeyText: Equatable {
  private let bytes: [UInt8]

  init(_ key: UserKey) {
    bytes = [UInt8](unsafeUninitializedCapacity: 64) { room, count in
      count = room.baseAddress.map { key.write(to: UnsafeMutableRawPointer($0)) } ?? 0
    }
  }
}

/// The first index of a sorted array at which the condition holds; its count if there is none.
private func firstIndex(_ sorted: [UInt32], _ holds: (UInt32) -> Bool) -> Int {
  var (low, high) = (0, sorted.count)
  while low < high {
    let middle = (low + high) / 2
    if holds(sorted[middle]) { high = middle } else { low = middle + 1 }
  }
  return low
}

/// Resident memory of this process, in bytes.
func residentBytes() -> Int {
  guard let file = fopen("/proc/self/statm", "r") else { return 0 }
  defer { fclose(file) }
  var line = [CChar](repeating: 0, count: 128)
  guard fgets(&line, 128, file) != nil else { return 0 }
  let fields = String(decoding: line.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(separator: " ")
  return (fields.count > 1 ? Int(fields[1]) ?? 0 : 0) * sysconf(Int32(_SC_PAGESIZE))
}

func rounded(_ value: Double) -> Double { (value * 10).rounded() / 10 }
