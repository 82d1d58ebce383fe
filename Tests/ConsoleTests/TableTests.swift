// Tables stay straight and harmless whatever the user ids hold.

import Console
import QueryProtocol
import StepModel
import Testing

@Suite struct TableTests {
  private var table: Table {
    var table = Table(["#rank", "user", "#steps"])
    table.rows = [["1", "anna", "12000"], ["2", "b\u{1B}[2Jé", "7"], ["3", "日本\u{202E}x", "5"]]
    return table
  }

  @Test("numbers stand right, text left, and wide characters count two columns")
  func aligned() {
    #expect(
      table.aligned(width: 0) == """
        RANK  USER           STEPS
           1  anna           12000
           2  b\\u{1b}[2Jé        7
           3  日本\\u{202e}x      5

        """)
  }

  @Test("a narrow terminal cuts the text column, never the numbers", arguments: [20, 22, 24])
  func narrow(width: Int) {
    let lines = table.aligned(width: width).split(separator: "\n")
    #expect(lines.allSatisfy { Terminal.width(String($0)) <= max(width, 21) })
    #expect(lines[1].hasSuffix("12000"))
  }

  @Test("CSV quotes what needs it and keeps the rest exact; TSV escapes tab, newline and backslash")
  func separated() {
    var table = Table(["user", "#steps"])
    table.rows = [["a,\"b\"", "1"], ["c\u{1B}\\\t", "2"]]
    #expect(table.separated(by: ",") == "user,steps\n\"a,\"\"b\"\"\",1\nc\u{1B}\\\t,2\n")
    #expect(table.separated(by: "\t") == "user\tsteps\na,\"b\"\t1\nc\u{1B}\\\\\\t\t2\n")
  }

  @Test("the table of shards tells what is not durable yet, the snapshot, and how far a restore is")
  func status() {
    let shards = [
      ShardStatus(
        partition: 0, state: .serving, watermark: 120, endOffset: 120, lag: 0, durable: 100, snapshot: 40),
      ShardStatus(
        partition: 1, state: .restoring, watermark: 7, restoredBytes: 999, restoreBytes: 1_000),
      ShardStatus(partition: 2, state: .stopped, reason: "gap: offsets 5..9", watermark: 5),
    ]
    let table = Table(
      status: StatusAnswer(
        node: "n", cluster: "c", software: "s", state: .serving, uptimeMillis: 1, shards: shards))
    #expect(
      table.separated(by: ",") == """
        partition,state,watermark,end,lag,counted,rejected,users,unsynced,snapshot,reason
        0,serving,120,120,0,0,0,0,20,40,
        1,restoring 99 %,7,-,-,0,0,0,-,-,
        2,stopped,5,-,-,0,0,0,-,-,gap: offsets 5..9

        """)
  }

  @Test("times of events have the digits they need, before and after their day as well")
  func instants() {
    let day = Day(number: 20_781)
    for (nanoseconds, text) in [
      (0, "2026-11-24T00:00:00Z"), (34_867_250_000_000, "2026-11-24T09:41:07.25Z"),
      (1, "2026-11-24T00:00:00.000000001Z"), (-1, "2026-11-23T23:59:59.999999999Z"),
      (-3_600_000_000_000, "2026-11-23T23:00:00Z"), (86_400_000_000_000, "2026-11-25T00:00:00Z"),
    ] as [(Int64, String)] {
      #expect(Instant.text(day: day, nanoseconds: nanoseconds) == text)
    }
  }
}
