// Snapshots of one shard: written while its writer applies at full speed, and read back.
//
// One line a figure: name, value, unit. Two threads share the shard's gate as a node's do: the writer applies turns of
// 1,024 events, the snapshot's thread marks the image, takes it and writes the file. The time from asking for the image
// to the last of the totals is the image's life; the writer's turns within it are told apart from those before it.
// The snapshot is then read twice, from the page cache and from the disk, and what was read is written again: the
// bytes must be the same.
internal import Bytes
internal import FuzzBodies
internal import Glibc
internal import Posix
internal import RankIndex
internal import SegmentLog
internal import StepModel
internal import Synchronization

private struct SnapshotBenchParameters {
  var users = 10_000_000
  var longer = false
  var mode = StepsMode.increment
  var folder = "/var/tmp"
  var aloneTurns = 3_000
  var isKept = false
  var changes: Int?
  var seed: UInt64 = 1

  init?(arguments: [String]) {
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      switch argument {
      case "--smoke":
        users = 20_000
        aloneTurns = 50
      case "--users":
        guard let text = rest.popFirst(), let count = Int(text), count > 0 else { return nil }
        users = count
      case "--folder":
        guard let text = rest.popFirst(), !text.isEmpty else { return nil }
        folder = text
      case "--changes":
        guard let text = rest.popFirst(), let count = Int(text), count > 0 else { return nil }
        changes = count
      case "--seed":
        guard let text = rest.popFirst(), let number = UInt64(text) else { return nil }
        seed = number
      case "--keep": isKept = true
      case "--longer": longer = true
      case "--newest": mode = .totalNewest
      default: return nil
      }
    }
  }
}

private let usage = """
  usage: rmsbench snapshot [--smoke] [--users N] [--longer] [--newest] [--folder DIR] [--keep]
         rmsbench snapshot --changes N [--seed S] [--folder DIR]
    --smoke       small numbers, for a check that takes a second
    --users N     instead of 10 M
    --longer      week, month and all time are ranked beside the day
    --newest      reports are running totals, and the newest is kept of each user
    --folder DIR  where the file goes, instead of /var/tmp
    --keep        leaves the file there
    --changes N   reads N changed snapshots of small shards; exits 1 at the first that is read as another state
    --seed S      of the changes; 1
  """

/// Runs the benchmark and prints its figures; ends the process with 1 if something was wrong, with 2 for a wrong
/// argument.
///
/// - Parameter arguments: those after `snapshot`.
func snapshotBench(_ arguments: [String]) {
  guard let parameters = SnapshotBenchParameters(arguments: arguments) else {
    print(usage)
    exit(arguments == ["--help"] ? 0 : 2)
  }
  do {
    if let count = parameters.changes {
      if try !changes(parameters, count) { exit(1) }
      return
    }
    try SnapshotBench(parameters).run()
  } catch {
    complain("snapshot bench: \(error)\n")
    exit(1)
  }
}

/// - Returns: whether all went well.
private func changes(_ parameters: SnapshotBenchParameters, _ count: Int) throws -> Bool {
  let folder = parameters.folder + "/rmsbench-snapshot-changes-\(getpid())"
  try Files().makeFolder(folder)
  defer { rmdir(folder) }
  var (left, seed) = (count, parameters.seed)
  var sums = (accepted: 0, refused: 0, notRestored: 0)
  while left > 0 {
    let run = try snapshotBody(seed: seed, count: min(left, 10_000), folder: folder)
    if let difference = run.difference {
      print(difference)
      return false
    }
    sums.accepted += run.accepted
    sums.refused += run.refused
    sums.notRestored += run.notRestored
    left -= 10_000
    seed &+= 1
  }
  print(
    "\(count) changed snapshots: \(sums.refused) refused, \(sums.notRestored) not restored, \(sums.accepted) read as the state of their own bytes"
  )
  return true
}

private let today = Day(number: 20_781)
private let turnEvents = 1_024
private let identity = LogIdentity(
  topic: "bench", topicID: .init(high: 1, low: 2), partition: 0, fingerprint: 3)

/// Lengths of turns, in microseconds.
private struct TurnTimes {
  var all: [Double] = []

  func tell(_ name: String) {
    guard !all.isEmpty else { return }
    let sorted = all.sorted()
    print("\(name).p50 \(rounded(sorted[sorted.count / 2])) us")
    print("\(name).p99 \(rounded(sorted[sorted.count * 99 / 100])) us")
    print("\(name).max \(rounded(sorted[sorted.count - 1])) us")
  }
}

/// The shard and the thread that applies events to it until told to stop.
private final class Applier: @unchecked Sendable {
  // Unchecked: boards are touched in turns of the gate; times belong to the writer's thread until it is joined.
  let gate = Gate()
  let boards: ShardBoards
  /// Whether an image is alive: which list a turn's time goes to.
  let isFrozen = Atomic(false)
  let turns = Atomic(0)
  private(set) var alone = TurnTimes()
  private(set) var beside = TurnTimes()
  private(set) var offset: Int64 = 0
  private let users: Int
  private let mayRun = Atomic(true)
  private var random = BenchRandom(seed: 1)
  private let events = UnsafeMutablePointer<StepEvent>.allocate(capacity: turnEvents)
  private let outcomes = UnsafeMutablePointer<ApplyOutcome>.allocate(capacity: turnEvents)

  init(_ parameters: SnapshotBenchParameters) {
    users = parameters.users
    boards = makeBoards(parameters)
    var done = 0
    while done < users {
      let count = min(turnEvents, users - done)
      for i in 0..<count { event(i, of: UInt64(done + i), UInt32(random.below(20_000)) + 1) }
      boards.apply(UnsafeBufferPointer(start: events, count: count), outcomes: outcomes)
      done += count
    }
  }

  deinit {
    events.deallocate()
    outcomes.deallocate()
  }

  private func event(_ index: Int, of user: UInt64, _ steps: UInt32) {
    events[index] = StepEvent(
      user: userKey(user), offset: offset, timeOfDay: offset, steps: steps, day: today)
    offset += 1
  }

  /// The writer's thread.
  func run() {
    while mayRun.load(ordering: .acquiring) {
      for i in 0..<turnEvents {
        event(
          i, of: random.below(UInt64(users)),
          UInt32(random.below(boards.mode == .increment ? 200 : 20_000)) + 1)
      }
      let isBeside = isFrozen.load(ordering: .acquiring)
      let seconds = gate.write { () -> Double in
        let watch = Stopwatch()
        boards.apply(UnsafeBufferPointer(start: events, count: turnEvents), outcomes: outcomes)
        return watch.seconds
      }
      if isBeside { beside.all.append(seconds * 1e6) } else { alone.all.append(seconds * 1e6) }
      turns.add(1, ordering: .releasing)
    }
  }

  func stop() { mayRun.store(false, ordering: .releasing) }
}

private func makeBoards(_ parameters: SnapshotBenchParameters) -> ShardBoards {
  ShardBoards(
    mode: parameters.mode, week: parameters.longer, month: parameters.longer, all: parameters.longer)
}

private struct SnapshotBench {
  let parameters: SnapshotBenchParameters
  private let name: String

  init(_ parameters: SnapshotBenchParameters) {
    self.parameters = parameters
    name =
      "\(parameters.users)" + (parameters.longer ? ".four" : "")
      + (parameters.mode == .totalNewest ? ".newest" : "")
  }

  func run() throws {
    let path = try write()
    defer { if !parameters.isKept { try? Files().remove(path) } }
    let bytes = try fileCheck(path)
    print("snapshot.bytes.\(name) \(bytes.count) bytes")
    print("snapshot.bytes-a-user.\(name) \(rounded(Double(bytes.count) / Double(parameters.users))) bytes")
    let verify = Stopwatch()
    let reader = try SnapshotReader(path: path, identity: identity)
    while try reader.next() != nil {}
    print("snapshot.verify.\(name) \(rounded(verify.seconds * 1e3)) ms")
    let boards = try load(path, "warm")
    try dropFromCache(path)
    _ = try load(path, "cold")
    try writeAgain(boards, path, bytes)
    print("snapshot.checksum.\(name) \(bytes.check) hash")
  }

  // MARK: Writing

  private func write() throws -> String {
    let applier = Applier(parameters)
    let thread = try Thread("apply") { applier.run() }
    while applier.turns.load(ordering: .acquiring) < parameters.aloneTurns { Thread.yield() }
    let path: String
    do {
      path = try snapshot(applier)
    } catch {
      applier.stop()
      thread.join()
      throw error
    }
    applier.stop()
    thread.join()
    applier.alone.tell("snapshot.apply-turn-alone.\(name)")
    applier.beside.tell("snapshot.apply-turn-beside.\(name)")
    return path
  }

  private func snapshot(_ applier: Applier) throws -> String {
    let residentBefore = residentBytes()
    var residentMost = residentBefore
    var takes = TurnTimes()
    let whole = Stopwatch()
    applier.isFrozen.store(true, ordering: .releasing)
    let life = Stopwatch()
    let (frozen, offset, freeze) = applier.gate.write { () -> (FrozenBoards?, Int64, Double) in
      let watch = Stopwatch()
      let image = applier.boards.freeze()
      return (image, applier.offset, watch.seconds)
    }
    guard let image = frozen else { preconditionFailure("an image is alive already") }
    let writer = try SnapshotWriter(folder: parameters.folder, header: header(image, watermark: offset))
    let piece = FrozenPiece()
    for (index, board) in image.boards.enumerated() {
      try writer.board(SnapshotBoard(id: board.id, users: board.users, totalSteps: board.totalSteps))
      while true {
        let (isTaken, seconds) = applier.gate.read { () -> (Bool, Double) in
          let watch = Stopwatch()
          return (image.take(index, into: piece), watch.seconds)
        }
        guard isTaken else { break }
        takes.all.append(seconds * 1e6)
        try writer.numbers(piece.totals, reports: board.hasReports ? piece.reports : nil, from: piece.first)
        residentMost = max(residentMost, residentBytes())
      }
    }
    applier.gate.write { applier.boards.thaw() }
    let seconds = life.seconds
    applier.isFrozen.store(false, ordering: .releasing)
    try writeUsers(image, writer)
    let written = try writer.finish()
    print("snapshot.freeze-turn.\(name) \(rounded(freeze * 1e6)) us")
    takes.tell("snapshot.take-turn.\(name)")
    print("snapshot.image-life.\(name) \(rounded(seconds * 1e3)) ms")
    print("snapshot.write.\(name) \(rounded(whole.seconds * 1e3)) ms")
    print("snapshot.resident-before.\(name) \(residentBefore) bytes")
    tellShare("snapshot.image-memory", image.memoryBytes, residentBefore)
    tellShare("snapshot.resident-more", residentMost - residentBefore, residentBefore)
    return written.path
  }

  private func tellShare(_ figure: String, _ bytes: Int, _ all: Int) {
    print("\(figure).\(name) \(bytes) bytes")
    print("\(figure)-share.\(name) \(rounded(Double(bytes) * 100 / Double(max(1, all)))) %")
  }

  private func header(_ image: FrozenBoards, watermark: Int64) -> SnapshotHeader {
    SnapshotHeader(
      identity: identity, mode: parameters.mode, watermark: watermark, clockMs: 0, newestMs: 0,
      counted: UInt64(watermark), superseded: 0,
      rejected: [UInt64](repeating: 0, count: RejectReason.allCases.count), users: image.users,
      boards: image.boards.count)
  }

  private func writeUsers(_ image: FrozenBoards, _ writer: SnapshotWriter) throws {
    let keys = UnsafeMutableBufferPointer<UserKey>.allocate(capacity: FrozenBoards.segmentNumbers)
    defer { keys.deallocate() }
    for segment in 0..<image.segments {
      let count = image.users(ofSegment: segment, into: keys)
      try writer.users(UnsafeBufferPointer(rebasing: keys[..<count]))
    }
  }

  // MARK: Reading

  private func load(_ path: String, _ how: String) throws -> ShardBoards {
    let whole = Stopwatch()
    let reader = try SnapshotReader(path: path, identity: identity)
    let boards = makeBoards(parameters)
    boards.reserve(users: reader.header.users)
    var board: BoardRestoration?
    var users = 0.0
    while let part = try reader.next() {
      switch part {
      case .users(let keys): try boards.restore(segment: keys)
      case .board(let next):
        if users == 0 { users = whole.seconds }
        board?.finish()
        board = try boards.restore(next.id)
      case .totals(let totals, let first): try board?.totals(totals, from: first)
      case .reports(let reports, let first): try board?.reports(reports, from: first)
      }
    }
    board?.finish()
    print("snapshot.load-\(how)-users.\(name) \(rounded(users * 1e3)) ms")
    print("snapshot.load-\(how).\(name) \(rounded(whole.seconds * 1e3)) ms")
    print("snapshot.load-\(how)-cpu.\(name) \(rounded(whole.cpuSeconds * 1e3)) ms")
    return boards
  }

  private func fileCheck(_ path: String) throws -> (count: Int, check: UInt32) {
    let file = try Files().open(path, .read)
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
    defer { room.deallocate() }
    var (at, check) = (0, UInt32(0))
    while true {
      let count = try file.read(at: at, into: room)
      if count == 0 { return (at, check) }
      check = Checksum.crc32c(UnsafeRawBufferPointer(rebasing: room[..<count]), after: check)
      at += count
    }
  }

  private func dropFromCache(_ path: String) throws {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { throw SystemError(call: "open", errno: .current, subject: path) }
    posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
    close(descriptor)
  }

  /// What was read makes the same file.
  private func writeAgain(
    _ boards: ShardBoards, _ path: String, _ bytes: (count: Int, check: UInt32)
  ) throws {
    guard let image = boards.freeze() else { preconditionFailure("an image is alive") }
    let folder = parameters.folder + "/rmsbench-snapshot-again"
    try Files().makeFolder(folder)
    defer { rmdir(folder) }
    let first = try SnapshotReader(path: path, identity: identity).header
    let reread = try SnapshotWriter(folder: folder, header: first)
    let piece = FrozenPiece()
    for (index, board) in image.boards.enumerated() {
      try reread.board(SnapshotBoard(id: board.id, users: board.users, totalSteps: board.totalSteps))
      while image.take(index, into: piece) {
        try reread.numbers(piece.totals, reports: board.hasReports ? piece.reports : nil, from: piece.first)
      }
    }
    boards.thaw()
    try writeUsers(image, reread)
    let written = try reread.finish()
    let again = try fileCheck(written.path)
    try Files().remove(written.path)
    guard again == bytes else {
      complain("snapshot bench: what was read gives another file\n")
      exit(1)
    }
  }
}
