// Applying a batch: groups of 32 events go through stages, each of which asks for the memory that the next will need,
// so that the waits of 32 events overlap instead of adding up.
//
//   1  hash the user                      -> the slot's line
//   2  guess the number from the slot     -> the id, the records
//   3  find or make the number, for sure  -> the places to leave and to enter
//   4  see who will move                  -> their records
//   5  apply, one event after the other
//
// While an image is alive (FrozenBoards), what it still needs of the group's users is saved after stage 3.
//
// Stages 1, 2 and 4 only ask for memory; what they saw may be stale by stage 5 (the same user twice in a group, a block
// split), and only speed depends on it.
internal import CPrefetch
public import StepModel

/// The stages' notes, one entry an event of the group.
struct BatchScratch {
  static let groupEvents = 32

  let hashes: UnsafeMutablePointer<UInt64>
  let numbers: UnsafeMutablePointer<UInt32>
  let routes: UnsafeMutablePointer<Route>

  init() {
    hashes = .allocate(capacity: BatchScratch.groupEvents)
    numbers = .allocate(capacity: BatchScratch.groupEvents)
    routes = .allocate(capacity: BatchScratch.groupEvents)
  }

  func destroy() {
    hashes.deallocate()
    numbers.deallocate()
    routes.deallocate()
  }
}

extension ShardBoards {
  /// Applies step events in their order. All boards of an event's day change, or none.
  ///
  /// - Parameters:
  ///   - events: of any days; a few thousand at a time are best.
  ///   - outcomes: room for as many outcomes; one is written for each event, in the same order.
  ///   - numbers: room for as many user numbers, or nil; `noUser` for an event that changes nothing whoever its user is
  ///     (0 steps in increment mode), whose user need not be known.
  /// - Complexity: O(1) an event for totals below 2^20 that few share, O(log n) otherwise; no allocation but for
  ///   growth.
  public func apply(
    _ events: UnsafeBufferPointer<StepEvent>, outcomes: UnsafeMutablePointer<ApplyOutcome>,
    numbers: UnsafeMutablePointer<UserNumber>? = nil
  ) {
    guard let first = events.baseAddress else { return }
    var done = 0
    while done < events.count {
      let count = min(BatchScratch.groupEvents, events.count - done)
      let places = numbers.map { $0 + done } ?? batch.numbers
      switch mode {
      case .increment: applyGroup(Increment(), first + done, count, outcomes + done, places)
      case .totalNewest: applyGroup(TotalNewest(), first + done, count, outcomes + done, places)
      case .totalMax: applyGroup(TotalMax(), first + done, count, outcomes + done, places)
      }
      done += count
    }
  }

  @inline(__always) private func applyGroup<Rule: TotalRule>(
    _ rule: Rule, _ events: UnsafePointer<StepEvent>, _ count: Int,
    _ outcomes: UnsafeMutablePointer<ApplyOutcome>, _ numbers: UnsafeMutablePointer<UserNumber>
  ) {
    let table = owner.table
    let (hashes, routes) = (batch.hashes, batch.routes)
    var route: Route?
    for i in 0..<count {
      hashes[i] = table.pointee.hash(events[i].user)
      table.pointee.prefetchSlot(hashes[i])
    }
    for i in 0..<count {
      numbers[i] = UserTable.none
      if rule.ignores(events[i]) { continue }
      if route?.day != events[i].day { route = self.route(events[i].day) }
      guard let route else { continue }
      routes[i] = route
      let guess = table.pointee.guess(hashes[i])
      if guess != UserTable.none { route.forEach { $0.pointee.prefetchRecord(guess) } }
    }
    for i in 0..<count where !rule.ignores(events[i]) {
      let number = table.pointee.number(events[i].user, hash: hashes[i])
      numbers[i] = number
      guard number != UserTable.none else { continue }
      let route = routes[i]
      route.forEach { $0.pointee.needRecords() }
      let day = route.daily.pointee.records[Int(number)].total
      let change = Int64(rule.target(events[i], day)) - Int64(day)
      route.forEach { $0.pointee.prefetchPlaces(number, by: change) }
      rule.prefetch(route.daily, number)
    }
    if image != nil { saveForImage(numbers, count) }
    for i in 0..<count where numbers[i] != UserTable.none {
      let number = numbers[i]
      routes[i].forEach { $0.pointee.prefetchMoved(number) }
    }
    for i in 0..<count {
      outcomes[i] = applyOne(rule, events[i], numbers[i], routes + i)
    }
  }

  @inline(never) private func saveForImage(_ numbers: UnsafePointer<UserNumber>, _ count: Int) {
    for i in 0..<count where numbers[i] != UserTable.none {
      batch.routes[i].forEach { $0.pointee.image?.pointee.willChange(numbers[i]) }
    }
  }

  @inline(__always) private func applyOne<Rule: TotalRule>(
    _ rule: Rule, _ event: StepEvent, _ number: UInt32, _ route: UnsafePointer<Route>
  ) -> ApplyOutcome {
    if rule.ignores(event) { return .counted }
    guard number != UserTable.none else { return .full }
    let daily = route.pointee.daily
    let old = daily.pointee.records[Int(number)].total
    if rule.isSuperseded(event, old, daily, number) { return .superseded }
    let change = Int64(rule.target(event, old)) - Int64(old)
    var fits = true
    route.pointee.forEach { fits = fits && $0.pointee.fits(number, by: change) }
    guard fits else { return .overflow }
    rule.keep(event, daily, number)
    route.pointee.forEach { $0.pointee.move(number, by: change) }
    return .counted
  }
}

/// How a report makes the day's total.
private protocol TotalRule {
  /// Whether the event changes nothing, whoever the user is.
  func ignores(_ event: StepEvent) -> Bool
  /// The day's total that the event asks for; may exceed what fits.
  func target(_ event: StepEvent, _ old: UInt32) -> UInt64
  /// Whether an earlier report stands.
  func isSuperseded(
    _ event: StepEvent, _ old: UInt32, _ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32
  ) -> Bool
  /// Notes that the event was counted.
  func keep(_ event: StepEvent, _ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32)
  /// Asks for the notes.
  func prefetch(_ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32)
}

private struct Increment: TotalRule {
  @inline(__always) func ignores(_ event: StepEvent) -> Bool { event.steps == 0 }
  @inline(__always) func target(_ event: StepEvent, _ old: UInt32) -> UInt64 {
    UInt64(old) + UInt64(event.steps)
  }
  @inline(__always) func isSuperseded(
    _ event: StepEvent, _ old: UInt32, _ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32
  ) -> Bool { false }
  @inline(__always) func keep(
    _ event: StepEvent, _ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32
  ) {}
  @inline(__always) func prefetch(_ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32) {}
}

private struct TotalNewest: TotalRule {
  @inline(__always) func ignores(_ event: StepEvent) -> Bool { false }
  @inline(__always) func target(_ event: StepEvent, _ old: UInt32) -> UInt64 { UInt64(event.steps) }
  @inline(__always) func isSuperseded(
    _ event: StepEvent, _ old: UInt32, _ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32
  ) -> Bool {
    guard let register = daily.pointee.registers?[Int(number)], register.offsetNext != 0 else { return false }
    return (event.timeOfDay, event.offset) < (register.timeOfDay, register.offsetNext - 1)
  }
  @inline(__always) func keep(
    _ event: StepEvent, _ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32
  ) {
    daily.pointee.registers?[Int(number)] = Register(
      timeOfDay: event.timeOfDay, offsetNext: event.offset + 1)
  }
  @inline(__always) func prefetch(_ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32) {
    if let registers = daily.pointee.registers { rms_prefetch(registers + Int(number)) }
  }
}

private struct TotalMax: TotalRule {
  @inline(__always) func ignores(_ event: StepEvent) -> Bool { false }
  @inline(__always) func target(_ event: StepEvent, _ old: UInt32) -> UInt64 { UInt64(max(event.steps, old)) }
  @inline(__always) func isSuperseded(
    _ event: StepEvent, _ old: UInt32, _ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32
  ) -> Bool { event.steps < old }
  @inline(__always) func keep(
    _ event: StepEvent, _ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32
  ) {}
  @inline(__always) func prefetch(_ daily: UnsafeMutablePointer<BoardState>, _ number: UInt32) {}
}
