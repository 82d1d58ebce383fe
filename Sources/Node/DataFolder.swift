// The node's data folder: whose it is, that nobody else uses it, and that it is still there.
//
//   folder.rms   which cluster, node, topic and settings the files belong to; text, a `key = value` a line
//   lock         held by the process that uses the folder
//
// A folder that is absent or empty is initialised (`data.init = auto`), or only by `rmsd --init` (`strict`, for folders
// that are mount points: an empty one means that the disk is not mounted). A folder of somebody else, of another node
// or of other settings is refused: its totals would be wrong here.

internal import Glibc
public import Posix
public import StepModel
import Synchronization

/// Why a data folder cannot be used.
public enum DataFolderError: Error, Equatable {
  /// The disk or its rights refuse.
  case disk(SystemError)
  /// Another process uses it.
  case locked(path: String, process: String)
  /// It holds files, and no `folder.rms`.
  case foreign(path: String, example: String)
  /// It is not there or not initialised, and `data.init` is `strict`.
  case notInitialised(path: String)
  /// `folder.rms` is of a format that this version does not know.
  case newerFormat(path: String, line: String)
  /// It belongs to another cluster, node, topic or group of settings.
  case others(path: String, key: String, theirs: String, ours: String)
  /// It was removed, replaced or unmounted while the node ran.
  case gone(path: String)
}

/// A data folder in use by this process, until this object goes. Any thread.
final class DataFolder: Sendable {
  static let markerName = "folder.rms"
  static let lockName = "lock"
  /// First line of the marker; the number is the format's version.
  static let heading = "RankMySteps data folder, format 1"

  let path: String
  private let lock: Mutex<File?>
  private let marker: File

  /// Takes a folder, and initialises it if it may.
  ///
  /// - Parameters:
  ///   - settings: whose folder it is.
  ///   - cluster: the settings that enter the state.
  ///   - initialises: whether an absent or empty folder becomes ours.
  ///   - files: the file system.
  /// - Throws: `DataFolderError`.
  init(
    _ settings: Settings, _ cluster: ClusterSettings, initialises: Bool, files: Files
  ) throws(DataFolderError) {
    let path = settings.dataDir
    self.path = path
    let text = DataFolder.marker(settings, cluster)
    if !files.isFolder(path) {
      guard initialises else { throw .notInitialised(path: path) }
      try DataFolder.disk { () throws(SystemError) in try files.makeFolder(path) }
    }
    let names = try DataFolder.disk { () throws(SystemError) in try files.names(in: path) }
    let hasMarker = names.contains(DataFolder.markerName)
    if !hasMarker {
      // `lost+found` is what mkfs leaves; a lock or an unfinished marker is what a crash leaves.
      let own = [DataFolder.lockName, DataFolder.markerName + ".new", "lost+found"]
      if let example = names.first(where: { !own.contains($0) }) {
        throw .foreign(path: path, example: example)
      }
      guard initialises else { throw .notInitialised(path: path) }
    }
    lock = Mutex(try DataFolder.locked(path, files))
    let markerPath = path + "/" + DataFolder.markerName
    if hasMarker {
      let found = try DataFolder.disk { () throws(SystemError) in
        try files.read(whole: markerPath, bytesMax: 64 << 10)
      }
      try DataFolder.compare(String(decoding: found, as: UTF8.self), text, path)
    } else {
      try DataFolder.disk { () throws(SystemError) in try DataFolder.write(text, in: path, files) }
    }
    marker = try DataFolder.disk { () throws(SystemError) in try files.open(markerPath, .read) }
  }

  /// Lets another process have the folder, once nothing of this one writes there any more.
  func release() { lock.withLock { $0 = nil } }

  /// Whether the folder is still the one that was opened.
  var isThere: Bool { marker.isAtItsPath() }

  private static func marker(_ settings: Settings, _ cluster: ClusterSettings) -> String {
    """
    \(heading)
    cluster.name = \(settings.clusterName)
    node.id = \(settings.nodeID)
    kafka.topic = \(settings.kafkaTopic)
    \(cluster.text)
    """
  }

  /// Lines of both, in order: the first that differs is the one to name.
  private static func compare(_ theirs: String, _ ours: String, _ path: String) throws(DataFolderError) {
    let found = theirs.split(separator: "\n").map(String.init)
    let wanted = ours.split(separator: "\n").map(String.init)
    guard found.first == heading else {
      throw .newerFormat(path: path + "/" + markerName, line: String((found.first ?? "").prefix(80)))
    }
    for (index, line) in wanted.enumerated() where index >= found.count || found[index] != line {
      let key = line.split(separator: " ").first.map(String.init) ?? line
      func value(_ text: String) -> String {
        text.hasPrefix(key + " = ") ? String(text.dropFirst(key.count + 3)) : text
      }
      throw .others(
        path: path, key: key, theirs: index < found.count ? value(found[index]) : "", ours: value(line))
    }
  }

  private static func write(_ text: String, in folder: String, _ files: Files) throws(SystemError) {
    let new = folder + "/" + markerName + ".new"
    let file = try files.open(new, .replace)
    let bytes = Array(text.utf8)
    try write(bytes, to: file)
    try file.sync()
    try files.rename(new, to: folder + "/" + markerName)
    try files.syncFolder(folder)
  }

  private static func write(_ bytes: [UInt8], to file: borrowing File) throws(SystemError) {
    var failure: SystemError?
    bytes.withUnsafeBytes {
      do throws(SystemError) { try file.write($0, at: 0) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  private static func locked(_ folder: String, _ files: Files) throws(DataFolderError) -> File {
    let path = folder + "/" + lockName
    let file = try disk { () throws(SystemError) in try files.open(path, .update) }
    let isOurs = try disk { () throws(SystemError) in try file.lock() }
    guard isOurs else {
      let holder = (try? files.read(whole: path, bytesMax: 64)).map { String(decoding: $0, as: UTF8.self) }
      throw .locked(path: folder, process: holder.map { String($0.prefix { $0 != "\n" }) } ?? "?")
    }
    try disk { () throws(SystemError) in
      try file.truncate(bytesCount: 0)
      try write(Array("\(getpid())\n".utf8), to: file)
    }
    return file
  }

  private static func disk<R: ~Copyable>(
    _ body: () throws(SystemError) -> R
  ) throws(DataFolderError) -> R {
    do { return try body() } catch { throw .disk(error) }
  }
}

extension DataFolderError: CustomStringConvertible {
  /// Exit code after systemd.exec(5).
  var exitCode: Int32 {
    switch self {
    case .disk(let error):
      switch error.errno {
      case .accessDenied, .notPermitted, .readOnly: 77
      case .notFolder, .noSuchFile: 78
      default: 74
      }
    case .locked: 75
    case .foreign, .notInitialised, .newerFormat, .others: 78
    case .gone: 74
    }
  }

  /// A sentence that names the thing and the remedy.
  public var description: String {
    switch self {
    case .disk(let error):
      switch error.errno {
      case .accessDenied, .notPermitted, .readOnly:
        "\(error); give the folder to the user that runs rmsd, or set data.dir to another"
      case .notFolder: "\(error); a file is in the way, set data.dir to another place"
      default: "\(error)"
      }
    case .locked(let path, let process):
      "\(path) is in use by process \(process); stop that node, or set data.dir to another folder"
    case .foreign(let path, let example):
      "\(path) is not a data folder of rmsd: it holds \(example) and no \(DataFolder.markerName); set data.dir to an"
        + " empty folder"
    case .notInitialised(let path):
      "\(path) is not initialised; if its disk is mounted, run rmsd --init with the same settings (data.init = strict)"
    case .newerFormat(let path, let line):
      "\(path) begins with '\(line)', this version knows '\(DataFolder.heading)'; run the version that wrote it or a"
        + " newer one"
    case .others(let path, let key, let theirs, let ours):
      "\(path) was written with \(key) = \(theirs), the settings say \(key) = \(ours); set it back, or give this node"
        + " an empty folder: it reads the topic anew then"
    case .gone(let path):
      "\(path) was removed, replaced or unmounted while the node ran; bring it back and start the node again"
    }
  }
}
