"""A Kafka broker of a test's own: stopped with its files kept, started again, and asked as operators ask.

Standard library, kcat, and Ops/stack for starting it; without those a test is skipped by name.
"""

import datetime
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import harness
from harness import ROOT, Skipped, environment, expect, node

STACK = os.path.join(ROOT, "Ops", "stack")


def text(value):
    """A string of Kafka's protocol."""
    return struct.pack(">h", len(value)) + value.encode()


class Broker:
    """A Kafka of our own that can be stopped with its files kept, and started again."""

    def __init__(self):
        self.bootstrap, self.topics = None, 0

    def up(self):
        if self.bootstrap:
            return self
        if not shutil.which("kcat"):
            raise Skipped("kcat is missing: apt-get install kcat")
        self.folder = tempfile.mkdtemp(prefix="rms-broker-")
        done = harness.run([STACK, "up", "kafka"], env=self.environment(), timeout=280)
        if done.code != 0:
            raise Skipped((done.err.strip().splitlines() or ["Ops/stack up kafka failed"])[-1])
        self.bootstrap = done.out.strip()
        self.port = int(self.bootstrap.rpartition(":")[2])
        self.home = os.path.join(self.folder, "kafka")
        self.pid = int(open(os.path.join(self.home, "pids")).read())
        with open(f"/proc/{self.pid}/cmdline", "rb") as file:
            self.words = file.read().split(b"\0")[:-1]
        self.process = None
        return self

    def environment(self):
        return environment(RMS_STACK_DIR=self.folder)

    def stop(self):
        """A clean stop: the log is flushed, and not checked when it is opened again."""
        os.kill(self.pid, signal.SIGTERM)
        end = time.monotonic() + 60
        while os.path.exists(f"/proc/{self.pid}/cmdline") and open(f"/proc/{self.pid}/cmdline", "rb").read():
            if self.process:
                self.process.poll()
            expect(time.monotonic() < end, "the broker does not stop")
            time.sleep(0.05)

    def start(self):
        with open(os.path.join(self.home, "again.log"), "ab") as log:
            self.process = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.pid = self.process.pid
        with open(os.path.join(self.home, "pids"), "w") as file:
            file.write(f"{self.pid}\n")
        end = time.monotonic() + 90
        while not harness.is_open(self.port):
            expect(self.process.poll() is None and time.monotonic() < end, "the broker does not start again")
            time.sleep(0.1)

    def down(self):
        if self.bootstrap:
            harness.run([STACK, "down", "kafka"], env=self.environment())
            if self.process:
                self.process.wait(20)
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, api, version, body):
        """One request of Kafka's protocol with the plain header; what follows the correlation number."""
        request = struct.pack(">hhi", api, version, 1) + text("test") + body
        with socket.create_connection(("127.0.0.1", self.port), 30) as wire:
            wire.sendall(struct.pack(">i", len(request)) + request)
            with wire.makefile("rb") as file:
                return file.read(struct.unpack(">i", file.read(4))[0])[4:]

    def change(self, what, fine, api, version, body, at):
        """A request about one topic, whose error number follows its name `at` bytes into the answer; until it is taken."""
        end = time.monotonic() + 60
        while True:
            answer = self.ask(api, version, body)
            length = struct.unpack_from(">h", answer, at)[0]
            error = struct.unpack_from(">h", answer, at + 2 + length)[0]
            if error in fine:
                return
            expect(time.monotonic() < end, f"the broker does not {what}: error {error}")
            time.sleep(0.2)

    def topic(self, partitions=1, **configs):
        """Creates a topic."""
        self.topics += 1
        return self.create(f"topic-{self.topics}", partitions, fine=(0, 36), **configs)

    def create(self, name, partitions=1, fine=(0,), **configs):
        """Creates a topic of this name (CreateTopics, version 2), waiting while one that was deleted still goes."""
        settings = b"".join(text(key.replace("_", ".")) + text(str(value)) for key, value in configs.items())
        body = (struct.pack(">i", 1) + text(name) + struct.pack(">ihi", partitions, 1, 0)
                + struct.pack(">i", len(configs)) + settings + struct.pack(">ib", 20_000, 0))
        self.change(f"create {name}", fine, 19, 2, body, 8)
        return name

    def delete(self, name):
        """Deletes a topic (DeleteTopics, version 1)."""
        self.change(f"delete {name}", (0,), 20, 1, struct.pack(">i", 1) + text(name) + struct.pack(">i", 20_000), 8)

    def grow(self, name, partitions):
        """Gives a topic more partitions (CreatePartitions, version 0)."""
        body = struct.pack(">i", 1) + text(name) + struct.pack(">iiib", partitions, -1, 20_000, 0)
        self.change(f"grow {name}", (0,), 37, 0, body, 8)

    def delete_records(self, name, before):
        """Deletes the records below an offset by partition (DeleteRecords, version 0), as retention does."""
        parts = b"".join(struct.pack(">iq", partition, offset) for partition, offset in before.items())
        answer = self.ask(21, 0, struct.pack(">i", 1) + text(name) + struct.pack(">i", len(before)) + parts
                          + struct.pack(">i", 20_000))
        # Throttle time, number of topics, name, number of partitions.
        at = 4 + 4 + 2 + len(name) + 4
        for place in range(len(before)):
            partition, low, error = struct.unpack_from(">iqh", answer, at + 14 * place)
            expect(error == 0 and low == before[partition], f"records of {partition} are not deleted: {low}, error {error}")

    def committed(self, group, name, partitions):
        """What a group has stored (OffsetFetch, version 1): offset and metadata by partition."""
        body = (text(group) + struct.pack(">i", 1) + text(name) + struct.pack(">i", partitions)
                + b"".join(struct.pack(">i", partition) for partition in range(partitions)))
        answer = self.ask(9, 1, body)
        at, found = 4 + 2 + len(name), {}
        count = struct.unpack_from(">i", answer, at)[0]
        at += 4
        for _ in range(count):
            partition, offset, length = struct.unpack_from(">iqh", answer, at)
            at += 14
            found[partition] = (offset, answer[at:at + max(0, length)].decode())
            at += max(0, length) + 2
        return found

    def end(self, name, partition, stable):
        """Where a partition ends (ListOffsets, version 2), for readers of committed records or of all."""
        body = (struct.pack(">ib", -1, 1 if stable else 0) + struct.pack(">i", 1) + text(name)
                + struct.pack(">iiq", 1, partition, -1))
        answer = self.ask(2, 2, body)
        return struct.unpack_from(">q", answer, 4 + 4 + 2 + len(name) + 4 + 4 + 2 + 8)[0]

    def held_back(self, name, partition):
        """Records that an open transaction holds back."""
        return self.end(name, partition, False) - self.end(name, partition, True)

    def tool(self, name, *words):
        """One of Kafka's own tools, as an operator runs it."""
        done = harness.run([STACK, "run", "kafka", name, "--bootstrap-server", self.bootstrap, *words],
                           env=self.environment(), timeout=90)
        expect(done.code == 0, name, done)
        return done.out

    def transactions(self, topic, lines, hang=False):
        """Sends lines of records, !begin, !commit and !abort. If it is to hang, the process that does is given back."""
        words = [harness.program("rmsbench"), "kafka", "--bootstrap", self.bootstrap, "--topic", topic]
        path = os.path.join(self.folder, f"{topic}.{'hung' if hang else 'records'}")
        if hang:
            os.mkfifo(path)
            process = subprocess.Popen([*words, "--set", "transaction.timeout.ms=30000", "--produce", path],
                                       stdout=subprocess.DEVNULL)
            pipe = open(path, "w")
            pipe.writelines(line + "\n" for line in lines)
            pipe.flush()
            os.unlink(path)
            return process, pipe
        with open(path, "w") as file:
            file.writelines(line + "\n" for line in lines)
        done = harness.run([*words, "--produce", path], timeout=200)
        expect(done.code == 0, done)

    def produce(self, topic, payloads, partition=0, key=None, *words):
        """One message a payload, all to one partition; payloads hold no newline."""
        done = subprocess.run(
            ["kcat", "-P", "-b", self.bootstrap, "-t", topic, "-p", str(partition), "-q", *words]
            + (["-k", key] if key else []),
            input=b"".join(payload + b"\n" for payload in payloads), capture_output=True, timeout=200)
        expect(done.returncode == 0, "kcat:", done.stderr.decode(errors="replace"))

    def produce_file(self, topic, payload, partition=0):
        """One message of any bytes and any length."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(payload)
            file.flush()
            done = subprocess.run(
                ["kcat", "-P", "-b", self.bootstrap, "-t", topic, "-p", str(partition), "-q", "-X",
                 "message.max.bytes=30000000", file.name], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        expect(done.returncode == 0, "kcat:", done.stderr.decode(errors="replace"))

    def node(self, topic, **settings):
        return node(kafka_bootstrap_servers=self.bootstrap, kafka_topic=topic, **settings)


# ---- Records, and what became of them -----------------------------------------------------------------------------------


def today(offset_days=0):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=offset_days)).date().isoformat()


def record(user, steps, timestamp=None):
    return json.dumps({"uuid": user, "steps": steps, "timestamp": timestamp or f"{today(-1)} 12:00:00"}).encode()


def counts(running):
    """Events counted, and rejected by reason, over all shards."""
    rejected, counted = {}, 0
    for shard in running.json("status")["shards"]:
        counted += shard["counted"]
        for reason, number in shard["rejected"].items():
            if number:
                rejected[reason] = rejected.get(reason, 0) + number
    return counted, rejected
