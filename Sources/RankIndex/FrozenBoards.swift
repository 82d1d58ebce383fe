// All boards of a shard as of one moment, read in pieces while events go on being applied: what a snapshot is written
// from.
//
// Users' ids never change and never move once given, so they are read without a turn; totals are read by pieces, each
// inside a reader's turn (BoardImage says how they stay what they were).
public import StepModel

/// A board of the image.
public struct FrozenBoard: Sendable {
  /// The period.
  public let id: BoardID
  /// Users on the board at the moment of the image.
  public let users: Int
  /// Sum of all totals at that moment.
  public let totalSteps: UInt64
  /// Whether the newest reports of its users are kept: a day's board in `totalNewest` mode.
  public let hasReports: Bool
}

/// Memory that the image's reader lends: totals, and reports, of user numbers in a row.
public final class FrozenPiece {
  /// Numbers that one reader's turn takes: about 50 µs.
  public static let numbersMax = 1 << 16

  /// The first number.
  public internal(set) var first: UserNumber = 0
  /// Numbers in the piece; 0 before the first was taken.
  public internal(set) var count = 0
  let totalsRoom: UnsafeMutablePointer<UInt32>
  let reportsRoom: UnsafeMutablePointer<Int64>

  /// Room for the largest piece: 1.3 MB of addresses, a fifth of it used where no reports are kept.
  public init() {
    totalsRoom = .allocate(capacity: FrozenPiece.numbersMax)
    reportsRoom = .allocate(capacity: 2 * FrozenPiece.numbersMax)
  }

  deinit {
    totalsRoom.deallocate()
    reportsRoom.deallocate()
  }

  /// A total a number, 0 where the user is not on the board; good until the next piece is taken.
  public var totals: UnsafeBufferPointer<UInt32> { UnsafeBufferPointer(start: totalsRoom, count: count) }

  /// Two words a number, if the board has reports: the newest report's time of day in nanoseconds, and its offset + 1;
  /// 0 and 0 where there was no report. Good until the next piece is taken.
  public var reports: UnsafeBufferPointer<Int64> { UnsafeBufferPointer(start: reportsRoom, count: 2 * count) }
}

/// The image. One reader, on any thread; the shard's writer goes on meanwhile.
public final class FrozenBoards: @unchecked Sendable {
  // Unchecked: images are changed inside the writer's turns and the reader's, which exclude each other; the rest is
  // constant or the one reader's own.

  /// How many user numbers share a form of id: a segment.
  public static let segmentNumbers = 1 << UserTable.segmentBits

  /// Users whom the shard had counted.
  public let users: Int
  /// Segments of user numbers.
  public let segments: Int
  /// The boards there were: days, weeks, months, all time, each kind by date.
  public let boards: [FrozenBoard]
  private let held: [Board]
  private let images: [UnsafeMutablePointer<BoardImage>]
  private var next: [Int]
  private let owner: UserTableOwner
  private let table: FrozenTable

  init(_ boards: [Board], owner: UserTableOwner) {
    held = boards.sorted { FrozenBoards.order($0.id) < FrozenBoards.order($1.id) }
    self.owner = owner
    table = FrozenTable(owner.table.pointee)
    users = table.count
    segments = table.segments
    self.boards = held.map { board in
      FrozenBoard(
        id: board.id, users: board.users, totalSteps: board.totalSteps,
        hasReports: board.state.pointee.registers != nil)
    }
    images = held.map { $0.state.pointee.freeze() }
    next = held.map { _ in 0 }
  }

  deinit {
    for image in images {
      image.pointee.destroy()
      image.deallocate()
    }
  }

  /// Tells the boards that nobody needs the image any more; the writer's thread or its turn.
  func release() { for board in held { board.state.pointee.image = nil } }

  /// Days, weeks, months, all time; then by date.
  static func order(_ id: BoardID) -> (UInt8, Int32) {
    switch id {
    case .day(let day): (1, day.number)
    case .week(let monday): (2, monday.number)
    case .month(let month): (3, month)
    case .all: (4, 0)
    }
  }

  /// Takes the next numbers of a board, in their order, as they were at the moment of the image. Call it inside a
  /// reader's turn, from one thread at a time, and leave the turn before the next call.
  ///
  /// - Parameters:
  ///   - board: an index of `boards`.
  ///   - piece: where they go.
  ///   - numbersMax: how many at most; rounded down to a segment, at least one.
  /// - Returns: false, and the piece untouched, if the board is taken whole.
  /// - Complexity: O(numbers).
  public func take(
    _ board: Int, into piece: FrozenPiece, numbersMax: Int = FrozenPiece.numbersMax
  ) -> Bool {
    let image = images[board]
    let first = next[board]
    let limit = min(
      FrozenPiece.numbersMax, max(1, numbersMax / FrozenBoards.segmentNumbers) << UserTable.segmentBits)
    let end = min(image.pointee.numbersEnd, first + limit)
    guard first < end else { return false }
    image.pointee.take(first..<end, totals: piece.totalsRoom, reports: piece.reportsRoom)
    next[board] = end
    piece.first = UserNumber(first)
    piece.count = end - first
    return true
  }

  /// Reads the ids of a segment's users. Needs no turn: they are what they were. The first is the user with number
  /// `segment` × `segmentNumbers`; either all are canonical UUIDs or none is.
  ///
  /// - Parameters:
  ///   - segment: 0..<`segments`.
  ///   - keys: room for `segmentNumbers` keys; their bytes are good as long as the image.
  /// - Returns: how many users the segment has, 1 or more.
  public func users(ofSegment segment: Int, into keys: UnsafeMutableBufferPointer<UserKey>) -> Int {
    let count = table.count(ofSegment: segment)
    precondition(keys.count >= count, "room for \(keys.count) keys, a segment has \(count)")
    for i in 0..<count { keys[i] = table.key(segment << UserTable.segmentBits + i) }
    return count
  }

  /// Memory that the image took at its most, in bytes. Inside a reader's turn.
  public var memoryBytes: Int { images.reduce(0) { $0 + $1.pointee.bytes } }

  /// Runs of numbers that the writer saved so far. Inside a reader's turn.
  public var runsSaved: Int { images.reduce(0) { $0 + $1.pointee.runsSaved } }
}

/// Where ids are, and how many there were. Only bytes that are never written again are read through it.
private struct FrozenTable {
  let count: Int
  let segments: Int
  private let ids: UnsafeMutablePointer<IDWords>
  private let kinds: UnsafeMutablePointer<UInt8>
  private let arena: UnsafeRawPointer
  private let openUUID: Int
  private let openText: Int

  init(_ table: UserTable) {
    count = table.count
    segments = table.numbersEnd >> UserTable.segmentBits
    ids = table.ids
    kinds = table.kinds
    arena = table.arenaStart
    openUUID = table.end(of: IDKind.uuid)
    openText = table.end(of: IDKind.text)
  }

  func count(ofSegment segment: Int) -> Int {
    let end = kinds[segment] == IDKind.uuid ? openUUID : openText
    return min(end, (segment + 1) << UserTable.segmentBits) - segment << UserTable.segmentBits
  }

  func key(_ number: Int) -> UserKey {
    let words = ids[number]
    if kinds[number >> UserTable.segmentBits] == IDKind.uuid {
      return UserKey(high: words.first, low: words.second)
    }
    let text = UserTable.text(UnsafeRawPointer(ids + number), arena: arena)
    return UserKey(UnsafeRawBufferPointer(start: text.start, count: text.count))
  }
}

extension ShardBoards {
  /// Marks an image of users and boards as of now; from the writer's thread, inside its turn. Events go on being
  /// applied; whoever reads the image takes it piece by piece and then has `thaw` called.
  ///
  /// - Returns: the image; nil while another is alive.
  /// - Complexity: O(boards), and 0.25 bytes of addresses a user and board.
  public func freeze() -> FrozenBoards? {
    if image != nil { return nil }
    let image = FrozenBoards(boards, owner: owner)
    self.image = image
    return image
  }

  /// Ends the image, whether it was read whole or not; inside a writer's turn. The image may be kept for its ids.
  public func thaw() {
    image?.release()
    image = nil
  }
}

extension BoardState {
  /// Marks an image of the totals as of now.
  mutating func freeze() -> UnsafeMutablePointer<BoardImage> {
    let image = UnsafeMutablePointer<BoardImage>.allocate(capacity: 1)
    image.initialize(
      to: BoardImage(records: records, registers: registers.map { UnsafePointer($0) }, numbersEnd: numbersEnd)
    )
    self.image = image
    return image
  }
}
