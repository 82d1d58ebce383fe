// Reading a board: counts, places and rows, out of buckets, crowds and what lies beyond the dense totals.
internal import CPrefetch
internal import StepModel

extension BoardState {
  @inline(__always) func countAbove(_ total: UInt32) -> Int {
    if total < DenseTotals.limit { return beyond &+ dense.countAbove(total) }
    return list.countAbove(total)
  }

  /// Users with a total of 1 or more.
  @inline(__always) func tied(_ total: UInt32) -> Int {
    if total < DenseTotals.limit { return Int(dense.counts[Int(total)]) }
    return list.rank(total, at: list.locate(total)).tied
  }

  /// Users above and users tied, given what `list.locate` says of totals beyond the dense ones.
  @inline(__always) func rank(
    _ total: UInt32, at place: (leaf: UInt32, before: UInt32)
  ) -> (above: Int, tied: Int) {
    if total >= DenseTotals.limit { return list.rank(total, at: place) }
    return (beyond &+ dense.countAbove(total), total == 0 ? 0 : Int(dense.counts[Int(total)]))
  }

  /// The total at a position below `users`.
  func total(at position: Int) -> UInt32 {
    position < beyond ? list.total(at: position) : dense.total(at: position - beyond).total
  }

  func position(_ probe: Probe) -> Int {
    guard probe.total < DenseTotals.limit else { return list.position(of: probe) }
    let above = countAbove(probe.total)
    let (head, count) = (dense.heads[Int(probe.total)], dense.counts[Int(probe.total)])
    if count == 0 { return above }
    if head == DenseTotals.crowd {
      return above + list.position(of: probe) - list.countAbove(probe.total)
    }
    var before = 0
    buckets.forEach(head: head, count: count) { rms_prefetch(table.pointee.ids + Int($0)) }
    buckets.forEach(head: head, count: count) { number in
      let prefix = table.pointee.prefix(number)
      let isBefore =
        prefix != probe.prefix ? prefix < probe.prefix : table.pointee.compareIDs(probe, number) > 0
      before += isBefore ? 1 : 0
    }
    return above + before
  }

  func rows(
    from position: Int, into rows: UnsafeMutablePointer<BoardRow>, limit: Int, scratch: RowScratch
  ) -> Int {
    var written = 0
    if position < beyond {
      written = listRows(from: position, into: rows, limit: min(limit, beyond - position), scratch: scratch)
    }
    while written < limit && position + written < users {
      let place = position + written - beyond
      let (total, first) = dense.total(at: place)
      let count = Int(dense.counts[Int(total)])
      let skip = place - first
      let wanted = min(limit - written, count - skip)
      if dense.heads[Int(total)] == DenseTotals.crowd {
        let start = list.countAbove(total) + skip
        written += listRows(from: start, into: rows + written, limit: wanted, scratch: scratch)
      } else {
        bucketRows(total, skip: skip, into: rows + written, limit: wanted, scratch: scratch)
        written += wanted
      }
    }
    return written
  }

  /// Rows of the list; the caller knows that so many follow.
  private func listRows(
    from position: Int, into rows: UnsafeMutablePointer<BoardRow>, limit: Int, scratch: RowScratch
  ) -> Int {
    guard limit > 0 else { return 0 }
    scratch.need(BlockSkiplist.leafMax)
    var (index, skip) = list.leaf(at: position)
    var written = 0
    while written < limit {
      let count = list.sortedKeys(index, into: scratch.keys)
      for i in skip..<min(count, skip + limit - written) {
        let key = scratch.keys[i]
        rows[written] = BoardRow(number: key.number, total: UInt32.max - key.descent)
        written += 1
      }
      skip = 0
      index = list.leaf(index)[BlockSkiplist.nextWord]
    }
    return written
  }

  /// Rows of one total's bucket, from the `skip`th in order of ids.
  private func bucketRows(
    _ total: UInt32, skip: Int, into rows: UnsafeMutablePointer<BoardRow>, limit: Int, scratch: RowScratch
  ) {
    let count = Int(dense.counts[Int(total)])
    scratch.need(count)
    let keys = scratch.keys
    var i = 0
    buckets.forEach(head: dense.heads[Int(total)], count: UInt32(count)) { number in
      keys[i] = SortKey(prefix: 0, number: number, descent: UInt32.max - total)
      i += 1
    }
    let sorter = KeySorter(users: table)
    sorter.fill(keys, count)
    sorter.sort(keys, count)
    for i in 0..<limit { rows[i] = BoardRow(number: keys[skip + i].number, total: total) }
  }
}
