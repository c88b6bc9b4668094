"""Proxies of conf/examples in front of a server: each example as it stands but for its places."""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.needs import find
from tests.web import nginx_config

EXAMPLES = Path(__file__).parent.parent / "conf" / "examples"


def example(name: str, places: Mapping[str, str]) -> str:
    """The example with other addresses. Each of them stands in it as often as in this test, outside its comments."""
    lines = (EXAMPLES / name).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")) + "\n"
    for place, other in places.items():
        assert text.count(place) == 1, place
        text = text.replace(place, other)
    return text


@contextmanager
def running(command: Sequence[str], log: Path, **options: object) -> Iterator[None]:
    """A proxy for as long as the block lasts; it must have had nothing to complain of."""
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, **options)  # type: ignore[call-overload]
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(30)
    assert "ALERT" not in log.read_text()


@contextmanager
def nginx(folder: Path, name: str, front: socket.socket, places: Mapping[str, str]) -> Iterator[None]:
    """nginx with an example, on a listening socket that exists already: nobody waits for it, and nobody takes it."""
    places = {"listen 127.0.0.1:80;": f"listen 127.0.0.1:{front.getsockname()[1]};", **places}
    (folder / "example.conf").write_text(example(name, places))
    inner = f"    include {folder}/example.conf;\n"
    (folder / "nginx.conf").write_text(nginx_config(folder, "nginx.log", inner))
    command = [str(find("nginx")), "-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx.log"]
    environment = {**os.environ, "NGINX": f"{front.fileno()};"}  # its own way to inherit a listening socket
    with running(command, folder / "nginx.out", pass_fds=[front.fileno()], env=environment):
        yield
        said = (folder / "nginx.log").read_text().splitlines()
        assert [line for line in said if "[notice]" not in line] == []
