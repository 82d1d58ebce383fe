#!/usr/bin/env python3
"""Checks client.py against the vectors and, with --live HOST:PORT, against a running node.

Every check prints a line only if it fails; the last line is `N passed, N failed`. Exit code 0 if none failed, else 1.
"""

import argparse
import json
import math
import pathlib
import re
import socket
import struct
import sys
import traceback

import client as rms

VECTORS = pathlib.Path(__file__).parent / "vectors"


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, holds, detail=""):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"failed: {name}{': ' if detail else ''}{detail}")

    def equal(self, name, found, expected):
        self.check(name, found == expected, f"found {str(found)[:300]}, expected {str(expected)[:300]}")

    def refused(self, name, expected, ask):
        """Whether `ask` ends in the server's ERROR of this name."""
        try:
            found = ask()
        except rms.Refused as error:
            found = error.name
        self.equal(name, found, expected)


# ---- Vectors ------------------------------------------------------------------------------------------------------------


def parse(path):
    """Comment, values and bytes of a vector file."""
    comment, values, data = [], {}, ""
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            comment.append(line)
        elif match := re.fullmatch(r"(\w+) = (.*)", line):
            values[match[1]] = json.loads(match[2])
        else:
            data += line
    return comment, values, bytes.fromhex(data)


def check_vector(tally, path):
    comment, values, data = parse(path)
    name = path.name
    tally.check(f"{name}: says what it is", comment)
    first = values.pop("first", False)
    if "refused" in values:
        try:
            found = rms.decode_request(data, first=first)
        except rms.ProtocolError as error:
            found = error.name
        tally.equal(f"{name}: refused", found, values["refused"])
        return
    decode, encode = {
        "request": (lambda data: rms.decode_request(data, first=first), rms.encode_request),
        "answer": (rms.decode_answer, rms.encode_answer),
    }[values["frame"]]
    try:
        tally.equal(f"{name}: decoded", decode(data), values)
        tally.equal(f"{name}: encoded", encode(values).hex(), data.hex())
    except Exception:
        tally.check(name, False, traceback.format_exc())
    # A cut payload in a whole frame is malformed, wherever it is cut.
    for length in range(12, len(data)):
        cut = struct.pack("<I", length - 4) + data[4:length]
        try:
            found = decode(cut)
        except rms.ProtocolError:
            continue
        except Exception:
            found = traceback.format_exc()
        tally.check(f"{name}: cut at {length}", False, f"decoded as {found}")
    tally.passed += 1


def rewrite(path):
    comment, values, data = parse(path)
    if "refused" not in values:
        fields = {key: value for key, value in values.items() if key != "first"}
        data = (rms.encode_request if values["frame"] == "request" else rms.encode_answer)(fields)
    text = data.hex()
    lines = comment + [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    lines += [text[place:place + 64] for place in range(0, len(text), 64)]
    path.write_text("\n".join(lines) + "\n")


def check_tables(tally):
    """The error table of query.md is that of client.py."""
    text = (pathlib.Path(__file__).parent / "query.md").read_text()
    rows = re.findall(r"(?m)^\| (\d+) \| `(\w+)` \| (?:yes|no) \|", text)
    tally.equal("error table", {int(number): name for number, name in rows}, rms.ERRORS)
    for above, users, percent in ((0, 1_000_000, 0.0001), (0, 3, 34), (0, 15, 6.7), (2, 5, 60), (994, 1000, 100), (0, 1, 100)):
        tally.equal(f"top_percent of {above} above, {users} users", rms.top_percent(above, users), percent)


# ---- A live node --------------------------------------------------------------------------------------------------------


def still(ask, attempts=20):
    """Several answers of which all reflect the same watermarks, or the last attempt."""
    for _ in range(attempts):
        answers = ask()
        marks = [[shard[:2] for shard in answer["shards"]] for answer in answers]
        if all(mark == marks[0] for mark in marks):
            return answers, True
    return answers, False


def pages(client, board, limit, cursor):
    answers, rows = [], []
    while True:
        where = {"after": (rows[-1][3], rows[-1][4])} if cursor and rows else {"offset": len(rows)}
        answer = client.top(board, limit, **where)
        answers.append(answer)
        rows += answer["rows"]
        if len(answer["rows"]) < limit or len(rows) >= 2_000:
            return answers


def check_rows(tally, name, answer):
    rows = answer["rows"]
    keys = [(-steps, user.encode()) for _, _, _, steps, user in rows]
    tally.check(f"{name}: in the board's order", keys == sorted(set(keys)))
    for position, rank, tied, steps, user in rows:
        if not (1 <= rank <= position + 1 < rank + tied <= answer["users"] + 1 and steps > 0):
            tally.check(f"{name}: rank, tied and position of {user}", False, (position, rank, tied, steps))
            return
    tally.passed += 1


def check_board(tally, client, board):
    (first, *_), _ = still(lambda: pages(client, board, 100, cursor=False))
    tally.equal(f"{board}: resolved", first["board"], board)
    together, same = still(lambda: pages(client, board, 100, cursor=False) + pages(client, board, 77, cursor=True))
    by_offset = {row[0]: row for answer in together for row in answer["rows"]}
    if same:
        for answer in together:
            for row in answer["rows"]:
                if by_offset[row[0]] != row:
                    tally.check(f"{board}: pages by offset and by cursor agree", False, (row, by_offset[row[0]]))
                    break
        tally.passed += 1
        positions = sorted(by_offset)
        tally.equal(f"{board}: positions", positions, list(range(len(positions))))
    else:
        print(f"note: {board} moved all the while; pages by offset and by cursor were not compared")
    for answer in together:
        check_rows(tally, f"{board}: TOP", answer)
    past = client.top(board, 10, offset=2**63)
    tally.equal(f"{board}: beyond the end", past["rows"], [])
    if by_offset:
        check_users(tally, client, board, [by_offset[place] for place in sorted(by_offset)])
    check_summary(tally, client, board)


def check_users(tally, client, board, rows):
    chosen = {0, len(rows) // 2, len(rows) - 1}
    for position, rank, tied, steps, user in (rows[place] for place in sorted(chosen)):
        def ask(user=user, position=position):
            return [
                client.rank(user, board), client.around(user, 3, board), client.compare([user, "nobody here", user], board),
                client.top(board, 1, offset=position),
            ]
        (ranked, around, compared, top), same = still(ask)
        if not same:
            print(f"note: {board} moved all the while; RANK, AROUND and COMPARE of {user} were not compared")
            continue
        row = next((row for row in around["rows"] if row[4] == user), None)
        tally.check(f"{board}: AROUND holds {user}", row is not None)
        if row is None:
            continue
        tally.equal(f"{board}: RANK of {user} as in AROUND", [ranked[name] for name in ("rank", "tied", "steps")], row[1:4])
        tally.equal(f"{board}: COMPARE of {user} as in AROUND", compared["rows"], [row])
        tally.equal(f"{board}: COMPARE names who is absent", compared["absent"], ["nobody here"])
        tally.equal(f"{board}: RANK is above + 1", ranked["rank"], ranked["above"] + 1)
        tally.equal(f"{board}: AROUND has 2k + 1 rows", len(around["rows"]), min(7, around["users"]))
        positions = [row[0] for row in around["rows"]]
        first = max(0, min(row[0] - 3, around["users"] - 7))
        tally.equal(f"{board}: AROUND's window", positions, list(range(first, first + len(positions))))
        check_rows(tally, f"{board}: AROUND", around)
        above = [steps for _, _, _, steps, _ in around["rows"] if steps > ranked["steps"]]
        below = [steps for _, _, _, steps, _ in around["rows"] if steps < ranked["steps"]]
        if above:
            tally.equal(f"{board}: next above {user}", ranked["next_above_steps"], above[-1])
        if below:
            tally.equal(f"{board}: next below {user}", ranked["next_below_steps"], below[0])
    absent = client.rank("nobody here", board)
    tally.equal(
        f"{board}: RANK of nobody",
        [absent[name] for name in ("on_board", "tied", "steps", "rank", "next_below_steps")],
        [0, 0, 0, absent["users"] + 1, None])
    tally.equal(f"{board}: AROUND of nobody", client.around("nobody here", 2, board)["absent"], ["nobody here"])


def check_summary(tally, client, board):
    quantiles = [1, 50, 100, 10]
    def ask():
        summary = client.summary(board, quantiles)
        count = summary["users"]
        places = [count - math.ceil(q * count / 100) for q in quantiles]
        return [summary] + [client.top(board, 1, offset=place) for place in places if count]
    answers, same = still(ask)
    summary, tops = answers[0], answers[1:]
    tally.equal(f"{board}: quantiles in the order asked", [q for q, _ in summary["quantiles"]], quantiles)
    if same and tops:
        tally.equal(
            f"{board}: quantiles are totals of the order", [steps for _, steps in summary["quantiles"]],
            [top["rows"][0][3] for top in tops])
        tally.equal(f"{board}: users and steps", [summary["users"], summary["total_steps"]],
                    [tops[0]["users"], tops[0]["total_steps"]])


def error_of(client, data):
    """Sends raw bytes, returns id and name of the ERROR that comes back (None if the answer is none)."""
    client.send_bytes(data)
    answer = client.receive()
    return answer["id"], rms.ERRORS.get(answer.get("code")) if answer["kind"] == "error" else None


def check_errors(tally, client, board):
    top = {"kind": "top", "board": board, "limit": 10, "offset": 0, "id": 7_000_001}
    good = rms.encode_request(top)
    def raw(kind=1, flags=0, ident=7_000_002, payload=b"", reserved=0):
        return struct.pack("<IBBHI", len(payload) + 8, kind, flags, reserved, ident) + payload
    for name, data, ident, error in (
        ("limit 0", rms.encode_request(top | {"limit": 0}), 7_000_001, "limit_out_of_bounds"),
        ("limit above rows_max", rms.encode_request(top | {"limit": 10_001}), 7_000_001, "limit_out_of_bounds"),
        ("a board kind that there is not", good[:12] + b"\x09\x00\x00\x00\x00" + good[17:], 7_000_001, "no_such_board"),
        ("a week not by its Monday", good[:12] + b"\x02\x01\x00\x00\x00" + good[17:], 7_000_001, "no_such_board"),
        ("an unknown kind", raw(kind=99), 7_000_002, "unknown_kind"),
        ("a reserved kind", raw(kind=11), 7_000_002, "unsupported"),
        ("an unknown flag", raw(kind=2, flags=128), 7_000_002, "reserved_bits"),
        ("a reserved byte", raw(kind=2, reserved=1), 7_000_002, "reserved_bits"),
        ("id 0", raw(kind=2, ident=0), 0, "malformed"),
        ("bytes left over", raw(kind=2, payload=b"x"), 7_000_002, "malformed"),
        ("a short payload", raw(kind=4, payload=b"\x00"), 7_000_002, "malformed"),
        ("a control character", raw(kind=4, payload=b"\x00\x00\x00\x00\x00\x01\x1b"), 7_000_002, "bad_user"),
        ("bad UTF-8", raw(kind=4, payload=b"\x00\x00\x00\x00\x00\x01\xff"), 7_000_002, "bad_user"),
        ("deadline 0", raw(kind=3, flags=1, payload=b"\x00\x00\x00\x00" + good[12:]), 7_000_002, "deadline_exceeded"),
    ):
        tally.equal(f"{name} gets its error and the connection lives", error_of(client, data), (ident, error))
    tally.equal("PING after all that", client.ping()["kind"], "ping")
    marks = client.boards()["shards"]
    if marks:
        partition, watermark = marks[0][:2]
        if watermark > 0:
            reached = client.rank("nobody here", board, at_least=[[partition, watermark - 1]])
            tally.equal("at_least of what is visible", reached["kind"], "rank")
        tally.refused(
            "at_least of what never comes", "at_least_timeout",
            lambda: client.rank("nobody here", board, at_least=[[partition, 2**62]], deadline_ms=100))
        # While one request waits, a second with its id is refused, and the first is answered all the same.
        waiting = {"kind": "ping", "id": 7_000_003, "at_least": [[partition, 2**62]], "deadline_ms": 300}
        client.send_bytes(rms.encode_request(waiting) + rms.encode_request({"kind": "ping", "id": 7_000_003}))
        found = sorted(rms.ERRORS.get(client.receive().get("code"), "answered") for _ in range(2))
        tally.equal("an id twice", found, ["at_least_timeout", "duplicate_id"])
    tally.refused(
        "at_least of a partition that is not there", "unknown_partition",
        lambda: client.rank("nobody here", board, at_least=[[4_000_000_000, 0]]))
    idents = [client.send({"kind": "ping"}) for _ in range(200)]
    tally.equal("200 requests at once", sorted(client.receive()["id"] for _ in idents), idents)


def check_admin(tally, client, status):
    for row in status["shards"]:
        watermark, (durable, snapshot, sealed, done, total) = row[3], row[11:16]
        name = f"partition {row[0]}: "
        tally.check(name + "what is durable is applied", -1 <= durable <= watermark, (durable, watermark))
        tally.check(name + "a snapshot is durable, and so is what is sealed", -1 <= max(snapshot, sealed) <= max(durable, -1),
                    (snapshot, sealed, durable))
        tally.check(name + "restored of all to restore", done <= total, (done, total))
    for name, verb, partition, error in (
        ("verb 0", 0, -1, "unsupported"), ("verb 5", 5, -1, "unsupported"), ("accept-gap of all", 3, -1, "unknown_partition"),
        ("partition -2", 1, -2, "unknown_partition"), ("a partition that is not there", 1, 2**31 - 1, "unknown_partition"),
    ):
        data = struct.pack("<IBBHIBi", 13, 13, 0, 0, 7_000_009, verb, partition)
        tally.equal(f"ADMIN, {name}", error_of(client, data), (7_000_009, error))
    for verb in ("snapshot", "seal"):
        try:
            tally.check(f"ADMIN {verb} says what happens", client.admin(verb)["text"])
        except rms.Refused as error:
            tally.equal(f"ADMIN {verb}, refused", error.name, "not_possible")
            tally.check(f"ADMIN {verb}, refused with a reason", error.text)
    for letter in client.deadletters()[:50]:
        value = client.value(letter)
        tally.check("a dead letter's value is whole and begins as its page says",
                    value is None if letter[6] is None else len(value) == letter[6] and value.hex().startswith(letter[7]))


def stranger(address, data):
    """What a server answers to a connection that begins with `data`, and whether it closes."""
    with socket.create_connection(address, timeout=5) as peer:
        peer.settimeout(10)
        peer.sendall(data)
        received = b""
        try:
            while chunk := peer.recv(65_536):
                received += chunk
        except socket.timeout:
            return rms.decode_answer(received) if received else None, False
        except ConnectionResetError:
            pass
    return rms.decode_answer(received) if received else None, True


def check_strangers(tally, address):
    tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(506)
    kafka = b"\x00\x00\x00\x20\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07rdkafka\x00" + bytes(12)
    for name, data, expected in (
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "foreign"),
        ("TLS", tls, "foreign"),
        ("Kafka", kafka, "foreign"),
        ("PING before HELLO", rms.encode_request({"kind": "ping", "id": 1}), "hello_first"),
        ("a length of 2^32-1", b"\xff\xff\xff\xff\x01\x00\x00\x00", "foreign"),
    ):
        answer, closed = stranger(address, data)
        found = answer and rms.ERRORS.get(answer.get("code"))
        tally.equal(f"{name} on the port", (found, closed), (expected, True))


def check_live(tally, address):
    with rms.Client(*address, name="check.py", options=[["colour", "blue"]]) as client:
        tally.equal("unknown options are listed back", client.server["unknown_options"], ["colour"])
        tally.equal("version", client.server["version"], 1)
        status = client.status()
        tally.check("STATUS names a state", status["state"] in rms.RUN_STATES)
        boards = client.boards()["boards"]
        for entry in boards[-3:]:
            check_board(tally, client, entry[0])
        check_admin(tally, client, status)
        today = client.summary()
        tally.check("today is resolved to a day", re.fullmatch(r"\d{4}-\d\d-\d\d", today["board"]))
        check_errors(tally, client, boards[-1][0] if boards else "today")
    check_strangers(tally, address)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=rms.address, metavar="HOST:PORT", help="also ask this node")
    parser.add_argument("--rewrite", action="store_true", help="write the vectors' bytes anew from their values")
    options = parser.parse_args()
    tally = Tally()
    paths = sorted(VECTORS.glob("*.hex"))
    if options.rewrite:
        for path in paths:
            rewrite(path)
    tally.check("vectors found", len(paths) > 20)
    for path in paths:
        check_vector(tally, path)
    check_tables(tally)
    if options.live:
        try:
            check_live(tally, options.live)
        except (rms.Unreachable, rms.Refused, rms.ProtocolError, OSError):
            tally.check("the live sequence", False, traceback.format_exc())
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
