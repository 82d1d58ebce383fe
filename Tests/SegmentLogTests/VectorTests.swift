import Glibc
import Posix
import Testing

@testable import SegmentLog

@Suite("the vectors of Protocol/vectors/log")
struct VectorTests {
  @Test("a segment is written as its vector says, and read as its vector says", arguments: LogVector.all)
  func vector(vector: LogVector) throws {
    let path = LogVector.folder + "/" + vector.name + ".hex"
    if getenv("RMS_REWRITE_VECTORS") != nil {
      let file = try Files().open(path, .replace)
      try file.write(all: Array(vector.text.utf8), at: 0)
    }
    let text = String(decoding: try Files().read(whole: path), as: UTF8.self)
    // A sealed vector's bytes are a matter of the LZ4 library: what it holds is compared.
    if vector.form == .plain { #expect(text == vector.text) }
    if vector.form == .sealed {
      #expect(text.split(separator: "\n")[..<4] == vector.text.split(separator: "\n")[..<4])
    }
    let start = vector.name.split(separator: "-")[0]
    let ends = LogVector.read(vector).ends
    switch start {
    case "broken": #expect(ends == "damaged")
    case "newer", "foreign": #expect(ends == start)
    default: #expect(ends == "whole")
    }
  }

  @Test("there is no vector that nobody makes")
  func none() throws {
    let names = try Files().names(in: LogVector.folder).filter { $0.hasSuffix(".hex") }
    #expect(names == LogVector.all.map { $0.name + ".hex" }.sorted())
  }
}
