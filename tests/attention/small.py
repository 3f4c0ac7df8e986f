"""A small study with models of random weights of their own in place of trained ones."""

import json

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lib.attention import maps as attention_maps
from lib.attention import measure, sanity_checks
from lib.attention.attribution import explanations
from lib.evaluation import embeddings, measured
from lib.evaluation.models import Model
from lib.images.scenes import Scenes
from lib.models import trunks
from lib.training import arms

SETTINGS = {"copies": 2, "noise": 0.15, "precision": "f32"}
ASKED = {
    "images": 6, "copies": 2, "noise": 0.15, "seed": 0, "methods": ["gradient"],
    "images_methods": 4, "images_checks": 3, "copies_levels": [1, 2], "noise_levels": [0.3],
}  # fmt: skip


class Body(nn.Sequential):
    """Three layers, one of them BatchNorm."""

    def __init__(self) -> None:
        first, second = (nn.Conv2d(*size, 3, stride=2, padding=1) for size in ((3, 8), (8, 12)))
        super().__init__(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU())

    def features(self, x: Tensor) -> Tensor:
        return self(x)


class Small(nn.Module):
    """As an embedder, but small; looked at on 32 pixels."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk, self.head = Body(), nn.Linear(12, 6)
        self.normalise = trunks.LITE

    def forward(self, x: Tensor) -> Tensor:
        return normalize(self.head(self.trunk.features(x).mean(dim=(2, 3))), dim=1)


def use_models(
    monkeypatch: pytest.MonkeyPatch, names: list[str], seeds: tuple[int, ...] = (0,)
) -> list[Model]:
    """Let every study have these arms (an unknown one becomes an entry) of one loss."""
    for name in names:
        if name not in arms.ARMS:
            monkeypatch.setitem(arms.ARMS, name, arms.Arm(name, arms.replaced(arms.grey)))
    options = {"trunk": "efficientnet_lite0", "embedding": 8, "image_size": 32, "precision": "f32"}
    who = [("none", "untrained", 0), *(("triplet", arm, seed) for seed in seeds for arm in names)]
    models = [Model(*model, **options, weights=None) for model in who]
    number = {model: 7 + at for at, model in enumerate(models)}
    embeddings.loaded.cache_clear()
    monkeypatch.setattr(Model, "load", lambda model: Small(number[model]).eval())
    monkeypatch.setattr(Model, "identity", property(lambda model: f"{model.arm} {model.seed}"))
    monkeypatch.setattr(measure, "models_of", lambda _: models)
    monkeypatch.setattr(measure, "mask_source", lambda _: "drawn")
    monkeypatch.setattr(measure, "PRECISION", "f32")
    return models


def setup_of(study: str, models: list[Model], methods: list[str]) -> sanity_checks.Setup:
    """What `measure` would make of ASKED."""
    scenes = Scenes(study, "drawn")
    rows = [attention_maps.chosen_rows(scenes, count, 0) for count in (6, 4, 3)]
    return sanity_checks.Setup(study, scenes, models, explanations(methods), *rows, 0, SETTINGS)


def write_evaluation(study: str, models: list[Model]) -> None:
    """The tables of lib.evaluation that page 05 reads: facts, and queries that lose unevenly."""
    folder = measured.read(study).folder
    names = list(dict.fromkeys(model.arm for model in models[1:]))
    facts = {"losses": ["triplet"], "arms": names, "seeds": sorted({m.seed for m in models})}
    facts |= {"dataset": "cub200", "note": "", "usable": 0.9, "images": {"test": 12}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(facts))
    for at, model in enumerate(models):
        rows = [
            {"condition": condition, "sides": "both", "draw": 0, "row": row, "label": row // 6,
             "map_at_r": 0.8 - fall * (0.1 + 0.01 * at + 0.003 * row), "p_at_1": 1.0}
            for condition, fall in (("clean", 0), ("random_background", 1))
            for row in range(24, 36)
        ]  # fmt: skip
        table = pd.DataFrame(rows).assign(**sanity_checks.names_of(model))
        name = measured.name_of(model.loss, model.arm, model.seed)
        measured.write_compact(folder / "queries" / f"{name}.parquet", table)
