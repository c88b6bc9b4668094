"""Tools that a test needs beyond Python. A user's machine may lack them; CI may not.

    pytestmark = needs("strace", "nginx")

Without a tool the test is skipped and says what to install. With FLASHPY_NO_SKIP=1 it runs all the
same, and fails.
"""

import os
import shutil

import pytest

# Tool -> Debian's package, where the name differs.
_PACKAGES = {
    "nginx": "nginx-light",
    "varnishd": "varnish",
    "systemd-analyze": "systemd",
    "fusermount3": "fuse3",
    "unshare": "util-linux",
}
# Where daemons are, which is not in every user's PATH.
_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def find(tool: str) -> str | None:
    """The path of `tool`, also when it is where only root looks."""
    return shutil.which(tool, path=_PLACES)


def needs(*tools: str) -> pytest.MarkDecorator:
    """A mark that skips the test unless all `tools` are here."""
    missing = [tool for tool in tools if find(tool) is None]
    packages = " ".join(_PACKAGES.get(tool, tool) for tool in missing)
    return pytest.mark.skipif(
        bool(missing) and not may_not_skip(),
        reason=f"needs {', '.join(missing)}: apt install {packages}",
    )


def needs_root() -> pytest.MarkDecorator:
    """A mark that skips the test unless it runs as root."""
    return pytest.mark.skipif(os.geteuid() != 0 and not may_not_skip(), reason="needs root")


def without(*capabilities: str) -> list[str]:
    """The beginning of a command that root's powers shall not help."""
    if os.geteuid() != 0:
        return []
    bounds = ",".join(f"-{capability}" for capability in capabilities)
    return ["setpriv", "--inh-caps=-all", f"--bounding-set={bounds}"]


def may_not_skip() -> bool:
    """Whether this is CI, where a test that cannot run must fail."""
    return os.environ.get("FLASHPY_NO_SKIP") == "1"
