// What stands on the command line, checked against what a command declares. Wrong words are refused with the nearest
// right one before anything is done.

import Node

/// A flag that a command takes.
struct Flag: Sendable {
  /// `--limit`.
  let name: String
  /// `-k` for those that have one letter.
  var short: String?
  /// What the value is called in help; nil for a switch.
  let value: String?
  let help: String

  init(_ name: String, short: String? = nil, _ value: String?, _ help: String) {
    self.name = name
    self.short = short
    self.value = value
    self.help = help
  }
}

/// Why a command ends without having done its work, and with which exit code.
enum Failure: Error {
  /// Exit 1: the node refused, or an input or output failed.
  case refused(String)
  /// Exit 2: the command line is wrong.
  case usage(String)
  /// Exit 3: nobody answers there, or not in time.
  case unreachable(String)
  /// Exit 4: the node knows us and does not let us.
  case notAllowed(String)
  /// Exit 5: a partial answer where a whole one was asked for.
  case partial(String)
  /// Exit 130: Ctrl-C.
  case interrupted
  /// Exit 0 without a word: whoever read our output has seen enough.
  case outputClosed

  var exitCode: Int32 {
    switch self {
    case .refused: 1
    case .usage: 2
    case .unreachable: 3
    case .notAllowed: 4
    case .partial: 5
    case .interrupted: 130
    case .outputClosed: 0
    }
  }

  var message: String? {
    switch self {
    case .refused(let text), .usage(let text), .unreachable(let text), .notAllowed(let text),
      .partial(let text):
      text
    case .interrupted, .outputClosed: nil
    }
  }
}

/// Flags and words of one call.
struct Arguments {
  private(set) var words: [String] = []
  private var values: [String: [String]] = [:]
  /// Flags that were left for the command to declare; empty after `check`.
  static let globalFlags: [Flag] = [
    Flag("--address", "HOST:PORT", "Node to ask (RMS_ADDRESS; 127.0.0.1:7670)."),
    Flag("--timeout", "DURATION", "How long to wait for an answer (RMS_TIMEOUT; 10s)."),
    Flag("--output", short: "-o", "FORMAT", "table, json, csv or tsv; table on a terminal, tsv otherwise."),
    Flag("--no-color", nil, "No colours (also NO_COLOR)."),
    Flag("--strict", nil, "Exit 5 if the answer misses a shard."),
    Flag("--help", short: "-h", nil, "This text."),
  ]

  /// Reads words against the declared flags.
  ///
  /// - Parameters:
  ///   - given: the command line after the command's name.
  ///   - flags: what the command declares; the global flags come on top.
  /// - Throws: `Failure.usage` for an unknown flag, a missing value, or a value given to a switch.
  init(_ given: [String], flags: [Flag]) throws(Failure) {
    let known = flags + Arguments.globalFlags
    var rest = given[...]
    while let word = rest.popFirst() {
      if word == "--" {
        words += rest
        break
      }
      guard word.hasPrefix("-"), word != "-", Int(word) == nil else {
        words.append(word)
        continue
      }
      let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard let flag = known.first(where: { $0.name == parts[0] || $0.short == parts[0] }) else {
        throw Arguments.unknown(parts[0], known)
      }
      if let value = flag.value {
        if parts.count == 2 {
          values[flag.name, default: []].append(parts[1])
        } else if let next = rest.popFirst() {
          values[flag.name, default: []].append(next)
        } else {
          throw .usage("\(flag.name) needs a value: \(flag.name) \(value)")
        }
      } else {
        guard parts.count == 1 else { throw .usage("\(flag.name) takes no value") }
        values[flag.name, default: []].append("")
      }
    }
  }

  /// What to say to a flag that nobody declared.
  static func unknown(_ word: String, _ known: [Flag]) -> Failure {
    let near = SettingsReader.nearest(word, known.map(\.name))
    return .usage(
      "unknown flag \(word)" + (near.map { "; did you mean \($0)?" } ?? "; --help lists those there are"))
  }

  func has(_ flag: String) -> Bool { values[flag] != nil }

  /// The flag's last value.
  func text(_ flag: String) -> String? { values[flag]?.last }

  /// The flag's value as a whole number within bounds.
  func integer(_ flag: String, default number: Int, within bounds: ClosedRange<Int>) throws(Failure) -> Int {
    guard let text = text(flag) else { return number }
    guard let value = Int(text), bounds.contains(value) else {
      throw .usage("\(flag) \(text): give a whole number from \(bounds.lowerBound) to \(bounds.upperBound)")
    }
    return value
  }

  /// The flag's value as a duration.
  func duration(_ flag: String, default duration: Duration) throws(Failure) -> Duration {
    guard let text = text(flag) else { return duration }
    guard let value = DurationText.read(text), value > .zero else {
      throw .usage("\(flag) \(text): give a duration such as 500ms, 10s or 2m")
    }
    return value
  }

  /// Exactly one word.
  func onlyWord(_ name: String) throws(Failure) -> String {
    guard let word = words.first else { throw .usage("\(name) is missing") }
    guard words.count == 1 else { throw .usage("one \(name), not \(words.count): '\(words[1])' is too many") }
    return word
  }

  /// No word at all.
  func noWords() throws(Failure) {
    if let word = words.first { throw .usage("'\(word)' is not expected here") }
  }
}
