"""A worker never collects cyclic garbage, so its connections must not make any."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def test_ten_thousand_connections_in_every_state_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "a.txt").write_bytes(b"a text\n")
    (tmp_path / "a.txt.gz").write_bytes(b"its sibling")
    (tmp_path / "large.bin").write_bytes(bytes(2 << 20))
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "helpers")])
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(REPOSITORY / "tests" / "garbage.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert set(report["states"]) == {"0", "1", "2", "3"}, "not every state was reached"
    assert (report["found"], report["kinds"]) == (0, {})
    assert [report[name] for name in ("handlers", "pinned", "waiting", "open")] == [0, 0, 0, 0]
    assert report["descriptors"] < 30
