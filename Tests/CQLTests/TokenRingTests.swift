import Posix
import TestSupport
import Testing

@testable import CQL

@Suite struct TokenRingTests {
  static func token(_ bytes: [UInt8]) -> Int64 { bytes.withUnsafeBytes { Murmur3.token($0) } }

  @Test("tokens are those of the servers, high bytes included")
  func tokens() {
    let table: [([UInt8], Int64)] = [
      (Array("test".utf8), -6_017_608_668_500_074_083), (hex("00000001"), -4_069_959_284_402_364_209),
      (hex("ffffffff"), 7_297_452_126_230_313_552), (hex("0000000000000001"), 6_292_367_497_774_912_474),
      ([UInt8](repeating: 0xFF, count: 8), 7_071_048_584_287_372_947),
      ([UInt8](repeating: 0xFE, count: 8), -8_927_430_733_708_461_935),
      ([UInt8](repeating: 0x80, count: 9), -8_549_929_301_482_172_571),
      ([UInt8](repeating: 0xFF, count: 15), -2_195_530_867_418_009_455),
      ([UInt8](repeating: 0xFF, count: 16), -2_824_192_546_314_762_522),
      ([UInt8](repeating: 0xFF, count: 17), -4_128_212_798_341_382_003),
      (Array("kremówki".utf8), 4_354_931_215_268_080_151), ([], .min),
      (hex("00104327529fb645dd00b883ec39ae448bb8 00 000400066a6b 00"), -9_223_371_632_693_506_265),
      (Array((0..<10).flatMap { _ in hex("00ff10fa99") }), 5_837_342_703_291_459_765),
      (hex("00112233445566778899aabbccddeeff"), 5_713_842_290_320_563_023),
      (hex("00048000512d00 00040000000700 00040000000300"), 4_749_131_091_227_359_845),
      (hex("0005737465707300 0004ffffffff00"), -1_862_694_180_016_122_230),
    ]
    for (bytes, token) in table { #expect(Self.token(bytes) == token, "\(bytes)") }
  }

  @Test("a bound statement's token is that of its partition key's markers, in the key's order")
  func boundTokens() throws {
    let markers = [
      Column(keyspace: "k", table: "t", name: "v", type: .int),
      Column(keyspace: "k", table: "t", name: "b", type: .int),
      Column(keyspace: "k", table: "t", name: "a", type: .text),
    ]
    let answer = Answer.prepared(
      .init(id: [1], resultMetadataID: [], markers: markers, partitionKey: [2, 1], columns: []))
    guard case .result(.prepared(let result)) = try CodecTests.heard(answer) else {
      Issue.record("not prepared")
      return
    }
    let statement = PreparedStatement(text: "", result)
    #expect(try statement.bind([.int(9), .int(-1), .text("steps")]).token == -1_862_694_180_016_122_230)
    #expect(throws: CQLError.value(.count(given: 1, markers: 3))) { try statement.bind([.null]) }
  }

  static func nodes(_ random: inout SeededGenerator) -> [NodeInfo] {
    (1...Int.random(in: 1...12, using: &random)).map { number in
      NodeInfo(
        hostID: CQLUUID(high: 0, low: UInt64(number)),
        address: HostPort(host: "127.0.0.\(number)", port: 9042),
        datacenter: "dc\(Int.random(in: 1...2, using: &random))",
        rack: "r\(Int.random(in: 1...3, using: &random))",
        tokens: (0..<Int.random(in: 1...8, using: &random)).map { _ in Int64(bitPattern: random.next()) })
    }
  }

  /// Every node by the distance of its nearest token, clockwise.
  static func clockwise(_ nodes: [NodeInfo], _ token: Int64) -> [NodeInfo] {
    nodes.map { node in
      (node, node.tokens.map { UInt64(bitPattern: $0 &- token) }.min() ?? .max)
    }.sorted { $0.1 < $1.1 }.map(\.0)
  }

  @Test("replicas of a simple keyspace are the next distinct nodes of the ring", arguments: Seed.some(40))
  func simple(seed: Seed) {
    var random = seed.random
    let nodes = Self.nodes(&random)
    let ring = TokenRing(nodes)
    for count in 1...4 {
      let token = Bool.random(using: &random) ? nodes[0].tokens[0] : Int64(bitPattern: random.next())
      let expected = Self.clockwise(nodes, token).prefix(count).map(\.hostID)
      #expect(ring.replicas(token, .simple(count)) == expected)
    }
  }

  @Test(
    "replicas of a network keyspace are as many as asked in each datacenter, on as many racks as can be",
    arguments: Seed.some(60))
  func network(seed: Seed) {
    var random = seed.random
    let nodes = Self.nodes(&random)
    let token = Int64(bitPattern: random.next())
    let counts = ["dc1": Int.random(in: 0...4, using: &random), "dc2": Int.random(in: 0...4, using: &random)]
    let replicas = TokenRing(nodes).replicas(token, .network(counts))
    #expect(Set(replicas).count == replicas.count)
    for (name, count) in counts {
      let there = nodes.filter { $0.datacenter == name }
      let chosen = there.filter { replicas.contains($0.hostID) }
      let racks = Set(there.map(\.rack)).count
      // The first nodes of each rack, and of the others the first, as the servers fill up.
      guard count >= racks || Set(there.map(\.rack)).count == there.count else { continue }
      #expect(chosen.count == min(count, there.count))
      #expect(Set(chosen.map(\.rack)).count == min(racks, count))
      if count > 0, let first = Self.clockwise(there, token).first {
        #expect(replicas.contains(first.hostID))
      }
    }
  }

  @Test("a keyspace's strategy is read in the ways servers write it")
  func strategies() {
    let name = "org.apache.cassandra.locator."
    #expect(Replication(["class": name + "SimpleStrategy", "replication_factor": "3"]) == .simple(3))
    #expect(
      Replication(["class": "NetworkTopologyStrategy", "a": "3/1", "b": "2"]) == .network(["a": 3, "b": 2]))
    #expect(Replication(["class": name + "LocalStrategy"]) == .everywhere)
    #expect(Replication(["class": "com.example.Own"]) == .unknown)
    #expect(TokenRing([]).replicas(1, .simple(1)) == [])
  }
}
