// A board over several shards answers like one sorted list of all rows.

import Cluster
import QueryProtocol
import RankIndex
import StepModel
import TestSupport
import Testing

@Suite struct MergedBoardTests {
  /// All rows of all shards in the board's order, from a plain sort.
  private struct Oracle {
    var rows: [(user: String, steps: UInt64)]

    init(_ shards: [[String: UInt64]]) {
      rows = shards.flatMap { $0.map { (user: $0.key, steps: $0.value) } }
      rows.sort {
        $0.steps != $1.steps
          ? $0.steps > $1.steps : Array($0.user.utf8).lexicographicallyPrecedes($1.user.utf8)
      }
    }

    func above(_ steps: UInt64) -> Int { rows.filter { $0.steps > steps }.count }
    func tied(_ steps: UInt64) -> Int { rows.filter { $0.steps == steps }.count }
  }

  private struct World {
    var boards: [Board] = []
    var oracle: Oracle
    var keep: [ShardBoards] = []
  }

  /// Users with few distinct totals, so that ties are long and cross shards.
  private func world(_ random: inout SeededGenerator, shards: Int, users: Int, twice: Int = 0) -> World {
    var totals = Array(repeating: [String: UInt64](), count: shards)
    let spread = UInt64.random(in: 1...60, using: &random)
    func name(_ number: Int) -> String {
      number % 3 == 0 ? "user-\(number)" : Generated.uuid(number)
    }
    for number in 0..<users {
      totals[Int.random(in: 0..<shards, using: &random)][name(number)] = UInt64.random(
        in: 1...spread, using: &random)
    }
    for number in 0..<twice {
      for shard in 0..<min(2, shards) {
        totals[shard][name(number)] = UInt64.random(in: 1...spread, using: &random)
      }
    }
    var world = World(oracle: Oracle(totals))
    for shard in totals {
      let shardBoards = ShardBoards(mode: .increment, week: false, month: false, all: false)
      for (user, steps) in shard {
        UserID(user)?.withKey { key in
          let event = StepEvent(
            user: key, offset: 0, timeOfDay: 0, steps: UInt32(steps), day: Day(number: 20_000))
          var outcome = ApplyOutcome.counted
          withUnsafePointer(to: event) {
            shardBoards.apply(UnsafeBufferPointer(start: $0, count: 1), outcomes: &outcome)
          }
        }
      }
      world.keep.append(shardBoards)
      if let board = shardBoards.board(.day(Day(number: 20_000))) { world.boards.append(board) }
    }
    return world
  }

  private func text(_ key: UserKey) -> String {
    withUnsafeTemporaryAllocation(byteCount: 64, alignment: 8) { room in
      guard let start = room.baseAddress else { return "" }
      return String(
        decoding: UnsafeRawBufferPointer(start: start, count: key.write(to: start)), as: UTF8.self)
    }
  }

  private func page(_ merged: MergedBoard, from position: Int, limit: Int) -> [Row] {
    var rows: [Row] = []
    merged.rows(from: position, limit: limit) { row in
      guard let user = UserID(text(row.user)) else { return }
      rows.append(
        Row(
          position: UInt64(row.position), rank: UInt64(row.rank), tied: UInt64(row.tied), steps: row.steps,
          user: user))
    }
    return rows
  }

  @Test("pages from any position are the slices of one sorted list", arguments: Seed.some(40))
  func pages(seed: Seed) throws {
    var random = seed.random
    let world = world(&random, shards: Int.random(in: 1...5, using: &random), users: 300)
    // Few ties are sorted, so that most seeds find their places by bisection.
    let merged = MergedBoard(tiesSortedMax: Int.random(in: 0...20, using: &random))
    merged.open(world.boards)
    defer { merged.close() }
    let all = world.oracle.rows
    #expect(merged.users == all.count)
    #expect(merged.totalSteps == all.reduce(0) { $0 + $1.steps })
    for _ in 0..<25 {
      let position = Int.random(in: 0...(all.count + 2), using: &random)
      let limit = Int.random(in: 1...40, using: &random)
      let expected = try all.enumerated().dropFirst(position).prefix(limit).map { index, row in
        Row(
          position: UInt64(index), rank: UInt64(world.oracle.above(row.steps) + 1),
          tied: UInt64(world.oracle.tied(row.steps)), steps: row.steps, user: try #require(UserID(row.user)))
      }
      #expect(
        page(merged, from: position, limit: limit) == expected, "\(seed), from \(position), limit \(limit)")
    }
  }

  @Test("a cursor goes on strictly after its row, whether the row exists or not", arguments: Seed.some(20))
  func cursors(seed: Seed) throws {
    var random = seed.random
    let world = world(&random, shards: 4, users: 200)
    let merged = MergedBoard()
    merged.open(world.boards)
    defer { merged.close() }
    for _ in 0..<20 {
      let steps = UInt64.random(in: 0...61, using: &random)
      let exists = world.oracle.rows.filter { $0.steps == steps }.randomElement(using: &random)?.user
      let user =
        Bool.random(using: &random) ? exists ?? "m" : "user-\(Int.random(in: 0...400, using: &random))"
      let expected = world.oracle.rows.filter {
        $0.steps != steps ? $0.steps < steps : Array(user.utf8).lexicographicallyPrecedes($0.user.utf8)
      }.prefix(7).map(\.user)
      var found: [String] = []
      try #require(UserID(user)).withKey { key in
        merged.rows(after: steps, user: key, limit: 7) { found.append(text($0.user)) }
      }
      #expect(found == Array(expected), "\(seed), after \(steps) \(user)")
    }
  }

  @Test(
    "a rank counts the users of all shards; a user in two shards is one, with both totals",
    arguments: Seed.some(20))
  func ranks(seed: Seed) throws {
    var random = seed.random
    let world = world(&random, shards: 3, users: 150, twice: 5)
    let merged = MergedBoard()
    merged.open(world.boards)
    defer { merged.close() }
    let byUser = Dictionary(grouping: world.oracle.rows, by: \.user)
    for (user, rows) in byUser {
      let total = rows.reduce(0) { $0 + $1.steps }
      let others = world.oracle.rows.filter { $0.user != user }
      let expected = RankAnswer(
        onBoard: true, rank: UInt64(others.filter { $0.steps > total }.count + 1),
        tied: UInt64(others.filter { $0.steps == total }.count + 1), steps: total,
        users: UInt64(others.count + 1),
        above: UInt64(others.filter { $0.steps > total }.count),
        nextAboveSteps: others.map(\.steps).filter { $0 > total }.min(),
        nextBelowSteps: (rows.count == 1 ? others : world.oracle.rows).map(\.steps).filter { $0 < total }
          .max())
      let (answer, foundIn) = try #require(UserID(user)).withKey { merged.rank($0) }
      #expect(foundIn == rows.count)
      #expect(answer == expected, "\(seed), \(user)")
    }
    let absent = try #require(UserID("nobody")).withKey { merged.rank($0) }.answer
    #expect(!absent.onBoard && absent.tied == 0 && absent.above == UInt64(merged.users))
    #expect(absent.nextAboveSteps == world.oracle.rows.last?.steps)
  }

  @Test("a quantile is the total of the row at its place from the bottom", arguments: Seed.some(20))
  func quantiles(seed: Seed) {
    var random = seed.random
    let world = world(&random, shards: 4, users: Int.random(in: 0...120, using: &random))
    let merged = MergedBoard()
    merged.open(world.boards)
    defer { merged.close() }
    let fromBottom = Array(world.oracle.rows.reversed())
    for percent in 1...100 {
      let place = (percent * fromBottom.count + 99) / 100
      #expect(
        UInt64(merged.quantile(percent)) == (place == 0 ? 0 : fromBottom[place - 1].steps),
        "\(seed), \(percent) %")
    }
  }
}

/// Ids for tests.
private enum Generated {
  static func uuid(_ number: Int) -> String {
    var key = UserKey(high: UInt64(number) &* 0x9E37_79B9_7F4A_7C15, low: UInt64(number))
    key.low |= 1 << 63
    return withUnsafeTemporaryAllocation(byteCount: 36, alignment: 8) { room in
      guard let start = room.baseAddress else { return "" }
      return String(
        decoding: UnsafeRawBufferPointer(start: start, count: key.write(to: start)), as: UTF8.self)
    }
  }
}
