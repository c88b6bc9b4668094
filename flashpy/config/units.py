"""Sizes and times as people write them. Values only: used when a configuration is read or shown.

A size is a whole number of bytes, `512`, or a text with a unit, "64KiB" (1024) or "64KB" (1000).
Bare letters ("64k", "64M") are refused: half of all servers mean 1000 by them and half 1024.
A time is a number of seconds, `10` or `0.5`, or a text with a unit, "500ms", "10s", "2m", "1h".
Both are exact: 0.1 s written as "100ms" is the same float.
"""

import math
import re

# More than any file or memory has; also keeps absurdly long numbers away from int().
LARGEST_SIZE = 2**63 - 1
# 100 years: beyond it a time is a mistake, and adding it to a clock stays exact enough.
LONGEST_TIME = 100 * 365.25 * 86400.0

SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
# unit -> (multiply by, divide by): dividing makes "1ms" the same float as 0.001.
TIME_UNITS = {"us": (1, 10**6), "ms": (1, 1000), "s": (1, 1), "m": (60, 1), "h": (3600, 1)}

_FOLDED_SIZE_UNITS = {name.lower(): factor for name, factor in SIZE_UNITS.items()}
_SIZE = re.compile(r"([0-9]{1,19}) ?([A-Za-z]*)", re.ASCII)
_TIME = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?) ?([a-z]*)", re.ASCII)


def parse_size(value: object) -> int:
    """The number of bytes that `value` means. Raises ValueError when it means none."""
    if isinstance(value, str):
        return _checked_size(_size_of_text(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return _checked_size(value)
    raise ValueError("not a size")


def parse_time(value: object) -> float:
    """The seconds that `value` means. Raises ValueError when it means none."""
    if isinstance(value, str):
        return _checked_time(_time_of_text(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _checked_time(value)
    raise ValueError("not a time")


def format_size(size: int) -> str:
    """`size` bytes in the largest binary unit that gives a whole number: 65536 is "64KiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return str(size)


def format_time(seconds: float) -> str:
    """`seconds` in the shortest exact form: "2m", "10s", "500ms", else the plain number."""
    if seconds == int(seconds):
        return _format_whole(int(seconds))
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 == seconds:
        return f"{milliseconds}ms"
    return repr(seconds)


def _format_whole(seconds: int) -> str:
    for unit, factor in (("h", 3600), ("m", 60)):
        if seconds and seconds % factor == 0:
            return f"{seconds // factor}{unit}"
    return f"{seconds}s"


def _size_of_text(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size")
    number, unit = match.groups()
    factor = _FOLDED_SIZE_UNITS.get(unit.lower() or "b")
    if factor is None:
        raise ValueError("not a unit of size")
    return int(number) * factor


def _time_of_text(text: str) -> float:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a time")
    number, unit = match.groups()
    if (unit or "s") not in TIME_UNITS:
        raise ValueError("not a unit of time")
    multiply, divide = TIME_UNITS[unit or "s"]
    return float(number) * multiply / divide


def _checked_size(size: int) -> int:
    if not 0 <= size <= LARGEST_SIZE:
        raise ValueError("size out of range")
    return size


def _checked_time(seconds: float) -> float:
    # An int may be too large for a float, so it is compared first. NaN fails the comparison too.
    if not 0 <= seconds <= LONGEST_TIME:
        raise ValueError("time out of range")
    return math.fabs(float(seconds))
