// LZ4's block format, which both versions use; its frames are for files.

internal import CLZ4

enum LZ4Block {
  /// Makes a block; nil where it would not be smaller than the bytes.
  static func compress(_ bytes: UnsafeRawBufferPointer) -> [UInt8]? {
    guard bytes.count > 1, let source = bytes.baseAddress else { return nil }
    let room = bytes.count - 1
    let block = [UInt8](unsafeUninitializedCapacity: room) { buffer, count in
      let written = LZ4_compress_default(
        source.assumingMemoryBound(to: CChar.self),
        UnsafeMutableRawPointer(buffer.baseAddress!)
          .assumingMemoryBound(to: CChar.self), Int32(bytes.count), Int32(room))
      count = max(0, Int(written))
    }
    return block.isEmpty ? nil : block
  }

  /// Opens a block that must give exactly `byteCount` bytes, whose limit is the caller's to check.
  static func decompress(_ block: UnsafeRawBufferPointer, to byteCount: Int) throws(CodecError) -> [UInt8] {
    if byteCount == 0 { return [] }
    // A block of n bytes cannot hold more than about 255 n: a longer claim is a lie, and reserves nothing.
    guard byteCount / 256 <= block.count, let source = block.baseAddress else {
      throw .tooLong(
        "decompressed bytes of a block of \(block.count)", count: byteCount, max: 256 * block.count)
    }
    var got = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
      got = Int(
        LZ4_decompress_safe(
          source.assumingMemoryBound(to: CChar.self),
          UnsafeMutableRawPointer(buffer.baseAddress!)
            .assumingMemoryBound(to: CChar.self), Int32(block.count), Int32(byteCount)))
      count = max(0, got)
    }
    guard got == byteCount else { throw .malformed("an LZ4 block gives \(got) bytes, not \(byteCount)") }
    return bytes
  }
}
