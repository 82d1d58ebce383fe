#!/usr/bin/env python3
"""Compares the decoder with the independent rules of step_rules.py, record by record.

usage: check_rules.py [--rmsbench PATH] [--count N] [--seed S]

Generated and mutated records, several zones, clocks near the event; exits 1 at the first differences.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import tempfile
import zoneinfo

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import step_rules

ROOT = pathlib.Path(__file__).resolve().parents[2]
ZONES = (
    "UTC", "event", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia",
    "America/St_Johns", "America/Sao_Paulo", "Africa/Casablanca", "Antarctica/Troll", "Africa/Monrovia",
    "America/Nuuk", "Etc/GMT-14",
)
VALUES = (
    "null", "true", "false", "0", "-0", "-1", "1", "12.0", "1e2", "12.5", "-0.0", "-0.5", "1e400", "1e-400", "100000",
    "100001", "99999.9999999999999", "18446744073709551615", "18446744073709551616", "-9223372036854775808",
    "-9223372036854775809", "01", "1.", ".5", "+1", "1E+2", "1795500000.25", "1795500000123.75", "99999999999",
    "100000000000", "99999999999.5", "-100000000000", "-0.5", "253402300799", "253402300800", "253402300799999",
    "253402300800000", "[]", "{}", '[1,{"a":[]}]', '{"uuid":1}', '""', r'"\u0000"', r'"\ud800"', r'"\ud83d\ude00"',
    r'"\udc00"', r'"\ude00\ud83d"', r'"a\nb"', r'"a\"b"', r'"\u0085"', '"\u0085"', '"\u00a0"', '"é"', r'"\/"', r'"\x"', r'"\u12g4"',
    '"u1"', '"' + "x" * 32 + '"', '"' + "x" * 33 + '"', '"' + "é" * 16 + '"', '"' + "é" * 32 + '"', '"' + "é" * 33 + '"',
    '"2026-11-24 10:00:00"', r'"2026-11-2\u0034 10:00:00"', '"2026-02-29 10:00:00"', '"2024-02-29 10:00:00"',
    "Infinity", "-Infinity", "NaN", "tru", "'a'", "5e-324", "1.7976931348623158e308", "1.7976931348623159e308",
    "0e99999999999999999999", "1e99999999999999999999", "123456789012345678901234567890.0", '"\x7f"', '"\t"', "\ufeff1",
)
KEYS = ("uuid", "steps", "timestamp", "source", r"\u0075uid", r"step\u0073", r"sourc\u0065", "UUID", "uuid ", "", "x")
OFFSETS = ("", "", "", "", "Z", "+01:00", "-05:00", "+0530", "-14", "+14:00", "-14:00", "+14:01", "+1:00", "z", "-00:00",
           "+15", "+01:60", " Z", "+01:", "Z0", "+01:000")
FRACTIONS = ("", "", "", ".5", ".000000001", ".999999999", ".1234567890", ".", ",5", ".5 ")
SPACES = ("", "", "", " ", "\n", "\t", "\r", "  ", "\f", "\u00a0")


class Source:
    def __init__(self, rng, zone):
        self.rng = rng
        # Instants at which clocks change: where rules of time go wrong.
        self.moments = [1_795_521_600, 0, 253_402_300_799]
        if zone != "event":
            info = step_rules.Rules(zone)
            step = 86_400 * 5
            last = info._offset_at(0)
            for instant in range(0, 4_102_444_800, step):
                offset = info._offset_at(instant)
                if offset != last:
                    low, high = instant - step, instant
                    while high - low > 1:
                        middle = (low + high) // 2
                        low, high = (middle, high) if info._offset_at(middle) == last else (low, middle)
                    self.moments += [high, high]
                last = offset

    def user(self):
        rng = self.rng
        digits = "".join(rng.choice("0123456789abcdef") for _ in range(32))
        uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        return rng.choice((
            uuid, uuid, uuid, uuid, uuid, uuid, uuid, uuid, "walker-7", uuid.upper(), uuid + "-", uuid[:-1], "u%d" % rng.randrange(10**6), "x" * rng.randrange(68),
            "é" * rng.randrange(30, 35), "日本", "a\u0300", "\u00a0", "\u009f"))

    def time(self, moment):
        rng = self.rng
        kind = rng.randrange(12)
        if kind == 0:
            return str(moment)
        if kind == 1:
            return str(moment * 1000 + rng.randrange(1000))
        if kind == 2:
            return "%d.%s" % (moment, rng.choice(("0", "5", "25", "123456789", "9999999999", "000001")))
        # Any civil time near the moment: as an offset of up to 14 hours from it.
        local = max(0, moment + rng.randrange(-50_400, 50_401) * rng.choice((0, 1)) + rng.randrange(-7200, 7200))
        day, second = divmod(local, 86_400)
        date = step_rules.day_name(day)
        clock = "%02d:%02d:%02d" % (second // 3600, second // 60 % 60, second % 60)
        if kind == 3:
            date = rng.choice(("1969-12-31", "1970-01-01", "9999-12-31", "2026-02-30", "2026-13-01", "2026-00-10",
                               "2000-02-29", "2100-02-29", "2026-1-01", "２026-11-24", "0000-01-01"))
        if kind == 4:
            clock = rng.choice(("24:00:00", "23:59:60", "23:60:00", "1:00:00", "10:00", "23:59:59", "00:00:00"))
        if kind > 7:
            separator, fraction, offset = rng.choice(" T"), rng.choice(FRACTIONS[:6]), rng.choice(OFFSETS[:11])
        else:
            separator, fraction, offset = rng.choice("  TTTt"), rng.choice(FRACTIONS), rng.choice(OFFSETS)
        return '"%s%s%s%s%s"' % (date, separator, clock, fraction, offset)

    def usual(self, moment):
        gap = self.rng.choice(("", " "))
        source = self.rng.choice(("", "", ',%s"source":%s"phone"' % (gap, gap), ',%s"source":%s17' % (gap, gap)))
        return '{"uuid":%s"%s",%s"steps":%s%d,%s"timestamp":%s%s%s}' % (
            gap, self.user(), gap, gap, self.rng.choice((self.rng.randrange(5_000),) * 12 + (0, 100_000, 100_001)), gap, gap,
            self.time(moment), source)

    def odd(self, moment):
        rng = self.rng
        members = [("uuid", '"%s"' % self.user()), ("steps", str(rng.randrange(20_000))), ("timestamp", self.time(moment))]
        for _ in range(rng.randrange(3)):
            members.append((rng.choice(KEYS), rng.choice(VALUES)))
        if rng.randrange(2):
            index = rng.randrange(3)
            members[index] = (members[index][0], rng.choice(VALUES))
        if rng.randrange(10) == 0:
            del members[rng.randrange(len(members))]
        if rng.randrange(2):
            rng.shuffle(members)
        spaces = SPACES if rng.randrange(4) == 0 else ("",) if rng.randrange(2) else SPACES[:8]
        gap = lambda: rng.choice(spaces)
        body = ",".join('%s"%s"%s:%s%s%s' % (gap(), key, gap(), gap(), value, gap()) for key, value in members)
        return gap() + "{" + body + "}" + gap()

    def deep(self, moment):
        rng = self.rng
        levels = 1024 + rng.choice((-2, -1, 0, 1))
        opening = "".join(rng.choice(("[", '{"a":')) for _ in range(levels - 1))
        inner = rng.choice(("1", '"]"', "[]", "{}"))
        closing = "".join("]" if c == "[" else "}" for c in reversed(opening.replace('{"a":', "{")))
        return self.usual(moment)[:-1] + ',"x":' + opening + inner + closing + "}"

    def mutated(self, record):
        rng = self.rng
        for _ in range(rng.randrange(1, 4)):
            if not record:
                break
            place = rng.randrange(len(record))
            kind = rng.randrange(6)
            byte = bytes([rng.choice(b"\x00\t\n\x1f \",-.019:\\]{}[e\x7f\x80\xc2\xef\xff")])
            if kind == 0:
                record = record[:place] + record[place + 1:]
            elif kind == 1:
                record = record[:place] + byte + record[place:]
            elif kind == 2:
                record = record[:place] + byte + record[place + 1:]
            elif kind == 3:
                record = record[:place] + bytes([rng.randrange(256)]) + record[place + 1:]
            elif kind == 4:
                record = record[:place] + record[place:place + 9] + record[place:]
            elif rng.randrange(4) == 0:
                record = record[:place]
        return record

    def record(self):
        """A payload and a shard clock."""
        rng = self.rng
        moment = rng.choice(self.moments) + rng.choice((0, -1, 1, rng.randrange(-5000, 5000), rng.randrange(-10**6, 10**6)))
        moment = min(max(0, moment), 253_402_300_799)
        kind = rng.randrange(10)
        text = self.deep(moment) if rng.randrange(200) == 0 else self.usual(moment) if kind < 6 else self.odd(moment)
        payload = text.encode("utf-8", "surrogatepass")
        if kind in (0, 6):
            payload = self.mutated(payload)
        if rng.randrange(500) == 0:
            payload = rng.choice((b"", b" ", b"{}", b"[]", b"null", b"\xef\xbb\xbf" + payload, payload + b"\n", payload + b"\x00"))
        clock = moment * 1000 + rng.choice((
            0, 0, 0, 3_600_000, 86_400_000, 8 * 86_400_000, 9 * 86_400_000, 9 * 86_400_000 + 1, -600_000, -600_001,
            -599_999, rng.randrange(-10**6, 9 * 86_400_000), -1 - moment * 1000))
        if rng.randrange(300) == 0:
            clock = rng.choice((2**63 - 1, -(2**63), 0))
        return payload, clock


def line(outcome):
    if outcome[0] != "ok":
        return outcome[0]
    _, user, steps, day, instant = outcome
    return "ok %s %d %s %d" % (user.encode().hex(), steps, day, instant)


def check(program, zone, count, seed):
    rng = random.Random("%s %d" % (zone, seed))
    source = Source(rng, zone)
    settings = dict(accept_late_days=rng.choice((8, 8, 0, 400)), future_slack_s=rng.choice((600, 600, 0, 10**9)),
                    steps_max=rng.choice((100_000, 100_000, 5_000, 4_294_967_295)))
    rules = step_rules.Rules(zone, **settings)
    records = [source.record() for _ in range(count)]
    with tempfile.NamedTemporaryFile("w", suffix=".records") as file:
        for payload, clock in records:
            file.write("%s %d\n" % (payload.hex() or "-", clock))
        file.flush()
        answer = subprocess.run(
            [program, "decode", "--judge", file.name, "--day-zone", zone, "--accept-late", str(settings["accept_late_days"]),
             "--future-slack", str(settings["future_slack_s"]), "--steps-max", str(settings["steps_max"])],
            capture_output=True, text=True)
    if answer.returncode != 0:
        print(answer.stderr, file=sys.stderr)
        sys.exit(1)
    found = answer.stdout.splitlines()
    if len(found) != count:
        sys.exit("%s: %d answers to %d records" % (zone, len(found), count))
    seen, wrong = {}, 0
    for (payload, clock), got in zip(records, found):
        wanted = line(rules.judge(payload, None, clock))
        seen[wanted.split()[0]] = seen.get(wanted.split()[0], 0) + 1
        if got != wanted:
            wrong += 1
            if wrong <= 5:
                print("day.zone %s, seed %d, clock %d, %r:\n  rules    %s\n  decoder  %s" % (zone, seed, clock, payload, wanted, got))
    print("%-20s %6d records  %s" % (zone, count, " ".join("%s %d" % item for item in sorted(seen.items()))))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rmsbench", default=str(ROOT / ".build/release/rmsbench"))
    parser.add_argument("--count", type=int, default=21_000, help="records over all zones")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    each = max(1, options.count // len(ZONES))
    wrong = sum(check(options.rmsbench, zone, each, options.seed) for zone in ZONES)
    if wrong:
        sys.exit("%d records differ" % wrong)
    print("no difference")


if __name__ == "__main__":
    main()
