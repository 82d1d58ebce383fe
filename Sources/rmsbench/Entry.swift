// rmsbench: a benchmark a verb. Each verb's file holds its usage, its arguments and its run.

import Glibc

/// A row a verb.
private let verbs: [(name: String, help: String, run: @Sendable ([String]) -> Void)] = [
  ("board", "ranks in process: increments, ranks, ties, memory", boardBench),
  ("decode", "JSON records to step events, beside simdjson On-Demand", decodeBench),
  ("kafka", "reading a topic, beside librdkafka alone; filling one", KafkaBench.run),
  ("snapshot", "snapshots: written while events are applied, read back", snapshotBench),
  ("log", "a shard's log: encode, append and sync beside fio, seal beside lz4", logBench),
  ("cql", "rows into a Cassandra and back, one by one and in batches", CQLBench.run),
  ("query", "load over TCP: rate, latency and CPU of a node or a toy", queryBench),
]

/// Writes a text to standard error.
///
/// - Parameter text: what to say, with its newline.
func complain(_ text: String) {
  var text = text
  text.withUTF8 { _ = write(2, $0.baseAddress, $0.count) }
}

@main struct Entry {
  static func main() {
    let arguments = CommandLine.arguments.dropFirst()
    if let verb = verbs.first(where: { $0.name == arguments.first }) {
      verb.run(Array(arguments.dropFirst()))
      return
    }
    print("usage: rmsbench VERB [--help | options]\n")
    for verb in verbs {
      print("  \(verb.name)\(String(repeating: " ", count: max(1, 10 - verb.name.utf8.count)))\(verb.help)")
    }
    let asked = arguments.first
    exit(asked == nil || asked == "--help" || asked == "help" ? 0 : 2)
  }
}
