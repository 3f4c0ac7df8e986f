"""Odd pictures: what is seen of them, and what they become."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.core import paths
from lib.core.errors import StudyError
from lib.data import checks, near_duplicates, prepare
from lib.data.store import open_image, write_store


def colours(seed: int, height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


@pytest.fixture
def odd(home: Path) -> Path:
    """A folder of six classes; class c0 holds one picture of every oddity."""
    root = home / "mine"
    for label in range(6):
        (root / f"c{label}").mkdir(parents=True)
        for k in range(2):
            Image.fromarray(colours(10 * label + k)).save(root / f"c{label}" / f"{k}.png")
    place = root / "c0"
    grey = colours(50)[..., 0]
    Image.fromarray(grey).convert("RGB").save(place / "grey.png")
    Image.fromarray(colours(51)).convert("CMYK").save(place / "cmyk.jpg")
    Image.fromarray(grey.astype(np.uint16) * 257).save(place / "deep.png")
    alpha = np.dstack([colours(52), np.full((30, 40), 0, np.uint8)])
    Image.fromarray(alpha).save(place / "alpha.png")
    frames = [Image.fromarray(colours(53 + k)) for k in range(2)]
    frames[0].save(place / "animated.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours(55)).save(place / "rotated.jpg", exif=exif)
    Image.fromarray(colours(56, 1, 1)).save(place / "tiny.png")
    (root / "c1" / "twin.png").write_bytes((root / "c1" / "0.png").read_bytes())
    (root / "c2" / "leak.png").write_bytes((root / "c3" / "0.png").read_bytes())
    labels = [
        (file.relative_to(root).as_posix(), file.parent.name) for file in sorted(root.glob("*/*"))
    ]
    table = pd.DataFrame(labels, columns=["path", "label"])
    splits = dict(zip(["c0", "c1", "c2", "c3", "c4", "c5"], np.repeat(["train", "val", "test"], 2)))  # noqa: B905
    splits |= {"c1": "train", "c2": "val", "c3": "test"}
    splits |= {"c4": "val", "c5": "test"}
    table["split"] = table["label"].map(splits)
    table.to_csv(root / "labels.csv", index=False)
    return root


def faults_of(study: str) -> dict[str, str]:
    table = pd.read_csv(paths.StudyPaths(study).prepared / "faults.csv")
    return {f"{Path(row.path).name} {row.fault}" for row in table.itertuples()}


@pytest.mark.fault(
    "data/odd",
    "grey, CMYK, 16-bit, alpha, animated, EXIF-rotated, 1x1, doubled and leaking pictures",
    "a folder with one of each",
    "each is counted under its name in 01_data",
)
def test_every_oddity_is_seen(odd: Path) -> None:
    store = prepare.prepare_images("s", "folder", 20, {"folder": str(odd)})
    assert len(store) == 21
    assert faults_of("s") == {
        "grey.png grey", "cmyk.jpg cmyk", "deep.png deep", "deep.png grey", "alpha.png alpha",
        "alpha.png grey", "animated.gif animated", "rotated.jpg rotated", "tiny.png tiny",
        "0.png copy", "twin.png copy", "0.png leak", "leak.png leak",
    }  # fmt: skip
    files = pd.read_csv(paths.StudyPaths("s").prepared / "files.csv").set_index("path")
    assert tuple(files.loc["c0/rotated.jpg", ["height", "width"]]) == (40, 30)
    assert tuple(files.loc["c0/tiny.png", ["height", "width"]]) == (1, 1)
    counts = checks.count_faults(pd.read_csv(paths.StudyPaths("s").prepared / "faults.csv"))
    assert counts.set_index("fault")["images"]["same bytes in two splits"] == 2


@pytest.mark.fault(
    "data/odd-pixels",
    "16-bit, alpha, rotated and animated pictures",
    "a folder with one of each",
    "pixels as a viewer shows them",
)
def test_odd_pictures_become_what_people_see(odd: Path) -> None:
    deep = np.asarray(open_image(odd / "c0/deep.png"))
    np.testing.assert_array_equal(deep, np.dstack([colours(50)[..., 0]] * 3))
    assert (np.asarray(open_image(odd / "c0/alpha.png")) == 255).all()
    assert open_image(odd / "c0/rotated.jpg").size == (30, 40)
    first = np.asarray(open_image(odd / "c0/animated.gif")).astype(int)
    assert np.abs(first - colours(53)).mean() < np.abs(first - colours(54)).mean()


@pytest.mark.fault(
    "data/broken",
    "zero-byte, cut, non-picture and over-large files",
    "written over a PNG",
    "stops, picture named; or left out and counted with allow_broken",
)
@pytest.mark.parametrize("kind", ["zero", "cut", "text", "bomb"])
def test_broken_pictures_stop_the_stage_or_are_left_out(
    odd: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = odd / "c0" / "0.png"
    whole = file.read_bytes()
    file.write_bytes({"zero": b"", "cut": whole[:300], "text": b"<html>"}.get(kind, whole))
    if kind == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # 1,200 are over twice that
    options = {"folder": str(odd)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(StudyError, match="cannot be decoded: c0/0.png.*allow_broken: true"):
            prepare.prepare_images("s", "folder", 20, options)
        assert not (paths.StudyPaths("s").prepared / "images" / "store.json").exists()
        if kind == "bomb":
            return
        store = prepare.prepare_images("s", "folder", 20, options, allow_broken=True)
    assert len(store) == 20 and "c0/0.png" not in set(store.index["path"])
    assert "0.png broken" in faults_of("s")
    kept = prepare.source_files("s")
    expected = np.asarray(open_image(kept[4]).resize((26, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(store.image(4), expected)


def test_near_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:60, 0:80] / 80

    def smooth(seed: int) -> np.ndarray:
        a = np.random.default_rng(seed).uniform(2, 9, (3, 3))
        return np.stack([127 + 120 * np.sin(p * x + q * y + r) for p, q, r in a], -1)

    images = [smooth(seed).astype(np.uint8) for seed in range(12)]
    noisy = np.clip(smooth(3) + rng.normal(0, 4, (60, 80, 3)), 0, 255).astype(np.uint8)
    smaller = np.asarray(Image.fromarray(images[7]).resize((64, 48)))
    index = pd.DataFrame({"path": map(str, range(14)), "label": [*range(12), 3, 0]})
    index["split"] = ["train"] * 12 + ["train", "test"]
    store = write_store(tmp_path / "s", index, [*images, noisy, smaller])
    found = near_duplicates.near_copies(store)
    pairs = {(row.row_a, row.row_b, row.same_class, row.across) for row in found.itertuples()}
    assert pairs == {(3, 12, True, False), (7, 13, False, True)}


def test_candidates_equal_a_slow_search() -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 2**63, 40, np.uint64)
    flips = np.array([sum(1 << int(b) for b in rng.choice(64, n)) for n in rng.integers(1, 6, 40)])
    hashes = np.concatenate([base, base ^ flips.astype(np.uint64)])
    slow = [
        (a, b)
        for a in range(80)
        for b in range(a + 1, 80)
        if bin(int(hashes[a]) ^ int(hashes[b])).count("1") <= near_duplicates.BITS
    ]
    assert near_duplicates._candidates(hashes) == slow and 5 < len(slow) < 40


def test_no_near_copies_gives_an_empty_table(tmp_path: Path) -> None:
    index = pd.DataFrame({"path": ["a", "b"], "label": [0, 1], "split": "train"})
    store = write_store(tmp_path / "s", index, [colours(1), colours(2)])
    found = near_duplicates.near_copies(store)
    assert len(found) == 0 and {"same_class", "across"} <= set(found)
