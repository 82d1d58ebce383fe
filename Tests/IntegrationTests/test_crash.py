#!/usr/bin/env python3
"""Nodes that are killed, and nodes whose machine loses power: what they restore, and what they say after it.

Each starts again on what was left and must equal a recount of the topic; nothing that was committed may be missing from
what was restored. Kafka is a broker of its own (Ops/stack). `--rounds 200` is the long form; `--seed N` repeats a run, but
for the moments of the kills, which the machine decides as well.
"""

import argparse
import base64
import collections
import datetime
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time

import harness
from faults import Oracle, Outcomes, Plant, PowerCut, Stream, Tally, equal, pool, rejected, status
from harness import expect
from broker import Broker

parser = argparse.ArgumentParser(add_help=False)
parser.add_argument("--rounds", type=int, default=20, help="how often nodes are killed (20)")
parser.add_argument("--seed", type=int, default=int(time.time()), help="of records and of moments")
options = parser.parse_known_args()[0]
broker = Broker()
tests = []

# Records a second while nodes are killed; and while power is cut, where every record is compared each time.
RATE, RATE_OF_CUTS = 100_000, 10_000
# A killed node answers again in so many seconds at most, and its shards are whole.
RESTART_SECONDS = 5


def test(name):
    def add(function):
        tests.append((name, function))
        return function

    return add


def pause(seconds):
    """Lets the node work for a while: the moment of a fault is drawn, not waited for."""
    time.sleep(seconds)


def under_way(plant):
    """What a kill interrupted, as its leavings show."""
    names = {os.path.relpath(path, plant.data) for path in plant.files("")}
    segments = {name.removesuffix(".seg") for name in names if name.endswith(".seg")}
    sealed = {name.removesuffix(".seg.lz4") for name in names if name.endswith(".seg.lz4")}
    if segments & sealed or any(".seg.lz4." in name for name in names):
        return "in a seal"
    if any(".snap." in name for name in names):
        return "in a snapshot"
    return "while reading"


def no_damage(plant):
    """A crash leaves torn ends, never damage."""
    said = plant.running.said()
    at = said.find("damage")
    expect(at < 0, "damage is told after a crash:", said[max(0, at - 600):at + 700])
    expect(not plant.files(".damaged"), "set aside after a crash:", plant.files(".damaged"))


def restored_holds(plant, committed):
    """Watermarks that the folder alone gives: none may be behind what the group has committed."""
    running = plant.away()
    with running.client() as asking:
        shards = status(asking)
    for partition, shard in shards.items():
        expect(shard["state"] != "stopped", shard)
    for partition, offset in committed.items():
        mark = shards.get(partition, {"watermark": 0})["watermark"]
        expect(mark >= offset, f"{partition} was restored up to {mark}, {offset} is committed:", running.said()[-1500:])
    return {partition: shard["watermark"] for partition, shard in shards.items()}


@test("killed again and again while 100,000 records a second arrive: nothing doubled, nothing missing, no commit ahead")
def killed():
    broker.up()
    rng = random.Random(options.seed)
    topic = broker.topic(4)
    tally, hits, slowest, kept = Tally(broker, topic), collections.Counter(), 0, {}
    with Plant(broker, topic, 4) as plant, Stream(broker.bootstrap, topic, pool(options.seed), RATE) as stream:
        for turn in range(options.rounds):
            if turn % 5 == 4:
                restored_holds(plant, plant.committed())
                with plant.running.client() as asking:
                    tally.note(asking)
                plant.kill()
            began = time.monotonic()
            running = plant.start(is_open=False)
            if rng.random() < 0.15:
                pause(rng.uniform(0, 0.4))
                plant.kill()
                hits["while starting"] += 1
                continue
            running.until("an open port", lambda: harness.is_open(running.port))
            running.until("shards from the disk", lambda: plant.restored(running))
            slowest = max(slowest, time.monotonic() - began)
            no_damage(plant)
            with running.client() as asking:
                tally.note(asking)
                plant.until_at(plant.ends())
                tally.note(asking)
                # What was committed once stays committed.
                for partition, offset in plant.committed().items():
                    expect(offset >= kept.get(partition, 0), f"{partition}: committed {offset} after {kept}")
                    kept[partition] = offset
                pause(rng.uniform(0, 1.6))
                tally.note(asking)
            plant.kill()
            hits[under_way(plant)] += 1
        stream.stop()
        expect(slowest < RESTART_SECONDS, f"restored only after {slowest:.1f} s")
        running = plant.start()
        plant.until_at(plant.ends())
        no_damage(plant)
        recount = tally.count()
        answers = equal(recount, running)
        rate = stream.sent / stream.seconds
    table = Outcomes("killed")
    for where, count in hits.items():
        for _ in range(count):
            table.add(where, "equal")
    table.show()
    return (f"seed {options.seed}, {sum(hits.values())} kills, {sum(recount.counted.values())} events at {rate:.0f} a second,"
            f" {len(recount.dead)} dead letters, {len(tally.sums)} sums on the way, {answers} answers, restored within"
            f" {slowest:.1f} s")


@test("the power is cut and what was not synced is lost, whole or in pages: equal up to a watermark, none behind a commit")
def power_cut():
    broker.up()
    rng = random.Random(options.seed + 1)
    topic = broker.topic(2)
    oracle, table, lost = Oracle(broker, topic, "newest"), Outcomes("power cut"), 0
    settings = {"steps.mode": "total", "steps.total_policy": "newest"}
    with (tempfile.TemporaryDirectory(prefix="rms-powercut-") as folder, Plant(broker, topic, 2, **settings) as plant,
          Stream(broker.bootstrap, topic, pool(options.seed + 1, users=3_000), RATE_OF_CUTS) as stream):
        PowerCut.build(folder)
        for turn in range(options.rounds):
            # Half of them before a drawn call on the folder, the others at a drawn moment.
            cut = PowerCut(plant, rng.choice([0, rng.randrange(1, 150)]), rng.random() < 0.3)
            running = plant.start(env=cut.env, is_open=False)
            end = time.monotonic() + rng.uniform(0.5, 2)
            while time.monotonic() < end and running.process.poll() is None:
                pause(0.01)
            plant.kill()
            expect(running.process.returncode == -9, f"ended with {running.process.returncode}:", running.complaint())
            pages, names = rng.random() < 0.5, rng.random() < 0.5
            committed = plant.committed()
            lost += cut.strike(rng, pages, names)
            watermarks = restored_holds(plant, committed)
            no_damage(plant)
            if watermarks:
                equal(oracle.at(watermarks), plant.running, 20)
            plant.kill()
            kept = ("some pages" if pages else "no page") + (", all names" if names else ", synced names")
            torn = "torn end cut, equal" if "torn" in plant.running.said() else "equal"
            table.add(f"before {place}" if (place := cut.place()) else "at a drawn moment", f"{kept} kept: {torn}")
        stream.stop()
        running = plant.start()
        plant.until_at(plant.ends())
        recount = oracle.at(plant.ends())
        answers = equal(recount, running)
    table.show()
    return f"seed {options.seed}, {lost} files cut, {sum(recount.counted.values())} events, {answers} answers in the end"


# What a cut leaves of what was not synced: (bytes, names, words); none of it is a kill without a cut.
LEFT = [(False, False, "only what was synced"), (False, True, "all names, synced bytes"),
        (True, True, "all names, some pages"), (None, None, "all of it")]


@test("cut before each call on files of a seal and a snapshot, with and without what was not synced: each starts, equal")
def prefixes():
    broker.up()
    rng = random.Random(options.seed + 2)
    topic = broker.topic(1)
    oracle, table = Oracle(broker, topic, "newest"), Outcomes("cut before each call of a start, a seal and a snapshot")
    settings = {"steps.mode": "total", "steps.total_policy": "newest", "snapshot.interval": "30d", "snapshot.log_bytes": "1GiB",
                "log.segment_bytes": "16MiB"}
    calls, started = 0, 0
    with tempfile.TemporaryDirectory(prefix="rms-powercut-") as folder, Plant(broker, topic, 1, **settings) as plant:
        PowerCut.build(folder)
        made = two_snapshots(plant, topic)
        data, base, seen = plant.data, plant.data + ".base", {}
        os.rename(data, base)
        while True:
            calls += 1
            plant.data = data
            shutil.rmtree(data, ignore_errors=True)
            shutil.copytree(base, data)
            cut = PowerCut(plant, calls)
            sealed_and_snapshot(plant, cut.env)
            place = cut.place()
            if place is None:
                break
            for pages, names, words in LEFT:
                plant.data = f"{data}.image"
                shutil.rmtree(plant.data, ignore_errors=True)
                if names is None:
                    os.rename(data, plant.data)
                else:
                    cut.image(rng, pages, names, plant.data)
                image = digest(plant.data)
                if image not in seen:
                    started += 1
                    seen[image] = starts_equal(plant, oracle, made)
                table.add(f"before {place}", f"{words}: {seen[image]}")
    table.show()
    expect({"old", "new"} <= {word for each in seen.values() for word in each.split()}, "one outcome only:", seen)
    return f"seed {options.seed}, {calls - 1} calls, {started} different folders started, {made[1]} records"


def two_snapshots(plant, topic):
    """A node's folder with two snapshots and log behind them, stopped; the watermarks of the newer one and of all."""
    plant.start()
    marks = []
    for turn in range(3):
        with Stream(broker.bootstrap, topic, pool(options.seed + turn, users=2_000), 10_000) as stream:
            pause(0.3)
            stream.stop()
        plant.until_at(plant.ends())
        marks.append(plant.ends()[0])
        if turn < 2:
            done = plant.running.ctl("snapshot")
            expect(done.code == 0, done)
    plant.stop()
    expect(len(plant.files(".snap")) == 2, plant.files(".snap"))
    return marks[1:]


def sealed_and_snapshot(plant, env):
    """Starts a node without brokers: it seals what the one before left, and is told to write a snapshot, which makes the
    oldest superfluous. Comes back when all is done, or the node dead."""
    segment = plant.files(".seg")[-1]
    running = plant.start(env=env, is_open=False, **{"kafka.bootstrap.servers": "127.0.0.1:1"})
    try:
        running.until("an open port", lambda: harness.is_open(running.port))
        running.until("the shard from the disk", lambda: plant.restored(running))
        running.until("a sealed segment", lambda: not os.path.exists(segment))
        running.until("a snapshot", lambda: running.ctl("snapshot").code == 0)
        running.until("two snapshots", lambda: len(plant.files(".snap")) == 2)
    except (harness.Failed, OSError, ValueError, harness.client.ProtocolError):
        if running.process.wait(5) != -9:
            raise
    plant.kill()


def digest(folder):
    """Names and bytes of a folder, as one number."""
    found = hashlib.sha256()
    for path, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            with open(os.path.join(path, name), "rb") as file:
                data = file.read()
            found.update(f"{os.path.relpath(os.path.join(path, name), folder)} {len(data)}\n".encode() + data)
    return found.hexdigest()


def starts_equal(plant, oracle, made):
    """Starts a node without brokers on what is left: it must stand where the one before stood; from which snapshot."""
    newer, end = made
    plant.away()
    no_damage(plant)
    with plant.running.client() as asking:
        shard, = status(asking).values()
    expect(shard["state"] != "stopped" and shard["watermark"] == end and shard["snapshot"] in (newer, end), made, shard)
    equal(oracle.at({0: end}), plant.running, 10)
    plant.kill()
    return f"equal, from the {'new' if shard['snapshot'] == end else 'old'} snapshot"


@test("Protocol/log.py and snapshot.py read what a node wrote as rmsctl log cat shows it and as the node itself answers")
def protocol_programs():
    broker.up()
    topic = broker.topic(2)
    with Plant(broker, topic, 2, **{"snapshot.interval": "30d", "snapshot.log_bytes": "1GiB"}) as plant:
        running = plant.start()
        with Stream(broker.bootstrap, topic, pool(options.seed, users=3_000, bad_share=0.02), 20_000) as stream:
            pause(1)
            stream.stop()
        plant.until_at(plant.ends())
        with running.client() as asking:
            running.until("sealed segments", lambda: all(shard["sealed"] > 0 for shard in status(asking).values()))
            done = running.ctl("snapshot")
            expect(done.code == 0, done)
            live = status(asking)
            boards = {board["board"]: running.json("top", "--board", board["board"], "--all")["rows"]
                      for board in running.json("boards")["boards"]}
        plant.kill()
        totals, rows, kinds = collections.Counter(), 0, collections.Counter()
        for folder in plant.shard_folders():
            partition = int(folder.rpartition("-")[2])
            path = os.path.join(plant.data, folder)
            logged = by_program("log.py", path)
            rows += len(logged)
            kinds.update(row["kind"] for row in logged)
            kinds["kept"] += sum(row["kind"] == "event" and row["payload"] is not None for row in logged)
            kinds["sealed"] += sum(name.endswith(".lz4") for name in os.listdir(path))
            kinds["plain"] += sum(name.endswith(".seg") for name in os.listdir(path))
            done = harness.run([harness.program("rmsctl"), "log", "cat", "--data-dir", plant.data, "--partition",
                                str(partition), "-o", "json"])
            shown = json.loads(done.wants(0).out)["records"]
            logged = [row for row in logged if row["kind"] != "position"]
            expect(len(logged) == len(shown), len(logged), "rows by log.py,", len(shown), "by rmsctl")
            for one, other in zip(logged, shown):
                expect(as_rmsctl(one, topic, partition) == other, one, other)
            name = max(name for name in os.listdir(path) if name.endswith(".snap"))
            state, = by_program("snapshot.py", os.path.join(path, name))
            shard, users = live[partition], dict(state["user_ids"])
            reasons = collections.Counter(row["reason"] for row in logged if row["kind"] == "rejected")
            expect(state["watermark"] == shard["watermark"] and state["counted"] == shard["counted"], shard, state["watermark"])
            expect(rejected(shard) == dict(reasons), "rejected:", rejected(shard), reasons)
            for board in state["board_totals"]:
                for number, total in board["totals"]:
                    totals[board["board"], users[number]] += total
        answered = {(board, row["user"]): row["steps"] for board, found in boards.items() for row in found}
        expect(answered == dict(totals), len(answered), "totals by the node,", len(totals), "by snapshot.py")
        expect(all(kinds[each] for each in ("event", "rejected", "kept", "sealed", "plain")), kinds)
    return f"{rows} rows of {kinds['sealed']} sealed and {kinds['plain']} other segments, {len(totals)} totals"


def by_program(name, path):
    """What a program of Protocol/ prints about a path."""
    done = harness.run([sys.executable, os.path.join(harness.ROOT, "Protocol", name), path], timeout=120).wants(0)
    return [json.loads(line) for line in done.raw.decode().splitlines()]


def as_rmsctl(row, topic, partition):
    """A row of log.py as rmsctl shows it."""
    shown = {"kind": row["kind"], "topic": topic, "partition": partition, "offset": row["offset"],
             "timestamp_ms": row["timestamp"]}
    if row["kind"] == "event":
        seconds, nanoseconds = divmod(row["nanoseconds"], 10**9)
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(row["day"], seconds)
        fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
        shown |= {"user": row["user"], "steps": row["steps"], "time": f"{moment.isoformat()}{fraction}Z",
                  "day": moment.date().isoformat(), "source": row["source"]}
    else:
        shown["reason"] = row["reason"]
    payload = row["payload"]
    return shown | {"base64": payload if payload is None else base64.b64encode(bytes.fromhex(payload)).decode()}


if __name__ == "__main__":
    harness.main(__doc__.splitlines()[0], tests, needs=("rmsd", "rmsctl"), cleanup=[broker.down], parents=[parser])
