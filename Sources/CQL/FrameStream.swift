// Envelopes to bytes and bytes to envelopes, for one direction of a connection each. Pure. Both begin plain, as every
// connection does, and change over when the handshake says so.

internal import Bytes

/// How envelopes travel.
enum Framing: Equatable {
  /// One after another: version 4, and every connection until its handshake is done.
  case plain
  /// The same, bodies compressed by LZ4 where that makes them smaller.
  case plainLZ4
  /// In segments: version 5.
  case segments(lz4: Bool)
}

/// Packs envelopes. Small ones that are written before one `flush` share a segment.
struct FrameWriter {
  var framing = Framing.plain
  /// Whole envelopes that are not packed yet; empty but in segments.
  private var gathered = WireWriter()

  init() {}

  /// Writes an envelope.
  ///
  /// - Parameters:
  ///   - header: its length is set here, and its compression flag.
  ///   - body: the message.
  ///   - out: appended to; in segments it may stay here until `flush`.
  mutating func write(_ header: FrameHeader, body: [UInt8], into out: inout WireWriter) {
    var header = header
    header.bodyBytes = body.count
    switch framing {
    case .plain:
      header.write(into: &out)
      out.raw(body)
    case .plainLZ4:
      if let block = body.withUnsafeBytes({ LZ4Block.compress($0) }), block.count + 4 < body.count {
        header.flags.insert(.compressed)
        header.bodyBytes = block.count + 4
        header.write(into: &out)
        out.int(body.count)
        out.raw(block)
      } else {
        header.write(into: &out)
        out.raw(body)
      }
    case .segments(let lz4):
      let whole = FrameHeader.byteCount + body.count
      if gathered.count + whole > SegmentHeader.payloadBytesMax { flush(into: &out) }
      header.write(into: &gathered)
      gathered.raw(body)
      if whole > SegmentHeader.payloadBytesMax { split(lz4: lz4, into: &out) }
    }
  }

  /// Packs what was gathered.
  ///
  /// - Parameter out: appended to.
  mutating func flush(into out: inout WireWriter) {
    guard case .segments(let lz4) = framing, gathered.count > 0 else { return }
    gathered.bytes.withUnsafeBytes { Segment.write($0, isSelfContained: true, compressed: lz4, into: &out) }
    gathered.bytes.removeAll(keepingCapacity: true)
  }

  private mutating func split(lz4: Bool, into out: inout WireWriter) {
    gathered.bytes.withUnsafeBytes { all in
      var start = 0
      while start < all.count {
        let end = min(all.count, start + SegmentHeader.payloadBytesMax)
        Segment.write(
          UnsafeRawBufferPointer(rebasing: all[start..<end]), isSelfContained: false, compressed: lz4,
          into: &out)
        start = end
      }
    }
    // One long envelope must not keep its memory for ever.
    gathered = WireWriter()
  }
}

/// Unpacks envelopes from whatever pieces the socket brings.
struct FrameReader {
  var framing = Framing.plain
  private let bodyBytesMax: Int
  /// Received and not unpacked; everything before `start` is done with.
  private var input: [UInt8] = []
  private var start = 0
  /// Of an envelope that spans segments: what came of it, header included.
  private var partial: [UInt8] = []
  /// Bytes `partial` will have; nil until its header is whole.
  private var partialBytes: Int?
  /// Whole envelopes of a segment, and how far they are read.
  private var payload: [UInt8] = []
  private var payloadStart = 0

  init(bodyBytesMax: Int = CQLLimits.bodyBytesMax) { self.bodyBytesMax = bodyBytesMax }

  /// Takes bytes in.
  ///
  /// - Parameter bytes: copied.
  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    if start > 0, start == input.count || start > 65_536 {
      input.removeFirst(start)
      start = 0
    }
    input.append(contentsOf: bytes)
  }

  /// Unpacks the next envelope.
  ///
  /// - Returns: nil if it is not whole yet.
  /// - Throws: `CodecError`; nothing that follows can be trusted then.
  mutating func next() throws(CodecError) -> Envelope? {
    switch framing {
    case .plain, .plainLZ4: return try nextPlain()
    case .segments(let lz4):
      while true {
        if let envelope = try nextOfPayload() { return envelope }
        guard try takeSegment(lz4: lz4) else { return nil }
        if let partialBytes, partial.count == partialBytes {
          let whole = partial
          partial = []
          self.partialBytes = nil
          return try FrameReader.envelope(whole[...], max: bodyBytesMax)?.envelope
        }
      }
    }
  }

  private mutating func nextPlain() throws(CodecError) -> Envelope? {
    guard let found = try FrameReader.envelope(input[start...], max: bodyBytesMax) else { return nil }
    var envelope = found.envelope
    start += found.length
    if envelope.header.flags.contains(.compressed) {
      guard framing == .plainLZ4 else {
        throw .malformed("a compressed body where no compression was agreed")
      }
      envelope.body = try FrameReader.inflate(envelope.body, max: bodyBytesMax)
      envelope.header.bodyBytes = envelope.body.count
      envelope.header.flags.remove(.compressed)
    }
    return envelope
  }

  private static func inflate(_ body: [UInt8], max: Int) throws(CodecError) -> [UInt8] {
    let result = body.withUnsafeBytes { raw -> Result<[UInt8], CodecError> in
      Result { () throws(CodecError) in
        var reader = WireReader(raw)
        let byteCount = try reader.int()
        guard byteCount >= 0, byteCount <= max else {
          throw .tooLong("a decompressed body in bytes", count: byteCount, max: max)
        }
        return try LZ4Block.decompress(try reader.raw(reader.left), to: byteCount)
      }
    }
    return try result.get()
  }

  private static func envelope(
    _ bytes: ArraySlice<UInt8>, max: Int
  ) throws(CodecError) -> (envelope: Envelope, length: Int)? {
    guard bytes.count >= FrameHeader.byteCount else { return nil }
    let header = try bytes.withUnsafeBytes { raw in
      Result { () throws(CodecError) in try FrameHeader(raw, bodyBytesMax: max) }
    }.get()
    let whole = FrameHeader.byteCount + header.bodyBytes
    guard bytes.count >= whole else { return nil }
    let body = bytes[(bytes.startIndex + FrameHeader.byteCount)..<(bytes.startIndex + whole)]
    return (Envelope(header: header, body: Array(body)), whole)
  }

  private mutating func nextOfPayload() throws(CodecError) -> Envelope? {
    guard payloadStart < payload.count else { return nil }
    guard let (envelope, length) = try FrameReader.envelope(payload[payloadStart...], max: bodyBytesMax)
    else {
      throw .malformed("an envelope is longer than what is left of its self-contained segment")
    }
    payloadStart += length
    return envelope
  }

  /// - Returns: false if no whole segment is there.
  private mutating func takeSegment(lz4: Bool) throws(CodecError) -> Bool {
    let headerBytes = SegmentHeader.byteCount(compressed: lz4)
    guard input.count - start >= headerBytes else { return false }
    let header = try input[start...].withUnsafeBytes { raw in
      Result { () throws(CodecError) in try SegmentHeader(raw, compressed: lz4) }
    }.get()
    let whole = headerBytes + header.wireBytes + 4
    guard input.count - start >= whole else { return false }
    let content = try input[(start + headerBytes)..<(start + whole)].withUnsafeBytes { raw in
      Result { () throws(CodecError) in try FrameReader.content(raw, header) }
    }.get()
    start += whole
    if header.isSelfContained {
      guard partial.isEmpty else { throw .malformed("a self-contained segment inside a split envelope") }
      payload = content
      payloadStart = 0
    } else {
      try join(content)
    }
    return true
  }

  private static func content(
    _ raw: UnsafeRawBufferPointer, _ header: SegmentHeader
  ) throws(CodecError) -> [UInt8] {
    let wire = UnsafeRawBufferPointer(rebasing: raw[..<header.wireBytes])
    let crc = raw.loadUnaligned(fromByteOffset: header.wireBytes, as: UInt32.self)
    guard UInt32(littleEndian: crc) == Checksum.segmentCRC32(wire) else {
      throw .checksum("a segment's payload")
    }
    return header.uncompressedBytes == 0
      ? [UInt8](wire) : try LZ4Block.decompress(wire, to: header.uncompressedBytes)
  }

  /// Adds a part of an envelope that spans segments; counts bytes, not segments.
  private mutating func join(_ part: [UInt8]) throws(CodecError) {
    guard !part.isEmpty else { throw .malformed("a part of an envelope without a byte") }
    partial += part
    if partialBytes == nil, partial.count >= FrameHeader.byteCount {
      let header = try partial.withUnsafeBytes { raw in
        Result { () throws(CodecError) in try FrameHeader(raw, bodyBytesMax: bodyBytesMax) }
      }.get()
      partialBytes = FrameHeader.byteCount + header.bodyBytes
    }
    if let partialBytes, partial.count > partialBytes {
      throw .malformed("\(partial.count - partialBytes) bytes more than a split envelope declared")
    }
  }
}
