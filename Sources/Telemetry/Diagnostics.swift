// Lines for operators: time, level, a fixed sentence, and what it is about as key=value. One line an event, on stderr;
// values are escaped, so that no id or peer can forge a line. Repeats of a sentence are held back and counted.

public import Posix
import Synchronization

/// How grave a line is.
public enum DiagnosticLevel: Int, Comparable, Sendable, CaseIterable {
  /// For whoever hunts a fault.
  case debug
  /// What happened, in order.
  case info
  /// Somebody should look soon; the work goes on.
  case warning
  /// Something was lost or stopped.
  case error

  public static func < (a: DiagnosticLevel, b: DiagnosticLevel) -> Bool { a.rawValue < b.rawValue }

  /// The word in the line.
  public var name: String {
    switch self {
    case .debug: "debug"
    case .info: "info"
    case .warning: "warning"
    case .error: "error"
    }
  }
}

/// The keys a line may have; one spelling for each thing.
public enum DiagnosticKey: String, Sendable, CaseIterable {
  case address, attempt, bytes, call, client, code, count, cluster, day, error, expected, file, found, from
  case group, heldBack = "held_back", id, key, limit, lag, line, max, node, offset, partition, path, peer, pid
  case reason, requests, remedy, seconds, shard, signal, state, threads, to, topic, user, users, value,
    version
  case watermark
}

/// Writes lines. Any thread.
public final class Diagnostics: Sendable {
  /// How lines look.
  public enum Format: String, Sendable, CaseIterable {
    /// `2026-11-24T12:00:00.000Z info listening address=127.0.0.1:7670`
    case text
    /// One JSON object a line.
    case json
  }

  /// Lines of one sentence and level within `repeatWindow`; the rest is held back and counted.
  public static let repeatsMax = 10
  /// How long a sentence's count lasts.
  public static let repeatWindow = Duration.seconds(10)
  /// Sentences whose repeats are counted at a time.
  static let sentencesMax = 1_024

  private struct Repeats {
    var since: Moment
    var count = 0
    var heldBack = 0
  }

  private let format: Format
  private let level: DiagnosticLevel
  private let clock: Clock
  private let sink: @Sendable (String) -> Void
  private let repeats = Mutex<[String: Repeats]>([:])

  /// - Parameters:
  ///   - format: how lines look.
  ///   - level: lines below it are dropped.
  ///   - clock: tells the time of a line.
  ///   - sink: takes a line with its newline; stderr unless told otherwise. Called by the thread that logs.
  public init(
    format: Format = .text, level: DiagnosticLevel = .info, clock: Clock = .system,
    sink: @escaping @Sendable (String) -> Void = { Diagnostics.writeToStandardError($0) }
  ) {
    self.format = format
    self.level = level
    self.clock = clock
    self.sink = sink
  }

  /// Writes a line, unless its level is too low or its sentence was written too often.
  ///
  /// - Parameters:
  ///   - level: how grave.
  ///   - message: a fixed sentence; what varies goes into the fields.
  ///   - fields: what it is about, in order.
  public func log(
    _ level: DiagnosticLevel, _ message: StaticString,
    _ fields: KeyValuePairs<DiagnosticKey, String> = [:]
  ) {
    guard level >= self.level else { return }
    let sentence = message.description
    guard let heldBack = admit(level.name + sentence) else { return }
    var pairs = fields.map { ($0.key.rawValue, $0.value) }
    if heldBack > 0 { pairs.append((DiagnosticKey.heldBack.rawValue, String(heldBack))) }
    let time = Diagnostics.timestamp(clock.wall)
    switch format {
    case .text:
      var line = "\(time) \(level.name) \(sentence)"
      for (key, value) in pairs { line += " \(key)=\(Diagnostics.textValue(value))" }
      sink(line + "\n")
    case .json:
      var line =
        "{\"time\":\"\(time)\",\"level\":\"\(level.name)\",\"message\":\(Diagnostics.quoted(sentence))"
      for (key, value) in pairs { line += ",\"\(key)\":\(Diagnostics.quoted(value))" }
      sink(line + "}\n")
    }
  }

  /// How many lines of a sentence were held back before this one; nil if this one is held back too.
  private func admit(_ sentence: String) -> Int? {
    let now = clock.now
    return repeats.withLock { all in
      if all.count >= Diagnostics.sentencesMax { all.removeAll() }
      var entry = all[sentence] ?? Repeats(since: now)
      defer { all[sentence] = entry }
      if now - entry.since >= Diagnostics.repeatWindow {
        let heldBack = entry.heldBack
        entry = Repeats(since: now, count: 1)
        return heldBack
      }
      guard entry.count < Diagnostics.repeatsMax else {
        entry.heldBack += 1
        return nil
      }
      entry.count += 1
      return 0
    }
  }

  /// Writes text to stderr; what cannot be written is lost.
  ///
  /// - Parameter text: the text.
  public static func writeToStandardError(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
      var rest = UnsafeRawBufferPointer(bytes)
      while rest.count > 0, let count = try? SystemCall.write(2, rest) {
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
    }
  }

  /// `2026-11-24T12:00:00.000Z`.
  static func timestamp(_ nanoseconds: Int64) -> String {
    let milliseconds = nanoseconds / 1_000_000
    let seconds = milliseconds / 1000
    let days = seconds / 86_400
    // Days before the year and month in a calendar whose year starts in March.
    let z = days + 719_468
    let era = z / 146_097
    let dayOfEra = z - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shifted = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shifted + 2) / 5 + 1
    let month = shifted < 10 ? shifted + 3 : shifted - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    let time = seconds % 86_400
    let date = "\(pad(year, 4))-\(pad(month, 2))-\(pad(day, 2))"
    let clock = "\(pad(time / 3600, 2)):\(pad(time / 60 % 60, 2)):\(pad(time % 60, 2))"
    return "\(date)T\(clock).\(pad(milliseconds % 1000, 3))Z"
  }

  private static func pad(_ value: Int64, _ width: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
  }

  /// A value in a text line: bare if it is plain, quoted otherwise.
  static func textValue(_ value: String) -> String {
    let plain = value.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != 0x22 && $0 != 0x3D && $0 != 0x5C }
    return plain && !value.isEmpty ? value : quoted(value)
  }

  /// A JSON string, with control characters, direction marks and line separators escaped.
  static func quoted(_ value: String) -> String {
    var result = "\""
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      default:
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator:
          for unit in String(scalar).utf16 {
            let digits = String(unit, radix: 16)
            result += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
          }
        default: result.unicodeScalars.append(scalar)
        }
      }
    }
    return result + "\""
  }
}
