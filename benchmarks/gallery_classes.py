"""Is the interval over classes honest, although other classes would also be another gallery?

    python -m benchmarks.gallery_classes [--repeats 300]

The bootstrap resamples the queries' classes and keeps their average precisions, which were found in
the one gallery at hand. With other test classes the gallery changes, too. Here test sets of 100
classes are drawn from a population of synthetic classes again and again: the spread of the
true MAP@R over test sets is compared with the standard error that one test set claims. Printed: the
ratio claimed / true, and how often the 95 % interval covers the population's MAP@R, for a level and
for a paired difference (the same images, more noise), at three difficulties.
"""

import argparse

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lib.evaluation import statistics
from lib.retrieval.metrics import evaluate

CLASSES, WIDTH = 100, 32


def images(
    centres: Tensor, sizes: np.ndarray, noise: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean and disturbed embeddings of the same images, and their labels."""
    labels = torch.as_tensor(np.repeat(np.arange(len(sizes)), sizes))
    spread = torch.randn(len(labels), WIDTH, generator=generator) * noise
    clean = centres[labels] + spread
    moved = clean + torch.randn(len(labels), WIDTH, generator=generator) * noise
    return normalize(clean, dim=1), normalize(moved, dim=1), labels


def one(rng: np.random.Generator, noise: float) -> list[list[float]]:
    """A test set: (mean, low, high) of the clean level, and of the paired difference."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    anchors = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(0))  # kinds of things
    picked = anchors[torch.as_tensor(rng.integers(0, 12, CLASSES))]
    centres = picked + torch.randn(CLASSES, WIDTH, generator=generator)
    clean, moved, labels = images(centres, rng.integers(10, 50, CLASSES), noise, generator)
    a, b = (evaluate(x, labels)["map_at_r"].numpy() for x in (clean, moved))
    found = [statistics.mean_by_class_bootstrap(v, labels.numpy(), draws=999) for v in (a, b - a)]
    return [[f.mean, f.low, f.high] for f in found]


def main() -> None:
    """Print a line a difficulty and quantity."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    repeats = parser.parse_args().repeats
    print("noise  quantity    MAP@R   claimed/true standard error   coverage of 95 %")
    for noise in (0.7, 1.2, 2.0):
        rng = np.random.default_rng(1)
        found = np.array([one(rng, noise) for _ in range(repeats)])
        for at, name in enumerate(("level", "difference")):
            mean, low, high = found[:, at].T
            claimed, true = (high - low).mean() / 2 / 1.984, mean.std(ddof=1)
            inside = ((low <= mean.mean()) & (mean.mean() <= high)).mean()
            ratio = claimed / true
            print(f"{noise:5.1f}  {name:10s}  {mean.mean():+.3f}  {ratio:28.2f}  {inside:16.1%}")


if __name__ == "__main__":
    main()
