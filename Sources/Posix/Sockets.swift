// TCP sockets: addresses, the calls on them, and what goes wrong with a listener, by name.

import CLinux
import Glibc

/// A host and a port, as settings and messages write them.
public struct HostPort: Hashable, Sendable, CustomStringConvertible {
  /// A name or address, without brackets.
  public let host: String
  public let port: UInt16

  public init(host: String, port: UInt16) {
    self.host = host
    self.port = port
  }

  /// Reads `host:port` or `[v6]:port`; nil if it is neither, or the port is over 65,535.
  public init?(_ text: String) {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
      return nil
    }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = host.dropFirst().dropLast()
    } else if host.contains(":") {
      return nil
    }
    guard !host.isEmpty else { return nil }
    self.init(host: String(host), port: port)
  }

  /// `127.0.0.1:7670`, `[::1]:7670`.
  public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// A resolved address of the kernel's.
public struct SocketAddress: Hashable, Sendable {
  /// The bytes of a `sockaddr`, as many as the family has.
  fileprivate let bytes: [UInt8]
  fileprivate let family: Int32

  /// Resolves a host and port. Blocks where a name server is asked. C: `getaddrinfo`.
  ///
  /// - Parameter target: whom.
  /// - Returns: its addresses, best first; empty if the name is unknown.
  public static func resolve(_ target: HostPort) -> [SocketAddress] {
    var hints = addrinfo()
    hints.ai_socktype = rms_sock_stream_plain
    hints.ai_flags = AI_NUMERICSERV
    var list: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(target.host, String(target.port), &hints, &list) == 0 else { return [] }
    defer { freeaddrinfo(list) }
    var found: [SocketAddress] = []
    var next = list
    while let entry = next {
      if let address = entry.pointee.ai_addr {
        let raw = UnsafeRawBufferPointer(start: address, count: Int(entry.pointee.ai_addrlen))
        found.append(SocketAddress(bytes: [UInt8](raw), family: entry.pointee.ai_family))
      }
      next = entry.pointee.ai_next
    }
    return found
  }

  fileprivate func with<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
    bytes.withUnsafeBytes { raw in
      // Bytes of a `sockaddr`, copied from one.
      body(raw.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(raw.count))
    }
  }

  /// The host and port in digits.
  public var hostPort: HostPort? {
    var host = [CChar](repeating: 0, count: 64)
    var port = [CChar](repeating: 0, count: 8)
    let result = with { address, length in
      getnameinfo(
        address, length, &host, socklen_t(host.count), &port, socklen_t(port.count),
        NI_NUMERICHOST | NI_NUMERICSERV)
    }
    func text(_ bytes: [CChar]) -> String {
      String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    guard result == 0, let number = UInt16(text(port)) else { return nil }
    return HostPort(host: text(host), port: number)
  }
}

/// Why an address cannot be listened on.
public enum ListenError: Error, Hashable, Sendable {
  /// Another process listens there.
  case addressInUse(HostPort)
  /// Ports below 1024 need a capability this process has not.
  case notPermitted(HostPort)
  /// No interface of this machine has the address, or the name is unknown.
  case notOurs(HostPort)
  /// Anything else the kernel refused.
  case failed(HostPort, SystemError)
}

extension ListenError: CustomStringConvertible {
  /// One sentence with the address and the remedy.
  public var description: String {
    switch self {
    case .addressInUse(let address):
      "cannot listen on \(address): another process has it; stop that one or choose another address"
    case .notPermitted(let address):
      "cannot listen on \(address): not permitted; ports below 1024 need CAP_NET_BIND_SERVICE"
    case .notOurs(let address):
      "cannot listen on \(address): no such address on this machine"
    case .failed(let address, let error):
      "cannot listen on \(address): \(error)"
    }
  }
}

/// Calls on TCP sockets. Every function is callable from any thread.
public enum Socket {
  /// Opens a listening socket, non-blocking. C: `socket`, `bind`, `listen`.
  ///
  /// - Parameters:
  ///   - address: where; port 0 lets the kernel choose.
  ///   - backlog: connections the kernel keeps until they are accepted.
  /// - Returns: the socket.
  /// - Throws: `ListenError`.
  public static func listen(_ address: HostPort, backlog: Int32 = 1024) throws(ListenError) -> Descriptor {
    guard let target = SocketAddress.resolve(address).first else { throw .notOurs(address) }
    do throws(SystemError) {
      let number = try SystemCall.run("socket") {
        socket(target.family, rms_sock_stream | rms_sock_nonblock, 0)
      }
      let descriptor = Descriptor(owning: number)
      try set(number, SOL_SOCKET, SO_REUSEADDR, 1)
      try SystemCall.run("bind") { target.with { bind(number, $0, $1) } }
      try SystemCall.run("listen") { Glibc.listen(number, backlog) }
      return descriptor
    } catch {
      switch error.errno {
      case .addressInUse: throw .addressInUse(address)
      case .accessDenied, .notPermitted: throw .notPermitted(address)
      case .addressNotAvailable: throw .notOurs(address)
      default: throw .failed(address, error)
      }
    }
  }

  /// Takes a waiting connection, non-blocking. C: `accept4`.
  ///
  /// - Parameter listener: the listening socket.
  /// - Returns: the connection's descriptor, to be closed by the caller, and its peer; nil if none waits.
  /// - Throws: `SystemError`; `tooManyDescriptors` and `connectionAborted` among them.
  public static func accept(
    _ listener: Int32
  ) throws(SystemError) -> (descriptor: Int32, peer: PeerAddress)? {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let number = try withUnsafeMutableBytes(of: &storage) { (raw) throws(SystemError) in
      try SystemCall.value("accept4") {
        accept4(listener, raw.baseAddress!.assumingMemoryBound(to: sockaddr.self), &length, rms_accept_flags)
      }
    }
    guard let number else { return nil }
    let peer = withUnsafeBytes(of: &storage) {
      PeerAddress(UnsafeRawBufferPointer(rebasing: $0[..<Int(length)]))
    }
    return (number, peer)
  }

  /// Connects and waits for it. The socket is blocking afterwards, with TCP_NODELAY. C: `connect`.
  ///
  /// - Parameters:
  ///   - target: whom; its addresses are tried in turn.
  ///   - timeout: longest wait for each address.
  /// - Returns: the connection.
  /// - Throws: `SystemError` about the target: `connectionRefused`, `timedOut`, `hostUnreachable`;
  ///   `addressNotAvailable` if the name is unknown.
  public static func connect(_ target: HostPort, timeout: Duration) throws(SystemError) -> Descriptor {
    var last = SystemError(call: "getaddrinfo", errno: .addressNotAvailable)
    for address in SocketAddress.resolve(target) {
      do throws(SystemError) {
        let connection = try startConnecting(address)
        var ready = pollfd(fd: connection.number, events: Int16(POLLOUT), revents: 0)
        let milliseconds = Int32(clamping: max(1, timeout.nanoseconds / 1_000_000))
        guard try SystemCall.run("poll", { poll(&ready, 1, milliseconds) }) > 0 else {
          throw SystemError(call: "connect", errno: .timedOut)
        }
        if let error = try pendingError(connection.number) {
          throw SystemError(call: "connect", errno: error)
        }
        let flags = try SystemCall.run("fcntl") { fcntl(connection.number, F_GETFL) }
        try SystemCall.run("fcntl") { fcntl(connection.number, F_SETFL, flags & ~O_NONBLOCK) }
        return connection
      } catch { last = error }
    }
    throw last.about(target.description)
  }

  /// Starts to connect, non-blocking, with TCP_NODELAY: writable once it is there or has failed. C: `connect`.
  ///
  /// - Parameter address: whom.
  /// - Returns: the socket; ask `pendingError` when it becomes writable.
  /// - Throws: `SystemError`.
  public static func startConnecting(_ address: SocketAddress) throws(SystemError) -> Descriptor {
    let number = try SystemCall.run("socket") {
      socket(address.family, rms_sock_stream | rms_sock_nonblock, 0)
    }
    let descriptor = Descriptor(owning: number)
    try setNoDelay(number)
    do throws(SystemError) {
      try SystemCall.run("connect") { address.with { Glibc.connect(number, $0, $1) } }
    } catch {
      guard error.errno == .inProgress else { throw error }
    }
    return descriptor
  }

  /// What became of a connect, or of the connection. C: `getsockopt(SO_ERROR)`.
  ///
  /// - Parameter descriptor: the socket.
  /// - Returns: the errno that waits there; nil if none does.
  /// - Throws: `SystemError`.
  public static func pendingError(_ descriptor: Int32) throws(SystemError) -> Errno? {
    var value: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    try SystemCall.run("getsockopt") { getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &value, &length) }
    return value == 0 ? nil : Errno(rawValue: value)
  }

  /// Sends small writes at once instead of gathering them. C: `TCP_NODELAY`.
  ///
  /// - Parameter descriptor: a TCP socket.
  /// - Throws: `SystemError`.
  public static func setNoDelay(_ descriptor: Int32) throws(SystemError) {
    try set(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
  }

  /// Lets the kernel find peers that vanished: after 120 s of silence, every 60 s, 3 times. C: `SO_KEEPALIVE`.
  ///
  /// - Parameter descriptor: a TCP socket.
  /// - Throws: `SystemError`.
  public static func setKeepAlive(_ descriptor: Int32) throws(SystemError) {
    try set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1)
    try set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPIDLE, 120)
    try set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPINTVL, 60)
    try set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPCNT, 3)
  }

  /// Sends what the socket takes; a peer that is gone is an error, never SIGPIPE. C: `send`.
  ///
  /// - Parameters:
  ///   - descriptor: the socket.
  ///   - bytes: what to send.
  /// - Returns: bytes taken; nil if it would block.
  /// - Throws: `SystemError`; `brokenPipe` and `connectionReset` among them.
  public static func send(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) throws(SystemError) -> Int? {
    try SystemCall.value("send") {
      Glibc.send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
    }
  }

  /// Receives what is there. C: `recv`.
  ///
  /// - Parameters:
  ///   - descriptor: the socket.
  ///   - buffer: where the bytes go.
  /// - Returns: bytes received, 0 once the peer has finished; nil if it would block.
  /// - Throws: `SystemError`; `connectionReset` among them.
  public static func receive(
    _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer
  ) throws(SystemError) -> Int? {
    try SystemCall.value("recv") { recv(descriptor, buffer.baseAddress, buffer.count, 0) }
  }

  /// Tells the peer that nothing more will be sent. C: `shutdown(SHUT_WR)`.
  ///
  /// - Parameter descriptor: the socket; a peer that is gone already is no error.
  public static func finishSending(_ descriptor: Int32) { shutdown(descriptor, Int32(SHUT_WR)) }

  /// The address a socket is bound to, with the port the kernel chose. C: `getsockname`.
  ///
  /// - Parameter descriptor: the socket.
  /// - Returns: host and port in digits.
  /// - Throws: `SystemError`.
  public static func localAddress(_ descriptor: Int32) throws(SystemError) -> HostPort {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    try withUnsafeMutableBytes(of: &storage) { (raw) throws(SystemError) in
      _ = try SystemCall.run("getsockname") {
        getsockname(descriptor, raw.baseAddress!.assumingMemoryBound(to: sockaddr.self), &length)
      }
    }
    let bytes = withUnsafeBytes(of: &storage) { [UInt8]($0[..<Int(length)]) }
    guard let address = SocketAddress(bytes: bytes, family: Int32(storage.ss_family)).hostPort else {
      throw SystemError(call: "getnameinfo", errno: .invalid)
    }
    return address
  }

  /// Sets the kernel's buffers of a socket. C: `SO_SNDBUF`, `SO_RCVBUF`.
  ///
  /// - Parameters:
  ///   - descriptor: the socket.
  ///   - sendBytes: bytes to hold for sending; nil leaves the kernel to choose.
  ///   - receiveBytes: bytes to hold that were received; nil leaves the kernel to choose.
  /// - Throws: `SystemError`.
  public static func setBuffers(
    _ descriptor: Int32, sendBytes: Int? = nil, receiveBytes: Int? = nil
  ) throws(SystemError) {
    if let sendBytes { try set(descriptor, SOL_SOCKET, SO_SNDBUF, Int32(clamping: sendBytes)) }
    if let receiveBytes { try set(descriptor, SOL_SOCKET, SO_RCVBUF, Int32(clamping: receiveBytes)) }
  }

  private static func set(
    _ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int32
  ) throws(SystemError) {
    var value = value
    try SystemCall.run("setsockopt") {
      setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
    }
  }
}

/// Who is at the other end, without its port: what limits an address count by.
@frozen public struct PeerAddress: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  /// The address in 16 bytes, big-endian; IPv4 as `::ffff:a.b.c.d`.
  public let high: UInt64
  public let low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  fileprivate init(_ raw: UnsafeRawBufferPointer) {
    func big(_ offset: Int) -> UInt64 {
      UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    let family = raw.count >= 2 ? Int32(raw.loadUnaligned(as: UInt16.self)) : 0
    if family == AF_INET, raw.count >= 8 {
      let address = UInt32(bigEndian: raw.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
      self.init(high: 0, low: 0xFFFF_0000_0000 | UInt64(address))
    } else if family == AF_INET6, raw.count >= 24 {
      self.init(high: big(8), low: big(16))
    } else {
      self.init(high: 0, low: 0)
    }
  }

  /// `127.0.0.1`, or the IPv6 address in full hexadecimal groups.
  public var description: String {
    if high == 0, low >> 32 == 0xFFFF {
      return (0..<4).map { String(low >> UInt64(24 - 8 * $0) & 255) }.joined(separator: ".")
    }
    return [high, low].flatMap { half in
      (0..<4).map { String(half >> UInt64(48 - 16 * $0) & 0xFFFF, radix: 16) }
    }.joined(separator: ":")
  }
}
