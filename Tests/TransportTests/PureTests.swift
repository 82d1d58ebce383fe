import Posix
import TestSupport
import Testing
import Transport

@Suite struct TimerHeapTests {
  @Test("timers come in the order of their moments, equal ones as they were set", arguments: Seed.some(20))
  func order(seed: Seed) {
    var random = seed.random
    var heap = TimerHeap()
    var expected: [(Int64, UInt64)] = []
    for tag in 0..<UInt64(200) {
      let moment = Int64.random(in: 0..<50, using: &random)
      heap.push(Moment(nanoseconds: moment), tag: tag)
      expected.append((moment, tag))
    }
    expected.sort { $0 < $1 }
    var now: Int64 = 0
    var got: [UInt64] = []
    while got.count < 200 {
      while let tag = heap.popDue(now: Moment(nanoseconds: now)) { got.append(tag) }
      #expect(got.count == expected.filter { $0.0 <= now }.count)
      now += Int64.random(in: 1..<10, using: &random)
    }
    #expect(got == expected.map { $0.1 })
    #expect(heap.count == 0 && heap.first == nil)
  }
}

@Suite struct OutputQueueTests {
  @Test(
    "bytes come out as they went in, none before the flush, none over the limit", arguments: Seed.some(50))
  func model(seed: Seed) {
    var random = seed.random
    var queue = OutputQueue(bytesMax: 10_000)
    var model: [UInt8] = []
    var flushed = 0
    for _ in 0..<400 {
      switch Int.random(in: 0..<4, using: &random) {
      case 0, 1:
        let bytes = (0..<Int.random(in: 0..<900, using: &random)).map { _ in
          UInt8.random(in: 0...255, using: &random)
        }
        let taken = bytes.withUnsafeBytes { queue.append($0) }
        #expect(taken == (model.count + bytes.count <= 10_000))
        if taken { model += bytes }
      case 2:
        queue.flush()
        flushed = model.count
      default:
        let sent = Int.random(in: 0...flushed, using: &random)
        let ready = Array(queue.ready)
        #expect(ready == Array(model[..<flushed]))
        queue.sent(sent)
        model.removeFirst(sent)
        flushed -= sent
      }
      let (count, held, isEmpty) = (queue.count, queue.bytesHeld, queue.isEmpty)
      #expect(count == model.count)
      #expect(held <= 10_000)
      #expect(isEmpty == model.isEmpty)
    }
  }

  @Test("an empty queue holds no memory")
  func empty() {
    var queue = OutputQueue(bytesMax: 1 << 20)
    let heldAtFirst = queue.bytesHeld
    let taken = [UInt8](repeating: 1, count: 100_000).withUnsafeBytes { queue.append($0) }
    queue.flush()
    queue.sent(100_000)
    let heldAtLast = queue.bytesHeld
    #expect(taken && heldAtFirst == 0 && heldAtLast == 0)
  }
}

@Suite struct BackoffTests {
  @Test("delays double up to the cap, jittered by at most half, and start over", arguments: Seed.some(20))
  func delays(seed: Seed) {
    var backoff = Backoff(first: .milliseconds(100), longest: .seconds(10), seed: seed.value)
    for failure in 0..<100 {
      let full = min(10_000, 100 << min(failure, 10))
      let delay = backoff.failed()
      #expect(delay >= .milliseconds(full) / 2 && delay <= .milliseconds(full))
    }
    backoff.succeeded()
    #expect(backoff.failed() <= .milliseconds(100))
  }

  @Test("two seeds do not wait alike")
  func jitter() {
    var a = Backoff(seed: 1)
    var b = Backoff(seed: 2)
    #expect((0..<5).map { _ in a.failed() } != (0..<5).map { _ in b.failed() })
  }
}
