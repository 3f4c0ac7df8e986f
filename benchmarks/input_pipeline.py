"""Making training batches: the classical path against `lib.images.scenes`, on the same photographs.

    DATA_MIRROR=... python benchmarks/input_pipeline.py [--sizes 128 227] [--cores 1 2]
        [--images 1024] [--rounds 3] [--small]

Classical, as in the paper's code, one picture at a time: PIL opens photograph and mask, resizes
both, random resized crop, flip, to tensor; a background, kept decoded, is resized, cropped and
flipped by the same rule; composite. Ours: stores of shrunken pixels made once (the time for that
is printed), then one batched pass. Both give batches of float images on one scale.

`cores` are processes for the classical path (a DataLoader's workers, each on one thread) and
threads for ours, so that both get the same number of cores. Every variant runs in a process of
its own. On a shared machine read the last column: images per second of processor time.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional as F

from lib.core import paths
from lib.core.files import digest, write_json
from lib.data import datasets
from lib.data.backgrounds import pools
from lib.data.store import decode_all, open_image, write_store
from lib.images.crops import TEST_CROP
from lib.images.scenes import Scenes
from lib.training import arms

BATCH = 32


def blob(height: int, width: int) -> np.ndarray:
    """A soft ellipse: what is in the mask does not change the time."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (255 * np.clip(3 - 4 * np.hypot(y, x), 0, 1)).astype(np.uint8)


def photographs(count: int) -> list[Path]:
    """The first `count` training photographs of CUB-200-2011, spread over its classes."""
    folder, _ = datasets.locate("cub200", {})
    table = datasets.read("cub200", folder)
    table = table[table["split"] == "train"]
    picked = table.iloc[np.linspace(0, len(table) - 1, count).astype(int)]
    return [folder / path for path in picked["path"]]


def write_masks(files: list[Path], folder: Path) -> list[Path]:
    """Full-size masks as PNG, one a photograph, for the classical path."""
    names = [folder / f"{number}.png" for number in range(len(files))]
    folder.mkdir(parents=True)
    for file, name in zip(files, names, strict=True):
        width, height = Image.open(file).size
        Image.fromarray(blob(height, width)).save(name)
    return names


def write_stores(files: list[Path], pool: list[Path], side: int) -> None:
    """The study `side`: stores of images, masks and backgrounds with this short side."""
    where = paths.StudyPaths(str(side))
    index = pd.DataFrame({"path": [file.name for file in files], "label": 0, "split": "train"})
    store = write_store(where.prepared / "images", index, decode_all(files, side, "images"))
    sizes = store.index[["height", "width"]].to_numpy()
    drawn = write_store(where.masks / "drawn", index, [blob(*size) for size in sizes])
    index.assign(area=0.3, usable=True).to_csv(where.masks / "drawn" / "areas.csv", index=False)
    facts = {"source": "drawn", "images": store.fingerprint, "masks": drawn.fingerprint}
    facts["areas"] = digest(where.masks / "drawn" / "areas.csv")
    write_json(where.masks / "drawn" / "masks.json", facts)
    index = pd.DataFrame({"path": [file.name for file in pool], "label": 0, "split": "train"})
    write_store(where.prepared / "backgrounds", index, decode_all(pool, side, "backgrounds"))


def augment(image: Image.Image, mask: Image.Image, size: int) -> tuple[Tensor, Tensor]:
    """The training transform of the paper's code: resize, random resized crop, flip, to tensor."""
    side = round(size / TEST_CROP)
    image, mask = F.resize(image, side), F.resize(mask, side)
    box = transforms.RandomResizedCrop.get_params(image, scale=(0.16, 1), ratio=(3 / 4, 4 / 3))
    image, mask = (F.resized_crop(x, *box, size=[size, size]) for x in (image, mask))
    if np.random.rand() > 0.5:
        image, mask = F.hflip(image), F.hflip(mask)
    return F.to_tensor(image) * 255, F.to_tensor(mask)


def one_classical(file: Path, mask: Path, background: Image.Image, size: int) -> Tensor:
    """One training image before another background, (3, size, size) on 0 to 255."""
    image, cut = augment(open_image(file), Image.open(mask).convert("L"), size)
    photograph, _ = augment(background, background.getchannel(0), size)
    return image * cut + photograph * (1 - cut)


@dataclass(frozen=True)
class Material:
    """What both paths read: photographs and masks as files, and the folder of the stores."""

    root: Path
    files: list[Path]
    masks: list[Path]
    pool: list[Path]


def classical(material: Material, size: int) -> Callable[[np.ndarray], Tensor]:
    """Makes a batch of rows one image at a time, as the paper's code does."""
    decoded = [open_image(file) for file in material.pool]

    def make(rows: np.ndarray) -> Tensor:
        drawn = np.random.choice(len(decoded), len(rows))
        made = [
            one_classical(material.files[row], material.masks[row], decoded[at], size)
            for row, at in zip(rows, drawn, strict=True)
        ]
        return torch.stack(made)

    return make


def ours(material: Material, size: int) -> Callable[[np.ndarray], Tensor]:
    """Makes a batch of rows in one pass from the stores."""
    paths.ROOT = material.root
    scenes = Scenes(str(round(size / TEST_CROP)), "drawn")
    rng = np.random.default_rng(0)
    arm = arms.get("bgaugment")  # every image on a photograph, as the classical path
    return lambda rows: arm.view(scenes.training(rows, size, rng))


PATHS = {"classical": classical, "ours": ours}


def work(name: str, material: Material, size: int, threads: int, batches: int) -> list[float]:
    """Seconds (start, end on the machine's clock, processor time) that `batches` batches take."""
    torch.set_num_threads(threads)
    np.random.seed(0)
    torch.manual_seed(0)
    make = PATHS[name](material, size)
    rows = np.random.default_rng(1).integers(0, len(material.files), (batches + 2, BATCH))
    for warm in rows[:2]:
        make(warm)
    start, used = time.time(), time.process_time()
    for row in rows[2:]:
        made = make(row)
    assert made.shape == (BATCH, 3, size, size) and -1 < made.min() < 100 < made.max() < 256
    return [start, time.time(), time.process_time() - used]


def measure(name: str, material: Material, size: int, cores: int, images: int) -> tuple:
    """Images per second and per second of processor time on so many cores."""
    processes, threads = (cores, 1) if name == "classical" else (1, cores)
    batches = max(images // BATCH // processes, 1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = [pool.submit(work, name, material, size, threads, batches) for _ in range(processes)]
        starts, ends, used = zip(*(job.result() for job in jobs), strict=True)
    done = batches * BATCH * processes
    return done / (max(ends) - min(starts)), done / sum(used)


def prepare(root: Path, count: int, sizes: list[int]) -> Material:
    """Write masks and stores under `root`, saying how long the stores take."""
    files, pool = photographs(count), pools("unsplash", 0, 0, 0)["train"]
    material = Material(root, files, write_masks(files, root / "masks"), pool)
    paths.ROOT = root
    for size in sizes:
        start = time.perf_counter()
        write_stores(files, pool, round(size / TEST_CROP))
        took = time.perf_counter() - start
        print(f"stores of {len(files)} + {len(pool)} pictures for {size} px: {took:.1f} s, once")
    return material


def main() -> None:
    """Print one line a size, number of cores and path; the best round counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 227])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=1024, help="photographs on the disk")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--small", action="store_true", help="a few images: does it run?")
    given = parser.parse_args()
    count, made = (64, (64, 64)) if given.small else (given.images, (1024, 8192))
    with tempfile.TemporaryDirectory() as folder:
        material = prepare(Path(folder), count, given.sizes)
        print("  px cores path        images/s  ratio   a processor second  ratio")
        for size in given.sizes:
            for cores in given.cores:
                report(material, size, cores, given.rounds, dict(zip(PATHS, made, strict=True)))


def report(material: Material, size: int, cores: int, rounds: int, images: dict[str, int]) -> None:
    """Two lines: the classical path, ours; rounds alternate so that other load hits both."""
    seen = [
        [measure(name, material, size, cores, images[name]) for name in PATHS]
        for _ in range(rounds)
    ]
    best = np.array(seen).max(0)
    for name, (wall, used) in zip(PATHS, best, strict=True):
        ratio = wall / best[0, 0], used / best[0, 1]
        print(f"{size:4}{cores:6} {name:10}{wall:10.0f}{ratio[0]:7.1f}{used:21.0f}{ratio[1]:7.1f}")


if __name__ == "__main__":
    main()
