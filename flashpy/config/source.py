"""The text of a configuration, and where in it each key stands. Runs in the master, at load.

tomllib gives values without their lines, and an error without its line costs the user a search. So
a text that tomllib has accepted is walked once more, only when there is an error to report: the
walk may assume that the text is valid, and follows nothing but structure.
"""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Key = tuple[str | int, ...]
"""The path of a value: ("site", 1, "mount", 0, "at")."""

# Far more than any real configuration; whoever names a disk image by mistake gets a sentence.
LARGEST_FILE = 4 << 20

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:\\.|[^"\\])*"|'[^']*'|[^\s\[\]{},=#.'"]+''',
    re.DOTALL,
)
_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_SYNTAX = re.compile(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)


class ConfigError(Exception):
    """A configuration that cannot be used: where, which key, and what was expected.

    `line` is 0 when no line is to blame; `file` and `key` may be "".
    """

    def __init__(self, file: str, line: int, key: str, message: str) -> None:
        super().__init__(file, line, key, message)
        self.file, self.line, self.key, self.message = file, line, key, message

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.file and self.line else self.file
        return ": ".join(part for part in (where, self.key, self.message) if part)


class Source:
    """The text that settings came from; "" and no file for those of the command line."""

    def __init__(self, file: str = "", text: str = "") -> None:
        self.file = file
        self.text = text

    @classmethod
    def read(cls, path: Path) -> "Source":
        """Raises ConfigError when the file cannot be read as UTF-8 text."""
        try:
            with path.open("rb") as file:
                data = file.read(LARGEST_FILE + 1)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(str(path), 0, "", f"cannot be read: {reason}") from None
        if len(data) > LARGEST_FILE:
            raise ConfigError(str(path), 0, "", "too large for a configuration")
        try:
            # Some editors begin a text with a byte order mark, which TOML does not allow.
            return cls(str(path), data.decode("utf-8-sig").replace("\r\n", "\n"))
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError(str(path), line, "", "expected UTF-8 text") from None

    def parse(self) -> dict[str, Any]:
        """The tables of the text. Raises ConfigError with the line when it is not TOML."""
        try:
            return tomllib.loads(self.text)
        except RecursionError:
            raise ConfigError(self.file, 0, "", "nested too deeply") from None
        except ValueError as error:
            raise self._syntax_error(str(error)) from None

    def error(self, key: Key, message: str) -> ConfigError:
        """The error to raise for what stands at `key`."""
        return ConfigError(self.file, self.line_of(key), dotted(key), message)

    def has(self, key: Key) -> bool:
        """Whether the text names `key`."""
        return key in self._lines()

    def line_of(self, key: Key) -> int:
        """The line of `key`, of the nearest table around it that the text names, else 0."""
        lines = self._lines()
        for length in range(len(key), 0, -1):
            if key[:length] in lines:
                return lines[key[:length]]
        return 0

    def _lines(self) -> dict[Key, int]:
        try:
            return find_keys(self.text)
        except RecursionError:
            return {}

    def _syntax_error(self, words: str) -> ConfigError:
        match = _SYNTAX.fullmatch(words)
        if match is None:
            return ConfigError(self.file, 0, "", f"not valid TOML: {words}")
        last = len(self.text.rstrip("\n").split("\n"))
        line = int(match[2]) if match[2] else last
        words = match[1].lower()
        if words == "invalid value":  # what the first edit of a file is most often wrong in
            words = "invalid value; a text needs quotes, and true and false are in lower case"
        return ConfigError(self.file, line, "", f"not valid TOML: {words}")


def dotted(key: Key) -> str:
    """`key` as people write it: site[1].headers."X Y"."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            text += f".{name}" if text else name
    return text


def find_keys(text: str) -> dict[Key, int]:
    """The line, from 1, of each table, key and array element of a valid TOML `text`."""
    walk = _Walk(text)
    walk.document()
    starts = [match.end() for match in re.finditer("\n", text)]
    lines, line = {}, 1
    for key, place in sorted(walk.places.items(), key=lambda item: item[1]):
        while line <= len(starts) and starts[line - 1] <= place:
            line += 1
        lines[key] = line
    return lines


class _Walk:
    """One pass over a valid TOML text, noting at which character each key stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[Key, int] = {}
        self.counts: dict[Key, int] = {}

    def document(self) -> None:
        table: Key = ()
        while self._peek():
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Key:
        """`[a.b]` or `[[a.b]]`. A name before the last may be an array: its last element counts."""
        start = self.at
        double = self.text.startswith("[[", start)
        self.at += 2 if double else 1
        table: Key = ()
        names = self._names()
        for number, name in enumerate(names):
            table = (*table, name)
            if double and number == len(names) - 1:
                self.counts[table] = self.counts.get(table, -1) + 1
            self.places.setdefault(table, start)
            if table in self.counts:
                table = (*table, self.counts[table])
        self._peek()
        self.at += 2 if double else 1
        self.places.setdefault(table, start)
        return table

    def _pair(self, table: Key) -> None:
        """`a.b = value`"""
        start = self.at
        key = table
        for name in self._names():
            key = (*key, name)
            self.places.setdefault(key, start)
        self._peek()
        self.at += 1
        self._value(key)

    def _value(self, key: Key) -> None:
        opening = self._peek()
        if opening == "[":
            self._items("]", key, self._element)
        elif opening == "{":
            self._items("}", key, self._member)
        else:
            self._scalar()

    def _items(self, closing: str, key: Key, item: Callable[[Key, int], None]) -> None:
        self.at += 1
        number = 0
        while self._peek() != closing:
            item(key, number)
            number += 1
            if self._peek() == ",":
                self.at += 1
        self.at += 1

    def _element(self, key: Key, number: int) -> None:
        self.places.setdefault((*key, number), self.at)
        self._value((*key, number))

    def _member(self, key: Key, _number: int) -> None:
        self._pair(key)

    def _scalar(self) -> None:
        """A text, or a run such as `1.5`, `true`, `1979-05-27 07:32:00` (its parts are skipped)."""
        self._token()
        while (character := self.text[self.at : self.at + 1]) and character not in "\n,]}#":
            self.at += 1

    def _names(self) -> list[str]:
        names = [self._name()]
        while self._peek() == ".":
            self.at += 1
            self._peek()
            names.append(self._name())
        return names

    def _name(self) -> str:
        self._peek()
        token = self._token()
        return str(tomllib.loads(f"x = {token}")["x"]) if token[0] in "\"'" else token

    def _token(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        assert match is not None, "only valid TOML is walked"
        self.at = match.end()
        return match[0]

    def _peek(self) -> str:
        """The next character after space and comments; "" at the end."""
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.text[self.at : self.at + 1]
