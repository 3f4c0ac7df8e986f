"""What is on record is told again from a bare clone: no photographs, no weights, the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.core import paths
from lib.run import pages

TIMES = "run.json"  # when and how long: the only file that differs between two runs


def told(clone: Path, study: str) -> dict[str, bytes]:
    """Tell a study in the clone; its results but for the times."""
    environment = os.environ | {"PYTHONPATH": str(clone), "DATA_MIRROR": ""}
    command = [sys.executable, "-m", "lib.run.pages", study]
    done = subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    files = sorted((clone / "reports" / study).rglob("*"))
    return {
        file.relative_to(clone).as_posix(): file.read_bytes()
        for file in files
        if file.is_file() and file.name != TIMES
    }


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(not (paths.ROOT / ".git").exists(), reason="no commit to look at")
def test_committed_studies_are_told_again_with_the_same_bytes(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(paths.ROOT), str(clone)], check=True)
    studies = [s for s in pages.known() if (clone / "reports" / s / "06_report.html").exists()]
    assert studies
    for study in studies:
        assert told(clone, study) == told(clone, study), study
        status = ["git", "status", "--porcelain", "--", f"reports/{study}"]
        changed = subprocess.run(status, cwd=clone, capture_output=True, text=True, check=True)
        names = {line.split()[-1].rsplit("/", 1)[-1] for line in changed.stdout.splitlines()}
        assert names <= {TIMES}, f"{study}: the committed pages have other bytes"
