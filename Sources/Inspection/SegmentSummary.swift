// One file of a log in a few numbers, and what is wrong with it.

internal import SegmentLog

/// A file of a shard's log.
public struct SegmentSummary: Equatable, Sendable {
  /// What a file is.
  public enum State: String, Sendable {
    /// Compressed, whole.
    case sealed
    /// Being written, whole so far.
    case active
    /// Whole, and not compressed yet.
    case closed
    /// The last one, and its end is not whole: a batch under way, or torn by a crash; a start cuts it.
    case torn
    /// Changed after it was written, or not there where it must be.
    case damaged
    /// Written by a newer version, or for another shard.
    case refused
    /// Found damaged earlier, and kept for a person to look at.
    case setAside = "set-aside"
  }

  public let file: String
  /// Watermark before its first batch; -1 if it is not known.
  public let from: Int64
  /// Watermark after its last good batch; -1 if it is not known.
  public private(set) var next: Int64 = -1
  public private(set) var batches = 0
  public private(set) var events: UInt64 = 0
  public private(set) var rejected: UInt64 = 0
  /// Bytes of headers and batches, uncompressed.
  public private(set) var bytes = 0
  /// Bytes of the file.
  public private(set) var fileBytes = 0
  public private(set) var state: State
  /// What is wrong, in a few words; nil if nothing is.
  public private(set) var problem: String?
  /// Byte of the uncompressed segment at which it is wrong.
  public private(set) var atByte: Int?

  init(file: String, from: Int64, state: State, problem: String?, atByte: Int?) {
    self.file = file
    self.from = from
    self.state = state
    self.problem = problem
    self.atByte = atByte
  }

  /// - Parameters:
  ///   - facts: of the segment.
  ///   - mark: newest watermark that any segment knows to be synced: what lies below it was whole once.
  ///   - isLast: whether no segment follows.
  init(_ facts: SegmentFacts, mark: Int64, isLast: Bool) {
    file = facts.name.text
    from = facts.name.base
    next = facts.end
    batches = facts.batches
    events = facts.events
    rejected = facts.rejected
    bytes = facts.bytesGood
    fileBytes = facts.fileBytes
    let isOpenEnd = isLast && facts.name.form == .plain && mark <= facts.end
    switch facts.finding {
    case .whole, .unread:
      state = facts.name.form == .sealed ? .sealed : isLast ? .active : .closed
    case .broken(let byte, let damage):
      state = isOpenEnd ? .torn : .damaged
      problem = damage.text
      atByte = byte
    case .unmade:
      state = isOpenEnd ? .torn : .damaged
      problem = "it has no header"
      atByte = 0
    case .headless(let damage):
      state = isOpenEnd ? .torn : .damaged
      problem = damage.text
      atByte = 0
    case .refused(let error):
      state = .refused
      problem = "\(error)"
      atByte = 0
    }
  }

  /// Judges whether a whole segment follows the one before.
  mutating func follow(_ before: SegmentFacts, _ facts: SegmentFacts) {
    let isEmpty = facts.batches == 0 && state == .active
    if before.end != facts.name.base, !isEmpty {
      problem = "it begins at \(facts.name.base), and the segment before ends at \(before.end)"
    } else if before.finding == .whole, facts.checkBefore != 0, facts.checkBefore != before.check {
      problem = "it does not follow the segment before"
    } else {
      return
    }
    state = .damaged
    atByte = ShardLog.baseAtByte
  }
}
