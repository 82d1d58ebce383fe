// The command line of rmsd.

import Node

/// What rmsd was asked to do.
enum Task: Equatable {
  case run
  case demo
  case initialise
  case checkConfig
  case printConfig
  case printExample
  case version
  case help
}

/// The words after the program's name, read.
struct CommandLineWords: Equatable {
  var task = Task.run
  var configPath: String?
  var assignments: [String] = []
  /// Length of a demo; nil runs until Ctrl-C.
  var seconds: Int?

  static let help = """
    rmsd --config /etc/rankmysteps/rmsd.conf       run a node
    rmsd --demo --seconds 20                       broker, producers and node in one process, nothing to set up
    rmsd --check-config --config FILE              say what is wrong with the settings and exit

    usage: rmsd [--config FILE] [--set KEY=VALUE]… [TASK]

      --config FILE      settings, one `key = value` a line
      --set KEY=VALUE    a setting, over environment (RMS_…) and file; may be repeated
      --init             make data.dir a data folder of this node and exit (data.init = strict needs it once)
      --check-config     check the settings and exit: 0 fine, 78 not
      --print-config     print every setting and where it comes from
      --print-example    print a settings file with every setting at its default
      --demo             embedded broker, six producers and a node; shows the leaders live
      --seconds N        end the demo after N seconds, 1 to 86400
      --version          print the version
      --help             print this

    Exit codes: 0 clean stop, 64 wrong command line, 69 address in use or no such address, 70 broken invariant,
    71 the kernel refused, 74 disk failure, 75 data folder in use, 77 not permitted, 78 wrong settings.

    """

  /// Reads the words, or says what is wrong with them.
  static func read(_ words: [String]) -> Result<CommandLineWords, UsageProblem> {
    var line = CommandLineWords()
    var rest = words[...]
    while let word = rest.popFirst() {
      let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      let name = parts[0]
      func value() -> String? { parts.count == 2 ? parts[1] : rest.popFirst() }
      switch name {
      case "--config":
        guard let path = value(), !path.isEmpty else {
          return .failure(UsageProblem("--config needs a file"))
        }
        line.configPath = path
      case "--set":
        guard let assignment = value() else { return .failure(UsageProblem("--set needs key=value")) }
        line.assignments.append(assignment)
      case "--seconds":
        guard let text = value(), let count = Int(text), (1...86_400).contains(count) else {
          return .failure(UsageProblem("--seconds needs a whole number from 1 to 86400"))
        }
        line.seconds = count
      case "--demo": line.task = .demo
      case "--init": line.task = .initialise
      case "--check-config": line.task = .checkConfig
      case "--print-config": line.task = .printConfig
      case "--print-example": line.task = .printExample
      case "--version": line.task = .version
      case "--help", "-h": line.task = .help
      default:
        let known = [
          "--config", "--set", "--seconds", "--demo", "--init", "--check-config", "--print-config",
          "--print-example",
          "--version",
          "--help",
        ]
        let near = SettingsReader.nearest(name, known)
        return .failure(UsageProblem("unknown word '\(word)'" + (near.map { "; did you mean \($0)?" } ?? "")))
      }
    }
    if line.seconds != nil, line.task != .demo {
      return .failure(UsageProblem("--seconds belongs to --demo"))
    }
    return .success(line)
  }
}

/// A command line that cannot be followed.
struct UsageProblem: Error, Equatable {
  let text: String
  init(_ text: String) { self.text = text }
}
