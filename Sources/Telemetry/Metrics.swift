// The registry: counters, gauges and histograms by metric and label values, and their Prometheus text (version 0.0.4).
// Whoever counts asks for its counter once and keeps it; counting is one relaxed atomic addition.

import Synchronization

/// A number that only grows. Any thread.
public final class Counter: Sendable {
  private let count = Atomic<Int64>(0)

  /// Adds to it.
  ///
  /// - Parameter more: 0 or more.
  public func add(_ more: Int64 = 1) { count.add(more, ordering: .relaxed) }

  /// The count so far.
  public var value: Int64 { count.load(ordering: .relaxed) }
}

/// A number that goes up and down. Any thread.
public final class Gauge: Sendable {
  private let current = Atomic<Int64>(0)

  /// Replaces the number.
  ///
  /// - Parameter new: the new one.
  public func set(_ new: Int64) { current.store(new, ordering: .relaxed) }

  /// Adds to it.
  ///
  /// - Parameter more: negative to take away.
  public func add(_ more: Int64) { current.add(more, ordering: .relaxed) }

  /// The number now.
  public var value: Int64 { current.load(ordering: .relaxed) }
}

/// All metrics of a node. Any thread; asking for a counter takes a lock, counting does not.
public final class Metrics: Sendable {
  /// Series of one metric at most: label values come from code and settings, never from clients.
  public static let seriesMax = 4_096

  private enum Cell: Sendable {
    case counter(Counter)
    case gauge(Gauge)
    case histogram(Histogram)
  }

  private struct Series: Sendable {
    let labels: [String]
    let cell: Cell
  }

  private let series = Mutex<[Metric: [Series]]>([:])

  public init() {}

  /// The counter of a metric and its label values; made at the first call.
  ///
  /// - Parameters:
  ///   - metric: a counter of the table.
  ///   - labels: one value for each of the metric's labels.
  /// - Returns: the counter; keep it.
  public func counter(_ metric: Metric, _ labels: String...) -> Counter {
    precondition(metric.row.kind == .counter, "\(metric.row.name) is a \(metric.row.kind)")
    guard case .counter(let counter) = cell(metric, labels, { .counter(Counter()) }) else {
      preconditionFailure("\(metric.row.name) holds something else than a counter")
    }
    return counter
  }

  /// The gauge of a metric and its label values; made at the first call.
  ///
  /// - Parameters:
  ///   - metric: a gauge of the table.
  ///   - labels: one value for each of the metric's labels.
  /// - Returns: the gauge; keep it.
  public func gauge(_ metric: Metric, _ labels: String...) -> Gauge {
    precondition(metric.row.kind == .gauge, "\(metric.row.name) is a \(metric.row.kind)")
    guard case .gauge(let gauge) = cell(metric, labels, { .gauge(Gauge()) }) else {
      preconditionFailure("\(metric.row.name) holds something else than a gauge")
    }
    return gauge
  }

  /// The histogram of a metric and its label values; made at the first call.
  ///
  /// - Parameters:
  ///   - metric: a histogram of the table.
  ///   - labels: one value for each of the metric's labels.
  /// - Returns: the histogram; keep it.
  public func histogram(_ metric: Metric, _ labels: String...) -> Histogram {
    precondition(metric.row.kind == .histogram, "\(metric.row.name) is a \(metric.row.kind)")
    guard case .histogram(let histogram) = cell(metric, labels, { .histogram(Histogram()) }) else {
      preconditionFailure("\(metric.row.name) holds something else than a histogram")
    }
    return histogram
  }

  /// Replaces all series of a gauge in one step: for what is read off at scrape time, where things come and go.
  ///
  /// - Parameters:
  ///   - metric: a gauge of the table; `gauge(_:_:)` is not used for it beside this.
  ///   - values: a value for each list of label values; none twice, and what is beyond `seriesMax` is left out.
  public func replace(_ metric: Metric, _ values: [(labels: [String], value: Int64)]) {
    let row = metric.row
    precondition(row.kind == .gauge, "\(row.name) is a \(row.kind)")
    let list = values.prefix(Metrics.seriesMax).map { labels, value in
      precondition(labels.count == row.labels.count, "\(row.name) has labels \(row.labels), got \(labels)")
      let gauge = Gauge()
      gauge.set(value)
      return Series(labels: labels, cell: .gauge(gauge))
    }
    series.withLock { $0[metric] = list.isEmpty ? nil : list }
  }

  /// The sum of a counter or gauge over all its label values; 0 if it was never asked for.
  ///
  /// - Parameter metric: a counter or gauge of the table.
  /// - Returns: the sum.
  public func total(_ metric: Metric) -> Int64 {
    series.withLock { $0[metric] ?? [] }.reduce(0) { sum, series in
      switch series.cell {
      case .counter(let counter): sum + counter.value
      case .gauge(let gauge): sum + gauge.value
      case .histogram(let histogram): sum + Int64(clamping: histogram.snapshot().count)
      }
    }
  }

  private func cell(_ metric: Metric, _ labels: [String], _ make: @Sendable () -> Cell) -> Cell {
    let row = metric.row
    precondition(labels.count == row.labels.count, "\(row.name) has labels \(row.labels), got \(labels)")
    return series.withLock { all in
      var list = all[metric] ?? []
      if let found = list.first(where: { $0.labels == labels }) { return found.cell }
      precondition(list.count < Metrics.seriesMax, "\(row.name) has \(list.count) series")
      let cell = make()
      list.append(Series(labels: labels, cell: cell))
      all[metric] = list
      return cell
    }
  }

  /// The text that Prometheus reads; type `text/plain; version=0.0.4`.
  ///
  /// - Returns: every series, a metric's lines together after its HELP and TYPE, ending with a newline.
  public func prometheusText() -> String {
    let all = series.withLock { $0 }
    var text = ""
    for metric in Metric.allCases {
      guard let list = all[metric] else { continue }
      let row = metric.row
      text += "# HELP \(row.name) \(Metrics.escaped(row.help, quote: false))\n"
      text += "# TYPE \(row.name) \(row.kind.rawValue)\n"
      for series in list {
        let labels = zip(row.labels, series.labels).map { "\($0)=\"\(Metrics.escaped($1, quote: true))\"" }
        switch series.cell {
        case .counter(let counter): text += line(row.name, labels, String(counter.value))
        case .gauge(let gauge): text += line(row.name, labels, String(gauge.value))
        case .histogram(let histogram): text += lines(row.name, labels, histogram.snapshot())
        }
      }
    }
    return text
  }

  private func line(_ name: String, _ labels: [String], _ value: String) -> String {
    labels.isEmpty ? "\(name) \(value)\n" : "\(name){\(labels.joined(separator: ","))} \(value)\n"
  }

  private func lines(_ name: String, _ labels: [String], _ histogram: Histogram.Snapshot) -> String {
    var text = ""
    for (bound, nanoseconds) in Metrics.bounds {
      text += line(
        name + "_bucket", labels + ["le=\"\(bound)\""], String(histogram.countUpTo(nanoseconds: nanoseconds)))
    }
    text += line(name + "_bucket", labels + ["le=\"+Inf\""], String(histogram.count))
    text += line(name + "_sum", labels, Metrics.seconds(histogram.sum))
    text += line(name + "_count", labels, String(histogram.count))
    return text
  }

  /// Upper bounds of the buckets shown, in seconds and in nanoseconds.
  private static let bounds: [(String, UInt64)] = [
    ("0.0001", 100_000), ("0.00025", 250_000), ("0.0005", 500_000), ("0.001", 1_000_000),
    ("0.0025", 2_500_000), ("0.005", 5_000_000), ("0.01", 10_000_000), ("0.025", 25_000_000),
    ("0.05", 50_000_000), ("0.1", 100_000_000), ("0.25", 250_000_000), ("0.5", 500_000_000),
    ("1", 1_000_000_000), ("2.5", 2_500_000_000), ("5", 5_000_000_000), ("10", 10_000_000_000),
  ]

  private static func seconds(_ nanoseconds: UInt64) -> String {
    let fraction = String(nanoseconds % 1_000_000_000)
    let zeros = String(repeating: "0", count: 9 - fraction.utf8.count)
    return "\(nanoseconds / 1_000_000_000).\(zeros)\(fraction)"
  }

  private static func escaped(_ text: String, quote: Bool) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\"" where quote: result += "\\\""
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
