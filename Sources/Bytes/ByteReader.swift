// Bounds-checked reads over borrowed bytes. Integers are little-endian, as on all our wires and disks.
//
// A reader never reads past its bytes: each read asks for its length first and throws where it does not fit.

/// Why bytes could not be read.
@frozen public enum ByteError: Error, Hashable, BitwiseCopyable {
  /// The bytes end too early: a read of `wanted` bytes at `atByte` found only `left`.
  case truncated(atByte: Int, wanted: Int, left: Int)
  /// Bytes are left where there must be none.
  case trailing(atByte: Int, left: Int)
}

/// A cursor over bytes that somebody else owns; valid as long as they are.
@frozen public struct ByteReader: BitwiseCopyable {
  /// All the bytes, read and unread.
  public let bytes: UnsafeRawBufferPointer
  @usableFromInline var place: Int

  /// Index of the next byte to read, 0...bytes.count.
  @inlinable public var position: Int { place }

  /// - Parameter bytes: must outlive the reader and all that it lends.
  @inlinable public init(_ bytes: UnsafeRawBufferPointer) {
    self.bytes = bytes
    place = 0
  }

  /// Bytes not yet read.
  @inlinable public var left: Int { bytes.count &- place }

  /// Reads a little-endian integer.
  ///
  /// - Parameter type: the integer's type.
  /// - Returns: the value.
  /// - Throws: `truncated` if fewer bytes are left than the type has; nothing is consumed then.
  @inlinable public mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type = T.self
  ) throws(ByteError) -> T {
    try need(MemoryLayout<T>.size)
    let value = bytes.loadUnaligned(fromByteOffset: place, as: T.self)
    place &+= MemoryLayout<T>.size
    return T(littleEndian: value)
  }

  /// Lends the next `count` bytes.
  ///
  /// - Parameter count: 0 or more.
  /// - Returns: a view of the reader's own bytes, no copy.
  /// - Throws: `truncated` if fewer are left; nothing is consumed then.
  @inlinable public mutating func bytes(_ count: Int) throws(ByteError) -> UnsafeRawBufferPointer {
    try need(count)
    let lent = UnsafeRawBufferPointer(rebasing: bytes[place..<place &+ count])
    place &+= count
    return lent
  }

  /// Lends bytes that are preceded by their length in one byte.
  ///
  /// - Returns: 0 to 255 bytes.
  /// - Throws: `truncated`.
  @inlinable public mutating func bytes8() throws(ByteError) -> UnsafeRawBufferPointer {
    try bytes(Int(try integer(UInt8.self)))
  }

  /// Lends bytes that are preceded by their length in two bytes.
  ///
  /// - Returns: 0 to 65,535 bytes.
  /// - Throws: `truncated`.
  @inlinable public mutating func bytes16() throws(ByteError) -> UnsafeRawBufferPointer {
    try bytes(Int(try integer(UInt16.self)))
  }

  /// Lends all bytes not yet read.
  @inlinable public mutating func rest() -> UnsafeRawBufferPointer {
    let lent = UnsafeRawBufferPointer(rebasing: bytes[place...])
    place = bytes.count
    return lent
  }

  /// Checks that nothing is left.
  ///
  /// - Throws: `trailing` if something is.
  @inlinable public func end() throws(ByteError) {
    if left != 0 { throw .trailing(atByte: place, left: left) }
  }

  @inlinable func need(_ count: Int) throws(ByteError) {
    if count < 0 || count > left { throw .truncated(atByte: place, wanted: count, left: left) }
  }
}
