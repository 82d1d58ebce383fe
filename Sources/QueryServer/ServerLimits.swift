// The limits of a query server: what clients may take, each with its reason. A row is a setting's default.

internal import QueryProtocol

/// What clients may take of a node.
public struct ServerLimits: Hashable, Sendable {
  /// Connections in all; lowered to what the descriptor limit allows.
  public var connectionsMax = 10_000
  /// Connections from one address, so that one client cannot take all.
  public var connectionsPerAddressMax = 256
  /// New connections a second from one address; more are refused, retryable.
  public var connectionRatePerAddressMax = 200
  /// HELLO must be whole within this time, however it trickles in.
  public var helloWithin = Duration.seconds(5)
  /// Silence after which a client is closed: two missed pings of 30 s.
  public var idleAfter = Duration.seconds(60)
  /// A client that takes no byte of its answers for this long is closed.
  public var outputStalledAfter = Duration.seconds(10)
  /// Answers of one turn; beyond it the rest of the requests waits until these are taken.
  public var outputBytesMax = 1 << 20
  /// Requests of one connection that may wait; beyond it nothing is read.
  public var inFlightMax = Limits.inFlightMax
  /// A request waits for an offset at most this long, unless its own deadline is sooner.
  public var atLeastWithin = Duration.seconds(10)
  /// Memory held for all clients together; the largest is closed first.
  public var clientBytesMax = 64 << 20
  /// How long a refused client may read the reason before its socket is closed.
  public var lingerWithin = Duration.seconds(1)

  public init() {}

  /// Descriptors kept for everything but clients: log, store, archive, dead letters.
  public static let descriptorsKept = 32

  /// Lowers the number of connections to what the descriptor limit allows.
  ///
  /// - Parameter descriptorsMax: descriptors the process may have.
  /// - Returns: whether it was lowered; say so.
  public mutating func fit(descriptorsMax: Int) -> Bool {
    let room = max(1, descriptorsMax - ServerLimits.descriptorsKept)
    guard room < connectionsMax else { return false }
    connectionsMax = room
    return true
  }
}
