"""Every stage of a tiny study is killed at ten random times, and must end with the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from lib.core import paths
from tests.pipeline.tiny_study import MEASURING, Clone

KILLS, TRIES = 10, 40
STAGES = (*MEASURING, "page_shift", "page_report", "index")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.xdist_group("killed"),
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The tiny study, run once without a fault."""
    made = Clone(tmp_path_factory.mktemp("killed"))
    made.repro()
    return made


def stage_of(name: str) -> tuple[list[str], list[str]]:
    """The command of a stage, and the files and folders that it writes, as dvc.yaml has them."""
    text = (paths.ROOT / "dvc.yaml").read_text(encoding="utf-8").replace("${item.study}", "tiny")
    stage = yaml.safe_load(text)["stages"][name]
    outs = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]]
    return stage["cmd"].removeprefix("python ").replace('""', "").split(" "), outs


def start(clone: Clone, stage: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *stage_of(stage)[0]], cwd=clone.root, env=clone.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def results(clone: Clone) -> dict[str, bytes]:
    """Every table, page, figure, model and row; not run.json, which says when it was."""
    data = [f"data/{name}/tiny/**/*.*" for name in ("prepared", "masks", "models")]
    found = clone.bytes_of("reports/**/*.*", *data)
    return {name: data for name, data in found.items() if not name.endswith("run.json")}


def forget(clone: Clone, stage: str) -> None:
    """Remove what the stage wrote, and all half-done work."""
    for name in [*stage_of(stage)[1], "data/scratch", *(["data/raw"] if stage == "data" else [])]:
        target = clone.root / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


@pytest.mark.fault(
    "killed/stages",
    "each measuring stage, two pages and the front page killed at ten random times",
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
