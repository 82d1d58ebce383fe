// Package.swift read as text, as far as its own house style goes: one `module`, `program`, `tests`, `.target` or
// `.systemLibrary` a target, levels marked by comments that hold the level's number alone.

/// What Package.swift says of its targets.
struct Manifest {
  struct Target: Equatable {
    enum Kind: Equatable { case clang, module, program, tests }
    var name: String
    var kind: Kind
    var dependencies: [String]
    /// 0 to 6; nil for C modules, which lie below, and for tests.
    var level: Int?
    /// Folder below the package's.
    var folder: String
  }

  var targets: [Target] = []

  /// - Parameter text: the text of Package.swift.
  /// - Throws: nothing in practice: the expression is a constant.
  init(text: String) throws {
    guard let start = text.range(of: "targets: [\n") else { return }
    var level: Int?
    var rest = text[start.upperBound...]
    let mark = try Regex<(Substring, Substring?, Substring?, Substring?, Substring?)>(
      #"(?m)^ *// (\d)$|^ *// (Tests) |^ *(module|program|tests|\.target|\.systemLibrary)\(\s*(?:name: )?"(\w+)""#
    )
    while let match = rest.firstMatch(of: mark) {
      rest = rest[match.range.upperBound...]
      if let digit = match.1 {
        level = Int(digit)
      } else if match.2 != nil {
        level = nil
      } else if let call = match.3, let name = match.4 {
        targets.append(Self.target(String(name), call: String(call), level: level, rest: rest))
      }
    }
  }

  subscript(_ name: String) -> Target? { targets.first { $0.name == name } }

  private static func target(_ name: String, call: String, level: Int?, rest: Substring) -> Target {
    let arguments = upToClosingParenthesis(rest)
    let list =
      arguments.split(separator: "[", maxSplits: 1).dropFirst().first?.split(separator: "]").first ?? ""
    // In `.target` the first list may be another one, such as `cxxSettings`.
    let isDependencies = !call.hasPrefix(".") || arguments.contains(/dependencies: \[/)
    let names = list.matches(of: /"(\w+)"/).map { String($0.1) }
    let given = arguments.firstMatch(of: /path: "([^"]+)"/).map { String($0.1) }
    let kind: Target.Kind =
      switch call {
      case "module": .module
      case "program": .program
      case "tests": .tests
      case ".target" where given?.hasPrefix("Tests/") == true: .tests
      default: .clang
      }
    return Target(
      name: name, kind: kind, dependencies: isDependencies ? names : [], level: kind == .tests ? nil : level,
      folder: given ?? "\(kind == .tests ? "Tests" : "Sources")/\(name)")
  }

  private static func upToClosingParenthesis(_ text: Substring) -> Substring {
    var depth = 0
    for index in text.indices {
      if text[index] == "(" { depth += 1 }
      if text[index] == ")" {
        if depth == 0 { return text[..<index] }
        depth -= 1
      }
    }
    return text
  }
}

extension StringProtocol {
  /// - Returns: the first place of `word`; nil where it does not occur.
  func range(of word: String) -> Range<Index>? { ranges(of: word).first }
}
