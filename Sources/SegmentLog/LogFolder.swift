// A shard's folder as tools and retention see it: which segments are there, and what each holds.

public import Posix

/// Reads a shard's folder without changing it.
public enum LogFolder {
  /// The segments of a folder in the order of their bases; where both forms of one are there, the sealed alone.
  ///
  /// - Parameters:
  ///   - folder: the shard's folder.
  ///   - files: the file system.
  /// - Returns: the names.
  /// - Throws: `system`.
  public static func segments(in folder: String, files: Files = Files()) throws(LogError) -> [SegmentName] {
    do throws(SystemError) {
      let names = try files.names(in: folder).compactMap { SegmentName($0) }.sorted()
      return names.enumerated().filter { place, name in
        place + 1 == names.count || names[place + 1].base != name.base
      }.map(\.element)
    } catch { throw .system(error) }
  }

  /// The header of a segment, whoever's it is.
  ///
  /// - Parameters:
  ///   - name: the segment.
  ///   - folder: the shard's folder.
  ///   - files: the file system.
  /// - Returns: the header.
  /// - Throws: `system`, `damaged`, `newer`.
  public static func header(
    of name: SegmentName, in folder: String, files: Files = Files()
  ) throws(LogError) -> SegmentHeader {
    try head(name, in: folder, files).header
  }

  /// Reads a segment whole and judges every batch of it, content included.
  ///
  /// - Parameters:
  ///   - name: the segment.
  ///   - folder: the shard's folder.
  ///   - identity: whose log it must be.
  ///   - files: the file system.
  /// - Returns: what was found.
  /// - Throws: `system`, `tooLarge`; `damaged` and `newer` for content that makes no sense behind checksums that fit.
  public static func verify(
    _ name: SegmentName, in folder: String, identity: LogIdentity, files: Files = Files()
  ) throws(LogError) -> SegmentFacts {
    let facts = try SegmentScan.whole(name, in: folder, identity: identity, files: files)
    if facts.finding == .whole { try read(name, in: folder, identity: identity, files: files) { _ in } }
    return facts
  }

  /// Reads the batches of one segment.
  ///
  /// - Parameters:
  ///   - name: the segment.
  ///   - folder: the shard's folder.
  ///   - identity: whose log it must be; nil takes any.
  ///   - files: the file system.
  ///   - body: is lent each batch.
  /// - Throws: `system`, `tooLarge`; `damaged`, `newer` or `foreign` at the first batch that is not good.
  public static func read(
    _ name: SegmentName, in folder: String, identity: LogIdentity? = nil, files: Files = Files(),
    _ body: (DecodedBatch) -> Void
  ) throws(LogError) {
    let image = try SegmentImage(name, in: folder, files: files)
    let (header, check) = try image.header(of: identity)
    var walk = SegmentWalk(image, header: header, check: check)
    let decoder = BatchDecoder()
    while let placed = try walk.next() {
      body(try decoder.decode(placed.header, body: placed.body, path: image.path, atByte: placed.place))
    }
  }

  /// What retention wants to know, of all segments of a folder.
  ///
  /// - Parameters:
  ///   - folder: the shard's folder.
  ///   - watermark: the log's, which is the end of its last segment.
  ///   - nowMs: the time, milliseconds since 1970.
  ///   - files: the file system.
  /// - Returns: the segments in the order of their bases.
  /// - Throws: `system`, `damaged`, `newer`.
  public static func kept(
    in folder: String, watermark: Int64, nowMs: Int64, files: Files = Files()
  ) throws(LogError) -> [Retention.Segment] {
    let names = try segments(in: folder, files: files)
    var kept: [Retention.Segment] = []
    // A segment ended when the next was made.
    var endedMs = nowMs
    for (place, name) in names.enumerated().reversed() {
      let (header, bytes) = try head(name, in: folder, files)
      let end = place + 1 < names.count ? names[place + 1].base : watermark
      kept.append(Retention.Segment(name: name, end: end, bytes: bytes, endedMs: endedMs))
      endedMs = header.createdMs
    }
    return kept.reversed()
  }

  private static func head(
    _ name: SegmentName, in folder: String, _ files: Files
  ) throws(LogError) -> (header: SegmentHeader, fileBytes: Int) {
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: SegmentFormat.segmentHeaderBytes, alignment: 8)
    defer { memory.deallocate() }
    let (count, fileBytes) = try SegmentImage.head(name, in: folder, files: files, into: memory)
    let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<count])
    return (try SegmentHeader.decode(bytes, path: folder + "/" + name.text).header, fileBytes)
  }
}
