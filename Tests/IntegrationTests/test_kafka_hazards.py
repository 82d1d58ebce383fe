#!/usr/bin/env python3
"""What a real Kafka does to a node: brokers away, poison, hard times of day, a damaged batch, users in two partitions.

Starts a broker of its own (Ops/stack, in a temporary folder), because it is stopped and its files are damaged. Without
Kafka the tests are skipped by name, or failed if RMS_REQUIRE_STACK=1. A recreated topic, a compacted one, transactions
and a topic that comes later are shown by first_light.py.
"""

import datetime
import glob
import json
import os
import re
import subprocess
import zoneinfo

import harness
from broker import Broker, counts, record, today
from harness import expect

broker = Broker()
tests = []


def test(name):
    def add(function):
        tests.append((name, function))
        return function

    return add


# ---- The tests ---------------------------------------------------------------------------------------------------------


@test("all brokers away: the last state is served with its age, status says so, reading resumes by itself")
def brokers_away():
    broker.up()
    topic, day = broker.topic(2), today(-1)
    broker.produce(topic, [record(f"u{n}", n + 1) for n in range(100)], 0)
    with broker.node(topic) as running:
        running.until_caught_up()
        before = running.json("top", "--board", day, "--all")
        expect(before["users"] == 100, before["users"])
        broker.stop()
        try:
            running.until(
                "the lost brokers in status",
                lambda: re.search("brokers are down|transport", str(running.json("status")["problem"]), re.IGNORECASE), 60)
            expect("brokers" in running.said(), "the log does not say so:", running.said()[-600:])

            def age():
                away = running.json("top", "--board", day, "--all")
                expect(away["rows"] == before["rows"] and not away["missing"], "the state changed while brokers are away")
                return away["shards"][0]["age_ms"]

            first = age()
            running.until("an age that grows", lambda: age() >= first + 1000)
        finally:
            broker.start()
        broker.produce(topic, [record("later", 5000)], 0)
        rank = running.until(
            "the record after the outage",
            lambda: (found := running.json("rank", "later", "--board", day))["on_board"] and found, 90)
        expect(rank["rank"] == 1 and rank["users"] == 101, rank)
        expect(counts(running) == (101, {}), counts(running))
        running.until("an age of 0 again", lambda: running.json("top", "--board", day)["shards"][0]["age_ms"] == 0)


POISON = [
    (b'{"uuid":"p","steps":NaN,"timestamp":1}', "malformed"),
    (b'{"uuid":"p","steps":18446744073709551616,"timestamp":"2026-01-01 00:00:00"}', "malformed"),
    (b'{"uuid":"p","steps":9223372036854775808,"timestamp":"%D 12:00:00"}', "steps"),
    (b'{"uuid":"\xff\xfe","steps":1,"timestamp":"%D 12:00:00"}', "malformed"),
    (b'{"uuid":"p","uuid":"q","steps":1,"timestamp":"%D 12:00:00"}', "repeated"),
    (b'{"uuid":"p","steps":1,"timestamp":"%D 12:00:00"', "malformed"),
    (b'{"uuid":"p","steps":1}', "missing"),
    (b'{"uuid":"p","steps":"1","timestamp":"%D 12:00:00"}', "type"),
    (b'{"uuid":"","steps":1,"timestamp":"%D 12:00:00"}', "user"),
    (b'{"uuid":"p","steps":-1,"timestamp":"%D 12:00:00"}', "steps"),
    (b'{"uuid":"p","steps":1,"timestamp":"2026-02-30 12:00:00"}', "time"),
]


def poison(count):
    day = today(-1).encode()
    return [POISON[n % len(POISON)][0].replace(b"%D", day) for n in range(count)]


def reasons(count):
    expected = {}
    for n in range(count):
        reason = POISON[n % len(POISON)][1]
        expected[reason] = expected.get(reason, 0) + 1
    return expected


# Processor time of all poison to that of all good records, at most.
POISON_COST_MAX = 2.0


@test("poison among good records and nothing but poison: dead letters by reason, at half the usual rate or better")
def poisoned():
    broker.up()
    count = 600_000
    good = [record(f"user-{n % 5000:05}", n % 90) for n in range(count)]
    # Records by share of bad ones; the idle node has an empty topic, and costs what a start costs.
    topics = {"idle": (broker.topic(), [], [], 0)}
    for share in (0, 1, 100):
        bad = count * share // 100
        step = count // bad if bad else 0
        payloads = list(good)
        for index, payload in enumerate(poison(bad)):
            payloads[index * step] = payload
        topic = broker.topic()
        broker.produce(topic, payloads)
        topics[share] = topic, payloads, range(0, count, step or count)[:bad], bad

    # Processor time, not time on the wall, so that a busy machine does not decide; the least of three, taken in turns, so
    # that neither does one bad moment.
    used = {share: [] for share in topics}
    for turn in range(3):
        for share, (topic, payloads, places, bad) in topics.items():
            with broker.node(topic) as running:
                running.until_caught_up(120)
                used[share].append(running.cpu_seconds())
                expect(counts(running) == (len(payloads) - bad, reasons(bad)), share, "%:", counts(running))
                if share == 1 and turn == 0:
                    letters = running.json("deadletter", "ls")["records"]
                    expect(len(letters) == bad, len(letters))
                    expect([letter["offset"] for letter in letters] == list(places), "offsets differ")
                    expect(all(letter["reason"] == POISON[n % len(POISON)][1] and letter["bytes"] == len(payloads[place])
                               for n, (letter, place) in enumerate(zip(letters, places))), "reasons or lengths differ")
    start = min(used.pop("idle"))
    seconds = {share: min(turns) - start for share, turns in used.items()}
    told = f"start {start:.2f} s of CPU, on top of it " + ", ".join(
        f"{share} %: {each:.2f} s" for share, each in seconds.items()) + f", {seconds[100] / seconds[0]:.2f} x"
    for share in (1, 100):
        expect(seconds[share] <= POISON_COST_MAX * seconds[0], told)
    return told


@test("poison of 10 MB and of nesting 100,000, null and binary payloads: dead letters, and the good ones count")
def big_poison():
    broker.up()
    topic, day = broker.topic(1, max_message_bytes=20_000_000), today(-1)
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b',"uuid":"p","steps":1,"timestamp":"%b 12:00:00"}' % day.encode()
    large = b'{"uuid":"p","steps":1,"timestamp":"%b 12:00:00","x":"' % day.encode() + b"y" * 10_000_000
    fine = b'{"uuid":"large","steps":9,"timestamp":"%b 12:00:00","x":"' % day.encode() + b"y" * 5_000_000 + b'"}'
    for payload in (deep, large, fine, bytes(range(256)) * 10, b"\n\n"):
        broker.produce(topic, [record("good", 1)])
        broker.produce_file(topic, payload)
    done = subprocess.run(["kcat", "-P", "-b", broker.bootstrap, "-t", topic, "-p", "0", "-K", ":", "-Z"], input=b"key:\n",
                          capture_output=True, timeout=60)
    expect(done.returncode == 0, done.stderr)
    broker.produce(topic, [record("good", 1)])
    with broker.node(topic) as running:
        running.until_caught_up()
        expect(counts(running) == (7, {"malformed": 5}), counts(running))
        rows = running.json("top", "--board", day)["rows"]
        expect([(row["user"], row["steps"]) for row in rows] == [("large", 9), ("good", 6)], rows)
        letters = running.json("deadletter", "ls")["records"]
        sizes = [letter["bytes"] for letter in letters]
        expect(sizes == [len(deep), len(large), 2560, 2, None], sizes)


TIMES = ["0000-01-01 00:00:00", "9999-12-31 23:59:59", "1969-12-31 23:59:59", "2026-12-31 23:59:60", "2026-02-29 12:00:00",
         "2026-03-29 02:30:00", "2026-03-29 01:59:59.999999999", "2026-10-25 02:30:00", "2026-10-25 02:30:00+01:00",
         "2026-10-25T02:30:00+0200", "2026-10-24T22:30:00Z", "2026-03-28T23:30:00-14:00", "2026-03-28T23:30:00+14:01",
         "2026-06-30T23:59:60Z", "2026-13-01 00:00:00", "2026-06-01 24:00:00", 253402300800, 0, -1, 1e300, 1774747800,
         1774747800000, 99999999999, 100000000000, 253402300800000]


@test("years 0 and 9999, gap and overlap of summer time, leap seconds, the far future: the rule, the same on every node")
def times():
    broker.up()
    topic = broker.topic()
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    broker.produce(topic, [record(f"t{n:02}", 1, time_) if isinstance(time_, str) else
                           json.dumps({"uuid": f"t{n:02}", "steps": 1, "timestamp": time_}).encode()
                           for n, time_ in enumerate(TIMES)])

    def berlin(text):
        return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc).astimezone(zone).date().isoformat()

    # By hand from the rules: the day of each that counts; the reason of each that does not. Numbers from 1e11 on are
    # milliseconds, so that 253402300800 lies in 1978 and a thousand times as much in the year 10000.
    days = {5: "2026-03-29", 6: "2026-03-29", 7: "2026-10-25", 8: "2026-10-25", 9: "2026-10-25",
            10: berlin("2026-10-24T22:30:00"), 11: berlin("2026-03-29T13:30:00"), 20: berlin("2026-03-29T01:30:00"),
            21: berlin("2026-03-29T01:30:00")}
    why = {0: "time", 1: "future", 2: "time", 3: "time", 4: "time", 12: "time", 13: "time", 14: "time", 15: "time",
           16: "late", 17: "late", 18: "time", 19: "time", 22: "future", 23: "late", 24: "time"}
    seen = []
    for _ in range(2):
        with broker.node(topic, day_zone="Europe/Berlin", day_accept_late="3650d") as running:
            running.until_caught_up()
            letters = {letter["offset"]: letter["reason"] for letter in running.json("deadletter", "ls")["records"]}
            boards = {}
            for board in running.json("boards")["boards"]:
                for row in running.json("top", "--board", board["board"], "--all")["rows"]:
                    boards[int(row["user"][1:])] = board["board"]
            seen.append((boards, letters))
    expect(seen[0] == seen[1], "two nodes differ:", seen)
    for n in range(len(TIMES)):
        expect(seen[0][0].get(n) == days.get(n) and seen[0][1].get(n) == why.get(n),
               f"{TIMES[n]!r}: counted on {seen[0][0].get(n)}, rejected as {seen[0][1].get(n)};"
               f" wanted {days.get(n)}, {why.get(n)}")


@test("a record batch with a bad checksum is not applied: its partition stops and says so, the others go on")
def bad_checksum():
    broker.up()
    topic, day = broker.topic(2), today(-1)
    for batch in range(3):
        broker.produce(topic, [record(f"b{batch}-{n}", 10 + batch) for n in range(50)], 0, None, "-X", "compression.codec=none")
    broker.produce(topic, [record("other", 3)], 1)
    broker.stop()
    try:
        segment, = glob.glob(os.path.join(broker.home, "1", "log", f"{topic}-0", "*.log"))
        with open(segment, "r+b") as file:
            data = file.read()
            at = data.index(b"b1-7\"")
            file.seek(at)
            file.write(b"c")
    finally:
        broker.start()
    with broker.node(topic) as running:
        shard = running.until(
            "the stopped partition",
            lambda: next((s for s in running.json("status")["shards"] if s["partition"] == 0 and s["state"] == "stopped"), None),
            60)
        expect("checksum" in shard["reason"] and shard["watermark"] == 50 and shard["counted"] == 50, shard)
        expect("checksum" in running.said() and "partition" in running.said(), "the log does not say so:", running.said())
        running.until("the other partition", lambda: running.json("rank", "other", "--board", day)["on_board"])
        broker.produce(topic, [record("other", 4)], 1)
        running.until("more of the other partition", lambda: running.json("rank", "other", "--board", day)["steps"] == 7)
        users = {row["user"] for row in running.json("top", "--board", day, "--all")["rows"]}
        expect(users == {"other"} | {f"b0-{n}" for n in range(50)}, sorted(users)[:5], len(users))
        running.ctl("status", "--until", "caught-up", "--timeout", "1s").wants(3, "checksum")
    return shard["reason"]


@test("one user in two partitions: both counted, RANK adds them up, and answer, status and log warn")
def two_partitions():
    broker.up()
    topic, day = broker.topic(2), today(-1)
    broker.produce(topic, [record("ada", 300), record("ben", 400), record("cy", 1000)], 0)
    broker.produce(topic, [record("ada", 500), record("dan", 700)], 1)
    with broker.node(topic) as running:
        running.until_caught_up()
        running.until_said("more than one partition")
        answer = running.json("rank", "ada", "--board", day)
        expect(answer["steps"] == 800, answer)
        expect(all(shard.get("users_elsewhere") for shard in answer["shards"]), answer["shards"])
        expect(running.json("status")["counters"]["users_elsewhere"] >= 1, running.json("status")["counters"])
        expect(counts(running) == (5, {}), counts(running))
    keyed = broker.topic(2)
    broker.produce(keyed, [record("ada", 300)], 0)
    broker.produce(keyed, [record("dan", 700)], 1)
    with broker.node(keyed) as running:
        running.until_caught_up()
        expect(not any(shard.get("users_elsewhere") for shard in running.json("rank", "ada", "--board", day)["shards"]), "warned")
        expect("more than one partition" not in running.said(), running.said())


if __name__ == "__main__":
    harness.main(__doc__.splitlines()[0], tests, cleanup=[broker.down])
