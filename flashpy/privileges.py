"""Whose rights a process has. The master looks them up; every other process drops to them.

The master keeps the rights that it was started with (it binds ports below 1024 and reopens logs),
and so reads nothing that a client sent. Workers drop here, before their first byte of input; the
programs of the helper side get the numbers in their command line and drop by themselves.
"""

import ctypes
import grp
import os
import pwd
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS = 38
# Found at import, in the master: a worker opens nothing.
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Rights(NamedTuple):
    """The numbers of a user: uid, primary gid, supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def current() -> Rights:
    """The rights of this process."""
    return Rights(os.geteuid(), os.getegid(), tuple(sorted(os.getgroups())))


def resolve(user: str | None, group: str | None) -> Rights:
    """The rights that workers and helpers get. Names or numbers; None = as now.

    Raises LookupError for a name that does not exist and PermissionError when this process may not
    take these rights, both with a message for the user.
    """
    now = current()
    wanted = now if user is None else _of_user(user)
    if group is not None:
        gid = _gid(group)
        extra = () if user is None else wanted.groups
        wanted = Rights(wanted.uid, gid, tuple(sorted({gid, *extra})))
    if now.uid != 0 and (wanted.uid, wanted.gid) != (now.uid, now.gid):
        raise PermissionError("only root can run workers as another user or group")
    return now if now.uid != 0 else wanted


def drop(rights: Rights) -> None:
    """Take these rights for good, and no way to more (no_new_privs).

    Raises OSError when the kernel refuses, PermissionError when root's rights could be had back.
    """
    if rights != current():
        os.setgroups(rights.groups)
        os.setgid(rights.gid)
        os.setuid(rights.uid)
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no_new_privs: {os.strerror(number)}")
    if rights.uid != 0 and 0 in os.getresuid():
        raise PermissionError("root's rights were not given up")


def _of_user(user: str) -> Rights:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        raise LookupError(f"there is no user {user!r}") from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Rights(entry.pw_uid, entry.pw_gid, tuple(sorted(groups)))


def _gid(group: str) -> int:
    try:
        entry = grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)
    except KeyError:
        raise LookupError(f"there is no group {group!r}") from None
    return entry.gr_gid
