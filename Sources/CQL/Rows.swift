// Rows as the caller reads them. A page keeps the answer's bytes and the places of its cells; a value is decoded when it
// is asked for.

/// A Swift type that a column can be read as.
public protocol CQLReadable {
  /// Reads a value that is not null; nil if the type does not go with this one, or the bytes are no value of it.
  static func read(_ bytes: UnsafeRawBufferPointer, _ type: CQLType) -> Self?
}

private func big<T: FixedWidthInteger & BitwiseCopyable>(_ bytes: UnsafeRawBufferPointer, _ type: T.Type)
  -> T?
{
  bytes.count == MemoryLayout<T>.size ? T(bigEndian: bytes.loadUnaligned(as: T.self)) : nil
}

extension Int32: CQLReadable {
  /// Of int; days since 1970-01-01 of date.
  public static func read(_ bytes: UnsafeRawBufferPointer, _ type: CQLType) -> Int32? {
    switch type {
    case .int: big(bytes, Int32.self)
    case .date: big(bytes, UInt32.self).map { Int32(bitPattern: $0 ^ 0x8000_0000) }
    default: nil
    }
  }
}

extension Int64: CQLReadable {
  /// Of bigint, counter, int, timestamp (milliseconds), time (nanoseconds).
  public static func read(_ bytes: UnsafeRawBufferPointer, _ type: CQLType) -> Int64? {
    switch type {
    case .bigint, .counter, .timestamp, .time: big(bytes, Int64.self)
    case .int: big(bytes, Int32.self).map { Int64($0) }
    default: nil
    }
  }
}

extension Bool: CQLReadable {
  /// Of boolean.
  public static func read(_ bytes: UnsafeRawBufferPointer, _ type: CQLType) -> Bool? {
    type == .boolean && bytes.count == 1 ? bytes[0] != 0 : nil
  }
}

extension Double: CQLReadable {
  /// Of double and float.
  public static func read(_ bytes: UnsafeRawBufferPointer, _ type: CQLType) -> Double? {
    switch type {
    case .double: big(bytes, UInt64.self).map { Double(bitPattern: $0) }
    case .float: big(bytes, UInt32.self).map { Double(Float(bitPattern: $0)) }
    default: nil
    }
  }
}

extension String: CQLReadable {
  /// Of text and ascii.
  public static func read(_ bytes: UnsafeRawBufferPointer, _ type: CQLType) -> String? {
    type == .text || type == .ascii ? String(decoding: bytes, as: UTF8.self) : nil
  }
}

extension [UInt8]: CQLReadable {
  /// The bytes of any type, as they came.
  public static func read(_ bytes: UnsafeRawBufferPointer, _ type: CQLType) -> [UInt8]? { [UInt8](bytes) }
}

extension CQLUUID: CQLReadable {
  /// Of uuid and timeuuid.
  public static func read(_ bytes: UnsafeRawBufferPointer, _ type: CQLType) -> CQLUUID? {
    guard type == .uuid || type == .timeuuid, bytes.count == 16 else { return nil }
    return CQLUUID(
      high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
      low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
  }
}

extension Value: CQLReadable {
  /// Of every type.
  public static func read(_ bytes: UnsafeRawBufferPointer, _ type: CQLType) -> Value? {
    try? Value(bytes, as: type)
  }
}

/// The rows of one answer. A value; copies share the bytes.
public struct Page: Sendable {
  /// The columns of every row, in order.
  public let columns: [Column]
  /// Where the next page begins; nil at the end. Only this tells the end: a page may be empty with more to come.
  public let pagingState: [UInt8]?
  /// What the server warns of.
  public let warnings: [String]
  public let count: Int
  fileprivate let body: [UInt8]
  /// First byte of each cell and, right behind, its length; -1 is null.
  fileprivate let cells: [Int32]
  fileprivate let indexOf: [String: Int]

  init(_ rows: RowsResult, columns prepared: [Column]?, warnings: [String]) throws(CodecError) {
    guard let columns = rows.columns ?? prepared, columns.count == rows.columnCount else {
      throw .malformed("rows of \(rows.columnCount) columns, of which nothing is known")
    }
    self.columns = columns
    pagingState = rows.pagingState
    self.warnings = warnings
    count = rows.rowCount
    body = rows.body
    var cells: [Int32] = []
    let cellCount = columns.count * rows.rowCount
    cells.reserveCapacity(2 * cellCount)
    try body.withUnsafeBytes { raw in
      Result { () throws(CodecError) in
        var reader = WireReader(raw)
        _ = try reader.raw(rows.rowsStart)
        for _ in 0..<cellCount {
          let length = try reader.int()
          cells.append(Int32(reader.position))
          cells.append(length < 0 ? -1 : Int32(length))
          if length > 0 { _ = try reader.raw(length) }
        }
      }
    }.get()
    self.cells = cells
    var indexOf: [String: Int] = [:]
    for (index, column) in columns.enumerated() { indexOf[column.name] = index }
    self.indexOf = indexOf
  }

  init(warnings: [String]) {
    columns = []
    pagingState = nil
    self.warnings = warnings
    count = 0
    body = []
    cells = []
    indexOf = [:]
  }

  fileprivate func withCell<R>(_ row: Int, _ column: Int, _ read: (UnsafeRawBufferPointer?) -> R) -> R {
    let cell = 2 * (row * columns.count + column)
    let length = Int(cells[cell + 1])
    if length < 0 { return read(nil) }
    let start = Int(cells[cell])
    return body.withUnsafeBytes { read(UnsafeRawBufferPointer(rebasing: $0[start..<start + length])) }
  }
}

extension Page: RandomAccessCollection {
  public var startIndex: Int { 0 }
  public var endIndex: Int { count }
  public subscript(index: Int) -> Row {
    precondition(index >= 0 && index < count, "row \(index) of \(count)")
    return Row(page: self, index: index)
  }
}

/// A row of a page.
public struct Row: Sendable {
  fileprivate let page: Page
  fileprivate let index: Int

  /// Reads a column that must not be null.
  ///
  /// - Parameters:
  ///   - name: the column.
  ///   - type: what to read it as.
  /// - Returns: the value.
  /// - Throws: `column`, if there is none of that name, it is null, or its type does not go with this one.
  public func get<T: CQLReadable>(_ name: String, as type: T.Type = T.self) throws(ValueError) -> T {
    guard let value = try optional(name, as: type) else { throw .column("the column \(name) is null") }
    return value
  }

  /// Reads a column that may be null.
  ///
  /// - Parameters:
  ///   - name: the column.
  ///   - type: what to read it as.
  /// - Returns: the value; nil for null.
  /// - Throws: `column`, if there is none of that name, or its type does not go with this one.
  public func optional<T: CQLReadable>(_ name: String, as type: T.Type = T.self) throws(ValueError) -> T? {
    guard let column = page.indexOf[name] else { throw .column("there is no column \(name)") }
    return try value(column, as: type)
  }

  /// Reads a column by its place, which costs no look-up of a name.
  ///
  /// - Parameters:
  ///   - column: 0..<columns.
  ///   - type: what to read it as.
  /// - Returns: the value; nil for null.
  /// - Throws: `column`, if its type does not go with this one.
  public func value<T: CQLReadable>(_ column: Int, as type: T.Type = T.self) throws(ValueError) -> T? {
    precondition(page.columns.indices.contains(column), "column \(column) of \(page.columns.count)")
    let columnType = page.columns[column].type
    let read: (isNull: Bool, value: T?) = page.withCell(index, column) { bytes in
      guard let bytes else { return (true, nil) }
      return (false, T.read(bytes, columnType))
    }
    if read.isNull { return nil }
    guard let value = read.value else {
      throw .column("the column \(page.columns[column].name), of type \(columnType), is read as \(T.self)")
    }
    return value
  }
}
