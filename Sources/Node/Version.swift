/// The version of this program, shown by `--version`, in STATUS and in HELLO.
public enum Version {
  public static let text = "0.1.0"
}
