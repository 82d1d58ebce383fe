// Step events out of a seed: what the demo's six producers and `rmsctl generate` put on a topic.
// The same seed and the same times give the same records, so a run can be repeated.

import Glibc
public import Posix
public import StepModel

/// What to generate.
public struct GeneratorPlan: Sendable {
  /// How often each user reports.
  public enum Spread: String, Sendable, CaseIterable {
    /// All alike.
    case uniform
    /// A few often, most seldom: the k-th user reports in proportion to 1/k.
    case zipf
  }

  /// Number of users, 1 or more.
  public var users = 72_000
  public var spread = Spread.uniform
  /// Shares of records, 0...1, that are bad, late or in the future.
  public var badShare = 0.0
  public var lateShare = 0.0
  public var futureShare = 0.0
  /// Number of sources that users are divided among, as the original's six producers did.
  public var sources = 6
  public var seed: UInt64 = 1

  public init() {}
}

/// Makes one record after the other. A value: no clock, no I/O.
public struct Generator: ~Copyable {
  /// What a record is meant to be.
  public enum Kind: Hashable, Sendable {
    case good
    case bad(RejectReason)
  }

  /// One record, valid until the next call.
  public struct Record {
    /// The user's id, which is the record's key, so that a user stays in one partition.
    public let key: UnsafeRawBufferPointer
    public let payload: UnsafeRawBufferPointer
    public let kind: Kind
  }

  private let plan: GeneratorPlan
  private var state: UInt64
  private let user: UnsafeMutableRawPointer
  private let text: UnsafeMutableRawPointer
  private var length = 0
  /// `YYYY-MM-DD HH:MM:SS` of the second it was last written for.
  private var second: Int64 = .min
  private var secondText: [UInt8] = []

  static let textBytesMax = 512

  public init(_ plan: GeneratorPlan) {
    precondition(plan.users >= 1 && plan.sources >= 1, "a generator needs users and sources")
    self.plan = plan
    // Mixed, or neighbouring seeds would walk through the same numbers one step apart.
    state = Generator.mixed(plan.seed &+ 0x2545_F491_4F6C_DD1D)
    user = .allocate(byteCount: 36, alignment: 8)
    text = .allocate(byteCount: Generator.textBytesMax, alignment: 8)
  }

  deinit {
    user.deallocate()
    text.deallocate()
  }

  /// The id of the n-th user: a UUID that depends on the seed and on n alone.
  ///
  /// - Parameters:
  ///   - number: 0..<users.
  ///   - seed: the plan's seed.
  /// - Returns: its key.
  public static func userKey(_ number: Int, seed: UInt64) -> UserKey {
    let high = mixed(UInt64(number) &* 2 &+ 1 &+ seed &* 0xD134_2543_DE82_EF95)
    let low = mixed(high ^ UInt64(number))
    // Version 4, variant 1, as random UUIDs have it.
    return UserKey(
      high: high & 0xFFFF_FFFF_FFFF_0FFF | 0x4000, low: low & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000)
  }

  /// Makes the next record.
  ///
  /// - Parameter now: milliseconds since 1970, which good records carry as their event time.
  /// - Returns: the record; its bytes are overwritten by the next call.
  public mutating func next(at now: Int64) -> Record {
    let number = pick()
    Generator.userKey(number, seed: plan.seed).write(to: user)
    let steps = Int(random(200)) + 1
    let draw = Double(random(1 << 30)) / Double(1 << 30)
    length = 0
    let kind: Kind
    if draw < plan.badShare {
      kind = .bad(writeBad(number, steps, now))
    } else if draw < plan.badShare + plan.lateShare {
      write(number, steps, now - 30 * 86_400_000)
      kind = .bad(.late)
    } else if draw < plan.badShare + plan.lateShare + plan.futureShare {
      write(number, steps, now + 7_200_000)
      kind = .bad(.future)
    } else {
      write(number, steps, now)
      kind = .good
    }
    return Record(
      key: UnsafeRawBufferPointer(start: user, count: 36),
      payload: UnsafeRawBufferPointer(start: text, count: length),
      kind: kind)
  }

  private mutating func pick() -> Int {
    switch plan.spread {
    case .uniform: return Int(random(UInt64(plan.users)))
    case .zipf:
      // Log-uniform, which is Zipf's law with exponent 1 up to rounding.
      let u = Double(random(1 << 52)) / Double(1 << 52)
      return min(plan.users - 1, Int(pow(Double(plan.users) + 1, u)) - 1)
    }
  }

  private mutating func write(_ number: Int, _ steps: Int, _ time: Int64) {
    append("{\"uuid\": \"")
    appendUser()
    append("\", \"steps\": ")
    append(String(steps))
    append(", \"timestamp\": \"")
    appendTime(time)
    append("\", \"source\": \"")
    append(String(number % plan.sources + 1))
    append("\"}")
  }

  /// One of the reasons that a record alone can have, in turn by chance.
  private mutating func writeBad(_ number: Int, _ steps: Int, _ now: Int64) -> RejectReason {
    switch random(7) {
    case 0:
      write(number, steps, now)
      length -= 1 + Int(random(20))
      return .malformed
    case 1:
      write(number, steps, now)
      length -= 1
      append(", \"steps\": 1}")
      return .repeated
    case 2:
      append("{\"uuid\": \"")
      appendUser()
      append("\", \"steps\": \(steps)}")
      return .missing
    case 3:
      append("{\"uuid\": null, \"steps\": \(steps), \"timestamp\": \"")
      appendTime(now)
      append("\"}")
      return .type
    case 4:
      append("{\"uuid\": \"\", \"steps\": \(steps), \"timestamp\": \"")
      appendTime(now)
      append("\"}")
      return .user
    case 5:
      write(number, -steps, now)
      return .steps
    default:
      append("{\"uuid\": \"")
      appendUser()
      append("\", \"steps\": \(steps), \"timestamp\": \"2026-02-30 00:00:00\"}")
      return .time
    }
  }

  private mutating func appendTime(_ milliseconds: Int64) {
    let now = milliseconds / 1000
    if now != second {
      second = now
      let day = Day(number: Int32(truncatingIfNeeded: now / 86_400))
      let left = Int(now % 86_400)
      let clock = [left / 3600, left / 60 % 60, left % 60].map { ($0 < 10 ? "0" : "") + String($0) }
      secondText = Array("\(day) \(clock.joined(separator: ":"))".utf8)
    }
    for byte in secondText { append(byte) }
  }

  private mutating func appendUser() {
    (text + length).copyMemory(from: user, byteCount: 36)
    length += 36
  }

  private mutating func append(_ string: String) {
    for byte in string.utf8 { append(byte) }
  }

  private mutating func append(_ byte: UInt8) {
    precondition(length < Generator.textBytesMax, "a generated record is too long")
    text.storeBytes(of: byte, toByteOffset: length, as: UInt8.self)
    length += 1
  }

  /// 0..<bound.
  private mutating func random(_ bound: UInt64) -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    return Generator.mixed(state).multipliedFullWidth(by: bound).high
  }

  /// The finisher of SplitMix64.
  private static func mixed(_ value: UInt64) -> UInt64 {
    var z = value
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// A steady rate: how many records are due, whenever one asks. Open loop: what was missed is made up.
public struct Pace {
  private let perSecond: Int
  private let from: Moment
  private var done: Int64 = 0
  /// Most records given out at a time, so that a long pause is not followed by one endless turn.
  static let dueMax: Int64 = 10_000

  /// - Parameters:
  ///   - perSecond: records a second, 1 or more.
  ///   - from: when it begins.
  public init(perSecond: Int, from: Moment) {
    precondition(perSecond >= 1, "a pace of \(perSecond) a second")
    self.perSecond = perSecond
    self.from = from
  }

  /// Records due now that were not given out before.
  ///
  /// - Parameter now: the same clock as `from`.
  /// - Returns: how many to make at once.
  public mutating func due(at now: Moment) -> Int {
    let elapsed = max(0, (now - from).nanoseconds)
    let (seconds, rest) = elapsed.quotientAndRemainder(dividingBy: 1_000_000_000)
    let wanted = seconds * Int64(perSecond) + rest * Int64(perSecond) / 1_000_000_000
    let count = min(Pace.dueMax, wanted - done)
    done += count
    return Int(count)
  }
}
