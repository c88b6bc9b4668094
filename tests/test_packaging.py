"""What a wheel holds: the two packages and nothing else, as a client's type checker needs them."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import flashpy

REPOSITORY = Path(__file__).parent.parent
# What a build reads; a copy, since parallel tests and a user's editor are in the original.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "flashpy", "helpers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel of this checkout."""
    folder = tmp_path_factory.mktemp("packaging")
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("*_cache"))
        else:
            shutil.copy(source, copy / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*build, str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    assert file.name == f"flashpy-{flashpy.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def test_the_top_level_is_the_two_packages(wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel}
    assert tops == {"flashpy", "flashpy_helpers", f"flashpy-{flashpy.__version__}.dist-info"}


def test_both_packages_are_typed(wheel: list[str]) -> None:
    assert {"flashpy/py.typed", "flashpy_helpers/py.typed"} <= set(wheel)


def test_every_module_is_in_it_and_no_leftovers(wheel: list[str]) -> None:
    modules = {
        str(file.relative_to(root))
        for root in (REPOSITORY, REPOSITORY / "helpers")
        for file in (*root.glob("flashpy/**/*.py"), *root.glob("flashpy_helpers/**/*.py"))
    }
    code = {name for name in wheel if "dist-info" not in name}
    assert code - {"flashpy/py.typed", "flashpy_helpers/py.typed"} == modules


def test_the_licence_and_the_command_are_in_it(wheel: list[str]) -> None:
    names = [name.partition("dist-info/")[2] for name in wheel if "dist-info" in name]
    assert "licenses/LICENSE" in names
    assert "entry_points.txt" in names
