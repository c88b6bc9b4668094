"""Conditional requests in the order of RFC 9110, section 13.2.2."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpy.http.conditional import Decision, decide
from flashpy.http.dates import format_date

NOW = 1_800_000_000
MTIME = NOW - 86400
SIZE = 1000
ETAG = b'"5f0-3e8"'
WEAK = b"W/" + ETAG
SAME, BEFORE, AFTER = format_date(MTIME), format_date(MTIME - 1), format_date(MTIME + 1)
FUTURE = format_date(NOW + 86400)
WHOLE = Decision(200, ())
TEN = Decision(206, ((0, 10),))


def result(
    fields: dict[bytes, bytes] | None,
    method: bytes = b"GET",
    etag: bytes = ETAG,
    mtime: int = MTIME,
    size: int = SIZE,
    now: int = NOW,
) -> Decision:
    return decide(method, fields, etag=etag, mtime=mtime, size=size, now=now)


def status(**fields: bytes) -> int:
    return result({name.replace("_", "-").encode(): value for name, value in fields.items()}).status


def test_no_condition_is_the_whole_file() -> None:
    assert result({}) == WHOLE
    assert result(None) == WHOLE


@pytest.mark.parametrize(
    "tags",
    [ETAG, WEAK, b"*", b'"a", ' + ETAG, ETAG + b', "a"', b'"a",' + WEAK + b',"b"',
     b'"a,b" , ' + ETAG, b",, " + ETAG, b"\t" + ETAG + b" ", b"unquoted, " + ETAG,
     b'W/"a", W/"b",\t' + ETAG],
)  # fmt: skip
def test_if_none_match_that_matches(tags: bytes) -> None:
    assert status(if_none_match=tags) == 304


@pytest.mark.parametrize(
    "tags",
    [b'"a"', b"", b" ", b",", b"5f0-3e8", b'"5f0-3e8', b'5f0-3e8"', b'w/"5f0-3e8"', b'W/ "5f0-3e8"',
     b'"x"5f0-3e8""', b'"5f0-3e8"x', b'"a" "5f0-3e8"', b'"a, ' + ETAG + b', b"', b"**", b'*, "a"',
     b'"a", *', b"'5f0-3e8'", b'"5F0-3E8"', b'"5f0-3e8 "', b'""', b'"\x00", ' + ETAG[:-1],
     b'x"y, ' + ETAG, b'"', b'"5f0-3e8\\""', b'W/W/"5f0-3e8"'],
)  # fmt: skip
def test_if_none_match_that_does_not(tags: bytes) -> None:
    assert status(if_none_match=tags) == 200


def test_if_none_match_compares_a_weak_tag_of_ours_too() -> None:
    assert result({b"if-none-match": ETAG}, etag=WEAK).status == 304
    assert result({b"if-none-match": WEAK}, etag=WEAK).status == 304
    assert result({b"if-none-match": b'W/"x"'}, etag=WEAK).status == 200


def test_tag_with_a_comma_is_one_tag() -> None:
    assert result({b"if-none-match": b'"x", "a,b"'}, etag=b'"a,b"').status == 304
    assert result({b"if-none-match": b'"a,b"'}, etag=b'"a"').status == 200
    assert result({b"if-none-match": b'"a, "b", c"'}, etag=b'"b"').status == 200


@pytest.mark.parametrize("tags", [ETAG, b"*", b'"a", ' + ETAG, ETAG + b"," + b'"a"'])
def test_if_match_that_matches(tags: bytes) -> None:
    assert status(if_match=tags) == 200


@pytest.mark.parametrize("tags", [b'"a"', WEAK, b"", b"garbage", b'"a", ' + WEAK, b'*, "a"', b'"'])
def test_if_match_that_does_not(tags: bytes) -> None:
    assert status(if_match=tags) == 412


def test_if_match_never_matches_a_weak_tag_of_ours() -> None:
    assert result({b"if-match": WEAK}, etag=WEAK).status == 412
    assert result({b"if-match": ETAG}, etag=WEAK).status == 412
    assert result({b"if-match": b"*"}, etag=WEAK).status == 200


@pytest.mark.parametrize(
    ("date", "expected"),
    [(SAME, 304), (AFTER, 304), (FUTURE, 304), (BEFORE, 200), (b"yesterday", 200), (b"", 200),
     (SAME + b", " + SAME, 200), (b"0", 200)],
)  # fmt: skip
def test_if_modified_since(date: bytes, expected: int) -> None:
    assert status(if_modified_since=date) == expected


def test_if_modified_since_in_the_older_forms() -> None:
    fields = {b"if-modified-since": b"Sunday, 06-Nov-94 08:49:37 GMT"}
    assert result(fields, mtime=784111777).status == 304
    assert result(fields, mtime=784111778).status == 200
    fields = {b"if-modified-since": b"Sun Nov  6 08:49:37 1994"}
    assert result(fields, mtime=784111777).status == 304


@pytest.mark.parametrize(
    ("date", "expected"),
    [(SAME, 200), (AFTER, 200), (FUTURE, 200), (BEFORE, 412), (b"yesterday", 200), (b"", 200)],
)
def test_if_unmodified_since(date: bytes, expected: int) -> None:
    assert status(if_unmodified_since=date) == expected


def test_tags_take_the_place_of_dates() -> None:
    assert status(if_none_match=b'"a"', if_modified_since=FUTURE) == 200
    assert status(if_none_match=b"", if_modified_since=FUTURE) == 200
    assert status(if_none_match=ETAG, if_modified_since=BEFORE) == 304
    assert status(if_match=ETAG, if_unmodified_since=BEFORE) == 200
    assert status(if_match=b'"a"', if_unmodified_since=FUTURE) == 412


def test_412_goes_before_304_and_206() -> None:
    assert status(if_match=b'"a"', if_none_match=ETAG) == 412
    assert status(if_unmodified_since=BEFORE, if_none_match=ETAG) == 412
    assert status(if_match=ETAG, if_none_match=ETAG) == 304
    assert status(if_match=b'"a"', range=b"bytes=0-9") == 412
    assert status(if_none_match=ETAG, range=b"bytes=0-9") == 304
    assert status(if_none_match=ETAG, range=b"bytes=5000-") == 304


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"bytes=0-9", TEN),
        (b"bytes=-1", Decision(206, ((999, 1000),))),
        (b"bytes=0-9,500-", Decision(206, ((0, 10), (500, 1000)))),
        (b"bytes=1000-", Decision(416, ())),
        (b"bytes=9-0", WHOLE),
        (b"lines=0-9", WHOLE),
        (b"bytes=0-9, bytes=20-29", WHOLE),
    ],
)
def test_range(value: bytes, expected: Decision) -> None:
    assert result({b"range": value}) == expected


@pytest.mark.parametrize(
    ("validator", "expected"),
    [
        (ETAG, TEN),
        (SAME, TEN),
        (b"Sunday, 01-Jan-00 00:00:00 GMT", WHOLE),
        (WEAK, WHOLE),
        (b'"a"', WHOLE),
        (b'"a", ' + ETAG, WHOLE),
        (b"*", WHOLE),
        (b"", WHOLE),
        (BEFORE, WHOLE),
        (AFTER, WHOLE),
        (FUTURE, WHOLE),
    ],
)
def test_if_range(validator: bytes, expected: Decision) -> None:
    assert result({b"range": b"bytes=0-9", b"if-range": validator}) == expected


def test_if_range_without_a_range_is_nothing() -> None:
    assert result({b"if-range": ETAG}) == WHOLE


def test_if_range_that_fails_hides_a_bad_range() -> None:
    assert result({b"range": b"bytes=5000-", b"if-range": b'"a"'}) == WHOLE
    assert result({b"range": b"bytes=5000-", b"if-range": ETAG}).status == 416


def test_if_range_never_trusts_a_weak_tag_of_ours() -> None:
    for validator in (ETAG, WEAK):
        fields = {b"range": b"bytes=0-9", b"if-range": validator}
        assert result(fields, etag=WEAK) == WHOLE


def test_if_range_trusts_a_date_only_when_its_second_is_over() -> None:
    fields = {b"range": b"bytes=0-9", b"if-range": format_date(NOW)}
    assert result(fields, mtime=NOW) == WHOLE
    assert result(fields, mtime=NOW, now=NOW + 1) == TEN


def test_head_ignores_range_and_heeds_the_rest() -> None:
    assert result({b"range": b"bytes=0-9"}, b"HEAD") == WHOLE
    assert result({b"range": b"bytes=5000-"}, b"HEAD") == WHOLE
    assert result({b"if-none-match": ETAG}, b"HEAD").status == 304
    assert result({b"if-match": b'"a"'}, b"HEAD").status == 412


def test_options_heeds_nothing() -> None:
    fields = {b"if-match": b'"a"', b"if-none-match": b"*", b"range": b"bytes=0-9"}
    assert result(fields, b"OPTIONS") == WHOLE


def test_empty_file() -> None:
    assert result({b"range": b"bytes=0-"}, size=0).status == 416
    assert result({b"range": b"bytes=-5"}, size=0) == WHOLE


VALUES = (
    st.lists(
        st.sampled_from(
            [
                ETAG,
                WEAK,
                b'"a"',
                b'"a,b"',
                b"*",
                b",",
                b", ",
                b'"',
                b"W/",
                b"x",
                b" ",
                SAME,
                BEFORE,
                AFTER,
                b"bytes=",
                b"0-9",
                b"500-",
                b"-",
                b"\xff",
                b"\0",
            ]
        ),
        max_size=6,
    ).map(b"".join)
    | st.binary()
)
NAMES = (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range",
         b"range")  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.sampled_from([b"GET", b"HEAD"]))
@settings(deadline=None, max_examples=400)
def test_every_decision_has_its_cause(fields: dict[bytes, bytes], method: bytes) -> None:
    decision = result(fields, method)
    has: Callable[..., bool] = lambda *names: any(name in fields for name in names)  # noqa: E731
    causes = {
        200: True,
        206: method == b"GET" and has(b"range"),
        416: method == b"GET" and has(b"range"),
        304: has(b"if-none-match", b"if-modified-since"),
        412: has(b"if-match", b"if-unmodified-since"),
    }
    assert causes[decision.status]
    assert bool(decision.spans) == (decision.status == 206)


@given(VALUES)
@settings(deadline=None, max_examples=300)
def test_a_tag_that_is_not_there_never_matches(tags: bytes) -> None:
    strange = b'"never-sent"'
    expected = tags == b"*"
    assert (result({b"if-none-match": tags}, etag=strange).status == 304) == expected
    assert (result({b"if-match": tags}, etag=strange).status == 200) == expected


@given(st.lists(st.sampled_from([b'"a"', b'W/"b"', b'"c,d"', b'""', b'"\xe4"']), max_size=5),
       st.integers(0, 5), st.sampled_from([b",", b", ", b" ,\t", b",,"]))  # fmt: skip
@settings(deadline=None)
def test_a_tag_is_found_anywhere_in_a_good_list(others: list[bytes], at: int, comma: bytes) -> None:
    tags = comma.join([*others[:at], ETAG, *others[at:]])
    assert status(if_none_match=tags) == 304
    assert status(if_match=tags) == 200
    assert status(if_none_match=comma.join(others)) == 200
