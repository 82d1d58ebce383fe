#!/usr/bin/env python3
"""From a real Kafka topic to ranked answers: every total, rank, tie, page and percentile against a recount.

Starts Kafka (Ops/stack), produces, starts rmsd on the topic, waits until it has caught up, and compares. One named test a
line, a closing line `N passed, N failed, N skipped`; exit 1 if any failed. Without Kafka the tests are skipped by name, or
failed if RMS_REQUIRE_STACK=1. Python's standard library, kcat, and the release build of this checkout.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import generate  # noqa: E402

BUILD = os.environ.get("RMS_BUILD_DIR") or os.path.join(ROOT, ".build", "release")
PARTITIONS = 4


class Skipped(Exception):
    pass


class Failed(Exception):
    pass


def tool(name):
    return os.path.join(BUILD, name)


def run(command, timeout=120, check=True):
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
    return done


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Kafka:
    """The broker of Ops/stack, and topics on it."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.made = []

    def bench(self, topic, *words):
        command = [tool("rmsbench"), "kafka", "--bootstrap", self.bootstrap, "--topic", topic, *words]
        return run(command, timeout=600)

    def create(self, topic, partitions=PARTITIONS, *configs):
        words = [word for config in configs for word in ("--config", config)]
        self.bench(topic, "--create", str(partitions), *words)
        self.made.append(topic)

    def delete(self, topic):
        self.bench(topic, "--delete")

    def produce(self, topic, lines):
        """Sends lines of generate.py's form."""
        with tempfile.NamedTemporaryFile("w", suffix=".records", delete=False) as file:
            file.writelines(line + "\n" for line in lines)
        try:
            said = self.bench(topic, "--produce", file.name).stdout
        finally:
            os.unlink(file.name)
        return said


def record_line(key, payload, record_ms, partition=None):
    line = f"{key}\t{'-' if payload is None else payload.hex()}\t{record_ms}"
    return line if partition is None else f"{line}\t{partition}"


@contextlib.contextmanager
def node(kafka, topic, **settings):
    """A running rmsd; ends with the block. `settings` are keys with _ for dots."""
    folder = tempfile.mkdtemp(prefix="rms-first-light-")
    port, http = free_port(), free_port()
    values = {
        "data.dir": os.path.join(folder, "data"),
        "query.listen": f"127.0.0.1:{port}",
        "http.listen": "127.0.0.1:0",
        "http.listen": f"127.0.0.1:{http}",
        "kafka.bootstrap.servers": kafka.bootstrap,
        "kafka.topic": topic,
        "kafka.group.id": f"first-light-{port}",
    } | settings
    config = os.path.join(folder, "rmsd.conf")
    with open(config, "w") as file:
        file.writelines(f"{key} = {value}\n" for key, value in values.items())
    log = open(os.path.join(folder, "rmsd.log"), "w+")
    # What steers these tests is no setting of the node's.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RMS_")}
    process = subprocess.Popen(
        [tool("rmsd"), "--config", config], stdout=log, stderr=log, cwd=folder, env=environment)
    running = Node(process, port, log)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


class Node:
    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log

    def said(self):
        self.log.flush()
        with open(self.log.name) as file:
            return file.read()[-1500:]

    def ctl(self, *words, timeout=120, check=True):
        return run([tool("rmsctl"), "--address", f"127.0.0.1:{self.port}", *words], timeout=timeout, check=check)

    def wait_for_port(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failed(f"rmsd ended with {self.process.returncode}: {self.said()}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.05)
        raise Failed(f"rmsd does not listen: {self.said()}")

    def wait_caught_up(self, seconds=120):
        self.wait_for_port()
        done = self.ctl("status", "--until", "caught-up", "--timeout", f"{seconds}s", timeout=seconds + 30, check=False)
        if done.returncode != 0:
            raise Failed(f"not caught up (exit {done.returncode}): {done.stdout[-300:]} {done.stderr[-300:]} {self.said()}")

    def status(self):
        return json.loads(self.ctl("status", "-o", "json").stdout)

    def wait_status(self, what, condition, seconds=60):
        """Polls until the status shows it."""
        self.wait_for_port()
        end = time.monotonic() + seconds
        status = None
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failed(f"rmsd ended with {self.process.returncode} instead of {what}: {self.said()}")
            status = self.status()
            if condition(status):
                return status
            time.sleep(0.2)
        raise Failed(f"status never shows {what}: {json.dumps(status)[:600]}")


def compared(kafka, topic, running, mode, zone, steps_max):
    from compare import Comparison
    from recount import Recount, read_topic
    from step_rules import Rules

    recount = Recount(mode, Rules(zone, steps_max=steps_max))
    for record in read_topic(kafka.bootstrap, topic):
        recount.feed(record)
    comparison = Comparison(recount, "127.0.0.1", running.port, tool("rmsctl"))
    differences = comparison.run()
    if differences:
        raise Failed(f"{len(differences)} differences: " + "; ".join(differences[:5]))
    return recount, comparison


def settings_of(mode, zone, steps_max):
    settings = {
        "day.zone": zone, "event.steps_max": steps_max, "boards.week": "true", "boards.month": "true", "boards.all": "true",
        "steps.mode": "increment" if mode == "increment" else "total",
    }
    if mode != "increment":
        settings["steps.total_policy"] = mode
    return settings


# ---- The tests ---------------------------------------------------------------------------------------------------------


class Suite:
    def __init__(self, kafka, options):
        self.kafka, self.options = kafka, options
        self.main_topic = None

    def shared_topic(self):
        """One topic of bad and good records for all modes and zones."""
        if self.main_topic is None:
            topic = f"first-light-{os.getpid()}"
            self.kafka.create(topic)
            records = generate.lines(self.options.events, self.options.users, self.options.seed)
            self.kafka.produce(topic, (record_line(*record) for record in records))
            self.main_topic = topic
        return self.main_topic

    def equal(self, mode, zone):
        steps_max = generate.HEAVY_STEPS
        topic = self.shared_topic()
        with node(self.kafka, topic, **settings_of(mode, zone, steps_max)) as running:
            running.wait_caught_up()
            recount, comparison = compared(self.kafka, topic, running, mode, zone, steps_max)
        reasons = recount.reasons()
        wanted = set("malformed repeated missing type user steps time future late".split())
        if mode == "increment":
            wanted.add("overflow")
        if self.options.events >= 100_000 and wanted - set(reasons):
            raise Failed(f"the input holds no record rejected as {sorted(wanted - set(reasons))}")
        return f"{sum(recount.counted.values())} counted, {sum(reasons.values())} rejected, {comparison.compared} answers"

    def transactions(self):
        topic = f"first-light-tx-{os.getpid()}"
        self.kafka.create(topic, 2)
        rng = random.Random(self.options.seed)
        records = list(generate.lines(6_000, 500, self.options.seed + 1, heavy=False))
        lines, aborted = [], 0
        for first in range(0, len(records), 200):
            lines.append("!begin")
            lines += [record_line(*record) for record in records[first : first + 200]]
            void = rng.random() < 0.4 or first + 200 >= len(records)
            aborted += void
            lines.append("!abort" if void else "!commit")
        self.kafka.produce(topic, lines)
        with node(self.kafka, topic, **settings_of("increment", "UTC", 100_000)) as running:
            running.wait_caught_up()
            recount, comparison = compared(self.kafka, topic, running, "increment", "UTC", 100_000)
            seen = sum(recount.counted.values()) + len(recount.dead)
            if not 0 < seen < len(records):
                raise Failed(f"{seen} of {len(records)} records are visible to a committed reader")
            for shard in running.status()["shards"]:
                last = recount.next.get(shard["partition"], 0)
                if shard["watermark"] <= last or shard["lag"] != 0:
                    raise Failed(f"the last offset is a control record, yet shard {shard} stands at or before {last}")
        return f"{aborted} aborted transactions, {seen} of {len(records)} records visible, {comparison.compared} answers"

    def recreated(self):
        topic = f"first-light-again-{os.getpid()}"
        self.kafka.create(topic, 2)
        records = list(generate.lines(2_000, 100, self.options.seed + 2, heavy=False))
        self.kafka.produce(topic, (record_line(*record) for record in records))
        with node(self.kafka, topic, **settings_of("increment", "UTC", 100_000)) as running:
            running.wait_caught_up()
            before = json.loads(running.ctl("boards", "-o", "json").stdout)
            self.kafka.delete(topic)
            # A topic that comes back before anybody looked is noticed by its id within a second; one that was seen to
            # be gone is not read at all until its id was looked at. The second is what is shown here.
            running.wait_status(
                "the topic is seen to be gone", lambda status: "does not exist" in (status.get("problem") or ""), seconds=30)
            deadline = time.monotonic() + 30
            while True:
                try:
                    self.kafka.create(topic, 2)
                    break
                except Failed:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            self.kafka.produce(topic, (record_line(*record) for record in records * 2))
            status = running.wait_status(
                "every shard stopped",
                lambda status: status["shards"] and all(
                    shard["state"] not in ("live", "catching_up", "serving") for shard in status["shards"]
                ) and "recreated" in json.dumps(status),
                seconds=60,
            )
            after = json.loads(running.ctl("boards", "-o", "json").stdout)
            # Ages go on rising; users, totals and watermarks must not move.
            marks = [[(shard["partition"], shard["watermark"]) for shard in each["shards"]] for each in (before, after)]
            if before["boards"] != after["boards"] or marks[0] != marks[1]:
                raise Failed(f"boards changed by records of the recreated topic: {before}, then {after}")
        return json.dumps(status["shards"][0])[:160]

    def compacted(self):
        topic = f"first-light-compact-{os.getpid()}"
        self.kafka.create(topic, 1, "cleanup.policy=compact")
        with node(self.kafka, topic, **settings_of("increment", "UTC", 100_000)) as running:
            end = time.monotonic() + 30
            while time.monotonic() < end and "compact" not in running.said():
                if running.process.poll() is not None:
                    break
                time.sleep(0.1)
            if "compact" not in running.said():
                raise Failed(f"no refusal of a compacted topic: {running.said()}")
        with node(self.kafka, topic, **settings_of("newest", "UTC", 100_000)) as running:
            running.wait_caught_up(30)
        return "refused for increments, read for totals"

    def brokers_away(self):
        """A topic that is not there yet: the node serves, says so, and reads it once it is."""
        topic = f"first-light-later-{os.getpid()}"
        with node(self.kafka, topic, **settings_of("increment", "UTC", 100_000)) as running:
            running.wait_for_port()
            end = time.monotonic() + 30
            while time.monotonic() < end and "does not exist" not in running.said():
                time.sleep(0.1)
            if "does not exist" not in running.said():
                raise Failed(f"a missing topic is not named: {running.said()}")
            self.kafka.create(topic, 1)
            self.kafka.produce(topic, (record_line(*record) for record in generate.lines(500, 50, 9, heavy=False)))
            running.wait_caught_up(60)
            shards = running.wait_status(
                "the records",
                lambda status: sum(s["counted"] + sum(s["rejected"].values()) for s in status["shards"]) == 500)
        return f"{len(shards['shards'])} shard"

    def tests(self):
        for mode in ("increment", "newest", "max"):
            for zone in ("UTC", "Europe/Berlin", "event"):
                yield f"equals the recount: {mode}, {zone}", lambda mode=mode, zone=zone: self.equal(mode, zone)
        yield "aborted transactions are not counted; a topic that ends in a control record is caught up", self.transactions
        yield "a recreated topic stops its shards and names both ids", self.recreated
        yield "a compacted topic is refused where records add up", self.compacted
        yield "a missing topic is waited for", self.brokers_away


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="run the tests whose name holds this")
    parser.add_argument("--keep", action="store_true", help="leave Kafka running")
    options = parser.parse_args()
    passed = failed = skipped = 0
    started = run([os.path.join(ROOT, "Ops", "stack"), "env", "kafka"], check=False).returncode != 0
    up = run([os.path.join(ROOT, "Ops", "stack"), "up", "kafka"], timeout=600, check=False)
    missing = None
    if up.returncode != 0:
        missing = (up.stderr.strip().splitlines() or ["Ops/stack up kafka failed"])[-1]
    elif not shutil.which("kcat"):
        missing = "kcat is missing: apt-get install kcat"
    for name in ("rmsd", "rmsctl", "rmsbench"):
        if not os.path.exists(tool(name)):
            missing = f"{tool(name)} is missing: swift build -c release"
    suite = Suite(None if missing else Kafka(up.stdout.strip()), options)
    try:
        for name, test in suite.tests():
            if options.only and options.only not in name:
                continue
            begin = time.monotonic()
            try:
                if missing:
                    raise Skipped(missing)
                told = test()
                passed += 1
                print(f"passed  {name} ({time.monotonic() - begin:.1f} s; {told})", flush=True)
            except Skipped as reason:
                if os.environ.get("RMS_REQUIRE_STACK") == "1":
                    failed += 1
                    print(f"FAILED  {name}: skipped where it must not be: {reason}", flush=True)
                else:
                    skipped += 1
                    print(f"skipped {name}: {reason}", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
    finally:
        if started and not options.keep and not missing:
            run([os.path.join(ROOT, "Ops", "stack"), "down", "kafka"], check=False)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
