// Where answers go: standard output in the form that `-o` names, and a sentence on standard error when that fails.

import Bytes
import Console
import Glibc

/// The forms of `-o`.
enum OutputFormat: String, CaseIterable {
  case table
  case json
  case csv
  case tsv
}

/// Standard output that notices when nobody takes what it writes.
struct Output {
  let format: OutputFormat
  let colour: Bool

  /// Writes one answer in the chosen form.
  func show(_ table: Table, json: (inout JSONWriter) -> Void) throws(Failure) {
    switch format {
    case .table: try Output.write(table.aligned(width: Terminal.columns))
    case .csv: try Output.write(table.separated(by: ","))
    case .tsv: try Output.write(table.separated(by: "\t"))
    case .json:
      var writer = JSONWriter()
      json(&writer)
      try Output.write(writer.text + "\n")
    }
  }

  /// Writes all of the text to standard output.
  ///
  /// - Throws: `outputClosed` if the reader is gone, `refused` if the device takes no more.
  static func write(_ text: String) throws(Failure) { try write(Array(text.utf8), to: 1) }

  /// Writes all of the bytes to standard output, as they are.
  ///
  /// - Throws: as `write` of a text.
  static func write(_ bytes: [UInt8]) throws(Failure) { try write(bytes, to: 1) }

  /// A line for people, on standard error.
  static func note(_ text: String) { try? write(Array((text + "\n").utf8), to: 2) }

  /// A question, on standard error; the answer stays in its line.
  static func ask(_ text: String) { try? write(Array(text.utf8), to: 2) }

  private static func write(_ bytes: [UInt8], to descriptor: Int32) throws(Failure) {
    var bytes = bytes[...]
    while !bytes.isEmpty {
      let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if written < 0 {
        switch errno {
        case EINTR: continue
        case EPIPE: throw .outputClosed
        default: throw .refused("cannot write the output: \(String(cString: strerror(errno)))")
        }
      }
      bytes = bytes.dropFirst(written)
    }
  }
}
