// What the HTTP face is asked and what it answers, as values.

/// A GET or HEAD request, decoded.
public struct HTTPRequest: Equatable, Sendable {
  /// `name` or `name=value` behind the question mark.
  public struct Argument: Equatable, Sendable {
    public let name: String
    /// Empty if there was none.
    public let value: String

    public init(_ name: String, _ value: String = "") {
      self.name = name
      self.value = value
    }
  }

  /// The path without arguments, percent signs resolved; what is no UTF-8 is replaced.
  public let path: String
  /// In the order of the request.
  public let arguments: [Argument]

  public init(path: String, arguments: [Argument] = []) {
    self.path = path
    self.arguments = arguments
  }
}

/// A whole answer.
public struct HTTPAnswer: Equatable, Sendable {
  /// `text/plain; charset=utf-8`
  public static let plainText = "text/plain; charset=utf-8"

  /// Status code, 200 to 599.
  public let status: Int
  /// Value of `Content-Type`.
  public let contentType: String
  public let body: String

  public init(status: Int, contentType: String = plainText, body: String) {
    self.status = status
    self.contentType = contentType
    self.body = body
  }
}

/// What a client may ask for of the face.
public struct HTTPLimits: Sendable {
  /// Connections at a time; one more waits with the kernel or is closed.
  public var connectionsMax = 64
  /// Seconds a connection may be silent, in a request or between two.
  public var idleSecondsMax = 10
  /// Memory of a connection: its request line and headers, and the head of the answer.
  public var connectionBytesMax = 16 << 10

  public init() {}
}
