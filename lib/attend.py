"""05_attention: attribution maps of every model on chosen test images, scored against the masks."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib import attention, attribution, evaluate, paths, stats
from lib.files import atomic, key_of
from lib.progress import say
from lib.scenes import Scenes

VERSION = 1  # raise when the maps change: cached maps are then made again
MODEL = evaluate.MODEL


def chosen_rows(scenes: Scenes, count: int, seed: int) -> np.ndarray:
    """Test rows to look at: usable masks only, spread over the classes, decided by the seed."""
    rows = scenes.store.rows("test")
    rows = rows[scenes.usable[rows]]
    labels = torch.as_tensor(scenes.store.labels[rows])
    return rows[attention.pick_images(labels, count, seed).numpy()]


def pictures(scenes: Scenes, rows: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Images (B, 3, s, s) on 0 to 255 and masks (B, s, s) in [0, 1] at the test crop."""
    images, masks = scenes.split(scenes.images.centre(rows, size), rows)
    return images, masks[:, 0].cpu()


def maps_of(
    study: str,
    model: evaluate.Model,
    scenes: Scenes,
    rows: np.ndarray,
    method: str,
    seed: int,
    **settings: float,
) -> Tensor:
    """Raw maps (len(rows), s, s) of a model, computed once and kept in scratch.

    Args:
        method: key of lib.attribution.METHODS; target is the distance to a black image (paper).
        settings: fields of lib.attribution.Settings.
    """
    key = key_of(
        version=VERSION, model=model.identity, data=scenes.fingerprint, rows=rows.tolist(),
        method=method, seed=seed, size=model.image_size, **settings,
    )  # fmt: skip
    file = paths.StudyPaths(study).scratch / "maps" / f"{key}.safetensors"
    if file.exists():
        return load_file(file)["maps"]
    network = model.load()
    images, _ = pictures(scenes, rows, model.image_size)
    black = network.normalise(torch.zeros_like(images[:1]))
    made = attribution.attribute(
        method, network, network.normalise(images), black=black,
        seeds=torch.as_tensor(rows) + 1_000_003 * seed, **settings,
    )  # fmt: skip
    made = made.float().cpu().contiguous()
    with atomic(file) as temporary:
        save_file({"maps": made}, temporary)
    return made


def score_models(
    study: str, methods: list[str], rows: np.ndarray, scenes: Scenes, seed: int, **settings: float
) -> Iterator[pd.DataFrame]:
    """One row an image x model x method x measure."""
    models = evaluate.models_of(study)
    for number, model in enumerate(models, start=1):
        say(f"{study}: attention of model {number} of {len(models)} ({model.loss} {model.arm})")
        masks = pictures(scenes, rows, model.image_size)[1]
        for method in methods:
            maps = maps_of(study, model, scenes, rows, method, seed, **settings)
            table = attention.score_table(maps, masks)
            table["row"] = rows[table["row"].to_numpy()]
            yield table.assign(
                label=scenes.store.labels[table["row"]], loss=model.loss, arm=model.arm,
                seed=model.seed, method=method,
            )  # fmt: skip


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, std over images and 95 % interval over classes per model x method x measure."""
    out = []
    keys = [*MODEL, "method", "metric"]
    for names, part in rows[rows["defined"]].groupby(keys, sort=False):
        found = stats.mean_by_class_bootstrap(part["value"].to_numpy(), part["label"].to_numpy())
        out.append([*names, found.mean, found.low, found.high, part["value"].std(), found.n])
    return pd.DataFrame(out, columns=[*keys, "value", "low", "high", "std_over_images", "n"])


def arm_effects(rows: pd.DataFrame) -> pd.DataFrame:
    """Paired bgaugment - base per loss x seed x method x measure, with interval and p."""
    out = []
    trained = rows[rows["defined"] & (rows["arm"] != "untrained")]
    for names, part in trained.groupby(["loss", "seed", "method", "metric"], sort=False):
        wide = part.pivot(index=["row", "label"], columns="arm", values="value").dropna()
        found = stats.paired_difference(
            wide["bgaugment"].to_numpy(), wide["base"].to_numpy(),
            wide.index.get_level_values("label").to_numpy(),
        )  # fmt: skip
        out.append([*names, found.diff, found.low, found.high, found.p, found.n])
    columns = ["loss", "seed", "method", "metric", "value", "low", "high", "p", "n"]
    return pd.DataFrame(out, columns=columns)
