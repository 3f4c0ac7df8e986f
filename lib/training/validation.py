"""Validation MAP@R of an embedder, as training needs it to pick a checkpoint."""

import torch
from torch import Tensor

from lib.images.scenes import Scenes
from lib.models import embedding
from lib.models.embedder import Embedder
from lib.models.openvino_forward import Forward
from lib.retrieval import metrics


def validation(
    model: Embedder,
    scenes: Scenes,
    condition: str,
    seed: int,
    size: int,
    precision: str,
    forward: Forward | None = None,
) -> Tensor:
    """MAP@R of every validation image (N,) as a query among the others, backgrounds by `seed`."""
    rows = scenes.store.rows("validation")
    vectors = embedding.embed(
        model, scenes, rows, condition, draw=0, seed=seed, size=size, precision=precision,
        pool="validation", forward=forward,
    )  # fmt: skip
    return metrics.evaluate(vectors, torch.as_tensor(scenes.store.labels[rows]))["map_at_r"]
