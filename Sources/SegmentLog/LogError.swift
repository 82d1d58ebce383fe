// What can go wrong with a shard's files; a case for each reaction.

public import Posix

/// Errors of this module. Each names the file, and the byte where there is one.
public enum LogError: Error, Hashable, Sendable {
  /// A call failed; nothing else is known. What the caller does depends on the errno.
  case system(SystemError)
  /// What was written may not be on the disk. Final: the pages are not to be trusted any more, the process ends.
  case syncFailed(path: String, errno: Errno)
  /// A write failed for another reason than a full disk. Final, as a failed sync.
  case writeFailed(path: String, errno: Errno)
  /// Bytes that do not check: never written whole, or changed since.
  case damaged(path: String, atByte: Int, Damage)
  /// Bytes that check and that this version does not know: written by a newer one. Refused.
  case newer(path: String, atByte: Int, what: NewerThing, found: Int, known: Int)
  /// A file, or a batch in it, of another shard, another incarnation of the topic or other settings. Refused.
  case foreign(path: String, atByte: Int, IdentityDifference)
  /// Longer than this version reads. Refused before memory is taken.
  case tooLarge(path: String, bytes: Int, bytesMax: Int)
  /// The log takes nothing any more: it was closed, or it failed and said so.
  case closed(path: String)
}

/// What does not fit in bytes.
public enum Damage: Hashable, Sendable {
  /// Fewer bytes than the header, or than the header says.
  case short
  /// The first bytes are not the format's.
  case magic
  /// The header's checksum does not fit.
  case headerChecksum
  /// The body's checksum does not fit.
  case bodyChecksum
  /// A batch that does not follow the one before it.
  case chain
  /// The checksums fit and the content makes no sense.
  case content(ContentFault)
  /// A sealed segment's frame does not open.
  case frame
}

/// What makes no sense in a body whose checksum fits.
public enum ContentFault: UInt8, Hashable, Sendable {
  /// A column or list reaches beyond the body, or bytes are left behind it.
  case length
  /// A value outside its column's bounds.
  case value
  /// A user number defined twice, or used without being defined.
  case user
  /// An id that is no user id.
  case userID
  /// Offsets that do not rise, or lie outside the batch.
  case order
}

/// What a newer version may have brought.
public enum NewerThing: Hashable, Sendable {
  case version
  case batchKind
  case rowKind
  /// Why a record was not counted.
  case reason
  case flags
}

extension LogError {
  /// Runs calls whose failure needs no other name.
  static func system<R: ~Copyable>(_ body: () throws(SystemError) -> R) throws(LogError) -> R {
    do throws(SystemError) { return try body() } catch { throw .system(error) }
  }
}

extension LogError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .system(let error): "\(error)"
    case .syncFailed(let path, let errno):
      "sync of \(path) failed: \(errno); what was written to it may be lost, so nothing more is written"
    case .writeFailed(let path, let errno): "write to \(path) failed: \(errno)"
    case .damaged(let path, let byte, let damage): "\(path) is damaged at byte \(byte): \(damage.text)"
    case .newer(let path, let byte, let what, let found, let known):
      "\(path), byte \(byte): \(what.text) \(found) is newer than this program, which knows up to \(known)"
    case .foreign(let path, let byte, let difference):
      "\(path), byte \(byte), is not of this shard: \(difference)"
    case .tooLarge(let path, let bytes, let bytesMax):
      "\(path) holds \(bytes) bytes, at most \(bytesMax) are read"
    case .closed(let path): "the log \(path) is closed"
    }
  }
}

extension Damage {
  /// A few words.
  public var text: String {
    switch self {
    case .short: "it ends too early"
    case .magic: "this is no header"
    case .headerChecksum: "the header's checksum does not fit"
    case .bodyChecksum: "the body's checksum does not fit"
    case .chain: "the batch does not follow the one before it"
    case .content(let fault):
      switch fault {
      case .length: "a column has another length than its batch says"
      case .value: "a value is out of bounds"
      case .user: "a user number is defined twice or not at all"
      case .userID: "an id is no user id"
      case .order: "offsets do not rise"
      }
    case .frame: "the LZ4 frame does not open"
    }
  }
}

extension NewerThing {
  fileprivate var text: String {
    switch self {
    case .version: "version"
    case .batchKind: "batch kind"
    case .rowKind: "row kind"
    case .reason: "reason"
    case .flags: "a set of flags"
    }
  }
}
