"""The paper's grid on 1, 8 and 64 machines: a simulated schedule of the pieces of lib.run.pieces.

    python -m benchmarks.schedule             the tables of docs/scale.md
    python -m benchmarks.schedule --measure   the seconds below, anew on this machine (minutes)

Seconds a piece come from UNITS, measured on one core of an AMD EPYC. The pieces, what each needs
and in which order they are handed out are the grid's own. Not measured but assumed, and said so on
the page: how many epochs a model takes, what a shared disk delivers, that two cores share a piece.
"""

import argparse
import heapq
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from lib.core import params
from lib.run import grid, pieces
from lib.run.pieces import Piece

# Processor seconds of one thread (`--measure`), the least of two runs of five calls each.
UNITS = {
    "mask of an image": 1.17,
    "training step": 2.73,
    "embedding of an image": 0.0402,
    "map of an image": 1.71,
    "search, 5,924 images": 0.51,
    "search, 8,131 images": 1.01,
    "search, 60,502 images": 9.8,
}
CORES = 2  # of a machine, and assumed to share a piece evenly; a chunk of masks takes one of them
EPOCHS = (30, 120)  # assumed: a model stops somewhere between, decided by its name
SHARED = 1e9  # assumed: bytes a second of a shared disk, for all machines together
SIDE, LONG = 256, 4 / 3
WEIGHTS = 42e6  # bytes of a model


@dataclass(frozen=True)
class Data:
    """Numbers of images of a data set; validation: a quarter of the classes that are not test."""

    images: int
    test: int
    validation: int

    @property
    def store(self) -> float:
        """Bytes of pixels and masks."""
        return self.images * SIDE**2 * LONG * 4


DATA = {
    "cub200": Data(11_788, 5_924, 1_491),
    "cars196": Data(16_185, 8_131, 2_020),
    "sop": Data(120_053, 60_502, 14_890),
}


@dataclass(frozen=True)
class Job:
    """A piece with its seconds, and the bytes that it writes."""

    id: str
    kind: str
    after: tuple[str, ...]
    seconds: float
    written: float = 0.0


def epochs(name: str) -> int:
    """Of a model, spread evenly over EPOCHS, the same at every run."""
    low, high = EPOCHS
    return low + int(pieces.key_of(name=name), 16) % (high - low + 1)


def seconds(piece: Piece, data: Data, sections: dict) -> float:
    """Of a piece on one core."""
    search = UNITS[f"search, {data.test:,} images"]
    embed, shift, attention = (
        UNITS["embedding of an image"],
        sections["shift"],
        sections["attention"],
    )
    if piece.kind == "masks":
        return len(piece.given["files"]) * UNITS["mask of an image"]
    if piece.kind == "model":
        step = UNITS["training step"] * sections["train"]["iterations"]
        return epochs(piece.name) * (step + 2 * data.validation * embed)
    if piece.kind == "trunk":
        return data.validation * embed
    if piece.kind == "embedding":
        return data.test * embed
    if piece.kind == "evaluation":  # random backgrounds have three sides, others two, clean one
        planned = len(shift["conditions"]) - 2
        return (1 + 3 * shift["draws"] + 2 * planned) * search
    images, few = attention["images"], attention["images_methods"]
    if piece.kind == "attention":
        return images * (UNITS["map of an image"] + 3 * embed)
    if piece.kind == "check":  # of four subjects, by all methods; the others look at fewer images
        maps = few * 4 * len(attention["methods"]) if piece.name == "methods" else images * 8
        return maps * UNITS["map of an image"]
    return 2 * 2 * (data.test * embed + search)  # a variant: two arms, two conditions


def written(piece: Piece, data: Data) -> float:
    """Bytes that a piece leaves."""
    many = {"masks": 64 * SIDE**2 * LONG, "model": 2 * WEIGHTS, "embedding": data.test * 128 * 4}
    return many.get(piece.kind, 1e6)


def jobs(study: str, data: Data) -> tuple[list[Job], list[Job]]:
    """The chunks of masks, and all later pieces, of a study of params.yaml."""
    sections = params.study(study)
    chunk = {"files": [0] * 64}
    masks = [Piece("masks", str(n), chunk) for n in range(-(-data.images // 64))]
    return tuple(
        [
            Job(f"{study}/{p.id}", p.kind, tuple(f"{study}/{name}" for name in p.after),
                seconds(p, data, sections) / (1 if p.kind == "masks" else CORES), written(p, data))
            for p in part
        ]
        for part in (masks, pieces.of_study(sections))
    )  # fmt: skip


def simulate(todo: list[Job], workers: int) -> float:
    """Seconds until all is done; of the ready pieces, the longest kinds go first (lib.run.grid)."""
    left = {job.id: set(job.after) for job in todo}
    needed_by: dict[str, list[int]] = {}
    for number, job in enumerate(todo):
        for name in job.after:
            needed_by.setdefault(name, []).append(number)
    ready = [(-grid.USUAL[job.kind], n) for n, job in enumerate(todo) if not job.after]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, number = heapq.heappop(ready)
            heapq.heappush(running, (now + todo[number].seconds, number))
        now, number = heapq.heappop(running)
        for later in needed_by.get(todo[number].id, []):
            after = left[todo[later].id]
            after.discard(todo[number].id)
            if not after:
                heapq.heappush(ready, (-grid.USUAL[todo[later].kind], later))
    return now


def report() -> None:
    """The tables of docs/scale.md."""
    found = {study: jobs(study, data) for study, data in DATA.items()}
    print("| piece | how many, CUB + Cars + SOP | seconds each, CUB / Cars / SOP | hours in all |")
    print("|---|---:|---:|---:|")
    for kind in pieces.KINDS:
        parts = [[j for part in found[s] for j in part if j.kind == kind] for s in DATA]
        counts = " + ".join(f"{len(part):,}" for part in parts)
        each = " / ".join(f"{sum(j.seconds for j in p) / len(p):,.0f}" for p in parts)
        hours = sum(j.seconds for p in parts for j in p) / 3600 / (CORES if kind == "masks" else 1)
        print(f"| {kind} | {counts} | {each} | {hours:,.1f} |")
    spent = {kind: 0.0 for kind in pieces.KINDS}
    for job in (job for both in found.values() for part in both for job in part):
        spent[job.kind] += job.seconds / (CORES if job.kind == "masks" else 1)
    total = sum(spent.values())
    print(f"\nIn all {total / 3600:,.0f} hours of one machine.\n")
    columns = "machines | masks, h | the rest, h | opening the stores, h | in all, h | speed-up"
    print(f"| {columns} | idle | read from the shared disk | written |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    chunks = [job for masks, _ in found.values() for job in masks]
    rest = [job for _, later in found.values() for job in later]
    store = sum(data.store for data in DATA.values())
    wrote = sum(job.written for job in [*chunks, *rest])
    for workers in (1, 8, 64, 256):
        first, then = simulate(chunks, CORES * workers), simulate(rest, workers)
        opening = workers * store / SHARED
        whole = first + then + opening
        print(
            f"| {workers} | {first / 3600:,.1f} | {then / 3600:,.1f} | {opening / 3600:,.2f} | "
            f"{whole / 3600:,.1f} | {total / whole:,.1f} | {1 - total / workers / whole:.0%} | "
            f"{workers * store / 1e12:,.2f} TB | {wrote / 1e9:,.0f} GB |"
        )


# --- measuring the units --------------------------------------------------------------------------


def told(name: str, what: Callable[[], object], per: int = 1, repeats: int = 5) -> None:
    """Print the least processor seconds of some calls on one thread; the first is not counted.

    Not the clock's: that counts waiting too, where other work runs beside. Two threads that wait
    for each other would turn in a loop meanwhile, so there is one.
    """
    what()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        what()
        spent.append((time.process_time() - start) / per)
    print(f"{name}: {min(spent):.4f}", flush=True)


def measure() -> None:
    """Print UNITS of this machine: the paper's trunk at 227 pixels, random weights."""
    import numpy as np
    import torch
    from PIL import Image

    from benchmarks.scale_sop import TEST_CLASSES, embeddings
    from lib.attention import attribution
    from lib.core.hardware import autocast
    from lib.masks import rembg_models
    from lib.models.embedder import Embedder
    from lib.models.embedding import forward_of
    from lib.retrieval.metrics import evaluate
    from lib.training import losses
    from lib.training.recipe import OPTIMISERS

    model = Embedder("bn_inception", 128, pretrained=False)
    images = torch.rand(32, 3, 227, 227).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(32) % 8
    criterion = losses.build(
        "multi_similarity", losses.arguments("multi_similarity", "cub200"), 8, 128
    )
    optimiser = OPTIMISERS["rmsprop"](model.parameters(), lr=1e-6)

    def step() -> None:
        model.train()
        with autocast(torch.device("cpu"), "bf16"):
            made = model(images)
        optimiser.zero_grad(set_to_none=True)
        criterion(made, labels).backward()
        optimiser.step()

    torch.set_num_threads(1)
    told("training step", step)
    forward = forward_of(model)
    told("embedding of an image", lambda: forward(images), 32)

    def maps() -> None:
        attribution.attribute(
            "smoothgrad", model, images[:1], black=torch.zeros_like(images[:1]),
            target="distance_to_black", reference=None, seeds=torch.tensor([0]), batch=25,
            copies=25, noise=0.15, precision="bf16",
        )  # fmt: skip

    told("map of an image", maps)
    for count in (data.test for data in DATA.values()):
        made, own = embeddings(count, TEST_CLASSES if count > 50_000 else 100)
        told(f"search, {count:,} images", lambda m=made, o=own: evaluate(m, o), repeats=2)
    noise = np.random.default_rng(0).integers(0, 255, (400, 500, 3), np.uint8)
    picture = Image.fromarray(noise)
    for name in ("u2netp", "u2net"):
        try:
            rembg_models.fetch(name)
        except Exception as error:
            print(f"mask of an image ({name}): {error}")
            continue
        told(
            f"mask of an image, {name}",
            lambda name=name: rembg_models.predict(name, picture),
        )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        measure()
    else:
        report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
