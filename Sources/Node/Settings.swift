// The settings of a node: one row each (habit: a fact has one table). From this table come the parser, the check of
// configuration files, the environment names, `--print-config`, the example file and the cluster's fingerprint.

public import Posix

/// What a node was told, every value checked.
public struct Settings: Sendable {
  public var clusterName = ""
  public var nodeID = ""
  public var dataDir = ""
  public var dataInit = ""
  public var queryListen = HostPort(host: "", port: 0)
  public var queryConnectionsMax = 0
  public var queryConnectionsPerAddressMax = 0
  public var queryThreads = 0
  public var httpListen = HostPort(host: "", port: 0)
  public var kafkaBootstrapServers = ""
  public var kafkaTopic = ""
  public var kafkaGroupID = ""
  public var kafkaGroupInstanceID = ""
  public var kafkaHeldBackMax: Duration = .zero
  /// Keys of librdkafka, without the `kafka.` in front, passed on as they are.
  public var kafkaOther: [String: String] = [:]
  public var stepsMode = ""
  public var stepsTotalPolicy = ""
  public var dayZone = ""
  public var dayAcceptLate: Duration = .zero
  public var dayFutureSlack: Duration = .zero
  public var eventStepsMax = 0
  public var boardsWeek = false
  public var boardsMonth = false
  public var boardsAll = false
  public var keyspaceContactPoints = ""
  public var archiveURL = ""
  public var dataFreeMin = 0
  public var logSegmentBytes = 0
  public var logRetentionAge: Duration = .zero
  /// 0 for no bound.
  public var logRetentionBytes = 0
  public var snapshotInterval: Duration = .zero
  public var snapshotLogBytes = 0
  public var logFormat = ""

  init() {}
}

/// One setting: name, form, default, bounds, and one sentence.
public struct SettingRow: Sendable {
  /// Whether all nodes of a cluster must agree on it.
  public enum Scope: String, Sendable { case node, cluster }

  public let key: String
  public let scope: Scope
  /// What it defaults to, as one would write it; empty means unset.
  public let defaultText: String
  /// The accepted form in words, for errors and the example file.
  public let form: String
  public let help: String
  /// Sets the value, or says what is wrong with the text.
  let set: @Sendable (String, inout Settings) -> String?
  /// The value as one would write it.
  let show: @Sendable (Settings) -> String

  /// `RMS_DATA_DIR` for `data.dir`.
  public var environmentName: String { SettingRow.environmentName(key) }

  static func environmentName(_ key: String) -> String {
    "RMS_" + String(key.uppercased().map { $0 == "." ? "_" : $0 })
  }
}

extension Settings {
  /// Every setting, in the order of the example file.
  public static let table: [SettingRow] = [
    .text(
      "cluster.name", \.clusterName, default: "rankmysteps", .cluster,
      "Name of the cluster; all nodes of one cluster share it."),
    .text("node.id", \.nodeID, default: "node-1", .node, "Name of this node within the cluster."),
    .text("data.dir", \.dataDir, default: "/var/lib/rankmysteps", .node, "Folder for this node's files."),
    .choice(
      "data.init", \.dataInit, ["auto", "strict"], .node,
      "auto: initialise an absent or empty data folder; strict: only rmsd --init does, for folders that are mount points."
    ),
    .bytes(
      "data.free_min", \.dataFreeMin, default: "512MiB", within: 0...(1 << 50),
      "Below this much free space nothing is read from Kafka; answers go on, and reading once there is room again."
    ),
    .address("query.listen", \.queryListen, default: "127.0.0.1:7670", "Where TCP query clients connect."),
    .integer(
      "query.connections_max", \.queryConnectionsMax, default: 10_000, within: 1...1_000_000,
      "Most client connections at once; lowered to what the descriptor limit allows."),
    .integer(
      "query.connections_per_address_max", \.queryConnectionsPerAddressMax, default: 256,
      within: 1...1_000_000,
      "Most client connections from one address."),
    .integer("query.threads", \.queryThreads, default: 1, within: 1...64, "Threads that answer queries."),
    .address(
      "http.listen", \.httpListen, default: "127.0.0.1:7671", "Where /livez, /readyz and /metrics are served."
    ),
    .text(
      "kafka.bootstrap.servers", \.kafkaBootstrapServers, default: "", .node,
      "Brokers to start from, HOST:PORT,…"),
    .text("kafka.topic", \.kafkaTopic, default: "", .cluster, "Topic of the step events."),
    .text(
      "kafka.group.id", \.kafkaGroupID, default: "rankmysteps", .cluster,
      "Consumer group that shares the partitions."),
    .text(
      "kafka.group.instance.id", \.kafkaGroupInstanceID, default: "auto", .node,
      "This node's name in the group, by which it has its partitions again at once after a crash; auto: node.id; none: nameless, a new member at each start."
    ),
    .duration(
      "kafka.held_back_max", \.kafkaHeldBackMax, default: "1m", within: .seconds(1)...days(1), .node,
      "An open transaction that holds records back for longer is told in the log."),
    .choice(
      "steps.mode", \.stepsMode, ["increment", "total"], .cluster,
      "increment: each report adds; total: each report is the day's running total."),
    .choice(
      "steps.total_policy", \.stepsTotalPolicy, ["newest", "max"], .cluster,
      "In total mode: newest: the newest report wins, also downward; max: the largest wins."),
    .text(
      "day.zone", \.dayZone, default: "UTC", .cluster,
      "IANA time zone of the days, or event: the date in each timestamp's own offset."),
    .duration(
      "day.accept_late", \.dayAcceptLate, default: "8d", within: .seconds(0)...days(3650), .cluster,
      "Events of a day are accepted for this long after its end, by the shard clock."),
    .duration(
      "day.future_slack", \.dayFutureSlack, default: "10m", within: .seconds(0)...days(366), .cluster,
      "An event time later than the shard clock by more than this is refused."),
    .integer(
      "event.steps_max", \.eventStepsMax, default: 100_000, within: 1...4_294_967_295, scope: .cluster,
      "Most steps of one report."),
    .flag("boards.week", \.boardsWeek, "Rank ISO weeks too."),
    .flag("boards.month", \.boardsMonth, "Rank months too."),
    .flag("boards.all", \.boardsAll, "Rank all time too."),
    .absent(
      "keyspace.contact_points", \.keyspaceContactPoints,
      "Cassandra nodes to replicate to; this version has no keyspace: leave it empty."),
    .absent(
      "archive.url", \.archiveURL, "Where segments are archived; this version has no archive: leave it empty."
    ),
    .bytes(
      "log.segment_bytes", \.logSegmentBytes, default: "64MiB", within: (64 << 10)...(1 << 30),
      "A segment of the log is sealed when it is as large."),
    .duration(
      "log.retention_age", \.logRetentionAge, default: "30d", within: .seconds(60)...days(36_500), .node,
      "Sealed segments older than this are removed, unless a snapshot still needs them."),
    .bytes(
      "log.retention_bytes", \.logRetentionBytes, default: "0", within: 0...(1 << 60),
      "The oldest sealed segments of a shard beyond so many bytes are removed likewise; 0: no bound."),
    .duration(
      "snapshot.interval", \.snapshotInterval, default: "10m", within: .seconds(1)...days(30), .node,
      "A shard that has moved is written to a snapshot this often."),
    .bytes(
      "snapshot.log_bytes", \.snapshotLogBytes, default: "64MiB", within: (64 << 10)...(1 << 50),
      "And as soon as a restart would have to read so much of its log."),
    .choice(
      "log.format", \.logFormat, ["text", "json"], .node, "Form of the diagnostic lines on standard error."),
  ]

  /// The node's name in the consumer group; nil if it has none.
  var groupInstanceID: String? {
    switch kafkaGroupInstanceID {
    case "none", "": nil
    case "auto": nodeID
    default: kafkaGroupInstanceID
    }
  }

  /// All settings at their defaults.
  public static let defaults: Settings = {
    var settings = Settings()
    for row in table {
      if let problem = row.set(row.defaultText, &settings) {
        preconditionFailure("default of \(row.key): \(problem)")
      }
    }
    return settings
  }()

  static func days(_ count: Int) -> Duration { .seconds(count * 86_400) }
}

/// Where a setting's value lives.
typealias Field<Value> = any WritableKeyPath<Settings, Value> & Sendable

extension SettingRow {
  static func text(
    _ key: String, _ path: Field<String>, default text: String, _ scope: Scope,
    _ help: String
  ) -> SettingRow {
    SettingRow(
      key: key, scope: scope, defaultText: text, form: "text", help: help,
      set: { value, settings in
        settings[keyPath: path] = value
        return nil
      }, show: { $0[keyPath: path] })
  }

  static func choice(
    _ key: String, _ path: Field<String>, _ choices: [String], _ scope: Scope,
    _ help: String
  ) -> SettingRow {
    let form = choices.joined(separator: " or ")
    return SettingRow(
      key: key, scope: scope, defaultText: choices[0], form: form, help: help,
      set: { value, settings in
        guard choices.contains(value) else { return "'\(value)' is not \(form)" }
        settings[keyPath: path] = value
        return nil
      }, show: { $0[keyPath: path] })
  }

  static func flag(_ key: String, _ path: Field<Bool>, _ help: String)
    -> SettingRow
  {
    SettingRow(
      key: key, scope: .cluster, defaultText: "false", form: "true or false", help: help,
      set: { value, settings in
        switch value {
        case "true": settings[keyPath: path] = true
        case "false": settings[keyPath: path] = false
        default: return "'\(value)' is neither true nor false"
        }
        return nil
      }, show: { $0[keyPath: path] ? "true" : "false" })
  }

  static func integer(
    _ key: String, _ path: Field<Int>, default number: Int,
    within bounds: ClosedRange<Int>, scope: Scope = .node, _ help: String
  ) -> SettingRow {
    SettingRow(
      key: key, scope: scope, defaultText: String(number),
      form: "a whole number, \(bounds.lowerBound) to \(bounds.upperBound)", help: help,
      set: { value, settings in
        guard let number = Int(value) else { return "'\(value)' is not a whole number" }
        guard bounds.contains(number) else {
          return "\(number) is outside \(bounds.lowerBound) to \(bounds.upperBound)"
        }
        settings[keyPath: path] = number
        return nil
      }, show: { String($0[keyPath: path]) })
  }

  static func bytes(
    _ key: String, _ path: Field<Int>, default text: String, within bounds: ClosedRange<Int>, _ help: String
  ) -> SettingRow {
    let (low, high) = (SizeText.write(bounds.lowerBound), SizeText.write(bounds.upperBound))
    return SettingRow(
      key: key, scope: .node, defaultText: text, form: "a size, \(low) to \(high), such as \(text)",
      help: help,
      set: { value, settings in
        guard let bytes = SizeText.read(value) else {
          return "'\(value)' is not a size; write a number and a unit: \(SizeText.unitNames), such as \(text)"
        }
        guard bounds.contains(bytes) else { return "\(value) is outside \(low) to \(high)" }
        settings[keyPath: path] = bytes
        return nil
      }, show: { SizeText.write($0[keyPath: path]) })
  }

  static func duration(
    _ key: String, _ path: Field<Duration>, default text: String,
    within bounds: ClosedRange<Duration>, _ scope: Scope, _ help: String
  ) -> SettingRow {
    let low = DurationText.write(bounds.lowerBound)
    let high = DurationText.write(bounds.upperBound)
    return SettingRow(
      key: key, scope: scope, defaultText: text, form: "a duration, \(low) to \(high), such as \(text)",
      help: help,
      set: { value, settings in
        // A minus is a bound's matter, not a unit's.
        if value.hasPrefix("-"), DurationText.read(String(value.dropFirst())) != nil {
          return "\(value) is outside \(low) to \(high)"
        }
        guard let duration = DurationText.read(value) else {
          return
            "'\(value)' is not a duration; write a number and a unit: \(DurationText.unitNames), such as \(text)"
        }
        guard bounds.contains(duration) else { return "\(value) is outside \(low) to \(high)" }
        settings[keyPath: path] = duration
        return nil
      }, show: { DurationText.write($0[keyPath: path]) })
  }

  static func address(
    _ key: String, _ path: Field<HostPort>, default text: String,
    _ help: String
  ) -> SettingRow {
    SettingRow(
      key: key, scope: .node, defaultText: text, form: "HOST:PORT", help: help,
      set: { value, settings in
        guard let address = HostPort(value) else {
          return "'\(value)' is not HOST:PORT, such as \(text)"
        }
        settings[keyPath: path] = address
        return nil
      }, show: { $0[keyPath: path].description })
  }

  /// A setting whose part this version does not have: any value is refused, so that nobody believes in it.
  static func absent(_ key: String, _ path: Field<String>, _ help: String)
    -> SettingRow
  {
    SettingRow(
      key: key, scope: .cluster, defaultText: "", form: "empty", help: help,
      set: { value, settings in
        guard value.isEmpty else { return "this version has no such part; leave it empty" }
        settings[keyPath: path] = value
        return nil
      }, show: { $0[keyPath: path] })
  }
}

/// Durations as operators write them: `50ms`, `10m`, `8d`. A bare number is refused.
public enum DurationText {
  static let units: [(name: String, nanoseconds: Int64)] = [
    ("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000),
    ("h", 3_600_000_000_000), ("d", 86_400_000_000_000),
  ]

  static let unitNames = units.map(\.name).joined(separator: ", ")

  /// - Returns: the duration; nil if the text is not one whole number and one unit.
  public static func read(_ text: String) -> Duration? {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let name = text.dropFirst(digits.count)
    guard let count = Int64(digits), let unit = units.first(where: { $0.name == name }) else { return nil }
    let (nanoseconds, overflow) = count.multipliedReportingOverflow(by: unit.nanoseconds)
    return overflow ? nil : .nanoseconds(nanoseconds)
  }

  /// The shortest exact form: the largest unit that divides it.
  public static func write(_ duration: Duration) -> String {
    let (seconds, attoseconds) = duration.components
    let nanoseconds = seconds * 1_000_000_000 + attoseconds / 1_000_000_000
    if nanoseconds == 0 { return "0s" }
    for unit in units.reversed() where nanoseconds % unit.nanoseconds == 0 {
      return "\(nanoseconds / unit.nanoseconds)\(unit.name)"
    }
    return "\(nanoseconds)ns"
  }
}

/// Sizes as operators write them: `512MiB`, `64KiB`, `0`. Other bare numbers are refused.
public enum SizeText {
  static let units: [(name: String, bytes: Int)] = [
    ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40),
  ]

  static let unitNames = units.map(\.name).joined(separator: ", ")

  /// - Returns: the bytes; nil if the text is not one whole number and one unit.
  public static func read(_ text: String) -> Int? {
    if text == "0" { return 0 }
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let name = text.dropFirst(digits.count)
    guard let count = Int(digits), let unit = units.first(where: { $0.name == name }) else { return nil }
    let (bytes, overflow) = count.multipliedReportingOverflow(by: unit.bytes)
    return overflow ? nil : bytes
  }

  /// For people: `113.4 MiB`.
  public static func rough(_ bytes: UInt64) -> String {
    guard let unit = units.dropFirst().last(where: { bytes >= UInt64($0.bytes) }) else { return "\(bytes) B" }
    let tenths = Int((Double(bytes) / Double(unit.bytes) * 10).rounded(.down))
    return "\(tenths / 10).\(tenths % 10) \(unit.name)"
  }

  /// The shortest exact form: the largest unit that divides it.
  public static func write(_ bytes: Int) -> String {
    if bytes == 0 { return "0" }
    for unit in units.reversed() where bytes % unit.bytes == 0 { return "\(bytes / unit.bytes)\(unit.name)" }
    return "\(bytes)B"
  }
}
