// The memory of a batch under construction: values side by side, a column each, until the batch is written.

internal import Bytes
internal import StepModel

/// Values of one kind, whose memory is kept between batches.
struct Numbers<T: BitwiseCopyable>: ~Copyable {
  private(set) var values = UnsafeMutablePointer<T>.allocate(capacity: 64)
  private var capacity = 64
  var count = 0

  init() {}

  deinit { values.deallocate() }

  @inline(__always)
  mutating func append(_ value: T) {
    if count == capacity { grow() }
    values[count] = value
    count &+= 1
  }

  @inline(never)
  private mutating func grow() {
    let new = UnsafeMutablePointer<T>.allocate(capacity: capacity * 2)
    new.update(from: values, count: count)
    values.deallocate()
    values = new
    capacity *= 2
  }
}

extension Numbers where T: FixedWidthInteger {
  @inline(__always)
  func write(into out: inout ByteWriter) { Column.write(values, count: count, into: &out) }
}

/// The events' columns, grown together.
struct EventColumns: ~Copyable {
  private var skips: UnsafeMutablePointer<Int64>
  private var timestamps: UnsafeMutablePointer<Int64>
  private var times: UnsafeMutablePointer<Int64>
  private var users: UnsafeMutablePointer<UInt32>
  private var steps: UnsafeMutablePointer<UInt32>
  private var days: UnsafeMutablePointer<Int32>
  private var sources: UnsafeMutablePointer<UInt32>
  private var scaled: UnsafeMutablePointer<Int64>
  private var capacity: Int
  var count = 0

  init(capacity: Int = 1_024) {
    self.capacity = capacity
    skips = .allocate(capacity: capacity)
    timestamps = .allocate(capacity: capacity)
    times = .allocate(capacity: capacity)
    users = .allocate(capacity: capacity)
    steps = .allocate(capacity: capacity)
    days = .allocate(capacity: capacity)
    sources = .allocate(capacity: capacity)
    scaled = .allocate(capacity: capacity)
  }

  deinit {
    skips.deallocate()
    timestamps.deallocate()
    times.deallocate()
    users.deallocate()
    steps.deallocate()
    days.deallocate()
    sources.deallocate()
    scaled.deallocate()
  }

  /// Where the next event's values go.
  struct Place {
    let skips: UnsafeMutablePointer<Int64>
    let timestamps: UnsafeMutablePointer<Int64>
    let times: UnsafeMutablePointer<Int64>
    let users: UnsafeMutablePointer<UInt32>
    let steps: UnsafeMutablePointer<UInt32>
    let days: UnsafeMutablePointer<Int32>
    let sources: UnsafeMutablePointer<UInt32>
  }

  /// The places behind the last event; filled by whoever then raises `count`.
  var end: Place {
    Place(
      skips: skips + count, timestamps: timestamps + count, times: times + count, users: users + count,
      steps: steps + count, days: days + count, sources: sources + count)
  }

  /// Makes room for so many more events.
  mutating func reserve(_ more: Int) {
    if more > capacity - count { grow(to: max(count + more, capacity * 2)) }
  }

  @inline(never)
  private mutating func grow(to larger: Int) {
    func grown<T>(_ old: inout UnsafeMutablePointer<T>) {
      let new = UnsafeMutablePointer<T>.allocate(capacity: larger)
      new.update(from: old, count: count)
      old.deallocate()
      old = new
    }
    grown(&skips)
    grown(&timestamps)
    grown(&times)
    grown(&users)
    grown(&steps)
    grown(&days)
    grown(&sources)
    scaled.deallocate()
    capacity = larger
    scaled = .allocate(capacity: capacity)
  }

  mutating func write(into out: inout ByteWriter) {
    // Row kinds: all are step events, a column of no bits.
    out.integer(UInt8(0))
    out.integer(Int64(0))
    Column.write(skips, count: count, into: &out)
    Column.write(timestamps, count: count, into: &out)
    Column.write(users, count: count, into: &out)
    Column.write(steps, count: count, into: &out)
    Column.write(days, count: count, into: &out)
    for unit in TimeUnit.allCases where scale(unit) {
      out.integer(unit.rawValue)
      Column.write(scaled, count: count, into: &out)
      break
    }
    Column.write(sources, count: count, into: &out)
  }

  /// Divides the times by a unit.
  ///
  /// - Returns: false if one is no multiple of it.
  @inline(__always)
  private mutating func scale(_ unit: TimeUnit) -> Bool {
    func divide(by divisor: Int64) -> Bool {
      for i in 0..<count {
        let quotient = times[i] / divisor
        if quotient &* divisor != times[i] { return false }
        scaled[i] = quotient
      }
      return true
    }
    // Constant divisors: the compiler makes multiplications of them.
    return switch unit {
    case .seconds: divide(by: 1_000_000_000)
    case .milliseconds: divide(by: 1_000_000)
    case .microseconds: divide(by: 1_000)
    case .nanoseconds: divide(by: 1)
    }
  }
}

/// In what the times of a batch are counted: the largest unit of which all are multiples.
enum TimeUnit: UInt8, CaseIterable {
  case seconds = 0
  case milliseconds = 1
  case microseconds = 2
  case nanoseconds = 3

  var nanoseconds: Int64 {
    switch self {
    case .seconds: 1_000_000_000
    case .milliseconds: 1_000_000
    case .microseconds: 1_000
    case .nanoseconds: 1
    }
  }
}

/// User ids one after the other: a code each (0: a canonical UUID in 16 bytes; else the length of the text), then the
/// bytes.
struct IDList: ~Copyable {
  private var codes = Numbers<UInt8>()
  private var ids = ByteWriter(limit: SegmentFormat.batchRowsMax * UserID.bytesMax)

  init() {}

  var count: Int { codes.count }

  mutating func removeAll() {
    codes.count = 0
    ids.removeAll()
  }

  mutating func append(_ user: UserKey) {
    if let text = user.text {
      codes.append(UInt8(truncatingIfNeeded: user.length))
      ids.bytes(UnsafeRawBufferPointer(start: text, count: user.length))
    } else {
      codes.append(0)
      ids.integer(user.high.byteSwapped)
      ids.integer(user.low.byteSwapped)
    }
  }

  func write(into out: inout ByteWriter) {
    codes.write(into: &out)
    out.bytes(ids.unsafeBytes)
  }
}

/// The sources of a batch, each once as long as there are few.
struct SourceTable: ~Copyable {
  private static let slotCount = 512
  /// Behind so many, sources are no longer looked for and may stand there twice.
  private static let distinctMax = 256

  private var lengths = Numbers<UInt8>()
  private var starts = Numbers<UInt32>()
  private var bytes = ByteWriter(limit: SegmentFormat.batchRowsMax * StepEvent.sourceBytesMax)
  /// Index of a source, 1 or more; 0: free.
  private let slots = UnsafeMutablePointer<UInt32>.allocate(capacity: slotCount)

  init() { slots.update(repeating: 0, count: SourceTable.slotCount) }

  deinit { slots.deallocate() }

  mutating func removeAll() {
    if lengths.count > 0 { slots.update(repeating: 0, count: SourceTable.slotCount) }
    lengths.count = 0
    starts.count = 0
    bytes.removeAll()
  }

  /// - Parameter source: at most 32 bytes.
  /// - Returns: its place in the table, counted from 1.
  mutating func index(of source: UnsafeRawBufferPointer) -> UInt32 {
    precondition(source.count <= StepEvent.sourceBytesMax, "a source of \(source.count) bytes")
    var slot = Int(truncatingIfNeeded: SourceTable.hash(source) >> 55)
    while slots[slot] != 0 {
      let index = Int(slots[slot]) - 1
      let start = Int(starts.values[index])
      let known = UnsafeRawBufferPointer(
        rebasing: bytes.unsafeBytes[start..<start + Int(lengths.values[index])])
      if known.elementsEqual(source) { return UInt32(truncatingIfNeeded: index + 1) }
      slot = (slot + 1) & (SourceTable.slotCount - 1)
    }
    starts.append(UInt32(truncatingIfNeeded: bytes.count))
    lengths.append(UInt8(truncatingIfNeeded: source.count))
    bytes.bytes(source)
    let index = UInt32(truncatingIfNeeded: lengths.count)
    if lengths.count <= SourceTable.distinctMax { slots[slot] = index }
    return index
  }

  func write(into out: inout ByteWriter) {
    out.integer(UInt32(truncatingIfNeeded: lengths.count))
    if lengths.count == 0 { return }
    lengths.write(into: &out)
    out.bytes(bytes.unsafeBytes)
  }

  @inline(__always)
  private static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    var hash = UInt64(truncatingIfNeeded: bytes.count)
    var place = 0
    func mix(_ word: UInt64) {
      hash = (hash ^ word) &* 0x9E37_79B9_7F4A_7C15
      hash ^= hash >> 32
    }
    while place &+ 8 <= bytes.count {
      mix(bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self))
      place &+= 8
    }
    var rest: UInt64 = 0
    while place < bytes.count {
      rest = rest &<< 8 | UInt64(bytes[place])
      place &+= 1
    }
    mix(rest)
    return hash
  }
}
