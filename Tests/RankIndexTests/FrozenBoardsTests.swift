// An image is what the boards were, and boards restored from it go on as they did.
import RankIndex
import StepModel
import TestSupport
import Testing

/// A shard and the plain model of the same events.
private struct Twin {
  let shard: ShardBoards
  var model: ModelShard

  init(shard: ShardBoards, model: ModelShard) {
    self.shard = shard
    self.model = model
  }

  init(_ mode: StepsMode, longer: Bool) {
    shard = ShardBoards(mode: mode, week: longer, month: longer, all: longer)
    model = ModelShard(mode: mode, periods: longer ? ["day", "week", "month", "all"] : ["day"])
  }

  mutating func apply(_ part: EventList, askingNumbers: Bool = false) {
    if askingNumbers {
      let room = UnsafeMutablePointer<UserNumber>.allocate(capacity: part.events.count)
      defer { room.deallocate() }
      var outcomes = [ApplyOutcome](repeating: .full, count: part.events.count)
      part.events.withUnsafeBufferPointer { shard.apply($0, outcomes: &outcomes, numbers: room) }
    } else {
      _ = shard.apply(part.events)
    }
    for i in part.events.indices { _ = model.apply(part.users[i], part.events[i]) }
  }

  mutating func drop(_ id: BoardID) {
    shard.drop(id)
    model.drop(id)
  }
}

private struct EventList {
  var events: [StepEvent] = []
  var users: [String] = []

  init(_ count: Int, _ mode: StepsMode, _ pool: KeyPool, offset: inout Int64, _ random: inout SeededGenerator)
  {
    for _ in 0..<count {
      let user = Int.random(in: 0..<pool.keys.count, using: &random)
      offset += 1
      users.append(pool.texts[user])
      events.append(
        event(
          pool.keys[user], steps(mode, using: &random),
          day: Day(number: today.number + Int32.random(in: 0...2, using: &random) * 3),
          at: Int64.random(in: 0..<40, using: &random), offset: offset))
    }
  }
}

/// What a reader copied out of an image.
struct CopiedBoard {
  var board: FrozenBoard
  /// Pieces in the order they were taken.
  var pieces: [(first: UserNumber, totals: [UInt32], reports: [Int64])] = []
}

/// Ids by segment.
func copiedUsers(_ image: FrozenBoards) -> [[UserKey]] {
  (0..<image.segments).map { segment in
    [UserKey](unsafeUninitializedCapacity: FrozenBoards.segmentNumbers) { room, count in
      count = image.users(
        ofSegment: segment,
        into: UnsafeMutableBufferPointer(start: room.baseAddress, count: FrozenBoards.segmentNumbers))
    }
  }
}

/// Restores a shard from what was copied; pieces in any order.
func restored(
  _ users: [[UserKey]], _ boards: [CopiedBoard], mode: StepsMode, longer: Bool, hashKey: HashKey = .known
) throws -> ShardBoards {
  let shard = ShardBoards(mode: mode, week: longer, month: longer, all: longer, hashKey: hashKey)
  shard.reserve(users: users.reduce(0) { $0 + $1.count })
  for segment in users { try segment.withUnsafeBufferPointer { try shard.restore(segment: $0) } }
  for copy in boards {
    let restoration = try shard.restore(copy.board.id)
    for piece in copy.pieces {
      try piece.totals.withUnsafeBufferPointer { try restoration.totals($0, from: piece.first) }
      if copy.board.hasReports {
        try piece.reports.withUnsafeBufferPointer { try restoration.reports($0, from: piece.first) }
      }
    }
    let board = restoration.finish()
    #expect(board.users == copy.board.users)
    #expect(board.totalSteps == copy.board.totalSteps)
  }
  return shard
}

private func expectEqual(
  _ shard: ShardBoards, _ model: ModelShard, _ pool: KeyPool, _ random: inout SeededGenerator
) {
  for board in shard.boards {
    expectEqual(board, model.boards[board.id] ?? ModelBoard(), pool: pool, &random)
  }
  for (id, expected) in model.boards where shard.board(id) == nil {
    #expect(expected.totals.isEmpty, "no board \(id)")
  }
}

/// Users get the same numbers, so that a log written by one fits the other.
private func expectSameNumbers(_ a: ShardBoards, _ b: ShardBoards, _ pool: KeyPool) {
  #expect(a.users == b.users)
  for (key, text) in zip(pool.keys, pool.texts) { #expect(a.number(of: key) == b.number(of: key), "\(text)") }
  #expect(Set(a.boards.map(\.id)) == Set(b.boards.map(\.id)))
}

@Suite("FrozenBoards") struct FrozenBoardsTests {
  @Test(
    "an image taken while events go on is what the boards were, and restores to boards that go on alike",
    arguments: Seed.some(4), modes)
  func imageRestores(seed: Seed, mode: StepsMode) throws {
    var random = seed.random
    let pool = KeyPool.mixed(Int.random(in: 1...60, using: &random), using: &random)
    let longer = Bool.random(using: &random)
    var (live, atFreeze) = (Twin(mode, longer: longer), Twin(mode, longer: longer))
    var offset: Int64 = 0
    for round in 0..<3 {
      for _ in 0..<Int.random(in: 0...4, using: &random) {
        let part = EventList(Int.random(in: 1...80, using: &random), mode, pool, offset: &offset, &random)
        live.apply(part)
        atFreeze.apply(part)
      }
      if round > 0, Bool.random(using: &random) {
        live.drop(.day(today))
        atFreeze.drop(.day(today))
      }
      guard let image = live.shard.freeze() else { Issue.record("round \(round): an image is alive"); return }
      #expect(live.shard.freeze() == nil)
      var meanwhile: [EventList] = []
      let copies = copy(image, mode: mode, &random) { random in
        switch UInt8.random(in: 0..<8, using: &random) {
        case 0: live.drop(.day(Day(number: today.number + 3)))
        case 1...4:
          let part = EventList(Int.random(in: 1...9, using: &random), mode, pool, offset: &offset, &random)
          live.apply(part, askingNumbers: Bool.random(using: &random))
          meanwhile.append(part)
        default: break
        }
      }
      live.shard.thaw()
      #expect(image.users == atFreeze.shard.users)
      let back = try restored(
        copiedUsers(image), copies, mode: mode, longer: longer, hashKey: HashKey(random.next(), random.next())
      )
      expectEqual(back, atFreeze.model, pool, &random)
      expectSameNumbers(back, atFreeze.shard, pool)
      // Both go on, and so does the original, which is the image of the next round.
      var twin = Twin(shard: back, model: atFreeze.model)
      let rest = meanwhile + [EventList(150, mode, pool, offset: &offset, &random)]
      for part in rest {
        twin.apply(part)
        atFreeze.apply(part)
      }
      expectEqual(twin.shard, atFreeze.model, pool, &random)
      expectSameNumbers(twin.shard, atFreeze.shard, pool)
      live = atFreeze
      atFreeze = twin
    }
  }

  /// Takes an image in small and large pieces, boards in any order, with something happening in between.
  private func copy(
    _ image: FrozenBoards, mode: StepsMode, _ random: inout SeededGenerator,
    meanwhile: (inout SeededGenerator) -> Void
  ) -> [CopiedBoard] {
    var copies = image.boards.map { CopiedBoard(board: $0) }
    let piece = FrozenPiece()
    for index in copies.indices.shuffled(using: &random) {
      meanwhile(&random)
      while image.take(index, into: piece, numbersMax: Int.random(in: 1...9000, using: &random)) {
        copies[index].pieces.append((piece.first, Array(piece.totals), Array(piece.reports)))
        meanwhile(&random)
      }
    }
    for index in copies.indices { copies[index].pieces.shuffle(using: &random) }
    return copies
  }

  @Test("boards go on the same whether an image is alive or not", arguments: Seed.some(3))
  func notMoved(seed: Seed) {
    var random = seed.random
    let pool = KeyPool.mixed(50, using: &random)
    var (one, other) = (Twin(.increment, longer: true), Twin(.increment, longer: true))
    var offset: Int64 = 0
    for _ in 0..<6 {
      let part = EventList(60, .increment, pool, offset: &offset, &random)
      _ = one.shard.freeze()
      one.apply(part)
      one.shard.thaw()
      other.apply(part)
    }
    expectEqual(one.shard, other.model, pool, &random)
  }

  @Test("the writer saves what changes and nothing else, and memory of what was taken is used again")
  func saves() {
    let keys = (0..<10_000).map { UserKey(high: UInt64($0), low: 7) }
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: false)
    _ = shard.apply(keys.map { event($0, 5) })
    guard let image = shard.freeze() else { Issue.record("no image"); return }
    let marks = image.memoryBytes
    #expect(image.runsSaved == 0)
    for _ in 0..<5 { _ = shard.apply([event(keys[0], 1), event(keys[1], 1), event(keys[9_000], 1)]) }
    #expect(image.runsSaved == 2)
    let memoryOfTwo = image.memoryBytes
    #expect(memoryOfTwo > marks)
    let piece = FrozenPiece()
    #expect(image.take(0, into: piece, numbersMax: 8192))
    #expect(Array(piece.totals.prefix(2)) == [5, 5] as [UInt32])
    // Two slots were needed; the one that was taken serves the next save.
    _ = shard.apply([event(keys[0], 1), event(keys[9_500], 1)])
    #expect(image.runsSaved == 3)
    #expect(image.memoryBytes == memoryOfTwo)
    #expect(image.take(0, into: piece))
    #expect(piece.first == 8192)
    #expect(piece.totals[9_000 - 8_192] == 5 && piece.totals[9_500 - 8_192] == 5)
    #expect(!image.take(0, into: piece))
    shard.thaw()
    #expect(shard.board(.day(today))?.totalSteps == 50_017)
  }

  @Test("an empty shard has an image of nothing")
  func empty() throws {
    let shard = ShardBoards(mode: .totalNewest, week: true, month: true, all: true)
    guard let image = shard.freeze() else { Issue.record("no image"); return }
    #expect(image.users == 0 && image.segments == 0 && image.boards.isEmpty)
    shard.thaw()
    #expect(shard.freeze() != nil)
    #expect(try restored([], [], mode: .totalNewest, longer: true).users == 0)
  }

  @Test(
    "many users, crowds and totals beyond the dense ones come back in their order", arguments: Seed.some(2))
  func many(seed: Seed) throws {
    var random = seed.random
    let shard = ShardBoards(mode: .totalMax, week: true, month: true, all: true)
    let keys = (0..<9_000).map { _ in UserKey(high: random.next(), low: random.next()) }
    _ = shard.apply(
      keys.map { key in
        let steps: UInt32 =
          switch UInt8.random(in: 0..<4, using: &random) {
          case 0: 77
          case 1: UInt32.random(in: 1...40, using: &random)
          case 2: (1 << 20) + UInt32.random(in: 0...3, using: &random)
          default: UInt32.random(in: 1 << 20...UInt32.max, using: &random)
          }
        return event(key, steps)
      })
    guard let image = shard.freeze() else { Issue.record("no image"); return }
    let copies = copy(image, mode: .totalMax, &random) { _ in }
    shard.thaw()
    let back = try restored(copiedUsers(image), copies, mode: .totalMax, longer: true)
    for board in shard.boards {
      guard let twin = back.board(board.id) else { Issue.record("no \(board.id)"); continue }
      let (mine, theirs) = (rows(board, page: 1000), rows(twin, page: 999))
      #expect(mine.map(\.user) == theirs.map(\.user))
      #expect(mine.map(\.total) == theirs.map(\.total))
    }
  }

  @Test("what does not fit is refused by name")
  func refusals() throws {
    let uuids = (0..<3).map { UserKey(high: UInt64($0), low: 1) }
    let texts = KeyPool(["b", "a"])
    func shard() -> ShardBoards { ShardBoards(mode: .increment, week: false, month: false, all: false) }
    func refused(_ body: () throws -> Void) -> RestoreError? {
      do { try body() } catch { return error as? RestoreError }
      return nil
    }
    func give(_ shard: ShardBoards, _ keys: [UserKey]) throws {
      try keys.withUnsafeBufferPointer { try shard.restore(segment: $0) }
    }
    #expect(refused { try give(shard(), []) } == .unordered(0))
    #expect(refused { try give(shard(), [uuids[0], texts.keys[0]]) } == .unordered(1))
    #expect(refused { try give(shard(), [uuids[0], uuids[1], uuids[0]]) } == .repeated(2))
    let one = shard()
    try give(one, uuids)
    try give(one, texts.keys)
    #expect(one.number(of: texts.keys[1]) == 4097)
    #expect(refused { try give(one, [UserKey(high: 9, low: 9)]) } == .unordered(8192))
    #expect(refused { _ = try one.restore(.all) } == .board(.all))
    let board = try one.restore(.day(today))
    func totals(_ values: [UInt32], _ first: UserNumber) -> RestoreError? {
      refused { try values.withUnsafeBufferPointer { try board.totals($0, from: first) } }
    }
    #expect(totals([4, 0, 0, 0], 0) == nil)
    #expect(totals([0, 1, 1, 1], 0) == .unknown(3))
    #expect(totals([7], 0) == .repeated(0))
    #expect(totals([7], 4098) == .unknown(4098))
    #expect(totals([7], 1 << 30) == .unknown(1 << 30))
    #expect(
      refused { try [Int64(1), 1].withUnsafeBufferPointer { try board.reports($0, from: 0) } }
        == .board(.day(today)))
    board.finish()
    #expect(refused { _ = try one.restore(.day(today)) } == .board(.day(today)))
  }
}
