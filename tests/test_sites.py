"""From Host to site, from path to root."""

import pytest

from flashpy.config import Mount, Settings, Site
from flashpy.http.status import Refusal
from flashpy.sites import Sites, normal_host

SETTINGS = Settings(
    site=(
        Site(root="/first", headers={"X-A": "1", "X-B": "\xe4"}),
        Site(
            hosts=("example.com", "www.example.com", "[::1]"),
            root="/second",
            charset="latin-1",
            types={"foo": "application/foo"},
            mount=(
                Mount(at="/img/", root="/images"),
                Mount(at="/img/big/", root="/big"),
                Mount(at="/\u00e4/", root="/umlaut"),
            ),
        ),
        Site(hosts=("third.example",), root="/third"),
    )
)


@pytest.fixture
def sites() -> Sites:
    return Sites(SETTINGS, [10, 20, 21, 22, 23, 30])


@pytest.mark.parametrize(
    ("host", "number"),
    [
        (b"example.com", 1),
        (b"EXAMPLE.com", 1),
        (b"example.com:8080", 1),
        (b"example.com.", 1),
        (b"example.com.:80", 1),
        (b"example.com:", 1),
        (b"www.example.com", 1),
        (b"[::1]", 1),
        (b"[::1]:80", 1),
        (b"third.example", 2),
        (b"other.example", 0),
        (b"com", 0),
        (b"xexample.com", 0),
        (b"127.0.0.1:80", 0),
    ],
)
def test_choose(sites: Sites, host: bytes, number: int) -> None:
    for _ in range(2):
        assert sites.choose(host).number == number


@pytest.mark.parametrize("host", [b"a b", b"a/b", b"a:b", b"a@b", b"[::1", b"a:99999", b"\xff", b"a\x00", b"[zz]"])
def test_a_malformed_host_is_refused_each_time(sites: Sites, host: bytes) -> None:
    for _ in range(2):
        with pytest.raises(Refusal) as problem:
            sites.choose(host)
        assert problem.value.status == 400


def test_what_is_remembered_of_hosts_is_bounded(sites: Sites) -> None:
    for n in range(10_000):
        assert sites.choose(b"host%d.example" % n).number == 0
    assert len(sites._remembered) <= 4096
    assert sites.choose(b"example.com").number == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"", (20, b"")),
        (b"a.html", (20, b"a.html")),
        (b"img/a.png", (21, b"a.png")),
        (b"img/", (21, b"")),
        (b"img", (20, b"img")),
        (b"img/big/a.png", (22, b"a.png")),
        (b"img/bigger", (21, b"bigger")),
        (b"image/a.png", (20, b"image/a.png")),
        ("\u00e4/x".encode(), (23, b"x")),
        (b"x/img/a.png", (20, b"x/img/a.png")),
    ],
)
def test_the_longest_mount_wins(sites: Sites, path: bytes, expected: tuple[int, bytes]) -> None:
    assert sites.all[1].locate(path) == expected


def test_a_mount_without_its_slash(sites: Sites) -> None:
    assert sites.all[1].is_mount_without_slash(b"img")
    assert sites.all[1].is_mount_without_slash(b"img/big")
    assert not sites.all[1].is_mount_without_slash(b"img/")
    assert not sites.all[0].is_mount_without_slash(b"img")


def test_fields_and_types(sites: Sites) -> None:
    assert sites.all[0].rules.ruling(b"any").fields == b"X-A: 1\r\nX-B: \xe4\r\n"
    assert sites.all[1].rules.ruling(b"any").fields == b""
    assert sites.all[1].media_type(b"a.foo") == b"application/foo"
    assert sites.all[1].media_type(b"a.html") == b"text/html; charset=latin-1"
    assert sites.all[2].media_type(b"a.html") == b"text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("host", "expected"), [(b"A.b", b"a.b"), (b"[::A]:1", b"[::a]"), (b"[::a]", b"[::a]"), (b"a.:1", b"a")]
)
def test_normal_host(host: bytes, expected: bytes) -> None:
    assert normal_host(host) == expected
