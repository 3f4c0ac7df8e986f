"""A tweaker's first edit is to shorten a list: every page is then told of what is left.

One tiny study, trained once, measured and told with every kind of shortened list, and with classes
too few for an interval.
"""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.attention import measure as attention
from lib.core import paths
from lib.data import prepare
from lib.evaluation import measure as evaluation
from lib.masks import quality
from lib.report import front_page
from lib.training import study as training
from tests.report import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.xdist_group("subsets")]

CLASSES = {"train": 4, "val": 2, "test": 6}
SHIFT = {
    "conditions": ["clean", "random_background", "unshared_background", "same_class_background",
                   "other_class_background", "same_class_tiled", "other_class_tiled",
                   "own_background", "foreground_only", "background_only"],
    "draws": 2, "draws_control": 1, "mask_variants": ["eroded"],
}  # fmt: skip
LOOK = {
    "images": 6, "copies": 2, "noise": 0.15, "seed": 0, "images_methods": 4, "images_checks": 3,
    "methods": ["smoothgrad/distance_to_black", "gradient/distance_to_black"],
    "copies_levels": [1, 2], "noise_levels": [0.15],
}  # fmt: skip
TRAIN = {
    "losses": ["normalized_softmax"], "arms": ["base", "bgaugment"], "seeds": [0],
    "trunk": "efficientnet_lite0", "embedding": 16, "image_size": 64, "optimiser": "adamw",
    "lr_trunk": 1e-4, "lr_head": 1e-3, "lr_loss": 1e-2, "weight_decay": 1e-4, "batch": 8,
    "iterations": 2, "epochs": 1, "patience": 1, "precision": "f32",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A temporary home without a network, for all tests of this file."""
    root = tmp_path_factory.mktemp("subsets")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("REPORTS", "RAW", "WEIGHTS"):
            patch.setattr(paths, name, root / name.lower())
        patch.setattr(paths, "ROOT", root)
        patch.delenv("DATA_MIRROR", raising=False)

        def refuse(*_, **__):
            raise socket.gaierror("no network in tests")

        patch.setattr(socket, "getaddrinfo", refuse)
        yield root


def prepared(study: str, classes: dict[str, int]) -> None:
    options = {"seed": 0, "bias": 0.9, "test_bias": 0.9, "classes": classes,
               "images_per_class": 3, "side": 80}  # fmt: skip
    prepare.measure(study, "rendered", 72, "rendered", 4, options)
    quality.measure(study, "true")


@pytest.fixture(scope="module")
def study(place) -> str:
    prepared("small", CLASSES)
    return "small"


def check(study: str, train: dict, shift: dict, look: dict) -> dict[str, str]:
    """Measure, tell every page, and look for holes; what the pages show, by name."""
    training.measure(study, **train)
    evaluation.measure(study, **shift)
    attention.measure(study, **look)
    shown = {}
    for name, given in {"02_masks": {"source": "true"}, "03_train": train, "04_shift": {},
                        "05_attention": {}, "06_report": {}}.items():  # fmt: skip
        shown[name], _ = tiny.tell(name, study=study, **given)
        hole = re.search(r".{0,60}(\bnan\b|\bNaN\b|-0\.0\b(?!\d)).{0,60}", shown[name], re.S)
        assert not hole, f"{name}: {hole[0]}"
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
    "own masks as a variant": ({}, {"mask_variants": ["true", "dilated"]}, {}),
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


@pytest.mark.parametrize("name", SUBSETS)
def test_a_shortened_list_leaves_no_hole(study: str, name: str) -> None:
    train, shift, look = SUBSETS[name]
    check(study, TRAIN | train, SHIFT | shift, LOOK | look)


def test_too_few_classes_for_an_interval_are_said(place) -> None:
    prepared("few", {"train": 2, "val": 2, "test": 2})
    shown = check("few", TRAIN, SHIFT, LOOK)
    assert "at least 5" in shown["06_report"] and "at least 5" in shown["03_train"]
