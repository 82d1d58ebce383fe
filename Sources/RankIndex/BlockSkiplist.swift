// An indexable skiplist with blocked nodes, in the board's order: steps descending, then user id ascending.
//
//   level 2             [ ─ 5,210 | m 4,790 ]                     a link: separator, child, users below it
//   level 1   [ ─ 190 | c 201 | … ]  ─>  [ m 177 | p 240 | … ]
//   leaves    [e a d b] ─> [h f g] ─> …                            up to 256 users, in no order inside
//
//   leaf    16 words: count, next, previous, parent; then the users' numbers; then their totals
//   block   16 words: links, -, -, parent; then children, counts, separators' totals, users and id prefixes (8 bytes)
//
// Three departures from the textbook: a node holds many keys; promotion is not drawn by lot but happens when a block
// fills up and splits, so equal histories give equal lists; a leaf is not sorted inside, so entering and leaving move
// nobody else but the one who takes the place left behind. A separator is a lower bound of its child's keys and needs
// no user who is still there: ids outlive their users' places. The separator of a block's first link counts as lowest.
//
// A user's place (leaf × leafMax + slot) is kept in the user's record; parents lead from a leaf to the counts above.
internal import CPrefetch
internal import StepModel

struct BlockSkiplist {
  #if DEBUG
    // Small, so that ten users split them.
    static let leafMax = 4
    static let linkMax = 4
  #else
    static let leafMax = 256
    static let linkMax = 64
  #endif
  static let leafWords = 16 + 2 * leafMax
  static let blockWords = 16 + 6 * linkMax
  /// Blocks under a quarter merge, so no more are ever needed for `UserTable.usersMax`.
  static let leavesMax = (UserTable.usersMax + 1) / 64
  static let blocksMax = leavesMax / 8
  static let none = UInt32.max

  /// Words of a header.
  static let countWord = 0
  static let nextWord = 1
  static let previousWord = 2
  static let parentWord = 3

  let leafWordsBase: UnsafeMutablePointer<UInt32>
  let blockWordsBase: UnsafeMutablePointer<UInt32>
  let users: UnsafeMutablePointer<UserTable>
  let records: UnsafeMutablePointer<Record>
  let splitKeys: UnsafeMutablePointer<SortKey>
  var leafRegion: Region
  var blockRegion: Region
  var leaves: UInt32 = 0
  var blocks: UInt32 = 0
  var freeLeaf = none
  var freeBlock = none

  /// The top block, a leaf if `height` is 0; `none` if the list is empty.
  var root = none
  var height = 0
  var firstLeaf = none
  var lastLeaf = none
  /// Users in the list.
  var count = 0

  init(users: UnsafeMutablePointer<UserTable>, records: UnsafeMutablePointer<Record>) {
    self.users = users
    self.records = records
    leafRegion = Region(bytesMax: BlockSkiplist.leavesMax * BlockSkiplist.leafWords * 4, huge: true)
    blockRegion = Region(bytesMax: BlockSkiplist.blocksMax * BlockSkiplist.blockWords * 4, huge: true)
    leafWordsBase = leafRegion.base.assumingMemoryBound(to: UInt32.self)
    blockWordsBase = blockRegion.base.assumingMemoryBound(to: UInt32.self)
    splitKeys = .allocate(capacity: BlockSkiplist.leafMax)
  }

  func destroy() {
    leafRegion.destroy()
    blockRegion.destroy()
    splitKeys.deallocate()
  }

  /// Memory ever in use, in bytes.
  var bytes: Int {
    Int(leaves) * BlockSkiplist.leafWords * 4 + Int(blocks) * BlockSkiplist.blockWords * 4
  }

  // MARK: Words

  @inline(__always) func leaf(_ index: UInt32) -> UnsafeMutablePointer<UInt32> {
    leafWordsBase + Int(index) &* BlockSkiplist.leafWords
  }

  @inline(__always) func block(_ index: UInt32) -> UnsafeMutablePointer<UInt32> {
    blockWordsBase + Int(index) &* BlockSkiplist.blockWords
  }

  @inline(__always) func numbers(_ leaf: UnsafeMutablePointer<UInt32>) -> UnsafeMutablePointer<UInt32> {
    leaf + 16
  }

  @inline(__always) func totals(_ leaf: UnsafeMutablePointer<UInt32>) -> UnsafeMutablePointer<UInt32> {
    leaf + 16 + BlockSkiplist.leafMax
  }

  @inline(__always) func children(_ block: UnsafeMutablePointer<UInt32>) -> UnsafeMutablePointer<UInt32> {
    block + 16
  }

  @inline(__always) func tallies(_ block: UnsafeMutablePointer<UInt32>) -> UnsafeMutablePointer<UInt32> {
    block + 16 + BlockSkiplist.linkMax
  }

  @inline(__always) func separatorTotals(
    _ block: UnsafeMutablePointer<UInt32>
  ) -> UnsafeMutablePointer<UInt32> { block + 16 + 2 * BlockSkiplist.linkMax }

  @inline(__always) func separatorUsers(
    _ block: UnsafeMutablePointer<UInt32>
  ) -> UnsafeMutablePointer<UInt32> { block + 16 + 3 * BlockSkiplist.linkMax }

  @inline(__always) func separatorPrefixes(
    _ block: UnsafeMutablePointer<UInt32>
  ) -> UnsafeMutablePointer<UInt64> {
    UnsafeMutableRawPointer(block + 16 + 4 * BlockSkiplist.linkMax).assumingMemoryBound(to: UInt64.self)
  }

  /// Leaf or block of a level, for their common header.
  @inline(__always) func node(_ index: UInt32, level: Int) -> UnsafeMutablePointer<UInt32> {
    level == 0 ? leaf(index) : block(index)
  }

  // MARK: Descent

  /// Whether the probe stands before a key.
  @inline(__always) func precedes(_ probe: Probe, total: UInt32, prefix: UInt64, number: UInt32) -> Bool {
    if probe.total != total { return probe.total > total }
    if probe.prefix != prefix { return probe.prefix < prefix }
    return users.pointee.compareIDs(probe, number) < 0
  }

  /// The link whose child must hold the probe: the last whose separator is not after it.
  @inline(__always) func link(_ block: UnsafeMutablePointer<UInt32>, for probe: Probe) -> Int {
    let (totals, users, prefixes) = (separatorTotals(block), separatorUsers(block), separatorPrefixes(block))
    var low = 1
    var high = Int(block[BlockSkiplist.countWord])
    while low < high {
      let middle = (low &+ high) / 2
      if precedes(probe, total: totals[middle], prefix: prefixes[middle], number: users[middle]) {
        high = middle
      } else {
        low = middle &+ 1
      }
    }
    return low &- 1
  }

  /// Users that stand before the probe.
  ///
  /// - Complexity: O(log n) blocks, and one leaf whose ids are compared where totals are equal.
  func position(of probe: Probe) -> Int {
    guard root != BlockSkiplist.none else { return 0 }
    var before = 0
    var index = root
    for _ in 0..<height {
      let block = self.block(index)
      let link = self.link(block, for: probe)
      let tallies = self.tallies(block)
      var sum: UInt32 = 0
      for i in 0..<link { sum &+= tallies[i] }
      before += Int(sum)
      index = children(block)[link]
    }
    let leaf = self.leaf(index)
    let (numbers, totals) = (self.numbers(leaf), self.totals(leaf))
    let count = Int(leaf[BlockSkiplist.countWord])
    if probe.prefix == 0 {
      var sum: UInt32 = 0
      for i in 0..<count { sum &+= totals[i] > probe.total ? 1 : 0 }
      return before + Int(sum)
    }
    for i in 0..<min(16, count) { rms_prefetch(users.pointee.ids + Int(numbers[i])) }
    for i in 0..<count {
      if i + 16 < count { rms_prefetch(users.pointee.ids + Int(numbers[i + 16])) }
      if totals[i] != probe.total {
        before += totals[i] > probe.total ? 1 : 0
        continue
      }
      let prefix = users.pointee.prefix(numbers[i])
      let isBefore =
        prefix != probe.prefix ? prefix < probe.prefix : users.pointee.compareIDs(probe, numbers[i]) > 0
      before += isBefore ? 1 : 0
    }
    return before
  }

  /// Users with strictly more than `total` steps.
  @inline(__always) func countAbove(_ total: UInt32) -> Int { position(of: Probe(startOf: total)) }

  /// Users with exactly `total` steps, given how many have more.
  ///
  /// - Parameters:
  ///   - total: any.
  ///   - above: `countAbove(total)`.
  /// - Returns: the count.
  /// - Complexity: as `position(of:)`, twice where such users fill more than one leaf.
  func tied(_ total: UInt32, above: Int) -> Int {
    guard above < count else { return 0 }
    let (index, offset) = self.leaf(at: above)
    let leaf = self.leaf(index)
    let totals = self.totals(leaf)
    let inLeaf = Int(leaf[BlockSkiplist.countWord])
    var tied: UInt32 = 0
    for i in 0..<inLeaf { tied &+= totals[i] == total ? 1 : 0 }
    // Nobody below them in their leaf: they may go on in the next.
    return offset + Int(tied) < inLeaf || total == 0 ? Int(tied) : countAbove(total - 1) - above
  }

  /// The leaf that holds a position, and the position inside it.
  ///
  /// - Parameter position: below `count`.
  /// - Returns: both.
  func leaf(at position: Int) -> (leaf: UInt32, offset: Int) {
    var left = UInt32(position)
    var index = root
    for _ in 0..<height {
      let block = self.block(index)
      let tallies = self.tallies(block)
      var link = 0
      while left >= tallies[link] {
        left -= tallies[link]
        link += 1
      }
      index = children(block)[link]
    }
    return (index, Int(left))
  }

  /// The total at a position.
  ///
  /// - Parameter position: below `count`.
  /// - Returns: steps.
  func total(at position: Int) -> UInt32 {
    let (index, offset) = leaf(at: position)
    let leaf = self.leaf(index)
    let totals = self.totals(leaf)
    let count = Int(leaf[BlockSkiplist.countWord])
    // The smallest value with no more than `offset` totals above it.
    var (low, high): (UInt32, UInt32) = (0, UInt32.max)
    while low < high {
      let middle = low + (high - low) / 2
      var above = 0
      for i in 0..<count { above += totals[i] > middle ? 1 : 0 }
      if above <= offset { high = middle } else { low = middle + 1 }
    }
    return low
  }

  /// The smallest total above a given one; nil if there is none.
  func nextAbove(_ total: UInt32) -> UInt32? {
    let above = countAbove(total)
    return above == 0 ? nil : self.total(at: above - 1)
  }

  /// The greatest total below a given one; nil if there is none.
  func nextBelow(_ total: UInt32) -> UInt32? {
    guard total > 0 else { return nil }
    let above = countAbove(total - 1)
    return above == count ? nil : self.total(at: above)
  }

  /// Copies a leaf's keys out, sorted.
  ///
  /// - Returns: how many there are, at most `leafMax`.
  func sortedKeys(_ index: UInt32, into keys: UnsafeMutablePointer<SortKey>) -> Int {
    let leaf = self.leaf(index)
    let (numbers, totals) = (self.numbers(leaf), self.totals(leaf))
    let count = Int(leaf[BlockSkiplist.countWord])
    for i in 0..<count {
      keys[i] = SortKey(prefix: 0, number: numbers[i], descent: UInt32.max - totals[i])
    }
    let sorter = KeySorter(users: users)
    sorter.fill(keys, count)
    sorter.sort(keys, count)
    return count
  }
}
