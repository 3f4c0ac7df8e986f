import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib import datasets, mask_quality, masks, paths, prepare, weights
from lib.errors import StudyError
from lib.files import read_json, write_json
from lib.store import Store

OPTIONS = {"seed": 0, "bias": 1.0, "test_bias": 1.0, "images_per_class": 2, "side": 48}
OPTIONS["classes"] = {"train": 2, "val": 2, "test": 2}


@pytest.fixture
def drawn(home: Path) -> str:
    """A rendered study of twelve small pictures, prepared."""
    prepare.prepare_images("drawn", "rendered", 40, OPTIONS)
    return "drawn"


def test_true_masks_follow_the_store(drawn: str) -> None:
    made = masks.make_masks(drawn, "true")
    store = Store.open(paths.StudyPaths(drawn).prepared / "images")
    assert len(made) == len(store) == 12
    for row in range(12):
        assert made.image(row).shape == store.image(row).shape[:2]
    areas = masks.load_masks(drawn, "true")[1]
    assert areas["usable"].all() and areas["area"].between(0.05, 0.6).all()


def test_masks_of_other_images_are_refused(drawn: str) -> None:
    masks.make_masks(drawn, "true")
    prepare.prepare_images(drawn, "rendered", 38, OPTIONS)
    with pytest.raises(StudyError, match="made for other images"):
        masks.load_masks(drawn, "true")


def test_no_masks_yet_says_which_notebook_to_run(drawn: str) -> None:
    with pytest.raises(StudyError, match="Run 02_masks for study drawn"):
        masks.load_masks(drawn, "u2netp")


def test_an_unknown_source_lists_the_known(drawn: str) -> None:
    with pytest.raises(StudyError, match="known: u2net, u2netp, true"):
        masks.make_masks(drawn, "u3net")


def test_empty_and_full_masks_are_not_usable(drawn: str, monkeypatch) -> None:
    def extremes(_name, _study, store, _workers):
        for row in range(len(store)):
            shape = store.image(row).shape[:2]
            yield np.full(shape, {0: 0, 1: 255}.get(row, 100), np.uint8)

    monkeypatch.setitem(masks.SOURCES, "extreme", extremes)
    masks.make_masks(drawn, "extreme")
    usable = masks.load_masks(drawn, "extreme")[1]["usable"]
    assert usable.tolist() == [False, False] + [True] * 10


def test_a_mask_of_the_wrong_size_is_refused(drawn: str, monkeypatch) -> None:
    wrong = lambda *_: iter([np.zeros((3, 3), np.uint8)] * 12)  # noqa: E731
    monkeypatch.setitem(masks.SOURCES, "wrong", wrong)
    with pytest.raises(StudyError, match=r"mask 0 is \(3, 3\)"):
        masks.make_masks(drawn, "wrong")
    assert not (paths.StudyPaths(drawn).masks / "wrong" / "masks.json").exists()


def test_quality_by_hand() -> None:
    truth = np.zeros((2, 4), np.uint8)
    truth[0] = 255
    seen = np.array([[255, 128, 127, 0], [200, 0, 0, 0]], np.uint8)
    found = mask_quality.quality(seen, truth)
    assert found == {"iou": pytest.approx(2 / 5), "covered": pytest.approx(2 / 4)}
    assert np.isnan(mask_quality.quality(seen, truth * 0)["iou"])


def test_a_damaged_model_file_is_refused(home: Path) -> None:
    file = home / "weights" / "rembg" / "models" / "u2netp" / "u2netp.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a model")
    with pytest.raises(StudyError, match="u2netp.onnx has md5 .* expected 8e83ca70"):
        weights.mask_model("u2netp")


@pytest.mark.slow
def test_u2netp_masks_equal_rembgs_own(home: Path) -> None:
    """The model comes over the network or from its package; the pictures are rendered."""
    from rembg import new_session, remove

    prepare.prepare_images("drawn", "rendered", 40, OPTIONS)
    weights.mask_model("u2netp")
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    theirs = new_session("u2netp", providers=["CPUExecutionProvider"])
    masks.session.cache_clear()
    for file in prepare.source_files("drawn")[::4]:
        with Image.open(file) as image:
            expected = np.asarray(remove(image, only_mask=True, session=theirs)).astype(int)
            ours = np.asarray(masks.predict("u2netp", image.convert("RGB"))).astype(int)
        assert np.abs(ours - expected).max() <= 1
        assert ours.max() > 200
    masks.session.cache_clear()


@pytest.mark.slow
def test_killed_mask_chunks_go_on(drawn: str, monkeypatch) -> None:
    monkeypatch.setattr(masks, "CHUNK", 5)
    whole = masks.make_masks(drawn, "u2netp", workers=1).fingerprint
    chunks = sorted((paths.StudyPaths(drawn).scratch).glob("masks-*/*.npz"))
    assert len(chunks) == 3
    old = chunks[0].stat().st_mtime_ns
    chunks[2].unlink()  # as if killed before the last chunk
    assert masks.make_masks(drawn, "u2netp", workers=2).fingerprint == whole
    assert chunks[0].stat().st_mtime_ns == old


def test_report_rows_are_long_and_complete(drawn: str) -> None:
    masks.make_masks(drawn, "true")
    areas = masks.load_masks(drawn, "true")[1]
    scores = pd.DataFrame({"source": ["a", "a"], "image": "x", "iou": [0.5, 0.7], "covered": 1.0})
    table = mask_quality.report_rows(drawn, areas, scores)
    cell = table[(table["source"] == "a") & (table["metric"] == "iou_mean")]
    assert cell["value"].item() == pytest.approx(0.6) and cell["n"].item() == 2
    facts = read_json(paths.StudyPaths(drawn).prepared / "data.json")
    assert datasets.get(facts["dataset"]).title
    write_json(paths.StudyPaths(drawn).prepared / "data.json", facts)
