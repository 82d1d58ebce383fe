#!/usr/bin/env python3
"""Counts a topic again, independently of the product: kcat reads it, Python sums it.

What comes out is everything a node may be asked: totals of every board in order, ranks, ties, percentiles, quantiles, and
every rejected record with its reason. Standard library and kcat only.
"""

import argparse
import bisect
import collections
import datetime
import json
import subprocess
import sys

from step_rules import Rules

TOTAL_MAX = 2**32 - 1


class Record:
    __slots__ = ("partition", "offset", "timestamp_ms", "payload")

    def __init__(self, partition, offset, timestamp_ms, payload):
        self.partition, self.offset, self.timestamp_ms, self.payload = partition, offset, timestamp_ms, payload


def read_topic(bootstrap, topic):
    """Every committed record of a topic, partition by partition in offset order as kcat gives them."""
    command = [
        "kcat", "-C", "-q", "-e", "-b", bootstrap, "-t", topic, "-o", "beginning", "-X", "isolation.level=read_committed",
        "-X", "check.crcs=true", "-f", "%p %o %T %S\n%s", "-D", "",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    stream = process.stdout
    while True:
        head = stream.readline()
        if not head:
            break
        partition, offset, timestamp_ms, length = (int(word) for word in head.split())
        payload = None if length < 0 else stream.read(length)
        yield Record(partition, offset, timestamp_ms, payload)
    if process.wait() != 0:
        raise RuntimeError(f"kcat ended with {process.returncode}")


def boards_of(day):
    """Names of the boards an event of a day counts on."""
    date = datetime.date.fromisoformat(day)
    year, week, _ = date.isocalendar()
    return (day, f"{year:04}-W{week:02}", day[:7], "all")


class Board:
    """One board, settled: rows in order, and what follows from them."""

    def __init__(self, totals):
        # Steps descending, then the id's bytes ascending.
        ordered = sorted(((-steps, user.encode(), user) for user, steps in totals.items() if steps > 0))
        self.users = len(ordered)
        self.total_steps = -sum(row[0] for row in ordered)
        self.ascending = sorted(-row[0] for row in ordered)
        self.rows = []
        counts = collections.Counter(-row[0] for row in ordered)
        rank = 0
        for position, (negative, _, user) in enumerate(ordered):
            if position == 0 or -negative != self.rows[-1][3]:
                rank = position + 1
            self.rows.append([position, rank, counts[-negative], -negative, user])
        self.place = {row[4]: row[0] for row in self.rows}

    def above(self, steps):
        """Users with strictly more steps."""
        return self.users - bisect.bisect_right(self.ascending, steps)

    def tied(self, steps):
        return bisect.bisect_right(self.ascending, steps) - bisect.bisect_left(self.ascending, steps)

    def next_above(self, steps):
        at = bisect.bisect_right(self.ascending, steps)
        return self.ascending[at] if at < self.users else None

    def next_below(self, steps):
        at = bisect.bisect_left(self.ascending, steps)
        return self.ascending[at - 1] if at > 0 else None

    def quantile(self, q):
        """Steps at position ceil(q N / 100) from the bottom, counted from 1; 0 on an empty board."""
        if not self.users:
            return 0
        return self.ascending[max(1, -(-q * self.users // 100)) - 1]

    def around(self, user, k):
        """The 2k+1 rows about a user, shifted at the ends."""
        place = self.place.get(user)
        if place is None:
            return []
        count = min(self.users, 2 * k + 1)
        first = min(max(0, place - k), self.users - count)
        return self.rows[first : first + count]


class Recount:
    """The sums of a topic under one set of settings.

    mode: increment, newest or max (the two total modes).
    """

    def __init__(self, mode, rules, boards=("day", "week", "month", "all")):
        self.mode, self.rules, self.kinds = mode, rules, boards
        self.clock = {}  # partition -> greatest timestamp
        self.next = {}  # partition -> offset after the last record
        self.counted = collections.Counter()
        self.superseded = collections.Counter()
        self.rejected = collections.defaultdict(collections.Counter)
        self.dead = {}  # (partition, offset) -> (reason, bytes; None for a null value)
        self.partitions_of = {}  # user -> partitions
        # A shard's own totals, for what may not exceed a shard's limit; the cluster's are their sum.
        self.totals = collections.defaultdict(int)  # (partition, board, user) -> steps
        self.reports = {}  # (partition, day, user) -> (instant, offset, steps)

    def feed(self, record):
        partition = record.partition
        assert record.offset >= self.next.get(partition, 0), f"offset {record.offset} of partition {partition} came twice"
        self.next[partition] = record.offset + 1
        clock = max(self.clock.get(partition, 0), record.timestamp_ms)
        self.clock[partition] = clock
        verdict = self.rules.judge(record.payload, record.timestamp_ms, clock)
        if verdict[0] == "ok" and not self.count(record, *verdict[1:]):
            verdict = ("overflow",)
        if verdict[0] != "ok":
            self.rejected[partition][verdict[0]] += 1
            self.dead[partition, record.offset] = (verdict[0], record.payload)

    def count(self, record, user, steps, day, instant):
        """Adds a report to all boards of its day, or to none (False: a total would overflow)."""
        partition = record.partition
        names = [name for name, kind in zip(boards_of(day), ("day", "week", "month", "all")) if kind in self.kinds]
        change = steps
        if self.mode != "increment":
            old = self.reports.get((partition, day, user))
            if old is not None:
                stands = (old[0], old[1]) > (instant, record.offset) if self.mode == "newest" else old[2] >= steps
                if stands:
                    self.superseded[partition] += 1
                    self.counted[partition] += 1
                    return True
                change = steps - old[2]
        if any(self.totals[partition, name, user] + change > TOTAL_MAX for name in names):
            return False
        for name in names:
            self.totals[partition, name, user] += change
        if self.mode != "increment":
            self.reports[partition, day, user] = (instant, record.offset, steps)
        self.counted[partition] += 1
        self.partitions_of.setdefault(user, set()).add(partition)
        return True

    def boards(self):
        """Every board by name."""
        merged = collections.defaultdict(lambda: collections.defaultdict(int))
        for (_, name, user), steps in self.totals.items():
            merged[name][user] += steps
        return {name: Board(totals) for name, totals in merged.items()}

    def reasons(self):
        total = collections.Counter()
        for counter in self.rejected.values():
            total.update(counter)
        return dict(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--mode", choices=("increment", "newest", "max"), default="increment")
    parser.add_argument("--zone", default="UTC")
    parser.add_argument("--steps-max", type=int, default=100_000)
    options = parser.parse_args()
    recount = Recount(options.mode, Rules(options.zone, steps_max=options.steps_max))
    for record in read_topic(options.bootstrap, options.topic):
        recount.feed(record)
    boards = recount.boards()
    json.dump(
        {
            "counted": sum(recount.counted.values()),
            "rejected": recount.reasons(),
            "watermarks": recount.next,
            "boards": {
                name: {"users": board.users, "total_steps": board.total_steps, "top": board.rows[:10]}
                for name, board in sorted(boards.items())
            },
        },
        sys.stdout,
        ensure_ascii=False,
        indent=1,
    )
    print()


if __name__ == "__main__":
    main()
