// Errors of a session, by the stage of life in which they surface.

/// Why a session could not do what was asked of it.
public enum CQLError: Error, Hashable, Sendable {
  /// No contact point let us in; one error a node. Nothing was asked.
  case connect([NodeFailure])
  /// The caller's values do not go with the statement; nothing was sent.
  case value(ValueError)
  /// As many requests as the session allows are under way; nothing was sent.
  case busy(inFlightMax: Int)
  /// The request is longer than the server takes; nothing was sent.
  case tooLong(bytes: Int, max: Int)
  /// The request brought no result.
  case failed(Failure)
  /// A page came back with the place it was asked from, and no rows: the scan would never end.
  case pagingLoop
  /// The session is closed.
  case closed

  /// What became of a contact point.
  public struct NodeFailure: Hashable, Sendable {
    public let address: String
    public let error: ConnectionError
  }

  /// A request that was tried and failed.
  public struct Failure: Hashable, Sendable {
    /// The last attempt's error.
    public let error: AttemptError
    /// Every attempt, in order.
    public let attempts: [Attempt]

    /// Whether some attempt may have been carried out although it was not acknowledged.
    public var isOutcomeUnknown: Bool {
      error.isOutcomeUnknown || attempts.contains { $0.error.isOutcomeUnknown }
    }
  }

  /// An attempt on one node.
  public struct Attempt: Hashable, Sendable {
    /// The node's address and port; its host id where the address is no longer known.
    public let node: String
    public let error: AttemptError
  }
}

extension CQLError: CustomStringConvertible {
  /// A sentence for people, with the likely remedy where there is one.
  public var description: String {
    switch self {
    case .connect(let failures):
      "no node can be used: "
        + (failures.isEmpty
          ? "no contact point has an address"
          : failures.map { "\($0.address): \($0.error)" }.joined(separator: "; "))
    case .value(let error): "\(error)"
    case .busy(let max): "\(max) requests are under way already; wait for some of them"
    case .tooLong(let bytes, let max): "a request of \(bytes) bytes; the server takes \(max)"
    case .failed(let failure):
      "\(failure.error)"
        + (failure.attempts.count > 1
          ? " (after \(failure.attempts.count) attempts: "
            + failure.attempts.map { "\($0.node): \($0.error)" }.joined(separator: "; ") + ")" : "")
    case .pagingLoop: "the server gives the same page again and again, without rows"
    case .closed: "the session is closed"
    }
  }
}
