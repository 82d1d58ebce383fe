// What an administrator may order from a running node, and who carries it out. The desk stands between the query
// server, which is there from the start, and whoever keeps the log, who comes later and may go.

import QueryProtocol
import Synchronization

/// Carries out orders. Called on the thread that answers questions about the node, outside the shards' gates; returns
/// without waiting for the disk: what becomes of an order shows in STATUS.
protocol NodeAdmin: AnyObject, Sendable {
  /// Takes an order.
  ///
  /// - Parameters:
  ///   - verb: what to do.
  ///   - partition: where; nil for all shards of this node, never nil for `acceptGap`.
  /// - Returns: a sentence about what happens now.
  /// - Throws: why nothing does.
  func order(_ verb: AdminVerb, partition: Int32?) throws(AdminRefusal) -> String
}

/// Why an order is not carried out; each case is another error number for the client. The texts are sentences for people.
enum AdminRefusal: Error, Equatable {
  /// The node or the shard is in no state for it.
  case notPossible(String)
  /// The partition is not one of this node's shards.
  case unknownPartition(String)
  /// The node tried and failed.
  case failed(String)

  var code: ErrorCode {
    switch self {
    case .notPossible: .notPossible
    case .unknownPartition: .unknownPartition
    case .failed: .serverError
    }
  }

  var text: String {
    switch self {
    case .notPossible(let text), .unknownPartition(let text), .failed(let text): text
    }
  }
}

/// Where orders are handed in. Any thread.
final class AdminDesk: Sendable {
  private let keeper = Mutex<Keeper>(Keeper())

  private struct Keeper: Sendable { weak var admin: (any NodeAdmin)? }

  /// Whoever keeps the log takes orders from here on; the desk does not keep it alive.
  func open(_ admin: any NodeAdmin) { keeper.withLock { $0.admin = admin } }

  /// Hands an order in.
  ///
  /// - Parameters:
  ///   - verb: what to do.
  ///   - partition: where; nil for all.
  /// - Returns: what happens now.
  /// - Throws: why nothing does; `notPossible` while nobody keeps a log here.
  func order(_ verb: AdminVerb, partition: Int32?) throws(AdminRefusal) -> String {
    guard let admin = keeper.withLock({ $0.admin }) else {
      throw .notPossible(
        "this node has no log open, and \(verb.name) is done there; its state comes from Kafka alone")
    }
    return try admin.order(verb, partition: partition)
  }
}
