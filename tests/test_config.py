"""A configuration: what it means, and what a mistake in it is answered with."""

import os
import socket
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy.config import (
    ConfigError,
    Listen,
    Settings,
    Site,
    check_roots,
    for_folder,
    load,
    to_toml,
)
from flashpy.config.explain import Kind, fields_of
from flashpy.config.machine import usable_cores
from flashpy.config.schema import auto_memory
from flashpy.config.source import find_keys

SITE = '[[site]]\nroot = "www"\n'


class Folder:
    """A folder with one configuration in it, written anew for each load."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "site.toml"

    def load(self, text: str, **options: Any) -> Settings:
        self.file.write_text(text)
        return load(self.file, **options)

    def attempt(self, text: str) -> tuple[Settings | None, ConfigError | None]:
        try:
            return self.load(text), None
        except ConfigError as error:
            return None, error

    def refuse(self, text: str, **options: Any) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            self.load(text, **options)
        return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_only_a_root_is_needed(folder: Folder) -> None:
    settings = folder.load(SITE)
    assert settings == Settings(site=(Site(root=str(folder.path / "www")),))
    assert settings == for_folder(folder.path / "www")


def test_values_get_their_plain_form(folder: Folder) -> None:
    settings = folder.load(
        """
        [server]
        listen = ["0.0.0.0:080", "[0:0::1]:443", { address = "unix:run/s", mode = "0600" }]
        workers = 3
        pidfile = "run/pid"
        graceful_timeout = "500ms"
        [cache]
        memory = "64MiB"
        chunk = "64KiB"
        max_stale = 20
        [log]
        access = "log/access"
        error = "/var/log/flashpy"
        [[site]]
        hosts = ["Example.ORG.", "[::0:1]"]
        root = "../www"
        types = { ".MD" = "text/markdown", wasm = "application/wasm; a=b" }
        headers = { X-Frame-Options = "DENY" }
        [[site.mount]]
        at = "/files/"
        root = "/srv"
        """
    )
    base = str(folder.path)
    assert settings.server.listen == (
        Listen(address="0.0.0.0:80"),
        Listen(address="[::1]:443"),
        Listen(address=f"unix:{base}/run/s", mode=0o600),
    )
    assert settings.server.pidfile == f"{base}/run/pid"
    assert settings.server.graceful_timeout == 0.5
    assert (settings.cache.memory, settings.cache.chunk) == (64 << 20, 64 << 10)
    assert settings.cache.max_stale == 20.0
    assert (settings.log.access, settings.log.error) == (f"{base}/log/access", "/var/log/flashpy")
    site = settings.site[0]
    assert site.hosts == ("example.org", "[::1]")
    assert site.root == f"{base}/../www"
    assert site.types == {"md": "text/markdown", "wasm": "application/wasm; a=b"}
    assert (site.mount[0].at, site.mount[0].root) == ("/files/", "/srv")


def test_a_listener_knows_its_parts() -> None:
    four, six = Listen(address="localhost:80"), Listen(address="[::1]:443")
    unix = Listen(address="unix:/run/s")
    assert (four.family, four.host, four.port, four.path) == (
        socket.AF_INET,
        "localhost",
        80,
        None,
    )
    assert (six.family, six.host, six.port, six.path) == (socket.AF_INET6, "::1", 443, None)
    assert (unix.family, unix.host, unix.port, unix.path) == (socket.AF_UNIX, "", 0, "/run/s")


def test_settings_are_frozen(folder: Folder) -> None:
    settings = folder.load(SITE)
    with pytest.raises(AttributeError):
        settings.server.workers = 2  # type: ignore[misc]


def test_empty_texts_mean_none(folder: Folder) -> None:
    server = folder.load('[server]\nuser = ""\ngroup = ""\npidfile = ""\n' + SITE).server
    assert (server.user, server.group, server.pidfile) == (None, None, None)


@pytest.mark.parametrize("user", ["0", '"root"', '"0"'])
def test_accounts_are_names_or_ids(folder: Folder, user: str) -> None:
    server = folder.load(f"[server]\nuser = {user}\n{SITE}").server
    assert server.user == user.strip('"')


def test_a_single_address_needs_no_brackets(folder: Folder) -> None:
    server = folder.load('[server]\nlisten = "127.0.0.1:0"\n' + SITE).server
    assert server.listen == (Listen(address="127.0.0.1:0"),)


@pytest.mark.parametrize("mode", ['"0640"', '"640"', '"0o640"', "0o640", "416"])
def test_a_mode_is_octal_in_a_text(folder: Folder, mode: str) -> None:
    text = f'[server]\nlisten = [{{ address = "unix:s", mode = {mode} }}]\n{SITE}'
    assert folder.load(text).server.listen[0].mode == 0o640


def test_a_unix_socket_is_for_everyone_by_default(folder: Folder) -> None:
    assert folder.load('[server]\nlisten = ["unix:s"]\n' + SITE).server.listen[0].mode == 0o666


def test_trusted_proxies_have_one_form(folder: Folder) -> None:
    text = '[server]\ntrusted_proxies = ["10.0.0.0/8", "192.0.2.1", "2001:DB8:0::/32", "0::1", "::/0", "unix:"]\n'
    expected = ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1", "::/0", "unix:")
    assert folder.load(text + SITE).server.trusted_proxies == expected


def test_the_proxy_protocol_is_a_listeners_own(folder: Folder) -> None:
    introduced = [f'{{ address = "{address}", proxy_protocol = true }}' for address in ("a:1", "unix:s")]
    listeners = folder.load(f'[server]\nlisten = [{", ".join(introduced)}, "a:2"]\n{SITE}').server.listen
    assert [listen.proxy_protocol for listen in listeners] == [True, True, False]


def test_auto_follows_the_machine_and_the_workers(folder: Folder) -> None:
    text = '[server]\nworkers = "auto"\n[cache]\nmemory = "auto"\n' + SITE
    assert folder.load(text).server.workers == usable_cores()
    five = folder.load(text, workers=5)
    assert five.server.workers == 5
    assert five.cache.memory == auto_memory(5, 512 << 10, 16)


def test_memory_is_cut_to_whole_chunks(folder: Folder) -> None:
    settings = folder.load('[cache]\nmemory = "10000KB"\n' + SITE)
    assert settings.cache.memory == 10_000_000 // (512 << 10) * (512 << 10)


def test_the_command_line_goes_before_the_file(folder: Folder, tmp_path: Path) -> None:
    text = '[server]\nlisten = ["0.0.0.0:80"]\nworkers = 4\n[cache]\nmemory = "64MiB"\n' + SITE
    settings = folder.load(text, listen=["[::1]:0", "unix:/run/s"], workers=2)
    assert [listen.address for listen in settings.server.listen] == ["[::1]:0", "unix:/run/s"]
    assert settings.server.workers == 2
    assert settings.cache.memory == 64 << 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"listen": [":80"]}, '--listen: to listen on all addresses write "0.0.0.0:80" or'),
        ({"listen": ["[::1]:1", "[0::1]:1"]}, "--listen: the same address is given twice"),
        ({"workers": 0}, "--workers: expected a whole number from 1 to 1024"),
        ({"workers": 2000}, "--workers: expected a whole number from 1 to 1024"),
    ],
)
def test_a_bad_option_is_named(folder: Folder, options: dict[str, Any], message: str) -> None:
    assert str(folder.refuse(SITE, **options)).startswith(message)


# What stands in the file, the key, the line it is on, and words that must be in the message.
BAD = [
    ("[limits]\nheader_timout = 1", "limits.header_timout", 2, "did you mean 'header_timeout'?"),
    ("[limit]\nbody = 1", "limit", 1, "did you mean 'limits'?"),
    ("[server]\nmax_stale = 1", "server.max_stale", 2, "belongs to [cache]"),
    ("[server]\nqq = 1", "server.qq", 2, "the nearest known in [server] is"),
    ("zzz = 1", "zzz", 1, "the nearest known at the top is"),
    ("server = 1", "server", 1, "expected a table, not 1"),
    ("[[server]]", "server", 1, "expected a table, not an array"),
    ("[limits]\nheader_timeout = true", "limits.header_timeout", 2, "expected a time from 1ms"),
    ('[limits]\nheader_timeout = "10x"', "limits.header_timeout", 2, 'such as "10s", not "10x"'),
    ("[limits]\nheader_timeout = nan", "limits.header_timeout", 2, "expected a time"),
    ("[limits]\nheader_timeout = inf", "limits.header_timeout", 2, "expected a time"),
    ("[limits]\nheader_timeout = -1", "limits.header_timeout", 2, "expected a time"),
    ("[limits]\nheader_timeout = 0", "limits.header_timeout", 2, "from 1ms to 24h"),
    ("[limits]\nheader_timeout = 1979-05-27", "limits.header_timeout", 2, "not a date or time"),
    ('[limits]\nbody = "1MB"\nrequest_line = "1"', "limits.request_line", 3, "from 16 to 1MiB"),
    ("[limits]\nbody = 1.5", "limits.body", 2, "expected a size from 0 to 1TiB"),
    ("[limits]\nbody = false", "limits.body", 2, "expected a size"),
    ("[limits]\nheader_fields = true", "limits.header_fields", 2, "a whole number from 1 to 250"),
    ("[limits]\nheader_fields = 0", "limits.header_fields", 2, "a whole number from 1 to 250"),
    ('[limits]\nheader_fields = "9"', "limits.header_fields", 2, 'not "9"'),
    ("[limits]\nconnections = 1.0", "limits.connections", 2, "a whole number"),
    ("[limits]\nconnections = 99999999999999999999", "limits.connections", 2, "a whole number"),
    ("[limits]\nkeepalive_requests = -1", "limits.keepalive_requests", 2, "from 0"),
    (
        "[limits]\nrequest_line='64KiB'",
        "limits.request_line",
        2,
        "64KiB, is more than limits.header_bytes, 32KiB",
    ),
    ("[server]\nworkers = 0", "server.workers", 2, 'from 1 to 1024, or "auto", not 0'),
    ('[server]\nworkers = "many"', "server.workers", 2, 'or "auto", not "many"'),
    ("[server]\nworkers = true", "server.workers", 2, "not true"),
    ('[server]\nuser = "no such user"', "server.user", 2, "there is no user 'no such user'"),
    ("[server]\nuser = -1", "server.user", 2, "expected a name or an id, not -1"),
    ("[server]\nuser = true", "server.user", 2, "expected a name or an id, not true"),
    ("[server]\ngroup = 4294967294", "server.group", 2, "there is no group"),
    ("[server]\nlisten = []", "server.listen", 2, "at least one address"),
    ("[server]\nlisten = 80", "server.listen", 2, "an address as a text"),
    ('[server]\nlisten = [\n"a:1",\n":80"]', "server.listen[1]", 4, 'write "0.0.0.0:80"'),
    ('[server]\nlisten = ["*:80"]', "server.listen[0]", 2, 'write "0.0.0.0:80"'),
    ("[limits]\nclient_burst = 9", "limits.client_burst", 2, "means nothing without client_requests"),
    ('[server]\nlisten = ["::1"]', "server.listen[0]", 2, "needs brackets"),
    ('[server]\nlisten = ["[::1]"]', "server.listen[0]", 2, "has no port"),
    ('[server]\nlisten = ["[::g]:1"]', "server.listen[0]", 2, "is not an IPv6 address"),
    ('[server]\nlisten = ["1.2.3:1"]', "server.listen[0]", 2, "is not an IPv4 address"),
    ('[server]\nlisten = ["host"]', "server.listen[0]", 2, "has no port"),
    ('[server]\nlisten = ["host:65536"]', "server.listen[0]", 2, "from 0 to 65535"),
    ('[server]\nlisten = ["host:-1"]', "server.listen[0]", 2, "from 0 to 65535"),
    ('[server]\nlisten = ["ho st:1"]', "server.listen[0]", 2, "is not a host name"),
    ('[server]\nlisten = ["unix:"]', "server.listen[0]", 2, "the path of a socket"),
    (f'[server]\nlisten = ["unix:/{"x" * 107}"]', "server.listen[0]", 2, "107 bytes"),
    ('[server]\nlisten = ["a:1", "A:01"]', "server.listen[1]", 2, "given twice"),
    ("[server]\nlisten = [{ mode = 0o600 }]", "server.listen[0]", 2, "{ address, mode, proxy_protocol }"),
    ('[server]\nlisten = [{ address = "a:1", proxy_protocol = 1 }]', "server.listen[0].proxy_protocol", 2, "true or"),
    ('[server]\ntrusted_proxies = "::1"', "server.trusted_proxies", 2, "texts in brackets"),
    ("[server]\ntrusted_proxies = [1]", "server.trusted_proxies[0]", 2, "a text in quotes, not 1"),
    ('[server]\ntrusted_proxies = [\n"::1",\n"host"]', "server.trusted_proxies[1]", 4, 'such as "10.0.0.0/8"'),
    ('[server]\ntrusted_proxies = [""]', "server.trusted_proxies[0]", 2, "expected an address"),
    ('[server]\ntrusted_proxies = ["10.0.0.1/8"]', "server.trusted_proxies[0]", 2, 'the network is "10.0.0.0/8"'),
    ('[server]\ntrusted_proxies = ["10.0.0.0/33"]', "server.trusted_proxies[0]", 2, "expected an address"),
    ('[server]\ntrusted_proxies = ["10.0.0.0/"]', "server.trusted_proxies[0]", 2, "expected an address"),
    ('[server]\ntrusted_proxies = ["10.0.0.0/255.0.0.0"]', "server.trusted_proxies[0]", 2, "expected an address"),
    ('[server]\ntrusted_proxies = ["[::1]"]', "server.trusted_proxies[0]", 2, "expected an address"),
    ('[server]\ntrusted_proxies = ["10.0.0.1:80"]', "server.trusted_proxies[0]", 2, "expected an address"),
    ('[server]\ntrusted_proxies = ["fe80::1%a"]', "server.trusted_proxies[0]", 2, "expected an address"),
    ('[server]\ntrusted_proxies = ["::ffff:10.0.0.0/104"]', "server.trusted_proxies[0]", 2, "as the IPv4 address"),
    ('[server]\ntrusted_proxies = ["unix:/run/s"]', "server.trusted_proxies[0]", 2, '"unix:" alone'),
    ('[server]\ntrusted_proxies = ["::1", "0::1"]', "server.trusted_proxies[1]", 2, "given twice"),
    ('[server]\nlisten = [{ address = "a:1", mode = 0 }]', "server.listen[0].mode", 2, "only a"),
    ('[server]\nlisten = [{ address = "unix:s", mode = 666 }]', "server.listen[0].mode", 2, "to"),
    ('[server]\nlisten = [{ address = "unix:s", mode = "9" }]', "server.listen[0].mode", 2, "to"),
    ('[server]\nlisten = [{ address = "unix:s", mod = 1 }]', "server.listen[0].mod", 2, "'mode'"),
    ("[helpers]\nmin = 5\nmax = 4", "helpers.min", 2, "5, is more than helpers.max, 4"),
    ("[cache]\nmax_stale = 0", "cache.max_stale", 2, "cache.revalidate, 1s, is more than"),
    ("[limits]\nheader_bytes = 99", "limits.header_bytes", 2, "limits.request_line, 8KiB, is more"),
    ("[helpers]\nmax = 1", "helpers.max", 2, "from 2 to 256"),
    ("[cache]\nchunk = '100KiB'", "cache.chunk", 2, "expected a power of two, not 100KiB"),
    ("[cache]\nchunk = '32KiB'", "cache.chunk", 2, "from 64KiB to 4MiB"),
    ("[cache]\nrevalidate = '1m'", "cache.revalidate", 2, "1m, is more than cache.max_stale, 10s"),
    ("[cache]\nmemory = '1MiB'", "cache.memory", 2, "at least 9MiB for each worker: 18 chunks"),
    ("[cache]\nmemory = 'all'", "cache.memory", 2, 'such as "512MiB", or "auto", not "all"'),
    ("[cache]\nmemory = 0", "cache.memory", 2, "expected a size"),
    ("[cache]\nlock = 1", "cache.lock", 2, "expected true or false, not 1"),
    ('[log]\nlevel = "trace"', "log.level", 2, '"debug" or "info" or "warning" or "error"'),
    ('[log]\nerror = "off"', "log.error", 2, 'or "-" for standard error, not "off"'),
    ("[log]\naccess = false", "log.access", 2, '"-" for standard output, or "off"'),
    ('[log]\naccess = ""', "log.access", 2, "expected a path"),
]


@pytest.mark.parametrize(("text", "key", "line", "words"), BAD)
def test_a_mistake_is_reported_with_its_line_and_key(
    folder: Folder, text: str, key: str, line: int, words: str
) -> None:
    error = folder.refuse(f"{text}\n{SITE}")
    assert (error.file, error.key, error.line) == (str(folder.file), key, line)
    assert words in error.message
    assert str(error) == f"{folder.file}:{line}: {key}: {error.message}"


# The same within [[site]], whose second line has the root.
BAD_SITE = [
    ("hosts = 'a'", "site[0].hosts", 3, "expected texts in brackets"),
    ("hosts = ['a', 1]", "site[0].hosts[1]", 3, "expected a text in quotes, not 1"),
    ("hosts = ['a', 'a:80']", "site[0].hosts[1]", 3, "without port"),
    ("hosts = ['*.a']", "site[0].hosts[0]", 3, "is not a host name: name each host in full"),
    (
        "[[site.rule]]\nmatch = '/a'\nauth = 'users'",
        "site[0].rule[0].auth",
        5,
        "a table, { htpasswd = ..., realm = ... }",
    ),
    (
        "[[site.rule]]\nmatch = '/a'\nredirect = '/b'",
        "site[0].rule[0].redirect",
        5,
        "a table, { to = ..., status = ... }",
    ),
    ("hosts = ['müller.de']", "site[0].hosts[0]", 3, "xn--"),
    ("hosts = ['a', 'A']", "site[0].hosts[1]", 3, "already a host of site[0]"),
    ("index = ['a/b']", "site[0].index[0]", 3, "without slash"),
    ("index = ['']", "site[0].index[0]", 3, "without slash"),
    ("index = ['..']", "site[0].index[0]", 3, "without slash"),
    ("index = 'index.html'", "site[0].index", 3, "texts in brackets"),
    ("symlinks = 'yes'", "site[0].symlinks", 3, '"inside" or "deny" or "follow", not "yes"'),
    ("dotfiles = 0", "site[0].dotfiles", 3, "true or false"),
    ("charset = 'utf 8'", "site[0].charset", 3, "a name such as"),
    ("headers = { 'X Y' = 'a' }", 'site[0].headers."X Y"', 3, "not a field name"),
    ("[site.headers]\nX = 'a\\nb'".replace("'", '"'), "site[0].headers.X", 4, "one line"),
    ("headers.X = '\u00e9'", "site[0].headers.X", 3, "printable ASCII"),
    ("headers.X = ' a'", "site[0].headers.X", 3, "one line"),
    ("headers.X = 1", "site[0].headers.X", 3, "expected a text in quotes, not 1"),
    ("headers.Content-Length = '1'", "site[0].headers.Content-Length", 3, "sets this field itself"),
    ("headers.transfer-encoding = 'x'", "site[0].headers.transfer-encoding", 3, "sets this field"),
    ("headers.Connection = 'close'", "site[0].headers.Connection", 3, "sets this field"),
    ("headers.Date = 'now'", "site[0].headers.Date", 3, "sets this field"),
    ("headers.A = '1'\nheaders.a = '2'", "site[0].headers.a", 4, "given twice"),
    ("types.md = 'markdown'", "site[0].types.md", 3, "a media type such as"),
    ("types.md = 'a/b\\r\\nX: y'".replace("'", '"'), "site[0].types.md", 3, "a media type"),
    ("types.md = 'a/b'\ntypes.MD = 'a/b'", "site[0].types.MD", 4, "given twice"),
    ("[site.types]\n'.' = 'a/b'", 'site[0].types."."', 4, "an extension such as"),
    ("mount = 1", "site[0].mount", 3, "expected tables, each under its name in [[ ]], not 1"),
    ("[[site.mount]]\nat = '/a/'", "site[0].mount[0].root", 3, "missing"),
    ("[[site.mount]]\nat = 'a/'\nroot = 'r'", "site[0].mount[0].at", 4, 'such as "/files/"'),
    ("[[site.mount]]\nat = '/a'\nroot = 'r'", "site[0].mount[0].at", 4, 'such as "/files/"'),
    ("[[site.mount]]\nat = '/a/../'\nroot = 'r'", "site[0].mount[0].at", 4, 'such as "/files/"'),
    ("[[site.mount]]\nat = '//'\nroot = 'r'", "site[0].mount[0].at", 4, 'such as "/files/"'),
    ("[[site.mount]]\nat = '/'\nroot = 'r'", "site[0].mount[0].at", 4, "the site's own root"),
    ("mount=[{at='/a/', root='r'},\n{at='/a/', root='s'}]", "site[0].mount[1].at", 4, "twice"),
    ("[[site]]\nroot = 'r'", "site[1].hosts", 3, "only the first site"),
    ("[[site]]\nhosts = ['a']", "site[1].root", 3, "missing; it has no default"),
    (
        "hosts = ['b']\n[[site]]\nroot = 'r'\nhosts = ['a',\n 'B']",
        "site[1].hosts[1]",
        7,
        "already a host of site[0]",
    ),
]


@pytest.mark.parametrize(("text", "key", "line", "words"), BAD_SITE)
def test_a_mistake_in_a_site_is_reported_too(folder: Folder, text: str, key: str, line: int, words: str) -> None:
    error = folder.refuse(SITE + text)
    assert (error.key, error.line) == (key, line)
    assert words in error.message


ODD_VALUES = (
    "true",
    "0",
    "-1",
    "1.5",
    "nan",
    "-inf",
    "99999999999999999999",
    '""',
    '"x"',
    '"\\u0000"',
    "[]",
    "[1]",
    "[[]]",
    "[{}]",
    "{}",
    "{ a = 1 }",
    "1979-05-27",
)


def all_keys() -> list[tuple[str, Kind]]:
    """Each key of each table, dotted, as it may stand at the top of a file."""
    tables = {name: kind for name, kind in fields_of(Settings).items() if kind.table}
    keys = [
        (f"{name}.{key}", kind)
        for name, table in tables.items()
        if table.table
        for key, kind in fields_of(table.table).items()
    ]
    return keys + [(f"site.{key}", kind) for key, kind in fields_of(Site).items()]


@pytest.mark.parametrize(("key", "kind"), all_keys(), ids=[key for key, _ in all_keys()])
def test_an_odd_value_is_taken_or_refused_with_its_line(folder: Folder, key: str, kind: Kind) -> None:
    taken = 0
    for value in ODD_VALUES:
        text, line = f"{key} = {value}\n{SITE}", 1
        if key.startswith("site."):
            root = "" if key == "site.root" else 'root = "www"\n'
            text, line = f"[[site]]\n{key.removeprefix('site.')} = {value}\n{root}", 2
        settings, error = folder.attempt(text)
        if settings is None:
            assert error is not None
            assert error.line == line, (value, str(error))
            assert error.key.startswith(key.replace("site.", "site[0].")), (value, str(error))
        else:
            taken += 1
            assert value != "true" or kind.type is bool, "true is no number"
            assert folder.load(to_toml(settings)) == settings, value
    assert taken < len(ODD_VALUES)


@pytest.mark.parametrize("root", ['""', "1", '"a\\u0000b"', "true"])
def test_a_root_is_a_path(folder: Folder, root: str) -> None:
    error = folder.refuse(f"[[site]]\nroot = {root}\n")
    assert (error.key, error.line) == ("site[0].root", 2)
    assert error.message.startswith("expected the path of a folder, not")


@pytest.mark.parametrize("text", ["", "[server]\nworkers = 1\n", "site = []\n"])
def test_a_configuration_without_a_site_is_refused(folder: Folder, text: str) -> None:
    assert "at least one site" in folder.refuse(text).message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = \n", 2),
        ("a = 1\na = 2\n", 2),
        ('a = "unfinished', 1),
        ("[server\n", 1),
        ("x = [1,\n2\n\n", 2),
        ("\n\n= 1\n", 3),
    ],
)
def test_what_is_not_toml_is_reported_with_its_line(folder: Folder, text: str, line: int) -> None:
    error = folder.refuse(text)
    assert (error.line, error.key) == (line, "")
    assert error.message.startswith("not valid TOML: ")


def test_a_text_without_quotes_is_explained(folder: Folder) -> None:
    assert "a text needs quotes" in folder.refuse("[server]\nuser = www-data").message


def test_hostile_nesting_and_numbers_are_reported(folder: Folder) -> None:
    assert folder.refuse("x = " + "[" * 100_000).message == "nested too deeply"
    assert "not valid TOML" in folder.refuse("x = " + "9" * 10_000).message


def test_a_file_that_cannot_be_read_is_reported(folder: Folder) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: no such file"):
        load(folder.path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        load(folder.path)
    folder.file.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ConfigError, match=r"site\.toml:2: expected UTF-8 text"):
        load(folder.file)
    with pytest.raises(ConfigError, match="too large"):
        load(Path("/dev/zero"))


def test_lines_are_found_in_every_form_of_toml() -> None:
    text = '''# comment [x]
top = "a # b" # c
"quoted \\" key".'inner key' = 1
multi = """
[not.a.table]
\\""" still """"
lit = \'\'\'
x = 1
\'\'\'
[a . "b c"] # header
n = -1.5e3
d = 1979-05-27 07:32:00
list = [ # comment ]
  1, [2,
  3],
  { k = "]", m.n = [
    4 ] },
]
[[arr]]
v = 1
[arr.sub]
v = 2
[[arr]]
[[arr.in]]
v = 3
[[arr.in]]
v = 4
'''
    lines = find_keys(text)
    assert {key: lines[key] for key in lines if key[0] != "arr"} == {
        ("top",): 2,
        ('quoted " key',): 3,
        ('quoted " key', "inner key"): 3,
        ("multi",): 4,
        ("lit",): 7,
        ("a",): 10,
        ("a", "b c"): 10,
        ("a", "b c", "n"): 11,
        ("a", "b c", "d"): 12,
        ("a", "b c", "list"): 13,
        ("a", "b c", "list", 0): 14,
        ("a", "b c", "list", 1): 14,
        ("a", "b c", "list", 1, 0): 14,
        ("a", "b c", "list", 1, 1): 15,
        ("a", "b c", "list", 2): 16,
        ("a", "b c", "list", 2, "k"): 16,
        ("a", "b c", "list", 2, "m"): 16,
        ("a", "b c", "list", 2, "m", "n"): 16,
        ("a", "b c", "list", 2, "m", "n", 0): 17,
    }
    assert lines["arr", 0, "sub", "v"] == 22
    assert lines["arr", 1, "in", 0, "v"] == 25
    assert lines["arr", 1, "in", 1] == 26
    assert lines["arr", 1, "in", 1, "v"] == 27


def test_windows_line_ends_count_once(folder: Folder) -> None:
    folder.file.write_bytes(b'[[site]]\r\nroot = "w"\r\nbad = 1\r\n')
    with pytest.raises(ConfigError) as caught:
        load(folder.file)
    assert caught.value.line == 3


def test_a_byte_order_mark_is_passed_over(folder: Folder) -> None:
    folder.file.write_bytes(b'\xef\xbb\xbf[[site]]\nroot = "w"\n')
    assert load(folder.file).site[0].root.endswith("/w")


RICH = """
[server]
listen = ["0.0.0.0:80", { address = "unix:/run/s", mode = "0600" }, { address = "a:1", proxy_protocol = true }]
trusted_proxies = ["10.0.0.0/8", "2001:DB8::/32", "::1", "unix:"]
workers = 3
user = "root"
group = 0
pidfile = "p"
graceful_timeout = 1.25
[cache]
memory = "20000000"
[limits]
body = 0
idle_timeout = 0.0001e1
[log]
access = "off"
[[site]]
root = 'with "quotes" and \\ and \u007e'
index = []
[[site]]
root = "r"
hosts = ["a", "[::1]"]
headers = { X-A = 'say "hi"', "X.B" = "2" }
types = { tar = "application/x-tar", "a b" = "a/b" }
[[site.mount]]
at = "/f/"
root = "m"
[[site.mount]]
at = "/\u00e9/"
root = "n"
"""


def test_the_effective_settings_load_again_as_the_same(folder: Folder) -> None:
    settings = folder.load(RICH)
    assert folder.load(to_toml(settings)) == settings
    defaults = folder.load(SITE)
    assert folder.load(to_toml(defaults)) == defaults


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_path_survives_being_written(root: str) -> None:
    settings = Settings(site=(Site(root=root),))
    assert tomllib.loads(to_toml(settings))["site"][0]["root"] == root


def test_a_root_must_be_a_folder(folder: Folder) -> None:
    (folder.path / "www").mkdir()
    (folder.path / "file").touch()
    (folder.path / "good").mkdir()
    cases = {"good/x": "does not exist", "file": "is not a folder", "file/x": "does not exist"}
    for root, words in cases.items():
        settings = folder.load(f'{SITE}[[site.mount]]\nat = "/m/"\nroot = "{root}"\n')
        with pytest.raises(ConfigError) as caught:
            check_roots(settings, folder.file)
        error = caught.value
        assert (error.key, error.line) == ("site[0].mount[0].root", 5)
        assert error.message == f"{folder.path / root} {words}"
    check_roots(folder.load(SITE), folder.file)


def test_a_missing_root_of_the_command_line_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_roots(for_folder(tmp_path / "absent"))
    assert str(caught.value) == f"{tmp_path / 'absent'} does not exist"


def test_a_root_must_be_readable_by_the_workers(folder: Folder) -> None:
    text, by = SITE, ""
    if os.geteuid() == 0:  # who may read everything, so the workers run as another
        text, by = f'[server]\nuser = "nobody"\n{SITE}', " (by the user nobody)"
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are for one user only
        os.chmod(name, 0o755)
        root = Path(name, "www")
        root.mkdir(mode=0o755)
        settings = folder.load(text.replace('"www"', f'"{root}"'))
        check_roots(settings)
        root.chmod(0o000)
        with pytest.raises(ConfigError) as caught:
            check_roots(settings)
    assert str(caught.value) == f"{root} cannot be read: permission denied{by}"
