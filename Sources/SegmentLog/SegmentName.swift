// How the files of a shard are called: the base offset in 20 digits, then what the file is.

/// A segment's file.
public struct SegmentName: Hashable, Comparable, Sendable {
  /// In which form the segment lies there.
  public enum Form: UInt8, Hashable, Sendable {
    /// As it was written.
    case plain
    /// One LZ4 frame.
    case sealed

    var suffix: String {
      switch self {
      case .plain: ".seg"
      case .sealed: ".seg.lz4"
      }
    }
  }

  /// Watermark before the segment's first batch.
  public let base: Int64
  public let form: Form

  public init(base: Int64, form: Form) {
    self.base = base
    self.form = form
  }

  /// Reads a name; nil if it is no segment's.
  public init?(_ text: String) {
    for form in [Form.plain, .sealed] where text.hasSuffix(form.suffix) {
      let digits = text.dropLast(form.suffix.utf8.count)
      guard digits.utf8.count == 20, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
        let base = Int64(digits)
      else { return nil }
      self.init(base: base, form: form)
      return
    }
    return nil
  }

  /// `00000000000000001000.seg`.
  public var text: String { SegmentName.digits(base) + form.suffix }

  /// A watermark as names have it.
  ///
  /// - Parameter watermark: 0 or more.
  /// - Returns: 20 digits.
  public static func digits(_ watermark: Int64) -> String {
    let text = String(watermark)
    return String(repeating: "0", count: max(0, 20 - text.utf8.count)) + text
  }

  public static func < (a: SegmentName, b: SegmentName) -> Bool {
    a.base != b.base ? a.base < b.base : a.form.rawValue < b.form.rawValue
  }
}
