// What ends a connection, or keeps it from being made.

/// Why a node cannot be talked to.
public enum ConnectionError: Error, Hashable, Sendable {
  /// Nobody answers at the address; nothing was sent.
  case unreachable(String)
  /// The handshake took too long.
  case handshakeTimedOut
  /// The server does not speak this version; `next` is what to try over a new connection, nil if nothing is left.
  case versionRejected(String, next: ProtocolVersion?)
  /// The server wants a password that was not given, or does not take the one that was. Trying again does not help.
  case authentication(String)
  /// The server refused the handshake for another reason.
  case refused(ServerError)
  /// The other side sent what is no CQL, or what nobody asked for.
  case protocolBroken(String)
  /// Nothing came for long, not even an answer to a heartbeat.
  case silent
  /// Too many requests had no answer for too long.
  case tooManyOrphans
  /// The connection ended by itself.
  case lost(String)
  /// It was closed here.
  case closed
}

extension ConnectionError: CustomStringConvertible {
  /// A sentence for people.
  public var description: String {
    switch self {
    case .unreachable(let why): "cannot connect: \(why)"
    case .handshakeTimedOut: "the handshake was not answered in time; is this a CQL port?"
    case .versionRejected(let why, _): "the server speaks neither version 5 nor 4 of the protocol: \(why)"
    case .authentication(let why): "not let in: \(why)"
    case .refused(let error): "the handshake was refused: \(error)"
    case .protocolBroken(let what): "the server broke the protocol: \(what)"
    case .silent: "the server fell silent"
    case .tooManyOrphans: "too many requests were never answered"
    case .lost(let why): "the connection ended: \(why)"
    case .closed: "closed here"
    }
  }
}
