"""Settings -> TOML that gives the same Settings again: what `flashpy config` prints. Values only.

Every key is written, also those that have their default: whoever asks wants to see what holds.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from flashpy.config.explain import Kind, fields_of
from flashpy.config.schema import Listen, Settings
from flashpy.config.source import dotted
from flashpy.config.units import format_size, format_time


def to_toml(settings: Settings) -> str:
    """The whole of `settings` as a configuration file."""
    return "\n".join(_table("", settings)).strip("\n") + "\n"


def _table(name: str, table: msgspec.Struct) -> Iterator[str]:
    """The lines of one table: its own values first, since TOML ends a table at the next header."""
    later = []
    for key, kind in fields_of(type(table)).items():
        value = getattr(table, key)
        if value is None and kind.table is not None:
            continue
        if _has_header(kind):
            later.append((f"{name}.{key}" if name else key, value))
        else:
            yield f"{key} = {_value(kind, value)}"
    for inner, value in later:
        yield from _headed(inner, value)


def _has_header(kind: Kind) -> bool:
    """Whether it has a [header] of its own. An empty array of tables is not written at all."""
    tables = kind.element is not None and kind.element.table not in (None, Listen)
    return kind.table is not None or tables


def _headed(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, msgspec.Struct):
        yield from ("", f"[{name}]")
        yield from _table(name, value)
    else:
        for element in value:
            yield from ("", f"[[{name}]]")
            yield from _table(name, element)


def _value(kind: Kind, value: Any) -> str:
    if isinstance(value, Listen):
        return _listen(value)
    if kind.unit == "time":
        text = format_time(value)
        return _text(text) if text[-1].isalpha() else text
    if kind.unit in ("size", "memory"):
        return _text(format_size(value))
    return _plain(kind, value)


def _plain(kind: Kind, value: Any) -> str:
    if isinstance(value, tuple):
        inner = kind.element or kind
        return "[" + ", ".join(_value(inner, item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{dotted((name,))} = {_text(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else _text(value or "")


def _listen(listen: Listen) -> str:
    parts = [f"address = {_text(listen.address)}"]
    if listen.path is not None:
        parts.append(f'mode = "{listen.mode:04o}"')
    if listen.proxy_protocol:
        parts.append("proxy_protocol = true")
    return _text(listen.address) if len(parts) == 1 else f"{{ {', '.join(parts)} }}"


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's too, but for DEL, which JSON leaves alone."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
