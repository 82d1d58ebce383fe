#!/usr/bin/env python3
"""A client of the RankMySteps query protocol, written from query.md alone; Python 3 standard library only.

As a module: Client(host, port).rank("ada"); as a program: client.py HOST:PORT VERB …, which prints one JSON object.
Exit codes: 0 done, 1 the server refused, 2 usage, 3 unreachable, timed out or not an rms port.
"""

import argparse
import datetime
import json
import re
import socket
import struct
import sys

FRAME_IN_MAX = 65_536
FRAME_OUT_MAX = 1_048_576
HELLO_MAX = 4_096

KINDS = {"hello": 1, "ping": 2, "top": 3, "rank": 4, "around": 5, "compare": 6, "summary": 7, "boards": 8, "status": 9,
         "admin": 13, "deadletters": 14}
KIND_NAMES = {number: name for name, number in KINDS.items()}
RESERVED_KINDS = range(10, 13)
UNASKED_KINDS = range(192, 255)
ERRORS = {
    1: "malformed", 2: "unknown_kind", 3: "unsupported_version", 4: "hello_first", 5: "duplicate_id",
    6: "too_many_in_flight", 7: "frame_size", 8: "limit_out_of_bounds", 9: "no_such_board", 10: "bad_user",
    11: "deadline_exceeded", 12: "at_least_timeout", 13: "overloaded", 14: "draining", 15: "internal",
    16: "not_allowed", 17: "foreign", 18: "unknown_partition", 19: "unsupported", 20: "reserved_bits", 21: "idle",
    22: "too_many_connections", 23: "not_possible",
}
REASONS = ["malformed", "repeated", "missing", "type", "user", "steps", "time", "future", "late", "overflow"]
BOARD_STATES = ["live", "closed", "standing"]
VERBS = {"snapshot": 1, "seal": 2, "accept-gap": 3, "adopt": 4}
RUN_STATES = ["starting", "restoring", "catching-up", "serving", "draining", "stopped"]
EPOCH = datetime.date(1970, 1, 1).toordinal()
I64_MIN, I64_MAX, U64_MAX = -(2**63), 2**63 - 1, 2**64 - 1


class ProtocolError(Exception):
    """Bytes that are no message, or a message that a server refuses; `name` is the name of the error."""

    def __init__(self, name, text):
        super().__init__(f"{name}: {text}")
        self.name = name


class Refused(Exception):
    """The server's ERROR."""

    def __init__(self, code, retryable, text):
        super().__init__(f"{ERRORS.get(code, f'error {code}')}: {text}")
        self.code, self.name, self.retryable, self.text = code, ERRORS.get(code, f"error {code}"), retryable, text


class Unreachable(Exception):
    """No connection, no answer in time, or no rms port."""


# ---- Layouts: a codec writes a value and reads it back; a message is a list of named codecs -------------------------


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count > len(self.data) - self.at:
            raise ProtocolError("malformed", f"{count} bytes wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count:self.at]

    def left(self):
        return len(self.data) - self.at


class Number:
    def __init__(self, form):
        self.form = struct.Struct("<" + form)

    def write(self, value, out):
        out += self.form.pack(value)

    def read(self, reader):
        return self.form.unpack(reader.take(self.form.size))[0]


U8, U16, U32, U64, I32, I64 = Number("B"), Number("H"), Number("I"), Number("Q"), Number("i"), Number("q")


class Bounded(Number):
    """A number that has bounds of its own."""

    def __init__(self, form, least, most):
        super().__init__(form)
        self.least, self.most = least, most

    def read(self, reader):
        value = super().read(reader)
        if not self.least <= value <= self.most:
            raise ProtocolError("limit_out_of_bounds", f"{value} is not in {self.least}…{self.most}")
        return value


class Text:
    def __init__(self, length):
        self.length = length

    def write(self, value, out):
        data = value.encode()
        self.length.write(len(data), out)
        out += data

    def read(self, reader):
        try:
            return reader.take(self.length.read(reader)).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("malformed", f"not UTF-8: {error}") from None


class User:
    @staticmethod
    def write(value, out):
        TEXT8.write(value, out)

    @staticmethod
    def read(reader):
        data = reader.take(U8.read(reader))
        try:
            user = data.decode()
        except UnicodeDecodeError:
            user = ""
        if not 1 <= len(data) <= 64 or not user or re.search("[\x00-\x1f\x7f-\x9f]", user):
            raise ProtocolError("bad_user", repr(data))
        return user


class Board:
    @staticmethod
    def write(name, out):
        kind, number = board_number(name)
        U8.write(kind, out)
        I32.write(number, out)

    @staticmethod
    def read(reader):
        kind, number = U8.read(reader), I32.read(reader)
        return board_name(kind, number)


class Word:
    """A number that stands for one of some words."""

    def __init__(self, words):
        self.words = words

    def write(self, value, out):
        U8.write(self.words.index(value), out)

    def read(self, reader):
        number = U8.read(reader)
        if number >= len(self.words):
            raise ProtocolError("malformed", f"{number} is none of {self.words}")
        return self.words[number]


class Verb:
    """An order to the node."""

    @staticmethod
    def write(value, out):
        U8.write(VERBS[value], out)

    @staticmethod
    def read(reader):
        number = U8.read(reader)
        for word, verb in VERBS.items():
            if verb == number:
                return word
        raise ProtocolError("unsupported", f"no verb is {number}")


class Nullable:
    """A number of which one value means that there is none."""

    def __init__(self, number, none):
        self.number, self.none = number, none

    def write(self, value, out):
        self.number.write(self.none if value is None else value, out)

    def read(self, reader):
        value = self.number.read(reader)
        return None if value == self.none else value


class Row:
    """A fixed sequence, as a list."""

    def __init__(self, *parts):
        self.parts = parts

    def write(self, values, out):
        for part, value in zip(self.parts, values, strict=True):
            part.write(value, out)

    def read(self, reader):
        return [part.read(reader) for part in self.parts]


class Hexadecimal:
    """Bytes behind their length, told in hexadecimal."""

    @staticmethod
    def write(value, out):
        data = bytes.fromhex(value)
        U32.write(len(data), out)
        out += data

    @staticmethod
    def read(reader):
        return reader.take(U32.read(reader)).hex()


class List:
    def __init__(self, count, entry):
        self.count, self.entry = count, entry

    def write(self, values, out):
        self.count.write(len(values), out)
        for value in values:
            self.entry.write(value, out)

    def read(self, reader):
        return [self.entry.read(reader) for _ in range(self.count.read(reader))]


class Sized:
    """Something behind its length, of which a reader may know only the beginning."""

    def __init__(self, inner):
        self.inner = inner

    def write(self, value, out):
        inner = bytearray()
        self.inner.write(value, inner)
        U16.write(len(inner), out)
        out += inner

    def read(self, reader):
        return self.inner.read(Reader(reader.take(U16.read(reader))))


TEXT8, TEXT16 = Text(U8), Text(U16)
USER, BOARD = User(), Board()
SHARDS, MISSING = List(U16, Row(U32, U64, U64, U8)), List(U16, U32)
MARKS = [("shards", SHARDS), ("missing", MISSING)]
CONTEXT = [("board", BOARD), ("state", Word(BOARD_STATES))] + MARKS
ROWS = CONTEXT + [
    ("users", U64), ("total_steps", U64), ("rows", List(U32, Row(U64, U64, U64, U64, USER))), ("absent", List(U16, USER)),
]
AT_LEAST = List(Bounded("B", 1, 16), Row(U32, U64))

REQUESTS = {
    "hello": [
        ("version_min", U8), ("version_max", U8), ("name", TEXT8), ("language", TEXT8), ("version", TEXT8),
        ("options", List(Bounded("B", 0, 32), Row(TEXT8, TEXT8))),
    ],
    "ping": [],
    "top": [("board", BOARD), ("limit", Bounded("I", 1, 10_000)), ("from", None)],
    "rank": [("board", BOARD), ("user", USER)],
    "around": [("board", BOARD), ("user", USER), ("k", Bounded("I", 0, 4_999))],
    "compare": [("board", BOARD), ("users", List(Bounded("H", 1, 256), USER))],
    "summary": [("board", BOARD), ("quantiles", List(Bounded("B", 0, 255), Bounded("B", 1, 100)))],
    "boards": [],
    "status": [],
    "deadletters": [("position", U64), ("limit", Bounded("I", 1, 200)), ("skip", U32)],
    "admin": [("verb", Verb()), ("partition", Nullable(I32, -1))],
}
ANSWERS = {
    "hello": [
        ("version", U8), ("server_min", U8), ("server_max", U8), ("node", TEXT8), ("cluster", TEXT8), ("software", TEXT8),
        ("frame_in", U32), ("frame_out", U32), ("in_flight", U32), ("rows_max", U32), ("ids_max", U32), ("roles", U8),
        ("unknown_options", List(U8, TEXT8)),
    ],
    "ping": [],
    "top": ROWS,
    "rank": CONTEXT + [
        ("on_board", U8), ("rank", U64), ("tied", U64), ("steps", U64), ("users", U64), ("above", U64), ("next", None),
    ],
    "around": ROWS,
    "compare": ROWS,
    "summary": CONTEXT + [("users", U64), ("total_steps", U64), ("quantiles", List(U8, Row(U8, U64)))],
    "boards": MARKS + [
        ("boards", List(U32, Row(
            BOARD, Word(BOARD_STATES), U64, U64, Nullable(I64, I64_MIN), Nullable(I64, I64_MAX)))),
    ],
    "status": [
        ("node", TEXT8), ("cluster", TEXT8), ("software", TEXT8), ("state", Word(RUN_STATES)), ("uptime_ms", U64),
        ("shards", List(U16, Sized(Row(
            U32, Word(RUN_STATES), TEXT8, I64, I64, I64, U64, List(U8, U64), U64, I64, U64, I64, I64, I64, U64, U64)))),
        ("counters", List(U16, Row(TEXT8, U64))), ("problem", TEXT16),
    ],
    "deadletters": [
        ("next", U64),
        ("letters", List(U16, Row(U64, TEXT8, U32, I64, I64, Word(REASONS), Nullable(U32, 2**32 - 1), Hexadecimal()))),
    ],
    "admin": [("text", TEXT16)],
    "error": [("code", U16), ("retryable", U8), ("text", TEXT16)],
}


def board_number(name):
    """Kind and number of a board's name; ValueError if it is none."""
    if name == "today":
        return 0, 0
    if name == "all":
        return 4, 0
    if re.fullmatch(r"\d{4}-\d\d-\d\d", name):
        return 1, datetime.date.fromisoformat(name).toordinal() - EPOCH
    if match := re.fullmatch(r"(\d{4})-W(\d\d)", name):
        return 2, datetime.date.fromisocalendar(int(match[1]), int(match[2]), 1).toordinal() - EPOCH
    if match := re.fullmatch(r"(\d{4})-(\d\d)", name):
        if 1 <= int(match[2]) <= 12:
            return 3, (int(match[1]) - 1970) * 12 + int(match[2]) - 1
    raise ValueError(f"no board is called {name}: 2026-11-24, 2026-W48, 2026-11, all or today")


def board_name(kind, number):
    """The name of a board on the wire."""
    if kind == 0 and number == 0:
        return "today"
    if kind == 1 and 0 <= number <= 2_932_896:
        return datetime.date.fromordinal(EPOCH + number).isoformat()
    if kind == 2 and -3 <= number <= 2_932_896 and (number + 3) % 7 == 0:
        # The year is that of the week's Thursday, which may be one more than dates can name.
        year, week, _ = datetime.date.fromordinal(EPOCH + number).isocalendar()
        return f"{year:04}-W{week:02}"
    if kind == 3 and 0 <= number <= 96_359:
        return f"{1970 + number // 12:04}-{number % 12 + 1:02}"
    if kind == 4 and number == 0:
        return "all"
    raise ProtocolError("no_such_board", f"kind {kind}, number {number}")


# ---- Messages: dictionaries with the names of the vectors -------------------------------------------------------------


def frame(kind, flags, ident, payload):
    return struct.pack("<IBBHI", len(payload) + 8, kind, flags, 0, ident) + payload


def encode_request(message):
    """A request's bytes."""
    out, flags = bytearray(), 0
    if message.get("deadline_ms") is not None:
        flags |= 1
        U32.write(message["deadline_ms"], out)
    if message.get("at_least"):
        flags |= 2
        AT_LEAST.write(message["at_least"], out)
    if message["kind"] == "hello":
        out += b"RMS1"
    for name, codec in REQUESTS[message["kind"]]:
        if codec:
            codec.write(message[name], out)
        elif message.get("after") is not None:
            U8.write(1, out)
            Row(U64, USER).write(message["after"], out)
        else:
            U8.write(0, out)
            U64.write(message["offset"], out)
    return frame(KINDS[message["kind"]], flags, message["id"], bytes(out))


def decode_request(data, first=False):
    """A request from its bytes, judged as a server does; ProtocolError names the error otherwise."""
    if first and (len(data) < 16 or struct.unpack("<I", data[:4])[0] > HELLO_MAX or data[12:16] != b"RMS1"
                  or data[4:8] != b"\x01\x00\x00\x00"):
        ours = len(data) >= 8 and data[4] in KIND_NAMES and data[4] != 1 and data[6:8] == b"\x00\x00"
        ours = ours and 8 <= struct.unpack("<I", data[:4])[0] <= HELLO_MAX
        raise ProtocolError("hello_first" if ours else "foreign", "the first message is HELLO")
    length, kind, flags, reserved, ident = struct.unpack("<IBBHI", data[:12])
    if not 8 <= length <= FRAME_IN_MAX:
        raise ProtocolError("frame_size", f"a length of {length}")
    if len(data) != length + 4:
        raise ProtocolError("malformed", "more or less than one frame")
    if ident == 0:
        raise ProtocolError("malformed", "id 0")
    if flags & ~3 or reserved:
        raise ProtocolError("reserved_bits", f"flags {flags}, reserved {reserved}")
    if kind in RESERVED_KINDS:
        raise ProtocolError("unsupported", f"kind {kind}")
    if kind not in KIND_NAMES:
        raise ProtocolError("unknown_kind", f"kind {kind}")
    reader = Reader(data[12:])
    message = {"frame": "request", "kind": KIND_NAMES[kind], "id": ident}
    if flags & 1:
        message["deadline_ms"] = U32.read(reader)
    if flags & 2:
        message["at_least"] = AT_LEAST.read(reader)
    if kind == 1 and reader.take(4) != b"RMS1":
        raise ProtocolError("foreign", "no RMS1")
    for name, codec in REQUESTS[message["kind"]]:
        if codec:
            message[name] = codec.read(reader)
            continue
        start = U8.read(reader)
        if start == 0:
            message["offset"] = U64.read(reader)
        elif start == 1:
            message["after"] = Row(U64, USER).read(reader)
        else:
            raise ProtocolError("malformed", f"TOP from {start}")
    if len(message.get("quantiles", [])) > 100:
        raise ProtocolError("limit_out_of_bounds", "over 100 quantiles")
    if message["kind"] == "admin":
        least = 0 if message["verb"] == "accept-gap" else -1
        if (-1 if message["partition"] is None else message["partition"]) < least:
            raise ProtocolError("unknown_partition", f"partition {message['partition']}")
    if reader.left():
        raise ProtocolError("malformed", f"{reader.left()} bytes left over")
    return message


def encode_answer(message):
    """An answer's bytes."""
    out = bytearray()
    for name, codec in ANSWERS[message["kind"]]:
        if codec:
            codec.write(message[name], out)
            continue
        above, below = message["next_above_steps"], message["next_below_steps"]
        Row(U8, U64, U64).write([(above is not None) + 2 * (below is not None), above or 0, below or 0], out)
    kind = 255 if message["kind"] == "error" else KINDS[message["kind"]] + 128
    return frame(kind, 0, message["id"], bytes(out))


def decode_answer(data):
    """An answer from the bytes of its frame, length included."""
    length, kind, _, _, ident = struct.unpack("<IBBHI", data[:12])
    if kind != 255 and kind - 128 not in KIND_NAMES:
        raise ProtocolError("malformed", f"no answer has kind {kind}")
    message = {"frame": "answer", "kind": "error" if kind == 255 else KIND_NAMES[kind - 128], "id": ident}
    reader = Reader(data[12:])
    for name, codec in ANSWERS[message["kind"]]:
        if codec:
            message[name] = codec.read(reader)
            continue
        following, above, below = Row(U8, U64, U64).read(reader)
        message["next_above_steps"] = above if following & 1 else None
        message["next_below_steps"] = below if following & 2 else None
    if message.get("board") == "today":
        raise ProtocolError("no_such_board", "an answer names its board")
    return message


# ---- The client --------------------------------------------------------------------------------------------------------


class Client:
    """One connection. Requests go out in order and may be pipelined: `send` several, then `receive` as many."""

    def __init__(self, host, port, name="client.py", options=(), connect_timeout=5.0, timeout=10.0):
        try:
            self.socket = socket.create_connection((host, port), timeout=connect_timeout)
        except OSError as error:
            raise Unreachable(f"{host}:{port}: {error}") from None
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received, self.next_id, self.server = bytearray(), 1, None
        hello = {
            "kind": "hello", "version_min": 1, "version_max": 1, "name": name, "language": "python", "version": "1",
            "options": [list(option) for option in options],
        }
        self.server = self.ask(hello)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, message, **prefix):
        """Sends a request, returns its id."""
        ident, self.next_id = self.next_id, self.next_id % 0xFFFF_FFFF + 1
        self.send_bytes(encode_request(message | {k: v for k, v in prefix.items() if v is not None} | {"id": ident}))
        return ident

    def send_bytes(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Unreachable(str(error)) from None

    def receive(self):
        """The next answer, whichever request it belongs to."""
        while len(self.received) < 4 or len(self.received) < self.whole():
            try:
                data = self.socket.recv(262_144)
            except socket.timeout:
                raise Unreachable("no answer in time") from None
            except OSError as error:
                raise Unreachable(str(error)) from None
            if not data:
                raise Unreachable("not an rms port" if self.server is None else "the server closed the connection")
            self.received += data
        whole = self.whole()
        data = bytes(self.received[:whole])
        del self.received[:whole]
        # A later server may push what this client does not know.
        return self.receive() if data[4] in UNASKED_KINDS else decode_answer(data)

    def whole(self):
        length = struct.unpack_from("<I", self.received)[0]
        if not 8 <= length <= FRAME_OUT_MAX:
            what = {b"HTTP": " but HTTP", b"\x15\x03": " but TLS"}
            start = bytes(self.received[:4])
            raise Unreachable("not an rms port" + what.get(start, what.get(start[:2], "")))
        return length + 4

    def ask(self, message, **prefix):
        """Sends a request and waits for its answer; Refused if it is an ERROR."""
        ident = self.send(message, **prefix)
        while True:
            answer = self.receive()
            if answer["kind"] == "error" and answer["id"] in (ident, 0):
                raise Refused(answer["code"], bool(answer["retryable"] & 1), answer["text"])
            if answer["id"] == ident:
                return answer

    def ping(self, **prefix):
        return self.ask({"kind": "ping"}, **prefix)

    def top(self, board="today", limit=10, offset=0, after=None, **prefix):
        where = {"offset": offset} if after is None else {"after": list(after)}
        return self.ask({"kind": "top", "board": board, "limit": limit} | where, **prefix)

    def pages(self, board="today", limit=10_000, **prefix):
        """All rows, page after page; yields answers."""
        after = None
        while True:
            answer = self.top(board, limit, after=after, **prefix)
            yield answer
            if len(answer["rows"]) < limit:
                return
            board, after = answer["board"], (answer["rows"][-1][3], answer["rows"][-1][4])

    def rank(self, user, board="today", **prefix):
        return self.ask({"kind": "rank", "board": board, "user": user}, **prefix)

    def around(self, user, k=5, board="today", **prefix):
        return self.ask({"kind": "around", "board": board, "user": user, "k": k}, **prefix)

    def compare(self, users, board="today", **prefix):
        return self.ask({"kind": "compare", "board": board, "users": list(users)}, **prefix)

    def summary(self, board="today", quantiles=(10, 25, 50, 75, 90, 99), **prefix):
        return self.ask({"kind": "summary", "board": board, "quantiles": list(quantiles)}, **prefix)

    def boards(self, **prefix):
        return self.ask({"kind": "boards"}, **prefix)

    def deadletters(self, **prefix):
        """All records that were not counted, page by page."""
        position, letters = 0, []
        while True:
            page = self.ask({"kind": "deadletters", "position": position, "limit": 200, "skip": 0}, **prefix)
            if not page["letters"]:
                return letters
            letters += page["letters"]
            position = page["next"]

    def value(self, letter, **prefix):
        """The value of a record that was not counted, every byte of it; None for a null one."""
        position, length, part = letter[0], letter[6], bytes.fromhex(letter[7])
        while length is not None and len(part) < length:
            request = {"kind": "deadletters", "position": position, "limit": 1, "skip": len(part)}
            part += bytes.fromhex(self.ask(request, **prefix)["letters"][0][7])
        return None if length is None else part

    def admin(self, verb, partition=None, **prefix):
        """Orders the node; its sentence. The effect shows in STATUS."""
        return self.ask({"kind": "admin", "verb": verb, "partition": partition}, **prefix)

    def status(self, **prefix):
        return self.ask({"kind": "status"}, **prefix)


def beaten(above, tied, users):
    """Percent of the other users who have fewer steps."""
    return 100 * (users - above - tied) / (users - 1) if users > 1 else 100


def top_percent(above, users):
    """100·(above + 1)/users, rounded up to two significant digits; exact, then the nearest float."""
    scale = 0
    while 100 * (above + 1) * 10**scale < 10 * users:
        scale += 1
    digits = -(-100 * (above + 1) * 10**scale // users)
    number = float(f"{digits}e-{scale}")
    return int(number) if number.is_integer() else number


# ---- The program -------------------------------------------------------------------------------------------------------


def shown_marks(answer):
    return {
        "shards": [
            {"partition": p, "watermark": w, "age_ms": None if age == U64_MAX else age} for p, w, age, _ in answer["shards"]
        ],
        "missing": answer["missing"],
    }


def shown(answer, user=None):
    """An answer as `rmsctl -o json` prints it."""
    kind = answer["kind"]
    if kind in ("top", "around", "compare"):
        rows = [dict(zip(("position", "rank", "tied", "steps", "user"), row)) for row in answer["rows"]]
        order = ("position", "rank", "tied", "user", "steps")
        result = {name: answer[name] for name in ("board", "state", "users", "total_steps")}
        result["rows"] = [{name: row[name] for name in order} for row in rows]
        if kind != "top":
            result["absent"] = answer["absent"]
        return result | shown_marks(answer)
    if kind == "rank":
        on_board = bool(answer["on_board"])
        names = ("rank", "tied", "steps", "users", "above", "next_above_steps", "next_below_steps")
        return (
            {"board": answer["board"], "user": user, "on_board": on_board}
            | {name: answer[name] for name in names}
            | {
                "beaten": beaten(answer["above"], answer["tied"], answer["users"]) if on_board else None,
                "top_percent": top_percent(answer["above"], answer["users"]) if on_board else None,
            }
            | shown_marks(answer)
        )
    if kind == "summary":
        result = {name: answer[name] for name in ("board", "users", "total_steps")}
        return result | {"quantiles": {str(q): steps for q, steps in answer["quantiles"]}} | shown_marks(answer)
    if kind == "boards":
        names = ("board", "state", "users", "total_steps", "starts", "ends")
        kinds = ("today", "day", "week", "month", "all")
        boards = [dict(zip(names, row)) for row in answer["boards"]]
        return {"boards": [{"board": row["board"], "kind": kinds[board_number(row["board"])[0]]} | row for row in boards]}
    if kind == "status":
        result = {name: answer[name] for name in ("node", "cluster", "software", "state", "uptime_ms")}
        names = (
            "partition", "state", "reason", "watermark", "end_offset", "lag", "counted", "rejected", "superseded",
            "shard_clock_ms", "users", "durable", "snapshot", "sealed", "restored_bytes", "restore_bytes",
        )
        result["shards"] = []
        for row in answer["shards"]:
            shard = dict(zip(names, row))
            shard["rejected"] = dict(zip(REASONS, shard["rejected"]))
            result["shards"].append(shard)
        result["counters"] = dict(answer["counters"])
        result["problem"] = answer["problem"]
        return result
    return answer


def address(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def at_least(text):
    partition, _, offset = text.partition(":")
    if not (partition.isdigit() and offset.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not PARTITION:OFFSET")
    return [int(partition), int(offset)]


def board(text):
    try:
        board_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def arguments():
    parser = argparse.ArgumentParser(description="Ask a RankMySteps node; prints one JSON object.")
    parser.add_argument("address", type=address, metavar="HOST:PORT")
    parser.add_argument("--deadline-ms", type=int, metavar="MS")
    parser.add_argument("--at-least", type=at_least, action="append", metavar="PARTITION:OFFSET")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in KINDS:
        if verb == "hello":
            verbs.add_parser(verb, help="the server's greeting")
            continue
        command = verbs.add_parser(verb)
        if verb in ("rank", "around"):
            command.add_argument("user")
        if verb == "compare":
            command.add_argument("users", nargs="+", metavar="user")
        if verb in ("top", "rank", "around", "compare", "summary"):
            command.add_argument("--board", type=board, default="today")
        if verb == "top":
            command.add_argument("--limit", type=int, default=10)
            command.add_argument("--offset", type=int, default=0)
            command.add_argument("--after", nargs=2, metavar=("STEPS", "USER"))
            command.add_argument("--all", action="store_true", help="every row, page after page")
        if verb == "around":
            command.add_argument("-k", type=int, default=5)
        if verb == "admin":
            command.add_argument("order", choices=VERBS)
            command.add_argument("--partition", type=int)
        if verb == "summary":
            command.add_argument("--quantiles", type=int, nargs="*", default=[10, 25, 50, 75, 90, 99])
    return parser.parse_args()


def run(options):
    prefix = {"deadline_ms": options.deadline_ms, "at_least": options.at_least}
    with Client(*options.address) as client:
        if options.verb == "hello":
            return client.server
        if options.verb == "top" and options.all:
            pages = list(client.pages(options.board, **prefix))
            return shown(pages[0] | {"rows": [row for page in pages for row in page["rows"]]})
        if options.verb == "top":
            after = options.after and (int(options.after[0]), options.after[1])
            return shown(client.top(options.board, options.limit, options.offset, after, **prefix))
        if options.verb == "rank":
            return shown(client.rank(options.user, options.board, **prefix), options.user)
        if options.verb == "around":
            return shown(client.around(options.user, options.k, options.board, **prefix))
        if options.verb == "compare":
            return shown(client.compare(options.users, options.board, **prefix))
        if options.verb == "summary":
            return shown(client.summary(options.board, options.quantiles, **prefix))
        if options.verb == "admin":
            return shown(client.admin(options.order, options.partition, **prefix))
        return shown(getattr(client, options.verb)(**prefix))


def main():
    try:
        print(json.dumps(run(arguments()), ensure_ascii=False))
    except Refused as error:
        print(f"client.py: the server refused: {error}", file=sys.stderr)
        return 1
    except (Unreachable, ProtocolError) as error:
        print(f"client.py: {error}", file=sys.stderr)
        return 3
    except (struct.error, ValueError) as error:
        print(f"client.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
