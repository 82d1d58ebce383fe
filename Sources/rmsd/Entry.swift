// rmsd: parse the command line, read the settings, build a node, run it until a signal comes. One place prints what
// is wrong and picks the exit code.

import Console
import Glibc
import KafkaSource
import Node
import Posix
import Telemetry

@main struct Entry {
  /// Exit codes after systemd.exec(5).
  enum ExitCode {
    static let usage: Int32 = 64
    static let configuration: Int32 = 78
  }

  static func main() {
    switch CommandLineWords.read(Array(CommandLine.arguments.dropFirst())) {
    case .failure(let problem):
      say("rmsd: \(problem.text); rmsd --help lists what there is")
      exit(ExitCode.usage)
    case .success(let line): exit(run(line))
    }
  }

  private static func run(_ line: CommandLineWords) -> Int32 {
    switch line.task {
    case .help:
      show(CommandLineWords.help)
      return 0
    case .version:
      show("rmsd \(Version.text)\n")
      return 0
    case .printExample:
      show(SettingsReader.example())
      return 0
    case .checkConfig, .printConfig, .run, .demo, .initialise: break
    }
    let reader: SettingsReader
    do throws(SettingsProblems) {
      reader = try read(line)
    } catch {
      for problem in error.all { say(problem.description) }
      return ExitCode.configuration
    }
    switch line.task {
    case .checkConfig:
      show("the settings are fine\n")
      return 0
    case .printConfig:
      show(reader.printed())
      return 0
    case .initialise: return initialise(reader.settings)
    case .demo: return Demo.run(reader.settings, seconds: line.seconds)
    case .run, .help, .version, .printExample: return serve(reader.settings)
    }
  }

  private static func read(_ line: CommandLineWords) throws(SettingsProblems) -> SettingsReader {
    var file: (path: String, bytes: [UInt8])?
    if let path = line.configPath {
      do throws(SystemError) {
        file = (path, try Files().read(whole: path, bytesMax: SettingsReader.fileBytesMax))
      } catch {
        let reason =
          switch error.errno {
          case .isFolder: "is a folder; name the file in it"
          case .noSuchFile: "there is no such file"
          default:
            error.errno.rawValue == EFBIG ? "is larger than 1 MiB; is it a settings file?" : "\(error.errno)"
          }
        throw SettingsProblems(all: [SettingsProblem(place: path, key: "", reason: reason)])
      }
    }
    // Printing shows what there is, an empty file's defaults too; only a node that connects needs brokers.
    let connects = line.task == .run || line.task == .checkConfig
    return try SettingsReader.read(
      file: file, environment: environment(), assignments: line.assignments, connects: connects)
  }

  private static func environment() -> [String: String] {
    var all: [String: String] = [:]
    var place = environ
    while let entry = place.pointee {
      let text = String(cString: entry)
      if let equals = text.firstIndex(of: "=") {
        all[String(text[..<equals])] = String(text[text.index(after: equals)...])
      }
      place += 1
    }
    return all
  }

  /// Makes the data folder this node's, for `data.init = strict`.
  private static func initialise(_ settings: Settings) -> Int32 {
    do throws(NodeError) {
      try NodeService.initialiseFolder(settings)
      show("\(settings.dataDir) is a data folder of \(settings.nodeID)\n")
      return 0
    } catch {
      say("rmsd: \(error)")
      return error.exitCode
    }
  }

  /// Runs a node until SIGTERM or SIGINT, or until it fails.
  private static func serve(_ settings: Settings) -> Int32 {
    let diagnostics = Diagnostics(format: settings.logFormat == "json" ? .json : .text)
    do throws(NodeError) {
      let signals = try NodeError.catching { () throws(SystemError) in try Signals() }
      let node = try NodeService(settings, diagnostics: diagnostics)
      try node.start()
      while node.failure == nil {
        let signal = try NodeError.catching { () throws(SystemError) in try signals.wait(.milliseconds(500)) }
        if signal == .terminate || signal == .interrupt { break }
        if signal == .hangUp {
          diagnostics.log(.warning, "settings are not read again; restart the node to change them")
        }
      }
      if let failure = node.failure, failure.endsAtOnce {
        say("rmsd: \(failure)")
        _exit(failure.exitCode)
      }
      diagnostics.log(.info, "stopping")
      node.stop()
      if let failure = node.failure { throw failure }
      return 0
    } catch {
      say("rmsd: \(error)")
      return error.exitCode
    }
  }

  static func say(_ text: String) { Diagnostics.writeToStandardError(text + "\n") }

  static func show(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
      var rest = UnsafeRawBufferPointer(bytes)
      while rest.count > 0, let count = try? SystemCall.write(1, rest) {
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
    }
  }
}
