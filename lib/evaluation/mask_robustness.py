"""The same evaluation through other masks: does a conclusion hang on how well the masks fit?"""

import copy
from collections.abc import Iterator

import numpy as np
import pandas as pd

from lib.core import hardware, paths
from lib.core.errors import StudyError
from lib.core.files import key_of, read_json
from lib.data.store import Store, write_store
from lib.evaluation import embeddings, models
from lib.images.crops import Sampler
from lib.images.scenes import Scenes
from lib.masks import sources
from lib.masks.transforms import TRANSFORMS

CONDITIONS = ["clean", "random_background", "own_background"]


def names(study: str, variants: list[str]) -> list[str]:
    """The study's own masks, its variants, and all other sources that were made.

    A variant is a transform (`own+transform`) or a mask source (lib.masks.sources.get).

    Raises:
        StudyError: a variant that is neither.
    """
    own = sources.mask_source(study)
    found = named(own, variants)
    made = sorted(file.parent.name for file in paths.StudyPaths(study).masks.glob("*/masks.json"))
    return found + [name for name in made if name not in found and _fits(study, name)]


def named(own: str, variants: list[str]) -> list[str]:
    """The study's own masks and those that its variants stand for, each once.

    A variant that is the study's own source adds nothing and is left out.
    """
    return list(dict.fromkeys([own, *(_named(own, variant) for variant in variants)]))


def _named(own: str, variant: str) -> str:
    """The masks that a variant stands for."""
    if variant in TRANSFORMS:
        return f"{own}+{variant}"
    try:
        sources.get(variant)
    except StudyError as error:
        known = ", ".join([*TRANSFORMS, *sources.SOURCES])
        raise StudyError(f"unknown mask variant {variant!r}; known: {known}") from error
    return variant


def _fits(study: str, name: str) -> bool:
    """Whether masks on disk belong to the study's images and show an object in any of them."""
    where = paths.StudyPaths(study)
    facts = read_json(where.masks / name / "masks.json")
    if facts["images"] != Store.open(where.prepared / "images").fingerprint:
        return False
    return bool(pd.read_csv(where.masks / name / "areas.csv")["usable"].any())


def load(study: str, name: str) -> tuple[Store, np.ndarray]:
    """Masks of one of `names`, and which of them are usable (N,); made once where 02 did not."""
    where = paths.StudyPaths(study)
    if (where.masks / name / "masks.json").exists():
        store, areas = sources.load_masks(study, name)
        return store, areas["usable"].to_numpy()
    source, *steps = name.split("+")
    base = _base(study, source)
    key = key_of(masks=base.fingerprint, transform=name)
    folder = where.scratch / f"masks-{name}-{key}"
    if not (folder / "store.json").exists():
        write_store(folder, _plain(base.index), _changed(base, steps))
    made = Store.open(folder)
    areas = pd.Series([made.image(row).mean() / 255 for row in range(len(made))])
    return made, sources.usable(areas).to_numpy()


def _base(study: str, source: str) -> Store:
    """Masks of a source without transforms, in scratch where 02_masks did not make them."""
    where = paths.StudyPaths(study)
    if (where.masks / source / "masks.json").exists():
        return sources.load_masks(study, source)[0]
    images = Store.open(where.prepared / "images")
    folder = where.scratch / f"masks-{source}-{images.fingerprint[:16]}"
    if not (folder / "store.json").exists():
        made = sources.get(source)[0].make(source, study, images, hardware.workers())
        write_store(folder, _plain(images.index), made)
    return Store.open(folder)


def _plain(index: pd.DataFrame) -> pd.DataFrame:
    return index.drop(columns=["height", "width", "start"])


def _changed(store: Store, steps: list[str]) -> Iterator[np.ndarray]:
    """Only test masks: no other is looked at, and a filter takes its time."""
    for row, split in enumerate(store.index["split"]):
        yield sources.changed(store.image(row), steps if split == "test" else [])


def through(scenes: Scenes, store: Store, usable: np.ndarray) -> Scenes:
    """The same scenes with other masks; an image is composited if both masks of it are usable."""
    other = copy.copy(scenes)
    other.images = Sampler([scenes.store, store], scenes.images.device)
    other.usable = scenes.usable & usable
    other.fingerprint = "-".join(
        part.fingerprint[:16] for part in (scenes.store, store, scenes.backgrounds_store)
    )
    other.fingerprint += f"-{key_of(usable=other.usable.tolist())}"
    return other


def first_loss(study: str) -> list[models.Model]:
    """All arms of the study's first loss and seed: what the robustness is measured on."""
    trained = [model for model in models.models_of(study) if model.weights]
    first = trained[0]
    return [m for m in trained if (m.loss, m.seed) == (first.loss, first.seed)]


def sensitivity(study: str, variants: list[str], seed: int = 0) -> pd.DataFrame:
    """One row a class (as embeddings.by_class) of one draw through every kind of masks.

    Clean images have no mask in them and are embedded once. `masks` names the kind, `usable` is the
    share of the test images that are composited; the others keep their own background.
    """
    scenes, arms = Scenes(study, sources.mask_source(study), hardware.device()), first_loss(study)
    found = [through_masks(study, scenes, arms, name, seed) for name in names(study, variants)]
    return pd.concat(found, ignore_index=True)


def through_masks(
    study: str, scenes: Scenes, arms: list[models.Model], name: str, seed: int = 0
) -> pd.DataFrame:
    """The rows of `sensitivity` through one of `names`."""
    own = name == sources.mask_source(study)
    other, found = scenes if own else through(scenes, *load(study, name)), []
    usable = float(other.usable[scenes.store.rows("test")].mean())
    for model in arms:
        for condition in CONDITIONS:
            view = embeddings.View(study, model, scenes if condition == "clean" else other, seed)
            table = embeddings.by_class(view.table(condition, 0, "both"))
            found.append(table.assign(masks=name, usable=usable))
    return pd.concat(found, ignore_index=True)
