#!/usr/bin/env python3
"""Orders to a node and what rmsctl makes of them: snapshot, seal, shard accept-gap, shard adopt, deadletter cat.

The node is played here, so that every state that a shard can be in, and every refusal, comes when it is wanted; what a
real node does with orders is shown by the tests of the node and of the log.
"""

import base64
import contextlib
import json
import os
import pty
import re
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

import harness
import client  # found through harness
from harness import ctl, environment, expect, program

demo = harness.Demo()
tests = []


def test(name):
    def add(function):
        tests.append((name, function))
        return function

    return add


def shard(partition, watermark, state="serving", reason="", durable=-1, snapshot=-1, sealed=-1, done=0, total=0):
    return [partition, state, reason, watermark, watermark, 0, watermark, [0] * 10, 0, -1, 1, durable, snapshot, sealed,
            done, total]


class Played:
    """A node in this process: `shards(orders)` gives STATUS, `answer(verb, partition)` a sentence or (number, text)."""

    def __init__(self, shards, answer=lambda verb, partition: "it begins", letters=()):
        self.shards, self.answer, self.letters = shards, answer, list(letters)
        self.orders, self.asked = [], 0

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(20)
                self.talk(connection)

    def talk(self, connection):
        received = bytearray()
        while True:
            while len(received) < 4 or len(received) < struct.unpack_from("<I", received)[0] + 4:
                data = connection.recv(65536)
                if not data:
                    return
                received += data
            whole = struct.unpack_from("<I", received)[0] + 4
            request = client.decode_request(bytes(received[:whole]))
            del received[:whole]
            connection.sendall(client.encode_answer(self.reply(request) | {"id": request["id"]}))

    def reply(self, request):
        if request["kind"] == "hello":
            return {"kind": "hello", "version": 1, "server_min": 1, "server_max": 1, "node": "n", "cluster": "c",
                    "software": "1", "frame_in": 65536, "frame_out": 1 << 20, "in_flight": 256, "rows_max": 10000,
                    "ids_max": 256, "roles": 3, "unknown_options": []}
        if request["kind"] == "status":
            self.asked += 1
            return {"kind": "status", "node": "n", "cluster": "c", "software": "1", "state": "serving", "uptime_ms": 1,
                    "shards": self.shards(self), "counters": [], "problem": ""}
        if request["kind"] == "deadletters":
            # Positions count by ten; a page shows 3 bytes of each, a single one 5.
            first = -(-request["position"] // 10)
            page = self.letters[first:first + min(request["limit"], 2)]
            shown = 5 if request["limit"] == 1 else 3
            rows = []
            for index, (partition, offset, reason, value) in enumerate(page):
                part = (value or b"")[request["skip"]:][:shown]
                rows.append([(first + index) * 10, "steps", partition, offset, 7, reason,
                             None if value is None else len(value), part.hex()])
            return {"kind": "deadletters", "next": (first + len(page)) * 10, "letters": rows}
        expect(request["kind"] == "admin", request)
        self.orders.append((request["verb"], request["partition"]))
        said = self.answer(request["verb"], request["partition"])
        if isinstance(said, str):
            return {"kind": "admin", "text": said}
        return {"kind": "error", "code": said[0], "retryable": 0, "text": said[1]}


def prompted(address, words, typed, timeout=20):
    """Runs rmsctl on a terminal and types once it has asked; exit code and what it showed."""
    master, slave = pty.openpty()
    process = subprocess.Popen([program("rmsctl"), "--address", address, *words], stdin=slave, stdout=slave, stderr=slave,
                               env=environment(TERM="xterm"), start_new_session=True)
    os.close(slave)
    shown, end = b"", time.monotonic() + timeout
    try:
        while time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:
                    break
                if not data:
                    break
                shown += data
                if typed and b"Type yes:" in shown:
                    os.write(master, typed)
                    typed = None
        return process.wait(5), shown.decode(errors="replace")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


@test("snapshot and seal end once the watermark of the time of asking is reached, and say so")
def carried_out():
    for verb, at in (("snapshot", 12), ("seal", 13)):
        def shards(node, at=at):
            # Further records arrive all the while; the effect is there three questions after the order.
            rows = [shard(0, 100 + node.asked, durable=100), shard(1, 50, durable=50), shard(2, 0)]
            if node.orders and node.asked >= 4:
                rows[0][at], rows[1][at] = 101, 50
            return rows

        with Played(shards) as node:
            done = ctl(node.address, verb, "-o", "json").wants(0, "it begins")
            expect(node.orders == [(verb, None)] and node.asked >= 4, node.orders, node.asked)
            key = "sealed" if verb == "seal" else "snapshot"
            expect(json.loads(done.out) == {
                "order": verb, "answer": "it begins",
                "shards": [{"partition": 0, "watermark": 101, key: 101}, {"partition": 1, "watermark": 50, key: 50},
                           {"partition": 2, "watermark": 0, key: None}]}, done)
        with Played(shards) as node:
            ctl(node.address, verb, "--partition", "1").wants(0)
            expect(node.orders == [(verb, 1)], node.orders)


@test("an order that is refused, not allowed or never done: exit 1, 4 and 3, each with its sentence")
def not_carried_out():
    rows = [shard(3, 70, "stopped", "the disk is full", durable=60, snapshot=20)]
    with Played(lambda node: rows) as node:
        ctl(node.address, "snapshot", "--timeout", "500ms").wants(3, "partition 3 is at 20 of 70", "the disk is full", out="")
    for number, code, word in ((23, 1, "not_possible"), (16, 4, "not yours"), (18, 1, "unknown_partition")):
        with Played(lambda node: rows, lambda verb, partition, n=number: (n, "not yours" if n == 16 else "no")) as node:
            ctl(node.address, "seal").wants(code, word, out="")
    with Played(lambda node: [shard(0, 9, snapshot=1)] if not node.orders else []) as node:
        ctl(node.address, "snapshot", "--timeout", "500ms").wants(3, "no longer on this node", out="")
    dead = "127.0.0.1:1"
    for words, said in ((("snapshot", "now"), "'now'"), (("seal", "--partition", "-1"), "partition -1"),
                        (("shard",), "accept-gap or adopt"), (("shard", "repair", "1"), "shard repair"),
                        (("shard", "accept-gap"), "PARTITION is missing"), (("shard", "adopt", "1", "2"), "one PARTITION"),
                        (("deadletter", "rm"), "ls or cat"), (("deadletter", "cat", "--offset", "x"), "--offset x")):
        ctl(dead, *words).wants(2, said, out="")


@test("accept-gap and adopt say what is lost or set aside, and do nothing without a yes")
def confirmed():
    gap = shard(3, 10, "stopped", "gap: offsets 10..99")

    def shards(node):
        return [shard(1, 5), shard(3, 100, "catching-up") if node.orders else gap]

    for words, order in ((("shard", "accept-gap", "3"), ("accept-gap", 3)), (("shard", "adopt", "3"), ("adopt", 3)),
                         (("shard", "adopt"), ("adopt", None))):
        with Played(shards) as node:
            ctl(node.address, *words).wants(2, "gap: offsets 10..99", "--yes", out="")
            ctl(node.address, *words, "--dry-run").wants(0, "gap: offsets 10..99", out="")
            code, shown = prompted(node.address, words, b"no\r")
            expect(code == 1 and "nothing was done" in shown and "gap: offsets 10..99" in shown, code, shown)
            expect(node.orders == [], node.orders)
            code, shown = prompted(node.address, words, b"yes\r")
            expect(code == 0 and "catching-up" in shown, code, shown)
            expect(node.orders == [order], node.orders)
        with Played(shards) as node:
            done = ctl(node.address, *words, "--yes", "-o", "json").wants(0, "never" if "gap" in words[1] else "set aside")
            rows = json.loads(done.out)["shards"]
            expect(rows[-1]["partition"] == 3 and rows[-1]["state"] == "catching-up", rows)
            expect(node.orders == [order], node.orders)
    with Played(lambda node: [gap]) as node:
        ctl(node.address, "shard", "accept-gap", "3", "--yes", "--timeout", "500ms").wants(
            3, "still stands", "gap: offsets 10..99", out="")


@test("status tells what is durable, in a snapshot and sealed, and how far a restore is")
def status():
    rows = [shard(0, 100, durable=90, snapshot=40, sealed=30), shard(1, 7, "restoring", done=500, total=1000), shard(2, 1)]
    with Played(lambda node: rows) as node:
        found = json.loads(ctl(node.address, "status", "-o", "json").wants(0).out)["shards"]
        names = ("durable", "snapshot", "sealed", "restored_bytes", "restore_bytes")
        expect([[row[name] for name in names] for row in found] ==
               [[90, 40, 30, 0, 0], [None, None, None, 500, 1000], [None, None, None, 0, 0]], found)
        table = ctl(node.address, "status", "-o", "table").wants(0).out
        expect("UNSYNCED" in table and "restoring 50 %" in table, table)


@test("deadletter cat writes every byte of what it is asked for, from a node that shows records in parts")
def dead_letters():
    values = [(0, 4, "malformed", b"{"), (1, 2, "late", bytes(range(256))), (1, 7, "type", None), (0, 9, "late", b"line\n"),
              (0, 11, "malformed", "é{".encode())]
    with Played(lambda node: [], letters=values) as node:
        def cat(*words):
            return ctl(node.address, "deadletter", "cat", *words).wants(0).raw

        everything = b"".join((value or b"") + b"\n" for *_, value in values)
        expect(cat() == everything, cat())
        expect(cat("--raw") == b"".join(value or b"" for *_, value in values))
        expect(cat("--partition", "1", "--offset", "2", "--raw") == bytes(range(256)))
        expect(cat("--reason", "late", "--limit", "1") == bytes(range(256)) + b"\n")
        expect(cat("--partition", "5") == b"")
        records = json.loads(cat("-o", "json"))["records"]
        expect([row["base64"] and base64.b64decode(row["base64"]) for row in records] == [v for *_, v in values], records)
        expect([row["bytes"] for row in records] == [v and len(v) for *_, v in values], records)
        expect(json.loads(cat("--partition", "5", "-o", "json")) == {"records": []})
        listed = json.loads(ctl(node.address, "deadletter", "ls", "--partition", "0", "-o", "json").wants(0).out)["records"]
        expect([row["offset"] for row in listed] == [4, 9, 11], listed)
        done = ctl(node.address, "deadletter", "cat", "--partition", "1").wants(0, "offset 7: a null value")


def data_folder(running):
    """The demo's data folder, which must hold a log."""
    return re.search(r"data folder (\S+)", running.said())[1]


def files(folder, *words, code=0, said=()):
    """rmsctl on the files of a folder; no node is asked."""
    return harness.run([program("rmsctl"), "--address", "127.0.0.1:1", *words, "--data-dir", folder]).wants(code, *said)


@test("log ls, cat and verify read the files of a running node, and agree with what it counts")
def log_files():
    running = demo()
    folder = data_folder(running)
    before = running.json("status")["shards"]
    running.ctl("snapshot", "--timeout", "30s").wants(0)
    running.ctl("seal", "--timeout", "30s").wants(0)
    running.ctl("seal", "--partition", "1", "--timeout", "30s").wants(0)
    listed = json.loads(files(folder, "log", "ls", "-o", "json").out)
    states = {row["state"] for row in listed["files"]}
    expect("sealed" in states and states <= {"sealed", "active", "closed", "torn"}, listed)
    expect({row["partition"] for row in listed["snapshots"]} == {row["partition"] for row in before}, listed)
    expect(not any(row["problem"] for row in listed["snapshots"]), listed)
    after = running.json("status")["shards"]
    for old, new in zip(before, after):
        mine = [row for row in listed["files"] if row["partition"] == old["partition"]]
        total = sum(row["events"] for row in mine)
        expect(old["counted"] <= total <= new["counted"], old, total, new)
        expect(mine[0]["from"] == 0 and old["watermark"] <= mine[-1]["next"] <= new["watermark"], mine, new)
        expect(all(a["next"] == b["from"] for a, b in zip(mine, mine[1:])), mine)
    files(folder, "log", "verify")
    partition, offset = after[0]["partition"], after[0]["watermark"] // 2
    words = ("log", "cat", "--partition", str(partition), "--offset", str(offset), "--count", "50")
    records = json.loads(files(folder, *words, "-o", "json").out)["records"]
    expect([row["offset"] for row in records] == list(range(offset, offset + 50)), records[:3])
    lines = files(folder, *words, "-o", "csv").out.splitlines()
    expect(len(lines) == 51 and lines[0] == "partition,offset,user,steps,time,day,source,reason,record", lines[:2])
    expect(lines[1].startswith(f"{partition},{offset},"), lines[1])
    rejected = running.json("deadletter", "ls", "--partition", str(partition), "--limit", "1")["records"][0]
    found = json.loads(files(folder, "log", "cat", "--partition", str(partition), "--offset", str(rejected["offset"]),
                             "--count", "1", "-o", "json").out)["records"][0]
    expect(all(found[key] == rejected[key] for key in ("offset", "reason", "timestamp_ms", "base64")), found, rejected)


@test("a changed byte in a copy of the log: verify ends with 1 and names file and byte, cat stops there")
def changed_byte():
    running = demo()
    source = os.path.join(data_folder(running), "steps-0")
    running.ctl("seal", "--partition", "0", "--timeout", "30s").wants(0)
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(source, os.path.join(copy, "steps-0"), copy_function=shutil.copy,
                        ignore=shutil.ignore_patterns("*.tmp"))
        files(copy, "log", "verify")
        name = next(name for name in sorted(os.listdir(os.path.join(copy, "steps-0"))) if name.endswith(".seg.lz4"))
        path = os.path.join(copy, "steps-0", name)
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 0x55]))
        files(copy, "log", "verify", code=1, said=(name, "byte"))
        files(copy, "log", "cat", "-o", "csv", code=1, said=(name, "byte"))
        listed = json.loads(files(copy, "log", "ls", "-o", "json").out)["files"]
        expect([row["state"] for row in listed if row["file"] == name] == ["damaged"], listed)
        os.remove(path)
        files(copy, "log", "verify", code=0 if name == listed[0]["file"] else 1)
    with tempfile.TemporaryDirectory() as empty:
        files(empty, "log", "ls", code=1, said=("holds no log",))
        files(empty, "explain", "anna", code=1, said=("folder.rms",))
    harness.run([program("rmsctl"), "log", "ls"]).wants(2, "--data-dir", out="")


@test("explain adds up to what rank says, event by event, and shows what of a user was not counted")
def explained():
    running = demo()
    folder = data_folder(running)
    rows = running.json("top", "--limit", "3")["rows"]
    letters = running.json("deadletter", "ls", "--limit", "200")["records"]
    users = [row["user"] for row in rows]
    for letter in letters:
        match = re.search(rb'"uuid": "([0-9a-f-]{36})"', base64.b64decode(letter["base64"] or ""))
        if match:
            users.append(match[1].decode())
    for user in users[:8]:
        ranked = running.json("rank", user)
        marks = {row["partition"]: row["watermark"] for row in ranked["shards"]}

        def durable(marks=marks):
            return all((row["durable"] or 0) >= marks[row["partition"]] for row in running.json("status")["shards"])

        running.until("a log as far as the answer", durable)
        found = json.loads(files(folder, "explain", user, "--board", ranked["board"], "-o", "json").out)
        expect(all(row["complete"] and row["next"] >= marks[row["partition"]] for row in found["log"]), found["log"])
        events = [row for row in found["events"] if row["offset"] < marks[row["partition"]]]
        expect(sum(row["steps"] for row in events) == ranked["steps"], ranked, events)
        expect(not events or events[-1]["total"] == ranked["steps"], ranked, events)
        expect(found["steps"] == sum(row["steps"] for row in found["events"]), found)
        expect(all(row["day"] == ranked["board"] and row["source"] for row in events), events)
        wanted = {(row["partition"], row["offset"], row["reason"]) for row in letters
                  if user.encode() in base64.b64decode(row["base64"] or "")}
        rejected = {(row["partition"], row["offset"], row["reason"]) for row in found["rejected"]}
        expect(wanted <= rejected, wanted, rejected)
    expect(found["rejected"], found)
    table = files(folder, "explain", user, "-o", "table").out
    expect("not counted: " + found["rejected"][0]["reason"] in table, table)
    nobody = json.loads(files(folder, "explain", "nobody here", "-o", "json").out)
    expect(nobody["steps"] == 0 and nobody["events"] == nobody["rejected"] == [], nobody)


@test("deadletter reads a data folder without its node, byte for byte as the node tells it")
def dead_letters_of_a_folder():
    running = demo()
    folder = re.search(r"data folder (\S+)", running.said())[1]
    words = ("deadletter", "cat", "--limit", "20", "-o", "json")
    running.until("20 dead letters", lambda: len(running.json("deadletter", "ls", "--limit", "20")["records"]) == 20)
    asked = running.ctl(*words).wants(0).out
    read = harness.run([program("rmsctl"), *words, "--data-dir", folder]).wants(0)
    expect(asked == read.out and len(json.loads(asked)["records"]) == 20, asked[:300], read)
    harness.run([program("rmsctl"), "deadletter", "ls", "--data-dir", folder + "/absent"]).wants(1, "dead-letters.rms", out="")


if __name__ == "__main__":
    harness.main(__doc__.splitlines()[0], tests, cleanup=[demo.close])
