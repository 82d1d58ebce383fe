// LZ4 frames, as the program `lz4` reads and writes them: independent blocks of up to 4 MiB, content size and content
// checksum. Made and opened piece by piece, in memory for a few blocks.

internal import CLZ4

/// Makes a frame of a content that comes in pieces. What a function lends is valid until the next is called.
struct LZ4FrameWriter: ~Copyable {
  /// Longest piece, and the content of a block.
  static let pieceBytes = 4 << 20

  private var context: OpaquePointer?
  private let room: UnsafeMutableRawBufferPointer
  /// The frame's head, until it goes out with the first piece.
  private var filled: Int

  /// - Parameter contentBytes: of all pieces together.
  init(contentBytes: Int) {
    guard LZ4F_isError(LZ4F_createCompressionContext(&context, rms_lz4_version)) == 0 else {
      fatalError("no memory for LZ4")
    }
    var preferences = LZ4F_preferences_t()
    preferences.frameInfo.blockSizeID = LZ4FrameWriter.blockSize(contentBytes)
    preferences.frameInfo.blockMode = rms_lz4_independent
    preferences.frameInfo.contentChecksumFlag = rms_lz4_content_checksum
    preferences.frameInfo.contentSize = UInt64(contentBytes)
    preferences.compressionLevel = 1
    preferences.autoFlush = 1
    room = .allocate(
      byteCount: LZ4F_compressBound(LZ4FrameWriter.pieceBytes, &preferences) + 64, alignment: 16)
    filled = LZ4F_compressBegin(context, room.baseAddress, room.count, &preferences)
    precondition(LZ4F_isError(filled) == 0, "LZ4 has room and fails all the same")
  }

  deinit {
    LZ4F_freeCompressionContext(context)
    room.deallocate()
  }

  /// The least block that takes a small content whole, so that opening it takes no more memory than that.
  private static func blockSize(_ contentBytes: Int) -> LZ4F_blockSizeID_t {
    switch contentBytes {
    case ...(64 << 10): rms_lz4_block_64kb
    case ...(256 << 10): rms_lz4_block_256kb
    case ...(1 << 20): rms_lz4_block_1mb
    default: rms_lz4_block_4mb
    }
  }

  /// Compresses the next piece: `pieceBytes`, fewer at the content's end.
  mutating func piece(_ content: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    precondition(content.count <= LZ4FrameWriter.pieceBytes, "a piece of \(content.count) bytes")
    var options = LZ4F_compressOptions_t()
    options.stableSrc = 1
    return lend(
      LZ4F_compressUpdate(
        context, room.baseAddress.map { $0 + filled }, room.count - filled, content.baseAddress,
        content.count,
        &options))
  }

  /// The frame's end, once all pieces were given.
  mutating func end() -> UnsafeRawBufferPointer {
    lend(LZ4F_compressEnd(context, room.baseAddress.map { $0 + filled }, room.count - filled, nil))
  }

  private mutating func lend(_ made: Int) -> UnsafeRawBufferPointer {
    precondition(LZ4F_isError(made) == 0, "LZ4 was given other bytes than it was told of")
    defer { filled = 0 }
    return UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(room)[..<(filled + made)])
  }
}

/// Opens a frame that comes in pieces.
struct LZ4FrameReader: ~Copyable {
  private var context: OpaquePointer?
  private let room: UnsafeMutableRawBufferPointer
  /// Whether the frame's end was seen, and its checksum fits.
  private(set) var isWhole = false

  init() {
    guard LZ4F_isError(LZ4F_createDecompressionContext(&context, rms_lz4_version)) == 0 else {
      fatalError("no memory for LZ4")
    }
    room = .allocate(byteCount: LZ4FrameWriter.pieceBytes, alignment: 16)
  }

  deinit {
    LZ4F_freeDecompressionContext(context)
    room.deallocate()
  }

  /// Opens the next bytes of the frame.
  ///
  /// - Parameters:
  ///   - frame: the bytes.
  ///   - body: is lent the content, piece by piece.
  /// - Returns: false if this is no frame, or something follows its end.
  /// - Throws: what `body` throws.
  mutating func take<E>(
    _ frame: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws(E) -> Void
  ) throws(E) -> Bool {
    var read = 0
    while read < frame.count {
      if isWhole { return false }
      var given = frame.count - read
      var filled = room.count
      let left = LZ4F_decompress(
        context, room.baseAddress, &filled, frame.baseAddress.map { $0 + read }, &given, nil)
      if LZ4F_isError(left) != 0 || given + filled == 0 { return false }
      read += given
      if filled > 0 { try body(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(room)[..<filled])) }
      isWhole = left == 0
    }
    return true
  }
}

/// Frames in memory.
enum LZ4Frame {
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
