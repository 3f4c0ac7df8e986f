"""Masks: the command `rembg p -om` against `lib.masks.rembg_models`, same folder, same cores.

    DATA_MIRROR=... python benchmarks/masks.py [--images 96] [--model u2netp] [--workers 2]

Both start from nothing (interpreter, imports, model) and end with masks on disk; photographs are
spread over CUB-200-2011. Ours also shrinks every mask to 144 pixels. The command itself needs a
web server's worth of further packages (rembg[cli]); LOOP is what it does to a folder: one session
with its default threads, one file after the other, bytes in, PNG out.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from lib.data import datasets
from lib.data.store import open_image, shrunk_size
from lib.masks.rembg_models import _chunk, mask_model, predict


def photographs(count: int) -> list[Path]:
    """`count` photographs, evenly spread over the data set."""
    folder, _ = datasets.locate("cub200")
    files = datasets.read("cub200", folder)["path"]
    return [folder / path for path in files[:: len(files) // count][:count]]


LOOP = """
import sys
from pathlib import Path
from rembg import new_session, remove
source, target, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
session = new_session(model)
target.mkdir()
for file in sorted(source.iterdir()):
    made = remove(file.read_bytes(), session=session, only_mask=True)
    (target / f"{file.stem}.png").write_bytes(made)
"""


def by_command(files: list[Path], model: str, scratch: Path) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds and masks of rembg's own folder mode."""
    source, target = scratch / "in", scratch / "out"
    source.mkdir()
    for number, file in enumerate(files):
        shutil.copyfile(file, source / f"{number:05d}{file.suffix}")
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", LOOP, str(source), str(target), model], check=True)
    seconds = time.monotonic() - start
    return seconds, {
        file.stem: np.asarray(Image.open(file).convert("L")) for file in target.glob("*.png")
    }


def ours(files: list[Path], model: str, workers: int, scratch: Path, each: int = 16) -> float:
    """Seconds of our way: one-thread processes, chunk by chunk, masks in the store's geometry."""
    start = time.monotonic()
    sizes = [shrunk_size(*open_image(file).size, 144) for file in files]
    jobs = [
        (model, files[i : i + each], sizes[i : i + each], scratch / f"{i:05d}.npz")
        for i in range(0, len(files), each)
    ]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap(_chunk, jobs):
            pass
    return time.monotonic() - start


def main() -> None:
    """Run both and print images/s, the ratio, and how far the masks differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--model", default="u2netp", choices=["u2netp", "u2net"])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    os.environ["NUMBA_DISABLE_JIT"] = "1"  # for both: else each start compiles for a minute
    files = photographs(given.images)
    mask_model(given.model)  # both use this checked file
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        theirs, masks = by_command(files, given.model, scratch)
        mine = ours(files, given.model, given.workers, scratch)
    worst = max(
        int(np.abs(np.asarray(predict(given.model, open_image(file))).astype(int) - mask).max())
        for file, mask in zip(files[:8], (masks[f"{k:05d}"] for k in range(8)), strict=True)
    )
    count = len(files)
    print(f"{count} photographs, {given.model}, {given.workers} workers")
    print(f"rembg's loop  {theirs:7.1f} s  {count / theirs:6.2f} images/s")
    print(f"ours          {mine:7.1f} s  {count / mine:6.2f} images/s")
    print(f"ratio {theirs / mine:.2f}x; greatest difference of a mask's pixel: {worst} of 255")


if __name__ == "__main__":
    main()
