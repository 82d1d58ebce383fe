import Posix
import Synchronization
import TestSupport
import Testing

@testable import SegmentLog

/// Fails calls from the n-th on, or only that one, until it is mended.
private final class Fault: Sendable {
  private struct State {
    var left: Int
    var calls: [String] = []
    var isMended = false
  }
  private let state: Mutex<State>
  let kinds: Set<FileCall>
  let errno: Errno

  init(_ kinds: Set<FileCall>, after calls: Int, _ errno: Errno) {
    state = Mutex(State(left: calls))
    self.kinds = kinds
    self.errno = errno
  }

  var files: Files {
    Files { [self] call, path in
      state.withLock { state in
        guard kinds.contains(call) else { return nil }
        state.calls.append("\(call) \(path)")
        state.left -= 1
        return state.left < 0 && !state.isMended ? errno : nil
      }
    }
  }

  func mend() { state.withLock { $0.isMended = true } }
  var calls: [String] { state.withLock { $0.calls } }
}

@Suite struct DiskTests {
  @Test(
    "a failed sync is said once and final, no file is synced after it, and a restart equals",
    arguments: 0..<20)
  func syncFails(calls: Int) throws {
    let fault = Fault([.fdatasync], after: calls, .inputOutput)
    let world = try LogWorld(seed: Seed(UInt64(calls) + 1), files: fault.files)
    var failure: LogError?
    do throws(any Error) {
      for _ in 0..<100 {
        try world.give(rowsMax: 300)
        try world.log.flush()
      }
    } catch { failure = error as? LogError }
    guard case .syncFailed(let path, .inputOutput) = failure else {
      Issue.record("ended with \(String(describing: failure))")
      return
    }
    #expect(path.hasSuffix(".seg"))
    #expect(throws: LogError.syncFailed(path: path, errno: .inputOutput)) { try world.log.close() }
    #expect(world.notes.failures == [.syncFailed(path: path, errno: .inputOutput)])
    #expect(fault.calls.count == calls + 1)
    let durable = world.log.durable
    let recovery = try world.restart()
    let end = recovery.plan.position?.watermark ?? durable
    #expect(end >= durable && !recovery.plan.foundDamage)
    #expect(try recovery.rows() == world.rows(to: end))
  }

  @Test(
    "a full disk is said once; what waits is kept, taken until the limit, and written when there is room",
    arguments: [0, 1, 2, 3, 5], [FileCall.pwrite, .fallocate, .open])
  func diskFull(calls: Int, call: FileCall) throws {
    let fault = Fault([call], after: call == .pwrite ? calls : 0, .noSpace)
    let limits = LogLimits(
      segmentBytes: 64 << 10, pendingBytesMax: 20_000, syncInterval: .zero, retryInterval: .milliseconds(1))
    let world = try LogWorld(seed: Seed(UInt64(calls) + 30), limits: limits, files: fault.files)
    while !world.notes.all.contains(where: { if case .full = $0 { true } else { false } }) {
      try world.give(rowsMax: 20)
      Thread.yield()
    }
    while try world.give(rowsMax: 100) {}
    fault.mend()
    try world.log.waitForRoom()
    try world.give()
    try world.log.close()
    let notes = world.notes.all
    let fulls = notes.filter { if case .full = $0 { true } else { false } }.count
    #expect(fulls == 1 && notes.filter { $0 == .room }.count == 1)
    #expect(world.notes.failures == [])
    let recovery = try world.restart()
    #expect(recovery.plan.position?.watermark == world.source.next)
    #expect(try recovery.rows() == world.rows())
  }

  @Test("a failed write is final", arguments: 0..<4)
  func writeFails(calls: Int) throws {
    let fault = Fault([.pwrite], after: calls, .inputOutput)
    let world = try LogWorld(seed: Seed(50), files: fault.files)
    #expect(throws: LogError.self) {
      for _ in 0..<10 {
        try world.give()
        try world.log.flush()
      }
    }
    // Who gives hears of it as it happens; the observer right after.
    let end = Clock.system.now + .seconds(30)
    while world.notes.failures.isEmpty, Clock.system.now < end {}
    #expect(world.notes.failures.count == 1)
    #expect(throws: LogError.self) { try world.log.close() }
    let durable = world.log.durable
    let recovery = try world.restart()
    #expect((recovery.plan.position?.watermark ?? durable) >= durable)
    #expect(try recovery.rows() == world.rows(to: recovery.plan.position?.watermark ?? durable))
  }

  @Test(
    "a crash after any call leaves what was durable, and nothing else than a beginning", arguments: 0..<60)
  func prefixes(calls: Int) throws {
    let fault = Fault(Set(FileCall.allCases), after: calls, .inputOutput)
    let world = try LogWorld(seed: Seed(60), files: fault.files)
    do {
      for _ in 0..<30 {
        try world.give(rowsMax: 900)
        try world.log.flush()
      }
    } catch {}
    try? world.log.close()
    let durable = world.log.durable
    let recovery = try world.restart()
    let end = recovery.plan.position?.watermark ?? durable
    #expect(end >= durable && !recovery.plan.foundDamage)
    #expect(try recovery.rows() == world.rows(to: end))
  }

  @Test("writes that take a few bytes at a time write all")
  func shortWrites() throws {
    let world = try LogWorld(seed: Seed(70), files: Files(writeBytesMax: 11) { _, _ in nil })
    for _ in 0..<10 { try world.give(rowsMax: 100) }
    try world.log.close()
    let recovery = try world.restart()
    #expect(try recovery.rows() == world.rows())
    #expect(!recovery.rowsEmpty)
  }

  @Test("a segment is ended when it is asked for, and the log goes on in the next")
  func ended() throws {
    let world = try LogWorld(seed: Seed(80))
    try world.give()
    world.log.endSegment()
    try world.give()
    try world.log.close()
    let names = try LogFolder.segments(in: world.folder)
    #expect(names.map(\.base) == world.given.map(\.first))
    #expect(world.notes.all.filter { if case .finished = $0 { true } else { false } }.count == 2)
    #expect(throws: LogError.closed(path: world.folder)) { try world.log.flush() }
    let recovery = try world.restart()
    #expect(try recovery.rows() == world.rows())
  }

  @Test("positions and accepted gaps move the watermark and give no rows")
  func withoutRows() throws {
    let world = try LogWorld(seed: Seed(90))
    try world.give()
    let position = world.source.next + 10
    _ = try world.log.pass(to: position, clockMs: 5, newestMs: 5)
    _ = try world.log.acceptGap(to: position + 1_000, clockMs: 5, newestMs: 5)
    try world.log.close()
    let recovery = try world.recover()
    #expect(recovery.plan.position?.watermark == position + 1_000)
    var kinds: [BatchKind] = []
    try recovery.replay { batch, _ in kinds.append(batch.header.kind) }
    #expect(kinds == [.records, .position, .gap])
    #expect(try recovery.rows() == world.rows())
  }
}

extension Recovery {
  fileprivate var rowsEmpty: Bool { plan.rows.isEmpty }
}
