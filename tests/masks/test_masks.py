import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import read_json, write_json
from lib.data import datasets, prepare
from lib.data.store import Store, open_image
from lib.masks import quality, rembg_models, sources
from lib.masks.transforms import REACH, TRANSFORMS
from tests.data.test_data import make_cub

OPTIONS = {"seed": 0, "bias": 1.0, "test_bias": 1.0, "images_per_class": 2, "side": 48}
OPTIONS["classes"] = {"train": 2, "val": 2, "test": 2}


@pytest.fixture
def drawn(home: Path) -> str:
    """A rendered study of twelve small pictures, prepared."""
    prepare.prepare_images("drawn", "rendered", 40, OPTIONS)
    return "drawn"


def test_true_masks_follow_the_store(drawn: str) -> None:
    made = sources.make_masks(drawn, "true")
    store = Store.open(paths.StudyPaths(drawn).prepared / "images")
    assert len(made) == len(store) == 12
    for row in range(12):
        assert made.image(row).shape == store.image(row).shape[:2]
    areas = sources.load_masks(drawn, "true")[1]
    assert areas["usable"].all() and areas["area"].between(0.05, 0.6).all()


def test_exact_masks_show_worst_median_and_best(drawn: str) -> None:
    sources.make_masks(drawn, "true+eroded")
    scores = quality.against_true(drawn, "true+eroded")
    shown = quality.summary(scores)
    worst = shown.loc[("rendered", "true+eroded"), ("IoU ↑", "worst")]
    found = quality.examples(drawn, scores, "true+eroded")
    assert [entry["rule"] for entry in found] == ["worst", "median", "best"]
    assert found[0]["iou"] == scores["iou"].min() == worst < found[2]["iou"]
    for entry in found:
        again = quality.quality(entry["mask"], entry["truth"])["iou"]
        assert again == entry["iou"] and entry["image"].shape[:2] == entry["truth"].shape
    assert quality.examples(drawn, scores, "u2net") == []


@pytest.mark.fault(
    "disk/masks-other",
    "masks of other pictures",
    "01_data run again at another size",
    "refused; says that 02_masks must run again",
)
def test_masks_of_other_images_are_refused(drawn: str) -> None:
    sources.make_masks(drawn, "true")
    prepare.prepare_images(drawn, "rendered", 38, OPTIONS)
    with pytest.raises(StudyError, match="made for other images"):
        sources.load_masks(drawn, "true")


@pytest.mark.fault(
    "parameters/mask-order",
    "a notebook run before its inputs exist",
    "inputs of each notebook absent",
    "says which notebook to run first",
)
def test_no_masks_yet_says_which_notebook_to_run(drawn: str) -> None:
    with pytest.raises(StudyError, match="Run 02_masks for study drawn"):
        sources.load_masks(drawn, "u2netp")


def test_an_unknown_source_lists_the_known(drawn: str) -> None:
    with pytest.raises(StudyError, match="known: u2net, u2netp, true, box, full, none and rembg"):
        sources.make_masks(drawn, "u3net")


@pytest.mark.fault(
    "data/mask-empty",
    "empty and full masks",
    "masks of 0 and of 1",
    "the picture keeps its own background; counted on the page",
)
def test_empty_and_full_masks_are_not_usable(drawn: str, monkeypatch) -> None:
    def extremes(_name, _study, store, _workers):
        for row in range(len(store)):
            shape = store.image(row).shape[:2]
            yield np.full(shape, {0: 0, 1: 255}.get(row, 100), np.uint8)

    monkeypatch.setitem(sources.SOURCES, "extreme", sources.Source("extreme", extremes))
    sources.make_masks(drawn, "extreme")
    usable = sources.load_masks(drawn, "extreme")[1]["usable"]
    assert usable.tolist() == [False, False] + [True] * 10


@pytest.mark.fault(
    "data/mask-size",
    "mask of the wrong size",
    "a source that gives masks turned by 90 degrees",
    "refused, both sizes named",
)
def test_a_mask_of_the_wrong_size_is_refused(drawn: str, monkeypatch) -> None:
    wrong = lambda *_: iter([np.zeros((3, 3), np.uint8)] * 12)  # noqa: E731
    monkeypatch.setitem(sources.SOURCES, "wrong", sources.Source("wrong", wrong))
    with pytest.raises(StudyError, match=r"mask 0 is \(3, 3\)"):
        sources.make_masks(drawn, "wrong")
    assert not (paths.StudyPaths(drawn).masks / "wrong" / "masks.json").exists()


def test_quality_by_hand() -> None:
    truth = np.zeros((2, 4), np.uint8)
    truth[0] = 255
    seen = np.array([[255, 128, 127, 0], [200, 0, 0, 0]], np.uint8)
    found = quality.quality(seen, truth)
    assert found == {"iou": pytest.approx(2 / 5), "covered": pytest.approx(2 / 4)}
    assert np.isnan(quality.quality(seen, truth * 0)["iou"])


@pytest.mark.fault(
    "disk/mask-model",
    "damaged model of the masks",
    "one changed byte",
    "refused by its md5, file named",
)
def test_a_damaged_model_file_is_refused(home: Path) -> None:
    file = home / "weights" / "rembg" / "models" / "u2netp" / "u2netp.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a model")
    with pytest.raises(StudyError, match="u2netp.onnx has md5 .* expected 8e83ca70"):
        rembg_models.mask_model("u2netp")


@pytest.mark.slow
def test_u2netp_masks_equal_rembgs_own(home: Path) -> None:
    """The model comes over the network or from its package; the pictures are rendered."""
    from rembg import new_session, remove

    prepare.prepare_images("drawn", "rendered", 40, OPTIONS)
    rembg_models.mask_model("u2netp")
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    theirs = new_session("u2netp", providers=["CPUExecutionProvider"])
    rembg_models.session.cache_clear()
    for file in prepare.source_files("drawn")[::4]:
        with Image.open(file) as image:
            expected = np.asarray(remove(image, only_mask=True, session=theirs)).astype(int)
            ours = np.asarray(rembg_models.predict("u2netp", image.convert("RGB"))).astype(int)
        assert np.abs(ours - expected).max() <= 1
        assert ours.max() > 200
    engine = rembg_models.session("u2netp").inner_session._run
    assert not engine.get_property("ENABLE_CPU_PINNING")  # else all workers share one core
    rembg_models.session.cache_clear()


@pytest.mark.fault(
    "killed/masks",
    "masking killed",
    "stopped between two chunks",
    "goes on where it stopped; the same masks",
)
@pytest.mark.slow
def test_killed_mask_chunks_go_on(drawn: str, monkeypatch) -> None:
    monkeypatch.setattr(rembg_models, "CHUNK", 5)
    whole = sources.make_masks(drawn, "u2netp", workers=1).fingerprint
    chunks = sorted((paths.StudyPaths(drawn).scratch).glob("masks-*/*.npz"))
    assert len(chunks) == 3
    old = chunks[0].stat().st_mtime_ns
    chunks[2].unlink()  # as if killed before the last chunk
    assert sources.make_masks(drawn, "u2netp", workers=2).fingerprint == whole
    assert chunks[0].stat().st_mtime_ns == old


def test_report_rows_are_long_and_complete(drawn: str) -> None:
    sources.make_masks(drawn, "true")
    areas = sources.load_masks(drawn, "true")[1]
    scores = pd.DataFrame({"source": ["a", "a"], "image": "x", "iou": [0.5, 0.7], "covered": 1.0})
    scores["dataset"] = "cub200"
    table = quality.report_rows(drawn, areas, scores)
    cell = table[(table["source"] == "a") & (table["metric"] == "iou_mean")]
    assert cell["value"].item() == pytest.approx(0.6) and cell["n"].item() == 2
    facts = read_json(paths.StudyPaths(drawn).prepared / "data.json")
    assert datasets.get(facts["dataset"]).title
    write_json(paths.StudyPaths(drawn).prepared / "data.json", facts)


def test_transforms_follow_a_source(drawn: str) -> None:
    plain = sources.make_masks(drawn, "true")
    areas = {"true": sources.load_masks(drawn, "true")[1]["area"]}
    for step in ("eroded", "dilated", "binarised"):
        made = sources.make_masks(drawn, f"true+{step}")
        areas[step] = sources.load_masks(drawn, f"true+{step}")[1]["area"]
        np.testing.assert_array_equal(made.image(3), TRANSFORMS[step](plain.image(3)))
    assert (areas["eroded"] < areas["true"]).all() and (areas["dilated"] > areas["true"]).all()
    assert set(np.unique(made.image(3))) == {0, 255}
    twice = sources.make_masks(drawn, "true+eroded+dilated").image(3)
    np.testing.assert_array_equal(
        twice, TRANSFORMS["dilated"](TRANSFORMS["eroded"](plain.image(3)))
    )
    with pytest.raises(StudyError, match="unknown transform 'shrunk'; known: eroded"):
        sources.make_masks(drawn, "true+shrunk")


def test_transforms_against_a_slow_loop() -> None:
    mask = np.zeros((40, 52), np.uint8)
    mask[10:22, 20:41] = np.linspace(100, 255, 21)
    mask[0, 0] = 77
    reach = round(REACH * 40)
    assert reach == 1
    slow = {"eroded": mask.copy(), "dilated": mask.copy()}
    for y in range(40):
        for x in range(52):
            near = [mask[y, x]] + [
                mask[min(max(y + dy, 0), 39), min(max(x + dx, 0), 51)]
                for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1))
            ]
            slow["eroded"][y, x], slow["dilated"][y, x] = min(near), max(near)
    for step, expected in slow.items():
        np.testing.assert_array_equal(TRANSFORMS[step](mask), expected)


def test_full_and_none_leave_every_picture_as_it_is(drawn: str) -> None:
    for source, value in (("full", 255), ("none", 0)):
        made = sources.make_masks(drawn, source)
        assert set(np.unique(made.image(2))) == {value}
        assert not sources.load_masks(drawn, source)[1]["usable"].any()


@pytest.mark.fault(
    "data/mask-all-empty",
    "only empty masks",
    "a source that finds nothing",
    "refused in words",
)
def test_a_source_without_a_single_object_is_refused(drawn: str, monkeypatch) -> None:
    empty = sources.Source("empty", sources._constant(0))
    monkeypatch.setitem(sources.SOURCES, "blank", empty)
    with pytest.raises(StudyError, match="not one of the 12 masks of blank"):
        sources.make_masks(drawn, "blank")


def test_published_segmentations_are_true_masks(home: Path) -> None:
    make_cub(home / "raw" / "cub200")
    root = home / "raw" / "cub200" / "segmentations"
    for file in (home / "raw" / "cub200" / "CUB_200_2011" / "images").rglob("*.jpg"):
        mask = np.zeros((30, 40), np.uint8)
        mask[5:20, 8:30] = 255
        target = root / file.parent.name / f"{file.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(target)
    prepare.prepare_images("birds", "cub200", 30)
    made = sources.make_masks("birds", "true")
    assert len(made) == 400
    np.testing.assert_array_equal(made.image(7), mask)
    target.unlink()
    with pytest.raises(StudyError, match=f"{target.name} does not exist"):
        sources.make_masks("birds", "true")


@pytest.mark.fault(
    "disk/mask-chunk",
    "damaged half-done masks",
    "one flipped bit in a chunk",
    "refused, file named",
)
def test_a_damaged_chunk_is_named(drawn: str, monkeypatch) -> None:
    def fake(_name: str, image: Image.Image) -> Image.Image:
        return image.convert("L")

    monkeypatch.setattr(rembg_models, "predict", fake)
    monkeypatch.setattr(rembg_models, "mask_model", lambda _: Path(__file__))
    monkeypatch.setattr(rembg_models.multiprocessing, "get_context", lambda _: _OneProcess)
    sources.make_masks(drawn, "u2netp", workers=1)
    (chunk,) = (paths.StudyPaths(drawn).scratch).glob("masks-*/*.npz")
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StudyError, match=f"{chunk.name} is damaged"):
        sources.make_masks(drawn, "u2netp", workers=1, afresh=True)


class _OneProcess:
    """A pool that works in this process."""

    class Pool:
        def __init__(self, _workers: int):
            pass

        def __enter__(self) -> "_OneProcess.Pool":
            return self

        def __exit__(self, *_error: object) -> None:
            pass

        def imap(self, function, jobs, chunksize=1):
            return map(function, jobs)


REAL = Path(os.environ.get("DATA_MIRROR", "nowhere")) / "mask_quality" / "cub200"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="DATA_MIRROR names no folder with hand-made masks")
def test_on_real_photographs_masks_equal_rembgs_own(home: Path) -> None:
    from rembg import new_session, remove

    rembg_models.mask_model("u2netp")
    theirs = new_session("u2netp", providers=["CPUExecutionProvider"])
    for file in sorted(REAL.glob("*_image.*"))[:4]:
        with Image.open(file) as image:
            expected = np.asarray(remove(image, only_mask=True, session=theirs)).astype(int)
        ours = np.asarray(rembg_models.predict("u2netp", open_image(file))).astype(int)
        assert np.abs(ours - expected).max() <= 1
        same = np.asarray(rembg_models.predict("u2netp@320", open_image(file))).astype(int)
        np.testing.assert_array_equal(same, ours)  # 320 is the model's own side
    rembg_models.session.cache_clear()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="DATA_MIRROR names no folder with hand-made masks")
def test_quality_on_the_papers_birds_is_what_the_paper_says(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("DATA_MIRROR", str(REAL.parents[1]))
    scores = quality.against_hand([], home)
    mean = scores.groupby("dataset")["iou"].mean()
    assert mean["cub200"] == pytest.approx(0.837, abs=0.002)
    assert mean["cars196"] == pytest.approx(0.967, abs=0.002)
    assert mean["sop"] == pytest.approx(0.852, abs=0.002)
