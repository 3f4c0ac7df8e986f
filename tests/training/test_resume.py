"""Training is killed (SIGKILL) at chosen points, run again, and must end with the same bytes."""

import multiprocessing
import os
import signal
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lib.core import paths
from lib.images.scenes import Scenes
from lib.models import trunks
from lib.training import fit, recipe, trainer
from tests.training.test_trainer import TINY, Tiny

RECIPE = {**TINY, "epochs": 4}
MILESTONES = ("step", "before a file gets its name", "after a file got its name")


def _dies(original, countdown: list[int], after: bool):
    def wrapped(*arguments):
        countdown[0] -= 1
        if countdown[0] == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments)
        if countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def work(root: Path, fields: dict, scratch: Path, milestone: str, number: int) -> None:
    """Train in a process of its own, which kills itself at the `number`-th milestone (0: never)."""
    paths.ROOT = root
    trunks.TRUNKS["tiny"] = trunks.Trunk(lambda pretrained: Tiny(), "", trunks.LITE, 8, "")
    torch.set_num_threads(1)
    if milestone == "step":
        trainer.Run.step = _dies(trainer.Run.step, [number], after=True)
    else:
        os.replace = _dies(os.replace, [number], after=milestone.startswith("after"))
    fit.fit(recipe.Recipe(**fields), Scenes("small", "drawn"), scratch)


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.BaseContext:
    """Quick starts: children are forked from a process that has torch loaded but never ran it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lib.training.trainer", "torch._dynamo"])
    return context


@pytest.fixture
def once(study, home, processes):
    def run(fields: dict, scratch: str, milestone: str = "step", number: int = 0) -> int:
        arguments = (home, fields, home / scratch, milestone, number)
        child = processes.Process(target=work, args=arguments)
        child.start()
        child.join(600)  # seconds on an idle machine, minutes on a busy one
        assert child.exitcode in (0, -signal.SIGKILL)
        return child.exitcode

    return run


def results(folder: Path) -> dict[str, bytes]:
    """The files that count, by name."""
    found = {file.name: file.read_bytes() for file in folder.glob("*/*") if file.suffix != ".json"}
    return {name: content for name, content in found.items() if not name.startswith(".")}


@pytest.mark.fault(
    "killed/train",
    "training killed",
    "SIGKILL in a step, before and after a file gets its name, nine points, two optimisers",
    "run again: the same weights and history",
)
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("optimiser", ["adamw", pytest.param("rmsprop", marks=pytest.mark.long)])
def test_killed_anywhere_and_run_again_ends_with_the_same_bytes(
    once, home: Path, optimiser: str
) -> None:
    fields = {**RECIPE, "optimiser": optimiser}
    assert once(fields, "whole") == 0
    expected = results(home / "whole")
    assert set(expected) == {"best.safetensors", "history.csv"}
    numbers = {"step": (1, 5, 11), MILESTONES[1]: (1, 3, 6), MILESTONES[2]: (2, 4, 8)}
    for milestone, points in numbers.items():
        for number in points:
            scratch = f"{milestone} {number}"
            assert once(fields, scratch, milestone, number) == -signal.SIGKILL, scratch
            assert once(fields, scratch) == 0
            assert results(home / scratch) == expected, scratch


@pytest.mark.fault(
    "killed/again",
    "training killed again and again",
    "SIGKILL at every fifth file, until it ends",
    "it ends, with the same weights and history",
)
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_again_and_again_it_still_gets_there(once, home: Path) -> None:
    assert once(RECIPE, "whole") == 0
    deaths = 0
    while once(RECIPE, "cut", MILESTONES[2], 5) == -signal.SIGKILL:
        deaths += 1
        assert deaths < 20
    assert deaths >= 2
    assert results(home / "cut") == results(home / "whole")


def test_the_recipe_of_these_tests_is_a_recipe() -> None:
    assert asdict(recipe.check(recipe.Recipe(**RECIPE))) == {**RECIPE, "loss_arguments": ()}
