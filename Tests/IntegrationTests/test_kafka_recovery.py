#!/usr/bin/env python3
"""Nodes that come back to another Kafka than they left: offsets moved, records gone, topics cut, recreated or grown.

Each node starts on what an earlier one left on disk, or lives through the change; what it answers is held to a recount of
the topic, and what it cannot know it must say. Transactions with aborts, one that hangs, and markers at the end are here
too. Starts a broker of its own (Ops/stack), because it is stopped and its files are cut. Without Kafka the tests are skipped
by name, or failed if RMS_REQUIRE_STACK=1.
"""

import contextlib
import glob
import os
import random
import re
import shutil
import signal
import struct
import tempfile
import threading
import time

import harness
from broker import Broker, counts, record, today
from compare import Comparison
from harness import expect, program
from recount import Recount, read_topic
from step_rules import Rules

broker = Broker()
tests = []


def test(name):
    def add(function):
        tests.append((name, function))
        return function

    return add


class Place:
    """A data folder and a group that outlive their nodes."""

    def __init__(self, topic):
        self.topic, self.group = topic, f"group-{topic}"
        self.folder = tempfile.mkdtemp(prefix="rms-recovery-")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def node(self, code=0, **settings):
        """A node on this folder; ends with the block, cleanly unless it is to end with another code."""
        boards = {f"boards_{kind}": "true" for kind in ("week", "month", "all")}
        with broker.node(self.topic, data_dir=os.path.join(self.folder, "data"), kafka_group_id=self.group,
                         **boards, **settings) as running:
            yield running
        expect(running.process.returncode == code, f"rmsd ended with {running.process.returncode}")

    def committed(self, partitions):
        return broker.committed(self.group, self.topic, partitions)


def compared(topic, running):
    """The node's every answer beside a recount of the topic as it is; how many were compared."""
    recount = Recount("increment", Rules("UTC", steps_max=100_000))
    for each in read_topic(broker.bootstrap, topic):
        recount.feed(each)
    comparison = Comparison(recount, "127.0.0.1", running.port, program("rmsctl"))
    differences = comparison.run()
    expect(not differences, f"{len(differences)} differences:", "; ".join(differences[:5]))
    return comparison.compared


def shards(running):
    return {shard["partition"]: shard for shard in running.json("status")["shards"]}


def stopped(running, partition, *words, seconds=60):
    """Waits until a shard has stopped for a reason that holds all words; the reason."""

    def look():
        shard = shards(running).get(partition)
        return shard and shard["state"] == "stopped" and all(word in shard["reason"] for word in words) and shard["reason"]

    return running.until(f"partition {partition} stopped: {words}", look, seconds)


def board(running):
    """What cannot change while a shard stands."""
    return [(row["user"], row["steps"]) for row in running.json("top", "--board", today(-1), "--all")["rows"]]


def users(prefix, count, steps=1):
    return [record(f"{prefix}-{n}", steps + n % 50) for n in range(count)]


@test("an operator moves the group's offsets to the start, the end or anywhere: ignored with a warning, nothing twice or lost")
def offsets_moved():
    broker.up()
    topic, moves = broker.topic(2), [None, ["--to-earliest"], ["--to-latest"], ["--to-offset", "1000000"], ["--shift-by", "-7"]]
    with Place(topic) as place:
        for turn, move in enumerate(moves):
            for partition in range(2):
                broker.produce(topic, users(f"p{partition}", 100, turn), partition)
            if move:
                broker.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--group", place.group,
                            "--topic", topic, "--reset-offsets", *move, "--execute")
            with place.node() as running:
                running.until_caught_up()
                expect(counts(running) == (200 * (turn + 1), {}), move, counts(running))
                if move:
                    running.until_said("group's offset")
                    compared(topic, running)
                wanted = {partition: 100 * (turn + 1) for partition in range(2)}
                running.until("offsets committed", lambda: {
                    partition: offset for partition, (offset, _) in place.committed(2).items()} == wanted)
                expect("group's offset" in running.said() or not move, running.said())
                expect(bool(move) or "group's offset" not in running.said(), "warned without cause:", running.said())
            expect(all(mark == f"rms1 {offset}" for offset, mark in place.committed(2).values()), place.committed(2))
        with place.node() as running:
            running.until_caught_up()
            expect("group's offset" not in running.said(), "warned of its own offsets:", running.said())


# How long a group may take for what it must not wait a session for (45 s).
AT_ONCE_S = 15


def owned(running):
    """Partitions that a node reads; of others it may still show what its folder holds."""
    return [partition for partition, shard in shards(running).items() if shard["state"] == "serving" and not shard["lag"]]


@test("a node that is killed has its partitions again at once; a nameless one waits until its dead self is given up")
def killed():
    broker.up()
    took = {}
    for name, session_s in (("auto", 45), ("none", 12)):
        topic = broker.topic(2)
        with Place(topic) as place:
            settings = {"kafka_group_instance_id": name, "kafka_session_timeout_ms": session_s * 1000}
            broker.produce(topic, users("before", 50))
            with place.node(code=-signal.SIGKILL, **settings) as running:
                running.until_caught_up()
                running.process.kill()
                running.process.wait()
            broker.produce(topic, users("after", 50))
            began = time.monotonic()
            with place.node(**settings) as running:
                running.until("records sent while it was away", lambda: counts(running)[0] == 100, 60)
                took[name] = time.monotonic() - began
                running.until_caught_up()
                compared(topic, running)
    expect(took["auto"] < AT_ONCE_S, took)
    return f"reads on after {took['auto']:.1f} s of a session of 45 s, nameless after {took['none']:.1f} s of 12 s"


@test("a node that stops hands its partitions over at once, and has them again when it is back")
def handed_over():
    broker.up()
    topic = broker.topic(4)

    def more(turn):
        for partition in range(4):
            broker.produce(topic, users(f"p{partition}-{turn}", 25), partition)

    with Place(topic) as one, Place(topic) as other:
        other.group = one.group
        more(0)
        with one.node(node_id="one") as first:
            with other.node(node_id="other") as second:
                first.until("two partitions each", lambda: len(owned(first)) == 2 and len(owned(second)) == 2, 60)
            began = time.monotonic()
            more(1)
            first.until("all partitions", lambda: len(owned(first)) == 4 and counts(first)[0] == 200, 60)
            took = time.monotonic() - began
            compared(topic, first)
            with other.node(node_id="other") as second:
                first.until("two partitions each again", lambda: len(owned(first)) == 2 and len(owned(second)) == 2, 60)
    expect(took < AT_ONCE_S, took)
    return f"all four served by the other {took:.1f} s after the stop"


@test("two nodes of one node.id: the older ends with 70 and says why, the newer has all partitions")
def fenced():
    broker.up()
    topic = broker.topic(2)
    with Place(topic) as place, Place(topic) as copy:
        broker.produce(topic, users("u", 50))
        copy.group = place.group
        with place.node(code=70) as older:
            older.until_caught_up()
            with copy.node() as newer:
                older.process.wait(60)
                reason = older.said().strip().splitlines()[-1]
                expect("another node joined" in reason and "node.id" in reason, older.said()[-800:])
                newer.until("both partitions", lambda: len(owned(newer)) == 2, 60)
                broker.produce(topic, users("v", 50))
                newer.until("records sent since", lambda: counts(newer)[0] == 100)
                compared(topic, newer)
    return reason


@test("a stop commits what is durable: a record read a moment before is in the group's offset")
def committed_at_the_end():
    broker.up()
    topic = broker.topic()
    with Place(topic) as place:
        for turn in range(3):
            broker.produce(topic, users("a", 50))
            with place.node() as running:
                running.until_caught_up()
            expect(place.committed(1)[0][0] == 50 * (turn + 1), place.committed(1))


@test("retention passed the watermark: the gap is named, others go on, a person accepts it, and it stays on record")
def gap():
    broker.up()
    topic = broker.topic(2)
    with Place(topic) as place:
        for partition in range(2):
            broker.produce(topic, users(f"old{partition}", 100), partition)
        with place.node() as running:
            running.until_caught_up()
        for partition in range(2):
            broker.produce(topic, users(f"new{partition}", 100, 60), partition)
        broker.delete_records(topic, {0: 150})
        with place.node() as running:
            reason = stopped(running, 0, "gap: offsets 100..149")
            running.until("the other partition", lambda: shards(running)[1]["lag"] == 0)
            expect(shards(running)[0]["watermark"] == 100 and shards(running)[1]["watermark"] == 200, shards(running))
            expect(len(board(running)) == 300, len(board(running)))
            running.ctl("status", "--until", "caught-up", "--timeout", "1s").wants(3, "gap: offsets 100..149")
            running.ctl("shard", "accept-gap", "1", "--yes").wants(1)
        with place.node() as running:
            stopped(running, 0, "gap: offsets 100..149")
            # What is deleted meanwhile belongs to the gap.
            broker.delete_records(topic, {0: 170})
            stopped(running, 0, "gap: offsets 100..169")
            running.ctl("shard", "accept-gap", "0", "--yes", timeout=90).wants(0)
            running.until_caught_up()
            after = board(running)
            expect(len(after) == 330 and shards(running)[0]["watermark"] == 200, len(after), shards(running)[0])
            expect("gap" in running.said(), running.said())
        with place.node() as running:
            running.until_caught_up()
            expect(board(running) == after and "gap: offsets" not in running.said(), running.said())
            expect(counts(running) == (330, {}), counts(running))
    return reason


def batches(data):
    """Where each record batch of a log file begins, and its first offset."""
    at = 0
    while at + 12 <= len(data):
        first, length = struct.unpack_from(">qi", data, at)
        yield at, first
        at += 12 + length


def cut(topic, partition, offset):
    """Cuts a partition's log on the broker's disk before a record batch, as an unclean election would."""
    folder = os.path.join(broker.home, "1", "log", f"{topic}-{partition}")
    segment, = glob.glob(os.path.join(folder, "*.log"))
    with open(segment, "r+b") as file:
        data = file.read()
        at = next((at for at, first in batches(data) if first == offset), None)
        expect(at is not None, f"no batch begins at {offset}: {[first for _, first in batches(data)]}")
        file.truncate(at)
    for name in os.listdir(folder):
        if name.endswith((".index", ".timeindex", ".txnindex", ".snapshot")):
            os.unlink(os.path.join(folder, name))
    for name in glob.glob(os.path.join(broker.home, "1", "log", ".kafka_cleanshutdown")):
        os.unlink(name)


def three_batches(topic):
    for turn in range(3):
        broker.produce(topic, users(f"batch{turn}", 100), 0)


@test("a topic cut behind the watermark while the node is away: the shard stops, as it holds records that the topic lost")
def cut_while_away():
    broker.up()
    topic = broker.topic(2)
    with Place(topic) as place:
        three_batches(topic)
        broker.produce(topic, users("other", 10), 1)
        with place.node() as running:
            running.until_caught_up()
            before = board(running)
        broker.stop()
        try:
            cut(topic, 0, 200)
        finally:
            broker.start()
        with place.node() as running:
            reason = stopped(running, 0, "ends at offset 200", "up to 299", "lost records")
            expect(board(running) == before, "the board changed")
            broker.produce(topic, users("other", 10, 7), 1)
            running.until("the other partition", lambda: shards(running)[1]["watermark"] == 20)
            # Grown again past the watermark: what is there now are other records.
            broker.produce(topic, users("others", 150), 0)
            # Ends are heard of every second.
            running.ctl("status", "--until", "caught-up", "--timeout", "4s").wants(3, "lost records")
            expect(shards(running)[0]["watermark"] == 300 and shards(running)[0]["lag"] == 50, shards(running)[0])
            running.ctl("shard", "adopt", "0", "--yes", timeout=90).wants(0)
            running.until_caught_up()
            answers = compared(topic, running)
    return f"{reason}; {answers} answers after adopt"


@test("a topic cut under a running node and written on past the watermark: told by its leader epochs, nothing of it is read")
def cut_while_running():
    broker.up()
    topic = broker.topic()
    with Place(topic) as place:
        three_batches(topic)
        with place.node() as running:
            running.until_caught_up()
            before = board(running)
            broker.stop()
            try:
                cut(topic, 0, 100)
            finally:
                broker.start()
            broker.produce(topic, users("wrong", 400), 0)
            reason = stopped(running, 0, "lost records", seconds=90)
            expect(board(running) == before, "records written over the lost ones were counted")
    return reason


@test("a topic deleted and recreated, with fewer and more records, under a node and without it: both ids; adopt equals it")
def recreated():
    broker.up()
    told = []
    for away in (True, False):
        for more in (False, True):
            topic = broker.topic(2)
            with Place(topic) as place:
                for partition in range(2):
                    broker.produce(topic, users(f"old{partition}", 100), partition)

                def change():
                    broker.delete(topic)
                    broker.create(topic, 2)
                    for partition in range(2):
                        broker.produce(topic, users(f"new{partition}", 300 if more else 40, 3), partition)

                def judge(running, before):
                    reasons = {stopped(running, partition, "was recreated: id was") for partition in range(2)}
                    ids = re.findall(r"id was (\S{22}), is (\S{22})", reasons.pop())
                    expect(ids and ids[0][0] != ids[0][1] and not reasons, ids, reasons)
                    expect(board(running) == before, "records of the new topic were counted")
                    running.ctl("status", "--until", "caught-up", "--timeout", "1s").wants(3, "recreated")
                    running.ctl("shard", "adopt", "--yes", timeout=90).wants(0)
                    running.until_caught_up()
                    told.append(compared(topic, running))
                    return board(running)

                with place.node() as running:
                    running.until_caught_up()
                    before = board(running)
                    if not away:
                        change()
                        after = judge(running, before)
                if away:
                    change()
                    with place.node() as running:
                        after = judge(running, before)
                with place.node() as running:
                    running.until_caught_up()
                    expect(board(running) == after and "recreated" not in running.said(), running.said())
    return f"{sum(told)} answers compared"


@test("partitions go from 4 to 8 under load: their shards are taken, moved users are warned of, nothing is lost")
def grown():
    broker.up()
    topic, rng = broker.topic(4), random.Random(4)
    done, sent, partitions = threading.Event(), [], [4]

    def load():
        while not done.is_set():
            partition = rng.randrange(partitions[0])
            payloads = [record(f"user-{partition}-{rng.randrange(99)}", rng.randrange(1, 90)) for _ in range(200)]
            broker.produce(topic, payloads, partition)
            sent.append(len(payloads))

    with Place(topic) as place:
        with place.node() as running:
            thread = threading.Thread(target=load)
            thread.start()
            try:
                running.until("records", lambda: counts(running)[0] > 1000)
                broker.grow(topic, 8)
                running.until_said("more partitions")
                partitions[0] = 8
                running.until("the shards of all eight", lambda: len(shards(running)) == 8, 60)
                running.until("records of the new ones", lambda: all(shard["watermark"] > 0 for shard in shards(running).values()))
            finally:
                done.set()
                thread.join()
            running.until_caught_up()
            running.until("all records", lambda: counts(running)[0] == sum(sent))
            answers = compared(topic, running)
        with place.node() as running:
            running.until_caught_up()
            expect(counts(running) == (sum(sent), {}), counts(running))
    return f"{sum(sent)} records, {answers} answers compared"


def line(payload, partition):
    return f"-\t{payload.hex()}\t{int(time.time() * 1000)}\t{partition}"


@test("transactions with 30 % aborts and markers last are counted as committed readers see them; one that hangs is told")
def transactions():
    broker.up()
    topic, rng, visible = broker.topic(2), random.Random(9), 0
    with Place(topic) as place:
        for turn in range(2):
            lines, ends = [], [rng.random() < 0.3 for _ in range(40)]
            # The last ones are void, so that the topic ends in aborted records and a marker.
            for void in ends + [True, True]:
                lines.append("!begin")
                people = [rng.randrange(200) for _ in range(100)]
                lines += [line(record(f"user-{each}", rng.randrange(1, 90)), each % 2) for each in people]
                lines.append("!abort" if void else "!commit")
            broker.transactions(topic, lines)
            with place.node(kafka_held_back_max="10s") as running:
                running.until_caught_up()
                seen = counts(running)[0]
                visible += 100 * sum(not void for void in ends)
                expect(seen == visible, f"{seen} counted, {visible} committed")
                answers = compared(topic, running)
                if turn:
                    hung(place, topic, running)
    return f"{seen} of {2 * 42 * 100} records visible, {answers} answers compared"


def hung(place, topic, running):
    """A producer that is gone in the middle of its transaction: told after the time that is set, over when the broker ends it."""
    before = counts(running)
    process, pipe = broker.transactions(topic, ["!begin"] + [line(record("hung", 5), 0)] * 50, hang=True)
    try:
        running.until("records behind the stable end", lambda: broker.held_back(topic, 0), 60)
        process.kill()
        process.wait()
        pipe.close()
        broker.produce(topic, [record("later", 9)], 0)
        running.until_caught_up()
        expect(counts(running) == before, "a record behind an open transaction was counted:", counts(running))
        running.until_said("open transaction", 25)
        running.until("the record behind it", lambda: counts(running)[0] == before[0] + 1, 60)
        running.until_said("transaction holds", 20)
        expect(running.json("rank", "hung", "--board", today(-1))["on_board"] is False, "an aborted record counts")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    harness.main(__doc__.splitlines()[0], tests, needs=("rmsd", "rmsctl", "rmsbench"), cleanup=[broker.down])
