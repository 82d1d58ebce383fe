// Whose a data folder is: what is taken, what is refused, and what the refusal says.

import Posix
import StepModel
import Synchronization
import TestSupport
import Testing

@testable import Node

@Suite struct DataFolderTests {
  private let folder = TemporaryFolder()

  private func settings(_ change: (inout Settings) -> Void = { _ in }) -> Settings {
    var settings = NodeWorld.settings(folder.path + "/data", "127.0.0.1:1")
    change(&settings)
    return settings
  }

  private func open(
    initialises: Bool = true, files: Files = Files(), _ change: (inout Settings) -> Void = { _ in }
  ) throws -> DataFolder {
    let settings = settings(change)
    return try DataFolder(settings, try settings.cluster(), initialises: initialises, files: files)
  }

  private func refusal(
    initialises: Bool = true, _ change: (inout Settings) -> Void = { _ in }
  ) -> DataFolderError? {
    do {
      _ = try open(initialises: initialises, change)
      return nil
    } catch { return error as? DataFolderError }
  }

  private func put(_ text: String, _ name: String) throws {
    try Files().makeFolder(folder.path + "/data")
    let file = try Files().open(folder.path + "/data/" + name, .replace)
    try Array(text.utf8).withUnsafeBytes { try file.write($0, at: 0) }
  }

  @Test("an absent or empty folder is initialised once, and opened by the same node afterwards")
  func initialised() throws {
    #expect(refusal(initialises: false) == .notInitialised(path: folder.path + "/data"))
    do { _ = try open() }
    do { _ = try open(initialises: false) }
    let text = try Files().read(whole: folder.path + "/data/folder.rms")
    #expect(
      String(decoding: text, as: UTF8.self).hasPrefix("RankMySteps data folder, format 1\ncluster.name = "))
  }

  @Test("an empty folder under strict is a disk that is not mounted")
  func strict() throws {
    try Files().makeFolder(folder.path + "/data/lost+found")
    #expect(refusal(initialises: false) == .notInitialised(path: folder.path + "/data"))
    #expect(DataFolderError.notInitialised(path: "/x").description.contains("rmsd --init"))
  }

  @Test("a folder in use is refused with the process that has it, and free again once that is gone")
  func locked() throws {
    do {
      let first = try open()
      guard case .locked(_, let process) = refusal() else {
        Issue.record("opened twice")
        return
      }
      #expect(Int(process) != nil && first.isThere)
    }
    _ = try open()
  }

  @Test("a folder of somebody else's files is refused with one of them")
  func foreign() throws {
    try put("family", "photo.jpg")
    #expect(refusal() == .foreign(path: folder.path + "/data", example: "photo.jpg"))
  }

  @Test("a folder of another cluster, node, topic or rule is refused with both values")
  func others() throws {
    do { _ = try open() }
    let path = folder.path + "/data"
    #expect(
      refusal { $0.clusterName = "other" }
        == .others(path: path, key: "cluster.name", theirs: "rankmysteps", ours: "other"))
    #expect(
      refusal { $0.nodeID = "node-2" }
        == .others(path: path, key: "node.id", theirs: "node-1", ours: "node-2"))
    #expect(
      refusal { $0.kafkaTopic = "runs" }
        == .others(path: path, key: "kafka.topic", theirs: NodeWorld.topic, ours: "runs"))
    #expect(
      refusal { $0.eventStepsMax = 9 }
        == .others(path: path, key: "event.steps_max", theirs: "100000", ours: "9"))
    guard case .others(_, "day.zone", _, _) = refusal({ $0.dayZone = "Europe/Berlin" }) else {
      Issue.record("another zone's folder was opened")
      return
    }
    // What does not enter the state may change.
    #expect(refusal { $0.queryThreads = 2 } == nil)
  }

  @Test("a folder of a newer version is refused with the line that says so")
  func newer() throws {
    try put("RankMySteps data folder, format 2\n", "folder.rms")
    #expect(
      refusal()
        == .newerFormat(path: folder.path + "/data/folder.rms", line: "RankMySteps data folder, format 2"))
  }

  @Test("a folder that was replaced while in use is missed")
  func gone() throws {
    let data = try open()
    #expect(data.isThere)
    try Files().rename(folder.path + "/data", to: folder.path + "/away")
    #expect(!data.isThere)
    try Files().makeFolder(folder.path + "/data")
    try put("RankMySteps data folder, format 1\n", "folder.rms")
    #expect(!data.isThere)
  }

  @Test("a crash at any call of the first start leaves a folder that the second takes")
  func crashes() throws {
    for call in 1...20 {
      let folder = TemporaryFolder()
      let settings = NodeWorld.settings(folder.path + "/data", "127.0.0.1:1")
      let calls = FailingFrom(call)
      let first = try? DataFolder(settings, try settings.cluster(), initialises: true, files: calls.files)
      let failed = first == nil
      _ = consume first
      _ = try DataFolder(settings, try settings.cluster(), initialises: true, files: Files())
      if !failed { return }
    }
    Issue.record("more than 20 calls")
  }

  /// A disk whose n-th call and all after it fail, as if the process had died there.
  private final class FailingFrom: Sendable {
    private let first: Int
    private let seen = Atomic<Int>(0)

    init(_ first: Int) { self.first = first }

    var files: Files {
      Files { [self] _, _ in
        seen.add(1, ordering: .relaxed).newValue >= first ? .inputOutput : nil
      }
    }
  }
}
