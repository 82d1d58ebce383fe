// The envelope of a message, called frame in version 4. 9 bytes, big-endian, then the body:
//
//     offset 0, 1 byte: version, bit 7 set in answers
//     offset 1, 1 byte: flags
//     offset 2, 2 bytes: stream, signed; -1 in events
//     offset 4, 1 byte: opcode
//     offset 5, 4 bytes: length of the body, signed

/// A version of the native protocol that is spoken here.
public enum ProtocolVersion: UInt8, Hashable, Sendable, Comparable, CaseIterable {
  case v4 = 4
  case v5 = 5

  public static func < (a: ProtocolVersion, b: ProtocolVersion) -> Bool { a.rawValue < b.rawValue }
}

enum Opcode: UInt8 {
  case error = 0x00
  case startup = 0x01
  case ready = 0x02
  case authenticate = 0x03
  case options = 0x05
  case supported = 0x06
  case query = 0x07
  case result = 0x08
  case prepare = 0x09
  case execute = 0x0A
  case register = 0x0B
  case event = 0x0C
  case batch = 0x0D
  case authChallenge = 0x0E
  case authResponse = 0x0F
  case authSuccess = 0x10
}

struct FrameFlags: OptionSet, Hashable {
  let rawValue: UInt8

  /// Version 4 alone; ignored in version 5, whose segments are compressed instead.
  static let compressed = FrameFlags(rawValue: 0x01)
  static let tracing = FrameFlags(rawValue: 0x02)
  static let customPayload = FrameFlags(rawValue: 0x04)
  static let warning = FrameFlags(rawValue: 0x08)
  static let beta = FrameFlags(rawValue: 0x10)
}

struct FrameHeader: Equatable {
  static let byteCount = 9

  /// Without bit 7. Any number: a server that rejects a version may answer with one we do not speak.
  var version: UInt8
  var isResponse: Bool
  var flags: FrameFlags
  var stream: Int16
  var opcode: UInt8
  var bodyBytes: Int

  init(
    version: ProtocolVersion, isResponse: Bool = false, flags: FrameFlags = [], stream: Int16, opcode: Opcode,
    bodyBytes: Int
  ) {
    self.version = version.rawValue
    self.isResponse = isResponse
    self.flags = flags
    self.stream = stream
    self.opcode = opcode.rawValue
    self.bodyBytes = bodyBytes
  }

  /// Reads the header from 9 bytes or more.
  init(_ bytes: UnsafeRawBufferPointer, bodyBytesMax: Int) throws(CodecError) {
    var reader = WireReader(bytes)
    let first = try reader.byte()
    version = first & 0x7F
    isResponse = first & 0x80 != 0
    flags = FrameFlags(rawValue: try reader.byte())
    stream = try reader.integer()
    opcode = try reader.byte()
    bodyBytes = try reader.int()
    guard bodyBytes >= 0, bodyBytes <= bodyBytesMax else {
      throw .tooLong("a message's body in bytes", count: bodyBytes, max: bodyBytesMax)
    }
  }

  func write(into out: inout WireWriter) {
    out.byte(version | (isResponse ? 0x80 : 0))
    out.byte(flags.rawValue)
    out.integer(stream)
    out.byte(opcode)
    out.int(bodyBytes)
  }
}

/// A whole message as it came: its header and its body, decompressed.
struct Envelope: Equatable {
  var header: FrameHeader
  var body: [UInt8]
}
