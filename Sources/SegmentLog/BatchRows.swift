// The rows of a batch under construction, and the body they become.

internal import Bytes
internal import StepModel

/// Everything that a batch's body is made of. A value, so that its owner's access to it is asked for once a call.
struct BatchRows: ~Copyable {
  /// Payload bytes from which on a batch should be finished.
  private static let payloadBytesFull = 4 << 20

  var columns = EventColumns()
  private var users = IDList()
  private var userNumbers = Numbers<UInt32>()
  private var literals = IDList()
  private var sources = SourceTable()
  private var keptIndices = Numbers<UInt32>()
  private var keptLengths = Numbers<UInt32>()
  private var kept = ByteWriter(limit: SegmentFormat.bodyBytesMax)
  private(set) var rejectedOffsets = Numbers<Int64>()
  private var rejectedTimes = Numbers<Int64>()
  private var rejectedReasons = Numbers<UInt8>()
  private var rejectedCodes = Numbers<Int64>()
  private var rejectedPayloads = ByteWriter(limit: SegmentFormat.bodyBytesMax)
  /// Users whose ids the segment holds.
  var seen = UserBits()

  private(set) var first: Int64 = 0
  private(set) var offsetLast: Int64 = -1

  init() {}

  var count: Int { columns.count + rejectedOffsets.count }

  private var hasFullPayloads: Bool { kept.count + rejectedPayloads.count >= BatchRows.payloadBytesFull }

  var isFull: Bool { count >= SegmentFormat.batchRowsMax || hasFullPayloads }

  mutating func begin(first: Int64) {
    self.first = first
    offsetLast = first - 1
    columns.count = 0
    users.removeAll()
    userNumbers.count = 0
    literals.removeAll()
    sources.removeAll()
    keptIndices.count = 0
    keptLengths.count = 0
    kept.removeAll()
    rejectedOffsets.count = 0
    rejectedTimes.count = 0
    rejectedReasons.count = 0
    rejectedCodes.count = 0
    rejectedPayloads.removeAll()
  }

  /// Adds events until the batch is full.
  ///
  /// - Returns: how many were taken.
  mutating func append(_ run: EventRun) -> Int {
    if hasFullPayloads { return 0 }
    var taken = min(run.count, SegmentFormat.batchRowsMax - count)
    columns.reserve(taken)
    let out = columns.end
    // An event's offset above the one that it would have without holes before it.
    var expected = first &+ Int64(columns.count)
    var last = offsetLast
    var rises = true
    var place = 0
    while place < taken {
      let event = run.events + place
      let offset = event.pointee.offset
      rises = rises && offset > last
      last = offset
      out.skips[place] = offset &- expected
      expected &+= 1
      out.timestamps[place] = run.timestampsMs[place]
      out.times[place] = event.pointee.timeOfDay
      out.steps[place] = event.pointee.steps
      out.days[place] = event.pointee.day.number
      let number = run.numbers[place]
      out.users[place] = number &+ 1
      if number == BatchEncoder.noNumber {
        literals.append(event.pointee.user)
      } else if seen.insert(number) {
        userNumbers.append(number)
        users.append(event.pointee.user)
      }
      var source: UInt32 = 0
      if let text = event.pointee.source { source = sources.index(of: text) }
      out.sources[place] = source
      if event.pointee.hasUnknownFields {
        keep(run.payloads[place], index: columns.count &+ place)
        if hasFullPayloads { taken = place &+ 1 }
      }
      place &+= 1
    }
    precondition(rises, "offset \(last) in a batch, or one before it, follows a greater one")
    columns.count &+= taken
    offsetLast = last
    return taken
  }

  @inline(never)
  private mutating func keep(_ payload: UnsafeRawBufferPointer, index: Int) {
    if payload.count == 0 { return }
    keptIndices.append(UInt32(truncatingIfNeeded: index))
    keptLengths.append(UInt32(truncatingIfNeeded: payload.count))
    kept.bytes(payload)
  }

  mutating func rejected(
    offset: Int64, timestampMs: Int64, reason: RejectReason, payload: UnsafeRawBufferPointer
  ) {
    precondition(offset > offsetLast && count < SegmentFormat.batchRowsMax, "offset \(offset) in a batch")
    offsetLast = offset
    rejectedOffsets.append(offset &- first)
    rejectedTimes.append(timestampMs)
    rejectedReasons.append(reason.rawValue)
    rejectedCodes.append(payload.baseAddress == nil ? 0 : Int64(payload.count) + 1)
    rejectedPayloads.bytes(payload)
  }

  /// Appends the batch's body.
  mutating func write(into out: inout ByteWriter) {
    out.integer(UInt32(truncatingIfNeeded: userNumbers.count))
    if userNumbers.count > 0 {
      userNumbers.write(into: &out)
      users.write(into: &out)
    }
    sources.write(into: &out)
    out.integer(UInt32(truncatingIfNeeded: literals.count))
    if literals.count > 0 { literals.write(into: &out) }
    if columns.count > 0 { columns.write(into: &out) }
    out.integer(UInt32(truncatingIfNeeded: keptIndices.count))
    if keptIndices.count > 0 {
      keptIndices.write(into: &out)
      keptLengths.write(into: &out)
      out.bytes(kept.unsafeBytes)
    }
    if rejectedOffsets.count > 0 {
      rejectedOffsets.write(into: &out)
      rejectedTimes.write(into: &out)
      rejectedReasons.write(into: &out)
      rejectedCodes.write(into: &out)
      out.bytes(rejectedPayloads.unsafeBytes)
    }
  }
}

/// Which user numbers have occurred, a bit each.
struct UserBits: ~Copyable {
  private var words = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
  private var wordCount = 1

  init() { words[0] = 0 }

  deinit { words.deallocate() }

  /// Marks a number.
  ///
  /// - Returns: whether it is new.
  @inline(__always)
  mutating func insert(_ number: UInt32) -> Bool {
    let word = Int(number &>> 6)
    if word >= wordCount { grow(to: word + 1) }
    let bit: UInt64 = 1 &<< UInt64(number & 63)
    if words[word] & bit != 0 { return false }
    words[word] |= bit
    return true
  }

  mutating func removeAll() { words.update(repeating: 0, count: wordCount) }

  @inline(never)
  private mutating func grow(to count: Int) {
    let larger = max(count, wordCount * 2)
    let new = UnsafeMutablePointer<UInt64>.allocate(capacity: larger)
    new.update(from: words, count: wordCount)
    (new + wordCount).update(repeating: 0, count: larger - wordCount)
    words.deallocate()
    words = new
    wordCount = larger
  }
}
