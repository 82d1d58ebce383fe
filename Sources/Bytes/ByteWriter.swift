// An owned buffer that grows up to a named limit, keeps its memory between uses, and patches lengths afterwards.
//
// An append that would pass the limit is dropped and marks the writer as overflowed; so is every later one, until
// `truncate(to:)` or `removeAll()`. Callers look once, at the end of a message, instead of at each append.

/// Appends bytes; integers are little-endian.
@frozen public struct ByteWriter: ~Copyable {
  @usableFromInline var base: UnsafeMutableRawPointer
  @usableFromInline var filled: Int
  @usableFromInline var room: Int

  /// The most bytes it will ever hold.
  public let limit: Int
  @usableFromInline var full: Bool

  /// An empty writer.
  ///
  /// - Parameters:
  ///   - limit: the most bytes it will hold, 1 or more.
  ///   - reserved: bytes to allocate at once; the buffer doubles from there.
  public init(limit: Int, reserved: Int = 256) {
    precondition(limit > 0, "a writer needs a limit above 0, got \(limit)")
    room = min(limit, max(16, reserved))
    base = .allocate(byteCount: room, alignment: 16)
    filled = 0
    self.limit = limit
    full = false
  }

  deinit { base.deallocate() }

  /// Bytes written.
  @inlinable public var count: Int { filled }

  /// Whether nothing is written.
  @inlinable public var isEmpty: Bool { filled == 0 }

  /// Whether an append was dropped because of the limit.
  @inlinable public var overflowed: Bool { full }

  /// Bytes allocated.
  public var capacity: Int { room }

  /// Appends an integer, little-endian.
  @inlinable public mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
    guard let place = extend(by: MemoryLayout<T>.size) else { return }
    place.storeBytes(of: value.littleEndian, as: T.self)
  }

  /// Appends bytes.
  @inlinable public mutating func bytes(_ bytes: UnsafeRawBufferPointer) {
    guard let from = bytes.baseAddress, let place = extend(by: bytes.count) else { return }
    place.copyMemory(from: from, byteCount: bytes.count)
  }

  /// Appends bytes.
  public mutating func bytes(_ array: [UInt8]) {
    array.withUnsafeBytes { bytes($0) }
  }

  /// Appends bytes after their length in one byte; what is longer than 255 bytes is cut there.
  @inlinable public mutating func bytes8(_ all: UnsafeRawBufferPointer) {
    let kept = min(all.count, 255)
    integer(UInt8(truncatingIfNeeded: kept))
    bytes(UnsafeRawBufferPointer(rebasing: all[..<kept]))
  }

  /// Appends text after its length in one byte; what is longer than 255 bytes is cut at a character.
  public mutating func text8(_ text: String) {
    var kept = ByteWriter.cut(text, at: 255)
    kept.withUTF8 { bytes8(UnsafeRawBufferPointer($0)) }
  }

  /// Appends text after its length in two bytes; what is longer than 65,535 bytes is cut at a character.
  public mutating func text16(_ text: String) {
    var kept = ByteWriter.cut(text, at: 65_535)
    kept.withUTF8 {
      integer(UInt16(truncatingIfNeeded: $0.count))
      bytes(UnsafeRawBufferPointer($0))
    }
  }

  /// Overwrites an integer written earlier; nothing if those bytes were never written (overflow).
  ///
  /// - Parameters:
  ///   - value: what to put there, little-endian.
  ///   - offset: index of its first byte.
  @inlinable public mutating func patch<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) {
    guard offset >= 0, offset &+ MemoryLayout<T>.size <= filled else { return }
    base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
  }

  /// Makes room for `more` bytes, counts them as written, and lends the place to fill.
  ///
  /// - Parameter more: 0 or more.
  /// - Returns: the first of the new bytes, which the caller must fill before anything else is asked of the writer;
  ///   nil if the limit forbids it (the writer is overflowed then).
  @inlinable public mutating func extend(by more: Int) -> UnsafeMutableRawPointer? {
    if more > room &- filled && !grow(by: more) { return nil }
    if full { return nil }
    let place = base + filled
    filled &+= more
    return place
  }

  /// Forgets all bytes, keeps the memory.
  @inlinable public mutating func removeAll() { truncate(to: 0) }

  /// Forgets what was written from `count` on, overflow included; keeps the memory.
  ///
  /// - Parameter count: 0...count.
  @inlinable public mutating func truncate(to count: Int) {
    precondition(count >= 0 && count <= filled, "truncate beyond what was written")
    filled = count
    full = false
  }

  /// Forgets the first bytes and moves the others to the front: O(bytes that stay).
  ///
  /// - Parameter dropped: 0...count.
  public mutating func removeFirst(_ dropped: Int) {
    precondition(dropped >= 0 && dropped <= filled, "remove more than was written")
    if dropped == 0 { return }
    base.copyMemory(from: base + dropped, byteCount: filled - dropped)
    filled -= dropped
  }

  /// Gives memory beyond `bytes` back, for idle owners; what is written stays.
  ///
  /// - Parameter bytes: how much to keep at most, if the content allows.
  public mutating func shrink(to bytes: Int) {
    let target = min(limit, max(16, filled, bytes))
    if target < room { reallocate(target) }
  }

  /// Lends the written bytes; valid until the writer is changed or gone.
  @inlinable public var unsafeBytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: base, count: filled)
  }

  /// A copy of the written bytes.
  public var array: [UInt8] { Array(unsafeBytes) }

  @usableFromInline mutating func grow(by more: Int) -> Bool {
    if full || more < 0 || more > limit - filled {
      full = true
      return false
    }
    reallocate(min(limit, max(filled + more, room * 2)))
    return true
  }

  private mutating func reallocate(_ bytes: Int) {
    let larger = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 16)
    larger.copyMemory(from: base, byteCount: filled)
    base.deallocate()
    base = larger
    room = bytes
  }

  /// The longest prefix of whole scalars within `bytesMax` bytes.
  static func cut(_ text: String, at bytesMax: Int) -> String {
    if text.utf8.count <= bytesMax { return text }
    var kept = String.UnicodeScalarView()
    var length = 0
    for scalar in text.unicodeScalars {
      length += UTF8.width(scalar)
      if length > bytesMax { break }
      kept.append(scalar)
    }
    return String(kept)
  }
}
