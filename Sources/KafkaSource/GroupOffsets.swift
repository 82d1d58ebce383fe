// What the group's stored offsets are to us: a courtesy to tools that show lag, and a trace of who touched them. A
// shard's own watermark alone decides where reading begins. A value: happenings in, what to send and to tell out.

/// The offset the brokers keep for the group in one partition, as found when the partition was assigned.
public struct GroupOffset: Equatable, Sendable {
  /// The partition.
  public var partition: Int32
  /// The offset stored; nil if there is none.
  public var offset: Int64?
  /// Whether a node stored it: it carries our mark for this very offset.
  public var isOurs: Bool

  /// - Parameters:
  ///   - partition: the partition.
  ///   - offset: the offset stored, if any.
  ///   - isOurs: whether a node stored it.
  public init(partition: Int32, offset: Int64?, isOurs: Bool) {
    self.partition = partition
    self.offset = offset
    self.isOurs = isOurs
  }

  init(partition: Int32, _ stored: StoredOffset) {
    let offset = stored.offset >= 0 ? stored.offset : nil
    self.init(
      partition: partition, offset: offset,
      isOurs: offset.map { stored.metadata == GroupOffsets.mark($0) } ?? false)
  }

  /// Someone else stored it: an operator's reset, or another program in the same group.
  public var isForeign: Bool { offset != nil && !isOurs }
}

/// The offsets to commit, and what is known about those stored.
struct GroupOffsets: Equatable {
  struct Place: Equatable {
    /// Offset to commit; -1 while there is none.
    var wanted: Int64 = -1
    /// Offset stored last by us under this assignment; -1 while there is none.
    var stored: Int64 = -1
    /// Whether the offset stored before this assignment was told: nothing is committed over it earlier.
    var isHeard = false
  }

  /// Pause between two questions for stored offsets that were not answered, in nanoseconds.
  static let questionIntervalNs: UInt64 = 1_000_000_000

  private(set) var places: [Int32: Place] = [:]
  private(set) var isSending = false
  private var isAsking = false
  private var questionDueNs: UInt64 = 0
  private var isFailing = false
  /// The group was at rest a moment ago, and nothing was sent since.
  private var isAtRest = false

  // MARK: - The assignment

  /// Partitions are ours.
  mutating func assigned(_ partitions: [Int32]) {
    for partition in partitions { places[partition] = Place() }
    questionDueNs = 0
  }

  /// Partitions are not ours: nothing of them is committed from here on.
  mutating func revoked(_ partitions: [Int32]) {
    for partition in partitions { places[partition] = nil }
  }

  /// librdkafka's statistics tell whether the group is at rest. A commit that meets a rebalance costs the member its
  /// whole assignment (librdkafka 4059, fixed in 2.10.0), so one is sent only right after such word, and seldom: a
  /// rebalance may still begin in the milliseconds between.
  mutating func rests(_ isAtRest: Bool) { self.isAtRest = isAtRest }

  // MARK: - Committing

  /// Notes offsets to commit; those of partitions that are not ours are dropped.
  mutating func want(_ offsets: [(partition: Int32, offset: Int64)]) {
    for (partition, offset) in offsets where offset >= 0 { places[partition]?.wanted = offset }
  }

  /// What to commit now, ascending by partition.
  ///
  /// - Parameter isLast: at the end nothing is waited for.
  /// - Returns: offsets to send; `sent` is owed if any.
  mutating func due(isLast: Bool = false) -> [(partition: Int32, offset: Int64)] {
    let mayGo = isLast || (isAtRest && !isSending)
    isAtRest = false
    guard mayGo else { return [] }
    let due = places.filter { $0.value.wanted >= 0 && $0.value.wanted != $0.value.stored }
      .filter { isLast || $0.value.isHeard }
    return due.map { ($0.key, $0.value.wanted) }.sorted { $0.0 < $1.0 }
  }

  /// A commit is under way.
  mutating func sent() { isSending = true }

  /// The answer to a commit.
  ///
  /// - Parameters:
  ///   - stored: offsets stored, by partition.
  ///   - failure: why others were not.
  /// - Returns: a line for the log; nil if there is nothing new to say.
  mutating func committed(_ stored: [Int32: Int64], _ failure: KafkaFailure?) -> ConsumerEvent? {
    isSending = false
    for (partition, offset) in stored { places[partition]?.stored = offset }
    guard let failure else {
      defer { isFailing = false }
      return isFailing ? .log(level: 6, text: "offsets are committed to the group again") : nil
    }
    // A rebalance passes, and what was not stored is sent again after it.
    if failure.isPartitionLost || failure.isRebalance || isFailing { return nil }
    isFailing = true
    return .log(
      level: 4,
      text: "offsets are not committed to the group, so its tools show too much lag; nothing else depends on"
        + " them (\(failure))")
  }

  // MARK: - What is stored

  /// Partitions whose stored offset is to be asked for now, ascending.
  mutating func question(nowNs: UInt64) -> [Int32] {
    guard !isAsking, nowNs >= questionDueNs else { return [] }
    let unheard = places.filter { !$0.value.isHeard }.map(\.key).sorted()
    guard !unheard.isEmpty else { return [] }
    isAsking = true
    return unheard
  }

  /// The answer to a question; nil if it failed, and it is asked again.
  ///
  /// - Parameters:
  ///   - found: offset and metadata by partition; nil if the question failed.
  ///   - nowNs: monotonic time.
  /// - Returns: an event a partition of ours, ascending.
  mutating func heard(_ found: [Int32: StoredOffset]?, nowNs: UInt64) -> [ConsumerEvent] {
    isAsking = false
    questionDueNs = nowNs + GroupOffsets.questionIntervalNs
    var events: [ConsumerEvent] = []
    for (partition, stored) in (found ?? [:]).sorted(by: { $0.key < $1.key }) {
      guard let place = places[partition], !place.isHeard else { continue }
      places[partition]?.isHeard = true
      events.append(.groupOffset(GroupOffset(partition: partition, stored)))
    }
    return events
  }

  /// The metadata that goes with an offset of ours.
  static func mark(_ offset: Int64) -> String { "rms1 \(offset)" }
}

/// An offset as the brokers store it: negative if there is none.
struct StoredOffset: Equatable {
  var offset: Int64
  var metadata: String
}
