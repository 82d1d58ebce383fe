// Answers, written straight into the output buffer. Every function appends one whole frame.
//
// If the buffer's limit cuts a frame short, the frame is taken back and an ERROR `internal` stands in its place;
// if even that does not fit, nothing is appended and the writer stays marked as overflowed.
//
//   text8   u8 length, bytes        text16   u16 length, bytes        board   u8 kind, i32 number
//   marks   u16 n, n × (u32 partition, u64 watermark, u64 age ms, u8 flags); u16 m, m × u32 missing partition
//   context board, u8 state, marks

public import Bytes
public import StepModel

/// Encodes answers.
public enum ResponseWriter {
  static let markBytes = 21

  // MARK: Whole answers that servers write often

  /// `context, u8 on board, u64 rank, u64 tied, u64 steps, u64 users, u64 above, u8 next (bit 0 above, bit 1 below),
  /// u64 next above, u64 next below (0 where there is none)`
  ///
  /// - Complexity: O(shards), no allocation once the buffer has grown.
  public static func rank(
    id: UInt32, _ context: borrowing AnswerContext, _ answer: RankAnswer, into out: inout ByteWriter
  ) {
    let start = begin(Kind.rank.answer, id, &out)
    write(context, into: &out)
    write(answer, into: &out)
    end(start, id, &out)
  }

  /// TOP, AROUND or COMPARE again, from what `RowsWriter` wrote after the context.
  ///
  /// - Parameters:
  ///   - kind: of the answer.
  ///   - id: the request's.
  ///   - context: board, state and marks of now.
  ///   - tail: bytes from `RowsWriter.tailAt` to the end of that frame.
  ///   - out: where the frame is appended.
  public static func rows(
    _ kind: Kind, id: UInt32, _ context: borrowing AnswerContext, tail: UnsafeRawBufferPointer,
    into out: inout ByteWriter
  ) {
    let start = begin(kind.answer, id, &out)
    write(context, into: &out)
    out.bytes(tail)
    end(start, id, &out)
  }

  /// Nothing.
  public static func ping(id: UInt32, into out: inout ByteWriter) {
    let start = begin(Kind.ping.answer, id, &out)
    end(start, id, &out)
  }

  /// `u16 code, u8 flags (bit 0 retryable), text16`
  ///
  /// - Parameters:
  ///   - id: the request's, or 0 if it answers none.
  ///   - code: from the table; whether it may be retried follows from it.
  ///   - text: a sentence for people, at most 512 bytes of it travel.
  ///   - out: where the frame is appended.
  public static func error(id: UInt32, code: ErrorCode, text: String, into out: inout ByteWriter) {
    error(
      id: id, ErrorAnswer(code: code, retryable: code.row?.retryable ?? false, text: text), into: &out)
  }

  /// The refusal as an ERROR frame.
  public static func refusal(id: UInt32, _ refusal: Refusal, into out: inout ByteWriter) {
    let start = begin(Kind.error, id, &out)
    out.integer(refusal.code.rawValue)
    out.integer(UInt8(refusal.code.row?.retryable == true ? 1 : 0))
    let length = refusal.text.utf8CodeUnitCount
    out.integer(UInt16(truncatingIfNeeded: length))
    out.bytes(UnsafeRawBufferPointer(start: refusal.text.utf8Start, count: length))
    finish(start, &out)
  }

  static func error(id: UInt32, _ answer: ErrorAnswer, into out: inout ByteWriter) {
    let start = begin(Kind.error, id, &out)
    out.integer(answer.code.rawValue)
    out.integer(UInt8(answer.retryable ? 1 : 0))
    out.text16(shortened(answer.text))
    finish(start, &out)
  }

  /// A sentence of at most 512 bytes; what is cut is never half a character.
  static func shortened(_ text: String) -> String {
    guard text.utf8.count > 512 else { return text }
    var short = ""
    for scalar in text.unicodeScalars {
      if short.utf8.count + scalar.utf8.count > 512 { break }
      short.unicodeScalars.append(scalar)
    }
    return short
  }

  // MARK: Frames

  /// Starts a frame; its length is patched by `end`.
  ///
  /// - Returns: where it starts.
  static func begin(_ kind: UInt8, _ id: UInt32, _ out: inout ByteWriter) -> Int {
    let start = out.count
    if let place = out.extend(by: Limits.lengthBytes + Limits.headerBytes) {
      place.storeBytes(of: 0, as: UInt32.self)
      place.storeBytes(of: UInt32(kind).littleEndian, toByteOffset: 4, as: UInt32.self)
      place.storeBytes(of: id.littleEndian, toByteOffset: 8, as: UInt32.self)
    }
    return start
  }

  /// Ends a frame begun at `start`, or takes it back if it does not fit.
  static func end(_ start: Int, _ id: UInt32, _ out: inout ByteWriter) {
    if out.overflowed || out.count - start > Limits.lengthBytes + Limits.frameOutBytesMax {
      out.truncate(to: start)
      refusal(id: id, Refusal(.serverError, "the answer is longer than a frame may be"), into: &out)
      return
    }
    out.patch(UInt32(truncatingIfNeeded: out.count &- start &- Limits.lengthBytes), at: start)
  }

  private static func finish(_ start: Int, _ out: inout ByteWriter) {
    out.patch(UInt32(truncatingIfNeeded: out.count &- start &- Limits.lengthBytes), at: start)
    guard out.overflowed else { return }
    out.truncate(to: start)
    // An append of more than the limit marks the writer again: the caller sees that a frame was dropped.
    _ = out.extend(by: out.limit + 1)
  }

  // MARK: Pieces

  static func write(_ context: borrowing AnswerContext, into out: inout ByteWriter) {
    out.board(.named(context.board))
    out.integer(context.state.rawValue)
    marks(context.shards, context.missing, into: &out)
  }

  static func marks(_ shards: [ShardMark], _ missing: [UInt32], into out: inout ByteWriter) {
    let kept = min(shards.count, Limits.shardsMax)
    out.integer(UInt16(truncatingIfNeeded: kept))
    if var place = out.extend(by: kept &* markBytes) {
      for index in 0..<kept {
        let mark = shards[index]
        place.storeBytes(of: mark.partition.littleEndian, as: UInt32.self)
        place.storeBytes(of: mark.watermark.littleEndian, toByteOffset: 4, as: UInt64.self)
        place.storeBytes(of: mark.ageMillis.littleEndian, toByteOffset: 12, as: UInt64.self)
        place.storeBytes(of: mark.flags.rawValue, toByteOffset: 20, as: UInt8.self)
        place += markBytes
      }
    }
    let lacking = min(missing.count, Limits.shardsMax)
    out.integer(UInt16(truncatingIfNeeded: lacking))
    for index in 0..<lacking { out.integer(missing[index]) }
  }

  private static func write(_ answer: RankAnswer, into out: inout ByteWriter) {
    guard let place = out.extend(by: 58) else { return }
    place.storeBytes(of: answer.onBoard ? 1 : 0, as: UInt8.self)
    place.storeBytes(of: answer.rank.littleEndian, toByteOffset: 1, as: UInt64.self)
    place.storeBytes(of: answer.tied.littleEndian, toByteOffset: 9, as: UInt64.self)
    place.storeBytes(of: answer.steps.littleEndian, toByteOffset: 17, as: UInt64.self)
    place.storeBytes(of: answer.users.littleEndian, toByteOffset: 25, as: UInt64.self)
    place.storeBytes(of: answer.above.littleEndian, toByteOffset: 33, as: UInt64.self)
    let next: UInt8 = (answer.nextAboveSteps == nil ? 0 : 1) | (answer.nextBelowSteps == nil ? 0 : 2)
    place.storeBytes(of: next, toByteOffset: 41, as: UInt8.self)
    place.storeBytes(of: (answer.nextAboveSteps ?? 0).littleEndian, toByteOffset: 42, as: UInt64.self)
    place.storeBytes(of: (answer.nextBelowSteps ?? 0).littleEndian, toByteOffset: 50, as: UInt64.self)
  }
}

/// Writes the rows of TOP, AROUND or COMPARE one by one.
///
///     var rows = RowsWriter(.top, id: id, context, users: n, totalSteps: s, into: &out)
///     rows.row(position: 0, rank: 1, tied: 1, steps: 12_000, user: key, into: &out)
///     rows.end(into: &out)
///
/// `context, u64 users, u64 total steps, u32 n, n × (u64 position, u64 rank, u64 tied, u64 steps, text8 user),
/// u16 m, m × text8 absent user`
public struct RowsWriter {
  private let id: UInt32
  private let start: Int
  private let rowsCountAt: Int
  private var rowCount: UInt32 = 0
  private var absentCountAt = 0
  /// Where what follows the context begins in the writer: the part of the frame that is the same as long as the board
  /// does not move. `ResponseWriter.rows(_:id:_:tail:into:)` writes it again under another context.
  public let tailAt: Int
  private var absentCount: UInt16 = 0

  /// Begins the frame; nothing else may be written to `out` until `end`.
  ///
  /// - Parameters:
  ///   - kind: `.top`, `.around` or `.compare`.
  ///   - id: the request's.
  ///   - context: board, state and marks.
  ///   - users: users on the board.
  ///   - totalSteps: steps of all of them.
  ///   - out: where the frame is appended.
  public init(
    _ kind: Kind, id: UInt32, _ context: borrowing AnswerContext, users: UInt64, totalSteps: UInt64,
    into out: inout ByteWriter
  ) {
    precondition(kind == .top || kind == .around || kind == .compare, "\(kind) has no rows")
    self.id = id
    start = ResponseWriter.begin(kind.answer, id, &out)
    ResponseWriter.write(context, into: &out)
    tailAt = out.count
    out.integer(users)
    out.integer(totalSteps)
    rowsCountAt = out.count
    out.integer(UInt32(0))
  }

  /// Appends a row; at most `Limits.rowsMax` of them, in the board's order, before any absent user.
  public mutating func row(
    position: UInt64, rank: UInt64, tied: UInt64, steps: UInt64, user: UserKey, into out: inout ByteWriter
  ) {
    guard let place = header(position, rank, tied, steps, user.length, &out) else { return }
    user.writeText(to: place)
  }

  /// Appends a row of a user known by text.
  public mutating func row(_ row: Row, into out: inout ByteWriter) {
    row.user.withKey { key in
      self.row(
        position: row.position, rank: row.rank, tied: row.tied, steps: row.steps, user: key, into: &out)
    }
  }

  /// Names a user who was asked for and is not on the board; after all rows.
  ///
  /// - Parameters:
  ///   - user: a valid id's bytes.
  ///   - out: the writer of `init`.
  public mutating func absent(_ user: UnsafeRawBufferPointer, into out: inout ByteWriter) {
    beginAbsent(&out)
    absentCount += 1
    out.bytes8(user)
  }

  /// Ends the frame.
  public mutating func end(into out: inout ByteWriter) {
    beginAbsent(&out)
    out.patch(rowCount, at: rowsCountAt)
    out.patch(absentCount, at: absentCountAt)
    ResponseWriter.end(start, id, &out)
  }

  private mutating func header(
    _ position: UInt64, _ rank: UInt64, _ tied: UInt64, _ steps: UInt64, _ length: Int,
    _ out: inout ByteWriter
  ) -> UnsafeMutableRawPointer? {
    precondition(absentCountAt == 0, "rows come before absent users")
    guard let place = out.extend(by: 33 &+ length) else { return nil }
    rowCount &+= 1
    place.storeBytes(of: position.littleEndian, as: UInt64.self)
    place.storeBytes(of: rank.littleEndian, toByteOffset: 8, as: UInt64.self)
    place.storeBytes(of: tied.littleEndian, toByteOffset: 16, as: UInt64.self)
    place.storeBytes(of: steps.littleEndian, toByteOffset: 24, as: UInt64.self)
    place.storeBytes(of: UInt8(truncatingIfNeeded: length), toByteOffset: 32, as: UInt8.self)
    return place + 33
  }

  private mutating func beginAbsent(_ out: inout ByteWriter) {
    guard absentCountAt == 0 else { return }
    absentCountAt = out.count
    out.integer(UInt16(0))
  }
}
