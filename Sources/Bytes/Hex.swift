// Bytes as hexadecimal text, for vectors, dumps and messages.

/// Hexadecimal text.
public enum Hex {
  /// Two lower-case digits a byte, nothing between.
  public static func text(_ bytes: some Sequence<UInt8>) -> String {
    var text: [UInt8] = []
    text.reserveCapacity(bytes.underestimatedCount * 2)
    for byte in bytes {
      text.append(digit(byte >> 4))
      text.append(digit(byte & 15))
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// Reads hexadecimal text in either case; white space between bytes is skipped.
  ///
  /// - Parameter text: an even number of digits.
  /// - Returns: the bytes; nil if a digit is none, or half a byte is left.
  public static func bytes(_ text: some StringProtocol) -> [UInt8]? {
    var bytes: [UInt8] = []
    var high: UInt8?
    for character in text.utf8 {
      let value: UInt8
      switch character {
      case 0x30...0x39: value = character - 0x30
      case 0x41...0x46: value = character - 0x37
      case 0x61...0x66: value = character - 0x57
      case 0x20, 0x09, 0x0A, 0x0D:
        if high != nil { return nil }
        continue
      default: return nil
      }
      if let first = high {
        bytes.append(first << 4 | value)
        high = nil
      } else {
        high = value
      }
    }
    return high == nil ? bytes : nil
  }

  /// Lines of offset, 16 bytes and their printable characters.
  ///
  /// - Parameters:
  ///   - bytes: what to show.
  ///   - bytesMax: how many bytes to show at most; a last line tells how many were left out.
  /// - Returns: lines joined by line feeds, none at the end.
  public static func dump(_ bytes: UnsafeRawBufferPointer, bytesMax: Int = 512) -> String {
    let shown = min(bytes.count, bytesMax)
    var lines: [String] = []
    for start in stride(from: 0, to: shown, by: 16) {
      let row = bytes[start..<min(start + 16, shown)]
      let offset = text([UInt8(start >> 16 & 0xFF), UInt8(start >> 8 & 0xFF), UInt8(start & 0xFF)])
      let cells = row.map { text([$0]) } + Array(repeating: "  ", count: 16 - row.count)
      let printable = String(
        decoding: row.map { (0x20..<0x7F).contains($0) ? $0 : 0x2E }, as: UTF8.self)
      lines.append("\(offset)  \(cells.joined(separator: " "))  \(printable)")
    }
    if shown < bytes.count { lines.append("… \(bytes.count - shown) more bytes") }
    return lines.joined(separator: "\n")
  }

  private static func digit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x57 + value }
}
