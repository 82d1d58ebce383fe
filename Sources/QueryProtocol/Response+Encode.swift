// Answers from their owned values: the rarer ones of a server, and all of them for tests and vectors.

public import Bytes
internal import StepModel

extension ResponseWriter {
  /// `u8 version, u8 server min, u8 server max, text8 node, text8 cluster, text8 software, u32 frame in,
  /// u32 frame out, u32 in flight, u32 rows, u32 ids, u8 roles, u8 n, n × text8 unknown option`
  public static func hello(id: UInt32, _ answer: HelloAnswer, into out: inout ByteWriter) {
    let start = begin(Kind.hello.answer, id, &out)
    out.integer(answer.version)
    out.integer(answer.serverVersionMin)
    out.integer(answer.serverVersionMax)
    out.text8(answer.node)
    out.text8(answer.cluster)
    out.text8(answer.software)
    out.integer(answer.frameInBytesMax)
    out.integer(answer.frameOutBytesMax)
    out.integer(answer.inFlightMax)
    out.integer(answer.rowsMax)
    out.integer(answer.idsMax)
    out.integer(answer.roles.rawValue)
    let unknown = answer.unknownOptions.prefix(Limits.optionsMax)
    out.integer(UInt8(unknown.count))
    for key in unknown { out.text8(key) }
    end(start, id, &out)
  }

  /// Rows from an owned answer; see `RowsWriter` for the layout.
  ///
  /// - Parameters:
  ///   - kind: `.top`, `.around` or `.compare`.
  ///   - id: the request's.
  ///   - answer: at most `Limits.rowsMax` rows.
  ///   - out: where the frame is appended.
  public static func rows(_ kind: Kind, id: UInt32, _ answer: RowsAnswer, into out: inout ByteWriter) {
    var rows = RowsWriter(
      kind, id: id, answer.context, users: answer.users, totalSteps: answer.totalSteps, into: &out)
    for row in answer.rows { rows.row(row, into: &out) }
    for user in answer.absent {
      var text = user.text
      text.withUTF8 { rows.absent(UnsafeRawBufferPointer($0), into: &out) }
    }
    rows.end(into: &out)
  }

  /// `context, u64 users, u64 total steps, u8 n, n × (u8 q, u64 steps)`
  public static func summary(id: UInt32, _ answer: SummaryAnswer, into out: inout ByteWriter) {
    let start = begin(Kind.summary.answer, id, &out)
    write(answer.context, into: &out)
    out.integer(answer.users)
    out.integer(answer.totalSteps)
    let quantiles = answer.quantiles.prefix(Limits.quantilesMax)
    out.integer(UInt8(quantiles.count))
    for quantile in quantiles {
      out.integer(quantile.q)
      out.integer(quantile.steps)
    }
    end(start, id, &out)
  }

  /// `marks, u32 n, n × (board, u8 state, u64 users, u64 total steps, i64 starts ms, i64 ends ms)`; all time starts at
  /// the least and ends at the greatest i64.
  public static func boards(id: UInt32, _ answer: BoardsAnswer, into out: inout ByteWriter) {
    let start = begin(Kind.boards.answer, id, &out)
    marks(answer.shards, answer.missing, into: &out)
    let boards = answer.boards.prefix(Limits.boardsMax)
    out.integer(UInt32(boards.count))
    for entry in boards {
      out.board(.named(entry.board))
      out.integer(entry.state.rawValue)
      out.integer(entry.users)
      out.integer(entry.totalSteps)
      out.integer(entry.startsMillis ?? Int64.min)
      out.integer(entry.endsMillis ?? Int64.max)
    }
    end(start, id, &out)
  }

  /// `text8 node, text8 cluster, text8 software, u8 state, u64 uptime ms,
  /// u16 n, n × (u16 bytes that follow in this shard, u32 partition, u8 state, text8 reason, i64 watermark,
  /// i64 end offset, i64 lag, u64 counted, u8 r, r × u64 rejected, u64 superseded, i64 shard clock ms, u64 users,
  /// i64 durable, i64 snapshot, i64 sealed, u64 restored bytes, u64 bytes to restore),
  /// u16 m, m × (text8 name, u64 value), text16 problem`
  public static func status(id: UInt32, _ answer: StatusAnswer, into out: inout ByteWriter) {
    let start = begin(Kind.status.answer, id, &out)
    out.text8(answer.node)
    out.text8(answer.cluster)
    out.text8(answer.software)
    out.integer(answer.state.rawValue)
    out.integer(answer.uptimeMillis)
    let shards = answer.shards.prefix(Limits.shardsMax)
    out.integer(UInt16(shards.count))
    for shard in shards { write(shard, into: &out) }
    let counters = answer.counters.prefix(Limits.countersMax)
    out.integer(UInt16(counters.count))
    for counter in counters {
      out.text8(counter.name)
      out.integer(counter.value)
    }
    out.text16(shortened(answer.problem))
    end(start, id, &out)
  }

  private static func write(_ shard: ShardStatus, into out: inout ByteWriter) {
    let lengthAt = out.count
    out.integer(UInt16(0))
    out.integer(shard.partition)
    out.integer(shard.state.rawValue)
    out.text8(shard.reason)
    out.integer(shard.watermark)
    out.integer(shard.endOffset)
    out.integer(shard.lag)
    out.integer(shard.counted)
    let rejected = shard.rejected.prefix(255)
    out.integer(UInt8(rejected.count))
    for count in rejected { out.integer(count) }
    out.integer(shard.superseded)
    out.integer(shard.shardClockMillis)
    out.integer(shard.users)
    out.integer(shard.durable)
    out.integer(shard.snapshot)
    out.integer(shard.sealed)
    out.integer(shard.restoredBytes)
    out.integer(shard.restoreBytes)
    out.patch(UInt16(truncatingIfNeeded: out.count - lengthAt - 2), at: lengthAt)
  }

  /// `u64 next, u16 n, n × (u64 position, text8 topic, u32 partition, i64 offset, i64 timestamp ms, u8 reason,
  /// u32 bytes or 2^32-1 for a null value, u32 k, k bytes)`
  public static func deadLetters(id: UInt32, _ answer: DeadLettersAnswer, into out: inout ByteWriter) {
    let start = begin(Kind.deadLetters.answer, id, &out)
    out.integer(answer.next)
    let letters = answer.letters.prefix(Limits.deadLettersMax)
    out.integer(UInt16(letters.count))
    for letter in letters {
      out.integer(letter.position)
      out.text8(letter.topic)
      out.integer(letter.partition)
      out.integer(letter.offset)
      out.integer(letter.timestamp)
      out.integer(letter.reason.rawValue)
      out.integer(letter.bytes ?? UInt32.max)
      out.integer(UInt32(clamping: letter.part.count))
      out.bytes(letter.part)
    }
    end(start, id, &out)
  }

  /// `text16`
  public static func admin(id: UInt32, _ answer: AdminAnswer, into out: inout ByteWriter) {
    let start = begin(Kind.admin.answer, id, &out)
    out.text16(shortened(answer.text))
    end(start, id, &out)
  }

  /// Any answer.
  public static func write(_ response: Response, id: UInt32, into out: inout ByteWriter) {
    switch response {
    case .hello(let answer): hello(id: id, answer, into: &out)
    case .ping: ping(id: id, into: &out)
    case .top(let answer): rows(.top, id: id, answer, into: &out)
    case .rank(let context, let answer): rank(id: id, context, answer, into: &out)
    case .around(let answer): rows(.around, id: id, answer, into: &out)
    case .compare(let answer): rows(.compare, id: id, answer, into: &out)
    case .summary(let answer): summary(id: id, answer, into: &out)
    case .boards(let answer): boards(id: id, answer, into: &out)
    case .status(let answer): status(id: id, answer, into: &out)
    case .deadLetters(let answer): deadLetters(id: id, answer, into: &out)
    case .admin(let answer): admin(id: id, answer, into: &out)
    case .error(let answer): error(id: id, answer, into: &out)
    }
  }
}
