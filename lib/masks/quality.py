"""How good the masks are, where somebody knows the truth."""

import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib.core import paths
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import digest, key_of, read_json, write_json, write_table
from lib.core.hardware import workers
from lib.data import authors_repository, datasets
from lib.data.prepare import about
from lib.data.store import Store, open_image, sizes_of
from lib.masks import rembg_models, sources

AUTHORS = "authors' u2net"
HAND_LABELLED = ("cub200", "cars196", "sop")  # data sets of the paper's hand-labelled masks
COLUMNS = ["dataset", "source", "image", "iou", "covered"]


def measure(study: str, source: str, compare: list[str] = ()) -> None:
    """The measuring step of page 02: masks of a study and their quality, always made afresh."""
    sources.make_masks(study, source, afresh=True)
    table(study, source, compare, afresh=True)


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


def _image_of(mask: Path) -> Path:
    return next(mask.parent.glob(mask.name.replace("_mask.png", "_image.*")))


def _kept(folder: Path, source: str, mask: Path) -> Path:
    """Where the mask that `source` made of a hand-labelled image is kept."""
    return folder / source / mask.parent.name / mask.name


def _row(job: tuple[str, str, Path, Path]) -> dict[str, object]:
    """Predict and keep one mask of a hand-labelled image, in its size, and score it."""
    dataset, source, file, folder = job
    truth, target = _grey(file), _kept(folder, source, file)
    if source == AUTHORS:
        target = file.with_name(f"{file.stem}_pred.png")
    else:
        made = rembg_models.predict(source, open_image(_image_of(file)))
        target.parent.mkdir(parents=True, exist_ok=True)
        made.resize(truth.shape[::-1]).save(target)
    name = file.name.removesuffix("_mask.png")
    return {"dataset": dataset, "source": source, "image": name} | quality(_grey(target), truth)


def against_hand(models: list[str], folder: Path) -> pd.DataFrame:
    """Quality on the paper's hand-labelled images (20 a data set, as far as they are at hand).

    Args:
        models: names of rembg models; the authors' own U2-Net masks are scored beside them.
        folder: where the predicted masks are kept.

    Returns:
        One row an image and source: dataset, source, image, iou, covered.
    """
    jobs = [
        (dataset, source, file, folder)
        for source in [*models, AUTHORS]
        for dataset in HAND_LABELLED
        for file in authors_repository.hand_masks(dataset)
    ]
    if not jobs:
        return pd.DataFrame(columns=COLUMNS)
    for model in models:
        rembg_models.fetch(model)
    with multiprocessing.get_context("spawn").Pool(workers()) as pool:
        return pd.DataFrame(list(pool.imap(_row, jobs, chunksize=5)), columns=COLUMNS)


def against_true(study: str, source: str, count: int = 200) -> pd.DataFrame:
    """Quality on a data set with exact masks: every k-th image, about `count` of them."""
    made, _ = sources.load_masks(study, source)
    index, files, rows = made.index, sources.true_files(study), []
    for row in range(0, len(made), max(1, len(made) // count)):
        truth = sources.read_true(files[row], (index["width"][row], index["height"][row]))
        found = {"source": source, "image": index["path"][row]}
        rows.append(found | quality(made.image(row), truth))
    return pd.DataFrame(rows).assign(dataset=about(study)["dataset"])[COLUMNS]


def compared(source: str, compare: list[str]) -> list[str]:
    """The rembg models to score: those of `compare`, else the study's own; `u2netp@224` is always
    scored beside `u2netp`.
    """
    base = source.split("+")[0]
    if sources.get(base)[0].make is not rembg_models.rembg_masks:
        return list(compare)
    model, side = rembg_models.model_and_side(base)
    return list(dict.fromkeys([*compare, *([model, base] if side or not compare else [])]))


def table(study: str, source: str, compare: list[str], afresh: bool = False) -> pd.DataFrame:
    """One row an image whose truth is known: dataset, source, image, iou, covered (may be empty).

    Embedded data have exact masks, with which the study's own are compared. Published data sets
    have the paper's hand-labelled images, with which the models of `compared` are; so has a source
    with a smaller input, whatever the data set, if the images are at hand. Kept as
    data/masks/<study>/quality.csv, and read from there if nothing has changed, unless `afresh`.
    """
    home, entry = paths.StudyPaths(study).masks, datasets.get(about(study)["dataset"])
    models = compared(source, compare)
    hand = entry.published or rembg_models.model_and_side(source.split("+")[0])[1] > 0
    files = [f for name in HAND_LABELLED if hand for f in authors_repository.hand_masks(name)]
    files += sources.true_files(study) if entry.make else []
    request = key_of(
        code=fingerprint("data", "masks"), source=source, models=models, sizes=sizes_of(files),
        files=[file.name for file in files],
        masks=sources.load_masks(study, source)[0].fingerprint,
    )  # fmt: skip
    target, record = home / "quality.csv", home / "quality.json"
    if afresh or not _finished(target, record, request):
        parts = [against_true(study, source)] if entry.make else []
        parts += [against_hand(models, home / "hand_labelled")] if hand else []
        parts = [part for part in parts if len(part)] or [pd.DataFrame(columns=COLUMNS)]
        write_table(target, pd.concat(parts), digits=17)
        write_json(record, {"request": request, "table": digest(target)})
    texts = dict.fromkeys(COLUMNS[:3], str)
    return pd.read_csv(
        target,
        dtype=texts,
        keep_default_na=False,
        na_values={"iou": "", "covered": ""},
        float_precision="round_trip",
    )


def _finished(target: Path, record: Path, request: str) -> bool:
    try:
        return read_json(record) == {"request": request, "table": digest(target)}
    except (StudyError, OSError):
        return False


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
    seen = look(study, source, [row["image"] for row in rows.values()])
    return [
        {"rule": rule, "iou": row["iou"], "image": image, "truth": truth, "mask": mask}
        for (rule, row), (image, truth, mask) in zip(rows.items(), seen, strict=True)
    ]


def _by_hand(study: str, source: str, names: list[str]) -> list[tuple[np.ndarray, ...]]:
    """Hand-labelled images, their true masks, and those that `source` made of them."""
    home = paths.StudyPaths(study).masks / "hand_labelled"
    masks = {f.name: f for f in authors_repository.hand_masks(about(study)["dataset"])}
    files = [masks[f"{name}_mask.png"] for name in names]
    return [
        (np.asarray(open_image(_image_of(f))), _grey(f), _grey(_kept(home, source, f)))
        for f in files
    ]


def _exact(study: str, source: str, names: list[str]) -> list[tuple[np.ndarray, ...]]:
    """Images of the store, their exact masks, and the study's."""
    made, files = sources.load_masks(study, source)[0], sources.true_files(study)
    images = Store.open(paths.StudyPaths(study).prepared / "images")
    rows = [made.index["path"].tolist().index(name) for name in names]
    sizes = {row: images.image(row).shape[1::-1] for row in rows}
    return [
        (images.image(row), sources.read_true(files[row], sizes[row]), made.image(row))
        for row in rows
    ]


def report_rows(study: str, areas: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Long-format summary for reports: areas and counts per split, quality per source."""
    own, rows = about(study)["dataset"], []
    for split, part in areas.groupby("split", sort=False):
        values = {
            "area_mean": part["area"].mean(),
            "empty_share": (part["area"] < sources.EMPTY).mean(),
            "full_share": (part["area"] > sources.FULL).mean(),
        }
        rows += [(own, split, "used", name, value, len(part)) for name, value in values.items()]
    for (dataset, source), part in scores.groupby(["dataset", "source"], sort=False):
        for metric in ("iou", "covered"):
            for name in ("mean", "median", "min"):
                value = part[metric].agg(name)
                rows.append((dataset, "known truth", source, f"{metric}_{name}", value, len(part)))
    columns = ["dataset", "split", "source", "metric", "value", "n"]
    return pd.DataFrame(rows, columns=columns).assign(study=study)


def beside_rembg(scores: pd.DataFrame, source: str) -> dict[str, object]:
    """Mean IoU on the hand-labelled images of a source with a smaller input, and of its model.

    Returns:
        model, n, own, rembg (mean IoUs); empty where the source has rembg's own input size.
    """
    base = source.split("+")[0]
    model, side = rembg_models.model_and_side(base)
    hand = scores[scores["dataset"].isin(HAND_LABELLED)].groupby("source")["iou"]
    if not side or not {model, base} <= set(hand.groups):
        return {}
    means = hand.mean()
    return {"model": model, "n": hand.size()[base], "own": means[base], "rembg": means[model]}
