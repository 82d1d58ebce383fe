// A socket with its connection's state, on the session's thread: sends what the state writes, hands it what comes.

internal import Posix
internal import Transport

final class SessionLink {
  let id: PoolState.LinkID
  let target: HostPort
  let socket: Descriptor
  var state: ConnectionState
  var registration: Registration?
  /// What the socket is watched for; for the connect at first.
  var interest = Readiness.writable
  var isConnecting = true
  /// Until when the connect may take.
  let connectUntil: Moment
  var out = WireWriter()
  private var output: OutputQueue
  private(set) var waitsToSend = false
  /// Stands in the loop's list of links with something to send.
  var isDirty = false

  /// Bytes read from one socket before others get a turn.
  static let readBytesMax = 256 << 10

  init(
    _ id: PoolState.LinkID, _ target: HostPort, _ socket: consuming Descriptor, _ state: ConnectionState,
    connectUntil: Moment, outputBytesMax: Int
  ) {
    self.id = id
    self.target = target
    self.socket = socket
    self.state = state
    self.connectUntil = connectUntil
    // Whoever checks `isCongested` before asking leaves room for one request of the longest kind.
    output = OutputQueue(bytesMax: outputBytesMax + 2 * CQLLimits.requestBytesMax)
    congestedAbove = outputBytesMax
  }

  private let congestedAbove: Int

  /// Whether so much waits that other nodes should be asked.
  var isCongested: Bool { output.count + out.count > congestedAbove }

  /// Sends what was written; what the socket does not take waits.
  func send() throws(SystemError) {
    state.flush(into: &out)
    if out.count > 0 {
      var sent = 0
      if output.isEmpty {
        let bytes = out.bytes
        sent = try bytes.withUnsafeBytes { raw in
          Result { () throws(SystemError) in try Socket.send(socket.number, raw) ?? 0 }
        }.get()
      }
      if sent < out.count {
        let isQueued = out.bytes.withUnsafeBytes { raw in
          output.append(UnsafeRawBufferPointer(rebasing: raw[sent...]))
        }
        precondition(isQueued, "\(out.count - sent) bytes for \(target) beyond what may wait")
        output.flush()
      }
      out.bytes.removeAll(keepingCapacity: out.bytes.capacity <= 1 << 20)
    }
    while !output.isEmpty {
      guard let count = try Socket.send(socket.number, output.ready) else { break }
      output.sent(count)
    }
    waitsToSend = !output.isEmpty
  }

  /// Reads what is there, up to the buffer; false if nothing is.
  func receive(
    into buffer: UnsafeMutableRawBufferPointer, at now: Moment, _ actions: inout [ConnectionState.Action]
  ) throws(SystemError) -> Bool {
    guard let count = try Socket.receive(socket.number, into: buffer) else { return false }
    guard count > 0 else {
      state.ended(.lost("the server closed it"), into: &actions)
      return false
    }
    state.received(UnsafeRawBufferPointer(rebasing: buffer[..<count]), at: now, into: &out, &actions)
    return true
  }
}
