// The HTTP face over real sockets, asked byte by byte.

import HTTPFace
import Posix
import Testing

@Suite struct HTTPListenerTests {
  /// A face with one path, which shows the arguments.
  private func listener(_ limits: HTTPLimits = HTTPLimits()) throws -> HTTPListener {
    try HTTPListener(HostPort(host: "127.0.0.1", port: 0), limits: limits) { request in
      guard request.path == "/here" else { return nil }
      return HTTPAnswer(
        status: 503, contentType: "text/plain; version=9",
        body: request.arguments.map { "\($0.name)=\($0.value)\n" }.joined())
    }
  }

  /// Sends bytes, reads until the peer has finished.
  private func exchange(_ face: HTTPListener, _ text: String) throws -> String {
    let socket = try Socket.connect(face.address, timeout: .seconds(5))
    try send(socket.number, text)
    return try receive(socket.number)
  }

  private func send(_ socket: Int32, _ text: String) throws {
    let bytes = Array(text.utf8)
    var sent = 0
    while sent < bytes.count {
      sent += try bytes[sent...].withUnsafeBytes { try Socket.send(socket, $0) } ?? 0
    }
  }

  private func receive(_ socket: Int32) throws -> String {
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4_096)
    while let count = try buffer.withUnsafeMutableBytes({ try Socket.receive(socket, into: $0) }), count > 0 {
      all += buffer[..<count]
    }
    return String(decoding: all, as: UTF8.self)
  }

  private func request(_ method: String, _ target: String, _ more: String = "") -> String {
    "\(method) \(target) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\(more)\r\n"
  }

  @Test("GET has the answer's status, type and body, and the arguments in their order, decoded")
  func get() throws {
    let face = try listener()
    defer { face.stop() }
    let answer = try exchange(face, request("GET", "/here?verbose&exclude=a%20b&exclude=c"))
    #expect(answer.hasPrefix("HTTP/1.1 503 "))
    #expect(answer.contains("\r\nContent-Type: text/plain; version=9\r\n"))
    #expect(answer.hasSuffix("\r\n\r\nverbose=\nexclude=a b\nexclude=c\n"))
  }

  @Test("HEAD has the head of GET and nothing behind it")
  func head() throws {
    let face = try listener()
    defer { face.stop() }
    let answer = try exchange(face, request("HEAD", "/here?a=b"))
    #expect(answer.hasPrefix("HTTP/1.1 503 "))
    #expect(answer.contains("\r\nContent-Length: 4\r\n"))
    #expect(answer.hasSuffix("\r\n\r\n"))
  }

  @Test("two requests share a connection")
  func keptAlive() throws {
    let face = try listener()
    defer { face.stop() }
    let answers = try exchange(
      face, "GET /here?a HTTP/1.1\r\nHost: x\r\n\r\n" + request("GET", "/here?b"))
    #expect(answers.components("HTTP/1.1 503 ") == 2)
    #expect(answers.contains("\r\n\r\na=\n"))
    #expect(answers.hasSuffix("\r\n\r\nb=\n"))
  }

  @Test(
    "what is not served is refused by its status",
    arguments: [
      ("GET", "/", "", "404"), ("GET", "/here/", "", "404"),
      ("POST", "/here", "Content-Length: 0\r\n", "405"),
      ("DELETE", "/here", "", "405"), ("PUT", "/here", "Content-Length: 99999999\r\n", "405"),
      ("GET", "/here", "Content-Length: 5\r\n", "413"),
      ("GET", "/here", "Transfer-Encoding: chunked\r\n", "413"),
    ])
  func refusals(method: String, target: String, more: String, status: String) throws {
    let face = try listener()
    defer { face.stop() }
    let answer = try exchange(face, request(method, target, more))
    #expect(answer.hasPrefix("HTTP/1.1 \(status) "))
    if status == "405" { #expect(answer.contains("\r\nAllow: GET, HEAD\r\n")) }
  }

  @Test("a head beyond the memory of a connection is refused, and the face lives on")
  func longHead() throws {
    let face = try listener()
    defer { face.stop() }
    let long = String(repeating: "x", count: 64 << 10)
    // The refusal may overtake the rest of the request: then the connection is reset.
    let answer = (try? exchange(face, request("GET", "/here", "X-Long: \(long)\r\n"))) ?? ""
    #expect(answer.isEmpty || answer.hasPrefix("HTTP/1.1 4"))
    #expect(try exchange(face, request("GET", "/here")).hasPrefix("HTTP/1.1 503 "))
  }

  @Test("connections beyond the limit get no answer until one goes")
  func connectionLimit() throws {
    var limits = HTTPLimits()
    limits.connectionsMax = 1
    let face = try listener(limits)
    defer { face.stop() }
    func holdAndAsk() throws -> String {
      let held = try Socket.connect(face.address, timeout: .seconds(5))
      try send(held.number, "GET /here?held HTTP/1.1\r\nHost: x\r\n\r\n")
      var byte: UInt8 = 0
      _ = try withUnsafeMutableBytes(of: &byte) { try Socket.receive(held.number, into: $0) }
      return (try? exchange(face, request("GET", "/here"))) ?? ""
    }
    #expect(try holdAndAsk().isEmpty)
    var answer = ""
    while answer.isEmpty { answer = (try? exchange(face, request("GET", "/here"))) ?? "" }
    #expect(answer.hasPrefix("HTTP/1.1 503 "))
  }

  @Test("an address that is taken is refused by name, and free again after stop")
  func address() throws {
    let face = try listener()
    #expect(throws: HTTPFaceError.listen(.addressInUse(face.address))) {
      _ = try HTTPListener(face.address) { _ in nil }
    }
    face.stop()
    face.stop()
    let again = try HTTPListener(face.address) { _ in HTTPAnswer(status: 200, body: "again") }
    #expect(try exchange(again, request("GET", "/")).hasSuffix("\r\n\r\nagain"))
    again.stop()
  }
}

extension String {
  /// How often a text occurs.
  fileprivate func components(_ part: String) -> Int {
    var count = 0
    var rest = self[...]
    while let range = rest.firstRange(of: part) {
      count += 1
      rest = rest[range.upperBound...]
    }
    return count
  }
}
