// The dead-letter file of a node: every record that was not counted, byte for byte, with its reason.
//
// `<data.dir>/dead-letters.rms`, records one after the other, little-endian:
//
//   offset  bytes
//        0      4  length of what follows the checksum
//        4      4  CRC32C of what follows
//        8      4  partition
//       12      8  Kafka offset
//       20      8  Kafka timestamp, milliseconds since 1970
//       28      1  reason (the raw value of RejectReason)
//       29      1  length of the topic's name, t
//       30      1  1 if the record had a payload, 0 if it was null
//       31      1  0
//       32     16  topic id
//       48      8  fingerprint of the settings
//       56      8  synced mark: bytes of the file that were known to be on the disk when the record was written
//       64      t  topic
//     64+t         payload
//
// A record is keyed by whose log it belongs to (topic, its id, partition, settings) and its offset: what is in the file
// already is not written again, so reading a topic anew doubles nothing. It is written once the log holds it, never
// before. What a crash tore is cut on opening and said so; the log gives it again, because no snapshot is ahead of what
// was synced here. Pages reach the disk in any order, so whole records may follow a torn one: only if the mark of one of
// them lies behind the hole, the hole was on the disk once, and the file is damaged.

import Bytes
public import Posix
public import SegmentLog
public import StepModel
import Synchronization

/// One record that was not counted.
public struct DeadLetter: Equatable, Sendable {
  /// Byte of the file at which the record begins.
  public let position: Int
  /// Whose log it belongs to.
  public let identity: LogIdentity
  public let offset: Int64
  /// Kafka timestamp of the record, milliseconds since 1970.
  public let timestamp: Int64
  public let reason: RejectReason
  /// The record's bytes; nil if it had none (a null payload).
  public let payload: [UInt8]?
  /// Bytes of the file that were known to be on the disk when the record was written.
  public let synced: Int

  public init(
    position: Int, identity: LogIdentity, offset: Int64, timestamp: Int64, reason: RejectReason,
    payload: [UInt8]?, synced: Int = 0
  ) {
    self.synced = synced
    self.position = position
    self.identity = identity
    self.offset = offset
    self.timestamp = timestamp
    self.reason = reason
    self.payload = payload
  }

  public var topic: String { identity.topic }

  public var partition: Int32 { identity.partition }
}

/// Why the dead-letter file cannot be used.
public enum DeadLetterError: Error, Equatable {
  /// The disk refused; what was being written may be there in part and is cut on the next opening.
  case disk(SystemError)
  /// A record inside the file does not match its checksum: the file was changed by something else.
  case damaged(path: String, atByte: Int)
}

/// The dead-letter file, open for appending. Any thread may call; appends are one write each.
public final class DeadLetters: Sendable {
  static let headBytes = 64
  /// Largest record: Kafka's own limit of a message and a head; longer lengths in the file are damage.
  static let recordBytesMax = 1 << 30

  /// Bytes at the end of the file that were no whole record and were cut on opening.
  public let tornBytes: Int
  private let file: File
  private let state: Mutex<State>

  private struct State: ~Copyable {
    /// Greatest offset in the file, by whose it is.
    var newest: [LogIdentity: Int64]
    /// Where the whole records end.
    var end: Int
    /// Bytes that are known to be on the disk.
    var synced: Int
    /// Whether bytes of a batch that failed may stand behind `end`.
    var isTorn = false
  }

  /// Dead letters of one partition, under way to the file. One thread at a time.
  public final class Batch: @unchecked Sendable {
    // Unchecked: its owner fills it, then gives it away.

    // No limit of its own: what it copies is in memory already, a chunk at a time.
    fileprivate var buffer = ByteWriter(limit: .max >> 1, reserved: 64 << 10)
    fileprivate let identity: LogIdentity
    fileprivate let topic: [UInt8]
    fileprivate let newest: Int64
    fileprivate var last: Int64
    fileprivate let synced: Int

    fileprivate init(_ identity: LogIdentity, newest: Int64, synced: Int) {
      self.identity = identity
      self.synced = synced
      topic = Array(identity.topic.utf8)
      self.newest = newest
      last = newest
    }

    /// Bytes it will take in the file.
    public var bytes: Int { buffer.count }

    /// Takes a record; one that is in the file already is left out.
    ///
    /// - Parameters:
    ///   - offset: Kafka offset, greater than that of the record before.
    ///   - timestamp: Kafka timestamp, milliseconds since 1970.
    ///   - reason: why it was not counted.
    ///   - payload: the record's bytes; nil base address for none.
    public func add(
      offset: Int64, timestamp: Int64, reason: RejectReason, payload: UnsafeRawBufferPointer
    ) {
      guard offset > newest else { return }
      let count = DeadLetters.headBytes + topic.count + payload.count
      precondition(count - 8 <= DeadLetters.recordBytesMax, "a dead letter of \(count) bytes")
      guard let record = buffer.extend(by: count) else { preconditionFailure("no room for \(count) bytes") }
      last = offset
      func put<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ at: Int) {
        record.storeBytes(of: value.littleEndian, toByteOffset: at, as: T.self)
      }
      put(UInt32(truncatingIfNeeded: count - 8), 0)
      put(identity.partition, 8)
      put(offset, 12)
      put(timestamp, 20)
      put(reason.rawValue, 28)
      put(UInt8(truncatingIfNeeded: topic.count), 29)
      put(UInt8(payload.baseAddress == nil ? 0 : 1), 30)
      put(UInt8(0), 31)
      put(identity.topicID.high.byteSwapped, 32)
      put(identity.topicID.low.byteSwapped, 40)
      put(identity.fingerprint, 48)
      put(UInt64(synced), 56)
      var end = record + DeadLetters.headBytes
      topic.withUnsafeBytes {
        UnsafeMutableRawBufferPointer(start: end, count: $0.count).copyMemory(from: $0)
      }
      end += topic.count
      if let bytes = payload.baseAddress { end.copyMemory(from: bytes, byteCount: payload.count) }
      put(Checksum.crc32c(UnsafeRawBufferPointer(start: record + 8, count: count - 8)), 4)
    }
  }

  /// Opens the file, cuts a torn end, and learns what it holds.
  ///
  /// - Parameters:
  ///   - folder: the node's data folder; must exist.
  ///   - files: the file system.
  /// - Throws: `damaged` if a record is not whole that was on the disk once; `disk` if the disk refuses.
  /// - Complexity: reads the whole file once.
  public init(folder: String, files: Files = Files()) throws(DeadLetterError) {
    let path = DeadLetters.path(folder)
    do throws(SystemError) {
      file = try files.open(path, .update)
    } catch { throw .disk(error) }
    var newest: [LogIdentity: Int64] = [:]
    var whole = 0
    let size: Int
    do throws(SystemError) { size = try file.bytesCount() } catch { throw .disk(error) }
    var synced = 0
    do throws(DeadLetterError) {
      try DeadLetters.scan(file, from: 0, until: size) { letter, end in
        newest[letter.identity] = max(letter.offset, newest[letter.identity] ?? -1)
        synced = max(synced, letter.synced)
        whole = end
        return true
      }
    } catch {
      guard case .damaged = error else { throw error }
    }
    if whole < size {
      synced = max(synced, try DeadLetters.markBehind(whole, file, until: size))
      guard synced <= whole else { throw .damaged(path: path, atByte: whole) }
    }
    tornBytes = size - whole
    if tornBytes > 0 {
      do throws(SystemError) { try file.truncate(bytesCount: whole) } catch { throw .disk(error) }
    }
    state = Mutex(State(newest: newest, end: whole, synced: synced))
  }

  /// The file's path in a data folder.
  public static func path(_ folder: String) -> String { folder + "/dead-letters.rms" }

  /// Starts a batch of one partition. One batch a partition at a time.
  ///
  /// - Parameter identity: whose dead letters they are.
  /// - Returns: an empty batch.
  public func batch(of identity: LogIdentity) -> Batch {
    state.withLock { Batch(identity, newest: $0.newest[identity] ?? -1, synced: $0.synced) }
  }

  /// Writes a batch to the end of the file in one call. What a failed batch left behind is cut before anything else is
  /// written there.
  ///
  /// - Parameter batch: what to write.
  /// - Throws: `disk` if the disk refuses; the batch can be given again then.
  public func append(_ batch: Batch) throws(DeadLetterError) {
    if batch.buffer.isEmpty { return }
    let bytes = batch.buffer.unsafeBytes
    let identity = batch.identity
    let last = batch.last
    let failure: SystemError? = state.withLock { state in
      do throws(SystemError) {
        if state.isTorn { try file.truncate(bytesCount: state.end) }
        state.isTorn = true
        try file.write(bytes, at: state.end)
      } catch { return error }
      state.isTorn = false
      state.end += bytes.count
      state.newest[identity] = last
      return nil
    }
    if let failure { throw .disk(failure) }
  }

  /// Makes what was appended last.
  ///
  /// - Throws: `disk` if the disk refuses: what was appended may be lost, and the log gives it again.
  public func sync() throws(DeadLetterError) {
    let end = state.withLock { $0.end }
    do throws(SystemError) { try file.sync() } catch { throw .disk(error) }
    state.withLock { $0.synced = max($0.synced, end) }
  }

  /// Reads records from a place in the file.
  ///
  /// - Parameters:
  ///   - position: 0, the position of a record, or the one that an earlier call returned.
  ///   - limit: most records to return, 1 or more.
  /// - Returns: records in the order of the file, and where to go on; no records at the end. Fewer than the limit, but
  ///   one, where they are long: so that what is returned stays within `pageBytesMax`.
  /// - Throws: `damaged` if the bytes there are no record, `disk` if the disk refuses.
  public func read(
    from position: Int, limit: Int
  ) throws(DeadLetterError) -> (letters: [DeadLetter], next: Int) {
    try DeadLetters.page(file, from: position, until: state.withLock { $0.end }, limit: limit)
  }

  /// Bytes of values after which a page takes no further record.
  static let pageBytesMax = 4 << 20

  fileprivate static func page(
    _ file: borrowing File, from position: Int, until end: Int, limit: Int
  ) throws(DeadLetterError) -> (letters: [DeadLetter], next: Int) {
    var letters: [DeadLetter] = []
    var next = position
    var bytes = 0
    try scan(file, from: position, until: end) { letter, end in
      letters.append(letter)
      bytes += letter.payload?.count ?? 0
      next = end
      return letters.count < limit && bytes < pageBytesMax
    }
    return (letters, next)
  }

  /// Walks whole records; stops at the end, at a tail that is no whole record, or where `found` says so.
  private static func scan(
    _ file: borrowing File, from position: Int, until end: Int, _ found: (DeadLetter, _ end: Int) -> Bool
  ) throws(DeadLetterError) {
    var window = try read(file, at: position, bytes: min(windowBytes, max(0, end - position)))
    var place = position
    var start = 0
    while true {
      var whole = length(window, start)
      if whole.map({ $0 > window.count - start }) ?? true, start > 0 || window.count == windowBytes {
        window = try read(file, at: place, bytes: min(max(windowBytes, whole ?? 0), max(0, end - place)))
        start = 0
        whole = length(window, start)
      }
      guard let whole, whole <= window.count else { return }
      let letter = window.withUnsafeBytes {
        decode(UnsafeRawBufferPointer(rebasing: $0[start..<(start + whole)]), at: place)
      }
      guard let letter else {
        if place + whole >= end { return }
        throw .damaged(path: file.path, atByte: place)
      }
      start += whole
      place += whole
      guard found(letter, place) else { return }
    }
  }

  /// The greatest synced mark of whole records behind a hole, wherever they begin.
  private static func markBehind(
    _ hole: Int, _ file: borrowing File, until end: Int
  ) throws(DeadLetterError) -> Int {
    var mark = 0
    var place = hole + 1
    while place + headBytes <= end {
      let window = try read(file, at: place, bytes: min(windowBytes, end - place))
      var start = 0
      while start + headBytes <= window.count {
        // What no record of ours has is passed over before any checksum.
        guard window[start + 31] == 0, window[start + 30] <= 1, window[start + 29] > 0,
          let whole = length(window, start), place + start + whole <= end
        else {
          start += 1
          continue
        }
        let record = try read(file, at: place + start, bytes: whole)
        let letter = record.withUnsafeBytes { decode($0, at: place + start) }
        mark = max(mark, letter?.synced ?? 0)
        start += letter == nil ? 1 : whole
      }
      place += max(start, 1)
    }
    return mark
  }

  private static let windowBytes = 256 << 10

  /// Bytes of the record that starts there, head included; nil if not even the head is there or its length is absurd.
  private static func length(_ window: [UInt8], _ start: Int) -> Int? {
    guard window.count - start >= headBytes else { return nil }
    let length = window.withUnsafeBytes {
      Int(UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: start, as: UInt32.self)))
    }
    return length >= headBytes - 8 && length <= recordBytesMax ? length + 8 : nil
  }

  private static func read(_ file: borrowing File, at place: Int, bytes: Int) throws(DeadLetterError)
    -> [UInt8]
  {
    var window = [UInt8](repeating: 0, count: bytes)
    var filled = 0
    while filled < bytes {
      var outcome: Result<Int, SystemError> = .success(0)
      window.withUnsafeMutableBytes { room in
        do throws(SystemError) {
          let rest = UnsafeMutableRawBufferPointer(rebasing: room[filled...])
          outcome = .success(try file.read(at: place + filled, into: rest))
        } catch { outcome = .failure(error) }
      }
      switch outcome {
      case .failure(let error): throw .disk(error)
      case .success(0): return Array(window[..<filled])
      case .success(let count): filled += count
      }
    }
    return window
  }

  /// One whole record; nil if it does not match its checksum or its own lengths.
  private static func decode(_ record: UnsafeRawBufferPointer, at place: Int) -> DeadLetter? {
    var reader = ByteReader(record)
    do throws(ByteError) {
      let length = try reader.integer(UInt32.self)
      let checksum = try reader.integer(UInt32.self)
      guard Int(length) == reader.left,
        Checksum.crc32c(UnsafeRawBufferPointer(rebasing: record[8...])) == checksum
      else { return nil }
      let partition = try reader.integer(Int32.self)
      let offset = try reader.integer(Int64.self)
      let timestamp = try reader.integer(Int64.self)
      guard let reason = RejectReason(rawValue: try reader.integer(UInt8.self)) else { return nil }
      let topicBytes = try reader.integer(UInt8.self)
      let hasPayload = try reader.integer(UInt8.self)
      _ = try reader.integer(UInt8.self)
      let topicID = LogIdentity.TopicID(
        high: try reader.integer(UInt64.self).byteSwapped, low: try reader.integer(UInt64.self).byteSwapped)
      let fingerprint = try reader.integer(UInt64.self)
      let synced = Int(clamping: try reader.integer(UInt64.self))
      let topic = String(decoding: try reader.bytes(Int(topicBytes)), as: UTF8.self)
      guard (1...LogIdentity.topicBytesMax).contains(Int(topicBytes)), partition >= 0 else { return nil }
      let payload = Array(reader.rest())
      return DeadLetter(
        position: place,
        identity: LogIdentity(topic: topic, topicID: topicID, partition: partition, fingerprint: fingerprint),
        offset: offset, timestamp: timestamp, reason: reason, payload: hasPayload == 1 ? payload : nil,
        synced: synced)
    } catch { return nil }
  }
}

/// The dead-letter file of a data folder, read without its node: also while the node writes it. Opens for reading alone
/// and cuts nothing.
public struct DeadLetterReader: ~Copyable, Sendable {
  private let file: File
  private let size: Int

  /// Opens the file as long as it is now.
  ///
  /// - Parameters:
  ///   - folder: a node's data folder.
  ///   - files: the file system.
  /// - Throws: `disk` if there is no such file, or it cannot be read.
  public init(folder: String, files: Files = Files()) throws(DeadLetterError) {
    let file: File
    do throws(SystemError) { file = try files.open(DeadLetters.path(folder), .read) } catch {
      throw .disk(error)
    }
    let size: Int
    do throws(SystemError) { size = try file.bytesCount() } catch { throw .disk(error) }
    self.file = file
    self.size = size
  }

  /// Reads records as `DeadLetters.read` does; bytes at the end that are no whole record are not there yet.
  ///
  /// - Parameters:
  ///   - position: 0, or a position that an earlier call returned.
  ///   - limit: most records to return, 1 or more.
  /// - Returns: records in the order of the file, and where to go on; no records at the end.
  /// - Throws: `damaged` if the bytes there are no record, `disk` if the disk refuses.
  public borrowing func read(
    from position: Int, limit: Int
  ) throws(DeadLetterError) -> (letters: [DeadLetter], next: Int) {
    try DeadLetters.page(file, from: position, until: size, limit: limit)
  }
}
