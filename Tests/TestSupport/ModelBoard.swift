// The oracle of boards: a dictionary and a sort, too simple to be wrong.
public import StepModel

/// A board kept the plain way.
public struct ModelBoard: Sendable {
  /// Every user's total; those with 0 are not on the board.
  public private(set) var totals: [String: UInt64] = [:]

  public init() {}

  /// The user's total, 0 if there is none.
  public func total(_ user: String) -> UInt64 { totals[user] ?? 0 }

  public mutating func set(_ user: String, to total: UInt64) { totals[user] = total == 0 ? nil : total }

  /// Rows in the board's order: steps descending, then the bytes of the id ascending.
  public var rows: [(user: String, total: UInt64)] {
    totals.map { (user: $0.key, total: $0.value) }.sorted { a, b in
      a.total != b.total
        ? a.total > b.total : Array(a.user.utf8).lexicographicallyPrecedes(Array(b.user.utf8))
    }
  }

  public func countAbove(_ steps: UInt64) -> Int { totals.values.filter { $0 > steps }.count }

  public func tied(_ steps: UInt64) -> Int { totals.values.filter { $0 == steps }.count }
}

/// A shard's boards kept the plain way, by DESIGN 4.4 and 4.7.
public struct ModelShard: Sendable {
  public enum Outcome: Sendable { case counted, superseded, overflow }

  public private(set) var boards: [BoardID: ModelBoard] = [:]
  private let mode: StepsMode
  private let periods: Set<String>
  private var registers: [String: (Int64, Int64)] = [:]

  /// - Parameters:
  ///   - mode: how reports make totals.
  ///   - periods: `day` and any of `week`, `month`, `all`.
  public init(mode: StepsMode, periods: Set<String>) {
    self.mode = mode
    self.periods = periods
  }

  public func ids(_ day: Day) -> [BoardID] {
    [.day(day), .week(monday: day.monday), .month(day.month), .all].filter { periods.contains($0.kind) }
  }

  /// Forgets a board, and a day's newest reports with it.
  public mutating func drop(_ id: BoardID) {
    boards[id] = nil
    if case .day(let day) = id { registers = registers.filter { !$0.key.hasPrefix("\(day) ") } }
  }

  public mutating func apply(_ user: String, _ event: StepEvent) -> Outcome {
    let old = boards[.day(event.day)]?.total(user) ?? 0
    let register = "\(event.day) \(user)"
    let steps = UInt64(event.steps)
    let new: UInt64
    switch mode {
    case .increment: new = old + steps
    case .totalMax:
      if steps < old { return .superseded }
      new = steps
    case .totalNewest:
      if let newest = registers[register], (event.timeOfDay, event.offset) < newest { return .superseded }
      new = steps
    }
    for id in ids(event.day) where (boards[id]?.total(user) ?? 0) + new - old > UInt64(UInt32.max) {
      return .overflow
    }
    registers[register] = (event.timeOfDay, event.offset)
    for id in ids(event.day) {
      boards[id, default: ModelBoard()].set(user, to: (boards[id]?.total(user) ?? 0) + new - old)
    }
    return .counted
  }
}

/// User ids as keys whose bytes live as long as the pool.
public final class KeyPool {
  /// The ids as text.
  public let texts: [String]
  /// The same ids as keys, in the same order.
  public let keys: [UserKey]
  private var memory: [UnsafeMutableRawPointer] = []

  public init(_ texts: [String]) {
    self.texts = texts
    var memory: [UnsafeMutableRawPointer] = []
    keys = texts.map { text in
      let bytes = Array(text.utf8)
      let copy = UnsafeMutableRawPointer.allocate(byteCount: max(1, bytes.count), alignment: 1)
      copy.copyMemory(from: bytes, byteCount: bytes.count)
      memory.append(copy)
      return UserKey(UnsafeRawBufferPointer(start: copy, count: bytes.count))
    }
    self.memory = memory
  }

  deinit { memory.forEach { $0.deallocate() } }

  /// Distinct ids of all forms: canonical UUIDs, spellings close to one, short and long names, many with a common
  /// start.
  ///
  /// - Parameters:
  ///   - count: how many.
  ///   - random: decides them.
  /// - Returns: the pool, its ids sorted.
  public static func mixed(_ count: Int, using random: inout SeededGenerator) -> KeyPool {
    var texts: Set<String> = []
    while texts.count < count {
      let a = random.next()
      switch UInt8.random(in: 0..<8, using: &random) {
      case 0, 1, 2: texts.insert(uuid(a, random.next()))
      case 3: texts.insert(uuid((a >> 60) << 60, random.next() & 7))
      case 4: texts.insert(uuid(a, random.next()).uppercased())
      case 5: texts.insert(String(a % 1000))
      case 6: texts.insert("user-000000-" + String(a % 100))
      default: texts.insert("a walker with a long name, number " + String(a % 50) + " é")
      }
    }
    return KeyPool(texts.sorted())
  }

  /// The canonical text of a UUID.
  ///
  /// - Parameters:
  ///   - high: bytes 0 to 7, big-endian.
  ///   - low: bytes 8 to 15, big-endian.
  /// - Returns: 36 characters.
  public static func uuid(_ high: UInt64, _ low: UInt64) -> String {
    String(unsafeUninitializedCapacity: 36) { room in
      UserKey(high: high, low: low).write(to: UnsafeMutableRawPointer(room.baseAddress!))
    }
  }
}
