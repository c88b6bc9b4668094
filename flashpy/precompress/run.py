"""The command from its plan to its summary: look for the files, share them out, count what comes back."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from signal import Signals

from flashpy.precompress.forks import Done, Forks, Lost, Stopped
from flashpy.precompress.plan import File, Plan, Root, pack, unpack
from flashpy.precompress.siblings import work
from flashpy.precompress.summary import Summary
from flashpy.precompress.walk import find, open_folder
from flashpy_helpers.codings import compress

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Given the bytes of all files, gives what is called with the bytes of each file that is done."""


def run(plan: Plan, roots: Iterable[Root], jobs: int, progress: Progress) -> tuple[Summary, Signals | None]:
    """Do what the plan says with up to `jobs` processes; the signal is the one that stopped it.

    Afterwards this process ignores the signals that would end it. Raises OSError when no process can be made.
    """
    summary = Summary(plan)
    begin = time.monotonic()
    files = find(roots, plan, summary.complain)
    for coding in plan.codings:  # the libraries are loaded once, before the fork
        compress(coding, b"", "fast")
    with progress(sum(file.size for file in files)) as advance:
        stopped = _share_out(plan, files, jobs, summary, advance)
    summary.seconds = time.monotonic() - begin
    summary.problems.sort()
    summary.would.sort()
    return summary, stopped


def _share_out(
    plan: Plan, files: Sequence[File], jobs: int, summary: Summary, advance: Callable[[int], None]
) -> Signals | None:
    # Another run in the same folder, in another container perhaps, has other names.
    token = os.urandom(4).hex()

    def name(child: int) -> str:
        return f".flashpy-{token}-{child}.tmp"

    def do(job: int, child: int) -> bytes:
        return pack(work(plan, files[job], name(child)))

    def clear(lost: Lost) -> File:
        """Remove what a child that was killed may have left; its file."""
        file = files[lost.job]
        with suppress(OSError), open_folder(file.root, file.folder) as folder:
            os.unlink(name(lost.child), dir_fd=folder)
        return file

    for result in Forks(len(files), jobs, do).results():
        match result:
            case Done(job, answer):
                summary.add(files[job], unpack(answer))
                advance(files[job].size)
            case Lost():
                file = clear(result)
                summary.lose(file, f"process {result.pid} died of it: {result.how}")
                advance(file.size)
            case Stopped(signal, lost):
                for loss in lost:
                    clear(loss)
                summary.interrupted = True
                return signal
    return None
