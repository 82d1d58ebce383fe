// The snapshots of a shard's folder: which there are, which are good, which may go.

public import Posix

/// A snapshot that lies in a shard's folder, read to its end.
public struct SnapshotFinding: Hashable, Sendable {
  /// The whole path.
  public let path: String
  /// As the name says.
  public let watermark: Int64
  /// Why it must not be used; nil if it is good. `newer` and `foreign` are for a person: the shard refuses to start.
  /// `damaged` is for another start: an older snapshot, or the log's own.
  public let refusal: LogError?

  /// What a plan of recovery wants to know.
  public var facts: SnapshotFacts { SnapshotFacts(watermark: watermark, isGood: refusal == nil) }
}

/// Work on the snapshots of a folder.
public enum SnapshotFolder {
  /// Reads every snapshot of a folder to its end.
  ///
  /// - Parameters:
  ///   - folder: the shard's folder; one that is not there has none.
  ///   - identity: whose they must be.
  ///   - files: the file system.
  /// - Returns: all of them, the newest first.
  /// - Throws: `system` if the folder or a file cannot be read.
  /// - Complexity: O(bytes), about a second for 1.5 GB.
  public static func findings(
    _ folder: String, identity: LogIdentity, files: Files = Files()
  ) throws(LogError) -> [SnapshotFinding] {
    var findings: [SnapshotFinding] = []
    for (name, watermark) in SnapshotFormat.newestFirst(try names(folder, files)) {
      let path = folder + "/" + name
      var refusal: LogError?
      do throws(LogError) {
        let reader = try SnapshotReader(path: path, identity: identity, files: files)
        while try reader.next() != nil {}
      } catch {
        switch error {
        case .damaged, .newer, .foreign, .tooLarge: refusal = error
        case .system, .syncFailed, .writeFailed, .closed: throw error
        }
      }
      findings.append(SnapshotFinding(path: path, watermark: watermark, refusal: refusal))
    }
    return findings
  }

  /// Deletes what `SnapshotFormat.surplus` names. Call it while none is being written.
  ///
  /// - Parameters:
  ///   - folder: the shard's folder; one that is not there has none.
  ///   - files: the file system.
  /// - Returns: the names deleted.
  /// - Throws: `system`; what was deleted stays so.
  @discardableResult
  public static func removeSurplus(_ folder: String, files: Files = Files()) throws(LogError) -> [String] {
    let surplus = SnapshotFormat.surplus(try names(folder, files))
    do { for name in surplus { try files.remove(folder + "/" + name) } } catch { throw .system(error) }
    return surplus
  }

  private static func names(_ folder: String, _ files: Files) throws(LogError) -> [String] {
    guard files.isFolder(folder) else { return [] }
    do { return try files.names(in: folder) } catch { throw .system(error) }
  }
}
