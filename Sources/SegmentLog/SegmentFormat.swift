// A segment by byte offset (Protocol/segment.md has the rules of reading). Integers are little-endian.
//
//   segment   = header, 512 bytes; batches one after the other; zeros to the file's end
//   batch     = header, 96 bytes; body
//
//   segment header                                      batch header
//   offset  bytes                                       offset  bytes
//        0      8  magic "RMS-LOG\n"                          0      4  magic "RMSB"
//        8      2  version, 1                                 4      2  version, 1
//       10      2  bytes of this header, 512                  6      1  kind: 0 records, 1 position, 2 gap
//       12      4  partition                                  7      1  flags, 0
//       16     16  topic id                                   8      4  bytes of the body
//       32      8  fingerprint of the settings               12      4  partition
//       40      8  base: watermark before the first batch    16     16  topic id
//       48      8  origin: watermark of the empty state      32      8  first: watermark before
//       56      8  created, ms since 1970                    40      8  next: watermark after
//       64      8  synced mark                               48      8  shard clock after, ms since 1970
//       72      4  check of the previous segment's last      56      8  newest Kafka timestamp, ms since 1970
//                  batch; 0: there is none                   64      8  synced mark
//       76      2  flags, 0                                  72      4  events
//       78      1  bytes of the topic's name, n              76      4  rejected records
//       79      n  topic                                     80      4  check of the batch, or header, before
//                  zeros                                     84      4  CRC32C of the body
//      508      4  check: CRC32C of bytes 0 to 507           88      4  zeros
//                                                            92      4  check: CRC32C of bytes 0 to 91

internal import Bytes

/// Numbers of the format and limits of this implementation.
public enum SegmentFormat {
  public static let version: UInt16 = 1
  public static let segmentHeaderBytes = 512
  public static let batchHeaderBytes = 96
  /// Events and rejected records of one batch together.
  public static let batchRowsMax = 65_536
  /// Longest body. A batch of one record is allowed to come near it; an encoder asks to be finished long before.
  public static let bodyBytesMax = 1 << 30
  /// Longest segment that is read.
  public static let segmentBytesMax = 3 << 30

  static let segmentMagic: [UInt8] = Array("RMS-LOG\n".utf8)
  /// "RMSB" as a little-endian integer.
  static let batchMagic: UInt32 = 0x4253_4D52
}

/// What a batch holds.
public enum BatchKind: UInt8, Hashable, Sendable, BitwiseCopyable, CaseIterable {
  /// Events and rejected records.
  case records = 0
  /// No rows: the watermark passed offsets that hold no records.
  case position = 1
  /// No rows: an operator accepted that the records from `first` to `next` are lost.
  case gap = 2
}

/// The header of a segment.
public struct SegmentHeader: Hashable, Sendable {
  public var identity: LogIdentity
  /// Watermark before the first batch; also the file's name.
  public var base: Int64
  /// Watermark at which the shard's state was empty: a log that reaches back to it needs no snapshot.
  public var origin: Int64
  /// Wall clock when it was made, milliseconds since 1970. Never enters a state.
  public var createdMs: Int64
  /// Everything before this watermark was synced when the segment was made.
  public var syncedMark: Int64
  /// `check` of the last batch of the segment before; 0 if there is none.
  public var checkBefore: UInt32

  public init(
    identity: LogIdentity, base: Int64, origin: Int64, createdMs: Int64, syncedMark: Int64,
    checkBefore: UInt32
  ) {
    self.identity = identity
    self.base = base
    self.origin = origin
    self.createdMs = createdMs
    self.syncedMark = syncedMark
    self.checkBefore = checkBefore
  }

  /// The header's bytes.
  ///
  /// - Returns: 512 bytes, and the checksum at their end, on which the first batch builds.
  public func encoded() -> (bytes: [UInt8], check: UInt32) {
    var out = ByteWriter(limit: SegmentFormat.segmentHeaderBytes, reserved: SegmentFormat.segmentHeaderBytes)
    out.bytes(SegmentFormat.segmentMagic)
    out.integer(SegmentFormat.version)
    out.integer(UInt16(SegmentFormat.segmentHeaderBytes))
    out.integer(identity.partition)
    out.integer(identity.topicID.high.byteSwapped)
    out.integer(identity.topicID.low.byteSwapped)
    out.integer(identity.fingerprint)
    out.integer(base)
    out.integer(origin)
    out.integer(createdMs)
    out.integer(syncedMark)
    out.integer(checkBefore)
    out.integer(UInt16(0))
    out.text8(identity.topic)
    out.bytes([UInt8](repeating: 0, count: SegmentFormat.segmentHeaderBytes - 4 - out.count))
    let check = Checksum.crc32c(out.unsafeBytes)
    out.integer(check)
    return (out.array, check)
  }

  /// Reads a header.
  ///
  /// - Parameters:
  ///   - bytes: the file's first bytes, 512 or more.
  ///   - path: the file, for the error.
  /// - Returns: the header and its checksum.
  /// - Throws: `damaged` if it is none or does not check; `newer` if another version wrote it.
  public static func decode(
    _ bytes: UnsafeRawBufferPointer, path: String
  ) throws(LogError) -> (header: SegmentHeader, check: UInt32) {
    func damaged(_ damage: Damage) -> LogError { .damaged(path: path, atByte: 0, damage) }
    do {
      let size = SegmentFormat.segmentHeaderBytes
      guard bytes.count >= size else { throw damaged(.short) }
      guard bytes[..<8].elementsEqual(SegmentFormat.segmentMagic) else { throw damaged(.magic) }
      var reader = ByteReader(UnsafeRawBufferPointer(rebasing: bytes[8..<size]))
      let version = try reader.integer(UInt16.self)
      let headerBytes = try reader.integer(UInt16.self)
      let check = bytes.loadUnaligned(fromByteOffset: size - 4, as: UInt32.self).littleEndian
      guard Checksum.crc32c(UnsafeRawBufferPointer(rebasing: bytes[..<(size - 4)])) == check else {
        throw damaged(.headerChecksum)
      }
      // Every version has its check in the same place, so that a changed byte is no newer version.
      guard version <= SegmentFormat.version else {
        throw LogError.newer(
          path: path, atByte: 8, what: .version, found: Int(version), known: Int(SegmentFormat.version))
      }
      let partition = try reader.integer(Int32.self)
      let high = UInt64(bigEndian: try rawWord(&reader))
      let low = UInt64(bigEndian: try rawWord(&reader))
      let fingerprint = try reader.integer(UInt64.self)
      let base = try reader.integer(Int64.self)
      let origin = try reader.integer(Int64.self)
      let created = try reader.integer(Int64.self)
      let mark = try reader.integer(Int64.self)
      let before = try reader.integer(UInt32.self)
      let flags = try reader.integer(UInt16.self)
      guard flags == 0 else {
        throw LogError.newer(path: path, atByte: 76, what: .flags, found: Int(flags), known: 0)
      }
      let name = try reader.bytes8()
      guard Int(headerBytes) == size, version >= 1, partition >= 0, base >= 0, (0...base).contains(origin),
        (0...base).contains(mark), let topic = String(validating: name, as: UTF8.self),
        (1...LogIdentity.topicBytesMax).contains(name.count)
      else { throw damaged(.content(.value)) }
      let identity = LogIdentity(
        topic: topic, topicID: LogIdentity.TopicID(high: high, low: low), partition: partition,
        fingerprint: fingerprint)
      let header = SegmentHeader(
        identity: identity, base: base, origin: origin, createdMs: created, syncedMark: mark,
        checkBefore: before)
      return (header, check)
    } catch let error as LogError {
      throw error
    } catch {
      throw damaged(.short)
    }
  }

  private static func rawWord(_ reader: inout ByteReader) throws(ByteError) -> UInt64 {
    let bytes = try reader.bytes(8)
    return bytes.loadUnaligned(as: UInt64.self)
  }
}

/// The header of a batch.
@frozen public struct BatchHeader: Hashable, Sendable, BitwiseCopyable {
  public var kind: BatchKind
  /// Bytes that follow the header.
  public var bodyBytes: Int
  /// Watermark before and after: Kafka's offsets in between that hold no record are passed over.
  public var first: Int64
  public var next: Int64
  /// Shard clock after the batch, milliseconds since 1970; -1 before the first record.
  public var clockMs: Int64
  /// Kafka timestamp of the newest record so far, milliseconds since 1970; -1 before the first.
  public var newestMs: Int64
  /// Everything before this watermark was known to be synced when the batch was made.
  public var syncedMark: Int64
  public var eventCount: Int
  public var rejectedCount: Int
  /// `check` of what stands before it in the segment: a batch or the segment's header.
  public var checkBefore: UInt32
  public var bodyCheck: UInt32

  /// Writes the header.
  ///
  /// - Parameters:
  ///   - out: room for 96 bytes.
  ///   - identity: whose batch it is.
  /// - Returns: the checksum at the header's end, on which the next batch builds.
  @discardableResult
  func write(to out: UnsafeMutableRawPointer, identity: LogIdentity) -> UInt32 {
    func put<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ place: Int) {
      out.storeBytes(of: value.littleEndian, toByteOffset: place, as: T.self)
    }
    put(SegmentFormat.batchMagic, 0)
    put(SegmentFormat.version, 4)
    put(kind.rawValue, 6)
    put(UInt8(0), 7)
    put(UInt32(truncatingIfNeeded: bodyBytes), 8)
    put(identity.partition, 12)
    put(identity.topicID.high.byteSwapped, 16)
    put(identity.topicID.low.byteSwapped, 24)
    put(first, 32)
    put(next, 40)
    put(clockMs, 48)
    put(newestMs, 56)
    put(syncedMark, 64)
    put(UInt32(truncatingIfNeeded: eventCount), 72)
    put(UInt32(truncatingIfNeeded: rejectedCount), 76)
    put(checkBefore, 80)
    put(bodyCheck, 84)
    put(UInt32(0), 88)
    let check = Checksum.crc32c(UnsafeRawBufferPointer(start: out, count: 92))
    put(check, 92)
    return check
  }

  /// Reads a header and judges it by itself: not whether it follows the batch before, nor its body.
  ///
  /// - Parameters:
  ///   - bytes: the segment's bytes from the header on.
  ///   - identity: whose log this is.
  ///   - path: the file, for the error.
  ///   - atByte: where the header lies in it, for the error.
  /// - Returns: the header and its checksum.
  /// - Throws: `damaged` if it is no header or does not check, `newer`, `foreign`.
  static func decode(
    _ bytes: UnsafeRawBufferPointer, identity: LogIdentity, path: String, atByte: Int
  ) throws(LogError) -> (header: BatchHeader, check: UInt32) {
    func damaged(_ damage: Damage) -> LogError { .damaged(path: path, atByte: atByte, damage) }
    guard bytes.count >= SegmentFormat.batchHeaderBytes, let base = bytes.baseAddress else {
      throw damaged(.short)
    }
    func get<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, _ place: Int) -> T {
      T(littleEndian: base.loadUnaligned(fromByteOffset: place, as: T.self))
    }
    func newer(_ what: NewerThing, _ place: Int, _ found: Int, _ known: Int) -> LogError {
      .newer(path: path, atByte: atByte + place, what: what, found: found, known: known)
    }
    guard get(UInt32.self, 0) == SegmentFormat.batchMagic else { throw damaged(.magic) }
    let check = get(UInt32.self, 92)
    guard Checksum.crc32c(UnsafeRawBufferPointer(start: base, count: 92)) == check else {
      throw damaged(.headerChecksum)
    }
    let version = get(UInt16.self, 4)
    guard version <= SegmentFormat.version else {
      throw newer(.version, 4, Int(version), Int(SegmentFormat.version))
    }
    guard let kind = BatchKind(rawValue: get(UInt8.self, 6)) else {
      throw newer(.batchKind, 6, Int(get(UInt8.self, 6)), Int(BatchKind.gap.rawValue))
    }
    guard get(UInt8.self, 7) == 0 else { throw newer(.flags, 7, Int(get(UInt8.self, 7)), 0) }
    let topicID = LogIdentity.TopicID(
      high: get(UInt64.self, 16).byteSwapped, low: get(UInt64.self, 24).byteSwapped)
    if topicID != identity.topicID {
      throw LogError.foreign(
        path: path, atByte: atByte + 16,
        IdentityDifference(field: .topicID, found: "\(topicID)", expected: "\(identity.topicID)"))
    }
    let partition = get(Int32.self, 12)
    if partition != identity.partition {
      throw LogError.foreign(
        path: path, atByte: atByte + 12,
        IdentityDifference(field: .partition, found: "\(partition)", expected: "\(identity.partition)"))
    }
    let header = BatchHeader(
      kind: kind, bodyBytes: Int(get(UInt32.self, 8)), first: get(Int64.self, 32), next: get(Int64.self, 40),
      clockMs: get(Int64.self, 48), newestMs: get(Int64.self, 56), syncedMark: get(Int64.self, 64),
      eventCount: Int(get(UInt32.self, 72)), rejectedCount: Int(get(UInt32.self, 76)),
      checkBefore: get(UInt32.self, 80), bodyCheck: get(UInt32.self, 84))
    guard header.makesSense, version >= 1, get(UInt32.self, 88) == 0 else {
      throw damaged(.content(.value))
    }
    return (header, check)
  }

  /// Whether the counts and marks fit each other.
  private var makesSense: Bool {
    guard bodyBytes <= SegmentFormat.bodyBytesMax, first >= 0, next > first, (0...first).contains(syncedMark),
      clockMs >= -1, newestMs <= clockMs
    else { return false }
    switch kind {
    case .records:
      let rows = eventCount + rejectedCount
      return rows >= 1 && rows <= SegmentFormat.batchRowsMax && rows <= next - first
    case .position, .gap: return eventCount == 0 && rejectedCount == 0 && bodyBytes == 0
    }
  }
}
