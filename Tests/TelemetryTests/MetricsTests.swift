import Telemetry
import Testing

@Suite struct MetricsTests {
  @Test("names have the prefix and the ending of their kind, and none occurs twice")
  func names() {
    #expect(Set(Metric.allCases.map(\.row.name)).count == Metric.allCases.count)
    for metric in Metric.allCases {
      let row = metric.row
      #expect(row.name.hasPrefix("rms_"))
      #expect((row.kind == .counter) == row.name.hasSuffix("_total"), "\(row.name)")
      if row.kind == .histogram { #expect(row.name.hasSuffix("_seconds")) }
      #expect(row.help.hasSuffix("."))
    }
  }

  @Test("the text has HELP and TYPE once, escaped labels, and cumulative buckets up to +Inf")
  func text() {
    let metrics = Metrics()
    metrics.counter(.closed, "a\"b\\c\nd").add(3)
    metrics.counter(.closed, "idle").add()
    #expect(metrics.counter(.closed, "idle").value == 1)
    metrics.gauge(.connections).set(7)
    let seconds = metrics.histogram(.querySeconds)
    seconds.record(nanoseconds: 90_000)
    seconds.record(nanoseconds: 2_000_000)
    seconds.record(nanoseconds: 20_000_000_000)
    let lines = metrics.prometheusText().split(separator: "\n", omittingEmptySubsequences: false)
    #expect(lines.last == "")
    #expect(lines.filter { $0.hasPrefix("# TYPE rms_closed_total") } == ["# TYPE rms_closed_total counter"])
    #expect(lines.contains(#"rms_closed_total{reason="a\"b\\c\nd"} 3"#))
    #expect(lines.contains(#"rms_closed_total{reason="idle"} 1"#))
    #expect(lines.contains("rms_connections 7"))
    #expect(lines.contains(#"rms_query_seconds_bucket{le="0.0001"} 1"#))
    #expect(lines.contains(#"rms_query_seconds_bucket{le="0.0025"} 2"#))
    #expect(lines.contains(#"rms_query_seconds_bucket{le="10"} 2"#))
    #expect(lines.contains(#"rms_query_seconds_bucket{le="+Inf"} 3"#))
    #expect(lines.contains("rms_query_seconds_count 3"))
    #expect(lines.contains("rms_query_seconds_sum 20.002090000"))
    #expect(metrics.total(.closed) == 4)
  }
}
