"""Soft object masks for every image of a study, in the store's geometry, from one of many sources.

A source is an entry of SOURCES or the name of any rembg session, which may have a smaller input
(`u2netp@224`); `u2netp+eroded` is a source with a transform of lib.masks.transforms. Adding one is
adding an entry (docs/add-a-mask-source.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from lib.core import paths
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import digest, key_of, read_json, sealed, space_left, write_json, write_table
from lib.core.hardware import workers as cores
from lib.data import datasets
from lib.data.decode import fault
from lib.data.mirror import bring
from lib.data.prepare import about, original_files
from lib.data.store import TEXT, Store, sizes_of, write_store
from lib.masks import rembg_models
from lib.masks.transforms import TRANSFORMS

# The rule for masks that say nothing: an image whose mask covers less or more of it than this is
# never composited. It keeps its own background in every condition and in training.
EMPTY, FULL = 0.01, 0.95


@dataclass(frozen=True)
class Source:
    """A way to get masks: `make(name, study, store, workers)` yields one uint8 (H, W) an image.

    `inputs(study)` is what besides name, images and code decides the masks; where it is the same,
    finished masks are not made again. None: it is not known, and masks are always made.
    """

    label: str
    make: Callable[[str, str, Store, int], Iterator[np.ndarray]]
    inputs: Callable[[str], Any] | None = None


def true_files(study: str) -> list[Path]:
    """The file of the exact mask of every image (the files may be missing)."""
    facts = about(study)
    entry = datasets.get(facts["dataset"])
    folder, _ = datasets.locate(facts["dataset"], facts["options"])
    if not entry.truth:
        return [_beside(file, folder) for file in original_files(study)]
    own = paths.RAW / f"{facts['dataset']}-truth" / "segmentations"
    places = [folder / "segmentations", folder / "CUB_200_2011" / "segmentations", own]
    home = next((place for place in places if place.is_dir()), None)
    home = home or bring(entry.truth, own.parent) / own.name
    return [home / file.parent.name / f"{file.stem}.png" for file in original_files(study)]


def _beside(file: Path, folder: Path) -> Path:
    """The same path under masks/ instead of images/, or under a folder masks/ of its own."""
    parts = list(file.relative_to(folder).parts)
    if "images" in parts[:-1]:
        parts[parts.index("images")] = "masks"
        return folder.joinpath(*parts)
    return folder / "masks" / file.relative_to(folder)


def read_true(file: Path, size: tuple[int, int]) -> np.ndarray:
    """An exact mask from disk, uint8, brought to `size` (width, height); its shape must fit."""
    if not file.exists():
        raise StudyError(f"{file} does not exist: this data set brings no true masks there.")
    try:
        with Image.open(file) as image:
            mask = image.convert("L")
    except Exception as error:  # a decoder raises whatever it likes
        raise StudyError(f"{file} cannot be decoded ({fault(error, file)}). Replace it.") from error
    off = abs(mask.width * size[1] / mask.height - size[0])
    if off > max(2, 0.02 * size[0]):  # a copy of another size may be rounded otherwise
        raise StudyError(
            f"{file} is {mask.width}x{mask.height} pixels, its image is stored as "
            f"{size[0]}x{size[1]}: a mask of another shape is not this image's."
        )
    return np.asarray(mask.resize(size, Image.Resampling.BILINEAR))


def true_masks(_name: str, study: str, store: Store, _workers: int) -> Iterator[np.ndarray]:
    """Exact masks: masks/ beside images/, same names; for CUB its published segmentations."""
    sizes = zip(store.index["width"], store.index["height"], strict=True)
    for file, size in zip(true_files(study), sizes, strict=True):
        yield read_true(file, size)


def _boxes(study: str) -> pd.DataFrame:
    """Bounding boxes of a study's data set, by path of the image."""
    facts = about(study)
    entry = datasets.get(facts["dataset"])
    if not entry.boxes:
        raise StudyError(f"{entry.title} brings no bounding boxes. Choose another mask source.")
    return entry.boxes(datasets.locate(facts["dataset"], facts["options"])[0]).set_index("path")


def box_masks(_name: str, study: str, store: Store, _workers: int) -> Iterator[np.ndarray]:
    """The object's bounding box, filled. Boxes are in pixels of the official images: a copy of
    another size is refused, for its scale is not known.
    """
    boxes = _boxes(study)
    files = pd.read_csv(paths.StudyPaths(study).prepared / "files.csv").set_index("path")
    for row in store.index.itertuples():
        if row.path not in boxes.index:
            raise StudyError(f"{row.path} has no bounding box.")
        box, whole = boxes.loc[row.path], files.loc[row.path]
        if box["right"] > whole["width"] + 1 or box["bottom"] > whole["height"] + 1:
            raise StudyError(
                f"the box of {row.path} ends at {box['right']:.0f}, {box['bottom']:.0f}, its "
                f"image at {whole['width']}, {whole['height']}: the boxes are in pixels of the "
                "official images, and this copy has another size. Choose another mask source."
            )
        across, down = row.width / whole["width"], row.height / whole["height"]
        mask = np.zeros((row.height, row.width), np.uint8)
        top, bottom = round(box["top"] * down), round(box["bottom"] * down)
        mask[top:bottom, round(box["left"] * across) : round(box["right"] * across)] = 255
        yield mask


def _constant(value: int) -> Callable[..., Iterator[np.ndarray]]:
    def make(_name: str, _study: str, store: Store, _workers: int) -> Iterator[np.ndarray]:
        for row in store.index.itertuples():
            yield np.full((row.height, row.width), value, np.uint8)

    return make


def _rembg(label: str) -> Source:
    return Source(label, rembg_models.rembg_masks, lambda study: "a checked model")


SOURCES: dict[str, Source] = {
    "u2net": _rembg("U2-Net by rembg (the paper)"),
    "u2netp": _rembg("small U2-Net by rembg"),
    "true": Source(
        "exact masks that the data set brings",
        true_masks,
        lambda study: sizes_of(true_files(study)),
    ),
    "box": Source("bounding boxes", box_masks, lambda study: _boxes(study).to_csv()),
    "full": Source(
        "everything is object: no background is ever replaced", _constant(255), lambda study: 255
    ),
    "none": Source(
        "nothing is object: by the rule for empty masks the same as full",
        _constant(0),
        lambda study: 0,
    ),
}


def usable(areas: pd.Series) -> pd.Series:
    """Which masks show an object, by their areas (means, 0 to 1): the rule above."""
    return areas.between(EMPTY, FULL)


def check(name: str, dataset: str) -> None:
    """Refuse a source that nobody knows, or that a data set does not have; needs no images."""
    source, _ = get(name)
    if source is SOURCES["box"] and not datasets.get(dataset).boxes:
        raise StudyError(
            f"{datasets.get(dataset).title} brings no bounding boxes. Choose another mask source."
        )


def changed(mask: np.ndarray, steps: list[str]) -> np.ndarray:
    """A mask after the transforms of `steps`, one after the other."""
    for step in steps:
        mask = TRANSFORMS[step](mask)
    return mask


def get(name: str) -> tuple[Source, list[str]]:
    """The source of `name` (base+transform+...) and its transforms; unknown names raise."""
    base, *steps = name.split("+")
    unknown = [step for step in steps if step not in TRANSFORMS]
    if unknown:
        raise StudyError(f"unknown transform {unknown[0]!r}; known: {', '.join(TRANSFORMS)}")
    if base in SOURCES:
        return SOURCES[base], steps
    if not rembg_models.known(base):
        raise StudyError(
            f"unknown mask source {base!r}; known: {', '.join(SOURCES)} and rembg's session names"
        )
    return _rembg(f"{base} by rembg"), steps


def make_masks(study: str, source: str, workers: int = 0, afresh: bool = False) -> Store:
    """Write the study's masks (`source`: see `get`) and say which of them are usable.

    Finished masks are returned at once if the same request made them from the same images, unless
    `afresh`.

    Returns:
        A one-channel store; areas.csv beside it has `area` (mean of the mask, 0 to 1), `usable`.
    """
    chosen, steps = get(source)
    where = paths.StudyPaths(study)
    images, folder = Store.open(where.prepared / "images"), where.masks / source
    request = ""
    if chosen.inputs:
        request = key_of(code=fingerprint("data", "masks"), inputs=chosen.inputs(study))
    made = None if afresh else _finished(study, source, request)
    if made is None:
        made = _make(study, source, images, workers or cores())
        facts = {"source": source, "images": images.fingerprint, "masks": made.fingerprint}
        facts |= {"areas": digest(folder / "areas.csv"), "request": request}
        write_json(folder / "masks.json", facts)
    write_json(where.masks / "source.json", {"source": source})
    return made


def _finished(study: str, source: str, request: str) -> Store | None:
    """The masks on disk, if they are whole, of the images on disk, and made by this request."""
    try:
        made, _ = load_masks(study, source)
        facts = read_json(paths.StudyPaths(study).masks / source / "masks.json")
    except StudyError:
        return None
    return made if request and facts.get("request") == request else None


def _make(study: str, source: str, images: Store, workers: int) -> Store:
    """Write the store of masks and areas.csv; refuse a source that finds no object at all."""
    (chosen, steps), folder = get(source), paths.StudyPaths(study).masks / source
    space_left(folder / "pixels.u8", images.pixels.nbytes // images.channels)
    areas: list[float] = []

    def measured() -> Iterator[np.ndarray]:
        for row, mask in enumerate(chosen.make(source.split("+")[0], study, images, workers)):
            expected = tuple(images.index.loc[row, ["height", "width"]])
            if mask.shape != expected:
                raise StudyError(f"mask {row} is {mask.shape}, its image {expected}.")
            mask = changed(mask, steps)
            areas.append(float(mask.mean() / 255))
            yield mask

    index = images.index[["path", "label", "class_name", "split"]]
    made = write_store(folder, index, measured())
    table = index.assign(area=areas)
    table["usable"] = usable(table["area"])
    if not table["usable"].any() and source not in ("full", "none"):
        raise StudyError(
            f"not one of the {len(table)} masks of {source} covers between {EMPTY:.0%} and "
            f"{FULL:.0%} of its image: there is no object to take off its background. Look at "
            f"the images of {study}, or choose another mask source."
        )
    write_table(folder / "areas.csv", table)
    return made


def load_masks(study: str, source: str) -> tuple[Store, pd.DataFrame]:
    """The study's masks and the table of areas; refused if made for other images."""
    where = paths.StudyPaths(study)
    folder = where.masks / source
    if not (folder / "masks.json").exists():
        raise StudyError(f"{folder} holds no masks. Run 02_masks for study {study} first.")
    facts, made = read_json(folder / "masks.json"), Store.open(folder)
    if facts.get("images") != Store.open(where.prepared / "images").fingerprint:
        raise StudyError(f"{folder} was made for other images. Run 02_masks again.")
    if facts.get("masks") != made.fingerprint:
        raise StudyError(f"{folder} was written only in part. Run 02_masks again.")
    sealed([folder / "areas.csv"], facts.get("areas", ""), "Run 02_masks again.")
    return made, pd.read_csv(folder / "areas.csv", dtype=TEXT, keep_default_na=False)


def mask_source(study: str) -> str:
    """The mask source that 02_masks made last for the study."""
    file = paths.StudyPaths(study).masks / "source.json"
    if not file.exists():
        raise StudyError(f"{file} does not exist. Run 02_masks for study {study} first.")
    return read_json(file)["source"]
