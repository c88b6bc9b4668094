"""Rights: looked up here, dropped for good in a child."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from flashpy.privileges import Rights, current, drop, resolve

# The threads are the test runner's (pytest-xdist); the children here never use them.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_child(do: Callable[[], object]) -> object:
    """What ``do`` returns in a forked process, through JSON."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result = do()
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(data)


def status_of(name: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split(":", 1)[1].strip()
    raise LookupError(name)


def test_without_a_user_nothing_changes() -> None:
    assert resolve(None, None) == current()


@pytest.mark.parametrize(("user", "group"), [("no-such-user", None), (None, "no-such-group")])
def test_an_unknown_name_is_said(user: str | None, group: str | None) -> None:
    with pytest.raises(LookupError, match="no-such"):
        resolve(user, group)


@needs_root
def test_a_user_by_name_and_by_number_is_the_same() -> None:
    by_name = resolve("nobody", None)
    assert by_name.uid != 0
    assert resolve(str(by_name.uid), None) == by_name


@needs_root
def test_a_group_beside_the_users_own() -> None:
    rights = resolve("nobody", "daemon")
    assert rights.uid == resolve("nobody", None).uid
    assert rights.gid != resolve("nobody", None).gid
    assert {rights.gid, resolve("nobody", None).gid} <= set(rights.groups)


@needs_root
def test_dropping_leaves_no_way_back() -> None:
    rights = resolve("nobody", None)

    def do() -> object:
        drop(rights)
        refused = 0
        for back in (partial(os.setuid, 0), partial(os.seteuid, 0), partial(os.setgroups, [0])):
            try:
                back()
            except PermissionError:
                refused += 1
        return [os.getresuid(), os.getresgid(), sorted(os.getgroups()), refused]

    uid, gid = rights.uid, rights.gid
    assert in_child(do) == [[uid] * 3, [gid] * 3, list(rights.groups), 3]


def test_no_new_privileges_also_without_a_user() -> None:
    def do() -> object:
        drop(current())
        return status_of("NoNewPrivs")

    assert in_child(do) == "1"


@needs_root
def test_an_ordinary_user_may_stay_itself_only() -> None:
    me = resolve("nobody", None)

    def do() -> object:
        drop(me)
        kept = resolve("nobody", None)
        drop(kept)
        try:
            resolve("root", None)
        except PermissionError as error:
            return [kept == me, str(error)]
        return "allowed"

    assert in_child(do) == [True, "only root can run workers as another user or group"]


@needs_root
def test_the_numbers_reach_a_child() -> None:
    rights = Rights(12345, 12346, (12346, 12347))

    def do() -> object:
        drop(rights)
        return [os.getuid(), os.getgid(), sorted(os.getgroups())]

    assert in_child(do) == [12345, 12346, [12346, 12347]]
