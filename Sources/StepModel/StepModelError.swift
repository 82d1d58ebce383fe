// What can go wrong before the first record is read: the zone of the cluster's days.

/// Errors of this module; each text names the thing and the remedy.
public enum StepModelError: Error, Equatable, CustomStringConvertible {
  /// There is no such zone on this machine.
  case zoneUnknown(name: String, searched: String)
  /// The zone's file is there but cannot be used.
  case zoneUnreadable(name: String, path: String, reason: String)

  public var description: String {
    switch self {
    case .zoneUnknown(let name, let searched):
      "day.zone: no time zone \"\(name)\" under \(searched); give an IANA name such as UTC or Europe/Berlin, "
        + "or `event` (package tzdata holds the zones)"
    case .zoneUnreadable(let name, let path, let reason):
      "day.zone: time zone \"\(name)\" cannot be read from \(path): \(reason); reinstall the package tzdata"
    }
  }
}
