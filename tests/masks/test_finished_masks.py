"""Masks and their quality: found where the request is the same; smaller inputs of models."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.core import params, paths, stage
from lib.core.errors import StudyError
from lib.data import authors_repository, prepare
from lib.masks import quality, rembg_models, sources
from tests.masks.test_masks import OPTIONS, _OneProcess, drawn  # noqa: F401 (fixture)


@pytest.fixture
def grey(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """rembg replaced: a mask is the image in grey; the names of models that were asked."""
    asked: list[str] = []

    def predict(name: str, image: Image.Image) -> Image.Image:
        asked.append(name)
        return image.convert("L")

    monkeypatch.setattr(rembg_models, "predict", predict)
    monkeypatch.setattr(rembg_models, "fetch", lambda _: None)
    monkeypatch.setattr(rembg_models.multiprocessing, "get_context", lambda _: _OneProcess)
    return asked


def test_finished_masks_are_found(drawn: str, grey: list[str]) -> None:  # noqa: F811
    first = sources.make_masks(drawn, "u2netp").fingerprint
    assert len(grey) == 12
    folder = paths.StudyPaths(drawn).scratch
    for file in folder.rglob("*.npz"):
        file.unlink()
    assert sources.make_masks(drawn, "u2netp").fingerprint == first and len(grey) == 12
    assert sources.make_masks(drawn, "u2netp", afresh=True).fingerprint == first
    assert len(grey) == 24
    sources.make_masks(drawn, "true")
    assert sources.mask_source(drawn) == "true"
    sources.make_masks(drawn, "u2netp")
    assert sources.mask_source(drawn) == "u2netp" and len(grey) == 24
    prepare.prepare_images(drawn, "rendered", 36, OPTIONS)
    sources.make_masks(drawn, "u2netp")
    assert len(grey) == 36


def test_changed_exact_masks_are_read_again(drawn: str) -> None:  # noqa: F811
    before = sources.make_masks(drawn, "true").fingerprint
    file = sources.true_files(drawn)[3]
    with Image.open(file) as mask:
        Image.new("L", mask.size, 255).save(file)
    assert sources.make_masks(drawn, "true").fingerprint != before


def test_a_source_of_ones_own_is_always_made(drawn: str, monkeypatch) -> None:  # noqa: F811
    for value in (60, 90):
        own = sources.Source("own", sources._constant(value))
        monkeypatch.setitem(sources.SOURCES, "own", own)
        assert sources.make_masks(drawn, "own").image(0)[0, 0] == value


def test_swapped_originals_are_refused(drawn: str, grey: list[str]) -> None:  # noqa: F811
    one, other = prepare.original_files(drawn)[1:3]
    pixels = one.read_bytes(), other.read_bytes()
    one.write_bytes(pixels[1])
    other.write_bytes(pixels[0])
    with pytest.raises(StudyError, match=one.name):
        sources.make_masks(drawn, "u2netp")


@pytest.fixture
def labelled(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two hand-labelled images of birds, at hand in a mirror."""
    folder = home / "mirror" / "mask_quality" / "cub200"
    folder.mkdir(parents=True)
    for name, upto in (("7", 10), ("8", 20)):
        image = np.zeros((20, 30, 3), np.uint8)
        image[:, :10] = 255
        truth = np.zeros((20, 30), np.uint8)
        truth[:, :upto] = 255
        Image.fromarray(image).save(folder / f"{name}_image.png")
        Image.fromarray(truth).save(folder / f"{name}_mask.png")
        Image.fromarray(truth).save(folder / f"{name}_mask_pred.png")
    monkeypatch.setenv("DATA_MIRROR", str(home / "mirror"))
    return folder


def test_quality_is_kept_and_read(drawn: str, labelled: Path, grey: list[str]) -> None:  # noqa: F811
    sources.make_masks(drawn, "u2netp@224")
    del grey[:]
    made = quality.table(drawn, "u2netp@224", [])
    assert grey == ["u2netp"] * 2 + ["u2netp@224"] * 2
    again = quality.table(drawn, "u2netp@224", [])
    pd.testing.assert_frame_equal(made, again)
    assert len(grey) == 4
    assert (paths.StudyPaths(drawn).masks / "quality.csv").exists()
    found = quality.beside_rembg(made, "u2netp@224")
    assert found == {"model": "u2netp", "n": 2, "own": 0.75, "rembg": 0.75}
    assert quality.beside_rembg(made, "u2netp") == {}
    assert len(made[made["dataset"] == "rendered"]) == 12
    (labelled / "8_mask.png").unlink()
    quality.table(drawn, "u2netp@224", [])
    assert len(grey) == 6


def test_a_source_of_rembgs_own_size_is_not_compared(drawn: str, labelled: Path) -> None:  # noqa: F811
    sources.make_masks(drawn, "true")
    scores = quality.table(drawn, "true", [])
    assert set(scores["source"]) == {"true"} and scores["iou"].eq(1).all()


def test_examples_by_hand_are_those_that_were_scored(
    drawn: str,  # noqa: F811
    labelled: Path,
    grey: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quality, "about", lambda _: {"dataset": "cub200"})
    sources.make_masks(drawn, "u2netp")
    scores = quality.table(drawn, "u2netp", [])
    del grey[:]
    worst, _, best = quality.examples(drawn, scores, "u2netp")
    assert not grey and (worst["iou"], best["iou"]) == (0.5, 1.0)
    assert quality.quality(worst["mask"], worst["truth"])["iou"] == 0.5
    assert len(authors_repository.hand_masks("cub200")) == 2


def test_names_of_smaller_inputs() -> None:
    assert rembg_models.model_and_side("u2net") == ("u2net", 0)
    assert rembg_models.model_and_side("u2netp@224") == ("u2netp", 224)
    for name in ("u2netp@", "u2netp@225", "u2netp@32", "u2netp@-224", "u2netp@a"):
        with pytest.raises(StudyError, match="multiple of 32"):
            sources.get(name)
    with pytest.raises(StudyError, match="unknown mask source 'u3net@224'"):
        sources.get("u3net@224")
    source, steps = sources.get("u2netp@224+eroded")
    assert source.make is rembg_models.rembg_masks and steps == ["eroded"]
    assert quality.compared("u2netp@224+eroded", []) == ["u2netp", "u2netp@224"]
    assert quality.compared("u2netp@224", ["u2net"]) == ["u2net", "u2netp", "u2netp@224"]
    assert quality.compared("true", ["u2net"]) == ["u2net"]


@pytest.mark.slow
def test_a_smaller_input_is_coarser_and_the_same_on_any_number_of_workers(drawn: str) -> None:  # noqa: F811
    one = sources.make_masks(drawn, "u2netp@96", workers=1).fingerprint
    for file in paths.StudyPaths(drawn).scratch.rglob("*.npz"):
        file.unlink()
    assert sources.make_masks(drawn, "u2netp@96", workers=2, afresh=True).fingerprint == one
    assert rembg_models.session("u2netp@96").inner_session._run.input().shape == [1, 3, 96, 96]
    rembg_models.session.cache_clear()


@pytest.mark.parametrize("study", [s for s in params.everything()["studies"] if s != "dial"])
def test_the_step_takes_what_params_gives(study: str) -> None:
    assert stage.given(quality.measure, "masks", study)["study"] == study
