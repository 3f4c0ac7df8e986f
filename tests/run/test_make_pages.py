"""Studies are told side by side: what fails is returned, and no front page is made of it."""

import pytest

from lib.core.errors import StudyError
from lib.run import pages

THERE = {"a": ["04_shift"], "b": ["04_shift", "06_report"], "c": ["06_report"]}


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What was told, by study; study c fails where its page is told."""
    found: dict[str, list[str]] = {}

    def tell(study: str, wanted: list[str]) -> int:
        found[study] = wanted
        return 3 if study == "c" and wanted else 0

    def pages_of(study: str) -> list[str]:
        if study not in THERE:
            raise StudyError(f"study {study} has not been measured so far.")
        return THERE[study]

    monkeypatch.setattr(pages, "known", lambda: list(THERE))
    monkeypatch.setattr(pages, "pages_of", pages_of)
    monkeypatch.setattr(pages, "tell", tell)
    monkeypatch.setattr(pages, "workers", lambda: 1)  # so that the order is known
    monkeypatch.setattr(pages.front_page, "main", lambda: len(found.setdefault("front", [])))
    return found


def test_the_longest_study_begins_and_a_failure_is_returned(done) -> None:
    assert pages.main([]) == 3
    assert done == THERE and next(iter(done)) == "b"


def test_named_pages_of_named_studies(done) -> None:
    assert pages.main(["a", "b", "06_report"]) == 0
    assert done == {"a": [], "b": ["06_report"], "front": []}


def test_an_unknown_study_stops_before_any_page(done, capsys) -> None:
    assert pages.main(["a", "nothing"]) == 2
    assert not done and "nothing" in capsys.readouterr().err
