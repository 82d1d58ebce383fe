// From command line, environment and file to checked settings. A flag beats the environment, which beats the file,
// which beats the default. Nothing starts on a guess: an unknown key, a repeated key, a misspelt variable or a value
// out of bounds is refused with its place, the reason and the nearest known name.

/// One thing wrong with what a node was told, and where: `rmsd.conf:3: kafka.topc: unknown key; did you mean kafka.topic?`
public struct SettingsProblem: Error, Equatable, CustomStringConvertible {
  public let place: String
  public let key: String
  public let reason: String

  public init(place: String, key: String, reason: String) {
    self.place = place
    self.key = key
    self.reason = reason
  }

  public var description: String { key.isEmpty ? "\(place): \(reason)" : "\(place): \(key): \(reason)" }
}

/// All that is wrong, in the order found.
public struct SettingsProblems: Error, Equatable {
  public let all: [SettingsProblem]

  public init(all: [SettingsProblem]) { self.all = all }
}

/// Settings with the origin of each value.
public struct SettingsReader {
  /// Largest configuration file, in bytes.
  public static let fileBytesMax = 1 << 20

  /// Variables with the prefix `RMS_` that are not settings: those of rmsctl and of the project's scripts.
  static let otherVariables: Set<String> = [
    "RMS_ADDRESS", "RMS_TIMEOUT", "RMS_REQUIRE_STACK", "RMS_STACK_DIR", "RMS_TEST_LONG", "RMS_TEST_SEED",
    "RMS_BUILD_DIR",
  ]

  public private(set) var settings = Settings.defaults
  /// Key to `default`, `FILE:LINE`, the environment's name, or `--set`.
  public private(set) var origins: [String: String] = [:]
  private var problems: [SettingsProblem] = []

  public init() {}

  /// Reads file, environment and command line, in that order, and checks the result as a whole.
  ///
  /// - Parameters:
  ///   - file: path and bytes of the configuration file, if there is one.
  ///   - environment: all variables of the process.
  ///   - assignments: `key=value` of each `--set`.
  ///   - connects: whether the node will connect to brokers, so that brokers and topic are needed.
  /// - Returns: checked settings and where each value came from.
  /// - Throws: every problem found, not only the first.
  public static func read(
    file: (path: String, bytes: [UInt8])?, environment: [String: String], assignments: [String],
    connects: Bool
  ) throws(SettingsProblems) -> SettingsReader {
    var reader = SettingsReader()
    if let file { reader.readFile(file.path, file.bytes) }
    reader.readEnvironment(environment)
    for assignment in assignments { reader.readAssignment(assignment) }
    if reader.problems.isEmpty { reader.checkTogether(connects: connects) }
    guard reader.problems.isEmpty else { throw SettingsProblems(all: reader.problems) }
    return reader
  }

  /// `key = value  # origin` for every setting, in the table's order; secrets are starred.
  public func printed() -> String {
    var lines = Settings.table.map { row in
      "\(row.key) = \(row.show(settings))  # \(origins[row.key] ?? "default")"
    }
    for (key, value) in settings.kafkaOther.sorted(by: { $0.key < $1.key }) {
      let secret =
        key.hasSuffix("password") || key.hasSuffix("secret") || key.hasSuffix(".pem") || key.contains("jaas")
      lines.append("kafka.\(key) = \(secret ? "***" : value)  # \(origins["kafka." + key] ?? "")")
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// The example file: every setting at its default, commented out, with its sentence.
  public static func example() -> String {
    var text = """
      # rmsd.conf: one setting a line, `key = value`; `#` starts a comment.
      # Every setting can also come from the environment (RMS_ and the key in upper case, dots as underscores)
      # or from the command line (--set key=value), which win in this order. Made by `rmsd --print-example`.
      # kafka.* keys that are not listed here go to librdkafka as they are.

      """
    for row in Settings.table {
      text +=
        "\n# \(row.help)\n# Form: \(row.form). Scope: \(row.scope.rawValue).\n#\(row.key) = \(row.defaultText)\n"
    }
    return text
  }

  // MARK: Sources

  private mutating func readFile(_ path: String, _ bytes: [UInt8]) {
    var bytes = bytes[...]
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { bytes = bytes.dropFirst(3) }
    if let place = bytes.firstIndex(of: 0) {
      return problem(path, "", "a NUL byte at offset \(place); the file must be text")
    }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      return problem(path, "", "not UTF-8 from offset \(SettingsReader.firstInvalid(bytes))")
    }
    var lineOf: [String: Int] = [:]
    for (index, line) in text.split(
      omittingEmptySubsequences: false, whereSeparator: { $0 == "\n" || $0 == "\r\n" }
    ).enumerated() {
      let content = SettingsReader.trimmed(SettingsReader.withoutComment(line))
      if content.isEmpty { continue }
      let place = "\(path):\(index + 1)"
      guard let equals = content.firstIndex(of: "=") else {
        problem(place, "", "'\(content)' is not 'key = value'")
        continue
      }
      let key = SettingsReader.trimmed(content[..<equals])
      if let earlier = lineOf[key] {
        problem(place, key, "set twice; it is also on line \(earlier)")
        continue
      }
      lineOf[key] = index + 1
      set(key, SettingsReader.trimmed(content[content.index(after: equals)...]), place)
    }
  }

  private mutating func readEnvironment(_ environment: [String: String]) {
    for (name, value) in environment.sorted(by: { $0.key < $1.key }) where name.hasPrefix("RMS_") {
      if SettingsReader.otherVariables.contains(name) { continue }
      if let row = Settings.table.first(where: { $0.environmentName == name }) {
        set(row.key, value, name)
      } else if name.hasPrefix("RMS_KAFKA_"), let key = SettingsReader.librdkafkaKey(name) {
        set(key, value, name)
      } else {
        let near = SettingsReader.nearest(name, Settings.table.map(\.environmentName))
        problem(
          "environment", name, "no setting has this name" + (near.map { "; did you mean \($0)?" } ?? ""))
      }
    }
  }

  private mutating func readAssignment(_ assignment: String) {
    guard let equals = assignment.firstIndex(of: "=") else {
      return problem("--set", assignment, "write --set key=value")
    }
    set(
      SettingsReader.trimmed(assignment[..<equals]),
      SettingsReader.trimmed(assignment[assignment.index(after: equals)...]), "--set")
  }

  private mutating func set(_ key: String, _ value: String, _ place: String) {
    if let row = Settings.table.first(where: { $0.key == key }) {
      if let reason = row.set(value, &settings) { return problem(place, key, reason) }
    } else if key.hasPrefix("kafka."), key.utf8.count > 6 {
      let keys = Settings.table.map(\.key).filter { $0.hasPrefix("kafka.") }
      if let near = SettingsReader.nearest(key, keys), SettingsReader.distance(key, near) <= 2 {
        return problem(place, key, "unknown key; did you mean \(near)?")
      }
      settings.kafkaOther[String(key.dropFirst(6))] = value
    } else {
      let near = SettingsReader.nearest(key, Settings.table.map(\.key))
      return problem(place, key, "unknown key" + (near.map { "; did you mean \($0)?" } ?? ""))
    }
    origins[key] = place
  }

  private mutating func checkTogether(connects: Bool) {
    if connects {
      for (key, value) in [
        ("kafka.bootstrap.servers", settings.kafkaBootstrapServers), ("kafka.topic", settings.kafkaTopic),
      ] where value.isEmpty {
        problem(
          "settings", key,
          "needed; set it in the file, as \(SettingRow.environmentName(key)) or by --set \(key)=…")
      }
    }
    for (key, value) in [
      ("cluster.name", settings.clusterName), ("node.id", settings.nodeID), ("data.dir", settings.dataDir),
    ]
    where value.isEmpty { problem(origins[key] ?? "settings", key, "must not be empty") }
    do throws(SettingsProblems) { _ = try settings.cluster() } catch {
      for found in error.all { problem(origins[found.key] ?? found.place, found.key, found.reason) }
    }
  }

  private mutating func problem(_ place: String, _ key: String, _ reason: String) {
    problems.append(SettingsProblem(place: place, key: key, reason: reason))
  }

  // MARK: Text

  /// A `#` starts a comment at the start of a line or after a blank, so that values may hold one.
  private static func withoutComment(_ line: Substring) -> Substring {
    var previous: Character = " "
    for index in line.indices {
      if line[index] == "#", previous == " " || previous == "\t" { return line[..<index] }
      previous = line[index]
    }
    return line
  }

  private static func trimmed(_ text: Substring) -> String {
    func blank(_ c: Character) -> Bool { c == " " || c == "\t" || c == "\r" || c == "\r\n" }
    var text = text
    while let first = text.first, blank(first) { text.removeFirst() }
    while let last = text.last, blank(last) { text.removeLast() }
    return String(text)
  }

  private static func trimmed(_ text: String) -> String { trimmed(text[...]) }

  private static func firstInvalid(_ bytes: ArraySlice<UInt8>) -> Int {
    var low = bytes.startIndex
    var high = bytes.endIndex
    // The longest valid prefix, up to a sequence cut by its end: valid prefixes stay valid when shortened by whole characters.
    while low < high {
      let middle = (low + high + 1) / 2
      let end = (0..<4).map { middle - $0 }.first {
        $0 >= low && String(validating: bytes[..<$0], as: UTF8.self) != nil
      }
      if let end, end > low { low = end } else { high = middle - 1 }
    }
    return low
  }

  private static func librdkafkaKey(_ name: String) -> String? {
    let rest = name.dropFirst("RMS_KAFKA_".count)
    guard !rest.isEmpty else { return nil }
    return "kafka." + String(rest.lowercased().map { $0 == "_" ? "." : $0 })
  }

  /// The known name nearest to a wrong one, if it is near at all.
  public static func nearest(_ wrong: String, _ known: [String]) -> String? {
    let best = known.map { ($0, distance(wrong, $0)) }.min { $0.1 < $1.1 }
    guard let best, best.1 <= max(2, wrong.utf8.count / 3) else { return nil }
    return best.0
  }

  /// Edits (insert, delete, replace) that lead from one text to the other.
  static func distance(_ a: String, _ b: String) -> Int {
    let b = Array(b.utf8)
    var row = Array(0...b.count)
    for (i, x) in a.utf8.enumerated() {
      var corner = row[0]
      row[0] = i + 1
      for j in b.indices {
        let next = min(row[j] + 1, row[j + 1] + 1, corner + (x == b[j] ? 0 : 1))
        corner = row[j + 1]
        row[j + 1] = next
      }
    }
    return row[b.count]
  }
}
