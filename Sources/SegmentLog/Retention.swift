// Which segments may go: the oldest ones, by age and size, and never one that somebody still needs.

/// How long a shard's log is kept on this disk.
public struct Retention: Hashable, Sendable {
  /// Segments that ended longer ago may go; nil: age alone lets none go.
  public var ageMax: Duration?
  /// The oldest segments may go while all of them together have more bytes; nil: size alone lets none go.
  public var bytesMax: Int?

  public init(ageMax: Duration? = nil, bytesMax: Int? = nil) {
    self.ageMax = ageMax
    self.bytesMax = bytesMax
  }

  /// A segment as the rule sees it.
  public struct Segment: Hashable, Sendable {
    public var name: SegmentName
    /// Watermark after its last batch.
    public var end: Int64
    /// Bytes of its file.
    public var bytes: Int
    /// When it ended, milliseconds since 1970.
    public var endedMs: Int64

    public init(name: SegmentName, end: Int64, bytes: Int, endedMs: Int64) {
      self.name = name
      self.end = end
      self.bytes = bytes
      self.endedMs = endedMs
    }
  }

  /// The segments that may be removed.
  ///
  /// - Parameters:
  ///   - segments: all of a shard in the order of their bases; the last one never goes.
  ///   - snapshotOldest: watermark of the oldest snapshot that is kept; without one nothing goes, because the state is
  ///     made from the log alone.
  ///   - confirmed: watermark up to which an archive has confirmed its copy; nil where there is no archive.
  ///   - nowMs: the time, milliseconds since 1970.
  /// - Returns: a beginning of `segments`.
  public func removable(
    _ segments: [Segment], snapshotOldest: Int64?, confirmed: Int64?, nowMs: Int64
  ) -> [SegmentName] {
    guard let snapshotOldest else { return [] }
    let bound = min(snapshotOldest, confirmed ?? .max)
    var bytesLeft = segments.reduce(0) { $0 + $1.bytes }
    var names: [SegmentName] = []
    for segment in segments.dropLast() {
      if segment.end > bound { break }
      let isOld = ageMax.map { Duration.milliseconds(nowMs - segment.endedMs) > $0 } ?? false
      let isTooMuch = bytesMax.map { bytesLeft > $0 } ?? false
      guard isOld || isTooMuch else { break }
      names.append(segment.name)
      bytesLeft -= segment.bytes
    }
    return names
  }
}
