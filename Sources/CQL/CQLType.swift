// Types of columns and how the wire names them: [option], a [short] id with what belongs to it.
//
//     0000 custom [string]    000B timestamp   0010 inet       0015 duration
//     0001 ascii              000C uuid        0011 date       0020 list, a type
//     0002 bigint             000D text        0012 time       0021 map, two types
//     0003 blob               000E varint      0013 smallint   0022 set, a type
//     0004 boolean            000F timeuuid    0014 tinyint    0030 UDT [string] [string] n × (name, type)
//     0005 counter ... 0009 int                                0031 tuple n × type

/// A column's type.
public indirect enum CQLType: Hashable, Sendable {
  /// A class of the server's, as vectors are; its values stay bytes.
  case custom(String)
  case ascii, bigint, blob, boolean, counter, decimal, double, float, int, timestamp, uuid, text, varint
  case timeuuid, inet, date, time, smallint, tinyint, duration
  case list(CQLType)
  case map(CQLType, CQLType)
  case set(CQLType)
  case udt(keyspace: String, name: String, fields: [Field])
  case tuple([CQLType])

  /// A field of a user-defined type.
  public struct Field: Hashable, Sendable {
    public let name: String
    public let type: CQLType

    public init(name: String, type: CQLType) {
      self.name = name
      self.type = type
    }
  }

  private static let plain: [(Int, CQLType)] = [
    (0x01, .ascii), (0x02, .bigint), (0x03, .blob), (0x04, .boolean), (0x05, .counter), (0x06, .decimal),
    (0x07, .double), (0x08, .float), (0x09, .int), (0x0B, .timestamp), (0x0C, .uuid), (0x0D, .text),
    (0x0E, .varint), (0x0F, .timeuuid), (0x10, .inet), (0x11, .date), (0x12, .time), (0x13, .smallint),
    (0x14, .tinyint), (0x15, .duration),
  ]

  init(_ reader: inout WireReader, depth: Int = 0) throws(CodecError) {
    guard depth <= CQLLimits.typeDepthMax else {
      throw .tooLong("the nesting of a type", count: depth, max: CQLLimits.typeDepthMax)
    }
    let id = try reader.short()
    switch id {
    case 0x00: self = .custom(try reader.string())
    case 0x20: self = .list(try CQLType(&reader, depth: depth + 1))
    case 0x21:
      let key = try CQLType(&reader, depth: depth + 1)
      self = .map(key, try CQLType(&reader, depth: depth + 1))
    case 0x22: self = .set(try CQLType(&reader, depth: depth + 1))
    case 0x30:
      let keyspace = try reader.string()
      let name = try reader.string()
      var fields: [Field] = []
      for _ in 0..<(try reader.short()) {
        let field = try reader.string()
        fields.append(Field(name: field, type: try CQLType(&reader, depth: depth + 1)))
      }
      self = .udt(keyspace: keyspace, name: name, fields: fields)
    case 0x31:
      var types: [CQLType] = []
      for _ in 0..<(try reader.short()) { types.append(try CQLType(&reader, depth: depth + 1)) }
      self = .tuple(types)
    default:
      guard let type = CQLType.plain.first(where: { $0.0 == id })?.1 else { throw .unknown("the type", id) }
      self = type
    }
  }

  func write(into out: inout WireWriter) {
    switch self {
    case .custom(let name):
      out.short(0x00)
      out.string(name)
    case .list(let element):
      out.short(0x20)
      element.write(into: &out)
    case .map(let key, let value):
      out.short(0x21)
      key.write(into: &out)
      value.write(into: &out)
    case .set(let element):
      out.short(0x22)
      element.write(into: &out)
    case .udt(let keyspace, let name, let fields):
      out.short(0x30)
      out.string(keyspace)
      out.string(name)
      out.short(fields.count)
      for field in fields {
        out.string(field.name)
        field.type.write(into: &out)
      }
    case .tuple(let types):
      out.short(0x31)
      out.short(types.count)
      for type in types { type.write(into: &out) }
    case .ascii, .bigint, .blob, .boolean, .counter, .decimal, .double, .float, .int, .timestamp, .uuid,
      .text,
      .varint, .timeuuid, .inet, .date, .time, .smallint, .tinyint, .duration:
      guard let id = CQLType.plain.first(where: { $0.1 == self })?.0 else {
        preconditionFailure("\(self) has no id in the table of plain types")
      }
      out.short(id)
    }
  }
}

extension CQLType: CustomStringConvertible {
  /// As CQL writes it: `map<text, frozen<list<int>>>` without the `frozen`.
  public var description: String {
    switch self {
    case .custom(let name): "'\(name)'"
    case .list(let element): "list<\(element)>"
    case .map(let key, let value): "map<\(key), \(value)>"
    case .set(let element): "set<\(element)>"
    case .udt(let keyspace, let name, _): "\(keyspace).\(name)"
    case .tuple(let types): "tuple<\(types.map(\.description).joined(separator: ", "))>"
    case .ascii: "ascii"
    case .bigint: "bigint"
    case .blob: "blob"
    case .boolean: "boolean"
    case .counter: "counter"
    case .decimal: "decimal"
    case .double: "double"
    case .float: "float"
    case .int: "int"
    case .timestamp: "timestamp"
    case .uuid: "uuid"
    case .text: "text"
    case .varint: "varint"
    case .timeuuid: "timeuuid"
    case .inet: "inet"
    case .date: "date"
    case .time: "time"
    case .smallint: "smallint"
    case .tinyint: "tinyint"
    case .duration: "duration"
    }
  }
}
