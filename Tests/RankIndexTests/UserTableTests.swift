import StepModel
import TestSupport
import Testing

@testable import RankIndex

@Suite("UserTable") struct UserTableTests {
  @Test("a user keeps one number, others get other numbers, through all splits", arguments: Seed.some(2))
  func numbers(seed: Seed) {
    var random = seed.random
    let owner = UserTableOwner(hashKey: HashKey(random.next(), random.next()))
    let table = owner.table
    let mixed = KeyPool.mixed(150, using: &random)
    let keys = mixed.keys + (0..<9000).map { _ in UserKey(high: random.next(), low: random.next()) }
    let given = keys.map { table.pointee.number($0, hash: table.pointee.hash($0)) }
    #expect(Set(given).count == keys.count)
    #expect(table.pointee.count == keys.count)
    for (key, number) in zip(keys, given) {
      #expect(table.pointee.find(key, hash: table.pointee.hash(key)) == number)
      #expect(UserTable.compare(table.pointee.userKey(number), key) == 0)
    }
    let stranger = UserKey(high: random.next(), low: random.next())
    #expect(table.pointee.find(stranger, hash: table.pointee.hash(stranger)) == UserTable.none)
  }

  @Test("ids are ordered by their bytes whatever their form", arguments: Seed.some(3))
  func order(seed: Seed) {
    var random = seed.random
    let owner = UserTableOwner(hashKey: .known)
    let pool = KeyPool.mixed(150, using: &random)
    let numbers = pool.keys.map { owner.table.pointee.number($0, hash: owner.table.pointee.hash($0)) }
    let sorter = KeySorter(users: owner.table)
    var keys = numbers.map { SortKey(prefix: 0, number: $0, descent: 0) }
    keys.withUnsafeMutableBufferPointer { keys in
      guard let start = keys.baseAddress else { return }
      sorter.fill(start, keys.count)
      sorter.sort(start, keys.count)
    }
    let expected = pool.texts.sorted { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }
    #expect(keys.map { text(owner.table.pointee.userKey($0.number)) } == expected)
  }

  @Test("the first eight digits of a UUID are spelled as its text spells them", arguments: Seed.some(50))
  func hexPrefix(seed: Seed) {
    var random = seed.random
    let (high, low) = (random.next(), random.next())
    let prefix = UserTable.hexPrefix(high)
    let spelled = (0..<8).map { UInt8(truncatingIfNeeded: prefix >> UInt64(56 - 8 * $0)) }
    #expect(spelled == Array(KeyPool.uuid(high, low).utf8.prefix(8)))
  }
}

@Suite("KeySorter") struct KeySorterTests {
  @Test("sorting and selecting agree with the standard sort on any shape", arguments: Seed.some(20))
  func sorting(seed: Seed) {
    var random = seed.random
    let owner = UserTableOwner(hashKey: .known)
    let sorter = KeySorter(users: owner.table)
    let count = Int.random(in: 1...600, using: &random)
    let kind = Int.random(in: 0..<4, using: &random)
    var keys = (0..<count).map { i in
      let descent: UInt32 =
        switch kind {
        case 0: UInt32(i)
        case 1: UInt32(count - i)
        case 2: UInt32(min(i, count - i))
        default: UInt32.random(in: 0...9, using: &random)
        }
      return SortKey(prefix: UInt64(i), number: UInt32(i), descent: descent)
    }
    let expected = keys.sorted { ($0.descent, $0.prefix) < ($1.descent, $1.prefix) }.map(\.number)
    var selected = keys
    let nth = Int.random(in: 0..<count, using: &random)
    selected.withUnsafeMutableBufferPointer { sorter.select($0.baseAddress!, count, nth: nth) }
    #expect(selected[nth].number == expected[nth])
    #expect(Set(selected.prefix(nth).map(\.number)) == Set(expected.prefix(nth)))
    keys.withUnsafeMutableBufferPointer { sorter.sort($0.baseAddress!, count) }
    #expect(keys.map(\.number) == expected)
  }
}
