// Flat memory that grows without moving.
//
// A region reserves addresses for the most it may ever hold and makes them usable step by step, so nothing is copied
// when it grows, there is no moment with two copies, and a pointer into it stays good for its whole life. Reserved
// addresses cost nothing; a page costs memory once it is written. Past the first step the kernel is asked for huge
// pages: they make a random access about a fifth cheaper.
internal import Glibc

/// One growing, never moving stretch of zeroed memory. Its owner calls `destroy()` once.
struct Region {
  /// Memory is made usable in multiples of this many bytes, the size of a huge page.
  static let stepBytes = 2 << 20

  /// Where the region starts; aligned to a step.
  let base: UnsafeMutableRawPointer
  /// The most it may ever hold, in bytes.
  let bytesMax: Int
  /// Usable now, in bytes.
  private(set) var usableBytes = 0
  /// Whether huge pages are asked for.
  private let huge: Bool
  private let mapping: UnsafeMutableRawPointer
  private let mappingBytes: Int

  /// Reserves addresses; stops the process where the kernel refuses even those.
  ///
  /// - Parameters:
  ///   - bytesMax: the most the region may ever hold; above 0.
  ///   - huge: whether to ask for huge pages past the first step.
  init(bytesMax: Int, huge: Bool) {
    let rounded = Region.roundedUp(bytesMax)
    mappingBytes = rounded + Region.stepBytes
    guard
      let start = mmap(
        nil, mappingBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
      start != MAP_FAILED
    else { fatalError("cannot reserve \(mappingBytes) bytes of address space: errno \(errno)") }
    mapping = start
    let skip = (Region.stepBytes - Int(bitPattern: start) % Region.stepBytes) % Region.stepBytes
    base = start + skip
    self.bytesMax = rounded
    self.huge = huge
  }

  /// Makes at least the first `bytes` bytes usable; they read as 0 until written.
  ///
  /// - Complexity: one system call per quarter of growth.
  @inline(__always) mutating func need(_ bytes: Int) {
    if bytes > usableBytes { grow(to: bytes) }
  }

  @inline(never) private mutating func grow(to bytes: Int) {
    precondition(bytes <= bytesMax, "region of \(bytesMax) bytes asked for \(bytes)")
    let target = min(bytesMax, Region.roundedUp(max(bytes, usableBytes + usableBytes / 4)))
    guard mprotect(base + usableBytes, target - usableBytes, PROT_READ | PROT_WRITE) == 0 else {
      fatalError("out of memory: \(target) bytes in one region: errno \(errno)")
    }
    let from = max(usableBytes, Region.stepBytes)
    if huge && target > from { _ = madvise(base + from, target - from, MADV_HUGEPAGE) }
    usableBytes = target
  }

  /// Gives all of it back; no pointer into the region may be used afterwards.
  func destroy() { munmap(mapping, mappingBytes) }

  private static func roundedUp(_ bytes: Int) -> Int { (bytes + stepBytes - 1) / stepBytes * stepBytes }
}
