"""Measure the attention of a study: every model, then the checks of the score, as compact tables.

One file a model, so that a study grows model by model, on whatever machine:

    reports/<study>/measured/attention/
        measured.json              what was asked; code, commit, processor of every table
        scores/<model>.parquet     a row an image and measure, of the paper's maps
        similarity/<model>.parquet a row an image: how much of its embedding a new background leaves
        methods, controls, cascade, stability, faithfulness.parquet    the checks, a row an image
        examples.jpg, .csv         a few images, their masks and maps, as small grey pictures
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lib.attention import maps as attention_maps
from lib.attention import sanity_checks, scores
from lib.attention.attribution import PAPER, Explanation, explanations
from lib.attention.sanity_checks import Setup, names_of
from lib.core import paths, run_log
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import key_of, read_json, space_left, write_json
from lib.core.hardware import device, fixed_threads, used
from lib.core.progress import say
from lib.core.stage import locked
from lib.core.tiles import write_tiles
from lib.evaluation.embeddings import loaded
from lib.evaluation.measured import name_of, read_compact, write_compact
from lib.evaluation.models import Model, models_of
from lib.images.scenes import Scenes
from lib.masks.sources import mask_source
from lib.models import embedding
from lib.training import arms

ROOMS = attention_maps.ROOMS
LEDGER = "measured.json"
PRECISION = "bf16"
DRAWS = 2  # of the backgrounds, for how far the embeddings move
TILE = 128  # pixels of a small picture at most


def measure(
    study: str,
    images: int,
    copies: int,
    noise: float,
    seed: int,
    methods: list[str],
    images_methods: int,
    images_checks: int,
    copies_levels: list[int],
    noise_levels: list[float],
) -> None:
    """Measure what is not measured so far; a killed run goes on where it was.

    Args:
        images: test images with a usable mask, spread over the classes (paper: all).
        copies, noise: of SmoothGrad (paper: 25, 0.15). seed: decides the images and the noise.
        methods: method/target, or a word of lib.attention.attribution.PRESETS.
        images_methods: images for the other methods. images_checks: images for cascade,
            deletion and insertion, stability; each some of the ones before.
        copies_levels, noise_levels: to compare in `stability`.
    """
    setup, ledger, levels = prepare(
        Scenes(study, mask_source(study), device()), models_of(study), study, images, copies, noise,
        seed, methods, images_methods, images_checks, copies_levels, noise_levels,
    )  # fmt: skip
    _measure_models(setup, ledger)
    for measure_one in checks(setup, ledger, levels).values():
        measure_one()
    ledger.sweep()


def prepare(
    scenes: Scenes, models: list[Model], study: str, images: int, copies: int, noise: float,
    seed: int, methods: list[str], images_methods: int, images_checks: int,
    copies_levels: list[int], noise_levels: list[float],
) -> tuple[Setup, "Ledger", dict[str, list]]:  # fmt: skip
    """What `measure` works with: setup, ledger, and the levels of `stability`."""
    which = check(
        images, copies, noise, methods, images_methods, images_checks, copies_levels, noise_levels
    )
    if not scenes.usable[scenes.store.rows("test")].any():
        raise StudyError(
            f"not one test image of study {study} has a usable mask: there is no object to look "
            "at. Choose another mask source (masks)."
        )
    rows, few, fewer = (
        attention_maps.chosen_rows(scenes, min(images, count), seed)
        for count in (images, images_methods, min(images_methods, images_checks))
    )
    settings = {"copies": copies, "noise": noise, "precision": PRECISION}
    setup = Setup(study, scenes, models, which, rows, few, fewer, seed, settings)
    levels = {"copies": sorted(copies_levels), "noise": sorted(noise_levels)}
    asked = {
        **settings, "seed": seed, "methods": [str(entry) for entry in which], "levels": levels,
        "images": len(rows), "images_methods": len(few), "images_checks": len(fewer),
        "models": [name_of(*names_of(model).values()) for model in models],
    }  # fmt: skip
    return setup, Ledger(paths.StudyPaths(study).measured / "attention", asked), levels


def check(
    images: int, copies: int, noise: float, methods: list[str], images_methods: int,
    images_checks: int, copies_levels: list[int], noise_levels: list[float],
) -> list[Explanation]:  # fmt: skip
    """The explanations that are asked for; needs no images.

    Raises:
        StudyError: a number that cannot be, a list that names something twice, a method or target
            that nobody knows.
    """
    counts = {"images": [images], "images_methods": [images_methods], "copies": [copies],
              "images_checks": [images_checks], "copies_levels": copies_levels}  # fmt: skip
    wrong = [name for name, values in counts.items() if any(value < 1 for value in values)]
    wrong += [name for name, values in {"noise": [noise], "noise_levels": noise_levels}.items()
              if not all(0 < value <= 1 for value in values)]  # fmt: skip
    if wrong:
        raise StudyError(
            f"{', '.join(wrong)} (attention): counts are 1 or more, noise lies between 0 and 1."
        )
    for name, values in {"copies_levels": copies_levels, "noise_levels": noise_levels}.items():
        if not values or len(set(values)) < len(values):
            raise StudyError(f"`{name}` is {values}; wanted: one or more, each once.")
    return explanations(methods)


def _measure_models(setup: Setup, ledger: "Ledger") -> None:
    pixels = len(setup.rows) * sum(model.image_size**2 for model in setup.models)
    space_left(paths.StudyPaths(setup.study).scratch / "maps", 4 * pixels)
    names = ledger.asked["models"]
    for number, (name, model) in enumerate(zip(names, setup.models, strict=True), start=1):
        say(f"{setup.study}: attention of model {number} of {len(names)} ({name})")
        measure_model(setup, ledger, model)


def measure_model(setup: Setup, ledger: "Ledger", model: Model) -> None:
    """The tables of one model, unless they are there."""
    name, key = name_of(*names_of(model).values()), _key(setup, [model], setup.rows)
    ledger.table(f"scores/{name}", key, lambda: model_scores(setup, model))
    ledger.table(f"similarity/{name}", key, lambda: similarity_kept(setup, model))


def checks(
    setup: Setup, ledger: "Ledger", levels: dict[str, list]
) -> dict[str, Callable[[], None]]:
    """The tables that judge the score, by name; a call makes its own unless it is there.

    The arms' scores must be there before `examples`.
    """
    seen, which = [setup.models[0], *setup.arms], [str(entry) for entry in setup.which]
    shown = _key(setup, seen, setup.rows)
    some = _key(setup, seen, setup.few, which=which)
    fewer = _key(setup, seen, setup.fewer, which=which)
    steps = _key(setup, seen, setup.fewer, levels=levels)
    table, folder = ledger.table, ledger.folder
    return {
        "controls": lambda: table("controls", shown, lambda: sanity_checks.control_scores(setup)),
        "examples": lambda: ledger.add(
            "examples", "examples.jpg", shown, lambda: write_examples(setup, folder)
        ),
        "methods": lambda: table("methods", some, lambda: sanity_checks.method_scores(setup)),
        "cascade": lambda: table("cascade", fewer, lambda: sanity_checks.cascade(setup)),
        "faithfulness": lambda: table(
            "faithfulness", fewer, lambda: sanity_checks.faithfulness(setup)
        ),
        "stability": lambda: table(
            "stability", steps, lambda: sanity_checks.stability(setup, *levels.values())
        ),
    }


def _key(setup: Setup, models: list[Model], rows: np.ndarray, **more: Any) -> str:
    """Equal where a table comes out equal."""
    return key_of(
        code=fingerprint(*ROOMS), models=[model.identity for model in models], rows=rows.tolist(),
        data=setup.scenes.fingerprint, seed=setup.seed, settings=setup.settings, **more,
    )  # fmt: skip


@dataclass(frozen=True)
class Ledger:
    """The folder of a study's measured attention, and measured.json: what stands in it and why."""

    folder: Path
    asked: dict[str, Any]

    def add(self, name: str, file: str, key: str, write: Callable[[], None]) -> None:
        """Let `write` make `file`, unless it is there and was made under the same key."""
        there = (self.folder / file).exists() and self._made().get(name, {}).get("key") == key
        if not there:
            self._note(name, None)  # a killed run must not leave the new table under the old key
            write()
            precision = used(PRECISION, device().type)
            entry = {"key": key, "code": fingerprint(*ROOMS), "precision": precision}
            self._note(name, entry | run_log.origin())

    def table(self, name: str, key: str, make: Callable[[], pd.DataFrame]) -> None:
        """`add` of a compact table."""
        file = f"{name}.parquet"
        self.add(name, file, key, lambda: write_compact(self.folder / file, make()))

    def sweep(self) -> None:
        """Remove the tables of models that the study no longer has, and note what was asked."""
        models, made = set(self.asked["models"]), self._made()
        for file in self.folder.glob("*/*.parquet"):
            if file.stem not in models:
                file.unlink()
        gone = [name for name in made if "/" in name and name.partition("/")[2] not in models]
        self._write({name: entry for name, entry in made.items() if name not in gone})

    def merge(self, entries: dict[str, Any]) -> None:
        """Take over what another machine noted of its tables."""
        for name, entry in entries.items():
            self._note(name, entry)

    def _made(self) -> dict[str, Any]:
        file = self.folder / LEDGER
        return read_json(file)["made"] if file.exists() else {}

    def _note(self, name: str, entry: dict[str, Any] | None) -> None:
        with locked(paths.ROOT / "data" / "locks" / f"{self.folder.parts[-3]}.attention.lock"):
            made = {other: known for other, known in self._made().items() if other != name}
            self._write(made | ({name: entry} if entry else {}))

    def _write(self, made: dict[str, Any]) -> None:
        write_json(self.folder / LEDGER, self.asked | {"made": made})


def model_scores(setup: Setup, model: Model) -> pd.DataFrame:
    """Every measure of the paper's maps: one row an image x measure."""
    masks = attention_maps.pictures(setup.scenes, setup.rows, model.image_size)[1]
    maps = setup.maps(model, setup.rows)
    return setup.scored(maps, masks, setup.rows, **names_of(model), **vars(PAPER))


@fixed_threads()
def similarity_kept(setup: Setup, model: Model) -> pd.DataFrame:
    """Per image: cosine of clean and shifted embedding, mean over draws (column value).

    Unlike the precision of a query, which cannot fall when it is zero already, this has no floor.
    """
    network, forward = loaded(model)
    options = {"seed": setup.seed, "size": model.image_size, "forward": forward}
    embed = partial(embedding.embed, network, setup.scenes, setup.rows, **options)
    clean = embed("clean", draw=0)
    moved = [embed("random_background", draw=draw) for draw in range(DRAWS)]
    kept = torch.stack([(clean * one).sum(dim=1) for one in moved]).mean(dim=0)
    return setup.table(setup.rows, value=kept.numpy(), **names_of(model))


def picked(scores: pd.DataFrame, arm: str, reference: str | None) -> dict[str, int]:
    """Rows of three images by rule: largest gain over the reference, median, largest loss.

    Args:
        scores: the score (column value) of every row and arm. reference: None: the score itself.
    """
    wide = scores.pivot(index="row", columns="arm", values="value").dropna()
    change = (wide[arm] - (wide[reference] if reference else 0)).sort_values(kind="stable")
    ends = ("largest gain", "largest loss") if reference else ("highest score", "lowest score")
    places = {ends[0]: -1, "median": len(change) // 2, ends[1]: 0}
    return {rule: int(change.index[at]) for rule, at in places.items()}


def write_examples(setup: Setup, folder: Path) -> None:
    """Small pictures of a few images: the image, its mask, and its scaled map in every arm."""
    files = [folder / "scores" / f"{name_of(*names_of(m).values())}.parquet" for m in setup.arms]
    table = read_compact(files)
    table = table[(table["metric"] == "attention_score") & table["defined"]]
    own = [model.arm for model in setup.arms]
    arm, reference = (arms.pairs(own) or [(own[0], None)])[0]
    tiles, facts = [], []
    for rule, row in picked(table, arm, reference).items():
        image, mask = setup.pictures(np.array([row]))
        tiles += [image[0], 255 * mask]
        facts += [(rule, row, "image", np.nan), (rule, row, "mask", np.nan)]
        for model in setup.arms:
            raw = setup.maps(model, np.array([row]))
            score = table[(table["row"] == row) & (table["arm"] == model.arm)]["value"].item()
            tiles.append(255 * scores.scale_map(raw))
            facts.append((rule, row, model.arm, score))
    side = min(TILE, setup.base.image_size)
    write_tiles(
        folder / "examples",
        [_small(tile, side) for tile in tiles],
        pd.DataFrame(facts, columns=["rule", "row", "shows", "score"]),
    )


def _small(picture: Tensor, side: int) -> np.ndarray:
    """A picture (3 or 1, s, s) on 0 to 255 as uint8 (side, side, 3)."""
    shrunk = interpolate(picture[None].cpu().float(), (side, side), mode="area")[0]
    return shrunk.expand(3, -1, -1).round().byte().permute(1, 2, 0).numpy()
