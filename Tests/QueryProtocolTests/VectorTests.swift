import Bytes
import QueryProtocol
import StepModel
import TestSupport
import Testing

@Suite("the vectors of Protocol/vectors")
struct VectorTests {
  static let requests = Vector.all.filter { $0.values["frame"] == "\"request\"" && $0.refused == nil }
  static let refused = Vector.all.filter { $0.refused != nil }
  static let answers = Vector.all.filter { $0.values["frame"] == "\"answer\"" }

  @Test("there are vectors of every kind, and of requests refused")
  func present() {
    let kinds = Set(VectorTests.requests.compactMap { $0.values["kind"] })
    #expect(kinds.count == 11)
    #expect(Set(VectorTests.answers.compactMap { $0.values["kind"] }).count == 12)
    #expect(VectorTests.refused.count > 20)
  }

  @Test("a request decodes to its values and encodes to its bytes", arguments: requests)
  func request(vector: Vector) throws {
    try vector.bytes.withUnsafeBytes { bytes in
      let frame = try #require(onlyFrame(bytes))
      let incoming = try Incoming.decode(frame)
      #expect(Told.request(incoming) == vector.values)
      var out = ByteWriter(limit: Limits.frameInBytesMax)
      let options = RequestOptions(deadlineMillis: incoming.deadlineMillis, atLeast: Array(incoming.atLeast))
      RequestWriter.write(OwnedRequest(incoming.request), id: incoming.id, options: options, into: &out)
      #expect(Hex.text(out.array) == Hex.text(vector.bytes))
    }
  }

  @Test("an answer decodes to its values and encodes to its bytes", arguments: answers)
  func answer(vector: Vector) throws {
    try vector.bytes.withUnsafeBytes { bytes in
      let frame = try #require(onlyFrame(bytes))
      let response = try Response.decode(frame)
      #expect(Told.answer(id: frame.id, response) == vector.values)
      var out = ByteWriter(limit: 2 * Limits.frameOutBytesMax)
      ResponseWriter.write(response, id: frame.id, into: &out)
      #expect(Hex.text(out.array) == Hex.text(vector.bytes))
    }
  }

  @Test("a server refuses what it must, by name", arguments: refused)
  func refusal(vector: Vector) throws {
    vector.bytes.withUnsafeBytes { bytes in
      var found: Refusal?
      var splitter = FrameSplitter.answers()
      if vector.fields["first"] == "true" { splitter = FrameSplitter.requests() }
      switch splitter.next(bytes) {
      case .refused(let refusal): found = refusal
      case .incomplete: Issue.record("waits for more")
      case .frame(let frame, _):
        do throws(Refusal) { _ = try Incoming.decode(frame) } catch { found = error }
      }
      #expect(found?.code.name == vector.refused)
    }
  }

  @Test("an answer with bytes of a later server behind it still decodes")
  func laterAnswer() throws {
    for vector in VectorTests.answers {
      var bytes = vector.bytes + [1, 2, 3]
      bytes[0] &+= 3
      bytes.withUnsafeBytes { raw in
        #expect(throws: Never.self, "\(vector)") {
          let frame = try #require(onlyFrame(raw))
          _ = try Response.decode(frame)
        }
      }
    }
  }

  @Test("the encoding functions without owned values write the same bytes")
  func direct() throws {
    let rank = try #require(Vector.named("request-rank"))
    var out = ByteWriter(limit: 4_096)
    var user = "550e8400-e29b-41d4-a716-446655440000"
    user.withUTF8 {
      RequestWriter.rank(
        board: .named(.day(Day(number: 20_781))), user: UnsafeRawBufferPointer($0), id: 6, into: &out)
    }
    #expect(out.array == rank.bytes)
    out.removeAll()
    ResponseWriter.refusal(
      id: 0, Refusal(.foreign, "this is an rms query port; HTTP is served at http.listen"), into: &out)
    #expect(out.array == Vector.named("answer-error-foreign")?.bytes)
  }
}
