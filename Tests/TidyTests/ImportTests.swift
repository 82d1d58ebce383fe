// Imports equal declared dependencies, and arrows point down. SwiftPM alone lets an import through that is only
// reachable by way of another target, and never complains of a dependency nobody uses.
import Testing

/// What of a package's imports does not fit its manifest.
struct ImportRules {
  /// Modules that come with the toolchain. Foundation has a rule of its own in HouseTests.
  static let systemModules: Set<String> = ["Foundation", "Glibc", "Swift", "Synchronization", "Testing"]

  /// Programs that run bodies of tests with large numbers.
  static let alsoUseTests: Set<String> = ["rmsbench"]

  var manifest: Manifest
  var files: [TreeFile]

  /// - Returns: the module named by an import in that line; nil where it is none.
  static func module(importedBy line: Substring) -> String? {
    // Looking for the word first spares the expression nearly all lines.
    guard line.utf8.contains(UInt8(ascii: "i")), line.contains("import") else { return nil }
    let form =
      /^ *(?:@\w+ +|public +|package +|internal +|private +|fileprivate +)*import +(?:(?:struct|class|enum|protocol|typealias|func|let|var) +)?(\w+)/
    return line.firstMatch(of: form).map { String($0.1) }
  }

  private func imports(of target: Manifest.Target) -> [(module: String, place: String)] {
    files.filter { $0.isSwift && $0.path.hasPrefix("\(target.folder)/") }.flatMap { file in
      file.codeLines.enumerated().compactMap { number, line in
        Self.module(importedBy: line).map { ($0, "\(file.path):\(number + 1)") }
      }
    }
  }

  /// - Returns: imports of what the target does not declare.
  func undeclared() -> [String] {
    manifest.targets.flatMap { target in
      imports(of: target).compactMap { name, place in
        if target.dependencies.contains(name) || name == target.name { return nil }
        if Self.systemModules.contains(name), name != "Testing" || target.kind == .tests { return nil }
        return "\(place) imports \(name), which \(target.name) does not declare"
      }
    }
  }

  /// - Returns: declared dependencies that no file of the target imports, for targets that import anything.
  func unused() -> [String] {
    manifest.targets.flatMap { target -> [String] in
      let imported = Set(imports(of: target).map(\.module))
      if imported.isEmpty { return [] }
      return target.dependencies.filter { !imported.contains($0) }.map {
        "\(target.name) declares \($0) and imports it nowhere"
      }
    }
  }

  /// - Returns: dependencies on the same or a higher level. Within level 0 a target may lean on one above it in the file.
  func upward() -> [String] {
    manifest.targets.enumerated().flatMap { place, target -> [String] in
      guard let level = target.level else { return [] }
      return target.dependencies.compactMap { name in
        guard let other = manifest.targets.firstIndex(where: { $0.name == name }) else {
          return "\(target.name) depends on \(name), which Package.swift does not declare"
        }
        guard let otherLevel = manifest.targets[other].level else {
          let isFair = manifest.targets[other].kind == .clang || Self.alsoUseTests.contains(target.name)
          return isFair ? nil : "\(target.name) depends on the tests' \(name)"
        }
        let isBelow = otherLevel < level || (level == 0 && otherLevel == 0 && other < place)
        return isBelow ? nil : "\(target.name) (level \(level)) depends on \(name) (level \(otherLevel))"
      }
    }
  }
}

@Suite("imports")
struct ImportTests {
  static func house() throws -> ImportRules {
    let text = try #require(Tree.read("Package.swift"))
    return ImportRules(manifest: try Manifest(text: text), files: Tree.files)
  }

  /// A package with one fault of each kind.
  static func faulty() throws -> ImportRules {
    let manifest = try Manifest(
      text: """
        let package = Package(
          targets: [
            .systemLibrary(name: "CThing"),
            // 0
            module("Low", ["CThing", "Help", "High"]),
            module("Beside"),
            // 1
            module(
              "High",
              [
                "Low",
              ]),
            // Tests mirror Sources
            .target(name: "Help", dependencies: ["Low"], path: "Tests/Help"),
            tests("LowTests", ["Help", "Low"]),
          ]
        )
        """)
    return ImportRules(
      manifest: manifest,
      files: [
        TreeFile(
          path: "Sources/Low/Low.swift", text: "public import CThing\nimport Beside\n// import Gone\n"),
        TreeFile(path: "Sources/High/High.swift", text: "internal import struct Low.Thing\nimport Testing\n"),
        TreeFile(
          path: "Tests/LowTests/Low.swift", text: "@testable import Low\nimport Help\nimport Testing\n"),
        TreeFile(path: "Tests/Help/Help.swift", text: "import Low\n"),
      ])
  }

  @Test("the manifest is read whole")
  func manifestIsRead() throws {
    let manifest = try Self.house().manifest
    let folders = Tree.names(in: "Sources") + Tree.names(in: "Tests").filter { $0.hasSuffix("Tests") }
    let declared = Set(manifest.targets.map(\.name))
    for folder in folders where folder != "IntegrationTests" {
      #expect(declared.contains(folder), "\(folder) is a folder and no target")
    }
    for target in manifest.targets { #expect(Tree.isFolder(target.folder), "\(target.name) has no folder") }
    #expect(manifest.targets.compactMap(\.level) == manifest.targets.compactMap(\.level).sorted())
    #expect(manifest["Telemetry"]?.dependencies == ["Posix"])
    #expect(manifest["rmsd"]?.level == 6)
  }

  @Test("every import is declared")
  func everyImportIsDeclared() throws { expectNone(try Self.house().undeclared()) }

  @Test("every declared dependency is imported")
  func everyDependencyIsImported() throws { expectNone(try Self.house().unused()) }

  @Test("arrows point down")
  func arrowsPointDown() throws { expectNone(try Self.house().upward()) }

  @Test("a faulty package is found out")
  func faultyPackage() throws {
    let rules = try Self.faulty()
    #expect(
      rules.undeclared() == [
        "Sources/Low/Low.swift:2 imports Beside, which Low does not declare",
        "Sources/High/High.swift:2 imports Testing, which High does not declare",
      ])
    #expect(
      rules.unused() == [
        "Low declares Help and imports it nowhere", "Low declares High and imports it nowhere",
      ])
    #expect(rules.upward() == ["Low depends on the tests' Help", "Low (level 0) depends on High (level 1)"])
  }

  @Test("a word in a comment or a string is no code, an interpolation is")
  func blanking() {
    let code = SwiftText.code(of: #"a("b // c \(d("e")) f") // g"#)
    #expect(code.filter { $0 != " " } == "a((d()))")
    #expect(SwiftText.code(of: "x /* y */ z").filter { $0 != " " } == "xz")
    #expect(SwiftText.code(of: "\"\"\"\n try! \n\"\"\"\nq").filter { $0 != " " } == "\n\n\nq")
    #expect(SwiftText.code(of: ##"#"a\(b)"# c"##).filter { $0 != " " } == "c")
  }
}
