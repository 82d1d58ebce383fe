// Order of user ids: the bytes of their texts, whatever the form they are kept in.
//
// The first 8 bytes of an id's text, as one big-endian word, decide nearly every comparison; they are 0 for no id.
internal import Glibc
internal import StepModel

/// A place in the board's order to look for: steps descending, then user id ascending.
struct Probe {
  var total: UInt32
  /// First 8 bytes of the id; 0 is before all ids.
  var prefix: UInt64
  /// The user, if the table knows them.
  var number: UInt32
  /// The id, if not given by number.
  var key: UserKey?

  /// Before everyone with `total` steps, after everyone with more.
  @inline(__always) init(startOf total: UInt32) {
    self.total = total
    prefix = 0
    number = UserTable.none
    key = nil
  }

  @inline(__always) init(total: UInt32, number: UInt32, in users: UnsafeMutablePointer<UserTable>) {
    self.total = total
    prefix = users.pointee.prefix(number)
    self.number = number
    key = nil
  }

  @inline(__always) init(total: UInt32, key: UserKey) {
    self.total = total
    prefix = UserTable.prefix(key)
    number = UserTable.none
    self.key = key
  }
}

extension UserTable {
  /// The number's id as a key; its bytes are good for the table's life.
  func userKey(_ number: UInt32) -> UserKey {
    let words = ids[Int(number)]
    if kinds[Int(number) >> UserTable.segmentBits] == IDKind.uuid {
      return UserKey(high: words.first, low: words.second)
    }
    let text = self.text(number)
    return UserKey(UnsafeRawBufferPointer(start: text.start, count: text.count))
  }

  @inline(__always) func prefix(_ number: UInt32) -> UInt64 {
    let first = ids[Int(number)].first
    return kinds[Int(number) >> UserTable.segmentBits] == IDKind.uuid
      ? UserTable.hexPrefix(first) : UInt64(bigEndian: first)
  }

  @inline(__always) static func prefix(_ key: UserKey) -> UInt64 {
    guard let text = key.text else { return hexPrefix(key.high) }
    return word(text, min(8, key.length))
  }

  /// The 8 hexadecimal digits of the upper 32 bits, as text in one big-endian word.
  @inline(__always) static func hexPrefix(_ high: UInt64) -> UInt64 {
    // Spread the nibbles, one a byte.
    var x = high >> 32
    x = (x | x << 16) & 0x0000_FFFF_0000_FFFF
    x = (x | x << 8) & 0x00FF_00FF_00FF_00FF
    x = (x | x << 4) & 0x0F0F_0F0F_0F0F_0F0F
    // Bytes of 10 and more get 0x27 on top of 0x30, so that 10 becomes "a".
    let letters = ((x &+ 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101
    return x &+ 0x3030_3030_3030_3030 &+ letters &* 0x27
  }

  /// Whether one known user's id comes before another's; call it where the prefixes are equal.
  @inline(never) func precedes(_ a: UInt32, _ b: UInt32) -> Bool {
    if a == b { return false }
    let segments = (Int(a) >> UserTable.segmentBits, Int(b) >> UserTable.segmentBits)
    if kinds[segments.0] == IDKind.uuid && kinds[segments.1] == IDKind.uuid {
      let (left, right) = (ids[Int(a)], ids[Int(b)])
      return (left.first, left.second) < (right.first, right.second)
    }
    return UserTable.compare(userKey(a), userKey(b)) < 0
  }

  /// Below 0 if the probe's id comes before the user's, 0 if it is the same, above 0 otherwise.
  @inline(never) func compareIDs(_ probe: Probe, _ number: UInt32) -> Int {
    if probe.number == number { return 0 }
    if probe.number != UserTable.none { return precedes(probe.number, number) ? -1 : 1 }
    guard let key = probe.key else { return -1 }
    return UserTable.compare(key, userKey(number))
  }

  /// Order of two ids by the bytes of their texts: below 0, 0, or above 0.
  static func compare(_ a: UserKey, _ b: UserKey) -> Int {
    if a.text == nil && b.text == nil {
      if a.high != b.high { return a.high < b.high ? -1 : 1 }
      return a.low == b.low ? 0 : a.low < b.low ? -1 : 1
    }
    return withUnsafeTemporaryAllocation(byteCount: 2 * UserID.bytesMax, alignment: 8) { room in
      guard let start = room.baseAddress else { return 0 }
      let left = a.write(to: start)
      let right = b.write(to: start + UserID.bytesMax)
      let order = memcmp(start, start + UserID.bytesMax, min(left, right))
      return order != 0 ? Int(order) : left - right
    }
  }
}
