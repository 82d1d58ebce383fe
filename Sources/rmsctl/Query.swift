// The commands that ask for standings: top, rank, around, compare, summary, boards.

import Console
import QueryProtocol
import RankMySteps
import StepModel

extension Command {
  static let top = Command(
    name: "top", summary: "the leaders of a board",
    usage: """
      rmsctl top                                 the first ten of today
      rmsctl top --board 2026-W48 --limit 100    the first hundred of a week
      rmsctl top --all -o csv > day.csv          everybody, in order

      usage: rmsctl top [--board BOARD] [--limit N] [--offset N] [--all]

      """,
    flags: [
      Arguments.boardFlag, Flag("--limit", "N", "Rows, 1 to 10000 (10)."),
      Flag("--offset", "N", "Position of the first row, from 0 (0)."),
      Flag("--all", nil, "Every row from the offset on."),
    ]
  ) { (arguments, context) throws(Failure) in
    try arguments.noWords()
    let board = try arguments.board()
    let limit = try arguments.integer("--limit", default: 10, within: 1...Limits.rowsMax)
    let offset = try arguments.integer("--offset", default: 0, within: 0...Int.max)
    let isAll = arguments.has("--all")
    if isAll, arguments.has("--limit") { throw .usage("--all and --limit exclude each other") }
    let client = try context.connect()
    var answer = try context.asking { () throws(ClientError) in
      try client.top(board, limit: isAll ? Limits.rowsMax : limit, offset: UInt64(offset))
    }
    var page = answer
    while isAll, page.rows.count == Limits.rowsMax, let last = page.rows.last {
      page = try context.asking { () throws(ClientError) in
        try client.top(after: last, of: answer.context.board, limit: Limits.rowsMax)
      }
      answer.rows += page.rows
      answer.context = page.context
      (answer.users, answer.totalSteps) = (page.users, page.totalSteps)
    }
    try context.output.show(Table(rows: answer)) { $0.rows(answer, isTop: true) }
    try context.check(answer.context.missing)
  }

  static let rank = Command(
    name: "rank", summary: "where a user stands",
    usage: """
      rmsctl rank anna                       today
      rmsctl rank anna --board 2026-11-24    on a day

      usage: rmsctl rank USER [--board BOARD]

      """, flags: [Arguments.boardFlag]
  ) { (arguments, context) throws(Failure) in
    let user = try arguments.user(try arguments.onlyWord("USER"))
    let board = try arguments.board()
    let client = try context.connect()
    let ranked = try context.asking { () throws(ClientError) in try client.rank(user, board) }
    try context.output.show(Table(rank: user, ranked.context, ranked.answer)) {
      $0.rank(ranked.context, user, ranked.answer)
    }
    try context.check(ranked.context.missing)
  }

  static let around = Command(
    name: "around", summary: "a user's neighbours on a board",
    usage: """
      rmsctl around anna          five rows above anna, anna, five below
      rmsctl around anna -k 20

      usage: rmsctl around USER [-k N] [--board BOARD]

      """,
    flags: [Arguments.boardFlag, Flag("--neighbours", short: "-k", "N", "Rows on each side, 0 to 4999 (5).")]
  ) { (arguments, context) throws(Failure) in
    let user = try arguments.user(try arguments.onlyWord("USER"))
    let board = try arguments.board()
    let k = try arguments.integer("--neighbours", default: 5, within: 0...Limits.aroundMax)
    let client = try context.connect()
    let answer = try context.asking { () throws(ClientError) in try client.around(user, k: k, board) }
    try show(answer, context)
  }

  static let compare = Command(
    name: "compare", summary: "friends among each other",
    usage: """
      rmsctl compare anna ben carla --board 2026-11

      usage: rmsctl compare USER… [--board BOARD]

      """, flags: [Arguments.boardFlag]
  ) { (arguments, context) throws(Failure) in
    guard !arguments.words.isEmpty else { throw .usage("USER is missing") }
    guard arguments.words.count <= Limits.idsMax else {
      throw .usage("at most \(Limits.idsMax) users at a time")
    }
    var users: [UserID] = []
    for word in arguments.words { users.append(try arguments.user(word)) }
    let board = try arguments.board()
    let client = try context.connect()
    let answer = try context.asking { () throws(ClientError) in try client.compare(users, board) }
    try show(answer, context)
  }

  static let summary = Command(
    name: "summary", summary: "a board in numbers: users, steps, quantiles",
    usage: """
      rmsctl summary
      rmsctl summary --board all -o json

      usage: rmsctl summary [--board BOARD]

      """, flags: [Arguments.boardFlag]
  ) { (arguments, context) throws(Failure) in
    try arguments.noWords()
    let board = try arguments.board()
    let client = try context.connect()
    let answer = try context.asking { () throws(ClientError) in
      try client.summary(board, quantiles: [10, 25, 50, 75, 90, 99])
    }
    try context.output.show(Table(summary: answer)) { $0.summary(answer) }
    try context.check(answer.context.missing)
  }

  static let boards = Command(
    name: "boards", summary: "the boards a node keeps",
    usage: """
      rmsctl boards

      usage: rmsctl boards

      """, flags: []
  ) { (arguments, context) throws(Failure) in
    try arguments.noWords()
    let client = try context.connect()
    let answer = try context.asking { () throws(ClientError) in try client.boards() }
    try context.output.show(Table(boards: answer)) { $0.boards(answer) }
    try context.check(answer.missing)
  }

  /// AROUND and COMPARE: rows, and who is not on the board.
  private static func show(_ answer: RowsAnswer, _ context: Context) throws(Failure) {
    try context.output.show(Table(rows: answer)) { $0.rows(answer, isTop: false) }
    if context.output.format == .table {
      for user in answer.absent {
        Output.note("not on the board of \(answer.context.board): \(Terminal.escaped(user.text))")
      }
    }
    try context.check(answer.context.missing)
  }
}
