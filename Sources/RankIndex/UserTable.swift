// User id to user number, in flat memory.
//
//   directory  top bits of the hash -> sub-table (extendible hashing: a full sub-table splits in two, on its own,
//              so growth is steady and no moment holds two copies)
//   sub-table  4,096 slots of 4 bytes, linear probing: number + 1 in 27 bits, 5 bits of the hash as tag; 0 is empty
//   ids        16 bytes a number; a segment of 4,096 numbers holds one kind of ids
//                uuid   two words, high and low, as in `UserKey`
//                text   bytes 0-14 the id, byte 15 its length; an id over 15 bytes has its first 8 bytes in place,
//                       then 7 bytes of big-endian offset into the arena that holds all of it
//
// A number is given at first sight and never taken back. Numbers are internal: nothing a reader of a board is told
// depends on them.
internal import CPrefetch
internal import Glibc
internal import StepModel

/// A shard's name for one user: small, dense, good until the shard ends. Of no meaning outside the shard.
public typealias UserNumber = UInt32

/// The secret of a user table's hash. It moves users about in memory and changes no answer.
@frozen public struct HashKey: Sendable {
  @usableFromInline let first: UInt64
  @usableFromInline let second: UInt64

  /// - Parameters:
  ///   - first: any bits; random ones keep outsiders from crafting ids that collide.
  ///   - second: likewise.
  @inlinable public init(_ first: UInt64, _ second: UInt64) {
    self.first = first
    self.second = second
  }

  /// A key known to everybody, for tests and benchmarks.
  public static let known = HashKey(0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB)
}

/// The 16 bytes a table keeps of an id.
struct IDWords: BitwiseCopyable {
  var first: UInt64
  var second: UInt64
}

/// What the ids of a segment are.
enum IDKind {
  static let uuid: UInt8 = 0
  static let text: UInt8 = 1
}

struct UserTable {
  #if DEBUG
    // Sanitizers leave a process few addresses, and tests have many boards at a time.
    static let usersMax = (1 << 22) - 1
    static let subTablesMax = 1 << 12
  #else
    /// Most users of one shard.
    static let usersMax = (1 << 27) - 1
    static let subTablesMax = 1 << 17
  #endif
  /// No user.
  static let none = UInt32.max
  static let segmentBits = 12
  static let slotsBits = 12
  static let slotsCount = 1 << slotsBits
  /// A sub-table with this many users splits: load 0.8.
  static let subTableUsersMax = slotsCount * 4 / 5
  static let depthMax = 20
  static let inlineBytesMax = 15

  private(set) var count = 0
  /// One more than the greatest number, rounded up to a segment: what a board must have records for.
  private(set) var numbersEnd = 0

  let ids: UnsafeMutablePointer<IDWords>
  let kinds: UnsafeMutablePointer<UInt8>
  private let slots: UnsafeMutablePointer<UInt32>
  private var directory: UnsafeMutablePointer<UInt32>
  private var depth: UInt64 = 0
  private let subTableUsers: UnsafeMutablePointer<UInt32>
  private let subTableDepth: UnsafeMutablePointer<UInt8>
  private var subTables = 1
  private let splitScratch: UnsafeMutablePointer<UInt32>

  private var idRegion: Region
  private var slotRegion: Region
  private var arena: Region
  private var arenaBytes = 0
  private var openUUID: UInt32 = 0
  private var openText: UInt32 = 0
  private let key: HashKey

  init(hashKey: HashKey) {
    key = hashKey
    idRegion = Region(bytesMax: (UserTable.usersMax + 1) * 16, huge: true)
    slotRegion = Region(bytesMax: UserTable.subTablesMax * UserTable.slotsCount * 4, huge: true)
    arena = Region(bytesMax: (UserTable.usersMax + 1) * UserID.bytesMax, huge: true)
    ids = idRegion.base.assumingMemoryBound(to: IDWords.self)
    slots = slotRegion.base.assumingMemoryBound(to: UInt32.self)
    slotRegion.need(UserTable.slotsCount * 4)
    kinds = .allocate(capacity: (UserTable.usersMax + 1) >> UserTable.segmentBits)
    kinds.initialize(repeating: 0, count: (UserTable.usersMax + 1) >> UserTable.segmentBits)
    directory = .allocate(capacity: 1)
    directory[0] = 0
    subTableUsers = .allocate(capacity: UserTable.subTablesMax)
    subTableDepth = .allocate(capacity: UserTable.subTablesMax)
    subTableUsers[0] = 0
    subTableDepth[0] = 0
    splitScratch = .allocate(capacity: UserTable.slotsCount)
  }

  func destroy() {
    idRegion.destroy()
    slotRegion.destroy()
    arena.destroy()
    kinds.deallocate()
    directory.deallocate()
    subTableUsers.deallocate()
    subTableDepth.deallocate()
    splitScratch.deallocate()
  }

  /// Memory in use, in bytes: what ids and slots need, without the slack of the last step.
  var bytes: Int {
    numbersEnd * 16 + subTables * (UserTable.slotsCount * 4 + 5) + arenaBytes + (4 << Int(depth))
  }

  // MARK: Hash

  @inline(__always) func hash(_ key: UserKey) -> UInt64 {
    guard let text = key.text else { return mixed(key.high, key.low) }
    return hash(text: text, count: key.length)
  }

  @inline(__always) private func mixed(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let product = (a ^ key.first).multipliedFullWidth(by: b ^ key.second)
    return product.high ^ product.low
  }

  private func hash(text: UnsafePointer<UInt8>, count: Int) -> UInt64 {
    var state = UInt64(count)
    var place = 0
    while place < count {
      let a = UserTable.word(text + place, min(8, count - place))
      let b = count - place > 8 ? UserTable.word(text + place + 8, min(8, count - place - 8)) : 0
      state = mixed(a ^ state, b &+ state.byteSwapped)
      place += 16
    }
    return mixed(state, 0x9E37_79B9_7F4A_7C15)
  }

  /// Up to 8 bytes as one big-endian word, padded with zeroes: its order is the order of the bytes.
  @inline(__always) static func word(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> UInt64 {
    if count == 8 { return UInt64(bigEndian: UnsafeRawPointer(bytes).loadUnaligned(as: UInt64.self)) }
    var word: UInt64 = 0
    for i in 0..<count { word |= UInt64(bytes[i]) &<< UInt64(56 - 8 * i) }
    return word
  }

  private func hash(number: UInt32) -> UInt64 {
    let words = ids[Int(number)]
    if kinds[Int(number) >> UserTable.segmentBits] == IDKind.uuid { return mixed(words.first, words.second) }
    let text = self.text(number)
    return hash(text: text.start, count: text.count)
  }

  // MARK: Lookup

  @inline(__always) private func subTable(_ hash: UInt64) -> Int {
    Int(directory[Int((hash &>> 1) &>> (63 &- depth))])
  }

  @inline(__always) private func home(_ hash: UInt64) -> Int {
    Int(truncatingIfNeeded: hash &>> 24) & (UserTable.slotsCount - 1)
  }

  /// First stage of a batch: asks for the slot's line.
  @inline(__always) func prefetchSlot(_ hash: UInt64) {
    rms_prefetch(slots + (subTable(hash) << UserTable.slotsBits + home(hash)))
  }

  /// Second stage: the number the slot most likely means, its id asked for; `none` if the user is new.
  @inline(__always) func guess(_ hash: UInt64) -> UInt32 {
    let slots = self.slots + subTable(hash) << UserTable.slotsBits
    let tag = UInt32(truncatingIfNeeded: hash) & 31
    var place = home(hash)
    while true {
      let slot = slots[place]
      if slot == 0 { return UserTable.none }
      if slot & 31 == tag {
        let number = slot &>> 5 &- 1
        rms_prefetch(ids + Int(number))
        return number
      }
      place = (place &+ 1) & (UserTable.slotsCount - 1)
    }
  }

  /// The user's number, `none` if the table does not know the user.
  ///
  /// - Complexity: O(1) expected, no allocation.
  @inline(__always) func find(_ key: UserKey, hash: UInt64) -> UInt32 {
    let slots = self.slots + subTable(hash) << UserTable.slotsBits
    let tag = UInt32(truncatingIfNeeded: hash) & 31
    var place = home(hash)
    while true {
      let slot = slots[place]
      if slot == 0 { return UserTable.none }
      if slot & 31 == tag {
        let number = slot &>> 5 &- 1
        if isSame(number, key) { return number }
      }
      place = (place &+ 1) & (UserTable.slotsCount - 1)
    }
  }

  @inline(__always) private func isSame(_ number: UInt32, _ key: UserKey) -> Bool {
    guard key.text == nil else { return isSameText(number, key) }
    let words = ids[Int(number)]
    return words.first == key.high && words.second == key.low
      && kinds[Int(number) >> UserTable.segmentBits] == IDKind.uuid
  }

  private func isSameText(_ number: UInt32, _ key: UserKey) -> Bool {
    guard kinds[Int(number) >> UserTable.segmentBits] == IDKind.text, let wanted = key.text else {
      return false
    }
    let text = self.text(number)
    return text.count == key.length && memcmp(text.start, wanted, text.count) == 0
  }

  // MARK: Adding

  /// The user's number, given now if the user is new; `none` if the table is full.
  ///
  /// - Complexity: O(1) amortised; a sub-table's split costs 3,276 steps.
  @inline(__always) mutating func number(_ key: UserKey, hash: UInt64) -> UInt32 {
    let known = find(key, hash: hash)
    return known != UserTable.none ? known : add(key, hash: hash)
  }

  @inline(never) private mutating func add(_ key: UserKey, hash: UInt64) -> UInt32 {
    guard makeRoom(hash) else { return UserTable.none }
    let number = store(key)
    guard number != UserTable.none else { return number }
    let sub = subTable(hash)
    put(number, hash: hash, into: sub)
    subTableUsers[sub] += 1
    count += 1
    return number
  }

  /// Splits the sub-table a hash falls into until it takes one user more; false if the limits forbid it.
  @inline(__always) private mutating func makeRoom(_ hash: UInt64) -> Bool {
    while subTableUsers[subTable(hash)] >= UserTable.subTableUsersMax {
      guard split(hash) else { return false }
    }
    return true
  }

  @inline(__always) private func put(_ number: UInt32, hash: UInt64, into sub: Int) {
    let slots = self.slots + sub << UserTable.slotsBits
    var place = home(hash)
    while slots[place] != 0 { place = (place &+ 1) & (UserTable.slotsCount - 1) }
    slots[place] = (number &+ 1) &<< 5 | UInt32(truncatingIfNeeded: hash) & 31
  }

  /// Writes the id into the open segment of its kind.
  private mutating func store(_ key: UserKey) -> UInt32 {
    let isUUID = key.text == nil
    var number = isUUID ? openUUID : openText
    if number & (1 << UserTable.segmentBits - 1) == 0 {
      guard numbersEnd + 1 << UserTable.segmentBits <= UserTable.usersMax + 1 else { return UserTable.none }
      number = UInt32(numbersEnd)
      kinds[numbersEnd >> UserTable.segmentBits] = isUUID ? IDKind.uuid : IDKind.text
      numbersEnd += 1 << UserTable.segmentBits
      idRegion.need(numbersEnd * 16)
    }
    // The last number of all has no slot value.
    guard Int(number) < UserTable.usersMax else { return UserTable.none }
    if isUUID { openUUID = number + 1 } else { openText = number + 1 }
    write(key, at: number)
    return number
  }

  /// Writes the id of a number whose segment is there.
  @inline(__always) private mutating func write(_ key: UserKey, at number: UInt32) {
    guard let text = key.text else {
      ids[Int(number)] = IDWords(first: key.high, second: key.low)
      return
    }
    let second: UInt64
    if key.length <= UserTable.inlineBytesMax {
      second = key.length > 8 ? UserTable.word(text + 8, key.length - 8) : 0
    } else {
      arena.need(arenaBytes + key.length)
      (arena.base + arenaBytes).copyMemory(from: text, byteCount: key.length)
      second = UInt64(arenaBytes) << 8
      arenaBytes += key.length
    }
    ids[Int(number)] = IDWords(
      first: UserTable.word(text, min(8, key.length)).bigEndian,
      second: (second | UInt64(key.length)).bigEndian)
  }

  /// Splits the sub-table a hash falls into; false if the limits forbid it.
  private mutating func split(_ hash: UInt64) -> Bool {
    let sub = subTable(hash)
    let local = UInt64(subTableDepth[sub])
    guard subTables < UserTable.subTablesMax, local < UInt64(UserTable.depthMax) else { return false }
    if local == depth { doubleDirectory() }
    let other = subTables
    subTables += 1
    slotRegion.need(subTables * UserTable.slotsCount * 4)
    subTableDepth[sub] = UInt8(local + 1)
    subTableDepth[other] = UInt8(local + 1)
    let span = 1 << Int(depth - local)
    let first = Int((hash >> 1) >> (63 - depth)) / span * span
    for i in first + span / 2..<first + span { directory[i] = UInt32(other) }

    let old = slots + sub << UserTable.slotsBits
    var users = 0
    for i in 0..<UserTable.slotsCount where old[i] != 0 {
      splitScratch[users] = old[i] >> 5 - 1
      users += 1
    }
    old.update(repeating: 0, count: UserTable.slotsCount)
    subTableUsers[sub] = 0
    subTableUsers[other] = 0
    for i in 0..<users {
      if i + 16 < users { rms_prefetch(ids + Int(splitScratch[i + 16])) }
      let hash = self.hash(number: splitScratch[i])
      let target = subTable(hash)
      put(splitScratch[i], hash: hash, into: target)
      subTableUsers[target] += 1
    }
    return true
  }

  // MARK: Restoring

  /// Whether a user has the number.
  @inline(__always) func isGiven(_ number: UInt64) -> Bool {
    guard number < UInt64(numbersEnd) else { return false }
    let kind = kinds[Int(number) >> UserTable.segmentBits]
    return number < UInt64(kind == IDKind.uuid ? openUUID : openText)
  }

  /// Makes room in an empty table, so that filling it splits nothing.
  ///
  /// - Parameter users: how many will come; only speed depends on it.
  mutating func reserve(users: Int) {
    precondition(count == 0, "room is made in an empty table, this one has \(count) users")
    // Sub-tables between 0.35 and 0.7 full on average, as they are after splits.
    var bits = 0
    while users >> bits > UserTable.subTableUsersMax * 7 / 8, 2 << bits <= UserTable.subTablesMax {
      bits += 1
    }
    depth = UInt64(bits)
    subTables = 1 << bits
    slotRegion.need(subTables * UserTable.slotsCount * 4)
    directory.deallocate()
    directory = .allocate(capacity: subTables)
    for i in 0..<subTables {
      directory[i] = UInt32(i)
      subTableUsers[i] = 0
      subTableDepth[i] = UInt8(bits)
    }
  }

  /// Gives the numbers of the next segment to the users who had them.
  ///
  /// - Parameter keys: the ids in the order of their numbers, 1 to a segment full, all UUIDs or none.
  /// - Throws: `RestoreError`; the table is good for nothing then.
  mutating func restore(segment keys: UnsafeBufferPointer<UserKey>) throws(RestoreError) {
    let first = numbersEnd
    let isUUID = keys.first?.text == nil
    let open = isUUID ? openUUID : openText
    guard (1...1 << UserTable.segmentBits).contains(keys.count), open & (1 << UserTable.segmentBits - 1) == 0
    else { throw .unordered(UInt32(first)) }
    guard first + 1 << UserTable.segmentBits <= UserTable.usersMax + 1,
      first + keys.count <= UserTable.usersMax
    else { throw .full }
    kinds[first >> UserTable.segmentBits] = isUUID ? IDKind.uuid : IDKind.text
    numbersEnd += 1 << UserTable.segmentBits
    idRegion.need(numbersEnd * 16)
    var done = 0
    while done < keys.count {
      let group = min(BatchScratch.groupEvents, keys.count - done)
      for i in done..<done + group {
        guard (keys[i].text == nil) == isUUID else { throw .unordered(UInt32(first + i)) }
        write(keys[i], at: UInt32(first + i))
        prefetchSlot(hash(keys[i]))
      }
      for i in done..<done + group {
        let hash = hash(keys[i])
        if find(keys[i], hash: hash) != UserTable.none { throw .repeated(UInt32(first + i)) }
        guard makeRoom(hash) else { throw .full }
        let sub = subTable(hash)
        put(UInt32(first + i), hash: hash, into: sub)
        subTableUsers[sub] += 1
      }
      done += group
    }
    count += keys.count
    if isUUID { openUUID = UInt32(first + keys.count) } else { openText = UInt32(first + keys.count) }
  }

  private mutating func doubleDirectory() {
    let size = 1 << Int(depth)
    let doubled = UnsafeMutablePointer<UInt32>.allocate(capacity: size * 2)
    for i in 0..<size {
      doubled[2 * i] = directory[i]
      doubled[2 * i + 1] = directory[i]
    }
    directory.deallocate()
    directory = doubled
    depth += 1
  }

  // MARK: Ids

  /// The bytes of a text id; good for the table's life.
  @inline(__always) func text(_ number: UInt32) -> (start: UnsafePointer<UInt8>, count: Int) {
    UserTable.text(UnsafeRawPointer(ids + Int(number)), arena: arena.base)
  }

  /// The bytes of a text id, given where its 16 bytes are.
  @inline(__always) static func text(
    _ raw: UnsafeRawPointer, arena: UnsafeRawPointer
  ) -> (start: UnsafePointer<UInt8>, count: Int) {
    let second = UInt64(bigEndian: raw.load(fromByteOffset: 8, as: UInt64.self))
    let count = Int(second & 0xFF)
    let start = count <= UserTable.inlineBytesMax ? raw : arena + Int(second >> 8)
    return (start.assumingMemoryBound(to: UInt8.self), count)
  }

  /// Where the ids longer than 15 bytes are.
  var arenaStart: UnsafeRawPointer { UnsafeRawPointer(arena.base) }

  /// One more than the greatest number with ids of a kind; 0 if there is none.
  func end(of kind: UInt8) -> Int { Int(kind == IDKind.uuid ? openUUID : openText) }
}
