// The arithmetic of standings, from integers: DESIGN's rule for `beaten` and `top_percent`. Clients compute these.

/// Where a user stands among all users of a board.
public struct Standing: Equatable, Sendable {
  /// Users with strictly more steps.
  public let above: UInt64
  /// Users with the same steps, this one included.
  public let tied: UInt64
  /// Users on the board.
  public let users: UInt64

  /// Takes the numbers of a RANK answer; nil if they contradict each other, as those of a user who is not on the
  /// board do.
  ///
  /// - Parameters:
  ///   - above: users with strictly more steps.
  ///   - tied: users who share the total, this one included: 1 or more.
  ///   - users: at least above + tied.
  public init?(above: UInt64, tied: UInt64, users: UInt64) {
    guard tied >= 1, above < users, tied <= users - above else { return nil }
    self.above = above
    self.tied = tied
    self.users = users
  }

  /// Percent of the others who have fewer steps, 0...100; 100 for somebody alone on the board.
  public var beaten: Double {
    if users == 1 { return 100 }
    return 100 * Double(users - above - tied) / Double(users - 1)
  }

  /// The user is within the top so many percent: 100·(above + 1)/users, rounded up to two significant digits, never 0.
  ///
  /// Exact: rounding is done on integers; the result is the double nearest to the decimal number.
  public var topPercent: Double {
    let text = topPercentText
    return Double(text) ?? 100
  }

  /// `topPercent` in decimal, without an exponent and without trailing zeros: `100`, `20`, `6.7`, `0.0001`.
  public var topPercentText: String {
    // Long division of 100·(above + 1) by users: the quotient is 1...100 before the point or smaller.
    let scaled = (above + 1).multipliedFullWidth(by: 100)
    // above < users, so the quotient is at most 100 and fits.
    var (digits, remainder) = users.dividingFullWidth(scaled)
    var exponent = 0
    if digits == 100 { return "100" }
    while digits < 10 {
      exponent -= 1
      let (digit, rest) = users.dividingFullWidth(remainder.multipliedFullWidth(by: 10))
      digits = digits * 10 + digit
      remainder = rest
    }
    return Standing.decimal(digits + (remainder == 0 ? 0 : 1), exponent: exponent)
  }

  private static func decimal(_ digits: UInt64, exponent: Int) -> String {
    if exponent >= 0 { return String(digits) + String(repeating: "0", count: exponent) }
    var text = String(digits)
    if text.utf8.count <= -exponent {
      text = String(repeating: "0", count: 1 - exponent - text.utf8.count) + text
    }
    let point = text.index(text.endIndex, offsetBy: exponent)
    var fraction = String(text[point...])
    while fraction.last == "0" { fraction.removeLast() }
    return fraction.isEmpty ? String(text[..<point]) : "\(text[..<point]).\(fraction)"
  }
}
