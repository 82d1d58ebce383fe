// Bytes that wait for a socket: what was appended, up to where it may be sent, how much may wait at most. Pure: the
// caller sends what `ready` lends and tells how much went.
//
//     0        head            mark           tail         limit counts tail - head
//     ├─ sent ──┼─ may be sent ──┼─ gathering ──┤

/// Pending output of one connection. Holds no memory while it is empty.
public struct OutputQueue: ~Copyable {
  /// Most bytes that may wait.
  public let bytesMax: Int
  private var memory: UnsafeMutableRawPointer?
  private var capacity = 0
  private var head = 0
  private var mark = 0
  private var tail = 0

  /// - Parameter bytesMax: most bytes that may wait.
  public init(bytesMax: Int) { self.bytesMax = bytesMax }

  deinit { memory?.deallocate() }

  /// Bytes that wait, flushed or not.
  public var count: Int { tail - head }

  /// Whether nothing waits.
  public var isEmpty: Bool { head == tail }

  /// Memory held, in bytes.
  public var bytesHeld: Int { capacity }

  /// Appends bytes.
  ///
  /// - Parameter bytes: copied.
  /// - Returns: false if they would pass `bytesMax`; nothing is appended then.
  /// - Complexity: O(bytes), amortised.
  public mutating func append(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard bytes.count <= bytesMax - count else { return false }
    guard let source = bytes.baseAddress, bytes.count > 0 else { return true }
    makeRoom(bytes.count)
    guard let memory else { return false }
    (memory + tail).copyMemory(from: source, byteCount: bytes.count)
    tail += bytes.count
    return true
  }

  /// Lets everything appended so far be sent.
  public mutating func flush() { mark = tail }

  /// Lends the bytes that may be sent; valid until the next change.
  public var ready: UnsafeRawBufferPointer {
    guard let memory else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    return UnsafeRawBufferPointer(start: memory + head, count: mark - head)
  }

  /// Drops bytes that were sent; gives the memory back once nothing waits.
  ///
  /// - Parameter count: 0...`ready.count`.
  public mutating func sent(_ count: Int) {
    precondition(count >= 0 && count <= mark - head, "sent \(count) of \(mark - head) bytes")
    head += count
    if head == tail { removeAll() }
  }

  /// Forgets all and gives the memory back.
  public mutating func removeAll() {
    memory?.deallocate()
    memory = nil
    capacity = 0
    head = 0
    mark = 0
    tail = 0
  }

  private mutating func makeRoom(_ more: Int) {
    if tail + more <= capacity { return }
    let pending = count
    if let memory, pending + more <= capacity {
      memory.copyMemory(from: memory + head, byteCount: pending)
    } else {
      let larger = min(max(4096, capacity * 2, pending + more), max(bytesMax, pending + more))
      let fresh = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
      if let memory {
        fresh.copyMemory(from: memory + head, byteCount: pending)
        memory.deallocate()
      }
      memory = fresh
      capacity = larger
    }
    mark -= head
    head = 0
    tail = pending
  }
}
