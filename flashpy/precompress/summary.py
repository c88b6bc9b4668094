"""What came of all files: counted, and said as text and as JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from flashpy.precompress.plan import Act, File, Mode, Outcome, Plan, sibling_name
from flashpy_helpers.codings import Coding

# Those that stand when the command has ended.
_STANDING: frozenset[Outcome] = frozenset({"written", "current", "right"})
_PHRASES: dict[Mode, dict[Outcome, str]] = {
    "make": {
        "written": "{} written",
        "current": "{} up to date",
        "useless": "{} not worth it",
        "left": "{} outdated and not worth it",
        "removed": "{} removed",
    },
    "check": {"right": "{} right", "wrong": "{} wrong"},
    "clean": {"removed": "{} removed", "left": "{} not ours"},
}
_ALWAYS: frozenset[Outcome] = frozenset({"written", "current", "useless", "right", "wrong"})


class Summary:
    """Counts of siblings by outcome, bytes by coding, and what went wrong: path and reason."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.files = 0
        self.seconds = 0.0
        self.interrupted = False
        self.problems: list[tuple[str, str]] = []
        self.would: list[str] = []
        """What a dry run would have done."""
        self._counts: Counter[Outcome] = Counter()
        self._bytes: dict[Coding, list[int]] = {}

    @property
    def status(self) -> int:
        """The exit status of a command that came to its end."""
        return 1 if self.problems else 0

    def complain(self, path: str, why: str) -> None:
        """Something could not be read or done."""
        self.problems.append((path, why))

    def add(self, file: File, acts: Iterable[Act]) -> None:
        """A file is done."""
        self.files += 1
        for act in acts:
            self._counts[act.outcome] += 1
            path = sibling_name(file.path, act.coding) if act.coding else file.path
            if act.why:
                self.complain(path, act.why)
            if act.coding and act.outcome in _STANDING:
                self._add_bytes(act.coding, act)
            if self._plan.dry and act.outcome in ("written", "removed"):
                self.would.append(_would(path, act))

    def lose(self, file: File, why: str) -> None:
        """A process died of a file."""
        self.add(file, [Act(None, "failed", why=why)])

    def _add_bytes(self, coding: Coding, act: Act) -> None:
        total = self._bytes.setdefault(coding, [0, 0, 0])
        for position, number in enumerate((1, act.before, act.after)):
            total[position] += number

    def text(self) -> str:
        """For people: one line, and one for each coding of which there are siblings."""
        phrases = _PHRASES[self._plan.mode]
        said = [
            phrase.format(f"{self._counts[outcome]:,}")
            for outcome, phrase in phrases.items()
            if self._counts[outcome] or outcome in _ALWAYS
        ]
        said += [f"{_files(self._counts['changed'])} changed meanwhile"] if self._counts["changed"] else []
        said += [f"{self._counts['failed']:,} failed"] if self._counts["failed"] else []
        head = f"{'interrupted after ' if self.interrupted else ''}{_files(self.files)} in {self.seconds:.1f} s"
        kind = "siblings, had this been no dry run" if self._plan.dry else "siblings"
        return "\n".join([f"{head}; {kind}: {', '.join(said)}", *self._sizes()])

    def _sizes(self) -> Iterable[str]:
        for coding in self._plan.codings:
            if coding in self._bytes:
                count, before, after = self._bytes[coding]
                less = 100 - 100 * after / before if before else 0.0
                yield f"  {coding:<5}{count:>7,}: {_mib(before)} -> {_mib(after)}, {less:.0f} % less"

    def as_dict(self) -> dict[str, Any]:
        """For programs; sizes in bytes."""
        outcomes: Sequence[Outcome] = (*_PHRASES[self._plan.mode], "changed", "failed")
        return {
            "mode": self._plan.mode,
            "dry_run": self._plan.dry,
            "interrupted": self.interrupted,
            "files": self.files,
            **{outcome: self._counts[outcome] for outcome in outcomes},
            "codings": {
                coding: dict(zip(("siblings", "before", "after"), total, strict=True))
                for coding, total in sorted(self._bytes.items())
            },
            "problems": [{"path": shown(path), "problem": why} for path, why in self.problems],
            "seconds": round(self.seconds, 3),
        }


def shown(path: str) -> str:
    """A path as text for a terminal: what cannot be printed is escaped, so a name cannot forge a line."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"


def _would(path: str, act: Act) -> str:
    if act.outcome == "removed":
        return f"would remove {shown(path)}"
    return f"would write {shown(path)} ({act.after:,} of {act.before:,} bytes)"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
