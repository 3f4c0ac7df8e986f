"""Audit of any embedding model on any images: how much does the background decide, and what helps?

Nothing is trained. Every image is shown to the model under the conditions of page 04 and under the
remedies of lib.evaluation.remedies; a reference trunk sees the same images. All differences are
paired by query, their intervals are over classes.
"""

import math
import re
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.attention import attribution
from lib.core import hardware, paths
from lib.core.errors import StudyError
from lib.core.files import key_of
from lib.core.progress import say, track
from lib.core.stage import one_at_a_time
from lib.evaluation import effects, embeddings, models
from lib.evaluation.remedies import REMEDIES
from lib.experiments import audit_images, audit_pictures, foreign
from lib.experiments.audit_search import (
    CLEAN,
    NONE,
    PLACES,
    QUERY,
    SHIFTED,
    Pass,
    Search,
    predictor,
)
from lib.experiments.audit_tables import METRIC, levels_of, mask_facts, plain, remedy_table
from lib.experiments.foreign import Foreign, Given
from lib.images import conditions as test_conditions
from lib.images.crops import TEST_CROP
from lib.masks import rembg_models, sources
from lib.models.trunks import TRUNKS

MASK_SECONDS = 0.29  # of a core for a mask by u2netp at its own 320 pixels
# Forward passes that a map of attention takes, a backward one counted as two
FORWARDS = {"occlusion": 65, "smoothgrad": 75, "gradient": 3, "grad_cam": 3}
FORWARDS |= {"integrated_gradients": 48}
DEMO_SIZE = 96  # pixels of a trunk's input, where the demo's small drawings are looked at
CONDITIONS = (
    CLEAN, SHIFTED, PLACES, "same_class_background", "other_class_background", "own_background",
    "blurred_background", "foreground_only", "background_only",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What an audit is asked; the defaults are those of the command line and the notebook.

    Attributes:
        model: a form of lib.experiments.foreign.KINDS, or study:<study>/<loss>/<arm>/<seed>.
        images: "demo", a folder with a folder for each class, or a labels.csv.
        gallery: a second one, where queries and catalogue are apart.
        size, mean, std, scale, bgr, weights: of the model's input (lib.experiments.foreign.Given).
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
        for name in ("conditions", "remedies"):
            values = getattr(self, name)
            if twice := [v for at, v in enumerate(values) if v in values[:at]]:
                raise StudyError(f"{name} name {', '.join(twice)} more than once: each once.")
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
        if self.gallery and self.images == audit_images.DEMO:
            raise StudyError("gallery is the catalogue of your images: give their folder (images).")
        if self.draws < 1 or self.limit < 0 or self.attention_images < 1:
            raise StudyError("draws and attention_images are 1 or more, limit is 0 or more.")


def short(model: str) -> str:
    """A model's name without the folders of this machine."""
    return model if model.startswith(("study:", "timm:")) else Path(model).name


def name_of(asked: Asked) -> str:
    """A name for the page: what was audited, on what."""
    places = [str(Path(place).expanduser().absolute()) for place in (asked.images, asked.gallery)]
    parts = [short(asked.model), Path(places[0]).name]
    model = str(Path(asked.model).absolute()) if Path(asked.model).is_file() else asked.model
    if asked.images != audit_images.DEMO or model != asked.model:  # others may be called the same
        parts.append(key_of(model=model, weights=asked.weights, places=places)[:6])
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


def audit(asked: Asked) -> Audit:
    """Run an audit; what is done already (data/scratch) is not done again."""
    start = time.monotonic()
    sources.get(asked.masks)  # an unknown name is refused before images are read
    given = Given(**{entry.name: getattr(asked, entry.name) for entry in fields(Given)})
    if asked.images == audit_images.DEMO and asked.model in TRUNKS and not given.size:
        given = replace(given, size=DEMO_SIZE)
    model = opened(asked.model, given)
    say(f"model: {model.name}, {model.kind}: {model.size} pixels, {model.normalise}")
    for sentence in filter(None, [model.assumed, *model.told]):
        say(sentence)
    both = {"model": model}
    if asked.reference and asked.reference != asked.model:
        both["reference"] = opened(asked.reference, Given(size=model.size))
    for one in both.values() if asked.attention != NONE else ():
        if asked.attention not in (able := one.methods()):
            raise StudyError(
                f"attention {asked.attention} needs a gradient or a feature map, which {one.name} "
                f"does not give. Possible here: {', '.join([*able, NONE])}."
            )
    side = math.ceil(model.size / TEST_CROP)
    study = audit_images.prepare(
        asked.images, asked.gallery, side, asked.limit, asked.masks, asked.backgrounds, asked.seed,
        announce=lambda count: _announce(asked, both, count, count),
    )  # fmt: skip
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
    _announce(asked, found.models, len(found.images.rows), 0, len(runs))  # now it is known
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
    classes = embeddings.by_class(rows)
    levels, helped = levels_of(classes), remedy_table(classes)
    facts = mask_facts(found.images)
    attention, maps = audit_pictures.attention(found, asked.attention, asked.attention_images)
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
    names = [name for name in asked.conditions if made.level(name)]
    best = made.best.get("remedy", NONE)
    sheets = {"attention": maps, **audit_pictures.sheets(found, names, rows, best)}
    return replace(made, sheets=sheets, minutes=(time.monotonic() - start) / 60)


def expected(asked: Asked, each: float, models: int, images: int, masks: int, runs: int) -> float:
    """Minutes that an audit takes at most, by the seconds that a model takes for an image.

    Args:
        images: in the search. masks: of the images as they are, still to be made. runs: over all.
    """
    base = asked.masks.split("+")[0]
    source = predictor(base)
    remedied = 2 * images * bool(asked.remedies)  # clean and shifted, in the models' own size
    forwards = FORWARDS.get(asked.attention, 0) * min(asked.attention_images, images) * models
    made = masks * _mask_seconds(base) * (base == source) + remedied * _mask_seconds(source)
    return (images * runs * (each + 0.004) + forwards * each + made / hardware.workers()) / 60


def _mask_seconds(source: str) -> float:
    """Seconds of a core for a mask; the side of the input counts by its square."""
    side = rembg_models.model_and_side(source)[1] or 320
    return MASK_SECONDS * (side / 320) ** 2


def _announce(
    asked: Asked, models: dict[str, Foreign], images: int, masks: int, runs: int = 0
) -> None:
    """Say how much there is to do, by the speed of a few images of noise.

    Args:
        runs: passes over the images; 0 where they are not known yet.
    """
    sizes = [(model, (4, model.size, model.size, 3)) for model in models.values()]
    noise = [(m, np.random.default_rng(0).integers(0, 256, s, np.uint8)) for m, s in sizes]
    began = time.monotonic()
    for model, some in noise:
        model.embed(some)
    each = (time.monotonic() - began) / 4 / len(models)
    runs = runs or len(models) * (len(asked.conditions) + asked.draws - 1) + 2 * len(asked.remedies)
    left = expected(asked, each, len(models), images, masks, runs)
    say(f"{images:,} images, {runs} passes: about {max(left, 0.1):.1f} min at most")
