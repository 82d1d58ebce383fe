import QueryProtocol
import TestSupport
import Testing

@Suite("percentiles")
struct StandingTests {
  @Test("worked examples")
  func examples() throws {
    // Steps 50, 50, 30, 30, 10.
    let rows: [(UInt64, UInt64, Double, String)] = [(0, 2, 75, "20"), (2, 2, 25, "60"), (4, 1, 0, "100")]
    for (above, tied, beaten, top) in rows {
      let standing = try #require(Standing(above: above, tied: tied, users: 5))
      #expect(standing.beaten == beaten)
      #expect(standing.topPercentText == top)
    }
    #expect(Standing(above: 0, tied: 1, users: 1)?.beaten == 100)
    #expect(Standing(above: 0, tied: 1, users: 1)?.topPercentText == "100")
    #expect(Standing(above: 0, tied: 1, users: 1_000_000)?.topPercent == 0.0001)
    #expect(Standing(above: 0, tied: 1, users: 1_000_000)?.beaten == 100)
    #expect(Standing(above: 0, tied: 4, users: 4)?.beaten == 0)
    #expect(Standing(above: 0, tied: 4, users: 4)?.topPercentText == "25")
    #expect(Standing(above: 0, tied: 1, users: 3)?.topPercentText == "34")
    #expect(Standing(above: 0, tied: 1, users: 15)?.topPercentText == "6.7")
    #expect(Standing(above: 994, tied: 1, users: 1000)?.topPercentText == "100")
    #expect(Standing(above: 98, tied: 1, users: 1000)?.topPercentText == "9.9")
    #expect(Standing(above: 99, tied: 1, users: 1001)?.topPercentText == "10")
    #expect(Standing(above: 0, tied: 1, users: .max)?.topPercentText == "0.0000000000000000055")
  }

  @Test("numbers that contradict each other make no standing")
  func contradictions() {
    #expect(Standing(above: 5, tied: 0, users: 5) == nil)
    #expect(Standing(above: 5, tied: 1, users: 5) == nil)
    #expect(Standing(above: 3, tied: 3, users: 5) == nil)
    #expect(Standing(above: .max, tied: .max, users: .max) == nil)
  }

  @Test(
    "top_percent is the least number of two significant digits not below the exact one",
    arguments: Seed.some(100))
  func rounding(seed: Seed) throws {
    var random = seed.random
    for _ in 0..<100 {
      let users = UInt64.random(in: 1...1 << UInt64.random(in: 1...20, using: &random), using: &random)
      let above = UInt64.random(in: 0..<users, using: &random)
      let text = try #require(Standing(above: above, tied: 1, users: users)).topPercentText
      let parts = text.split(separator: ".").map(String.init)
      let fraction = parts.count == 2 ? parts[1] : ""
      let scale = fraction.reduce(UInt64(1)) { value, _ in value * 10 }
      let digits = try #require(UInt64(parts[0] + fraction))
      // The oracle tries all numbers of two digits, from the finest decimal on: the first one not too small.
      var power: UInt64 = 1_000_000_000
      var least: (digits: UInt64, power: UInt64) = (100, 1)
      search: while power >= 1 {
        for candidate in UInt64(10)...99 where candidate * users >= 100 * (above + 1) * power {
          least = (candidate, power)
          break search
        }
        power /= 10
      }
      #expect(digits * least.power == least.digits * scale, "\(above) of \(users): \(text)")
    }
  }
}
