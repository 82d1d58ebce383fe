// The answers as JSON objects. The JSON is a contract: fields may be added, none changes its meaning.

import Bytes
import Console
import QueryProtocol
import StepModel

extension JSONWriter {
  /// `"shards":[{"partition","watermark","age_ms"}],"missing":[]`
  mutating func marks(_ shards: [ShardMark], _ missing: [UInt32]) {
    key("shards")
    array {
      for shard in shards {
        $0.object {
          $0.member("partition", shard.partition)
          $0.member("watermark", shard.watermark)
          $0.member("age_ms", shard.ageMillis == ShardMark.unknownAge ? nil : shard.ageMillis)
          if shard.flags.contains(.usersElsewhere) { $0.member("users_elsewhere", true) }
        }
      }
    }
    key("missing")
    array { for partition in missing { $0.value(partition) } }
  }

  /// TOP, AROUND, COMPARE.
  mutating func rows(_ answer: RowsAnswer, isTop: Bool) {
    object {
      $0.member("board", answer.context.board.description)
      $0.member("state", answer.context.state.name)
      $0.member("users", answer.users)
      $0.member("total_steps", answer.totalSteps)
      $0.key("rows")
      $0.array {
        for row in answer.rows {
          $0.object {
            $0.member("position", row.position)
            $0.member("rank", row.rank)
            $0.member("tied", row.tied)
            $0.member("user", row.user.text)
            $0.member("steps", row.steps)
          }
        }
      }
      if !isTop {
        $0.key("not_on_board")
        $0.array { for user in answer.absent { $0.value(user.text) } }
      }
      $0.marks(answer.context.shards, answer.context.missing)
    }
  }

  mutating func rank(_ context: AnswerContext, _ user: UserID, _ answer: RankAnswer) {
    let standing =
      answer.onBoard ? Standing(above: answer.above, tied: answer.tied, users: answer.users) : nil
    object {
      $0.member("board", context.board.description)
      $0.member("user", user.text)
      $0.member("on_board", answer.onBoard)
      $0.member("rank", answer.rank)
      $0.member("tied", answer.tied)
      $0.member("steps", answer.steps)
      $0.member("users", answer.users)
      $0.member("above", answer.above)
      $0.member("next_above_steps", answer.nextAboveSteps)
      $0.member("next_below_steps", answer.nextBelowSteps)
      $0.member("beaten", standing?.beaten)
      $0.member("top_percent", standing?.topPercent)
      $0.member("state", context.state.name)
      $0.marks(context.shards, context.missing)
    }
  }

  mutating func summary(_ answer: SummaryAnswer) {
    object {
      $0.member("board", answer.context.board.description)
      $0.member("state", answer.context.state.name)
      $0.member("users", answer.users)
      $0.member("total_steps", answer.totalSteps)
      $0.key("quantiles")
      $0.object { for quantile in answer.quantiles { $0.member(String(quantile.q), quantile.steps) } }
      $0.marks(answer.context.shards, answer.context.missing)
    }
  }

  mutating func boards(_ answer: BoardsAnswer) {
    object {
      $0.key("boards")
      $0.array {
        for entry in answer.boards {
          $0.object {
            $0.member("board", entry.board.description)
            $0.member("kind", entry.board.kind)
            $0.member("state", entry.state.name)
            $0.member("users", entry.users)
            $0.member("total_steps", entry.totalSteps)
            $0.member("starts", entry.startsMillis.map(Instant.text))
            $0.member("ends", entry.endsMillis.map(Instant.text))
          }
        }
      }
      $0.marks(answer.shards, answer.missing)
    }
  }

  mutating func status(_ answer: StatusAnswer) {
    object {
      $0.member("node", answer.node)
      $0.member("state", answer.state.name)
      $0.member("cluster", answer.cluster)
      $0.member("version", answer.software)
      $0.member("uptime_ms", answer.uptimeMillis)
      $0.member("problem", answer.problem.isEmpty ? nil : answer.problem)
      $0.key("shards")
      $0.array { for shard in answer.shards { $0.status(shard) } }
      $0.key("counters")
      $0.object { for counter in answer.counters { $0.member(counter.name, counter.value) } }
    }
  }

  private mutating func status(_ shard: ShardStatus) {
    object {
      $0.member("partition", shard.partition)
      $0.member("state", shard.state.name)
      $0.member("reason", shard.reason.isEmpty ? nil : shard.reason)
      $0.member("watermark", shard.watermark)
      $0.member("end_offset", shard.endOffset < 0 ? nil : shard.endOffset)
      $0.member("lag", shard.lag < 0 ? nil : shard.lag)
      $0.member("counted", shard.counted)
      $0.key("rejected")
      $0.object {
        for (reason, count) in zip(RejectReason.allCases, shard.rejected) { $0.member(reason.name, count) }
      }
      $0.member("superseded", shard.superseded)
      $0.member("shard_clock", shard.shardClockMillis < 0 ? nil : Instant.text(shard.shardClockMillis))
      $0.member("users", shard.users)
      $0.member("durable", shard.durable < 0 ? nil : shard.durable)
      $0.member("snapshot", shard.snapshot < 0 ? nil : shard.snapshot)
      $0.member("sealed", shard.sealed < 0 ? nil : shard.sealed)
      $0.member("restored_bytes", shard.restoredBytes)
      $0.member("restore_bytes", shard.restoreBytes)
    }
  }
}
