"""Three disjoint pools of background photographs: for training, validation and the test."""

from pathlib import Path

import numpy as np
import pandas as pd

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import key_of
from lib.data import authors_repository
from lib.data.drawn.dataset import render_backgrounds
from lib.data.readers import SPLITS as POOLS
from lib.data.readers import pictures
from lib.data.store import Store, decode_all, write_store


def pools(source: str, count: int, seed: int, side: int) -> dict[str, list[Path]]:
    """Files of each pool; no photograph is in two pools.

    Args:
        source: `unsplash`: the paper's 200 photographs (see `paper`). `rendered`: drawn by
            lib.data.drawn.objects. Anything else: a folder, either with train/, validation/ and test/, or of
            pictures that the seed deals out to the three pools in equal parts.
        count: pictures a pool, for `rendered`.
        side: their short side in pixels, for `rendered`.
    """
    if source == "rendered":
        return {pool: _rendered(pool, count, seed, side) for pool in POOLS}
    if source == "unsplash":
        return paper()
    return own(paths.ROOT / Path(source).expanduser(), seed)


def paper() -> dict[str, list[Path]]:
    """The paper's photographs. It trains and validates on one half and tests on the other; here
    every fifth of the first half is kept for validation only.
    """
    try:
        folders, _ = authors_repository.backgrounds()
    except StudyError as refused:
        raise StudyError(
            f"the paper's background photographs could not be had: {refused} They are in the "
            "repository LSX-UniWue/background-bias-in-dml, data/unsplash_backgrounds: copy its val "
            f"folder to {paths.RAW}/backgrounds/train and its test folder to {paths.RAW}/"
            "backgrounds/test, or set DATA_MIRROR, or use backgrounds: rendered."
        ) from refused
    half = pictures(folders["train"])
    kept = half[4::5]
    train = [file for file in half if file not in kept]
    return {"train": train, "validation": kept, "test": pictures(folders["test"])}


def own(folder: Path, seed: int) -> dict[str, list[Path]]:
    """Photographs of one's own, in three folders or dealt out by the seed."""
    found = {pool: pictures(folder / pool) for pool in POOLS}
    if not any(found.values()):
        loose = pictures(folder)
        order = np.random.default_rng(seed).permutation(len(loose))
        found = {pool: [loose[i] for i in sorted(order[k::3])] for k, pool in enumerate(POOLS)}
    empty = [pool for pool, files in found.items() if not files]
    if empty:
        raise StudyError(
            f"no background photographs in {folder} for {', '.join(empty)}. Put at least three "
            "pictures there, or some into each of train/, validation/ and test/."
        )
    return found


def _rendered(pool: str, count: int, seed: int, side: int) -> list[Path]:

    number = seed * len(POOLS) + POOLS.index(pool)
    folder = paths.RAW / f"backgrounds-{key_of(seed=number, count=count, side=side)}"
    if not folder.exists():
        render_backgrounds(folder, seed=number, count=count, side=side)
    return pictures(folder)


def prepare_backgrounds(study: str, source: str, count: int, seed: int, side: int) -> Store:
    """Decode the three pools of backgrounds into one store; `split` names the pool."""
    found = pools(source, count, seed, side)
    rows = [(file.name, pool) for pool, files in found.items() for file in files]
    index = pd.DataFrame(rows, columns=["path", "split"]).assign(label=0)
    files = [file for pool in found.values() for file in pool]
    target = paths.StudyPaths(study).prepared / "backgrounds"
    return write_store(target, index, decode_all(files, side, f"{study}: backgrounds"))
