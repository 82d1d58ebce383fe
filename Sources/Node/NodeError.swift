// Why a node does not start or does not go on; each case has the exit code that tells a supervisor what to do.

public import KafkaSource
public import Posix
public import SegmentLog

/// Why a node ends.
public enum NodeError: Error, CustomStringConvertible {
  /// The settings are wrong: restarting does not help.
  case settings(SettingsProblems)
  /// The data folder is not to be used, or not any more.
  case folder(DataFolderError)
  /// The dead-letter file is damaged, or the disk fails.
  case deadLetters(DeadLetterError)
  /// A log cannot be written any more.
  case log(LogError)
  /// The query address is taken or is not ours.
  case listen(ListenError)
  /// The address of probes and metrics is taken or is not ours.
  case listenHTTP(ListenError)
  /// The Kafka client refused its settings or stopped for good.
  case kafka(KafkaError)
  /// The kernel refused something that a node cannot be without.
  case system(SystemError)

  /// Whether the process must end without another write: what the disk holds is not to be trusted any more.
  public var endsAtOnce: Bool {
    switch self {
    case .log, .folder(.gone): true
    case .settings, .folder, .deadLetters, .listen, .listenHTTP, .kafka, .system: false
    }
  }

  /// Exit code after systemd.exec(5).
  public var exitCode: Int32 {
    switch self {
    case .settings: 78
    case .folder(let error): error.exitCode
    case .deadLetters, .log: 74
    case .listen, .listenHTTP: 69
    case .kafka(.setting): 78
    case .kafka: 70
    case .system: 71
    }
  }

  /// A sentence that names the thing and the remedy.
  public var description: String {
    switch self {
    case .settings(let problems): problems.all.map(\.description).joined(separator: "\n")
    case .folder(let error): "data.dir: \(error)"
    case .deadLetters(.disk(let error)): "the dead-letter file: \(error)"
    case .deadLetters(.damaged(let path, let place)):
      "the dead-letter file \(path) is damaged at byte \(place); move it away to start a new one"
    case .log(let error):
      "\(error); restart the node once the disk is repaired, it reads the rest from Kafka again"
    case .listen(let error): "query.listen: \(error)"
    case .listenHTTP(let error): "http.listen: \(error)"
    case .kafka(let error): error.description
    case .system(let error): error.description
    }
  }

  /// Runs `body`; what the kernel refuses becomes `system`.
  public static func catching<R>(_ body: () throws(SystemError) -> R) throws(NodeError) -> R {
    do { return try body() } catch { throw .system(error) }
  }
}
