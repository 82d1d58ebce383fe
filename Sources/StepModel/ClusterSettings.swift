// What all nodes of a cluster must share: a shard's state is a function of the records and of these alone.

/// The settings that enter a shard's state.
public struct ClusterSettings: Hashable, Sendable {
  /// `steps.mode` and `steps.total_policy`.
  public var stepsMode: StepsMode
  /// `day.zone`.
  public var dayRule: DayRule
  /// `day.accept_late`: how long after its day's end an event still counts.
  public var acceptLate: Duration
  /// `day.future_slack`: how far ahead of the shard clock an event time may be.
  public var futureSlack: Duration
  /// `event.steps_max`: most steps of one report.
  public var stepsMax: UInt32
  /// `boards.week`, `boards.month`, `boards.all`: which boards there are beside the days'.
  public var boardsWeek: Bool
  public var boardsMonth: Bool
  public var boardsAll: Bool

  /// Longest span of `acceptLate` and `futureSlack`.
  public static let spanMax = Duration.seconds(86_400 * 36_500)

  /// - Parameters:
  ///   - stepsMode: how reports make a total.
  ///   - dayRule: which day an event belongs to.
  ///   - acceptLate: 0...`spanMax`; whole milliseconds count.
  ///   - futureSlack: 0...`spanMax`; whole milliseconds count.
  ///   - stepsMax: most steps of one report.
  ///   - boardsWeek: whether ISO weeks are ranked.
  ///   - boardsMonth: whether months are ranked.
  ///   - boardsAll: whether all time is ranked.
  public init(
    stepsMode: StepsMode = .increment, dayRule: DayRule, acceptLate: Duration = .seconds(8 * 86_400),
    futureSlack: Duration = .seconds(600), stepsMax: UInt32 = 100_000, boardsWeek: Bool = false,
    boardsMonth: Bool = false, boardsAll: Bool = false
  ) {
    precondition((.zero...ClusterSettings.spanMax).contains(acceptLate), "acceptLate \(acceptLate)")
    precondition((.zero...ClusterSettings.spanMax).contains(futureSlack), "futureSlack \(futureSlack)")
    self.stepsMode = stepsMode
    self.dayRule = dayRule
    self.acceptLate = acceptLate
    self.futureSlack = futureSlack
    self.stepsMax = stepsMax
    self.boardsWeek = boardsWeek
    self.boardsMonth = boardsMonth
    self.boardsAll = boardsAll
  }

  /// All settings as text, a line each, always in this order: what two nodes compare and show.
  public var text: String {
    let mode =
      switch stepsMode {
      case .increment: "increment"
      case .totalNewest: "total, newest"
      case .totalMax: "total, max"
      }
    let rules =
      switch dayRule {
      case .zone(let zone): "\(zone.name), rules \(zone.fingerprint)"
      case .event: "event"
      }
    return """
      steps.mode = \(mode)
      day.zone = \(rules)
      day.accept_late = \(acceptLate.milliseconds)ms
      day.future_slack = \(futureSlack.milliseconds)ms
      event.steps_max = \(stepsMax)
      boards.week = \(boardsWeek)
      boards.month = \(boardsMonth)
      boards.all = \(boardsAll)

      """
  }

  /// FNV-1a of `text`, 16 hexadecimal digits; equal on every machine for equal settings and zone rules.
  public var fingerprint: String {
    var hash = StableHash()
    hash.add(text)
    return hash.hex
  }
}

extension Duration {
  /// Whole milliseconds, cut.
  var milliseconds: Int64 { components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000 }
}
