// What lies in a segment's file, as recovery wants to know it.

internal import Bytes
internal import Posix

/// What was found in one segment.
public struct SegmentFacts: Hashable, Sendable {
  /// How far its batches are good.
  public enum Finding: Hashable, Sendable {
    /// Every batch is good, and nothing but zeros follows.
    case whole
    /// The header is good; the batches were not read: a snapshot covers them.
    case unread
    /// Good up to a byte, and something else there.
    case broken(atByte: Int, Damage)
    /// Not made to its end: no header, nothing but zeros or less than a header.
    case unmade
    /// The header does not check, or tells of another place.
    case headless(Damage)
    /// Written by a newer version, or for another shard. Nothing is touched.
    case refused(LogError)
  }

  public var name: SegmentName
  public var finding: Finding
  /// Watermark at which the shard's state was empty; nil without a header.
  public var origin: Int64?
  /// `check` of the segment before, as the header has it.
  public var checkBefore: UInt32 = 0
  /// Watermark after its last good batch; of an unread one: as the next segment says.
  public var end: Int64
  /// `check` of the last good batch, or of the header.
  public var check: UInt32 = 0
  /// Byte behind the last good batch.
  public var bytesGood = 0
  /// Bytes of the segment's content that are not zeros behind that, up to the last one.
  public var bytesBeyond = 0
  /// Byte from which on nothing was known to be synced.
  public var bytesSynced = 0
  /// The newest synced mark in its header and batches, those behind a hole included.
  public var mark: Int64 = 0
  /// The furthest watermark of any good batch, those behind a hole included.
  public var reach: Int64
  public var batches = 0
  public var events: UInt64 = 0
  public var rejected: UInt64 = 0
  public var fileBytes = 0

  init(name: SegmentName, finding: Finding) {
    self.name = name
    self.finding = finding
    end = name.base
    reach = name.base
  }
}

/// Reads segments without changing them.
enum SegmentScan {
  /// Good batches that are looked at behind a hole; further ones say nothing new.
  private static let laterBatchesMax = 100_000

  /// Reads a segment whole.
  static func whole(
    _ name: SegmentName, in folder: String, identity: LogIdentity, files: Files
  ) throws(LogError) -> SegmentFacts {
    facts(of: try SegmentImage(name, in: folder, files: files), identity: identity)
  }

  /// Reads the header alone.
  static func header(
    _ name: SegmentName, in folder: String, identity: LogIdentity, files: Files
  ) throws(LogError) -> SegmentFacts {
    let path = folder + "/" + name.text
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: SegmentFormat.segmentHeaderBytes, alignment: 8)
    defer { memory.deallocate() }
    let (count, fileBytes) = try SegmentImage.head(name, in: folder, files: files, into: memory)
    let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<count])
    var facts = SegmentFacts(name: name, finding: .unread)
    facts.fileBytes = fileBytes
    do throws(LogError) {
      let (header, check) = try SegmentHeader.decode(bytes, path: path)
      note(header, check, in: &facts)
      try judge(header, name, identity, path)
    } catch { facts.finding = finding(error, bytes) }
    return facts
  }

  static func facts(of image: SegmentImage, identity: LogIdentity) -> SegmentFacts {
    var facts = SegmentFacts(name: image.name, finding: .whole)
    facts.fileBytes = image.fileBytes
    let segment: SegmentHeader
    do throws(LogError) {
      let (header, check) = try SegmentHeader.decode(image.bytes, path: image.path)
      note(header, check, in: &facts)
      try judge(header, image.name, identity, image.path)
      segment = header
    } catch {
      facts.finding = finding(error, image.bytes)
      facts.bytesBeyond = image.bytes.count
      if case .headless = facts.finding { lookBehind(0, image, identity, in: &facts) }
      return facts
    }
    var walk = SegmentWalk(image, header: segment, check: facts.check)
    var places: [(next: Int64, end: Int)] = []
    do throws(LogError) {
      while let batch = try walk.next() {
        facts.batches += 1
        facts.events += UInt64(batch.header.eventCount)
        facts.rejected += UInt64(batch.header.rejectedCount)
        facts.mark = max(facts.mark, batch.header.syncedMark)
        places.append((batch.header.next, walk.place))
      }
    } catch {
      switch error {
      case .damaged(_, let byte, let damage): facts.finding = .broken(atByte: byte, damage)
      default: facts.finding = .refused(error)
      }
    }
    facts.end = walk.watermark
    facts.reach = walk.watermark
    facts.check = walk.check
    facts.bytesGood = walk.place
    facts.bytesSynced = places.last { $0.next <= facts.mark }?.end ?? SegmentFormat.segmentHeaderBytes
    if case .broken(let byte, _) = facts.finding {
      facts.bytesBeyond = content(image.bytes, from: byte)
      lookBehind(byte + 1, image, identity, in: &facts)
    }
    return facts
  }

  private static func note(_ header: SegmentHeader, _ check: UInt32, in facts: inout SegmentFacts) {
    facts.origin = header.origin
    facts.checkBefore = header.checkBefore
    // A segment is made once everything before it is synced.
    facts.mark = max(header.syncedMark, header.base)
    facts.check = check
    facts.bytesGood = SegmentFormat.segmentHeaderBytes
    facts.bytesSynced = SegmentFormat.segmentHeaderBytes
  }

  private static func judge(
    _ header: SegmentHeader, _ name: SegmentName, _ identity: LogIdentity, _ path: String
  ) throws(LogError) {
    if let difference = identity.difference(header.identity) {
      throw .foreign(path: path, atByte: 12, difference)
    }
    if header.base != name.base { throw .damaged(path: path, atByte: 40, .content(.value)) }
  }

  private static func finding(_ error: LogError, _ bytes: UnsafeRawBufferPointer) -> SegmentFacts.Finding {
    switch error {
    case .damaged(_, _, let damage):
      bytes.count < SegmentFormat.segmentHeaderBytes || SegmentWalk.isZero(bytes)
        ? .unmade : .headless(damage)
    default: .refused(error)
    }
  }

  /// Bytes from a place to the last that is not zero.
  private static func content(_ bytes: UnsafeRawBufferPointer, from place: Int) -> Int {
    var end = bytes.count
    while end > place, bytes[end - 1] == 0 { end -= 1 }
    return end - place
  }

  /// Looks for good batches behind a hole: what they say of marks tells a torn tail from damage.
  private static func lookBehind(
    _ start: Int, _ image: SegmentImage, _ identity: LogIdentity, in facts: inout SegmentFacts
  ) {
    let bytes = image.bytes
    var place = start
    var found = 0
    while place + SegmentFormat.batchHeaderBytes <= bytes.count, found < laterBatchesMax {
      guard
        bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self).littleEndian == SegmentFormat.batchMagic
      else {
        place += 1
        continue
      }
      let rest = UnsafeRawBufferPointer(rebasing: bytes[place...])
      guard
        let (header, _) = try? BatchHeader.decode(rest, identity: identity, path: image.path, atByte: place),
        header.first >= facts.end, SegmentWalk.body(header, rest) != nil
      else {
        place += 1
        continue
      }
      found += 1
      facts.mark = max(facts.mark, header.syncedMark)
      facts.reach = max(facts.reach, header.next)
      place += SegmentFormat.batchHeaderBytes + header.bodyBytes
    }
  }
}
