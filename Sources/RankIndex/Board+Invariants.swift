// What always holds of a board; checked in debug builds after mutations.
#if DEBUG
  internal import StepModel

  extension BoardState {
    /// Traps unless records, buckets, list, counts and sums agree.
    ///
    /// - Complexity: O(numbers + totals in use).
    func checkInvariants() {
      dense.checkInvariants()
      list.checkInvariants()
      var (ranked, steps, above) = (0, UInt64(0), 0)
      var inList = 0
      for number in 0..<numbersEnd where records[number].total != 0 {
        let record = records[number]
        ranked += 1
        steps += UInt64(record.total)
        if record.total >= DenseTotals.limit {
          above += 1
          inList += 1
        } else if dense.heads[Int(record.total)] == DenseTotals.crowd {
          inList += 1
        } else {
          precondition(buckets.words[Int(record.place)] == UInt32(number), "user \(number) is not in place")
        }
      }
      precondition(ranked == users, "\(ranked) users have totals, \(users) counted")
      precondition(steps == totalSteps, "\(steps) steps in records, \(totalSteps) counted")
      precondition(above == beyond, "\(above) users beyond the dense totals, \(beyond) counted")
      precondition(inList == list.count, "\(inList) users belong in the list, it has \(list.count)")
      checkBuckets()
    }

    private func checkBuckets() {
      var place = 0
      while place < dense.users {
        let (total, first) = dense.total(at: place)
        let (head, count) = (dense.heads[Int(total)], dense.counts[Int(total)])
        if head == DenseTotals.crowd {
          precondition(count >= BoardState.crowdUsersMin, "total \(total): a crowd of \(count)")
        } else {
          precondition(count <= BoardState.crowdUsers, "total \(total): a bucket of \(count)")
          var seen = 0
          buckets.forEach(head: head, count: count) { number in
            precondition(records[Int(number)].total == total, "user \(number) stands with total \(total)")
            seen += 1
          }
          precondition(seen == count, "total \(total): \(seen) users in the bucket, \(count) counted")
        }
        place = first + Int(count)
      }
    }
  }
#endif
