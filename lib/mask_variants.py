"""The same evaluation through other masks: does a conclusion hang on how well the masks fit?"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from lib import evaluate, masks, paths, train
from lib.errors import StudyError
from lib.files import key_of, read_json
from lib.mask_transforms import TRANSFORMS
from lib.scenes import Sampler, Scenes
from lib.store import Store, write_store

CONDITIONS = ["clean", "random_background", "own_background"]


def names(study: str, transforms: list[str]) -> list[str]:
    """The study's own masks, `own+transform` for each, and all other sources that were made.

    Raises:
        StudyError: a transform that is not in lib.mask_transforms.
    """
    unknown = sorted(set(transforms) - set(TRANSFORMS))
    if unknown:
        raise StudyError(f"unknown mask variant {unknown[0]!r}; known: {', '.join(TRANSFORMS)}")
    own = evaluate.mask_source(study)
    found = [own, *(f"{own}+{name}" for name in transforms)]
    made = sorted(file.parent.name for file in paths.StudyPaths(study).masks.glob("*/masks.json"))
    return found + [name for name in made if name not in found and _fits(study, name)]


def _fits(study: str, name: str) -> bool:
    """Whether masks on disk belong to the study's images and show an object in any of them."""
    where = paths.StudyPaths(study)
    facts = read_json(where.masks / name / "masks.json")
    if facts["images"] != Store.open(where.prepared / "images").fingerprint:
        return False
    return bool(pd.read_csv(where.masks / name / "areas.csv")["usable"].any())


def load(study: str, name: str) -> tuple[Store, np.ndarray]:
    """Masks of one of `names`, and which of them are usable (N,); a transform is made once."""
    source, _, transform = name.partition("+")
    if not transform or (paths.StudyPaths(study).masks / name / "masks.json").exists():
        store, areas = masks.load_masks(study, name)
        return store, areas["usable"].to_numpy()
    base, _ = masks.load_masks(study, source)
    key = key_of(masks=base.fingerprint, transform=transform)
    folder = paths.StudyPaths(study).scratch / f"masks-{transform}-{key}"
    if (folder / "store.json").exists():
        made = Store.open(folder)
    else:
        made = write_store(folder, _plain(base.index), _changed(base, TRANSFORMS[transform]))
    areas = np.array([made.image(row).mean() / 255 for row in range(len(made))])
    return made, (areas >= masks.EMPTY) & (areas <= masks.FULL)


def _plain(index: pd.DataFrame) -> pd.DataFrame:
    return index.drop(columns=["height", "width", "start"])


def _changed(store: Store, transform: Callable) -> Iterator[np.ndarray]:
    """Only test masks: no other is looked at, and a filter takes its time."""
    for row, split in enumerate(store.index["split"]):
        yield transform(store.image(row)) if split == "test" else store.image(row)


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


def first_loss(study: str) -> list[evaluate.Model]:
    """Both arms of the study's first loss and seed: what the sensitivity is measured on."""
    trained = [model for model in evaluate.models_of(study) if model.weights]
    first = trained[0]
    return [m for m in trained if (m.loss, m.seed) == (first.loss, first.seed)]


def sensitivity(study: str, transforms: list[str], seed: int = 0) -> pd.DataFrame:
    """Paired effects (as `lib.evaluate.effects`) of one draw through every kind of masks.

    Clean images have no mask in them and are embedded once. `usable` is the share of the test
    images that are composited at all; the others keep their own background.
    """
    scenes = Scenes(study, evaluate.mask_source(study), train.device())
    rows, found = scenes.store.rows("test"), []
    for name in names(study, transforms):
        other = through(scenes, *load(study, name)) if found else scenes
        queries = pd.concat(
            evaluate.View(study, model, scenes if condition == "clean" else other, seed).table(
                condition, 0, "both"
            )
            for model in first_loss(study)
            for condition in CONDITIONS
        )
        found.append(evaluate.effects(queries).assign(masks=name, usable=other.usable[rows].mean()))
    return pd.concat(found, ignore_index=True)
