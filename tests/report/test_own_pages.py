"""Pages 01 and 02 of one's own images: what was read, what was left out, names as they are."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import digest
from lib.masks import sources
from tests.helpers import save
from tests.report import tiny

NAMES = ["$x^2$", "{0}", "a\\b", "苹果", "<b>", "c5", "c6", "c7"]


@pytest.fixture
def mine(home):
    for number, name in enumerate(NAMES):
        for i in (0, 1):
            save(home / "mine" / name / f"{i}.png", 10 * number + i)
    (home / "mine" / "c5" / "notes.txt").write_text("x")
    save(home / "mine" / ".hidden" / "x.png", 0)
    return home / "mine"


def told(**more) -> str:
    asked = {"study": "s", "dataset": "folder", "side": 20, "background_count": 3}
    asked |= {"options": {"folder": "mine", "seed": 0}, "backgrounds": "rendered"}
    return tiny.tell("01_data", **asked | more)[0]


def test_page_01_says_what_was_read_and_what_was_not(mine) -> None:
    shown = told()
    assert "publish" not in shown and "MD5" not in shown
    assert "notes.txt" in shown and ".hidden/" in shown and "hidden, or of the system" in shown
    assert "$x^2$ (2)" in shown and "&lt;b&gt; (2)" in shown and "苹果 (2)" in shown
    files = pd.read_csv(paths.StudyPaths("s").reports / "files.csv")
    assert (files["fault"] == "left out").sum() == 2


def test_pages_01_and_02_are_told_again_where_the_photographs_are_not(mine) -> None:
    """From the tables alone the same; other values need the photographs, and say so."""
    where = paths.StudyPaths("s")

    def results() -> dict[str, str]:
        told(), tiny.tell("02_masks", study="s", source="full")
        files = [file for file in where.reports.rglob("*") if file.is_file()]
        return {file.relative_to(where.reports).as_posix(): digest(file) for file in files}

    first = results()
    assert {"figures/01_data/examples_test.webp", "figures/02_masks/areas.svg"} <= set(first)
    for place in (mine, where.prepared, where.masks):
        shutil.rmtree(place)
    assert results() == first
    with pytest.raises(StudyError, match="mine"):
        told(side=21)
    with pytest.raises(StudyError, match="Run 01_data"):
        tiny.tell("02_masks", study="s", source="none")


def test_new_photographs_are_seen_by_page_01(mine) -> None:
    told()
    save(mine / "c7" / "2.png", 98)
    assert "c7 (3)" in told()


@pytest.mark.parametrize("source", ["full", "none"])
def test_page_02_says_that_no_mask_is_usable(mine, source: str) -> None:
    told()
    shown, _ = tiny.tell("02_masks", study="s", source=source)
    assert f"16 masks by `{source}`" in shown and "nan" not in shown
    assert not np.any(sources.load_masks("s", source)[1]["usable"])


def test_broken_images_left_out_on_request_are_named(mine) -> None:
    save(mine / "c5" / "2.png", 99)
    data = (mine / "c5" / "2.png").read_bytes()
    (mine / "c5" / "2.png").write_bytes(data[:300])
    Image.new("RGB", (30, 20)).save(mine / "c5" / "3.png")
    shown = told(allow_broken=True)
    assert "c5 (3)" in shown
    files = pd.read_csv(paths.StudyPaths("s").reports / "files.csv").set_index("path")
    assert files.loc["c5/2.png", "fault"] == "broken"
