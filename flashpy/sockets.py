"""Listening sockets. The master binds them; workers inherit them and only accept.

All options are set here, on the listener, since Linux hands them down to accepted connections: the
worker saves the calls. A whole set is bound or none: a reload that cannot bind one address keeps
what it had. A socket whose address stays is kept as it is, so no connection in its queue is lost.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flashpy.config import Listen

_DEFER_SECONDS = 1
"""TCP_DEFER_ACCEPT: accept a connection with its request; after this time also without one."""


class BindError(Exception):
    """An address cannot be listened on; the message is for the user."""


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """A listening socket, the address that asked for it, and for a unix socket which file it is."""

    address: str
    socket: socket.socket
    path: str | None = None
    file: tuple[int, int] | None = None

    def url(self) -> str:
        """Where it listens, for people: ``http://127.0.0.1:8080``, ``unix:/run/flashpy.sock``."""
        if self.path is not None:
            return f"unix:{self.path}"
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def close(self) -> None:
        """Close this process's descriptor; others that share the socket go on."""
        self.socket.close()

    def unlink(self) -> None:
        """Remove the file of a unix socket if it is still this one."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                if _file(self.path) == self.file:
                    os.unlink(self.path)


def bind_all(wanted: Sequence[Listen], backlog: int, kept: Iterable[Listener] = ()) -> tuple[Listener, ...]:
    """Listeners for all addresses, in order: those of ``kept`` where the address is the same.

    Raises BindError; what was bound by this call is closed again then.
    """
    known = {listener.address: listener for listener in kept}
    fresh: list[Listener] = []
    result = []
    try:
        for listen in wanted:
            listener = known.get(listen.address)
            if listener is None:
                listener = bind(listen, backlog)
                fresh.append(listener)
            result.append(listener)
    except BindError:
        discard(fresh)
        raise
    return tuple(result)


def retune(listeners: Iterable[Listener], wanted: Sequence[Listen], backlog: int) -> None:
    """Give kept listeners the backlog and mode of a new configuration."""
    modes = {listen.address: listen.mode for listen in wanted}
    for listener in listeners:
        listener.socket.listen(backlog)
        if listener.path is not None:
            with contextlib.suppress(OSError):
                if _file(listener.path) == listener.file:
                    os.chmod(listener.path, modes[listener.address])


def discard(listeners: Iterable[Listener]) -> None:
    """Close listeners that nobody shall listen on any more, and remove their files."""
    for listener in listeners:
        listener.unlink()
        listener.close()


def bind(listen: Listen, backlog: int) -> Listener:
    """Bind one address. Raises BindError."""
    sock = None
    try:
        sock = socket.socket(listen.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        path = listen.path
        if path is None:
            _bind_inet(sock, listen)
        else:
            _bind_unix(sock, path, listen.mode)
        sock.listen(backlog)
        return Listener(listen.address, sock, path, None if path is None else _file(path))
    except OSError as error:
        if sock is not None:
            sock.close()
        raise BindError(f"cannot listen on {listen.address}: {_words(error, listen)}") from None


def _bind_inet(sock: socket.socket, listen: Listen) -> None:
    if listen.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_SECONDS)
    sock.bind((listen.host, listen.port))


def _bind_unix(sock: socket.socket, path: str, mode: int) -> None:
    _remove_stale(path)
    # The umask makes the mode right from the first moment; the master has one thread.
    before = os.umask(~mode & 0o777)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on. Raises OSError when it is none or in use."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "the file exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full, so somebody listens
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _file(path: str) -> tuple[int, int]:
    facts = os.lstat(path)
    return facts.st_dev, facts.st_ino


def _words(error: OSError, listen: Listen) -> str:
    if error.errno == errno.EACCES or error.errno == errno.EPERM:
        where = "ports below 1024 need root" if listen.path is None else "to the folder or the old socket"
        return f"missing rights ({where})"
    if error.errno == errno.EADDRINUSE:
        return "the address is in use by another program"
    return str(error.strerror or error)
