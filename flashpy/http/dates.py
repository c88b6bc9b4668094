"""Dates as HTTP writes and reads them (worker; the log stamp serves the master too).

All times are whole seconds since 1970, UTC. Names of days and months are constants: strftime
would ask the locale. A date that is not exactly one of the three forms of RFC 9110, section
5.6.7, is no date, and the field that carries it is ignored.
"""

import re
import time
from datetime import date
from typing import Final

_DAYS: Final = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_LONG_DAYS: Final = (
    b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday", b"Sunday",
)  # fmt: skip
_MONTHS: Final = (
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
)  # fmt: skip
_MONTH_NUMBERS: Final = {name: number for number, name in enumerate(_MONTHS, 1)}

# The first and the last second with a year of four digits: what a file's mtime may exceed.
FIRST: Final = -62135596800
LAST: Final = 253402300799

_EPOCH: Final = date(1970, 1, 1).toordinal()

_DAY = b"(?:%b)" % b"|".join(_DAYS)
_LONG_DAY = b"(?:%b)" % b"|".join(_LONG_DAYS)
_MONTH = b"(?P<month>%b)" % b"|".join(_MONTHS)
_TIME = rb"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_IMF_FIXDATE = re.compile(rb"%b, (?P<day>[0-9]{2}) %b (?P<year>[0-9]{4}) %b GMT" % (_DAY, _MONTH, _TIME))
_RFC_850 = re.compile(rb"%b, (?P<day>[0-9]{2})-%b-(?P<year>[0-9]{2}) %b GMT" % (_LONG_DAY, _MONTH, _TIME))
_ASCTIME = re.compile(rb"%b %b (?P<day>[0-9]{2}| [0-9]) %b (?P<year>[0-9]{4})" % (_DAY, _MONTH, _TIME))


def format_date(seconds: int) -> bytes:
    """The IMF-fixdate of a time in seconds; years outside 1 to 9999 are clamped."""
    t = time.gmtime(min(max(seconds, FIRST), LAST))
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        _DAYS[t.tm_wday], t.tm_mday, _MONTHS[t.tm_mon - 1], t.tm_year,
        t.tm_hour, t.tm_min, t.tm_sec,
    )  # fmt: skip


def format_log_time(seconds: int) -> bytes:
    """The stamp of an access log line, in UTC: `23/Nov/2026:10:00:00 +0000`."""
    t = time.gmtime(min(max(seconds, FIRST), LAST))
    return b"%02d/%b/%04d:%02d:%02d:%02d +0000" % (
        t.tm_mday, _MONTHS[t.tm_mon - 1], t.tm_year, t.tm_hour, t.tm_min, t.tm_sec,
    )  # fmt: skip


def parse_date(value: bytes, now: int) -> int | None:
    """The seconds that an HTTP-date names, or None when it is not a valid one.

    `now` (seconds) settles the century of an RFC 850 date. The name of the day must be a name of
    a day; whether it is the right one is not looked at, as the grammar does not ask for it.
    """
    found = _IMF_FIXDATE.fullmatch(value) or _RFC_850.fullmatch(value) or _ASCTIME.fullmatch(value)
    if found is None:
        return None
    year, month, day = int(found["year"]), _MONTH_NUMBERS[found["month"]], int(found["day"])
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"])
    if found.re is _RFC_850:
        year = _full_year((year, month, day, hour, minute, second), now)
    try:
        days = date(year, month, day).toordinal() - _EPOCH
    except ValueError:  # 31 February, or year 0
        return None
    return days * 86400 + hour * 3600 + minute * 60 + second


def _full_year(stamp: tuple[int, int, int, int, int, int], now: int) -> int:
    """A year of two digits: in this century unless that is more than 50 years in the future."""
    current = time.gmtime(now)
    year = current.tm_year - current.tm_year % 100 + stamp[0]
    return year - 100 if (year, *stamp[1:]) > (current.tm_year + 50, *current[1:6]) else year
