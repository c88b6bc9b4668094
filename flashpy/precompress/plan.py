"""What is to be done, and what was: the values that the command's processes share.

A forked process has the plan and the list of files from its parent, so a job is a file's number in that list, and only
what came of it is packed.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from flashpy_helpers.codings import CODINGS, SUFFIXES, Coding

Mode = Literal["make", "check", "clean"]

Outcome = Literal["written", "current", "useless", "left", "removed", "changed", "failed", "right", "wrong"]
"""What came of a sibling: it was written; was there and no older than its original; would not be smaller enough; would
not be, and an older one that may not be ours was left; was removed; it or its original changed meanwhile; could not be
made; decodes to its original; does not, or is older."""


class Plan(NamedTuple):
    """What to do with each file. `least` is the size in bytes below which a file is not compressed."""

    mode: Mode = "make"
    codings: tuple[Coding, ...] = CODINGS
    least: int = 1024
    force: bool = False
    dry: bool = False


class Root(NamedTuple):
    """A folder to look into: its absolute path without links, and how its site is served."""

    path: str
    types: Mapping[str, str] = {}
    dotfiles: bool = False


class File(NamedTuple):
    """An original: `folder` is relative to `root`, "" for the root itself; `size` is in bytes, when it was found."""

    root: str
    folder: str
    name: str
    size: int

    @property
    def path(self) -> str:
        """Its absolute path."""
        return os.path.join(self.root, self.folder, self.name)


class Act(NamedTuple):
    """What came of one sibling, or with coding None of the whole file. Sizes in bytes, of both."""

    coding: Coding | None
    outcome: Outcome
    before: int = 0
    after: int = 0
    why: str = ""


def sibling_name(name: str, coding: Coding) -> str:
    """The name of a file's sibling."""
    return name + SUFFIXES[coding].decode()


def pack(acts: Sequence[Act]) -> bytes:
    """As one record of a channel."""
    return json.dumps(acts).encode()


def unpack(record: bytes) -> list[Act]:
    """What `pack` packed."""
    return [Act(*fields) for fields in json.loads(record)]
