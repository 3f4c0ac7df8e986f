"""Embedding a set of images under a test condition, on the CPU or a GPU."""

import numpy as np
import torch
from torch import Tensor

from lib.core.hardware import autocast, fixed_threads
from lib.images.conditions import Batch, choose, get
from lib.images.scenes import Scenes
from lib.models.embedder import Embedder


@torch.inference_mode()
@fixed_threads()  # a filled place differs in its last digits with the number of threads
def embed(
    model: Embedder,
    scenes: Scenes,
    rows: np.ndarray,
    condition: str,
    *,
    draw: int,
    seed: int,
    size: int,
    precision: str = "bf16",
    pool: str = "test",
    batch: int = 32,  # larger ones leave the CPU's cache: 128 takes twice as long
) -> Tensor:
    """Embeddings (len(rows), D) of images under a condition, float32, on the CPU.

    Args:
        rows: rows of the study's store.
        draw, seed: which of the random draws; ignored by conditions without chance.
        pool: the pool of background photographs.
    """
    make, choice = get(condition).make, choose(scenes, rows, pool, seed, draw)
    where, parts = next(model.parameters()).device, []
    model.eval()
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        images = model.normalise(make(Batch(scenes, part, size, pool, choice.at(part))))
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(where, precision):
            parts.append(model(images).float().cpu())
    return torch.cat(parts)
