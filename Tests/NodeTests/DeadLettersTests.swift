// The dead-letter file: byte for byte, once each, and honest about a torn end.

import Node
import Posix
import SegmentLog
import StepModel
import TestSupport
import Testing

@Suite struct DeadLettersTests {
  private let identity = LogIdentity(
    topic: "steps", topicID: LogIdentity.TopicID(high: 1, low: 2), partition: 3, fingerprint: 4)

  private func withFolder(_ body: (String) throws -> Void) throws {
    let folder = TemporaryFolder()
    try body(folder.path)
  }

  private func some(_ seed: Seed, _ count: Int) -> [DeadLetter] {
    var random = seed.random
    var position = 0
    return (0..<count).map { index in
      let bytes = (0..<Int.random(in: 0...300, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      let letter = DeadLetter(
        position: position, identity: identity, offset: Int64(index * 2),
        timestamp: Int64.random(in: 0...9_999, using: &random),
        reason: RejectReason.allCases.randomElement(using: &random) ?? .late,
        payload: Bool.random(using: &random) || index % 7 == 0 ? bytes : nil)
      position += 64 + 5 + (letter.payload?.count ?? 0)
      return letter
    }
  }

  private func write(_ letters: some Sequence<DeadLetter>, _ file: DeadLetters) throws {
    let batch = file.batch(of: identity)
    for letter in letters {
      (letter.payload ?? []).withUnsafeBytes { bytes in
        // An empty array may have no base address; only a null payload may look like none.
        let place = letter.payload == nil ? nil : bytes.baseAddress ?? UnsafeRawPointer(bitPattern: 1)
        batch.add(
          offset: letter.offset, timestamp: letter.timestamp, reason: letter.reason,
          payload: UnsafeRawBufferPointer(start: place, count: bytes.count))
      }
    }
    try file.append(batch)
  }

  @Test("what is written is read back byte for byte, in pages of any size", arguments: Seed.some(5))
  func roundTrip(seed: Seed) throws {
    try withFolder { folder in
      let letters = some(seed, 2_000)
      let file = try DeadLetters(folder: folder)
      try write(letters, file)
      var read: [DeadLetter] = []
      var position = 0
      var random = seed.random
      while true {
        let page = try file.read(from: position, limit: Int.random(in: 1...500, using: &random))
        guard let last = page.letters.last else { break }
        read += page.letters
        #expect(try file.read(from: last.position, limit: 1).letters == [last])
        position = page.next
      }
      #expect(read == letters)
    }
  }

  @Test("reading the topic anew writes nothing twice, also after a restart", arguments: Seed.some(5))
  func onceEach(seed: Seed) throws {
    try withFolder { folder in
      let letters = some(seed, 300)
      try write(letters[..<100], try DeadLetters(folder: folder))
      let file = try DeadLetters(folder: folder)
      try write(letters[50..<200], file)
      try write(letters, file)
      #expect(try file.read(from: 0, limit: 1_000).letters == letters)
    }
  }

  @Test("a file cut at any byte opens with its whole records, and says how many bytes were torn")
  func tornTail() throws {
    let letters = some(Seed(7), 6)
    try withFolder { folder in
      try write(letters, try DeadLetters(folder: folder))
      let whole = try Files().read(whole: DeadLetters.path(folder))
      for cut in 0..<whole.count {
        let file = try Files().open(DeadLetters.path(folder), .replace)
        try whole[..<cut].withUnsafeBytes { bytes throws in try file.write(bytes, at: 0) }
        let opened = try DeadLetters(folder: folder)
        let kept = try opened.read(from: 0, limit: 100).letters
        #expect(kept == Array(letters[..<kept.count]), "cut at \(cut)")
        let size = try Files().read(whole: DeadLetters.path(folder)).count
        #expect(size + opened.tornBytes == cut)
        try write(letters, opened)
        #expect(try opened.read(from: 0, limit: 100).letters == letters, "cut at \(cut)")
      }
    }
  }

  @Test(
    "records behind a hole that was never synced are cut with it, and can be written again",
    arguments: Seed.some(5))
  func hole(seed: Seed) throws {
    try withFolder { folder in
      let letters = some(seed, 60)
      let file = try DeadLetters(folder: folder)
      try write(letters[..<20], file)
      try file.sync()
      try write(letters[20...], file)
      var random = seed.random
      var bytes = try Files().read(whole: DeadLetters.path(folder))
      let place = Int.random(in: letters[20].position..<letters[59].position, using: &random)
      for index in place..<min(bytes.count, place + 300) { bytes[index] = 0xA5 }
      let changed = try Files().open(DeadLetters.path(folder), .update)
      try bytes.withUnsafeBytes { bytes throws in try changed.write(bytes, at: 0) }
      let opened = try DeadLetters(folder: folder)
      let kept = try opened.read(from: 0, limit: 100).letters
      #expect(kept.count >= 20 && kept.map(\.offset) == letters[..<kept.count].map(\.offset))
      #expect(opened.tornBytes > 0)
      try write(letters, opened)
      #expect(try opened.read(from: 0, limit: 100).letters.map(\.payload) == letters.map(\.payload))
    }
  }

  @Test("a changed byte below the synced mark of a later record is damage, named by its place")
  func damage() throws {
    try withFolder { folder in
      let letters = some(Seed(9), 6)
      let written = try DeadLetters(folder: folder)
      try write(letters[..<3], written)
      try written.sync()
      try write(letters[3...], written)
      var bytes = try Files().read(whole: DeadLetters.path(folder))
      bytes[20] ^= 1
      let file = try Files().open(DeadLetters.path(folder), .update)
      try bytes.withUnsafeBytes { bytes throws in try file.write(bytes, at: 0) }
      #expect(throws: DeadLetterError.damaged(path: DeadLetters.path(folder), atByte: 0)) {
        _ = try DeadLetters(folder: folder)
      }
    }
  }
}
