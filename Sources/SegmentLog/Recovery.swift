// A shard's folder after a start: scanned, put in order by the plan, then read from the state's start on.

public import Posix

/// Recovers one shard's log. One thread, before the log is opened.
public struct Recovery {
  public let folder: String
  public let identity: LogIdentity
  public let plan: RecoveryPlan
  private let files: Files
  /// Left by a crash while a segment was sealed.
  private let leftovers: [String]

  /// Suffix of files under construction; they are removed.
  public static let temporarySuffix = ".tmp"
  /// Suffix of files that were set aside.
  public static let asideSuffix = ".damaged"

  /// Scans a folder and plans; changes nothing.
  ///
  /// - Parameters:
  ///   - folder: the shard's folder; one that is not there is empty.
  ///   - identity: whose log it must be.
  ///   - snapshots: those of the folder.
  ///   - files: the file system.
  ///   - readsAll: whether segments that a snapshot covers are read too.
  ///   - progress: told after each file: bytes read, bytes of all.
  /// - Throws: `system` if a file cannot be read, `tooLarge`. What does not check is in the plan.
  public init(
    folder: String, identity: LogIdentity, snapshots: [SnapshotFacts], files: Files = Files(),
    readsAll: Bool = false, progress: (_ bytesDone: Int, _ bytesTotal: Int) -> Void = { _, _ in }
  ) throws(LogError) {
    self.folder = folder
    self.identity = identity
    self.files = files
    var names: [SegmentName] = []
    var leftovers: [String] = []
    if files.isFolder(folder) {
      do throws(SystemError) {
        for name in try files.names(in: folder) {
          if let segment = SegmentName(name) { names.append(segment) }
          if [".seg", ".seg.lz4"].contains(where: { name.hasSuffix($0 + Recovery.temporarySuffix) }) {
            leftovers.append(name)
          }
        }
      } catch { throw .system(error) }
    }
    self.leftovers = leftovers
    names.sort()
    // From where on segments are read whole: the newest good snapshot, or the start if the log ends before it.
    var from = readsAll ? 0 : snapshots.filter(\.isGood).map(\.watermark).max() ?? 0
    var facts: [SegmentName: SegmentFacts] = [:]
    while true {
      try Recovery.scan(names, from: from, folder, identity, files, into: &facts, progress)
      let plan = RecoveryPlan.make(segments: Array(facts.values), snapshots: snapshots)
      let start: Int64 =
        switch plan.start {
        case .snapshot(let watermark): watermark
        case .origin(let watermark): watermark
        case .nothing: 0
        case .empty, .refused: from
        }
      if start >= from {
        self.plan = plan
        return
      }
      from = start
    }
  }

  private static func scan(
    _ names: [SegmentName], from: Int64, _ folder: String, _ identity: LogIdentity, _ files: Files,
    into facts: inout [SegmentName: SegmentFacts], _ progress: (Int, Int) -> Void
  ) throws(LogError) {
    var done = 0
    for (place, name) in names.enumerated() {
      let hasTwin = names.contains { $0.base == name.base && $0 != name }
      // The last segment is always read: its end is the log's.
      let nextBase = names[place...].first { $0.base > name.base }?.base ?? .max
      let isNeeded = nextBase > from || hasTwin
      if let known = facts[name], known.finding != .unread || !isNeeded { continue }
      let found =
        isNeeded
        ? try SegmentScan.whole(name, in: folder, identity: identity, files: files)
        : try SegmentScan.header(name, in: folder, identity: identity, files: files)
      facts[name] = found
      done += found.fileBytes
      progress(done, done)
    }
  }

  // MARK: Putting the folder in order

  /// Carries the plan out: cuts, sets aside, removes, and syncs what stays. Repeating it after a crash is safe.
  ///
  /// - Throws: `system`, `syncFailed`.
  public func apply() throws(LogError) {
    switch plan.start {
    case .nothing, .refused: return
    case .empty, .origin, .snapshot: break
    }
    for row in plan.rows {
      if case .setAsideTail(let bytes, _) = row.action, row.facts.name.form == .sealed {
        try unseal(row.facts.name, bytes)
      }
    }
    do throws(SystemError) {
      for name in leftovers where files.exists(folder + "/" + name) { try files.remove(folder + "/" + name) }
      for watermark in plan.snapshotsAside { try setAside(SegmentName.digits(watermark) + ".snap") }
      for row in plan.rows { try apply(row) }
    } catch {
      if error.call == FileCall.fdatasync.rawValue {
        throw .syncFailed(path: error.subject ?? folder, errno: error.errno)
      }
      throw .system(error)
    }
    guard files.isFolder(folder) else { return }
    do throws(SystemError) { try files.syncFolder(folder) } catch {
      throw .syncFailed(path: folder, errno: error.errno)
    }
  }

  private func apply(_ row: RecoveryPlan.Row) throws(SystemError) {
    let path = folder + "/" + row.facts.name.text
    switch row.action {
    case .keep, .refuse: return
    case .trim(let bytes, let synced): try cut(path, bytes, synced)
    case .cut(let bytes, let synced, _): try cut(path, bytes, synced)
    case .setAsideTail where row.facts.name.form == .sealed: try setAside(row.facts.name.text)
    case .setAsideTail(let bytes, let synced):
      try copyTail(path, from: bytes)
      try cut(path, bytes, synced)
    case .setAside: try setAside(row.facts.name.text)
    case .remove: try files.remove(path)
    }
  }

  /// Cuts a segment and makes what it holds last. What nothing says to be synced is written anew: after a failed sync
  /// the kernel may take pages for clean that never reached the disk.
  private func cut(_ path: String, _ bytes: Int, _ synced: Int) throws(SystemError) {
    let file = try files.open(path, .update)
    try file.truncate(bytesCount: bytes)
    if bytes > synced {
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes - synced, alignment: 16)
      defer { memory.deallocate() }
      let count = try Recovery.read(file, at: synced, into: memory)
      try file.write(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<count]), at: synced)
    }
    try file.sync()
  }

  /// Writes the first bytes of a sealed segment as a plain one.
  private func unseal(_ name: SegmentName, _ bytes: Int) throws(LogError) {
    let image = try SegmentImage(name, in: folder, files: files)
    let path = folder + "/" + SegmentName(base: name.base, form: .plain).text
    do throws(SystemError) {
      let target = try files.open(path + Recovery.temporarySuffix, .replace)
      try target.write(UnsafeRawBufferPointer(rebasing: image.bytes[..<bytes]), at: 0)
      try target.sync()
      try files.rename(path + Recovery.temporarySuffix, to: path)
      try files.syncFolder(folder)
    } catch { throw .system(error) }
  }

  private func copyTail(_ path: String, from byte: Int) throws(SystemError) {
    let source = try files.open(path, .read)
    let count = max(0, try source.bytesCount() - byte)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, count), alignment: 16)
    defer { memory.deallocate() }
    let read = try Recovery.read(
      source, at: byte, into: UnsafeMutableRawBufferPointer(rebasing: memory[..<count]))
    let target = try files.open(path + ".at-\(byte)" + Recovery.asideSuffix, .replace)
    try target.write(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<read]), at: 0)
    try target.sync()
    try files.syncFolder(folder)
  }

  private static func read(
    _ file: borrowing File, at place: Int, into memory: UnsafeMutableRawBufferPointer
  ) throws(SystemError) -> Int {
    var done = 0
    while done < memory.count {
      let got = try file.read(
        at: place + done, into: UnsafeMutableRawBufferPointer(rebasing: memory[done...]))
      if got == 0 { break }
      done += got
    }
    return done
  }

  private func setAside(_ name: String) throws(SystemError) {
    let path = folder + "/" + name
    guard files.exists(path) else { return }
    var target = path + Recovery.asideSuffix
    var number = 2
    while files.exists(target) {
      target = path + Recovery.asideSuffix + ".\(number)"
      number += 1
    }
    try files.rename(path, to: target)
  }

  // MARK: Reading

  /// How far reading is.
  public struct Progress: Hashable, Sendable {
    public var bytesDone: Int
    public var bytesTotal: Int
    /// Watermark after the last batch.
    public var watermark: Int64
  }

  /// Reads the log from the plan's start to its end, after `apply`.
  ///
  /// - Parameter body: is lent each batch, cut to what lies at or above the start, with the progress after it.
  /// - Throws: `LogError` if a file changed since the scan or its content makes no sense; what `body` throws.
  public func replay(_ body: (DecodedBatch, Progress) throws -> Void) throws {
    let start: Int64
    switch plan.start {
    case .empty, .nothing, .refused: return
    case .origin(let watermark): start = watermark
    case .snapshot(let watermark): start = watermark
    }
    guard let end = plan.position?.watermark else { return }
    let rows = plan.rows.filter { row in
      switch row.action {
      case .keep, .trim, .cut, .setAsideTail: row.facts.end > start && row.facts.name.base < end
      case .setAside, .remove, .refuse: false
      }
    }
    var progress = Progress(
      bytesDone: 0, bytesTotal: rows.reduce(0) { $0 + $1.facts.bytesGood }, watermark: start)
    let decoder = BatchDecoder()
    for row in rows {
      let before = progress.bytesDone
      var name = row.facts.name
      if case .setAsideTail = row.action { name = SegmentName(base: name.base, form: .plain) }
      let image = try SegmentImage(name, in: folder, files: files)
      let (header, check) = try image.header(of: identity)
      var walk = SegmentWalk(image, header: header, check: check)
      decoder.reset()
      while walk.place < row.facts.bytesGood, let placed = try walk.next() {
        // Batches before the start are read too: they define users.
        let batch = try decoder.decode(
          placed.header, body: placed.body, path: image.path, atByte: placed.place)
        progress.bytesDone = before + walk.place
        if placed.header.next <= start { continue }
        progress.watermark = placed.header.next
        try body(batch.from(start), progress)
      }
      guard walk.watermark == row.facts.end else {
        throw LogError.damaged(path: image.path, atByte: walk.place, .short)
      }
    }
  }
}
