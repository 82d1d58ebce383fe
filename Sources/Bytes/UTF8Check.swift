// Well-formed UTF-8 (Unicode table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.

/// Validation of UTF-8 without making a `String`.
public enum UTF8Check {
  /// Whether `bytes` are well-formed UTF-8; no bytes are.
  ///
  /// - Parameter bytes: what to check.
  /// - Returns: true if every byte belongs to a whole, shortest-form character.
  /// - Complexity: O(bytes), eight ASCII bytes a step; no allocation.
  public static func isValid(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var index = 0
    let count = bytes.count
    while index < count {
      if index &+ 8 <= count {
        let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
        if word & 0x8080_8080_8080_8080 == 0 {
          index &+= 8
          continue
        }
      }
      let first = bytes[index]
      if first < 0x80 {
        index &+= 1
        continue
      }
      let length = isWhole(bytes, at: index, first: first)
      if length == 0 { return false }
      index &+= length
    }
    return true
  }

  /// Length of the multi-byte character at `index`; 0 if it is not well formed.
  private static func isWhole(_ bytes: UnsafeRawBufferPointer, at index: Int, first: UInt8) -> Int {
    let length: Int
    // Bounds of the second byte; the others are always 80...BF.
    var low: UInt8 = 0x80
    var high: UInt8 = 0xBF
    switch first {
    case 0xC2...0xDF: length = 2
    case 0xE0:
      length = 3
      low = 0xA0
    case 0xED:
      length = 3
      high = 0x9F
    case 0xE1...0xEF: length = 3
    case 0xF0:
      length = 4
      low = 0x90
    case 0xF4:
      length = 4
      high = 0x8F
    case 0xF1...0xF3: length = 4
    default: return 0
    }
    guard index &+ length <= bytes.count else { return 0 }
    let second = bytes[index &+ 1]
    guard second >= low, second <= high else { return 0 }
    for place in 2..<4 where place < length {
      guard bytes[index &+ place] & 0xC0 == 0x80 else { return 0 }
    }
    return length
  }
}
