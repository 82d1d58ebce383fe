// A board's memory and how one user's total moves in it.
//
//   records  8 bytes a user number: total and place
//   dense    totals below 2^20: counts and sums, and for each total a bucket of users
//   list     users with greater totals, and crowds: totals that more than `crowdUsers` users share, so that a tie of
//            a million is as cheap to page through and to leave as any other
//
// Which users stand where inside a bucket or a leaf depends on history; nothing a reader is told does.
internal import CPrefetch
internal import StepModel

/// The newest report of a user and day, in `totalNewest` mode.
struct Register: BitwiseCopyable {
  var timeOfDay: Int64
  /// Offset + 1; 0 if there was no report.
  var offsetNext: Int64
}

struct BoardState {
  #if DEBUG
    static let crowdUsers: UInt32 = 8
    static let crowdUsersMin: UInt32 = 4
  #else
    /// A total with more users than this is kept in the list.
    static let crowdUsers: UInt32 = 2048
    /// A crowd with fewer users than this becomes a bucket again.
    static let crowdUsersMin: UInt32 = 1024
  #endif

  let table: UnsafeMutablePointer<UserTable>
  let records: UnsafeMutablePointer<Record>
  let registers: UnsafeMutablePointer<Register>?
  var dense: DenseTotals
  var buckets: Buckets
  var list: BlockSkiplist
  /// Users with totals of `DenseTotals.limit` and more.
  var beyond = 0
  /// Sum of all totals.
  var totalSteps: UInt64 = 0
  /// What the image that is alive needs of the writer.
  var image: UnsafeMutablePointer<BoardImage>?
  /// User numbers below this have records.
  private(set) var numbersEnd = 0
  private var recordRegion: Region
  private var registerRegion: Region?
  /// Keys of a bucket on its way to become a crowd.
  private let crowdKeys: UnsafeMutablePointer<SortKey>
  #if DEBUG
    private var changesToCheck = 0
  #endif

  init(table: UnsafeMutablePointer<UserTable>, withRegisters: Bool) {
    self.table = table
    recordRegion = Region(bytesMax: (UserTable.usersMax + 1) * 8, huge: true)
    records = recordRegion.base.assumingMemoryBound(to: Record.self)
    registerRegion = withRegisters ? Region(bytesMax: (UserTable.usersMax + 1) * 16, huge: true) : nil
    registers = registerRegion?.base.assumingMemoryBound(to: Register.self)
    dense = DenseTotals()
    buckets = Buckets()
    list = BlockSkiplist(users: table, records: records)
    crowdKeys = .allocate(capacity: Int(BoardState.crowdUsers) + 1)
  }

  func destroy() {
    recordRegion.destroy()
    registerRegion?.destroy()
    dense.destroy()
    buckets.destroy()
    list.destroy()
    crowdKeys.deallocate()
  }

  /// Users on the board.
  @inline(__always) var users: Int { dense.users &+ beyond }

  /// Memory in use, in bytes, without the slack of each region's last step.
  var bytes: Int {
    numbersEnd * (registers == nil ? 8 : 24) + dense.bytes + buckets.bytes + list.bytes
      + (Int(BoardState.crowdUsers) + 1) * MemoryLayout<SortKey>.stride
  }

  /// Makes records for all user numbers of the table.
  @inline(__always) mutating func needRecords() {
    if numbersEnd != table.pointee.numbersEnd { growRecords() }
  }

  @inline(never) private mutating func growRecords() {
    numbersEnd = table.pointee.numbersEnd
    recordRegion.need(numbersEnd * 8)
    registerRegion?.need(numbersEnd * 16)
  }

  // MARK: Prefetching, in the order of a batch's stages

  @inline(__always) func prefetchRecord(_ number: UInt32) { rms_prefetch(records + Int(number)) }

  /// Asks for what leaving the user's place and entering with `change` steps more will touch.
  @inline(__always) func prefetchPlaces(_ number: UInt32, by change: Int64) {
    let record = records[Int(number)]
    let new = Int64(record.total) + change
    if new >= 0 && new < Int64(DenseTotals.limit) {
      let slots = dense.slots(UInt32(new))
      rms_prefetch(slots.count)
      rms_prefetch(slots.head)
    }
    guard record.total != 0 else { return }
    if record.total < DenseTotals.limit && dense.heads[Int(record.total)] != DenseTotals.crowd {
      rms_prefetch(buckets.words + Int(record.place))
      let (head, count) = (dense.heads[Int(record.total)], dense.counts[Int(record.total)])
      rms_prefetch(buckets.words + Int(Buckets.lastPlace(head: head, count: count)))
    } else {
      list.prefetch(record.place)
    }
  }

  /// Asks for the record of the user who will move into the place left behind.
  @inline(__always) func prefetchMoved(_ number: UInt32) {
    let total = records[Int(number)].total
    guard total != 0, total < DenseTotals.limit else { return }
    let (head, count) = (dense.heads[Int(total)], dense.counts[Int(total)])
    guard head != DenseTotals.crowd else { return }
    let moved = buckets.words[Int(Buckets.lastPlace(head: head, count: count))]
    rms_prefetch(records + Int(moved))
  }

  // MARK: Moving a user

  /// Whether a user's total may change by so many steps.
  @inline(__always) func fits(_ number: UInt32, by change: Int64) -> Bool {
    Int64(records[Int(number)].total) + change <= Int64(UInt32.max)
  }

  /// Changes the total of a user who has a record; 0 takes them off the board. A change that `fits`; a total never
  /// falls below 0 (it could, where a board was dropped whose day then shrank).
  @inline(__always) mutating func move(_ number: UInt32, by change: Int64) {
    let old = records[Int(number)]
    let new = UInt32(max(0, Int64(old.total) + change))
    if old.total == new { return }
    dense.shift(from: old.total, to: new)
    if old.total != 0 { leave(old, number) }
    if new != 0 {
      enter(number, new)
    } else {
      records[Int(number)] = Record(total: 0, place: 0)
    }
    totalSteps = totalSteps &- UInt64(old.total) &+ UInt64(new)
    #if DEBUG
      checkSometimes()
    #endif
  }

  @inline(__always) private mutating func leave(_ old: Record, _ number: UInt32) {
    let total = Int(old.total)
    guard old.total < DenseTotals.limit else {
      list.remove(at: old.place)
      beyond &-= 1
      return
    }
    let head = dense.heads[total]
    if head != DenseTotals.crowd {
      buckets.remove(at: old.place, head: &dense.heads[total], count: dense.counts[total], records: records)
      dense.remove(old.total)
    } else {
      list.remove(at: old.place)
      dense.remove(old.total)
      if dense.counts[total] < BoardState.crowdUsersMin { disperse(old.total) }
    }
  }

  @inline(__always) private mutating func enter(_ number: UInt32, _ new: UInt32) {
    let total = Int(new)
    guard new < DenseTotals.limit else {
      list.insert(number, total: new)
      beyond &+= 1
      return
    }
    if dense.heads[total] != DenseTotals.crowd {
      let place = buckets.add(number, head: &dense.heads[total], count: dense.counts[total])
      records[Int(number)] = Record(total: new, place: place)
      dense.add(new)
      if dense.counts[total] > BoardState.crowdUsers { crowd(new) }
    } else {
      list.insert(number, total: new)
      dense.add(new)
    }
  }

  /// Moves a bucket that has grown large into the list.
  @inline(never) private mutating func crowd(_ total: UInt32) {
    let count = Int(dense.counts[Int(total)])
    let keys = crowdKeys
    var i = 0
    buckets.forEach(head: dense.heads[Int(total)], count: UInt32(count)) { number in
      keys[i] = SortKey(prefix: 0, number: number, descent: UInt32.max - total)
      i += 1
    }
    let sorter = KeySorter(users: table)
    sorter.fill(keys, count)
    sorter.selectMultiples(keys, count, piece: BlockSkiplist.runUsers)
    buckets.removeAll(head: dense.heads[Int(total)])
    dense.heads[Int(total)] = DenseTotals.crowd
    list.insert(run: keys, count, total: total)
  }

  /// Moves a crowd that has become small back into a bucket.
  @inline(never) private mutating func disperse(_ total: UInt32) {
    let count = dense.counts[Int(total)]
    var head: UInt32 = 0
    if count > 0 {
      let first = list.countAbove(total)
      for done in 0..<count {
        // All of them stand from the same position on; whoever is first in the leaf there will do.
        let leaf = list.leaf(list.leaf(at: first).leaf)
        var slot = 0
        while list.totals(leaf)[slot] != total { slot += 1 }
        let number = list.numbers(leaf)[slot]
        list.remove(at: records[Int(number)].place)
        let place = buckets.add(number, head: &head, count: done)
        records[Int(number)] = Record(total: total, place: place)
      }
    }
    dense.heads[Int(total)] = head
  }

  #if DEBUG
    /// Checks all invariants after each change of a board of up to 64 users, now and then on larger ones.
    private mutating func checkSometimes() {
      changesToCheck -= 1
      guard changesToCheck <= 0 else { return }
      checkInvariants()
      changesToCheck = users <= 64 ? 0 : max(512, users)
    }
  #endif
}
