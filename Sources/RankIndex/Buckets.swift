// Users with equal steps, in chains of blocks, in no order.
//
//   block   8 words: next block, then 7 user numbers; block 0 is none
//   bucket  a chain; the head block holds (count - 1) % 7 + 1 users, every other block 7
//   place   the word a user stands in, kept in the user's record: leaving is one swap with the last of the head block
//
// The count of a bucket lives with its total (DenseTotals).

/// What a board knows of a user number.
struct Record: BitwiseCopyable {
  /// Steps; 0 if the user is not on the board.
  var total: UInt32
  /// Where the user stands: a word of a bucket's block, or a slot of a skiplist's leaf.
  var place: UInt32
}

struct Buckets {
  static let blockWords = 8
  static let blockUsers = 7
  /// Enough for the most users a shard may have, and a partial block for each dense total.
  static let blocksMax = max(1 << 21, (UserTable.usersMax + 1) / 4)

  let words: UnsafeMutablePointer<UInt32>
  private var region: Region
  private var blocks: UInt32 = 1
  private var free: UInt32 = 0

  init() {
    region = Region(bytesMax: Buckets.blocksMax * Buckets.blockWords * 4, huge: true)
    words = region.base.assumingMemoryBound(to: UInt32.self)
    region.need(Region.stepBytes)
  }

  func destroy() { region.destroy() }

  /// Memory ever in use, in bytes.
  var bytes: Int { Int(blocks) * Buckets.blockWords * 4 }

  /// The word of the last user of a bucket of `count` users, 1 or more.
  @inline(__always) static func lastPlace(head: UInt32, count: UInt32) -> UInt32 {
    head &* UInt32(blockWords) &+ 1 &+ (count &- 1) % UInt32(blockUsers)
  }

  /// Adds a user to a bucket of `count` users.
  ///
  /// - Returns: the user's place.
  @inline(__always) mutating func add(_ number: UInt32, head: inout UInt32, count: UInt32) -> UInt32 {
    let slot = count % UInt32(Buckets.blockUsers)
    if slot == 0 {
      let block = take()
      words[Int(block) &* Buckets.blockWords] = head
      head = block
    }
    let place = head &* UInt32(Buckets.blockWords) &+ 1 &+ slot
    words[Int(place)] = number
    return place
  }

  /// Takes the user at `place` out of a bucket of `count` users; the bucket's last user moves there.
  @inline(__always) mutating func remove(
    at place: UInt32, head: inout UInt32, count: UInt32, records: UnsafeMutablePointer<Record>
  ) {
    let last = Buckets.lastPlace(head: head, count: count)
    if last != place {
      let moved = words[Int(last)]
      words[Int(place)] = moved
      records[Int(moved)].place = place
    }
    if (last & 7) == 1 {
      let next = words[Int(head) &* Buckets.blockWords]
      give(head)
      head = next
    }
  }

  /// Takes the blocks of a bucket of `count` users, 1 or more, all at once.
  ///
  /// - Returns: the place of the first user; the others follow as `placeAfter` says.
  mutating func take(users count: UInt32) -> UInt32 {
    let first = blocks
    let taken = (count - 1) / UInt32(Buckets.blockUsers) + 1
    blocks += taken
    region.need(Int(blocks) * Buckets.blockWords * 4)
    for i in 1..<max(1, taken) { words[Int(first + i) * Buckets.blockWords] = first + i - 1 }
    return first * UInt32(Buckets.blockWords) + 1
  }

  /// The place after one, in blocks taken all at once.
  @inline(__always) static func placeAfter(_ place: UInt32) -> UInt32 { place &+ (place & 7 == 7 ? 2 : 1) }

  /// The head of a bucket filled up to before a place.
  @inline(__always) static func head(before place: UInt32) -> UInt32 {
    (place &- (place & 7 == 1 ? 2 : 1)) &>> 3
  }

  /// Calls `body` with each user number of a bucket.
  @inline(__always) func forEach(head: UInt32, count: UInt32, _ body: (UInt32) -> Void) {
    var block = head
    var left = Int(count)
    var inBlock = (left - 1) % Buckets.blockUsers + 1
    while left > 0 {
      let start = words + Int(block) * Buckets.blockWords
      for i in 1...inBlock { body(start[i]) }
      left -= inBlock
      inBlock = Buckets.blockUsers
      block = start[0]
    }
  }

  /// Frees all blocks of a bucket.
  mutating func removeAll(head: UInt32) {
    var block = head
    while block != 0 {
      let next = words[Int(block) * Buckets.blockWords]
      give(block)
      block = next
    }
  }

  @inline(__always) private mutating func take() -> UInt32 {
    if free != 0 {
      let block = free
      free = words[Int(block) &* Buckets.blockWords]
      return block
    }
    let block = blocks
    blocks &+= 1
    region.need(Int(blocks) &* Buckets.blockWords &* 4)
    return block
  }

  @inline(__always) private mutating func give(_ block: UInt32) {
    words[Int(block) &* Buckets.blockWords] = free
    free = block
  }
}
