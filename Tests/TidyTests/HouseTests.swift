// The rules of the house that a machine can check. Each rule carries a sample it must find and one it must let pass,
// so that a rule that stopped working fails too.
import Glibc
import Testing

/// A rule about lines of text.
struct LineRule: Sendable, CustomTestStringConvertible {
  /// What the rule looks at.
  enum Reach: Sendable {
    /// Swift code below Sources, comments and strings left out.
    case sources
    /// The same without the programs rmsd, rmsctl, rmsweb and rmsbench.
    case modules
    /// Swift code below Sources and Tests.
    case code
    /// Every text of the tree, as it stands.
    case everything
  }

  var name: String
  var reason: String
  var reach: Reach
  /// An extended regular expression of the C library.
  var pattern: String
  var ignoresCase = false
  var bad: String
  var good: String
  /// Files the rule does not hold for, each with its reason.
  var exceptions: [String: String] = [:]

  var testDescription: String { name }

  func reaches(_ path: String) -> Bool {
    let isProgram = ["rmsd", "rmsctl", "rmsweb", "rmsbench"].contains { path.hasPrefix("Sources/\($0)/") }
    return switch reach {
    case .sources: path.hasPrefix("Sources/") && path.hasSuffix(".swift")
    case .modules: path.hasPrefix("Sources/") && path.hasSuffix(".swift") && !isProgram
    case .code: (path.hasPrefix("Sources/") || path.hasPrefix("Tests/")) && path.hasSuffix(".swift")
    case .everything: true
    }
  }

  /// - Returns: the places in `files` that break the rule.
  func broken(in files: [TreeFile]) throws -> [String] {
    let expression = try LineExpression(pattern, ignoresCase: ignoresCase)
    return files.filter { reaches($0.path) && exceptions[$0.path] == nil }.flatMap { file in
      expression.lines(in: reach == .everything ? file.text : file.code).map {
        "\(file.path):\($0): \(name) (\(reason))"
      }
    }
  }

  static let all: [LineRule] = [
    LineRule(
      name: "nobody sleeps", reason: "wait for what is waited for: a condition, a descriptor, a timer",
      reach: .code,
      pattern: #"\b(sleep|usleep|nanosleep|clock_nanosleep)\("#,
      bad: "usleep(10)", good: "let asleep = isAsleep(x)  // sleep(1)"),
    LineRule(
      name: "no try! and no as!", reason: "an error is handled or thrown on", reach: .sources,
      pattern: #"\b(try|as)!"#, bad: "let x = try! f()", good: "let x = try f()"),
    LineRule(
      name: "modules do not print", reason: "what people read is written by the programs", reach: .modules,
      pattern: #"(^|[^.[:alnum:]_ ]|(^|[^c]) +)(print|debugPrint|NSLog)\("#, bad: "  print(1)",
      good: "func print(x: Int) { page.print(1) }"),
    LineRule(
      name: "no Foundation", reason: "none on data paths; Glibc does", reach: .sources,
      pattern: #"\bimport +(\w+ +)?Foundation"#, bad: "import Foundation", good: "import Glibc"),
    LineRule(
      name: "a trap says what it saw", reason: "a text with the state, for whoever finds it in the log",
      reach: .sources,
      pattern: #"\b(fatalError|preconditionFailure|assertionFailure)\(\)"#, bad: "fatalError()",
      good: "fatalError(reason)"),
    LineRule(
      name: "nothing is left for later", reason: "do it, or file it", reach: .everything,
      pattern: "\\b(TO" + "DO|FIX" + "ME|X" + "XX|HA" + "CK)\\b",
      bad: "// TO" + "DO: more", good: "// nothing to do here"),
    LineRule(
      name: "nothing is there in name only", reason: "do it, or file it", reach: .everything,
      pattern: "\\bnot (yet )?imple" + "mented\\b|\\bplace" + "holder\\b|\\bst" + "ub(bed|s)?\\b",
      ignoresCase: true, bad: "// Not yet imple" + "mented", good: "// a stubborn place"),
    LineRule(
      name: "the text speaks of the product alone", reason: "no tickets, no machines, no package servers",
      reach: .everything,
      pattern: "\\bissues? *#?[0-9]|(^|[^[:alnum:]_.])/wo" + "rk/|\\bde"
        + "b\\.debian\\.org|\\brepo1?\\.maven|\\bpy"
        + "pi\\.org|\\bproxy\\.gol" + "ang|\\bfa" + "rm-[a-z]",
      ignoresCase: true, bad: "see Iss" + "ue 4", good: "an issue of the day, 4 of them, in network/work"),
  ]
}

/// Lengths of files and functions.
enum LengthRule {
  static let fileLinesMax = 700
  static let functionLinesMax = 80

  /// - Returns: Swift files and functions that are too long.
  static func broken(in files: [TreeFile]) throws -> [String] {
    var problems: [String] = []
    for file in files where file.isSwift {
      let count = file.lines.count
      if count > fileLinesMax { problems.append("\(file.path): \(count) lines, at most \(fileLinesMax)") }
      for function in try functions(in: file.code) where function.lines > functionLinesMax {
        problems.append(
          "\(file.path):\(function.line): \(function.name) has \(function.lines) lines, at most \(functionLinesMax)"
        )
      }
    }
    return problems
  }

  /// - Parameter code: Swift text without comments and strings.
  /// - Returns: name, first line and length of every function with a body, from `func` to its closing brace.
  /// - Throws: what the regular expression engine throws.
  static func functions(in code: String) throws -> [(name: String, line: Int, lines: Int)] {
    let opening =
      /^ *(?:@\w+(?:\([^)]*\))? +|\w+(?:\(\w+\))? +)*(?:func +([^\s(<]+)|(init)[?!]?|(subscript))\s*[(<]/
    let lines = code.split(separator: "\n", omittingEmptySubsequences: false)
    var found: [(name: String, line: Int, lines: Int)] = []
    for (number, line) in lines.enumerated() {
      guard line.contains("func ") || line.contains("init") || line.contains("subscript") else { continue }
      guard let match = line.firstMatch(of: opening) else { continue }
      guard let end = bodyEnd(from: number, in: lines) else { continue }
      let name = match.1 ?? match.2 ?? match.3 ?? ""
      found.append((String(name), number + 1, end - number + 1))
    }
    return found
  }

  /// The line of the brace that closes the body of the function beginning in line `start`; nil where it has none.
  private static func bodyEnd(from start: Int, in lines: [Substring]) -> Int? {
    var parentheses = 0
    var braces = 0
    for number in start..<lines.count {
      for byte in lines[number].utf8 {
        switch byte {
        case UInt8(ascii: "("): parentheses += 1
        case UInt8(ascii: ")"): parentheses -= 1
        case UInt8(ascii: "{"): braces += 1
        case UInt8(ascii: "}"):
          braces -= 1
          if braces == 0 && parentheses == 0 { return number }
          if braces < 0 { return nil }
        default: break
        }
      }
      // Without an open brace or parenthesis, the next declaration or an empty line ends a requirement.
      if braces == 0 && parentheses == 0 && number + 1 < lines.count {
        let next = lines[number + 1].drop { $0 == " " }
        let goesOn = ["{", "->", "throws", "async", "where", "rethrows"].contains { next.hasPrefix($0) }
        if !goesOn { return nil }
      }
    }
    return nil
  }
}

@Suite("the house")
struct HouseTests {
  @Test("the tree keeps to the rule", arguments: LineRule.all)
  func treeKeepsRule(rule: LineRule) throws { expectNone(try rule.broken(in: Tree.files)) }

  @Test("the rule finds its sample", arguments: LineRule.all)
  func ruleFindsSample(rule: LineRule) throws {
    func file(_ text: String) -> TreeFile { TreeFile(path: "Sources/Node/Sample.swift", text: text + "\n") }
    #expect(try rule.broken(in: [file(rule.bad)]).count == 1)
    #expect(try rule.broken(in: [file(rule.good)]) == [])
  }

  @Test("the files a rule spares exist", arguments: LineRule.all)
  func exceptionsExist(rule: LineRule) {
    for path in rule.exceptions.keys { #expect(Tree.mode(of: path) != 0, "\(path) is spared and not there") }
  }

  @Test("files and functions stay short")
  func lengths() throws { expectNone(try LengthRule.broken(in: Tree.files)) }

  @Test("a long file and a long function are found")
  func longOnesAreFound() throws {
    let body = String(repeating: "    x += 1\n", count: LengthRule.functionLinesMax)
    let long =
      "protocol P {\n  func none()\n}\nstruct S {\n  init?(\n    a: Int\n  ) {\n\(body)  }\n  func f() {}\n}\n"
    #expect(
      try LengthRule.broken(in: [TreeFile(path: "Sources/A/A.swift", text: long)]) == [
        "Sources/A/A.swift:5: init has 84 lines, at most 80"
      ])
    let many = String(repeating: "\n", count: LengthRule.fileLinesMax + 1)
    #expect(try LengthRule.broken(in: [TreeFile(path: "Sources/A/A.swift", text: many)]).count == 1)
  }

  @Test("the top level is as agreed")
  func topLevel() {
    let agreed: Set = ["Package.swift", "README.md", "Sources", "Tests", "Protocol", "Ops"]
    let there = Set(Tree.names(in: "").filter { !$0.hasPrefix(".") })
    #expect(there.subtracting(agreed) == [], "more than was agreed")
    #expect(agreed.subtracting(there) == [], "less than was agreed")
  }

  @Test("every script can be run and explains itself")
  func scripts() {
    for name in Tree.names(in: "Ops") where !name.contains(".") && !Tree.isFolder("Ops/\(name)") {
      let text = Tree.read("Ops/\(name)") ?? ""
      #expect(text.hasPrefix("#!/usr/bin/env "), "Ops/\(name) names no interpreter")
      #expect(text.contains("--help"), "Ops/\(name) has no --help")
      #expect(Tree.mode(of: "Ops/\(name)") & S_IXUSR != 0, "Ops/\(name) has no run bit")
    }
  }

  @Test("every module's file opens with what it is")
  func openings() {
    for file in Tree.files where file.isSwift && file.path.hasPrefix("Sources/") {
      let opens = file.text.hasPrefix("//")
      #expect(opens, "\(file.path) opens without saying what it is")
    }
  }
}
