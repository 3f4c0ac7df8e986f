"""A smaller tiny study, measured, edited, measured again from nothing, and grown by a seed."""

import shutil
from pathlib import Path

import pytest

from lib.core.compact import read_compact
from tests.pipeline.tiny_study import Clone

FEW = {"train": {"losses": ["triplet"], "arms": ["base", "bgaugment"]},
       "shift": {"conditions": ["clean", "random_background"]}}  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.xdist_group("again")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The study, measured once for all tests of this file, with two of its pages."""
    made = Clone(tmp_path_factory.mktemp("again"))
    made.set(**FEW)
    made.commit("fewer models")
    made.repro("page_masks@tiny", "page_shift@tiny", "attention@tiny", "remedies@tiny")
    return made


def test_an_edited_trainer_trains_again(clone: Clone) -> None:
    with clone.restored():
        clone.append("lib/training/trainer.py", "\nEDITED = True\n")
        wanted = {"train@tiny", "shift@tiny", "attention@tiny"}
        assert set(clone.repro("--dry", "shift@tiny", "attention@tiny")) == wanted
        assert clone.repro("train@tiny") == ["train@tiny"]
    told = (clone.root / "data" / "scratch" / "tiny").glob("triplet-base-0-*")
    assert len(list(told)) == 2  # trained anew: nothing of other code is found in the cache


@pytest.mark.fault(
    "killed/nothing",
    "everything deleted",
    "a tiny study run from nothing, deleted, run again",
    "every table, weight, page and figure has the same bytes",
)
def test_from_nothing_again_gives_the_same_bytes(clone: Clone) -> None:
    what = ("data/models/tiny/*/*.safetensors", "reports/tiny/measured/**/*.*")
    what += ("reports/tiny/0[24]_*.*", "reports/tiny/figures/0[24]_*/*.*")
    what += ("reports/tiny/effects.parquet", "reports/tiny/retrieval.parquet")
    before = clone.bytes_of(*what)
    assert len(before) > 30
    for folder in ("data/prepared", "data/masks", "data/models", "data/scratch", "data/raw",
                   ".dvc/cache", ".dvc/tmp", "reports"):  # fmt: skip
        shutil.rmtree(clone.root / folder)
    (clone.root / "dvc.lock").unlink()
    clone.repro("page_masks@tiny", "page_shift@tiny", "attention@tiny", "remedies@tiny")
    after = clone.bytes_of(*what)
    assert [name for name in before if before[name] != after.get(name)] == []


def test_a_study_grows_by_a_seed_where_its_weights_are_not(clone: Clone) -> None:
    """KEEP_MEASURED: what other machines trained and measured stays as it is, new seeds come."""
    mine = "reports/tiny/measured/*/*/triplet-*-0.*"
    before = clone.bytes_of(mine)
    for folder in ("data/models", "data/scratch", ".dvc/cache"):
        shutil.rmtree(clone.root / folder)
    clone.set(**FEW | {"train": FEW["train"] | {"seeds": [0, 1]}})
    clone.repro("page_shift@tiny", "attention@tiny", "remedies@tiny", KEEP_MEASURED="1")
    assert len(before) > 10 and clone.bytes_of(mine) == before
    weights = clone.bytes_of("data/models/tiny/*/*.safetensors")
    assert [Path(name).stem for name in weights] == ["base-1", "bgaugment-1"]
    table = read_compact([clone.reports / "retrieval.parquet"])
    assert set(table["arm"]) == {"untrained", "base", "bgaugment"} and set(table["seed"]) == {0, 1}
