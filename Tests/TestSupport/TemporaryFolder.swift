// A folder of a test's own, removed afterwards.

import Glibc
import Posix

/// A fresh folder below the system's folder for temporary files.
public final class TemporaryFolder: Sendable {
  public let path: String

  public init() {
    let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(base)/rms-test-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { preconditionFailure("no temporary folder below \(base)") }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit { TemporaryFolder.remove(path) }

  private static func remove(_ path: String) {
    if let names = try? Files().names(in: path) { for name in names { remove(path + "/" + name) } }
    _ = Glibc.remove(path)
  }
}
