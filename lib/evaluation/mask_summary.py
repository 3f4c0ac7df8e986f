"""What page 02 shows of a study's masks, kept in git: `python -m lib.evaluation.mask_summary`.

    reports/<study>/measured/masks/
        masks.json           source, compared models, fingerprints of masks and images
        areas.parquet        a row an image: split, area, usable
        quality.csv          a row an image with known truth (lib.masks.quality.table)
        summary.csv          areas and quality in long format
        pictures.jpg, .csv   images and their masks (columns kind, part, caption)

Not in lib.masks, whose code decides what the masks are: a picture more makes no mask anew.
"""

import sys
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lib.core import paths, stage
from lib.core.compact import Kept, read_compact, write_compact
from lib.core.files import read_json, write_json, write_table
from lib.core.tiles import small, write_tiles
from lib.data.prepare import about
from lib.data.store import Store
from lib.masks import quality, sources

SHOWN, EACH_END = 12, 6  # pictures of a kind; smallest and largest masks
LONG = 140  # pixels of a kept picture's long side
TEXTS = dict.fromkeys(quality.COLUMNS[:3], str)


class MaskSummary(Kept):
    """The kept tables of one study; each is read when it is first asked for."""

    part = "masks"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """masks.json."""
        return read_json(self.there("masks.json"))

    @cached_property
    def areas(self) -> pd.DataFrame:
        """A row an image: split, area (0 to 1), usable."""
        return read_compact([self.there("areas.parquet")])

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row an image with known truth: dataset, source, image, iou, covered (0 to 1)."""
        blank = {"iou": [""], "covered": [""]}
        file = self.there("quality.csv")
        return pd.read_csv(file, dtype=TEXTS, keep_default_na=False, na_values=blank)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Areas and quality in long format."""
        return pd.read_csv(self.there("summary.csv"))

    def pictures(self, kind: str) -> list[tuple[str, dict[str, np.ndarray]]]:
        """Of a kind (unusable, examples, extremes, truth): the caption, and pictures by part."""
        tiles, table = self.tiles("pictures")
        found = []
        for _, group in table[table["kind"] == kind].groupby("at", sort=False):
            parts = {part: tiles[at] for at, part in group["part"].items()}
            found.append((group["caption"].iloc[0], parts))
        return found


def read(study: str) -> MaskSummary:
    """The kept tables of a study."""
    return MaskSummary(study)


def measure(study: str, source: str, compare: list[str] = ()) -> None:
    """The measuring step of page 02, after lib.masks: always made afresh."""
    _write(study, source, list(compare))


def look(study: str, source: str, compare: list[str] = ()) -> MaskSummary:
    """What `measure` kept, if it was asked for the same; else the masks are made.

    Where images and masks are on this machine, they are compared: other masks, another summary.
    """
    kept = read(study) if (read(study).folder / "masks.json").exists() else None
    asked = {"source": source, "compare": list(compare)}
    here = (paths.StudyPaths(study).masks / source / "masks.json").exists()
    if kept and not here and {key: kept.facts[key] for key in asked} == asked:
        return kept
    about(study)  # where nothing was prepared, this says what to run first
    made = sources.make_masks(study, source)
    if not kept or kept.facts != _facts(study, made, **asked):
        _write(study, **asked)
    return read(study)


def _facts(study: str, masks: Store, source: str, compare: list[str]) -> dict[str, Any]:
    facts = about(study)
    return {
        "source": source, "compare": compare, "masks": masks.fingerprint,
        "dataset": facts["dataset"], "note": facts["note"],
        "images": Store.open(paths.StudyPaths(study).prepared / "images").fingerprint,
    }  # fmt: skip


def _write(study: str, source: str, compare: list[str]) -> None:
    """Write the tables; masks.json last, as the sign that they are whole."""
    folder = read(study).folder
    (folder / "masks.json").unlink(missing_ok=True)
    masks, areas = sources.load_masks(study, source)
    scores = quality.table(study, source, compare)
    write_compact(folder / "areas.parquet", areas[["split", "area", "usable"]], exact=["area"])
    write_table(folder / "quality.csv", scores)
    write_table(folder / "summary.csv", quality.report_rows(study, areas, scores))
    shown = [*_pictures(study, masks, areas), *_truth(study, scores, source)]
    rows = [
        {"kind": kind, "at": at, "part": part, "caption": caption}
        for at, (kind, caption, parts) in enumerate(shown)
        for part in parts
    ]
    pictures = [small(picture, LONG) for _, _, parts in shown for picture in parts.values()]
    write_tiles(folder / "pictures", pictures, pd.DataFrame(rows))
    write_json(folder / "masks.json", _facts(study, masks, source, compare))


Shown = tuple[str, str, dict[str, np.ndarray]]  # kind, caption, pictures by part


def _pictures(study: str, masks: Store, areas: pd.DataFrame) -> list[Shown]:
    """Unusable masks, some drawn at random, the smallest and the largest usable ones."""
    images = Store.open(paths.StudyPaths(study).prepared / "images")
    usable = areas[areas["usable"]].sort_values("area", kind="stable").index
    drawn = np.random.default_rng(0).choice(len(images), min(SHOWN, len(images)), replace=False)
    ends = dict.fromkeys([*usable[:EACH_END], *usable[-EACH_END:]])
    chosen = {
        "unusable": areas.index[~areas["usable"]][:SHOWN],
        "examples": drawn,
        "extremes": ends,
    }
    return [
        (kind, f"{areas['area'][row]:.1%}",
         {"image": images.image(row), "mask": masks.image(row)})
        for kind, rows in chosen.items()
        for row in rows
    ]  # fmt: skip


def _truth(study: str, scores: pd.DataFrame, source: str) -> list[Shown]:
    """The worst, median and best image with known truth."""
    return [
        (
            "truth",
            f"{found['rule']} {found['iou']:.2f}",
            {part: found[part] for part in ("image", "truth", "mask")},
        )
        for found in quality.examples(study, scores, source)
    ]


if __name__ == "__main__":
    sys.exit(stage.main(measure, "masks", noted="mask_summary"))
