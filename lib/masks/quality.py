"""How good the masks are, where somebody knows the truth."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib.core import paths
from lib.data import authors_repository, datasets
from lib.data.prepare import about
from lib.data.store import Store, open_image
from lib.masks import rembg_models
from lib.masks import sources as mask_sources
from lib.masks.rembg_models import mask_model

AUTHORS = "authors' u2net"
HAND_LABELLED = ("cub200", "cars196", "sop")  # data sets of the paper's hand-labelled masks
COLUMNS = ["dataset", "source", "image", "iou", "covered"]


def quality(predicted: np.ndarray, truth: np.ndarray, threshold: int = 128) -> dict[str, float]:
    """IoU and covered share of a mask, both 0 to 1 (NaN where the true object is empty).

    Args:
        predicted, truth: uint8 masks of one shape; a pixel is object from `threshold` on.
    """
    seen, real = predicted >= threshold, truth >= threshold
    if not real.any():
        return {"iou": float("nan"), "covered": float("nan")}
    both = (seen & real).sum()
    return {"iou": float(both / (seen | real).sum()), "covered": float(both / real.sum())}


def _grey(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("L"))


def _picture(mask: Path) -> Path:
    return next(mask.parent.glob(mask.name.replace("_mask.png", "_image.*")))


def predicted(source: str, mask: Path) -> np.ndarray:
    """Our mask by a rembg model for the picture of a hand-labelled mask, in its size."""
    size = _grey(mask).shape[::-1]
    return np.asarray(rembg_models.predict(source, open_image(_picture(mask))).resize(size))


def _row(job: tuple[str, str, Path]) -> dict[str, object]:
    dataset, source, file = job
    ours = file.with_name(f"{file.stem}_pred.png")
    seen = _grey(ours) if source == AUTHORS else predicted(source, file)
    name = file.name.removesuffix("_mask.png")
    return {"dataset": dataset, "source": source, "image": name} | quality(seen, _grey(file))


def against_hand(sources: list[str], workers: int = 0) -> pd.DataFrame:
    """Quality on the paper's hand-labelled images (20 a data set, as far as they are at hand).

    Args:
        sources: names of rembg models; the authors' own U2-Net masks are scored beside them.

    Returns:
        One row an image and source: dataset, source, image, iou, covered.
    """
    jobs = [
        (dataset, source, file)
        for source in [*sources, AUTHORS]
        for dataset in HAND_LABELLED
        for file in authors_repository.hand_masks(dataset)
    ]
    if not jobs:
        return pd.DataFrame(columns=COLUMNS)
    for source in sources:
        mask_model(source)  # fetched before the workers start, so that only one does
    with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count() or 1) as pool:
        return pd.DataFrame(list(pool.imap(_row, jobs, chunksize=5)), columns=COLUMNS)


def against_true(study: str, source: str, count: int = 200) -> pd.DataFrame:
    """Quality on a data set with exact masks: every k-th image, about `count` of them."""
    made, _ = mask_sources.load_masks(study, source)
    index, files, rows = made.index, mask_sources.true_files(study), []
    for row in range(0, len(made), max(1, len(made) // count)):
        truth = mask_sources.read_true(files[row], (index["width"][row], index["height"][row]))
        found = {"source": source, "image": index["path"][row]}
        rows.append(found | quality(made.image(row), truth))
    return pd.DataFrame(rows).assign(dataset=about(study)["dataset"])[COLUMNS]


def table(study: str, source: str, compare: list[str]) -> pd.DataFrame:
    """One row an image whose truth is known: dataset, source, image, iou, covered (may be empty).

    Embedded data have exact masks, with which the study's own are compared. Published data sets
    have the paper's hand-labelled images, with which the models of `compare` are.
    """
    entry = datasets.get(about(study)["dataset"])
    if entry.make:
        return against_true(study, source)
    return pd.DataFrame(columns=COLUMNS) if entry.own else against_hand(compare)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean, median and worst of both measures per data set and source, with n; for reading."""
    grouped = scores.groupby(["dataset", "source"], sort=False)
    found = grouped[["iou", "covered"]].agg(["mean", "median", "min"])
    found.insert(0, ("", "n"), grouped.size())
    return found.rename(columns={"iou": "IoU ↑", "covered": "covered ↑", "min": "worst"})


def examples(study: str, scores: pd.DataFrame, source: str) -> list[dict[str, object]]:
    """Worst, median and best image of `scores`' own data set: rule, iou, image, truth, mask."""
    dataset = about(study)["dataset"]
    part = scores[(scores["dataset"] == dataset) & (scores["source"] == source)]
    part = part.dropna(subset="iou").sort_values(["iou", "image"])
    if part.empty:
        return []
    look = _exact if datasets.get(dataset).make else _by_hand
    picks = {"worst": 0, "median": len(part) // 2, "best": -1}
    rows = {rule: part.iloc[place] for rule, place in picks.items()}
    return [
        {"rule": rule, "iou": row["iou"], **look(study, source, row["image"])}
        for rule, row in rows.items()
    ]


def _by_hand(study: str, source: str, name: str) -> dict[str, np.ndarray]:
    """A hand-labelled image, its true mask, and the one that `source` makes of it."""
    files = {file.name: file for file in authors_repository.hand_masks(about(study)["dataset"])}
    file = files[f"{name}_mask.png"]
    image = np.asarray(open_image(_picture(file)))
    return {"image": image, "truth": _grey(file), "mask": predicted(source, file)}


def _exact(study: str, source: str, path: str) -> dict[str, np.ndarray]:
    """An image of the store, its exact mask, and the study's."""
    made, _ = mask_sources.load_masks(study, source)
    row = int(made.index.index[made.index["path"] == path][0])
    image = Store.open(paths.StudyPaths(study).prepared / "images").image(row)
    truth = mask_sources.read_true(mask_sources.true_files(study)[row], image.shape[1::-1])
    return {"image": image, "truth": truth, "mask": made.image(row)}


def report_rows(study: str, areas: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Long-format summary for reports: areas and counts per split, quality per source."""
    own, rows = about(study)["dataset"], []
    for split, part in areas.groupby("split", sort=False):
        values = {
            "area_mean": part["area"].mean(),
            "empty_share": (part["area"] < mask_sources.EMPTY).mean(),
            "full_share": (part["area"] > mask_sources.FULL).mean(),
        }
        rows += [(own, split, "used", name, value, len(part)) for name, value in values.items()]
    for (dataset, source), part in scores.groupby(["dataset", "source"], sort=False):
        for metric in ("iou", "covered"):
            for name in ("mean", "median", "min"):
                value = part[metric].agg(name)
                rows.append((dataset, "known truth", source, f"{metric}_{name}", value, len(part)))
    columns = ["dataset", "split", "source", "metric", "value", "n"]
    return pd.DataFrame(rows, columns=columns).assign(study=study)
