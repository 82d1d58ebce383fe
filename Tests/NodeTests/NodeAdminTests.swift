// Orders to a node, and the dead letters that are longer than a page shows.

import Posix
import QueryProtocol
import RankMySteps
import SegmentLog
import StepModel
import Synchronization
import TestSupport
import Testing

@testable import Node

@Suite(.serialized) struct NodeAdminTests {
  /// Keeps what it was ordered, and answers as it was told.
  private final class Keeper: NodeAdmin {
    struct Order: Equatable, Sendable {
      let verb: AdminVerb
      let partition: Int32?
    }

    let orders = Mutex<[Order]>([])
    private let answer: Result<String, AdminRefusal>

    init(_ answer: Result<String, AdminRefusal>) { self.answer = answer }

    func order(_ verb: AdminVerb, partition: Int32?) throws(AdminRefusal) -> String {
      orders.withLock { $0.append(Order(verb: verb, partition: partition)) }
      return try answer.get()
    }
  }

  private func refusal(_ client: RankClient, _ verb: AdminVerb, _ partition: UInt32?) -> ClientError? {
    do throws(ClientError) {
      _ = try client.order(verb, partition: partition)
      return nil
    } catch { return error }
  }

  @Test("an order reaches who keeps the log, word for word, and its sentence or refusal comes back")
  func orders() throws {
    let world = try NodeWorld(partitions: 2)
    try world.report("ada", 10, 0)
    _ = try world.settled()
    let keeper = Keeper(.success("it begins"))
    world.node.facts.desk.open(keeper)
    #expect(try world.client.order(.snapshot, partition: nil) == "it begins")
    #expect(try world.client.order(.acceptGap, partition: 1) == "it begins")
    #expect(
      keeper.orders.withLock { $0 } == [
        Keeper.Order(verb: .snapshot, partition: nil), Keeper.Order(verb: .acceptGap, partition: 1),
      ])
    #expect(
      refusal(world.client, .seal, 2)
        == .refused(code: .unknownPartition, retryable: false, text: "the topic has no such partition"))
    #expect(keeper.orders.withLock { $0.count } == 2)
    for (refused, code) in [
      (.notPossible("no gap"), .notPossible), (.unknownPartition("elsewhere"), .unknownPartition),
      (.failed("the disk is gone"), .serverError),
    ] as [(AdminRefusal, ErrorCode)] {
      let refusing = Keeper(.failure(refused))
      world.node.facts.desk.open(refusing)
      #expect(
        refusal(world.client, .adopt, 0) == .refused(code: code, retryable: false, text: refused.text),
        "\(refused)")
    }
  }

  @Test("a node where nobody keeps a log, or no longer, refuses each order and says why")
  func nobody() throws {
    let world = try NodeWorld(partitions: 1)
    world.node.facts.desk.open(Keeper(.success("gone with this line")))
    for verb in AdminVerb.allCases {
      guard case .refused(.notPossible, false, let text)? = refusal(world.client, verb, 0) else {
        Issue.record("\(verb) is not refused")
        continue
      }
      #expect(text.contains(verb.name) && text.contains("log"))
    }
  }

  @Test("a dead letter longer than a page shows comes whole, and any part of it alone")
  func wholeValue() throws {
    let world = try NodeWorld(partitions: 1)
    let long = "{" + String(repeating: "x", count: 9_000) + "é"
    try world.produce("{", 0)
    try world.produce(long, 0)
    try world.produce(nil, 0)
    _ = try world.settled()
    let letters = try world.deadLetters(atLeast: 3)
    #expect(letters.map(\.bytes) == [1, 9_003, nil])
    #expect(letters.map(\.part.count) == [1, Limits.deadLetterBytesMax, 0])
    #expect(
      try letters.map { try world.client.wholeValue(of: $0) } == [Array("{".utf8), Array(long.utf8), nil])
    let end = try world.client.deadLetters(from: letters[1].position, limit: 1, skip: 9_000)
    #expect(end.letters.map(\.part) == [Array("xé".utf8)])
    #expect(end.letters.map(\.bytes) == [9_003])
    let beyond = try world.client.deadLetters(from: letters[1].position, limit: 1, skip: .max)
    #expect(beyond.letters.map(\.part) == [[]])
  }

  @Test("a page of long dead letters ends early, and the next one goes on", arguments: [1, 3, 200])
  func longPages(limit: Int) throws {
    let folder = TemporaryFolder()
    let file = try DeadLetters(folder: folder.path)
    let value = [UInt8](repeating: 7, count: 1 << 20)
    let batch = file.batch(
      of: LogIdentity(topic: "steps", topicID: .init(high: 1, low: 2), partition: 0, fingerprint: 3))
    for offset in 0..<10 {
      value.withUnsafeBytes {
        batch.add(offset: Int64(offset), timestamp: 0, reason: .malformed, payload: $0)
      }
    }
    try file.append(batch)
    let reader = try DeadLetterReader(folder: folder.path)
    var offsets: [Int64] = []
    var position = 0
    while true {
      let page = try file.read(from: position, limit: limit)
      let same = try reader.read(from: position, limit: limit)
      #expect(page.letters == same.letters)
      #expect(page.letters.reduce(0) { $0 + ($1.payload?.count ?? 0) } <= 4 << 20)
      if page.letters.isEmpty { break }
      offsets += page.letters.map(\.offset)
      position = page.next
    }
    #expect(offsets == Array(0..<10))
  }

  @Test("the reader of a folder cuts nothing, sees no torn record, and names what is damaged or missing")
  func reader() throws {
    let folder = TemporaryFolder()
    #expect(throws: DeadLetterError.self) {
      _ = try DeadLetterReader(folder: folder.path).read(from: 0, limit: 1)
    }
    let path = DeadLetters.path(folder.path)
    do {
      let file = try DeadLetters(folder: folder.path)
      let batch = file.batch(
        of: LogIdentity(topic: "steps", topicID: .init(high: 1, low: 2), partition: 0, fingerprint: 3))
      for offset in 0..<3 {
        batch.add(
          offset: Int64(offset), timestamp: 0, reason: .late,
          payload: UnsafeRawBufferPointer(start: nil, count: 0))
      }
      try file.append(batch)
    }
    var bytes = try Files().read(whole: path)
    let cut = try Files().open(path, .update)
    try cut.truncate(bytesCount: bytes.count - 1)
    #expect(
      try DeadLetterReader(folder: folder.path).read(from: 0, limit: 9).letters.map(\.offset) == [0, 1])
    #expect(try Files().read(whole: path).count == bytes.count - 1)
    bytes[15] ^= 1
    try bytes.withUnsafeBytes { bytes throws in try cut.write(bytes, at: 0) }
    #expect(throws: DeadLetterError.damaged(path: path, atByte: 0)) {
      _ = try DeadLetterReader(folder: folder.path).read(from: 0, limit: 9)
    }
  }
}
