// A listening socket: where it listens, and connections one at a time.

public import Posix

/// An accepted connection that nobody owns yet.
@frozen public struct Accepted: Hashable, Sendable, BitwiseCopyable {
  /// Non-blocking, with TCP_NODELAY and keepalive; whoever takes it closes it.
  public let descriptor: Int32
  public let peer: PeerAddress
}

/// What accepting brought.
public enum AcceptOutcome: Hashable, Sendable {
  case connection(Accepted)
  /// Nobody waits.
  case none
  /// The process has no descriptor left; the connection stays in the kernel's queue.
  case noDescriptors
}

/// A listening socket; closed when it goes.
public struct Listener: ~Copyable, Sendable {
  private let socket: Descriptor
  /// Where it listens, with the port the kernel chose if 0 was asked.
  public let address: HostPort

  /// - Parameter address: where to listen; port 0 lets the kernel choose.
  /// - Throws: `ListenError`, which names the address.
  public init(_ address: HostPort) throws(ListenError) {
    let socket = try Socket.listen(address)
    let local = Result { () throws(SystemError) in try Socket.localAddress(socket.number) }
    self.socket = socket
    switch local {
    case .success(let bound): self.address = bound
    // Nothing about the address is wrong then; connecting will tell.
    case .failure: self.address = address
    }
  }

  /// Watch this for reading.
  public var descriptor: Int32 { socket.number }

  /// Takes a waiting connection. Connections that broke before they were taken are skipped.
  ///
  /// - Returns: the connection, or why there is none.
  /// - Throws: `SystemError` for what is not told by the outcome.
  public borrowing func accept() throws(SystemError) -> AcceptOutcome {
    while true {
      do throws(SystemError) {
        guard let (descriptor, peer) = try Socket.accept(socket.number) else { return .none }
        do throws(SystemError) {
          try Socket.setNoDelay(descriptor)
          try Socket.setKeepAlive(descriptor)
        } catch {
          SystemCall.close(descriptor)
          continue
        }
        return .connection(Accepted(descriptor: descriptor, peer: peer))
      } catch {
        switch error.errno {
        case .connectionAborted, .connectionReset, .timedOut, .hostUnreachable: continue
        case .tooManyDescriptors, .tooManyFilesInSystem, .noMemory: return .noDescriptors
        default: throw error
        }
      }
    }
  }
}
