// A board's totals as of one moment, while the board goes on.
//
// Nothing is copied when the moment is marked. User numbers are cut into runs of `runNumbers`; before the writer first
// changes anything in a run that the image's reader has not taken yet, it saves the run as it is.
//
//   marks   a run: `live` (read it from the board), `taken` (nobody needs it any more), or 2 + the slot that has it
//   slots   the saved totals of a run, then its newest reports where the board has them; freed when taken, used again
//
// The writer saves inside its turns, the reader takes inside a reader's turn: never at the same time.
internal import StepModel

/// What a board keeps for the image that is alive.
struct BoardImage {
  #if DEBUG
    // Small, so that a test's few users fill several.
    static let runNumbers = 4
  #else
    /// Numbers saved at once: a line of totals. A writer that changes users at random saves little that it did not
    /// change; fewer still would cost more for marks than they save.
    static let runNumbers = 16
  #endif
  static let live: UInt32 = 0
  static let taken: UInt32 = 1
  private static let slotsFrom: UInt32 = 2
  private static let none = UInt32.max

  /// Numbers below this may have totals; a multiple of `runNumbers`.
  let numbersEnd: Int
  /// Runs saved so far.
  private(set) var runsSaved = 0
  /// Slots ever in use at the same time.
  private(set) var slots: UInt32 = 0
  private var free = none
  private let records: UnsafePointer<Record>
  private let registers: UnsafePointer<Register>?
  private let marks: UnsafeMutablePointer<UInt32>
  private let slotBytes: Int
  private var region: Region

  /// Marks the moment.
  ///
  /// - Parameters:
  ///   - records: the board's, as many as `numbersEnd`.
  ///   - registers: likewise; nil where the board has none.
  ///   - numbersEnd: a multiple of `runNumbers`.
  init(records: UnsafePointer<Record>, registers: UnsafePointer<Register>?, numbersEnd: Int) {
    self.records = records
    self.registers = registers
    self.numbersEnd = numbersEnd
    let runs = numbersEnd / BoardImage.runNumbers
    // Zeroed pages come when they are touched, so that the writer's turn stays short.
    slotBytes = BoardImage.runNumbers * (registers == nil ? 4 : 20)
    var marksRegion = Region(bytesMax: max(1, runs) * 4, huge: false)
    marksRegion.need(runs * 4)
    self.marksRegion = marksRegion
    marks = marksRegion.base.assumingMemoryBound(to: UInt32.self)
    region = Region(bytesMax: max(1, runs) * slotBytes, huge: false)
  }

  private let marksRegion: Region

  func destroy() {
    marksRegion.destroy()
    region.destroy()
  }

  /// Memory of saved runs and marks at its most, in bytes.
  var bytes: Int { Int(slots) * slotBytes + numbersEnd / BoardImage.runNumbers * 4 }

  /// The writer's part: call before anything of the user changes.
  @inline(__always) mutating func willChange(_ number: UInt32) {
    let run = Int(number) / BoardImage.runNumbers
    if Int(number) < numbersEnd && marks[run] == BoardImage.live { save(run) }
  }

  @inline(never) private mutating func save(_ run: Int) {
    let slot: UInt32
    if free != BoardImage.none {
      slot = free
      free = place(slot).load(as: UInt32.self)
    } else {
      slot = slots
      slots += 1
      region.need(Int(slots) * slotBytes)
    }
    let first = run * BoardImage.runNumbers
    let totals = place(slot).assumingMemoryBound(to: UInt32.self)
    for i in 0..<BoardImage.runNumbers { totals[i] = records[first + i].total }
    if let registers {
      (place(slot) + BoardImage.runNumbers * 4).copyMemory(
        from: registers + first, byteCount: BoardImage.runNumbers * 16)
    }
    marks[run] = slot + BoardImage.slotsFrom
    runsSaved += 1
  }

  private func place(_ slot: UInt32) -> UnsafeMutableRawPointer { region.base + Int(slot) * slotBytes }

  /// The reader's part: copies what runs held at the marked moment. Each run is taken once.
  ///
  /// - Parameters:
  ///   - numbers: whole runs below `numbersEnd`.
  ///   - totals: room for a total a number.
  ///   - reports: room for two words a number; untouched where the board has no registers.
  mutating func take(
    _ numbers: Range<Int>, totals: UnsafeMutablePointer<UInt32>, reports: UnsafeMutablePointer<Int64>
  ) {
    var first = numbers.lowerBound
    while first < numbers.upperBound {
      let run = first / BoardImage.runNumbers
      let (to, toReports) = (totals + first - numbers.lowerBound, reports + 2 * (first - numbers.lowerBound))
      let mark = marks[run]
      precondition(mark != BoardImage.taken, "numbers from \(first) are taken twice")
      if mark == BoardImage.live {
        for i in 0..<BoardImage.runNumbers { to[i] = records[first + i].total }
        if let registers { copy(registers + first, to: toReports) }
      } else {
        let slot = mark - BoardImage.slotsFrom
        let saved = place(slot)
        to.update(from: saved.assumingMemoryBound(to: UInt32.self), count: BoardImage.runNumbers)
        if registers != nil { copy(saved + BoardImage.runNumbers * 4, to: toReports) }
        saved.storeBytes(of: free, as: UInt32.self)
        free = slot
      }
      marks[run] = BoardImage.taken
      first += BoardImage.runNumbers
    }
  }

  private func copy(_ registers: UnsafeRawPointer, to reports: UnsafeMutablePointer<Int64>) {
    UnsafeMutableRawPointer(reports).copyMemory(from: registers, byteCount: BoardImage.runNumbers * 16)
  }
}
