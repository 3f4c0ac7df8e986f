"""Three disjoint pools of background photographs: for training, validation and the test."""

from pathlib import Path

import numpy as np
import pandas as pd

from lib.core import paths
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import key_of, read_json, write_json
from lib.core.progress import say
from lib.data import authors_repository
from lib.data.own import SPLITS as POOLS
from lib.data.readers import pictures
from lib.data.store import Store, decode_all, finished, sizes_of, write_store

OR = " or "  # between sources of which the first that can be had is taken
Pools = dict[str, list[Path]]


def pools(source: str, count: int, seed: int, side: int) -> Pools:
    """Files of each pool; no photograph is in two pools.

    Args:
        source: `unsplash`: the paper's 200 photographs (see `paper`). `rendered`: drawn by
            lib.data.drawn. Anything else: a folder, either with train/, validation/ and test/, or
            of photographs that the seed deals out to the three pools in equal parts.
        count: photographs in each pool, whatever the source: the first ones by name, all of a
            pool that has fewer; 0: all there are.
        side: short side in pixels, for `rendered`.

    Raises:
        StudyError: no pool has as many as `count`, or `rendered` is asked for 0.
    """
    if source == "rendered":
        if count < 1:
            raise StudyError(f"background_count is {count}; rendered pools have 1 or more each.")
        return {pool: _rendered(number, count, seed, side) for number, pool in enumerate(POOLS)}
    found = paper() if source == "unsplash" else own(paths.ROOT / Path(source).expanduser(), seed)
    most = max(map(len, found.values()))
    if not 0 <= count <= most:
        raise StudyError(
            f"background_count is {count}, and the largest of the three pools of {source} has "
            f"{most} photographs. Give a number from 1 to {most}, or 0 for all."
        )
    return {pool: files[: count or None] for pool, files in found.items()}


def first_of(sources: str, count: int, seed: int, side: int) -> tuple[Pools, str]:
    """The pools of the first source that can be had (`unsplash or rendered`), and its name."""
    source, _, rest = sources.partition(OR)
    try:
        return pools(source, count, seed, side), source
    except StudyError as refused:
        if not rest:
            raise
        say(f"{refused} Going on with backgrounds: {rest}.")
        return first_of(rest, count, seed, side)


def paper() -> Pools:
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
    train = [file for place, file in enumerate(half) if place % 5 != 4]
    return {"train": train, "validation": half[4::5], "test": pictures(folders["test"])}


def own(folder: Path, seed: int) -> Pools:
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
            "there, or some into each of train/, validation/ and test/."
        )
    return found


def _rendered(pool: int, count: int, seed: int, side: int) -> list[Path]:
    from lib.data.drawn.dataset import render_backgrounds

    asked = {"seed": seed * len(POOLS) + pool, "count": count, "side": side}
    folder = paths.RAW / f"backgrounds-{key_of(**asked)}"
    if not folder.exists():
        render_backgrounds(folder, **asked)
    return pictures(folder)


def prepare_backgrounds(
    study: str, source: str, count: int, seed: int, side: int, afresh: bool = False
) -> Store:
    """Decode the pools (see `pools`, `first_of`) into one store; its column `split` names the pool.

    Finished work is returned at once if it was made by the same request from files of the same
    names and sizes, unless `afresh`.
    """
    target = paths.StudyPaths(study).prepared / "backgrounds"
    if not afresh and OR in source and (target / "request.json").exists():
        known = source_of(study)  # what was found then counts, not what can be had now
        source = known if known in source.split(OR) else source
    found, used = first_of(source, count, seed, side)
    rows = [(file.name, pool) for pool, files in found.items() for file in files]
    files = [file for pool in found.values() for file in pool]
    request = key_of(code=fingerprint("data"), side=side, files=rows, sizes=sizes_of(files))
    if not afresh and (store := finished(target / "request.json", request, target)):
        return store
    index = pd.DataFrame(rows, columns=["path", "split"]).assign(label=0)
    store = write_store(target, index, decode_all(files, side, f"{study}: backgrounds"))
    facts = {"request": request, "store": store.fingerprint, "source": used}
    write_json(target / "request.json", facts)
    return store


def source_of(study: str) -> str:
    """Where a study's backgrounds came from: `unsplash`, `rendered` or a folder."""
    return read_json(paths.StudyPaths(study).prepared / "backgrounds" / "request.json").get(
        "source", ""
    )
