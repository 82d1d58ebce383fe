// The live picture tells rank, move and rate from two answers, and fits the terminal.

import Console
import QueryProtocol
import StepModel
import Testing

@Suite struct LiveBoardTests {
  private func top(_ users: [(String, UInt64)]) throws -> RowsAnswer {
    let rows = try users.enumerated().map { index, user in
      Row(
        position: UInt64(index), rank: UInt64(index + 1), tied: 1, steps: user.1,
        user: try #require(UserID(user.0)))
    }
    return RowsAnswer(context: AnswerContext(board: .all), users: 3, totalSteps: 60, rows: rows)
  }

  private func status(_ counted: UInt64) -> StatusAnswer {
    StatusAnswer(
      node: "n", cluster: "c", software: "1", state: .serving, uptimeMillis: 1,
      shards: [
        ShardStatus(partition: 0, state: .serving, watermark: 5, endOffset: 7, lag: 2, counted: counted)
      ])
  }

  @Test("the second picture shows who moved and how fast events come in")
  func moves() throws {
    var live = LiveBoard(colour: false)
    _ = live.picture(
      top: try top([("a", 9), ("b", 8), ("c", 7)]), status: status(100), now: 0, width: 80, height: 24)
    let picture = live.picture(
      top: try top([("c", 12), ("a", 9), ("d", 8)]), status: status(1_100), now: 500, width: 80, height: 24)
    #expect(
      picture == """
        all  3 users  60 steps  (live)

        RANK  USER  STEPS  MOVE
           1  c        12    +2
           2  a         9    -1
           3  d         8   new

        2000 events/s  counted 1100  rejected 0  lag 2  serving

        """)
  }

  @Test("rows that do not fit are left out", arguments: [7, 8, 24])
  func height(lines: Int) throws {
    var live = LiveBoard(colour: false)
    let picture = live.picture(
      top: try top([("a", 9), ("b", 8), ("c", 7)]), status: status(1), now: 0, width: 40, height: lines)
    #expect(picture.split(separator: "\n", omittingEmptySubsequences: false).count - 1 <= max(lines, 6))
  }
}
