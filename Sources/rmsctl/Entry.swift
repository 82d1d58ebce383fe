// rmsctl: ask a node, watch it, feed its topic. The command table, the choice of the command, and the one place that
// prints an error and picks the exit code.

import Console
import Glibc
import Node

/// A verb: what it is for, how it is called, what it does.
struct Command: Sendable {
  let name: String
  /// One line of the list of commands.
  let summary: String
  /// Examples first, then words and flags.
  let usage: String
  let flags: [Flag]
  let run: @Sendable (Arguments, Context) throws(Failure) -> Void
}

/// What every command gets besides its own arguments.
struct Context {
  let address: String
  let timeout: Duration
  let output: Output
  let strict: Bool
}

@main struct Entry {
  static let commands: [Command] = [
    .top, .rank, .around, .compare, .summary, .boards, .status, .live, .snapshot, .seal, .shard,
    .deadletter, .log, .explain, .produce, .generate,
  ]

  static func main() {
    signal(SIGPIPE, SIG_IGN)
    do throws(Failure) {
      try run(Array(CommandLine.arguments.dropFirst()))
    } catch {
      if let message = error.message { Output.note("rmsctl: \(message)") }
      exit(error.exitCode)
    }
  }

  private static func run(_ words: [String]) throws(Failure) {
    let (before, name, after) = try split(words)
    guard let name else {
      if before.contains("--version") { return try Output.write("rmsctl \(Version.text)\n") }
      try Output.write(overview)
      if before.contains("--help") || before.contains("-h") { return }
      throw .usage("which command?")
    }
    if name == "help" { return try Output.write(after.first.flatMap { command($0) }.map(help) ?? overview) }
    guard let command = command(name) else {
      let near = SettingsReader.nearest(name, commands.map(\.name))
      throw .usage(
        "unknown command '\(name)'" + (near.map { "; did you mean \($0)?" } ?? "; rmsctl --help lists them"))
    }
    let arguments = try Arguments(before + after, flags: command.flags)
    if arguments.has("--help") { return try Output.write(help(command)) }
    try command.run(arguments, try context(arguments))
  }

  /// Global flags may stand before the command.
  ///
  /// - Throws: `Failure.usage` for one that is not global; its value would be taken for the command otherwise.
  private static func split(_ words: [String]) throws(Failure) -> (
    before: [String], name: String?, after: [String]
  ) {
    var index = 0
    while index < words.count, words[index].hasPrefix("-") {
      let word = words[index].split(separator: "=", maxSplits: 1).first.map(String.init) ?? ""
      let flag = Arguments.globalFlags.first { $0.name == word || $0.short == word }
      guard flag != nil || word == "--version" else { throw Arguments.unknown(word, Arguments.globalFlags) }
      index += flag?.value != nil && word == words[index] ? 2 : 1
    }
    guard index < words.count else { return (words, nil, []) }
    return (Array(words[..<index]), words[index], Array(words[(index + 1)...]))
  }

  private static func command(_ name: String) -> Command? { commands.first { $0.name == name } }

  private static func context(_ arguments: Arguments) throws(Failure) -> Context {
    let environment = { (name: String) -> String? in getenv(name).map { String(cString: $0) } }
    let format: OutputFormat
    if let text = arguments.text("--output") {
      guard let chosen = OutputFormat(rawValue: text) else {
        throw .usage(
          "-o \(text): give one of \(OutputFormat.allCases.map(\.rawValue).joined(separator: ", "))")
      }
      format = chosen
    } else {
      format = Terminal.isOutput ? .table : .tsv
    }
    var timeout = Duration.seconds(10)
    if let text = environment("RMS_TIMEOUT") {
      guard let value = DurationText.read(text), value > .zero else {
        throw .usage("RMS_TIMEOUT=\(text): give a duration such as 500ms, 10s or 2m")
      }
      timeout = value
    }
    let noColour = arguments.has("--no-color") || environment("NO_COLOR").map { !$0.isEmpty } ?? false
    let dumb = environment("TERM").map { $0 == "dumb" || $0.isEmpty } ?? true
    return Context(
      address: arguments.text("--address") ?? environment("RMS_ADDRESS") ?? "127.0.0.1:7670",
      timeout: try arguments.duration("--timeout", default: timeout),
      output: Output(format: format, colour: Terminal.isOutput && !noColour && !dumb),
      strict: arguments.has("--strict"))
  }

  private static var overview: String {
    var text = """
      rmsctl top                            the leaders of today
      rmsctl rank anna --board 2026-11-24   where anna stands on a day
      rmsctl status --until caught-up       wait until a node has read all there is

      usage: rmsctl [--address HOST:PORT] COMMAND …      rmsctl COMMAND --help tells more


      """
    let width = commands.map(\.name.count).max() ?? 0
    for command in commands {
      text +=
        "  " + command.name + String(repeating: " ", count: width - command.name.count + 2) + command.summary
        + "\n"
    }
    text += "\n" + flagHelp(Arguments.globalFlags)
    text += """

      Exit codes: 0 done, 1 refused by the node or failed, 2 wrong command line, 3 unreachable or timed out,
      4 not allowed, 5 partial answer under --strict, 130 interrupted.

      """
    return text
  }

  private static func help(_ command: Command) -> String {
    command.usage + "\n" + (command.flags.isEmpty ? "" : flagHelp(command.flags) + "\n")
      + flagHelp(Arguments.globalFlags)
  }

  private static func flagHelp(_ flags: [Flag]) -> String {
    let names = flags.map { flag in
      "  " + (flag.short.map { $0 + ", " } ?? "    ") + flag.name + (flag.value.map { " " + $0 } ?? "")
    }
    let width = names.map(\.count).max() ?? 0
    return zip(names, flags).map { name, flag in
      name + String(repeating: " ", count: width - name.count + 2) + flag.help + "\n"
    }.joined()
  }
}
