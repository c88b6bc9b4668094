"""TOML text -> Settings, or a ConfigError: where, and what was expected. Runs in the master.

In steps, each of which may assume the one before: read and parse (source), bring each value to its
plain form as its unit says (times to seconds, sizes to bytes, paths absolute), let msgspec check
types and bounds against the schema, check what spans keys (checks), settle what was left "auto".
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_origin

import msgspec

from flashpy.config import checks, passwords, schema
from flashpy.config.address import parse_address, parse_host, parse_proxy
from flashpy.config.explain import Kind, expected, fields_of, kind_at, shown, unknown_key
from flashpy.config.needs import most_blocks
from flashpy.config.schema import SOCKET_MODE, Listen, Server, Settings
from flashpy.config.source import ConfigError, Key, Source, dotted
from flashpy.config.units import format_size, parse_size, parse_time

Table = dict[str, Any]

# How msgspec ends a message: "... - at `$.site[0].root`".
_PLACE = re.compile(r" - at `(?:key in )?\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[([0-9]+)\]")
_MISSING = re.compile(r"missing required field `([^`]*)`")
_MODE = re.compile(r"(?:0o)?([0-7]{1,4})", re.ASCII)


def load(path: Path, *, listen: Sequence[str] = (), workers: int | None = None) -> Settings:
    """The settings of the file at `path`.

    `listen` and `workers`, when given, stand in for the file's; they are taken here rather than
    put in later, since `memory = "auto"` follows the workers. Raises ConfigError. Whether the
    roots are there is another question: roots.check_roots().
    """
    source = Source.read(path)
    base = Path(os.path.abspath(path)).parent
    return _settle(source.parse(), source, base, listen, workers)


def for_folder(folder: Path, *, listen: Sequence[str] = (), workers: int | None = None) -> Settings:
    """Defaults, and one site with `folder` as its root. Raises ConfigError as load() does."""
    tables = {"site": [{"root": os.path.abspath(folder)}]}
    return _settle(tables, Source(), Path.cwd(), listen, workers)


def _settle(tables: Table, source: Source, base: Path, listen: Sequence[str], workers: int | None) -> Settings:
    reader = _Reader(source, base)
    plain = reader.table((), tables, Settings)
    settings = reader.convert(plain, tables)
    server = _with_options(settings.server, listen, workers)
    settings = msgspec.structs.replace(settings, server=server)
    checks.check(settings, source)
    settings = passwords.with_users(settings, source)
    return _with_memory(settings, "memory" not in plain.get("cache", {}), source)


def _with_options(server: Server, listen: Sequence[str], workers: int | None) -> Server:
    """The [server] table with what the command line says instead."""
    if listen:
        server = msgspec.structs.replace(server, listen=_listen_option(listen))
    if workers is not None:
        try:
            workers = msgspec.convert(workers, schema.Workers)
        except msgspec.ValidationError:
            kind = kind_at(("server", "workers"))
            assert kind is not None
            words = f"expected {expected(kind._replace(unit=''))}, not {workers}"
            raise ConfigError("", 0, "--workers", words) from None
        server = msgspec.structs.replace(server, workers=workers)
    return server


def _listen_option(texts: Sequence[str]) -> tuple[Listen, ...]:
    """--listen. A relative path is under the current folder, as in any other command."""
    try:
        addresses = [parse_address(text, Path.cwd()) for text in texts]
    except ValueError as error:
        raise ConfigError("", 0, "--listen", str(error)) from None
    if len(set(addresses)) < len(addresses):
        raise ConfigError("", 0, "--listen", "the same address is given twice")
    return tuple(Listen(address=address) for address in addresses)


def _with_memory(settings: Settings, auto: bool, source: Source) -> Settings:
    """Settings whose memory is whole chunks, and no fewer than the helpers need."""
    cache, helpers = settings.cache, most_blocks(settings)
    memory = cache.memory // cache.chunk * cache.chunk
    if auto:
        memory = schema.auto_memory(settings.server.workers, cache.chunk, helpers)
    least = schema.least_chunks(helpers) * cache.chunk
    if memory < least:
        raise source.error(
            ("cache", "memory"),
            f"expected at least {format_size(least)} for each worker: {helpers + 2} chunks of "
            f"{format_size(cache.chunk)}, two more than the {helpers} of {_maxima(settings)}",
        )
    return msgspec.structs.replace(settings, cache=msgspec.structs.replace(cache, memory=memory))


def _maxima(settings: Settings) -> str:
    return "helpers.max" if most_blocks(settings) == settings.helpers.max else "helpers.max and heavy.max"


class _Reader:
    """Walks the tables beside the schema. Every problem is raised with the line it stands on."""

    def __init__(self, source: Source, base: Path) -> None:
        self.source = source
        self.base = base
        # Each gives the plain value (msgspec.UNSET: as if the key were not there) or raises
        # ValueError, and the schema says what was expected.
        self.units: dict[str, Callable[[Any], Any]] = {
            "time": parse_time,
            "size": parse_size,
            "memory": lambda value: msgspec.UNSET if value == "auto" else parse_size(value),
            "workers": lambda value: msgspec.UNSET if value == "auto" else value,
            "mode": _mode,
            "account": _account,
            "path": self._path,
            "path or empty": lambda value: value if value == "" else self._path(value),
            "path or nothing": lambda value: None if value == "" else self._path(value),
            "access log": lambda value: value if value in ("-", "off") else self._path(value),
            "error log": self._error_log,
        }
        # These say themselves what is wrong, and with which element.
        self.lists: dict[str, Callable[[Key, Any], Any]] = {
            "listen": self._listeners,
            "hosts": lambda key, value: self._texts(key, value, parse_host),
            "proxies": lambda key, value: self._texts(key, value, parse_proxy),
            "types": self._types,
            "texts": lambda _, value: [value] if isinstance(value, str) else value,
        }

    def table(self, key: Key, value: Any, struct: type[msgspec.Struct]) -> Table:
        """`value` with each member in its plain form."""
        if not isinstance(value, dict):
            raise self._unexpected(key, Kind(struct), value)
        fields = fields_of(struct)
        plain = {}
        for name, member in value.items():
            if name not in fields:
                words = unknown_key(name, struct, dotted(key))
                raise self.source.error((*key, name), words)
            plain[name] = self._member((*key, name), fields[name], member)
        return {name: member for name, member in plain.items() if member is not msgspec.UNSET}

    def convert(self, plain: Table, tables: Table) -> Settings:
        """Types and bounds. Raises ConfigError about the first wrong value, as in `tables`."""
        if not plain.get("site"):
            raise self.source.error((), "expected at least one site: [[site]] with its root")
        try:
            return msgspec.convert(plain, Settings)
        except msgspec.ValidationError as error:
            raise self._translated(str(error), tables) from None

    def _member(self, key: Key, kind: Kind, value: Any) -> Any:
        """One value: a table, an array of tables, one with a unit, or as it is."""
        if kind.unit in self.lists:
            return self.lists[kind.unit](key, value)
        if kind.unit:
            return self._with_unit(key, kind, value)
        if kind.table is not None:
            return self.table(key, value, kind.table)
        if kind.element is not None and kind.element.table is not None:
            return self._array(key, kind, value, kind.element.table)
        return value

    def _with_unit(self, key: Key, kind: Kind, value: Any) -> Any:
        try:
            return self.units[kind.unit](value)
        except ValueError:
            raise self._unexpected(key, kind, value) from None

    def _array(self, key: Key, kind: Kind, value: Any, struct: type[msgspec.Struct]) -> list[Table]:
        if not isinstance(value, list):
            raise self._unexpected(key, kind, value)
        return [self.table((*key, number), item, struct) for number, item in enumerate(value)]

    def _listeners(self, key: Key, value: Any) -> list[Table]:
        """Addresses as texts or tables; a single one needs no brackets."""
        if not isinstance(value, list):
            return [self._listener(key, value)]
        if not value:
            raise self.source.error(key, "expected at least one address")
        return [self._listener((*key, number), item) for number, item in enumerate(value)]

    def _listener(self, key: Key, value: Any) -> Table:
        plain = self.table(key, value, Listen) if isinstance(value, dict) else {"address": value}
        text = plain.get("address")
        if not isinstance(text, str):
            raise self.source.error(key, "expected an address as a text, or { address, mode, proxy_protocol }")
        try:
            plain["address"] = parse_address(text, self.base)
        except ValueError as error:
            raise self.source.error(key, str(error)) from None
        if "mode" in plain and not text.startswith("unix:"):
            raise self.source.error((*key, "mode"), "only a unix socket has a mode")
        return {"mode": SOCKET_MODE, **plain}

    def _texts(self, key: Key, value: Any, parse: Callable[[str], str]) -> Any:
        """Each text in its one form. What is not even a text is left for msgspec to refuse."""
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return value
        parsed = []
        for number, text in enumerate(value):
            try:
                parsed.append(parse(text))
            except ValueError as error:
                raise self.source.error((*key, number), str(error)) from None
        return parsed

    def _types(self, key: Key, value: Any) -> Any:
        """Extensions in lower case and without their dot, as the media table has them."""
        if not isinstance(value, dict):
            return value
        types = {}
        for name, kind in value.items():
            extension = name.removeprefix(".").lower()
            if extension in types:
                raise self.source.error((*key, name), "this extension is given twice")
            if not extension or "/" in extension:
                words = f'expected an extension such as "html", not {shown(name)}'
                raise self.source.error((*key, name), words)
            types[extension] = kind
        return types

    def _error_log(self, value: Any) -> str:
        if value == "off":
            raise ValueError("the error log cannot be off")
        return "-" if value == "-" else self._path(value)

    def _path(self, value: Any) -> str:
        """Absolute; a relative one is under the configuration's folder. `..` is kept: with
        symbolic links only the kernel knows where it leads."""
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("not a path")
        return str(self.base / value)

    def _unexpected(self, key: Key, kind: Kind, value: Any) -> ConfigError:
        return self.source.error(key, f"expected {expected(kind)}, not {shown(value)}")

    def _translated(self, words: str, tables: Table) -> ConfigError:
        """msgspec's complaint, about the value as the file has it and in the schema's words."""
        place = _PLACE.search(words)
        key: Key = tuple(name or int(number) for name, number in _STEP.findall(place[1] if place else ""))
        missing = _MISSING.search(words)
        if missing:
            return self.source.error((*key, missing[1]), "missing; it has no default")
        kind, value = kind_at(key), _value_at(tables, key)
        if kind is None:
            return self.source.error(key, words[: place.start()] if place else words)
        if get_origin(kind.type) is dict and isinstance(value, dict):
            name = next(name for name, text in value.items() if not isinstance(text, str))
            key, kind, value = (*key, name), Kind(str), value[name]
        return self._unexpected(key, kind, value)


def _value_at(tables: Table, key: Key) -> Any:
    value: Any = tables
    for part in key:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def _mode(value: Any) -> int:
    """Rights as a text, which is octal, or as a number, which TOML writes 0o666."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    match = _MODE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a mode")
    return int(match[1], 8)


def _account(value: Any) -> str | None:
    """A name, or an id as its digits; None for ""."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32 - 1:
        return str(value)
    if not isinstance(value, str) or not all(character.isprintable() for character in value):
        raise ValueError("not an account")
    return value or None
