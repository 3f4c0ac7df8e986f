"""params.yaml with mistakes in it, and notebooks before their turn."""

from pathlib import Path

import pytest
import yaml

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.data import prepare
from lib.evaluation import measured, models
from lib.execute.notebook import NotebookFailed, execute
from lib.masks import sources
from lib.run import check_studies


@pytest.mark.fault(
    "parameters/lists",
    "empty list of studies, the same study twice, an unknown study or the dial in run",
    "params.yaml changed so",
    "`make repro` stops in one sentence before anything runs",
)
@pytest.mark.parametrize(
    ("run", "words"),
    [
        ([], r"`run` in params.yaml is \[\]; wanted: a list of one or more"),
        (None, "`run` in params.yaml is None"),
        ("demo", "wanted: a list"),
        ([1], "wanted: a list"),
        (["demo", "cub200", "demo"], "names demo twice"),
        (["dmo"], "no study 'dmo'.*did you mean 'demo'"),
        (["dial"], "make dial"),
    ],
)
def test_lists_with_mistakes_are_refused(run: object, words: str) -> None:
    params.check_run({"run": ["demo", "cub200"]})
    with pytest.raises(StudyError, match=words):
        params.check_run({"run": run})


def test_the_lists_of_the_repository_are_sound() -> None:
    assert check_studies.main([]) == 0


@pytest.mark.fault(
    "parameters/yaml",
    "params.yaml that is no YAML, or another file",
    "a bracket left open; no `studies`",
    "one sentence with the line",
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run: [demo\nother: 1", "is no YAML .*line 2"),
        ("run: [demo]\nstudies: {}\nrun: [own]", 'duplicate key "run" .*line 3'),
        ("a: 1", "no `studies`"),
    ],
)
def test_a_broken_file_is_one_sentence(
    home: Path, monkeypatch, capsys, text: str, words: str
) -> None:
    (home / "params.yaml").write_text(text)
    monkeypatch.setattr(paths, "PARAMS", home / "params.yaml")
    with pytest.raises(StudyError, match=words):
        params.study("demo")
    assert check_studies.main([]) == 2 and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.fault(
    "parameters/sections",
    "study without a section, or with one too many",
    "params.yaml changed so",
    "refused, section named",
)
def test_a_study_with_other_sections_is_refused(home: Path, monkeypatch) -> None:
    content = {"studies": {"mine": {"data": {}, "mask": {}}}}
    (home / "params.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(paths, "PARAMS", home / "params.yaml")
    with pytest.raises(StudyError, match="study 'mine' must have the sections .* look at .*mask"):
        params.study("mine")


@pytest.mark.fault(
    "parameters/name",
    "study whose name cannot be a folder's",
    "a space, a slash, dots, a letter with an accent",
    "refused before anything is written, with what is allowed",
)
@pytest.mark.parametrize("name", ["my birds", "a/b", "..", "v\u00f6gel", "a{b}", ""])
def test_a_study_whose_name_is_no_folders_is_refused(home: Path, monkeypatch, name: str) -> None:
    sections = {part: {} for part in params.SECTIONS}
    content = {"studies": {name: sections, "My_birds-2": sections}}
    (home / "params.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(paths, "PARAMS", home / "params.yaml")
    assert params.study("My_birds-2") == sections
    with pytest.raises(StudyError, match="only the letters a to z"):
        params.study(name)


@pytest.mark.fault(
    "parameters/side",
    "pictures of no size",
    "side 0 and -5",
    "refused before a picture is opened",
)
@pytest.mark.parametrize("side", [0, -5])
def test_pictures_of_no_size_are_refused(home: Path, side: int) -> None:
    with pytest.raises(StudyError, match=f"side is {side}; wanted"):
        prepare.prepare_images("s", "rendered", side)


@pytest.mark.fault(
    "parameters/order",
    "a notebook run before its inputs exist",
    "inputs of each notebook absent",
    "says which notebook to run first",
)
def test_what_each_step_reads_first_names_the_one_before(home: Path) -> None:
    wanted = {
        "01_data": lambda: prepare.about("s"),
        "02_masks": lambda: sources.mask_source("s"),
        "03_train": lambda: models.models_of("s"),
        "make repro": lambda: measured.read("s").facts,
    }
    for step, read in wanted.items():
        with pytest.raises(StudyError, match=rf"{step}\b"):
            read()


@pytest.mark.fault(
    "parameters/notebooks",
    "notebooks 02 to 06 run where nothing was made",
    "a study's name without files",
    "each stops at once and names what to run first",
)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("02_masks", "Run 01_data for study"),
        *((name, "Run `make repro`") for name in ("03_train", "04_shift", "05_attention")),
        ("06_report", "Run `make repro`"),
    ],
)
def test_a_notebook_where_nothing_was_made(tmp_path: Path, name: str, first: str) -> None:
    with pytest.raises(NotebookFailed, match=first):
        execute(paths.NOTEBOOKS / f"{name}.ipynb", {"study": "nothing-was-made"}, tmp_path / "o")
    assert [file.name for file in (tmp_path / "o").iterdir()] == [f"{name}.failed.ipynb"]
