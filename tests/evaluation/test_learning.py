"""Does a model count as trained, and where do its settings depart from the paper's?"""

from dataclasses import replace

import pandas as pd
import pytest

from lib.core import params
from lib.evaluation import learning, models
from lib.images.scenes import Scenes
from lib.training import arms, paper_protocol
from lib.training.study import train_all
from tests.training.test_trainer import recipe  # noqa: F401 (a fixture)


@pytest.mark.parametrize(
    ("low", "best", "last", "counts", "words"),
    [
        (0.01, 3, 5, True, "rose until epoch 3 and stopped: no better one in 2 epoch"),
        (0.01, 5, 5, False, "still rising at the last epoch, 5"),
        (0.01, 4, 5, False, "best at epoch 4; the budget ended 1 epoch"),
        (0.00, 3, 5, False, "did not rise clearly"),
        (-0.2, 0, 2, False, "did not rise clearly"),
        (float("nan"), 3, 5, False, "not known"),
    ],
)
def test_a_model_is_trained_if_it_rose_and_stopped(
    low: float, best: int, last: int, counts: bool, words: str
) -> None:
    found = learning.verdict(low, best, last, patience=2)
    assert found[0] is counts and found[1].startswith(words)


@pytest.mark.parametrize("study", ["cub200", "cars196", "sop"])
def test_the_papers_studies_depart_where_they_say(study: str) -> None:
    settings = params.section(study, "train")
    table = paper_protocol.against_paper(settings, "arcface", study)
    assert set(table.index[table[""] == "differs"]) == {"precision", "epochs", "seeds"}
    assert (table.loc[table[""] == "differs", "why"] != "").all()
    assert (table.loc[table[""] == "", "why"] == "").all()
    assert table.loc["lr_loss", "here"] == table.loc["lr_loss", "paper"] != "0"


def test_a_departure_is_marked() -> None:
    settings = {name: setting.value for name, setting in paper_protocol.PAPER.items()}
    same = paper_protocol.against_paper({**settings, "lr_loss": 0.0}, "triplet", "cub200")
    assert (same[""] == "").all() and same.loc["lr_loss", "here"] == "no weights"
    moved = paper_protocol.against_paper(
        {**settings, "lr_loss": 0.01, "batch": 16}, "arcface", "cub200"
    )
    assert list(moved.index[moved[""] == "differs"]) == ["lr_loss", "batch"]
    assert moved.loc["lr_loss"].tolist()[:2] == ["0.01", "0.005138"]


def test_reasons_fit_into_the_tables_column() -> None:
    assert all(len(setting.departure) <= 40 for setting in paper_protocol.PAPER.values())


def test_every_parameter_of_the_stage_is_compared() -> None:
    own = {"losses", "arms"}  # all of the paper's, and none of them a setting
    assert set(paper_protocol.PAPER) == set(params.section("demo", "train")) - own


@pytest.fixture
def trained(study: str, recipe, monkeypatch) -> pd.DataFrame:  # noqa: F811
    """Both arms of one loss with two seeds; the history."""
    made = [replace(recipe, arm=arm, seed=seed) for seed in (0, 1) for arm in ("base", "bgaugment")]
    return train_all(study, made, Scenes(study, "drawn"))


def test_gains_are_paired_with_the_untrained_trunk(study: str, trained: pd.DataFrame) -> None:
    scenes = Scenes(study, "drawn")
    for model in models.models_of(study)[1:]:
        mine = trained[(trained["arm"] == model.arm) & (trained["seed"] == model.seed)]
        found = learning.gain(study, model, scenes, mine, patience=2)
        assert found["gain"] == pytest.approx(found["kept"] - found["untrained"])
        assert not found["trained"]  # two validation classes are too few for an interval
        assert found["condition"] == arms.get(model.arm).select_on and found["n"] == 12
        at = mine[(mine["epoch"] == found["best"]) & (mine["condition"] == found["condition"])]
        assert found["kept"] == pytest.approx(at["map_at_r"].item(), abs=1e-6)  # the weights kept
