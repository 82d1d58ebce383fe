// What a cluster consists of, asked of one node: a chain of queries as a value. Register for events first, then ask:
// what changes in between is then asked about again.

internal import Glibc
internal import Posix

enum IPAddress {
  /// An address of 4 or 16 bytes in digits; nil if it has another length.
  static func text(_ bytes: [UInt8]) -> String? {
    guard bytes.count == 4 || bytes.count == 16 else { return nil }
    var text = [CChar](repeating: 0, count: 64)
    let family = bytes.count == 4 ? AF_INET : AF_INET6
    guard inet_ntop(family, bytes, &text, socklen_t(text.count)) != nil else { return nil }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

struct Topology: Equatable {
  var local: NodeInfo
  /// The local node included.
  var nodes: [NodeInfo]
  var replication: [String: Replication]
  /// Rows that lack something, and were left out.
  var skipped = 0
}

struct Discovery {
  enum Step: Equatable {
    case ask(String)
    case done(Topology)
    case failed(AttemptError)
  }

  private enum Phase {
    case local
    case peersV2
    case peers
    case keyspaces
  }

  private static let localText =
    "SELECT host_id, rpc_address, data_center, rack, tokens FROM system.local WHERE key = 'local'"
  private static let peersV2Text =
    "SELECT host_id, native_address, native_port, data_center, rack, tokens FROM system.peers_v2"
  private static let peersText = "SELECT host_id, rpc_address, data_center, rack, tokens FROM system.peers"
  private static let keyspacesText = "SELECT keyspace_name, replication FROM system_schema.keyspaces"

  /// The address this connection goes to, which holds where a node names none.
  private let connected: HostPort
  private var phase = Phase.local
  private var local: NodeInfo?
  private var peers: [NodeInfo] = []
  private var skipped = 0

  init(connectedTo address: HostPort) { connected = address }

  /// The first question.
  var first: Step { .ask(Discovery.localText) }

  mutating func answered(_ page: Page) -> Step {
    switch phase {
    case .local:
      guard let row = page.first, let node = node(row, address: "rpc_address", port: nil, isLocal: true)
      else {
        return .failed(.malformed("system.local tells no host id, datacenter or rack"))
      }
      local = node
      phase = .peersV2
      return .ask(Discovery.peersV2Text)
    case .peersV2:
      take(page, address: "native_address", port: "native_port")
      phase = .keyspaces
      return .ask(Discovery.keyspacesText)
    case .peers:
      take(page, address: "rpc_address", port: nil)
      phase = .keyspaces
      return .ask(Discovery.keyspacesText)
    case .keyspaces: return finish(page)
    }
  }

  mutating func failed(_ error: AttemptError) -> Step {
    // Older servers have no peers_v2, and say so as an invalid query.
    if case .peersV2 = phase, case .server(let server) = error, server.kind == .invalid {
      phase = .peers
      return .ask(Discovery.peersText)
    }
    return .failed(error)
  }

  private mutating func take(_ page: Page, address: String, port: String?) {
    for row in page {
      guard let peer = node(row, address: address, port: port, isLocal: false), peer.hostID != local?.hostID,
        !peers.contains(where: { $0.hostID == peer.hostID })
      else {
        skipped += 1
        continue
      }
      peers.append(peer)
    }
  }

  private func node(_ row: Row, address: String, port: String?, isLocal: Bool) -> NodeInfo? {
    func text(_ name: String) -> String? { (try? row.optional(name, as: String.self)) ?? nil }
    guard let hostID = (try? row.optional("host_id", as: CQLUUID.self)) ?? nil,
      let datacenter = text("data_center"), let rack = text("rack")
    else { return nil }
    let bytes = ((try? row.optional(address, as: [UInt8].self)) ?? nil) ?? []
    // 0.0.0.0 is no address to dial; where we are connected already, that one is.
    let named = IPAddress.text(bytes)
    guard let host = isLocal ? connected.host : bytes.allSatisfy({ $0 == 0 }) ? nil : named else {
      return nil
    }
    var tokens: [Int64] = []
    if case .set(let texts)? = (try? row.optional("tokens", as: Value.self)) ?? nil {
      for case .text(let text) in texts { if let token = Int64(text) { tokens.append(token) } }
    }
    // A joining node has no tokens yet.
    if !isLocal, tokens.isEmpty { return nil }
    let number = port.flatMap { (try? row.optional($0, as: Int32.self)) ?? nil }
    return NodeInfo(
      hostID: hostID,
      address: HostPort(host: host, port: number.flatMap { UInt16(exactly: $0) } ?? connected.port),
      datacenter: datacenter, rack: rack, tokens: tokens)
  }

  private func finish(_ page: Page) -> Step {
    guard let local else { preconditionFailure("keyspaces before the local node") }
    var replication: [String: Replication] = [:]
    for row in page {
      guard let name = (try? row.optional("keyspace_name", as: String.self)) ?? nil,
        case .map(let entries)? = (try? row.optional("replication", as: Value.self)) ?? nil
      else { continue }
      var options: [String: String] = [:]
      for entry in entries {
        if case (.text(let key), .text(let value)) = (entry.key, entry.value) { options[key] = value }
      }
      replication[name] = Replication(options)
    }
    return .done(Topology(local: local, nodes: [local] + peers, replication: replication, skipped: skipped))
  }
}
