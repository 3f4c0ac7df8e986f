"""The page of faults names exactly the faults that tests are marked with."""

import re

from tests import reliability


def test_outcomes_become_words() -> None:
    assert reliability.seen([("passed", "")]) == "kept"
    assert reliability.seen([("passed", ""), ("passed", "")]) == "kept (2 cases)"
    mixed = [("passed", ""), ("failed", ""), ("skipped", "no such language")]
    assert reliability.seen(mixed) == "**not kept**, kept, not tried here: no such language"


def test_a_page_has_a_row_a_fault_and_says_what_was_not_tried() -> None:
    faults = {
        "disk/a": ("disk/a", "one | two", "so", "kept so"),
        "killed/b": ("killed/b", "three", "so", "kept so"),
        "killed/c": ("killed/c", "not tried", "so", "kept so"),
    }
    text = reliability.page(faults, {"disk/a": [("passed", "")], "killed/b": [("failed", "")]})
    rows = re.findall(r"^\| (?!fault|-)(.*) \|$", text, re.M)
    assert rows == [
        "three | so | kept so | **not kept**",
        "not tried | so | kept so | left out of this run",
        r"one \| two | so | kept so | kept",
    ]
    assert text.index("## Killed") < text.index("## Disk")


def test_every_mark_belongs_to_a_group() -> None:
    faults = reliability.marked()
    assert len(faults) > 90
    assert {key.split("/")[0] for key in faults} == set(reliability.GROUPS)


def test_the_page_names_exactly_the_marked_faults() -> None:
    text = reliability.PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!fault|-)(.*) \|$", text, re.M)
    named = sorted(row.rsplit(" | ", 1)[0] for row in rows)
    wanted = [
        " | ".join(map(reliability.cell, fault[1:])) for fault in reliability.marked().values()
    ]
    assert named == sorted(wanted), "run make test-faults: it writes docs/reliability.md anew"
    assert "not kept" not in text
