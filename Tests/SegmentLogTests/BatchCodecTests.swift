import Bytes
import StepModel
import TestSupport
import Testing

@testable import SegmentLog

/// A row of a batch, owned, in a form that compares and prints.
enum ModelRow: Equatable {
  case event(
    user: String, number: UInt32, offset: Int64, timestampMs: Int64, day: Int32, time: Int64, steps: UInt32,
    source: String?, payload: [UInt8]?)
  case rejected(offset: Int64, timestampMs: Int64, reason: RejectReason, payload: [UInt8]?)

  var offset: Int64 {
    switch self {
    case .event(_, _, let offset, _, _, _, _, _, _): offset
    case .rejected(let offset, _, _, _): offset
    }
  }

  /// The same row as a reader sees it, who is not told of numbers.
  var read: ModelRow {
    guard
      case .event(let user, _, let offset, let stamp, let day, let time, let steps, let source, let payload) =
        self
    else { return self }
    return .event(
      user: user, number: 0, offset: offset, timestampMs: stamp, day: day, time: time, steps: steps,
      source: source, payload: payload)
  }

  init(_ row: DecodedBatch.Row) {
    switch row {
    case .event(let event, let timestamp, let payload):
      let user = String(unsafeUninitializedCapacity: event.user.length) {
        event.user.write(to: UnsafeMutableRawPointer($0.baseAddress!))
      }
      self = .event(
        user: user, number: 0, offset: event.offset, timestampMs: timestamp, day: event.day.number,
        time: event.timeOfDay, steps: event.steps,
        source: event.source.map { String(decoding: $0, as: UTF8.self) }, payload: payload.map { Array($0) })
    case .rejected(let record):
      self = .rejected(
        offset: record.offset, timestampMs: record.timestampMs, reason: record.reason,
        payload: record.payload.map { Array($0) })
    }
  }
}

/// A batch as it is to be written.
struct ModelBatch {
  var first: Int64
  var next: Int64
  var rows: [ModelRow]
}

/// Batches of a shard, at random: users new and known, with and without number, gaps, rejected records.
struct BatchSource {
  var random: SeededGenerator
  var next: Int64
  var numbers: [String: UInt32] = [:]
  let pool: KeyPool
  /// Spreads of the values, so that widths differ from run to run.
  let wide: Bool

  init(seed: Seed) {
    random = seed.random
    next = Int64.random(in: 0..<1_000_000, using: &random)
    pool = KeyPool.mixed(Int.random(in: 1...400, using: &random), using: &random)
    wide = Bool.random(using: &random)
  }

  /// Goes on elsewhere; a new segment knows nobody.
  mutating func restart(at watermark: Int64) { next = watermark }

  mutating func below(_ count: Int) -> Int { Int.random(in: 0..<count, using: &random) }

  mutating func batch(rowsMax: Int) -> ModelBatch {
    let first = next
    var rows: [ModelRow] = []
    var offset = first
    for _ in 0..<(1 + below(rowsMax)) {
      if below(10) == 0 { offset += Int64(below(wide ? 1_000_000_000 : 4)) }
      rows.append(below(6) == 0 ? rejection(offset) : event(offset))
      offset += 1
    }
    next = offset + Int64(below(3))
    return ModelBatch(first: first, next: next, rows: rows)
  }

  private mutating func event(_ offset: Int64) -> ModelRow {
    let user = pool.texts[below(pool.texts.count)]
    let steps = UInt32(below(wide ? Int(UInt32.max) : 2_000))
    var number = BatchEncoder.noNumber
    if below(20) != 0 || numbers[user] != nil {
      number = numbers[user] ?? UInt32(numbers.count)
      numbers[user] = number
    }
    let unit = [1_000_000_000, 1_000_000, 1_000, 1][wide ? below(4) : 0]
    return .event(
      user: user, number: number, offset: offset,
      timestampMs: 1_795_521_600_000 + Int64(below(wide ? 1 << 40 : 50)),
      day: Int32(below(wide ? 1_000_000 : 2)), time: Int64(below(100_000) - 10_000) * Int64(unit),
      steps: steps,
      source: [nil, "", "phone", "watch-\(below(wide ? 1_000 : 3))"][below(4)],
      payload: below(8) == 0 ? (0...below(90)).map { UInt8(truncatingIfNeeded: $0) } : nil)
  }

  private mutating func rejection(_ offset: Int64) -> ModelRow {
    .rejected(
      offset: offset, timestampMs: wide ? Int64(below(1 << 50)) - (1 << 49) : 7,
      reason: RejectReason.allCases[below(RejectReason.allCases.count)],
      payload: [nil, [], Array("{\"steps\":-1}".utf8)][below(3)])
  }
}

extension BatchEncoder {
  /// Writes a model's batch.
  func encode(
    _ batch: ModelBatch, identity: LogIdentity = walkers, syncedMark: Int64 = 0, checkBefore: UInt32 = 0
  ) -> (bytes: [UInt8], check: UInt32) {
    begin(first: batch.first)
    let clock = add(batch)
    var bytes: [UInt8] = []
    let header = BatchHeader(
      kind: .records, bodyBytes: 0, first: batch.first, next: batch.next, clockMs: clock, newestMs: clock,
      syncedMark: syncedMark, eventCount: 0, rejectedCount: 0, checkBefore: checkBefore, bodyCheck: 0)
    let check = finish(header, identity: identity) { bytes = Array($0) }
    return (bytes, check)
  }

  /// Adds a model's rows.
  ///
  /// - Returns: their greatest Kafka timestamp.
  @discardableResult
  func add(_ batch: ModelBatch) -> Int64 {
    var clock: Int64 = -1
    for row in batch.rows {
      switch row {
      case .event(
        let user, let number, let offset, let stamp, let day, let time, let steps, let source, let payload):
        clock = max(clock, stamp)
        var user = user
        var source = source
        user.withUTF8 { user in
          func put(_ source: UnsafeRawBufferPointer?) {
            let event = StepEvent(
              user: UserKey(UnsafeRawBufferPointer(user)), offset: offset, timeOfDay: time, steps: steps,
              day: Day(number: day), source: source, hasUnknownFields: payload != nil)
            (payload ?? [1, 2]).withUnsafeBytes {
              self.event(event, number: number, timestampMs: stamp, payload: $0)
            }
          }
          if source == nil { put(nil) } else { source?.withUTF8 { put(UnsafeRawBufferPointer($0)) } }
        }
      case .rejected(let offset, let stamp, let reason, let payload):
        clock = max(clock, stamp)
        (payload ?? []).withUnsafeBytes {
          rejected(
            offset: offset, timestampMs: stamp, reason: reason,
            payload: payload == nil
              ? UnsafeRawBufferPointer(start: nil, count: 0)
              : UnsafeRawBufferPointer(
                start: $0.baseAddress ?? UnsafeRawPointer(bitPattern: 1), count: $0.count))
        }
      }
    }
    return clock
  }
}

extension BatchDecoder {
  /// Reads a batch whole.
  func decode(_ bytes: [UInt8]) throws -> (header: BatchHeader, rows: [ModelRow]) {
    try bytes.withUnsafeBytes { raw in
      let (header, _) = try BatchHeader.decode(raw, identity: walkers, path: "x", atByte: 0)
      let body = UnsafeRawBufferPointer(rebasing: raw[SegmentFormat.batchHeaderBytes...])
      #expect(body.count == header.bodyBytes)
      let batch = try decode(header, body: body, path: "x", atByte: 0)
      var rows: [ModelRow] = []
      batch.forEachRow { rows.append(ModelRow($0)) }
      return (header, rows)
    }
  }
}

@Suite struct BatchCodecTests {
  @Test("batches of a segment are read as they were written, row by row", arguments: Seed.some(60))
  func roundTrip(seed: Seed) throws {
    var source = BatchSource(seed: seed)
    let encoder = BatchEncoder()
    let decoder = BatchDecoder()
    for segment in 0..<3 {
      if segment > 0 {
        encoder.forgetUsers()
        decoder.reset()
      }
      for _ in 0..<6 {
        let batch = source.batch(rowsMax: seed.value % 3 == 0 ? 2_000 : 40)
        let (bytes, _) = encoder.encode(batch)
        let (header, rows) = try decoder.decode(bytes)
        #expect(header.first == batch.first && header.next == batch.next)
        #expect(rows == batch.rows.map(\.read))
      }
    }
  }

  @Test("a batch from a watermark on has the rows from there", arguments: Seed.some(20))
  func fromWatermark(seed: Seed) throws {
    var source = BatchSource(seed: seed)
    let batch = source.batch(rowsMax: 60)
    let (bytes, _) = BatchEncoder().encode(batch)
    try bytes.withUnsafeBytes { raw in
      let (header, _) = try BatchHeader.decode(raw, identity: walkers, path: "x", atByte: 0)
      let body = UnsafeRawBufferPointer(rebasing: raw[SegmentFormat.batchHeaderBytes...])
      let decoder = BatchDecoder()
      defer { withExtendedLifetime(decoder) {} }
      let whole = try decoder.decode(header, body: body, path: "x", atByte: 0)
      for watermark in batch.rows.map(\.offset) + [batch.first, batch.next] {
        var rows: [ModelRow] = []
        whole.from(watermark).forEachRow { rows.append(ModelRow($0)) }
        #expect(rows == batch.rows.filter { $0.offset >= watermark }.map(\.read))
      }
    }
  }

  @Test("a user's id is written once a segment, and a number used without it is refused")
  func dictionary() throws {
    let row = ModelRow.event(
      user: "walker", number: 5, offset: 0, timestampMs: 1, day: 0, time: 0, steps: 1, source: nil,
      payload: nil)
    let encoder = BatchEncoder()
    let (one, _) = encoder.encode(ModelBatch(first: 0, next: 1, rows: [row]))
    let (two, _) = encoder.encode(ModelBatch(first: 0, next: 1, rows: [row]))
    #expect(one.count - two.count == 2 * Column.headBytes + "walker".utf8.count)
    let decoder = BatchDecoder()
    #expect(throws: LogError.damaged(path: "x", atByte: 0, .content(.user))) { _ = try decoder.decode(two) }
    #expect(try decoder.decode(one).rows == [row.read])
    #expect(try decoder.decode(two).rows == [row.read])
    #expect(throws: LogError.damaged(path: "x", atByte: 0, .content(.user))) { _ = try decoder.decode(one) }
  }

  @Test("a body cut or changed anywhere gives a batch or an error, never more", arguments: Seed.some(12))
  func total(seed: Seed) throws {
    var source = BatchSource(seed: seed)
    var random = seed.random
    let (bytes, _) = BatchEncoder().encode(source.batch(rowsMax: 30))
    let body = Array(bytes[SegmentFormat.batchHeaderBytes...])
    try bytes.withUnsafeBytes { raw in
      let (header, _) = try BatchHeader.decode(raw, identity: walkers, path: "x", atByte: 0)
      for place in body.indices {
        var changed = body
        changed[place] = UInt8.random(in: 0...255, using: &random)
        if place % 5 == 0 { changed.removeLast(1 + place % body.count) }
        changed.withUnsafeBytes { changed in
          do throws(LogError) {
            let batch = try BatchDecoder().decode(header, body: changed, path: "x", atByte: 0)
            #expect(batch.events.count == header.eventCount && batch.rejected.count == header.rejectedCount)
          } catch {
            switch error {
            case .damaged(_, _, .content), .newer(_, _, .rowKind, _, _), .newer(_, _, .reason, _, _): break
            default: Issue.record("byte \(place): \(error)")
            }
          }
        }
      }
    }
  }
}
