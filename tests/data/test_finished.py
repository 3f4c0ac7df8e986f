"""Finished work: found where request and files are the same, done again where anything differs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.core import params, paths, stage
from lib.core.errors import DamagedFile, StudyError
from lib.data import backgrounds, prepare
from lib.data.store import Store, write_store
from tests.data.test_readers import make_own
from tests.faults.damage import flip
from tests.helpers import save


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded for the images or the backgrounds, in the order of decoding."""
    seen: list[Path] = []
    look, shrink = prepare.look, backgrounds.decode_all

    def decode_all(files: list[Path], *more: object) -> object:
        seen.extend(files)
        return shrink(files, *more)

    monkeypatch.setattr(prepare, "look", lambda file, side: seen.append(file) or look(file, side))
    monkeypatch.setattr(backgrounds, "decode_all", decode_all)
    return seen


def images(**changed: object) -> Store:
    asked = {"side": 20, "options": {"folder": "mine"}, "allow_broken": False} | changed
    return prepare.prepare_images("s", "folder", **asked)


def test_the_same_request_is_not_worked_on_twice(home: Path, looked: list[Path]) -> None:
    make_own(home / "mine")
    first = images()
    del looked[:]
    assert images().fingerprint == first.fingerprint and not looked
    assert images(afresh=True).fingerprint == first.fingerprint and len(looked) == 16


@pytest.mark.parametrize(
    "changed",
    [{"side": 21}, {"options": {"folder": "mine", "seed": 1}}, {"allow_broken": True}],
)
def test_another_request_is(home: Path, looked: list[Path], changed: dict) -> None:
    make_own(home / "mine")
    images()
    del looked[:]
    images(**changed)
    assert len(looked) == 16
    images()  # and the first one again: what lies there now is the other's
    assert len(looked) == 32


def _rename(folder: Path) -> None:
    file = next(folder.glob("class 3/*"))
    file.rename(file.with_stem("z"))


def _enlarge(folder: Path) -> None:
    save(next(folder.glob("class 3/*")), 5, (60, 50))


def _relabel(folder: Path) -> None:
    (folder / "class 3").rename(folder / "class x")


@pytest.mark.parametrize("change", [_rename, _enlarge, _relabel])
def test_other_files_are_seen(home: Path, looked: list[Path], change: Callable) -> None:
    make_own(home / "mine")
    images()
    del looked[:]
    change(home / "mine")
    images()
    assert len(looked) == 16


@pytest.mark.parametrize("name", ["images/pixels.u8", "images/store.json", "data.json"])
def test_damaged_work_is_done_again(home: Path, looked: list[Path], name: str) -> None:
    make_own(home / "mine")
    first = images()
    flip(paths.StudyPaths("s").prepared / name)
    del looked[:]
    assert images().fingerprint == first.fingerprint and len(looked) == 16


def test_backgrounds_are_found_too(home: Path, looked: list[Path]) -> None:
    for k in range(9):
        save(home / "places" / f"{k}.png", k)
    first = backgrounds.prepare_backgrounds("s", "places", 0, 0, 20)
    del looked[:]
    again = backgrounds.prepare_backgrounds("s", "places", 0, 0, 20)
    assert again.fingerprint == first.fingerprint and not looked
    assert len(backgrounds.prepare_backgrounds("s", "places", 2, 0, 20)) == 6 and len(looked) == 6
    backgrounds.prepare_backgrounds("s", "places", 2, 0, 20, afresh=True)
    assert len(looked) == 12


def test_a_count_is_the_first_of_every_pool_by_name(home: Path) -> None:
    for part in ("train", "test"):
        for k in range(10):
            save(home / "raw" / "backgrounds" / part / f"{k}.png", k)
    whole = backgrounds.pools("unsplash", 0, 0, 20)
    assert backgrounds.pools("unsplash", 10, 0, 20) == whole  # the largest pool has ten
    few = backgrounds.pools("unsplash", 3, 0, 20)
    assert [file.name for file in few["train"]] == ["0.png", "1.png", "2.png"]
    assert [file.name for file in few["validation"]] == ["4.png", "9.png"]
    assert few["test"] == whole["test"][:3]
    drawn = backgrounds.pools("rendered", 2, 0, 20)
    assert [len(files) for files in drawn.values()] == [2, 2, 2]
    for source, count in (("unsplash", 11), ("unsplash", -1), ("rendered", 0)):
        with pytest.raises(StudyError, match=f"background_count is {count}"):
            backgrounds.pools(source, count, 0, 20)


def test_every_figure_in_a_stores_facts_is_sealed(home: Path) -> None:
    store = write_store(home / "s", pd.DataFrame({"path": ["a"]}), [np.zeros((4, 6, 3), "uint8")])
    file = home / "s" / "store.json"
    facts = json.loads(file.read_text())
    for name, value in facts.items():
        other = value + 1 if isinstance(value, int) else value[::-1]
        file.write_text(json.dumps(facts | {name: other}))
        with pytest.raises(DamagedFile, match=r"store\.json"):
            Store.open(home / "s")
    file.write_text(json.dumps(facts, indent=4))  # white space is no fact
    assert Store.open(home / "s").fingerprint == store.fingerprint


@pytest.mark.fault(
    "data/swapped",
    "two images swapped, or one changed, between 01_data and 02_masks",
    "files renamed crosswise; a pixel changed",
    "refused, file named",
)
@pytest.mark.parametrize("how", ["swapped", "changed", "gone"])
def test_files_that_are_not_the_stored_ones_are_named(home: Path, how: str) -> None:
    make_own(home / "mine")
    images()
    files = prepare.source_files("s")
    if how == "swapped":
        files[4].rename(home / "x.png")
        files[9].rename(files[4])
        (home / "x.png").rename(files[9])
    elif how == "changed":
        with Image.open(files[4]) as image:
            image.putpixel((1, 2), (0, 0, 0))
            image.save(files[4])
    else:
        files[4].unlink()
    with pytest.raises(StudyError) as caught:
        prepare.source_files("s")
    assert str(files[4]) in str(caught.value) and "01_data" in str(caught.value)


@pytest.mark.parametrize("study", [s for s in params.everything()["studies"] if s != "dial"])
def test_the_step_takes_what_params_gives(study: str) -> None:
    assert stage.given(prepare.measure, "data", study)["study"] == study


def test_the_measuring_step_prepares_a_study(home: Path, monkeypatch, looked: list[Path]) -> None:
    make_own(home / "mine")
    section = {"dataset": "folder", "side": 20, "backgrounds": "rendered", "background_count": 2}
    section["options"] = {"folder": "mine"}
    monkeypatch.setattr(params, "section", lambda study, part: section)
    for _ in range(2):
        assert stage.main(prepare.measure, "data", ["--study", "s"]) == 0
    assert len(looked) == 2 * (16 + 6)  # always afresh
    before = {f: f.read_bytes() for f in paths.StudyPaths("s").prepared.rglob("*") if f.is_file()}
    images()
    backgrounds.prepare_backgrounds("s", "rendered", 2, 0, 20)
    assert len(looked) == 2 * (16 + 6)
    assert before == {file: file.read_bytes() for file in before}


def test_drawn_backgrounds_stand_in_where_none_can_be_fetched(home: Path, monkeypatch) -> None:
    store = backgrounds.prepare_backgrounds("s", "nowhere or rendered", 2, seed=0, side=20)
    assert backgrounds.source_of("s") == "rendered" and len(store) == 6
    for k in range(9):
        save(home / "nowhere" / f"{k}.png", k)
    same = backgrounds.prepare_backgrounds("s", "nowhere or rendered", 2, seed=0, side=20)
    assert same.fingerprint == store.fingerprint  # a page tells what was measured
    backgrounds.prepare_backgrounds("s", "nowhere or rendered", 2, seed=0, side=20, afresh=True)
    assert backgrounds.source_of("s") == "nowhere"
    with pytest.raises(StudyError, match="no background photographs in .*else"):
        backgrounds.prepare_backgrounds("s", "elsewhere", 2, seed=0, side=20)
