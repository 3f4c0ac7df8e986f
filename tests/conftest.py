"""Fixtures shared by the tests: a study of a few drawn pictures in a temporary place."""

import os
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several test processes share the cores

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.core import paths
from lib.core.compact import write_compact
from lib.core.files import digest, write_json
from lib.data import summary
from lib.data.store import write_store
from lib.masks import sources
from tests.reliability import (  # noqa: F401 (hooks)
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_runtest_logreport,
    pytest_sessionfinish,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All of the study's folders moved under a temporary one; no mirror, no network."""
    for name in ("REPORTS", "RAW", "WEIGHTS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    real = socket.getaddrinfo

    def near(host, *rest, **more):
        if host not in ("localhost", "127.0.0.1"):
            raise socket.gaierror(f"tests do not use the network ({host})")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", near)
    return tmp_path


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth asymmetric picture: resampling errors stay small and flips show."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(1, 5, (3, 3))]
    return (127 + 120 * np.stack(waves, -1)).astype(np.uint8)


@pytest.fixture
def study(home: Path) -> str:
    """A study of 36 images (6 classes of 6), uneven sizes, soft masks, one of them empty."""
    return small_study(["train"] * 2 + ["validation"] * 2 + ["test"] * 2)


def small_study(splits: list[str], each: int = 6) -> str:
    """Write a study `small` of drawn pictures: the split of every class, and images a class."""
    rng, where = np.random.default_rng(0), paths.StudyPaths("small")
    rows = [
        {"path": f"{label}/{k}.png", "label": label, "class_name": f"c{label}", "split": split}
        for label, split in enumerate(splits)
        for k in range(each)
    ]
    index = pd.DataFrame(rows)
    sizes = rng.integers(72, 100, (len(index), 2))
    images = [picture(rng, *size) for size in sizes]
    store = write_store(where.prepared / "images", index, images)
    pools = pd.DataFrame({"path": [f"{k}.jpg" for k in range(9)], "label": 0})
    pools["split"] = ["train"] * 4 + ["validation"] * 2 + ["test"] * 3
    write_store(where.prepared / "backgrounds", pools, [picture(rng, 80, 110) for _ in range(9)])
    write_json(
        where.prepared / "data.json", {"dataset": "cub200", "side": 72, "options": {}, "note": ""}
    )
    kept = index[["split", "label", "class_name"]]
    write_compact(summary.read("small").folder / "images.parquet", kept)
    soft = [_blob(*size) for size in sizes]
    soft[-1][:] = 0
    made = write_store(where.masks / "drawn", index, soft)
    areas = index.assign(area=[mask.mean() / 255 for mask in soft])
    areas["usable"] = areas["area"].between(sources.EMPTY, sources.FULL)
    areas.to_csv(where.masks / "drawn" / "areas.csv", index=False)
    facts = {"source": "drawn", "images": store.fingerprint, "masks": made.fingerprint}
    facts["areas"] = digest(where.masks / "drawn" / "areas.csv")
    write_json(where.masks / "drawn" / "masks.json", facts)
    write_json(where.masks / "source.json", {"source": "drawn"})
    return "small"


def _blob(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot((y - 0.45 * height) / height, (x - 0.6 * width) / width)
    return (255 * np.clip((0.35 - distance) * 8, 0, 1)).astype(np.uint8)
