"""How good the masks are, where somebody knows the truth."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib import authors, datasets, masks, rembg_masks
from lib.prepare import about
from lib.store import open_image
from lib.weights import mask_model

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
    return np.asarray(rembg_masks.predict(source, open_image(_picture(mask))).resize(size))


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
        for file in authors.hand_masks(dataset)
    ]
    if not jobs:
        return pd.DataFrame(columns=COLUMNS)
    for source in sources:
        mask_model(source)  # fetched before the workers start, so that only one does
    with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count() or 1) as pool:
        return pd.DataFrame(list(pool.imap(_row, jobs, chunksize=5)), columns=COLUMNS)


def against_true(study: str, source: str, count: int = 200) -> pd.DataFrame:
    """Quality on a data set with exact masks: every k-th image, about `count` of them."""
    made, _ = masks.load_masks(study, source)
    index, files, rows = made.index, masks.true_files(study), []
    for row in range(0, len(made), max(1, len(made) // count)):
        truth = masks.read_true(files[row], (index["width"][row], index["height"][row]))
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


def examples(scores: pd.DataFrame, dataset: str, source: str) -> list[dict[str, object]]:
    """Worst, median and best hand-labelled image of a data set: rule, iou, image, truth, mask."""
    part = scores[(scores["dataset"] == dataset) & (scores["source"] == source)]
    part = part.dropna(subset="iou").sort_values(["iou", "image"])
    files, found = {file.name: file for file in authors.hand_masks(dataset)}, []
    if part.empty or not files:
        return found
    for rule, place in {"worst": 0, "median": len(part) // 2, "best": -1}.items():
        row = part.iloc[place]
        file = files[f"{row['image']}_mask.png"]
        image = np.asarray(open_image(_picture(file)))
        mask = predicted(source, file)
        found.append(
            {"rule": rule, "iou": row["iou"], "image": image, "truth": _grey(file), "mask": mask}
        )
    return found


def report_rows(study: str, areas: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Long-format summary for reports: areas and counts per split, quality per source."""
    own, rows = about(study)["dataset"], []
    for split, part in areas.groupby("split", sort=False):
        values = {
            "area_mean": part["area"].mean(),
            "empty_share": (part["area"] < masks.EMPTY).mean(),
            "full_share": (part["area"] > masks.FULL).mean(),
        }
        rows += [(own, split, "used", name, value, len(part)) for name, value in values.items()]
    for (dataset, source), part in scores.groupby(["dataset", "source"], sort=False):
        for metric in ("iou", "covered"):
            for name in ("mean", "median", "min"):
                value = part[metric].agg(name)
                rows.append((dataset, "known truth", source, f"{metric}_{name}", value, len(part)))
    columns = ["dataset", "split", "source", "metric", "value", "n"]
    return pd.DataFrame(rows, columns=columns).assign(study=study)
