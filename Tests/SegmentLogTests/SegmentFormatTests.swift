import SegmentLog
import Testing

let walkers = LogIdentity(
  topic: "steps", topicID: .init(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF), partition: 3,
  fingerprint: 0x0123_4567_89AB_CDEF)

@Suite struct SegmentFormatTests {
  @Test("a segment's header is read as it was written, and any changed byte is found")
  func segmentHeader() throws {
    let header = SegmentHeader(
      identity: walkers, base: 1_000, origin: 10, createdMs: 1_795_521_600_000, syncedMark: 1_000,
      checkBefore: 77)
    let (bytes, check) = header.encoded()
    #expect(bytes.count == SegmentFormat.segmentHeaderBytes)
    try bytes.withUnsafeBytes { bytes in
      let decoded = try SegmentHeader.decode(bytes, path: "x")
      #expect(decoded.header == header)
      #expect(decoded.check == check)
    }
    for place in bytes.indices {
      var changed = bytes
      changed[place] ^= 0x10
      changed.withUnsafeBytes { bytes in
        #expect(throws: LogError.self, "byte \(place)") { _ = try SegmentHeader.decode(bytes, path: "x") }
      }
    }
  }

  @Test("an identity names the first field that differs, with both values")
  func identity() {
    #expect(walkers.difference(walkers) == nil)
    let other = LogIdentity(
      topic: "steps", topicID: walkers.topicID, partition: 3, fingerprint: 0x0123_4567_89AB_CDEE)
    #expect(
      walkers.difference(other)?.description
        == "settings fingerprint 0123456789abcdee found, 0123456789abcdef expected")
  }
}
