"""Tensors that are expensive to make: computed once, kept in a study's scratch folder by key."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from lib.core import paths
from lib.core.files import atomic
from lib.core.progress import say


def kept(study: str, kind: str, key: str, make: Callable[[], dict[str, Tensor]]) -> dict:
    """The tensors under `key`, read if they are there and whole, else made and kept.

    Args:
        kind: folder in scratch: what the tensors are.
        key: of everything that decides them (lib.core.files.key_of).
    """
    file = paths.StudyPaths(study).scratch / kind / f"{key}.safetensors"
    if file.exists():
        found = _whole(file)
        if found is not None:
            return found
        say(f"{file} is damaged: what it held is computed again")
    made = make()
    with atomic(file) as temporary:
        save_file(made, temporary, metadata={"sha256": _seal(made)})
    return made


def _seal(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(save(tensors)).hexdigest()


def _whole(file: Path) -> dict[str, Tensor] | None:
    """The tensors of a file, or None if its bytes are not those that were written."""
    try:
        found = load_file(file)
        with safe_open(file, "pt") as opened:
            facts = opened.metadata()
    except (SafetensorError, OSError, ValueError):
        return None
    if facts and facts.get("sha256") != _seal(found):
        return None  # files of earlier versions carry no checksum
    return found
