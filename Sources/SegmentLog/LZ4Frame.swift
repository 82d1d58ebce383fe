// LZ4 frames, as the program `lz4` reads and writes them: blocks of 4 MiB, content size and content checksum.

internal import CLZ4

/// One frame of a whole content.
enum LZ4Frame {
  private static func preferences(contentBytes: Int) -> LZ4F_preferences_t {
    var preferences = LZ4F_preferences_t()
    preferences.frameInfo.blockSizeID = rms_lz4_block_4mb
    preferences.frameInfo.contentChecksumFlag = rms_lz4_content_checksum
    preferences.frameInfo.contentSize = UInt64(contentBytes)
    preferences.compressionLevel = 1
    return preferences
  }

  /// Compresses.
  ///
  /// - Parameter content: all of it.
  /// - Returns: the frame, owned by the caller, and its bytes.
  static func compress(
    _ content: UnsafeRawBufferPointer
  ) -> (memory: UnsafeMutableRawBufferPointer, bytesCount: Int) {
    var preferences = preferences(contentBytes: content.count)
    let room = LZ4F_compressFrameBound(content.count, &preferences)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: room, alignment: 16)
    let count = LZ4F_compressFrame(
      memory.baseAddress, memory.count, content.baseAddress, content.count, &preferences)
    precondition(LZ4F_isError(count) == 0, "LZ4 has room and fails all the same")
    return (memory, count)
  }

  /// Bytes of a frame within which its content's first bytes lie.
  static let headBytes = (4 << 20) + 64

  /// Decompresses the first bytes of a content.
  ///
  /// - Parameters:
  ///   - frame: the frame's first bytes, `headBytes` of them if it has so many.
  ///   - content: is filled from its start.
  /// - Returns: how many bytes there were, at most as many as `content` has.
  static func head(_ frame: UnsafeRawBufferPointer, into content: UnsafeMutableRawBufferPointer) -> Int {
    var context: OpaquePointer?
    guard LZ4F_isError(LZ4F_createDecompressionContext(&context, rms_lz4_version)) == 0, let context else {
      fatalError("no memory for LZ4")
    }
    defer { LZ4F_freeDecompressionContext(context) }
    var filled = 0
    var read = 0
    while read < frame.count, filled < content.count, let from = frame.baseAddress,
      let into = content.baseAddress
    {
      var given = frame.count - read
      var room = content.count - filled
      let left = LZ4F_decompress(context, into + filled, &room, from + read, &given, nil)
      if LZ4F_isError(left) != 0 || left == 0 || given + room == 0 { return filled + (left == 0 ? room : 0) }
      read += given
      filled += room
    }
    return filled
  }

  /// Decompresses as much as opens.
  ///
  /// - Parameters:
  ///   - frame: the frame's bytes; anything behind it makes it not whole.
  ///   - bytesMax: most bytes of content.
  /// - Returns: the content, owned by the caller, how many bytes of it are there, and whether that is all and its
  ///   checksum fits; nil if the frame says it holds more than `bytesMax`.
  static func decompress(
    _ frame: UnsafeRawBufferPointer, bytesMax: Int
  ) -> (memory: UnsafeMutableRawBufferPointer, bytesCount: Int, isWhole: Bool)? {
    var context: OpaquePointer?
    guard LZ4F_isError(LZ4F_createDecompressionContext(&context, rms_lz4_version)) == 0, let context else {
      fatalError("no memory for LZ4")
    }
    defer { LZ4F_freeDecompressionContext(context) }
    var memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: max(64 << 10, min(bytesMax, frame.count * 2)), alignment: 16)
    var filled = 0
    var read = 0
    while read < frame.count {
      if filled == memory.count {
        // A frame cannot be made to take more memory than its blocks really hold.
        if memory.count >= bytesMax {
          memory.deallocate()
          return nil
        }
        let larger = UnsafeMutableRawBufferPointer.allocate(
          byteCount: min(bytesMax, memory.count * 2), alignment: 16)
        larger.copyMemory(from: UnsafeRawBufferPointer(memory))
        memory.deallocate()
        memory = larger
      }
      var given = frame.count - read
      var room = memory.count - filled
      guard let into = memory.baseAddress, let from = frame.baseAddress else { break }
      let left = LZ4F_decompress(context, into + filled, &room, from + read, &given, nil)
      if LZ4F_isError(left) != 0 { return (memory, filled, false) }
      read += given
      filled += room
      if left == 0 { return (memory, filled, read == frame.count) }
      if given == 0 && room == 0 && filled < memory.count { break }
    }
    return (memory, filled, false)
  }
}
