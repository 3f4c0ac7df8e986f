"""Masks by rembg: the library's own sessions, several one-thread processes, chunk by chunk.

The network sees the original picture, as in the paper; only its mask is shrunk. (Masks from
pictures already shrunk to 144 pixels lose 0.05 IoU on the hand-labelled birds.)
"""

import multiprocessing
import os
import zipfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lib import paths
from lib.errors import StudyError
from lib.files import atomic, key_of
from lib.prepare import source_files
from lib.progress import track
from lib.store import Store, open_image
from lib.weights import MASK_MODELS, mask_model, rembg_home

CHUNK = 64


class _OpenVino:
    """Runs a rembg model with OpenVINO: same numbers to 1e-5, 1.4x as fast as onnxruntime."""

    def __init__(self, model: Path, names: Iterable[Any]):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        settings["ENABLE_CPU_PINNING"] = False  # else all processes sit on the first core
        self._names = list(names)
        self._run = openvino.Core().compile_model(str(model), "CPU", settings)

    def get_inputs(self) -> list[Any]:
        return self._names

    def run(self, _outputs: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self._run(feed)[0]]


def known(name: str) -> bool:
    """Is this the name of a rembg session?"""
    if name in MASK_MODELS:
        return True
    os.environ["NUMBA_DISABLE_JIT"] = "1"  # else the import compiles for a minute
    from rembg.sessions import sessions_names

    return name in sessions_names and not name.endswith("custom")


@lru_cache(maxsize=2)
def session(name: str) -> Any:
    """rembg's own session for a model (its pre- and post-processing), one thread.

    Models that the study knows are checked before use; of others rembg fetches and checks the file.
    """
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    path = mask_model(name) if name in MASK_MODELS else None
    if path is None:
        os.environ["OMP_NUM_THREADS"] = "1"  # rembg reads it for its session's threads
    rembg_home()
    from rembg import new_session

    try:
        made = new_session(name, providers=["CPUExecutionProvider"])
    except Exception as error:  # rembg raises whatever its download or onnxruntime raises
        raise StudyError(
            f"rembg could not load its model {name!r} ({error or type(error).__name__}). Without "
            f"network only these work: {', '.join(MASK_MODELS)}."
        ) from error
    if path:
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


def _masks_in(file: Path) -> Iterator[np.ndarray]:
    try:
        with np.load(file) as chunk:
            yield from (chunk[key] for key in chunk.files)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise StudyError(f"{file} is damaged ({error}). Delete it and run again.") from error


def _fetched(name: str) -> int:
    """Have the model on disk; its size in bytes (0 for models that rembg itself looks after)."""
    if name in MASK_MODELS:
        return mask_model(name).stat().st_size
    session(name)
    return 0


def rembg_masks(name: str, study: str, store: Store, workers: int) -> Iterator[np.ndarray]:
    """Masks of every image by rembg; killed and started again, it goes on where it stopped."""
    files = source_files(study)
    size = _fetched(name)  # before the workers start, so that only one process fetches
    key = key_of(model=name, bytes=size, store=store.fingerprint, chunk=CHUNK)
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
            yield from _masks_in(path)
