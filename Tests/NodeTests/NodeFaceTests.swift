// A whole node over an embedded broker, asked over HTTP like a probe and like Prometheus.

import KafkaSource
import Node
import Posix
import Telemetry
import TestSupport
import Testing

@Suite struct NodeFaceTests {
  /// Series by name and labels, and how often each name had a TYPE and a HELP.
  private struct Scrape {
    var values: [String: Double] = [:]
    var types: [String: [String]] = [:]
    var helps: [String: Int] = [:]

    init(_ text: String) throws {
      #expect(text.hasSuffix("\n"))
      for line in text.split(separator: "\n") {
        let words = line.split(separator: " ", maxSplits: 3).map(String.init)
        if words[0] == "#" {
          if words[1] == "TYPE" { types[words[2], default: []].append(words[3]) }
          if words[1] == "HELP" { helps[words[2], default: 0] += 1 }
        } else {
          #expect(words.count == 2, "\(line)")
          #expect(
            values.updateValue(try #require(Double(words[1])), forKey: words[0]) == nil,
            "\(line) is there twice")
        }
      }
    }
  }

  private func get(_ address: HostPort, _ target: String) throws -> (head: String, body: String) {
    let socket = try Socket.connect(address, timeout: .seconds(5))
    let request = Array("GET \(target) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".utf8)
    #expect(try request.withUnsafeBytes { try Socket.send(socket.number, $0) } == request.count)
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 16 << 10)
    while let count = try buffer.withUnsafeMutableBytes({ try Socket.receive(socket.number, into: $0) }),
      count > 0
    {
      all += buffer[..<count]
    }
    let text = String(decoding: all, as: UTF8.self)
    let gap = try #require(text.firstRange(of: "\r\n\r\n"))
    return (String(text[..<gap.lowerBound]), String(text[gap.upperBound...]))
  }

  private func node(_ folder: TemporaryFolder, _ brokers: MockBrokers, http: HostPort) throws -> NodeService {
    var settings = Settings.defaults
    settings.dataDir = folder.path
    settings.queryListen = HostPort(host: "127.0.0.1", port: 0)
    settings.httpListen = http
    settings.kafkaBootstrapServers = brokers.bootstrapServers
    settings.kafkaTopic = "steps"
    return try NodeService(settings, diagnostics: Diagnostics(sink: { _ in }))
  }

  @Test("a node gets ready once it has read its topic, and its metrics are those of what was produced")
  func readyAndCounted() throws {
    let folder = TemporaryFolder()
    let brokers = try MockBrokers()
    try brokers.createTopic("steps", partitions: 2)
    let now = Clock.system.wall / 1_000_000
    let producer = try Producer(bootstrapServers: brokers.bootstrapServers, topic: "steps")
    for user in 0..<30 {
      try producer.produce(
        #"{"uuid":"u\#(user)","steps":5,"timestamp":\#(now / 1000)}"#, partition: Int32(user % 2),
        timestampMs: now)
    }
    try producer.produce("{", partition: 0, timestampMs: now)
    try producer.produce(#"{"uuid":"u"}"#, partition: 1, timestampMs: now)
    #expect(producer.flush())

    let node = try node(folder, brokers, http: HostPort(host: "127.0.0.1", port: 0))
    let before = try get(node.httpAddress, "/readyz")
    #expect(before.head.hasPrefix("HTTP/1.1 503 "))
    #expect(before.body.contains("[-]topic not found yet\n"))
    #expect(before.body.contains("[-]shards none assigned\n"))
    try node.start()
    while try get(node.httpAddress, "/readyz").body != "ok\n" { Thread.yield() }
    #expect(try get(node.httpAddress, "/livez").body == "ok\n")

    let page = try get(node.httpAddress, "/metrics")
    #expect(page.head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8"))
    let scrape = try Scrape(page.body)
    for (name, types) in scrape.types {
      #expect(types.count == 1, "\(name)")
      #expect(scrape.helps[name] == 1, "\(name)")
      #expect((types == ["counter"]) == name.hasSuffix("_total"), "\(name)")
      if types == ["histogram"] {
        #expect(scrape.values[name + "_bucket{le=\"+Inf\"}"] == scrape.values[name + "_count"])
      }
    }
    let values = scrape.values
    #expect(values[#"rms_build_info{version="\#(Version.text)"}"#] == 1)
    #expect(values[#"rms_events_total{result="counted"}"#] == 30)
    #expect(values[#"rms_events_total{result="rejected"}"#] == 2)
    #expect(values[#"rms_bad_records_total{reason="malformed"}"#] == 1)
    #expect(values[#"rms_bad_records_total{reason="missing"}"#] == 1)
    #expect(values[#"rms_bad_records_total{reason="late"}"#] == 0)
    for partition in 0..<2 {
      #expect(values["rms_watermark_offset{partition=\"\(partition)\"}"] == 16)
      #expect(values["rms_kafka_lag_records{partition=\"\(partition)\"}"] == 0)
      #expect(values["rms_shard_state{partition=\"\(partition)\",state=\"serving\"}"] == 1)
      #expect(values["rms_shard_state{partition=\"\(partition)\",state=\"stopped\"}"] == 0)
      #expect(values["rms_last_event_timestamp_seconds{partition=\"\(partition)\"}"] == Double(now / 1000))
    }
    #expect(values["rms_users"] == 30)
    #expect(values["rms_users_elsewhere"] == 0)
    #expect(try #require(values["rms_visible_delay_seconds_count"]) >= 2)
    #expect(try #require(values["rms_rebalances_total"]) >= 1)
    #expect(try #require(values["rms_disk_free_bytes"]) > 0)

    try Files().remove(DeadLetters.path(folder.path))
    #expect(try get(node.httpAddress, "/readyz").body.contains("[-]dead-letters not writable\n"))
    #expect(try get(node.httpAddress, "/readyz?exclude=dead-letters").head.hasPrefix("HTTP/1.1 200 "))
    let address = node.httpAddress
    node.stop()
    #expect(throws: SystemError.self) { _ = try get(address, "/livez") }
    withExtendedLifetime(brokers) {}
  }

  @Test("a taken http.listen ends the start with its name and 69")
  func addressTaken() throws {
    let folder = TemporaryFolder()
    let brokers = try MockBrokers()
    let socket = try Socket.listen(HostPort(host: "127.0.0.1", port: 0))
    let taken = try Socket.localAddress(socket.number)
    do {
      _ = try node(folder, brokers, http: taken)
      Issue.record("the node started")
    } catch let error as NodeError {
      #expect(error.exitCode == 69)
      #expect(error.description.hasPrefix("http.listen: cannot listen on \(taken)"))
    }
    withExtendedLifetime(brokers) {}
  }
}
