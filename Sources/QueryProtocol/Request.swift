// The requests. Decoding borrows everything from the frame's bytes: no allocation, no reference counting.
// Layouts are in the doc of each case; what precedes them (deadline, at_least) is in `Incoming`.

internal import Bytes
internal import StepModel

/// A request as a server sees it. All pointers borrow from the frame and die with its buffer.
public enum Request {
  /// `"RMS1", u8 version min, u8 version max, text8 name, text8 language, text8 version, u8 n, n × (text8 key, text8 value)`
  case hello(HelloRequest)
  /// Nothing.
  case ping
  /// `board, u32 limit, u8 from: 0 then u64 offset; 1 then u64 steps, text8 user`
  case top(board: BoardName, limit: Int, from: TopStart)
  /// `board, text8 user`
  case rank(board: BoardName, user: UnsafeRawBufferPointer)
  /// `board, text8 user, u32 k`
  case around(board: BoardName, user: UnsafeRawBufferPointer, k: Int)
  /// `board, u16 n, n × text8 user`; a user named twice is answered once.
  case compare(board: BoardName, users: UserList)
  /// `board, u8 n, n × u8 quantile 1...100`
  case summary(board: BoardName, quantiles: UnsafeRawBufferPointer)
  /// Nothing.
  case boards
  /// Nothing.
  case status
  /// `u64 position, u32 limit, u32 skip`
  case deadLetters(position: UInt64, limit: Int, skip: Int)
  /// `u8 verb, i32 partition, -1 for all`
  case admin(AdminVerb, partition: UInt32?)

  /// The request's kind.
  public var kind: Kind {
    switch self {
    case .hello: .hello
    case .ping: .ping
    case .top: .top
    case .rank: .rank
    case .around: .around
    case .compare: .compare
    case .summary: .summary
    case .boards: .boards
    case .status: .status
    case .deadLetters: .deadLetters
    case .admin: .admin
    }
  }

  /// The role that a client needs for it.
  public var role: Roles {
    switch self {
    case .hello, .ping: []
    case .top, .rank, .around, .compare, .summary, .boards, .status, .deadLetters: .query
    case .admin: .admin
    }
  }
}

/// What an administrator can order. A node answers at once; what becomes of it shows in STATUS.
public enum AdminVerb: UInt8, CaseIterable, Sendable {
  /// Write a snapshot of the shard's state as it is now.
  case snapshot = 1
  /// Close the segment that is being written, and compress it.
  case seal = 2
  /// Go on after a gap that nothing can fill: what it held is not counted, for ever.
  case acceptGap = 3
  /// Take the topic as it is now: set aside what belongs to an earlier topic of this name and read from the beginning.
  case adopt = 4

  /// The word in texts and vectors.
  public var name: String {
    switch self {
    case .snapshot: "snapshot"
    case .seal: "seal"
    case .acceptGap: "accept-gap"
    case .adopt: "adopt"
    }
  }
}

/// Where a page of TOP begins.
@frozen public enum TopStart {
  /// At this position.
  case offset(UInt64)
  /// At the first row strictly after this one, in the board's order; the row itself need not exist any more.
  case after(steps: UInt64, user: UnsafeRawBufferPointer)
}

/// A request with what surrounds it.
public struct Incoming {
  /// Chosen by the client; not 0.
  public var id: UInt32
  /// Milliseconds the client will still wait; nil for no bound, 0 means that it is too late already.
  public var deadlineMillis: UInt32?
  /// What must be visible first; empty for most requests.
  public var atLeast: AtLeastList
  public var request: Request
}

/// Offsets that a request waits for: each shard's watermark must exceed its offset. Borrowed bytes, `n × (u32, u64)`.
@frozen public struct AtLeastList: RandomAccessCollection, BitwiseCopyable {
  @usableFromInline let bytes: UnsafeRawBufferPointer

  @usableFromInline static let entryBytes = 12

  @inlinable init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  @inlinable public var startIndex: Int { 0 }
  @inlinable public var endIndex: Int { bytes.count / AtLeastList.entryBytes }

  /// The record that must be visible.
  @inlinable public subscript(index: Int) -> AtLeast {
    precondition(index >= 0 && index < endIndex, "index outside the list")
    let place = index &* AtLeastList.entryBytes
    return AtLeast(
      partition: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self)),
      offset: UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: place &+ 4, as: UInt64.self)))
  }
}

/// A record that an answer must reflect.
@frozen public struct AtLeast: Hashable, Sendable, BitwiseCopyable {
  public var partition: UInt32
  /// The record's Kafka offset; the shard's watermark must be greater.
  public var offset: UInt64

  @inlinable public init(partition: UInt32, offset: UInt64) {
    self.partition = partition
    self.offset = offset
  }
}

/// Valid user ids in a row, borrowed: `n × text8`.
@frozen public struct UserList: Sequence, BitwiseCopyable {
  @usableFromInline let bytes: UnsafeRawBufferPointer
  /// How many ids.
  public let count: Int

  @inlinable init(_ bytes: UnsafeRawBufferPointer, count: Int) {
    self.bytes = bytes
    self.count = count
  }

  @inlinable public func makeIterator() -> Iterator { Iterator(bytes) }

  /// Walks the ids in the order they were sent.
  @frozen public struct Iterator: IteratorProtocol, BitwiseCopyable {
    @usableFromInline let bytes: UnsafeRawBufferPointer
    @usableFromInline var place = 0

    @inlinable init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    @inlinable public mutating func next() -> UnsafeRawBufferPointer? {
      guard place < bytes.count else { return nil }
      let start = place &+ 1
      place = start &+ Int(bytes[place])
      return UnsafeRawBufferPointer(rebasing: bytes[start..<place])
    }
  }
}

/// The first message of a client, borrowed.
public struct HelloRequest {
  /// "RMS1" as a little-endian integer.
  public static let magic: UInt32 = 0x3153_4D52
  static let magicBytes = 4

  public var versionMin: UInt8
  public var versionMax: UInt8
  /// What the client calls itself, its language and its own version; UTF-8.
  public var name: UnsafeRawBufferPointer
  public var language: UnsafeRawBufferPointer
  public var version: UnsafeRawBufferPointer
  /// How many options follow; each is a key and a value.
  public var optionCount: Int
  var options: UnsafeRawBufferPointer

  /// Walks the options.
  ///
  /// - Parameter body: called with key and value, UTF-8, in the order they were sent.
  public func forEachOption(_ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void) {
    var pieces = UserList(options, count: optionCount * 2).makeIterator()
    while let key = pieces.next(), let value = pieces.next() { body(key, value) }
  }

  /// The version to speak with this client; nil if the ranges do not meet.
  public var versionChosen: UInt8? {
    let newest = min(versionMax, Limits.version)
    return newest >= max(versionMin, Limits.versionMin) ? newest : nil
  }
}
