// Putting a whole board in place at once: totals are written and counted as they come, then every total gets blocks for
// as many users as it has, and one pass over the numbers fills them.
internal import CPrefetch
internal import Glibc
internal import StepModel

extension BoardState {
  /// Notes a total of a user who has a record; false if the user has one already.
  @inline(__always) mutating func restore(_ number: UInt32, _ total: UInt32) -> Bool {
    guard records[Int(number)].total == 0 else { return false }
    records[Int(number)] = Record(total: total, place: 0)
    if total < DenseTotals.limit {
      dense.counts[Int(total)] &+= 1
    } else {
      beyond &+= 1
    }
    totalSteps &+= UInt64(total)
    return true
  }

  /// Puts everybody in place whose total was noted.
  mutating func finishRestoring() {
    dense.sumUp()
    let inList = beyond + takeBlocks()
    let keys = UnsafeMutablePointer<SortKey>.allocate(capacity: max(1, inList))
    defer { keys.deallocate() }
    let found = place(into: keys)
    precondition(found == inList, "\(found) users for the list, \(inList) counted")
    setHeads()
    list.build(keys, inList)
    #if DEBUG
      checkInvariants()
    #endif
  }

  /// Gives each total its blocks; until `setHeads`, a head is the place of the next user.
  ///
  /// - Returns: users of crowds, who get none.
  private mutating func takeBlocks() -> Int {
    var crowds = 0
    let dense = dense
    dense.forEachTotal { total, count in
      if count > BoardState.crowdUsers {
        dense.heads[total] = DenseTotals.crowd
        crowds += Int(count)
      } else {
        dense.heads[total] = buckets.take(users: count)
      }
    }
    return crowds
  }

  /// Fills the buckets.
  ///
  /// - Parameter keys: gets those who belong into the list.
  /// - Returns: how many.
  private mutating func place(into keys: UnsafeMutablePointer<SortKey>) -> Int {
    var found = 0
    let (near, far) = (16, 32)
    for number in 0..<numbersEnd {
      if number + far < numbersEnd {
        let ahead = records[number + far].total
        if ahead < DenseTotals.limit { rms_prefetch(dense.heads + Int(ahead)) }
        let soon = records[number + near].total
        if soon < DenseTotals.limit, dense.heads[Int(soon)] != DenseTotals.crowd {
          rms_prefetch(buckets.words + Int(dense.heads[Int(soon)]))
        }
      }
      let total = records[number].total
      if total == 0 { continue }
      if total < DenseTotals.limit, dense.heads[Int(total)] != DenseTotals.crowd {
        let place = dense.heads[Int(total)]
        buckets.words[Int(place)] = UInt32(number)
        records[number].place = place
        dense.heads[Int(total)] = Buckets.placeAfter(place)
      } else {
        keys[found] = SortKey(prefix: 0, number: UInt32(number), descent: UInt32.max - total)
        found += 1
      }
    }
    return found
  }

  private mutating func setHeads() {
    let dense = dense
    dense.forEachTotal { total, _ in
      let place = dense.heads[total]
      if place != DenseTotals.crowd { dense.heads[total] = Buckets.head(before: place) }
    }
  }
}
