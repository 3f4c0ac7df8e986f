"""A real shift: photographs taken in a shop search the shop's catalogue (Grocery Store data set).

    python -m lib.experiments.catalogue --study grocery-cpu

The catalogue shows each of the 81 products once, alone on white. Nothing is composited: customers
took the one, the shop made the other. Queries are the study's test photographs; every product has
one right image, so MAP@R, R-precision and P@1 are the same number: was the product found first?

    reports/<study>/measured/catalogue/
        models/<model>.json      what it was measured with
        classes/<model>.parquet  a row a test class, in the form of lib.evaluation's `classes`
        icons.jpg, .csv          the catalogue, small
"""

import sys
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from lib.core import params, paths, stage
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import key_of, read_json, write_json
from lib.core.hardware import device, fixed_threads
from lib.core.progress import say
from lib.core.tiles import write_tiles
from lib.data import datasets, readers
from lib.evaluation import embeddings, statistics
from lib.evaluation.measured import name_of, read, read_compact, write_compact
from lib.evaluation.models import Model, described
from lib.images.scenes import Scenes
from lib.masks.sources import mask_source

CONDITION = "catalogue"
CODE = ("images", "models", "evaluation/embeddings", "experiments/catalogue")
TILE = 96  # pixels of a small picture


def icons(dataset: str, options: dict[str, Any], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The catalogue: images (K, size, size, 3) uint8, whole and squared on white, and labels (K,).

    Raises:
        StudyError: the data set has no catalogue, or an image of it is gone.
    """
    if dataset != "grocery":
        raise StudyError(f"data set {dataset!r} has no catalogue; the Grocery Store has (grocery).")
    folder, _ = datasets.locate(dataset, options)
    table, made = readers.grocery_catalogue(folder), []
    for name in table["path"]:
        try:
            with Image.open(folder / name) as opened:
                icon = opened.convert("RGB")
        except OSError as error:
            raise StudyError(f"{folder / name} cannot be read ({error}). Get it again.") from error
        square = Image.new("RGB", (max(icon.size),) * 2, "white")
        square.paste(icon, tuple((max(icon.size) - side) // 2 for side in icon.size))
        made.append(np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)))
    return np.stack(made), table["label"].to_numpy()


def hits(queries: Tensor, labels: np.ndarray, gallery: Tensor, names: np.ndarray) -> np.ndarray:
    """Whether the right catalogue image is the nearest (N,), 0 or 1; shared first places count
    as their share.

    Args:
        queries: (N, D) embeddings. labels: (N,). gallery: (K, D). names: (K,) labels, each once.
    """
    alike = queries.double() @ gallery.double().T
    right = torch.as_tensor(names)[None] == torch.as_tensor(labels)[:, None]
    first = alike >= alike.max(dim=1, keepdim=True).values - 1e-12
    return ((first & right).sum(1) / first.sum(1)).numpy()


@torch.inference_mode()
@fixed_threads()
def _vectors(model: Model, pictures: np.ndarray) -> Tensor:
    embedder, forward = embeddings.loaded(model)
    parts = np.array_split(pictures, -(-len(pictures) // 32))
    batches = (torch.from_numpy(part).permute(0, 3, 1, 2).float() for part in parts)
    return torch.cat([forward(embedder.normalise(batch.to(device()))) for batch in batches])


def measure(study: str) -> None:
    """Search the catalogue with every model; a model that is measured already is passed over."""
    data = params.section(study, "data")
    scenes, models = Scenes(study, mask_source(study), device()), described(study)
    size, folder = models[0][0].image_size, paths.StudyPaths(study).measured / "catalogue"
    pictures, names = icons(data["dataset"], data["options"], size)
    shown = key_of(pictures=pictures.tobytes().hex())
    for number, (model, _entry) in enumerate(models, start=1):
        name = name_of(model.loss, model.arm, model.seed)
        say(f"{study}: catalogue by model {number} of {len(models)} ({name})")
        made = {
            "model": model.identity, "data": scenes.fingerprint, "icons": shown,
            "code": fingerprint(*CODE), "precision": model.precision,
        }  # fmt: skip
        file = folder / "models" / f"{name}.json"
        if file.exists() and read_json(file) == made:
            continue
        file.unlink(missing_ok=True)
        view = embeddings.View(study, model, scenes)
        found = hits(
            view.embeddings("clean"), view.labels.numpy(), _vectors(model, pictures), names
        )
        rows = pd.DataFrame({"label": view.labels.numpy()}).assign(
            loss=model.loss, arm=model.arm, seed=model.seed, condition=CONDITION, sides="both",
            draw=0, **dict.fromkeys(embeddings.METRICS, found),
        )  # fmt: skip
        table = embeddings.by_class(rows)
        write_compact(folder / "classes" / f"{name}.parquet", table, exact=embeddings.METRICS)
        write_json(file, made)
    known = {name_of(m.loss, m.arm, m.seed) for m, _ in models}
    for file in [*folder.glob("classes/*.*"), *folder.glob("models/*.*")]:
        if file.stem not in known:
            file.unlink()
    small = [np.asarray(Image.fromarray(icon).resize((TILE, TILE))) for icon in pictures]
    write_tiles(folder / "icons", small, pd.DataFrame({"label": names}))


# --- what it says --------------------------------------------------------------------------------


def found(study: str) -> pd.DataFrame:
    """The measured rows of all models: one a model and test class, with its kind and name."""
    measured = read(study)
    folder = paths.StudyPaths(study).measured / "catalogue" / "classes"
    files = [folder / f"{name}.parquet" for name in measured.models]
    gone = [file for file in files if not file.exists()]
    if gone:
        raise StudyError(f"{gone[0]} is not there: `python -m lib.experiments.catalogue` makes it.")
    named = measured.labels.assign(kind=measured.labels["class_name"].str.split("/").str[0])
    return read_compact(files).merge(named[["label", "kind", "class_name"]], on="label")


def by_class(classes: pd.DataFrame, catalogue: pd.DataFrame) -> pd.DataFrame:
    """One row an arm and class, means over its models: what composites say, what happened.

    Columns: `found` in the catalogue; `clean` P@1 among photographs; `lost` of it where the query
    alone stands before another photograph (clean - random_background).

    Args:
        classes: of lib.evaluation.measured. catalogue: of `found`.
    """
    keys = ["arm", "label"]
    clean = classes[classes["condition"] == "clean"].groupby(keys)["p_at_1"].mean()
    moved = classes[(classes["condition"] == "random_background") & (classes["sides"] == "query")]
    lost = (clean - moved.groupby(keys)["p_at_1"].mean()).rename("lost")
    happened = catalogue.groupby([*keys, "kind", "class_name"])["p_at_1"].mean().rename("found")
    table = happened.reset_index().merge(clean.rename("clean").reset_index(), on=keys)
    return table.merge(lost.reset_index(), on=keys)


def predicted(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation over classes of `found` with `lost` and with `clean`, per arm.

    `lost given clean`: of the ranks that are left when a straight line on the ranks of `clean` is
    taken off both, since an easy class may be easy everywhere. If the composite shift predicts the
    real one, `lost` correlates negatively.

    Args:
        table: of `by_class`.

    Returns:
        arm, predictor, value, low, high (95 %, over classes), n (classes).
    """
    out = []
    for arm, part in table.dropna().groupby("arm", sort=False):
        ranks = part[["found", "lost", "clean"]].rank()
        pairs = {
            "lost": (part["lost"], part["found"]),
            "clean": (part["clean"], part["found"]),
            "lost given clean": tuple(_rest(ranks[x], ranks["clean"]) for x in ("lost", "found")),
        }
        for name, (x, y) in pairs.items():
            r = statistics.correlation(x, y)
            out.append([arm, name, r.mean, r.low, r.high, r.n])
    return pd.DataFrame(out, columns=["arm", "predictor", "value", "low", "high", "n"])


def _rest(values: pd.Series, of: pd.Series) -> np.ndarray:
    """What a straight line on `of` leaves of `values`."""
    return (values - np.polyval(np.polyfit(of, values, 1), of)).to_numpy()


if __name__ == "__main__":
    sys.exit(stage.main(measure, "catalogue"))
