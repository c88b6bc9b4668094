"""Accept-Encoding against RFC 9110, section 12.5.3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.http.negotiation import BR, CODINGS, GZIP, IDENTITY, ZSTD, preference, prefers_json
from flashpy_helpers import wire


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (IDENTITY,)),
        (b"", (IDENTITY,)),
        (b"gzip", (GZIP, IDENTITY)),
        (b"GZip", (GZIP, IDENTITY)),
        (b"x-gzip", (GZIP, IDENTITY)),
        (b"gzip, deflate, br, zstd", (BR, ZSTD, GZIP, IDENTITY)),
        (b"gzip;q=1.0, br;q=0.8", (GZIP, BR, IDENTITY)),
        (b"gzip;q=0.8, br;q=0.9, zstd;q=0.85", (BR, ZSTD, GZIP, IDENTITY)),
        (b"gzip;q=0", (IDENTITY,)),
        (b"gzip;q=0.000", (IDENTITY,)),
        (b"gzip;q=0.001", (GZIP, IDENTITY)),
        (b"*", (BR, ZSTD, GZIP, IDENTITY)),
        (b"*;q=0", ()),
        (b"identity;q=0", ()),
        (b"identity;q=0, gzip", (GZIP,)),
        (b"*;q=0, gzip", (GZIP,)),
        (b"*;q=0, identity;q=0.5", (IDENTITY,)),
        (b"*;q=0.5, br;q=0", (ZSTD, GZIP, IDENTITY)),
        (b"identity, gzip;q=0.5", (IDENTITY, GZIP)),
        (b"gzip;q=0.5, identity;q=0.5", (GZIP, IDENTITY)),
        (b"deflate", (IDENTITY,)),
        (b"gzip ; q=0.5 , br; Q=0.2", (GZIP, BR, IDENTITY)),
        (b"gzip;q=2", (IDENTITY,)),
        (b"gzip;q=-1", (IDENTITY,)),
        (b"gzip;q=0.1234", (IDENTITY,)),
        (b"gzip;q=", (IDENTITY,)),
        (b"gzip;level=9", (IDENTITY,)),
        (b"gzip br", (IDENTITY,)),
        (b",,gzip,,", (GZIP, IDENTITY)),
        (b"gzip;q=1.5, br", (BR, IDENTITY)),
        (b"gzip;q=0, gzip", (GZIP, IDENTITY)),
    ],
)
def test_what_is_offered(value: bytes | None, expected: tuple[int, ...]) -> None:
    assert tuple(preference(value)) == expected


def test_the_numbers_are_those_of_the_helpers() -> None:
    assert (BR, ZSTD, GZIP, IDENTITY) == (wire.BR, wire.ZSTD, wire.GZIP, wire.IDENTITY)


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (None, False),
        (b"*/*", False),
        (b"application/json", True),
        (b"application/json, */*", False),
        (b"application/json, text/html", False),
        (b"application/json, text/html;q=0.9", True),
        (b"application/*;q=0.9, text/*;q=0.8, application/json;q=0.1", False),
        (b"application/*;q=0.9, text/*;q=0.8, application/json;q=0.85", True),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        (b"application/json;q=0", False),
        (b"Application/JSON;q=0.5, */*;q=0.1", True),
        (b"application/vnd.json", False),
    ],
)
def test_json_for_who_prefers_it(value: bytes | None, json: bool) -> None:
    assert prefers_json(value) is json


@given(st.binary())
def test_no_value_is_an_error(value: bytes) -> None:
    found = preference(value)
    assert len(set(found)) == len(found)
    assert set(found) <= {BR, ZSTD, GZIP, IDENTITY}


WEIGHTS = st.integers(0, 1000)


@given(st.dictionaries(st.sampled_from(list(CODINGS.values())), WEIGHTS))
def test_the_order_is_that_of_the_weights(weights: dict[bytes, int]) -> None:
    value = b", ".join(b"%b;q=%d.%03d" % (name, *divmod(weight, 1000)) for name, weight in weights.items())
    found = preference(value)
    listed = [weights[CODINGS[number]] for number in found if CODINGS[number] in weights]
    assert listed == sorted(listed, reverse=True)
    assert 0 not in listed
    assert (IDENTITY in found) == (weights.get(b"identity", 1) > 0)
