"""05_attention: may the maps be trusted? Other methods, random weights, faithfulness, stability.

Everything here looks at few images and few models (the first loss, its first seed, and the trunk
before training): it judges the score, it does not measure the study's models.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor

from lib.attention import attribution, controls, scores
from lib.attention import maps as attention_maps
from lib.attention.attribution import PAPER, Explanation
from lib.core.hardware import autocast, fixed_threads
from lib.core.progress import say
from lib.evaluation import models as trained_models
from lib.evaluation import statistics
from lib.images.scenes import Scenes
from lib.models.embedder import Embedder

BLIND = ("uniform", "centred_gaussian", "sobel", "true_mask")  # controls that see no network
ORDERS = ("random_pixels", "random_patches")  # deletion and insertion in no sensible order
PATCHES = 8  # a side, as in occlusion
STEPS = 4  # of the cascade, beside the network as trained
KEYS = [*attention_maps.MODEL, *attention_maps.EXPLANATION]


@dataclass(frozen=True)
class Setup:
    """What all checks share: the images of the main run, the seed, the settings of the maps."""

    study: str
    scenes: Scenes
    rows: np.ndarray  # ascending
    seed: int
    settings: dict[str, Any]

    @cached_property
    def models(self) -> dict[str, trained_models.Model]:
        """The untrained trunk and both arms of the first loss and seed, by arm."""
        untrained, first, *_ = every = trained_models.models_of(self.study)
        pair = [m for m in every if (m.loss, m.seed) == (first.loss, first.seed)]
        return {m.arm: m for m in (untrained, *pair)}

    def few(self, count: int) -> np.ndarray:
        """`count` of the rows, spread over the classes as the rows are."""
        return attention_maps.chosen_rows(self.scenes, min(count, len(self.rows)), self.seed)

    def partners(self, model: trained_models.Model, rows: np.ndarray, which: Explanation) -> list:
        """The pictures that the target compares with, under the network as trained."""
        return attention_maps.partners_of(self.study, model, self.scenes, rows, which.target)

    def maps(
        self, subject: attention_maps.Subject, rows: np.ndarray, which: Explanation = PAPER,
        partners: list | None = None, seed: int | None = None, **settings: float,
    ) -> Tensor:  # fmt: skip
        """Raw maps; those of the main run are not made again."""
        own = which == PAPER and isinstance(subject, trained_models.Model)
        again = own and seed is None and not settings
        made = attention_maps.maps_of(
            self.study, subject, self.scenes, self.rows if again else rows,
            self.seed if seed is None else seed, which, partners, **{**self.settings, **settings},
        )  # fmt: skip
        return made[np.searchsorted(self.rows, rows)] if again else made

    def inputs(self, network: Embedder, rows: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, s, s) and masks (B, s, s)."""
        images, masks = attention_maps.pictures(self.scenes, rows, size)
        return network.normalise(images), masks

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """Class of every row."""
        return self.scenes.store.labels[rows]


def explanations(names: list[str]) -> list[Explanation]:
    """The entries of a study's `methods`, the paper's first."""
    found = [Explanation.parse(name) for name in names]
    return [PAPER, *(entry for entry in found if entry != PAPER)]


@fixed_threads()
def random_weights(setup: Setup, rows: np.ndarray) -> attention_maps.Altered:
    """The base arm's network with every layer drawn anew."""
    model = setup.models["base"]
    network = model.load()
    images, _ = setup.inputs(network, rows, model.image_size)
    made = controls.randomised(network, setup.seed, images)
    name = f"{model.identity} random {setup.seed} measured on {rows.tolist()}"
    return attention_maps.Altered(name, model.image_size, made)


def method_scores(setup: Setup, rows: np.ndarray, which: list[Explanation]) -> pd.DataFrame:
    """All measures of all explanations: one row an image x network x explanation x measure.

    Networks: random weights (arm `random`), the untrained trunk, base and bgaugment. The random
    network is asked about the same partners as the base arm: the question stays, the answer goes.
    """
    base, out = setup.models["base"], []
    subjects = [
        (random_weights(setup, rows), base, {**attention_maps.names_of(base), "arm": "random"})
    ]
    subjects += [(m, m, attention_maps.names_of(m)) for m in setup.models.values()]
    for subject, model, names in subjects:
        say(f"{setup.study}: {len(which)} explanations of {names['arm']} ({names['loss']})")
        masks = attention_maps.pictures(setup.scenes, rows, model.image_size)[1]
        for entry in which:
            maps = setup.maps(subject, rows, entry, setup.partners(model, rows, entry))
            found = attention_maps.scored(maps, masks, rows, setup.scenes, **names, **vars(entry))
            out.append(found)
    return pd.concat(out, ignore_index=True)


def blind_scores(setup: Setup, rows: np.ndarray) -> pd.DataFrame:
    """Attention score of maps that know no network: one row an image x control."""
    size, out = setup.models["base"].image_size, []
    images, masks = attention_maps.pictures(setup.scenes, rows, size)
    for name in BLIND:
        maps = controls.control_maps(name, images.cpu(), masks)
        score, defined = scores.attention_score(scores.scale_map(maps), masks)
        value = score.where(defined, torch.nan).numpy()
        out.append(_rows(setup, rows, control=name, value=value))
    return pd.concat(out, ignore_index=True)


def differences(methods: pd.DataFrame) -> pd.DataFrame:
    """Paired differences per explanation: base - random weights, and bgaugment - base."""
    pairs = (("base", "random"), ("bgaugment", "base"))
    parts = [
        attention_maps.arm_effects(methods, *pair).assign(arm="-".join(pair)) for pair in pairs
    ]
    return pd.concat(parts, ignore_index=True)


def control_table(blind: pd.DataFrame, methods: pd.DataFrame) -> pd.DataFrame:
    """Mean attention score and interval of the blind maps, and of SmoothGrad on random weights."""
    drawn = methods[(methods["arm"] == "random") & (methods["metric"] == "attention_score")]
    drawn = drawn[drawn["defined"] & (drawn["method"] == PAPER.method)]
    drawn = drawn[drawn["target"] == PAPER.target].assign(control="random_weights")
    both = pd.concat([blind, drawn[["row", "label", "control", "value"]]], ignore_index=True)
    return means(both, ["control"])


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


@fixed_threads()
def cascade(setup: Setup, rows: np.ndarray, which: list[Explanation]) -> pd.DataFrame:
    """The base arm while its layers are drawn anew from the top: does each explanation change?

    One row an image x explanation x share of layers x measure (rank correlation with the map of
    the network as trained; attention score). Source: Adebayo et al. 2018.
    """
    model, out = setup.models["base"], []
    network = model.load()
    images, masks = setup.inputs(network, rows, model.image_size)
    partners = {entry: setup.partners(model, rows, entry) for entry in which}
    before = {entry: setup.maps(model, rows, entry, partners[entry]) for entry in which}
    for share, drawn in controls.cascade(network, setup.seed, STEPS, images):
        say(f"{setup.study}: {share:.0%} of the layers drawn anew")
        name = f"{model.identity} cascade {share:.4f} {setup.seed} measured on {rows.tolist()}"
        subject = attention_maps.Altered(name, model.image_size, drawn) if share else model
        for entry in which:
            maps = setup.maps(subject, rows, entry, partners[entry])
            names = {**attention_maps.names_of(model), **vars(entry), "share": share}
            alike = rank_correlation(before[entry], maps)
            out.append(_rows(setup, rows, **names, metric="rank_correlation", value=alike))
            found = _score(maps, masks)
            out.append(_rows(setup, rows, **names, metric="attention_score", value=found))
    return pd.concat(out, ignore_index=True)


def _rows(setup: Setup, rows: np.ndarray, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"row": rows, "label": setup.labels(rows)}).assign(**columns)


def means(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean and 95 % interval over classes per group; undefined (NaN) values are left out."""
    out = []
    for names, part in table.groupby(keys, sort=False):
        found = statistics.mean_by_class_bootstrap(
            part["value"].to_numpy(), part["label"].to_numpy()
        )
        out.append([*names, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=[*keys, "value", "low", "high", "n"])


def copy_blocks(levels: list[int]) -> Iterator[tuple[int, int]]:
    """Pairs (level, copies to add): a sum over copies grows block by block."""
    before = 0
    for level in sorted(set(levels)):
        yield level, level - before
        before = level


def stability(
    setup: Setup, rows: np.ndarray, copies: list[int], noise: list[float]
) -> pd.DataFrame:
    """How far the paper's maps depend on the number of copies and on the noise level.

    One row an image x arm x factor x level x measure. Maps of every number of copies are compared
    with maps of the largest number and *other* noise, those of every noise level with the main
    run's: at the study's own level what remains is chance alone.
    """
    out = []
    for model in (setup.models["base"], setup.models["bgaugment"]):
        say(f"{setup.study}: stability of {model.arm}")
        masks = attention_maps.pictures(setup.scenes, rows, model.image_size)[1]
        most = setup.maps(model, rows, seed=setup.seed + 2000, copies=max(copies))
        total = torch.zeros_like(most)
        for number, (level, more) in enumerate(copy_blocks(copies)):
            total += setup.maps(model, rows, seed=setup.seed + 1000 + number, copies=more)
            out += _against(setup, rows, model, masks, total, most, factor="copies", level=level)
        own = setup.maps(model, rows)
        for level in noise:
            maps = setup.maps(model, rows, seed=setup.seed + 3000, noise=level)
            out += _against(setup, rows, model, masks, maps, own, factor="noise", level=level)
    return pd.concat(out, ignore_index=True)


def _against(
    setup: Setup, rows: np.ndarray, model: trained_models.Model, masks: Tensor, maps: Tensor,
    other: Tensor, **names: Any,
) -> list[pd.DataFrame]:  # fmt: skip
    here, there = _score(maps, masks), _score(other, masks)
    values = {
        "attention_score": here,
        "score_change": np.abs(here - there),
        "rank_correlation": rank_correlation(maps, other),
    }
    names = {**attention_maps.names_of(model), **names}
    return [_rows(setup, rows, **names, metric=name, value=v) for name, v in values.items()]


def stability_table(found: pd.DataFrame) -> pd.DataFrame:
    """Means per arm, and the paired difference of the arms' scores (arm `bgaugment-base`)."""
    table = means(found, [*attention_maps.MODEL, "factor", "level", "metric"])
    score = found[found["metric"] == "attention_score"]
    keys = ["loss", "seed", "factor", "level", "metric", "row", "label"]
    wide = score.pivot(index=keys, columns="arm", values="value").reset_index()
    wide["value"] = wide["bgaugment"] - wide["base"]
    wide["arm"] = "bgaugment-base"
    return pd.concat([table, means(wide, [*attention_maps.MODEL, *keys[2:5]])], ignore_index=True)


def random_order(rows: np.ndarray, size: int, cells: int, seed: int) -> Tensor:
    """Maps (B, size, size) of random ranks, one value a cell of a cells x cells grid."""
    grids = []
    for row in rows.tolist():
        generator = torch.Generator().manual_seed(row + 1_000_003 * seed)
        grids.append(torch.rand(1, cells, cells, generator=generator))
    grids = torch.stack(grids)
    return torch.nn.functional.interpolate(grids, (size, size), mode="nearest")[:, 0]


@fixed_threads()
def faithfulness(setup: Setup, rows: np.ndarray, which: list[Explanation]) -> pd.DataFrame:
    """Areas under deletion and insertion: one row an image x arm x map x measure.

    Maps: the explanations, the blind controls (a uniform one orders nothing), and random orders of
    pixels and of patches. Source: Petsiuk et al. 2018, on the embedding's similarity to itself.
    """
    out = []
    for model in (setup.models["base"], setup.models["bgaugment"]):
        say(f"{setup.study}: deletion and insertion, {model.arm}")
        network, size = model.load(), model.image_size
        images, masks = setup.inputs(network, rows, size)
        maps = {str(e): setup.maps(model, rows, e, setup.partners(model, rows, e)) for e in which}
        for name in BLIND[1:]:
            maps[name] = controls.control_maps(name, images.cpu(), masks)
        for name, cells in zip(ORDERS, (size, PATCHES), strict=True):
            maps[name] = random_order(rows, size, cells, setup.seed)
        for name, order in maps.items():
            curves = _curves(setup, network, images, order)
            for metric in ("deletion_area", "insertion_area"):
                value = getattr(curves, metric).cpu().numpy()
                names = {**attention_maps.names_of(model), "map": name, "metric": metric}
                out.append(_rows(setup, rows, **names, value=value))
    return pd.concat(out, ignore_index=True)


def _curves(setup: Setup, network: Embedder, images: Tensor, order: Tensor) -> controls.Curves:
    with autocast(images.device, setup.settings.get("precision", "f32")):
        return controls.deletion_insertion(
            network, images, order.to(images.device), steps=8, batch=32
        )


def faithfulness_table(found: pd.DataFrame) -> pd.DataFrame:
    """Mean areas, and paired differences from both random orders (`..._minus_random_pixels`)."""
    keys = [*attention_maps.MODEL, "map", "metric"]
    parts = [means(found, keys)]
    for order in ORDERS:
        known = found[found["map"] == order].drop(columns="map")
        both = found[~found["map"].isin(ORDERS)].merge(
            known, on=[*attention_maps.MODEL, "metric", "row", "label"], suffixes=("", "_random")
        )
        both["value"] -= both["value_random"]
        both["metric"] += f"_minus_{order}"
        parts.append(means(both, keys))
    return pd.concat(parts, ignore_index=True)


def label_of(name: str) -> str:
    """How a map is called in figures: an explanation or a control."""
    method = name.partition("/")[0]
    if method in attribution.METHODS:
        return Explanation.parse(name).label
    return controls.CONTROLS[name].label if name in controls.CONTROLS else name.replace("_", " ")
