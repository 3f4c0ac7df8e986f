"""The page of an audit: loads nothing, holds no hole, and its verdict says what the numbers say."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from lib.evaluation import remedies
from lib.execute.html import network_references
from lib.experiments import audit_page
from lib.experiments.audit import Asked, Audit, audit
from lib.experiments.audit_search import CLEAN, SHIFTED
from tests.experiments import small_audit
from tests.experiments.small_audit import catalogue, photographs


@pytest.fixture
def made(home: Path, monkeypatch: pytest.MonkeyPatch):
    """`made(classes=..., ...)`: the audit of a model that sees places only."""
    monkeypatch.setattr(remedies, "predicted", small_audit.predicted)
    backgrounds = photographs(home / "photographs")

    def make(classes: int = 6, images: int = 4, **more) -> Audit:
        catalogue(home / f"shop {classes}", classes, images)
        values = {
            "images": str(home / f"shop {classes}"), "size": small_audit.SIDE, "reference": "",
            "masks": "true", "backgrounds": str(backgrounds), "draws": 1, "attention_images": 4,
            "conditions": (CLEAN, SHIFTED, "own_background"), "remedies": ("cut_out", "box_crop"),
        }  # fmt: skip
        return audit(Asked(model=f"{small_audit.MODULE}:border", **values | more))

    return make


def test_the_page_is_whole_and_loads_nothing(made, tmp_path: Path) -> None:
    found = made(reference=f"{small_audit.MODULE}:middle")
    page = audit_page.write(found, tmp_path / "page")
    text = page.read_text(encoding="utf-8")
    soup = BeautifulSoup(text, features="html.parser")
    assert not network_references(text) and "nan" not in soup.get_text().lower().split()
    first = soup.select_one(".verdict").get_text()
    assert first == audit_page.verdict(found)[0] and first.startswith("Changing only")
    assert len(soup.select(".ranking")) == 3 and len(soup("table")) == 3
    assert all(image["src"].startswith("data:") for image in soup("img"))
    anchors = {link["href"] for link in soup.select("nav a") if link["href"].startswith("#")}
    assert anchors <= {f"#{tag['id']}" for tag in soup(id=True)}
    numbers = json.loads((tmp_path / "page" / "audit.json").read_text(encoding="utf-8"))
    assert numbers["verdict"]["lost"] == pytest.approx(found.lost)
    assert {row["who"] for row in numbers["levels"]} == {"model", "reference"}


@pytest.mark.parametrize(
    "less",
    [
        {"remedies": ()},
        {"attention": "none"},
        {"conditions": (CLEAN, SHIFTED)},
        {"classes": 2},
        {"remedies": (), "attention": "none", "conditions": (SHIFTED, CLEAN), "classes": 3},
    ],
)
def test_any_shortened_list_gives_a_whole_page(made, less: dict) -> None:
    found = made(**less)
    text = BeautifulSoup(audit_page.html(found), features="html.parser").get_text(" ")
    assert " nan" not in text.lower() and "None" not in text
    if less.get("classes", 9) < 5:
        assert "no interval" in audit_page.verdict(found)[0]


def shifted(found: Audit, lost: float, low: float | None, high: float | None) -> Audit:
    """The same audit with another loss."""
    levels = found.levels.copy()
    own = (
        (levels["condition"] == SHIFTED)
        & (levels["sides"] == "both")
        & (levels["remedy"] == "none")
    )
    for name, value in (("lost", lost), ("lost_low", low), ("lost_high", high)):
        levels.loc[own, name] = pd.Series([value], dtype=object).iloc[0]
    return replace(found, levels=levels)


def test_the_verdict_says_what_the_interval_says(made) -> None:
    found = made(remedies=(), attention="none")
    costs = audit_page.verdict(shifted(found, 0.38, 0.31, 0.44))[0]
    assert costs == "Changing only the background costs 38 % of MAP@R (95 % CI 31 to 44)."
    unclear = audit_page.verdict(shifted(found, 0.02, -0.01, 0.05))[0]
    assert "not significantly" in unclear and "−1 to 5" in unclear
    gains = audit_page.verdict(shifted(found, -0.1, -0.2, -0.05))[0]
    assert "raises" in gains and "10 %" in gains
    assert any("No action" in told for told in audit_page.advice(shifted(found, 0.02, -0.01, 0.05)))


def test_a_remedy_that_helps_is_in_the_verdict(made) -> None:
    found = made(attention="none")
    table = pd.DataFrame(
        [["cut_out", "object on grey", "both", 0.9, -0.02, -0.03, -0.01, 0.8, 0.2, 0.1, 0.3, 0.66,
          0.5, 0.8]],
        columns=found.remedies.columns,
    ).astype(dict.fromkeys(found.remedies.columns[3:], object))  # fmt: skip
    verdict = audit_page.verdict(replace(shifted(found, 0.38, 0.31, 0.44), remedies=table))[0]
    assert verdict.endswith("putting every object on plain grey recovers 66 % of that.")
    none = replace(
        shifted(found, 0.38, 0.31, 0.44), remedies=table.assign(gain=-0.1, gain_low=-0.2)
    )
    assert "no remedy at inference" in audit_page.verdict(none)[0]


def test_warnings_about_masks_come_with_the_verdict(made) -> None:
    found = made(remedies=(), attention="none")
    doubtful = replace(found, masks=found.masks | {"warnings": ["Only 3 % of the masks."]})
    assert audit_page.verdict(doubtful)[1] == "Only 3 % of the masks."
    soup = BeautifulSoup(audit_page.html(doubtful), features="html.parser")
    assert "Only 3 %" in soup.select_one(".warn").get_text()


def test_names_are_text_whatever_they_hold(made) -> None:
    found = made(remedies=(), attention="none")
    odd = r"<b>$x$ {y} \frac 雪</b>"
    found = replace(
        found, classes=found.classes.assign(class_name=odd), images=found.images | {"title": odd}
    )
    soup = BeautifulSoup(audit_page.html(found), features="html.parser")
    assert not soup("b") and odd in soup.get_text()


def test_names_that_differ_in_digits_or_underscores_are_told_apart(made) -> None:
    found = made(remedies=(), attention="none")
    names = ["1.tea", "2.tea", "tea_1", "tea 1", "001.tea", "tea"]
    found = replace(found, classes=found.classes.assign(class_name=names))
    assert audit_page.class_table(found)["class"].tolist() == names
    text = BeautifulSoup(audit_page.html(found), features="html.parser").get_text("|")
    assert all(f"|{name}|" in text for name in names)


@pytest.mark.filterwarnings("error:Glyph")
def test_a_model_of_any_name_is_legible_in_the_figure(made) -> None:
    found = made(reference=f"{small_audit.MODULE}:middle", remedies=(), attention="none")
    about = found.about | {"model": found.about["model"] | {"name": "苹果 $x$.onnx"}}
    found = replace(found, about=about)
    audit_page.html(found)
    figure, _ = audit_page.loss_figure(found)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[0] == "苹果 $x$.onnx"
