import Bytes
import TestSupport
import Testing

@testable import CQL

/// The same bytes as hexadecimal text has, spaces allowed.
func hex(_ text: String) -> [UInt8] { Hex.bytes(text) ?? [] }

@Suite struct SegmentTests {
  /// OPTIONS of version 5 on a stream.
  static func options(_ stream: Int16 = 0) -> FrameHeader {
    FrameHeader(version: .v5, stream: stream, opcode: .options, bodyBytes: 0)
  }

  static func written(_ framing: Framing, _ envelopes: [Envelope], flushEach: Bool = false) -> [UInt8] {
    var writer = FrameWriter()
    writer.framing = framing
    var out = WireWriter()
    for envelope in envelopes {
      writer.write(envelope.header, body: envelope.body, into: &out)
      if flushEach { writer.flush(into: &out) }
    }
    writer.flush(into: &out)
    return out.bytes
  }

  static func segment(_ payload: [UInt8], _ isSelfContained: Bool, lz4: Bool = false) -> [UInt8] {
    var out = WireWriter()
    payload.withUnsafeBytes {
      Segment.write($0, isSelfContained: isSelfContained, compressed: lz4, into: &out)
    }
    return out.bytes
  }

  @Test(
    "segments are byte for byte as the server's own algorithm makes them",
    arguments: [
      (false, [0], "090002a4c8c1 050000000500000000 1086284d"),
      (true, [0], "0900000004c2b895 050000000500000000 1086284d"),
      (false, [0, 1], "120002f6cbcf 050000000500000000 050000010500000000 51ad22d9"),
    ])
  func vectors(lz4: Bool, streams: [Int16], bytes: String) {
    let envelopes = streams.map { Envelope(header: Self.options($0), body: []) }
    #expect(Self.written(.segments(lz4: lz4), envelopes) == hex(bytes))
  }

  @Test("payloads and headers alone are as published")
  func payloads() throws {
    #expect(Self.segment([], true) == hex("0000026a36c4 d37e7744"))
    #expect(Self.segment([1], true) == hex("010002 7256ac 01 0b2b9bba"))
    #expect(
      Self.segment([UInt8](repeating: 0x62, count: 50), true, lz4: true)
        == hex("0b006400042dacc4 1f62010019506262626262 25c4f9e0"))
    for (isSelfContained, bytes) in [(false, "ffff013891fe"), (true, "ffff03254047")] {
      let header = SegmentHeader(wireBytes: 131_071, uncompressedBytes: 0, isSelfContained: isSelfContained)
      var out = WireWriter()
      header.write(compressed: false, into: &out)
      #expect(out.bytes == hex(bytes))
      let read = try out.bytes.withUnsafeBytes { try SegmentHeader($0, compressed: false) }
      #expect(read == header)
    }
  }

  @Test("a compressed body of version 4 begins with its length, big-endian; an empty one may be compressed")
  func version4() throws {
    let body = [UInt8](repeating: 0x62, count: 50)
    let header = FrameHeader(version: .v4, isResponse: true, stream: 3, opcode: .result, bodyBytes: 50)
    let bytes = Self.written(.plainLZ4, [Envelope(header: header, body: body)])
    #expect(bytes == hex("84 01 0003 08 0000000f 00000032 1f62010019506262626262"))
    var reader = FrameReader()
    reader.framing = .plainLZ4
    hex("84 01 0003 02 00000004 00000000").withUnsafeBytes { reader.append($0) }
    #expect(try reader.next()?.body == [])
  }

  /// Envelopes of many sizes, some longer than a segment.
  static func envelopes(_ seed: Seed, _ version: ProtocolVersion) -> [Envelope] {
    var random = seed.random
    return (0..<Int.random(in: 1...12, using: &random)).map { index in
      let size =
        [0, 1, 9, 300, 131_051, 131_060, 131_062, 131_063, 131_071, 131_072, 300_000]
        .randomElement(using: &random) ?? 0
      let isFlat = Bool.random(using: &random)
      var body = [UInt8](repeating: 7, count: size)
      if !isFlat { for place in body.indices { body[place] = UInt8(truncatingIfNeeded: random.next()) } }
      let header = FrameHeader(
        version: version, isResponse: Bool.random(using: &random), stream: Int16(index), opcode: .result,
        bodyBytes: size)
      return Envelope(header: header, body: body)
    }
  }

  @Test(
    "what is packed comes out, whatever pieces the socket brings",
    arguments: Seed.some(4), [Framing.plain, .plainLZ4, .segments(lz4: false), .segments(lz4: true)])
  func roundTrip(seed: Seed, framing: Framing) throws {
    let version: ProtocolVersion = framing == .plain || framing == .plainLZ4 ? .v4 : .v5
    let envelopes = Self.envelopes(seed, version)
    var random = seed.random
    let bytes = Self.written(framing, envelopes, flushEach: Bool.random(using: &random))
    var reader = FrameReader()
    reader.framing = framing
    var got: [Envelope] = []
    var start = 0
    while start < bytes.count {
      let end = min(bytes.count, start + Int.random(in: 1...70_000, using: &random))
      bytes[start..<end].withUnsafeBytes { reader.append($0) }
      start = end
      while let envelope = try reader.next() { got.append(envelope) }
    }
    #expect(got == envelopes)
  }

  @Test("an envelope whose 9-byte header spans two segments is read")
  func splitHeader() throws {
    let whole = hex("850000070800000004 01020304")
    for cut in 1..<whole.count {
      let bytes = Self.segment(Array(whole[..<cut]), false) + Self.segment(Array(whole[cut...]), false)
      var reader = FrameReader()
      reader.framing = .segments(lz4: false)
      bytes.withUnsafeBytes { reader.append($0) }
      #expect(try reader.next()?.body == [1, 2, 3, 4], "cut at \(cut)")
    }
  }

  @Test("no flipped bit of a segment and no cut gives an envelope", arguments: [false, true])
  func damaged(lz4: Bool) throws {
    let envelope = Envelope(
      header: FrameHeader(version: .v5, isResponse: true, stream: 5, opcode: .result, bodyBytes: 60),
      body: [UInt8](repeating: 9, count: 60))
    let bytes = Self.written(.segments(lz4: lz4), [envelope])
    func read(_ bytes: some Sequence<UInt8>) throws -> Envelope? {
      var reader = FrameReader()
      reader.framing = .segments(lz4: lz4)
      Array(bytes).withUnsafeBytes { reader.append($0) }
      return try reader.next()
    }
    #expect(try read(bytes) == envelope)
    for bit in 0..<8 * bytes.count {
      var changed = bytes
      changed[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(throws: CodecError.self, "bit \(bit)") { try read(changed) }
    }
    for count in 0..<bytes.count { #expect(try read(bytes.prefix(count)) == nil) }
  }

  static func refused(_ framing: Framing, _ bytes: [UInt8], _ error: CodecError) {
    var reader = FrameReader(bodyBytesMax: 1 << 20)
    reader.framing = framing
    bytes.withUnsafeBytes { reader.append($0) }
    #expect(throws: error) { while try reader.next() != nil {} }
  }

  @Test("lengths that lie are refused before anything is reserved for them")
  func hostileLengths() {
    let what = "a message's body in bytes"
    Self.refused(.plain, hex("840000000880000000"), .tooLong(what, count: -2_147_483_648, max: 1 << 20))
    Self.refused(.plain, hex("84000000087fffffff"), .tooLong(what, count: 2_147_483_647, max: 1 << 20))
    Self.refused(
      .plainLZ4, hex("840100000800000005 7fffffff 00"),
      .tooLong("a decompressed body in bytes", count: 2_147_483_647, max: 1 << 20))
    Self.refused(
      .plainLZ4, hex("840100000800000006 00010000 0000"),
      .tooLong("decompressed bytes of a block of 2", count: 65_536, max: 512))
    // 131,071 bytes out of 10.
    var out = WireWriter()
    SegmentHeader(wireBytes: 10, uncompressedBytes: 131_071, isSelfContained: true)
      .write(compressed: true, into: &out)
    let wire = [UInt8](repeating: 0, count: 10)
    out.raw(wire)
    out.integer(wire.withUnsafeBytes { Checksum.segmentCRC32($0) }.byteSwapped)
    Self.refused(
      .segments(lz4: true), out.bytes,
      .tooLong("decompressed bytes of a block of 10", count: 131_071, max: 2560))
  }

  @Test("segments that contradict each other are refused")
  func contradictions() {
    let split = hex("850000070800000004 0102")
    let framing = Framing.segments(lz4: false)
    Self.refused(
      framing, Self.segment(split, false) + Self.segment([3, 4], true),
      .malformed("a self-contained segment inside a split envelope"))
    Self.refused(framing, Self.segment([], false), .malformed("a part of an envelope without a byte"))
    Self.refused(
      framing, Self.segment(split, true),
      .malformed("an envelope is longer than what is left of its self-contained segment"))
    Self.refused(
      framing, Self.segment(split, false) + Self.segment([3, 4, 5], false),
      .malformed("1 bytes more than a split envelope declared"))
  }
}
