"""Nodes that are killed and started again on the same data folder, a steady stream of records, and what they must add up to.

A `Plant` is a data folder and its settings; its nodes come and go. A `Stream` keeps producing. An `Oracle` counts the
topic again up to any watermarks, a `Tally` counts millions of records and checks what a node said at many watermarks.
`PowerCut` makes the folder that a power cut would leave (powercut.c). Standard library, kcat and, for the cut, cc.
"""

import collections
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import generate
import harness
from compare import Comparison
from harness import Failed, Skipped, client, expect
from recount import Recount
from step_rules import Rules

STEPS_MAX = 100_000
DAY_MS = 86_400_000


# ---- Records -----------------------------------------------------------------------------------------------------------


def pool(seed, count=20_000, users=12_000, bad_share=0.01):
    """Lines for kcat, key and payload. Event times lie days away from every border, so that the verdict on a payload is
    the same whenever it is produced within the hour."""
    rng = random.Random(seed)
    noon = int(time.time() * 1000) // DAY_MS * DAY_MS + DAY_MS // 2
    lines = []
    while len(lines) < count:
        index = int(users * rng.random() ** 2)
        event_ms = noon - rng.randrange(1, 4) * DAY_MS + rng.randrange(-7_200_000, 7_200_000)
        user = generate.user_text(index)
        if rng.random() < bad_share:
            payload = generate.bad(rng, user, event_ms) or b""
        else:
            steps = rng.choice([0, 1, 1, 10, 10, 50, rng.randrange(300)])
            payload = generate.event(rng, user, steps, generate.stamp(rng, event_ms))
        # kcat ends a record at a newline.
        if b"\n" not in payload and b"\t" not in payload:
            lines.append(b"%d\t%s\n" % (index, payload))
    return lines


class Stream:
    """Puts a pool's records on a topic, round and round, at a rate, until it is stopped."""

    def __init__(self, bootstrap, topic, lines, per_second):
        self.lines, self.rate, self.sent = lines, per_second, 0
        self.process = subprocess.Popen(
            ["kcat", "-P", "-q", "-b", bootstrap, "-t", topic, "-K", "\t", "-Z", "-X", "queue.buffering.max.ms=5"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.began = time.monotonic()
        self.thread.start()

    def run(self):
        at, pipe = 0, self.process.stdin
        try:
            while not self.stopping.wait(0.01):
                count = int((time.monotonic() - self.began) * self.rate) - self.sent
                while count > 0:
                    part = self.lines[at:at + min(count, 2_000)]
                    pipe.write(b"".join(part))
                    at = (at + len(part)) % len(self.lines)
                    count -= len(part)
                    self.sent += len(part)
                pipe.flush()
        except OSError:
            pass

    def stop(self):
        """Ends it; all that was sent is on the topic afterwards."""
        self.stopping.set()
        self.thread.join()
        self.seconds = time.monotonic() - self.began
        said = self.process.communicate(timeout=60)[1]
        expect(self.process.returncode == 0, "kcat:", said.decode(errors="replace"))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            if kind:
                self.process.kill()
            self.stopping.set()
            self.thread.join()
            self.process.stderr.close()
            if self.process.stdin and not self.process.stdin.closed:
                try:
                    self.process.stdin.close()
                except OSError:
                    pass
            self.process.wait(60)


# ---- What the broker knows ---------------------------------------------------------------------------------------------


def _text(value):
    return struct.pack(">h", len(value)) + value.encode()


def _ask(port, api, version, body):
    request = struct.pack(">hhi", api, version, 1) + _text("test") + body
    with socket.create_connection(("127.0.0.1", port), 30) as wire:
        wire.sendall(struct.pack(">i", len(request)) + request)
        with wire.makefile("rb") as file:
            return file.read(struct.unpack(">i", file.read(4))[0])[4:]


def ends(port, topic, partitions):
    """Next offset of each partition (ListOffsets, version 1)."""
    body = struct.pack(">ii", -1, 1) + _text(topic) + struct.pack(">i", partitions)
    body += b"".join(struct.pack(">iq", each, -1) for each in range(partitions))
    answer = _ask(port, 2, 1, body)
    at, found = 4 + 2 + len(topic) + 4, {}
    for _ in range(partitions):
        partition, error, _, offset = struct.unpack_from(">ihqq", answer, at)
        expect(error == 0, f"ListOffsets of {topic}/{partition}: error {error}")
        found[partition] = offset
        at += 22
    return found


def committed(port, group, topic, partitions):
    """Offsets that a group has committed (OffsetFetch, version 1); partitions without one are left out."""
    body = _text(group) + struct.pack(">i", 1) + _text(topic) + struct.pack(">i", partitions)
    body += b"".join(struct.pack(">i", each) for each in range(partitions))
    answer = _ask(port, 9, 1, body)
    at, found = 4 + 2 + len(topic) + 4, {}
    for _ in range(partitions):
        partition, offset, length = struct.unpack_from(">iqh", answer, at)
        at += 14 + max(0, length)
        error, = struct.unpack_from(">h", answer, at)
        at += 2
        # 15, 16: no group of this broker has committed anything yet.
        expect(error in (0, 15, 16), f"OffsetFetch of {group}: error {error}")
        if offset >= 0:
            found[partition] = offset
    return found


# ---- Nodes on one data folder ------------------------------------------------------------------------------------------


class Plant:
    """A data folder with its settings; one node at a time runs on it."""

    def __init__(self, broker, topic, partitions, folder=None, **settings):
        self.home = tempfile.mkdtemp(prefix="rms-plant-", dir=folder)
        self.data = os.path.join(self.home, "data")
        self.port, self.group = broker.port, f"group-{topic}"
        self.topic, self.partitions, self.running, self.starts = topic, partitions, None, 0
        self.settings = {
            "kafka.bootstrap.servers": broker.bootstrap, "kafka.topic": topic, "kafka.group.id": self.group,
            "log.segment_bytes": "64KiB", "snapshot.interval": "1s",
            "snapshot.log_bytes": "256KiB", "data.free_min": "0", "boards.week": "true", "boards.month": "true",
            "boards.all": "true", "event.steps_max": STEPS_MAX,
        } | settings

    def words(self, **settings):
        """The command of a node on a port of its own."""
        self.starts += 1
        self.query_port = harness.free_port()
        values = self.settings | {
            "data.dir": self.data, "query.listen": f"127.0.0.1:{self.query_port}",
            "http.listen": f"127.0.0.1:{harness.free_port()}",
        } | settings
        config = os.path.join(self.home, "rmsd.conf")
        with open(config, "w") as file:
            file.writelines(f"{key} = {value}\n" for key, value in values.items())
        return [harness.program("rmsd"), "--config", config]

    def start(self, wrap=(), env=None, is_open=True, limits=None, **settings):
        """Starts a node. `wrap` are words in front of its command, `limits` shell text that runs before it."""
        words = [*wrap, *self.words(**settings)]
        if limits:
            words = ["bash", "-c", f"{limits}; exec \"$@\"", "bash", *words]
        log = os.path.join(self.home, f"rmsd-{self.starts}.log")
        with open(log, "w") as file:
            process = subprocess.Popen(
                words, env=harness.environment(**(env or {})), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                cwd=self.home, start_new_session=True)
        self.running = harness.Node(process, self.query_port, log)
        if is_open:
            self.running.until("an open port", lambda: harness.is_open(self.query_port))
        return self.running

    def away(self, **options):
        """Starts a node whose brokers cannot be reached: what it shows comes from the folder alone."""
        running = self.start(**options, **{"kafka.bootstrap.servers": "127.0.0.1:1"})
        running.until("all shards from the disk", lambda: self.restored(running))
        return running

    def restored(self, running):
        """Whether each shard that the folder has is restored, or has stopped for a reason of its own."""
        return "node started" in running.said() and all(
            shard["state"] != "restoring" for shard in running.json("status")["shards"])

    def shard_folders(self):
        return [name for name in sorted(os.listdir(self.data)) if name.startswith(self.topic + "-") and "." not in name]

    def run(self, **settings):
        """A node that is not expected to start: what became of it."""
        return harness.run(self.words(**settings), timeout=60)

    def kill(self):
        if self.running and self.running.process.poll() is None:
            os.killpg(self.running.process.pid, signal.SIGKILL)
            self.running.process.wait()

    def stop(self, code=0):
        """A clean stop."""
        process = self.running.process
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            raise Failed(f"no end 30 s after SIGTERM: {self.running.complaint()}") from None
        expect(process.returncode == code, f"stopped with {process.returncode}:", self.running.complaint())

    def close(self):
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def files(self, ending):
        """Paths of the shards' files with an ending, in order."""
        return sorted(
            os.path.join(self.data, shard, name)
            for shard in self.shard_folders() for name in os.listdir(os.path.join(self.data, shard)) if name.endswith(ending))

    def ends(self):
        return ends(self.port, self.topic, self.partitions)

    def committed(self):
        return committed(self.port, self.group, self.topic, self.partitions)

    def until_at(self, wanted, seconds=60, stops=False):
        """Waits until every shard is at an offset or beyond; the shards as STATUS shows them then. Shards may stand still
        on the way only if `stops`."""
        with self.running.client() as asking:
            def reached():
                shards = status(asking)
                bad = [s for s in shards.values() if s["state"] == "stopped"]
                expect(stops or not bad, "a shard stopped:", bad)
                return shards if all(shards.get(p, {"watermark": -1})["watermark"] >= n for p, n in wanted.items()) else None

            try:
                return self.running.until(f"watermarks {wanted}", reached, seconds)
            except Failed as error:
                raise Failed(f"{error}; the shards: {list(status(asking).values())}") from None


def status(asking):
    """Shards by partition."""
    return {shard["partition"]: shard for shard in client.shown(asking.status())["shards"]}


def rejected(shard):
    return {reason: count for reason, count in shard["rejected"].items() if count}


# ---- The truth ---------------------------------------------------------------------------------------------------------


class Memo(Rules):
    """Rules that judge each payload once: the pool's verdicts do not depend on the time of producing."""

    def __init__(self, zone="UTC"):
        super().__init__(zone, steps_max=STEPS_MAX)
        self.known = {}

    def judge(self, payload, kafka_timestamp_ms, clock_ms):
        verdict = self.known.get(payload)
        if verdict is None:
            verdict = self.known[payload] = super().judge(payload, kafka_timestamp_ms, clock_ms)
        return verdict


class Record:
    __slots__ = ("partition", "offset", "timestamp_ms", "payload")

    def __init__(self, partition, offset, timestamp_ms, payload):
        self.partition, self.offset, self.timestamp_ms, self.payload = partition, offset, timestamp_ms, payload


def read(bootstrap, topic, partition=None, begin=0, end=0):
    """Records of a topic whose payloads hold no newline: partition, offset, timestamp, payload or None. All that a topic
    at rest holds, or those of a partition between two offsets."""
    words = ["kcat", "-C", "-q", "-b", bootstrap, "-t", topic, "-X", "check.crcs=true", "-f", "%p\t%o\t%T\t%S\t%s\n"]
    words += ["-e", "-o", "beginning"] if partition is None else ["-p", str(partition), "-o", str(begin), "-c", str(end - begin)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    for line in process.stdout:
        part, offset, stamp, length, payload = line.split(b"\t", 4)
        yield int(part), int(offset), int(stamp), None if length == b"-1" else payload[:-1]
    expect(process.wait() == 0, f"kcat ended with {process.returncode}")


class Oracle:
    """A topic of up to some hundred thousand records, counted up to any watermarks."""

    def __init__(self, broker, topic, mode):
        self.bootstrap, self.topic, self.mode, self.rules = broker.bootstrap, topic, mode, Memo()
        self.records, self.recount = collections.defaultdict(list), None

    def at(self, watermarks):
        """The recount of all records before the watermarks, by partition."""
        for partition, watermark in watermarks.items():
            have = self.records[partition]
            if len(have) < watermark:
                for part, offset, stamp, payload in read(self.bootstrap, self.topic, partition, len(have), watermark):
                    expect(offset == len(have), f"offset {offset} of {part} after {len(have)} records")
                    have.append(Record(part, offset, stamp, payload))
            expect(len(have) >= watermark, f"partition {partition} ends at {len(have)}, the shard is at {watermark}")
        done = self.recount.next if self.recount else {}
        if self.recount is None or any(done.get(p, 0) > watermark for p, watermark in watermarks.items()):
            self.recount, done = Recount(self.mode, self.rules), {}
        for partition, watermark in watermarks.items():
            for record in self.records[partition][done.get(partition, 0):watermark]:
                self.recount.feed(record)
        return self.recount


class AtWatermarks(Comparison):
    """Compares a node that stands at known watermarks, whether or not its brokers are there."""

    def __init__(self, recount, port, samples=60):
        super().__init__(recount, "127.0.0.1", port, harness.program("rmsctl"), samples=samples)

    def status(self, node):
        shards = status(node)
        for partition, offset in self.recount.next.items():
            shard = shards.get(partition, {})
            self.same(f"watermark of {partition}", shard.get("watermark"), offset)
            self.same(f"counted of {partition}", shard.get("counted"), self.recount.counted[partition])
            self.same(f"superseded of {partition}", shard.get("superseded"), self.recount.superseded[partition])
            self.same(f"rejected of {partition}", rejected(shard), dict(self.recount.rejected[partition]))


def equal(recount, running, samples=60):
    """Everything a node may be asked against a recount; the number of answers compared."""
    # A dead letter follows its record into the log.
    running.until(
        f"{len(recount.dead)} dead letters",
        lambda: len(running.json("deadletter", "ls")["records"]) >= len(recount.dead) if recount.dead else True)
    comparison = AtWatermarks(recount, running.port, samples)
    if not comparison.boards:
        # Nothing was counted yet: there is no board to ask about.
        with running.client() as asking:
            comparison.status(asking)
            expect(not asking.boards()["boards"], "boards without a record")
    differences = comparison.run() if comparison.boards else comparison.differences
    expect(not differences, f"{len(differences)} differences: " + "; ".join(differences[:4]))
    return comparison.compared


class Tally:
    """Counts millions of records of increments, and what nodes said on the way."""

    def __init__(self, broker, topic):
        self.bootstrap, self.topic, self.rules = broker.bootstrap, topic, Memo()
        self.claims = collections.defaultdict(dict)  # partition -> watermark -> what a node said of itself there
        self.sums = []  # (watermarks by partition, users, total steps of the board of all time)

    def note(self, asking):
        """Takes down what a node says now."""
        for partition, shard in status(asking).items():
            said = (shard["counted"], rejected(shard))
            # No transactions here: each offset is one record.
            total = shard["counted"] + sum(said[1].values())
            expect(total == shard["watermark"], f"{total} records at watermark {shard['watermark']} of {partition}")
            known = self.claims[partition].setdefault(shard["watermark"], said)
            expect(known == said, f"watermark {shard['watermark']} of {partition}: {said}, before {known}")
        answer = client.shown(asking.summary("all"))
        marks = {shard["partition"]: shard["watermark"] for shard in answer["shards"]}
        self.sums.append((marks, answer["users"], answer["total_steps"]))

    def count(self):
        """Reads the topic once; a Recount of all of it. What nodes said must have been true at its watermark."""
        kinds, verdicts, payloads = {}, [], []
        counts = collections.defaultdict(list)  # partition -> records by kind
        steps = collections.Counter()  # partition -> steps so far
        recount = Recount("increment", self.rules)
        marks = collections.defaultdict(set)
        for partition, claims in self.claims.items():
            marks[partition] |= set(claims)
        for each, _, _ in self.sums:
            for partition, watermark in each.items():
                marks[partition].add(watermark)
        waiting = {partition: sorted(each, reverse=True) for partition, each in marks.items()}
        steps_at = {}
        following = collections.Counter()
        for partition, offset, stamp, payload in read(self.bootstrap, self.topic):
            expect(offset == following[partition], f"offset {offset} of {partition} after {following[partition]}")
            following[partition] = offset + 1
            queue = waiting.get(partition)
            while queue and queue[-1] <= offset:
                self.check(partition, queue.pop(), counts[partition], verdicts, steps, steps_at)
            kind = kinds.get(payload)
            if kind is None:
                kind = kinds[payload] = len(verdicts)
                verdicts.append(self.rules.judge(payload, stamp, stamp))
                payloads.append(payload)
            rows = counts[partition]
            if kind >= len(rows):
                rows.extend([0] * (len(verdicts) - len(rows)))
            rows[kind] += 1
            verdict = verdicts[kind]
            if verdict[0] == "ok":
                steps[partition] += verdict[2]
            else:
                recount.dead[partition, offset] = (verdict[0], payload)
        for partition, queue in waiting.items():
            while queue:
                self.check(partition, queue.pop(), counts[partition], verdicts, steps, steps_at)
        for partition, rows in counts.items():
            recount.next[partition] = following[partition]
            for kind, number in enumerate(rows):
                self.add(recount, partition, verdicts[kind], number)
        for each, users, total in self.sums:
            wanted = sum(steps_at[partition, watermark] for partition, watermark in each.items())
            expect(total == wanted, f"{total} steps at {each}, the recount has {wanted}")
        return recount

    def check(self, partition, watermark, rows, verdicts, steps, steps_at):
        steps_at[partition, watermark] = steps[partition]
        said = self.claims[partition].get(watermark)
        if said is None:
            return
        counted, reasons = 0, collections.Counter()
        for kind, number in enumerate(rows):
            if verdicts[kind][0] == "ok":
                counted += number
            elif number:
                reasons[verdicts[kind][0]] += number
        expect(said == (counted, dict(reasons)), f"{partition} at {watermark}: {said}, recount {(counted, dict(reasons))}")

    @staticmethod
    def add(recount, partition, verdict, number):
        from recount import boards_of
        if not number:
            return
        if verdict[0] != "ok":
            recount.rejected[partition][verdict[0]] += number
            return
        _, user, steps, day, _ = verdict
        recount.counted[partition] += number
        for name in boards_of(day):
            recount.totals[partition, name, user] += steps * number


# ---- Power cuts --------------------------------------------------------------------------------------------------------


class PowerCut:
    """Watches a plant's data folder, and puts in its place what a power cut would have left."""

    library = None

    @classmethod
    def build(cls, folder):
        compiler = shutil.which("cc") or shutil.which("clang")
        if not compiler:
            raise Skipped("no C compiler: apt-get install gcc")
        cls.library = os.path.join(folder, "powercut.so")
        done = harness.run([compiler, "-shared", "-fPIC", "-O1", "-o", cls.library, os.path.join(harness.HERE, "powercut.c")])
        expect(done.code == 0, "powercut.c:", done)

    def __init__(self, plant, at=0, is_short=False):
        self.data, self.shadow = plant.data, os.path.join(plant.home, "shadow")
        shutil.rmtree(self.shadow, ignore_errors=True)
        for name in ("content", "names", "held"):
            os.makedirs(os.path.join(self.shadow, name))
        os.makedirs(self.data, exist_ok=True)
        # What is there before the process starts is on the disk.
        for folder, folders, files in os.walk(self.data):
            with open(os.path.join(self.shadow, "names", str(os.stat(folder).st_ino)), "w") as listing:
                for name in folders + files:
                    kind = "d" if name in folders else "f"
                    listing.write(f"{os.lstat(os.path.join(folder, name)).st_ino} {kind} {name}\n")
            for name in files:
                path = os.path.join(folder, name)
                shutil.copyfile(path, os.path.join(self.shadow, "content", str(os.stat(path).st_ino)))
        self.env = {
            "LD_PRELOAD": self.library, "POWERCUT_ROOT": os.path.realpath(self.data), "POWERCUT_SHADOW": self.shadow,
            "POWERCUT_AT": at, "POWERCUT_SHORT": int(is_short)}

    def place(self):
        """The call that the process died before; None if it was killed from outside."""
        try:
            with open(os.path.join(self.shadow, "last")) as file:
                call, path = file.read().strip().split(" ", 1)
        except OSError:
            return None
        return f"{call} of {kind_of(path)}"

    def strike(self, rng, pages, names):
        """The process is gone: replaces the folder by an image of it. Says how many files lost something."""
        after = self.data + ".after"
        self.image(rng, pages, names, after)
        shutil.rmtree(self.data)
        os.rename(after, self.data)
        return self.lost

    def image(self, rng, pages, names, target):
        """The process is gone: makes a folder of what the cut left. Of what was not synced survives nothing, or pages at
        random (`pages`); names are as of the last sync of their folder, or as they were last (`names`)."""
        inodes = {}
        for folder, _, files in os.walk(self.data):
            for name in files:
                path = os.path.join(folder, name)
                inodes[os.lstat(path).st_ino] = path
        held = os.path.join(self.shadow, "held")
        inodes |= {int(name): os.path.join(held, name) for name in os.listdir(held)}
        self.lost = 0
        self.fill(self.data, os.stat(self.data).st_ino, target, inodes, rng, pages, names)

    def fill(self, folder, inode, target, inodes, rng, pages, names):
        os.makedirs(target)
        found = []
        if names:
            for name in sorted(os.listdir(folder)) if folder else []:
                path = os.path.join(folder, name)
                found.append((os.lstat(path).st_ino, "d" if os.path.isdir(path) else "f", name))
        else:
            listing = os.path.join(self.shadow, "names", str(inode))
            if os.path.exists(listing):
                with open(listing) as file:
                    found = [(int(i), kind, name) for i, kind, name in (line.rstrip("\n").split(" ", 2) for line in file)]
        for number, kind, name in found:
            path = os.path.join(target, name)
            if kind == "d":
                below = os.path.join(folder, name) if folder else None
                if below and not (os.path.isdir(below) and os.stat(below).st_ino == number):
                    below = None
                self.fill(below, number, path, inodes, rng, pages, names)
                continue
            surely = b""
            content = os.path.join(self.shadow, "content", str(number))
            if os.path.exists(content):
                with open(content, "rb") as file:
                    surely = file.read()
            last = surely
            if number in inodes:
                with open(inodes[number], "rb") as file:
                    last = file.read()
            self.lost += last != surely
            with open(path, "wb") as file:
                file.write(mixed(surely, last, rng) if pages else surely)


def mixed(surely, last, rng, page=4096):
    """Each page as it was synced, or as it was last; and so the length."""
    length = rng.choice([len(surely), len(last)])
    surely, last = surely.ljust(length, b"\0")[:length], last.ljust(length, b"\0")[:length]
    return b"".join(rng.choice([surely, last])[at:at + page] for at in range(0, length, page))


def kind_of(path):
    """What a file under a data folder is, for tables of outcomes."""
    name = os.path.basename(path)
    for ending, kind in ((".seg", "a segment"), (".lz4", "a sealed segment"), (".snap", "a snapshot")):
        if name.endswith(ending):
            return kind
        if ending in name:
            return f"{kind}'s unfinished file"
    return "a folder" if "." not in name and name != "lock" else name


# ---- Tables ------------------------------------------------------------------------------------------------------------


class Outcomes:
    """What became of each fault, counted, printed as a table."""

    def __init__(self, title):
        self.title, self.rows = title, collections.Counter()

    def add(self, fault, outcome):
        self.rows[fault, outcome] += 1

    def show(self):
        width = max((len(fault) for fault, _ in self.rows), default=0)
        print(f"  {self.title}")
        for (fault, outcome), count in sorted(self.rows.items()):
            print(f"    {count:4} x {fault:{width}}  {outcome}")
        print(flush=True, end="")


def crc32c(data, table=[]):
    """CRC-32 of the Castagnoli polynomial, as the files carry it."""
    if not table:
        for n in range(256):
            for _ in range(8):
                n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
            table.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
