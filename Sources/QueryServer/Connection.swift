// A client's connection: its socket, its session, and the bytes kept for it. Owned by one reactor thread at a time.

internal import Posix
internal import QueryProtocol
internal import Transport

/// One connection. Unchecked: one reactor's thread owns it, and hands it on through a mailbox.
final class Connection: @unchecked Sendable {
  let descriptor: Int32
  let peer: PeerAddress
  /// Whether it counts in `Admission`.
  let isAdmitted: Bool
  var session: SessionState
  /// Answers that the socket did not take at once.
  var output: OutputQueue
  /// Received bytes that are not consumed: a part of a frame, or requests that wait for their turn.
  var kept: [UInt8] = []
  /// The frames of `session.waiting`, index by index.
  private(set) var waitingFrames: [UnsafeRawBufferPointer] = []
  private var waitingBytes = 0

  var registration: Registration?
  var interest: Readiness = []
  /// The worker it was handed to first; it returns there.
  var worker: Int?
  /// The peer sends no more; what is asked is still answered.
  var peerFinished = false
  /// Whole requests may lie in `kept`, to be looked at without waiting for the socket.
  var hasMore = false
  /// The watermarks moved since its waiting requests were asked.
  var wantsRetry = false
  var isInAgain = false
  var isInParked = false
  /// Set once nothing more is answered: input is thrown away until the peer closes or this passes.
  var lingerUntil: Moment?
  /// Moment of its earliest timer; `.never` if none is set.
  var timerAt = Moment.never
  /// Bytes it counted for when last looked at.
  var bytesCounted = 0

  init(
    _ accepted: Accepted, isAdmitted: Bool, limits: ServerLimits, roles: Roles, now: Moment,
    outputBytesMax: Int
  ) {
    descriptor = accepted.descriptor
    peer = accepted.peer
    self.isAdmitted = isAdmitted
    session = SessionState(limits, roles: roles, now: now)
    output = OutputQueue(bytesMax: outputBytesMax)
  }

  /// Bytes held for it.
  var bytesHeld: Int { kept.capacity + output.bytesHeld + waitingBytes }

  /// Keeps the frame of a request that waits for a watermark.
  func keepWaiting(_ frame: UnsafeRawBufferPointer) {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: frame.count, alignment: 8)
    copy.copyMemory(from: frame)
    waitingFrames.append(UnsafeRawBufferPointer(copy))
    waitingBytes += frame.count
  }

  /// Drops a waiting request that is answered.
  func dropWaiting(at index: Int) {
    session.answered(at: index)
    let frame = waitingFrames.remove(at: index)
    waitingBytes -= frame.count
    frame.deallocate()
  }

  deinit { for frame in waitingFrames { frame.deallocate() } }

  /// Whether nothing is owed to the client.
  var isSettled: Bool { session.waiting.isEmpty && output.isEmpty && !hasMore }
}
