#!/usr/bin/env python3
"""What a disk can do to a node: failed and slow syncs, no room, no descriptors, a folder that goes away, files that change.

Each fault either leaves the node equal to a recount of its topic or ends it, or a shard of it, with a reason that names
the file; a wrong total is never shown. Kafka is a broker of its own (Ops/stack); strace injects errors; what needs root
(mount) is skipped by name without it.
"""

import argparse
import contextlib
import glob
import os
import random
import re
import shutil
import struct
import subprocess
import tempfile
import time

import harness
from faults import (
    Oracle, Outcomes, Plant, PowerCut, Stream, crc32c, ends, equal, kind_of, pool, status)
from harness import Failed, Skipped, expect
from broker import Broker

parser = argparse.ArgumentParser(add_help=False)
parser.add_argument("--seed", type=int, default=int(time.time()), help="of records and of places")
parser.add_argument("--syncs", type=int, default=20, help="how many of the first syncs fail, one a run (20)")
parser.add_argument("--flips", type=int, default=2, help="changed bits a kind of file (2)")
options = parser.parse_known_args()[0]
broker = Broker()
tests = []
# From a failed sync to the end of the process, at most.
EXIT_SECONDS = 1.0


def test(name):
    def add(function):
        tests.append((name, function))
        return function

    return add


def strace(folder, *injections):
    """Words in front of a command that have the kernel answer otherwise; a trace a thread in the folder."""
    if not shutil.which("strace"):
        raise Skipped("strace is missing: apt-get install strace")
    os.makedirs(folder, exist_ok=True)
    words = ["strace", "-ff", "-ttt", "-y", "-o", os.path.join(folder, "trace"), "--seccomp-bpf", "-e",
             "trace=fdatasync,fsync,pwrite64"]
    for injection in injections:
        words += ["-e", f"inject={injection}"]
    return words


def trace(folder):
    """(time, call, path, rest) of the calls of all threads, in order."""
    calls, last = [], 0.0
    for name in glob.glob(os.path.join(folder, "trace.*")):
        with open(name, errors="replace") as file:
            for line in file:
                found = re.match(r"(\d+\.\d+) (\w+)\(\d+<([^>]*)>(.*)", line)
                if found:
                    calls.append((float(found[1]), found[2], found[3], found[4]))
                elif " +++ " in line:
                    last = max(last, float(line.split()[0]))
    return sorted(calls), last


def root(what):
    if os.geteuid() != 0:
        raise Skipped(f"{what} needs root")


@contextlib.contextmanager
def small_disk(size, *more):
    """A folder on a file system of a few megabytes of its own."""
    root("mount")
    folder = tempfile.mkdtemp(prefix="rms-small-")
    done = harness.run(["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *more]), "tmpfs", folder])
    if done.code != 0:
        os.rmdir(folder)
        raise Skipped(f"mount: {done.err.strip()}")
    try:
        yield folder
    finally:
        harness.run(["umount", "-l", folder])
        os.rmdir(folder)


def caught_up(plant, oracle, running, samples=20):
    """Waits for the end of the topic, and compares everything."""
    wanted = plant.ends()
    plant.until_at(wanted)
    return equal(oracle.at(wanted), running, samples)


def stream(topic, rate=4_000, seed=1, users=3_000):
    return Stream(broker.bootstrap, topic, pool(options.seed + seed, users=users), rate)


def filled(topic, seconds=1.5, rate=40_000):
    """Puts some seconds of records on a topic."""
    with stream(topic, rate) as source:
        time.sleep(seconds)
        source.stop()


# ---- Syncs that fail ---------------------------------------------------------------------------------------------------


@test("each of the first syncs fails once: exit 74 within a second, the file named, not synced again, equal after it")
def failed_syncs():
    broker.up()
    topic = broker.topic(2)
    oracle, table, slowest = Oracle(broker, topic, "increment"), Outcomes("a sync fails"), 0
    with Plant(broker, topic, 2) as plant, stream(topic) as source:
        faults = [("fdatasync", number) for number in range(1, options.syncs + 1)] + [("fsync", n) for n in range(1, 4)]
        for call, number in faults:
            folder = os.path.join(plant.home, f"{call}-{number}")
            running = plant.start(strace(folder, f"{call}:error=EIO:when={number}"), is_open=False)
            try:
                code = running.process.wait(20)
            except subprocess.TimeoutExpired:
                plant.kill()
                calls, _ = trace(folder)
                injected = [each for each in calls if "INJECTED" in each[3]]
                expect(not injected, f"{call} {number} of {injected} failed, and the node goes on:", running.said()[-1200:])
                raise Failed(f"no thread made {call} {number} times within 20 s") from None
            calls, last = trace(folder)
            injected = [each for each in calls if "INJECTED" in each[3]]
            expect(injected, f"{call} {number} was not reached, the end was {code}:", running.complaint())
            when, _, path, _ = injected[0]
            expect(code == 74, f"{call} {number} of {path}: exit {code}:", running.complaint())
            expect(path in running.said(), f"{path} is not named:", running.said()[-1200:])
            again = [each for each in calls if each[2] == path and each[0] > when and each[1] in ("fdatasync", "fsync")]
            expect(not again or os.path.isdir(path), f"{path} was synced again:", again)
            expect(last - when <= EXIT_SECONDS, f"{path}: the end came {last - when:.2f} s after the error")
            slowest = max(slowest, last - when)
            table.add(f"{call} of {kind_of(path)}", "exit 74, file named")
            shutil.rmtree(folder)
            committed = plant.committed()
            if number % 5 == 0:
                running = plant.away()
                with running.client() as asking:
                    shards = status(asking)
                for partition, offset in committed.items():
                    expect(shards[partition]["watermark"] >= offset, partition, "is behind the commit", offset, shards)
                equal(oracle.at({p: s["watermark"] for p, s in shards.items()}), running, 10)
                plant.kill()
        source.stop()
        running = plant.start()
        answers = caught_up(plant, oracle, running)
    table.show()
    return f"{len(faults)} ends, {slowest:.2f} s after the error at the latest, {answers} answers"


@test("a sync takes 5 s: what is not on the disk is shown and grows, answers come as fast as ever")
def slow_sync():
    broker.up()
    topic = broker.topic(2)
    oracle = Oracle(broker, topic, "increment")
    with Plant(broker, topic, 2) as plant, stream(topic) as source:
        running = plant.start(
            strace(os.path.join(plant.home, "slow"), "fdatasync:delay_enter=5000000:when=12"))
        with running.client(timeout=30) as asking:
            running.until("records", lambda: sum(s["counted"] for s in status(asking).values()) > 2_000)
            slowest, most, asked = 0, 0, 0
            end = time.monotonic() + 20
            while time.monotonic() < end:
                began = time.monotonic()
                shards = status(asking)
                asking.summary("all")
                slowest, asked = max(slowest, time.monotonic() - began), asked + 1
                unsynced = max(s["watermark"] - s["durable"] for s in shards.values())
                if most > 4_000 and unsynced < most / 4:
                    break
                most = max(most, unsynced)
                time.sleep(0.005)
            # Two thousand records a second and shard.
            expect(most > 4_000, f"no more than {most} records waited for a disk that took 5 s")
            expect(slowest < 0.5, f"an answer took {slowest:.2f} s while the disk was slow")
        source.stop()
        answers = caught_up(plant, oracle, running)
    return f"{most} records waited, {asked} answers within {1000 * slowest:.0f} ms, {answers} answers equal"


# ---- No room -----------------------------------------------------------------------------------------------------------


@test("writes find no room for a while: reading pauses, answers go on, all is there in the end, nothing doubled")
def no_room_injected():
    broker.up()
    topic = broker.topic(2)
    oracle = Oracle(broker, topic, "increment")
    with Plant(broker, topic, 2) as plant, stream(topic) as source:
        folder = os.path.join(plant.home, "full")
        running = plant.start(strace(folder, "pwrite64:error=ENOSPC:when=20..22"))
        plant.until_at({0: 8_000, 1: 8_000}, stops=True)
        source.stop()
        answers = caught_up(plant, oracle, running)
        injected = [each for each in trace(folder)[0] if "INJECTED" in each[3]]
        expect(injected, "no write was refused")
        expect("the disk" in running.said(), "the log does not say so:", running.said()[-1000:])
        plant.kill()
        equal(oracle.at(marks(plant.away())), plant.running, 10)
    return f"{len(injected)} writes refused, {answers} answers"


def marks(running):
    with running.client() as asking:
        return {partition: shard["watermark"] for partition, shard in status(asking).items()}


def pauses(name, free_min, *mount_options, spare=0):
    """A disk that is full for a while, and what the node does meanwhile."""
    broker.up()
    topic = broker.topic(2)
    oracle = Oracle(broker, topic, "increment")
    with small_disk("24m", *mount_options) as folder, Plant(broker, topic, 2, folder, **{"data.free_min": free_min}) as plant:
        # The log of a program belongs elsewhere.
        with stream(topic) as source:
            running = plant.start()
            plant.until_at({0: 500, 1: 500})
            ballast = fill(folder, name, spare)
            said = running.until("the full disk in the log", lambda: "disk" in running.said() and "full" in running.said(), 20)
            expect(said, name)
            still = running.until("a pause", lambda: stands_still(running), 20)
            with running.client() as asking:
                asking.summary("all")
                shown = asking.status()
                text = str(shown["problem"]) + str(shown["shards"])
                expect("free" in text or "space" in text or "full" in text, "status does not say why:", text[:600])
            grown = plant.ends()
            running.until("a lag that grows", lambda: sum(plant.ends().values()) > sum(grown.values()) + 2_000)
            expect(marks(running) == still, "the watermarks moved on a full disk:", still, marks(running))
            for each in ballast:
                os.unlink(each)
            running.until("reading again", lambda: all(n > still[p] for p, n in marks(running).items()), 20)
            source.stop()
        answers = caught_up(plant, oracle, running)
        plant.kill()
        equal(oracle.at(marks(plant.away())), plant.running, 10)
    return f"stood at {sum(still.values())} records, {answers} answers"


def fill(folder, name, spare):
    """Takes all room but `spare` bytes, or all names."""
    if name == "names":
        made = []
        with contextlib.suppress(OSError):
            while True:
                path = os.path.join(folder, f"ballast-{len(made)}")
                open(path, "x").close()
                made.append(path)
        return made
    path = os.path.join(folder, "ballast")
    with open(path, "wb") as file, contextlib.suppress(OSError):
        while (room := os.statvfs(folder)).f_bavail * room.f_frsize > spare:
            os.write(file.fileno(), bytes(min(1 << 16, room.f_bavail * room.f_frsize - spare)))
    return [path]


def stands_still(running):
    """Watermarks that did not move for a second; None if they did."""
    first = marks(running)
    time.sleep(1)
    return first if marks(running) == first else None


@test("below the floor of free space: reading pauses, answers go on, reading resumes by itself")
def below_the_floor():
    return pauses("room", "4MiB", spare=2 << 20)


@test("a disk without any room: reading pauses, answers go on, reading resumes by itself")
def disk_full():
    return pauses("room", "0")


@test("a disk without names for new files: reading pauses, answers go on, reading resumes by itself")
def no_names():
    return pauses("names", "0", "nr_inodes=200")


@test("no descriptors left: new clients are refused, shards go on through new segments and snapshots")
def no_descriptors():
    broker.up()
    topic = broker.topic(2)
    oracle = Oracle(broker, topic, "increment")
    with Plant(broker, topic, 2) as plant, contextlib.ExitStack() as clients:
        running = plant.start(limits="ulimit -n 160")
        running.until("shards", lambda: len(running.json("status")["shards"]) == 2)
        asking = clients.enter_context(running.client())
        refused = 0
        for _ in range(300):
            try:
                clients.enter_context(running.client(connect_timeout=2, timeout=2))
            except Exception:
                refused += 1
                if refused == 3:
                    break
        expect(refused, "300 clients with 160 descriptors")
        filled(topic)
        wanted = plant.ends()

        def done():
            shards = status(asking)
            return shards if all(shards[p]["durable"] >= n for p, n in wanted.items()) else None

        shards = running.until("all durable", done, 60)
        expect(all(s["state"] == "serving" for s in shards.values()), shards)
        running.until("sealed segments", lambda: all(s["sealed"] > 0 for s in status(asking).values()))
        running.until("snapshots", lambda: all(s["snapshot"] > 0 for s in status(asking).values()))
        clients.close()
        running.until("a new client", lambda: running.ctl("status").code == 0)
        return f"{equal(oracle.at(wanted), running, 20)} answers"


# ---- The folder --------------------------------------------------------------------------------------------------------


@test("the data folder is renamed away while the node runs: exit 74 within about a second, and equal when it is back")
def folder_gone():
    broker.up()
    topic = broker.topic(2)
    oracle = Oracle(broker, topic, "increment")
    with Plant(broker, topic, 2) as plant, stream(topic) as source:
        running = plant.start()
        plant.until_at({0: 500, 1: 500})
        away = plant.data + ".away"
        os.rename(plant.data, away)
        began = time.monotonic()
        code = running.process.wait(20)
        took = time.monotonic() - began
        expect(code == 74 and plant.data in running.said(), f"exit {code}:", running.complaint())
        expect(took < 2, f"the end came only after {took:.1f} s")
        expect(not os.path.exists(plant.data), "the folder was made anew")
        os.rename(away, plant.data)
        source.stop()
        running = plant.start()
        answers = caught_up(plant, oracle, running)
    return f"{took:.1f} s, {answers} answers"


@test("a folder that is read-only, somebody else's, in use, of other settings or of a newer version is refused by name")
def refused_folders():
    with Plant(Nowhere(), "steps", 1) as plant:
        os.makedirs(plant.data)
        with open(os.path.join(plant.data, "holiday.jpg"), "w"):
            pass
        plant.run().wants(78, plant.data, "holiday.jpg")
        os.unlink(os.path.join(plant.data, "holiday.jpg"))
        running = plant.start()
        second = plant.run()
        second.wants(75, plant.data, str(running.process.pid))
        expect(running.process.poll() is None, "the first ended as well")
        plant.stop()
        plant.run(**{"event.steps_max": "77"}).wants(78, "event.steps_max", "77", "100000")
        plant.run(**{"kafka.topic": "other"}).wants(78, "kafka.topic", "steps", "other")
        plant.run(**{"day.zone": "Europe/Berlin"}).wants(78, "day.zone", "UTC", "Europe/Berlin")
        marker = os.path.join(plant.data, "folder.rms")
        with open(marker) as file:
            text = file.read()
        with open(marker, "w") as file:
            file.write(text.replace("format 1", "format 2"))
        plant.run().wants(78, marker, "format 2", "format 1")
        with open(marker, "w") as file:
            file.write(text)
        os.unlink(os.path.join(plant.data, "lock"))
        plant.start()
        plant.stop()
        plant.settings["data.init"] = "strict"
        shutil.rmtree(plant.data)
        os.makedirs(plant.data)
        plant.run().wants(78, plant.data, "--init")
        expect(not os.listdir(plant.data), "a strict folder was written to:", os.listdir(plant.data))


@test("a data folder on a file system that is mounted read-only: exit 77")
def read_only():
    with small_disk("4m") as folder, Plant(Nowhere(), "steps", 1) as plant:
        plant.data = os.path.join(folder, "data")
        plant.start()
        plant.stop()
        expect(harness.run(["mount", "-o", "remount,ro", folder]).code == 0, "remount")
        plant.run().wants(77, plant.data)


class Nowhere:
    """Brokers that are away."""

    bootstrap, port = "127.0.0.1:1", 1


# ---- Files that change -------------------------------------------------------------------------------------------------


class Damage:
    """A data folder of a killed node, copied for each fault; what a node makes of it."""

    def __init__(self):
        broker.up()
        self.rng = random.Random(options.seed)
        self.topic = broker.topic(1)
        self.oracle = Oracle(broker, self.topic, "newest")
        self.plant = Plant(broker, self.topic, 1, **{
            "steps.mode": "total", "steps.total_policy": "newest", "snapshot.interval": "30d", "snapshot.log_bytes": "1GiB"})
        self.table = Outcomes("a file changes")
        self.base = self.plant.data + ".base"

    def make(self):
        """Sealed segments, a snapshot, an early copy, more segments behind the snapshot, and a kill."""
        running = self.plant.start()
        filled(self.topic, 1.2)
        self.until_durable(running)
        self.early = self.plant.data + ".early"
        shutil.copytree(self.plant.data, self.early)
        for _ in range(2):
            expect(running.ctl("snapshot").code == 0, running.said()[-800:])
            filled(self.topic, 0.6)
            self.until_durable(running)
        with running.client() as asking:
            self.snapshot = status(asking)[0]["snapshot"]
        self.plant.kill()
        os.rename(self.plant.data, self.base)
        self.end = ends(broker.port, self.topic, 1)[0]

    def until_durable(self, running):
        end = ends(broker.port, self.topic, 1)[0]
        with running.client() as asking:
            running.until("all durable", lambda: status(asking).get(0, {"durable": -1})["durable"] >= end)

    def names(self, ending):
        """Paths below the data folder, in order."""
        return sorted(os.path.relpath(path, self.base) for path in glob.glob(os.path.join(self.base, "*-*", "*" + ending)))

    def try_out(self, fault, name, change):
        """Starts a node on a changed copy: it is equal to the recount, or its shard stands still with the file's name."""
        plant = self.plant
        shutil.rmtree(plant.data, ignore_errors=True)
        shutil.copytree(self.base, plant.data)
        change(os.path.join(plant.data, name))
        running = plant.start()
        base = os.path.basename(name)

        def settled():
            shard = (running.json("status")["shards"] or [{"state": "none"}])[0]
            return shard if shard["state"] == "stopped" or shard.get("watermark") == self.end else None

        shard = running.until(f"an outcome of {fault}", settled)
        said = running.said()
        if shard["state"] == "stopped":
            expect(plant.data in shard["reason"], f"{fault}: no path in the reason:", shard["reason"])
            equal(self.oracle.at({0: shard["watermark"]}), running, 10)
            self.table.add(fault, "shard stopped, file named")
        else:
            equal(self.oracle.at({0: self.end}), running, 10)
            named = any(base in line and ("WARN" in line.upper() or "ERR" in line.upper()) for line in said.splitlines())
            self.table.add(fault, "equal, file named" if named else "equal")
        plant.kill()
        return shard["state"] == "stopped", said

    def flip(self, path, low=0, high=None):
        size = os.path.getsize(path)
        at = self.rng.randrange(low, high or size)
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << self.rng.randrange(8)]))


def used(path):
    """Bytes of a preallocated file up to its last that is not zero."""
    with open(path, "rb") as file:
        return len(file.read().rstrip(b"\0"))


@test("flipped bits, files at wrong places, old files, a log shorter than its snapshot, a newer version: never a wrong total")
def damage():
    made = Damage()
    with made.plant:
        made.make()
        active, = made.names(".seg")[-1:]
        sealed, snapshots = made.names(".seg.lz4"), made.names(".snap")
        expect(len(sealed) >= 4 and len(snapshots) == 2, sealed, snapshots)

        def base(name):
            return int(os.path.basename(name).split(".")[0])

        old = [name for name in sealed if base(name) < base(snapshots[-1])][:-1]
        new = [name for name in sealed if base(name) >= base(snapshots[-1])]
        expect(old and new, "sealed segments on one side of the snapshot only:", sealed, snapshots)

        def named(fault, name, change):
            stopped, said = made.try_out(fault, name, change)
            expect(os.path.basename(name) in said, f"{fault}: {name} is not named:", said[-1500:])

        for _ in range(options.flips):
            named("bit of the active segment", active, lambda path: made.flip(path, 0, used(path)))
            named("bit of a sealed segment behind the snapshot", made.rng.choice(new), made.flip)
            named("bit of the newest snapshot", snapshots[-1], made.flip)
            # What no restart reads may stay unseen until it is looked for: `rmsctl log verify` does.
            name = made.rng.choice(old)
            made.try_out("bit of a sealed segment before the snapshot", name, made.flip)
            done = harness.run([harness.program("rmsctl"), "log", "verify", "--data-dir", made.plant.data])
            expect(done.code != 0 and os.path.basename(name) in done.out + done.err, "log verify:", done)
        named("both snapshots", snapshots[-1], lambda path: (made.flip(path), made.flip(path.replace(
            os.path.basename(snapshots[1]), os.path.basename(snapshots[0])))))

        def copied(path):
            # An old segment under the name of one behind the snapshot.
            shutil.copyfile(os.path.join(made.plant.data, old[0]), path)

        named("an old segment at another place", new[0], copied)

        def restored(path):
            # The newest segment of an earlier day under the active one's name.
            early = sorted(glob.glob(os.path.join(made.early, "*-*", "*.seg")))[-1]
            shutil.copyfile(early, path)

        named("an older file restored", active, restored)
        made.try_out("the active segment removed", active, os.unlink)
        made.try_out("the active segment cut", active, lambda path: os.truncate(path, used(path) * 2 // 3))

        def shorter(path):
            for each in new + [active]:
                os.unlink(os.path.join(made.plant.data, each))

        made.try_out("a log that ends before its snapshot", active, shorter)

        def gap(path):
            os.unlink(path)

        _, said = made.try_out("a sealed segment behind the snapshot removed", new[0], gap)
        expect("read from Kafka again" in said and str(base(new[0])) in said, "the hole is not told:", said[-1500:])

        def newer(path):
            with open(path, "r+b") as file:
                head = bytearray(file.read(512))
                struct.pack_into("<H", head, 8, 2)
                struct.pack_into("<I", head, 508, crc32c(head[:508]))
                file.seek(0)
                file.write(head)

        stopped, said = made.try_out("a segment of a newer version", active, newer)
        expect(stopped and "version 2" in said, "a newer version is not refused:", said[-1500:])
        unreadable(made, sealed, new)
    made.table.show()
    return f"seed {options.seed}, {len(sealed)} sealed segments, snapshot at {made.snapshot} of {made.end}"


def unreadable(made, sealed, new):
    """The disk does not give a segment back while it is replayed."""
    if not shutil.which("strace"):
        return
    plant = made.plant
    shutil.rmtree(plant.data)
    shutil.copytree(made.base, plant.data)
    path = os.path.join(plant.data, new[0])
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-P", path, "-e", "trace=pread64,read", "-e",
             "inject=pread64,read:error=EIO"]
    running = plant.start(words)

    def settled():
        shard = (running.json("status")["shards"] or [{"state": "none"}])[0]
        return shard if shard["state"] == "stopped" or shard.get("watermark") == made.end else None

    shard = running.until("an outcome", settled)
    expect(os.path.basename(path) in running.said(), "the unreadable file is not named:", running.said()[-1500:])
    equal(made.oracle.at({0: shard["watermark"]}), running, 10)
    made.table.add("a segment that cannot be read", "shard stopped" if shard["state"] == "stopped" else "equal, file named")
    plant.kill()


@test("short and interrupted writes are continued: equal, and equal again from the disk")
def short_writes():
    broker.up()
    topic = broker.topic(2)
    oracle = Oracle(broker, topic, "increment")
    with tempfile.TemporaryDirectory(prefix="rms-powercut-") as folder, Plant(broker, topic, 2) as plant:
        PowerCut.build(folder)
        cut = PowerCut(plant, 0, True)
        plant.start(env=cut.env)
        filled(topic)
        caught_up(plant, oracle, plant.running)
        plant.kill()
        return f"{equal(oracle.at(marks(plant.away())), plant.running, 20)} answers"


if __name__ == "__main__":
    harness.main(__doc__.splitlines()[0], tests, cleanup=[broker.down], parents=[parser])
