// A board on the wire: 5 bytes.
//
//   0  u8   kind: 0 today (requests only), 1 day, 2 week, 3 month, 4 all
//   1  i32  days since 1970-01-01; that of the week's Monday; months since 1970-01; 0 for today and all

internal import Bytes
public import StepModel

/// The board that a request asks for.
@frozen public enum BoardName: Hashable, Sendable {
  /// The day it is now in the cluster's zone; the answer names it.
  case today
  /// This board.
  case named(BoardID)

  /// Last day that has a name, 9999-12-31.
  static let dayMax: Int32 = 2_932_896
  /// Last month that has a name, 9999-12.
  static let monthMax: Int32 = 8_030 * 12 - 1

  /// Bytes of a board on the wire.
  static let bytes = 5

  /// Kind byte and number.
  var wire: (kind: UInt8, number: Int32) {
    switch self {
    case .today: (0, 0)
    case .named(.day(let day)): (1, day.number)
    case .named(.week(let monday)): (2, monday.number)
    case .named(.month(let month)): (3, month)
    case .named(.all): (4, 0)
    }
  }

  /// - Returns: the board; nil if the two name none (no such kind, before 1970, after 9999, a week not by its Monday).
  static func from(kind: UInt8, number: Int32) -> BoardName? {
    switch kind {
    case 0: return number == 0 ? .today : nil
    case 1:
      return (0...dayMax).contains(number) ? .named(.day(Day(number: number))) : nil
    case 2:
      // 1970-01-05 is a Monday; the first week with a name begins on 1969-12-29.
      guard (-3...dayMax).contains(number), (number + 3) % 7 == 0 else { return nil }
      return .named(.week(monday: Day(number: number)))
    case 3: return (0...monthMax).contains(number) ? .named(.month(number)) : nil
    case 4: return number == 0 ? .named(.all) : nil
    default: return nil
    }
  }
}

extension BoardName: CustomStringConvertible {
  /// `today`, or the board's name.
  public var description: String {
    switch self {
    case .today: "today"
    case .named(let board): board.description
    }
  }
}

extension ByteWriter {
  mutating func board(_ name: BoardName) {
    let (kind, number) = name.wire
    integer(kind)
    integer(number)
  }
}
