"""The commands, in the process that becomes the master.

Subcommands import what they need when they run, so `--version` costs nothing.
Exit status: 0 stopped as asked, 1 could not start (port in use, missing rights), 2 the user's
mistake (bad configuration, bad usage), said in one line on standard error. What ends a server that
had started is the arbiter's to say (SIGNALS.md).
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from flashpy import __version__

if TYPE_CHECKING:
    from flashpy.config import Settings

_FAILED_TO_START = 1
_USAGE = 2

_configuration = click.option(
    "-c",
    "--config",
    "file",
    metavar="FILE",
    required=True,
    type=click.Path(readable=False, path_type=Path),
    help="The configuration, in TOML.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="flashpy %(version)s")
def main() -> None:
    """A web server that never waits for the disk."""


@main.command()
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(readable=False, path_type=Path))
@click.option(
    "-c",
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(readable=False, path_type=Path),
    help="The configuration, in TOML.",
)
@click.option(
    "--listen",
    metavar="ADDR",
    multiple=True,
    help='"host:port", "[v6]:port" or "unix:PATH"; may be repeated. Port 0: any free one.',
)
@click.option("--workers", metavar="N", type=int, help="Worker processes.")
def serve(folder: Path | None, file: Path | None, listen: tuple[str, ...], workers: int | None) -> None:
    """Serve the folder DIR, or what a configuration says."""
    if (folder is None) == (file is None):
        raise click.UsageError("give either a folder or a configuration with -c FILE")
    # Absolute now: a reload must find the same whatever the current folder is by then.
    if file is not None:
        read = _reader_of_file(Path(os.path.abspath(file)), listen, workers)
    else:
        assert folder is not None
        read = _reader_of_folder(Path(os.path.abspath(folder)), listen, workers)
    _run(_or_exit(read), read)


@main.command()
@_configuration
def check(file: Path) -> None:
    """Say whether a configuration is valid and its roots can be served."""
    from flashpy.config import check_roots, load

    def read() -> "Settings":
        settings = load(file)
        check_roots(settings, file)
        return settings

    settings = _or_exit(read)
    click.echo(f"{file}: ok")
    click.echo(_summary(settings))


@main.command()
@_configuration
def config(file: Path) -> None:
    """Print the settings with all defaults filled in, as TOML."""
    from flashpy.config import load, to_toml

    click.echo(to_toml(_or_exit(lambda: load(file))), nl=False)


def _reader_of_file(file: Path, listen: tuple[str, ...], workers: int | None) -> Callable[[], "Settings"]:
    """What reads the settings, at start and at each reload; the options hold each time."""
    from flashpy.config import check_roots, load

    def read() -> "Settings":
        settings = load(file, listen=listen, workers=workers)
        check_roots(settings, file)
        return settings

    return read


def _reader_of_folder(folder: Path, listen: tuple[str, ...], workers: int | None) -> Callable[[], "Settings"]:
    from flashpy.config import check_roots, for_folder

    def read() -> "Settings":
        settings = for_folder(folder, listen=listen, workers=workers)
        check_roots(settings)
        return settings

    return read


def _run(settings: "Settings", reload: Callable[[], "Settings"]) -> NoReturn:
    from flashpy.arbiter import Arbiter, StartError

    try:
        status = Arbiter(settings, reload=reload).run()
    except StartError as error:
        _exit(_FAILED_TO_START, str(error))
    sys.exit(status)


def _or_exit(read: Callable[[], "Settings"]) -> "Settings":
    from flashpy.config import ConfigError

    try:
        return read()
    except ConfigError as error:
        _exit(_USAGE, str(error))


def _exit(status: int, message: str) -> NoReturn:
    click.echo(f"flashpy: {message}", err=True)
    sys.exit(status)


def _summary(settings: "Settings") -> str:
    """One line on what the server would do."""
    from flashpy.config.units import format_size

    server, cache = settings.server, settings.cache
    addresses = ", ".join(listen.address for listen in server.listen)
    workers = _count(server.workers, "worker")
    memory = format_size(cache.memory)
    sites = _count(len(settings.site), "site")
    return f"{sites} on {addresses}; {workers} with {memory} of cache each"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
