// What every part of a node may know of it: settings, shards, dead letters, clock. And STATUS, which is made of them.

import Posix
import QueryProtocol
public import StepModel
import Telemetry

/// Shared by all threads of a node; holds no mutable state of its own.
final class NodeFacts: Sendable {
  let settings: Settings
  let cluster: ClusterSettings
  let folder: DataFolder
  let disk = DiskState()
  let shards = ShardSet()
  let desk = AdminDesk()
  let deadLetters: DeadLetters
  let metrics: Metrics
  let diagnostics: Diagnostics
  let clock: Clock
  private let started: Moment

  init(
    settings: Settings, cluster: ClusterSettings, folder: DataFolder, deadLetters: DeadLetters,
    metrics: Metrics,
    diagnostics: Diagnostics,
    clock: Clock
  ) {
    self.settings = settings
    self.cluster = cluster
    self.folder = folder
    self.deadLetters = deadLetters
    self.metrics = metrics
    self.diagnostics = diagnostics
    self.clock = clock
    started = clock.now
  }

  /// STATUS; the caller is inside the gates of all shards of `source`.
  func status(_ source: ShardSet.Source) -> StatusAnswer {
    var shards = source.shards.map { $0.status(endOffset: source.ends[$0.partition]) }
    // Those that are not read yet: their gates are not entered.
    for shard in source.restoring {
      shards.append(shard.gate.read { shard.status(endOffset: source.ends[shard.partition]) })
    }
    shards.sort { $0.partition < $1.partition }
    let elsewhere = source.shards.reduce(0) { $0 + $1.numbers.usersElsewhere }
    let state: RunState =
      if source.partitions == 0 || shards.isEmpty {
        .starting
      } else if shards.contains(where: { $0.state == .stopped }) {
        .stopped
      } else if shards.contains(where: { $0.state == .restoring }) {
        .restoring
      } else if shards.contains(where: { $0.state == .catchingUp }) {
        .catchingUp
      } else {
        .serving
      }
    return StatusAnswer(
      node: settings.nodeID, cluster: settings.clusterName, software: Version.text, state: state,
      uptimeMillis: UInt64(max(0, (clock.now - started).nanoseconds / 1_000_000)), shards: shards,
      counters: [
        Counter(name: "topic_partitions", value: UInt64(max(0, source.partitions))),
        Counter(name: "end_offsets_heard", value: source.endsHeard),
        Counter(name: "users_elsewhere", value: elsewhere),
        Counter(name: "connections", value: UInt64(max(0, metrics.total(.connections)))),
        Counter(name: "connections_closed", value: UInt64(max(0, metrics.total(.closed)))),
        Counter(name: "partial_answers", value: UInt64(max(0, metrics.total(.partialAnswers)))),
        Counter(name: "parked_requests", value: UInt64(max(0, metrics.total(.parkedRequests)))),
      ], problem: disk.problem ?? source.problem ?? "")
  }
}

extension Settings {
  /// The settings that all nodes of a cluster share.
  ///
  /// - Throws: `SettingsProblems` if the zone is unknown here.
  public func cluster() throws(SettingsProblems) -> ClusterSettings {
    let rule: DayRule
    do throws(StepModelError) {
      rule = try DayRule(dayZone)
    } catch {
      throw SettingsProblems(all: [
        SettingsProblem(place: "settings", key: "day.zone", reason: Settings.withoutKey(error.description))
      ])
    }
    let mode: StepsMode =
      stepsMode == "increment" ? .increment : stepsTotalPolicy == "max" ? .totalMax : .totalNewest
    return ClusterSettings(
      stepsMode: mode, dayRule: rule, acceptLate: dayAcceptLate, futureSlack: dayFutureSlack,
      stepsMax: UInt32(clamping: eventStepsMax), boardsWeek: boardsWeek, boardsMonth: boardsMonth,
      boardsAll: boardsAll)
  }

  /// The zone's error begins with the setting's name, and so does the line that shows it: once is enough.
  private static func withoutKey(_ text: String) -> String {
    let key = "day.zone: "
    return text.hasPrefix(key) ? String(text.dropFirst(key.count)) : text
  }
}
