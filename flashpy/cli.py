"""The commands, in the process that becomes the master.

Subcommands import what they need when they run, so `--version` costs nothing.
Exit status: 0 stopped as asked, 1 could not start (port in use, missing rights), 2 the user's
mistake (bad configuration, bad usage), said in one line on standard error. What ends a server that
had started is the arbiter's to say (SIGNALS.md). Of `precompress`: 1 some files could not be done
or, with --check, are wrong; 128 and the signal's number when it was stopped (130 by Ctrl-C).
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from flashpy import __version__

if TYPE_CHECKING:
    from flashpy.config import Settings
    from flashpy.precompress.plan import Mode, Root
    from flashpy.precompress.summary import Summary
    from flashpy_helpers.codings import Coding

_FAILED_TO_START = 1
_USAGE = 2

_configuration = partial(
    click.option, "-c", "--config", "file", metavar="FILE", type=click.Path(readable=False, path_type=Path)
)
_TOML = "The configuration, in TOML."


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="flashpy %(version)s")
def main() -> None:
    """A web server that never waits for the disk."""


@main.command()
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(readable=False, path_type=Path))
@_configuration(help=_TOML)
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
@_configuration(required=True, help=_TOML)
def check(file: Path) -> None:
    """Say whether a configuration is valid and its roots can be served."""
    from flashpy.config import check_roots, excess, load

    def read() -> "Settings":
        settings = load(file)
        check_roots(settings, file)
        return settings

    settings = _or_exit(read)
    _say(f"{file}: ok\n{_summary(settings)}")
    warning = excess(settings)
    if warning:
        click.echo(f"flashpy: warning: {warning}", err=True)


@main.command()
@_configuration(required=True, help=_TOML)
def config(file: Path) -> None:
    """Print the settings with all defaults filled in, as TOML."""
    from flashpy.config import load, to_toml

    _say(to_toml(_or_exit(lambda: load(file))).removesuffix("\n"))


def _codings(context: click.Context, parameter: click.Parameter, value: str) -> "tuple[Coding, ...]":
    from flashpy_helpers.codings import CODINGS

    names = [name.strip() for name in value.split(",")]
    for name in names:
        if name not in CODINGS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(CODINGS)}")
    return tuple(coding for coding in CODINGS if coding in names)


def _size(context: click.Context, parameter: click.Parameter, value: str) -> int:
    from flashpy.config.units import parse_size

    try:
        return parse_size(value)
    except ValueError:
        raise click.BadParameter(f'{value!r} is no size: a number of bytes, or "64KiB"') from None


@main.command()
@click.argument(
    "folders",
    metavar="[DIR]...",
    nargs=-1,
    type=click.Path(exists=True, file_okay=False, readable=False, path_type=Path),
)
@_configuration(help="Instead of DIR: all roots of its sites whose siblings are sent.")
@click.option(
    "--codings", metavar="LIST", default="br,zstd,gzip", show_default=True, callback=_codings, help="Which to make."
)
@click.option(
    "--min-size",
    "least",
    metavar="SIZE",
    default="1KiB",
    show_default=True,
    callback=_size,
    help="Smaller files get none.",
)
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Processes; as many as cores unless given.")
@click.option("--force", is_flag=True, help="Make those anew that are up to date.")
@click.option(
    "--check", is_flag=True, help="Only say which are older than their originals or decode to something else."
)
@click.option("--clean", is_flag=True, help="Remove those that decode to their originals and have their times.")
@click.option("--dry-run", "dry", is_flag=True, help="Only say what would be written or removed.")
@click.option("--quiet", is_flag=True, help="Say only what went wrong.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
def precompress(
    folders: tuple[Path, ...],
    file: Path | None,
    codings: "tuple[Coding, ...]",
    least: int,
    jobs: int | None,
    force: bool,
    check: bool,
    clean: bool,
    dry: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write a.css.br, a.css.zst and a.css.gz beside a.css, for all files under DIR that shrink."""
    if bool(folders) == (file is not None):
        raise click.UsageError("give either folders or a configuration with -c FILE")
    if check + clean + force > 1:
        raise click.UsageError("--check, --clean and --force exclude each other")
    from flashpy.config.machine import usable_cores
    from flashpy.precompress.plan import Plan
    from flashpy.precompress.run import run
    from flashpy.processes import open_standard

    open_standard()
    mode: Mode = "check" if check else "clean" if clean else "make"
    plan = Plan(mode, codings, least, force, dry)
    try:
        roots = _roots_of_file(file) if file is not None else _roots_of_folders(folders)
        summary, stopped = run(plan, roots, jobs or usable_cores(), _no_bar if quiet else _bar)
    except KeyboardInterrupt:
        _exit(128 + signal.SIGINT, "interrupted before anything was done")
    except ImportError as error:
        _exit(_FAILED_TO_START, f"{error}: install it, or leave out what needs it (--codings)")
    except OSError as error:
        _exit(_FAILED_TO_START, f"no process can be started: {error.strerror}")
    _tell(summary, quiet, as_json)
    sys.exit(128 + stopped if stopped else summary.status)


def _roots_of_folders(folders: tuple[Path, ...]) -> "list[Root]":
    from flashpy.precompress.plan import Root

    return [Root(os.path.realpath(folder)) for folder in folders]


def _roots_of_file(file: Path) -> "list[Root]":
    from flashpy.config import load
    from flashpy.precompress.plan import Root

    sites = [site for site in _or_exit(lambda: load(file)).site if site.precompressed]
    if not sites:
        _exit(_USAGE, f"{file}: no site has precompressed = true")
    return [
        Root(os.path.realpath(folder), site.types, site.dotfiles)
        for site in sites
        for folder in (site.root, *(mount.root for mount in site.mount))
    ]


@contextmanager
def _bar(total: int) -> "Iterator[Callable[[int], None]]":
    """On a terminal, how many of all bytes are done."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    with click.progressbar(length=total, label="precompressing", file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def _no_bar(total: int) -> "Iterator[Callable[[int], None]]":
    yield _nothing


def _nothing(size: int) -> None:
    """Progress that nobody sees."""


def _tell(summary: "Summary", quiet: bool, as_json: bool) -> None:
    from flashpy.precompress.summary import shown

    for path, why in summary.problems:
        click.echo(f"flashpy: {shown(path)}: {why}", err=True)
    if as_json:
        _say(json.dumps(summary.as_dict(), indent=2))
    elif not quiet:
        _say("\n".join([*summary.would, summary.text()]))


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


def _say(text: str) -> None:
    """What was asked for; that nobody reads it any more is click's to handle."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        _exit(_FAILED_TO_START, f"standard output: {error.strerror}")


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
