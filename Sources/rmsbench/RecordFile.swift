// A file of records, a line each, sent as it says: what checks against a real broker put into a topic.
import Glibc
import KafkaSource

/// Sends the lines of a file: `key TAB hex-or-dash TAB timestamp-ms [TAB partition]`, `!begin`, `!commit`, `!abort`.
enum RecordFile {
  /// Longest line, in bytes: a record of a megabyte in hex and its key.
  static let lineBytesMax = 4 << 20

  /// - Parameters:
  ///   - path: the file.
  ///   - bootstrap: `host:port,…`.
  ///   - topic: where the records go.
  ///   - properties: of the producer, over its defaults.
  /// - Throws: `setting`, `failed`, `fatal`.
  static func send(
    _ path: String, _ bootstrap: String, _ topic: String, properties: [(key: String, value: String)]
  ) throws(KafkaError) {
    guard let file = fopen(path, "r") else {
      complain("rmsbench: cannot open \(path)\n")
      exit(1)
    }
    defer { fclose(file) }
    var line: UnsafeMutablePointer<CChar>?
    var capacity = 0
    defer { free(line) }
    var producer: Producer?
    var number = 0
    let start = Usage.now
    while true {
      let count = getline(&line, &capacity, file)
      guard count > 0, let text = line else { break }
      number += 1
      let bytes = UnsafeRawBufferPointer(start: text, count: count)
      if producer == nil {
        let isTransactional = bytes[0] == UInt8(ascii: "!")
        producer = try Producer(
          bootstrapServers: bootstrap, topic: topic,
          transactionalID: isTransactional ? "rmsbench-\(getpid())" : nil, properties: properties,
          lingerMs: 50)
      }
      guard let producer, count <= lineBytesMax, try take(bytes, producer) else {
        complain("rmsbench: \(path):\(number): not a record\n")
        exit(1)
      }
    }
    guard let producer else { return print("produced 0") }
    let all = producer.flush(timeoutMs: 120_000)
    let counts = producer.counts
    let seconds = Usage.now.wall - start.wall
    print(
      "produced \(counts.produced) failed \(counts.failed) seconds \((seconds * 1_000).rounded() / 1_000)")
    if !all { exit(1) }
  }

  /// - Returns: false if the line is none of the forms.
  private static func take(_ line: UnsafeRawBufferPointer, _ producer: Producer) throws(KafkaError) -> Bool {
    var end = line.count
    while end > 0, line[end - 1] == 0x0A || line[end - 1] == 0x0D { end -= 1 }
    if end > 0, line[0] == UInt8(ascii: "!") {
      switch String(decoding: line[1..<end], as: UTF8.self) {
      case "begin": try producer.begin()
      case "commit": try producer.commit()
      case "abort":
        // Sent before they are aborted, so that the topic really holds aborted records.
        _ = producer.flush()
        try producer.abort()
      default: return false
      }
      return true
    }
    var fields: [Range<Int>] = []
    var from = 0
    for i in 0..<end where line[i] == 0x09 {
      fields.append(from..<i)
      from = i + 1
    }
    fields.append(from..<end)
    guard fields.count == 3 || fields.count == 4,
      let timestamp = Int64(String(decoding: line[fields[2]], as: UTF8.self))
    else { return false }
    let key = Array(line[fields[0]])
    let partition = fields.count == 4 ? Int32(String(decoding: line[fields[3]], as: UTF8.self)) : nil
    guard fields.count == 3 || partition != nil else { return false }
    let isNull = fields[1].count == 1 && line[fields[1].lowerBound] == UInt8(ascii: "-")
    guard isNull || fields[1].count % 2 == 0 else { return false }
    var payload: [UInt8] = []
    if !isNull {
      payload.reserveCapacity(fields[1].count / 2)
      for i in stride(from: fields[1].lowerBound, to: fields[1].upperBound, by: 2) {
        guard let high = digit(line[i]), let low = digit(line[i + 1]) else { return false }
        payload.append(high << 4 | low)
      }
    }
    let result: Result<Void, KafkaError> = payload.withUnsafeBytes { value in
      key.withUnsafeBytes { name in
        Result { () throws(KafkaError) in
          try producer.produce(
            isNull ? nil : value, key: name.isEmpty ? nil : name, partition: partition, timestampMs: timestamp
          )
        }
      }
    }
    try result.get()
    return true
  }

  private static func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x61...0x66: byte - 0x57
    default: nil
    }
  }
}
