#!/usr/bin/env python3
"""Writes test input: step events of many users over several days, 1 % of them bad in every way there is.

Each line is `key<TAB>payload in hex (- for a null one)<TAB>record timestamp in ms[<TAB>partition]`, as `rmsbench kafka
--produce FILE` takes it; lines that begin with `!` are transaction commands (!begin, !commit, !abort). The same seed gives the
same bytes. Standard library only.
"""

import argparse
import datetime
import json
import random
import sys

DAY_MS = 86_400_000
UTC = datetime.timezone.utc
# Over the end of summer time in Europe (2026-10-25), the end of a week and of a month.
START_MS = int(datetime.datetime(2026, 10, 24, tzinfo=UTC).timestamp() * 1000)
SPAN_MS = 9 * DAY_MS
# With this as event.steps_max two reports overflow a total.
HEAVY_STEPS = 4_000_000_000


def user_text(index):
    """The id of a user: mostly UUIDs, some names, some numbers, some beyond ASCII."""
    kind = index % 20
    if kind < 17:
        # A whole 128-bit number from the index, the same every time.
        value = (index * 0x9E3779B97F4A7C15F39CC0605CEDC835 + 0x2545F4914F6CDD1D) % (1 << 128)
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    if kind == 17:
        return f"user-{index}"
    if kind == 18:
        return str(index * 7919)
    return f"läufer·{index}·🏃"[:40]


def stamp(rng, event_ms):
    """The event time in one of the accepted forms."""
    form = rng.random()
    moment = datetime.datetime.fromtimestamp(event_ms // 1000, UTC)
    if form < 0.70:
        return moment.strftime("%Y-%m-%d %H:%M:%S")
    if form < 0.78:
        return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{event_ms % 1000:03}"
    if form < 0.86:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    if form < 0.92:
        minutes = rng.choice([-720, -480, -210, 60, 120, 330, 540, 840])
        local = moment + datetime.timedelta(minutes=minutes)
        sign, size = "-" if minutes < 0 else "+", abs(minutes)
        colon = rng.choice(["", ":"])
        return local.strftime("%Y-%m-%dT%H:%M:%S") + f"{sign}{size // 60:02}{colon}{size % 60:02}"
    if form < 0.96:
        return event_ms // 1000
    return event_ms


def event(rng, user, steps, when):
    fields = [("uuid", user), ("steps", steps), ("timestamp", when)]
    if rng.random() < 0.1:
        fields.append(("source", rng.choice(["watch", 7, "ring"])))
    if rng.random() < 0.05:
        fields.append(("device", {"model": "x", "battery": [1, 2.5, None, True]}))
    if rng.random() < 0.1:
        rng.shuffle(fields)
    separators = (", ", ": ") if rng.random() < 0.2 else (",", ":")
    return json.dumps(dict(fields), separators=separators, ensure_ascii=rng.random() < 0.5).encode()


def bad(rng, user, event_ms):
    """A record that must not be counted; None is a null value. The recount decides the reason, not this."""
    when = datetime.datetime.fromtimestamp(event_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    good = event(rng, user, 5, when)
    quoted = json.dumps(user).encode()
    head = b'{"uuid":' + quoted + b',"steps":'
    tail = b',"timestamp":"' + when.encode() + b'"}'
    whole = head + b"5" + tail
    choices = [
        # malformed
        lambda: None,
        lambda: b"",
        lambda: b"\xef\xbb\xbf" + good,
        lambda: good[:-1],
        lambda: good + b" x",
        lambda: good.replace(b"{", b"[", 1),
        lambda: whole[:-1] + b',"note":"\xff\xfe"}',
        lambda: whole[:-1] + b',"note":"\\ud800"}',
        lambda: whole[:-1] + b',"deep":' + b"[" * 1100 + b"]" * 1100 + b"}",
        lambda: whole[:-1] + b',"big":18446744073709551616}',
        lambda: whole[:-1] + b',"huge":1e999}',
        lambda: whole[:-1] + b',"nan":NaN}',
        lambda: bytes(rng.randrange(256) for _ in range(rng.randrange(1, 120))),
        # repeated
        lambda: whole[:-1] + b',"steps":6}',
        lambda: whole[:-1] + b',"uu\\u0069d":"x"}',
        # missing
        lambda: b'{"steps":5' + tail,
        lambda: b"{}",
        lambda: head + b"5}",
        # type
        lambda: head + b'"5"' + tail,
        lambda: head + b"12.5" + tail,
        lambda: head + b"null" + tail,
        lambda: b'{"uuid":[1],"steps":5' + tail,
        lambda: whole[:-1] + b',"source":"' + b"s" * 33 + b'"}',
        # user
        lambda: b'{"uuid":"","steps":5' + tail,
        lambda: b'{"uuid":"' + b"u" * 65 + b'","steps":5' + tail,
        lambda: b'{"uuid":"a\\u0007b","steps":5' + tail,
        lambda: '{"uuid":"a\u0085b","steps":5'.encode() + tail,
        # steps
        lambda: head + b"-1" + tail,
        lambda: head + b"4294967296" + tail,
        # time
        lambda: head + b'5,"timestamp":"yesterday"}',
        lambda: head + b'5,"timestamp":"2026-02-30 00:00:00"}',
        lambda: head + b'5,"timestamp":"2026-10-25 23:59:60"}',
        lambda: head + b'5,"timestamp":-1}',
        # future, late
        lambda: event(rng, user, 5, event_ms // 1000 + 3 * 86_400),
        lambda: event(rng, user, 5, event_ms // 1000 - 30 * 86_400),
    ]
    return rng.choice(choices)()


def lines(events, users, seed, bad_share=0.01, heavy=True):
    """The records in order: key, payload (None is null), timestamp."""
    rng = random.Random(seed)
    for i in range(events):
        record_ms = START_MS + SPAN_MS * i // events
        index = int(users * rng.random() ** 2)
        user = user_text(index)
        event_ms = record_ms - int(rng.random() * 7_200_000)
        if rng.random() < 0.01:
            # Some come days late, but not too late.
            event_ms -= rng.randrange(7 * DAY_MS)
        if rng.random() < bad_share:
            yield str(index), bad(rng, user, event_ms), record_ms
            continue
        # Few distinct values, so that many users tie; 0 is a report too.
        steps = rng.choice([0, 1, 1, 10, 10, 50, rng.randrange(300)])
        if heavy and rng.random() < 0.0002:
            user, steps, index = f"heavy-{index % 7}", HEAVY_STEPS, f"heavy-{index % 7}"
        written = int(user) if user.isdigit() and rng.random() < 0.5 else user
        if rng.random() < 0.02:
            steps = rng.choice([float(steps), steps])
        yield str(index), event(rng, written, steps, stamp(rng, event_ms)), record_ms


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=72_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bad", type=float, default=0.01, help="share of bad records")
    parser.add_argument("--out", default="-")
    options = parser.parse_args()
    out = sys.stdout if options.out == "-" else open(options.out, "w")
    with out:
        for key, payload, record_ms in lines(options.events, options.users, options.seed, options.bad):
            out.write(f"{key}\t{'-' if payload is None else payload.hex()}\t{record_ms}\n")


if __name__ == "__main__":
    main()
