// swift-tools-version: 6.0
//
// RankMySteps: targets in level order, lowest first. A target may depend only on targets above it in this file;
// Tests/TidyTests/ImportTests compares every `import` with the dependencies declared here.
import PackageDescription

let settings: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

let package = Package(
  name: "RankMySteps",
  products: [
    .library(name: "RankMySteps", targets: ["RankMySteps"]),
    .executable(name: "rmsd", targets: ["rmsd"]),
    .executable(name: "rmsctl", targets: ["rmsctl"]),
    .executable(name: "rmsbench", targets: ["rmsbench"]),
  ],
  targets: [
    // C libraries: a module map and one header each; CSimdJSON adds the C++ that Swift cannot call.
    .systemLibrary(name: "CPrefetch"),
    .systemLibrary(name: "CChecksum"),
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CLZ4"),
    .systemLibrary(name: "CRdKafka"),
    .systemLibrary(name: "CMicroHTTPD"),
    .target(
      name: "CSimdJSON", cxxSettings: [.define("NDEBUG")], linkerSettings: [.linkedLibrary("simdjson")]),

    // 0
    module("Bytes", ["CChecksum"]),
    module("Posix", ["CLinux"]),
    module("Telemetry", ["Posix"]),
    // 1
    module("StepModel", ["CSimdJSON"]),
    module("Transport", ["Posix"]),
    // 2
    module("RankIndex", ["CPrefetch", "StepModel"]),
    module("SegmentLog", ["Bytes", "CLZ4", "Posix", "StepModel"]),
    module("KafkaSource", ["CRdKafka", "Posix"]),
    module("QueryProtocol", ["Bytes", "StepModel"]),
    module("CQL", ["Bytes", "CLZ4", "Posix", "Transport"]),
    // 3
    module("Inspection", ["Bytes", "Posix", "SegmentLog", "StepModel"]),
    module("HTTPFace", ["CMicroHTTPD", "Posix"]),
    module("QueryServer", ["Bytes", "Posix", "QueryProtocol", "Telemetry", "Transport"]),
    module("RankMySteps", ["Bytes", "Posix", "QueryProtocol", "StepModel", "Transport"]),
    // 4
    module("Console", ["QueryProtocol", "StepModel"]),
    module("Cluster", ["QueryProtocol", "RankIndex", "StepModel"]),
    // 5
    module(
      "Node",
      [
        "Bytes", "Cluster", "HTTPFace", "KafkaSource", "Posix", "QueryProtocol", "QueryServer", "RankIndex",
        "SegmentLog", "StepModel", "Telemetry",
      ]),
    // 6
    program(
      "rmsd",
      ["Console", "KafkaSource", "Node", "Posix", "QueryProtocol", "RankMySteps", "Telemetry"]),
    program(
      "rmsctl",
      [
        "Bytes", "Console", "Inspection", "KafkaSource", "Node", "Posix", "QueryProtocol", "RankMySteps",
        "SegmentLog", "StepModel",
      ]),
    program(
      "rmsbench",
      [
        "Bytes", "CQL", "CSimdJSON", "FuzzBodies", "KafkaSource", "Node", "Posix", "QueryProtocol",
        "QueryServer", "RankIndex", "SegmentLog", "StepModel", "Telemetry",
      ]),

    // Bodies of differential tests and fuzzers: small in tests, by the million in rmsbench.
    .target(
      name: "FuzzBodies", dependencies: ["Bytes", "Posix", "RankIndex", "SegmentLog", "StepModel"],
      path: "Tests/Fuzz/Bodies", swiftSettings: settings),

    // Tests mirror Sources: <Module>Tests/<Type>Tests.swift
    .target(
      name: "TestSupport", dependencies: ["Posix", "StepModel"], path: "Tests/TestSupport",
      swiftSettings: settings),
    tests("BytesTests", ["Bytes", "TestSupport"]),
    tests("PosixTests", ["Posix", "TestSupport"]),
    tests(
      "InspectionTests", ["FuzzBodies", "Inspection", "Posix", "SegmentLog", "StepModel", "TestSupport"]),
    tests("TelemetryTests", ["Telemetry", "TestSupport"]),
    tests("StepModelTests", ["FuzzBodies", "StepModel", "TestSupport"]),
    tests("TransportTests", ["Posix", "TestSupport", "Transport"]),
    tests("RankIndexTests", ["RankIndex", "StepModel", "TestSupport"]),
    tests(
      "SegmentLogTests",
      ["Bytes", "FuzzBodies", "Posix", "RankIndex", "SegmentLog", "StepModel", "TestSupport"]),
    tests("KafkaSourceTests", ["KafkaSource", "Posix"]),
    tests("CQLTests", ["Bytes", "CQL", "Posix", "TestSupport", "Transport"]),
    tests("QueryProtocolTests", ["Bytes", "QueryProtocol", "StepModel", "TestSupport"]),
    tests(
      "QueryServerTests",
      [
        "Bytes", "Posix", "QueryProtocol", "QueryServer", "StepModel", "Telemetry", "TestSupport",
      ]),
    tests(
      "RankMyStepsTests",
      ["Bytes", "Posix", "QueryProtocol", "RankMySteps", "StepModel", "TestSupport", "Transport"]),
    tests("ConsoleTests", ["Console", "QueryProtocol", "StepModel"]),
    tests("ClusterTests", ["Cluster", "QueryProtocol", "RankIndex", "StepModel", "TestSupport"]),
    tests("HTTPFaceTests", ["HTTPFace", "Posix"]),
    tests(
      "NodeTests",
      [
        "Bytes", "KafkaSource", "Node", "Posix", "QueryProtocol", "RankMySteps", "SegmentLog", "StepModel",
        "Telemetry", "TestSupport",
      ]),
    tests("TidyTests", []),
  ],
  swiftLanguageModes: [.v6],
  cxxLanguageStandard: .cxx17
)
