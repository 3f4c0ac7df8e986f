"""Tables and sentences of 03_train."""

import pandas as pd
import pytest

from lib.core import params, paths
from lib.evaluation import learning
from lib.images.scenes import Scenes
from lib.report import training_curves
from lib.training import arms, paper_protocol, trainer
from tests.training.test_trainer import TINY, recipe  # noqa: F401  (recipe: the fixture that knows the tiny trunk)


@pytest.mark.parametrize(
    ("low", "best", "last", "counts", "words"),
    [
        (0.01, 3, 5, True, "rose until epoch 3 and stopped: no better one in 2 epoch"),
        (0.01, 5, 5, False, "still rising at the last epoch, 5"),
        (0.01, 4, 5, False, "best at epoch 4; the budget ended 1 epoch"),
        (0.00, 3, 5, False, "did not rise clearly"),
        (-0.2, 0, 2, False, "did not rise clearly"),
        (float("nan"), 3, 5, False, "did not rise clearly"),
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
        {**settings, "lr_loss": 0.01, "p": 0.5}, "arcface", "cub200"
    )
    assert list(moved.index[moved[""] == "differs"]) == ["lr_loss", "p"]
    assert moved.loc["lr_loss"].tolist()[:2] == ["0.01", "0.005138"]


def test_reasons_fit_into_the_tables_column() -> None:
    assert all(len(setting.departure) <= 40 for setting in paper_protocol.PAPER.values())


def test_every_parameter_of_the_stage_is_compared() -> None:
    assert set(paper_protocol.PAPER) == set(params.section("demo", "train"))


@pytest.fixture
def history(study: str, recipe) -> pd.DataFrame:  # noqa: F811
    fields = {k: v for k, v in TINY.items() if k not in ("loss", "arm", "seed", "p")}
    return trainer.train_study(study, "triplet", [0, 1], 1.0, Scenes(study, "drawn"), **fields)


def test_gains_are_paired_with_the_untrained_trunk(study: str, history: pd.DataFrame) -> None:
    scenes = Scenes(study, "drawn")
    table = learning.gains(study, "triplet", scenes, history, patience=2)
    assert len(table) == 4 and set(table["n"]) == {12}
    for row in table.itertuples():
        assert row.gain == pytest.approx(row.kept - row.untrained)
        assert not row.trained  # two validation classes are too few for an interval
        assert row.condition == arms.selection(row.arm)
        mine = history[(history["arm"] == row.arm) & (history["seed"] == row.seed)]
        at = mine[(mine["epoch"] == row.best) & (mine["condition"] == row.condition)]
        assert row.kept == pytest.approx(at["map_at_r"].item(), abs=1e-6)  # the weights kept
    text = training_curves.sentences(table)
    assert text.startswith(f"**{table['trained'].sum()} of 4 model(s) count as trained**")
    assert text.count("\n- **") == 4


def test_curves_neighbours_and_files_are_shown(study: str, history: pd.DataFrame) -> None:
    scenes, where = Scenes(study, "drawn"), paths.StudyPaths(study)
    table = learning.gains(study, "triplet", scenes, history, patience=2)
    figure = training_curves.curves(history, table, "title", "note")
    assert [len(axis.lines) for axis in figure.axes] == [4, 4 + 2 + 1, 4 + 2 + 1]
    near = learning.neighbours(study, "triplet", scenes, 0)
    assert list(near.found) == ["untrained", "base", "bgaugment"]
    test = set(scenes.store.rows("test"))
    for found in near.found.values():
        assert found.shape == (3, 5) and set(found.ravel()) <= test
        assert not (found == near.queries[:, None]).any()
    hits = (
        scenes.store.labels[near.found["base"]] == scenes.store.labels[near.queries][:, None]
    ).sum()
    assert f"base {hits}," in training_curves.neighbour_finding(near, scenes.store.labels)
    figures = where.reports / "figures"
    figures.mkdir(parents=True)
    (figures / "curves.png").write_bytes(bytes(2000))
    files = training_curves.written(study, "triplet", figures)
    assert files["holds"].value_counts()["weights of the kept epoch"] == 4 and len(files) == 7
    assert files.loc["curves.png"].tolist() == ["figure", "2.0 kB", "reports/small/figures"]


def test_both_arms_are_shown_the_same_crops(study: str) -> None:
    scenes = Scenes(study, "drawn")
    pictures = training_curves.seen(scenes, 32, 1.0, count=8)
    for arm, changed in {"base": 0, "bgaugment": 8}.items():
        _, finding = training_curves.seen_sheet(pictures, arm)
        assert f"{changed} of 8 training images" in finding
