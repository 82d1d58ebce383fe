#!/usr/bin/env python3
"""Compares a live node with a recount of its topic, answer by answer. Standard library only."""

import base64
import json
import os
import random
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "Protocol"))

import client as protocol  # noqa: E402

DIFFERENCES_MAX = 20


class Comparison:
    """Collects differences; `ok` while there are none."""

    def __init__(self, recount, host, port, rmsctl, seed=1, samples=400):
        self.recount, self.boards = recount, recount.boards()
        self.host, self.port, self.rmsctl = host, port, rmsctl
        self.rng, self.samples = random.Random(seed), samples
        self.differences, self.compared = [], 0

    def same(self, what, ours, wanted):
        self.compared += 1
        if ours != wanted and len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(f"{what}: node {str(ours)[:200]}, recount {str(wanted)[:200]}")

    def run(self):
        with protocol.Client(self.host, self.port, timeout=60.0) as node:
            self.status(node)
            self.board_list(node)
            for name, board in sorted(self.boards.items()):
                self.rows(node, name, board)
                self.ranks(node, name, board)
                self.neighbours(node, name, board)
                self.summary(node, name, board)
        self.command_line()
        self.dead_letters()
        return self.differences

    def status(self, node):
        shards = {shard["partition"]: shard for shard in protocol.shown(node.status())["shards"]}
        for partition, offset in self.recount.next.items():
            shard = shards.get(partition)
            if shard is None:
                self.same(f"shard {partition}", None, "a shard")
                continue
            # Control records may lie behind the last record: the watermark may be greater, never less.
            self.same(f"watermark of {partition} not below {offset}", shard["watermark"] >= offset, True)
            self.same(f"lag of {partition}", shard["lag"], 0)
            counted = self.recount.counted[partition]
            self.same(f"counted of {partition}", shard["counted"], counted)
            rejected = {reason: n for reason, n in shard["rejected"].items() if n}
            self.same(f"rejected of {partition}", rejected, dict(self.recount.rejected[partition]))

    def board_list(self, node):
        # A board of users with no step at all may or may not be listed.
        listed = {row["board"]: row for row in protocol.shown(node.boards())["boards"]}
        for name, board in self.boards.items():
            if name not in listed:
                self.same(f"board {name} listed", board.users, 0)
                continue
            self.same(f"users of {name}", listed[name]["users"], board.users)
            self.same(f"total steps of {name}", listed[name]["total_steps"], board.total_steps)
        self.same("boards nobody counted on", sorted(set(listed) - set(self.boards)), [])

    def rows(self, node, name, board):
        """Every row of the board, by cursor; and pages from positions all over it."""
        at = 0
        for answer in node.pages(name):
            page = [list(row) for row in answer["rows"]]
            self.same(f"{name} rows from {at}", page, board.rows[at : at + len(page)])
            at += len(page)
            self.same(f"{name} missing shards", answer["missing"], [])
        self.same(f"{name} rows in all", at, board.users)
        for _ in range(20):
            offset = self.rng.randrange(board.users + 3)
            limit = self.rng.choice([1, 10, 100])
            page = [list(row) for row in node.top(name, limit, offset)["rows"]]
            self.same(f"{name} page {offset}+{limit}", page, board.rows[offset : offset + limit])

    def users_to_ask(self, board):
        count = min(self.samples, board.users)
        places = set(self.rng.sample(range(board.users), count)) if count else set()
        places |= {place for place in (0, 1, board.users - 1) if 0 <= place < board.users}
        return [board.rows[place][4] for place in sorted(places)]

    def ranks(self, node, name, board):
        for user in self.users_to_ask(board):
            answer = protocol.shown(node.rank(user, name), user)
            position, rank, tied, steps, _ = board.rows[board.place[user]]
            above, users = board.above(steps), board.users
            exact = 100 * (users - above - tied) / (users - 1) if users > 1 else 100
            wanted = {
                "board": name, "user": user, "on_board": True, "rank": rank, "tied": tied, "steps": steps, "users": users,
                "above": above, "next_above_steps": board.next_above(steps), "next_below_steps": board.next_below(steps),
                "beaten": exact, "top_percent": rounded_up(above, users),
            }
            self.same(f"{name} rank of {user}", {key: answer[key] for key in wanted}, wanted)
        stranger = "nobody-" + name
        answer = protocol.shown(node.rank(stranger, name), stranger)
        self.same(f"{name} rank of a stranger", (answer["on_board"], answer["users"]), (False, board.users))

    def neighbours(self, node, name, board):
        for user in self.users_to_ask(board)[:: max(1, self.samples // 60)]:
            k = self.rng.choice([1, 5, 20])
            rows = [list(row) for row in node.around(user, k, name)["rows"]]
            self.same(f"{name} around {user} {k}", rows, board.around(user, k))
        friends = self.users_to_ask(board)[:40]
        self.rng.shuffle(friends)
        answer = node.compare(friends + ["nobody"], name)
        wanted = [board.rows[place] for place in sorted(board.place[user] for user in friends)]
        self.same(f"{name} compare", [list(row) for row in answer["rows"]], wanted)
        self.same(f"{name} compare, absent", list(answer["absent"]), ["nobody"])

    def summary(self, node, name, board):
        quantiles = [1, 5, 10, 25, 33, 50, 66, 75, 90, 95, 99, 100]
        answer = node.summary(name, quantiles)
        self.same(f"{name} summary", (answer["users"], answer["total_steps"]), (board.users, board.total_steps))
        found = [[q, steps] for q, steps in answer["quantiles"]]
        self.same(f"{name} quantiles", found, [[q, board.quantile(q)] for q in quantiles])

    def ask(self, *words):
        command = [self.rmsctl, "--address", f"{self.host}:{self.port}", *words, "-o", "json"]
        done = subprocess.run(command, capture_output=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.decode(errors='replace')[:300]}")
        return json.loads(done.stdout)

    def command_line(self):
        """rmsctl tells the same as the protocol: a sample."""
        name = max(self.boards, key=lambda each: self.boards[each].users)
        board = self.boards[name]
        keys = ("position", "rank", "tied", "steps", "user")
        rows = [[row[key] for key in keys] for row in self.ask("top", "--board", name, "--limit", "50")["rows"]]
        self.same(f"rmsctl top of {name}", rows, board.rows[:50])
        for user in self.users_to_ask(board)[:5]:
            if user.startswith("-"):
                continue
            answer = self.ask("rank", user, "--board", name)
            row = board.rows[board.place[user]]
            self.same(f"rmsctl rank of {user}", (answer["rank"], answer["tied"], answer["steps"]), tuple(row[1:4]))
            self.same(f"rmsctl top_percent of {user}", answer["top_percent"], rounded_up(answer["above"], board.users))

    def dead_letters(self):
        """Every rejected record once, with its reason and its bytes."""
        found = {}
        for record in self.ask("deadletter", "ls")["records"]:
            place = record["partition"], record["offset"]
            self.same(f"dead letter {place} once", place in found, False)
            found[place] = record
        wanted = self.recount.dead
        self.same("dead letters missing", sorted(set(wanted) - set(found))[:5], [])
        self.same("dead letters too many", sorted(set(found) - set(wanted))[:5], [])
        for place in set(found) & set(wanted):
            reason, payload = wanted[place]
            self.same(f"reason of dead letter {place}", found[place]["reason"], reason)
            # null is a null value, which is not an empty one.
            self.same(f"length of dead letter {place}", found[place]["bytes"], None if payload is None else len(payload))
            beginning = None if payload is None else base64.b64encode(payload[:4096]).decode()
            self.same(f"bytes of dead letter {place}", found[place]["base64"], beginning)


def rounded_up(above, users):
    """100 (above + 1) / users, rounded up to two significant digits."""
    scale = 0
    while 100 * (above + 1) * 10**scale < 10 * users:
        scale += 1
    number = float(f"{-(-100 * (above + 1) * 10**scale // users)}e-{scale}")
    return int(number) if number.is_integer() else number
