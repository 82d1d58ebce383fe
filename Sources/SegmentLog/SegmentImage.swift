// A segment in memory, whichever form it has on the disk, and the walk over its batches.

internal import Bytes
public import Posix

/// The content of one segment, read whole; freed when it goes.
public final class SegmentImage: @unchecked Sendable {
  // Unchecked: the memory is written in `init` alone.
  public let path: String
  public let name: SegmentName
  /// False if a sealed segment's frame does not open to its end; `bytes` is what opened.
  public let isFrameWhole: Bool
  private let memory: UnsafeMutableRawBufferPointer
  /// The segment's bytes.
  public let bytes: UnsafeRawBufferPointer
  /// Bytes of the file.
  public let fileBytes: Int

  deinit { memory.deallocate() }

  /// Reads a segment.
  ///
  /// - Parameters:
  ///   - name: the file.
  ///   - folder: where it is.
  ///   - files: the file system.
  /// - Throws: `system` if it cannot be read; `tooLarge`.
  public init(_ name: SegmentName, in folder: String, files: Files) throws(LogError) {
    self.name = name
    path = folder + "/" + name.text
    let file = try SegmentImage.read(path, files)
    fileBytes = file.count
    switch name.form {
    case .plain:
      memory = file
      bytes = UnsafeRawBufferPointer(file)
      isFrameWhole = true
    case .sealed:
      let opened = LZ4Frame.decompress(
        UnsafeRawBufferPointer(file), bytesMax: SegmentFormat.segmentBytesMax)
      file.deallocate()
      guard let opened else {
        throw .tooLarge(path: path, bytes: .max, bytesMax: SegmentFormat.segmentBytesMax)
      }
      memory = opened.memory
      bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<opened.bytesCount])
      isFrameWhole = opened.isWhole
    }
  }

  /// Reads the first bytes of a segment's content.
  ///
  /// - Returns: how many there are, at most as many as `memory` has, and the bytes of the file.
  static func head(
    _ name: SegmentName, in folder: String, files: Files, into memory: UnsafeMutableRawBufferPointer
  ) throws(LogError) -> (count: Int, fileBytes: Int) {
    do throws(SystemError) {
      let file = try files.open(folder + "/" + name.text, .read)
      let fileBytes = try file.bytesCount()
      if name.form == .plain { return (try file.read(at: 0, into: memory), fileBytes) }
      let frame = UnsafeMutableRawBufferPointer.allocate(
        byteCount: max(1, min(fileBytes, LZ4Frame.headBytes)), alignment: 16)
      defer { frame.deallocate() }
      let count = try file.read(at: 0, into: frame)
      return (
        LZ4Frame.head(
          UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(frame)[..<count]), into: memory),
        fileBytes
      )
    } catch { throw .system(error) }
  }

  /// A file's bytes, owned by the caller.
  static func read(_ path: String, _ files: Files) throws(LogError) -> UnsafeMutableRawBufferPointer {
    do throws(SystemError) {
      let file = try files.open(path, .read)
      let count = try file.bytesCount()
      if count > SegmentFormat.segmentBytesMax {
        throw SystemError(call: "read", errno: .fileTooLarge, subject: path)
      }
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, count), alignment: 16)
      var done = 0
      do throws(SystemError) {
        while done < count {
          let got = try file.read(
            at: done,
            into: UnsafeMutableRawBufferPointer(rebasing: memory[done..<min(count, done + (16 << 20))]))
          if got == 0 { break }
          done += got
        }
      } catch {
        memory.deallocate()
        throw error
      }
      return UnsafeMutableRawBufferPointer(start: memory.baseAddress, count: done)
    } catch {
      if error.errno == .fileTooLarge {
        throw .tooLarge(path: path, bytes: .max, bytesMax: SegmentFormat.segmentBytesMax)
      }
      throw .system(error)
    }
  }

  /// The segment's header.
  ///
  /// - Parameter identity: whose log this is; nil takes any.
  /// - Returns: the header and its checksum.
  /// - Throws: `damaged`, `newer`, `foreign`.
  public func header(of identity: LogIdentity?) throws(LogError) -> (header: SegmentHeader, check: UInt32) {
    let (header, check) = try SegmentHeader.decode(bytes, path: path)
    if let difference = identity?.difference(header.identity) {
      throw .foreign(path: path, atByte: 12, difference)
    }
    if header.base != name.base { throw .damaged(path: path, atByte: 40, .content(.value)) }
    return (header, check)
  }
}

/// One batch where it lies in a segment.
public struct PlacedBatch {
  public let header: BatchHeader
  public let check: UInt32
  /// Byte of its header in the segment.
  public let place: Int
  public let body: UnsafeRawBufferPointer
}

/// Walks over the batches of a segment, each judged: checksums, and that it follows the one before.
public struct SegmentWalk {
  private let image: SegmentImage
  private let identity: LogIdentity
  /// Byte behind the last batch.
  public private(set) var place = SegmentFormat.segmentHeaderBytes
  /// Watermark after the last batch.
  public private(set) var watermark: Int64
  /// `check` of the last batch, or of the header.
  public private(set) var check: UInt32

  /// - Parameters:
  ///   - image: lends the batches; must outlive what is read.
  ///   - header: its header.
  ///   - check: the header's checksum.
  public init(_ image: SegmentImage, header: SegmentHeader, check: UInt32) {
    self.image = image
    identity = header.identity
    watermark = header.base
    self.check = check
  }

  /// The next batch.
  ///
  /// - Returns: nil at the end: nothing but zeros follows.
  /// - Throws: `damaged`, `newer` or `foreign` with the byte of the batch; the walk ends there.
  public mutating func next() throws(LogError) -> PlacedBatch? {
    let rest = UnsafeRawBufferPointer(rebasing: image.bytes[place...])
    if SegmentWalk.isZero(rest) {
      if image.isFrameWhole { return nil }
      throw .damaged(path: image.path, atByte: place, .frame)
    }
    let (header, check) = try BatchHeader.decode(rest, identity: identity, path: image.path, atByte: place)
    guard header.first == watermark, header.checkBefore == self.check else {
      throw .damaged(path: image.path, atByte: place, .chain)
    }
    guard let body = SegmentWalk.body(header, rest) else {
      let isShort = header.bodyBytes > rest.count - SegmentFormat.batchHeaderBytes
      throw .damaged(path: image.path, atByte: place, isShort ? .short : .bodyChecksum)
    }
    defer {
      place += SegmentFormat.batchHeaderBytes + header.bodyBytes
      watermark = header.next
      self.check = check
    }
    return PlacedBatch(header: header, check: check, place: place, body: body)
  }

  /// The body behind a header, if it is there and checks.
  static func body(_ header: BatchHeader, _ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    let end = SegmentFormat.batchHeaderBytes + header.bodyBytes
    guard end <= bytes.count else { return nil }
    let body = UnsafeRawBufferPointer(rebasing: bytes[SegmentFormat.batchHeaderBytes..<end])
    return Checksum.crc32c(body) == header.bodyCheck ? body : nil
  }

  static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var place = 0
    while place + 8 <= bytes.count {
      if bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self) != 0 { return false }
      place += 8
    }
    while place < bytes.count {
      if bytes[place] != 0 { return false }
      place += 1
    }
    return true
  }
}
