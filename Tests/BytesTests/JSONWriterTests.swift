import Bytes
import Testing

@Suite struct JSONWriterTests {
  @Test("commas stand between members and elements and nowhere else")
  func commas() {
    var json = JSONWriter()
    json.object {
      $0.member("a", 1)
      $0.key("b")
      $0.array {
        $0.value("x")
        $0.object { _ in }
        $0.array { _ in }
        $0.null()
      }
      $0.member("c", nil as Int?)
      $0.member("d", true)
    }
    #expect(json.text == #"{"a":1,"b":["x",{},[],null],"c":null,"d":true}"#)
  }

  @Test("control characters, quotes and backslashes are escaped; other text stays as it is")
  func escapes() {
    var json = JSONWriter()
    json.value("a\"\\\u{1B}\n é\u{1F600}\u{7F}")
    #expect(json.text == #""a\"\\\u001b\u000a é😀\u007f""#)
  }

  @Test("whole doubles are written as integers, others with their shortest digits")
  func doubles() {
    var json = JSONWriter()
    json.array {
      for number in [100.0, 75.5, 0.0001, 0.0, 33.333333333333336] { $0.value(number) }
    }
    #expect(json.text == "[100,75.5,0.0001,0,33.333333333333336]")
  }
}
