// How many replicas must agree, by the numbers of the wire.

/// How many replicas must answer.
public enum Consistency: UInt16, Hashable, Sendable, CaseIterable {
  case any = 0
  case one = 1
  case two = 2
  case three = 3
  case quorum = 4
  case all = 5
  case localQuorum = 6
  case eachQuorum = 7
  case serial = 8
  case localSerial = 9
  case localOne = 10

  init(_ reader: inout WireReader) throws(CodecError) {
    let number = try reader.short()
    guard let known = Consistency(rawValue: UInt16(number)) else { throw .unknown("the consistency", number) }
    self = known
  }
}
