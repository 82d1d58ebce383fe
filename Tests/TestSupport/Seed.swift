// Seeded randomness for tests: a failure prints its seed, and the seed replays it.

/// A seed that appears in a test's failure text as its argument.
public struct Seed: Sendable, CustomStringConvertible {
  public let value: UInt64

  public init(_ value: UInt64) { self.value = value }

  public var description: String { "seed \(value)" }

  /// The generator this seed starts.
  public var random: SeededGenerator { SeededGenerator(seed: value) }

  /// - Returns: `count` seeds, always the same ones.
  public static func some(_ count: Int) -> [Seed] {
    (1...UInt64(count)).map { Seed($0 &* 0x9E37_79B9_7F4A_7C15) }
  }
}

/// SplitMix64: small, fast, the same on every machine.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
