"""The rules by which a record becomes a step event, written a second time.

Independent of the Swift sources: written from the design's sections on input, time and day alone, with Python's own
`json` and `zoneinfo`. Recounts and checks lean on it. Standard library only.
"""

import datetime
import json
import math
import re
import sys
import zoneinfo

REASONS = ("malformed", "repeated", "missing", "type", "user", "steps", "time", "future", "late", "overflow")
KNOWN = ("uuid", "steps", "timestamp", "source")
DEPTH_MAX = 1024

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_TEXT_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:(Z)|([+-])([0-9]{2})(?::?([0-9]{2}))?)?"
)
# The Gregorian calendar, weekdays included, repeats after 400 years.
_CYCLE_DAYS = 146_097
_CYCLE_YEARS = 400


class _Members(list):
    """A JSON object as its members in order, so that repeated keys stay visible."""


class _Bad(Exception):
    pass


def _integer(text):
    value = int(text) if len(text) <= 40 else 1 << 70
    if not -(2**63) <= value < 2**64:
        raise _Bad
    return value


def _real(text):
    value = float(text)
    if math.isinf(value):
        raise _Bad
    return value


def _constant(_):
    raise _Bad


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Members, parse_int=_integer, parse_float=_real, parse_constant=_constant
)


def _nesting(text):
    """Deepest nesting of a text that is valid JSON."""
    depth = deepest = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text, re.DOTALL):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _has_lone_surrogate(value):
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            if any("\ud800" <= character <= "\udfff" for character in value):
                return True
        elif isinstance(value, _Members):
            for key, member in value:
                pending += (key, member)
        elif isinstance(value, list):
            pending += value
    return False


def parse(payload):
    """The members of a record's object; None if it is malformed."""
    if not payload:
        return None
    try:
        text = payload.decode("utf-8")
        if text.startswith("\ufeff") or _nesting(text) > DEPTH_MAX:
            return None
        value = _DECODER.decode(text)
    except (_Bad, ValueError, RecursionError):
        return None
    if not isinstance(value, _Members) or _has_lone_surrogate(value):
        return None
    return value


def _control(character):
    return ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F


def _day_number(date):
    return date.toordinal() - 719_163


def day_name(number):
    """The name of a day, counted from 1970-01-01; goes beyond the year 9999."""
    cycles = 0
    while number > 2_900_000:
        number -= _CYCLE_DAYS
        cycles += 1
    date = datetime.date.fromordinal(number + 719_163)
    return f"{date.year + cycles * _CYCLE_YEARS:04}-{date.month:02}-{date.day:02}"


class _Time:
    """A timestamp: local seconds and nanoseconds as written, and the offset in seconds or None."""

    def __init__(self, local, nanosecond, offset):
        self.local, self.nanosecond, self.offset = local, nanosecond, offset


def _number_time(value):
    milliseconds = abs(value) >= 1e11 if isinstance(value, float) else abs(value) >= 10**11
    whole = math.floor(value)
    if milliseconds:
        seconds, rest = divmod(whole, 1000)
        nanosecond = rest * 1_000_000 + int((value - whole) * 1_000_000)
    else:
        seconds = whole
        nanosecond = int((value - whole) * 1_000_000_000)
    # 1970-01-01 to the end of 9999.
    return _Time(seconds, nanosecond, 0) if 0 <= seconds < 253_402_300_800 else None


def _text_time(text):
    match = _TEXT_TIME.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    if not 1970 <= year <= 9999 or hour > 23 or minute > 59 or second > 59:
        return None
    try:
        number = _day_number(datetime.date(year, month, day))
    except ValueError:
        return None
    offset = None
    if match[8]:
        offset = 0
    elif match[9]:
        minutes = int(match[11] or 0)
        offset = (int(match[10]) * 60 + minutes) * 60
        if minutes > 59 or offset > 14 * 3600:
            return None
        if match[9] == "-":
            offset = -offset
    nanosecond = int((match[7] or "").ljust(9, "0"))
    return _Time(number * 86_400 + hour * 3600 + minute * 60 + second, nanosecond, offset)


class Rules:
    """What a cluster's settings make of a record."""

    def __init__(self, zone="UTC", accept_late_days=8, future_slack_s=600, steps_max=100_000):
        self.zone = None if zone == "event" else zoneinfo.ZoneInfo(zone)
        self.accept_late_ms = accept_late_days * 86_400_000
        self.future_slack_ms = future_slack_s * 1000
        self.steps_max = steps_max

    # Seconds in and out; far years are moved into Python's range by whole cycles of the calendar.

    def _shift(self, seconds):
        cycles = 0
        while seconds > 253_000_000_000:
            seconds -= _CYCLE_DAYS * 86_400
            cycles += 1
        return seconds, cycles

    def _offset_at(self, instant):
        shifted, _ = self._shift(instant)
        moment = _EPOCH + datetime.timedelta(seconds=shifted)
        return int(moment.astimezone(self.zone).utcoffset().total_seconds())

    def _instant(self, local):
        """A local time's instant: the first if it occurs twice, shifted forward if it is skipped (fold = 0)."""
        shifted, _ = self._shift(local)
        naive = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=shifted)
        offset = naive.replace(tzinfo=self.zone, fold=0).utcoffset()
        return local - int(offset.total_seconds())

    def place(self, time):
        """Instant, day number and the day's end, in seconds."""
        if self.zone is None:
            offset = time.offset or 0
            day = time.local // 86_400
            return time.local - offset, day, (day + 1) * 86_400 - offset
        instant = self._instant(time.local) if time.offset is None else time.local - time.offset
        day = (instant + self._offset_at(instant)) // 86_400
        return instant, day, self._instant((day + 1) * 86_400)

    def judge(self, payload, kafka_timestamp_ms, clock_ms):
        """("ok", user, steps, day, instant in ns) or (reason,). The clock includes the record's own timestamp."""
        clock = clock_ms if kafka_timestamp_ms is None else max(clock_ms, kafka_timestamp_ms)
        members = parse(payload)
        if members is None:
            return ("malformed",)
        values = {}
        for key, value in members:
            if key in KNOWN:
                values.setdefault(key, []).append(value)
        if any(len(found) > 1 for found in values.values()):
            return ("repeated",)
        if any(key not in values for key in ("uuid", "steps", "timestamp")):
            return ("missing",)
        user, steps, stamp = (values[key][0] for key in ("uuid", "steps", "timestamp"))
        source = values.get("source", [0])[0]
        if (
            type(user) not in (str, int)
            or type(steps) not in (int, float)
            or (type(steps) is float and not steps.is_integer())
            or type(stamp) not in (str, int, float)
            or type(source) not in (str, int)
            or (type(source) is str and len(source.encode()) > 32)
        ):
            return ("type",)
        user = str(user)
        if not 1 <= len(user.encode()) <= 64 or any(map(_control, user)):
            return ("user",)
        steps = int(steps)
        if not 0 <= steps <= self.steps_max:
            return ("steps",)
        time = _text_time(stamp) if type(stamp) is str else _number_time(stamp)
        if time is None:
            return ("time",)
        instant, day, day_end = self.place(time)
        instant_ns = instant * 1_000_000_000 + time.nanosecond
        if instant_ns > (clock + self.future_slack_ms) * 1_000_000:
            return ("future",)
        if clock - day_end * 1000 > self.accept_late_ms:
            return ("late",)
        return ("ok", user, steps, day_name(day), instant_ns)


if sys.getrecursionlimit() < 10_000:
    sys.setrecursionlimit(10_000)
