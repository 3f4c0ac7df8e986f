"""A tweaker's first edit is to shorten a list: every page is then told of what is left.

A study of drawn pictures and small random models, measured and told with every kind of shortened
list, and with classes too few for an interval.
"""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lib.attention import measure as attention
from lib.core import paths
from lib.evaluation import mask_robustness
from lib.evaluation import measure as evaluation
from lib.evaluation.models import Model
from lib.front import front_page
from lib.training import study as training
from tests.attention import small
from tests.conftest import small_study
from tests.report import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SHIFT = {
    "conditions": ["clean", "random_background", "unshared_background", "same_class_background",
                   "other_class_background", "same_class_tiled", "other_class_tiled",
                   "own_background", "foreground_only", "background_only"],
    "draws": 2, "draws_control": 1, "mask_variants": ["eroded"],
}  # fmt: skip
LOOK = {
    "images": 5, "copies": 2, "noise": 0.15, "seed": 0, "images_methods": 5, "images_checks": 5,
    "methods": ["smoothgrad/distance_to_black", "gradient/distance_to_black"],
    "copies_levels": [1, 2], "noise_levels": [0.15],
}  # fmt: skip
TRAIN = {"losses": ["triplet"], "arms": ["base", "bgaugment"], "seeds": [0]}
RECIPE = {
    "trunk": "efficientnet_lite0", "embedding": 6, "image_size": 32, "optimiser": "adamw",
    "lr_trunk": 1e-4, "lr_head": 1e-3, "lr_loss": 1e-2, "weight_decay": 1e-4, "batch": 8,
    "iterations": 2, "epochs": 1, "patience": 1, "precision": "f32",
}  # fmt: skip
HOLE = r".{0,80}(\bnan\b|\bNaN\b|-0\.0\b(?!\d)).{0,80}"
ENOUGH = ["train"] * 2 + ["validation"] * 5 + ["test"] * 5
FEW = ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


def pretend(monkeypatch, losses: list[str], arms: list[str], seeds: list[int]) -> None:
    """Let the study's models be small ones of random weights, as if they were trained."""
    small.use_models(monkeypatch, arms)
    facts = {"trunk": "efficientnet_lite0", "embedding": 6, "image_size": 32, "precision": "f32"}
    who = [(loss, arm, seed) for loss in losses for seed in seeds for arm in arms]
    models = [Model(*names, **facts, weights=Path("weights")) for names in who]
    first = replace(models[0], loss="none", arm="untrained", seed=0, embedding=0, weights=None)
    entry = {"recipe": {"patience": 1}, "origin": {}}
    described = [(first, {}), *((model, entry) for model in models)]

    def load(model: Model) -> small.Small:
        return small.Small(sum(map(ord, f"{model.loss} {model.arm} {model.seed}"))).eval()

    monkeypatch.setattr(Model, "load", load)
    monkeypatch.setattr(
        Model, "identity", property(lambda model: f"{model.loss} {model.arm} {model.seed}")
    )
    monkeypatch.setattr(attention, "models_of", lambda _: [model for model, _ in described])
    monkeypatch.setattr(evaluation, "described", lambda _: described)
    lists = {"losses": losses, "arms": arms, "seeds": seeds}
    monkeypatch.setattr(evaluation, "trained", lambda _: lists)
    monkeypatch.setattr(
        mask_robustness.models, "models_of", lambda _: [model for model, _ in described]
    )
    history = tiny.history(who)
    file = paths.StudyPaths("small").models / "training.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    history.to_csv(file, index=False)
    monkeypatch.setattr(training, "measure", lambda *_, **__: pd.read_csv(file))


def check(monkeypatch, splits: list[str], train: dict, shift: dict, look: dict) -> dict[str, str]:
    """Measure, tell every page, and look for holes; what the pages show, by name."""
    study = small_study(splits)
    pretend(monkeypatch, **train)
    evaluation.measure(study, **shift)
    attention.measure(study, **look)
    shown, holes = {}, []
    for name in ("03_train", "04_shift", "05_attention", "06_report"):
        given = {**train, **RECIPE} if name == "03_train" else {}
        shown[name], _ = tiny.tell(name, study=study, **given)
        holes += [f"{name}: {x[0]}" for x in re.finditer(HOLE, shown[name], re.S)]
    assert not holes, "\n".join(holes)
    reports = paths.StudyPaths(study).reports
    for file in [*reports.rglob("*.json"), paths.REPORTS / "summaries" / f"{study}.json"]:
        assert not re.search(r"\b(NaN|Infinity)\b", file.read_text()), file
    page = front_page.build(paths.REPORTS, paths.FACTS, [study], "local.html").read_text()
    assert not re.search(r"\bnan\b", page)
    return shown


PAIRS = ["same_class_background", "other_class_background"]
SUBSETS = {
    "clean": ({}, {"conditions": ["clean"]}, {}),
    "clean and random": ({}, {"conditions": ["clean", "random_background"]}, {}),
    "one pair": ({}, {"conditions": ["clean", *PAIRS]}, {}),
    "half a pair": ({}, {"conditions": ["clean", PAIRS[1], "other_class_tiled"]}, {}),
    "tiles only": ({}, {"conditions": ["clean", "same_class_tiled", "other_class_tiled"]}, {}),
    "no foreground": ({}, {"conditions": ["clean", "random_background", "background_only"]}, {}),
    "no random": ({}, {"conditions": ["clean", "foreground_only", "own_background"]}, {}),
    "reordered": ({}, {"conditions": ["random_background", "background_only", "clean"]}, {}),
    "no variants": ({}, {"mask_variants": []}, {}),
    "more variants": ({}, {"mask_variants": ["full", "dilated"]}, {}),
    "one draw": ({}, {"draws": 1}, {}),
    "two losses": ({"losses": ["triplet", "normalized_softmax"]}, {}, {}),
    "one arm": ({"arms": ["base"]}, {}, {}),
    "the other arm": ({"arms": ["bgaugment"]}, {"conditions": ["clean"]}, {}),
    "arms reordered": ({"arms": ["bgaugment", "base"]}, {}, {}),
    "two seeds": ({"seeds": [0, 3]}, {}, {}),
    "few methods": ({}, {}, {"methods": [], "copies_levels": [2], "images_checks": 1}),
    "one image": ({}, {}, {"images": 1, "images_methods": 1, "images_checks": 1}),
    "everything": ({"arms": ["bgaugment"]},
                   {"conditions": ["clean"], "mask_variants": [], "draws": 1},
                   {"methods": [], "copies_levels": [1]}),
}  # fmt: skip


QUICKLY = ("clean", "everything", "two seeds")  # the others in `make test ARGS="-m long"`


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n not in QUICKLY)) for n in SUBSETS]
)
def test_a_shortened_list_leaves_no_hole(home, monkeypatch, name: str) -> None:
    train, shift, look = SUBSETS[name]
    check(monkeypatch, ENOUGH, TRAIN | train, SHIFT | shift, LOOK | look)


def test_too_few_classes_for_an_interval_are_said(home, monkeypatch) -> None:
    shown = check(monkeypatch, FEW, TRAIN, SHIFT, LOOK)
    assert "at least 5" in shown["06_report"] and "at least 5" in shown["03_train"]
