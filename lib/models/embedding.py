"""Embedding a set of images under a test condition, on the CPU or a GPU."""

import numpy as np
import torch
from torch import Tensor

from lib.core.hardware import autocast, fixed_threads
from lib.core.progress import say
from lib.images.conditions import Batch, choose, get
from lib.images.scenes import Scenes
from lib.models.embedder import Embedder
from lib.models.openvino_forward import Forward, compiled

BATCH = {"cpu": 32, "cuda": 256}  # larger ones leave the CPU's cache: 128 takes twice as long


def forward_of(model: Embedder, precision: str = "f32") -> Forward:
    """`model` as a function of normalised images (N, 3, s, s) to embeddings (N, D), float32.

    On a CPU through OpenVINO, always in float32, so that processors with and without bf16 give the
    same numbers up to rounding. On a GPU, and where OpenVINO cannot take the trunk, by torch in the
    precision that is asked for.
    """
    where = next(model.parameters()).device
    model.eval()
    if where.type == "cpu":
        try:
            return compiled(model)
        except Exception as error:  # torch.export and OpenVINO have many ways to say no
            say(f"OpenVINO does not take this trunk ({type(error).__name__}): torch embeds instead")

    def forward(images: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(where, precision):
            images = images.contiguous(memory_format=torch.channels_last)
            return model(images).float().cpu()

    return forward


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
    precision: str = "f32",
    pool: str = "test",
    forward: Forward | None = None,
) -> Tensor:
    """Embeddings (len(rows), D) of images under a condition, float32, on the CPU.

    Args:
        rows: rows of the study's store.
        draw, seed: which of the random draws; ignored by conditions without chance.
        pool: the pool of background photographs.
        forward: of `forward_of`, where the same model embeds several conditions.
    """
    make, choice = get(condition).make, choose(scenes, rows, pool, seed, draw)
    forward, parts = forward or forward_of(model, precision), []
    batch = BATCH[next(model.parameters()).device.type]
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        parts.append(
            forward(model.normalise(make(Batch(scenes, part, size, pool, choice.at(part)))))
        )
    return torch.cat(parts)
