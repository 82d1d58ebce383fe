// Changing a skiplist: enter, leave, and how full blocks split.
internal import CPrefetch

extension BlockSkiplist {
  // MARK: Entering and leaving

  /// Adds a user who is not in the list and writes the user's record.
  ///
  /// - Complexity: O(log n) blocks; a split, once per half a leaf of entries, costs O(`leafMax`).
  mutating func insert(_ number: UInt32, total: UInt32) {
    count += 1
    if root == BlockSkiplist.none {
      root = takeLeaf()
      firstLeaf = root
      lastLeaf = root
      append(number, total, to: root)
      return
    }
    let probe = Probe(total: total, number: number, in: users)
    var index = root
    // The links taken, lowest level in the lowest byte; of the lowest eight levels.
    var path: UInt64 = 0
    for _ in 0..<height {
      let block = self.block(index)
      let link = self.link(block, for: probe)
      path = path << 8 | UInt64(link)
      index = children(block)[link]
    }
    if leaf(index)[BlockSkiplist.countWord] == UInt32(BlockSkiplist.leafMax) {
      index = split(leaf: index, for: probe)
      append(number, total, to: index)
      addUp(index, level: 0, 1)
      return
    }
    append(number, total, to: index)
    // Nine levels are out of reach of full-size blocks; the small ones of debug builds get there.
    if height > 8 { return addUp(index, level: 0, 1) }
    var parent = leaf(index)[BlockSkiplist.parentWord]
    while parent != BlockSkiplist.none {
      let block = self.block(parent)
      tallies(block)[Int(path & 0xFF)] &+= 1
      path >>= 8
      parent = block[BlockSkiplist.parentWord]
    }
  }

  /// Takes out the user at a place. Writes the record of the one who moves there, not the user's own.
  ///
  /// - Complexity: O(log n) blocks.
  mutating func remove(at place: UInt32) {
    let index = place / UInt32(BlockSkiplist.leafMax)
    let slot = Int(place % UInt32(BlockSkiplist.leafMax))
    let leaf = self.leaf(index)
    let (numbers, totals) = (self.numbers(leaf), self.totals(leaf))
    let last = Int(leaf[BlockSkiplist.countWord]) - 1
    if slot != last {
      numbers[slot] = numbers[last]
      totals[slot] = totals[last]
      records[Int(numbers[slot])].place = place
    }
    leaf[BlockSkiplist.countWord] = UInt32(last)
    count -= 1
    addUp(index, level: 0, UInt32.max)
    if last <= BlockSkiplist.leafMax / 4 { shrink(leaf: index) }
  }

  /// Adds many users with one total, none of whom is in the list, and nobody else with that total; writes records.
  ///
  /// - Parameters:
  ///   - keys: ordered as `KeySorter.selectMultiples` does for pieces of `runUsers`; may be ordered further.
  ///   - runCount: how many.
  ///   - total: what they all have.
  /// - Complexity: O(count + log n).
  mutating func insert(run keys: UnsafeMutablePointer<SortKey>, _ runCount: Int, total: UInt32) {
    var done = 0
    while done < runCount {
      guard root != BlockSkiplist.none else { return insert(run: keys, done..<runCount, at: nil) }
      // A separator may have this total from an earlier crowd: the run is inserted in pieces between such.
      let first = Probe(total: total, number: keys[done].number, in: users)
      let (index, next) = leafAndNext(for: first)
      var end = runCount
      if let next, next.total == total {
        KeySorter(users: users).sort(keys + done, runCount - done)
        end = done + 1
        while end < runCount, isBefore(next, Probe(total: total, number: keys[end].number, in: users)) {
          end += 1
        }
      }
      insert(run: keys, done..<end, at: cut(index, below: total))
      done = end
    }
  }

  /// Fills an empty list; writes records.
  ///
  /// - Parameters:
  ///   - keys: numbers and descents, in any order; sorted only as far as leaves need it.
  ///   - keyCount: how many.
  /// - Complexity: O(n log(n / `runUsers`)).
  mutating func build(_ keys: UnsafeMutablePointer<SortKey>, _ keyCount: Int) {
    precondition(root == BlockSkiplist.none, "a list of \(count) users cannot be built anew")
    guard keyCount > 0 else { return }
    let sorter = KeySorter(users: users)
    sorter.fill(keys, keyCount)
    sorter.selectMultiples(keys, keyCount, piece: BlockSkiplist.runUsers)
    insert(run: keys, 0..<keyCount, at: nil)
  }

  private func isBefore(_ separator: Probe, _ probe: Probe) -> Bool {
    precedes(probe, total: separator.total, prefix: separator.prefix, number: separator.number)
  }

  /// Adds part of a run at a border between leaves.
  private mutating func insert(run keys: UnsafePointer<SortKey>, _ part: Range<Int>, at start: Border?) {
    var border = start
    var done = part.lowerBound
    while done < part.upperBound {
      let taken = min(BlockSkiplist.runUsers, part.upperBound - done)
      let index = takeLeaf()
      for i in done..<done + taken { append(keys[i].number, UInt32.max - keys[i].descent, to: index) }
      switch border {
      case nil:
        root = index
        firstLeaf = index
        lastLeaf = index
      case .before(let next): attach(index, before: next)
      case .after(let left):
        chain(index, after: left)
        let separator = Probe(
          total: UInt32.max - keys[done].descent, number: keys[done].number, in: users)
        attach(index, after: left, level: 0, separator: separator, added: UInt32(taken))
      }
      count += taken
      border = .after(index)
      done += taken
    }
  }

  @inline(__always) func append(_ number: UInt32, _ total: UInt32, to index: UInt32) {
    let leaf = self.leaf(index)
    let slot = Int(leaf[BlockSkiplist.countWord])
    numbers(leaf)[slot] = number
    totals(leaf)[slot] = total
    leaf[BlockSkiplist.countWord] = UInt32(slot + 1)
    records[Int(number)] = Record(total: total, place: index * UInt32(BlockSkiplist.leafMax) + UInt32(slot))
  }

  /// Adds to the counts of all links above a node.
  @inline(__always) private func addUp(_ index: UInt32, level: Int, _ change: UInt32) {
    var child = index
    var parent = node(index, level: level)[BlockSkiplist.parentWord]
    while parent != BlockSkiplist.none {
      let block = self.block(parent)
      tallies(block)[self.link(block, to: child)] &+= change
      child = parent
      parent = block[BlockSkiplist.parentWord]
    }
  }

  /// The link of a block that leads to a child.
  @inline(__always) func link(_ block: UnsafeMutablePointer<UInt32>, to child: UInt32) -> Int {
    let children = self.children(block)
    let links = Int(block[BlockSkiplist.countWord])
    for i in 0..<links where children[i] == child { return i }
    preconditionFailure("block \(child) is not below its parent")
  }

  /// Asks for what leaving a place will touch.
  @inline(__always) func prefetch(_ place: UInt32) {
    let leaf = self.leaf(place / UInt32(BlockSkiplist.leafMax))
    let slot = Int(place % UInt32(BlockSkiplist.leafMax))
    rms_prefetch(leaf)
    rms_prefetch(numbers(leaf) + slot)
    rms_prefetch(totals(leaf) + slot)
  }

  // MARK: Splitting

  /// Splits a full leaf at its middle key.
  ///
  /// - Returns: the half that the probe belongs to.
  private mutating func split(leaf index: UInt32, for probe: Probe) -> UInt32 {
    let count = loadKeys(index)
    let half = count / 2
    KeySorter(users: users).select(splitKeys, count, nth: half)
    let right = divide(leaf: index, count, keep: half)
    let first = splitKeys[half]
    let total = UInt32.max - first.descent
    return precedes(probe, total: total, prefix: first.prefix, number: first.number) ? index : right
  }

  private enum Border {
    case before(UInt32)
    case after(UInt32)
  }

  /// The leaf that must hold a key, and the first separator after the key; nil if there is none.
  private func leafAndNext(for probe: Probe) -> (leaf: UInt32, next: Probe?) {
    var index = root
    var next: Probe?
    for _ in 0..<height {
      let block = self.block(index)
      let link = self.link(block, for: probe)
      if link + 1 < Int(block[BlockSkiplist.countWord]) { next = separator(block, link + 1) }
      index = children(block)[link]
    }
    return (index, next)
  }

  private func separator(_ block: UnsafeMutablePointer<UInt32>, _ link: Int) -> Probe {
    var probe = Probe(startOf: separatorTotals(block)[link])
    probe.number = separatorUsers(block)[link]
    probe.prefix = separatorPrefixes(block)[link]
    return probe
  }

  /// Makes a border inside a leaf that has nobody with `total`, between those with more and those with less.
  private mutating func cut(_ index: UInt32, below total: UInt32) -> Border {
    let count = loadKeys(index)
    var keep = 0
    for i in 0..<count where splitKeys[i].descent < UInt32.max - total { keep += 1 }
    if keep == 0 { return .before(index) }
    if keep < count {
      KeySorter(users: users).select(splitKeys, count, nth: keep)
      _ = divide(leaf: index, count, keep: keep)
    }
    return .after(index)
  }

  private func loadKeys(_ index: UInt32) -> Int {
    let leaf = self.leaf(index)
    let (numbers, totals) = (self.numbers(leaf), self.totals(leaf))
    let count = Int(leaf[BlockSkiplist.countWord])
    for i in 0..<count {
      splitKeys[i] = SortKey(prefix: 0, number: numbers[i], descent: UInt32.max - totals[i])
    }
    KeySorter(users: users).fill(splitKeys, count)
    return count
  }

  /// Spreads the keys in `splitKeys` over a leaf (the first `keep`) and a new one after it.
  ///
  /// - Returns: the new leaf; `splitKeys[keep]` is its separator.
  private mutating func divide(leaf index: UInt32, _ count: Int, keep: Int) -> UInt32 {
    let right = takeLeaf()
    leaf(index)[BlockSkiplist.countWord] = 0
    for i in 0..<count {
      let key = splitKeys[i]
      append(key.number, UInt32.max - key.descent, to: i < keep ? index : right)
    }
    chain(right, after: index)
    let first = splitKeys[keep]
    let separator = Probe(total: UInt32.max - first.descent, number: first.number, in: users)
    attach(right, after: index, level: 0, separator: separator, added: 0)
    return right
  }

  /// Links a new node in after its left neighbour, one level up; splits what is full there.
  ///
  /// - Parameters:
  ///   - right: the new node.
  ///   - left: its neighbour, whose count may have changed with it.
  ///   - level: theirs; 0 for leaves.
  ///   - separator: a lower bound of what is below `right`.
  ///   - added: users below `right` whom the counts above do not know yet.
  private mutating func attach(
    _ right: UInt32, after left: UInt32, level: Int, separator: Probe, added: UInt32
  ) {
    if level == height && left == root {
      let top = takeBlock()
      let block = self.block(top)
      node(left, level: level)[BlockSkiplist.parentWord] = top
      children(block)[0] = left
      block[BlockSkiplist.countWord] = 1
      root = top
      height += 1
    }
    var parent = node(left, level: level)[BlockSkiplist.parentWord]
    if Int(block(parent)[BlockSkiplist.countWord]) == BlockSkiplist.linkMax {
      split(block: parent, level: level + 1)
      parent = node(left, level: level)[BlockSkiplist.parentWord]
    }
    let block = self.block(parent)
    let link = self.link(block, to: left)
    open(block, at: link + 1)
    node(right, level: level)[BlockSkiplist.parentWord] = parent
    children(block)[link + 1] = right
    tallies(block)[link] = weight(left, level: level)
    tallies(block)[link + 1] = weight(right, level: level)
    separatorTotals(block)[link + 1] = separator.total
    separatorUsers(block)[link + 1] = separator.number
    separatorPrefixes(block)[link + 1] = separator.prefix
    if added != 0 { addUp(parent, level: level + 1, added) }
  }

  /// Links a new leaf in before another: it takes the other's link and separator, and the other gets a new link
  /// with its own smallest key.
  private mutating func attach(_ index: UInt32, before old: UInt32) {
    let count = loadKeys(old)
    KeySorter(users: users).select(splitKeys, count, nth: 0)
    let smallest = Probe(total: UInt32.max - splitKeys[0].descent, number: splitKeys[0].number, in: users)
    let parent = leaf(old)[BlockSkiplist.parentWord]
    leaf(index)[BlockSkiplist.parentWord] = parent
    if parent == BlockSkiplist.none {
      root = index
    } else {
      let block = self.block(parent)
      children(block)[link(block, to: old)] = index
    }
    let previous = leaf(old)[BlockSkiplist.previousWord]
    leaf(index)[BlockSkiplist.previousWord] = previous
    leaf(index)[BlockSkiplist.nextWord] = old
    leaf(old)[BlockSkiplist.previousWord] = index
    if previous == BlockSkiplist.none {
      firstLeaf = index
    } else {
      leaf(previous)[BlockSkiplist.nextWord] = index
    }
    attach(
      old, after: index, level: 0, separator: smallest, added: leaf(index)[BlockSkiplist.countWord])
  }

  /// Users below a node.
  private func weight(_ index: UInt32, level: Int) -> UInt32 {
    if level == 0 { return leaf(index)[BlockSkiplist.countWord] }
    let block = self.block(index)
    let tallies = self.tallies(block)
    var sum: UInt32 = 0
    for i in 0..<Int(block[BlockSkiplist.countWord]) { sum &+= tallies[i] }
    return sum
  }

  private mutating func split(block index: UInt32, level: Int) {
    let right = takeBlock()
    let (from, to) = (block(index), block(right))
    let links = Int(from[BlockSkiplist.countWord])
    let keep = links / 2
    move(from, keep, links - keep, to: to, at: 0, level: level, parent: right)
    from[BlockSkiplist.countWord] = UInt32(keep)
    to[BlockSkiplist.countWord] = UInt32(links - keep)
    attach(right, after: index, level: level, separator: separator(to, 0), added: 0)
  }

  /// Shifts links to make room for one.
  private func open(_ block: UnsafeMutablePointer<UInt32>, at link: Int) {
    let links = Int(block[BlockSkiplist.countWord])
    for i in stride(from: links, to: link, by: -1) { copyLink(block, i - 1, to: block, i) }
    block[BlockSkiplist.countWord] = UInt32(links + 1)
  }

  @inline(__always) func copyLink(
    _ from: UnsafeMutablePointer<UInt32>, _ i: Int, to: UnsafeMutablePointer<UInt32>, _ j: Int
  ) {
    children(to)[j] = children(from)[i]
    tallies(to)[j] = tallies(from)[i]
    separatorTotals(to)[j] = separatorTotals(from)[i]
    separatorUsers(to)[j] = separatorUsers(from)[i]
    separatorPrefixes(to)[j] = separatorPrefixes(from)[i]
  }

  /// Copies links to another block, which becomes their children's parent. Counts of links stay the caller's.
  func move(
    _ from: UnsafeMutablePointer<UInt32>, _ first: Int, _ links: Int, to: UnsafeMutablePointer<UInt32>,
    at place: Int, level: Int, parent: UInt32
  ) {
    for i in 0..<links {
      copyLink(from, first + i, to: to, place + i)
      node(children(to)[place + i], level: level - 1)[BlockSkiplist.parentWord] = parent
    }
  }
}
