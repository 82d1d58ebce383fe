// rmsbench decode: JSON records to step events.

internal import CSimdJSON
internal import FuzzBodies
import Glibc
internal import StepModel

private let usage = """
  usage: rmsbench decode [--records N] [--repeats N] [--day-zone ZONE]
         rmsbench decode --differential N [--seed S]
         rmsbench decode --judge FILE [--day-zone ZONE] [--accept-late DAYS] [--future-slack SECONDS] [--steps-max N]

  Times the decoder beside simdjson On-Demand, median of 5 runs of N records (default 10,000, repeated 20 times).
  --differential  runs N random records through both roads of the decoder; exits 1 at the first difference
  --judge         reads lines `HEX CLOCK` (a payload, `-` for a null one, and the shard clock in milliseconds) and
                  prints for each `ok USER-HEX STEPS DAY INSTANT-NANOSECONDS` or the reason
  """

/// Options of `rmsbench decode`.
private struct DecodeOptions {
  var records = 10_000
  var repeats = 20
  var differential: Int?
  var seed: UInt64 = 1
  var judge: String?
  var settings: ClusterSettings

  /// Prints what is wrong and exits with 2 if the arguments make no sense.
  init(_ arguments: [String]) {
    func fail(_ text: String) -> Never {
      complain("rmsbench decode: \(text)\n\(usage)\n")
      exit(2)
    }
    if arguments.contains("--help") {
      print(usage)
      exit(0)
    }
    var zone = "UTC"
    var acceptLate = 8
    var futureSlack = 600
    var stepsMax = 100_000
    var rest = arguments[...]
    while let option = rest.popFirst() {
      guard let value = rest.popFirst() else { fail("\(option) needs a value") }
      func number(_ range: ClosedRange<Int>) -> Int {
        guard let number = Int(value), range.contains(number) else {
          fail("\(option) \(value): not in \(range)")
        }
        return number
      }
      switch option {
      case "--records": records = number(1...10_000_000)
      case "--repeats": repeats = number(1...1_000_000)
      case "--differential": differential = number(1...Int.max)
      case "--seed": seed = UInt64(number(0...Int.max))
      case "--judge": judge = value
      case "--day-zone": zone = value
      case "--accept-late": acceptLate = number(0...36_500)
      case "--future-slack": futureSlack = number(0...3_153_600_000)
      case "--steps-max": stepsMax = number(1...Int(UInt32.max))
      default: fail("no option \(option)")
      }
    }
    do {
      settings = ClusterSettings(
        dayRule: try DayRule(zone), acceptLate: .seconds(86_400 * acceptLate),
        futureSlack: .seconds(futureSlack),
        stepsMax: UInt32(stepsMax))
    } catch {
      fail("\(error)")
    }
  }
}

/// Runs `rmsbench decode`.
///
/// - Parameter arguments: what follows the verb.
func decodeBench(arguments: [String]) {
  let options = DecodeOptions(arguments)
  if let count = options.differential {
    differential(options, count: count)
  } else if let file = options.judge {
    judge(options, file: file)
  } else {
    times(options)
  }
}

private var noEvent: StepEvent {
  StepEvent(user: UserKey(high: 0, low: 0), offset: 0, timeOfDay: 0, steps: 0, day: Day(number: 0))
}

// MARK: Differential

private func differential(_ options: DecodeOptions, count: Int) {
  var rules: [DayRule] = [.event, options.settings.dayRule]
  for name in ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"] {
    if let rule = try? DayRule(name) { rules.append(rule) }
  }
  var left = count
  var seed = options.seed
  var scanned = 0
  var accepted = 0
  var rejected = [Int](repeating: 0, count: RejectReason.allCases.count)
  while left > 0 {
    let size = min(left, 100_000)
    var settings = options.settings
    settings.dayRule = rules[Int(seed % UInt64(rules.count))]
    let run = decoderBody(settings: settings, seed: seed, count: size)
    if let difference = run.difference {
      print("seed \(seed), day.zone \(settings.dayRule.name): \(difference)")
      exit(1)
    }
    scanned += run.scanned
    accepted += run.accepted
    for reason in RejectReason.allCases {
      rejected[Int(reason.rawValue)] += run.rejected[Int(reason.rawValue)]
    }
    left -= size
    seed &+= 1
  }
  print("\(count) records, no difference; scanner took \(scanned); accepted \(accepted)")
  for reason in RejectReason.allCases { print("  \(reason.name) \(rejected[Int(reason.rawValue)])") }
}

// MARK: Judge

private func judge(_ options: DecodeOptions, file: String) {
  guard let input = fopen(file, "r") else {
    complain("rmsbench decode: cannot read \(file): \(String(cString: strerror(errno)))\n")
    exit(1)
  }
  defer { fclose(input) }
  var decoder = StepDecoder(settings: options.settings)
  var line: UnsafeMutablePointer<CChar>?
  var capacity = 0
  defer { free(line) }
  var offset: Int64 = 0
  while getline(&line, &capacity, input) > 0, let line {
    let parts = String(cString: line).split(whereSeparator: { $0 == " " || $0 == "\n" })
    guard parts.count == 2, let payload = bytes(hex: parts[0]), let clock = Int64(parts[1]) else {
      complain("rmsbench decode: \(file), line \(offset + 1): not `HEX CLOCK`\n")
      exit(1)
    }
    payload.withUnsafeBytes { payload in
      var event = noEvent
      print(describe(decoder.decode(payload, offset: offset, shardClock: clock, into: &event), event))
    }
    decoder.reset()
    offset += 1
  }
}

private func describe(_ reason: RejectReason?, _ event: StepEvent) -> String {
  if let reason { return reason.name }
  let digits = Array("0123456789abcdef")
  let user = [UInt8](unsafeUninitializedCapacity: event.user.length) { buffer, count in
    if let base = buffer.baseAddress { count = event.user.write(to: base) }
  }
  let hex = String(user.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
  // Years up to 9999 do not fit 64 bits of nanoseconds.
  let seconds = Int64(event.day.number) * 86_400 + event.timeOfDay.quotient(1_000_000_000)
  let rest = event.timeOfDay - event.timeOfDay.quotient(1_000_000_000) * 1_000_000_000
  return "ok \(hex) \(event.steps) \(event.day) \(Int128(seconds) * 1_000_000_000 + Int128(rest))"
}

extension Int64 {
  /// Division that rounds down.
  fileprivate func quotient(_ divisor: Int64) -> Int64 {
    let (quotient, rest) = quotientAndRemainder(dividingBy: divisor)
    return rest < 0 ? quotient - 1 : quotient
  }
}

private func bytes(hex: Substring) -> [UInt8]? {
  if hex == "-" { return [] }
  let digits = hex.utf8.map { UInt8($0) }
  guard digits.count % 2 == 0 else { return nil }
  var bytes: [UInt8] = []
  bytes.reserveCapacity(digits.count / 2)
  for place in stride(from: 0, to: digits.count, by: 2) {
    guard let byte = UInt8(String(decoding: digits[place..<place + 2], as: UTF8.self), radix: 16) else {
      return nil
    }
    bytes.append(byte)
  }
  return bytes
}

// MARK: Times

/// Records in one buffer, with the padding that On-Demand wants.
private struct Records {
  var bytes: [UInt8] = []
  var starts: [UInt32] = []
  var lengths: [UInt32] = []

  init(_ count: Int, _ make: (_ index: Int) -> String) {
    for index in 0..<count {
      starts.append(UInt32(bytes.count))
      bytes += make(index).utf8
      lengths.append(UInt32(bytes.count) - starts[index])
    }
    bytes += [UInt8](repeating: 0, count: 64)
  }
}

/// What producers write, and below the first six what is odd or wrong.
private func shapes(_ count: Int) -> [(name: String, records: Records)] {
  var random = FuzzRandom(seed: 7)
  let users = (0..<72_000).map { _ in
    let digits = Array("0123456789abcdef")
    return String((0..<36).map { [8, 13, 18, 23].contains($0) ? "-" : digits[random.below(16)] })
  }
  func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
  func time() -> String {
    "2026-11-24 \(two(random.below(24))):\(two(random.below(60))):\(two(random.below(60)))"
  }
  func user() -> String { users[random.below(users.count)] }
  func steps() -> Int { 1 + random.below(2000) }
  return [
    (
      "usual, spaced",
      Records(count) { _ in "{\"uuid\": \"\(user())\", \"steps\": \(steps()), \"timestamp\": \"\(time())\"}" }
    ),
    (
      "usual, compact",
      Records(count) { _ in "{\"uuid\":\"\(user())\",\"steps\":\(steps()),\"timestamp\":\"\(time())\"}" }
    ),
    (
      "offset and source",
      Records(count) { _ in
        "{\"uuid\":\"\(user())\",\"steps\":\(steps()),\"timestamp\":\"\(time())+01:00\",\"source\":\"phone\"}"
      }
    ),
    (
      "text ids",
      Records(count) { _ in
        "{\"uuid\":\"walker-\(random.below(1_000_000))\",\"steps\":\(steps()),\"timestamp\":\"\(time())\"}"
      }
    ),
    (
      "other order",
      Records(count) { _ in "{\"timestamp\": \"\(time())\", \"steps\": \(steps()), \"uuid\": \"\(user())\"}" }
    ),
    (
      "unknown member",
      Records(count) { index in
        "{\"uuid\": \"\(user())\", \"steps\": \(steps()), \"timestamp\": \"\(time())\", \"seq\": \(index)}"
      }
    ),
  ] + oddShapes(count, user, steps, time)
}

private func oddShapes(
  _ count: Int, _ user: () -> String, _ steps: () -> Int, _ time: () -> String
) -> [(name: String, records: Records)] {
  func three(_ uuid: String, _ steps: String, _ time: String, _ more: String = "") -> String {
    "{\"uuid\": \(uuid), \"steps\": \(steps), \"timestamp\": \(time)\(more)}"
  }
  func text(_ text: String) -> String { "\"\(text)\"" }
  return [
    ("fraction and Z", Records(count) { _ in three(text(user()), "\(steps())", text(time() + ".125Z")) }),
    ("epoch, fraction", Records(count) { _ in three(text(user()), "\(steps())", "1795500000.\(steps())") }),
    ("ids beyond ASCII", Records(count) { _ in three(text("é" + user()), "\(steps())", text(time())) }),
    ("steps as fraction", Records(count) { _ in three(text(user()), "\(steps()).0", text(time())) }),
    (
      "nested member",
      Records(count) { index in
        three(
          text(user()), "\(steps())", text(time()),
          ", \"device\": {\"model\": \"a \\\"b\\\"\", \"v\": [\(index), 2.5]}")
      }
    ),
    ("escaped id", Records(count) { _ in three(text("\\u00e9" + user()), "\(steps())", text(time())) }),
    ("malformed", Records(count) { _ in three(text(user()), "NaN", text(time())) }),
    ("cut off", Records(count) { _ in String(three(text(user()), "\(steps())", text(time())).dropLast()) }),
    ("repeated", Records(count) { _ in three(text(user()), "\(steps())", text(time()), ", \"steps\": 1") }),
    ("missing", Records(count) { _ in "{\"uuid\": \"\(user())\", \"timestamp\": \"\(time())\"}" }),
    ("type", Records(count) { _ in three(text(user()), text("\(steps())"), text(time())) }),
    ("time", Records(count) { _ in three(text(user()), "\(steps())", text("2026-02-30 10:00:00")) }),
  ]
}

private func nanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

private func fixed(_ value: Double, _ digits: Int, width: Int) -> String {
  var scale = 1.0
  for _ in 0..<digits { scale *= 10 }
  let units = Int((value * scale).rounded())
  var text = "\(units / Int(scale))"
  if digits > 0 {
    let rest = "\(units % Int(scale))"
    text += "." + String(repeating: "0", count: digits - rest.utf8.count) + rest
  }
  return String(repeating: " ", count: max(0, width - text.utf8.count)) + text
}

/// Decodes all records once; the sum keeps the work alive and equal between roads.
private func pass(_ decoder: inout StepDecoder, _ records: Records, judged: Bool) -> UInt64 {
  // 2026-11-25 00:00 UTC and a day of slack for zones east of it.
  let shardClock: Int64 = 1_795_651_200_000
  var event = noEvent
  var sum: UInt64 = 0
  records.bytes.withUnsafeBytes { bytes in
    for index in records.starts.indices {
      let start = Int(records.starts[index])
      let payload = UnsafeRawBufferPointer(rebasing: bytes[start..<start + Int(records.lengths[index])])
      let reason =
        judged
        ? decoder.judged(payload, offset: Int64(index), shardClock: shardClock, into: &event)
        : decoder.decode(payload, offset: Int64(index), shardClock: shardClock, into: &event)
      sum &+= reason.map { UInt64($0.rawValue) } ?? UInt64(event.steps)
      if index & 1023 == 1023 { decoder.reset() }
    }
  }
  decoder.reset()
  return sum
}

private func times(_ options: DecodeOptions) {
  guard let peer = rms_ondemand_create() else {
    complain("rmsbench decode: On-Demand's AVX2 kernel does not run on this processor\n")
    exit(1)
  }
  defer { rms_ondemand_destroy(peer) }
  let kernel = String(cString: rms_ondemand_kernel())
  print(
    "ns a record, median of 5 (\(options.records) records, \(options.repeats) times); day.zone \(options.settings.dayRule.name)"
  )
  print("peer: simdjson On-Demand, uuid, steps and timestamp as text, kernel \(kernel)\n")
  print("records             bytes  decode   judge  On-Demand   decode is   judge is   sum")
  for (name, records) in shapes(options.records) {
    var decoder = StepDecoder(settings: options.settings)
    var runs: [[Double]] = [[], [], []]
    var sums: [UInt64] = [0, 0, 0]
    var taken = 0
    for _ in 0..<5 {
      for road in 0..<3 {
        let start = nanoseconds()
        for _ in 0..<options.repeats {
          if road < 2 {
            sums[road] = pass(&decoder, records, judged: road == 1)
          } else {
            var sum: UInt64 = 0
            let good = records.bytes.withUnsafeBytes {
              rms_ondemand_read(
                peer, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), records.starts, records.lengths,
                records.starts.count, &sum)
            }
            sums[2] = sum
            taken = good
          }
        }
        runs[road].append(Double(nanoseconds() - start) / Double(options.repeats * records.starts.count))
      }
    }
    precondition(sums[0] == sums[1], "the two roads gave different sums")
    let ns = runs.map(median)
    let label = name + String(repeating: " ", count: max(0, 18 - name.utf8.count))
    // What On-Demand does not take whole is no race with it: it stops at the first fault.
    let peer = taken == records.starts.count ? "" : "   (takes \(taken))"
    let size = Double(records.bytes.count - 64) / Double(records.starts.count)
    print(
      "\(label)\(fixed(size, 1, width: 7))\(fixed(ns[0], 1, width: 8))\(fixed(ns[1], 1, width: 8))\(fixed(ns[2], 1, width: 11))"
        + "\(fixed(ns[2] / ns[0], 2, width: 10)) x\(fixed(ns[2] / ns[1], 2, width: 9)) x   \(sums[0])\(peer)")
  }
}
