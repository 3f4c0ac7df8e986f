"""Measure remedies at inference, beside the arms: reports/<study>/measured/remedies/.

    python -m lib.evaluation.remedies_measure --study demo

Masks of shifted images are made from the shifted images themselves, at the size of the model's
crop: a search engine has nothing else. They cost a tenth of a second or more each, so a study may
look at some of its test classes only (`classes`); these are then queries and gallery for all rows,
those without a remedy among them.

    study.json               what was asked, test classes, share of usable masks
    classes/<model>.parquet  a row a remedy, condition, sides, draw and class
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.core import paths, stage
from lib.core.cache import kept
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import key_of, read_json, write_json
from lib.core.hardware import device, fixed_threads
from lib.core.progress import say
from lib.evaluation import embeddings
from lib.evaluation import remedies as at_inference
from lib.evaluation.embeddings import View
from lib.evaluation.measured import name_of, write_compact
from lib.evaluation.models import Model, described
from lib.evaluation.remedies import REMEDIES
from lib.images.conditions import Batch, choose, get
from lib.images.scenes import Scenes
from lib.masks import rembg_models, sources
from lib.models.embedding import BATCH
from lib.retrieval import metrics
from lib.training import arms as arm_table

NONE = "none"
ON_QUERY = "+query"  # after a remedy's name: an untouched, clean gallery is searched
CODE = ("masks", "retrieval", "images", "models", "evaluation/embeddings", "evaluation/remedies",
        "evaluation/remedies_measure")  # fmt: skip


class Treated:
    """Some test classes of a study, as models see them under conditions and remedies."""

    def __init__(self, study: str, scenes: Scenes, classes: int, source: str):
        self.study, self.scenes, self.source = study, scenes, source
        self.all_rows = scenes.store.rows("test")
        labels = scenes.store.labels[self.all_rows]
        names = np.unique(labels)
        if classes:  # spread over the range, since neighbours in it are often alike
            names = names[np.linspace(0, len(names) - 1, min(classes, len(names))).astype(int)]
        self.places = np.flatnonzero(np.isin(labels, names))
        self.rows, self.labels = self.all_rows[self.places], torch.as_tensor(labels[self.places])
        self._choice: dict[int, Any] = {}

    def shown(self, condition: str, draw: int, size: int) -> np.ndarray:
        """The images under a condition, as in 04_shift: uint8 (N, size, size, 3)."""
        if draw not in self._choice:
            self._choice[draw] = choose(self.scenes, self.all_rows, "test", 0, draw)
        parts = []
        step = BATCH[device().type]
        for start in range(0, len(self.rows), step):
            rows = self.rows[start : start + step]
            batch = Batch(self.scenes, rows, size, "test", self._choice[draw].at(rows))
            made = get(condition).make(batch).permute(0, 2, 3, 1)
            parts.append(made.round().byte().cpu().numpy())
        return np.concatenate(parts)

    def masks(self, condition: str, draw: int, size: int) -> tuple[np.ndarray, float]:
        """Masks (N, size, size) in [0, 1] of what is shown, and the share that shows an object."""

        def make() -> dict[str, Tensor]:
            title = f"{self.study}: masks of images as shown ({condition})"
            found = at_inference.predicted(self.shown(condition, draw, size), self.source, title)
            return {"masks": torch.from_numpy(np.round(255 * found).astype(np.uint8))}

        key = key_of(
            code=fingerprint("data", "masks", "images"), data=self.scenes.fingerprint,
            rows=self.rows.tolist(), condition=condition, draw=draw, size=size, source=self.source,
        )  # fmt: skip
        found = kept(self.study, "shown_masks", key, make)["masks"].numpy()
        return found / np.float32(255), float((found < 255).any((1, 2)).mean())

    @torch.inference_mode()
    @fixed_threads()
    def vectors(self, model: Model, remedy: str, condition: str, draw: int) -> Tensor:
        """Embeddings (N, D) of a model; those without a remedy are those of 04_shift."""
        if remedy == NONE:
            return View(self.study, model, self.scenes).embeddings(condition, draw)[self.places]
        size, way = model.image_size, REMEDIES[remedy]
        embedder, forward = embeddings.loaded(model)
        images, masks = self.shown(condition, draw, size), self.masks(condition, draw, size)[0]
        if way.embed:
            return at_inference.late_masked(embedder, way, images, masks)
        treated, parts, step = way.show(images, masks), [], BATCH[device().type]
        for start in range(0, len(treated), step):
            part = torch.from_numpy(treated[start : start + step]).permute(0, 3, 1, 2)
            parts.append(forward(embedder.normalise(part.float().to(device()))))
        return torch.cat(parts)

    def tables(self, model: Model, names: list[str], planned: list) -> pd.DataFrame:
        """Mean metrics of every class: a row a remedy, condition, sides, draw and class."""
        found = []
        for remedy in names:
            get_vectors = partial(self.vectors, model, remedy)
            gallery = get_vectors("clean", 0)
            plain = self.vectors(model, NONE, "clean", 0)
            for condition, draw in planned:
                moved = gallery if condition == "clean" else get_vectors(condition, draw)
                row = partial(self._row, model, condition=condition, draw=draw)
                found.append(row(metrics.evaluate(moved, self.labels), remedy, sides="both"))
                if condition != "clean":
                    found.append(row(self._search(moved, gallery), remedy, sides="query"))
                if remedy != NONE:
                    found.append(row(self._search(moved, plain), remedy + ON_QUERY, sides="query"))
        return pd.concat(found, ignore_index=True)

    def _search(self, queries: Tensor, gallery: Tensor) -> dict[str, Tensor]:
        own = torch.arange(len(queries))
        return metrics.evaluate(queries, self.labels, gallery, self.labels, exclude=own)

    def _row(self, model: Model, values: dict, remedy: str, **what: Any) -> pd.DataFrame:
        rows = pd.DataFrame({"row": self.rows, "label": self.labels.numpy()}).assign(
            loss=model.loss, arm=model.arm, seed=model.seed, **what,
            **{name: values[name].numpy() for name in embeddings.METRICS},
        )  # fmt: skip
        return embeddings.by_class(rows).assign(remedy=remedy)


def measure(
    study: str, conditions: list[str], remedies: list[str], arms: list[str], classes: int,
    mask_source: str,
) -> None:  # fmt: skip
    """Every model without a remedy; those of `arms` and the untrained trunk under each remedy.

    Args:
        conditions: keys of lib.images.conditions, measured with draw 0; `clean` among them.
        remedies: keys of lib.evaluation.remedies. arms: names of trained arms.
        classes: how many test classes; 0 for all. mask_source: a network of rembg, as u2netp@256.
    """
    planned = check(conditions, remedies, arms, classes, mask_source)
    scenes, models = Scenes(study, sources.mask_source(study), device()), described(study)
    work = Treated(study, scenes, classes, mask_source)
    folder = paths.StudyPaths(study).measured / "remedies"
    with_remedy = {arm_table.UNTRAINED, *arms}
    for number, (model, _) in enumerate(models, start=1):
        name = name_of(model.loss, model.arm, model.seed)
        say(f"{study}: remedies of model {number} of {len(models)} ({name})")
        names = [NONE, *(remedies if model.arm in with_remedy else [])]
        made = {
            "model": model.identity, "data": scenes.fingerprint, "conditions": conditions,
            "code": fingerprint(*CODE), "remedies": names, "classes": classes,
            "masks": mask_source, "precision": model.precision,
        }  # fmt: skip
        file = folder / "models" / f"{name}.json"
        if file.exists() and read_json(file) == made:
            continue
        file.unlink(missing_ok=True)
        table = work.tables(model, names, planned)
        write_compact(folder / "classes" / f"{name}.parquet", table, exact=embeddings.METRICS)
        write_json(file, made)
    _sweep(folder, {name_of(m.loss, m.arm, m.seed) for m, _ in models})
    size, file = models[0][0].image_size, folder / "study.json"
    facts = {
        "classes": len(torch.unique(work.labels)), "images": len(work.rows), "masks": mask_source,
        "conditions": conditions, "remedies": remedies, "data": scenes.fingerprint,
        "code": fingerprint(*CODE),
    }  # fmt: skip
    if not file.exists() or facts.items() > read_json(file).items():
        usable = {c: work.masks(c, d, size)[1] for c, d in planned} if remedies else {}
        write_json(file, facts | {"usable": usable})


def check(
    conditions: list[str], remedies: list[str], arms: list[str], classes: int, mask_source: str
) -> list[tuple[str, int]]:
    """The (condition, draw) that are measured; needs no images.

    An arm that a study does not train is simply not there.

    Raises:
        StudyError: a condition, remedy, arm or network that nobody knows; a negative number.
    """
    for name in remedies:
        if name not in REMEDIES:
            raise StudyError(f"unknown remedy {name!r}; known: {', '.join(REMEDIES)}")
    for name in arms:
        arm_table.get(name)
    if classes < 0 or classes == 1:
        raise StudyError(f"classes is {classes} (remedies); wanted: 2 or more, or 0 for all.")
    if not rembg_models.known(mask_source):
        raise StudyError(
            f"mask_source is {mask_source!r} (remedies): masks of shifted images are made by a "
            "network of rembg, such as u2netp or u2netp@256."
        )
    return embeddings.plan(conditions, 1, 1)


def _sweep(folder: Path, names: set[str]) -> None:
    """Remove the files of models that the study no longer has."""
    for kind in ("models", "classes"):
        for file in (folder / kind).glob("*.*"):
            if file.stem not in names:
                file.unlink()


if __name__ == "__main__":
    sys.exit(stage.main(measure, "remedies"))
