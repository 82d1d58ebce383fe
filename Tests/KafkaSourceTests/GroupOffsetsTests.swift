import Testing

@testable import KafkaSource

@Suite struct GroupOffsetsTests {
  /// Partitions 0 and 1 ours, what was stored for them told.
  static func owning() -> GroupOffsets {
    var group = GroupOffsets()
    group.assigned([0, 1])
    _ = group.question(nowNs: 0)
    _ = group.heard(
      [0: StoredOffset(offset: -1, metadata: ""), 1: StoredOffset(offset: 5, metadata: "rms1 5")], nowNs: 0)
    return group
  }

  func due(_ group: inout GroupOffsets, atRest: Bool = true, isLast: Bool = false) -> [Int32: Int64] {
    if atRest { group.rests(true) }
    let due = Dictionary(uniqueKeysWithValues: group.due(isLast: isLast).map { ($0.partition, $0.offset) })
    if !due.isEmpty { group.sent() }
    return due
  }

  @Test("the stored offset is told once an assignment, ours only with our mark for that very offset")
  func tells() {
    var group = GroupOffsets()
    group.assigned([0, 1, 2, 3])
    #expect(group.question(nowNs: 0) == [0, 1, 2, 3])
    #expect(group.question(nowNs: 1) == [], "once at a time")
    let events = group.heard(
      [
        0: StoredOffset(offset: -1001, metadata: ""), 1: StoredOffset(offset: 5, metadata: "rms1 5"),
        2: StoredOffset(offset: 5, metadata: ""), 3: StoredOffset(offset: 6, metadata: "rms1 5"),
        9: StoredOffset(offset: 1, metadata: ""),
      ], nowNs: 0)
    #expect(
      events == [
        .groupOffset(GroupOffset(partition: 0, offset: nil, isOurs: false)),
        .groupOffset(GroupOffset(partition: 1, offset: 5, isOurs: true)),
        .groupOffset(GroupOffset(partition: 2, offset: 5, isOurs: false)),
        .groupOffset(GroupOffset(partition: 3, offset: 6, isOurs: false)),
      ])
    #expect(group.question(nowNs: .max) == [])
    group.revoked([1])
    group.assigned([1])
    #expect(group.question(nowNs: 0) == [1])
  }

  @Test(
    "a question that failed is asked again after a while; nothing is committed over an offset not yet told")
  func asksAgain() {
    var group = GroupOffsets()
    group.assigned([0])
    group.want([(0, 9)])
    #expect(group.question(nowNs: 0) == [0])
    #expect(due(&group) == [:])
    #expect(group.heard(nil, nowNs: 10) == [])
    #expect(group.question(nowNs: 11) == [])
    #expect(group.question(nowNs: 10 + GroupOffsets.questionIntervalNs) == [0])
    #expect(group.heard([0: StoredOffset(offset: 4, metadata: "")], nowNs: 20).count == 1)
    #expect(due(&group) == [0: 9])
  }

  @Test("offsets go out while the group rests, one commit at a time, the newest, and not twice")
  func sends() {
    var group = Self.owning()
    group.want([(0, 7), (7, 7)])
    #expect(due(&group, atRest: false) == [:])
    group.rests(false)
    #expect(due(&group, atRest: false) == [:])
    #expect(due(&group) == [0: 7])
    group.want([(0, 8), (1, 3)])
    #expect(due(&group) == [:], "one is under way")
    #expect(group.committed([0: 7], nil) == nil)
    #expect(due(&group, atRest: false) == [:], "a word of rest is good for one commit")
    #expect(due(&group) == [0: 8, 1: 3])
    _ = group.committed([0: 8, 1: 3], nil)
    #expect(due(&group) == [:])
  }

  @Test(
    "nothing is committed of a partition that was taken away, nor what was wanted under an earlier assignment"
  )
  func revoked() {
    var group = Self.owning()
    group.want([(0, 7), (1, 9)])
    group.revoked([0])
    group.want([(0, 8)])
    #expect(due(&group) == [1: 9])
    _ = group.committed([1: 9, 0: 7], nil)
    group.assigned([0])
    _ = group.question(nowNs: 0)
    _ = group.heard([0: StoredOffset(offset: 9, metadata: "rms1 9")], nowNs: 0)
    #expect(due(&group) == [:])
    group.want([(0, 10)])
    #expect(due(&group) == [0: 10])
  }

  @Test("a failure is told once and so is its end; a rebalance is none; what failed is sent again")
  func fails() {
    var group = Self.owning()
    group.want([(0, 7)])
    let refused = KafkaFailure(code: 30)
    for round in 0..<3 {
      #expect(due(&group) == [0: 7])
      let event = group.committed([:], refused)
      guard round == 0 else {
        #expect(event == nil)
        continue
      }
      guard case .log(4, let text)? = event else {
        Issue.record("not told: \(String(describing: event))")
        return
      }
      #expect(text.contains(refused.name))
    }
    #expect(due(&group) == [0: 7])
    guard case .log(6, _)? = group.committed([0: 7], nil) else {
      Issue.record("the end is not told")
      return
    }
    for code: Int32 in [27, 22, 25] {
      group.want([(0, 100 + Int64(code))])
      #expect(!due(&group).isEmpty)
      #expect(group.committed([:], KafkaFailure(code: code)) == nil)
    }
  }

  @Test("the last commit waits for no word of rest")
  func last() {
    var group = Self.owning()
    group.want([(1, 9)])
    #expect(due(&group, atRest: false, isLast: true) == [1: 9])
  }
}
