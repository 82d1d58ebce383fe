#!/usr/bin/env python3
"""Nodes that are killed, and nodes whose machine loses power: what they restore, and what they say after it.

Each starts again on what was left and must equal a recount of the topic; nothing that was committed may be missing from
what was restored. Kafka is a broker of its own (Ops/stack). `--rounds 200` is the long form; `--seed N` repeats a run, but
for the moments of the kills, which the machine decides as well.
"""

import argparse
import collections
import os
import random
import tempfile
import time

import harness
from faults import Oracle, Outcomes, Plant, PowerCut, Stream, Tally, equal, pool, status
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


if __name__ == "__main__":
    harness.main(__doc__.splitlines()[0], tests, needs=("rmsd", "rmsctl"), cleanup=[broker.down], parents=[parser])
