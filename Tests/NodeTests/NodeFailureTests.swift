// What a node makes of a world that fails: disks, ports, folders, settings.

import KafkaSource
import Posix
import QueryProtocol
import RankMySteps
import SegmentLog
import StepModel
import Synchronization
import Telemetry
import TestSupport
import Testing

@testable import Node

@Suite(.serialized) struct NodeFailureTests {
  /// A disk that can be filled.
  private final class Disk: Sendable {
    private let full = Atomic<Bool>(false)

    var files: Files {
      Files { [self] call, _ in call == .pwrite && full.load(ordering: .acquiring) ? .noSpace : nil }
    }

    func fill() { full.store(true, ordering: .releasing) }
    func free() { full.store(false, ordering: .releasing) }
  }

  @Test("while the disk is full nothing more is read and answers go on; with room all goes on by itself")
  func fullDisk() throws {
    let disk = Disk()
    let world = try NodeWorld(partitions: 2, files: disk.files)
    try world.report("ada", 10, 0)
    try world.report("ben", 20, 1)
    #expect(try world.settled().state != .stopped)
    _ = try world.status { $0.shards.allSatisfy { $0.durable == $0.watermark } }
    disk.fill()
    try world.produce("{", 0)
    #expect(world.producer.flush())
    let status = try world.status { $0.shards.first?.state == .stopped }
    #expect(status.shards[0].reason.contains("no space"))
    #expect(try world.client.top(NodeWorld.day, limit: 10).rows.map(\.steps) == [20, 10])
    #expect(try world.deadLetters().isEmpty)
    disk.free()
    try world.report("ben", 5, 1)
    try world.report("ada", 1, 0)
    let settled = try world.settled()
    #expect(settled.counted == 4 && settled.rejected == 1)
    #expect(try world.client.top(NodeWorld.day, limit: 10).rows.map(\.steps) == [25, 11])
    #expect(try world.deadLetters(atLeast: 1).count == 1)
    _ = try world.status { $0.shards.allSatisfy { $0.durable == $0.watermark && $0.state == .serving } }
  }

  @Test("a board of a topic that is not here as a whole is never called closed")
  func closed() throws {
    let world = try NodeWorld(partitions: 1)
    try world.report("ada", 3, 0)
    try world.produce("{", 0, at: NodeWorld.noon + 30 * 86_400_000)
    _ = try world.settled()
    #expect(try world.client.top(NodeWorld.day, limit: 1).context.state == .closed)
    world.node.facts.shards.change { $0.partitions = 2 }
    let partial = try world.client.top(NodeWorld.day, limit: 1).context
    #expect(partial.state == .live && partial.missing == [1])
  }

  private func exitCode(
    _ files: Files = Files(), _ change: (inout Settings) -> Void
  ) -> Int32? {
    let folder = TemporaryFolder()
    var settings = NodeWorld.settings(folder.path, "127.0.0.1:1")
    change(&settings)
    do {
      _ = try NodeService(settings, diagnostics: NodeWorld.quiet, files: files)
      return nil
    } catch {
      return error.exitCode
    }
  }

  @Test("what keeps a node from starting has its own exit code")
  func exitCodes() throws {
    let taken = try Socket.listen(HostPort(host: "127.0.0.1", port: 0))
    let port = try Socket.localAddress(taken.number)
    #expect(exitCode { $0.queryListen = port } == 69)
    #expect(exitCode { $0.queryListen = HostPort(host: "192.0.2.1", port: 0) } == 69)
    let denied = Files { call, _ in call == .mkdir ? .accessDenied : nil }
    #expect(exitCode(denied) { $0.dataDir += "/new" } == 77)
    let readOnly = Files { call, _ in call == .open ? .readOnly : nil }
    #expect(exitCode(readOnly) { _ in } == 77)
    #expect(
      exitCode {
        $0.dataDir += "/new"
        $0.dataInit = "strict"
      } == 78)
    let folder = TemporaryFolder()
    _ = try Files().open(folder.path + "/file", .create)
    #expect(exitCode { $0.dataDir = folder.path + "/file" } == 78)
    #expect(exitCode { $0.dataDir = folder.path } == 78)
    #expect(exitCode(Files { call, _ in call == .fdatasync ? .inputOutput : nil }) { _ in } == 74)
    #expect(exitCode { $0.dayZone = "Mars/Olympus" } == 78)
    #expect(exitCode { $0.kafkaOther["no.such.key"] = "1" } == 78)
    #expect(exitCode { $0.dataDir += "/made/on/the/way" } == nil)
  }

  @Test("what a failed write left behind spoils neither reading nor what is written next")
  func failedWrite() throws {
    let folder = TemporaryFolder()
    let path = DeadLetters.path(folder.path)
    let disk = TornDisk()
    let letters = try DeadLetters(folder: folder.path, files: disk.files)
    func write(_ partition: Int32, _ bytes: Int) throws {
      let batch = letters.batch(
        of: LogIdentity(
          topic: "steps", topicID: LogIdentity.TopicID(high: 0, low: 0), partition: partition, fingerprint: 0)
      )
      [UInt8](repeating: 7, count: bytes).withUnsafeBytes {
        batch.add(offset: 1, timestamp: 2, reason: .malformed, payload: $0)
      }
      try letters.append(batch)
    }
    try write(0, 10)
    disk.isTorn.store(true, ordering: .releasing)
    #expect(throws: DeadLetterError.self) { try write(1, 100) }
    #expect(try letters.read(from: 0, limit: 9).letters.map(\.identity.partition) == [0])
    disk.isTorn.store(false, ordering: .releasing)
    try write(2, 10)
    #expect(try letters.read(from: 0, limit: 9).letters.map(\.identity.partition) == [0, 2])
    let again = try DeadLetters(folder: folder.path)
    #expect(again.tornBytes == 0)
    #expect(try again.read(from: 0, limit: 9).letters.map(\.identity.partition) == [0, 2])
    #expect(try Files().read(whole: path).count == again.read(from: 0, limit: 9).next)
  }

  /// A disk that takes the beginning of a write and then is full.
  private final class TornDisk: Sendable {
    let isTorn = Atomic<Bool>(false)

    var files: Files {
      Files { [self] call, path in
        guard call == .pwrite, isTorn.load(ordering: .acquiring) else { return nil }
        let half = [UInt8](repeating: 0xEE, count: 900)
        _ = half.withUnsafeBytes { bytes in
          try? Files().open(path, .append).append(bytes)
        }
        return .noSpace
      }
    }
  }
}
