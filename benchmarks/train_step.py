"""A training step: the plain float32 loop against `lib.training.trainer`, same images.

    python benchmarks/train_step.py [--sizes 128 227] [--cores 1 2] [--trunk efficientnet_lite0]
        [--steps 12] [--rounds 3] [--skip compiled] [--profile] [--small]

Every variant makes its batches by `lib.images.scenes`, in a process of its own, after a warm-up;
torch.compile compiles during the warm-up, and its seconds are printed. On a shared machine read
the last column: images per second of processor time. The pictures are noise: what is in them does
not change the time, so no data set is needed. On a GPU `--cores` does nothing.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lib.core import hardware, paths
from lib.core.files import digest, write_json
from lib.data.store import write_store
from lib.images.crops import TEST_CROP
from lib.images.scenes import Scenes
from lib.models.embedder import _FloatOnCpu
from lib.training import recipe as recipes
from lib.training import sampling, trainer

CLASSES, EACH, BATCH = 16, 8, 32


def write_study(root: Path, size: int) -> None:
    """The study `size` of noise: images, masks and backgrounds as large as `size` needs."""
    paths.ROOT, where = root, paths.StudyPaths(str(size))
    side, rng = round(size / TEST_CROP), np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), EACH)
    index = pd.DataFrame({"path": labels, "label": labels, "split": "train"})
    noise = [rng.integers(0, 256, (side, side * 4 // 3, 3), np.uint8) for _ in labels]
    store = write_store(where.prepared / "images", index, noise)
    write_store(where.prepared / "backgrounds", index, noise)
    drawn = write_store(where.masks / "drawn", index, [image[..., 0] for image in noise])
    areas = where.masks / "drawn" / "areas.csv"
    index.assign(area=0.5, usable=True).to_csv(areas, index=False)
    facts = {"source": "drawn", "images": store.fingerprint, "masks": drawn.fingerprint}
    facts["areas"] = digest(areas)
    write_json(where.masks / "drawn" / "masks.json", facts)


def recipe(trunk: str, size: int, precision: str) -> recipes.Recipe:
    """The CPU studies' settings, BGAugment arm."""
    return recipes.Recipe(
        dataset="cub200", loss="normalized_softmax", arm="bgaugment", seed=0, trunk=trunk,
        embedding=128, image_size=size, optimiser="adamw", lr_trunk=1e-4, lr_head=1e-3,
        lr_loss=1e-2, weight_decay=1e-4, batch=BATCH, iterations=100, epochs=1, patience=1,
        precision=precision,
    )  # fmt: skip


def keep(run: trainer.Run) -> None:
    """Ours as it is."""


def bf16_everywhere(run: trainer.Run) -> None:
    """Undo the exception for strided depthwise convolutions."""
    for module in run.model.modules():
        if isinstance(module, _FloatOnCpu):
            module.__class__ = type(module).__mro__[2]


def one_by_one(run: trainer.Run) -> None:
    """An optimiser that visits one tensor at a time: torch's default on the CPU."""
    groups = [{"params": g["params"], "lr": g["lr"]} for g in run.optimiser.param_groups]
    decay = run.recipe.weight_decay
    run.optimiser = torch.optim.AdamW(groups, weight_decay=decay, foreach=False, fused=False)


def plain(run: trainer.Run) -> None:
    """The loop that one would write first, channels_last, the loss read at every step."""
    one_by_one(run)
    bf16_everywhere(run)
    step = run.step
    run.step = lambda *given: step(*given).cpu()


def compiled(run: trainer.Run) -> None:
    """torch.compile of the trunk."""
    run.model.trunk.features = torch.compile(run.model.trunk.features)


def frozen(run: trainer.Run, share: float = 0.5) -> None:
    """No gradients for the first half of the trunk's convolutions and all before them."""
    layers = [m for m in run.model.trunk.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    for layer in layers[: int(len(layers) * share)]:
        layer.requires_grad_(False)


VARIANTS: dict[str, tuple[str, Callable[[trainer.Run], None]]] = {
    "plain f32, channels_last": ("f32", plain),
    "f32, fused optimiser": ("f32", bf16_everywhere),
    "bf16 everywhere, fused": ("bf16", bf16_everywhere),
    "ours": ("bf16", keep),
    "ours, compiled": ("bf16", compiled),
    "ours, first half frozen": ("bf16", frozen),
}


def work(name: str, root: Path, size: int, cores: int, given: dict[str, Any]) -> list[Any]:
    """Images a second, images a second of processor time, warm-up seconds, profile of a variant."""
    torch.set_num_threads(cores)
    paths.ROOT = root
    precision, change = VARIANTS[name]
    run = trainer.Run(
        recipe(given["trunk"], size, precision), Scenes(str(size), "drawn", hardware.device())
    )
    change(run)
    run.model.train()
    batches = sampling.epoch_rows(run.labels, run.recipe, 1)
    start = time.perf_counter()
    for number in range(3):
        float(run.step(batches[number], number))
    warm = time.perf_counter() - start
    rates = [timed(run, batches, given["steps"]) for _ in range(given["rounds"])]
    best = np.array(rates).max(0)
    table = (
        profiled(run, batches) if given["profile"] and name.startswith(("plain", "ours")) else ""
    )
    return [*best, warm, table]


def timed(run: trainer.Run, batches: np.ndarray, steps: int) -> tuple[float, float]:
    """Images per second and per second of processor time of so many steps."""
    start, used = time.perf_counter(), time.process_time()
    losses = [run.step(batches[number], number) for number in range(steps)]
    assert torch.stack(losses).isfinite().all()  # also waits for the device
    done = steps * BATCH
    return done / (time.perf_counter() - start), done / (time.process_time() - used)


def profiled(run: trainer.Run, batches: np.ndarray, steps: int = 3) -> str:
    """Where the time of a step goes: the ten operations that cost most, by their own time."""
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    with profile(activities=kinds) as seen:
        for number in range(steps):
            float(run.step(batches[number], number))
    rows = [event for event in seen.key_averages() if event.self_cpu_time_total > 0]
    rows = sorted(rows, key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in rows)
    lines = [
        f"      {event.key[:44]:44} {event.self_cpu_time_total / total:6.1%} "
        f"{event.count // steps:5} a step"
        for event in rows[:10]
    ]
    return "\n".join(lines)


def main() -> None:
    """Print one line a size, number of cores and variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 227])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trunk", default="efficientnet_lite0")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--skip", default="none", help="leave out variants whose name holds this")
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    parser.add_argument("--small", action="store_true", help="one tiny step: does it run?")
    given = parser.parse_args()
    if given.small:
        given.sizes, given.cores, given.steps, given.rounds = [32], [1], 1, 1
    chosen = [name for name in VARIANTS if given.skip not in name]
    print(f"{'px cores':9}{'':26}images/s  ratio   a processor second  ratio   warm-up s")
    with tempfile.TemporaryDirectory() as folder:
        for size in given.sizes:
            write_study(Path(folder), size)
            for cores in given.cores:
                report(chosen, Path(folder), size, cores, vars(given))


def report(names: list[str], root: Path, size: int, cores: int, given: dict[str, Any]) -> None:
    """One line a variant, each measured in a process of its own."""
    first, context = None, multiprocessing.get_context("spawn")
    for name in names:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found = pool.submit(work, name, root, size, cores, given).result()
        first = first or found
        print(
            f"{size:3}{cores:5} {name:26}{found[0]:8.1f}{found[0] / first[0]:7.2f}"
            f"{found[1]:15.1f}{found[1] / first[1]:7.2f}{found[2]:10.1f}",
            flush=True,
        )
        if found[3]:
            print(found[3], flush=True)


if __name__ == "__main__":
    main()
