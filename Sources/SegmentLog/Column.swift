// A column: numbers as the least of them and, in equal widths, what each is above it.
//
//   offset  bytes
//        0      1  width w, 0 to 64 bits
//        1      8  base, i64: the least value
//        9      …  value i - base in bits i·w to i·w + w - 1, the lowest bit of the first byte first;
//                  ⌈count · w / 8⌉ bytes, the bits behind the last value 0

internal import Bytes

/// Writes columns.
enum Column {
  static let headBytes = 9

  /// Appends values as a column.
  ///
  /// - Complexity: O(count), about 1.5 ns a value.
  @inline(__always)
  static func write<T: FixedWidthInteger>(
    _ values: UnsafePointer<T>, count: Int, into out: inout ByteWriter
  ) {
    precondition(count > 0, "a column without values")
    var least = values[0]
    var most = values[0]
    for i in 1..<max(1, count) {
      least = min(least, values[i])
      most = max(most, values[i])
    }
    let base = Int64(truncatingIfNeeded: least)
    let width = 64 - (Int64(truncatingIfNeeded: most) &- base).leadingZeroBitCount
    out.integer(UInt8(truncatingIfNeeded: width))
    out.integer(base)
    if width == 0 { return }
    guard let place = out.extend(by: (count * width + 7) / 8) else { return }
    pack(values, count: count, base: base, width: width, into: place)
  }

  @inline(__always)
  private static func pack<T: FixedWidthInteger>(
    _ values: UnsafePointer<T>, count: Int, base: Int64, width: Int, into out: UnsafeMutableRawPointer
  ) {
    var place = out
    var word: UInt64 = 0
    var filled = 0
    for i in 0..<count {
      let value = UInt64(bitPattern: Int64(truncatingIfNeeded: values[i]) &- base)
      word |= value &<< UInt64(truncatingIfNeeded: filled)
      filled &+= width
      if filled >= 64 {
        place.storeBytes(of: word.littleEndian, as: UInt64.self)
        place += 8
        filled &-= 64
        // Bits of this value that did not fit; a shift by 64 would be one by 0.
        word = filled == 0 ? 0 : value &>> UInt64(truncatingIfNeeded: width &- filled)
      }
    }
    while filled > 0 {
      place.storeBytes(of: UInt8(truncatingIfNeeded: word), as: UInt8.self)
      place += 1
      word &>>= 8
      filled &-= 8
    }
  }
}

/// A column that is read where it lies.
struct ColumnView {
  let base: Int64
  let width: Int
  let bits: UnsafeRawBufferPointer
  private let mask: UInt64

  /// Reads a column's head and takes its bytes.
  ///
  /// - Returns: nil if its width is none, or its bytes reach beyond the reader's.
  init?(_ reader: inout ByteReader, count: Int) {
    guard let width = try? reader.integer(UInt8.self), width <= 64,
      let base = try? reader.integer(Int64.self),
      let bits = try? reader.bytes((count * Int(width) + 7) / 8)
    else { return nil }
    self.base = base
    self.width = Int(width)
    self.bits = bits
    mask = width == 64 ? .max : (1 << UInt64(width)) - 1
  }

  /// The value at a place below the column's count.
  @inline(__always)
  subscript(_ index: Int) -> Int64 {
    if width == 0 { return base }
    let bit = index &* width
    let byte = bit &>> 3
    let shift = UInt64(truncatingIfNeeded: bit & 7)
    guard byte &+ 9 <= bits.count, let start = bits.baseAddress else { return slow(byte, shift) }
    var value = UInt64(littleEndian: start.loadUnaligned(fromByteOffset: byte, as: UInt64.self)) &>> shift
    if Int(shift) &+ width > 64 {
      value |= UInt64(start.load(fromByteOffset: byte &+ 8, as: UInt8.self)) &<< (64 &- shift)
    }
    return base &+ Int64(bitPattern: value & mask)
  }

  /// The last values, behind which no whole word can be read.
  @inline(never)
  private func slow(_ byte: Int, _ shift: UInt64) -> Int64 {
    var value: UInt64 = 0
    for i in 0..<9 where byte + i < bits.count {
      let next = UInt64(bits[byte + i])
      let place = 8 * i - Int(shift)
      value |= place >= 0 ? next << UInt64(place) : next >> UInt64(-place)
    }
    return base &+ Int64(bitPattern: value & mask)
  }
}
