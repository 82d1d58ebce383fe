#!/usr/bin/env python3
"""Reads the log of a shard as segment.md describes it.

usage: log.py [--verify] FILE_OR_FOLDER…
       log.py --vectors

Prints one JSON object a line for every row of the segments given (of a folder: all of them, in order). Exit code 1 if
one is not whole, with a line on stderr that says where. --verify prints what each holds instead of its rows.
--vectors reads those of vectors/log and compares; the last line is `N passed, N failed`.
Sealed segments are opened with the module lz4.frame where there is one, else with the library liblz4.
"""

import argparse
import contextlib
import ctypes
import json
import pathlib
import re
import struct
import sys

SEGMENT_MAGIC = b"RMS-LOG\n"
BATCH_MAGIC = b"RMSB"
REASONS = ("malformed", "repeated", "missing", "type", "user", "steps", "time", "future", "late", "overflow")
UNITS = (1_000_000_000, 1_000_000, 1_000, 1)
NAME = re.compile(r"(\d{20})\.seg(\.lz4)?")


def crc_table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


CRC = crc_table()


def check(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class Stopped(Exception):
    """Reading ends here: `word` is damaged, newer or foreign, `at` the byte."""

    def __init__(self, word, at, text):
        super().__init__(f"{word} at byte {at}: {text}")
        self.word, self.at = word, at


def unseal(data):
    """A frame's content as far as it opens, and whether it opened whole."""
    content, whole = bytearray(), False
    with contextlib.suppress(RuntimeError):
        for piece, whole in frame_pieces(data):
            content += piece
    return bytes(content), whole


def frame_pieces(data):
    """Pieces of a frame's content, each with whether the frame has ended there; RuntimeError where it does not open."""
    try:
        import lz4.frame
    except ImportError:
        yield from library_pieces(data)
        return
    opener = lz4.frame.LZ4FrameDecompressor()
    for place in range(0, len(data), 64):
        if opener.eof:
            yield b"", False
            return
        yield opener.decompress(data[place:place + 64]), opener.eof and not opener.unused_data


def library_pieces(data):
    """The same by liblz4 itself; the program lz4 may end before it has written all that opened."""
    library = ctypes.CDLL("liblz4.so.1")
    library.LZ4F_decompress.restype = ctypes.c_size_t
    library.LZ4F_isError.argtypes = [ctypes.c_size_t]
    context = ctypes.c_void_p()
    library.LZ4F_createDecompressionContext(ctypes.byref(context), ctypes.c_uint(100))
    try:
        source, room, place = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(1 << 16), 0
        while place < len(data):
            given, taken = ctypes.c_size_t(len(room)), ctypes.c_size_t(len(data) - place)
            left = library.LZ4F_decompress(
                context, room, ctypes.byref(given), ctypes.byref(source, place), ctypes.byref(taken), None)
            if library.LZ4F_isError(left):
                raise RuntimeError("the frame does not open")
            place += taken.value
            yield room.raw[:given.value], left == 0 and place == len(data)
            if left == 0 or not given.value and not taken.value:
                return
    finally:
        library.LZ4F_freeDecompressionContext(context)


class Reader:
    """The body of a batch, from front to back."""

    def __init__(self, data, at):
        self.data, self.place, self.at = data, 0, at

    def fail(self, text):
        raise Stopped("damaged", self.at, text)

    def take(self, count):
        if count > len(self.data) - self.place:
            self.fail("a part reaches beyond the body")
        self.place += count
        return self.data[self.place - count:self.place]

    def text(self, count):
        try:
            return self.take(count).decode("utf-8")
        except UnicodeDecodeError:
            self.fail("text that is no UTF-8")

    def u8(self):
        return self.take(1)[0]

    def u32(self):
        return struct.unpack("<I", self.take(4))[0]

    def column(self, count):
        width, base = struct.unpack("<Bq", self.take(9))
        if width > 64:
            self.fail("a column's width")
        bits = int.from_bytes(self.take((count * width + 7) // 8), "little")
        mask = (1 << width) - 1
        values = []
        for index in range(count):
            value = (base + (bits >> index * width & mask)) & 2**64 - 1
            values.append(value - 2**64 if value >= 2**63 else value)
        return values

    def ids(self, count):
        ids = []
        for code in self.column(count):
            if code == 0:
                digits = self.take(16).hex()
                ids.append("-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])))
            elif 1 <= code <= 64:
                text = self.text(code)
                if re.search("[\0-\x1f\x7f-\x9f]", text) or re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text):
                    self.fail("an id is none")
                ids.append(text)
            else:
                self.fail("an id's code")
        return ids


class Segment:
    """One segment in memory; `rows()` reads it to its end."""

    def __init__(self, data, is_whole=True):
        self.data, self.is_whole = data, is_whole
        self.users = {}
        self.batches = 0
        if len(data) < 512:
            raise Stopped("damaged", 0, "no header")
        if data[:8] != SEGMENT_MAGIC:
            raise Stopped("damaged", 0, "magic")
        if check(data[:508]) != struct.unpack_from("<I", data, 508)[0]:
            raise Stopped("damaged", 0, "the header's check")
        (version, length, self.partition, self.topic_id, self.fingerprint, self.base, self.origin, self.created,
         self.mark, self.check_before, flags, name) = struct.unpack_from("<HHi16sQqqqqIHB", data, 8)
        if version > 1:
            raise Stopped("newer", 8, f"version {version}")
        if flags:
            raise Stopped("newer", 76, f"flags {flags}")
        if version < 1 or length != 512 or self.partition < 0 or not 1 <= name <= 249:
            raise Stopped("damaged", 0, "a value of the header")
        if not 0 <= self.origin <= self.base or not 0 <= self.mark <= self.base:
            raise Stopped("damaged", 0, "a watermark of the header")
        self.topic = data[79:79 + name].decode("utf-8")
        self.watermark, self.place, self.check = self.base, 512, struct.unpack_from("<I", data, 508)[0]

    def rows(self):
        while self.data[self.place:].strip(b"\0"):
            yield from self.batch()
        if not self.is_whole:
            raise Stopped("damaged", self.place, "the frame does not open whole")

    def batch(self):
        at, header = self.place, self.data[self.place:self.place + 96]
        def need(holds, text):
            if not holds:
                raise Stopped("damaged", at, text)
        need(len(header) == 96 and header[:4] == BATCH_MAGIC, "no batch header")
        need(check(header[:92]) == struct.unpack_from("<I", header, 92)[0], "the header's check")
        (version, kind, flags, length, partition, topic_id, first, following, clock, newest, mark, events, rejected, before,
         body_check, zero, own) = struct.unpack_from("<HBBIi16sqqqqqIIIIII", header, 4)
        for found, known, place in ((version, 1, 4), (kind, 2, 6), (flags, 0, 7)):
            if found > known:
                raise Stopped("newer", at + place, f"{found}, known up to {known}")
        if topic_id != self.topic_id:
            raise Stopped("foreign", at + 16, f"topic id {topic_id.hex()}, not {self.topic_id.hex()}")
        if partition != self.partition:
            raise Stopped("foreign", at + 12, f"partition {partition}, not {self.partition}")
        need(version >= 1 and zero == 0 and length <= 2**30 and 0 <= first < following and 0 <= mark <= first, "the header")
        need(clock >= -1 and newest <= clock, "the header's times")
        if kind == 0:
            need(1 <= events + rejected <= min(65_536, following - first), "the header's counts")
        else:
            need(events == rejected == length == 0, "a batch without rows has some")
        need(first == self.watermark and before == self.check, "it does not follow the batch before")
        body = self.data[at + 96:at + 96 + length]
        need(len(body) == length and check(body) == body_check, "the body's check")
        if kind == 0:
            yield from self.records(Reader(body, at), first, following, events, rejected)
        else:
            yield ["position" if kind == 1 else "gap", first, following]
        self.batches += 1
        self.place, self.watermark, self.check = at + 96 + length, following, own

    def records(self, body, first, following, event_count, rejected_count):
        if count := body.u32():
            numbers = body.column(count)
            for number, user in zip(numbers, body.ids(count)):
                if number in self.users or not 0 <= number < 2**32 - 1:
                    body.fail("a user number")
                self.users[number] = user
        sources = [None]
        if count := body.u32():
            for length in body.column(count):
                if not 0 <= length <= 32:
                    body.fail("a source's length")
                sources.append(body.text(length))
        literals = iter(body.ids(count) if (count := body.u32()) else ())
        rows = []
        if event_count:
            kinds, skips, stamps, users, steps, days = (body.column(event_count) for _ in range(6))
            if any(kinds):
                raise Stopped("newer", body.at, "a row kind")
            unit = body.u8()
            if unit >= len(UNITS):
                body.fail("a unit of time")
            times, places = body.column(event_count), body.column(event_count)
            for index in range(event_count):
                user = next(literals, None) if users[index] == 0 else self.users.get(users[index] - 1)
                if user is None or not 0 <= places[index] < len(sources):
                    body.fail("a user or a source that is not there")
                rows.append(["event", first + skips[index] + index, stamps[index], user, steps[index], days[index],
                             times[index] * UNITS[unit], sources[places[index]], None])
        if next(literals, None) is not None:
            body.fail("a literal is left")
        if count := body.u32():
            indices, lengths = body.column(count), body.column(count)
            if indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < event_count or min(lengths) < 1:
                body.fail("kept payloads")
            for index, length in zip(indices, lengths):
                rows[index][8] = body.take(length).hex()
        if rejected_count:
            places, stamps, reasons, codes = (body.column(rejected_count) for _ in range(4))
            for place, stamp, reason, code in zip(places, stamps, reasons, codes):
                if not 0 <= reason < len(REASONS):
                    raise Stopped("newer", body.at, f"reason {reason}")
                if code < 0:
                    body.fail("a payload's length")
                rows.append(["rejected", first + place, stamp, REASONS[reason], body.take(code - 1).hex() if code else None])
        if body.place != len(body.data):
            body.fail("bytes are left")
        for part in (rows[:event_count], rows[event_count:]):
            offsets = [row[1] for row in part]
            if offsets != sorted(offsets):
                body.fail("offsets do not rise")
        rows.sort(key=lambda row: row[1])
        offsets = [row[1] for row in rows]
        if len(set(offsets)) != len(offsets) or offsets[0] < first or offsets[-1] >= following:
            body.fail("offsets")
        yield from rows


def as_object(row):
    if row[0] == "event":
        names = ("offset", "timestamp", "user", "steps", "day", "nanoseconds", "source", "payload")
    elif row[0] == "rejected":
        names = ("offset", "timestamp", "reason", "payload")
    else:
        names = ("first", "next")
    return {"kind": row[0]} | dict(zip(names, row[1:]))


def open_segment(path):
    data = path.read_bytes()
    return Segment(*unseal(data)) if path.suffix == ".lz4" else Segment(data)


def segments_of(path):
    if not path.is_dir():
        return [path]
    # Of a segment in both forms, the sealed one.
    found = {name[1]: path / name[0] for entry in sorted(path.iterdir()) if (name := NAME.fullmatch(entry.name))}
    return [found[base] for base in sorted(found)]


def read_vectors():
    passed = failed = 0
    for path in sorted((pathlib.Path(__file__).parent / "vectors" / "log").glob("*.hex")):
        values, digits = {}, ""
        for line in path.read_text().splitlines():
            if match := re.fullmatch(r"(\w+) = (.*)", line):
                values[match[1]] = json.loads(match[2])
            elif not line.startswith("#"):
                digits += line
        rows, ends, at = [], "whole", None
        try:
            data = bytes.fromhex(digits)
            for row in (Segment(*unseal(data)) if values["form"] == "sealed" else Segment(data)).rows():
                rows.append(row)
        except Stopped as stopped:
            ends, at = stopped.word, stopped.at
        found = {"rows": rows, "ends": ends} | ({} if at is None else {"at": at})
        expected = {name: values.get(name) for name in ("rows", "ends", "at") if name in values}
        if found == expected:
            passed += 1
        else:
            failed += 1
            print(f"failed: {path.name}: found {str(found)[:400]}, expected {str(expected)[:400]}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=pathlib.Path)
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--vectors", action="store_true")
    options = parser.parse_args()
    if options.vectors:
        return read_vectors()
    code, end, before = 0, None, 0
    for path in [segment for given in options.paths for segment in segments_of(given)]:
        rows = 0
        try:
            segment = open_segment(path)
            if end not in (None, segment.base) or segment.check_before not in (0, before):
                print(f"{path}: does not follow the segment before, which ends at {end}", file=sys.stderr)
                code = 1
            for row in segment.rows():
                rows += 1
                if not options.verify:
                    print(json.dumps(as_object(row), ensure_ascii=False))
            end, before = segment.watermark, segment.check
            if options.verify:
                print(f"{path}: {segment.base}..{segment.watermark}, {segment.batches} batches, {rows} rows")
        except Stopped as stopped:
            print(f"{path}: {stopped}, after {rows} rows", file=sys.stderr)
            code, end = 1, None
    return code


if __name__ == "__main__":
    sys.exit(main())
