// Compares a board with the oracle in everything a reader can ask.
import RankIndex
import StepModel
import TestSupport
import Testing

func text(_ key: UserKey) -> String {
  String(unsafeUninitializedCapacity: 64) { room in
    key.write(to: UnsafeMutableRawPointer(room.baseAddress!))
  }
}

/// All rows of a board, read in pages.
func rows(_ board: Board, page: Int, from: Int = 0) -> [(user: String, total: UInt64)] {
  let scratch = RowScratch()
  var rows: [(user: String, total: UInt64)] = []
  let buffer = UnsafeMutableBufferPointer<BoardRow>.allocate(capacity: page)
  defer { buffer.deallocate() }
  while true {
    let count = board.rows(from: from + rows.count, into: buffer, scratch: scratch)
    rows += buffer.prefix(count).map { (text(board.user($0.number)), UInt64($0.total)) }
    if count < page { return rows }
  }
}

func expectEqual(_ board: Board, _ model: ModelBoard, pool: KeyPool, _ random: inout SeededGenerator) {
  let expected = model.rows
  #expect(board.users == expected.count)
  #expect(board.totalSteps == expected.reduce(0) { $0 + $1.total })
  let page = Int.random(in: 1...20, using: &random)
  let got = rows(board, page: page)
  #expect(got.map(\.user) == expected.map(\.user), "\(board.id), pages of \(page)")
  #expect(got.map(\.total) == expected.map(\.total), "\(board.id), pages of \(page)")
  let start = Int.random(in: 0...expected.count, using: &random)
  #expect(rows(board, page: 7, from: start).map(\.user) == expected.dropFirst(start).map(\.user))

  expectRanks(board, model, pool)
  for (position, row) in expected.enumerated() {
    #expect(board.total(at: position) == UInt32(row.total))
    guard let key = pool.texts.firstIndex(of: row.user).map({ pool.keys[$0] }) else { continue }
    #expect(board.number(of: key).flatMap { board.position(of: $0) } == position)
    #expect(board.position(steps: UInt32(row.total), user: key) == position)
  }
  #expect(board.total(at: expected.count) == nil)
  expectSteps(board, model, pool, &random)
}

/// The batch of ranks, for users on the board or not.
func expectRanks(_ board: Board, _ model: ModelBoard, _ pool: KeyPool) {
  let ranks = [UserRank](unsafeUninitializedCapacity: pool.keys.count) { room, count in
    pool.keys.withUnsafeBufferPointer { board.ranks(of: $0, into: room) }
    count = pool.keys.count
  }
  let totals = [UInt32](unsafeUninitializedCapacity: pool.keys.count) { room, count in
    pool.keys.withUnsafeBufferPointer { board.totals(of: $0, into: room) }
    count = pool.keys.count
  }
  #expect(totals == ranks.map(\.total))
  for (user, rank) in zip(pool.texts, ranks) {
    let total = model.total(user)
    #expect(UInt64(rank.total) == total, "\(user)")
    #expect(Int(rank.above) == model.countAbove(total), "\(user)")
    #expect(Int(rank.tied) == (total == 0 ? 0 : model.tied(total)), "\(user)")
  }
}

/// Questions about totals, at and around those there are.
func expectSteps(_ board: Board, _ model: ModelBoard, _ pool: KeyPool, _ random: inout SeededGenerator) {
  let totals = model.rows.map(\.total)
  var asked: Set<UInt64> = [0, 1, UInt64(UInt32.max), 1 << 20, (1 << 20) - 1]
  for total in totals { asked.formUnion([total - 1, total, min(total + 1, UInt64(UInt32.max))]) }
  for steps in asked.sorted() {
    #expect(board.countAbove(UInt32(steps)) == model.countAbove(steps), "above \(steps)")
    #expect(board.tied(UInt32(steps)) == (steps == 0 ? 0 : model.tied(steps)), "tied at \(steps)")
    #expect(board.nextAbove(UInt32(steps)).map { UInt64($0) } == totals.last { $0 > steps }, "above \(steps)")
    #expect(
      board.nextBelow(UInt32(steps)).map { UInt64($0) } == totals.first { $0 < steps }, "below \(steps)")
    guard steps > 0, let index = pool.texts.indices.randomElement(using: &random) else { continue }
    let before = model.rows.filter { row in
      row.total > steps
        || row.total == steps
          && Array(row.user.utf8).lexicographicallyPrecedes(Array(pool.texts[index].utf8))
    }
    #expect(board.position(steps: UInt32(steps), user: pool.keys[index]) == before.count, "at \(steps)")
  }
  for percent in [0, 1, 10, 25, 50, 75, 90, 99, 100] {
    let place = max(1, Int((Double(percent) * Double(totals.count) / 100).rounded(.up)))
    let expected = totals.isEmpty ? nil : totals[totals.count - place]
    #expect(board.quantile(percent).map { UInt64($0) } == expected, "quantile \(percent)")
  }
}

extension ShardBoards {
  /// Applies a list of events.
  func apply(_ events: [StepEvent]) -> [ApplyOutcome] {
    [ApplyOutcome](unsafeUninitializedCapacity: events.count) { room, count in
      if let start = room.baseAddress { events.withUnsafeBufferPointer { apply($0, outcomes: start) } }
      count = events.count
    }
  }
}
