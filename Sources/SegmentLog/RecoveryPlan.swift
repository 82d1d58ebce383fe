// What recovery does, as a table: from what lies in the files and which snapshots are good follow the state's start,
// where the log goes on, and what becomes of each file. No file is touched here.
//
//   found in a file                                         becomes
//   ------------------------------------------------------  ------------------------------------------------------------
//   newer version or kind; other topic, partition, settings  refuse: nothing is touched, the error names both
//   whole, holds batches                                     keep; the last one is cut to what it holds and synced
//   whole, holds none; not made to its end                   remove
//   plain beside a whole sealed one of the same base         remove; beside a broken sealed one: the sealed goes aside
//   broken, nothing known to be synced lies at the hole      torn tail: cut at the last whole batch, bytes reported
//   broken elsewhere, and the state can start above it       set aside whole: the state does not need it
//   broken elsewhere, and the state ends at the hole         damage: what lies behind the hole is set aside, then cut
//   good, behind the watermark at which the log goes on      set aside: the records between are lost and read again
//
// "Known to be synced": below the newest synced mark of any header or batch, and below every good snapshot's watermark.
// Runs are stretches of log without a hole. The state can start at a good snapshot that the log reaches, or at the
// log's origin; of all starts the one wins from which the log leads furthest, then the one that replays least.

/// What is known of a snapshot.
public struct SnapshotFacts: Hashable, Sendable {
  public var watermark: Int64
  /// Whether it was read to its end and checks, for this very shard.
  public var isGood: Bool

  public init(watermark: Int64, isGood: Bool) {
    self.watermark = watermark
    self.isGood = isGood
  }
}

/// What is to be done, and from where the state comes.
public struct RecoveryPlan: Hashable, Sendable {
  /// Where the state comes from.
  public enum Start: Hashable, Sendable {
    /// The folder holds nothing: a new shard.
    case empty
    /// The empty state, then the whole log.
    case origin(Int64)
    /// A snapshot, then the log from there.
    case snapshot(Int64)
    /// Files are there, and none leads to a state: no good snapshot, and the log does not reach back to its origin.
    /// Nothing is touched; another source, or a person, must decide.
    case nothing
    /// A file must not be touched by this program; see `refusal`.
    case refused
  }

  /// What becomes of a file.
  public enum Action: Hashable, Sendable {
    case keep
    /// Keep the first `bytes`, which are the file's good content, and sync it; bytes from `synced` on are written anew.
    case trim(bytes: Int, synced: Int)
    /// A torn tail: keep the first `bytes`; `lost` bytes behind them were never whole.
    case cut(bytes: Int, synced: Int, lost: Int)
    /// Damage: copy what lies behind `bytes` to a file of its own, then cut there. Of a sealed segment those bytes
    /// become a plain one, and the sealed goes aside.
    case setAsideTail(bytes: Int, synced: Int)
    /// Rename it to `….damaged`.
    case setAside
    /// Remove it: it holds nothing that is not elsewhere.
    case remove
    case refuse
  }

  /// A file with what becomes of it.
  public struct Row: Hashable, Sendable {
    public let facts: SegmentFacts
    public let action: Action
    /// Why, in a few words.
    public let reason: String
  }

  public var start: Start
  /// Where the log goes on, and from where Kafka is read; nil with `empty`, `nothing` and `refused`.
  public var position: LogPosition?
  public var rows: [Row]
  /// Snapshots that are no good, or ahead of the log.
  public var snapshotsAside: [Int64]
  public var refusal: LogError?
  /// Watermarks of records that were in the log and are read from Kafka again; nil if none are.
  public var lost: Range<Int64>?
  /// Bytes of a torn tail.
  public var tornBytes: Int

  /// Whether the log was damaged, not only torn.
  public var foundDamage: Bool {
    rows.contains { row in
      switch row.action {
      case .setAside, .setAsideTail: true
      case .keep, .trim, .cut, .remove, .refuse: false
      }
    }
  }
}

extension RecoveryPlan {
  /// Decides.
  ///
  /// - Parameters:
  ///   - segments: what was found in the files.
  ///   - snapshots: those in the folder.
  /// - Returns: the plan; rows in the order of the bases.
  public static func make(segments: [SegmentFacts], snapshots: [SnapshotFacts]) -> RecoveryPlan {
    let sorted = segments.sorted { $0.name < $1.name }
    for facts in sorted {
      if case .refused(let error) = facts.finding { return refusing(error, sorted) }
    }
    var planner = Planner(sorted, snapshots)
    return planner.plan()
  }

  private static func refusing(_ error: LogError, _ segments: [SegmentFacts]) -> RecoveryPlan {
    let rows = segments.map { facts in
      if case .refused(let error) = facts.finding {
        Row(facts: facts, action: .refuse, reason: "\(error)")
      } else {
        Row(facts: facts, action: .keep, reason: "another file is refused")
      }
    }
    return RecoveryPlan(
      start: .refused, position: nil, rows: rows, snapshotsAside: [], refusal: error, lost: nil, tornBytes: 0)
  }
}

/// A stretch of log without a hole.
private struct Run {
  var start: Int64
  var end: Int64
  var check: UInt32
  var origin: Int64
  /// Whether the log begins here: the state was empty at its start.
  var isFromOrigin: Bool
  /// Places in the list of segments.
  var members: [Int]
}

/// The reasoning, step by step.
private struct Planner {
  private var segments: [SegmentFacts]
  private let snapshots: [SnapshotFacts]
  private var decided: [Int: (RecoveryPlan.Action, String)] = [:]
  private var runs: [Run] = []
  /// Newest watermark that was known to be synced.
  private var mark: Int64 = 0
  /// How far the log ever reached.
  private var reach: Int64 = -1

  init(_ segments: [SegmentFacts], _ snapshots: [SnapshotFacts]) {
    self.segments = segments
    self.snapshots = snapshots.sorted { $0.watermark > $1.watermark }
  }

  mutating func plan() -> RecoveryPlan {
    settlePairs()
    reach = segments.map(\.reach).max() ?? -1
    let good = snapshots.filter { $0.isGood && $0.watermark <= reach }.map(\.watermark)
    mark = max(segments.map(\.mark).max() ?? 0, good.first ?? 0)
    findRuns()
    let aside = snapshots.map(\.watermark).filter { !good.contains($0) }
    guard let (start, end, run) = choose(good) else { return withoutStart() }
    for place in segments.indices where decided[place] == nil { decide(place, end: end, run: run) }
    let lostEnd = max(reach, end)
    let rows = self.rows
    return RecoveryPlan(
      start: start,
      position: LogPosition(
        watermark: end, origin: run?.origin ?? segments.compactMap(\.origin).min() ?? end,
        checkBefore: run?.end == end ? run?.check ?? 0 : 0),
      rows: rows, snapshotsAside: aside, refusal: nil, lost: lostEnd > end ? end..<lostEnd : nil,
      tornBytes: rows.reduce(0) {
        if case .cut(_, _, let lost) = $1.action { return $0 + lost }
        return $0
      })
  }

  private var rows: [RecoveryPlan.Row] {
    segments.indices.map { place in
      let (action, reason) = decided[place] ?? (.keep, "")
      return RecoveryPlan.Row(facts: segments[place], action: action, reason: reason)
    }
  }

  private func withoutStart() -> RecoveryPlan {
    let isEmpty = segments.allSatisfy { $0.finding == .unmade || isEmptySegment($0) } && snapshots.isEmpty
    let rows = segments.map { facts in
      isEmpty
        ? RecoveryPlan.Row(facts: facts, action: .remove, reason: "holds nothing")
        : RecoveryPlan.Row(facts: facts, action: .keep, reason: "no state is to be had from these files")
    }
    return RecoveryPlan(
      start: isEmpty ? .empty : .nothing, position: nil, rows: rows, snapshotsAside: [], refusal: nil,
      lost: nil, tornBytes: 0)
  }

  private func isEmptySegment(_ facts: SegmentFacts) -> Bool {
    facts.finding == .whole && facts.end == facts.name.base
  }

  /// Of a segment in both forms one goes.
  private mutating func settlePairs() {
    for place in segments.indices.dropLast() where segments[place].name.base == segments[place + 1].name.base
    {
      let sealed = segments[place + 1]
      if sealed.finding == .whole && sealed.end == segments[place].end
        || sealed.finding == .whole && segments[place].finding != .whole
      {
        decided[place] = (.remove, "sealed already")
      } else {
        decided[place + 1] = (.setAside, "the plain segment is there, and this one does not equal it")
      }
    }
  }

  private mutating func findRuns() {
    var current: Run?
    func close() {
      if let run = current, run.end > run.start { runs.append(run) }
      current = nil
    }
    let taken = segments.indices.filter { decided[$0] == nil }
    for (index, place) in taken.enumerated() {
      let facts = segments[place]
      switch facts.finding {
      case .unmade, .headless, .refused: continue
      case .whole, .unread, .broken: break
      }
      let follows = current.map { run in
        run.end == facts.name.base && (run.check == 0 || run.check == facts.checkBefore)
      }
      if follows != true {
        close()
        current = Run(
          start: facts.name.base, end: facts.name.base, check: 0, origin: facts.origin ?? 0,
          isFromOrigin: facts.origin == facts.name.base, members: [])
      }
      current?.members.append(place)
      current?.end = facts.end
      // One without a batch goes, and what is written next follows the batch before it.
      current?.check = facts.end == facts.name.base ? facts.checkBefore : facts.check
      if case .unread = facts.finding {
        // What follows says how far it goes; its last check is not known.
        let next = index + 1 < taken.count ? segments[taken[index + 1]].name.base : facts.end
        segments[place].end = next
        segments[place].reach = max(facts.reach, next)
        current?.end = next
        current?.check = 0
      }
      if case .broken = facts.finding { close() }
    }
    close()
  }

  /// The start from which the log leads furthest.
  private func choose(_ good: [Int64]) -> (RecoveryPlan.Start, end: Int64, Run?)? {
    var best: (start: RecoveryPlan.Start, at: Int64, end: Int64, run: Run?)?
    func offer(_ start: RecoveryPlan.Start, _ at: Int64, _ end: Int64, _ run: Run?) {
      if let best, (best.end, best.at) >= (end, at) { return }
      best = (start, at, end, run)
    }
    for run in runs where run.isFromOrigin { offer(.origin(run.start), run.start, run.end, run) }
    for watermark in good {
      for run in runs where (run.start...run.end).contains(watermark) {
        offer(.snapshot(watermark), watermark, run.end, run)
      }
      offer(.snapshot(watermark), watermark, watermark, nil)
    }
    return best.map { ($0.start, $0.end, $0.run) }
  }

  private mutating func decide(_ place: Int, end: Int64, run: Run?) {
    let facts = segments[place]
    let isMember = run?.members.contains(place) == true
    switch facts.finding {
    case .unmade:
      decided[place] = (.remove, "not made to its end")
    case .headless(let damage):
      let isTorn = mark <= facts.name.base && facts.name.form == .plain
      decided[place] =
        isTorn ? (.remove, "torn when it was made: \(damage.text)") : (.setAside, "damaged: \(damage.text)")
    case .whole where facts.end == facts.name.base:
      decided[place] = (.remove, "holds no batch")
    case .whole, .unread:
      if facts.name.base >= end {
        decided[place] = (.setAside, "behind \(end), where the log goes on")
      } else if isMember || facts.end <= end {
        decided[place] = keep(facts, isLast: isMember && facts.end == end)
      } else {
        decided[place] = (.setAside, "its records from \(end) on cannot be reached")
      }
    case .broken(_, let damage):
      decided[place] = broken(facts, damage, end: end, isMember: isMember)
    case .refused: preconditionFailure("a refused segment was planned")
    }
  }

  private func keep(_ facts: SegmentFacts, isLast: Bool) -> (RecoveryPlan.Action, String) {
    if isLast && facts.name.form == .plain {
      return (.trim(bytes: facts.bytesGood, synced: facts.bytesSynced), "whole, the last one")
    }
    return (.keep, facts.finding == .unread ? "a snapshot covers it" : "whole")
  }

  private func broken(
    _ facts: SegmentFacts, _ damage: Damage, end: Int64, isMember: Bool
  ) -> (RecoveryPlan.Action, String) {
    let isTorn = mark <= facts.end && facts.name.form == .plain
    if isTorn && facts.end == facts.name.base && (isMember || facts.end >= end) {
      return (.remove, "torn before its first batch was whole: \(damage.text)")
    }
    if isTorn && (isMember || facts.end <= end) {
      return (
        .cut(bytes: facts.bytesGood, synced: facts.bytesSynced, lost: facts.bytesBeyond),
        "torn tail: \(damage.text)"
      )
    }
    if isMember && facts.end == end && facts.end == facts.name.base {
      return (.setAside, "damaged from its first batch on: \(damage.text)")
    }
    if isMember && facts.end == end {
      return (
        .setAsideTail(bytes: facts.bytesGood, synced: facts.bytesSynced),
        "damaged, and the state ends there: \(damage.text)"
      )
    }
    return (.setAside, "damaged, and the state does not need it: \(damage.text)")
  }
}
