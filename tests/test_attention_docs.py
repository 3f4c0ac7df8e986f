"""The pages about attention: their code runs, their table says what the code does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lib import attribution, paths
from lib.attention import SCORES
from lib.attribution import METHODS, Explanation

DOCS = paths.ROOT / "docs"
PAGES = ("attention.md", "add-an-attribution-method.md")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


@pytest.fixture(params=PAGES)
def ran(request: pytest.FixtureRequest) -> Iterator[dict]:
    """The names that a page's code blocks leave, run in order; its new methods go again."""
    known, names = set(METHODS), {"page": request.param, "__name__": "page"}
    for code in blocks(DOCS / request.param, "python"):
        exec(compile(code, request.param, "exec"), names)
    yield names
    for name in set(METHODS) - known:
        del METHODS[name]


def test_the_code_of_every_page_runs(ran: dict) -> None:
    assert len(blocks(DOCS / ran["page"], "python")) >= 2
    assert "table" in ran or "maps" in ran


def test_the_study_lines_name_known_targets() -> None:
    (text,) = blocks(DOCS / PAGES[1], "yaml")
    first, second = yaml.safe_load(text)["methods"]
    assert Explanation.parse(first) == attribution.PAPER
    assert second.partition("/")[2] in attribution.TARGETS


def test_the_table_of_scores_is_the_codes() -> None:
    text = (DOCS / PAGES[0]).read_text(encoding="utf-8")
    rows = {r[0]: r[1:] for r in re.findall(r"^\| `(\w+)` \| .+? \| (\w+) \| (.+?) \|", text, re.M)}
    assert list(rows) == list(SCORES)
    for name, (direction, reach) in rows.items():
        measure = SCORES[name]
        assert direction == measure.direction
        assert reach.endswith(f"to {measure.high:g}")
        assert reach.startswith("0 ") == (measure.low == 0), name


def test_links_and_files_exist() -> None:
    for page in PAGES:
        text = (DOCS / page).read_text(encoding="utf-8")
        for name in re.findall(r"\]\(([^)#]+)\)", text):
            assert (DOCS / name).exists(), name
        for name in re.findall(r"`((?:lib|tests)/\w+\.py)`", text):
            assert (paths.ROOT / name).exists(), name
