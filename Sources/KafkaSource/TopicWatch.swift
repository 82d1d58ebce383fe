// Which question to the brokers is due: the topic's identity every second, begin and end of partitions every
// second. A value; the consumer sends and receives.

/// When to ask what.
struct TopicWatch: Equatable {
  /// A question that is due.
  enum Question: Equatable {
    case topic
    case configuration
    case offsets(AdminRequests.End)
  }

  /// Pause between two looks at the topic, in nanoseconds. Records of a topic recreated under our feet can be handed
  /// out for as long, so it is short: one small request.
  static let topicIntervalNs: UInt64 = 1_000_000_000
  static let searchIntervalNs: UInt64 = 1_000_000_000
  /// Pause between two looks at the partitions' ends.
  static let offsetsIntervalNs: UInt64 = 1_000_000_000
  /// How long librdkafka waits for an answer.
  static let requestTimeoutMs: Int32 = 5_000

  private var topicDueNs: UInt64 = 0
  private var offsetsDueNs: UInt64 = 0
  private var isTopicAsked = false
  /// Whether the answer under way was asked for before something happened to the topic.
  private var isTopicAnswerOld = false
  private var offsetsAsked: [AdminRequests.End] = []
  private var pending: TopicFacts?
  private var configuration: (cleanupPolicy: String?, timestampType: String?) = (nil, nil)
  private var low: [Int32: Int64] = [:]
  private var stable: [Int32: Int64] = [:]

  static func == (a: TopicWatch, b: TopicWatch) -> Bool {
    a.topicDueNs == b.topicDueNs && a.offsetsDueNs == b.offsetsDueNs && a.isTopicAsked == b.isTopicAsked
      && a.offsetsAsked == b.offsetsAsked && a.pending == b.pending
  }

  /// The questions to send now.
  ///
  /// - Parameters:
  ///   - nowNs: monotonic time.
  ///   - hasPartitions: whether any partition is ours.
  /// - Returns: each question once until its answer has come.
  mutating func due(nowNs: UInt64, hasPartitions: Bool) -> [Question] {
    var questions: [Question] = []
    if !isTopicAsked, nowNs >= topicDueNs {
      isTopicAsked = true
      questions.append(.topic)
    }
    if hasPartitions, offsetsAsked.isEmpty, nowNs >= offsetsDueNs {
      offsetsAsked = AdminRequests.End.allCases
      questions += offsetsAsked.map { .offsets($0) }
      (low, stable) = ([:], [:])
    }
    return questions
  }

  /// Makes the next look at the ends due at once.
  mutating func hurryOffsets() { offsetsDueNs = 0 }

  /// Makes the next look at the topic due at once; an answer under way is too old to count.
  mutating func hurryTopic() {
    topicDueNs = 0
    isTopicAnswerOld = isTopicAsked
  }

  /// What an answer makes known.
  enum Finding: Equatable {
    /// Ask for the topic's configuration too.
    case ask(Question)
    case topic(TopicFacts)
    case failed(KafkaError)
    case ranges([Int32: OffsetRange])
    case nothing
  }

  /// Takes an answer.
  ///
  /// - Parameters:
  ///   - reply: the answer.
  ///   - nowNs: monotonic time.
  /// - Returns: what it makes known.
  mutating func received(_ reply: AdminReply, nowNs: UInt64) -> Finding {
    switch reply {
    case .topic(let facts):
      pending = facts
      return .ask(.configuration)
    case .plainTopic(let facts):
      pending = facts
      return described(nowNs)
    case .topicFailed(let error):
      isTopicAsked = false
      isTopicAnswerOld = false
      topicDueNs = nowNs + TopicWatch.searchIntervalNs
      return .failed(error)
    case .configuration(let policy, let type):
      configuration = (policy, type)
      return described(nowNs)
    case .configurationFailed:
      // Known facts stay known; a broker that never tells leaves them nil.
      return described(nowNs)
    case .offsets(let end, let offsets): return heard(end, offsets, nowNs)
    case .offsetsFailed(let end, _): return heard(end, [:], nowNs)
    case .committed, .stored, .done, .other: return .nothing
    }
  }

  private mutating func described(_ nowNs: UInt64) -> Finding {
    isTopicAsked = false
    topicDueNs = nowNs + TopicWatch.topicIntervalNs
    guard var facts = pending else { return .nothing }
    pending = nil
    if isTopicAnswerOld {
      isTopicAnswerOld = false
      topicDueNs = 0
      return .nothing
    }
    facts.cleanupPolicy = configuration.cleanupPolicy
    facts.timestampType = configuration.timestampType
    return .topic(facts)
  }

  private mutating func heard(_ end: AdminRequests.End, _ offsets: [Int32: Int64], _ nowNs: UInt64) -> Finding
  {
    offsetsAsked.removeAll { $0 == end }
    // Answers may come in any order; ends only mean something together.
    switch end {
    case .low: low = offsets
    case .stable: stable = offsets
    case .high: high = offsets
    }
    guard offsetsAsked.isEmpty else { return .nothing }
    offsetsDueNs = nowNs + TopicWatch.offsetsIntervalNs
    var ranges: [Int32: OffsetRange] = [:]
    for (partition, last) in high {
      guard let first = low[partition], let settled = stable[partition] else { continue }
      ranges[partition] = OffsetRange(low: first, stable: settled, high: max(last, settled))
    }
    return .ranges(ranges)
  }

  private var high: [Int32: Int64] = [:]
}
