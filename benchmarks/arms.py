"""What an arm costs: a training step of every arm against one of `base`, same images.

    python -m benchmarks.arms [--size 128] [--steps 8] [--rounds 3] [--precision f32]

Rounds go through all arms in turn, so that what else the machine does falls on all alike; printed
are the best round's images per second and the time of a step relative to base.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.train_step import BATCH, recipe, write_study
from lib.core import hardware
from lib.images.scenes import Scenes
from lib.training import arms, sampling, trainer


def main() -> None:
    """Print one line an arm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128, help="side of the crops in pixels")
    parser.add_argument("--trunk", default="efficientnet_lite0")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="f32")
    given = parser.parse_args()
    hardware.keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder), given.size)
        scenes = Scenes(str(given.size), "drawn", hardware.device())
        plain = recipe(given.trunk, given.size, given.precision)
        best = {name: float("inf") for name in arms.ARMS}
        for _ in range(given.rounds):
            for name in arms.ARMS:
                run = trainer.Run(replace(plain, arm=name), scenes)
                run.model.train()
                batches = sampling.epoch_rows(run.labels, run.recipe, 1)
                with hardware.fixed_threads():
                    float(run.step(batches[0], 0))
                    start = time.perf_counter()
                    losses = [run.step(batches[i], i) for i in range(given.steps)]
                    assert torch.stack(losses).isfinite().all()  # also waits for the device
                best[name] = min(best[name], (time.perf_counter() - start) / given.steps)
    print(f"{'arm':24}images/s   time of a step, base = 1")
    for name, seconds in best.items():
        print(f"{arms.get(name).label:24}{BATCH / seconds:8.1f}{seconds / best['base']:10.2f}")


if __name__ == "__main__":
    main()
