"""What the README and the notebooks promise is there, on any tree that a command can leave behind.

Numbers that README quotes are compared with committed tables by `make check-claims`.
"""

import re

import nbformat

from lib.core import params, paths

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")


def test_named_studies_exist() -> None:
    studies = params.everything()["studies"]
    for study in re.findall(r"^\| `([\w-]+)`", README, flags=re.M):
        assert study in {*studies}, study


def test_notebooks_open_alike() -> None:
    files = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    assert {f"{number:02}" for number in range(1, 7)} <= {file.name[:2] for file in files}
    for file in files:
        first, second = nbformat.read(file, as_version=4).cells[:2]
        assert first.source.startswith("# ") and second.metadata["tags"] == ["parameters"]
        for word in ("**Question:**", "**Inputs:**", "**Outputs:**"):
            assert word in first.source, file.name


def test_every_question_of_the_report_shows_its_figure() -> None:
    cells = nbformat.read(paths.NOTEBOOKS / "06_report.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells)
    sections = re.split(r"^## ", text, flags=re.M)
    questions = [section for section in sections if re.match(r"Q\d\.", section)]
    assert len(questions) == 8
    for section in questions:
        assert re.search(r"\bshow\(", section), section[:40]
        assert re.search(r"\bdisplay\(|\.style\b", section), section[:40]
