"""The pages about conditions and metrics do what they say: their code is run."""

import numpy as np
import pytest

from lib.images import conditions
from tests.helpers import run, text_of
from tests.retrieval.test_retrieval import METRICS


def test_add_a_condition(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "CONDITIONS", dict(conditions.CONDITIONS))
    names = run("add-a-condition.md", my_study=study, my_masks="drawn")
    seen = {name: np.stack(images).astype(int) for name, images in names["seen"].items()}
    clean, turned, blurred = (seen[name] for name in ("clean", "upside_down", "blurred_mate"))
    np.testing.assert_array_equal(turned[:, :2, :2], clean[:, :-3:-1, :2])  # corners have no object
    assert np.abs(blurred - clean).max() > 30
    assert conditions.get("upside_down").label == "place upside down"


def test_metrics() -> None:
    run("metrics.md")
    text = text_of("metrics.md")
    for metric in METRICS.values():
        assert f"| {metric.label} | {'↑' if metric.direction == 'higher' else '↓'} |" in text
