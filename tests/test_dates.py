"""HTTP-dates and the stamp of the access log."""

from calendar import timegm
from datetime import UTC, datetime
from email.utils import formatdate
from time import asctime, gmtime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpy.http.dates import FIRST, LAST, format_date, format_log_time, parse_date

NOW = timegm((2026, 11, 23, 10, 0, 0))
EXAMPLE = 784111777  # the time of the examples in RFC 9110, section 5.6.7
SECONDS = st.integers(FIRST, LAST)


def test_the_three_forms_of_the_rfc_are_one_time() -> None:
    assert parse_date(b"Sun, 06 Nov 1994 08:49:37 GMT", NOW) == EXAMPLE
    assert parse_date(b"Sunday, 06-Nov-94 08:49:37 GMT", NOW) == EXAMPLE
    assert parse_date(b"Sun Nov  6 08:49:37 1994", NOW) == EXAMPLE


def test_format_is_the_example_of_the_rfc() -> None:
    assert format_date(EXAMPLE) == b"Sun, 06 Nov 1994 08:49:37 GMT"


def test_log_time() -> None:
    assert format_log_time(NOW) == b"23/Nov/2026:10:00:00 +0000"


@given(SECONDS)
@settings(deadline=None)
def test_format_and_parse_are_inverse(seconds: int) -> None:
    assert parse_date(format_date(seconds), NOW) == seconds


@given(st.integers(0, LAST))
@settings(deadline=None)
def test_format_agrees_with_the_email_package(seconds: int) -> None:
    assert format_date(seconds) == formatdate(seconds, usegmt=True).encode()


@given(st.integers(0, LAST))
@settings(deadline=None)
def test_asctime_is_read(seconds: int) -> None:
    # Only the C locale writes this, and nothing in the tests sets another.
    assert parse_date(asctime(gmtime(seconds)).encode(), NOW) == seconds


@given(SECONDS)
@settings(deadline=None)
def test_log_time_is_read_back_by_strptime(seconds: int) -> None:
    stamp = datetime.strptime(format_log_time(seconds).decode(), "%d/%b/%Y:%H:%M:%S %z")
    assert stamp - datetime.fromtimestamp(0, UTC) == datetime.fromtimestamp(seconds, UTC) - datetime.fromtimestamp(
        0, UTC
    )


@pytest.mark.parametrize("seconds", [FIRST - 1, -(1 << 63), LAST + 1, 1 << 63])
def test_times_beyond_four_digits_of_year_are_clamped(seconds: int) -> None:
    limit = FIRST if seconds < 0 else LAST
    assert format_date(seconds) == format_date(limit)
    assert format_log_time(seconds) == format_log_time(limit)


@pytest.mark.parametrize(
    ("two_digits", "year"),
    [(b"94", 1994), (b"26", 2026), (b"00", 2000), (b"75", 2075), (b"77", 1977), (b"99", 1999)],
)
def test_rfc_850_year_is_at_most_50_years_ahead(two_digits: bytes, year: int) -> None:
    expected = timegm((year, 11, 6, 8, 49, 37))
    assert parse_date(b"Sunday, 06-Nov-%b 08:49:37 GMT" % two_digits, NOW) == expected


def test_rfc_850_rule_is_exact_to_the_second() -> None:
    assert parse_date(b"Monday, 23-Nov-76 10:00:00 GMT", NOW) == timegm((2076, 11, 23, 10, 0, 0))
    assert parse_date(b"Monday, 23-Nov-76 10:00:01 GMT", NOW) == timegm((1976, 11, 23, 10, 0, 1))


def test_leap_second_is_the_next_second() -> None:
    after = timegm((2017, 1, 1, 0, 0, 0))
    assert parse_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW) == after


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0",
        b"now",
        b"784111777",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 31 Feb 1994 08:49:37 GMT",
        b"Sun, 29 Feb 1900 08:49:37 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"sun, 06 nov 1994 08:49:37 gmt",
        b"Son, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Okt 1994 08:49:37 GMT",
        b"Sun,  06 Nov 1994 08:49:37 GMT",
        b" Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT ",
        b"Sun, 06 Nov 1994 08:49:37 GMT\n",
        b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06-Nov-94 08:49:37 GMT",
        b"Sunday, 06-Nov-1994 08:49:37 GMT",
        b"Sunday, 06 Nov 1994 08:49:37 GMT",
        b"Sun Nov 6 08:49:37 1994",
        b"Sun Nov  6 08:49:37 94",
        b"1994-11-06T08:49:37Z",
        "Sun, 0٦ Nov 1994 08:49:37 GMT".encode(),
    ],
)
def test_anything_else_is_no_date(value: bytes) -> None:
    assert parse_date(value, NOW) is None


@given(
    st.lists(
        st.sampled_from(
            [
                b"Sun",
                b"Sunday",
                b", ",
                b"06",
                b" 6",
                b"31",
                b"-Feb-",
                b" Nov ",
                b"00",
                b"1994",
                b" ",
                b"08:49:37",
                b"23:59:60",
                b" GMT",
                b"\0",
                b"\xff",
            ]
        )
    ).map(b"".join)
    | st.binary(),
    st.integers(0, 1 << 34),
)
@settings(deadline=None, max_examples=300)
def test_nothing_raises(value: bytes, now: int) -> None:
    seconds = parse_date(value, now)
    assert seconds is None or FIRST <= seconds <= LAST + 1
