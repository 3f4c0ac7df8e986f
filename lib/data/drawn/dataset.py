"""The drawn data set: which object stands before which surroundings, written as files."""

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib.core.errors import StudyError
from lib.core.hardware import workers
from lib.data.drawn.objects import draw_habitats, draw_toys, picture, size_of, stream
from lib.data.drawn.surroundings import BACKDROPS, Array, draw_place, view

ORDER = ("train", "val", "validation", "test")  # whatever the order in which they are given


def plan(
    seed: int, bias: float, test_bias: float, classes: dict[str, int], images_per_class: int
) -> pd.DataFrame:
    """The index table: which image shows which class in whose habitat (no pixel is drawn).

    Columns path (relative to images/), label, class_name, split, habitat_class. `bias` in [0,1]
    holds for the split "train", `test_bias` for all others. Raises StudyError if impossible.
    """
    names = [toy.name for toy in draw_toys(seed, sum(classes.values()))]
    rows, first = [], 0
    for split in sorted(classes, key=lambda name: ORDER.index(name) if name in ORDER else 9):
        count = classes[split]
        chance = bias if split == "train" else test_bias
        if not 0 <= chance <= 1 or images_per_class < 1 or count < (2 if chance < 1 else 1):
            raise StudyError(
                f"split {split!r}: {count} classes x {images_per_class} images at bias {chance}; "
                "give a bias in [0, 1], at least 1 image, and 2 classes (or a bias of 1)"
            )
        for label in range(first, first + count):
            others = [c for c in range(first, first + count) if c != label]
            for k in range(images_per_class):
                rng = stream(seed, "where", label, k)
                home = label if rng.random() < chance else rng.choice(others)
                path = f"{names[label]}/{names[label]}_{k:03d}.png"
                rows.append((path, label, names[label], split, names[home]))
        first += count
    return pd.DataFrame(rows, columns=["path", "label", "class_name", "split", "habitat_class"])


def _publish(root: Path, jobs: list, work: Callable, table: pd.DataFrame | None = None) -> None:
    """Run `work(folder, job)` in threads on a folder beside `root`, then let it take its place."""
    root = Path(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        draft = Path(scratch) / "new"
        draft.mkdir()
        with ThreadPoolExecutor(workers()) as pool:  # numpy lets threads work side by side
            list(pool.map(lambda job: work(draft, job), jobs))
        if table is not None:
            table.to_csv(draft / "index.csv", index=False, lineterminator="\n")
        shutil.rmtree(root, ignore_errors=True)
        draft.rename(root)


def _save(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=4)


def render_dataset(
    root: Path,
    *,
    seed: int,
    bias: float,
    test_bias: float,
    classes: dict[str, int],
    images_per_class: int,
    side: int,
) -> None:
    """Write images/, masks/ (same relative paths, mode L) and index.csv under `root`.

    `classes` maps a split to its number of classes, which no two splits share; `plan` describes
    the index and its errors, `picture` an image. Bytes are a function of the arguments alone; an
    existing `root` is replaced once everything is drawn.
    """
    table = plan(seed, bias, test_bias, classes, images_per_class)
    toys, homes = draw_toys(seed, len(set(table.label))), draw_habitats(seed, len(set(table.label)))
    places = {toy.name: home for toy, home in zip(toys, homes, strict=True)}

    def draw(folder: Path, row) -> None:
        rng = stream(seed, "image", row.path)
        image, mask = picture(toys[row.label], places[row.habitat_class], rng, side)
        _save(folder / "images" / row.path, image)
        _save(folder / "masks" / row.path, mask)

    _publish(root, list(table.itertuples(index=False)), draw, table)


def render_backgrounds(root: Path, *, seed: int, count: int, side: int) -> None:
    """Write `count` pictures without an object, `root/<k>.png`, short side = `side`.

    Their kinds of place (BACKDROPS) are none of the classes' (HABITATS), and every picture is a
    place of its own: pools of different seeds have no place in common.
    """

    def draw(folder: Path, k: int) -> None:
        rng = stream(seed, "backdrop", k)
        place = draw_place([*BACKDROPS][k % len(BACKDROPS)], rng)
        pixels = view(place, rng, *size_of(rng, side))
        pixels = pixels + rng.normal(0, 0.01, pixels.shape)
        _save(folder / f"{k:03d}.png", np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))

    _publish(root, list(range(count)), draw)
