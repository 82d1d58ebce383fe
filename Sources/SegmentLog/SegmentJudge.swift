// A segment judged while its bytes come by, for those who need no more of it than that it is right: the same rules as
// `SegmentWalk`, in memory for one header.

internal import Bytes

/// Takes a segment's bytes from its first on.
struct SegmentJudge: ~Copyable {
  private enum State {
    /// The segment's header is being collected.
    case start
    /// A batch's header is being collected.
    case between
    /// A body goes on.
    case body(BatchHeader, check: UInt32, left: Int)
    /// Nothing but zeros may come.
    case zeros
  }

  private let path: String
  private let base: Int64
  private let identity: LogIdentity
  private var state = State.start
  private let head = UnsafeMutableRawBufferPointer.allocate(
    byteCount: SegmentFormat.segmentHeaderBytes, alignment: 8)
  private var headFilled = 0
  private var bodyCheck: UInt32 = 0
  private var watermark: Int64 = 0
  /// Checksum of the last batch, or of the segment's header: it stands for all before it.
  private(set) var check: UInt32 = 0
  /// Byte behind the last good batch.
  private(set) var bytesGood = 0

  /// - Parameters:
  ///   - path: the file, for errors.
  ///   - base: what its name says.
  ///   - identity: whose log it is.
  init(path: String, base: Int64, identity: LogIdentity) {
    self.path = path
    self.base = base
    self.identity = identity
  }

  deinit { head.deallocate() }

  /// Takes the next bytes.
  ///
  /// - Parameter bytes: any number of them.
  /// - Throws: `damaged`, `newer` or `foreign`, with the byte of the batch.
  mutating func take(_ bytes: UnsafeRawBufferPointer) throws(LogError) {
    var rest = bytes
    while rest.count > 0 {
      switch state {
      case .start:
        guard collect(&rest, SegmentFormat.segmentHeaderBytes) else { return }
        try segmentHeader()
      case .between:
        guard collect(&rest, SegmentFormat.batchHeaderBytes) else { return }
        try batchHeader()
      case .body(let header, let check, let left):
        let part = UnsafeRawBufferPointer(rebasing: rest[..<min(left, rest.count)])
        bodyCheck = Checksum.crc32c(part, after: bodyCheck)
        rest = UnsafeRawBufferPointer(rebasing: rest[part.count...])
        state = .body(header, check: check, left: left - part.count)
        if part.count == left { try endBatch(header, check) }
      case .zeros:
        guard SegmentWalk.isZero(rest) else { throw damaged(.magic) }
        return
      }
    }
  }

  /// All bytes were taken.
  ///
  /// - Throws: `damaged` if more had to come.
  func end() throws(LogError) {
    switch state {
    case .zeros: return
    case .between where SegmentWalk.isZero(collected): return
    case .between, .body, .start: throw damaged(.short)
    }
  }

  private var collected: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(head)[..<headFilled])
  }

  private func damaged(_ damage: Damage) -> LogError { .damaged(path: path, atByte: bytesGood, damage) }

  /// Collects a header.
  ///
  /// - Returns: whether it is whole.
  private mutating func collect(_ rest: inout UnsafeRawBufferPointer, _ count: Int) -> Bool {
    let part = UnsafeRawBufferPointer(rebasing: rest[..<min(count - headFilled, rest.count)])
    UnsafeMutableRawBufferPointer(rebasing: head[headFilled...]).copyMemory(from: part)
    headFilled += part.count
    rest = UnsafeRawBufferPointer(rebasing: rest[part.count...])
    return headFilled == count
  }

  private mutating func segmentHeader() throws(LogError) {
    let (header, check) = try SegmentHeader.decode(collected, path: path)
    if let difference = identity.difference(header.identity) {
      throw .foreign(path: path, atByte: 12, difference)
    }
    guard header.base == base else { throw .damaged(path: path, atByte: 40, .content(.value)) }
    self.check = check
    watermark = base
    bytesGood = SegmentFormat.segmentHeaderBytes
    headFilled = 0
    state = .between
  }

  private mutating func batchHeader() throws(LogError) {
    if SegmentWalk.isZero(collected) {
      state = .zeros
      return
    }
    let (header, check) = try BatchHeader.decode(collected, identity: identity, path: path, atByte: bytesGood)
    guard header.first == watermark, header.checkBefore == self.check else { throw damaged(.chain) }
    headFilled = 0
    bodyCheck = 0
    state = .body(header, check: check, left: header.bodyBytes)
    if header.bodyBytes == 0 { try endBatch(header, check) }
  }

  private mutating func endBatch(_ header: BatchHeader, _ check: UInt32) throws(LogError) {
    guard bodyCheck == header.bodyCheck else { throw damaged(.bodyChecksum) }
    self.check = check
    watermark = header.next
    bytesGood += SegmentFormat.batchHeaderBytes + header.bodyBytes
    state = .between
  }
}
