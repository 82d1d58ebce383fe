// How answers look to people and to programs that read columns. User ids are text from outside: in tables whatever
// could move the cursor or turn the writing direction is escaped; in CSV it is exact.

import Glibc

/// Rows under named columns.
public struct Table {
  /// Whether a column's values are numbers, set flush right.
  struct Column {
    let name: String
    let isNumber: Bool
  }

  let columns: [Column]
  public var rows: [[String]] = []

  /// - Parameter columns: names; those that begin with `#` are numbers.
  public init(_ columns: [String]) {
    self.columns = columns.map {
      Column(name: $0.hasPrefix("#") ? String($0.dropFirst()) : $0, isNumber: $0.hasPrefix("#"))
    }
  }

  /// Comma-separated values after RFC 4180, or tab-separated values with `\t`, `\n` and `\\` escaped.
  public func separated(by separator: Character) -> String {
    var text = ""
    for row in [columns.map(\.name)] + rows {
      text += row.map { separator == "," ? Table.quoted($0) : Table.tabEscaped($0) }.joined(
        separator: String(separator))
      text += "\n"
    }
    return text
  }

  /// Columns in line, for a terminal `width` columns wide; the widest text column gives way, the rest is cut.
  public func aligned(width: Int) -> String {
    let cells = ([columns.map { $0.name.uppercased() }] + rows).map { $0.map(Terminal.escaped) }
    var widths = columns.indices.map { column in cells.map { Terminal.width($0[column]) }.max() ?? 0 }
    let total = widths.reduce(0, +) + 2 * max(0, columns.count - 1)
    if width > 0, total > width,
      let widest = columns.indices.filter({ !columns[$0].isNumber }).max(by: { widths[$0] < widths[$1] })
    {
      widths[widest] = max(8, widths[widest] - (total - width))
    }
    var text = ""
    for row in cells {
      var line = ""
      for column in columns.indices {
        let cell = Terminal.cut(row[column], to: widths[column])
        let blanks = String(repeating: " ", count: max(0, widths[column] - Terminal.width(cell)))
        line += columns[column].isNumber ? blanks + cell : cell + blanks
        if column + 1 < columns.count { line += "  " }
      }
      while line.last == " " { line.removeLast() }
      text += line + "\n"
    }
    return text
  }

  private static func quoted(_ text: String) -> String {
    let plain = !text.unicodeScalars.contains { $0 == "," || $0 == "\"" || $0 == "\n" || $0 == "\r" }
    return plain ? text : "\"" + text.map { $0 == "\"" ? "\"\"" : String($0) }.joined() + "\""
  }

  private static func tabEscaped(_ text: String) -> String {
    var out = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\t": out += "\\t"
      case "\n": out += "\\n"
      case "\r": out += "\\r"
      case "\\": out += "\\\\"
      default: out.unicodeScalars.append(scalar)
      }
    }
    return out
  }
}

/// What a terminal makes of text.
public enum Terminal {
  /// Columns of standard output; 0 if it is none or does not say.
  public static var columns: Int {
    var size = winsize()
    return ioctl(1, UInt(TIOCGWINSZ), &size) == 0 ? Int(size.ws_col) : 0
  }

  /// Lines of standard output; 24 if it does not say.
  public static var lines: Int {
    var size = winsize()
    return ioctl(1, UInt(TIOCGWINSZ), &size) == 0 && size.ws_row > 0 ? Int(size.ws_row) : 24
  }

  /// Whether standard output is a terminal.
  public static var isOutput: Bool { isatty(1) == 1 }

  /// Text with everything escaped that could steer a terminal: controls, and marks that turn the writing direction.
  public static func escaped(_ text: String) -> String {
    var out = ""
    for scalar in text.unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned, .surrogate:
        out += scalar == "\u{200D}" ? String(scalar) : "\\u{" + String(scalar.value, radix: 16) + "}"
      default: out.unicodeScalars.append(scalar)
      }
    }
    return out
  }

  /// Columns that text takes: two for wide characters, none for marks that combine.
  public static func width(_ text: String) -> Int {
    text.reduce(0) { $0 + width($1) }
  }

  /// The longest beginning that fits, with `…` where something was cut.
  public static func cut(_ text: String, to columns: Int) -> String {
    guard width(text) > columns else { return text }
    var out = ""
    var used = 1
    for character in text {
      let next = width(character)
      if used + next > columns { break }
      used += next
      out.append(character)
    }
    return out + "…"
  }

  private static func width(_ character: Character) -> Int {
    guard let first = character.unicodeScalars.first else { return 0 }
    if first.properties.isEmojiPresentation || character.unicodeScalars.contains("\u{FE0F}") { return 2 }
    switch first.properties.generalCategory {
    case .nonspacingMark, .enclosingMark: return 0
    default: break
    }
    switch first.value {
    case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F,
      0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1FAFF, 0x20000...0x3FFFD:
      return 2
    default: return 1
    }
  }
}
