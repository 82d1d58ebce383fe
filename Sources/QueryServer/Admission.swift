// Who may connect: limits in all, of an address, and of an address a second. Pure.

public import Posix

/// What becomes of a new connection.
public enum AdmissionVerdict: String, Hashable, Sendable, CaseIterable {
  case admitted
  /// As many connections as the node takes.
  case full
  /// As many connections as one address may have.
  case addressFull = "address_full"
  /// The address connects too often.
  case addressTooFast = "address_too_fast"
}

/// Counts of connections, in all and by address.
public struct Admission: Sendable {
  private struct Address {
    var connections = 0
    /// When the second in which `recent` is counted began.
    var since: Moment
    var recent = 0
  }

  /// Addresses remembered before those without connections are forgotten.
  static let idleAddressesMax = 4_096

  private let limits: ServerLimits
  private var addresses: [PeerAddress: Address] = [:]
  /// Connections now.
  public private(set) var count = 0

  public init(_ limits: ServerLimits) { self.limits = limits }

  /// Somebody connects; if admitted, `left` must follow once.
  ///
  /// - Parameters:
  ///   - peer: who.
  ///   - now: the monotonic clock.
  /// - Returns: the verdict.
  /// - Complexity: O(1) amortised.
  public mutating func connected(_ peer: PeerAddress, now: Moment) -> AdmissionVerdict {
    if addresses.count > count + Admission.idleAddressesMax {
      addresses = addresses.filter { $0.value.connections > 0 || now - $0.value.since < .seconds(1) }
    }
    var address = addresses[peer] ?? Address(since: now)
    defer { addresses[peer] = address }
    if now - address.since >= .seconds(1) {
      address.since = now
      address.recent = 0
    }
    address.recent += 1
    if address.recent > limits.connectionRatePerAddressMax { return .addressTooFast }
    if count >= limits.connectionsMax { return .full }
    if address.connections >= limits.connectionsPerAddressMax { return .addressFull }
    count += 1
    address.connections += 1
    return .admitted
  }

  /// An admitted connection ended.
  ///
  /// - Parameter peer: whose.
  public mutating func left(_ peer: PeerAddress) {
    guard var address = addresses[peer], address.connections > 0 else {
      preconditionFailure("\(peer) left without a connection")
    }
    count -= 1
    address.connections -= 1
    addresses[peer] = address
  }
}
