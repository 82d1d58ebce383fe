// The slow road: simdjson reads the whole record, the table of reasons is walked in its order.

internal import CSimdJSON

/// simdjson's DOM parser, reused from record to record.
struct RecordJudge: ~Copyable {
  private let handle: OpaquePointer

  init() {
    guard let handle = rms_judge_create() else { fatalError("no memory for a JSON parser") }
    self.handle = handle
  }

  deinit { rms_judge_destroy(handle) }

  /// Reads a record up to reason `user`, and fills the fields that the later reasons need.
  ///
  /// - Returns: the first of `malformed`, `repeated`, `missing`, `type` and `user` that holds; nil if none does.
  mutating func read(
    _ payload: UnsafeRawBufferPointer, arena: inout KeyArena, dates: inout DateCache,
    into fields: inout StepFields
  ) -> RejectReason? {
    var record = rms_record()
    let bytes = payload.baseAddress?.assumingMemoryBound(to: UInt8.self)
    switch Int(rms_judge_read(handle, bytes, payload.count, &record)) {
    case RMS_JUDGE_OBJECT: break
    case RMS_JUDGE_MALFORMED: return .malformed
    // Says nothing about the record: calling it malformed would make the state depend on the machine.
    case RMS_JUDGE_NO_MEMORY: fatalError("no memory to read a record of \(payload.count) bytes")
    case let code: preconditionFailure("judge says \(code)")
    }
    if record.uuid.count > 1 || record.steps.count > 1 || record.timestamp.count > 1
      || record.source.count > 1
    {
      return .repeated
    }
    if record.uuid.count == 0 || record.steps.count == 0 || record.timestamp.count == 0 { return .missing }
    guard RecordJudge.isUserKind(record.uuid), let steps = RecordJudge.steps(record.steps),
      RecordJudge.isTimestampKind(record.timestamp), RecordJudge.isSource(record.source)
    else { return .type }
    fields.steps = steps
    guard RecordJudge.user(record.uuid, &arena, into: &fields.user) else { return .user }
    RecordJudge.source(record.source, &arena, into: &fields)
    fields.hasUnknownFields = record.others
    if let time = RecordJudge.time(record.timestamp, &dates) {
      fields.time = time
      fields.timeIsValid = true
    }
    return nil
  }

  @inline(__always)
  private static func isUserKind(_ field: rms_field) -> Bool {
    switch Int(field.kind) {
    case RMS_KIND_STRING, RMS_KIND_INT64, RMS_KIND_UINT64: true
    default: false
    }
  }

  @inline(__always)
  private static func isTimestampKind(_ field: rms_field) -> Bool {
    switch Int(field.kind) {
    case RMS_KIND_STRING, RMS_KIND_INT64, RMS_KIND_UINT64, RMS_KIND_DOUBLE: true
    default: false
    }
  }

  @inline(__always)
  private static func isSource(_ field: rms_field) -> Bool {
    switch Int(field.kind) {
    case RMS_KIND_ABSENT, RMS_KIND_INT64, RMS_KIND_UINT64: true
    case RMS_KIND_STRING: field.length <= StepEvent.sourceBytesMax
    default: false
    }
  }

  /// An integer, or a double that is one; clamped to what no setting accepts. Nil if it is neither.
  @inline(__always)
  private static func steps(_ field: rms_field) -> Int64? {
    switch Int(field.kind) {
    case RMS_KIND_INT64: return field.int64
    case RMS_KIND_UINT64: return .max
    case RMS_KIND_DOUBLE:
      guard field.real == field.real.rounded(.towardZero) else { return nil }
      return field.real < 0 ? -1 : field.real >= 0x1p62 ? .max : Int64(field.real)
    default: return nil
    }
  }

  /// Makes the key; false if the reason is `user`.
  @inline(__always)
  private static func user(
    _ field: rms_field, _ arena: inout KeyArena, into key: inout UserKey
  ) -> Bool {
    guard Int(field.kind) == RMS_KIND_STRING, let text = field.text else {
      key = UserKey(text: decimal(field, &arena))
      return true
    }
    if field.length == 36, UserKey.readCanonicalUUID(text, into: &key) { return true }
    let bytes = UnsafeRawBufferPointer(start: text, count: field.length)
    guard UserID.isValid(bytes) else { return false }
    key = UserKey(text: arena.copy(bytes))
    return true
  }

  /// Takes a source of an accepted kind, or none.
  @inline(__always)
  private static func source(_ field: rms_field, _ arena: inout KeyArena, into fields: inout StepFields) {
    if Int(field.kind) == RMS_KIND_ABSENT { return }
    let bytes =
      Int(field.kind) == RMS_KIND_STRING
      ? arena.copy(UnsafeRawBufferPointer(start: field.text, count: field.length)) : decimal(field, &arena)
    if let start = bytes.baseAddress { fields.setSource(start, count: bytes.count) }
  }

  /// The decimal text of an integer.
  @inline(never)
  private static func decimal(_ field: rms_field, _ arena: inout KeyArena) -> UnsafeRawBufferPointer {
    // Digits from the right; 20 of them for 2^64-1, 20 with the sign for -2^63.
    let negative = Int(field.kind) == RMS_KIND_INT64 && field.int64 < 0
    var rest = Int(field.kind) == RMS_KIND_UINT64 ? field.uint64 : field.int64.magnitude
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
  private static func time(_ field: rms_field, _ dates: inout DateCache) -> EventTime? {
    switch Int(field.kind) {
    case RMS_KIND_INT64: return EventTime(integer: field.int64)
    case RMS_KIND_UINT64: return nil
    case RMS_KIND_DOUBLE: return EventTime(real: field.real)
    default:
      guard let text = field.text else { return nil }
      return EventTime(UnsafeRawPointer(text), count: field.length, dates: &dates)
    }
  }
}
