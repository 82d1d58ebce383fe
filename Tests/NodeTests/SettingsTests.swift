// What a node makes of its configuration: every wrong input gets its place, its reason and the remedy.

import Testing

@testable import Node

@Suite struct SettingsTests {
  private func read(_ text: String, environment: [String: String] = [:], set: [String] = []) throws
    -> SettingsReader
  {
    try SettingsReader.read(
      file: ("rmsd.conf", Array(text.utf8)), environment: environment, assignments: set, connects: false)
  }

  private func problems(_ bytes: [UInt8], environment: [String: String] = [:], set: [String] = []) -> [String]
  {
    do {
      _ = try SettingsReader.read(
        file: ("rmsd.conf", bytes), environment: environment, assignments: set, connects: false)
      return []
    } catch {
      return error.all.map(\.description)
    }
  }

  @Test("an empty file leaves every setting at the default of its row")
  func emptyFile() throws {
    let reader = try read("")
    for row in Settings.table {
      #expect(reader.printed().contains("\(row.key) = \(row.defaultText)  # default\n"), "\(row.key)")
    }
  }

  @Test("the command line beats the environment, which beats the file, and the origin is shown")
  func precedence() throws {
    let reader = try read(
      "node.id = a\ndata.dir = /f\nday.zone = Europe/Berlin\n",
      environment: ["RMS_NODE_ID": "b", "RMS_DATA_DIR": "/e"], set: ["node.id=c"])
    #expect(reader.settings.nodeID == "c")
    #expect(reader.settings.dataDir == "/e")
    #expect(reader.settings.dayZone == "Europe/Berlin")
    let printed = reader.printed()
    #expect(printed.contains("node.id = c  # --set\n"))
    #expect(printed.contains("data.dir = /e  # RMS_DATA_DIR\n"))
    #expect(printed.contains("day.zone = Europe/Berlin  # rmsd.conf:3\n"))
  }

  @Test(
    "a wrong line is named with its place, the reason and the remedy",
    arguments: [
      ("cluster.nam = x", "rmsd.conf:1: cluster.nam: unknown key; did you mean cluster.name?"),
      ("\n\nday.zonee = UTC", "rmsd.conf:3: day.zonee: unknown key; did you mean day.zone?"),
      (
        "day.future_slack = 50",
        "rmsd.conf:1: day.future_slack: '50' is not a duration; write a number and a unit: ns, us, ms, s, m, h, d, such as 10m"
      ),
      (
        "day.future_slack = 5 parsecs",
        "rmsd.conf:1: day.future_slack: '5 parsecs' is not a duration; write a number and a unit: ns, us, ms, s, m, h, d, such as 10m"
      ),
      ("day.accept_late = 9999d", "rmsd.conf:1: day.accept_late: 9999d is outside 0s to 3650d"),
      ("day.accept_late = -1s", "rmsd.conf:1: day.accept_late: -1s is outside 0s to 3650d"),
      (
        "\nday.zone = Mars/Olympus",
        "rmsd.conf:2: day.zone: no time zone \"Mars/Olympus\" under /usr/share/zoneinfo; give an IANA name such as UTC or Europe/Berlin, or `event` (package tzdata holds the zones)"
      ),
      ("event.steps_max = 0", "rmsd.conf:1: event.steps_max: 0 is outside 1 to 4294967295"),
      ("event.steps_max = -1", "rmsd.conf:1: event.steps_max: -1 is outside 1 to 4294967295"),
      ("node.id = a\n# b\nnode.id = c", "rmsd.conf:3: node.id: set twice; it is also on line 1"),
      ("boards.week = yes", "rmsd.conf:1: boards.week: 'yes' is neither true nor false"),
      ("steps.mode = sum", "rmsd.conf:1: steps.mode: 'sum' is not increment or total"),
      ("query.listen = 7670", "rmsd.conf:1: query.listen: '7670' is not HOST:PORT, such as 127.0.0.1:7670"),
      ("kafka.topc = steps", "rmsd.conf:1: kafka.topc: unknown key; did you mean kafka.topic?"),
      ("just words", "rmsd.conf:1: 'just words' is not 'key = value'"),
      ("node.id =", "rmsd.conf:1: node.id: must not be empty"),
      ("archive.url = file:///x", "rmsd.conf:1: archive.url: this version has no such part; leave it empty"),
    ])
  func wrongLine(text: String, problem: String) {
    #expect(problems(Array(text.utf8)) == [problem])
  }

  @Test("every problem is told, not only the first")
  func allProblems() {
    #expect(problems(Array("a.b = 1\nevent.steps_max = x\n".utf8)).count == 2)
  }

  @Test(
    "carriage returns and a byte order mark are accepted; NUL and bad UTF-8 are refused with their offset")
  func bytes() throws {
    let windows: [UInt8] = [0xEF, 0xBB, 0xBF] + Array("node.id = n7\r\nboards.all = true\r\n".utf8)
    let reader = try SettingsReader.read(
      file: ("rmsd.conf", windows), environment: [:], assignments: [], connects: false)
    #expect(reader.settings.nodeID == "n7")
    #expect(reader.settings.boardsAll)
    #expect(
      problems(Array("node.id = a\u{0}".utf8)) == [
        "rmsd.conf: a NUL byte at offset 11; the file must be text"
      ])
    #expect(problems(Array("node.id = é".utf8) + [0xFF, 0x61]) == ["rmsd.conf: not UTF-8 from offset 12"])
  }

  @Test("a misspelt variable is refused by name; those of rmsctl and unrelated ones are not")
  func environment() {
    #expect(
      problems([], environment: ["RMS_DATADIR": "/x"]) == [
        "environment: RMS_DATADIR: no setting has this name; did you mean RMS_DATA_DIR?"
      ])
    #expect(problems([], environment: ["RMS_ADDRESS": "h:1", "HOME": "/root"]).isEmpty)
  }

  @Test("a node is in its group under its own name, another one, or none")
  func instance() throws {
    func name(_ text: String) throws -> String? { try read("node.id = n7\n\(text)").settings.groupInstanceID }
    #expect(try name("") == "n7")
    #expect(try name("kafka.group.instance.id = auto") == "n7")
    #expect(try name("kafka.group.instance.id = other") == "other")
    #expect(try name("kafka.group.instance.id = none") == nil)
  }

  @Test("other kafka keys go through, and a password is starred when printed")
  func passThrough() throws {
    let reader = try read(
      "kafka.security.protocol = sasl_ssl\nkafka.sasl.password = geheim # not this\n",
      environment: ["RMS_KAFKA_CLIENT_RACK": "r1"])
    #expect(reader.settings.kafkaOther["security.protocol"] == "sasl_ssl")
    #expect(reader.settings.kafkaOther["sasl.password"] == "geheim")
    #expect(reader.settings.kafkaOther["client.rack"] == "r1")
    #expect(!reader.printed().contains("geheim"))
  }

  @Test("a node that connects needs brokers and a topic, and is told how to give them")
  func needed() {
    do {
      _ = try SettingsReader.read(file: nil, environment: [:], assignments: [], connects: true)
      Issue.record("accepted")
    } catch {
      #expect(error.all.map(\.key) == ["kafka.bootstrap.servers", "kafka.topic"])
      #expect(error.all[1].reason.contains("RMS_KAFKA_TOPIC"))
    }
  }

  @Test("the example file, uncommented, gives the defaults")
  func example() throws {
    let text = SettingsReader.example().split(separator: "\n", omittingEmptySubsequences: false).map {
      $0.hasPrefix("#") && !$0.hasPrefix("# ") ? String($0.dropFirst()) : String($0)
    }.joined(separator: "\n")
    let reader = try read(text)
    for row in Settings.table {
      #expect(reader.printed().contains("\(row.key) = \(row.defaultText)  # rmsd.conf:"), "\(row.key)")
    }
  }

  @Test(
    "a duration is written so that it reads back the same",
    arguments: ["50ms", "10m", "8d", "1500ms", "0s", "36h"])
  func durations(text: String) {
    #expect(DurationText.read(text).map(DurationText.write) == text)
  }
}
