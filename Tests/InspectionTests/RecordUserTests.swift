import FuzzBodies
import Inspection
import StepModel
import TestSupport
import Testing

@Suite struct RecordUserTests {
  private func users(_ text: String) -> [String] { users(Array(text.utf8)) }

  private func users(_ bytes: [UInt8]) -> [String] {
    bytes.withUnsafeBytes { RecordUser.all(in: $0).map(\.text) }
  }

  @Test("the user of a record that counts is the one that counts", arguments: Seed.some(10))
  func accepted(seed: Seed) throws {
    var source = RecordSource(seed: seed.value)
    var decoder = StepDecoder(settings: ClusterSettings(dayRule: try DayRule("UTC")))
    var event = StepEvent(
      user: UserKey(high: 0, low: 0), offset: 0, timeOfDay: 0, steps: 0, day: Day(number: 0))
    var seen = 0
    for _ in 0..<2_000 {
      let record = source.next()
      decoder.reset()
      let user = record.withUnsafeBytes { bytes -> String? in
        guard decoder.decode(bytes, offset: 0, shardClock: 1_795_521_600_000, into: &event) == nil else {
          return nil
        }
        return String(unsafeUninitializedCapacity: UserID.bytesMax) { event.user.write(to: $0.baseAddress!) }
      }
      guard let user else {
        _ = users(record)
        continue
      }
      seen += 1
      #expect(users(record) == [user], "\(String(decoding: record, as: UTF8.self))")
    }
    #expect(seen > 100)
  }

  @Test("a record cut anywhere names its user once the id is whole, and nobody before")
  func cut() {
    for (record, id) in [
      (#"{"steps":7, "uuid" : "ad\u0061", "timestamp":"x"}"#, "ada"), (#"{"uuid":4711,"steps":1}"#, "4711"),
    ] {
      let bytes = Array(record.utf8)
      let needle = Array((id == "ada" ? #"u0061""# : "4711,").utf8)
      let end = bytes.indices.first { bytes[$0...].starts(with: needle) }.map { $0 + needle.count } ?? 0
      for length in 0...bytes.count {
        #expect(users(Array(bytes[..<length])) == (length >= end ? [id] : []), "\(record) cut at \(length)")
      }
    }
  }

  @Test(
    "what can be read is read, at the top level alone",
    arguments: [
      (#"{"uuid":"ada","uuid":"ben"}"#, ["ada", "ben"]), (#"{"uuid":"ada","steps":"#, ["ada"]),
      (#"{"steps":{"uuid":"ben"},"uuid":"ada"}"#, ["ada"]), (#"[{"uuid":"ada"}]"#, []), (#""uuid""#, []),
      (#"{"x":"uuid","y":"ada"}"#, []), (#"{"uuid":null}"#, []), (#"{"uuid":true,"steps":1}"#, []),
      (#"{"uuid":1.5}"#, []), (#"{"uuid":-1,"x":2}"#, ["-1"]), (#"{"uuid":""}"#, []),
      (#"{"uuid":["ada"]}"#, []), (#"{"uuid":"a\nb"}"#, []), (#"{"uuid":"👣 é"}"#, ["👣 é"]),
      (#"{"uuid":"\ud83d\udc63"}"#, ["👣"]), (#"{"uuid":"\ud83d"}"#, []), (#"{"uu\u0069d":"ada"}"#, ["ada"]),
      (#"{"uuid":"ada"} {"uuid":"ben"}"#, ["ada"]), ("\u{FEFF} {\"uuid\":\"ada\"", ["ada"]), ("", []),
      ("{", []),
    ] as [(String, [String])])
  func table(record: String, expected: [String]) { #expect(users(record) == expected) }

  @Test("any bytes end the walk", arguments: Seed.some(20))
  func garbage(seed: Seed) {
    var random = seed.random
    let pool = Array(#"{}[]":,\u0 -1.e"#.utf8) + Array(#""uuid""#.utf8) + [0xFF, 0xC3]
    for _ in 0..<500 {
      let bytes = (0..<Int.random(in: 0...60, using: &random)).map { _ in
        pool.randomElement(using: &random) ?? 0
      }
      for user in users([0x7B] + bytes) { #expect(UserID(user) != nil) }
    }
  }
}
