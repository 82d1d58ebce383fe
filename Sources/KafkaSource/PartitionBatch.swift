// Consecutive records of one partition, owned: librdkafka's messages stay where they were fetched, nothing is copied.
import CRdKafka

/// One record, borrowed from its batch: valid until the batch is released.
@frozen public struct Record: BitwiseCopyable {
  /// The value's first byte; nil for a null value (a tombstone), which is not an empty one.
  public var payload: UnsafeRawPointer?
  /// Bytes of the value.
  public var payloadBytes: Int
  /// Kafka offset.
  public var offset: Int64
  /// Record timestamp in milliseconds since 1970; -1 if the topic has none.
  public var timestampMs: Int64

  @inlinable public init(payload: UnsafeRawPointer?, payloadBytes: Int, offset: Int64, timestampMs: Int64) {
    self.payload = payload
    self.payloadBytes = payloadBytes
    self.offset = offset
    self.timestampMs = timestampMs
  }
}

/// The records of one partition from one poll, in offset order, offsets strictly rising.
///
/// Pins librdkafka's fetch buffers until `release()` or the last reference goes: release right after decoding. May
/// cross threads, one user at a time.
public final class PartitionBatch: @unchecked Sendable {
  /// The partition all records are of.
  public let partition: Int32
  /// Number of records, at least 1 until released.
  public private(set) var count: Int
  /// Offset of the first record.
  public let offsetFirst: Int64
  /// Offset after the last record: the watermark once all are applied.
  public let offsetNext: Int64
  /// Number of the assignment the records were read under.
  public let generation: UInt64

  private let messages: UnsafeMutablePointer<UnsafeMutablePointer<rd_kafka_message_t>?>
  private let client: Client

  /// Takes over messages.
  ///
  /// - Parameters:
  ///   - messages: an owned allocation of `count` owned messages of one partition without errors.
  ///   - count: at least 1.
  ///   - generation: assignment number.
  ///   - client: kept alive with the messages.
  init(
    messages: UnsafeMutablePointer<UnsafeMutablePointer<rd_kafka_message_t>?>, count: Int, generation: UInt64,
    client: Client
  ) {
    guard count > 0, let first = messages[0], let last = messages[count - 1] else {
      preconditionFailure("a batch of \(count) messages")
    }
    self.messages = messages
    self.count = count
    self.generation = generation
    self.client = client
    partition = first.pointee.partition
    offsetFirst = first.pointee.offset
    offsetNext = last.pointee.offset + 1
  }

  deinit {
    release()
    messages.deallocate()
  }

  /// Gives the records' memory back to librdkafka; every `Record` of the batch is void from here on.
  ///
  /// - Complexity: O(count).
  public func release() {
    for i in 0..<count { rd_kafka_message_destroy(messages[i]) }
    count = 0
  }

  /// Reads out records, for loops that want many at a call.
  ///
  /// - Parameters:
  ///   - range: places in the batch, inside `0..<count`.
  ///   - out: room for `range.count` records.
  public func read(_ range: Range<Int>, into out: UnsafeMutablePointer<Record>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= count, "records \(range) of \(count)")
    for i in range {
      guard let message = messages[i] else { preconditionFailure("message \(i) is missing") }
      out[i - range.lowerBound] = PartitionBatch.record(message)
    }
  }

  /// One record.
  ///
  /// - Parameter index: place in the batch, inside `0..<count`.
  public subscript(index: Int) -> Record {
    precondition(index >= 0 && index < count, "record \(index) of \(count)")
    guard let message = messages[index] else { preconditionFailure("message \(index) is missing") }
    return PartitionBatch.record(message)
  }

  /// Kafka offset of a record.
  ///
  /// - Parameter index: place in the batch, inside `0..<count`.
  /// - Returns: the offset.
  public func offset(_ index: Int) -> Int64 { self[index].offset }

  /// Timestamp of a record in milliseconds since 1970; -1 if there is none.
  ///
  /// - Parameter index: place in the batch, inside `0..<count`.
  /// - Returns: the timestamp.
  public func timestampMs(_ index: Int) -> Int64 { self[index].timestampMs }

  /// Value of a record, borrowed; nil if it is null.
  ///
  /// - Parameter index: place in the batch, inside `0..<count`.
  /// - Returns: its bytes.
  public func payload(_ index: Int) -> UnsafeRawBufferPointer? {
    let record = self[index]
    guard let bytes = record.payload else { return nil }
    return UnsafeRawBufferPointer(start: bytes, count: record.payloadBytes)
  }

  /// Key of a record, borrowed; nil if it has none.
  ///
  /// - Parameter index: place in the batch, inside `0..<count`.
  /// - Returns: its bytes.
  public func key(_ index: Int) -> UnsafeRawBufferPointer? {
    precondition(index >= 0 && index < count, "record \(index) of \(count)")
    guard let message = messages[index], let key = message.pointee.key else { return nil }
    return UnsafeRawBufferPointer(start: key, count: message.pointee.key_len)
  }

  private static func record(_ message: UnsafeMutablePointer<rd_kafka_message_t>) -> Record {
    Record(
      payload: UnsafeRawPointer(message.pointee.payload), payloadBytes: message.pointee.len,
      offset: message.pointee.offset, timestampMs: rd_kafka_message_timestamp(message, nil))
  }
}
