"""The file that names the master. The master runs this.

It appears complete, by rename: who waits for it never reads half a number. A file that names a
living process is left alone and the start refused; a file whose process is gone is replaced. It is
removed only while it still names us, since another server may have taken the place.
"""

import contextlib
import os


class Pidfile:
    """The pid file at ``path`` while this process holds it."""

    def __init__(self, path: str) -> None:
        """Write our number. Raises FileExistsError for a living holder, else OSError."""
        self.path = path
        holder = read(path)
        if holder is not None and holder != os.getpid() and _alive(holder):
            raise FileExistsError(f"{path} names process {holder}, which is running; remove it if that is no flashpy")
        draft = f"{path}.{os.getpid()}"
        try:
            with open(draft, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            os.rename(draft, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            # The draft's name would tell nobody anything.
            raise OSError(error.errno, f"the pid file cannot be written: {error.strerror}", path) from None

    def remove(self) -> None:
        """Remove the file if it is still ours; an error here would help nobody."""
        with contextlib.suppress(OSError):
            if read(self.path) == os.getpid():
                os.unlink(self.path)


def read(path: str) -> int | None:
    """The process that the file names; None when there is no file or no number in it."""
    try:
        with open(path, "rb") as file:
            text = file.read(32).strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isdigit() else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0 and not _ended(pid)


def _ended(pid: int) -> bool:
    """Whether it is dead and only not reaped, as it may stay in a container whose first process reaps nobody."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except OSError:
        return False
