// rmsbench cql: rows a second into and out of a Cassandra, one by one and in batches; also the shortest whole program
// that uses the driver.
import CQL
import Glibc
import Posix
import Synchronization

/// `rmsbench cql`.
enum CQLBench {
  static let usage = """
    usage: rmsbench cql --points HOST:PORT[,HOST:PORT…] [--rows N] [--batch N] [--in-flight N] [--replicas N]
                        [--version 4|5] [--no-compression] [--user NAME --password WORD]

    Makes a keyspace rmsbench with a table like the node's totals (36-byte user ids, 50 partitions), writes N rows
    (default 200,000) each in a request of its own, then again in unlogged batches of one partition (default 50 rows),
    reads all back page by page, compares their sum, and drops the keyspace. Prints rows a second and the client's CPU
    microseconds a row.
    """

  struct Options {
    var points: [HostPort] = []
    var rows = 200_000
    var batch = 50
    var inFlight = 512
    var replicas = 1
    var version = ProtocolVersion.v5
    var compresses = true
    var user: String?
    var password = ""
  }

  static let partitions = 50

  /// Runs the command.
  ///
  /// - Parameter arguments: what follows `cql`. Ends with exit code 1 on failure, 2 on wrong usage.
  static func run(_ arguments: [String]) {
    if arguments.first == "--help" { return print(usage) }
    guard let options = parse(arguments) else {
      complain(usage + "\n")
      exit(2)
    }
    do throws(CQLError) {
      try measure(options)
    } catch {
      complain("rmsbench: \(error)\n")
      exit(1)
    }
  }

  private static func parse(_ arguments: [String]) -> Options? {
    var options = Options()
    var rest = arguments[...]
    func count(_ word: String?) -> Int? { word.flatMap { Int($0) }.flatMap { $0 > 0 ? $0 : nil } }
    while let word = rest.popFirst() {
      if word == "--no-compression" {
        options.compresses = false
        continue
      }
      guard let value = rest.popFirst() else { return nil }
      switch word {
      case "--points": options.points = value.split(separator: ",").compactMap { HostPort(String($0)) }
      case "--rows", "--batch", "--in-flight", "--replicas":
        guard let number = count(value) else { return nil }
        if word == "--rows" { options.rows = number }
        if word == "--batch" { options.batch = number }
        if word == "--in-flight" { options.inFlight = number }
        if word == "--replicas" { options.replicas = number }
      case "--version":
        guard let version = UInt8(value).flatMap({ ProtocolVersion(rawValue: $0) }) else { return nil }
        options.version = version
      case "--user": options.user = value
      case "--password": options.password = value
      default: return nil
      }
    }
    return options.points.isEmpty ? nil : options
  }

  private static func measure(_ options: Options) throws(CQLError) {
    var settings = SessionSettings(contactPoints: options.points)
    settings.connection.versionMax = options.version
    settings.connection.compresses = options.compresses
    settings.connection.credentials = options.user.map { .init(user: $0, password: options.password) }
    let session = try Session.connect(settings)
    defer { session.close() }
    try session.execute(Statement("DROP KEYSPACE IF EXISTS rmsbench"))
    try session.execute(
      Statement(
        """
        CREATE KEYSPACE rmsbench
        WITH replication = {'class': 'SimpleStrategy', 'replication_factor': \(options.replicas)}
        """))
    try session.execute(
      Statement(
        """
        CREATE TABLE rmsbench.totals (bucket int, user_id text, steps int, kafka_offset bigint,
        PRIMARY KEY (bucket, user_id))
        """))
    let insert = try session.prepare(
      "INSERT INTO rmsbench.totals (bucket, user_id, steps, kafka_offset) VALUES (?, ?, ?, ?)")
    func bound(_ row: Int) throws(CQLError) -> Statement {
      var statement = try insert.bind([
        .int(Int32(row % partitions)), .text(userID(row)), .int(Int32(row % 20_000)), .bigint(Int64(row)),
      ])
      statement.isIdempotent = true
      return statement
    }
    let singles = Flight(session, max: options.inFlight)
    try report("rows one by one", options.rows) { () throws(CQLError) in
      for row in 0..<options.rows { try singles.execute(try bound(row)) }
      try singles.land()
    }
    let batches = Flight(session, max: max(2, options.inFlight / options.batch))
    try report("rows in batches of \(options.batch)", options.rows) { () throws(CQLError) in
      var open = [Batch](repeating: Batch(.unlogged), count: partitions)
      for row in 0..<options.rows {
        open[row % partitions].add(try bound(row))
        if open[row % partitions].statements.count == options.batch {
          try batches.execute(open[row % partitions])
          open[row % partitions] = Batch(.unlogged)
        }
      }
      for batch in open where !batch.statements.isEmpty { try batches.execute(batch) }
      try batches.land()
    }
    var rows = 0
    var sum = 0
    try report("rows read", options.rows) { () throws(CQLError) in
      try session.pages(Statement("SELECT user_id, steps, kafka_offset FROM rmsbench.totals")) { page in
        for row in page {
          rows += 1
          sum += Int((try? row.value(1, as: Int32.self)) ?? 0)
        }
        return true
      }
    }
    let expected = (0..<options.rows).reduce(0) { $0 + $1 % 20_000 }
    guard rows == options.rows, sum == expected else {
      complain("rmsbench: \(rows) rows with \(sum) steps came back, not \(options.rows) with \(expected)\n")
      exit(1)
    }
    try session.execute(Statement("DROP KEYSPACE rmsbench"))
  }

  private static func userID(_ row: Int) -> String {
    let digits = String(UInt64(row) &* 0x9E37_79B9_7F4A_7C15, radix: 16)
    let padded = String(repeating: "0", count: 16 - digits.utf8.count) + digits
    return "\(padded.prefix(8))-0000-4000-8000-\(padded.suffix(8))0000"
  }

  private static func report(
    _ what: String, _ rows: Int, _ body: () throws(CQLError) -> Void
  ) throws(CQLError) {
    let start = Clock.system.now
    let cpuStart = clock()
    try body()
    let seconds = Double((Clock.system.now - start).nanoseconds) / 1e9
    let cpu = Double(clock() - cpuStart) / Double(CLOCKS_PER_SEC)
    let perRow = (cpu / Double(rows) * 1e8).rounded() / 100
    print("\(what): \(Int(Double(rows) / seconds)) rows/s, \(perRow) us of CPU a row")
  }
}

/// Requests under way, at most so many, and the first error.
private final class Flight: Sendable {
  private struct State {
    var open = 0
    var error: CQLError?
  }

  private let session: Session
  private let max: Int
  private let state = Mutex(State())
  private let wakeUp: WakeUp?

  init(_ session: Session, max: Int) {
    self.session = session
    self.max = max
    wakeUp = try? WakeUp()
  }

  func execute(_ statement: Statement) throws(CQLError) {
    try takeOff()
    try session.execute(statement) { [self] in landed($0) }
  }

  func execute(_ batch: Batch) throws(CQLError) {
    try takeOff()
    try session.execute(batch) { [self] in landed($0) }
  }

  /// Waits for all.
  func land() throws(CQLError) { try wait(below: 1) }

  private func takeOff() throws(CQLError) {
    try wait(below: max)
    state.withLock { $0.open += 1 }
  }

  private func wait(below count: Int) throws(CQLError) {
    while true {
      let (open, error) = state.withLock { ($0.open, $0.error) }
      if let error { throw error }
      if open < count { return }
      if wakeUp?.wait(.seconds(1)) == true { wakeUp?.clear() }
    }
  }

  private func landed(_ result: Result<Page, CQLError>) {
    let signals = state.withLock { state in
      state.open -= 1
      if case .failure(let error) = result { state.error = error }
      // Half a flight at a time, so that the threads do not wake each other for each request.
      return state.open == 0 || state.open == max / 2 || state.error != nil
    }
    if signals { wakeUp?.signal() }
  }
}
