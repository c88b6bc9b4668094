"""The real server with something more, said by the environment. Run as ``python altered.py FILE``.

GAUGES=FOLDER: each worker writes what it tells the scoreboard to FOLDER/PID, as JSON: gauges are
not in the last line of the log, since by then all is given back. BUG=TARGET: a request for this
target makes the worker raise, as an error in it would.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flashpy import answer, scoreboard
from flashpy.cli import main


def tell_gauges(folder: Path) -> None:
    """Write every worker's counters to a file, whenever it stores them."""
    store = scoreboard.Slot.store

    def told(slot: scoreboard.Slot, values: Iterable[int]) -> None:
        store(slot, values)
        draft = folder / f"{os.getpid()}.draft"
        draft.write_text(json.dumps(dict(zip(scoreboard.COUNTERS, slot.load(), strict=True))))
        draft.rename(folder / str(os.getpid()))

    setattr(scoreboard.Slot, store.__name__, told)


def raise_at(target: bytes) -> None:
    """Have the decision about one target fail."""
    decide = answer.Answerer.answer

    def failing(self: answer.Answerer, request: Any, *rest: Any) -> Any:
        if request.line.target == target:
            raise RuntimeError("an error on purpose")
        return decide(self, request, *rest)

    setattr(answer.Answerer, decide.__name__, failing)


if __name__ == "__main__":
    if "GAUGES" in os.environ:
        tell_gauges(Path(os.environ["GAUGES"]))
    if "BUG" in os.environ:
        raise_at(os.fsencode(os.environ["BUG"]))
    main(["serve", "-c", *sys.argv[1:]])
