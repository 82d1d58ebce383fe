// The thread that keeps shards' folders in order, away from ingest and answers: it writes snapshots, seals finished
// segments, removes what is past its time, and tries dead letters again that the disk refused.
//
// A snapshot is due when `snapshot.interval` has passed since the last one, or when a restart would have to read
// `snapshot.log_bytes` of log; when an administrator asks; and when the node stops.

import Posix
import SegmentLog
import StepModel
import Synchronization
import Telemetry

/// One a node.
final class Keeper: Sendable {
  static let interval = Duration.milliseconds(200)
  /// Log bytes from which on a stopping node writes a snapshot: less is read again as fast.
  static let stopBytes = 4 << 20

  private let shards: ShardSet
  private let world: StoreWorld
  private let snapshotInterval: Duration
  private let snapshotLogBytes: Int
  private let retention: Retention
  private let clock: Clock
  private let wake: WakeUp
  private let state = Mutex(State())

  private struct State: ~Copyable {
    var thread: Thread?
    var isStopping = false
    /// Shards whose snapshot, or sealing, was ordered.
    var snapshots: Set<Int32> = []
    var seals: Set<Int32> = []
  }

  init(
    _ shards: ShardSet, _ world: StoreWorld, settings: Settings, clock: Clock
  ) throws(SystemError) {
    self.shards = shards
    self.world = world
    snapshotInterval = settings.snapshotInterval
    snapshotLogBytes = settings.snapshotLogBytes
    retention = Retention(
      ageMax: settings.logRetentionAge,
      bytesMax: settings.logRetentionBytes == 0 ? nil : settings.logRetentionBytes)
    self.clock = clock
    wake = try WakeUp()
  }

  func start() throws(SystemError) {
    let thread = try Thread("keeper") { [self] in
      while !state.withLock({ $0.isStopping }) {
        for shard in shards.now.shards { keep(shard) }
        if wake.wait(Keeper.interval) { wake.clear() }
      }
    }
    state.withLock { $0.thread = thread }
  }

  func stop() {
    state.withLock { $0.isStopping = true }
    wake.signal()
    state.withLock { $0.thread.take() }?.join()
  }

  /// Orders a snapshot of a shard soon. Any thread.
  func orderSnapshot(_ partition: Int32) {
    state.withLock { _ = $0.snapshots.insert(partition) }
    wake.signal()
  }

  /// Orders that a shard's segment under way is finished and sealed. Any thread.
  func orderSeal(_ partition: Int32) {
    state.withLock { _ = $0.seals.insert(partition) }
    wake.signal()
  }

  /// Snapshots of shards that a restart would have to read much for; called while the keeper's thread stands still and
  /// the shards' threads do not.
  func lastSnapshots() {
    for shard in shards.now.shards where shard.store.bytesSinceSnapshot >= Keeper.stopBytes {
      snapshot(shard)
    }
  }

  private func keep(_ shard: Shard) {
    guard shard.restoredTo != nil else { return }
    shard.store.writeLetters()
    let (wantsSnapshot, wantsSeal) = state.withLock {
      ($0.snapshots.remove(shard.partition) != nil, $0.seals.remove(shard.partition) != nil)
    }
    if wantsSeal { shard.give(.endSegment) }
    if wantsSnapshot || isDue(shard) { snapshot(shard) }
    do throws(LogError) {
      try shard.store.seal()
      try shard.store.retain(retention, nowMs: clock.wall / 1_000_000)
    } catch {
      world.diagnostics.log(
        .error, "a segment could not be sealed or removed",
        [.partition: "\(shard.partition)", .reason: error.description])
      if case .syncFailed = error { world.onFailure(.log(error)) }
    }
  }

  private func isDue(_ shard: Shard) -> Bool {
    let store = shard.store
    if store.bytesSinceSnapshot >= snapshotLogBytes { return true }
    return store.bytesSinceSnapshot > 0 && clock.now - store.snapshotAt >= snapshotInterval
  }

  /// Writes a snapshot of the shard as it is now.
  private func snapshot(_ shard: Shard) {
    let begin = clock.now
    shard.store.snapshotBegins()
    guard let image = shard.freeze() else { return }
    do throws(LogError) {
      let writer = try written(image, of: shard)
      guard try shard.store.finish(writer, watermark: image.numbers.watermark) else { return }
    } catch {
      return failed(shard, error)
    }
    world.diagnostics.log(
      .info, "snapshot written",
      [
        .partition: "\(shard.partition)", .watermark: "\(image.numbers.watermark)",
        .users: "\(image.boards.users)",
        .seconds: "\(Double((clock.now - begin).nanoseconds / 1_000_000) / 1_000)",
      ])
  }

  /// The image's file but for its name. The image ends here: the shard's writer need not save anything for it while the
  /// disk is waited for.
  private func written(_ image: ShardImage, of shard: Shard) throws(LogError) -> SnapshotWriter {
    defer { shard.thaw() }
    return try ShardSnapshot.write(image, of: shard, files: world.files)
  }

  private func failed(_ shard: Shard, _ error: LogError) {
    world.diagnostics.log(
      .error, "a snapshot could not be written; the log stays as it is, and it is tried again",
      [.partition: "\(shard.partition)", .reason: error.description])
    if case .syncFailed = error { world.onFailure(.log(error)) }
  }
}
