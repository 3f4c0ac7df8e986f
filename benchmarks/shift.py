"""Time of the shift evaluation of one model: every condition embedded, searched and summed up.

    python -m benchmarks.shift --study cub200-cpu          all test images, goal: 6 minutes
    python -m benchmarks.shift --study demo --small        32 images, one draw: does it run?

The model is the untrained trunk (a trained one takes as long, but for its last layer). Nothing is
read from the cache of embeddings and nothing is written.
"""

import argparse
import sys
import time

import numpy as np
import pandas as pd
import torch

from lib.core import hardware, params
from lib.evaluation import effects, embeddings, models
from lib.images.scenes import Scenes
from lib.masks import sources
from lib.models import embedding
from lib.retrieval import metrics


def main() -> int:
    """Print seconds by the clock per condition, of the search, of the statistics, and in all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo")
    parser.add_argument("--small", action="store_true", help="32 images, one draw")
    arguments = parser.parse_args()
    model = models.models_of(arguments.study)[0]
    scenes = Scenes(arguments.study, sources.mask_source(arguments.study), hardware.device())
    rows = scenes.store.rows("test")
    rows = rows[:32] if arguments.small else rows
    settings = params.section(arguments.study, "shift")
    draws = 1 if arguments.small else settings["draws"]
    planned = embeddings.plan(settings["conditions"], draws, settings["draws_control"])
    print(f"{arguments.study}: {len(rows):,} images, {len(planned)} pairs of condition and draw")
    seconds = measure(model, scenes, rows, planned)
    for name, value in seconds.items():
        print(f"{name:28s} {value:7.1f} s")
    print(f"{'in all':28s} {sum(seconds.values()):7.1f} s, {torch.get_num_threads()} threads")
    return 0


def measure(
    model: models.Model, scenes: Scenes, rows: np.ndarray, planned: list[tuple[str, int]]
) -> dict[str, float]:
    """Seconds by the clock: embedding under each condition (all draws), search, statistics."""
    labels, own = torch.as_tensor(scenes.store.labels[rows]), torch.arange(len(rows))
    loaded, clean, frames, seconds = model.load(), None, [], {"search": 0.0}
    for condition, draw in planned:
        start = time.perf_counter()
        vectors = embedding.embed(
            loaded, scenes, rows, condition, draw=draw, seed=0, size=model.image_size,
            precision=model.precision,
        )  # fmt: skip
        seconds[condition] = seconds.get(condition, 0) + time.perf_counter() - start
        start, clean = time.perf_counter(), vectors if clean is None else clean
        found = {"both": metrics.evaluate(vectors, labels)}
        if condition != "clean":
            found["query"] = metrics.evaluate(vectors, labels, clean, labels, exclude=own)
        seconds["search"] += time.perf_counter() - start
        for sides, values in found.items():
            frame = pd.DataFrame({name: values[name].numpy() for name in embeddings.METRICS})
            frame = frame.assign(row=rows, label=labels, loss=model.loss, arm=model.arm, seed=0)
            frames.append(frame.assign(condition=condition, sides=sides, draw=draw))
    start, table = time.perf_counter(), pd.concat(frames, ignore_index=True)
    for statistic in (effects.summary, effects.effects, effects.intervals):
        statistic(table)
    seconds["statistics"] = time.perf_counter() - start
    return seconds


if __name__ == "__main__":
    sys.exit(main())
