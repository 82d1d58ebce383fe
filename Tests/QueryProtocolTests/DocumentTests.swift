import Foundation
import QueryProtocol
import Testing

@Suite("Protocol/query.md says what the code does")
struct DocumentTests {
  let document = (try? String(contentsOf: Vector.folder.appending(path: "query.md"), encoding: .utf8)) ?? ""

  /// The cells of each table row that begins with a number.
  private var rows: [[String]] {
    document.split(separator: "\n").compactMap { line in
      let cells = line.split(separator: "|", omittingEmptySubsequences: false)
        .map { $0.trimmingCharacters(in: .whitespaces) }
      return cells.count > 2 && Int(cells[1]) != nil ? Array(cells.dropFirst().dropLast()) : nil
    }
  }

  @Test("the table of errors")
  func errors() {
    let printed = rows.filter { $0.count == 5 && $0[1].hasPrefix("`") }
    let coded = ErrorCode.table.map { row in
      [
        "\(row.code.rawValue)", "`\(row.name)`", row.retryable ? "yes" : "no", row.closes ? "yes" : "no",
        row.meaning,
      ]
    }
    #expect(printed == coded)
    for (index, row) in ErrorCode.table.enumerated() { #expect(Int(row.code.rawValue) == index + 1) }
    #expect(ErrorCode(rawValue: 0).row == nil)
    #expect(ErrorCode(rawValue: 999).name == "error 999")
  }

  @Test("the table of kinds")
  func kinds() {
    var printed: [Int: String] = [:]
    for cells in rows where cells.count == 7 {
      for start in [0, 4] {
        if let number = Int(cells[start]) { printed[number] = cells[start + 1].lowercased() }
      }
    }
    #expect(printed.removeValue(forKey: 255) == "error")
    #expect(
      printed
        == Dictionary(uniqueKeysWithValues: Kind.allCases.map { (Int($0.rawValue), "\($0)".lowercased()) }))
  }

  @Test("the table of limits")
  func limits() throws {
    let start = try #require(document.range(of: "## 7. Limits"))
    let end = try #require(document.range(of: "## 8. Vectors"))
    let numbers = document[start.upperBound..<end.lowerBound].split(separator: "\n").flatMap { line in
      let last = line.split(separator: "|").last.map(String.init) ?? ""
      return last.split(separator: ";").compactMap {
        Int($0.trimmingCharacters(in: .whitespaces).replacingOccurrences(of: ",", with: ""))
      }
    }
    #expect(
      numbers == [
        Limits.frameInBytesMax, Limits.helloBytesMax, Limits.frameOutBytesMax, Limits.inFlightMax,
        Limits.rowsMax,
        Limits.aroundMax, Limits.idsMax, Limits.quantilesMax, Limits.atLeastMax, Limits.optionsMax,
        Limits.deadLettersMax, Limits.deadLetterBytesMax, Limits.deadLetterPartBytesMax,
        Limits.shardsMax, Limits.boardsMax, Limits.countersMax,
      ])
  }
}
