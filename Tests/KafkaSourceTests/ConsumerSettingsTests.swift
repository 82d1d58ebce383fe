import Testing

@testable import KafkaSource

@Suite struct ConsumerSettingsTests {
  static func refusal(_ properties: [(key: String, value: String)]) -> KafkaError? {
    let settings = ConsumerSettings(
      bootstrapServers: "127.0.0.1:1", topic: "steps", groupID: "g", properties: properties)
    do {
      try settings.validate()
      return nil
    } catch { return error }
  }

  @Test("what correctness needs cannot be set otherwise, and the refusal names the key and the reason")
  func fixed() {
    for row in ConsumerSettings.fixed {
      #expect(Self.refusal([(row.key, row.value)]) == nil, "\(row.key) may be repeated")
      let error = Self.refusal([
        (row.key, row.value == "true" ? "false" : row.value == "false" ? "true" : "latest")
      ])
      guard case .setting(row.key, let reason)? = error else {
        Issue.record("\(row.key): \(String(describing: error))")
        continue
      }
      #expect(reason.contains(row.why))
    }
  }

  @Test("everything else is librdkafka's to judge: its values pass, its refusals are told with the key")
  func passThrough() {
    #expect(Self.refusal([("fetch.wait.max.ms", "77"), ("session.timeout.ms", "10000")]) == nil)
    guard case .setting("no.such.thing", let reason)? = Self.refusal([("no.such.thing", "1")]) else {
      Issue.record("an unknown property passed")
      return
    }
    #expect(reason.contains("no.such.thing"))
    guard case .setting("fetch.wait.max.ms", _)? = Self.refusal([("fetch.wait.max.ms", "soon")]) else {
      Issue.record("a bad value passed")
      return
    }
  }

  @Test("the user's value wins over the tuned one, and the fixed ones stand whatever was given")
  func order() throws {
    let settings = ConsumerSettings(
      bootstrapServers: "127.0.0.1:1", topic: "steps", groupID: "g",
      properties: [("fetch.wait.max.ms", "77"), ("enable.auto.commit", "false")])
    let configuration = try settings.configuration()
    #expect(configuration.value("fetch.wait.max.ms") == "77")
    #expect(configuration.value("check.crcs") == "true")
    #expect(configuration.value("isolation.level") == "read_committed")
    #expect(configuration.value("enable.auto.commit") == "false")
    #expect(configuration.value("enable.auto.offset.store") == "false")
  }

  @Test("a member has a name only if it is given one, and being fenced is told as what it is")
  func names() throws {
    var settings = ConsumerSettings(bootstrapServers: "127.0.0.1:1", topic: "steps", groupID: "g")
    #expect(try settings.configuration().value("group.instance.id") == nil)
    settings.instanceID = "node-7"
    #expect(try settings.configuration().value("group.instance.id") == "node-7")
    // FENCED_INSTANCE_ID, and any other end for good.
    #expect(KafkaError.fatal(KafkaFailure(code: 82)).description.contains("another node joined"))
    #expect(!KafkaError.fatal(KafkaFailure(code: -150)).description.contains("another node joined"))
  }

  @Test("empty or absurd settings are refused before a client exists")
  func bounds() {
    func error(_ change: (inout ConsumerSettings) -> Void) -> KafkaError? {
      var settings = ConsumerSettings(bootstrapServers: "127.0.0.1:1", topic: "steps", groupID: "g")
      change(&settings)
      do {
        try settings.validate()
        return nil
      } catch { return error }
    }
    #expect(error { _ in } == nil)
    #expect(error { $0.bootstrapServers = "" } != nil)
    #expect(error { $0.topic = "" } != nil)
    #expect(error { $0.groupID = "" } != nil)
    #expect(error { $0.batchCountMax = 0 } != nil)
    #expect(error { $0.batchCountMax = 100_001 } != nil)
  }
}
