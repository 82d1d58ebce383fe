// The HTTP face of a process, for probes and scrapers: an address, and a closure that says what is at a path. GET and
// HEAD alone, no bodies in, every limit named in HTTPLimits. Each connection has a thread, so that an answer that takes
// long holds nobody else up.

internal import CMicroHTTPD
import Glibc
public import Posix
import Synchronization

/// Why the face cannot be shown.
public enum HTTPFaceError: Error, Hashable, Sendable {
  /// The address is taken or is not ours.
  case listen(ListenError)
  /// The kernel has no thread or memory to give.
  case system(SystemError)
}

/// Serves HTTP/1.1 until it is stopped. Any thread may call.
public final class HTTPListener: Sendable {
  /// Says what is at a path; nil if nothing is. Called by the thread of the connection, by several at a time.
  public typealias Route = @Sendable (HTTPRequest) -> HTTPAnswer?

  /// Where it listens; the port is the real one if 0 was asked for.
  public let address: HostPort
  private let daemon: Mutex<Daemon?>

  /// Listens from here on.
  ///
  /// - Parameters:
  ///   - address: where; port 0 lets the kernel choose.
  ///   - limits: what clients may ask for.
  ///   - route: says what is at a path.
  /// - Throws: `HTTPFaceError`.
  public init(
    _ address: HostPort, limits: HTTPLimits = HTTPLimits(), route: @escaping Route
  ) throws(HTTPFaceError) {
    let socket: Descriptor
    do { socket = try Socket.listen(address, backlog: 128) } catch { throw .listen(error) }
    do { self.address = try Socket.localAddress(socket.number) } catch { throw .system(error) }
    let routes = Routes(route)
    // The daemon owns the socket from the start on, also if the start fails.
    let number = socket.release()
    guard
      let raw = rms_http_start(
        number, UInt32(limits.connectionsMax), UInt32(limits.idleSecondsMax), limits.connectionBytesMax,
        answerConnection, Unmanaged.passUnretained(routes).toOpaque())
    else { throw .system(SystemError(call: "MHD_start_daemon", errno: .current)) }
    daemon = Mutex(Daemon(raw, routes))
  }

  /// Closes the address and all connections; returns when no answer is under way any more. The second call does nothing.
  public func stop() {
    let daemon = daemon.withLock { $0.take() }
    _ = consume daemon
  }
}

/// The running server of libmicrohttpd.
private struct Daemon: ~Copyable, @unchecked Sendable {
  // Unchecked: the handle is used once, to stop it.
  private let raw: OpaquePointer
  /// The library has its address.
  private let routes: Routes

  init(_ raw: OpaquePointer, _ routes: Routes) {
    self.raw = raw
    self.routes = routes
  }

  deinit { MHD_stop_daemon(raw) }
}

/// The closure, in a box whose address the library carries.
private final class Routes: Sendable {
  let route: HTTPListener.Route

  init(_ route: @escaping HTTPListener.Route) { self.route = route }
}

// MHD_AccessHandlerCallback: called inside a connection's thread, first when the headers are there, again when the
// request is whole. Refusals are answered at once, which closes the connection behind them; `stage` marks the first call.
private func answerConnection(
  context: UnsafeMutableRawPointer?, connection: OpaquePointer?, url: UnsafePointer<CChar>?,
  method: UnsafePointer<CChar>?, version: UnsafePointer<CChar>?, body: UnsafePointer<CChar>?,
  bodyBytes: UnsafeMutablePointer<Int>?, stage: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> MHD_Result {
  guard let context, let connection, let url, let method, let stage else { return rms_http_no }
  if stage.pointee == nil {
    stage.pointee = context
    let method = String(cString: method)
    guard method == "GET" || method == "HEAD" else {
      return send(
        HTTPAnswer(status: 405, body: "only GET and HEAD are answered here\n"), to: connection,
        header: ("Allow", "GET, HEAD"))
    }
    guard header("Transfer-Encoding", of: connection) == nil,
      (header("Content-Length", of: connection) ?? "0") == "0"
    else { return send(HTTPAnswer(status: 413, body: "a request has no body here\n"), to: connection) }
    return rms_http_yes
  }
  let routes = Unmanaged<Routes>.fromOpaque(context).takeUnretainedValue()
  let request = HTTPRequest(path: String(cString: url), arguments: arguments(of: connection))
  return send(
    routes.route(request) ?? HTTPAnswer(status: 404, body: "nothing is at this path\n"), to: connection)
}

/// Queues an answer; the library copies it. HEAD gets its head alone.
private func send(
  _ answer: HTTPAnswer, to connection: OpaquePointer, header: (name: String, value: String)? = nil
) -> MHD_Result {
  var body = answer.body
  let made = body.withUTF8 { MHD_create_response_from_buffer_copy($0.count, $0.baseAddress) }
  guard let made else { return rms_http_no }
  defer { MHD_destroy_response(made) }
  _ = MHD_add_response_header(made, "Content-Type", answer.contentType)
  _ = MHD_add_response_header(made, "X-Content-Type-Options", "nosniff")
  _ = MHD_add_response_header(made, "Cache-Control", "no-store")
  if let header { _ = MHD_add_response_header(made, header.name, header.value) }
  return MHD_queue_response(connection, UInt32(answer.status), made)
}

private func header(_ name: String, of connection: OpaquePointer) -> String? {
  MHD_lookup_connection_value(connection, rms_http_header, name).map { String(cString: $0) }
}

private func arguments(of connection: OpaquePointer) -> [HTTPRequest.Argument] {
  var found: [HTTPRequest.Argument] = []
  withUnsafeMutablePointer(to: &found) { place in
    _ = MHD_get_connection_values(
      connection, rms_http_argument,
      { place, _, name, value in
        if let place, let name {
          place.assumingMemoryBound(to: [HTTPRequest.Argument].self).pointee.append(
            HTTPRequest.Argument(String(cString: name), value.map { String(cString: $0) } ?? ""))
        }
        return rms_http_yes
      }, place)
  }
  return found
}
