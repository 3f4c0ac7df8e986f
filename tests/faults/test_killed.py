"""Every stage of a tiny study is killed at ten random times, and must end with the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.pipeline.test_pipeline import LOSSES, Clone

KILLS, TRIES = 10, 40
FIRST = LOSSES[0]
# Stage: its command (as in dvc.yaml), and what it writes.
STAGES = {
    "data": (["lib.run.execute", "01_data"], ["data/prepared/tiny", "data/raw"]),
    "masks": (["lib.run.execute", "02_masks", "--next", f"03_train_{FIRST}"], ["data/masks/tiny"]),
    "train": (
        ["lib.run.execute", "03_train", "-p", f"loss={FIRST}", "--stem", f"03_train_{FIRST}"],
        [f"data/models/tiny/{FIRST}"],
    ),
    "shift": (
        ["lib.run.execute", "04_shift", "--previous", f"03_train_{FIRST}"],
        ["data/shift/tiny"],
    ),
    "attention": (["lib.run.execute", "05_attention"], ["data/attention/tiny"]),
    "report": (["lib.run.execute", "06_report", "--next", ""], ["reports/summaries"]),
    "index": (["lib.report.front_page"], []),
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("killed"),
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The tiny study, run once without a fault."""
    made = Clone(tmp_path_factory.mktemp("killed"))
    made.repro()
    return made


def start(clone: Clone, stage: str) -> subprocess.Popen:
    module, *words = STAGES[stage][0]
    command = [sys.executable, "-m", module, *words]
    command += ["--study", "tiny"] if module == "lib.run.execute" else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_DISABLE_JIT": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.Popen(
        command, cwd=clone.root, env={**environment, "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def results(clone: Clone) -> dict[str, bytes]:
    """Every table, page, figure, model and row; not run.json, which says when it was."""
    found = clone.bytes_of("reports/**/*.*", "data/[pmsa][rohta]*/tiny/**/*.*")
    return {name: data for name, data in found.items() if not name.endswith("run.json")}


def forget(clone: Clone, stage: str) -> None:
    """Remove what the stage wrote, and all half-done work."""
    for folder in [*STAGES[stage][1], "data/scratch"]:
        shutil.rmtree(clone.root / folder, ignore_errors=True)
    stem = {"train": f"03_train_{FIRST}"}.get(stage, f"_{stage}")
    for file in clone.reports.glob(f"*{stem}.*"):
        file.unlink()


@pytest.mark.fault(
    "killed/stages",
    "each of the seven stages killed at ten random times",
    "SIGKILL and SIGTERM in turn, to the run of a tiny study",
    "run again after each: every table, page, figure and weight has the same bytes",
)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_ten_times_ends_with_the_same_bytes(clone: Clone, stage: str) -> None:
    expected = results(clone)
    assert len(expected) > 40
    forget(clone, stage)
    begin = time.monotonic()
    assert start(clone, stage).wait() == 0
    length = time.monotonic() - begin
    if stage == "index":
        expected = results(clone)  # the front page tells when the other stages ran
    assert results(clone) == expected
    forget(clone, stage)
    killed = 0
    for share in np.random.default_rng(0).uniform(0.02, 0.98, TRIES):
        process = start(clone, stage)
        time.sleep(share * length)
        process.send_signal(signal.SIGKILL if killed % 2 else signal.SIGTERM)
        process.communicate()
        killed += process.returncode != 0
        if killed == KILLS:
            break
        if process.returncode == 0:  # it goes on from what was kept, so it may have come through
            forget(clone, stage)
    last = start(clone, stage)
    told = last.communicate()[1].decode()
    assert last.returncode == 0, told[-3000:]
    assert killed == KILLS
    after = results(clone)
    assert sorted(after) == sorted(expected)
    assert [name for name in expected if after[name] != expected[name]] == []
