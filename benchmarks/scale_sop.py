"""Does the size of Stanford Online Products, and a gallery of a million, fit? Memory and time.

    python -m benchmarks.scale_sop                   all three parts (minutes)
    python -m benchmarks.scale_sop store --images 3000 --side 32     does it run?

store    a synthetic store of 120,053 images is written, its 56,585 test crops are read: memory of
         the process itself (what is mapped from the disk is the system's, and not counted)
search   MAP@R of 60,502 queries among themselves, 11,316 classes: peak memory of the whole process
million  the 10 nearest of 1,000 queries among a million: ours and faiss's exact index, both on the
         same embeddings, in turns; needs faiss-cpu, which the study does not

Each part runs in a fresh process. Times are the least of --repeats, for other work may run beside.
"""

import argparse
import importlib
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

IMAGES, CLASSES, QUERIES, TEST_CLASSES = 120_053, 22_634, 60_502, 11_316
WIDTH, BATCH, PARTS = 128, 32, 4
MILLION, ASKED, NEAREST = 1_000_000, 1_000, 10


def peak() -> float:
    """Peak memory of this process in GB since `forget`, imports included (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def forget() -> None:
    """Let `peak` begin anew: making the embeddings is not the question."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def own() -> float:
    """Memory of this process in GB without the pages of mapped files."""
    import psutil

    used = psutil.Process().memory_info()
    return (used.rss - used.shared) / 1e9


def store(images: int, side: int) -> Iterator[str]:
    """Write a store and masks of `images` pictures, read every test crop, tell the memory."""
    import pandas as pd
    import torch

    from lib.data.store import write_store
    from lib.images.crops import Sampler

    rng = np.random.default_rng(0)
    wide = side * 4 // 3
    pictures = [rng.integers(0, 255, (side, wide, 3), np.uint8) for _ in range(64)]
    classes = max(2, images * CLASSES // IMAGES)
    index = pd.DataFrame({"path": [f"{n}.jpg" for n in range(images)]})
    index["label"] = np.arange(images) % classes
    index["class_name"] = index["label"].astype(str)
    index["split"] = np.where(index["label"] < classes // 2, "train", "test")
    seen: list[float] = []

    def streamed(channel: slice | int) -> Iterator[np.ndarray]:
        for number in range(images):
            if number % (images // PARTS) == 0:
                seen.append(own())
            yield pictures[number % len(pictures)][:, :, channel]

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        whole = write_store(Path(folder) / "images", index, streamed(slice(None)))
        took = time.perf_counter() - start
        told = ", ".join(f"{memory:.2f}" for memory in seen)
        size = whole.pixels.nbytes / 1e9
        yield f"written: {images:,} images, {size:.1f} GB in {took:.0f} s; own memory {told} GB"
        masks = write_store(Path(folder) / "masks", index, streamed(0))
        seen.clear()
        sampler, rows = Sampler([whole, masks], torch.device("cpu")), whole.rows("test")
        start = time.perf_counter()
        for number, at in enumerate(range(0, len(rows), BATCH)):
            if number % max(1, len(rows) // BATCH // PARTS) == 0:
                seen.append(own())
            sampler.centre(rows[at : at + BATCH], side)
        took = time.perf_counter() - start
        told = ", ".join(f"{memory:.2f}" for memory in seen)
        yield f"read: {len(rows):,} crops in {took:.0f} s; own memory {told} GB"


def embeddings(count: int, classes: int) -> tuple:
    """Embeddings around class centres and their labels."""
    import torch
    from torch.nn.functional import normalize

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    centres = normalize(torch.randn(classes, WIDTH, generator=generator), dim=1)
    made = torch.randn(count, WIDTH, generator=generator).mul_(1.2 / WIDTH**0.5)
    return normalize(made.add_(centres[labels]), dim=1), labels


def search(queries: int) -> Iterator[str]:
    """MAP@R of all queries among themselves."""
    from lib.retrieval.metrics import evaluate

    made, labels = embeddings(queries, max(2, queries * TEST_CLASSES // QUERIES))
    forget()
    start = time.perf_counter()
    value = float(evaluate(made, labels)["map_at_r"].nanmean())
    took = time.perf_counter() - start
    yield f"{queries:,} queries: MAP@R {value:.6f} in {took:.1f} s, peak {peak():.2f} GB"


def million(name: str, gallery: int, repeats: int) -> tuple[np.ndarray, float, float]:
    """The nearest of some queries in a large gallery by `ours` or `faiss`: indices, s, GB."""
    import torch

    made, queries = embeddings(gallery + ASKED, gallery // 10)[0].split([gallery, ASKED])
    forget()
    torch.set_num_threads(2)
    times, found = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        if name == "faiss":
            faiss = importlib.import_module("faiss")  # no requirement of the study
            faiss.omp_set_num_threads(2)
            index = faiss.IndexFlatIP(WIDTH)
            index.add(made.numpy())
            found = index.search(queries.numpy(), NEAREST)[1]
        else:
            from lib.retrieval.search import neighbours

            found = neighbours(queries, made, k=NEAREST)[0].numpy()
        times.append(time.perf_counter() - start)
    return found, min(times), peak()


def _listed(part: Callable[..., Iterator[str]], *given: int) -> list[str]:
    return list(part(*given))


def fresh(what: Callable, *given: object) -> object:
    """The result of a function in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(what, *given).result()


def main() -> int:
    """Print what each part took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("store", "search", "million"))
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--gallery", type=int, default=MILLION)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    if asked.part in (None, "store"):
        print(*fresh(_listed, store, asked.images, asked.side), sep="\n", flush=True)
    if asked.part in (None, "search"):
        print(*fresh(_listed, search, asked.queries), sep="\n", flush=True)
    if asked.part in (None, "million"):
        found = {}
        for name in ("ours", "faiss"):
            found[name], took, memory = fresh(million, name, asked.gallery, asked.repeats)
            print(f"{name}: {ASKED:,} queries among {asked.gallery:,} in {took:.1f} s, "
                  f"peak {memory:.2f} GB", flush=True)  # fmt: skip
        same = (found["ours"] == found["faiss"]).mean()
        print(f"the same image at the same place: {same:.4%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
