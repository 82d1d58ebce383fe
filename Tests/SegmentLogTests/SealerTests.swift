import Glibc
import Posix
import Synchronization
import TestSupport
import Testing

@testable import SegmentLog

/// Lets so many calls through, then none: what a crash after each of them leaves.
private final class Countdown: Sendable {
  private let left: Mutex<Int>
  init(_ calls: Int) { left = Mutex(calls) }
  var isOver: Bool {
    left.withLock {
      $0 -= 1
      return $0 < 0
    }
  }
}

@Suite struct SealerTests {
  /// A closed log of several segments, the bases of which are returned.
  private func closed(_ seed: Seed) throws -> (LogWorld, [Int64]) {
    let world = try LogWorld(seed: seed)
    for _ in 0..<40 { try world.give(rowsMax: 900) }
    try world.log.close()
    let bases = try LogFolder.segments(in: world.folder).map(\.base)
    #expect(bases.count > 2)
    return (world, bases)
  }

  @Test("a sealed log reads as the plain one did, all of it or from a snapshot", arguments: Seed.some(4))
  func sealed(seed: Seed) throws {
    let (world, bases) = try closed(seed)
    for base in bases {
      let report = try Sealer.seal(base: base, in: world.folder, identity: walkers)
      #expect(report.bytesAfter < report.bytesBefore + 100)
    }
    #expect(try LogFolder.segments(in: world.folder) == bases.map { SegmentName(base: $0, form: .sealed) })
    #expect(try Files().names(in: world.folder).allSatisfy { $0.hasSuffix(".seg.lz4") })
    let recovery = try world.restart()
    #expect(try recovery.rows() == world.rows())
    let snapshot = SnapshotFacts(watermark: bases[2], isGood: true)
    let later = try world.restart(snapshots: [snapshot])
    #expect(later.plan.rows[0].facts.finding == .unread)
    #expect(try later.rows() == world.rows(from: bases[2]))
    for name in try LogFolder.segments(in: world.folder) {
      #expect(try LogFolder.verify(name, in: world.folder, identity: walkers).finding == .whole)
    }
  }

  @Test("the program lz4 makes the segment of the sealed one")
  func program() throws {
    let (world, bases) = try closed(Seed(5))
    let path = world.folder + "/" + SegmentName(base: bases[0], form: .plain).text
    let before = try Files().read(whole: path)
    try Sealer.seal(base: bases[0], in: world.folder, identity: walkers)
    let pipe = popen("lz4 -dc '\(path).lz4'", "r")
    let stream = try #require(pipe)
    var bytes: [UInt8] = []
    var room = [UInt8](repeating: 0, count: 65_536)
    while case let count = fread(&room, 1, room.count, stream), count > 0 { bytes += room[..<count] }
    #expect(pclose(stream) == 0)
    #expect(bytes == before)
  }

  @Test("a crash after any call of sealing loses nothing", arguments: 0...14)
  func prefixes(calls: Int) throws {
    let (world, bases) = try closed(Seed(9))
    let countdown = Countdown(calls)
    let files = Files { _, _ in countdown.isOver ? .inputOutput : nil }
    let wasSealed: Bool
    do throws(LogError) {
      try Sealer.seal(base: bases[1], in: world.folder, identity: walkers, files: files)
      wasSealed = true
    } catch { wasSealed = false }
    let recovery = try world.restart()
    #expect(!recovery.plan.foundDamage)
    #expect(try recovery.rows() == world.rows())
    let names = try Files().names(in: world.folder)
    #expect(names.filter { SegmentName($0)?.base == bases[1] }.count == 1)
    #expect(!names.contains { $0.hasSuffix(".tmp") })
    // All calls were let through at last, so the row of prefixes is whole.
    if calls == 14 { #expect(wasSealed) }
    if calls == 0 { #expect(!wasSealed) }
  }

  @Test("a damaged segment is not sealed, and stays")
  func damaged() throws {
    let (world, bases) = try closed(Seed(11))
    let path = world.folder + "/" + SegmentName(base: bases[1], form: .plain).text
    let file = try Files().open(path, .update)
    try file.write(all: [0xAA], at: 700)
    #expect(throws: LogError.self) { try Sealer.seal(base: bases[1], in: world.folder, identity: walkers) }
    #expect(Files().exists(path) && !Files().exists(path + ".lz4"))
  }

  @Test(
    "a frame cut or changed anywhere opens in part or not at all, and never as whole", arguments: Seed.some(3)
  )
  func frames(seed: Seed) throws {
    var random = seed.random
    let content = (0..<3_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
    let frame = content.withUnsafeBytes { content in
      var frame = LZ4FrameWriter(contentBytes: content.count)
      return Array(frame.piece(content)) + Array(frame.end())
    }
    for place in frame.indices {
      var changed = frame
      if place % 3 == 0 {
        changed.removeLast(frame.count - place)
      } else {
        changed[place] ^= UInt8.random(in: 1...255, using: &random)
      }
      changed.withUnsafeBytes { changed in
        guard let opened = LZ4Frame.decompress(changed, bytesMax: 1 << 20) else { return }
        defer { opened.memory.deallocate() }
        if opened.isWhole { #expect(Array(opened.memory[..<opened.bytesCount]) == content, "byte \(place)") }
      }
    }
  }
}

@Suite struct RetentionTests {
  private func segments(_ count: Int) -> [Retention.Segment] {
    (0..<Int64(count)).map {
      Retention.Segment(
        name: SegmentName(base: $0 * 100, form: .sealed), end: $0 * 100 + 100, bytes: 10,
        endedMs: $0 * 1_000)
    }
  }

  private func gone(_ rule: Retention, snapshot: Int64?, confirmed: Int64?, now: Int64 = 6_000) -> Int {
    rule.removable(segments(6), snapshotOldest: snapshot, confirmed: confirmed, nowMs: now).count
  }

  @Test("old segments go, and the oldest of too many bytes")
  func ageAndBytes() {
    #expect(gone(Retention(), snapshot: 600, confirmed: nil) == 0)
    #expect(gone(Retention(ageMax: .seconds(4)), snapshot: 600, confirmed: nil) == 2)
    #expect(gone(Retention(bytesMax: 25), snapshot: 600, confirmed: nil) == 4)
    #expect(gone(Retention(ageMax: .seconds(5), bytesMax: 45), snapshot: 600, confirmed: nil) == 2)
  }

  @Test("nothing goes that a snapshot or the archive still needs, nor the last segment")
  func bounds() {
    let all = Retention(bytesMax: 0)
    #expect(gone(all, snapshot: nil, confirmed: nil) == 0)
    #expect(gone(all, snapshot: 600, confirmed: nil) == 5)
    #expect(gone(all, snapshot: 250, confirmed: nil) == 2)
    #expect(gone(all, snapshot: 600, confirmed: 0) == 0)
    #expect(gone(all, snapshot: 600, confirmed: 399) == 3)
  }
}
