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
  /// Users a leaf gets when many are inserted at once.
  static let runUsers = leafMax * 7 / 8
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
    if probe.prefix == 0 { return before + BlockSkiplist.tally(totals, count, probe.total).above }
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

  /// First half of `rank`, for batches: the leaf where users with `total` steps start, asked for.
  ///
  /// - Parameter total: any.
  /// - Returns: the leaf, and how many users stand in those before it; `none` if the list is empty.
  func locate(_ total: UInt32) -> (leaf: UInt32, before: UInt32) {
    guard root != BlockSkiplist.none else { return (BlockSkiplist.none, 0) }
    let probe = Probe(startOf: total)
    var before: UInt32 = 0
    var index = root
    for _ in 0..<height {
      let block = self.block(index)
      let link = self.link(block, for: probe)
      let tallies = self.tallies(block)
      for i in 0..<link { before &+= tallies[i] }
      index = children(block)[link]
    }
    let leaf = self.leaf(index)
    rms_prefetch(leaf)
    for line in 0..<4 { rms_prefetch(totals(leaf) + 16 * line) }
    return (index, before)
  }

  /// Second half of `rank`: users with more than `total` steps, and users with exactly as many.
  ///
  /// - Parameters:
  ///   - total: 1 or more.
  ///   - place: what `locate` said of it.
  /// - Returns: both counts.
  func rank(_ total: UInt32, at place: (leaf: UInt32, before: UInt32)) -> (above: Int, tied: Int) {
    guard place.leaf != BlockSkiplist.none else { return (0, 0) }
    let leaf = self.leaf(place.leaf)
    let inLeaf = Int(leaf[BlockSkiplist.countWord])
    let (more, equal) = BlockSkiplist.tally(totals(leaf), inLeaf, total)
    let above = Int(place.before) + more
    // Nobody below them in their leaf: they may go on in the next.
    return (above, more + equal < inLeaf ? equal : countAbove(total - 1) - above)
  }

  /// How many of some totals are above a bound, and how many equal it.
  @inline(__always) static func tally(
    _ totals: UnsafePointer<UInt32>, _ count: Int, _ bound: UInt32
  ) -> (above: Int, equal: Int) {
    typealias Lanes = SIMD8<Int32>
    // Flipping the highest bit makes signed comparison agree with unsigned order.
    let flip = Lanes(repeating: Int32.min)
    let wanted = Lanes(repeating: Int32(bitPattern: bound)) ^ flip
    var (above, equal) = (Lanes(repeating: 0), Lanes(repeating: 0))
    let whole = count & ~7
    var i = 0
    while i < whole {
      let lanes = UnsafeRawPointer(totals + i).loadUnaligned(as: Lanes.self) ^ flip
      // A true lane is all ones: -1.
      above = above &- unsafeBitCast(lanes .> wanted, to: Lanes.self)
      equal = equal &- unsafeBitCast(lanes .== wanted, to: Lanes.self)
      i &+= 8
    }
    var sums = (above: Int(above.wrappedSum()), equal: Int(equal.wrappedSum()))
    while i < count {
      sums.above &+= totals[i] > bound ? 1 : 0
      sums.equal &+= totals[i] == bound ? 1 : 0
      i &+= 1
    }
    return sums
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
