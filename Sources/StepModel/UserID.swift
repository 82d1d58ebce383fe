// User ids: 1 to 64 bytes of UTF-8 without control characters, ordered by their bytes.
// `UserID` owns its text (queries, answers); `UserKey` is what travels on the hot path.

/// A user id that owns its text.
public struct UserID: Hashable, Comparable, Sendable {
  /// Longest id, in bytes of UTF-8.
  public static let bytesMax = 64

  /// The id as it is written.
  public let text: String

  /// Takes an id; nil if it is empty, over 64 bytes, or holds a control character (U+0000–001F, U+007F–009F).
  public init?(_ text: String) {
    var text = text
    text.makeContiguousUTF8()
    let valid =
      text.utf8.withContiguousStorageIfAvailable { UserID.isValid(UnsafeRawBufferPointer($0)) } ?? false
    guard valid else { return nil }
    self.text = text
  }

  /// Whether UTF-8 bytes make a user id. The bytes must be valid UTF-8 already.
  ///
  /// - Complexity: O(length).
  public static func isValid(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard (1...bytesMax).contains(bytes.count) else { return false }
    var i = 0
    while i < bytes.count {
      // Eight printable ASCII bytes, none of them a quote or a backslash, are past doubt at once.
      if bytes.count - i >= 8,
        JSON.special(UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: i, as: UInt64.self))) == 0
      {
        i += 8
        continue
      }
      let byte = bytes[i]
      if byte < 0x20 || byte == 0x7F { return false }
      // U+0080–009F is C2 80–9F.
      if byte == 0xC2, i + 1 < bytes.count, bytes[i + 1] < 0xA0 { return false }
      i += 1
    }
    return true
  }

  public static func < (a: UserID, b: UserID) -> Bool { a.text.utf8.lexicographicallyPrecedes(b.text.utf8) }

  public static func == (a: UserID, b: UserID) -> Bool { a.text.utf8.elementsEqual(b.text.utf8) }

  public func hash(into hasher: inout Hasher) {
    for byte in text.utf8 { hasher.combine(byte) }
  }

  /// Lends the id as a key; the key is valid inside `body` only.
  public func withKey<R>(_ body: (UserKey) -> R) -> R {
    var text = text
    return text.withUTF8 { body(UserKey(UnsafeRawBufferPointer($0))) }
  }
}

/// A user id on the hot path: a canonical UUID as 16 bytes, any other id as borrowed bytes.
///
/// Canonical means 36 characters, lower case, dashes at 8, 13, 18 and 23. Any other spelling is another user.
/// For two canonical UUIDs the order of (high, low) is the order of their texts.
@frozen public struct UserKey: BitwiseCopyable {
  /// Bytes 0 to 7 of a UUID, big-endian; 0 otherwise.
  public var high: UInt64
  /// Bytes 8 to 15 of a UUID, big-endian; 0 otherwise.
  public var low: UInt64
  /// The id's bytes if it is not a canonical UUID; nil if it is. Borrowed: whoever made the key owns them.
  public var text: UnsafePointer<UInt8>?
  @usableFromInline var lengthByte: UInt8

  /// Bytes of the id as text, 1...64; 36 for a UUID.
  @inlinable public var length: Int { Int(lengthByte) }

  @inlinable public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
    text = nil
    lengthByte = 36
  }

  /// - Parameter bytes: a valid user id (`UserID.isValid`); must outlive the key.
  public init(_ bytes: UnsafeRawBufferPointer) {
    if let uuid = UserKey.canonicalUUID(bytes) {
      self = uuid
    } else {
      high = 0
      low = 0
      text = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
      lengthByte = UInt8(bytes.count)
    }
  }

  /// A key of bytes that are a valid user id and no canonical UUID.
  @inline(__always)
  init(text bytes: UnsafeRawBufferPointer) {
    high = 0
    low = 0
    text = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
    lengthByte = UInt8(truncatingIfNeeded: bytes.count)
  }

  /// The key of a canonical UUID; nil if the bytes are anything else.
  public static func canonicalUUID(_ bytes: UnsafeRawBufferPointer) -> UserKey? {
    guard bytes.count == 36, let base = bytes.baseAddress else { return nil }
    var key = UserKey(high: 0, low: 0)
    return readCanonicalUUID(base, into: &key) ? key : nil
  }

  /// Reads 36 bytes; false, and the key untouched, if they are no canonical UUID.
  @inline(__always)
  static func readCanonicalUUID(_ base: UnsafeRawPointer, into key: inout UserKey) -> Bool {
    func four(_ place: Int) -> UInt64 {
      UInt64(UInt32(littleEndian: base.loadUnaligned(fromByteOffset: place, as: UInt32.self)))
    }
    func eight(_ place: Int) -> UInt64 {
      UInt64(littleEndian: base.loadUnaligned(fromByteOffset: place, as: UInt64.self))
    }
    // 8-4-4-4-12: four words of eight digits each, dashes between them.
    let digits = SIMD4<UInt64>(
      eight(0), four(9) | four(14) << 32, four(19) | four(24) << 32, eight(28))
    let dashes = eight(8) & 0x0000_FF00_0000_00FF ^ 0x0000_2D00_0000_002D
    let moreDashes = eight(16) & 0xFF00_0000_00FF_0000 ^ 0x2D00_0000_002D_0000
    // Bit 7 of each byte: set by a sum if the byte is at or above the bound.
    let isDigit =
      (digits &+ SIMD4(repeating: 0x5050_5050_5050_5050))
      & ~(digits &+ SIMD4(repeating: 0x4646_4646_4646_4646))
    let isLetter =
      (digits &+ SIMD4(repeating: 0x1F1F_1F1F_1F1F_1F1F))
      & ~(digits &+ SIMD4(repeating: 0x1919_1919_1919_1919))
    let valid = (isDigit | isLetter) & ~digits
    let all = valid[0] & valid[1] & valid[2] & valid[3] & 0x8080_8080_8080_8080
    guard all == 0x8080_8080_8080_8080, dashes | moreDashes == 0 else { return false }
    // Letters have bit 6: 0x61 & 15 is 1, and 9 more make it 10.
    let letters = (digits &>> 6) & SIMD4(repeating: 0x0101_0101_0101_0101)
    var values = (digits & SIMD4(repeating: 0x0F0F_0F0F_0F0F_0F0F)) &+ letters &+ (letters &<< 3)
    // Two digits to a byte, the first one high; then the bytes together.
    values = ((values &<< 4) | (values &>> 8)) & SIMD4(repeating: 0x00FF_00FF_00FF_00FF)
    values = (values | (values &>> 8)) & SIMD4(repeating: 0x0000_FFFF_0000_FFFF)
    values = values | (values &>> 16)
    func word(_ index: Int) -> UInt64 { UInt64(UInt32(truncatingIfNeeded: values[index]).byteSwapped) }
    key = UserKey(high: word(0) << 32 | word(1), low: word(2) << 32 | word(3))
    return true
  }

  /// Writes the id as text.
  ///
  /// - Parameter out: room for at least `length` bytes.
  /// - Returns: `length`.
  @inlinable @discardableResult public func write(to out: UnsafeMutableRawPointer) -> Int {
    if let text {
      out.copyMemory(from: text, byteCount: length)
      return length
    }
    var place = 0
    for i in 0..<32 {
      if i == 8 || i == 12 || i == 16 || i == 20 {
        out.storeBytes(of: 0x2D, toByteOffset: place, as: UInt8.self)
        place += 1
      }
      let digit = UInt8(
        truncatingIfNeeded: (i < 16 ? high >> UInt64(60 - 4 * i) : low >> UInt64(124 - 4 * i)) & 15)
      out.storeBytes(of: digit < 10 ? 0x30 + digit : 0x57 + digit, toByteOffset: place, as: UInt8.self)
      place += 1
    }
    return 36
  }
}
