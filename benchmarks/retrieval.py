"""Time and memory of `lib.retrieval.search` against pytorch-metric-learning's AccuracyCalculator.

    python -m benchmarks.retrieval          15,000 images, 2,777 classes, 128-d
    python -m benchmarks.retrieval --small  3,000 images, 555 classes: does it run?
    python -m benchmarks.retrieval --full   60,000 images, 11,111 classes (size of the SOP test set)

Each contender runs in a fresh process on the same seeded embeddings. Peak memory is that of the
whole process, imports included. The library's default search needs faiss; without faiss its own
torch search (CustomKNN) stands in, in batches, since a 60,000 x 60,000 matrix is 14 GB.

At 60,000 images one query has two nearest images, one of them wrong, 3e-8 apart: less than the
error of the library's float32 product, which swaps them. Ours ranks by exact products; so up to
two queries' worth of difference passes.
"""

import argparse
import importlib.util
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, PER_CLASS, NOISE = 128, 5.4, 1.2
NEAR_TIES = 2
LIBRARY = {
    "mean_average_precision_at_r": "map_at_r",
    "r_precision": "r_precision",
    "precision_at_1": "p_at_1",
}


def make(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`size` embeddings around class centres, class sizes uneven, from 1 to 13."""
    generator = torch.Generator().manual_seed(seed)
    classes = int(size / PER_CLASS)
    labels = torch.arange(size) % classes
    spare = torch.rand(size, generator=generator) < 0.3
    labels[spare] = torch.randint(classes, (int(spare.sum()),), generator=generator)
    centres = F.normalize(torch.randn(classes, WIDTH, generator=generator), dim=1)
    noise = torch.randn(size, WIDTH, generator=generator) * NOISE / WIDTH**0.5
    return F.normalize(centres[labels] + noise, dim=1), labels


def ours(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """Means of our per-query values."""

    from lib.retrieval.metrics import METRICS, evaluate

    scores = evaluate(embeddings, labels)
    return {name: float(scores[name].nanmean()) for name in METRICS}


def theirs(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """The library's means, with k as it advises for MAP@R."""
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    faiss = importlib.util.find_spec("faiss") is not None
    search = None if faiss else CustomKNN(CosineSimilarity(), batch_size=256)
    calculator = AccuracyCalculator(include=tuple(LIBRARY), k="max_bin_count", knn_func=search)
    found = calculator.get_accuracy(embeddings, labels)
    return {LIBRARY[name]: value for name, value in found.items()}


def timed(contender: Callable[[Tensor, Tensor], dict[str, float]], size: int) -> tuple:
    """Scores, seconds by the clock and of all cores, peak memory in GB of this process."""
    embeddings, labels = make(size)
    contender(embeddings[:500], labels[:500])  # imports and first-call costs are not the question
    clock, cores = time.perf_counter(), time.process_time()
    scores = contender(embeddings, labels)
    clock, cores = time.perf_counter() - clock, time.process_time() - cores
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return scores, clock, cores, peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> int:
    """Print both, their ratio, and whether they agree; exit status 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=15_000)
    parser.add_argument("--small", action="store_true", help="3,000 images (seconds)")
    parser.add_argument("--full", action="store_true", help="60,000 images (minutes)")
    arguments = parser.parse_args()
    size = 60_000 if arguments.full else 3_000 if arguments.small else arguments.size
    print(f"{size:,} images, {int(size / PER_CLASS):,} classes, {WIDTH}-d")
    results = {}
    for contender in (ours, theirs):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            # unlike multiprocessing.Pool, raises if the process is killed for its memory
            results[contender.__name__] = pool.submit(timed, contender, size).result()
        scores, clock, cores, peak = results[contender.__name__]
        shown = "  ".join(f"{name} {scores[name]:.7f}" for name in LIBRARY.values())
        print(
            f"{contender.__name__:6s} {clock:7.2f} s by the clock, {cores:7.2f} s of cores, "
            f"{peak:5.2f} GB peak  {shown}",
            flush=True,
        )
    (a, *cost_a), (b, *cost_b) = results["ours"], results["theirs"]
    clock, cores, peak = (y / x for x, y in zip(cost_a, cost_b, strict=True))
    print(f"{clock:.1f} times faster ({cores:.1f} in core time), {peak:.1f} times less memory")
    gap = max(abs(a[name] - b[name]) for name in a)
    verdict = "agree" if gap < 5e-7 else f"differ by {gap * size:.1f} queries, so do not agree"
    print(f"largest difference {gap:.1e}: {verdict} to 6 decimals")
    return int(gap >= max(5e-7, NEAR_TIES / size))


if __name__ == "__main__":
    sys.exit(main())
