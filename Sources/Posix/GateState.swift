// Who may enter a shard's gate, and who is to be woken: the rules of `Gate` without threads.
//
//     event          rule
//     reader comes   enters beside readers; waits for the end of a turn under way, or of the next one once
//                    `readersPassingMax` readers passed the writer that waits
//     reader leaves  the last one wakes the first writer that waits
//     writer comes   enters if nobody is inside or waits to write; else it draws a ticket
//     writer runs    enters if it is the first and nobody is inside; else it waits on, and is woken again
//     writer leaves  lets in all readers that wait; if there are none, wakes the first writer that waits

/// Who is inside a gate and who waits. A value: the gate's owner keeps it under a lock and wakes whom it says.
///
/// - Complexity: O(1) for every event.
struct GateState: Equatable {
  /// Readers that may enter while the same writer waits. A woken writer takes 50 µs to run, a turn of readers some
  /// 10 µs: few reach the limit, and those who do wait no longer than they all did before.
  static let readersPassingMax = 32

  /// Whether who came is inside.
  enum Entry: Equatable {
    case inside
    /// Not yet: asks again by this number, when woken.
    case waits(UInt64)
  }

  /// Whom an event lets go on.
  enum Wake: Equatable {
    case nobody
    /// All that wait to read: they are inside.
    case readers
    /// The writer that waits, alone; it enters when it runs.
    case writer
    /// The first of several writers: all look whether it is they.
    case writers
  }

  private(set) var isWriting = false
  /// Readers inside, those among them that were let in and do not run yet included.
  private(set) var reading = 0
  private(set) var readersWaiting = 0
  private(set) var writersWaiting = 0
  /// Readers that entered since the first of the waiting writers became the first.
  private var passed = 0
  /// Counts the times that waiting readers were let in: whoever waits since an earlier number is inside.
  private var readerPhase: UInt64 = 0
  /// Tickets of writers: served in order.
  private var ticketNext: UInt64 = 0
  private var ticketServed: UInt64 = 0

  /// A reader comes.
  mutating func readerCame() -> Entry {
    if isWriting || (writersWaiting > 0 && passed == GateState.readersPassingMax) {
      readersWaiting += 1
      return .waits(readerPhase)
    }
    if writersWaiting > 0 { passed += 1 }
    reading += 1
    return .inside
  }

  /// Whether a reader is inside that was told to wait.
  func isReaderInside(_ phase: UInt64) -> Bool { readerPhase != phase }

  /// A reader leaves.
  mutating func readerLeft() -> Wake {
    precondition(reading > 0, "a reader left that had not entered")
    reading -= 1
    return reading == 0 ? wakeWriter : .nobody
  }

  /// A writer comes.
  mutating func writerCame() -> Entry {
    if !isWriting && reading == 0 && writersWaiting == 0 {
      isWriting = true
      return .inside
    }
    writersWaiting += 1
    ticketNext += 1
    return .waits(ticketNext)
  }

  /// A writer that was told to wait runs.
  ///
  /// - Returns: whether it is inside now.
  mutating func writerRuns(_ ticket: UInt64) -> Bool {
    precondition(ticket > ticketServed, "the writer with ticket \(ticket) was inside already")
    guard ticket == ticketServed + 1 && !isWriting && reading == 0 else { return false }
    ticketServed = ticket
    writersWaiting -= 1
    passed = 0
    isWriting = true
    return true
  }

  /// A writer leaves.
  mutating func writerLeft() -> Wake {
    precondition(isWriting, "a writer left that had not entered")
    isWriting = false
    guard readersWaiting > 0 else { return wakeWriter }
    reading += readersWaiting
    readersWaiting = 0
    readerPhase += 1
    return .readers
  }

  private var wakeWriter: Wake {
    switch writersWaiting {
    case 0: .nobody
    case 1: .writer
    default: .writers
    }
  }
}
