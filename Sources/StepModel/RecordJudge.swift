// The slow road: simdjson reads the whole record, the table of reasons is walked in its order.

internal import CSimdJSON

/// simdjson's DOM parser, reused from record to record.
struct RecordJudge: ~Copyable {
  private typealias Field = UnsafePointer<rms_field>

  private let handle: OpaquePointer
  /// What the last record holds, kept in one place: nothing of it is copied.
  private let record = UnsafeMutablePointer<rms_record>.allocate(capacity: 1)

  init() {
    guard let handle = rms_judge_create() else { fatalError("no memory for a JSON parser") }
    self.handle = handle
    record.initialize(to: rms_record())
  }

  deinit {
    rms_judge_destroy(handle)
    record.deallocate()
  }

  /// Reads a record up to reason `user`, and fills the fields that the later reasons need.
  ///
  /// - Returns: the first of `malformed`, `repeated`, `missing`, `type` and `user` that holds; nil if none does.
  mutating func read(
    _ payload: UnsafeRawBufferPointer, arena: inout KeyArena, dates: inout DateCache,
    into fields: inout StepFields
  ) -> RejectReason? {
    let bytes = payload.baseAddress?.assumingMemoryBound(to: UInt8.self)
    switch Int(rms_judge_read(handle, bytes, payload.count, record)) {
    case RMS_JUDGE_OBJECT: break
    case RMS_JUDGE_MALFORMED: return .malformed
    // Says nothing about the record: calling it malformed would make the state depend on the machine.
    case RMS_JUDGE_NO_MEMORY: fatalError("no memory to read a record of \(payload.count) bytes")
    case let code: preconditionFailure("judge says \(code)")
    }
    // One after the other, as the record has them.
    let uuid: Field = UnsafeRawPointer(record).assumingMemoryBound(to: rms_field.self)
    let (steps, timestamp, source) = (uuid + 1, uuid + 2, uuid + 3)
    if (uuid.pointee.count | steps.pointee.count | timestamp.pointee.count | source.pointee.count) > 1 {
      return .repeated
    }
    if (uuid.pointee.count & steps.pointee.count & timestamp.pointee.count) == 0 { return .missing }
    guard RecordJudge.isUserKind(uuid), let number = RecordJudge.steps(steps),
      RecordJudge.isTimestampKind(timestamp), RecordJudge.isSource(source)
    else { return .type }
    fields.steps = number
    guard RecordJudge.user(uuid, &arena, into: &fields.user) else { return .user }
    RecordJudge.source(source, &arena, into: &fields)
    fields.extras.hasUnknownFields = record.pointee.others
    if let time = RecordJudge.time(timestamp, &dates) {
      fields.time = time
      fields.timeIsValid = true
    }
    return nil
  }

  @inline(__always)
  private static func isUserKind(_ field: Field) -> Bool {
    switch Int(field.pointee.kind) {
    case RMS_KIND_STRING, RMS_KIND_INT64, RMS_KIND_UINT64: true
    default: false
    }
  }

  @inline(__always)
  private static func isTimestampKind(_ field: Field) -> Bool {
    switch Int(field.pointee.kind) {
    case RMS_KIND_STRING, RMS_KIND_INT64, RMS_KIND_UINT64, RMS_KIND_DOUBLE: true
    default: false
    }
  }

  @inline(__always)
  private static func isSource(_ field: Field) -> Bool {
    switch Int(field.pointee.kind) {
    case RMS_KIND_ABSENT, RMS_KIND_INT64, RMS_KIND_UINT64: true
    case RMS_KIND_STRING: Int(field.pointee.length) <= StepEvent.sourceBytesMax
    default: false
    }
  }

  /// An integer, or a double that is one; clamped to what no setting accepts. Nil if it is neither.
  @inline(__always)
  private static func steps(_ field: Field) -> Int64? {
    switch Int(field.pointee.kind) {
    case RMS_KIND_INT64: return Int64(bitPattern: field.pointee.bits)
    case RMS_KIND_UINT64: return .max
    case RMS_KIND_DOUBLE:
      let real = Double(bitPattern: field.pointee.bits)
      guard real == real.rounded(.towardZero) else { return nil }
      return real < 0 ? -1 : real >= 0x1p62 ? .max : Int64(real)
    default: return nil
    }
  }

  /// Makes the key; false if the reason is `user`.
  @inline(__always)
  private static func user(
    _ field: Field, _ arena: inout KeyArena, into key: inout UserKey
  ) -> Bool {
    guard Int(field.pointee.kind) == RMS_KIND_STRING, let text = field.pointee.text else {
      key = UserKey(text: decimal(field, &arena))
      return true
    }
    if Int(field.pointee.length) == 36, UserKey.readCanonicalUUID(text, into: &key) { return true }
    let bytes = UnsafeRawBufferPointer(start: text, count: Int(field.pointee.length))
    guard UserID.isValid(bytes) else { return false }
    key = UserKey(text: arena.copy(bytes))
    return true
  }

  /// Takes a source of an accepted kind, or none.
  @inline(__always)
  private static func source(_ field: Field, _ arena: inout KeyArena, into fields: inout StepFields) {
    if Int(field.pointee.kind) == RMS_KIND_ABSENT { return }
    let bytes =
      Int(field.pointee.kind) == RMS_KIND_STRING
      ? arena.copy(UnsafeRawBufferPointer(start: field.pointee.text, count: Int(field.pointee.length)))
      : decimal(field, &arena)
    if let start = bytes.baseAddress { fields.setSource(start, count: bytes.count) }
  }

  /// The decimal text of an integer.
  @inline(never)
  private static func decimal(_ field: Field, _ arena: inout KeyArena) -> UnsafeRawBufferPointer {
    // Digits from the right; 20 of them for 2^64-1, 20 with the sign for -2^63.
    let negative = Int(field.pointee.kind) == RMS_KIND_INT64 && Int64(bitPattern: field.pointee.bits) < 0
    var rest =
      Int(field.pointee.kind) == RMS_KIND_UINT64
      ? field.pointee.bits : Int64(bitPattern: field.pointee.bits).magnitude
    return withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { digits in
      var place = 20
      repeat {
        place -= 1
        digits[place] = UInt8(ascii: "0") + UInt8(rest % 10)
        rest /= 10
      } while rest > 0
      if negative {
        place -= 1
        digits[place] = UInt8(ascii: "-")
      }
      return arena.copy(UnsafeRawBufferPointer(rebasing: digits[place...]))
    }
  }

  @inline(__always)
  private static func time(_ field: Field, _ dates: inout DateCache) -> EventTime? {
    switch Int(field.pointee.kind) {
    case RMS_KIND_INT64: return EventTime(integer: Int64(bitPattern: field.pointee.bits))
    case RMS_KIND_UINT64: return nil
    case RMS_KIND_DOUBLE: return EventTime(real: Double(bitPattern: field.pointee.bits))
    default:
      guard let text = field.pointee.text else { return nil }
      return EventTime(UnsafeRawPointer(text), count: Int(field.pointee.length), dates: &dates)
    }
  }
}
