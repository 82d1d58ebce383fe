// What a data folder says of itself in `folder.rms`, as far as reading its files needs it.

public import Posix
public import SegmentLog
public import StepModel

/// Why a data folder cannot be read.
public enum InspectionError: Error, Equatable, CustomStringConvertible {
  /// The disk or its rights refuse, or a file is not there.
  case disk(SystemError)
  /// The folder's settings do not say something, or say it in a way that is not known.
  case settings(path: String, key: String)
  /// A file of the log cannot be read.
  case log(LogError)
  /// The files in a folder are those of another shard.
  case foreign(path: String, found: String)

  public var description: String {
    switch self {
    case .disk(let error): "\(error)"
    case .log(let error): "\(error)"
    case .foreign(let path, let found): "\(path) holds the log of \(found)"
    case .settings(let path, let key): "\(path) does not say \(key) as this version knows it"
    }
  }
}

/// The settings under which a folder's log was written.
public struct FolderSettings: Equatable, Sendable {
  /// The file's name in the data folder.
  public static let fileName = "folder.rms"

  public let topic: String
  public let mode: StepsMode
  /// `day.zone`: the name of a zone, or `event`.
  public let zone: String

  /// Reads the settings of a folder.
  ///
  /// - Parameters:
  ///   - folder: a node's data folder.
  ///   - files: the file system.
  /// - Throws: `disk` if there is none, `settings` if it is not one that is known.
  public init(folder: String, files: Files = Files()) throws(InspectionError) {
    let path = folder + "/" + FolderSettings.fileName
    let bytes: [UInt8]
    do throws(SystemError) { bytes = try files.read(whole: path, bytesMax: 64 << 10) } catch {
      throw .disk(error)
    }
    try self.init(text: String(decoding: bytes, as: UTF8.self), path: path)
  }

  /// Reads the settings from their text, `key = value` lines; unknown keys are passed over.
  ///
  /// - Parameters:
  ///   - text: the file's text.
  ///   - path: its name, for the error.
  /// - Throws: `settings` for a key that is absent or whose value is not known.
  public init(text: String, path: String) throws(InspectionError) {
    var values: [Substring: Substring] = [:]
    for line in text.split(separator: "\n") {
      guard let equals = line.range(of: " = ") else { continue }
      values[line[..<equals.lowerBound]] = line[equals.upperBound...]
    }
    func value(_ key: String) throws(InspectionError) -> String {
      guard let value = values[Substring(key)] else { throw .settings(path: path, key: key) }
      return String(value)
    }
    topic = try value("kafka.topic")
    switch try value("steps.mode") {
    case "increment": mode = .increment
    case "total, newest": mode = .totalNewest
    case "total, max": mode = .totalMax
    default: throw .settings(path: path, key: "steps.mode")
    }
    // Behind the zone's name stands which rules it had.
    zone = String(try value("day.zone").split(separator: ",").first ?? "")
  }
}

extension Substring {
  /// Where a text stands first; nil if nowhere.
  fileprivate func range(of text: String) -> Range<Index>? {
    var start = startIndex
    while start < endIndex {
      if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
      start = index(after: start)
    }
    return nil
  }
}
