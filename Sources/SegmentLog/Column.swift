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
  /// - Complexity: O(count), about 1 ns a value, a tenth of that where all are the same.
  @inline(__always)
  static func write<T: FixedWidthInteger>(
    _ values: UnsafePointer<T>, count: Int, into out: inout ByteWriter
  ) {
    precondition(count > 0, "a column without values")
    let (base, most) = range(values, count: count)
    let width = 64 - (most &- base).leadingZeroBitCount
    out.integer(UInt8(truncatingIfNeeded: width))
    out.integer(base)
    if width == 0 { return }
    let bytesCount = (count * width + 7) / 8
    guard let place = out.extend(by: bytesCount) else { return }
    pack(values, count: count, base: base, width: width, into: place, bytesCount: bytesCount)
  }

  /// The least and the greatest value.
  @inline(__always)
  private static func range<T: FixedWidthInteger>(
    _ values: UnsafePointer<T>, count: Int
  ) -> (least: Int64, most: Int64) {
    // Most columns hold one value alone, which is told many at a time.
    var different: T = 0
    for i in 0..<count { different |= values[i] ^ values[0] }
    var least = values[0]
    var most = values[0]
    if different != 0 {
      for i in 0..<count {
        least = min(least, values[i])
        most = max(most, values[i])
      }
    }
    return (Int64(truncatingIfNeeded: least), Int64(truncatingIfNeeded: most))
  }

  /// Bits on their way to memory.
  private struct Sink {
    var place: UnsafeMutableRawPointer
    let end: UnsafeMutableRawPointer
    /// Fewer than 8 bits that have no byte of their own yet, lowest first.
    var word: UInt64 = 0
    var filled = 0
  }

  @inline(__always)
  private static func pack<T: FixedWidthInteger>(
    _ values: UnsafePointer<T>, count: Int, base: Int64, width: Int, into out: UnsafeMutableRawPointer,
    bytesCount: Int
  ) {
    var sink = Sink(place: out, end: out + bytesCount)
    // As many values at a time as fit into 56 bits.
    let done =
      switch width {
      case ...7: packGroups(of: 8, values, count, base, width, &sink)
      case ...14: packGroups(of: 4, values, count, base, width, &sink)
      case ...18: packGroups(of: 3, values, count, base, width, &sink)
      case ...28: packGroups(of: 2, values, count, base, width, &sink)
      case ...56: packGroups(of: 1, values, count, base, width, &sink)
      default: 0
      }
    packRest(values + done, count - done, base, width, sink)
  }

  /// Packs whole groups as long as a whole word may be written; what is written beyond them is written again.
  ///
  /// - Returns: how many values are packed.
  @inline(__always)
  private static func packGroups<T: FixedWidthInteger>(
    of group: Int, _ values: UnsafePointer<T>, _ count: Int, _ base: Int64, _ width: Int,
    _ sink: inout Sink
  ) -> Int {
    var done = 0
    var place = sink.place
    var word: UInt64 = 0
    var filled = 0
    while done &+ group <= count, place + 8 <= sink.end {
      var bits: UInt64 = 0
      for i in 0..<group {
        let value = UInt64(bitPattern: Int64(truncatingIfNeeded: values[done &+ i]) &- base)
        bits |= value &<< UInt64(truncatingIfNeeded: i &* width)
      }
      word |= bits &<< UInt64(truncatingIfNeeded: filled)
      place.storeBytes(of: word.littleEndian, as: UInt64.self)
      filled &+= group &* width
      let whole = filled & ~7
      place += whole &>> 3
      word &>>= UInt64(truncatingIfNeeded: whole)
      filled &-= whole
      done &+= group
    }
    sink.place = place
    sink.word = word
    sink.filled = filled
    return done
  }

  private static func packRest<T: FixedWidthInteger>(
    _ values: UnsafePointer<T>, _ count: Int, _ base: Int64, _ width: Int, _ sink: Sink
  ) {
    var place = sink.place
    var word = sink.word
    var filled = sink.filled
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
