// Which nodes there are, which are connected, when to dial again, who is asked about the rest. A value; `SessionLoop`
// obeys. One connection a node.
//
//     contact points ──dial, one after another──> first link: control ──topology──> members, each dialled
//     a member's link ends ──> waits (backoff, jittered) ──> dialled again, for as long as it is a member
//     the control link ends ──> another ready one takes over and asks about everything; with none left, contact points
//     are resolved and dialled again beside the members

internal import Posix
internal import Transport

struct PoolState {
  typealias LinkID = Int

  enum Action: Equatable {
    /// Connect; the first message is in version `first`, and no version above `max` is agreed to.
    case dial(LinkID, Target, first: ProtocolVersion, max: ProtocolVersion)
    case close(LinkID)
    /// Register for events and ask this node about the cluster.
    case discover(LinkID)
    /// Resolve the contact points' names again, and call `contacts`.
    case resolve
    /// No contact point can be used, at the first try.
    case giveUp([Failure])
  }

  typealias Target = HostPort

  struct Failure: Equatable {
    var target: Target
    var error: ConnectionError
  }

  private struct Link {
    var target: Target
    /// nil until the topology tells which node answers there.
    var hostID: HostID?
    var isReady = false
  }

  private struct Member {
    var info: NodeInfo
    var link: LinkID?
    var backoff: Backoff
    var retryAt: Moment?
  }

  /// How often everything is asked again whatever the events say.
  static let refreshInterval: Duration = .seconds(60)
  /// How long events are gathered before everything is asked again.
  static let debounce: Duration = .seconds(1)

  private var links: [LinkID: Link] = [:]
  private var members: [HostID: Member] = [:]
  private var linkNext = 1
  private var contacts: [Target] = []
  private var contactNext = 0
  private var failures: [Failure] = []
  /// What the cluster's nodes take: learnt from one, used for all.
  private var versionFirst = ProtocolVersion.v4
  private var versionMax: ProtocolVersion
  private(set) var control: LinkID?
  private var refreshAt = Moment.never
  private var contactsBackoff: Backoff
  private var resolveAt: Moment?
  private(set) var hasTopology = false
  private let localDatacenterAsked: String?
  private(set) var localDatacenter: String?
  private let seed: UInt64

  init(localDatacenter: String?, versionMax: ProtocolVersion = .v5, seed: UInt64) {
    self.versionMax = versionMax
    localDatacenterAsked = localDatacenter
    self.seed = seed
    contactsBackoff = Backoff(seed: seed)
  }

  /// The connected link of a node.
  func link(_ hostID: HostID) -> LinkID? {
    guard let id = members[hostID]?.link, links[id]?.isReady == true else { return nil }
    return id
  }

  /// Members of the local datacenter with a ready link.
  var usable: [HostID] {
    members.compactMap { id, member in
      member.info.datacenter == localDatacenter && link(id) != nil ? id : nil
    }
  }

  var nodes: [NodeInfo] { members.values.map(\.info) }

  func address(_ hostID: HostID) -> HostPort? { members[hostID]?.info.address }

  // MARK: Contact points

  /// The contact points' addresses, best first.
  mutating func contacts(_ targets: [Target], at now: Moment) -> [Action] {
    contacts = targets
    contactNext = 0
    failures = []
    return dialContact(at: now)
  }

  private mutating func dialContact(at now: Moment) -> [Action] {
    guard contactNext < contacts.count else {
      if !hasTopology { return [.giveUp(failures)] }
      resolveAt = now + contactsBackoff.failed()
      return []
    }
    let target = contacts[contactNext]
    contactNext += 1
    return [dial(target, nil)]
  }

  private mutating func dial(_ target: Target, _ hostID: HostID?) -> Action {
    let id = linkNext
    linkNext += 1
    links[id] = Link(target: target, hostID: hostID)
    if let hostID { members[hostID]?.link = id }
    return .dial(id, target, first: versionFirst, max: versionMax)
  }

  // MARK: Links

  /// The handshake is done.
  mutating func opened(_ id: LinkID, _ version: ProtocolVersion, at now: Moment) -> [Action] {
    guard links[id] != nil else { return [.close(id)] }
    links[id]?.isReady = true
    versionFirst = version
    if let hostID = links[id]?.hostID { members[hostID]?.backoff.succeeded() }
    contactsBackoff.succeeded()
    if control == nil { return takeControl(id, at: now) }
    // A member was back before the contact point: nobody needs this one any more.
    guard links[id]?.hostID == nil else { return [] }
    links[id] = nil
    return [.close(id)]
  }

  private mutating func takeControl(_ id: LinkID, at now: Moment) -> [Action] {
    control = id
    refreshAt = now + PoolState.refreshInterval
    return [.discover(id)]
  }

  /// A link ended, or could not be made.
  mutating func ended(_ id: LinkID, _ error: ConnectionError, at now: Moment) -> [Action] {
    guard let link = links.removeValue(forKey: id) else { return [] }
    var actions: [Action] = []
    if case .versionRejected(_, let next?) = error, learn(next) {
      if control == id { control = nil }
      return [dial(link.target, link.hostID)]
    }
    if let hostID = link.hostID {
      members[hostID]?.link = nil
      if let pause = members[hostID]?.backoff.failed() { members[hostID]?.retryAt = now + pause }
    } else {
      failures.append(Failure(target: link.target, error: error))
    }
    if control == id {
      control = nil
      if let other = links.first(where: { $0.value.isReady && $0.value.hostID != nil })?.key {
        actions += takeControl(other, at: now)
      }
    }
    if link.hostID == nil {
      if control == nil { actions += dialContact(at: now) }
    } else if control == nil, !links.values.contains(where: { $0.hostID == nil }), resolveAt == nil {
      resolveAt = now + contactsBackoff.failed()
    }
    return actions
  }

  /// A server wants another version; whether that is news.
  private mutating func learn(_ next: ProtocolVersion) -> Bool {
    switch next {
    case .v4 where versionMax > .v4:
      versionMax = .v4
      versionFirst = .v4
      return true
    case .v5 where versionFirst < .v5 && versionMax >= .v5:
      versionFirst = .v5
      return true
    case .v4, .v5: return false
    }
  }

  /// The cluster, as the control link's node sees it.
  mutating func discovered(_ topology: Topology, by id: LinkID, at now: Moment) -> [Action] {
    guard control == id, let link = links[id] else { return [] }
    var actions: [Action] = []
    localDatacenter = localDatacenterAsked ?? localDatacenter ?? topology.local.datacenter
    hasTopology = true
    // The node that answers owns the link, whoever we thought it was.
    if link.hostID != topology.local.hostID {
      if let before = link.hostID { members[before]?.link = nil }
      if let other = members[topology.local.hostID]?.link, other != id {
        links[other] = nil
        actions.append(.close(other))
      }
      links[id]?.hostID = topology.local.hostID
    }
    let known = Set(topology.nodes.map(\.hostID))
    for (hostID, member) in members where !known.contains(hostID) {
      members[hostID] = nil
      if let gone = member.link {
        links[gone] = nil
        actions.append(.close(gone))
      }
    }
    for info in topology.nodes {
      if let before = members[info.hostID] {
        let moved = before.info.address != info.address
        members[info.hostID]?.info = info
        if moved, let old = before.link, old != id {
          links[old] = nil
          members[info.hostID]?.link = nil
          members[info.hostID]?.retryAt = now
          actions.append(.close(old))
        }
      } else {
        members[info.hostID] = Member(
          info: info, link: nil, backoff: Backoff(seed: seed ^ info.hostID.low), retryAt: now)
      }
    }
    members[topology.local.hostID]?.link = id
    members[topology.local.hostID]?.retryAt = nil
    return actions + expire(at: now)
  }

  /// The node of the control link does not tell: another one is asked.
  mutating func notDiscovered(by id: LinkID, at now: Moment) -> [Action] {
    guard control == id else { return [] }
    // A link that cannot answer these can answer nothing.
    return [.close(id)] + ended(id, .lost("the node tells nothing about its cluster"), at: now)
  }

  // MARK: Events and time

  mutating func heard(_ event: ServerEvent, at now: Moment) -> [Action] {
    switch event {
    case .topology, .schema: refreshAt = min(refreshAt, now + PoolState.debounce)
    case .status(let change, let address, let port):
      refreshAt = min(refreshAt, now + PoolState.debounce)
      // UP is worth a try at once; DOWN is a rumour, and the link itself will tell.
      guard change == "UP", let host = IPAddress.text(address) else { break }
      for (hostID, member) in members
      where member.link == nil && member.info.address.host == host && Int(member.info.address.port) == port {
        members[hostID]?.retryAt = now + PoolState.debounce
      }
    case .other: break
    }
    return []
  }

  /// When `expire` has something to do next.
  var expiresNext: Moment {
    var next = control == nil ? .never : refreshAt
    if let resolveAt { next = min(next, resolveAt) }
    for member in members.values where member.link == nil {
      if let retryAt = member.retryAt { next = min(next, retryAt) }
    }
    return next
  }

  mutating func expire(at now: Moment) -> [Action] {
    var actions: [Action] = []
    if let control, now >= refreshAt {
      refreshAt = now + PoolState.refreshInterval
      actions.append(.discover(control))
    }
    if let at = resolveAt, now >= at {
      resolveAt = nil
      if control == nil { actions.append(.resolve) }
    }
    for (hostID, member) in members where member.link == nil {
      guard let retryAt = member.retryAt, now >= retryAt, member.info.datacenter == localDatacenter
      else { continue }
      members[hostID]?.retryAt = nil
      actions.append(dial(member.info.address, hostID))
    }
    return actions
  }
}
