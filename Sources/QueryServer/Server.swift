// The query server: one front thread that accepts, greets and answers STATUS, and workers that answer queries.
//
// Why no second port for administration: one address is simpler to open, secure and remember. Instead a connection
// lives on the front thread until it asks its first query, moves to a worker then, and back for a STATUS; the front
// thread does no query, so STATUS and handshakes are answered while all workers are busy or wait at a shard's gate.

internal import Bytes
public import Posix
public import QueryProtocol
internal import Synchronization
public import Telemetry
internal import Transport

/// What a server is started with.
public struct ServerSettings: Sendable {
  /// Where to listen; port 0 lets the kernel choose.
  public var listen: HostPort
  /// Threads that answer queries, 1 or more.
  public var workerCount = 1
  public var limits = ServerLimits()
  /// The answer to HELLO; version, unknown options and the in-flight limit are filled in.
  public var hello: HelloAnswer

  public init(listen: HostPort, hello: HelloAnswer) {
    self.listen = listen
    self.hello = hello
  }
}

/// Why a server cannot start.
public enum ServerError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The address cannot be listened on.
  case listen(ListenError)
  /// The kernel gives no descriptor or thread.
  case system(SystemError)

  public var description: String {
    switch self {
    case .listen(let error): "\(error)"
    case .system(let error): "the query server cannot start: \(error)"
    }
  }
}

/// A running query server. Any thread.
public final class Server: Sendable {
  private let shared: ServerShared
  private let front: Mailbox
  private let workers: [Mailbox]
  private let threads: Mutex<[Thread]>
  /// Where it listens, with the port the kernel chose if 0 was asked.
  public let address: HostPort
  /// Connections it takes: the setting, or less where the descriptor limit is lower.
  public let connectionsMax: Int

  /// Listens and starts the threads. Raises the soft descriptor limit to the hard one; lowers the number of
  /// connections to what it allows, and says so.
  ///
  /// - Parameters:
  ///   - settings: where and how much.
  ///   - handler: answers queries and STATUS.
  ///   - metrics: where connections, requests and closes are counted.
  ///   - diagnostics: where they are told.
  ///   - clock: times deadlines.
  /// - Throws: `ServerError`.
  public init(
    _ settings: ServerSettings, handler: any QueryHandler, metrics: Metrics, diagnostics: Diagnostics,
    clock: Clock = .system
  ) throws(ServerError) {
    precondition(settings.workerCount > 0, "a server needs a worker")
    var settings = settings
    let listener: Listener
    do throws(ListenError) { listener = try Listener(settings.listen) } catch { throw .listen(error) }
    address = listener.address
    do throws(SystemError) {
      let descriptors = try DescriptorLimit.raise()
      let wanted = settings.limits.connectionsMax
      if settings.limits.fit(descriptorsMax: descriptors) {
        diagnostics.log(
          .warning, "fewer connections than configured: the descriptor limit is too low",
          [
            .expected: "\(wanted)", .max: "\(settings.limits.connectionsMax)", .limit: "\(descriptors)",
            .remedy: "LimitNOFILE=\(wanted + ServerLimits.descriptorsKept)",
          ])
      }
      connectionsMax = settings.limits.connectionsMax
      shared = ServerShared(
        settings, handler: handler, metrics: metrics, diagnostics: diagnostics, clock: clock)
      let frontLoop = try ReactorLoop(shared, isFront: true)
      frontLoop.listener = consume listener
      var workerLoops: [ReactorLoop] = []
      for _ in 0..<settings.workerCount { workerLoops.append(try ReactorLoop(shared, isFront: false)) }
      front = frontLoop.mailbox
      workers = workerLoops.map(\.mailbox)
      frontLoop.workers = workers
      for loop in workerLoops { loop.front = front }
      var started: [Thread] = []
      for (index, loop) in workerLoops.enumerated() {
        started.append(
          try Thread("rms-query-\(index)") {
            ThreadPriority.answering.take()
            loop.run()
          })
      }
      started.append(try Thread("rms-front") { frontLoop.run() })
      threads = Mutex(started)
    } catch { throw .system(error) }
  }

  /// A shard's watermark moved: requests that wait for one are asked again. Cheap if nobody waits; at most one
  /// wake-up of a thread is pending.
  public func watermarksMoved() {
    shared.generation.add(1, ordering: .sequentiallyConsistent)
    for worker in workers { worker.watermarksMoved() }
    front.watermarksMoved()
  }

  /// Stops: refuses new connections, tells every client, finishes what is under way, closes. Returns when all threads
  /// have ended. Call once.
  ///
  /// - Parameter within: what is not finished by then is cut off.
  public func drain(within: Duration) {
    let until = shared.clock.now + within
    // The front first: it hands on no connection afterwards.
    _ = front.post(.drain(until: until))
    for worker in workers { _ = worker.post(.drain(until: until)) }
    let running = threads.withLock { threads in
      let running = threads
      threads = []
      return running
    }
    for thread in running { thread.join() }
  }
}
