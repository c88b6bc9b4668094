"""The real server in a mount namespace of its own. Run as ``python mounted.py FILE KIND FOLDER``.

FOLDER/root becomes a tmpfs, or an overlay of FOLDER/upper over FOLDER/lower, for this process and
its children alone: it is gone when the last of them is, whatever happened to the test. A test reaches
it as /proc/PID/root/FOLDER/root.
"""

import ctypes
import os
import sys
from pathlib import Path

from flashpy.cli import main

_NEW_NAMESPACE = 0x00020000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str | None, flags: int, options: str) -> None:
    """mount(2). Raises OSError."""
    words = [word.encode() if word is not None else None for word in (source, target, kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), f"cannot mount {kind} at {target}")


def prepare(kind: str, folder: Path) -> None:
    """Leave the namespace of all others, and mount."""
    if _libc.unshare(_NEW_NAMESPACE):
        raise OSError(ctypes.get_errno(), "no mount namespace")
    mount("none", "/", None, _MS_REC | _MS_PRIVATE, "")
    options = "size=16m"
    if kind == "overlay":
        names = {"lowerdir": "lower", "upperdir": "upper", "workdir": "work"}
        options = ",".join(f"{key}={folder / name}" for key, name in names.items())
    mount("flashpy", str(folder / "root"), kind, 0, options)


if __name__ == "__main__":
    prepare(sys.argv[2], Path(sys.argv[3]))
    os.chdir(sys.argv[3])
    main(["serve", "-c", sys.argv[1]])
