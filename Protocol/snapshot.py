#!/usr/bin/env python3
"""Reads a snapshot by snapshot.md alone: prints it as JSON, or checks this reader against the vectors.

    snapshot.py FILE.snap          the state as JSON; exit code 1 and a sentence if the file is refused
    snapshot.py --summary FILE     without users and totals
    snapshot.py --check            the vectors; the last line is `N passed, N failed`
"""

import argparse
import datetime
import json
import pathlib
import re
import struct
import sys

from log import check as crc32c

VECTORS = pathlib.Path(__file__).parent / "vectors" / "snapshot"
MODES = ["increment", "total-newest", "total-max"]
REASONS = ["malformed", "repeated", "missing", "type", "user", "steps", "time", "future", "late", "overflow"]
BOARD, TOTALS, REPORTS, USERS, END = 1, 2, 3, 4, 5
HEADER_BYTES, BLOCK_BYTES, END_BYTES = 512, 16, 40
BODY_BYTES_MAX, CHUNK = 266_240, 4096
USERS_MAX, BOARDS_MAX = (1 << 27) - 1, 65_536
CANONICAL = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Refused(Exception):
    """A snapshot that must not be used: what it is, the byte, and why."""

    def __init__(self, what, byte, why):
        super().__init__(f"{what} at byte {byte}: {why}")
        self.what, self.byte = what, byte


def damaged(holds, byte, why):
    if not holds:
        raise Refused("damaged", byte, why)


# ---- Header and blocks --------------------------------------------------------------------------------------------------


def read_header(data):
    damaged(data[:8] == b"RMS-SNP\n", 0, "no magic")
    check = struct.unpack_from("<I", data, 508)[0]
    damaged(crc32c(data[:508]) == check, 0, "the header's check does not fit")
    version, size, partition = struct.unpack_from("<HHI", data, 8)
    if version > 1:
        raise Refused("newer", 8, f"version {version}")
    topic_id, fingerprint, watermark, clock, newest, counted, superseded = struct.unpack_from("<16sQQqqQQ", data, 16)
    users, boards, mode, reasons, flags = struct.unpack_from("<IIBBH", data, 80)
    rejected = struct.unpack_from("<16Q", data, 92)
    name = data[221 : 221 + data[220]]
    if flags:
        raise Refused("newer", 90, f"flags {flags}")
    if reasons > len(REASONS):
        raise Refused("newer", 89, f"{reasons} reasons")
    sensible = (
        version == 1 and size == HEADER_BYTES and partition < 1 << 31 and watermark < 1 << 63
        and -1 <= newest <= clock and superseded <= counted and users <= USERS_MAX and boards <= BOARDS_MAX
        and mode < len(MODES) and reasons >= 10 and not any(rejected[reasons:]) and 1 <= len(name) <= 249
        and not any(data[221 + len(name) : 508])
    )
    try:
        topic = name.decode()
    except UnicodeDecodeError:
        sensible = False
    damaged(sensible, 0, "a field of the header makes no sense")
    return check, {
        "topic": topic, "topic_id": topic_id.hex(), "partition": partition, "fingerprint": f"{fingerprint:016x}",
        "watermark": watermark, "clock": clock, "newest": newest, "counted": counted, "superseded": superseded,
        "rejected": dict(zip(REASONS, rejected)), "mode": MODES[mode], "users": users, "boards": boards,
    }


class Block:
    def __init__(self, data, at, end, header_check):
        damaged(at + BLOCK_BYTES <= end, at, "a block reaches beyond its section")
        self.at = at
        self.kind, self.form, self.n, self.first, size, self.check = struct.unpack_from("<BBHIII", data, at)
        damaged(size <= BODY_BYTES_MAX and at + BLOCK_BYTES + size <= end, at, "a block reaches beyond its section")
        self.body = data[at + BLOCK_BYTES : at + BLOCK_BYTES + size]
        self.next = at + BLOCK_BYTES + size
        summed = struct.pack("<I", header_check) + data[at : at + 12] + self.body
        damaged(crc32c(summed) == self.check, at, "a block's check does not fit")
        damaged(self.form <= 1 and self.first % CHUNK == 0, at, "a block's form or first number")

    def damaged(self, holds, why):
        damaged(holds, self.at, why)


def read_end(data, header_check):
    at = len(data) - END_BYTES
    try:
        block = Block(data, at, len(data), header_check)
        block.damaged(block.kind == END and len(block.body) == 24, "no end block")
        block.damaged(block.form == block.n == block.first == 0, "the end block's header")
        return block
    except Refused:
        pass
    # Torn, or damaged: where would the blocks end?
    at = HEADER_BYTES
    while True:
        size = struct.unpack_from("<I", data, at + 8)[0] if at + BLOCK_BYTES <= len(data) else 0
        damaged(size <= BODY_BYTES_MAX, at, "a block's length")
        if at + BLOCK_BYTES + size > len(data):
            raise Refused("torn", at, "the file ends inside a block")
        damaged(data[at] in (BOARD, TOTALS, REPORTS, USERS), at, "the end block does not check")
        at += BLOCK_BYTES + size


# ---- Bodies -------------------------------------------------------------------------------------------------------------


def board_name(period, ordinal):
    """The board's name; None if there is none such."""
    if period == 4:
        return "all" if ordinal == 0 else None
    if period == 3:
        return f"{1970 + ordinal // 12:04}-{ordinal % 12 + 1:02}" if -1 <= ordinal <= 96_360 else None
    if period not in (1, 2) or not -1 <= ordinal + 6 * (period == 2) <= 2_932_897 + 6 * (period == 2):
        return None
    if ordinal == 2_932_897:
        return "10000-01-01" if period == 1 else None
    day = datetime.date(1970, 1, 1) + datetime.timedelta(ordinal)
    if period == 1:
        return day.isoformat()
    year, week, weekday = day.isocalendar()
    return f"{year:04}-W{week:02}" if weekday == 1 else None


def read_entries(block, layout, absent):
    """(number, entry) of a block of totals or reports; `layout` is of one entry, `absent` one that says nothing."""
    width = struct.calcsize("<" + layout)
    n = block.n
    block.damaged(1 <= n <= CHUNK, "a count of entries")
    block.damaged(len(block.body) == n * (width + 2 * block.form), "a body's length")
    places = struct.unpack_from(f"<{n}H", block.body) if block.form else range(n)
    entries = list(struct.iter_unpack("<" + layout, block.body[2 * n * block.form :]))
    block.damaged(all(a < b for a, b in zip(places, places[1:])) and places[-1] < CHUNK, "the order of numbers")
    found = [(block.first + place, entry) for place, entry in zip(places, entries) if entry != absent]
    block.damaged(entries[-1] != absent and (not block.form or len(found) == n), "an entry that says nothing")
    dense, sparse = width * (places[-1] + 1), (width + 2) * len(found)
    block.damaged(block.form == (sparse < dense), "not the shorter form")
    return found


def read_ids(block):
    n = block.n
    block.damaged(1 <= n <= CHUNK, "a count of users")
    if block.form == 0:
        block.damaged(len(block.body) == 16 * n, "a body's length")
        texts = [block.body[16 * i : 16 * i + 16].hex() for i in range(n)]
        return ["-".join((t[:8], t[8:12], t[12:16], t[16:20], t[20:])) for t in texts]
    lengths = block.body[:n]
    block.damaged(len(lengths) == n and len(block.body) == n + sum(lengths), "a body's length")
    ids, place = [], n
    for length in lengths:
        raw = block.body[place : place + length]
        place += length
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = ""
        control = any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
        block.damaged(1 <= length <= 64 and text and not control, "an id that is none")
        block.damaged(not CANONICAL.fullmatch(raw), "a canonical UUID as text")
        ids.append(text)
    return ids


# ---- The whole file -----------------------------------------------------------------------------------------------------


def read_users(data, at, end, check, expected):
    users, checks, blocks, partial = {}, b"", 0, set()
    while at < end:
        block = Block(data, at, end, check)
        block.damaged(block.kind == USERS and block.first == blocks * CHUNK, "the order of users")
        block.damaged(block.form not in partial, "a segment after one that is not full")
        ids = read_ids(block)
        if len(ids) < CHUNK:
            partial.add(block.form)
        users.update((block.first + i, user) for i, user in enumerate(ids))
        checks += struct.pack("<I", block.check)
        at, blocks = block.next, blocks + 1
    damaged(len(users) == expected and len(set(users.values())) == expected, end, "the count of users")
    return users, blocks, crc32c(checks)


def finish_board(board, at):
    if board:
        damaged(sum(t for _, t in board["totals"]) == board["total_steps"], at, "a board's sum of totals")
        damaged(len(board["totals"]) == board["users"], at, "a board's count of users")


def read_boards(data, at, end, check, header, users):
    boards, checks, blocks, last, place = [], b"", 0, (0, 0), (0, 0)
    board = None
    while at < end:
        block = Block(data, at, end, check)
        if block.kind == BOARD:
            finish_board(board, at)
            block.damaged(len(block.body) == 20 and block.form == block.n == block.first == 0, "a board block")
            period, zeros, ordinal, steps, ranked = struct.unpack("<B3siQI", block.body)
            name = board_name(period, ordinal)
            block.damaged(name and zeros == bytes(3) and (period, ordinal) > last, "a board's period")
            last, place = (period, ordinal), (-1, 0)
            board = {"board": name, "users": ranked, "total_steps": steps, "totals": []}
            if period == 1 and header["mode"] == "total-newest":
                board["reports"] = []
            boards.append(board)
        else:
            block.damaged(board is not None and block.kind in (TOTALS, REPORTS), "the kind of a block")
            block.damaged((block.first, block.kind) > place, "the order of blocks")
            place = (block.first, block.kind)
            if block.kind == TOTALS:
                found = [(number, entry[0]) for number, entry in read_entries(block, "I", (0,))]
                board["totals"] += found
            else:
                block.damaged("reports" in board, "reports of a board that keeps none")
                found = [(number, *entry) for number, entry in read_entries(block, "qq", (0, 0))]
                block.damaged(all(entry[2] >= 1 for entry in found), "a report without offset")
                board["reports"] += found
            block.damaged(all(entry[0] in users for entry in found), "a number that no user has")
        checks += struct.pack("<I", block.check)
        at, blocks = block.next, blocks + 1
    finish_board(board, end)
    damaged(len(boards) == header["boards"], end, "the count of boards")
    return boards, blocks, crc32c(checks)


def read(data, watermark=None, shard=None):
    """The state in a snapshot's bytes. `watermark` is what the file's name says, `shard` a dict of what it must be for."""
    if len(data) < HEADER_BYTES + END_BYTES:
        raise Refused("torn", len(data), "fewer bytes than the shortest snapshot has")
    check, state = read_header(data)
    damaged(watermark in (None, state["watermark"]), 0, "another watermark than the file's name")
    for key, value in (shard or {}).items():
        if state[key] != value:
            raise Refused("foreign", 0, f"{key} {state[key]}, expected {value}")
    end = read_end(data, check)
    users_at, board_blocks, user_blocks, boards_check, users_check = struct.unpack("<QIIII", end.body)
    end.damaged(HEADER_BYTES <= users_at <= end.at, "the place of the users")
    users, blocks, found = read_users(data, users_at, end.at, check, state["users"])
    end.damaged((blocks, found) == (user_blocks, users_check), "the check of user blocks")
    boards, blocks, found = read_boards(data, HEADER_BYTES, users_at, check, state, users)
    end.damaged((blocks, found) == (board_blocks, boards_check), "the check of board blocks")
    state["user_ids"], state["board_totals"] = users, boards
    return state


def printable(state, summary=False):
    shown = {key: value for key, value in state.items() if key not in ("user_ids", "board_totals")}
    if summary:
        shown["board_totals"] = [
            {key: value for key, value in board.items() if key not in ("totals", "reports")}
            for board in state["board_totals"]
        ]
    else:
        shown["user_ids"] = [[number, user] for number, user in state["user_ids"].items()]
        shown["board_totals"] = state["board_totals"]
    return shown


def check_vectors():
    passed = failed = 0
    for path in sorted(VECTORS.glob("*.hex")):
        values, digits = {}, ""
        for line in path.read_text().splitlines():
            if match := re.fullmatch(r"(\w+) = (.*)", line):
                values[match[1]] = json.loads(match[2])
            elif not line.startswith("#"):
                digits += line
        expected = values.get("refused", values)
        try:
            shard = {"topic": "steps", "topic_id": "00112233445566778899aabbccddeeff", "partition": 3,
                     "fingerprint": "0123456789abcdef"}
            found = json.loads(json.dumps(printable(read(bytes.fromhex(digits), shard=shard))))
        except Refused as error:
            found = [error.what, error.byte]
        if found == expected:
            passed += 1
        else:
            failed += 1
            print(f"failed: {path.name}: found {str(found)[:600]}, expected {str(expected)[:600]}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=pathlib.Path)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        return check_vectors()
    if not arguments.file:
        parser.error("a file, or --check")
    match = re.fullmatch(r"(\d{20})\.snap", arguments.file.name)
    try:
        state = read(arguments.file.read_bytes(), watermark=int(match[1]) if match else None)
    except Refused as error:
        print(f"{arguments.file}: {error}", file=sys.stderr)
        return 1
    json.dump(printable(state, arguments.summary), sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
