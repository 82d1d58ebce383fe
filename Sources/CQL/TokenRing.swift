// Who holds what: tokens of nodes in order, and the replicas of a token by the keyspace's strategy. Pure.

internal import Posix

/// A node's identity, which its address is not.
public typealias HostID = CQLUUID

/// What a cluster says of a node.
struct NodeInfo: Hashable {
  var hostID: HostID
  /// In digits.
  var address: HostPort
  var datacenter: String
  var rack: String
  var tokens: [Int64]
}

/// How a keyspace spreads its replicas.
enum Replication: Hashable {
  /// This many, in the order of the ring.
  case simple(Int)
  /// This many in each datacenter, on distinct racks first.
  case network([String: Int])
  /// On every node.
  case everywhere
  /// A strategy that this driver does not know: nobody is preferred.
  case unknown

  /// Reads the map of system_schema.keyspaces.
  init(_ options: [String: String]) {
    // "3/1" is three, one of them transient.
    func count(_ text: String) -> Int? { Int(text.prefix { $0 != "/" }) }
    let name = options["class", default: ""].split(separator: ".").last.map(String.init) ?? ""
    switch name {
    case "SimpleStrategy": self = .simple(options["replication_factor"].flatMap(count) ?? 1)
    case "NetworkTopologyStrategy":
      self = .network(options.filter { $0.key != "class" }.compactMapValues(count))
    case "LocalStrategy", "EverywhereStrategy": self = .everywhere
    default: self = .unknown
    }
  }
}

struct TokenRing {
  private let nodes: [NodeInfo]
  /// Sorted by token; equal ones, which no healthy cluster has, by node.
  private let entries: [(token: Int64, node: Int)]

  init(_ nodes: [NodeInfo]) {
    self.nodes = nodes
    entries = nodes.indices.flatMap { node in nodes[node].tokens.map { (token: $0, node: node) } }
      .sorted { ($0.token, $0.node) < ($1.token, $1.node) }
  }

  var isEmpty: Bool { entries.isEmpty }

  /// The first entry whose token is not below; wraps. O(log entries).
  private func start(_ token: Int64) -> Int {
    var low = 0
    var high = entries.count
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].token < token { low = middle + 1 } else { high = middle }
    }
    return low == entries.count ? 0 : low
  }

  /// Replicas in the order of the ring, the token's owner first; empty if nobody is preferred. O(entries) at worst.
  func replicas(_ token: Int64, _ replication: Replication) -> [HostID] {
    guard !entries.isEmpty else { return [] }
    let start = start(token)
    switch replication {
    case .simple(let count): return walk(from: start, max: count)
    case .network(let counts): return walk(from: start, counts)
    case .everywhere: return walk(from: start, max: nodes.count)
    case .unknown: return []
    }
  }

  private func walk(from start: Int, max: Int) -> [HostID] {
    var found: [Int] = []
    for step in 0..<entries.count where found.count < max {
      let node = entries[(start + step) % entries.count].node
      if !found.contains(node) { found.append(node) }
    }
    return found.map { nodes[$0].hostID }
  }

  private func walk(from start: Int, _ counts: [String: Int]) -> [HostID] {
    var racksOf: [String: Set<String>] = [:]
    var nodesOf: [String: Int] = [:]
    for node in nodes where !node.tokens.isEmpty {
      racksOf[node.datacenter, default: []].insert(node.rack)
      nodesOf[node.datacenter, default: 0] += 1
    }
    struct Datacenter {
      var left: Int
      /// Nodes that may share a rack with another replica.
      var repeatsLeft: Int
      var racks: Set<String> = []
    }
    var datacenters: [String: Datacenter] = [:]
    for (name, count) in counts {
      let racks = racksOf[name, default: []].count
      datacenters[name] = Datacenter(left: min(count, nodesOf[name, default: 0]), repeatsLeft: count - racks)
    }
    var left = datacenters.values.reduce(0) { $0 + $1.left }
    var found: [Int] = []
    for step in 0..<entries.count where left > 0 {
      let node = entries[(start + step) % entries.count].node
      guard var datacenter = datacenters[nodes[node].datacenter], datacenter.left > 0, !found.contains(node)
      else { continue }
      if !datacenter.racks.insert(nodes[node].rack).inserted {
        if datacenter.repeatsLeft <= 0 { continue }
        datacenter.repeatsLeft -= 1
      }
      datacenter.left -= 1
      left -= 1
      datacenters[nodes[node].datacenter] = datacenter
      found.append(node)
    }
    return found.map { nodes[$0].hostID }
  }
}
