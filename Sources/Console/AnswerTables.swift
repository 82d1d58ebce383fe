// The answers as tables for people.

public import QueryProtocol
public import StepModel

extension Table {
  public init(rows answer: RowsAnswer) {
    self.init(["#rank", "user", "#steps", "#tied", "#position"])
    rows = answer.rows.map { ["\($0.rank)", $0.user.text, "\($0.steps)", "\($0.tied)", "\($0.position)"] }
  }

  public init(rank user: UserID, _ context: AnswerContext, _ answer: RankAnswer) {
    self.init([
      "user", "board", "#rank", "#tied", "#steps", "#users", "#to next", "#ahead of next", "#beaten %",
      "#top %",
    ])
    guard answer.onBoard, let standing = Standing(above: answer.above, tied: answer.tied, users: answer.users)
    else {
      rows = [[user.text, context.board.description, "-", "-", "0", "\(answer.users)", "-", "-", "-", "-"]]
      return
    }
    rows = [
      [
        user.text, context.board.description, "\(answer.rank)", "\(answer.tied)", "\(answer.steps)",
        "\(answer.users)",
        answer.nextAboveSteps.map { "\($0 - answer.steps)" } ?? "-",
        answer.nextBelowSteps.map { "\(answer.steps - $0)" } ?? "-", Table.percent(standing.beaten),
        standing.topPercentText,
      ]
    ]
  }

  public init(summary answer: SummaryAnswer) {
    self.init(["board", "#users", "#total steps"] + answer.quantiles.map { "#\($0.q)%" })
    rows = [
      [answer.context.board.description, "\(answer.users)", "\(answer.totalSteps)"]
        + answer.quantiles.map { "\($0.steps)" }
    ]
  }

  public init(boards answer: BoardsAnswer) {
    self.init(["board", "kind", "state", "#users", "#total steps", "starts", "ends"])
    rows = answer.boards.map {
      [
        $0.board.description, $0.board.kind, $0.state.name, "\($0.users)", "\($0.totalSteps)",
        $0.startsMillis.map(Instant.text) ?? "-", $0.endsMillis.map(Instant.text) ?? "-",
      ]
    }
  }

  public init(status answer: StatusAnswer) {
    self.init([
      "#partition", "state", "#watermark", "#end", "#lag", "#counted", "#rejected", "#users",
      "#unsynced", "#snapshot", "reason",
    ])
    rows = answer.shards.map { shard in
      let behind = shard.durable < 0 ? -1 : max(0, shard.watermark - shard.durable)
      let numbers = [shard.watermark, shard.endOffset, shard.lag].map(Table.known)
      let counts = [shard.counted, shard.rejected.reduce(0, +), shard.users].map { "\($0)" }
      return ["\(shard.partition)", Table.state(shard)] + numbers + counts
        + [Table.known(behind), Table.known(shard.snapshot), shard.reason]
    }
  }

  /// A number, or `-` for one that is not known.
  private static func known(_ number: Int64) -> String { number < 0 ? "-" : "\(number)" }

  /// The state's word, and how much of a restore is done, rounded down.
  private static func state(_ shard: ShardStatus) -> String {
    guard shard.restoreBytes > 0 else { return shard.state.name }
    let done = Double(min(shard.restoredBytes, shard.restoreBytes)) / Double(shard.restoreBytes)
    return "\(shard.state.name) \(Int(done * 100)) %"
  }

  private static func percent(_ value: Double) -> String {
    let hundredths = Int(value * 100)
    return hundredths % 100 == 0
      ? "\(hundredths / 100)" : "\(hundredths / 100).\(hundredths / 10 % 10)\(hundredths % 10)"
  }
}

/// Instants as text: `2026-11-24T00:00:00Z`.
public enum Instant {
  /// - Parameter milliseconds: since 1970 UTC.
  /// - Returns: date and time, to the second.
  public static func text(_ milliseconds: Int64) -> String {
    let seconds = milliseconds >= 0 ? milliseconds / 1000 : (milliseconds - 999) / 1000
    let dayNumber = seconds >= 0 ? seconds / 86_400 : (seconds - 86_399) / 86_400
    let left = Int(seconds - dayNumber * 86_400)
    let clock = [left / 3600, left / 60 % 60, left % 60].map { ($0 < 10 ? "0" : "") + String($0) }
    return "\(Day(number: Int32(clamping: dayNumber)))T\(clock.joined(separator: ":"))Z"
  }

  /// The time of an event, with as many digits behind the second as it has.
  ///
  /// - Parameters:
  ///   - day: a date.
  ///   - nanoseconds: after its midnight UTC; may be negative or more than a day.
  /// - Returns: `2026-11-24T09:41:07.25Z`.
  public static func text(day: Day, nanoseconds: Int64) -> String {
    let (seconds, part) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
    let whole = part < 0 ? seconds - 1 : seconds
    var text = text((Int64(day.number) * 86_400 + whole) * 1_000)
    let fraction = part < 0 ? part + 1_000_000_000 : part
    guard fraction > 0 else { return text }
    var digits = String(fraction)
    digits = String(repeating: "0", count: 9 - digits.count) + digits
    while digits.last == "0" { digits.removeLast() }
    text.removeLast()
    return text + ".\(digits)Z"
  }
}
