// How small blocks of a skiplist merge and go, and where blocks come from.

extension BlockSkiplist {
  // MARK: Shrinking

  /// Merges a small leaf with a neighbour below the same block, or frees an empty one.
  mutating func shrink(leaf index: UInt32) {
    let leaf = self.leaf(index)
    let count = Int(leaf[BlockSkiplist.countWord])
    if count == 0 {
      detach(index, level: 0)
      giveLeaf(index)
      return
    }
    let parent = leaf[BlockSkiplist.parentWord]
    guard parent != BlockSkiplist.none else { return }
    let block = self.block(parent)
    let link = self.link(block, to: index)
    let limit = UInt32(BlockSkiplist.leafMax * 3 / 4)
    let tallies = self.tallies(block)
    if link + 1 < Int(block[BlockSkiplist.countWord]), tallies[link] + tallies[link + 1] <= limit {
      mergeLeaves(block, link)
    } else if link > 0, tallies[link - 1] + tallies[link] <= limit {
      mergeLeaves(block, link - 1)
    } else {
      return
    }
    shrink(block: parent, level: 1)
  }

  /// Moves the users of the leaf at `link` + 1 to the leaf at `link`.
  private mutating func mergeLeaves(_ block: UnsafeMutablePointer<UInt32>, _ link: Int) {
    let (left, right) = (children(block)[link], children(block)[link + 1])
    let from = leaf(right)
    for i in 0..<Int(from[BlockSkiplist.countWord]) { append(numbers(from)[i], totals(from)[i], to: left) }
    tallies(block)[link] += tallies(block)[link + 1]
    close(block, at: link + 1)
    giveLeaf(right)
  }

  private func close(_ block: UnsafeMutablePointer<UInt32>, at link: Int) {
    let links = Int(block[BlockSkiplist.countWord])
    for i in link + 1..<max(links, link + 1) { copyLink(block, i, to: block, i - 1) }
    block[BlockSkiplist.countWord] = UInt32(links - 1)
  }

  /// Unlinks an empty node, and the blocks above it that become empty with it.
  private mutating func detach(_ index: UInt32, level: Int) {
    if level == height && index == root {
      root = BlockSkiplist.none
      height = 0
      return
    }
    let parent = node(index, level: level)[BlockSkiplist.parentWord]
    let block = self.block(parent)
    close(block, at: link(block, to: index))
    if block[BlockSkiplist.countWord] == 0 {
      detach(parent, level: level + 1)
      giveBlock(parent)
    } else {
      shrink(block: parent, level: level + 1)
    }
  }

  /// Merges a block of few links with a neighbour below the same block; takes a root of one link away.
  private mutating func shrink(block index: UInt32, level: Int) {
    let block = self.block(index)
    let links = Int(block[BlockSkiplist.countWord])
    if index == root {
      guard links == 1 else { return }
      root = children(block)[0]
      height -= 1
      node(root, level: height)[BlockSkiplist.parentWord] = BlockSkiplist.none
      giveBlock(index)
      if height > 0 { shrink(block: root, level: height) }
      return
    }
    guard links <= BlockSkiplist.linkMax / 4 else { return }
    let parent = block[BlockSkiplist.parentWord]
    let above = self.block(parent)
    let link = self.link(above, to: index)
    func linksBelow(_ i: Int) -> Int { Int(self.block(children(above)[i])[BlockSkiplist.countWord]) }
    let limit = BlockSkiplist.linkMax * 3 / 4
    if link + 1 < Int(above[BlockSkiplist.countWord]), links + linksBelow(link + 1) <= limit {
      mergeBlocks(above, link, level: level)
    } else if link > 0, linksBelow(link - 1) + links <= limit {
      mergeBlocks(above, link - 1, level: level)
    } else {
      return
    }
    shrink(block: parent, level: level + 1)
  }

  private mutating func mergeBlocks(_ above: UnsafeMutablePointer<UInt32>, _ link: Int, level: Int) {
    let (left, right) = (children(above)[link], children(above)[link + 1])
    let (to, from) = (block(left), block(right))
    let (kept, moved) = (Int(to[BlockSkiplist.countWord]), Int(from[BlockSkiplist.countWord]))
    // What was lowest by convention gets the separator that stood above it.
    separatorTotals(from)[0] = separatorTotals(above)[link + 1]
    separatorUsers(from)[0] = separatorUsers(above)[link + 1]
    separatorPrefixes(from)[0] = separatorPrefixes(above)[link + 1]
    move(from, 0, moved, to: to, at: kept, level: level, parent: left)
    to[BlockSkiplist.countWord] = UInt32(kept + moved)
    tallies(above)[link] += tallies(above)[link + 1]
    close(above, at: link + 1)
    giveBlock(right)
  }

  // MARK: Memory

  mutating func takeLeaf() -> UInt32 {
    let index: UInt32
    if freeLeaf != BlockSkiplist.none {
      index = freeLeaf
      freeLeaf = leaf(index)[BlockSkiplist.nextWord]
    } else {
      index = leaves
      leaves += 1
      leafRegion.need(Int(leaves) * BlockSkiplist.leafWords * 4)
    }
    let leaf = self.leaf(index)
    leaf[BlockSkiplist.countWord] = 0
    leaf[BlockSkiplist.nextWord] = BlockSkiplist.none
    leaf[BlockSkiplist.previousWord] = BlockSkiplist.none
    leaf[BlockSkiplist.parentWord] = BlockSkiplist.none
    return index
  }

  /// Takes a leaf out of the chain and frees it.
  mutating func giveLeaf(_ index: UInt32) {
    let leaf = self.leaf(index)
    let (next, previous) = (leaf[BlockSkiplist.nextWord], leaf[BlockSkiplist.previousWord])
    if next == BlockSkiplist.none {
      lastLeaf = previous
    } else {
      self.leaf(next)[BlockSkiplist.previousWord] = previous
    }
    if previous == BlockSkiplist.none {
      firstLeaf = next
    } else {
      self.leaf(previous)[BlockSkiplist.nextWord] = next
    }
    leaf[BlockSkiplist.nextWord] = freeLeaf
    freeLeaf = index
  }

  mutating func chain(_ right: UInt32, after left: UInt32) {
    let next = leaf(left)[BlockSkiplist.nextWord]
    leaf(right)[BlockSkiplist.nextWord] = next
    leaf(right)[BlockSkiplist.previousWord] = left
    leaf(left)[BlockSkiplist.nextWord] = right
    if next == BlockSkiplist.none {
      lastLeaf = right
    } else {
      leaf(next)[BlockSkiplist.previousWord] = right
    }
  }

  mutating func takeBlock() -> UInt32 {
    let index: UInt32
    if freeBlock != BlockSkiplist.none {
      index = freeBlock
      freeBlock = block(index)[BlockSkiplist.nextWord]
    } else {
      index = blocks
      blocks += 1
      blockRegion.need(Int(blocks) * BlockSkiplist.blockWords * 4)
    }
    let block = self.block(index)
    block[BlockSkiplist.countWord] = 0
    block[BlockSkiplist.parentWord] = BlockSkiplist.none
    return index
  }

  mutating func giveBlock(_ index: UInt32) {
    block(index)[BlockSkiplist.nextWord] = freeBlock
    freeBlock = index
  }
}
