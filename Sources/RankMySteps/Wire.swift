// The socket under a client: sends all, receives some, both until a moment. While it waits to send it receives as
// well, so that two sides that both wait to send never wait for each other.

internal import Bytes
internal import Glibc
internal import Posix
internal import QueryProtocol

/// A connected, non-blocking socket and the bytes received from it. One thread.
final class Wire {
  private let socket: Descriptor
  private var input: ByteWriter
  /// Bytes of `input` that are done with.
  private var consumed = 0

  /// Bytes asked of the kernel at once.
  private static let chunkBytes = 65_536

  /// Connects.
  ///
  /// - Parameters:
  ///   - target: whom; its addresses are tried in turn.
  ///   - timeout: longest wait for each address.
  /// - Throws: `SystemError` that names the target.
  init(_ target: HostPort, timeout: Duration) throws(SystemError) {
    socket = try Wire.connect(target, timeout: timeout)
    input = ByteWriter(
      limit: Limits.lengthBytes + Limits.frameOutBytesMax + 2 * Wire.chunkBytes, reserved: 4_096)
  }

  private static func connect(_ target: HostPort, timeout: Duration) throws(SystemError) -> Descriptor {
    var last = SystemError(call: "getaddrinfo", errno: .addressNotAvailable)
    for address in SocketAddress.resolve(target) {
      do throws(SystemError) {
        let socket = try Socket.startConnecting(address)
        guard try wait(socket.number, POLLOUT, until: Clock.system.now + timeout) != 0 else {
          throw SystemError(call: "connect", errno: .timedOut)
        }
        if let error = try Socket.pendingError(socket.number) {
          throw SystemError(call: "connect", errno: error)
        }
        return socket
      } catch { last = error }
    }
    throw last.about(target.description)
  }

  /// Waits for readiness.
  ///
  /// - Returns: the events that came; 0 if none did in time.
  private static func wait(_ number: Int32, _ events: Int32, until: Moment) throws(SystemError) -> Int32 {
    while true {
      let left = until - Clock.system.now
      guard left > .zero else { return 0 }
      var ready = pollfd(fd: number, events: Int16(events), revents: 0)
      let milliseconds = Int32(clamping: (left.nanoseconds + 999_999) / 1_000_000)
      if try SystemCall.run("poll", { poll(&ready, 1, milliseconds) }) > 0 { return Int32(ready.revents) }
    }
  }

  /// What came and is not done with.
  var received: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: input.unsafeBytes[consumed...]) }

  /// Received bytes are done with.
  func drop(_ count: Int) {
    consumed += count
    precondition(consumed <= input.count, "dropped \(consumed) of \(input.count) received bytes")
    if consumed == input.count {
      input.removeAll()
      consumed = 0
    }
  }

  /// How waiting ended.
  enum Outcome {
    case done
    case late
    case ended(String)
  }

  /// Sends everything.
  ///
  /// - Parameters:
  ///   - bytes: what to send.
  ///   - until: when to give up; what was sent by then is sent.
  /// - Returns: `done`, `late` or how the connection ended.
  func send(_ bytes: UnsafeRawBufferPointer, until: Moment) -> Outcome {
    var sent = 0
    do throws(SystemError) {
      while sent < bytes.count {
        if let count = try Socket.send(socket.number, UnsafeRawBufferPointer(rebasing: bytes[sent...])) {
          sent += count
          continue
        }
        let hasRoom = input.count - consumed <= Limits.frameOutBytesMax
        let ready = try Wire.wait(socket.number, hasRoom ? POLLOUT | POLLIN : POLLOUT, until: until)
        if ready == 0 { return .late }
        if ready & POLLIN != 0, case .ended(let why) = try fill() { return .ended(why) }
      }
      return .done
    } catch { return .ended("\(error)") }
  }

  /// Receives what is there, and waits for something if nothing is.
  ///
  /// - Parameter until: when to give up.
  /// - Returns: `done` if bytes came, `late`, or how the connection ended.
  func receive(until: Moment) -> Outcome {
    do throws(SystemError) {
      while true {
        if let outcome = try fill() { return outcome }
        if try Wire.wait(socket.number, POLLIN, until: until) == 0 { return .late }
      }
    } catch { return .ended("\(error)") }
  }

  /// Reads once.
  ///
  /// - Returns: nil if nothing is there.
  private func fill() throws(SystemError) -> Outcome? {
    if consumed > 0 {
      input.removeFirst(consumed)
      consumed = 0
    }
    let before = input.count
    guard let place = input.extend(by: Wire.chunkBytes) else {
      input.truncate(to: before)
      return nil
    }
    let buffer = UnsafeMutableRawBufferPointer(start: place, count: Wire.chunkBytes)
    let count: Int?
    do throws(SystemError) { count = try Socket.receive(socket.number, into: buffer) } catch {
      input.truncate(to: before)
      throw error
    }
    input.truncate(to: before + (count ?? 0))
    guard let count else { return nil }
    return count == 0 ? .ended("the node closed it") : .done
  }
}
