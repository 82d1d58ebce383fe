// What always holds of a skiplist; checked in debug builds after mutations.
#if DEBUG
  extension BlockSkiplist {
    /// Traps unless order, counts, links and places agree.
    ///
    /// - Complexity: O(n log n).
    func checkInvariants() {
      guard root != BlockSkiplist.none else {
        precondition(count == 0 && height == 0, "an empty list counts \(count) users, height \(height)")
        precondition(
          firstLeaf == BlockSkiplist.none && lastLeaf == BlockSkiplist.none, "ends of an empty list")
        return
      }
      precondition(node(root, level: height)[BlockSkiplist.parentWord] == BlockSkiplist.none, "root's parent")
      let seen = check(root, level: height)
      precondition(seen == count, "\(seen) users below the root, \(count) counted")
      checkChain()
    }

    /// - Returns: users below the node.
    private func check(_ index: UInt32, level: Int) -> Int {
      if level == 0 { return checkLeaf(index) }
      let block = self.block(index)
      let links = Int(block[BlockSkiplist.countWord])
      precondition((1...BlockSkiplist.linkMax).contains(links), "block \(index): \(links) links")
      var sum = 0
      for i in 0..<links {
        let child = children(block)[i]
        precondition(
          node(child, level: level - 1)[BlockSkiplist.parentWord] == index, "child \(child) of block \(index)"
        )
        let below = check(child, level: level - 1)
        precondition(below == Int(tallies(block)[i]), "block \(index) link \(i): \(below) users")
        sum += below
      }
      return sum
    }

    private func checkLeaf(_ index: UInt32) -> Int {
      let leaf = self.leaf(index)
      let users = Int(leaf[BlockSkiplist.countWord])
      precondition((1...BlockSkiplist.leafMax).contains(users), "leaf \(index): \(users) users")
      for slot in 0..<users {
        let number = numbers(leaf)[slot]
        let record = records[Int(number)]
        let place = Int(index) * BlockSkiplist.leafMax + slot
        precondition(record.place == place, "user \(number) at \(place), record says \(record.place)")
        precondition(record.total == totals(leaf)[slot], "user \(number): total in record and leaf")
        // Every user is found by a descent, which proves the separators.
        let probe = Probe(total: record.total, number: number, in: self.users)
        var found = root
        for _ in 0..<height {
          let block = self.block(found)
          found = children(block)[link(block, for: probe)]
        }
        precondition(found == index, "user \(number) of leaf \(index) is looked for in \(found)")
      }
      return users
    }

    /// The chain visits all leaves, and each one's users stand after those of the one before.
    private func checkChain() {
      let keys = UnsafeMutablePointer<SortKey>.allocate(capacity: BlockSkiplist.leafMax)
      defer { keys.deallocate() }
      let sorter = KeySorter(users: users)
      var last: SortKey?
      var index = firstLeaf
      var previous = BlockSkiplist.none
      var seen = 0
      while index != BlockSkiplist.none {
        precondition(leaf(index)[BlockSkiplist.previousWord] == previous, "leaf \(index): link back")
        let count = sortedKeys(index, into: keys)
        for i in 0..<count {
          if let last { precondition(sorter.precedes(last, keys[i]), "leaf \(index): order") }
          last = keys[i]
        }
        seen += count
        previous = index
        index = leaf(index)[BlockSkiplist.nextWord]
      }
      precondition(previous == lastLeaf && seen == count, "chain of \(seen) users, \(count) counted")
    }
  }
#endif
