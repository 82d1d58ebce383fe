// The users of a segment by number, as far as it was read.

internal import Bytes
internal import StepModel

/// Number to id, open addressing; ids that are text lie in blocks of their own, so that keys stay valid.
struct UserDictionary: ~Copyable {
  private struct Slot: BitwiseCopyable {
    /// Number + 1; 0: free.
    var mark: UInt32
    var index: UInt32
  }

  private static let blockBytes = 16 << 10

  private var slots: UnsafeMutablePointer<Slot>
  private var slotBits: UInt64 = 6
  private var keys = Numbers<UserKey>()
  private var blocks: [UnsafeMutableRawPointer] = []
  private var blockUsed = UserDictionary.blockBytes

  init() {
    slots = .allocate(capacity: 64)
    slots.update(repeating: Slot(mark: 0, index: 0), count: 64)
  }

  deinit {
    slots.deallocate()
    for block in blocks { block.deallocate() }
  }

  private var slotCount: Int { 1 << Int(slotBits) }

  /// The user of a number; nil if it was not defined.
  @inline(__always)
  subscript(_ number: UInt32) -> UserKey? {
    var place = home(number)
    while slots[place].mark != 0 {
      if slots[place].mark == number &+ 1 { return keys.values[Int(slots[place].index)] }
      place = (place &+ 1) & (slotCount &- 1)
    }
    return nil
  }

  /// Defines a number.
  ///
  /// - Returns: false if it is defined already.
  mutating func define(_ number: UInt32, _ key: UserKey) -> Bool {
    if keys.count * 2 >= slotCount { grow() }
    var place = home(number)
    while slots[place].mark != 0 {
      if slots[place].mark == number &+ 1 { return false }
      place = (place &+ 1) & (slotCount &- 1)
    }
    slots[place] = Slot(mark: number &+ 1, index: UInt32(truncatingIfNeeded: keys.count))
    keys.append(owned(key))
    return true
  }

  mutating func removeAll() {
    slots.update(repeating: Slot(mark: 0, index: 0), count: slotCount)
    keys.count = 0
    for block in blocks { block.deallocate() }
    blocks.removeAll(keepingCapacity: true)
    blockUsed = UserDictionary.blockBytes
  }

  private func home(_ number: UInt32) -> Int {
    Int(truncatingIfNeeded: (UInt64(number) &* 0x9E37_79B9_7F4A_7C15) &>> (64 &- slotBits))
  }

  private mutating func owned(_ key: UserKey) -> UserKey {
    guard let text = key.text else { return key }
    if blockUsed + key.length > UserDictionary.blockBytes {
      blocks.append(.allocate(byteCount: UserDictionary.blockBytes, alignment: 8))
      blockUsed = 0
    }
    let place = blocks[blocks.count - 1] + blockUsed
    place.copyMemory(from: text, byteCount: key.length)
    blockUsed += key.length
    return UserKey(UnsafeRawBufferPointer(start: place, count: key.length))
  }

  @inline(never)
  private mutating func grow() {
    let old = slots
    let oldCount = slotCount
    slotBits += 1
    slots = .allocate(capacity: slotCount)
    slots.update(repeating: Slot(mark: 0, index: 0), count: slotCount)
    for i in 0..<oldCount where old[i].mark != 0 {
      var place = home(old[i].mark &- 1)
      while slots[place].mark != 0 { place = (place &+ 1) & (slotCount &- 1) }
      slots[place] = old[i]
    }
    old.deallocate()
  }
}
