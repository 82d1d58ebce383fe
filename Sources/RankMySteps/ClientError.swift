// What goes wrong between a client and a node; a case where a caller acts in its own way.

public import QueryProtocol

/// Why a request has no answer.
public enum ClientError: Error, Hashable, Sendable {
  /// No connection could be made; nothing was sent.
  case unreachable(String)
  /// The connection ended while requests waited; all requests only read, so asking again does no harm.
  case disconnected(String)
  /// No answer came in time; it is dropped if it comes later.
  case timedOut(String)
  /// Something answers at the port, and it is no rms node.
  case notRMS(ForeignPeer)
  /// The node answered with an error.
  case refused(code: ErrorCode, retryable: Bool, text: String)
  /// The node sent bytes that are no answer: a fault of one of the two programs.
  case protocolBroken(String)
  /// More requests wait than the node allows; receive some first.
  case tooManyInFlight(max: Int)

  /// Whether the same request may succeed later, here or at another node.
  public var isRetryable: Bool {
    switch self {
    case .unreachable, .disconnected, .timedOut, .tooManyInFlight: true
    case .refused(_, let retryable, _): retryable
    case .notRMS, .protocolBroken: false
    }
  }

  init(_ answer: ErrorAnswer) {
    self = .refused(code: answer.code, retryable: answer.retryable, text: answer.text)
  }
}

extension ClientError: CustomStringConvertible {
  /// A sentence for people.
  public var description: String {
    switch self {
    case .unreachable(let why): "cannot connect: \(why)"
    case .disconnected(let why): "the connection ended: \(why)"
    case .timedOut(let what): "no answer in time: \(what)"
    case .notRMS(let peer): "not an rms port: \(peer)"
    case .refused(let code, _, let text): "the node refused (\(code)): \(text)"
    case .protocolBroken(let what): "the node sent no answer of the query protocol: \(what)"
    case .tooManyInFlight(let max): "\(max) requests wait already"
    }
  }
}

/// Who sits at a port that is no rms port, as far as its first bytes tell.
public enum ForeignPeer: Hashable, Sendable {
  case http
  case tls
  case ssh
  case redis
  /// It closed without a byte, as Kafka brokers do.
  case closed
  /// It never answered HELLO.
  case silent
  /// None of those.
  case unknown

  /// Names the protocol of a peer's first bytes.
  ///
  /// - Parameter bytes: what it sent so far.
  /// - Returns: nil if they may be the beginning of a frame.
  static func recognise(_ bytes: UnsafeRawBufferPointer) -> ForeignPeer? {
    func starts(_ text: StaticString) -> Bool {
      bytes.count >= text.utf8CodeUnitCount
        && bytes.prefix(text.utf8CodeUnitCount)
          .elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }
    if starts("HTTP") { return .http }
    if starts("SSH-") { return .ssh }
    if starts("-ERR") { return .redis }
    // An alert or handshake record of TLS 1.x.
    if bytes.count >= 3, bytes[0] == 0x15 || bytes[0] == 0x16, bytes[1] == 3 { return .tls }
    guard bytes.count >= 4 else { return nil }
    let length = Int(UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)))
    return (Limits.headerBytes...Limits.frameOutBytesMax).contains(length) ? nil : .unknown
  }
}

extension ForeignPeer: CustomStringConvertible {
  public var description: String {
    switch self {
    case .http: "it speaks HTTP; rmsd answers queries at query.listen, 7670 by default"
    case .tls: "it speaks TLS"
    case .ssh: "it speaks SSH"
    case .redis: "it speaks the Redis protocol"
    case .closed: "it closed the connection without a word, as a Kafka broker does"
    case .silent: "it did not answer HELLO"
    case .unknown: "its first bytes are no answer to HELLO"
    }
  }
}
