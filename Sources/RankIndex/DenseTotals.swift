// How many users have each total, for totals below 2^20, with two levels of sums above: so a rank is a few short sums
// instead of a descent.
//
//   counts    users with total t
//   heads     what holds them: the first block of their bucket, or `crowd` (see Board)
//   sums64    users with totals of 64 t ..< 64 t + 64
//   sums4096  users with totals of 4,096 t ..< 4,096 t + 4,096
//
// All of it lies in one region: totals that nobody has cost no memory.

struct DenseTotals {
  /// Totals below this are kept here.
  static let limit: UInt32 = 1 << 20
  /// A head that says: the board's skiplist holds the users.
  static let crowd = UInt32.max

  let counts: UnsafeMutablePointer<UInt32>
  let heads: UnsafeMutablePointer<UInt32>
  private let sums64: UnsafeMutablePointer<UInt32>
  private let sums4096: UnsafeMutablePointer<UInt32>
  /// Users counted here.
  private(set) var users = 0
  /// No total in a page of 4,096 above this one is used.
  private var topPage = 0
  private let region: Region

  init() {
    let limit = Int(DenseTotals.limit)
    var region = Region(bytesMax: (2 * limit + limit / 64 + limit / 4096) * 4, huge: false)
    region.need(region.bytesMax)
    self.region = region
    let base = region.base.assumingMemoryBound(to: UInt32.self)
    counts = base
    heads = base + limit
    sums64 = base + 2 * limit
    sums4096 = base + 2 * limit + limit / 64
  }

  func destroy() { region.destroy() }

  /// Memory in use for totals up to the greatest, in bytes.
  var bytes: Int { (topPage + 1) * 4096 * 8 + 68 << 10 }

  /// Counts one user more at `total`.
  @inline(__always) mutating func add(_ total: UInt32) {
    let total = Int(total)
    counts[total] &+= 1
    sums64[total &>> 6] &+= 1
    sums4096[total &>> 12] &+= 1
    if total &>> 12 > topPage { topPage = total &>> 12 }
    users &+= 1
  }

  /// Counts one user fewer at `total`, which must have one.
  @inline(__always) mutating func remove(_ total: UInt32) {
    let total = Int(total)
    counts[total] &-= 1
    sums64[total &>> 6] &-= 1
    sums4096[total &>> 12] &-= 1
    if total &>> 12 == topPage && sums4096[topPage] == 0 { lowerTop() }
    users &-= 1
  }

  @inline(never) private mutating func lowerTop() {
    while topPage > 0 && sums4096[topPage] == 0 { topPage -= 1 }
  }

  /// Users counted here with strictly more than `total` steps; `total` is below `limit`.
  ///
  /// - Complexity: at most 63 + 63 + 255 additions.
  @inline(__always) func countAbove(_ total: UInt32) -> Int {
    let total = Int(total)
    if total &>> 12 > topPage { return 0 }
    var sum: UInt32 = 0
    var i = total &+ 1
    let end = (total | 63) &+ 1
    while i < end {
      sum &+= counts[i]
      i &+= 1
    }
    i = total &>> 6 &+ 1
    let end64 = (total &>> 6 | 63) &+ 1
    while i < end64 {
      sum &+= sums64[i]
      i &+= 1
    }
    i = total &>> 12 &+ 1
    while i <= topPage {
      sum &+= sums4096[i]
      i &+= 1
    }
    return Int(sum)
  }

  /// The total of the user at a place counted from the greatest total down, and the place of the first user with it.
  ///
  /// - Parameter place: below `users`.
  /// - Returns: both.
  /// - Complexity: at most 256 + 64 + 64 steps.
  func total(at place: Int) -> (total: UInt32, first: Int) {
    var left = UInt32(place)
    var page = topPage
    while left >= sums4096[page] {
      left -= sums4096[page]
      page -= 1
    }
    var part = page << 6 | 63
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

  /// Asks for the lines that a change from or to `total` will touch.
  @inline(__always) func slots(_ total: UInt32) -> (count: UnsafePointer<UInt32>, head: UnsafePointer<UInt32>)
  {
    (UnsafePointer(counts + Int(total)), UnsafePointer(heads + Int(total)))
  }

  #if DEBUG
    /// Traps unless the sums agree with the counts.
    func checkInvariants() {
      var all = 0
      for page in 0..<Int(DenseTotals.limit) >> 12 {
        guard sums4096[page] != 0 else { continue }
        precondition(page <= topPage, "page \(page) is used above the top \(topPage)")
        var pageSum: UInt32 = 0
        for part in page << 6..<(page + 1) << 6 {
          var sum: UInt32 = 0
          for total in part << 6..<(part + 1) << 6 { sum += counts[total] }
          precondition(sum == sums64[part], "totals from \(part << 6): \(sum) users, sum \(sums64[part])")
          pageSum += sum
        }
        precondition(pageSum == sums4096[page], "page \(page): \(pageSum) users, sum \(sums4096[page])")
        all += Int(pageSum)
      }
      precondition(all == users, "\(all) users in pages, \(users) counted")
    }
  #endif
}
