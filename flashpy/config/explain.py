"""The words of a configuration error: what was expected, said from the schema. Values only.

So a bound or a choice is written once, in the schema, and the message cannot fall behind it.
"""

import difflib
import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from flashpy.config.address import FORMS
from flashpy.config.schema import LOADED, Settings
from flashpy.config.source import Key
from flashpy.config.units import format_size, format_time

_WORDS = {
    "memory": 'a size such as "512MiB", or "auto"',
    "mode": 'rights from "0000" to "0777", such as "0666"',
    "account": "a name or an id",
    "path": "the path of a folder",
    "path or nothing": 'a path, or "" for none',
    "path or empty": 'the path of a file, or "" for none',
    "access log": 'a path, "-" for standard output, or "off"',
    "error log": 'a path, or "-" for standard error',
    "listen": f"addresses: {FORMS}",
    "texts": "a text in quotes, or several in brackets",
    "bool": "true or false",
    "str": "a text in quotes",
}


_FEW = 3  # members of a table that is written in one line


class Kind(NamedTuple):
    """A type of the schema taken apart: `int` from 1 to 9 written in "time"."""

    type: Any
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def table(self) -> type[msgspec.Struct] | None:
        """The struct, when a table is expected."""
        is_table = isinstance(self.type, type) and issubclass(self.type, msgspec.Struct)
        return self.type if is_table else None

    @property
    def element(self) -> "Kind | None":
        """The kind of each element, when an array is expected."""
        return kind_of(get_args(self.type)[0]) if get_origin(self.type) is tuple else None


def kind_of(annotation: Any) -> Kind:
    """The kind of a field's type as the schema has it."""
    if get_origin(annotation) is Annotated:
        inner, meta = get_args(annotation)[:2]
        unit = (meta.extra or {}).get("unit", "")
        return Kind(kind_of(inner).type, unit, meta.ge, meta.le)
    if get_origin(annotation) in (Union, UnionType):
        return kind_of(next(part for part in get_args(annotation) if part is not NoneType))
    return Kind(annotation)


def fields_of(table: type[msgspec.Struct]) -> dict[str, Kind]:
    """The keys of a table and their kinds, in the schema's order."""
    kinds = {field.name: kind_of(field.type) for field in msgspec.structs.fields(table)}
    return {name: kind for name, kind in kinds.items() if kind.unit != LOADED}


def kind_at(key: Key) -> Kind | None:
    """The kind of the value at `key`; None when the schema has no such key."""
    kind: Kind | None = Kind(Settings)
    for part in key:
        if kind is None:
            return None
        fields = fields_of(kind.table) if kind.table else {}
        kind = kind.element if isinstance(part, int) else fields.get(part)
    return kind


def expected(kind: Kind) -> str:
    """What may stand where `kind` is expected, as words after "expected"."""
    if kind.unit == "time":
        return f'a time from {_span(kind, format_time)}, such as "10s"'
    if kind.unit == "size":
        return f'a size from {_span(kind, format_size)}, such as "64KiB"'
    if kind.unit == "workers":
        return f'a whole number from {_span(kind, str)}, or "auto"'
    if kind.unit in _WORDS:
        return _WORDS[kind.unit]
    if kind.type in (bool, str):
        return _WORDS[kind.type.__name__]
    if kind.type is float:
        return f"a number from {_span(kind, str)}"
    if kind.type is int:
        return f"a whole number from {_span(kind, str)}"
    return _of_several(kind)


def _of_several(kind: Kind) -> str:
    if get_origin(kind.type) is Literal:
        return " or ".join(json.dumps(choice) for choice in get_args(kind.type))
    if kind.element is not None:
        return "tables, each under its name in [[ ]]" if kind.element.table else 'texts in brackets, such as ["a", "b"]'
    if get_origin(kind.type) is dict:
        return "a table of texts in quotes"
    members = list(fields_of(kind.table)) if kind.table else []
    return f"a table, {{ {' = ..., '.join(members)} = ... }}" if 0 < len(members) <= _FEW else "a table"


def _span(kind: Kind, show: Any) -> str:
    return f"{show(kind.least)} to {show(kind.most)}"


def shown(value: Any) -> str:
    """`value` as it stands in the file, shortened: for "not ..." at the end of a message."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "an array"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = "a date or time" if hasattr(value, "isoformat") else "such a number"
    return text if len(text) <= 60 else f"{text[:60]}..."


def unknown_key(name: str, table: type[msgspec.Struct], place: str) -> str:
    """About a key that the schema does not have: the nearest one that it has, here or elsewhere."""
    names = list(fields_of(table))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    for other, kind in fields_of(Settings).items():
        inner = kind.table or (kind.element.table if kind.element else None)
        if inner is not None and inner is not table and name in fields_of(inner):
            return f"unknown key here; {name!r} belongs to [{other}]"
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    where = f"in [{place}]" if place else "at the top"
    return f"unknown key; the nearest known {where} is {nearest[0]!r} of: {', '.join(names)}"
