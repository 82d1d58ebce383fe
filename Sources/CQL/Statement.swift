// Statements as the caller makes them: text or prepared, with values and with what is wanted of the cluster.

internal import Synchronization

/// A statement that the cluster knows by an id. Prepare each text once and keep it; any thread may use it.
public final class PreparedStatement: Sendable {
  /// What rows of it look like, and the id under which the servers know that; always changed together.
  struct Shape: Sendable {
    var metadataID: [UInt8]
    var columns: [Column]?
  }

  /// What was prepared.
  public let text: String
  /// The markers, in the order of their values.
  public let markers: [Column]
  let id: [UInt8]
  let partitionKey: [Int]
  private let shape: Mutex<Shape>

  init(text: String, _ result: PreparedResult) {
    self.text = text
    markers = result.markers
    id = result.id
    partitionKey = result.partitionKey
    shape = Mutex(Shape(metadataID: result.resultMetadataID, columns: result.columns))
  }

  var currentShape: Shape { shape.withLock { $0 } }

  /// Rows came with another shape: later ones will have it, too.
  func adopt(_ metadataID: [UInt8], _ columns: [Column]) {
    shape.withLock { $0 = Shape(metadataID: metadataID, columns: columns) }
  }

  /// Binds values to the markers.
  ///
  /// - Parameter values: one a marker, in order. `null` deletes, `unset` leaves what is there.
  /// - Returns: a statement to execute.
  /// - Throws: `value`, if their number or types do not fit.
  /// - Complexity: O(bytes).
  public func bind(_ values: [Value]) throws(CQLError) -> Statement {
    guard values.count == markers.count else {
      throw .value(.count(given: values.count, markers: markers.count))
    }
    var out = WireWriter(reserving: 16 * values.count)
    var places: [Range<Int>] = []
    places.reserveCapacity(values.count)
    do throws(ValueError) {
      for (value, marker) in zip(values, markers) {
        let start = out.count
        try value.write(as: marker.type, into: &out)
        places.append(min(start + 4, out.count)..<out.count)
      }
    } catch { throw .value(error) }
    var statement = Statement(
      kind: .prepared(self), values: BoundValues(count: values.count, bytes: out.bytes))
    statement.token = out.bytes.withUnsafeBytes {
      PreparedStatement.token($0, partitionKey.map { places[$0] })
    }
    return statement
  }

  /// One part is its bytes; of several, each has its length before and a zero behind.
  private static func token(_ bytes: UnsafeRawBufferPointer, _ parts: [Range<Int>]) -> Int64? {
    guard let first = parts.first else { return nil }
    if parts.count == 1 { return Murmur3.token(UnsafeRawBufferPointer(rebasing: bytes[first])) }
    var key = WireWriter()
    for part in parts {
      guard part.count <= 65_535 else { return nil }
      key.short(part.count)
      key.raw(bytes[part])
      key.byte(0)
    }
    return key.bytes.withUnsafeBytes { Murmur3.token($0) }
  }
}

/// What to execute, and how.
public struct Statement: Sendable {
  enum Kind: Sendable {
    case text(String)
    case prepared(PreparedStatement)
  }

  let kind: Kind
  var values: BoundValues
  /// Of the partition it is about; nil where that is not known.
  var token: Int64?

  /// Replicas that must answer; nil takes the session's.
  public var consistency: Consistency?
  /// For conditions alone: `serial` or `localSerial`.
  public var serialConsistency: Consistency?
  /// Write time in microseconds since 1970; nil leaves it to the server. Not beside USING TIMESTAMP.
  public var timestamp: Int64?
  /// Whether running it twice does no harm: only then is it tried again after an unknown outcome.
  public var isIdempotent = false
  /// Rows of a page; nil takes the session's.
  public var pageRows: Int32?
  /// Where the page begins, as an earlier page said; nil for the first.
  public var pagingState: [UInt8]?

  init(kind: Kind, values: BoundValues) {
    self.kind = kind
    self.values = values
  }

  /// A statement without markers; the server parses it each time.
  ///
  /// - Parameter text: CQL, with names written `keyspace.table`.
  public init(_ text: String) { self.init(kind: .text(text), values: BoundValues()) }

  var keyspace: String? {
    switch kind {
    case .text: nil
    case .prepared(let statement): statement.markers.first?.keyspace
    }
  }

  var forgotten: ForgottenStatement? {
    switch kind {
    case .text: nil
    case .prepared(let statement): ForgottenStatement(text: statement.text, id: statement.id)
    }
  }
}

/// Statements to execute together. For one partition an unlogged batch is one write, atomic and isolated.
public struct Batch: Sendable {
  public let kind: BatchKind
  /// What is in it; its consistency, timestamp and paging are the batch's.
  public private(set) var statements: [Statement] = []
  /// Replicas that must answer; nil takes the session's.
  public var consistency: Consistency?
  /// For conditions alone: `serial` or `localSerial`.
  public var serialConsistency: Consistency?
  /// Write time in microseconds since 1970; nil leaves it to the server or to the statements' own USING TIMESTAMP.
  public var timestamp: Int64?
  /// Whether running it twice does no harm.
  public var isIdempotent = false
  private(set) var byteCount = 0

  public init(_ kind: BatchKind) { self.kind = kind }

  /// Adds a statement.
  ///
  /// - Parameter statement: text or bound; 65,535 at most.
  public mutating func add(_ statement: Statement) {
    precondition(
      statements.count < CQLLimits.batchStatementsMax, "a batch of over \(CQLLimits.batchStatementsMax)")
    byteCount += statement.values.bytes.count + 32
    if case .text(let text) = statement.kind { byteCount += text.utf8.count }
    statements.append(statement)
  }
}
