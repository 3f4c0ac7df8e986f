"""Soft object masks for every image of a study, made by rembg, in the store's geometry.

The network sees the original picture, as in the paper; only its mask is shrunk. (Masks from
pictures already shrunk to 144 pixels lose 0.05 IoU on the hand-labelled birds.)
"""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from lib import paths
from lib.errors import StudyError
from lib.files import atomic, key_of, read_json, write_json, write_table
from lib.prepare import source_files
from lib.progress import track
from lib.store import Store, open_image, write_store
from lib.weights import mask_model

EMPTY, FULL = 0.01, 0.95  # a mask with less or more area than this is not used
CHUNK = 64


class _OpenVino:
    """Runs a rembg model with OpenVINO: same numbers to 1e-5, 1.4x as fast as onnxruntime."""

    def __init__(self, model: Path, names: Iterable[Any]):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self._names = list(names)
        self._run = openvino.Core().compile_model(str(model), "CPU", settings)

    def get_inputs(self) -> list[Any]:
        return self._names

    def run(self, _outputs: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self._run(feed)[0]]


@lru_cache(maxsize=1)
def session(name: str) -> Any:
    """rembg's own session for a model (its pre- and post-processing), one thread."""
    os.environ["NUMBA_DISABLE_JIT"] = "1"  # else the import compiles for a minute
    path = mask_model(name)
    from rembg import new_session

    made = new_session(name, providers=["CPUExecutionProvider"])
    made.inner_session = _OpenVino(path, made.inner_session.get_inputs())
    return made


def predict(name: str, image: Image.Image) -> Image.Image:
    """The soft mask of one picture, as `rembg.remove(only_mask=True)` gives it."""
    return session(name).predict(image)[0]


def _chunk(job: tuple[str, list[Path], list[tuple[int, int]], Path]) -> Path:
    """Predict the masks of some pictures and keep them; a chunk on disk is not made again."""
    name, files, sizes, target = job
    if not target.exists():
        masks = [
            np.asarray(predict(name, open_image(file)).resize(size, Image.Resampling.BILINEAR))
            for file, size in zip(files, sizes, strict=True)
        ]
        with atomic(target) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, *masks)
    return target


def rembg_masks(name: str, study: str, store: Store, workers: int) -> Iterator[np.ndarray]:
    """Masks of every image by rembg; killed and started again, it goes on where it stopped."""
    files = source_files(study)
    model = mask_model(name)  # before the workers start, so that only one fetches it
    key = key_of(model=name, bytes=model.stat().st_size, store=store.fingerprint, chunk=CHUNK)
    folder = paths.StudyPaths(study).scratch / f"masks-{key}"
    sizes = list(zip(store.index["width"], store.index["height"], strict=True))
    jobs = [
        (name, files[i : i + CHUNK], sizes[i : i + CHUNK], folder / f"{i:07d}.npz")
        for i in range(0, len(files), CHUNK)
    ]
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    with context.Pool(workers) as pool:
        done = pool.imap(_chunk, jobs)
        for path in track(done, f"{study}: {name} masks (chunks of {CHUNK})", len(jobs)):
            with np.load(path) as chunk:
                yield from (chunk[key] for key in chunk.files)


def true_file(file: Path) -> Path:
    """The exact mask of a picture: the same name under masks/ instead of images/."""
    at = len(file.parts) - 1 - file.parts[::-1].index("images") if "images" in file.parts else 0
    path = Path(*file.parts[:at], "masks", *file.parts[at + 1 :])
    if not path.exists():
        raise StudyError(f"{path} does not exist: this data set brings no true masks.")
    return path


def true_masks(_name: str, study: str, store: Store, _workers: int) -> Iterator[np.ndarray]:
    """The exact masks that a data set brings along: masks/ beside images/, same names."""
    for file, width, height in zip(
        source_files(study), store.index["width"], store.index["height"], strict=True
    ):
        with Image.open(true_file(file)) as image:
            mask = image.convert("L")
        yield np.asarray(mask.resize((width, height), Image.Resampling.BILINEAR))


SOURCES = {"u2net": rembg_masks, "u2netp": rembg_masks, "true": true_masks}


def make_masks(study: str, source: str, workers: int = 0) -> Store:
    """Write the study's masks (`source`: key of SOURCES) and say which of them are usable.

    Returns:
        A one-channel store; its index has `area` (mean of the mask, 0 to 1) and `usable`.
    """
    if source not in SOURCES:
        raise StudyError(f"unknown mask source {source!r}; known: {', '.join(SOURCES)}")
    where = paths.StudyPaths(study)
    store = Store.open(where.prepared / "images")
    workers = workers or os.cpu_count() or 1
    areas: list[float] = []

    def measured() -> Iterator[np.ndarray]:
        for row, mask in enumerate(SOURCES[source](source, study, store, workers)):
            expected = tuple(store.index.loc[row, ["height", "width"]])
            if mask.shape != expected:
                raise StudyError(f"mask {row} is {mask.shape}, its image {expected}.")
            areas.append(float(mask.mean() / 255))
            yield mask

    index = store.index[["path", "label", "class_name", "split"]]
    made = write_store(where.masks / source, index, measured())
    table = index.assign(area=areas)
    table["usable"] = table["area"].between(EMPTY, FULL)
    write_table(where.masks / source / "areas.csv", table)
    facts = {"source": source, "images": store.fingerprint, "masks": made.fingerprint}
    write_json(where.masks / source / "masks.json", facts)
    write_json(where.masks / "source.json", {"source": source})
    return made


def load_masks(study: str, source: str) -> tuple[Store, pd.DataFrame]:
    """The study's masks and the table of areas; refused if made for other images."""
    where = paths.StudyPaths(study)
    folder = where.masks / source
    if not (folder / "masks.json").exists():
        raise StudyError(f"{folder} holds no masks. Run 02_masks for study {study} first.")
    if (
        read_json(folder / "masks.json")["images"]
        != Store.open(where.prepared / "images").fingerprint
    ):
        raise StudyError(f"{folder} was made for other images. Run 02_masks again.")
    return Store.open(folder), pd.read_csv(folder / "areas.csv")
