// Finds whole frames at the front of received bytes. Pure, with a state of two numbers: the bytes stay with the caller, who keeps what
// is not consumed and shows it again with more behind it. A length is judged before anything is reserved for it.
//
// A client's first frame must be HELLO, which bounds its first eight bytes so tightly that HTTP, TLS and Kafka cannot
// pass: their first four bytes, read as a length, lie far above 4,096, or their fifth byte is not 1.

/// Cuts a stream of bytes into frames.
@frozen public struct FrameSplitter: BitwiseCopyable, Sendable {
  /// Longest frame to accept, as its length says.
  public let lengthMax: Int
  /// Whether the next frame must be a HELLO.
  public private(set) var expectsHello: Bool

  /// What the front of the bytes holds.
  @frozen public enum Step {
    /// A frame, and the number of bytes it took; drop those before asking again.
    case frame(Frame, consumed: Int)
    /// Not a whole frame yet: `bytes` in all make the next step possible.
    case incomplete(bytes: Int)
    /// The stream cannot be followed any further: write this as an ERROR with id 0 and close.
    case refused(Refusal)
  }

  private init(lengthMax: Int, expectsHello: Bool) {
    self.lengthMax = lengthMax
    self.expectsHello = expectsHello
  }

  /// Splits what a server receives: HELLO first, frames up to `Limits.frameInBytesMax`.
  public static func requests() -> FrameSplitter {
    FrameSplitter(lengthMax: Limits.frameInBytesMax, expectsHello: true)
  }

  /// Splits what a client receives: frames up to `Limits.frameOutBytesMax`.
  public static func answers() -> FrameSplitter {
    FrameSplitter(lengthMax: Limits.frameOutBytesMax, expectsHello: false)
  }

  /// Looks at the front of `bytes`.
  ///
  /// - Parameter bytes: all received bytes that no earlier frame took.
  /// - Returns: a frame that borrows from `bytes`, how many bytes are needed, or a refusal.
  /// - Complexity: O(1).
  public mutating func next(_ bytes: UnsafeRawBufferPointer) -> Step {
    guard bytes.count >= Limits.lengthBytes else { return .incomplete(bytes: Limits.lengthBytes) }
    let length = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt32.self)))
    if expectsHello, let refusal = FrameSplitter.foreign(bytes, length) { return .refused(refusal) }
    guard length >= Limits.headerBytes else {
      return .refused(Refusal(.frameSize, "a frame's length is at least 8"))
    }
    guard length <= lengthMax else {
      return .refused(
        expectsHello || lengthMax == Limits.frameInBytesMax
          ? Refusal(.frameSize, "a request's length is at most 65536")
          : Refusal(.frameSize, "an answer's length is at most 1048576"))
    }
    let whole = Limits.lengthBytes &+ length
    guard bytes.count >= whole else { return .incomplete(bytes: whole) }
    expectsHello = false
    let frame = Frame(
      kind: bytes[4], flags: bytes[5],
      reserved: UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self)),
      id: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self)),
      payload: UnsafeRawBufferPointer(rebasing: bytes[12..<whole]))
    return .frame(frame, consumed: whole)
  }

  /// Whether the first bytes of a connection are no HELLO.
  private static func foreign(_ bytes: UnsafeRawBufferPointer, _ length: Int) -> Refusal? {
    if bytes[0] == 0x47 || bytes[0] == 0x50 || bytes[0] == 0x48, length > Limits.helloBytesMax {
      return Refusal(.foreign, "this is an rms query port; HTTP is served at http.listen")
    }
    if bytes[0] == 0x16, bytes[1] == 0x03 {
      return Refusal(.foreign, "this is an rms query port without TLS")
    }
    guard length <= Limits.helloBytesMax else {
      return Refusal(.foreign, "this is an rms query port; the first bytes are no HELLO")
    }
    guard bytes.count >= 8 else { return nil }
    let header = bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
    // A known request in place of HELLO is a client's mistake, anything else a stranger.
    if UInt32(littleEndian: header) == UInt32(Kind.hello.rawValue) { return magic(bytes, length) }
    if Kind(rawValue: bytes[4]) != nil, bytes[6] == 0, bytes[7] == 0, length >= Limits.headerBytes {
      return Refusal(.helloFirst, "the first message is HELLO, with no flags")
    }
    return Refusal(.foreign, "this is an rms query port; the first bytes are no HELLO")
  }

  private static func magic(_ bytes: UnsafeRawBufferPointer, _ length: Int) -> Refusal? {
    guard length >= Limits.headerBytes &+ HelloRequest.magicBytes else {
      return Refusal(.foreign, "HELLO begins with RMS1")
    }
    guard bytes.count >= 16 else { return nil }
    let magic = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
    return magic == HelloRequest.magic ? nil : Refusal(.foreign, "HELLO begins with RMS1")
  }
}
