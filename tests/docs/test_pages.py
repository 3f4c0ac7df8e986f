"""The pages of docs/ do what they say: their code is taken from them and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from lib.core import paths
from lib.data import datasets
from lib.data.drawn.dataset import render_dataset
from lib.data.store import Store
from lib.masks import sources, transforms
from tests.helpers import DOCS, ROOT, blocks, lost, run, save, text_of
from tests.pipeline.tiny_study import tracked

OPENING = ("README", "CONTRIBUTING", "CHANGELOG")

PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / f"{name}.md" for name in OPENING)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_links_to_files_that_exist(page: Path) -> None:
    assert lost(page) == []


def test_lost_links_and_files_are_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text(
        "[a](a.md) [b](b.md#x) [c](https://c) [d](#d) `lib/training/trainer.py` `lib/gone.py`"
    )
    assert lost(page) == ["b.md", "lib/gone.py"]


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = set(re.findall(r"\]\((.+?\.md)\)", text_of("README.md")))
    assert listed == {page.name for page in DOCS.glob("*.md")} - {"README.md"}


def test_a_first_change_asks_what_the_page_answers() -> None:
    """Its code is run on the committed birds; the table on the page is what comes out."""
    table = run("first-change.md")["first_hit"]
    text = text_of("first-change.md")
    rows = dict(re.findall(r"^\| (\w+) \| (\d+% \| \d+% \| \d+%) \|$", text, re.M))
    assert set(rows) == set(table.index)
    for arm, values in table.iterrows():
        assert rows[arm] == " | ".join(f"{value:.0%}" for value in values)


@pytest.fixture
def flowers(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The data set of the page, added as the page says and prepared."""
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))
    for label in range(1, 11):
        for k in range(2):
            path = home / "raw" / "flowers" / "jpg" / str(label) / f"{k}.png"
            save(path, 10 * label + k, (48, 36))
    return run("add-a-data-set.md")


def test_add_a_data_set(flowers: dict) -> None:
    store = flowers["store"]
    assert len(store) == 20 and store.index["class_name"][19] == "flower 8"
    counts = store.index.groupby("split")["label"].nunique().to_dict()
    assert counts == {"train": 4, "validation": 2, "test": 4}


def test_add_a_mask_source(flowers: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SOURCES", dict(sources.SOURCES))
    monkeypatch.setattr(transforms, "TRANSFORMS", transforms.TRANSFORMS)
    try:
        made = run("add-a-mask-source.md")["masks"]
    finally:
        transforms.TRANSFORMS.pop("mirrored", None)
    mask = made.image(0)
    assert mask.shape == (32, 42) and mask[16, 21] == 255 and mask[0, 0] == 0
    eroded = Store.open(paths.StudyPaths("my-study").masks / "middle+mirrored+eroded").image(0)
    assert 0 < (eroded == 255).sum() < (mask == 255).sum()


@pytest.mark.fault(
    "foreign/own-names",
    "HTML in a class name",
    "folders called 'my <b>class 0'",
    "text on every page",
)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ones_own_photographs_go_through_both_notebooks(tmp_path: Path) -> None:
    """No code is edited: pictures are put into data/own, and the page's commands are run."""

    for name in tracked():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(paths.ROOT / name, target)
    sizes = {"train": 2, "val": 2, "test": 4}
    render_dataset(
        tmp_path / "drawn", seed=0, bias=0.5, test_bias=0.5, classes=sizes, images_per_class=2,
        side=96,
    )  # fmt: skip
    for row in pd.read_csv(tmp_path / "drawn" / "index.csv").itertuples():
        target = tmp_path / "data" / "own" / f"my <b>class {row.label}" / Path(row.path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tmp_path / "drawn" / "images" / row.path, target)
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    start = text.index("\n  own:")  # its place for backgrounds is the network
    changed = text[:start] + text[start:].replace("unsplash", "rendered", 1)
    assert changed != text
    (tmp_path / "params.yaml").write_text(changed, encoding="utf-8")
    weights = paths.WEIGHTS / "rembg"
    if weights.exists():  # else the model is fetched
        shutil.copytree(weights, tmp_path / "data" / "weights" / "rembg", dirs_exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_DISABLE_JIT": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    (commands,) = blocks("own-photographs.md", "bash")
    done = subprocess.run(
        ["bash", "-e"], input=commands, text=True, cwd=tmp_path, env=environment,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    reports = tmp_path / "reports" / "own"
    table = pd.read_csv(reports / "data.csv").set_index("split")
    assert table["classes"].to_dict() == {"train": 2, "validation": 2, "test": 4}
    shares = pd.read_csv(reports / "masks.csv")
    assert shares.loc[shares["metric"] == "area_mean", "value"].between(0.02, 0.8).all()
    page = (reports / "01_data.html").read_text(encoding="utf-8")
    assert "<b>class" not in page  # a name is shown as text, never as HTML


def test_every_table_and_column_is_explained() -> None:
    text = text_of("read-the-tables.md")
    shared = text.split("| file | one row |")[0]
    lines = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    tables = sorted(paths.REPORTS.glob("*/*.csv"))
    assert len(tables) > 10
    for table in tables:
        assert table.name in lines, f"{table.name} is not on the page"
        for column in pd.read_csv(table, nrows=0).columns:
            known = f"`{column}`" in lines[table.name] or f"`{column}`" in shared
            assert known, f"{table.parent.name}/{table.name}: column {column}"
