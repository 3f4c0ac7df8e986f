"""The models of a study: who they are, where their weights lie, how they are loaded."""

from dataclasses import dataclass
from pathlib import Path

import torch

from lib.core import hardware, paths
from lib.core.errors import StudyError
from lib.core.files import digest, read_json, sealed
from lib.models import embedder
from lib.models.embedder import Embedder

MODEL = ["loss", "arm", "seed"]


@dataclass(frozen=True)
class Model:
    """A model to evaluate: who it is, and its weights (None: the untrained trunk)."""

    loss: str
    arm: str
    seed: int
    trunk: str
    embedding: int
    image_size: int
    precision: str
    weights: Path | None

    @property
    def identity(self) -> str:
        """Equal for equal weights."""
        return digest(self.weights) if self.weights else f"untrained {self.trunk}"

    def load(self) -> Embedder:
        """The embedder, ready to embed."""
        if self.weights is None:
            model = Embedder(self.trunk, 0).to(hardware.device(), memory_format=torch.channels_last)
            return model.eval()
        return embedder.trained(self.weights, self.trunk, self.embedding)


def models_of(study: str) -> list[Model]:
    """All trained models of a study, the untrained trunk first; damaged weights are refused."""
    folder = paths.StudyPaths(study).models
    files = sorted(folder.glob("*/models.json"))
    if not files:
        raise StudyError(f"no trained models in {folder}. Run 03_train for study {study} first.")
    found = []
    for file in files:
        for entry in read_json(file):
            weights, sha256 = file.parent / entry.pop("weights"), entry.pop("sha256", None)
            if sha256:  # models of earlier versions carry no checksum
                sealed([weights], sha256, f"Run 03_train for study {study} and {entry['loss']}.")
            found.append(Model(**entry, weights=weights))
    first = found[0]
    same = (first.trunk, 0, first.image_size, first.precision)
    return [Model("none", "untrained", 0, *same, weights=None), *found]
