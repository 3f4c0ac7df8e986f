"""The pages about attention: their code runs, their table says what the code does."""

import re
from collections.abc import Iterator

import pytest
import yaml

from lib.attention import attribution
from lib.attention.attribution import METHODS, Explanation
from lib.attention.scores import SCORES
from tests.helpers import blocks, run, text_of

PAGES = ("attention.md", "add-an-attribution-method.md")


@pytest.fixture(params=PAGES)
def ran(request: pytest.FixtureRequest) -> Iterator[dict]:
    """The names that a page's code blocks leave, run in order; its new methods go again."""
    known = set(METHODS)
    yield run(request.param) | {"page": request.param}
    for name in set(METHODS) - known:
        del METHODS[name]


def test_the_code_of_every_page_runs(ran: dict) -> None:
    assert len(blocks(ran["page"])) >= 2
    assert "table" in ran or "maps" in ran


def test_the_study_lines_name_known_targets() -> None:
    (text,) = blocks(PAGES[1], "yaml")
    first, second = yaml.safe_load(text)["methods"]
    assert Explanation.parse(first) == attribution.PAPER
    assert second.partition("/")[2] in attribution.TARGETS


def test_the_table_of_scores_is_the_codes() -> None:
    text = text_of(PAGES[0])
    rows = {r[0]: r[1:] for r in re.findall(r"^\| `(\w+)` \| .+? \| (\w+) \| (.+?) \|", text, re.M)}
    assert list(rows) == list(SCORES)
    for name, (direction, reach) in rows.items():
        measure = SCORES[name]
        assert direction == measure.direction
        assert reach.endswith(f"to {measure.high:g}")
        assert reach.startswith("0 ") == (measure.low == 0), name
