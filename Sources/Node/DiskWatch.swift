// The disk under the data folder, looked at four times a second: whether it is there, whether it has room.
//
// Below the floor of `data.free_min` nothing more is read from Kafka, which holds the records meanwhile; answers go on,
// and reading does once there is a tenth more than the floor. A folder that is gone ends the node: what it would write
// from then on would be in no log.

import Posix
import Synchronization
import Telemetry

/// What is wrong with the disk; nil while nothing is. Any thread.
final class DiskState: Sendable {
  private let current = Mutex<String?>(nil)

  /// Why nothing may be written now: the shards are not given any more records until it is nil.
  var problem: String? { current.withLock { $0 } }

  /// - Returns: whether it is news.
  func set(_ problem: String?) -> Bool {
    current.withLock {
      let isNew = ($0 == nil) != (problem == nil)
      $0 = problem
      return isNew
    }
  }
}

/// The thread that looks.
final class DiskWatch: Sendable {
  static let interval = Duration.milliseconds(250)

  private let folder: DataFolder
  private let state: DiskState
  private let floor: UInt64
  private let files: Files
  private let diagnostics: Diagnostics
  private let onGone: @Sendable () -> Void
  private let stopping: WakeUp
  private let thread = Mutex<Thread?>(nil)

  /// - Parameters:
  ///   - folder: what is watched.
  ///   - state: where the outcome goes.
  ///   - floor: bytes that must stay free.
  ///   - files: the file system.
  ///   - diagnostics: where a change is told.
  ///   - onGone: called once, on this thread, if the folder is not the same any more.
  /// - Throws: `SystemError` if the kernel has no descriptor to give.
  init(
    _ folder: DataFolder, state: DiskState, floor: Int, files: Files, diagnostics: Diagnostics,
    onGone: @escaping @Sendable () -> Void
  ) throws(SystemError) {
    self.folder = folder
    self.state = state
    self.floor = UInt64(floor)
    self.files = files
    self.diagnostics = diagnostics
    self.onGone = onGone
    stopping = try WakeUp()
  }

  /// Looks once, then again and again on a thread.
  func start() throws(SystemError) {
    look()
    let started = try Thread("disk") { [self] in
      while !stopping.wait(DiskWatch.interval) {
        guard folder.isThere else { return onGone() }
        look()
      }
    }
    thread.withLock { $0 = started }
  }

  func stop() {
    stopping.signal()
    thread.withLock { $0.take() }?.join()
  }

  private func look() {
    guard let free = try? files.freeBytes(folder.path) else { return }
    let wanted = state.problem == nil ? floor : floor + floor / 10
    let problem =
      free >= wanted
      ? nil
      : "\(SizeText.rough(free)) free in \(folder.path), data.free_min is \(SizeText.write(Int(floor))):"
        + " nothing is read from Kafka until there is room"
    guard state.set(problem) else { return }
    if let problem {
      diagnostics.log(.error, "the disk is nearly full", [.reason: problem])
    } else {
      diagnostics.log(.info, "the disk has room again", [.bytes: "\(free)", .path: folder.path])
    }
  }
}
