// The tree as the tidy tests read it: files below the package's folder, and Swift text with comments and strings
// blanked out, so that a rule about calls is not fooled by words.
import Glibc
import Testing

/// A text file of the tree.
struct TreeFile: Sendable, CustomTestStringConvertible {
  /// Path below the package's folder, `/` between its parts.
  let path: String
  let text: String
  /// `text` with comments and string literals blanked, line by line the same; as it stands if it is not Swift.
  let code: String

  init(path: String, text: String) {
    self.path = path
    self.text = text
    code = path.hasSuffix(".swift") ? SwiftText.code(of: text) : text
  }

  var testDescription: String { path }
  var isSwift: Bool { path.hasSuffix(".swift") }
  var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }
  var codeLines: [Substring] { code.split(separator: "\n", omittingEmptySubsequences: false) }
}

/// A regular expression that is looked for line by line. The C library's, as Swift's own takes a minute for the tree.
struct LineExpression: ~Copyable {
  struct Malformed: Error { let pattern: String }

  private var compiled = regex_t()

  init(_ pattern: String, ignoresCase: Bool) throws {
    guard regcomp(&compiled, pattern, REG_EXTENDED | REG_NEWLINE | (ignoresCase ? REG_ICASE : 0)) == 0 else {
      throw Malformed(pattern: pattern)
    }
  }

  deinit {
    var compiled = compiled
    regfree(&compiled)
  }

  /// - Returns: numbers of the lines that hold a match, from 1.
  func lines(in text: String) -> [Int] {
    text.withCString { start in
      var found: [Int] = []
      var number = 1
      var line = start
      var match = regmatch_t()
      let newline = CChar(10)
      return withUnsafePointer(to: compiled) { compiled in
        while regexec(compiled, line, 1, &match, 0) == 0 {
          var place = 0
          while place < Int(match.rm_so) {
            if line[place] == newline { number += 1 }
            place += 1
          }
          found.append(number)
          while line[place] != 0, line[place] != newline { place += 1 }
          if line[place] == 0 { return found }
          line += place + 1
          number += 1
        }
        return found
      }
    }
  }
}

/// The package's folder.
enum Tree {
  /// Absolute path of the folder that holds Package.swift, two above this file's.
  static let root: String = {
    var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
    parts.removeLast(3)
    return parts.joined(separator: "/")
  }()

  /// Every text file below Sources, Tests, Protocol, Ops and .ci, and the loose ones, without raw records and vectors.
  static let files: [TreeFile] = {
    var found: [TreeFile] = []
    for top in ["Sources", "Tests", "Protocol", "Ops", ".ci"] { collect(top, into: &found) }
    for loose in ["Package.swift", "README.md"] {
      if let text = read(loose) { found.append(TreeFile(path: loose, text: text)) }
    }
    return found.sorted { $0.path < $1.path }
  }()

  /// - Returns: names in a folder of the tree, sorted, without `.` and `..`; empty where there is no such folder.
  static func names(in path: String) -> [String] {
    guard let folder = opendir("\(root)/\(path)") else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// - Returns: mode bits of a file of the tree; 0 where there is none.
  static func mode(of path: String) -> mode_t {
    var status = stat()
    return lstat("\(root)/\(path)", &status) == 0 ? status.st_mode : 0
  }

  static func isFolder(_ path: String) -> Bool { mode(of: path) & S_IFMT == S_IFDIR }

  /// - Returns: the file's text; nil where it cannot be read or is not UTF-8.
  static func read(_ path: String) -> String? {
    guard let file = fopen("\(root)/\(path)", "r") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 65_536)
    while case let count = fread(&block, 1, block.count, file), count > 0 { bytes += block[..<count] }
    return String(validating: bytes, as: UTF8.self)
  }

  private static func collect(_ path: String, into found: inout [TreeFile]) {
    for name in names(in: path) {
      let inner = "\(path)/\(name)"
      if isFolder(inner) {
        if !["Ops/records", "Protocol/vectors"].contains(inner), name != "__pycache__" {
          collect(inner, into: &found)
        }
      } else if let text = read(inner) {
        found.append(TreeFile(path: inner, text: text))
      }
    }
  }
}

/// Swift text without its words.
enum SwiftText {
  /// - Returns: `text` with every byte of comments and string literals but newlines replaced by a space. What stands
  ///   in an interpolation is code and stays.
  static func code(of text: String) -> String {
    var blanker = Blanker(bytes: Array(text.utf8))
    blanker.code(untilClosingParenthesis: false)
    return String(decoding: blanker.bytes, as: UTF8.self)
  }
}

private struct Blanker {
  var bytes: [UInt8]
  var at = 0

  private func sees(_ word: StaticString) -> Bool {
    let count = word.utf8CodeUnitCount
    guard at + count <= bytes.count else { return false }
    for offset in 0..<count where bytes[at + offset] != word.utf8Start[offset] { return false }
    return true
  }

  private mutating func blank(_ count: Int) {
    for _ in 0..<count where at < bytes.count {
      if bytes[at] != UInt8(ascii: "\n") { bytes[at] = UInt8(ascii: " ") }
      at += 1
    }
  }

  mutating func code(untilClosingParenthesis: Bool) {
    var depth = 0
    while at < bytes.count {
      if sees("//") {
        while at < bytes.count, bytes[at] != UInt8(ascii: "\n") { blank(1) }
      } else if sees("/*") {
        while at < bytes.count, !sees("*/") { blank(1) }
        blank(2)
      } else if bytes[at] == UInt8(ascii: "\"") || bytes[at] == UInt8(ascii: "#") {
        string()
      } else {
        if bytes[at] == UInt8(ascii: "(") { depth += 1 }
        if bytes[at] == UInt8(ascii: ")") {
          depth -= 1
          if untilClosingParenthesis && depth < 0 { return }
        }
        at += 1
      }
    }
  }

  /// A string literal, or the `#` of something else.
  private mutating func string() {
    var hashes = 0
    while at + hashes < bytes.count, bytes[at + hashes] == UInt8(ascii: "#") { hashes += 1 }
    guard at + hashes < bytes.count, bytes[at + hashes] == UInt8(ascii: "\"") else {
      at += max(1, hashes)
      return
    }
    let fence = [UInt8](repeating: UInt8(ascii: "#"), count: hashes)
    blank(hashes)
    let quotes: [UInt8] = Array(sees("\"\"\"") ? "\"\"\"".utf8 : "\"".utf8)
    blank(quotes.count)
    let closing = quotes + fence
    let escape = [UInt8(ascii: "\\")] + fence
    while at < bytes.count {
      if bytes[at...].starts(with: closing) { return blank(closing.count) }
      guard bytes[at...].starts(with: escape) else {
        blank(1)
        continue
      }
      blank(escape.count)
      guard at < bytes.count, bytes[at] == UInt8(ascii: "(") else {
        blank(1)
        continue
      }
      at += 1
      code(untilClosingParenthesis: true)
      at += 1
    }
  }
}

/// Fails the test with one line a problem.
func expectNone(_ problems: [String], sourceLocation: SourceLocation = #_sourceLocation) {
  #expect(problems.isEmpty, "\(problems.joined(separator: "\n"))", sourceLocation: sourceLocation)
}
