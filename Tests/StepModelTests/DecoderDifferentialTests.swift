import FuzzBodies
import Glibc
import StepModel
import TestSupport
import Testing

@Suite struct DecoderDifferentialTests {
  /// Records a seed: small by default, millions in all when RMS_TEST_LONG asks for it.
  static let count = getenv("RMS_TEST_LONG") == nil ? 10_000 : 250_000

  @Test("scanner, reader and judge give the same event or the same reason", arguments: Seed.some(12))
  func roads(seed: Seed) throws {
    let zones = ["UTC", "event", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]
    let zone = zones[Int(seed.value % UInt64(zones.count))]
    let settings = ClusterSettings(dayRule: try DayRule(zone))
    let run = decoderBody(settings: settings, seed: seed.value, count: Self.count)
    #expect(run.difference == nil, "day.zone \(zone)")
    // The run is worth nothing if one road takes all, or a reason never comes up.
    #expect(run.scanned > Self.count / 10 && run.scanned < Self.count * 49 / 50)
    #expect(run.accepted > Self.count / 20)
    for reason in RejectReason.allCases where reason != .overflow {
      #expect(run.rejected[Int(reason.rawValue)] > 0, "no record is \(reason.name)")
    }
  }
}
