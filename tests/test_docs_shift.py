"""The pages about conditions and metrics do what they say: their code is run."""

import re

import numpy as np
import pytest

from lib import paths, shifts
from tests.test_retrieval import METRICS

PAGES = paths.ROOT / "docs"


def run(page: str, **renamed: str) -> dict:
    """Run a page's Python from top to bottom, with names of its example replaced."""
    text, names = (PAGES / page).read_text(encoding="utf-8"), {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.S):
        for old, new in renamed.items():
            block = block.replace(old.replace("_", "-"), new)
        exec(compile(block, page, "exec"), names)
    return names


def test_add_a_condition(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shifts, "CONDITIONS", dict(shifts.CONDITIONS))
    names = run("add-a-condition.md", my_study=study, my_masks="drawn")
    seen = {name: np.stack(images).astype(int) for name, images in names["seen"].items()}
    clean, turned, blurred = (seen[name] for name in ("clean", "upside_down", "blurred_mate"))
    np.testing.assert_array_equal(turned[:, :2, :2], clean[:, :-3:-1, :2])  # corners have no object
    assert np.abs(blurred - clean).max() > 30
    assert shifts.get("upside_down").label == "place upside down"


def test_metrics() -> None:
    run("metrics.md")
    text = (PAGES / "metrics.md").read_text(encoding="utf-8")
    for metric in METRICS.values():
        assert f"| {metric.label} | {'↑' if metric.direction == 'higher' else '↓'} |" in text


def test_the_pages_name_files_that_exist() -> None:
    for page in ("add-a-condition.md", "metrics.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", (PAGES / page).read_text(encoding="utf-8")):
            assert (PAGES / link).exists(), link
