// How many users have each total, for totals below 2^20, so that a rank is two short sums instead of a descent.
//
//   counts    users with total t
//   heads     what holds them: the first block of their bucket, or `crowd` (see BoardState)
//   sums64    users with totals of 64 t ..< 64 t + 64
//   above4096 users with totals of 4,096 (t + 1) and more: a user's move changes those between old and new page only,
//             which is nearly always none
//
// All of it lies in one region: totals that nobody has cost no memory.

struct DenseTotals {
  /// Totals below this are kept here.
  static let limit: UInt32 = 1 << 20
  /// A head that says: the board's skiplist holds the users.
  static let crowd = UInt32.max
  static let pages = Int(limit) >> 12

  let counts: UnsafeMutablePointer<UInt32>
  let heads: UnsafeMutablePointer<UInt32>
  private let sums64: UnsafeMutablePointer<UInt32>
  private let above4096: UnsafeMutablePointer<UInt32>
  /// Users counted here.
  private(set) var users = 0
  private let region: Region

  init() {
    let limit = Int(DenseTotals.limit)
    var region = Region(bytesMax: (2 * limit + limit / 64 + DenseTotals.pages) * 4, huge: false)
    region.need(region.bytesMax)
    self.region = region
    let base = region.base.assumingMemoryBound(to: UInt32.self)
    counts = base
    heads = base + limit
    sums64 = base + 2 * limit
    above4096 = base + 2 * limit + limit / 64
  }

  func destroy() { region.destroy() }

  /// Memory in use for totals up to the greatest, in bytes.
  var bytes: Int {
    var top = 0
    while top < DenseTotals.pages && above4096[top] != 0 { top += 1 }
    return (top + 1) * (4096 * 8 + 64 * 4) + DenseTotals.pages * 4
  }

  /// Counts one user more at `total`, the page of which is for `shift` to note.
  @inline(__always) mutating func add(_ total: UInt32) {
    let total = Int(total)
    counts[total] &+= 1
    sums64[total &>> 6] &+= 1
    users &+= 1
  }

  /// Counts one user fewer at `total`, which must have one; the page is for `shift` to note.
  @inline(__always) mutating func remove(_ total: UInt32) {
    let total = Int(total)
    counts[total] &-= 1
    sums64[total &>> 6] &-= 1
    users &-= 1
  }

  /// Makes sums and `users` from counts that were written directly.
  ///
  /// - Complexity: O(`limit`), a few hundred microseconds.
  mutating func sumUp() {
    var above: UInt32 = 0
    for page in stride(from: DenseTotals.pages - 1, through: 0, by: -1) {
      above4096[page] = above
      for part in page << 6..<(page + 1) << 6 {
        var sum: UInt32 = 0
        for total in part << 6..<(part + 1) << 6 { sum &+= counts[total] }
        // Totals that nobody has cost no memory: zeroes are not written.
        if sum != 0 { sums64[part] = sum }
        above &+= sum
      }
    }
    users = Int(above)
  }

  /// Notes that a user moved from one total to another; 0 and totals from `limit` on count as none.
  @inline(__always) func shift(from old: UInt32, to new: UInt32) {
    let oldPage = old < DenseTotals.limit ? Int(old &>> 12) : 0
    let newPage = new < DenseTotals.limit ? Int(new &>> 12) : 0
    if oldPage != newPage { shiftPages(from: oldPage, to: newPage) }
  }

  @inline(never) private func shiftPages(from old: Int, to new: Int) {
    if old < new {
      for page in old..<new { above4096[page] &+= 1 }
    } else {
      for page in new..<old { above4096[page] &-= 1 }
    }
  }

  /// Users counted here with strictly more than `total` steps; `total` is below `limit`.
  ///
  /// - Complexity: 128 additions, whatever the totals.
  @inline(__always) func countAbove(_ total: UInt32) -> Int {
    let part = total &>> 6
    let inPart = DenseTotals.sum(UnsafePointer(counts) + Int(total & ~63), after: total & 63)
    let inPage = DenseTotals.sum(UnsafePointer(sums64) + Int(part & ~63), after: part & 63)
    return Int(inPart &+ inPage &+ above4096[Int(total &>> 12)])
  }

  /// The smallest total above a given one that somebody has, if it is among the same 64 totals; nil tells nothing.
  @inline(__always) func nearAbove(_ total: UInt32) -> UInt32? {
    guard total < DenseTotals.limit else { return nil }
    let end = Int(total | 63)
    var next = Int(total)
    while next < end {
      next &+= 1
      if counts[next] != 0 { return UInt32(truncatingIfNeeded: next) }
    }
    return nil
  }

  /// The greatest total below a given one that somebody has, if it is among the same 64 totals; nil tells nothing.
  @inline(__always) func nearBelow(_ total: UInt32) -> UInt32? {
    guard total < DenseTotals.limit else { return nil }
    // Nobody has 0, so that the first 64 totals end above it.
    let end = Int(total & ~63)
    var next = Int(total)
    while next > end {
      next &-= 1
      if counts[next] != 0 { return UInt32(truncatingIfNeeded: next) }
    }
    return nil
  }

  /// Sum of those of 64 numbers that come after an index; without branches.
  ///
  /// - Parameters:
  ///   - numbers: 64 of them, aligned to 32 bytes, below 2^31.
  ///   - index: 0...63.
  /// - Returns: the sum.
  @inline(__always) private static func sum(_ numbers: UnsafePointer<UInt32>, after index: UInt32) -> UInt32 {
    let vectors = UnsafeRawPointer(numbers).assumingMemoryBound(to: SIMD8<Int32>.self)
    // Lane i is negative, and so all ones once shifted, where its number comes after the index.
    var distance = SIMD8<Int32>(repeating: Int32(truncatingIfNeeded: index)) &- SIMD8(0, 1, 2, 3, 4, 5, 6, 7)
    let step = SIMD8<Int32>(repeating: 8)
    let sign = SIMD8<Int32>(repeating: 31)
    var sum = SIMD8<Int32>(repeating: 0)
    for i in 0..<8 {
      sum = sum &+ (vectors[i] & (distance &>> sign))
      distance = distance &- step
    }
    return UInt32(bitPattern: sum.wrappedSum())
  }

  /// The total of the user at a place counted from the greatest total down, and the place of the first user with it.
  ///
  /// - Parameter place: below `users`.
  /// - Returns: both.
  /// - Complexity: at most 8 + 64 + 64 steps.
  func total(at place: Int) -> (total: UInt32, first: Int) {
    // The lowest page with no more than `place` users above it.
    var (low, high) = (0, DenseTotals.pages - 1)
    while low < high {
      let middle = (low + high) / 2
      if Int(above4096[middle]) <= place { high = middle } else { low = middle + 1 }
    }
    var left = UInt32(place) - above4096[low]
    var part = low << 6 | 63
    while left >= sums64[part] {
      left -= sums64[part]
      part -= 1
    }
    var total = part << 6 | 63
    while left >= counts[total] {
      left -= counts[total]
      total -= 1
    }
    return (UInt32(total), place - Int(left))
  }

  /// Calls `body` with each total that somebody has, the greatest first, and how many have it.
  ///
  /// - Complexity: O(totals), and 8 + 64 + 64 steps at most for each that somebody has.
  func forEachTotal(_ body: (_ total: Int, _ count: UInt32) -> Void) {
    var place = 0
    while place < users {
      let (total, first) = total(at: place)
      let count = counts[Int(total)]
      body(Int(total), count)
      place = first + Int(count)
    }
  }

  /// Where the count and the head of a total are, for asking for their lines.
  ///
  /// - Parameter total: below `limit`.
  /// - Returns: both addresses.
  @inline(__always) func slots(
    _ total: UInt32
  ) -> (count: UnsafePointer<UInt32>, head: UnsafePointer<UInt32>) {
    (UnsafePointer(counts + Int(total)), UnsafePointer(heads + Int(total)))
  }

  #if DEBUG
    /// Traps unless the sums agree with the counts.
    func checkInvariants() {
      var all = 0
      for page in stride(from: DenseTotals.pages - 1, through: 0, by: -1) {
        precondition(Int(above4096[page]) == all, "page \(page): \(all) users above, sum \(above4096[page])")
        // Nobody in the page, says the sum above; `users` will tell if that is wrong.
        if page > 0 ? above4096[page - 1] == above4096[page] : all == users { continue }
        for part in page << 6..<(page + 1) << 6 {
          var sum: UInt32 = 0
          if sums64[part] != 0 { for total in part << 6..<(part + 1) << 6 { sum += counts[total] } }
          precondition(sum == sums64[part], "totals from \(part << 6): \(sum) users, sum \(sums64[part])")
          all += Int(sum)
        }
      }
      precondition(all == users, "\(all) users in pages, \(users) counted")
    }
  #endif
}
