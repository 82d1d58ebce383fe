import RankIndex
import StepModel
import TestSupport
import Testing

let modes: [StepsMode] = [.increment, .totalNewest, .totalMax]
let today = Day(number: 20_781)

func event(_ user: UserKey, _ steps: UInt32, day: Day = today, at time: Int64 = 0, offset: Int64 = 0)
  -> StepEvent
{
  StepEvent(user: user, offset: offset, timeOfDay: time, steps: steps, day: day)
}

/// Steps that make ties and crowds, cross the border of the dense totals, and overflow now and then.
func steps(_ mode: StepsMode, using random: inout SeededGenerator) -> UInt32 {
  switch UInt8.random(in: 0..<40, using: &random) {
  case 0: UInt32.max - UInt32.random(in: 0...2, using: &random)
  case 1: 1 << 31
  case 2: 3_000_000
  case 3, 4, 5: (1 << 20) - 1 + UInt32.random(in: 0...2, using: &random)
  case 6...10: 0
  case 11...30: UInt32.random(in: 1...3, using: &random)
  default: mode == .increment ? 1 : 7
  }
}

@Suite("ShardBoards") struct ShardBoardsTests {
  @Test(
    "boards answer as a sorted array would, whatever came in", arguments: Seed.some(6), modes)
  func oracle(seed: Seed, mode: StepsMode) {
    var random = seed.random
    let pool = KeyPool.mixed(48, using: &random)
    let longer = Bool.random(using: &random)
    let shard = ShardBoards(mode: mode, week: longer, month: longer, all: longer)
    var model = ModelShard(mode: mode, periods: longer ? ["day", "week", "month", "all"] : ["day"])
    var offset: Int64 = 0
    for _ in 0..<12 {
      var (events, users): ([StepEvent], [String]) = ([], [])
      for _ in 0..<Int.random(in: 1...80, using: &random) {
        let user = Int.random(in: 0..<pool.keys.count, using: &random)
        let day = Day(number: today.number + Int32.random(in: 0...2, using: &random) * 3)
        offset += 1
        users.append(pool.texts[user])
        events.append(
          event(
            pool.keys[user], steps(mode, using: &random), day: day,
            at: Int64.random(in: 0..<40, using: &random), offset: offset))
      }
      let outcomes = shard.apply(events)
      for i in events.indices {
        switch model.apply(users[i], events[i]) {
        case .counted: #expect(outcomes[i] == .counted)
        case .superseded: #expect(outcomes[i] == .superseded)
        case .overflow: #expect(outcomes[i] == .overflow)
        }
      }
    }
    for (id, expected) in model.boards {
      guard let board = shard.board(id) else {
        #expect(expected.totals.isEmpty, "no board \(id)")
        continue
      }
      expectEqual(board, expected, pool: pool, &random)
    }
  }

  @Test("a crowd of ties is paged in order, left and joined again", arguments: Seed.some(4))
  func crowds(seed: Seed) {
    var random = seed.random
    let pool = KeyPool.mixed(150, using: &random)
    let shard = ShardBoards(mode: .totalNewest, week: false, month: false, all: false)
    var model = ModelShard(mode: .totalNewest, periods: ["day"])
    var time: Int64 = 0
    func report(_ user: Int, _ steps: UInt32) {
      time += 1
      let event = event(pool.keys[user], steps, at: time, offset: time)
      #expect(shard.apply([event]) == [.counted])
      _ = model.apply(pool.texts[user], event)
    }
    func compare() {
      guard let board = shard.board(.day(today)), let expected = model.boards[.day(today)] else { return }
      expectEqual(board, expected, pool: pool, &random)
    }
    for user in pool.keys.indices.shuffled(using: &random) { report(user, 100) }
    compare()
    for user in pool.keys.indices.shuffled(using: &random) {
      report(user, user % 3 == 0 ? 99 : user % 3 == 1 ? 100 : 2_000_000)
    }
    compare()
    for user in pool.keys.indices.shuffled(using: &random).prefix(120) { report(user, UInt32(user % 7)) }
    compare()
    for user in pool.keys.indices.shuffled(using: &random) { report(user, 0) }
    compare()
    for user in pool.keys.indices.shuffled(using: &random) { report(user, 3_000_000 + UInt32(user % 5)) }
    compare()
  }

  @Test("equal steps share a rank and leave a gap: 50, 50, 30, 30, 10")
  func sharedRanks() {
    let pool = KeyPool(["a", "b", "c", "d", "e"])
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: false)
    _ = shard.apply(zip(pool.keys, [50, 50, 30, 30, 10]).map { event($0, $1) })
    guard let board = shard.board(.day(today)) else { Issue.record("no board"); return }
    let ranks = [UserRank](unsafeUninitializedCapacity: 5) { room, count in
      pool.keys.withUnsafeBufferPointer { board.ranks(of: $0, into: room) }
      count = 5
    }
    #expect(ranks.map { $0.above + 1 } == [1, 1, 3, 3, 5])
    #expect(ranks.map(\.tied) == [2, 2, 2, 2, 1])
    #expect(ranks.map { board.position(of: $0.number) } == [0, 1, 2, 3, 4])
    #expect(board.quantile(50) == 30)
    #expect(board.quantile(80) == 50)
  }

  @Test("four tied users are all first")
  func allTied() {
    let pool = KeyPool(["a", "b", "c", "d"])
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: false)
    _ = shard.apply(pool.keys.map { event($0, 7) })
    let board = shard.board(.day(today))
    #expect(board?.countAbove(7) == 0)
    #expect(board?.tied(7) == 4)
  }

  @Test("the newest report of a running total wins, also downward; a late one is superseded")
  func newest() {
    let pool = KeyPool(["w"])
    let hour: Int64 = 3_600_000_000_000
    let reports = [
      event(pool.keys[0], 8000, at: 20 * hour, offset: 1),
      event(pool.keys[0], 7600, at: 21 * hour, offset: 2),
      event(pool.keys[0], 8000, at: 20 * hour, offset: 3),
    ]
    let newest = ShardBoards(mode: .totalNewest, week: false, month: false, all: false)
    #expect(newest.apply(reports) == [.counted, .counted, .superseded])
    #expect(newest.board(.day(today))?.countAbove(7599) == 1)
    #expect(newest.board(.day(today))?.countAbove(7600) == 0)
    let largest = ShardBoards(mode: .totalMax, week: false, month: false, all: false)
    #expect(largest.apply(reports) == [.counted, .superseded, .counted])
    #expect(largest.board(.day(today))?.total(at: 0) == 8000)
  }

  @Test("apply tells each event's user number, and none where the user need not be known")
  func numbers() {
    let pool = KeyPool((0..<100).map { "user \($0)" })
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: false)
    var numbers = [UserNumber](repeating: 0, count: 101)
    var outcomes = [ApplyOutcome](repeating: .full, count: 101)
    let events = [event(pool.keys[7], 0)] + pool.keys.map { event($0, 5) }
    events.withUnsafeBufferPointer { shard.apply($0, outcomes: &outcomes, numbers: &numbers) }
    #expect(numbers[0] == ShardBoards.noUser)
    #expect(
      Array(numbers[1...]) == Array(0..<100) && pool.keys.map { shard.number(of: $0) } == Array(0..<100))
  }

  @Test("at equal times the greater offset is newer; 0 takes the user off the board")
  func newestByOffset() {
    let pool = KeyPool(["w"])
    let shard = ShardBoards(mode: .totalNewest, week: true, month: false, all: false)
    #expect(
      shard.apply([event(pool.keys[0], 5, at: 9, offset: 7), event(pool.keys[0], 4, at: 9, offset: 6)]) == [
        .counted, .superseded,
      ])
    #expect(shard.apply([event(pool.keys[0], 0, at: 9, offset: 8)]) == [.counted])
    #expect(shard.board(.day(today))?.users == 0)
    #expect(shard.board(.week(monday: today.monday))?.users == 0)
  }

  @Test("an overflow on any board changes none, and the user's other events still count")
  func overflow() {
    let pool = KeyPool(["w", "v"])
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: true)
    let tomorrow = Day(number: today.number + 1)
    let outcomes = shard.apply([
      event(pool.keys[0], .max - 10), event(pool.keys[1], 5), event(pool.keys[0], 11, day: tomorrow),
      event(pool.keys[0], 10, day: tomorrow), event(pool.keys[0], 1),
    ])
    #expect(outcomes == [.counted, .counted, .overflow, .counted, .overflow])
    #expect(shard.board(.day(tomorrow))?.total(at: 0) == 10)
    #expect(shard.board(.day(today))?.total(at: 0) == UInt32.max - 10)
    #expect(shard.board(.all)?.total(at: 0) == UInt32.max)
  }

  @Test("0 steps change nothing and put nobody on a board")
  func zero() {
    let pool = KeyPool(["w"])
    let shard = ShardBoards(mode: .increment, week: true, month: true, all: true)
    #expect(shard.apply([event(pool.keys[0], 0)]) == [.counted])
    #expect(shard.boards.isEmpty)
    #expect(shard.users == 0)
  }

  @Test("a dropped board is gone, longer ones keep its steps")
  func drop() {
    let pool = KeyPool(["w"])
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: true)
    _ = shard.apply([event(pool.keys[0], 5)])
    #expect(shard.drop(.day(today)))
    #expect(!shard.drop(.day(today)))
    #expect(shard.board(.day(today)) == nil)
    _ = shard.apply([event(pool.keys[0], 2, day: Day(number: today.number + 1))])
    #expect(shard.board(.all)?.total(at: 0) == 7)
    #expect(shard.boards.count == 2)
  }

  @Test("a board higher than eight levels counts right", arguments: [true, false])
  func highBoard(ascending: Bool) {
    let shard = ShardBoards(mode: .increment, week: false, month: false, all: false)
    // Beyond the dense totals all users stand in the skiplist; entering in order leaves its blocks half full.
    let events = (0..<4_000).map { index in
      event(
        UserKey(high: UInt64(index) &* 0x9E37_79B9_7F4A_7C15, low: UInt64(index)),
        2_000_000 + UInt32(ascending ? index : 4_000 - index))
    }
    _ = shard.apply(events)
    let sorted = events.map(\.steps).sorted(by: >)
    let board = shard.board(.day(today))
    for position in stride(from: 0, to: sorted.count, by: 97) {
      #expect(board?.total(at: position) == sorted[position])
      #expect(board?.countAbove(sorted[position]) == position)
    }
  }

  @Test("answers do not depend on the hash's key nor on how events are batched", arguments: Seed.some(5))
  func purity(seed: Seed) {
    var random = seed.random
    let pool = KeyPool.mixed(60, using: &random)
    let events = (0..<700).map { offset in
      event(
        pool.keys.randomElement(using: &random) ?? pool.keys[0], UInt32.random(in: 0...4, using: &random),
        offset: Int64(offset))
    }
    let one = ShardBoards(mode: .increment, week: false, month: true, all: false)
    let other = ShardBoards(
      mode: .increment, week: false, month: true, all: false, hashKey: HashKey(random.next(), random.next()))
    _ = one.apply(events)
    for event in events { _ = other.apply([event]) }
    for board in one.boards {
      guard let twin = other.board(board.id) else { Issue.record("no \(board.id)"); continue }
      let (mine, theirs) = (rows(board, page: 10), rows(twin, page: 11))
      #expect(mine.map(\.user) == theirs.map(\.user))
      #expect(mine.map(\.total) == theirs.map(\.total))
    }
  }
}
