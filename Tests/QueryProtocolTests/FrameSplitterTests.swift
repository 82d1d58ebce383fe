import Bytes
import QueryProtocol
import TestSupport
import Testing

@Suite("splitting a stream into frames")
struct FrameSplitterTests {
  /// Feeds pieces as a connection does, and collects kind, id and payload of each frame.
  private func split(_ pieces: [[UInt8]]) -> (frames: [String], refused: Refusal?, waitsFor: Int) {
    var splitter = FrameSplitter.requests()
    var kept: [UInt8] = []
    var frames: [String] = []
    var waitsFor = 0
    for piece in pieces {
      kept += piece
      var more = true
      while more {
        let (dropped, refused) = kept.withUnsafeBytes { bytes -> (Int, Refusal?) in
          switch splitter.next(bytes) {
          case .frame(let frame, let consumed):
            frames.append("\(frame.kind) \(frame.id) \(Hex.text(frame.payload))")
            return (consumed, nil)
          case .incomplete(let bytes):
            waitsFor = bytes
            return (0, nil)
          case .refused(let refusal): return (0, refusal)
          }
        }
        if let refused { return (frames, refused, waitsFor) }
        kept.removeFirst(dropped)
        more = dropped > 0
      }
    }
    return (frames, nil, waitsFor)
  }

  private func stream() -> [UInt8] {
    let first = Vector.named("request-hello")?.bytes ?? []
    return VectorTests.requests.filter { !$0.name.contains("hello") }.reduce(first) { $0 + $1.bytes }
  }

  @Test("frames are the same however the stream is cut", arguments: Seed.some(50))
  func cuts(seed: Seed) {
    var random = seed.random
    let stream = stream()
    let whole = split([stream])
    #expect(whole.frames.count == VectorTests.requests.count - 1)
    var pieces: [[UInt8]] = []
    var place = 0
    while place < stream.count {
      let length = min(Int.random(in: 1...30, using: &random), stream.count - place)
      pieces.append(Array(stream[place..<place + length]))
      place += length
    }
    #expect(split(pieces).frames == whole.frames)
  }

  @Test("lengths 0, 7, 65,537, 2^31-1 and 2^32-1 are refused from four bytes, before anything is waited for")
  func lengths() {
    let hello = Vector.named("request-hello")?.bytes ?? []
    for length: UInt32 in [0, 7, 65_537, 0x7FFF_FFFF, .max] {
      let bytes = (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) }
      let result = split([hello, bytes])
      #expect(result.refused?.code == .frameSize, "\(length)")
      #expect(result.frames.count == 1)
    }
    let most = (0..<4).map { UInt8(truncatingIfNeeded: UInt32(65_536) >> (8 * $0)) }
    #expect(split([hello, most]).waitsFor == 65_540)
    #expect(split([hello, most]).refused == nil)
  }

  @Test("a stranger is told from a client by four to sixteen bytes, and never waited for beyond 4,100")
  func strangers() {
    for text in ["GET ", "POST", "HEAD", "PING", "\u{16}\u{3}\u{1}\u{2}", "SSH-2.0-x", "*1\r\n$4\r\n"] {
      #expect(split([Array(text.utf8)]).refused?.code == .foreign, "\(text)")
    }
    #expect(split([[0x01, 0x10, 0, 0]]).refused?.code == .foreign)
    #expect(split([[0x00, 0x10, 0, 0]]).waitsFor == 4_100)
    #expect(
      split([[0x20, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0x52, 0x4D, 0x53, 0x32]]).refused?.code == .foreign)
    #expect(split([[0x08, 0, 0, 0, 3, 0, 0, 0]]).refused?.code == .helloFirst)
    #expect(split([[0x08, 0, 0, 0, 1, 1, 0, 0]]).refused?.code == .helloFirst)
    #expect(split([[0x08, 0, 0, 0, 99, 0, 0, 0]]).refused?.code == .foreign)
  }
}
