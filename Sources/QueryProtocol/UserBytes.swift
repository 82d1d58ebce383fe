// User ids as bytes: the rule for them, and canonical UUIDs as text, both eight bytes a step.

internal import Bytes
internal import StepModel

/// The rule for user ids, on raw bytes.
public enum UserCheck {
  /// Whether bytes make a user id: 1 to 64 bytes of UTF-8 without control characters.
  ///
  /// - Parameter bytes: what to check.
  /// - Returns: true if they do.
  /// - Complexity: O(bytes), a quick pass for plain ASCII.
  public static func isValid(_ bytes: UnsafeRawBufferPointer) -> Bool {
    let count = bytes.count
    guard count >= 1, count <= UserID.bytesMax else { return false }
    var odd: UInt64 = 0
    if count >= 8 {
      var place = 0
      while place &+ 8 < count {
        odd |= oddBytes(bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self))
        place &+= 8
      }
      // The last eight bytes, some of them a second time.
      odd |= oddBytes(bytes.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self))
    } else {
      for byte in bytes { odd |= oddBytes(0x6161_6161_6161_6100 | UInt64(byte)) }
    }
    if odd == 0 { return true }
    return UTF8Check.isValid(bytes) && UserID.isValid(bytes)
  }

  /// Not 0 if some byte of eight is a control character or not ASCII; 0 only if none is.
  @inline(__always) private static func oddBytes(_ word: UInt64) -> UInt64 {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let delete = word ^ (0x7F &* ones)
    // A byte below 0x20, and a byte 0 of `delete`, borrow into their top bits; a byte with a top bit of its own is odd
    // anyway. A borrow may pass on to the next byte: a second look is all that costs.
    return (word | (word &- 0x20 &* ones) | (delete &- ones)) & (0x80 &* ones)
  }
}

extension UserKey {
  /// Writes the id as text, like `write(to:)`, eight digits of a UUID at a time.
  ///
  /// - Parameter out: room for at least `length` bytes.
  @inline(__always) func writeText(to out: UnsafeMutableRawPointer) {
    if let text {
      out.copyMemory(from: text, byteCount: length)
      return
    }
    //  0        9    14   19   24
    //  aaaaaaaa-bbbb-bbbb-cccc-ccccdddddddd
    let a = UserKey.digits(high >> 32)
    let b = UserKey.digits(high & 0xFFFF_FFFF)
    let c = UserKey.digits(low >> 32)
    let d = UserKey.digits(low & 0xFFFF_FFFF)
    out.storeBytes(of: a.littleEndian, as: UInt64.self)
    out.storeBytes(of: UInt64(0x2D) | b << 8, toByteOffset: 8, as: UInt64.self)
    out.storeBytes(of: UInt64(0x2D) | (b >> 32) << 8, toByteOffset: 13, as: UInt64.self)
    out.storeBytes(of: UInt64(0x2D) | c << 8, toByteOffset: 18, as: UInt64.self)
    out.storeBytes(of: UInt64(0x2D) | (c >> 32) << 8, toByteOffset: 23, as: UInt64.self)
    out.storeBytes(of: d.littleEndian, toByteOffset: 28, as: UInt64.self)
  }

  /// Eight hexadecimal digits of a 32-bit number, the first one in the lowest byte.
  @inline(__always) private static func digits(_ number: UInt64) -> UInt64 {
    // One nibble a byte, the highest in the highest byte.
    var spread = (number | number << 16) & 0x0000_FFFF_0000_FFFF
    spread = (spread | spread << 8) & 0x00FF_00FF_00FF_00FF
    spread = (spread | spread << 4) & 0x0F0F_0F0F_0F0F_0F0F
    let letters = (spread &+ 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101
    return (spread &+ 0x3030_3030_3030_3030 &+ letters &* 0x27).byteSwapped
  }
}
