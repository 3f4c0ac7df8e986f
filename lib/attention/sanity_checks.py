"""May the score be trusted? Other methods, random weights, faithfulness, stability: a row an image.

Everything here looks at few images and few models (the first loss and seed in every arm, and the
trunk before training): it judges the score, it does not measure the study's models.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import interpolate

from lib.attention import controls, scores
from lib.attention import maps as attention_maps
from lib.attention.attribution import PAPER, Explanation
from lib.attention.maps import Altered
from lib.core.hardware import autocast, fixed_threads
from lib.core.progress import say
from lib.evaluation.embeddings import loaded
from lib.evaluation.models import MODEL, Model
from lib.images.scenes import Scenes
from lib.models.embedder import Embedder
from lib.training import arms

ORDERS = ("random_pixels", "random_patches")  # deletion and insertion in no sensible order
PATCHES = 8  # a side, as in occlusion
STEPS = 4  # of the cascade, beside the model as trained
POINTS = 8  # of deletion and insertion, beside the image as it is


@dataclass(frozen=True)
class Setup:
    """What all measurements share: models, images, explanations, the settings of the maps.

    `rows` are of the paper's maps, `few` of the other methods, `fewer` of the costly checks: each
    ascending, and among the ones before.
    """

    study: str
    scenes: Scenes
    models: list[Model]  # the untrained trunk first
    which: list[Explanation]
    rows: np.ndarray
    few: np.ndarray
    fewer: np.ndarray
    seed: int
    settings: dict[str, Any]

    @property
    def arms(self) -> list[Model]:
        """Every arm of the first loss and seed."""
        first = self.models[1]
        return [m for m in self.models[1:] if (m.loss, m.seed) == (first.loss, first.seed)]

    @property
    def base(self) -> Model:
        """The arm among them that others start from."""
        own = [model for model in self.arms if arms.get(model.arm).reference is None]
        return (own or self.arms)[0]

    def maps(
        self, subject: Model | Altered, rows: np.ndarray, which: Explanation = PAPER,
        seed: int | None = None, **settings: float,
    ) -> Tensor:  # fmt: skip
        """Raw maps; a model's own are made for all images that any check asks for, and once."""
        plain = isinstance(subject, Model) and seed is None and not settings
        made_for = (self.rows if which == PAPER else self.few) if plain else rows
        made = attention_maps.maps_of(
            self.study, subject, self.scenes, made_for, self.seed if seed is None else seed, which,
            **{**self.settings, **settings},
        )  # fmt: skip
        return made[np.searchsorted(made_for, rows)]

    def pictures(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images on 0 to 255 and masks, as `maps.pictures`; all models see the same crop."""
        return attention_maps.pictures(self.scenes, rows, self.base.image_size)

    def table(self, rows: np.ndarray, **columns: Any) -> pd.DataFrame:
        """One row an image: row, label and what is given."""
        return pd.DataFrame({"row": rows, "label": self.scenes.store.labels[rows]}).assign(
            **columns
        )

    def scored(self, maps: Tensor, masks: Tensor, rows: np.ndarray, **names: Any) -> pd.DataFrame:
        """Every measure of raw maps: one row an image x measure, with `names` as columns."""
        table = scores.score_table(maps, masks)
        table["row"] = rows[table["row"].to_numpy()]
        return table.assign(label=self.scenes.store.labels[table["row"]], **names)


def names_of(model: Model) -> dict[str, str | int]:
    """The key columns of a model."""
    return {key: getattr(model, key) for key in MODEL}


def method_scores(setup: Setup) -> pd.DataFrame:
    """All measures of all explanations: one row an image x model x explanation x measure.

    Models: random weights (arm `random`), the untrained trunk, and every arm.
    """
    rows, base = setup.few, setup.base
    network, (images, masks) = loaded(base)[0], setup.pictures(rows)
    drawn = controls.randomised(network, setup.seed, network.normalise(images))
    name = f"{base.identity} random {setup.seed} measured on {rows.tolist()}"
    subjects = [(Altered(base, name, drawn), {**names_of(base), "arm": "random"})]
    subjects += [(model, names_of(model)) for model in (setup.models[0], *setup.arms)]
    out = []
    for subject, names in subjects:
        say(f"{setup.study}: {len(setup.which)} explanations of {names['arm']}")
        for entry in setup.which:
            maps = setup.maps(subject, rows, entry)
            out.append(setup.scored(maps, masks, rows, **names, **vars(entry)))
    return pd.concat(out, ignore_index=True)


def control_scores(setup: Setup) -> pd.DataFrame:
    """Attention score of maps that know no model: one row an image x control."""
    images, masks = setup.pictures(setup.rows)
    out = []
    for name, control in controls.CONTROLS.items():
        value = _score(control.function(images.cpu(), masks), masks)
        out.append(setup.table(setup.rows, control=name, value=value))
    return pd.concat(out, ignore_index=True)


def rank_correlation(a: Tensor, b: Tensor) -> np.ndarray:
    """Spearman's correlation (B,) of the pixels of two maps (B, H, W); NaN where one is constant.

    Ties share their mean rank (a Grad-CAM map is zero over large parts).
    """
    x, y = (rankdata(maps.flatten(1).numpy(), axis=1) for maps in (a, b))
    x, y = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (x, y))
    below = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), below, out=np.full(len(x), np.nan), where=below > 0)


def _score(maps: Tensor, masks: Tensor) -> np.ndarray:
    """The paper's score (B,) of raw maps, NaN where undefined."""
    score, defined = scores.attention_score(scores.scale_map(maps), masks)
    return score.where(defined, torch.nan).numpy()


def _compared(
    setup: Setup, masks: Tensor, maps: Tensor, other: Tensor, **names: Any
) -> Iterator[pd.DataFrame]:
    """How maps score, how far an image's score moved from `other`'s, how alike the maps are."""
    here, there = _score(maps, masks), _score(other, masks)
    values = {
        "attention_score": here,
        "score_change": np.abs(here - there),
        "rank_correlation": rank_correlation(maps, other),
    }
    for metric, value in values.items():
        yield setup.table(setup.fewer, **names, metric=metric, value=value)


@fixed_threads()
def cascade(setup: Setup) -> pd.DataFrame:
    """The reference arm while its layers are drawn anew from the top: does each map change?

    One row an image x explanation x share of layers x measure, compared with the map of the model
    as trained. Source: Adebayo et al. 2018.
    """
    rows, model, out = setup.fewer, setup.base, []
    network, (images, masks) = loaded(model)[0], setup.pictures(rows)
    images = network.normalise(images)
    trained = {entry: setup.maps(model, rows, entry) for entry in setup.which}
    for share, drawn in controls.cascade(network, setup.seed, STEPS, images):
        say(f"{setup.study}: {share:.0%} of the layers drawn anew")
        name = f"{model.identity} cascade {share:.4f} {setup.seed} measured on {rows.tolist()}"
        subject = Altered(model, name, drawn)
        for entry in setup.which:
            maps = setup.maps(subject, rows, entry) if share else trained[entry]
            names = {**names_of(model), **vars(entry), "share": share}
            out += _compared(setup, masks, maps, trained[entry], **names)
    table = pd.concat(out, ignore_index=True)
    return table[table["metric"] != "score_change"]


def copy_blocks(levels: list[int]) -> Iterator[tuple[int, int]]:
    """Pairs (level, copies to add): a sum over copies grows block by block."""
    before = 0
    for level in sorted(set(levels)):
        yield level, level - before
        before = level


def stability(setup: Setup, copies: list[int], noise: list[float]) -> pd.DataFrame:
    """How far the paper's maps depend on the number of copies and on the noise level.

    One row an image x arm x factor x level x measure. Maps of every number of copies are compared
    with maps of the largest number and *other* noise, those of every noise level with the main
    run's: at the study's own level what remains is chance alone.
    """
    rows, masks, out = setup.fewer, setup.pictures(setup.fewer)[1], []
    for model in setup.arms:
        say(f"{setup.study}: stability of {model.arm}")
        most = setup.maps(model, rows, seed=setup.seed + 2000, copies=max(copies))
        total, names = torch.zeros_like(most), names_of(model)
        for number, (level, more) in enumerate(copy_blocks(copies)):
            total += setup.maps(model, rows, seed=setup.seed + 1000 + number, copies=more)
            out += _compared(setup, masks, total, most, **names, factor="copies", level=level)
        own = setup.maps(model, rows)
        for level in noise:
            maps = setup.maps(model, rows, seed=setup.seed + 3000, noise=level)
            out += _compared(setup, masks, maps, own, **names, factor="noise", level=level)
    return pd.concat(out, ignore_index=True)


def random_order(rows: np.ndarray, size: int, cells: int, seed: int) -> Tensor:
    """Maps (B, size, size) of random ranks, one value a cell of a cells x cells grid."""
    seeds = (torch.Generator().manual_seed(row + 1_000_003 * seed) for row in rows.tolist())
    grids = torch.stack([torch.rand(1, cells, cells, generator=g) for g in seeds])
    return interpolate(grids, (size, size), mode="nearest")[:, 0]


@fixed_threads()
def faithfulness(setup: Setup) -> pd.DataFrame:
    """Areas under deletion and insertion: one row an image x arm x map x measure.

    Maps: the explanations, the controls (a uniform one orders nothing), and random orders of
    pixels and of patches. Source: Petsiuk et al. 2018, on the embedding's similarity to itself.
    """
    rows, out = setup.fewer, []
    images, masks = setup.pictures(rows)
    blind = {
        name: control.function(images.cpu(), masks)
        for name, control in controls.CONTROLS.items()
        if name != "uniform"
    }
    size = images.shape[-1]
    for name, cells in zip(ORDERS, (size, PATCHES), strict=True):
        blind[name] = random_order(rows, size, cells, setup.seed)
    for model in setup.arms:
        say(f"{setup.study}: deletion and insertion, {model.arm}")
        own = {str(entry): setup.maps(model, rows, entry) for entry in setup.which}
        for name, curves in _curves(setup, loaded(model)[0], images, own | blind).items():
            for metric in ("deletion_area", "insertion_area"):
                value = getattr(curves, metric).cpu().numpy()
                names = {**names_of(model), "map": name, "metric": metric}
                out.append(setup.table(rows, **names, value=value))
    return pd.concat(out, ignore_index=True)


def _curves(
    setup: Setup, network: Embedder, images: Tensor, orders: dict[str, Tensor]
) -> dict[str, controls.Curves]:
    orders = {name: order.to(images.device) for name, order in orders.items()}
    with autocast(images.device, setup.settings["precision"]):
        return controls.deletion_insertion(
            network, network.normalise(images), orders, steps=POINTS, batch=32
        )
