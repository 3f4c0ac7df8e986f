"""Figures show names as they are, whatever letters they have and whatever the user's style is."""

import base64
import io
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.report import letters, style

NAMES = ["$x^2$", "a_{b}", "\\frac", "100 %", "{", "$", "#<&>", "Äß", "кот"]


@pytest.fixture(autouse=True)
def own_style() -> None:
    style.use_style()


def test_no_name_is_taken_for_a_formula(tmp_path) -> None:
    images = [np.full((8, 8, 3), 99, np.uint8)] * len(NAMES)
    figure = style.contact_sheet(images, NAMES, 5, "cost: $5 to $9")
    style.keep(figure, tmp_path, "sheet")
    text = (tmp_path / "sheet.svg").read_text()
    for name in ("$x^2$", "a_{b}", "\\frac"):
        assert f">{name}</text>" in text


def test_letters_without_a_font_are_replaced_and_it_is_said(monkeypatch) -> None:
    manager = letters.font_manager.fontManager
    own = [entry for entry in manager.ttflist if entry.name == letters.OWN]
    monkeypatch.setattr(manager, "ttflist", own)
    figure, axis = style.plt.subplots()
    axis.set_title("苹果 7")
    axis.set_yticks([0, 1], ["梨", "Bus"])
    note = letters.make_legible(figure)
    assert axis.get_title(loc="left") == "PingGuo 7"
    assert "PingGuo 7 is 苹果 7" in note and "Li is 梨" in note
    figure.draw_without_rendering()
    assert [text.get_text() for text in axis.get_yticklabels()] == ["Li", "Bus"]
    assert letters.make_legible(figure) == ""
    style.plt.close(figure)


def test_a_font_that_has_the_letters_is_taken(monkeypatch) -> None:
    """Stands for a machine with a Chinese font: one whose letters are said to be these."""
    letters.font_manager.findfont(letters.OWN)  # found once: the manager is emptied below
    real, manager = letters._letters, letters.font_manager.fontManager
    other = next(entry for entry in manager.ttflist if entry.name == "STIXGeneral")
    entry = type(other)(fname=other.fname, name="Songti", style="normal")
    monkeypatch.setattr(manager, "ttflist", [entry])
    monkeypatch.setattr(
        letters, "_letters", lambda file: frozenset("苹果") if file == other.fname else real(file)
    )
    assert letters.fonts_for(set("苹果 a")) == (["DejaVu Sans", "Songti"], set())
    assert letters.fonts_for(set("a梨")) == (["DejaVu Sans"], {"梨"})


def test_a_style_of_the_users_changes_nothing(tmp_path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\naxes.grid: False\n")
    code = (
        "import matplotlib; from lib.report import style; style.use_style(); "
        "print(matplotlib.rcParams['text.usetex'], matplotlib.rcParams['font.size'])"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MATPLOTLIBRC": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout.split() == ["False", "11.0"]
    assert mpl.rcParams["axes.grid"]


def test_names_are_cut_to_a_width() -> None:
    assert style.short("abcdef", 4) == "abcd" and style.short("苹果x", 4) == "苹果"


def test_tables_hold_no_formulas() -> None:
    table = pd.DataFrame({"name": ["$x$"]})
    assert (
        "tex2jax_ignore" in table.to_html()
        and "no-mathjax" in table.style.to_html()
        or ("tex2jax_ignore" in table.style.to_html())
    )


def test_a_kept_figure_looks_as_it_was_drawn(tmp_path) -> None:
    """The picture in few colours differs nowhere visibly from the one that matplotlib draws."""
    figure, axis = style.plt.subplots()
    axis.imshow(np.arange(600).reshape(20, 30), cmap="cividis")
    axis.plot([0, 20], [0, 15], "o-", color=style.colour("base"), alpha=0.5)
    axis.set_title("a title")
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=110)
    small = style.drawn(figure, dpi=110)
    files = (whole, io.BytesIO(small))
    pictures = [np.asarray(Image.open(file).convert("RGB"), int) for file in files]
    assert np.abs(pictures[0] - pictures[1]).max() <= 16
    assert len(small) < len(whole.getvalue())
    assert Image.open(io.BytesIO(style.keep(figure, tmp_path, "kept"))).format == "PNG"
    assert [file.name for file in tmp_path.iterdir()] == ["kept.svg"]  # the PNG is the notebook's


def test_a_cloud_of_dots_keeps_its_colours_in_fewer_bytes() -> None:
    figure, axis = plt.subplots()
    spread = np.random.default_rng(0).normal(size=(3, 2000))
    axis.scatter(*spread[:2], c=spread[2] > 0, cmap="bwr", alpha=0.3, rasterized=True)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    lean = style._lean(drawn.getvalue())

    def pixels(svg: str) -> np.ndarray:
        data = re.search(r"base64,([\sA-Za-z0-9+/=]+)", svg)[1]
        seen = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen), int)

    far = np.abs(pixels(lean) - pixels(drawn.getvalue()))
    assert far.max() <= 32 and far.mean() < 2
    assert len(lean) < 0.7 * len(drawn.getvalue())


def shown(svg: str) -> list[tuple]:
    """What an SVG draws: every element but groups with its rules, place and words, in order.

    An outline is its letters and numbers; a reference is the number of the element it names.
    """
    tree = ElementTree.fromstring(svg)
    for metadata in tree.findall("{*}metadata"):  # draws nothing
        tree.remove(metadata)
    referred = list(dict.fromkeys(re.findall(r'(?:href="|url\()#([\w.-]+)', svg)))
    ids = [element.get("id") for element in tree.iter() if element.get("id") in referred]
    rules = dict(re.findall(r"(?m)^\.(\w+)\{(.*)\}$", tree.find(".//{*}style").text))
    found = []

    def walk(element: ElementTree.Element, around: tuple) -> None:
        own = {k: v for k, v in element.attrib.items() if k not in ("id", "class")}
        for key, value in own.items():
            if key.endswith("href") or value.startswith("url("):
                own[key] = re.sub(r"#([\w.-]+)", lambda m: f"#{ids.index(m[1])}", value)
            own[key] = "".join(own[key].split()) if own[key].startswith("data:") else own[key]
        if "d" in own:
            words = re.findall(r"[A-Za-z]|-?[\d.]+", own["d"])
            own["d"] = [word if word.isalpha() else float(word) for word in words]
        if "class" in element.attrib:
            own["style"] = rules[element.get("class")]
        if element.tag.endswith("}g"):
            around += (tuple(sorted(own.items())),) if own else ()
        elif not element.tag.endswith("}style"):
            place = str(sorted(own.items()))
            found.append((element.tag, place, (element.text or "").strip(), around))
        for child in element:
            walk(child, around)

    walk(tree, ())
    return found


def test_a_lean_svg_draws_the_same_in_half_the_bytes() -> None:
    figure, axes = plt.subplots(1, 2)
    axes[0].plot(range(200), np.sin(np.arange(200)), "o-", label="a style=b of <g> and #1")
    axes[0].legend()
    axes[0].plot([np.nan, 1, 2], [0, 1, 2], "o", markevery=3)  # a group that holds nothing
    axes[1].imshow(np.eye(3))
    axes[1].text(1, 1, 'style="x" <g>')
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    whole = re.sub(r"(?<=[\s\"(])(-?[1-9]\d*\.\d)\d+", r"\1", drawn.getvalue())
    lean = style._lean(drawn.getvalue())
    assert shown(lean) == shown(re.sub(r"\n +", "\n", whole))
    assert len(lean) < 0.55 * len(whole)
    named = set(re.findall(r' id="([^"]*)"', lean))
    assert named == set(re.findall(r'(?:href="|url\()#([\w.-]+)', lean))
