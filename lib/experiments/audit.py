"""Audit of any embedding model on any images: how much does the background decide, and what helps?

Nothing is trained. Every image is shown to the model under the conditions of page 04 and under the
remedies of lib.evaluation.remedies; a reference trunk sees the same images. All differences are
paired by query, their intervals are over classes.
"""

import math
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.attention import attribution, scores
from lib.attention.maps import chosen_rows, pictures
from lib.core import paths
from lib.core.cache import kept
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import key_of
from lib.core.hardware import fixed_threads
from lib.core.progress import say, track
from lib.core.stage import one_at_a_time
from lib.evaluation import effects, models, query_examples, remedies, statistics
from lib.evaluation.remedies import REMEDIES
from lib.experiments import audit_images
from lib.experiments.audit_images import Images
from lib.images import conditions as test_conditions
from lib.images.conditions import Batch, choose, specimen
from lib.images.crops import TEST_CROP
from lib.masks import rembg_models
from lib.models import foreign
from lib.models.foreign import Foreign, Given
from lib.retrieval import metrics, search

CLEAN, SHIFTED, PLACES = "clean", "random_background", "unshared_background"
CONDITIONS = (
    CLEAN, SHIFTED, PLACES, "same_class_background", "other_class_background", "own_background",
    "blurred_background", "foreground_only", "background_only",
)  # fmt: skip
METRIC = "map_at_r"
NONE = "none"  # no remedy
QUERY = "query"  # side; and, after a remedy's name, that only queries are treated
CHUNK = 512  # images kept in one file: what a killed run loses at most
FEW = 0.8  # share of usable masks below which the verdict is in doubt
SMALL = 0.12  # masks below this share of the image often miss objects
LARGE = 0.7  # masks above this share of the image leave little background to change
NEAREST = 5
FAST = "u2netp@160"


@dataclass(frozen=True)
class Asked:
    """What an audit is asked; the defaults are those of the command line and the notebook.

    Attributes:
        model: a form of lib.models.foreign.KINDS, or study:<study>/<loss>/<arm>/<seed>.
        images: "demo", a folder with a folder for each class, or a labels.csv.
        gallery: a second one, where queries and catalogue are apart.
        size, mean, std, scale, bgr, weights: of the model's input (lib.models.foreign.Given).
        reference: a model on the same images to compare with; "" for none.
        masks: key of lib.masks.sources. backgrounds: as in params.yaml, or auto.
        conditions, remedies: keys of their tables. draws: of random backgrounds.
        attention: method of lib.attention.attribution, "none" for none.
        attention_images: to look at. limit: images in the search at most, 0 for all.
    """

    model: str = foreign.DEFAULT
    images: str = audit_images.DEMO
    gallery: str = ""
    size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: int = 1
    bgr: bool = False
    weights: str = ""
    reference: str = foreign.DEFAULT
    masks: str = "u2netp"
    backgrounds: str = "auto"
    conditions: tuple[str, ...] = CONDITIONS
    draws: int = 3
    remedies: tuple[str, ...] = tuple(REMEDIES)
    attention: str = "occlusion"
    attention_images: int = 24
    limit: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be done before anything runs."""
        for name in ("mean", "std", "conditions", "remedies"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in self.conditions:
            test_conditions.get(name)
        if not {CLEAN, SHIFTED} <= set(self.conditions):
            raise StudyError(f"conditions must hold {CLEAN} and {SHIFTED}: the verdict is on them.")
        for name in self.remedies:
            if name not in REMEDIES:
                raise StudyError(f"unknown remedy {name!r}; known: {', '.join(REMEDIES)}")
        if self.attention not in (NONE, *attribution.METHODS):
            known = ", ".join([NONE, *attribution.METHODS])
            raise StudyError(f"unknown attention {self.attention!r}; known: {known}")
        if self.draws < 1 or self.limit < 0 or self.attention_images < 1:
            raise StudyError("draws and attention_images are 1 or more, limit is 0 or more.")


def name_of(asked: Asked) -> str:
    """A name for the page: what was audited, on what."""
    parts = (Path(asked.model).name, Path(asked.images).expanduser().absolute().name)
    return "-".join(re.sub(r"[^\w.]+", "-", part).strip("-.") or "images" for part in parts)


def opened(name: str, given: Given) -> Foreign:
    """A model of any form, one trained in a study of this repository among them."""
    if not name.startswith("study:"):
        below = paths.ROOT / name  # notebooks run in their own folder
        return foreign.load(
            str(below) if not Path(name).exists() and below.is_file() else name, given
        )
    parts = name.removeprefix("study:").split("/")
    known = {"/".join([m.loss, m.arm, str(m.seed)]): m for m in models.models_of(parts[0])}
    if len(parts) != 4 or "/".join(parts[1:]) not in known:
        raise StudyError(f"there is no {name!r}; study {parts[0]} has {', '.join(known)}.")
    found = known["/".join(parts[1:])]
    return foreign.own(found.load(), given.size or found.image_size, name)


class Pass(NamedTuple):
    """One run of a model over all images: `who` is model or reference."""

    who: str
    condition: str
    draw: int
    remedy: str


@dataclass(frozen=True)
class Search:
    """The images of an audit as its models embed them; each part is made once and kept."""

    images: Images
    models: dict[str, Foreign]
    size: int
    seed: int

    @cached_property
    def labels(self) -> Tensor:
        """Label of every image in the search."""
        return torch.as_tensor(self.images.scenes.store.labels[self.images.rows])

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the queries and of the gallery among the images in the search."""
        side = self.images.scenes.store.index["side"].to_numpy()[self.images.rows]
        return np.flatnonzero(side != "gallery"), np.flatnonzero(side != "query")

    @cached_property
    def own(self) -> Tensor:
        """Place in the gallery of every query's own photograph (the same bytes), or -1."""
        queries, gallery = self.sides
        if not self.images.apart:
            return torch.arange(len(queries))
        seals = self.images.scenes.store.index["sha256"].to_numpy()[self.images.rows]
        known = {seal: place for place, seal in enumerate(seals[gallery])}
        return torch.tensor([known.get(seal, -1) for seal in seals[queries]])

    def _choice(self, draw: int) -> test_conditions.Choice:
        return choose(self.images.scenes, self.images.rows, "test", self.seed, draw)

    @torch.inference_mode()
    @fixed_threads()
    def shown(self, part: np.ndarray, condition: str, draw: int) -> np.ndarray:
        """What a model sees of some rows: uint8 (N, s, s, 3)."""
        make, choice, found = test_conditions.get(condition).make, self._choice(draw), []
        for start in range(0, len(part), 32):
            rows = part[start : start + 32]
            made = make(Batch(self.images.scenes, rows, self.size, "test", choice.at(rows)))
            found.append(made.permute(0, 2, 3, 1).clamp(0, 255).round().byte().cpu().numpy())
        return np.concatenate(found)

    def _key(self, part: np.ndarray, condition: str, draw: int, **more: Any) -> str:
        return key_of(
            code=fingerprint("images", "models", "masks"), data=self.images.scenes.fingerprint,
            rows=part.tolist(), of=len(self.images.rows), condition=condition, draw=draw,
            size=self.size, seed=self.seed, **more,
        )  # fmt: skip

    def masks(self, part: np.ndarray, condition: str, draw: int) -> np.ndarray:
        """Masks (N, s, s) that a rembg model makes of the images as they are shown."""
        source = predictor(self.images.mask_source)

        def make() -> dict[str, Tensor]:
            found = remedies.predicted(self.shown(part, condition, draw), source)
            return {"masks": torch.from_numpy(np.round(255 * found).astype(np.uint8))}

        key = self._key(part, condition, draw, source=source)
        return kept(self.images.study, "masks", key, make)["masks"].numpy().astype(np.float32) / 255

    def masks_of(self, run: Pass) -> np.ndarray:
        """`masks` of all images in the search."""
        rows = self.images.rows
        parts = [
            self.masks(rows[at : at + CHUNK], run.condition, run.draw)
            for at in range(0, len(rows), CHUNK)
        ]
        return np.concatenate(parts)

    def vectors(self, run: Pass) -> Tensor:
        """Vectors (N, D) of all images in the search."""
        rows = self.images.rows
        parts = [self._vectors(rows[at : at + CHUNK], run) for at in range(0, len(rows), CHUNK)]
        return torch.cat(parts)

    def _vectors(self, part: np.ndarray, run: Pass) -> Tensor:
        model = self.models[run.who]

        def make() -> dict[str, Tensor]:
            images = self.shown(part, run.condition, run.draw)
            if run.remedy == NONE:
                return {"vectors": model.embed(images)}
            remedy, masks = REMEDIES[run.remedy], self.masks(part, run.condition, run.draw)
            if remedy.show:
                return {"vectors": model.embed(remedy.show(images, masks))}
            return {"vectors": remedies.late_masked(model.module, remedy, images, masks)}

        more = {}
        if run.remedy != NONE:
            more = {"remedy": run.remedy, "source": predictor(self.images.mask_source)}
            more["how"] = fingerprint("evaluation")
        key = self._key(part, run.condition, run.draw, model=model.identity, **more)
        return kept(self.images.study, "vectors", key, make)["vectors"]

    def scores(self, run: Pass, sides: str, only_query: bool = False) -> pd.DataFrame:
        """One row a query with every metric. A query's own photograph is never in its ranking.

        Args:
            sides: "both": queries and gallery under the condition; "query": a clean gallery.
            only_query: the remedy is not applied to the gallery.
        """
        queries, gallery = self.sides
        moved = self.vectors(run)
        if sides == QUERY or only_query:
            against = run._replace(remedy=NONE) if only_query else run
            if sides == QUERY:
                against = against._replace(condition=CLEAN, draw=0)
            there = self.vectors(against)
        else:
            there = moved
        found = metrics.evaluate(
            moved[queries], self.labels[queries], there[gallery], self.labels[gallery],
            exclude=self.own,
        )  # fmt: skip
        arm = f"{run.remedy} {QUERY}" if only_query else run.remedy
        values = {name: found[name].numpy() for name in effects.METRICS}
        told = {"row": self.images.rows[queries], "label": self.labels[queries].numpy()}
        return pd.DataFrame(told | values).assign(
            loss=run.who, arm=arm, seed=0, condition=run.condition, sides=sides, draw=run.draw
        )

    def nearest(self, run: Pass, row: int) -> list[int]:
        """Rows of the gallery images nearest to the query in `row`, best first."""
        queries, gallery = self.sides
        at = int(np.flatnonzero(self.images.rows[queries] == row)[0])
        known = self.vectors(run)
        count = min(NEAREST, len(gallery) - int(self.own[at] >= 0))
        found = search.neighbours(
            known[queries][[at]], known[gallery], k=count, exclude=self.own[[at]]
        )
        return self.images.rows[gallery][found[0][0].numpy()].tolist()


def predictor(mask_source: str) -> str:
    """The rembg model for masks of shifted images: the audit's own, or the small one."""
    base = mask_source.split("+")[0]
    return base if base.partition("@")[0] in rembg_models.MASK_MODELS else FAST


@dataclass(frozen=True)
class Audit:
    """What was found. Values are fractions; what could not be measured is None, never NaN."""

    asked: Asked
    about: dict[str, dict[str, Any]]  # facts of model and reference
    images: dict[str, Any]
    masks: dict[str, Any]
    levels: pd.DataFrame  # a row a who, remedy, condition, sides: value, lost, with intervals
    remedies: pd.DataFrame  # a row a remedy and how it is applied
    classes: pd.DataFrame  # a row a class of the model: clean, shifted, change, n
    attention: pd.DataFrame  # a row a who: mean score with interval
    told: list[str]
    minutes: float
    search: Search
    sheets: dict[str, Any] = field(default_factory=dict)  # small pictures for the page

    def level(self, condition: str, sides: str = "both", who: str = "model", remedy: str = NONE):
        """The row of `levels`, as a dict; {} where it was not measured."""
        wanted = {"who": who, "remedy": remedy, "condition": condition, "sides": sides}
        part = self.levels
        for key, value in wanted.items():
            part = part[part[key] == value]
        return part.iloc[0].to_dict() if len(part) else {}

    @property
    def lost(self) -> float | None:
        """Share of MAP@R that a random background costs: what --fail-above is compared with."""
        return self.level(SHIFTED).get("lost")

    @property
    def best(self) -> dict[str, Any]:
        """The remedy (both sides) with the highest MAP@R on shifted images, of those that help.

        That is: whose interval of the gain lies above zero. {} if none does.
        """
        rows = self.remedies[self.remedies["applied"] == "both"].to_dict("records")
        ends = [row["gain"] if row["gain_low"] is None else row["gain_low"] for row in rows]
        helpful = [row for row, low in zip(rows, ends, strict=True) if low > 0]
        return max(helpful, key=lambda row: row["shifted"], default={})

    def numbers(self) -> dict[str, Any]:
        """Everything for audit.json."""
        shift = self.level(SHIFTED)
        return plain(
            {
                "verdict": {key: shift.get(key) for key in ("lost", "lost_low", "lost_high")}
                | {"metric": METRIC, "condition": SHIFTED, "usable_masks": self.masks["usable"]}
                | {"warnings": self.masks["warnings"], "best_remedy": self.best.get("remedy")},
                "asked": asdict(self.asked), "models": self.about, "images": self.images,
                "masks": self.masks, "told": self.told, "minutes": round(self.minutes, 2),
                "levels": self.levels.to_dict("records"),
                "remedies": self.remedies.to_dict("records"),
                "classes": self.classes.to_dict("records"),
                "attention": self.attention.to_dict("records"),
            }
        )  # fmt: skip


def plain(value: Any) -> Any:
    """A value that json takes in every reader: no NaN, no infinity, no numpy."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def audit(asked: Asked) -> Audit:
    """Run an audit; what is done already (data/scratch) is not done again."""
    start = time.monotonic()
    given = Given(**{entry.name: getattr(asked, entry.name) for entry in fields(Given)})
    model = opened(asked.model, given)
    say(f"model: {model.name}, {model.kind}: {model.size} pixels, {model.normalise}")
    for sentence in model.told:
        say(sentence)
    if asked.attention not in (NONE, "occlusion") and not model.differentiable():
        raise StudyError(
            f"{asked.attention} needs gradients, which {model.name} has not: occlusion"
        )
    both = {"model": model}
    if asked.reference and asked.reference != asked.model:
        both["reference"] = opened(asked.reference, Given(size=model.size))
    side = math.ceil(model.size / TEST_CROP)
    study = audit_images.prepare(
        asked.images, asked.gallery, side, asked.limit, asked.masks, asked.backgrounds, asked.seed
    )
    with one_at_a_time(study.study):
        return _measured(asked, Search(study, both, model.size, asked.seed), start)


def planned(asked: Asked, found: Search) -> tuple[list[Pass], list[str]]:
    """The runs of an audit, cheapest knowledge first, and what was left out and why."""
    told, runs = [], []
    names = list(asked.conditions)
    if PLACES in names and not found.images.has_places:
        names.remove(PLACES)
        told.append(
            "Not measured: place of a training image. It needs half as many further images, "
            "outside the search, as are in it."
        )
    for who in found.models:
        for name in names:
            draws = asked.draws if name == SHIFTED else 1
            runs += [Pass(who, name, draw, NONE) for draw in range(draws)]
    for name in asked.remedies:
        if REMEDIES[name].embed and found.models["model"].trunk is None:
            told.append(f"Not measured: {REMEDIES[name].label}. It needs a trunk of this study.")
            continue
        runs += [Pass("model", condition, 0, name) for condition in (CLEAN, SHIFTED)]
    return runs, told


def _measured(asked: Asked, found: Search, start: float) -> Audit:
    runs, left_out = planned(asked, found)
    _announce(found, runs)
    for condition, draw in dict.fromkeys((r.condition, r.draw) for r in runs if r.remedy != NONE):
        say(f"masks of what a searcher would see ({condition.replace('_', ' ')})")
        found.masks_of(Pass("model", condition, draw, NONE))
    tables = []
    for run in track(runs, "embedding passes", len(runs), every=5):
        for sides in ("both",) if run.condition == CLEAN else ("both", QUERY):
            tables.append(found.scores(run, sides))
            if run.remedy != NONE:
                tables.append(found.scores(run, sides, only_query=True))
    rows = pd.concat(tables, ignore_index=True)
    classes = effects.by_class(rows)
    levels, helped = levels_of(classes), remedy_table(classes)
    facts = mask_facts(found.images)
    attention, maps = _attention(asked, found)
    names = found.images.scenes.store.index.drop_duplicates("label")[["label", "class_name"]]
    own = classes[(classes["loss"] == "model") & (classes["arm"] == NONE)]
    lost = effects.class_losses(own, SHIFTED).merge(names, on="label")
    lost = lost.rename(columns={SHIFTED: "shifted"}).sort_values("change", kind="stable")
    queries, gallery = found.sides
    images = {
        "title": found.images.title, "queries": len(queries), "gallery": len(gallery),
        "apart": found.images.apart, "counted": int(own.groupby("label")["n"].first().sum()),
        "classes": int(own["label"].nunique()), "backgrounds": found.images.backgrounds,
        "crop": TEST_CROP,
    }  # fmt: skip
    made = Audit(
        asked, {who: model.about() for who, model in found.models.items()}, images, facts, levels,
        helped, lost[["class_name", "n", CLEAN, "shifted", "change"]].reset_index(drop=True),
        attention, [*found.images.told, *left_out], 0.0, found,
    )  # fmt: skip
    sheets = {"attention": maps, **_sheets(asked, found, rows, made)}
    return replace(made, sheets=sheets, minutes=(time.monotonic() - start) / 60)


def _announce(found: Search, runs: list[Pass]) -> None:
    """Say beforehand how much there is to do, by the speed of a few images."""
    rows = found.images.rows
    some = found.shown(rows[:8], CLEAN, 0)
    began = time.monotonic()
    for model in found.models.values():
        model.embed(some)
    each = (time.monotonic() - began) / len(some) / len(found.models)
    masked = len({(run.condition, run.draw) for run in runs if run.remedy != NONE})
    left = len(rows) * (len(runs) * (each + 0.004) + 0.12 * masked) / 60
    say(f"{len(rows):,} images, {len(runs)} passes: about {max(left, 0.1):.1f} min at most")


# ------------------------------------------------------------------------------------- the tables


def ratio(part: pd.Series, whole: pd.Series) -> tuple[float | None, float | None, float | None]:
    """Sum of `part` over sum of `whole` (both one value a class) with its 95 % interval.

    The interval is that of a ratio over resampled classes (lib.evaluation.statistics, whose mean
    over queries is such a ratio). None where there are too few classes, or nothing to divide by.
    """
    total = float(whole.sum())
    if abs(total) < 1e-9:
        return None, None, None
    if total < 0:
        part, whole, total = -part, -whole, -total
    floor = 1e-6 * total / len(whole)  # a resample of classes that are all zero is no ratio
    value, half = statistics.class_bootstrap(
        part.to_numpy()[:, None], np.maximum(whole.to_numpy(), floor)
    )
    return _ends(float(part.sum()) / total, float(half[0]))


def _ends(value: float, half: float) -> tuple[float | None, float | None, float | None]:
    known = math.isfinite(half)
    return value, value - half if known else None, value + half if known else None


def levels_of(classes: pd.DataFrame) -> pd.DataFrame:
    """One row a who, remedy, condition and sides: MAP@R, change and share lost, with intervals.

    Change and share are against the same model's clean images (both sides) without a remedy.
    """
    sums, counts = effects.class_sums(classes, METRIC, effects.LEVEL)
    out = []
    for column in sums.columns:
        who, remedy, _, condition, sides = column
        clean = sums[(who, NONE, 0, CLEAN, "both")]
        value, low, high = ratio(sums[column], counts)
        change = ratio(sums[column] - clean, counts)
        lost = ratio(clean - sums[column], clean)
        out.append([who, remedy, condition, sides, value, low, high, *change, *lost])
    measures = ["value", "low", "high", "change", "change_low", "change_high"]
    names = ["who", "remedy", "condition", "sides", *measures, "lost", "lost_low", "lost_high"]
    table = pd.DataFrame(out, columns=names, dtype=object)  # None stays None
    order = {name: place for place, name in enumerate(classes["condition"].unique())}
    keys = table["condition"].map(order)
    return (
        table.assign(_at=keys)
        .sort_values(["who", "remedy", "_at", "sides"], kind="stable", ignore_index=True)
        .drop(columns="_at")
    )


def remedy_table(classes: pd.DataFrame) -> pd.DataFrame:
    """One row a remedy and way to apply it: what it costs on clean images, gains on shifted ones.

    `applied` is both (queries and gallery; both shifted), query_clean_gallery (treated queries and
    gallery, only queries shifted) or query (treated, shifted queries; an untouched clean gallery).
    `gain` is against the same search without the remedy, `recovered` its share of what the shift
    costs there.
    """
    columns = [
        "remedy", "label", "applied", "clean", "clean_change", "clean_change_low",
        "clean_change_high", "shifted", "gain", "gain_low", "gain_high", "recovered",
        "recovered_low", "recovered_high",
    ]  # fmt: skip
    mine = classes[(classes["loss"] == "model") & (classes["draw"] == 0)]
    sums, counts = effects.class_sums(mine, METRIC, ["arm", "condition", "sides"])
    out, clean = [], sums[(NONE, CLEAN, "both")]
    for name in REMEDIES:
        if (name, SHIFTED, "both") not in sums:
            continue
        ways = (
            ("both", name, "both"),
            ("query_clean_gallery", name, QUERY),
            (QUERY, f"{name} {QUERY}", QUERY),
        )
        for applied, arm, sides in ways:
            treated, moved = sums[(arm, CLEAN, "both")], sums[(arm, SHIFTED, sides)]
            bare = sums[(NONE, SHIFTED, sides)]
            fall = clean - bare
            lost = ratio(fall, clean)
            recovered = (None,) * 3
            if lost[0] and (lost[1] is None or lost[1] > 0) and lost[0] > 0:
                recovered = ratio(moved - bare, fall)
            row = [name, REMEDIES[name].label, applied, ratio(treated, counts)[0]]
            row += [*ratio(treated - clean, counts), ratio(moved, counts)[0]]
            out.append([*row, *ratio(moved - bare, counts), *recovered])
    return pd.DataFrame(out, columns=columns, dtype=object)  # None stays None


def mask_facts(images: Images) -> dict[str, Any]:
    """Share of usable masks in the search, their areas, and warnings in words."""
    pixels, usable = images.scenes.images.stores[1], images.scenes.usable[images.rows]
    areas = np.array([pixels.image(row).mean() / 255 for row in images.rows])
    share, known = float(usable.mean()), areas[usable]
    small = float((known < SMALL).mean()) if len(known) else 0.0
    large = float((known > LARGE).mean()) if len(known) else 0.0
    warnings = []
    if share < FEW:
        warnings.append(
            f"Only {100 * share:.0f} % of the masks show an object; the other images kept their "
            "background in every condition, so the true effect is probably larger."
        )
    if small > 0.5:
        warnings.append(
            f"{100 * small:.0f} % of the masks cover less than {100 * SMALL:.0f} % of their image. "
            "If the objects are larger, or there are several in an image (a crate of fruit), parts "
            "of them were replaced as if they were background, and the effect is overstated. Look "
            "at the masks."
        )
    if large > 0.5:
        warnings.append(
            f"{100 * large:.0f} % of the masks cover more than {100 * LARGE:.0f} % of their image: "
            "little background is left to change, so the effect is a lower bound."
        )
    middle = float(np.median(known)) if len(known) else None
    return {
        "source": images.mask_source, "usable": share, "median_area": middle,
        "small": small, "large": large, "warnings": warnings,
    }  # fmt: skip


# -------------------------------------------------------------------------- attention, and pictures


def _attention(asked: Asked, found: Search) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Mean attention score of every model with its interval, and a few maps to look at."""
    columns = ["who", "method", "score", "low", "high", "images"]
    scenes = found.images.scenes
    if asked.attention == NONE or not scenes.usable[found.images.rows].any():
        return pd.DataFrame(columns=columns), []
    rows = chosen_rows(scenes, asked.attention_images, asked.seed)
    shown, masks = pictures(scenes, rows, found.size)
    out, seen = [], []
    for who, model in found.models.items():
        say(f"attention of the {who} on {len(rows)} images ({asked.attention})")
        maps = _maps(asked, found, model, rows, shown)
        score, defined = scores.attention_score(scores.scale_map(maps), masks)
        score, defined = score.numpy(), defined.numpy()
        labels = scenes.store.labels[rows]
        mean = statistics.mean_by_class_bootstrap(score[defined], labels[defined])
        value, low, high = _ends(mean.mean, mean.high - mean.mean)
        out.append([who, asked.attention, value if mean.n else None, low, high, mean.n])
        if who == "model":
            order = np.argsort(np.where(defined, score, np.inf))
            few = order[: int(defined.sum())]
            few = (
                few[np.unique(np.linspace(0, len(few) - 1, 4).round().astype(int))]
                if len(few)
                else few
            )
            seen = [
                {
                    "image": shown[at].permute(1, 2, 0).round().byte().cpu().numpy(),
                    "mask": (255 * masks[at]).byte().numpy(),
                    "map": scores.scale_map(maps[[at]])[0].numpy(),
                    "score": float(score[at]),
                }
                for at in few
            ]
    return pd.DataFrame(out, columns=columns, dtype=object), seen


@fixed_threads()
def _maps(asked: Asked, found: Search, model: Foreign, rows: np.ndarray, shown: Tensor) -> Tensor:
    def make() -> dict[str, Tensor]:
        embed = model.forward_only() if asked.attention == "occlusion" else model
        made = attribution.attribute(
            asked.attention, embed, model.normalise(shown).to(model.where),
            black=model.normalise(torch.zeros_like(shown[:1])).to(model.where),
            seeds=torch.as_tensor(rows), channels_last=False,
        )  # fmt: skip
        return {"maps": made.float().cpu().contiguous()}

    key = key_of(
        code=fingerprint("images", "models", "attention"), model=model.identity,
        data=found.images.scenes.fingerprint, rows=rows.tolist(), size=found.size,
        method=asked.attention,
    )  # fmt: skip
    return kept(found.images.study, "maps", key, make)["maps"]


def _sheets(asked: Asked, found: Search, rows: pd.DataFrame, made: Audit) -> dict[str, Any]:
    """The small pictures of the page: conditions, rankings before and after, masks."""
    scenes, every = found.images.scenes, found.images.rows
    usable = every[scenes.usable[every]]
    names = [name for name in asked.conditions if made.level(name)]
    four = (usable if len(usable) else every)[:: max(1, len(usable) // 4)][:4]
    size = min(found.size, 160)
    sheets = specimen(scenes, four, names, size, pool_rows=every, seed=asked.seed)
    return {
        "conditions": sheets,
        "rankings": list(_rankings(found, rows, made, size)),
        "masks": _mask_sheet(found, size),
    }


def _rankings(found: Search, rows: pd.DataFrame, made: Audit, size: int) -> Iterator[dict]:
    """Three queries picked by a rule, clean, shifted and shifted with the best remedy."""
    mine = (rows["loss"] == "model") & (rows["arm"] == NONE) & (rows["sides"] == "both")
    table = rows[mine & (rows["draw"] == 0) & rows["condition"].isin([CLEAN, SHIFTED])]
    wide = table.pivot(index="row", columns="condition", values=METRIC).dropna()
    if not len(wide):
        return
    runs = [Pass("model", CLEAN, 0, NONE), Pass("model", SHIFTED, 0, NONE)]
    if made.best:
        runs.append(Pass("model", SHIFTED, 0, made.best["remedy"]))
    scenes, index = found.images.scenes, found.images.scenes.store.index
    for rule, row in query_examples.picked(table[table["row"].isin(wide.index)]).items():
        for run in runs:
            near = found.nearest(run, int(row))
            shown = found.shown(np.array([row, *near]), run.condition, run.draw)
            if run.remedy != NONE and (show := REMEDIES[run.remedy].show):
                masks = dict(zip(found.images.rows.tolist(), found.masks_of(run), strict=True))
                shown = show(shown, np.stack([masks[r] for r in (row, *near)]))
            yield {
                "rule": rule, "condition": run.condition, "remedy": run.remedy,
                "class_name": index["class_name"][row], "images": list(shown), "right": [
                    bool(scenes.store.labels[other] == scenes.store.labels[row]) for other in near
                ], "names": [index["class_name"][other] for other in near],
            }  # fmt: skip


def _mask_sheet(found: Search, size: int) -> list[dict[str, Any]]:
    """Eight images from the smallest to the largest mask, with their masks."""
    scenes, rows = found.images.scenes, found.images.rows
    areas = np.array([scenes.images.stores[1].image(row).mean() / 255 for row in rows])
    order = np.argsort(areas, kind="stable")
    picks = order[np.unique(np.linspace(0, len(order) - 1, 8).round().astype(int))]
    chosen = rows[picks]
    read = scenes.images.centre(chosen, size)
    return [
        {
            "image": pixels[:3].permute(1, 2, 0).round().byte().cpu().numpy(),
            "mask": pixels[3].round().byte().cpu().numpy(),
            "area": float(areas[at]), "usable": bool(scenes.usable[row]),
        }
        for pixels, at, row in zip(read, picks, chosen, strict=True)
    ]  # fmt: skip
