"""03_train on drawn images: its by-hand cells hold, and every loss, arm and seed is shown."""

import pytest

from lib.core import paths
from lib.core.files import write_json
from lib.report import style, training_curves
from lib.training import study as training
from tests.report import tiny

PAPER = ["clean", "random_background"]


@pytest.mark.parametrize(
    ("names", "losses", "seeds"),
    [
        (["base", "bgaugment", "greyaugment"], tiny.LOSSES, (0, 1)),
        (["base"], ("triplet",), (0,)),
    ],
)
def test_the_page_has_no_holes(study, monkeypatch, names, losses, seeds) -> None:
    m = tiny.write(study, names, PAPER, losses, seeds)
    asked = []
    monkeypatch.setattr(training, "measure", lambda *what, **more: asked.append(what) or m.training)
    write_json(paths.StudyPaths(study).masks / "source.json", {"source": "drawn"})
    given = {"losses": list(losses), "arms": names, "seeds": list(seeds)}
    shown, _ = tiny.tell("03_train", study=study, **given)
    assert asked == [(study, *given.values())] and ">nan<" not in shown
    for name in names:
        assert style.label(name) in shown
    assert f"{len(losses) * len(names) * len(seeds)} models" in shown


def test_a_kept_epoch_is_ringed_on_the_condition_that_picked_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    m = tiny.write("tiny", ["base", "bgaugment"], PAPER, ("triplet",), (0,))
    figure, finding = training_curves.curves(m.training, m.learning)
    rings = [[line.get_color() for line in a.lines if line.get_ms() == 13] for a in figure.axes]
    assert [len(found) for found in rings] == [0, 1, 1] and "+20.0" in finding
