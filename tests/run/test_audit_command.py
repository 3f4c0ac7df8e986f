"""The commands audit and embed: what they write, and their exit status."""

import json
import shutil
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from lib.core import paths
from lib.evaluation import remedies
from lib.execute import kernel
from lib.execute.notebook import execute
from lib.execute.parameters import declared_parameters
from lib.experiments.audit import Asked, name_of
from lib.run import audit, embed
from tests.experiments import small_audit
from tests.experiments.small_audit import catalogue, photographs
from tests.helpers import run

NOTEBOOK = paths.NOTEBOOKS / "09_audit.ipynb"


@pytest.fixture
def flags(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line for a tiny catalogue and the model that sees places only."""
    monkeypatch.setattr(remedies, "predicted", small_audit.predicted)
    catalogue(home / "shop")
    backgrounds = photographs(home / "photographs")
    return [
        "--model", f"{small_audit.MODULE}:border", "--images", str(home / "shop"), "--size",
        str(small_audit.SIDE), "--masks", "true", "--backgrounds", str(backgrounds), "--draws", "1",
    ]  # fmt: skip


QUICK = ["--reference", "", "--remedies", "", "--attention", "none"]
QUICK += ["--conditions", "clean,random_background"]


def test_an_audit_writes_its_page_and_says_where(flags, home: Path, capsys) -> None:
    assert audit.main([*flags, *QUICK, "--name", "mine"]) == 0
    folder = home / "reports" / "audit" / "mine"
    assert {file.name for file in folder.iterdir()} == {"index.html", "audit.json"}
    said = capsys.readouterr().out
    numbers = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert said.splitlines()[0] == numbers["sentences"][0] and str(folder) in said


@pytest.mark.parametrize(("limit", "status"), [("0.01", 1), ("1", 0), ("1.5", 2)])
def test_the_exit_status_is_for_machines(flags, limit: str, status: int) -> None:
    assert audit.main([*flags, *QUICK, "--fail-above", limit]) == status


@pytest.mark.parametrize(
    "wrong",
    [
        ["--images", "/no/such/folder"],
        ["--model", "no-such-model"],
        ["--images", "demo", "--gallery", "shop"],
        ["--conditions", "clean"],
        ["--remedies", "nothing"],
        ["--mean", "104,117,128"],
    ],
)
def test_wrong_input_is_told_in_words(flags, wrong: list[str], capsys) -> None:
    assert audit.main([*flags, *QUICK, *wrong]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told and len(told.split()) > 5


def test_every_field_has_a_flag_and_the_notebook_the_same_defaults() -> None:
    given = vars(audit.parser().parse_args([]))
    cells = declared_parameters(nbformat.read(NOTEBOOK, as_version=4))
    for name, default in vars(Asked()).items():
        assert given[name] == default, name
        shown = cells[name].default
        if name != "masks":  # the notebook takes the fast ones
            assert (tuple(shown) if isinstance(shown, list) else shown) == default, name
    assert set(cells) == {*vars(Asked()), "name"}


@pytest.mark.parametrize(
    ("model", "images", "name"),
    [
        ("/some/where/net.onnx", "/my/photos/", "net.onnx-photos"),
        ("timm:resnet50", "demo", "timm-resnet50-demo"),
        ("study:demo/triplet/base/0", "a b/c$", "study-demo-triplet-base-0-c"),
    ],
)
def test_a_page_is_called_by_its_model_and_images(model: str, images: str, name: str) -> None:
    assert name_of(Asked(model=model, images=images)).startswith(name)


def test_two_folders_or_files_of_one_name_have_two_pages(tmp_path: Path) -> None:
    files = [tmp_path / part / "net.onnx" for part in "ab"]
    for file in files:
        file.parent.mkdir()
        file.touch()
    asked = [Asked(model=str(m), images=str(tmp_path / p)) for m in files for p in ("a/x", "b/x")]
    assert len({name_of(one) for one in asked}) == 4
    assert len({name_of(Asked(images="a/x", gallery=g)) for g in ("", "b/x", "c/x")}) == 3


def test_vectors_are_written_with_path_label_and_condition(
    flags, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "vectors.parquet"
    names = ["--conditions", "clean,random_background", "--draws", "2", "--out", str(out)]
    assert embed.main([*flags, *names]) == 0
    table = pd.read_parquet(out)
    assert list(table) == ["path", "label", "condition", "draw", "vector"]
    assert len(table) == 24 * 3 and set(table["condition"]) == {"clean", "random_background"}
    assert (home / "shop" / table["path"][5]).exists() and table["label"][5] == "class 1"
    vectors = np.stack(table["vector"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    clean = table[table["condition"] == "clean"]
    assert len(clean) == 24
    drawn = vectors[table["condition"] == "random_background"]
    assert not np.allclose(drawn[:24], drawn[24:])
    monkeypatch.chdir(tmp_path)
    alike = run("embed.md")["alike"]
    np.testing.assert_allclose(alike, vectors[:24] @ vectors[:24].T, atol=1e-6)


def test_clean_vectors_need_no_masks_and_take_every_split(flags, home: Path, tmp_path) -> None:
    table = pd.read_csv(home / "shop" / "labels.csv")
    table["split"] = ["train"] * 8 + ["test"] * 16
    table.to_csv(home / "shop" / "labels.csv", index=False)
    out = tmp_path / "vectors.parquet"
    flags[flags.index("true")] = "no-such-source"
    assert embed.main([*flags, "--out", str(out)]) == 0
    assert len(pd.read_parquet(out)) == 24
    assert embed.main([*flags, "--out", str(tmp_path / "vectors.csv")]) == 2


def test_vectors_say_what_was_left_out_and_refuse_places_that_nobody_lends(
    flags, home: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    monkeypatch.setenv("STUDY_PROGRESS", str(said))
    broken = sorted((home / "shop" / "images").rglob("*.png"))[0]
    broken.write_bytes(b"no image")
    out = tmp_path / "vectors.parquet"
    for _ in range(2):  # the second finds the store
        assert embed.main([*flags, "--out", str(out)]) == 0
        assert "class 0/0.png" in said.read_text(encoding="utf-8")
        said.unlink()
    assert len(pd.read_parquet(out)) == 23
    assert embed.main([*flags, "--conditions", "unshared_background", "--out", str(out)]) == 2
    assert "other_class_background" in capsys.readouterr().err
    assert len(pd.read_parquet(out)) == 23


def test_make_hands_names_with_spaces_on() -> None:
    command = ["make", "-n", "audit", "MODEL=timm:a", "IMAGES=my photographs", "GALLERY=c d"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    for part in ('--model "timm:a"', '--images "my photographs"', '--gallery "c d"'):
        assert part in done.stdout


@pytest.mark.slow
def test_the_notebook_runs(flags, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of its own, on a copy of the code, so that nothing is written beside ours."""
    ours, copy = paths.LIB.parent, home / "copy"
    for name in ("lib", "notebooks"):
        shutil.copytree(ours / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ours / "params.yaml", copy)
    monkeypatch.setattr(kernel, "ROOT", copy)
    monkeypatch.setenv("PYTHONPATH", str(ours))  # for the model, which lies in the tests
    given = dict(zip([flag.removeprefix("--") for flag in flags[::2]], flags[1::2], strict=True))
    given |= {"size": int(given["size"]), "draws": 1, "reference": "", "remedies": []}
    given |= {"attention": "none", "conditions": ["clean", "random_background"], "name": "test"}
    made = execute(copy / "notebooks" / "09_audit.ipynb", given, home / "out")
    assert (copy / "reports" / "audit" / "test" / "audit.json").exists()
    text = made.with_suffix(".html").read_text(encoding="utf-8")
    assert "not of length 1" in text  # what was taken for granted: the model's vectors
    assert "Changing only the background costs" in text
