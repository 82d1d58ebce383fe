import Posix
import TestSupport
import Testing

@testable import SegmentLog

/// A shard's one segment as bytes, to be spoiled.
private struct Original {
  let name: SegmentName
  let bytes: [UInt8]
  let batches: [ModelBatch]
  /// Byte of each batch, and of the end.
  let places: [Int]

  /// A log that was synced after each count of batches in `flushed`; the rest never was.
  init(seed: Seed, batches count: Int, rowsMax: Int, flushed: Set<Int>) throws {
    let world = try LogWorld(
      seed: seed, limits: LogLimits(segmentBytes: 1 << 20, syncInterval: .seconds(60)))
    for place in 1...count {
      try world.give(rowsMax: rowsMax)
      if flushed.contains(place) { try world.log.flush() }
    }
    try world.log.close()
    batches = world.given
    name = try LogFolder.segments(in: world.folder)[0]
    let image = try SegmentImage(name, in: world.folder, files: Files())
    bytes = Array(image.bytes)
    let (header, check) = try image.header(of: walkers)
    var walk = SegmentWalk(image, header: header, check: check)
    var places: [Int] = []
    while let batch = try walk.next() { places.append(batch.place) }
    self.places = places + [walk.place]
  }

  /// Puts spoiled bytes into a folder and recovers it.
  func recover(_ spoiled: [UInt8], snapshots: [SnapshotFacts] = [], in folder: String) throws -> Recovery {
    let file = try Files().open(folder + "/" + name.text, .replace)
    try file.write(all: spoiled, at: 0)
    let recovery = try Recovery(folder: folder, identity: walkers, snapshots: snapshots)
    try recovery.apply()
    return recovery
  }

  func rows(from start: Int64 = 0, to end: Int64) -> [ModelRow] {
    batches.flatMap(\.rows).filter { (start..<end).contains($0.offset) }.map(\.read)
  }

  /// Watermarks at which a state may be.
  var borders: Set<Int64> { Set([batches[0].first] + batches.map(\.next)) }
}

private func emptied(_ folder: TemporaryFolder) throws {
  for name in try Files().names(in: folder.path) { try Files().remove(folder.path + "/" + name) }
}

@Suite struct RecoveryTests {
  @Test(
    "cut at each of its last 4,096 bytes, a log is what it was up to a batch's border",
    arguments: [false, true])
  func cuts(isPadded: Bool) throws {
    let original = try Original(seed: Seed(3), batches: 30, rowsMax: 14, flushed: [10, 20])
    let folder = TemporaryFolder()
    var torn = 0
    var damaged = 0
    try #require(original.bytes.count > 4_700)
    for lost in stride(from: 1, through: 4_096, by: isPadded ? 5 : 1) {
      var spoiled = Array(original.bytes.dropLast(lost))
      if isPadded { spoiled += [UInt8](repeating: 0, count: lost + 40) }
      let recovery = try original.recover(spoiled, in: folder.path)
      let end = recovery.plan.position?.watermark ?? original.batches[0].first
      #expect(original.borders.contains(end))
      let whole = original.places.lastIndex { $0 <= original.bytes.count - lost } ?? 0
      // A batch may end in zeros that the padding gives back.
      #expect(end == original.batches[whole].first || isPadded && end == original.batches[whole].next)
      if recovery.plan.foundDamage { damaged += 1 } else { torn += 1 }
      if lost % 16 == 0 {
        #expect(try recovery.rows() == original.rows(to: end))
        let again = try Recovery(folder: folder.path, identity: walkers, snapshots: [])
        #expect(again.plan.position?.watermark == end && again.plan.tornBytes == 0 && !again.plan.foundDamage)
      }
      try emptied(folder)
    }
    // Nothing behind the cut says that it was synced.
    #expect(damaged == 0 && torn >= (isPadded ? 800 : 4_096))
  }

  @Test(
    "each bit of a batch flipped is found: damage where a mark is above it, else a torn tail",
    arguments: [2, 7])
  func bits(place: Int) throws {
    let original = try Original(seed: Seed(4), batches: 8, rowsMax: 6, flushed: [1, 2, 3, 4, 5])
    let folder = TemporaryFolder()
    let snapshot = SnapshotFacts(watermark: original.batches[6].next, isGood: true)
    let first = original.batches[place].first
    for bit in (original.places[place] * 8)..<(original.places[place + 1] * 8) {
      var spoiled = original.bytes
      spoiled[bit / 8] ^= 1 << UInt8(bit % 8)
      let recovery = try original.recover(spoiled, in: folder.path)
      #expect(recovery.plan.position?.watermark == first, "bit \(bit)")
      #expect(recovery.plan.foundDamage == (place == 2), "bit \(bit)")
      if place == 2 {
        #expect(recovery.plan.lost == first..<original.batches[7].next)
        #expect(try Files().names(in: folder.path).contains { $0.hasSuffix(".damaged") })
      } else {
        #expect(recovery.plan.tornBytes > 0)
      }
      if bit % 64 == 0 { #expect(try recovery.rows() == original.rows(to: first)) }
      try emptied(folder)
      if bit % 16 == 0, place == 2 {
        // With a snapshot above it the state does not need the batch.
        let saved = try original.recover(spoiled, snapshots: [snapshot], in: folder.path)
        #expect(saved.plan.start == .snapshot(snapshot.watermark))
        #expect(saved.plan.position?.watermark == snapshot.watermark)
        #expect(saved.plan.foundDamage)
        try emptied(folder)
      }
    }
  }

  @Test("behind a hole a good batch decides by its mark: none above the hole, torn; one above it, damage")
  func holes() throws {
    for (flushed, isDamage) in [([1, 2], false), ([1, 2, 3], true)] {
      let original = try Original(seed: Seed(6), batches: 5, rowsMax: 30, flushed: Set(flushed))
      var spoiled = original.bytes
      for byte in original.places[2]..<original.places[3] { spoiled[byte] = 0 }
      let folder = TemporaryFolder()
      let recovery = try original.recover(spoiled, in: folder.path)
      #expect(recovery.plan.foundDamage == isDamage)
      #expect((recovery.plan.tornBytes > 0) == !isDamage)
      #expect(recovery.plan.position?.watermark == original.batches[2].first)
      #expect(recovery.plan.lost == original.batches[2].first..<original.batches[4].next)
      #expect(try recovery.rows() == original.rows(to: original.batches[2].first))
    }
  }

  @Test("a folder of another shard, topic id, or settings is refused with both values, and not touched")
  func foreign() throws {
    let world = try LogWorld(seed: Seed(8))
    try world.give()
    try world.log.close()
    let before = try Files().names(in: world.folder)
    func identity(_ topic: String, _ low: UInt64, _ partition: Int32, _ fingerprint: UInt64) -> LogIdentity {
      LogIdentity(
        topic: topic, topicID: .init(high: walkers.topicID.high, low: low), partition: partition,
        fingerprint: fingerprint)
    }
    let low = walkers.topicID.low
    let print = walkers.fingerprint
    for (other, field) in [
      (identity("runs", low, 3, print), IdentityDifference.Field.topic),
      (identity("steps", 1, 3, print), .topicID), (identity("steps", low, 4, print), .partition),
      (identity("steps", low, 3, 1), .settings),
    ] {
      let recovery = try Recovery(folder: world.folder, identity: other, snapshots: [])
      #expect(recovery.plan.start == .refused)
      guard case .foreign(_, _, let difference) = recovery.plan.refusal else {
        Issue.record("\(field) was not refused")
        continue
      }
      #expect(difference.field == field && difference.found != difference.expected)
      try recovery.apply()
      #expect(try Files().names(in: world.folder) == before)
    }
  }

  @Test("a sealed segment that no longer opens keeps what is good of it", arguments: Seed.some(3))
  func brokenFrame(seed: Seed) throws {
    let world = try LogWorld(seed: seed)
    for _ in 0..<40 { try world.give(rowsMax: 900) }
    try world.log.close()
    let bases = try LogFolder.segments(in: world.folder).map(\.base)
    for base in bases { try Sealer.seal(base: base, in: world.folder, identity: walkers) }
    let path = world.folder + "/" + SegmentName(base: bases[1], form: .sealed).text
    let file = try Files().open(path, .update)
    try file.truncate(bytesCount: try file.bytesCount() - 7)
    let recovery = try world.recover()
    #expect(recovery.plan.foundDamage)
    let end = recovery.plan.position?.watermark ?? -1
    #expect(end >= bases[1] && end <= bases[2])
    #expect(try recovery.rows() == world.rows(to: end))
    let again = try world.recover()
    #expect(again.plan.position?.watermark == end && !again.plan.foundDamage)
    #expect(try again.rows() == world.rows(to: end))
  }

  @Test("a snapshot ahead of the log is set aside, and so is a bad one")
  func snapshots() throws {
    let world = try LogWorld(seed: Seed(12))
    for _ in 0..<10 { try world.give() }
    try world.log.close()
    let end = world.source.next
    let middle = world.given[4].next
    let plan = try world.recover(snapshots: [
      SnapshotFacts(watermark: end + 1, isGood: true), SnapshotFacts(watermark: end, isGood: false),
      SnapshotFacts(watermark: middle, isGood: true),
    ]).plan
    #expect(plan.start == .snapshot(middle))
    #expect(plan.snapshotsAside == [end + 1, end])
    #expect(plan.position?.watermark == end)
  }
}
