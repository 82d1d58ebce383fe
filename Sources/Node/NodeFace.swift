// What a node shows over HTTP: /livez, /readyz, /metrics. State is read off when somebody asks; what must not be lost
// when a shard goes (counters, delays) is counted by the shards as it happens.

import HTTPFace
import Posix
import QueryProtocol
import StepModel
import Synchronization
import Telemetry

/// The counters that all shards of a node share: one atomic addition each, kept over a shard's life.
struct ShardMeters: Sendable {
  private let counted: Telemetry.Counter
  private let rejectedTotal: Telemetry.Counter
  /// By `RejectReason.rawValue`.
  private let reasons: [Telemetry.Counter]
  private let visibleDelay: Histogram

  init(_ metrics: Metrics) {
    counted = metrics.counter(.events, "counted")
    rejectedTotal = metrics.counter(.events, "rejected")
    reasons = RejectReason.allCases.map { metrics.counter(.badRecords, $0.name) }
    visibleDelay = metrics.histogram(.visibleDelay)
  }

  /// A chunk became visible.
  ///
  /// - Parameters:
  ///   - count: records of it that were counted.
  ///   - newestMs: Kafka timestamp of its last record, milliseconds since 1970; negative if it had none.
  ///   - wallMs: the time now, milliseconds since 1970. A record from the future has no delay and is left out.
  func applied(counted count: UInt64, newestMs: Int64, wallMs: Int64) {
    counted.add(Int64(clamping: count))
    guard newestMs >= 0, wallMs >= newestMs else { return }
    visibleDelay.record(nanoseconds: UInt64(wallMs - newestMs) * 1_000_000)
  }

  /// Records were rejected.
  ///
  /// - Parameter counts: how many, by `RejectReason.rawValue`.
  func rejected(_ counts: [UInt64]) {
    for (reason, count) in counts.enumerated() where count > 0 {
      rejectedTotal.add(Int64(clamping: count))
      reasons[reason].add(Int64(clamping: count))
    }
  }
}

/// Answers the paths. Any thread, several at a time.
final class NodeFace: Sendable {
  private let facts: NodeFacts
  private let isStopping = Atomic<Bool>(false)
  private let files = Files()

  init(_ facts: NodeFacts) {
    self.facts = facts
    facts.metrics.gauge(.buildInfo, Version.text).set(1)
    _ = facts.metrics.counter(.deadLetterFailures)
    _ = facts.metrics.counter(.partialAnswers)
  }

  /// Not ready from here on.
  func stopping() { isStopping.store(true, ordering: .releasing) }

  /// What is at a path; nil if nothing is.
  func answer(_ request: HTTPRequest) -> HTTPAnswer? {
    switch request.path {
    case "/livez": live()
    case "/readyz": HealthPage.answer(readiness().checks, request.arguments)
    case "/metrics": metrics()
    default: nil
    }
  }

  private func live() -> HTTPAnswer {
    var lines = ""
    for shard in facts.shards.now.shards {
      guard let still = shard.progress.stuck else { continue }
      lines +=
        "[-]shard \(shard.partition) stands still for \(still.components.seconds) s with work waiting\n"
    }
    return lines.isEmpty
      ? HTTPAnswer(status: 200, body: "ok\n") : HTTPAnswer(status: 503, body: lines)
  }

  private func readiness() -> ReadinessView {
    let source = facts.shards.now
    var view = ReadinessView()
    view.isStopping = isStopping.load(ordering: .acquiring)
    view.sourceProblem = source.problem
    view.partitions = source.partitions
    view.shards = source.shards.count
    for shard in source.shards + source.restoring {
      // The gate of a stuck thread may never open.
      if shard.progress.stuck != nil {
        view.stuck.append(shard.partition)
        continue
      }
      let (problem, reachedEnd) = shard.gate.read {
        (shard.reason, shard.numbers.reachedEnd)
      }
      if let problem { view.stopped.append((shard.partition, problem)) }
      if !reachedEnd { view.catchingUp.append(shard.partition) }
    }
    view.deadLettersAreWritable = files.isWritable(DeadLetters.path(facts.settings.dataDir))
    view.diskFreeBytes = try? files.freeBytes(facts.settings.dataDir)
    return view
  }

  /// A shard's row in the gauges.
  private struct ShardReading {
    let partition: String
    let state: RunState
    let watermark: Int64
    let lag: Int64
    let newestMs: Int64
    let users: Int
    let usersElsewhere: UInt64
  }

  private func metrics() -> HTTPAnswer {
    let source = facts.shards.now
    let readings = (source.shards + source.restoring).filter { $0.progress.stuck == nil }.map { shard in
      shard.gate.read {
        let status = shard.status(endOffset: source.ends[shard.partition])
        return ShardReading(
          partition: "\(shard.partition)", state: status.state, watermark: status.watermark, lag: status.lag,
          newestMs: shard.numbers.newest, users: shard.boards.users,
          usersElsewhere: shard.numbers.usersElsewhere)
      }
    }
    let metrics = facts.metrics
    metrics.replace(
      .shardState,
      readings.flatMap { reading in
        RunState.allCases.map { ([reading.partition, $0.name], reading.state == $0 ? 1 : 0) }
      })
    metrics.replace(.watermark, readings.map { ([$0.partition], $0.watermark) })
    metrics.replace(.kafkaLag, readings.filter { $0.lag >= 0 }.map { ([$0.partition], $0.lag) })
    metrics.replace(
      .lastEvent, readings.filter { $0.newestMs >= 0 }.map { ([$0.partition], $0.newestMs / 1000) })
    metrics.replace(.users, [([], Int64(readings.reduce(0) { $0 + $1.users }))])
    metrics.replace(
      .usersElsewhere, [([], Int64(clamping: readings.reduce(0) { $0 + $1.usersElsewhere }))])
    let free = try? files.freeBytes(facts.settings.dataDir)
    metrics.replace(.diskFree, free.map { [([], Int64(clamping: $0))] } ?? [])
    return HTTPAnswer(
      status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8", body: metrics.prometheusText())
  }
}
