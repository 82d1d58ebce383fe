// The vectors of Protocol/vectors/log: segments made here, in the words of Protocol/segment.md.

import Bytes
import Posix
import StepModel
import TestSupport

@testable import SegmentLog

/// A segment with what reading it must give.
struct LogVector: Sendable, CustomStringConvertible {
  let name: String
  let about: String
  let form: SegmentName.Form
  let bytes: [UInt8]

  var description: String { name }

  static let folder: String = {
    var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
    parts.removeLast(3)
    return parts.joined(separator: "/") + "/Protocol/vectors/log"
  }()

  /// The file's text.
  var text: String {
    let read = LogVector.read(self)
    var lines = ["# \(about)", "form = \"\(form == .plain ? "plain" : "sealed")\""]
    lines.append("rows = [\(read.rows.joined(separator: ", "))]")
    lines.append("ends = \"\(read.ends)\"")
    if let at = read.at { lines.append("at = \(at)") }
    let digits = Hex.text(bytes)
    var rest = digits[...]
    while !rest.isEmpty {
      lines.append(String(rest.prefix(64)))
      rest = rest.dropFirst(64)
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// What our reader says.
  static func read(_ vector: LogVector) -> (rows: [String], ends: String, at: Int?) {
    let folder = TemporaryFolder()
    let temporary = folder.path
    let name = SegmentName(base: 1_000, form: vector.form)
    var rows: [String] = []
    do {
      let file = try Files().open(temporary + "/" + name.text, .replace)
      try file.write(all: vector.bytes, at: 0)
      try LogFolder.read(name, in: temporary) { batch in
        switch batch.header.kind {
        case .records: batch.forEachRow { rows.append(told($0)) }
        case .position: rows.append("[\"position\", \(batch.header.first), \(batch.header.next)]")
        case .gap: rows.append("[\"gap\", \(batch.header.first), \(batch.header.next)]")
        }
      }
      return (rows, "whole", nil)
    } catch let error as LogError {
      switch error {
      case .damaged(_, let byte, _): return (rows, "damaged", byte)
      case .newer(_, let byte, _, _, _): return (rows, "newer", byte)
      case .foreign(_, let byte, _): return (rows, "foreign", byte)
      default: return (rows, "\(error)", nil)
      }
    } catch { return (rows, "\(error)", nil) }
  }

  private static func told(_ row: DecodedBatch.Row) -> String {
    func text(_ bytes: UnsafeRawBufferPointer?) -> String {
      bytes.map { "\"\(String(decoding: $0, as: UTF8.self))\"" } ?? "null"
    }
    func hex(_ bytes: UnsafeRawBufferPointer?) -> String { bytes.map { "\"\(Hex.text($0))\"" } ?? "null" }
    switch row {
    case .event(let event, let timestamp, let payload):
      let user = String(unsafeUninitializedCapacity: event.user.length) {
        event.user.write(to: UnsafeMutableRawPointer($0.baseAddress!))
      }
      return "[\"event\", \(event.offset), \(timestamp), \"\(user)\", \(event.steps), \(event.day.number), "
        + "\(event.timeOfDay), \(text(event.source)), \(hex(payload))]"
    case .rejected(let record):
      return "[\"rejected\", \(record.offset), \(record.timestampMs), \"\(record.reason.name)\", "
        + "\(hex(record.payload))]"
    }
  }
}

/// Makes segments for vectors.
private struct SegmentMaker {
  let encoder = BatchEncoder()
  var bytes: [UInt8]
  var check: UInt32
  var next: Int64 = 1_000

  init() {
    (bytes, check) = SegmentHeader(
      identity: walkers, base: 1_000, origin: 500, createdMs: 1_795_521_600_000, syncedMark: 1_000,
      checkBefore: 0xDEAD_BEEF
    ).encoded()
  }

  mutating func add(_ rows: [ModelRow], next end: Int64) {
    let made = encoder.encode(
      ModelBatch(first: next, next: end, rows: rows), syncedMark: next > 1_000 ? 1_000 : 0, checkBefore: check
    )
    bytes += made.bytes
    check = made.check
    next = end
  }

  mutating func add(_ kind: BatchKind, next end: Int64) {
    var room = [UInt8](repeating: 0, count: SegmentFormat.batchHeaderBytes)
    let header = BatchHeader(
      kind: kind, bodyBytes: 0, first: next, next: end, clockMs: 1_795_521_600_000,
      newestMs: 1_795_521_600_000, syncedMark: 1_000, eventCount: 0, rejectedCount: 0, checkBefore: check,
      bodyCheck: 0)
    check = room.withUnsafeMutableBytes { header.write(to: $0.baseAddress!, identity: walkers) }
    bytes += room
    next = end
  }

  /// Changes a byte of the batch header at a place and makes its check fit.
  mutating func patch(_ offset: Int, to value: UInt8, at place: Int) {
    bytes[place + offset] = value
    fix(place, 92)
  }

  mutating func fix(_ place: Int, _ length: Int) {
    let check = bytes[place..<place + length].withUnsafeBytes { Checksum.crc32c($0) }
    for byte in 0..<4 { bytes[place + length + byte] = UInt8(truncatingIfNeeded: check >> UInt32(8 * byte)) }
  }
}

extension LogVector {
  private static func event(
    _ offset: Int64, _ user: String, _ number: UInt32?, steps: UInt32 = 100, day: Int32 = 20_781,
    time: Int64 = 43_200_000_000_000, source: String? = nil, payload: String? = nil
  ) -> ModelRow {
    .event(
      user: user, number: number ?? BatchEncoder.noNumber, offset: offset,
      timestampMs: 1_795_521_600_000 + offset % 7, day: day, time: time, steps: steps, source: source,
      payload: payload.map { Array($0.utf8) })
  }

  private static func rejected(_ offset: Int64, _ reason: RejectReason, _ payload: String?) -> ModelRow {
    .rejected(
      offset: offset, timestampMs: 1_795_521_600_500, reason: reason, payload: payload.map { Array($0.utf8) })
  }

  private static let uuid = "550e8400-e29b-41d4-a716-446655440000"

  private static func usual() -> (maker: SegmentMaker, second: Int) {
    var maker = SegmentMaker()
    maker.add(
      [
        event(1_000, uuid, 0, source: "phone"),
        event(1_001, "walker 7 é", 1, steps: 20_000, source: ""),
        rejected(1_002, .malformed, "{\"uuid\":"),
        event(1_003, uuid.uppercased(), 2, time: -3_600_000_000_000, source: "17"),
        rejected(1_005, .malformed, nil),
        event(1_006, "nobody yet", nil, steps: 0, day: 20_780, source: "phone"),
        rejected(1_007, .late, ""),
        event(1_009, "walker 7 é", 1, payload: "{\"uuid\":\"walker 7 é\",\"x\":1}"),
      ], next: 1_012)
    let second = maker.bytes.count
    maker.add([event(1_012, uuid, 0, time: 43_200_123_456_789), event(1_013, "4", 700)], next: 1_014)
    return (maker, second)
  }

  private static func sealed(_ content: [UInt8]) -> [UInt8] {
    content.withUnsafeBytes { content in
      var frame = LZ4FrameWriter(contentBytes: content.count)
      return Array(frame.piece(content)) + Array(frame.end())
    }
  }

  /// All of them.
  static let all: [LogVector] = good() + broken() + refused()

  private static func good() -> [LogVector] {
    let usual = usual().maker.bytes
    var kinds = SegmentMaker()
    kinds.add(.position, next: 1_010)
    kinds.add([event(1_010, "4", 3)], next: 1_011)
    kinds.add(.gap, next: 2_000)
    kinds.add([rejected(2_000, .overflow, "{}")], next: 2_001)
    var wide = SegmentMaker()
    wide.add(
      (0..<20).map {
        event(
          1_000 + $0 * $0 * 1_000_003, "4", 0, steps: $0 == 7 ? .max : 0,
          time: $0 == 3 ? .min : .max / ($0 + 1))
      }, next: .max)
    return [
      LogVector(
        name: "records", about: "Two batches: users of all forms, sources, a kept payload, rejected records",
        form: .plain, bytes: usual),
      LogVector(
        name: "padded", about: "A segment in a file reserved in advance: zeros follow", form: .plain,
        bytes: usual + [UInt8](repeating: 0, count: 200)),
      LogVector(name: "sealed", about: "The same, sealed", form: .sealed, bytes: sealed(usual)),
      LogVector(
        name: "kinds", about: "A position, a gap, batches of one row", form: .plain, bytes: kinds.bytes),
      LogVector(
        name: "wide", about: "Columns of many widths, up to 64 bits", form: .plain, bytes: wide.bytes),
      LogVector(name: "empty", about: "A header alone", form: .plain, bytes: SegmentMaker().bytes),
    ]
  }

  private static func broken() -> [LogVector] {
    let (maker, second) = usual()
    func changed(_ place: Int) -> [UInt8] {
      var bytes = maker.bytes
      bytes[place] ^= 1
      return bytes
    }
    let first = SegmentFormat.segmentHeaderBytes
    return [
      LogVector(
        name: "broken-tail", about: "The last batch is not whole", form: .plain,
        bytes: Array(maker.bytes.dropLast(9))),
      LogVector(
        name: "broken-body", about: "A changed bit in a body", form: .plain, bytes: changed(first + 120)),
      LogVector(
        name: "broken-header", about: "A changed bit in a batch header", form: .plain,
        bytes: changed(second + 40)
      ),
      LogVector(
        name: "broken-chain", about: "The first batch is missing", form: .plain,
        bytes: Array(maker.bytes[..<first] + maker.bytes[second...])),
      LogVector(
        name: "broken-segment", about: "A changed bit in the segment's header", form: .plain,
        bytes: changed(41)),
      LogVector(
        name: "broken-sealed", about: "A frame without its end", form: .sealed,
        bytes: Array(sealed(maker.bytes).dropLast(5))),
    ]
  }

  private static func refused() -> [LogVector] {
    let (maker, second) = usual()
    func patched(_ offset: Int, _ value: UInt8) -> [UInt8] {
      var maker = maker
      maker.patch(offset, to: value, at: second)
      return maker.bytes
    }
    func segment(_ offset: Int, _ value: UInt8) -> [UInt8] {
      var maker = maker
      maker.bytes[offset] = value
      maker.fix(0, 508)
      return maker.bytes
    }
    // The row kinds of the second batch: behind one user, no source, no literal.
    var rowKind = maker
    let body = second + SegmentFormat.batchHeaderBytes
    let kinds = body + 4 + 9 + 9 + 1 + 4 + 4
    rowKind.bytes[kinds + 1] = 5
    let bodyBytes = rowKind.bytes.count - body
    let check = rowKind.bytes[body...].withUnsafeBytes { Checksum.crc32c($0) }
    precondition(bodyBytes > 40, "the second batch is not what this counts on")
    for byte in 0..<4 {
      rowKind.bytes[second + 84 + byte] = UInt8(truncatingIfNeeded: check >> UInt32(8 * byte))
    }
    rowKind.fix(second, 92)
    return [
      LogVector(name: "newer-segment", about: "A segment of version 2", form: .plain, bytes: segment(8, 2)),
      LogVector(name: "newer-batch", about: "A batch of version 2", form: .plain, bytes: patched(4, 2)),
      LogVector(name: "newer-kind", about: "A batch of kind 7", form: .plain, bytes: patched(6, 7)),
      LogVector(name: "newer-flags", about: "A batch with a flag", form: .plain, bytes: patched(7, 1)),
      LogVector(name: "newer-row", about: "A row of kind 5", form: .plain, bytes: rowKind.bytes),
      LogVector(
        name: "foreign-topic", about: "A batch of another topic id, its check fits", form: .plain,
        bytes: patched(20, 1)),
      LogVector(
        name: "foreign-partition", about: "A batch of another partition, its check fits", form: .plain,
        bytes: patched(12, 9)),
    ]
  }
}
