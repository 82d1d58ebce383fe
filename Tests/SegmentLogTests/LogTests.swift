import Posix
import TestSupport
import Testing

@testable import SegmentLog

@Suite struct LogTests {
  @Test("what was given is durable after a flush, and read again after a restart", arguments: Seed.some(8))
  func writeAndRecover(seed: Seed) throws {
    let world = try LogWorld(seed: seed)
    for _ in 0..<5 {
      for _ in 0..<10 { try world.give(rowsMax: 400) }
      try world.log.flush()
      #expect(world.log.durable == world.source.next)
    }
    try world.log.close()
    #expect(world.notes.durable == world.source.next)
    #expect(world.notes.failures == [])
    let first = try world.restart()
    #expect(first.plan.start == .origin(world.given[0].first))
    #expect(first.plan.position?.watermark == world.source.next)
    #expect(!first.plan.foundDamage && first.plan.lost == nil && first.plan.tornBytes == 0)
    #expect(try first.rows() == world.rows())
    // A second run goes on in a new segment.
    for _ in 0..<10 { try world.give() }
    try world.log.close()
    let second = try world.restart()
    #expect(try second.rows() == world.rows())
    let middle = world.given[world.given.count / 2]
    let snapshot = SnapshotFacts(watermark: middle.rows[middle.rows.count / 2].offset, isGood: true)
    let third = try world.restart(snapshots: [snapshot])
    #expect(third.plan.start == .snapshot(snapshot.watermark))
    #expect(try third.rows() == world.rows(from: snapshot.watermark))
  }
}
