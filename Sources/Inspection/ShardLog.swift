// A shard's log as it lies in a data folder, read without its node, and also while the node writes it: nothing is
// changed, and a batch that is being written is not damage.

public import Posix
public import SegmentLog

/// One shard's folder.
public struct ShardLog: Sendable {
  public let topic: String
  public let partition: Int32
  /// The folder's path.
  public let path: String
  private let files: Files

  /// The shards of a data folder, by topic and partition; folders that were set aside are not among them.
  ///
  /// - Parameters:
  ///   - folder: a node's data folder.
  ///   - files: the file system.
  /// - Returns: every folder `<topic>-<partition>` that holds a segment.
  /// - Throws: `disk`.
  public static func all(in folder: String, files: Files = Files()) throws(InspectionError) -> [ShardLog] {
    var found: [ShardLog] = []
    do throws(SystemError) {
      for name in try files.names(in: folder) {
        guard let dash = name.lastIndex(of: "-"), let partition = Int32(name[name.index(after: dash)...]),
          partition >= 0, files.isFolder(folder + "/" + name)
        else { continue }
        let shard = ShardLog(
          topic: String(name[..<dash]), partition: partition, path: folder + "/" + name, files: files)
        if try files.names(in: shard.path).contains(where: { SegmentName($0) != nil }) { found.append(shard) }
      }
    } catch { throw .disk(error) }
    return found.sorted { ($0.topic, $0.partition) < ($1.topic, $1.partition) }
  }

  /// Segments that stand for the log, in order.
  private func names() throws(InspectionError) -> [SegmentName] {
    do throws(LogError) { return try LogFolder.segments(in: path, files: files) } catch { throw .log(error) }
  }

  /// A segment, in whichever form it is by now.
  private func image(_ name: SegmentName) throws(InspectionError) -> SegmentImage {
    do throws(LogError) {
      do throws(LogError) { return try SegmentImage(name, in: path, files: files) } catch {
        // It was sealed since it was listed.
        guard case .system(let cause) = error, cause.errno == .noSuchFile, name.form == .plain else {
          throw error
        }
        return try SegmentImage(SegmentName(base: name.base, form: .sealed), in: path, files: files)
      }
    } catch { throw .log(error) }
  }

  /// Whose log it is, by the first header that can be read.
  private func identity(_ names: [SegmentName]) throws(InspectionError) -> LogIdentity? {
    for name in names {
      if let header = try? LogFolder.header(of: name, in: path, files: files) {
        guard header.identity.topic == topic, header.identity.partition == partition else {
          throw .foreign(path: path, found: header.identity.folderName)
        }
        return header.identity
      }
    }
    return nil
  }

  // MARK: Files

  /// Every file of the log, judged to its last byte.
  ///
  /// - Returns: segments in order, then what was set aside.
  /// - Throws: `disk`, `log` if a file cannot be read at all, `foreign`.
  /// - Complexity: reads the whole log, a segment at a time.
  public func summaries() throws(InspectionError) -> [SegmentSummary] {
    let names = try names()
    guard let identity = try identity(names) else {
      return names.map {
        SegmentSummary(
          file: $0.text, from: $0.base, state: .damaged, problem: "no header can be read", atByte: 0)
      }
    }
    let facts: [SegmentFacts]
    let others: [String]
    do throws(LogError) {
      let recovery = try Recovery(
        folder: path, identity: identity, snapshots: [], files: files, readsAll: true)
      facts = recovery.plan.rows.map(\.facts).filter { fact in
        fact.name.form == .sealed
          || !recovery.plan.rows.contains {
            $0.facts.name == SegmentName(base: fact.name.base, form: .sealed)
          }
      }
    } catch { throw .log(error) }
    do throws(SystemError) {
      others = try files.names(in: path).filter { $0.contains(Recovery.asideSuffix) }.sorted()
    } catch { throw .disk(error) }
    let mark = facts.map(\.mark).max() ?? 0
    var summaries: [SegmentSummary] = []
    for (place, fact) in facts.enumerated() {
      var summary = SegmentSummary(fact, mark: mark, isLast: place == facts.count - 1)
      if place > 0, summary.problem == nil { summary.follow(facts[place - 1], fact) }
      summaries.append(summary)
    }
    return summaries
      + others.map { SegmentSummary(file: $0, from: -1, state: .setAside, problem: nil, atByte: nil) }
  }

  /// A snapshot in the folder, read to its end.
  public struct Snapshot: Equatable, Sendable {
    public let file: String
    /// The state that it holds reflects everything before it.
    public let watermark: Int64
    public let fileBytes: Int
    /// Why it cannot be used; nil if it is good.
    public let problem: LogError?
  }

  /// The snapshots of the folder, the newest first.
  ///
  /// - Returns: all that are there; none where no segment says whose they must be.
  /// - Throws: `disk` or `log` if a file cannot be read, `foreign`.
  /// - Complexity: reads all of them.
  public func snapshots() throws(InspectionError) -> [Snapshot] {
    guard let identity = try identity(try names()) else { return [] }
    let findings: [SnapshotFinding]
    do throws(LogError) {
      findings = try SnapshotFolder.findings(path, identity: identity, files: files)
    } catch {
      throw .log(error)
    }
    var snapshots: [Snapshot] = []
    for finding in findings {
      // An old one may go while it is looked at.
      guard let bytes = try? files.open(finding.path, .read).bytesCount() else { continue }
      snapshots.append(
        Snapshot(
          file: SnapshotFormat.name(watermark: finding.watermark), watermark: finding.watermark,
          fileBytes: bytes, problem: finding.refusal))
    }
    return snapshots
  }

  // MARK: Rows

  /// How far a walk came.
  public struct Reach: Equatable, Sendable {
    /// Watermark before the first batch there is.
    public var from: Int64
    /// Watermark at which the state was empty; the log tells everything if it is not below `from`.
    public var origin: Int64
    /// Watermark after the last good batch.
    public var to: Int64
    /// Why the walk ended before the log's end; nil if it did not.
    public var damage: LogError?

    /// Whether every record from the state's beginning to `to` is in the log.
    public var isComplete: Bool { from <= origin && damage == nil }
  }

  /// Walks over the log's batches in order.
  ///
  /// - Parameters:
  ///   - offset: batches wholly before it are left out.
  ///   - body: is lent each batch, and says whether to go on.
  /// - Returns: how far it came; nil if the folder holds no readable segment.
  /// - Throws: `disk` or `log` if a file cannot be read at all, `foreign`.
  public func walk(
    from offset: Int64 = 0, _ body: (DecodedBatch) -> Bool
  ) throws(InspectionError) -> Reach? {
    let names = try names()
    guard let identity = try identity(names) else { return nil }
    let start = names.lastIndex { $0.base <= offset } ?? 0
    var reach = Reach(from: names[0].base, origin: 0, to: names[start].base, damage: nil)
    let decoder = BatchDecoder()
    for place in start..<names.count {
      let image = try image(names[place])
      do throws(LogError) {
        let (header, check) = try image.header(of: identity)
        reach.origin = header.origin
        guard header.base == reach.to else {
          throw LogError.damaged(path: image.path, atByte: ShardLog.baseAtByte, .chain)
        }
        var walk = SegmentWalk(image, header: header, check: check)
        decoder.reset()
        while let placed = try walk.next() {
          // Batches before the offset are read too: they define users.
          let batch = try decoder.decode(
            placed.header, body: placed.body, path: image.path, atByte: placed.place)
          reach.to = placed.header.next
          if placed.header.next <= offset { continue }
          if !body(batch) { return reach }
        }
      } catch {
        if place == names.count - 1, try isTail(names[place]) { return reach }
        reach.damage = error
        return reach
      }
    }
    return reach
  }

  /// Where a segment's header has its base.
  static let baseAtByte = 40

  /// Whether what is not whole in the last segment is a batch under way, or torn by a crash.
  private func isTail(_ name: SegmentName) throws(InspectionError) -> Bool {
    switch try summaries().last(where: { $0.file == name.text })?.state {
    case .active, .torn, .closed: true
    case .sealed, .damaged, .refused, .setAside, nil: false
    }
  }
}
