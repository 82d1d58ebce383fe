// A frame, by offset; all integers little-endian:
//
//   0  u32  length of what follows, 8...65,536 in requests, 8...1,048,576 in answers
//   4  u8   kind
//   5  u8   flags
//   6  u16  reserved, 0
//   8  u32  id, chosen by the client, never 0; answers carry the id of their request, 0 if they answer none
//  12  …    payload

/// What a frame is. Answers have the request's number plus 128.
public enum Kind: UInt8, CaseIterable, Sendable {
  case hello = 1
  case ping = 2
  case top = 3
  case rank = 4
  case around = 5
  case compare = 6
  case summary = 7
  case boards = 8
  case status = 9
  // Numbers kept for what comes next; servers of this version answer `unsupported`.
  case history = 10
  case subscribe = 11
  case topology = 12
  /// An order to the node, from who may administer it.
  case admin = 13
  case deadLetters = 14

  /// Added to a request's kind in its answer.
  public static let answerBit: UInt8 = 0x80
  /// Kind of an ERROR frame.
  public static let error: UInt8 = 0xFF

  /// Kind of this request's answer.
  @inlinable public var answer: UInt8 { rawValue | Kind.answerBit }
}

/// What a request's flag bits say.
public enum RequestFlags {
  /// A deadline, u32 milliseconds, begins the payload.
  public static let deadline: UInt8 = 1
  /// A list of offsets to wait for follows.
  public static let atLeast: UInt8 = 2
  /// All bits with a meaning.
  public static let known: UInt8 = 3
}

/// A whole frame; its payload is borrowed from the buffer it was found in.
@frozen public struct Frame: BitwiseCopyable {
  public var kind: UInt8
  public var flags: UInt8
  public var reserved: UInt16
  public var id: UInt32
  public var payload: UnsafeRawBufferPointer

  @inlinable public init(
    kind: UInt8, flags: UInt8, reserved: UInt16 = 0, id: UInt32, payload: UnsafeRawBufferPointer
  ) {
    self.kind = kind
    self.flags = flags
    self.reserved = reserved
    self.id = id
    self.payload = payload
  }
}
