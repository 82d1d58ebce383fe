// RESULT of kind rows and of kind prepared. Rows stay in the answer's body; a row finds its columns when it is asked.
//
//     rows:      metadata, [int] count of rows, then a [bytes] for each column of each row
//     metadata:  [int] flags, [int] columns, [paging state [bytes] if 2], [new id [short bytes] if 8],
//                nothing more if 4, else [keyspace, table if 1], then per column [keyspace, table if not 1], name, type
//     prepared:  id [short bytes], [result metadata's id [short bytes] in version 5], metadata of the markers,
//                metadata of the result; that of the markers has, behind its count, [int] n and n [short] indexes of
//                the markers that make the partition key

/// A column of a result, or a marker of a statement.
public struct Column: Hashable, Sendable {
  public let keyspace: String
  public let table: String
  public let name: String
  public let type: CQLType

  public init(keyspace: String, table: String, name: String, type: CQLType) {
    self.keyspace = keyspace
    self.table = table
    self.name = name
    self.type = type
  }
}

struct MetadataFlags: OptionSet {
  let rawValue: Int32
  static let globalTable = MetadataFlags(rawValue: 1)
  static let morePages = MetadataFlags(rawValue: 2)
  static let noMetadata = MetadataFlags(rawValue: 4)
  static let changed = MetadataFlags(rawValue: 8)
}

private func readColumns(
  _ reader: inout WireReader, _ flags: MetadataFlags, count: Int
) throws(CodecError) -> [Column] {
  var keyspace = ""
  var table = ""
  if flags.contains(.globalTable) {
    keyspace = try reader.string()
    table = try reader.string()
  }
  var columns: [Column] = []
  columns.reserveCapacity(count)
  for _ in 0..<count {
    if !flags.contains(.globalTable) {
      keyspace = try reader.string()
      table = try reader.string()
    }
    let name = try reader.string()
    columns.append(Column(keyspace: keyspace, table: table, name: name, type: try CQLType(&reader)))
  }
  return columns
}

struct RowsResult: Equatable, Sendable {
  /// nil where the server left them out as asked: those of the prepared statement hold.
  var columns: [Column]?
  var columnCount: Int
  var pagingState: [UInt8]?
  /// The columns above are new since the statement was prepared, and this is their id.
  var newMetadataID: [UInt8]?
  var rowCount: Int
  /// The whole answer, and where its rows begin.
  var body: [UInt8]
  var rowsStart: Int

  init(_ reader: inout WireReader, _ body: [UInt8]) throws(CodecError) {
    let flags = MetadataFlags(rawValue: try reader.integer())
    let count = try reader.int()
    guard (0...CQLLimits.columnsMax).contains(count) else {
      throw .tooLong("columns of a result", count: count, max: CQLLimits.columnsMax)
    }
    columnCount = count
    pagingState = flags.contains(.morePages) ? try reader.ownedBytes() ?? [] : nil
    newMetadataID = flags.contains(.changed) ? try reader.shortBytes() : nil
    if flags.contains(.noMetadata) {
      columns = nil
    } else {
      guard count <= reader.left / 4 else {
        throw .tooLong("columns of a result", count: count, max: reader.left / 4)
      }
      columns = try readColumns(&reader, flags, count: count)
    }
    // A row without a column takes no byte; nobody sends that, and it would cost nothing to claim two billion.
    rowCount = try reader.count("rows of a page", bytesEach: max(4, 4 * count), max: .max)
    self.body = body
    rowsStart = reader.position
  }
}

struct PreparedResult: Equatable, Sendable {
  var id: [UInt8]
  /// Empty in version 4.
  var resultMetadataID: [UInt8]
  var markers: [Column]
  /// Which markers make the partition key, in its order; empty where one part is no plain marker.
  var partitionKey: [Int]
  /// What its rows will have; nil where it gives none, or the server does not say.
  var columns: [Column]?

  init(_ reader: inout WireReader, _ version: ProtocolVersion) throws(CodecError) {
    id = try reader.shortBytes()
    resultMetadataID = version >= .v5 ? try reader.shortBytes() : []
    let flags = MetadataFlags(rawValue: try reader.integer())
    let count = try reader.count("markers of a statement", bytesEach: 4, max: CQLLimits.columnsMax)
    partitionKey = []
    for _ in 0..<(try reader.count("parts of a partition key", bytesEach: 2, max: count)) {
      let index = try reader.short()
      guard index < count else { throw .malformed("marker \(index) of \(count) is a part of the key") }
      partitionKey.append(index)
    }
    markers = flags.contains(.noMetadata) ? [] : try readColumns(&reader, flags, count: count)
    let resultFlags = MetadataFlags(rawValue: try reader.integer())
    let resultCount = try reader.count("columns of a result", bytesEach: 0, max: CQLLimits.columnsMax)
    if resultFlags.contains(.morePages) { _ = try reader.bytesOrNull() }
    if resultFlags.contains(.changed) { _ = try reader.shortBytes() }
    columns =
      resultFlags.contains(.noMetadata) || resultCount == 0
      ? nil : try readColumns(&reader, resultFlags, count: resultCount)
  }
}
