// Scanner and reader against judge: for every input the same event or the same reason.

public import StepModel

/// What a decoder says of one record, in a form that compares and prints.
public enum Outcome: Equatable, Sendable, CustomStringConvertible {
  case accepted(
    user: String, steps: UInt32, day: Day, timeOfDay: Int64, offset: Int64, source: String?, others: Bool)
  case rejected(RejectReason)

  public init(_ reason: RejectReason?, _ event: StepEvent) {
    if let reason {
      self = .rejected(reason)
      return
    }
    let bytes = [UInt8](unsafeUninitializedCapacity: event.user.length) { buffer, count in
      guard let base = buffer.baseAddress else { return }
      count = event.user.write(to: base)
    }
    self = .accepted(
      user: String(decoding: bytes, as: UTF8.self), steps: event.steps, day: event.day,
      timeOfDay: event.timeOfDay, offset: event.offset,
      source: event.source.map { String(decoding: $0, as: UTF8.self) }, others: event.hasUnknownFields)
  }

  public var description: String {
    switch self {
    case .accepted(let user, let steps, let day, let timeOfDay, let offset, let source, let others):
      "ok user \(user) steps \(steps) day \(day) time \(timeOfDay) offset \(offset) source \(source ?? "-")"
        + (others ? ", other members" : "")
    case .rejected(let reason): reason.name
    }
  }
}

/// A record on which the two roads part.
public struct DecoderDifference: Sendable, CustomStringConvertible {
  public let record: [UInt8]
  public let shardClock: Int64
  public let scanner: Outcome
  public let judge: Outcome

  public var description: String {
    "clock \(shardClock): \(scanner) <> \(judge) for \(String(decoding: record, as: UTF8.self)) \(record)"
  }
}

/// How a run went.
public struct DecoderRun: Sendable {
  /// The first difference, if any.
  public var difference: DecoderDifference?
  /// Records the scanner took.
  public var scanned = 0
  /// Records by reason, accepted ones apart.
  public var accepted = 0
  public var rejected = [Int](repeating: 0, count: RejectReason.allCases.count)
}

/// Runs records of a source through both roads of a decoder.
///
/// - Parameters:
///   - settings: the cluster's.
///   - seed: starts the source.
///   - count: how many records.
/// - Returns: what was seen; stops at the first difference.
public func decoderBody(settings: ClusterSettings, seed: UInt64, count: Int) -> DecoderRun {
  var source = RecordSource(seed: seed)
  var random = FuzzRandom(seed: ~seed)
  var fast = StepDecoder(settings: settings)
  var slow = StepDecoder(settings: settings)
  var run = DecoderRun()
  // 2026-11-24 12:00 UTC, and moments at which records near it turn late or future.
  let noon: Int64 = 1_795_521_600_000
  for offset in 0..<Int64(count) {
    let record = source.next()
    let shardClock = random.one(of: [
      noon, noon, noon, noon + 9 * 86_400_000, noon - 86_400_000, noon + Int64(random.below(1_000_000_000)),
      0, .max, .min,
    ])
    let (a, b, scanned) = record.withUnsafeBytes { bytes in
      var event = StepEvent(
        user: UserKey(high: 0, low: 0), offset: 0, timeOfDay: 0, steps: 0, day: Day(number: 0))
      let a = Outcome(fast.decode(bytes, offset: offset, shardClock: shardClock, into: &event), event)
      let b = Outcome(slow.judged(bytes, offset: offset, shardClock: shardClock, into: &event), event)
      return (a, b, fast.scans(bytes))
    }
    fast.reset()
    slow.reset()
    if scanned { run.scanned += 1 }
    switch a {
    case .accepted: run.accepted += 1
    case .rejected(let reason): run.rejected[Int(reason.rawValue)] += 1
    }
    if a != b {
      run.difference = DecoderDifference(record: record, shardClock: shardClock, scanner: a, judge: b)
      return run
    }
  }
  return run
}
