// The plan as text, for the log and for people.

extension RecoveryPlan {
  /// The whole plan, a line a file.
  public var text: String {
    var lines: [String] = []
    switch start {
    case .empty: lines.append("start: a new shard")
    case .origin(let watermark): lines.append("start: the empty state at \(watermark), then the log")
    case .snapshot(let watermark): lines.append("start: snapshot \(watermark), then the log")
    case .nothing: lines.append("start: none is to be had from these files; nothing is touched")
    case .refused: lines.append("start: refused: \(refusal.map { "\($0)" } ?? ""); nothing is touched")
    }
    if let position { lines.append("the log goes on at \(position.watermark)") }
    if let lost { lines.append("read again: offsets \(lost.lowerBound)..\(lost.upperBound - 1)") }
    if tornBytes > 0 { lines.append("torn tail: \(tornBytes) bytes cut") }
    for watermark in snapshotsAside {
      lines.append("snapshot \(watermark): set aside, no good or ahead of the log")
    }
    for row in rows {
      lines.append("\(row.facts.name.text)  \(row.facts.finding.text)  \(row.action.text)  (\(row.reason))")
    }
    return lines.joined(separator: "\n")
  }
}

extension SegmentFacts.Finding {
  /// A few words.
  public var text: String {
    switch self {
    case .whole: "whole"
    case .unread: "unread"
    case .broken(let byte, let damage): "broken at byte \(byte): \(damage.text)"
    case .unmade: "unmade"
    case .headless(let damage): "headless: \(damage.text)"
    case .refused(let error): "refused: \(error)"
    }
  }
}

extension RecoveryPlan.Action {
  /// A few words.
  public var text: String {
    switch self {
    case .keep: "keep"
    case .trim(let bytes, _): "keep, \(bytes) bytes"
    case .cut(let bytes, _, let lost): "cut at byte \(bytes), \(lost) bytes lost"
    case .setAsideTail(let bytes, _): "set aside from byte \(bytes)"
    case .setAside: "set aside"
    case .remove: "remove"
    case .refuse: "refuse"
    }
  }
}
