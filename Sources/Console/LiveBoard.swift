// The board redrawn in the terminal as it moves: leaders with their move since the last picture, and below them how
// fast events come in and how far behind the node is. A value: answers in, text out.

public import QueryProtocol
import StepModel

/// Draws pictures of a moving board.
public struct LiveBoard {
  private let colour: Bool
  private var ranks: [UserID: UInt64] = [:]
  private var counts: [(at: Int64, seen: UInt64)] = []

  /// How long a rate is averaged over, in milliseconds.
  static let rateWindow: Int64 = 5_000

  /// - Parameter colour: whether the terminal shows colours.
  public init(colour: Bool) { self.colour = colour }

  /// One picture, lines ended by newlines.
  ///
  /// - Parameters:
  ///   - top: the leaders.
  ///   - status: the node's numbers at about the same time.
  ///   - now: monotonic milliseconds, for rates.
  ///   - width: columns of the terminal; 0 if unknown.
  ///   - height: lines of the terminal; rows that do not fit are left out.
  /// - Returns: the text.
  public mutating func picture(
    top: RowsAnswer, status: StatusAnswer, now: Int64, width: Int, height: Int
  ) -> String {
    let rowsMax = max(1, height - 6)
    var table = Table(["#rank", "user", "#steps", "#move"])
    for row in top.rows.prefix(rowsMax) {
      table.rows.append(["\(row.rank)", row.user.text, "\(row.steps)", move(row)])
    }
    ranks = Dictionary(top.rows.map { ($0.user, $0.rank) }, uniquingKeysWith: { first, _ in first })
    var lines = [
      bold("\(top.context.board)  \(top.users) users  \(top.totalSteps) steps")
        + "  (\(top.context.state.name))", "",
    ]
    lines += table.aligned(width: width).split(separator: "\n").map(String.init)
    lines += ["", summary(status, now)]
    if !top.context.missing.isEmpty {
      lines.append("missing: partitions \(top.context.missing.map { "\($0)" }.joined(separator: ", "))")
    }
    return lines.map { (width > 0 && !colour ? Terminal.cut($0, to: width) : $0) + "\n" }.joined()
  }

  /// `12,345 events/s  counted 1,000  rejected 10  lag 0  age 3 ms`
  private mutating func summary(_ status: StatusAnswer, _ now: Int64) -> String {
    let counted = status.shards.reduce(0) { $0 + $1.counted }
    let rejected = status.shards.reduce(0) { $0 + $1.rejected.reduce(0, +) }
    let lag = status.shards.reduce(0) { $0 + max(0, $1.lag) }
    counts.append((now, counted + rejected))
    counts.removeAll { now - $0.at > LiveBoard.rateWindow }
    var rate = "- events/s"
    if let first = counts.first, now > first.at {
      rate = "\((counted + rejected - first.seen) * 1000 / UInt64(now - first.at)) events/s"
    }
    return "\(rate)  counted \(counted)  rejected \(rejected)  lag \(lag)  \(status.state.name)"
  }

  private func move(_ row: Row) -> String {
    guard !ranks.isEmpty else { return "" }
    guard let before = ranks[row.user] else { return "new" }
    if before == row.rank { return "" }
    return before > row.rank ? "+\(before - row.rank)" : "-\(row.rank - before)"
  }

  private func bold(_ text: String) -> String { colour ? "\u{1B}[1m\(text)\u{1B}[0m" : text }
}

/// What a terminal is told around pictures.
public enum Screen {
  /// Hides the cursor and clears.
  public static let begin = "\u{1B}[?25l\u{1B}[2J"
  /// Back to the top left; each line of the next picture clears what stood there.
  public static func frame(_ picture: String) -> String {
    "\u{1B}[H"
      + picture.split(separator: "\n", omittingEmptySubsequences: false).joined(separator: "\u{1B}[K\n")
      + "\u{1B}[J"
  }
  /// Shows the cursor again.
  public static let end = "\u{1B}[?25h"
}
