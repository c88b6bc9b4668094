"""The arrows of the design point one way. Read from the sources: nothing is imported here.

`ORDER` says where each module stands; a module imports only what stands in a lower row. A new file
must be given its place, and a row must not name a file that is gone. DESIGN.md, in the order to
read in, names every module too.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGES = {"flashpy": REPOSITORY, "flashpy_helpers": REPOSITORY / "helpers"}

# From low to high. Modules of one row do not import each other.
ORDER = """
    flashpy_helpers
    flashpy_helpers.channel flashpy_helpers.query
    flashpy_helpers.wire
    flashpy_helpers.codings flashpy_helpers.fields flashpy_helpers.news
    flashpy_helpers.records
    flashpy_helpers.beneath flashpy_helpers.disk flashpy_helpers.inotify flashpy_helpers.listingtemplate
    flashpy_helpers.logfile
    flashpy_helpers.listing flashpy_helpers.watchtree
    flashpy_helpers.listingpage flashpy_helpers.watcher
    flashpy_helpers.pathname
    flashpy_helpers.heavy
    flashpy_helpers.__main__

    flashpy flashpy.http flashpy.cache
    flashpy.http.accesstext flashpy.http.credentials flashpy.http.dates flashpy.http.glob flashpy.http.mime
    flashpy.http.negotiation flashpy.http.peers flashpy.http.presets flashpy.http.ranges flashpy.http.status
    flashpy.http.tracing
    flashpy.http.conditional flashpy.http.framing flashpy.http.navigation flashpy.http.pages
    flashpy.http.proxyprotocol flashpy.http.target
    flashpy.http.lines
    flashpy.http.body flashpy.http.forwarded flashpy.http.request flashpy.http.response flashpy.http.template
    flashpy.cache.arena flashpy.cache.lru flashpy.cache.memo
    flashpy.cache.chunks
    flashpy.cache.pathnames

    flashpy.loop flashpy.pidfile flashpy.privileges flashpy.scoreboard flashpy.shares flashpy.signals
    flashpy.logformat flashpy.logs
    flashpy.config.address flashpy.config.machine flashpy.config.probe flashpy.config.source
    flashpy.config.units
    flashpy.config.schema
    flashpy.config.explain flashpy.config.needs flashpy.config.passwords flashpy.config.roots flashpy.config.rulecheck
    flashpy.config.checks
    flashpy.config.load flashpy.config.render
    flashpy.config
    flashpy.heritage

    flashpy.accesslog flashpy.findings flashpy.loglines flashpy.meter flashpy.rules flashpy.tasks
    flashpy.helper flashpy.sites
    flashpy.asking flashpy.content
    flashpy.helperpool
    flashpy.changes flashpy.guard flashpy.outgoing flashpy.representations flashpy.store
    flashpy.answer
    flashpy.service
    flashpy.states
    flashpy.client
    flashpy.replying
    flashpy.connection
    flashpy.traced
    flashpy.introduction
    flashpy.accept
    flashpy.worker

    flashpy.processes flashpy.sockets
    flashpy.companions
    flashpy.generation flashpy.watching
    flashpy.boot
    flashpy.crew flashpy.renewal
    flashpy.arbiter

    flashpy.precompress
    flashpy.precompress.forks flashpy.precompress.plan
    flashpy.precompress.summary flashpy.precompress.walk
    flashpy.precompress.siblings
    flashpy.precompress.run

    flashpy.cli
    flashpy.__main__
"""
ROWS = {name: row for row, line in enumerate(ORDER.splitlines()) for name in line.split()}

# What runs in a worker and in no other process, and what runs in the master alone.
WORKER = {name for name in ROWS if ROWS["flashpy.heritage"] < ROWS[name] <= ROWS["flashpy.worker"]}
WORKER |= {"flashpy.loop"} | {name for name in ROWS if name.startswith("flashpy.cache")}
MASTER = {name for name in ROWS if ROWS[name] > ROWS["flashpy.worker"]} | {"flashpy.pidfile"}

# The only modules of the helper side that flashpy may use.
SHARED = {f"flashpy_helpers{name}" for name in ("", ".channel", ".codings", ".news", ".query", ".records", ".wire")}
# The only ones of the helper side that may use more than the standard library, and what.
LIBRARIES = {
    "flashpy_helpers.codings": {"brotli", "backports", "compression"},
    "flashpy_helpers.heavy": {"brotli", "backports", "compression", "bcrypt"},
}


def module_name(file: Path, package_root: Path) -> str:
    """flashpy/http/__init__.py is flashpy.http"""
    parts = file.relative_to(package_root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(file, root): file
    for package, root in PACKAGES.items()
    for file in sorted((root / package).rglob("*.py"))
}


def imported(file: Path) -> Iterator[str]:
    """Every module that the file imports, at its top or not; `from a import b` may mean a.b."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES else str(node.module) for name in names)


IMPORTS = {name: set(imported(file)) for name, file in FILES.items()}


def reached(name: str) -> set[str]:
    """All modules of ours that `name` imports, and those that they import, and so on."""
    found: set[str] = set()
    left = [name]
    while left:
        fresh = (IMPORTS[left.pop()] & FILES.keys()) - found
        found |= fresh
        left.extend(fresh)
    return found


def of_package(name: str) -> list[str]:
    return [module for module in FILES if module == name or module.startswith(name + ".")]


def top_levels(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_every_module_has_its_place_and_every_place_a_module() -> None:
    assert set(ROWS) == set(FILES)
    assert len(ORDER.split()) == len(ROWS)


def test_the_design_names_every_module() -> None:
    named = set(re.findall(r"`(\w+)`", (REPOSITORY / "DESIGN.md").read_text()))
    stems = {name.rpartition(".")[2] for name in FILES if FILES[name].name != "__init__.py"}
    assert stems <= named


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_lower_ones(name: str) -> None:
    assert name in ROWS, "give it its place in ORDER"
    ours = IMPORTS[name] & ROWS.keys()
    assert not {other for other in ours if ROWS[other] >= ROWS[name]}


def test_helpers_need_the_standard_library_only() -> None:
    for name in of_package("flashpy_helpers"):
        strange = top_levels(IMPORTS[name]) - sys.stdlib_module_names - {"flashpy_helpers"}
        assert strange <= LIBRARIES.get(name, set()), name


def test_what_runs_without_site_packages_knows_no_library() -> None:
    """Nor does a worker: it would load them for nothing."""
    for name in {"flashpy_helpers.pathname", "flashpy_helpers.watcher", *WORKER}:
        assert not reached(name) & LIBRARIES.keys(), name


def test_nobody_imports_the_heavy_jobs_but_their_own_program() -> None:
    """And that one only when it is started as such: the other spawner has no libraries."""
    assert [name for name in FILES if "flashpy_helpers.heavy" in IMPORTS[name]] == ["flashpy_helpers.__main__"]
    top = ast.parse(FILES["flashpy_helpers.__main__"].read_text()).body
    assert "heavy" not in {alias.name for node in top if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_flashpy_uses_only_the_shared_part_of_the_helpers() -> None:
    for name in of_package("flashpy"):
        assert IMPORTS[name] & set(of_package("flashpy_helpers")) <= SHARED, name


def test_http_is_values_only() -> None:
    for name in of_package("flashpy.http"):
        outside = {"os", "socket", "mmap", "select", "selectors", "signal", "subprocess"}
        assert not top_levels(IMPORTS[name]) & outside, name
        assert reached(name) <= set(of_package("flashpy.http")), name


def test_the_cache_knows_neither_sockets_nor_http() -> None:
    for name in of_package("flashpy.cache"):
        assert not top_levels(IMPORTS[name]) & {"socket", "select", "selectors", "http"}, name
        assert reached(name) <= {*of_package("flashpy.cache"), *SHARED}, name


def test_the_loop_knows_nothing_of_ours() -> None:
    assert not IMPORTS["flashpy.loop"] & FILES.keys()


def test_an_answer_and_the_helper_pool_do_not_meet() -> None:
    assert "flashpy.helperpool" not in reached("flashpy.answer")
    assert not reached("flashpy.helperpool") & set(of_package("flashpy.cache"))


@pytest.mark.parametrize("name", sorted(WORKER & FILES.keys()))
def test_a_worker_module_knows_nothing_of_the_master(name: str) -> None:
    assert not reached(name) & MASTER


@pytest.mark.parametrize("name", sorted(MASTER & FILES.keys()))
def test_the_master_knows_of_a_worker_only_its_entry(name: str) -> None:
    assert IMPORTS[name] & WORKER <= {"flashpy.worker"}


@pytest.mark.parametrize("name", FILES)
def test_there_are_no_threads_and_no_asyncio(name: str) -> None:
    forbidden = {"asyncio", "threading", "_thread", "concurrent", "queue", "trio", "anyio"}
    assert not top_levels(IMPORTS[name]) & forbidden


def test_each_dependency_has_one_place() -> None:
    homes = {"click": "flashpy.cli", "msgspec": "flashpy.config", "gunicorn_h1c": "flashpy.http"}
    for name in of_package("flashpy"):
        strange = top_levels(IMPORTS[name]) - sys.stdlib_module_names - PACKAGES.keys()
        assert strange <= homes.keys(), name
        assert all(name in of_package(homes[package]) for package in strange), name
