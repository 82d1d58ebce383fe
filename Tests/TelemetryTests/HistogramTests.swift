import Telemetry
import TestSupport
import Testing

@Suite struct HistogramTests {
  @Test("percentiles are at most 3.2 % above those of the sorted values", arguments: Seed.some(20))
  func percentiles(seed: Seed) throws {
    var random = seed.random
    let values = (0..<2_000).map { _ in
      UInt64.random(in: 0...(1 << UInt64.random(in: 0...40, using: &random)), using: &random)
    }
    let histogram = Histogram()
    for value in values { histogram.record(nanoseconds: value) }
    let sorted = values.sorted()
    let snapshot = histogram.snapshot()
    #expect(snapshot.count == 2_000)
    #expect(snapshot.sum == values.reduce(0, +))
    for percent in [1.0, 25, 50, 90, 99, 99.9, 100] {
      let truth = sorted[max(1, Int((percent / 100 * 2_000).rounded(.up))) - 1]
      let got = try #require(snapshot.percentile(percent))
      #expect(got >= truth && Double(got) <= Double(truth) * 1.032 + 1, "p\(percent)")
    }
    #expect(snapshot.percentile(100) == sorted.last)
  }

  @Test("merged histograms equal the one that recorded all", arguments: Seed.some(5))
  func merging(seed: Seed) {
    var random = seed.random
    var parts = [Histogram.Snapshot(), Histogram.Snapshot()]
    var all = Histogram.Snapshot()
    for _ in 0..<1_000 {
      let value = random.next() >> 30
      parts[Int(value % 2)].record(nanoseconds: value)
      all.record(nanoseconds: value)
    }
    parts[0].merge(parts[1])
    #expect(parts[0] == all)
  }

  @Test("the greatest value has a bucket, and nothing recorded has no percentile")
  func edges() {
    let histogram = Histogram()
    #expect(histogram.snapshot().percentile(50) == nil)
    histogram.record(nanoseconds: .max)
    histogram.record(.seconds(-1))
    #expect(histogram.snapshot().percentile(100) == .max)
    #expect(histogram.snapshot().percentile(50) == 0)
  }
}
