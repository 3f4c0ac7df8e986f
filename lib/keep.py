"""Tensors that are expensive to make: computed once, kept in a study's scratch folder by key."""

from collections.abc import Callable

from safetensors.torch import load_file, save_file
from torch import Tensor

from lib import paths
from lib.files import atomic


def kept(study: str, kind: str, key: str, make: Callable[[], dict[str, Tensor]]) -> dict:
    """The tensors under `key`, read if they are there, else made and kept.

    Args:
        kind: folder in scratch: what the tensors are.
        key: of everything that decides them (lib.files.key_of).
    """
    file = paths.StudyPaths(study).scratch / kind / f"{key}.safetensors"
    if file.exists():
        return load_file(file)
    made = make()
    with atomic(file) as temporary:
        save_file(made, temporary)
    return made
