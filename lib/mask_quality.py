"""How good the masks are, where somebody knows the truth."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib import datasets, masks, paths
from lib.fetch import mirror
from lib.prepare import about, source_files
from lib.store import Store, open_image

AUTHORS = "authors' u2net"


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


def hand_labelled(dataset: str) -> list[Path]:
    """The true masks of the paper's authors (N_mask.png), from DATA_MIRROR or data/raw."""
    places = [place for place in (mirror(), paths.RAW) if place]
    found = [sorted((place / "mask_quality" / dataset).glob("*_mask.png")) for place in places]
    return next((files for files in found if files), [])


def _grey(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("L"))


def against_hand(dataset: str, source: str) -> pd.DataFrame:
    """Quality on the hand-labelled images: ours by `source`, and the authors' own U2-Net masks."""
    rows = []
    for file in hand_labelled(dataset):
        truth, stem = _grey(file), file.name.removesuffix("_mask.png")
        picture = next(file.parent.glob(f"{stem}_image.*"))
        ours = masks.predict(source, open_image(picture)).resize(truth.shape[::-1])
        rows.append({"source": source, "image": stem, **quality(np.asarray(ours), truth)})
        theirs = file.with_name(f"{stem}_mask_pred.png")
        if theirs.exists():
            rows.append({"source": AUTHORS, "image": stem, **quality(_grey(theirs), truth)})
    return pd.DataFrame(rows, columns=["source", "image", "iou", "covered"])


def against_true(study: str, source: str, count: int = 200) -> pd.DataFrame:
    """Quality on a data set with exact masks: every k-th image, about `count` of them."""
    made, store = (
        masks.load_masks(study, source)[0],
        Store.open(paths.StudyPaths(study).prepared / "images"),
    )
    rows, files = [], source_files(study)
    for row in range(0, len(store), max(1, len(store) // count)):
        file = masks.true_file(files[row])
        size = (store.index["width"][row], store.index["height"][row])
        with Image.open(file) as image:
            truth = np.asarray(image.convert("L").resize(size, Image.Resampling.BILINEAR))
        name = store.index["path"][row]
        rows.append({"source": source, "image": name, **quality(made.image(row), truth)})
    return pd.DataFrame(rows, columns=["source", "image", "iou", "covered"])


def table(study: str, source: str) -> pd.DataFrame:
    """One row an image whose truth is known: source, image, iou, covered (may be empty)."""
    dataset = about(study)["dataset"]
    if datasets.get(dataset).make:
        return against_true(study, source)
    if source not in masks.SOURCES or source == "true":
        return pd.DataFrame(columns=["source", "image", "iou", "covered"])
    return against_hand(dataset, source)


def report_rows(study: str, areas: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Long-format summary for reports: areas and counts per split, quality per source."""
    dataset = about(study)["dataset"]
    rows = []
    for split, part in areas.groupby("split", sort=False):
        values = {
            "area_mean": part["area"].mean(),
            "empty_share": (part["area"] < masks.EMPTY).mean(),
            "full_share": (part["area"] > masks.FULL).mean(),
        }
        rows += [(split, "used", metric, value, len(part)) for metric, value in values.items()]
    for source, part in scores.groupby("source", sort=False):
        for metric in ("iou", "covered"):
            for name in ("mean", "median", "min"):
                value = part[metric].agg(name)
                rows.append(("known truth", source, f"{metric}_{name}", value, len(part)))
    table = pd.DataFrame(rows, columns=["split", "source", "metric", "value", "n"])
    return table.assign(study=study, dataset=dataset)
