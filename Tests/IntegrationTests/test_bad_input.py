#!/usr/bin/env python3
"""What bad input gets: a sentence that names the thing and the remedy, the documented exit code, nothing lost.

Settings go through `rmsd --check-config` and `--config`, command lines through rmsctl, raw bytes to a live node's query
port. No server is needed: the data come from `rmsd --demo`, whose embedded broker takes more records.
"""

import contextlib
import datetime
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unicodedata

import harness
import client  # found through harness
from harness import Failed, Skipped, Wire, ask, ctl, environment, expect, hello, node, on_terminal, program, run

SEED = int(os.environ.get("RMS_TEST_SEED", "1"))
KAFKA = b"kafka.bootstrap.servers = 127.0.0.1:1\nkafka.topic = steps\n"
demo = harness.Demo()
tests = []


def test(name):
    def add(function):
        tests.append((name, function))
        return function

    return add


# ---- Settings ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def config(content):
    """The path of a settings file with these bytes."""
    folder = tempfile.mkdtemp(prefix="rms-test-")
    path = os.path.join(folder, "rmsd.conf")
    try:
        with open(path, "wb") as file:
            file.write(content)
        yield path
    finally:
        shutil.rmtree(folder)


def check(content, *words, env=None):
    with config(content) as path:
        return run([program("rmsd"), "--check-config", "--config", path, *words], env=env), path


@test("an unknown key is refused with its line and the nearest key")
def unknown_key():
    done, path = check(KAFKA + b"\nday.zoen = UTC\n")
    done.wants(78, f"{path}:4: day.zoen:", "did you mean day.zone?", out="")
    # The node itself refuses too, and before it makes anything.
    with config(KAFKA + b"data.dirr = /nonexistent\n") as path:
        run([program("rmsd"), "--config", path]).wants(78, f"{path}:3: data.dirr:", "data.dir?", out="")


@test("a duration without a known unit is refused with the units")
def duration_units():
    for value in ("50", "5 parsecs", "1.5h", "", "99999999999999999999d"):
        done, path = check(KAFKA + f"day.future_slack = {value}\n".encode())
        done.wants(78, f"{path}:3: day.future_slack: '{value}' is not a duration", "ms, s, m, h, d", "such as 10m", out="")


@test("a duration out of bounds is refused with the bounds")
def duration_bounds():
    for value in ("-1s", "3651d", "-1d"):
        done, path = check(KAFKA + f"day.accept_late = {value}\n".encode())
        done.wants(78, f"{path}:3: day.accept_late:", value, "0s", "3650d", out="")
    for key, value, low, high in (("event.steps_max", "0", "1", "4294967295"), ("query.threads", "-1", "1", "64")):
        done, path = check(KAFKA + f"{key} = {value}\n".encode())
        done.wants(78, f"{path}:3: {key}: {value} is outside {low} to {high}", out="")
    check(KAFKA + b"day.accept_late = 0s\n")[0].wants(0)


@test("a key set twice is refused with both lines")
def key_twice():
    done, path = check(b"day.zone = UTC\n" + KAFKA + b"# once more\nday.zone = Europe/Berlin\n")
    done.wants(78, f"{path}:5: day.zone: set twice; it is also on line 1", out="")


@test("a settings file that is absent, a folder, empty or huge")
def config_file():
    absent = "/nonexistent/rmsd.conf"
    run([program("rmsd"), "--check-config", "--config", absent]).wants(78, absent, "no such file", out="")
    folder = tempfile.mkdtemp(prefix="rms-test-")
    try:
        run([program("rmsd"), "--check-config", "--config", folder]).wants(78, folder, "folder", out="")
        huge = os.path.join(folder, "huge.conf")
        with open(huge, "wb") as file:
            file.truncate(100_000_000)
        run([program("rmsd"), "--check-config", "--config", huge]).wants(78, huge, "larger than 1 MiB", out="")
    finally:
        shutil.rmtree(folder)
    done, _ = check(b"")
    done.wants(78, "kafka.bootstrap.servers: needed", "kafka.topic: needed", out="")
    with config(b"") as path:
        done = run([program("rmsd"), "--print-config", "--config", path]).wants(0)
        expect(all(line.endswith("# default") for line in done.out.splitlines()), "not all defaults:", done)
        expect("day.accept_late = 8d" in done.out and "query.listen = 127.0.0.1:7670" in done.out, done)


@test("CRLF and a byte order mark are accepted, NUL and bad UTF-8 refused with the offset")
def config_bytes():
    check(KAFKA.replace(b"\n", b"\r\n") + b"day.zone = Europe/Berlin\r\n")[0].wants(0)
    check(b"\xef\xbb\xbf" + KAFKA)[0].wants(0)
    for start in (b"", b"\xef\xbb\xbf"):
        content = start + KAFKA + b"cluster.name = a"
        done, path = check(content + b"\x00b\n")
        done.wants(78, path, "NUL", f"offset {len(content)};", out="")
        done, path = check(content + b"\xc3(\n")
        done.wants(78, path, f"not UTF-8 from offset {len(content)}", out="")
        done, path = check(content + "é".encode() + b"\xed\xa0\x80\n")
        done.wants(78, f"not UTF-8 from offset {len(content) + 2}", out="")


@test("a misspelt environment variable is refused by name")
def misspelt_variable():
    done, _ = check(KAFKA, env=environment(RMS_DAY_ZON="UTC"))
    done.wants(78, "RMS_DAY_ZON", "did you mean RMS_DAY_ZONE?", out="")
    done, _ = check(KAFKA, env=environment(RMS_DAY_ACCEPT_LATE="5"))
    done.wants(78, "RMS_DAY_ACCEPT_LATE", "'5' is not a duration", out="")
    check(KAFKA, env=environment(RMS_DAY_ZONE="Europe/Berlin"))[0].wants(0)


@test("an unknown time zone is refused with the place where it was looked for")
def unknown_zone():
    for zone in ("Europe/Berln", "../../etc/passwd", "/etc/localtime"):
        done, path = check(KAFKA + f"day.zone = {zone}\n".encode())
        done.wants(78, f"{path}:3: day.zone:", zone, "/usr/share/zoneinfo", "Europe/Berlin", out="")
    # The same from the command line names that place.
    done, _ = check(KAFKA, "--set", "day.zone=Mars/Olympus")
    done.wants(78, "--set: day.zone:", "Mars/Olympus", out="")


@test("a port that is taken ends the node with 69 and the address")
def port_taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with config(KAFKA) as path:
            folder = os.path.dirname(path)
            done = run([program("rmsd"), "--config", path, "--set", f"data.dir={folder}/data",
                        "--set", f"query.listen={address}", "--set", "http.listen=127.0.0.1:0"])
            done.wants(69, "query.listen", address, "another process has it", "choose another address")


@test("256 file descriptors: fewer clients, said so; one too many is refused with a reason, and others live on")
def few_descriptors():
    with node(limits="ulimit -n 256", query_connections_max="10000", query_connections_per_address_max="10000") as running:
        running.until_said("fewer connections than configured")
        line = next(line for line in running.said().splitlines() if "fewer connections than configured" in line)
        expect("10000" in line and "224" in line and "256" in line and "LimitNOFILE=" in line, line)
        wires = []
        try:
            for number in range(224):
                wires.append(Wire(running.port, hello()))
            for wire in wires:
                wire.wants("hello", 1)
            for _ in range(30):
                with Wire(running.port, hello()) as late:
                    late.wants_error("too_many_connections", 0)
                    late.wants_end()
            for wire in wires:
                wire.send(ask("ping", 2))
                wire.wants("ping", 2)
            wires.pop().socket.close()
            running.until("a place for the next client", lambda: admitted(running))
        finally:
            for wire in wires:
                wire.socket.close()
        running.alive()


def admitted(running):
    with Wire(running.port, hello()) as wire:
        return wire.frame()["kind"] == "hello"


# ---- Command lines -----------------------------------------------------------------------------------------------------


@test("an unknown command or flag: 2 and a suggestion on standard error")
def unknown_word():
    dead = "127.0.0.1:1"
    ctl(dead, "tpo").wants(2, "unknown command 'tpo'", "did you mean top?", out="")
    ctl(dead, "top", "--limt", "3").wants(2, "unknown flag --limt", "did you mean --limit?", out="")
    ctl(dead, "rank").wants(2, "USER is missing", out="")
    ctl(dead, "top", "--limit").wants(2, "--limit needs a value", out="")
    ctl(dead, "top", "--all=yes").wants(2, "--all takes no value", out="")
    ctl(dead, "status", "now").wants(2, "'now' is not expected here", out="")
    ctl(dead, "top", "-o", "yaml").wants(2, "table, json, csv, tsv", out="")
    run([program("rmsctl"), "--adress", "x:1", "top"]).wants(2, "unknown flag --adress", "did you mean --address?", out="")
    ctl("nonsense", "top").wants(2, "nonsense", "HOST:PORT", out="")
    run([program("rmsd"), "--conifg", "x"]).wants(64, "'--conifg'", "did you mean --config?", out="")
    run([program("rmsd"), "--demo", "--seconds", "0"]).wants(64, "--seconds", "1 to 86400", out="")


@test("a reader that has seen enough ends rmsctl quietly")
def closed_pipe():
    for form in ("tsv", "csv", "json", "table"):
        words = [program("rmsctl"), "--address", demo().address, "top", "--all", "-o", form]
        process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL)
        first = process.stdout.read(8)
        process.stdout.close()
        error = process.stderr.read()
        code = process.wait(30)
        expect(len(first) == 8 and error == b"" and code == 0, f"-o {form}: exit {code}, stderr {error!r}")


@test("output to a full device: not 0, and it says so")
def full_device():
    with open("/dev/full", "wb") as full:
        for words in (["top"], ["status", "-o", "json"], ["--help"]):
            ctl(demo().address, *words, stdout=full).wants(1, "cannot write the output", "No space left")


@test("terminals of any width, none at all, or without TERM")
def terminals():
    address = demo().address
    plain = environment()
    plain.pop("TERM", None)
    for columns in (20, 0, 1, 300):
        for term in ("xterm", "dumb", None):
            env = dict(plain, TERM=term) if term else plain
            code, shown = on_terminal([program("rmsctl"), "--address", address, "top", "--limit", "3"], columns, env)
            lines = shown.decode().replace("\r\n", "\n").splitlines()
            expect(code == 0 and len(lines) == 4, f"width {columns}, TERM {term}: exit {code}: {shown!r}")
            expect("RANK" in lines[0] and "STEPS" in lines[0] or columns == 1, f"width {columns}: {lines}")
            expect(b"\x1b" not in shown, f"escape bytes in a plain table: {shown!r}")
            code, shown = on_terminal([program("rmsctl"), "--address", address, "live", "--once"], columns, env)
            expect(code == 0 and shown, f"live, width {columns}, TERM {term}: exit {code}: {shown!r}")
            if term != "xterm":
                expect(b"\x1b" not in shown, f"escape bytes for TERM {term}: {shown!r}")
    code, shown = on_terminal(
        [program("rmsctl"), "--address", address, "live", "--every", "100ms"], 20, dict(plain, TERM="xterm"), quit_after=1.5)
    expect(code == 130 and shown.count(b"\x1b[") > 2, f"live ended with {code}: {shown[-200:]!r}")
    expect(b"\x1b[?25h" in shown[-40:] or b"\x1b[?1049l" in shown[-40:], f"the terminal is not restored: {shown[-80:]!r}")
    ctl(address, "live").wants(2, "terminal", "--once", out="")


ODD_USERS = {"x\u202eelbatal": 7, "שלום": 6, "👩‍👩‍👧‍👦 family": 5, "王小明": 4, "comma,\"quote\"": 3, "zero\u200bwidth": 2, "plain": 1}


def yesterdays_board():
    """A board that holds the odd users and nobody else, and the rejected records beside it."""
    running = demo()
    day = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=3)).date().isoformat()
    if not hasattr(demo, "odd_day"):
        records = [{"uuid": user, "steps": steps, "timestamp": f"{day} 12:00:00"} for user, steps in ODD_USERS.items()]
        records += [{"uuid": "\x1b]0;owned\x07", "steps": 1, "timestamp": f"{day} 12:00:00"},
                    {"uuid": "two\nlines", "steps": 1, "timestamp": f"{day} 12:00:00"}]
        with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as file:
            # Not escaped as JSON would: the bytes themselves, ESC included, for those it takes.
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            file.write('raw \x1b[31mred\x1b[0m\tand \u202eturned\n')
            file.flush()
            ports = running.broker_ports()
            expect(ports, "the demo has no broker")
            done = None
            for port in ports:
                done = run([program("rmsctl"), "produce", file.name, "--bootstrap", f"127.0.0.1:{port}", "--topic", "steps",
                            "-o", "json"])
                if done.code == 0:
                    break
            expect(done.code == 0 and json.loads(done.out)["produced"] == len(records) + 1, "produce:", done)
        running.until("the odd users", lambda: len(running.json("top", "--board", day)["rows"]) == len(ODD_USERS))
        demo.odd_day = day
    return running, demo.odd_day


def columns_of(text):
    """Terminal columns of a text, by the Unicode database rather than by the program's own table."""
    width, joined = 0, False
    for character in text:
        if character == "\u200d":
            joined = True
        elif unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me") or joined:
            joined = False
        else:
            width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return width


@test("ids from hell: escaped and in straight columns in tables, exact in JSON and CSV")
def odd_ids():
    running, day = yesterdays_board()
    rows = running.json("top", "--board", day)["rows"]
    expect({row["user"]: row["steps"] for row in rows} == ODD_USERS, rows)
    expect(running.json("rank", "שלום", "--board", day)["rank"] == 2, "rank of a right-to-left id")
    csv = running.ctl("top", "--board", day, "-o", "csv").wants(0).out
    expect('"comma,""quote"""' in csv and "x\u202eelbatal" in csv, csv)
    table = running.ctl("top", "--board", day, "-o", "table").wants(0).out
    expect("\u202e" not in table and "\u200b" not in table and "\\u{202e}" in table and "\\u{200b}" in table, table)
    lines = table.splitlines()
    at = [columns_of(lines[0][: lines[0].index("STEPS")]) + len("STEPS")]
    for line, (user, steps) in zip(lines[1:], sorted(ODD_USERS.items(), key=lambda pair: -pair[1])):
        # The steps column is flush right under its name, whatever precedes it.
        match = re.match(rf"^(.*\s){steps}\s", line + " ")
        places = [columns_of(line[:found.start()]) + 1 for found in re.finditer(rf"(?<=\s){steps}(?=\s)", line)]
        expect(match and at[0] in places, f"{user!r}: steps do not end in column {at[0]} but {places}:\n{table}")
    for form in ("table", "tsv", "csv"):
        letters = running.ctl("deadletter", "ls", "--reason", "user", "-o", form).wants(0)
        if form == "table":
            expect("\x1b" not in letters.out, "ESC in a table of dead letters")
    malformed = running.ctl("deadletter", "ls", "--reason", "malformed", "-o", "table").wants(0).out
    expect("\x1b" not in malformed and "\u202e" not in malformed and "\\u{1b}[31mred" in malformed, malformed[-400:])


@test("limits out of bounds: 2 with the bounds")
def limits():
    dead = "127.0.0.1:1"
    for value in ("-1", "0", "1e12", "1000000000000", "ten", "99999999999999999999"):
        ctl(dead, "top", "--limit", value).wants(2, f"--limit {value}", "1 to 10000", out="")
    for value in ("-1", "5000"):
        ctl(dead, "around", "anna", "-k", value).wants(2, value, "0 to 4999", out="")
    ctl(dead, "top", "--offset", "-1").wants(2, "--offset -1", out="")
    ctl(dead, "top", "--timeout", "0s").wants(2, "--timeout 0s", "10s", out="")
    ctl(dead, "compare", *[f"u{n}" for n in range(257)]).wants(2, "256", out="")


@test("no such date: 2 with an example")
def dates():
    for board in ("2026-02-30", "2026-W60", "2025-W53", "2026-13", "2026-00-01", "yesterday", "1969-12-31", ""):
        ctl("127.0.0.1:1", "top", "--board", board).wants(2, f"--board {board}", "2026-11-24, 2026-W48, 2026-11 or all", out="")
    ctl("127.0.0.1:1", "top", "--day", "2026-02-30").wants(2, "unknown flag --day", "--help", out="")


# ---- Other protocols and other versions --------------------------------------------------------------------------------


@contextlib.contextmanager
def server(talk):
    """A server that lets `talk(socket)` answer each connection; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(20)
                talk(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@test("rmsctl at a Kafka, HTTP, TLS, silent or dead port: 3, each with its own sentence")
def foreign_ports():
    said = {}

    def web(connection):
        connection.recv(16)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with server(web) as address:
        said["http"] = ctl(address, "top").wants(3, "not an rms port", "HTTP", "query.listen", out="")

    def handshake(connection):
        # What a TLS server answers to bytes that are no handshake: a fatal alert, unexpected_message.
        connection.recv(16)
        connection.sendall(b"\x15\x03\x03\x00\x02\x02\x0a")

    with server(handshake) as address:
        said["tls"] = ctl(address, "top").wants(3, "not an rms port", "TLS", out="")
    with server(lambda connection: connection.recv(9) and time.sleep(3)) as address:
        said["silent"] = ctl(address, "--timeout", "500ms", "top").wants(3, "not an rms port", out="")
    for port in demo().broker_ports():
        said["kafka"] = ctl(f"127.0.0.1:{port}", "--timeout", "2s", "top").wants(3, "not an rms port", out="")
    said["dead"] = ctl("127.0.0.1:1", "top").wants(3, "refused", out="")
    sentences = {done.err.split(": ", 2)[2] for done in said.values()}
    expect(len(sentences) == len(said), sentences)


def peer(answers, later=b""):
    """Plays a node: HELLO is answered with bytes that a later version appends, then `answers(request)` gives frames."""

    def grown(data):
        return struct.pack("<I", len(data) - 4 + len(later)) + data[4:] + later

    def talk(connection):
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
            if request["kind"] == "hello":
                connection.sendall(grown(client.encode_answer({
                    "kind": "hello", "id": request["id"], "version": 1, "server_min": 1, "server_max": 9, "node": "n",
                    "cluster": "c", "software": "9.0", "frame_in": 65536, "frame_out": 1 << 20, "in_flight": 256,
                    "rows_max": 10000, "ids_max": 256, "roles": 255, "unknown_options": []})))
            else:
                connection.sendall(answers(request, grown))

    return talk


@test("an old client at a newer node: appended fields are skipped, unknown errors and missing commands are named")
def newer_node():
    row = [0, 1, 1, 77, "anna"]
    marks = {"board": "2026-11-24", "state": "live", "shards": [[0, 5, 0, 255]], "missing": []}
    top = marks | {"kind": "top", "users": 1, "total_steps": 77, "rows": [row], "absent": []}
    shard = [0, "serving", "", 5, 5, 0, 5, [0] * 12, 0, -1, 1, 5, -1, -1, 0, 0]
    status = {"kind": "status", "node": "n", "cluster": "c", "software": "9", "state": "serving", "uptime_ms": 1,
              "shards": [shard], "counters": [["unheard_of", 3]], "problem": "none to speak of"}

    def answers(request, grown):
        kinds = {"top": top, "status": status}
        return grown(client.encode_answer(kinds[request["kind"]] | {"id": request["id"]}))

    with server(peer(answers, later=b"\x07later fields")) as address:
        done = ctl(address, "top", "-o", "json").wants(0)
        expect(json.loads(done.out)["rows"][0]["user"] == "anna", done)
        done = ctl(address, "status", "-o", "json").wants(0)
        expect(json.loads(done.out)["counters"]["unheard_of"] == 3, done)
    cases = ((19, "unsupported: SUMMARY is not answered here", "SUMMARY"), (4711, "a reason of tomorrow", "tomorrow"))
    for code, text, word in cases:
        def refuse(request, grown, code=code, text=text):
            return grown(client.encode_answer({"kind": "error", "id": request["id"], "code": code, "retryable": 0,
                                               "text": text}))

        with server(peer(refuse, later=b"more")) as address:
            ctl(address, "summary").wants(1, word, out="")

    def unasked(request, grown):
        return struct.pack("<IBBHI", 12, 200, 0, 0, 0) + b"news" + answers(request, grown)

    with server(peer(unasked)) as address:
        ctl(address, "top").wants(0)
    with server(lambda connection: connection.sendall(client.encode_answer(
            {"kind": "error", "id": 1, "code": 3, "retryable": 0, "text": "this server speaks versions 7 to 9"}))) as address:
        ctl(address, "top").wants(1, "versions 7 to 9", out="")


@test("a newer client at this node: the version is agreed, unknown options are listed, a range beyond is refused")
def newer_client():
    running = demo()
    with Wire(running.port, hello(1, 1, 9, [("compress", "lz4"), ("shiny", "yes")])) as wire:
        answer = wire.wants("hello", 1)
        expect(answer["version"] == 1 and answer["unknown_options"] == ["compress", "shiny"], answer)
    with Wire(running.port, hello(1, 2, 9)) as wire:
        expect("1" in wire.wants_error("unsupported_version", 1), "the range is not named")
        wire.send(hello(2, 1, 2))
        wire.wants("hello", 2)
        for kind in (10, 11, 12):
            wire.send(client.frame(kind, 0, 100 + kind, b"whatever"))
            wire.wants_error("unsupported", 100 + kind)
        wire.send(ask("ping", 3))
        wire.wants("ping", 3)


# ---- Raw bytes ---------------------------------------------------------------------------------------------------------


def closed(running):
    return running.json("status")["counters"]["connections_closed"]


@test("an HTTP request on the query port: one error frame, then the end, and it is counted")
def http_request():
    running = demo()
    before, reasons = closed(running), running.closed_by_reason()
    for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /a HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                    b"SSH-2.0-OpenSSH_9\r\n", b"PING\r\n", bytes(64)):
        with Wire(running.port, request) as wire:
            answer = wire.frame()
            expect(answer and answer["kind"] == "error" and answer["id"] == 0, f"{request!r}: {answer}")
            expect(client.ERRORS[answer["code"]] in ("foreign", "frame_size"), answer)
            expect(request[0] != ord("G") or client.ERRORS[answer["code"]] == "foreign", answer)
            wire.wants_end()
    # Each `status` is a closed connection of its own.
    running.until("six closed connections more", lambda: closed(running) >= before + 7)
    now = running.closed_by_reason()
    grown = {reason: now[reason] - reasons.get(reason, 0) for reason in now}
    expect(grown.get("foreign", 0) + grown.get("frame_size", 0) == 6 and grown.get("foreign", 0) >= 2, "counted as", grown)


@test("lengths of 0, 2^31-1 and 2^32-1 are refused before anything is reserved; a cut or trickling HELLO has a deadline")
def lengths():
    running = demo()
    trickle = Wire(running.port)
    cut = Wire(running.port, hello()[:10])
    begin = time.monotonic()
    before = running.resident_kib()
    for length in (0, 7, 65_537, 2**31 - 1, 2**31, 2**32 - 1):
        with Wire(running.port, hello()) as wire:
            wire.wants("hello", 1)
            wire.send(struct.pack("<I", length))
            wire.wants_error("frame_size", 0)
            wire.wants_end()
        with Wire(running.port, struct.pack("<I", length) + hello()[4:]) as wire:
            answer = wire.frame()
            expect(answer["kind"] == "error" and client.ERRORS[answer["code"]] in ("foreign", "frame_size"), answer)
            wire.wants_end()
    expect(running.resident_kib() - before < 40_000, "memory grew by", running.resident_kib() - before, "KiB")
    data = hello()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for index in range(len(data)):
            trickle.send(data[index:index + 1])
            time.sleep(0.3)
            if time.monotonic() - begin > 6:
                break
    for wire in (trickle, cut):
        wire.wants_error("idle", 0)
        wire.wants_end()
        wire.socket.close()
    took = time.monotonic() - begin
    expect(4 < took < 12, f"closed after {took:.1f} s, wanted 5")
    # A frame cut in the middle by the client's end costs nobody anything.
    with Wire(running.port, hello(), ask("rank", 2, board="today", user="anna")[:-2]):
        pass
    running.json("top")


@test("unknown kinds and reserved bits are errors with the request's id, and the connection lives")
def unknown_kinds():
    with Wire(demo().port, hello()) as wire:
        wire.wants("hello", 1)
        for ident, kind in enumerate((0, 15, 16, 17, 99, 129, 191, 192, 254, 255), 10):
            wire.send(client.frame(kind, 0, ident, b"\x01\x02\x03"))
            wire.wants_error("unknown_kind", ident)
        for ident, (flags, reserved) in enumerate(((4, 0), (128, 0), (0, 1), (0, 0x8000), (255, 0xFFFF)), 50):
            wire.send(struct.pack("<IBBHI", 8, 2, flags, reserved, ident))
            wire.wants_error("reserved_bits", ident)
        wire.send(client.frame(2, 0, 70, b"left over"))
        wire.wants_error("malformed", 70)
        wire.send(client.frame(2, 0, 0, b""))
        wire.wants_error("malformed", 0)
        wire.send(ask("ping", 71))
        wire.wants("ping", 71)


@test("an id in use: the second request is refused, the first answered")
def duplicate_ids():
    running = demo()
    with Wire(running.port, hello()) as wire:
        wire.wants("hello", 1)
        # The first waits for an offset far away, until its deadline.
        wire.send(ask("rank", 7, board="today", user="anna", deadline_ms=1500, at_least=[[0, 2**40]]))
        time.sleep(0.2)
        wire.send(ask("rank", 7, board="today", user="ben"))
        wire.wants_error("duplicate_id", 7)
        wire.send(ask("ping", 8))
        wire.wants("ping", 8)
        wire.wants_error("at_least_timeout", 7)
        # Both in one packet.
        wire.send(ask("rank", 9, board="today", user="anna") + ask("rank", 9, board="today", user="ben"))
        kinds = sorted(wire.frame()["kind"] for _ in range(2))
        expect(kinds == ["error", "rank"], kinds)
        # Answered: the id is free again.
        wire.send(ask("rank", 9, board="today", user="anna"))
        wire.wants("rank", 9)


@test("10,000 requests of a client that does not read: reading stops, memory stays flat, others are answered")
def unread_answers():
    running = demo()
    page = ask("top", 1, board="today", limit=10_000, offset=0)
    # Long requests too, so that what the kernel holds for a socket cannot take all of them.
    long = ask("compare", 1, board="today", users=[f"{number:060}" for number in range(250)])
    with Wire(running.port, hello()) as wire:
        wire.wants("hello", 1)
        peak = before = running.resident_kib()
        wire.socket.setblocking(False)
        sent, pending, moved = 0, b"", time.monotonic()
        while sent < 10_000 and time.monotonic() - moved < 1.5:
            if not pending:
                request = long if sent % 2 else page
                pending = request[:8] + struct.pack("<I", sent + 2) + request[12:]
                sent += 1
            try:
                count = wire.socket.send(pending)
                pending, moved = pending[count:], time.monotonic()
            except BlockingIOError:
                peak = max(peak, running.resident_kib())
                time.sleep(0.02)
        expect(sent < 5_000, f"the node took {sent} requests of a client that reads no answer")
        for _ in range(10):
            peak = max(peak, running.resident_kib())
            asked = time.monotonic()
            running.json("top", "--limit", "3")
            expect(time.monotonic() - asked < 2, "another client waited", time.monotonic() - asked, "s")
            time.sleep(0.1)
        # One answer is a megabyte at most, and 10,000 are 6 GB; the demo's own growth is in the bound.
        expect(peak - before < 60_000, f"memory grew by {peak - before} KiB")
        # It was only waiting: who reads gets answers.
        wire.socket.setblocking(True)
        wire.wants("top", 2)
    return f"{sent} requests taken, memory grew by {peak - before} KiB"


@test("a deadline of 0 is too late already, and no work is done")
def deadlines():
    running = demo()
    with Wire(running.port, hello()) as wire:
        wire.wants("hello", 1)
        wire.send(ask("top", 2, board="today", limit=10_000, offset=0, deadline_ms=0))
        wire.wants_error("deadline_exceeded", 2)
        wire.send(ask("rank", 3, board="today", user="anna", deadline_ms=1, at_least=[[0, 2**40]]))
        answer = wire.frame()
        expect(client.ERRORS[answer["code"]] in ("at_least_timeout", "deadline_exceeded"), answer)
        wire.send(ask("top", 4, board="today", limit=1, offset=0, deadline_ms=5000))
        wire.wants("top", 4)
        # Work left undone: a thousand full pages refused cost less than fifty full pages answered.
        cost = {}
        for deadline, count in ((0, 1000), (60_000, 50)):
            begin = time.monotonic()
            for first in range(0, count, 50):
                wire.send(b"".join(ask("top", 10 + n, board="today", limit=10_000, offset=0, deadline_ms=deadline)
                                   for n in range(first, first + 50)))
                for _ in range(50):
                    answer = wire.frame()
                    expect(answer["kind"] == ("top" if deadline else "error"), answer["kind"])
            cost[deadline] = time.monotonic() - begin
        expect(cost[0] < cost[60_000], cost)


@test("random and mutated bytes: errors or the end, never a crash, memory flat, others answered")
def mutated_bytes():
    running = demo()
    rng = random.Random(SEED)
    whole = [hello(), ask("ping", 2), ask("rank", 3, board="today", user="anna", deadline_ms=900),
             ask("top", 4, board="all", limit=10, offset=2**64 - 1), ask("around", 5, board="2026-W48", user="b", k=4999),
             ask("compare", 6, board="2026-11", users=["a", "b", "ü"]), ask("summary", 7, board="today", quantiles=[1, 100]),
             ask("boards", 8), ask("status", 9), ask("deadletters", 10, position=2**63, limit=200, skip=0),
             ask("admin", 11, verb="seal", partition=None),
             ask("ping", 11, at_least=[[0, 2**64 - 1]] * 16, deadline_ms=50)]
    running.json("top")
    before, answered, ended = running.resident_kib(), 0, 0
    for round_number in range(600):
        data = bytearray()
        if rng.random() < 0.15:
            data += rng.randbytes(rng.randrange(1, 300))
        else:
            if rng.random() < 0.9:
                data += hello()
            for _ in range(rng.randrange(1, 8)):
                frame = bytearray(rng.choice(whole))
                for _ in range(rng.randrange(4)):
                    at = rng.randrange(len(frame))
                    kind = rng.randrange(4)
                    if kind == 0:
                        frame[at] ^= 1 << rng.randrange(8)
                    elif kind == 1:
                        frame[at] = rng.choice((0, 1, 127, 128, 255))
                    elif kind == 2:
                        frame[at:at] = rng.randbytes(rng.randrange(1, 9))
                    else:
                        del frame[at:at + rng.randrange(1, 9)]
                    if not frame:
                        break
                # Most keep a true length, so that what follows is looked at.
                if rng.random() < 0.7 and len(frame) >= 12:
                    frame[:4] = struct.pack("<I", len(frame) - 4)
                data += frame
        try:
            with Wire(running.port, bytes(data), timeout=5) as wire:
                wire.socket.shutdown(socket.SHUT_WR)
                # A mutated PING may wait for an offset as long as any request: ten seconds.
                while (answer := wire.frame(15)) is not None:
                    answered += 1
                ended += 1
        except (ConnectionResetError, BrokenPipeError, OSError):
            ended += 1
        except Failed as error:
            raise Failed(f"round {round_number}, seed {SEED}: {error}; sent {bytes(data)!r}") from None
        if round_number % 100 == 0:
            running.json("top", "--limit", "3")
    running.alive()
    growth = running.resident_kib() - before
    expect(growth < 60_000, f"memory grew by {growth} KiB")
    return f"{answered} frames came back, memory grew by {growth} KiB"


if __name__ == "__main__":
    harness.main(__doc__.splitlines()[0], tests, cleanup=[demo.close])
