"""One style for all figures, and one way to show them: title is the finding, an SVG is kept."""

import base64
import io
import re
import textwrap
import unicodedata
from collections import Counter
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image as Picture
from IPython.display import Markdown, display
from PIL import Image, ImageChops

from lib.core.files import atomic
from lib.report.letters import make_legible
from lib.training import arms

# Okabe-Ito, safe for colour-blind readers; an arm has its colour everywhere
COLOURS = {
    "base": "#D55E00", "bgaugment": "#0072B2", "untrained": "#666666",
    "bgaugment_25": "#A6CBE3", "bgaugment_50": "#73ABD0", "bgaugment_75": "#3A8EC1",  # doses
}  # fmt: skip
MARKERS = {"base": "o", "bgaugment": "s", "untrained": "D"} | dict.fromkeys(
    ("bgaugment_25", "bgaugment_50", "bgaugment_75"), "s"
)
PALETTE = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # for arms that have no colour of their own
SHAPES = ["^", "v", "P", "X"]
PHOTOGRAPHS = 76  # dots per inch of sheets of photographs, which hold small tiles
# The copy inside a notebook is coarser than the file that pages show: git keeps both.
IN_NOTEBOOK = 80  # dots per inch of drawings; pages have them as SVG
CLOUD = 10_000  # bytes of a picture inside an SVG from which it is drawn in fewer colours
JPEG = {"quality": 50, "optimize": True, "progressive": True}
WEBP = {"quality": 60, "method": 6}
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 11,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],  # an SVG names them in every rule
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",  # words stay words: half the bytes, and they can be searched
    "svg.hashsalt": "bgbias",  # else the identifiers inside an SVG differ at every run
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a class may be called $x$
}


def label(arm: str) -> str:
    """How an arm is called in figures; one that is not in the table keeps its name."""
    known = arm == arms.UNTRAINED or arm in arms.ARMS
    return arms.labels([arm])[arm] if known else arm


def colour(arm: str) -> str:
    """An arm's colour, the same everywhere."""
    return COLOURS.get(arm) or PALETTE[_further(arm) % len(PALETTE)]


def marker(arm: str) -> str:
    """An arm's marker, the same everywhere."""
    return MARKERS.get(arm) or SHAPES[_further(arm) % len(SHAPES)]


def _further(arm: str) -> int:
    further = [name for name in arms.ARMS if name not in COLOURS]
    return further.index(arm) if arm in further else len(further)


def legend(names: list[str]) -> list[plt.Line2D]:
    """A handle for every arm."""
    return [
        plt.Line2D([], [], ls="", color=colour(arm), marker=marker(arm), label=label(arm))
        for arm in names
    ]


def use_style() -> None:
    """Set the study's style for all figures and tables that follow, whatever the user's is."""
    mpl.rcdefaults()
    mpl.rcParams.update(STYLE)
    pd.set_option("display.html.use_mathjax", False, "styler.html.mathjax", False)


def show(
    figure: plt.Figure | None, folder: Path, name: str, alt: str, photographs: bool = False
) -> None:
    """Keep a figure under `folder` and show it in the notebook with its alternative text.

    Args:
        figure: None shows `alt` as text: why there is none.
        name: file name without suffix.
        alt: what a reader who cannot see the image should know.
        photographs: keep it as WebP instead of SVG.
    """
    if figure is None:
        display(Markdown(alt))
        return
    kind, note = "jpeg" if photographs else "png", make_legible(figure)
    data = keep(figure, folder, name, photographs)
    if note:
        display(Markdown(plain(note)))
    display(Picture(data, format=kind, alt=alt, metadata={"alt": alt, "figure": name}))


def keep(figure: plt.Figure, folder: Path, name: str, photographs: bool = False) -> bytes:
    """Write a figure as SVG (photographs: WebP) under `folder` and close it.

    Returns:
        What a notebook shows: PNG, or JPEG of photographs.
    """
    data = drawn(figure, photographs)
    if photographs:
        with atomic(folder / f"{name}.webp") as temporary:
            figure.savefig(temporary, format="webp", dpi=PHOTOGRAPHS, pil_kwargs=WEBP)
    else:
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        with atomic(folder / f"{name}.svg") as temporary:
            temporary.write_text(_lean(text.getvalue()), encoding="utf-8")
    plt.close(figure)
    return data


def drawn(figure: plt.Figure, photographs: bool = False, dpi: float | None = None) -> bytes:
    """A figure as PNG in few colours, or as JPEG of photographs."""
    make_legible(figure)
    data = io.BytesIO()
    if photographs:
        figure.savefig(data, format="jpeg", dpi=dpi or PHOTOGRAPHS, pil_kwargs=JPEG)
        return data.getvalue()
    figure.savefig(data, format="png", dpi=dpi or IN_NOTEBOOK, metadata={"Software": None})
    return _in_few_colours(data).getvalue()


def _lean(svg: str) -> str:
    """The same drawing in half the bytes, to a tenth of a point.

    No space before lines or inside outlines; a style that comes more than once is a rule with a
    name; short identifiers, none that nothing refers to, and no groups that say nothing.
    """
    svg = re.sub(r"<metadata>.*?</metadata>\n *", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\n +", "\n", svg)
    svg = re.sub(r"(?<=[\s\"(])(-?[1-9]\d*\.\d)\d+", r"\1", svg)
    svg = re.sub(r'(?<= d=")[^"]+', _outline, svg)
    svg = re.sub(r"(?<=data:image/png;base64,)[\sA-Za-z0-9+/=]+", _cloud, svg)
    styles = Counter(re.findall(r' style="([^"]*)"', svg))
    names = {style: f"s{k}" for k, style in enumerate(styles) if styles[style] > 1}
    for style, name in names.items():
        svg = svg.replace(f' style="{style}"', f' class="{name}"')
    rules = "".join(f".{name}{{{style}}}\n" for style, name in names.items())
    svg = svg.replace("</style>", f"\n{rules}</style>", 1)
    named = dict.fromkeys(re.findall(r'(?:href="|url\()#([\w.-]+)', svg))
    short = {name: f"i{k}" for k, name in enumerate(named)}
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{short[m[1]]}"' if m[1] in short else "", svg)
    svg = re.sub(r'((?:href="|url\()#)([\w.-]+)', lambda m: m[1] + short[m[2]], svg)
    return _without_bare_groups(svg)


def _outline(found: re.Match[str]) -> str:
    """An outline's letters and numbers without the spaces and zeros that say nothing."""
    return re.sub(r"\.0(?=\D|$)", "", re.sub(r"\s*([A-Za-z])\s*", r"\1", found[0]).strip())


def _cloud(found: re.Match[str]) -> str:
    """A large picture inside an SVG (many dots drawn as one) in 256 colours."""
    data, small = base64.b64decode(found[0]), io.BytesIO()
    if len(data) < CLOUD:
        return base64.b64encode(data).decode()
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    few = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(small, format="png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def _without_bare_groups(svg: str) -> str:
    kept, bare = [], []
    for line in svg.replace("<g/>\n", "").split("\n"):
        if line.startswith("<g") and not line.endswith("/>"):  # a group of nothing ends itself
            bare.append(line == "<g>")
        if not ((line == "<g>" and bare[-1]) or (line == "</g>" and bare.pop())):
            kept.append(line)
    return "\n".join(kept)


def _in_few_colours(png: io.BytesIO) -> io.BytesIO:
    """The same picture in a quarter of the bytes: lines and letters need few colours.

    As few as leave every value within 16 of 255.
    """
    whole = Image.open(png).convert("RGB")
    for count in (64, 128, 256):
        few = whole.quantize(count, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        far = max(high for _, high in ImageChops.difference(whole, few.convert("RGB")).getextrema())
        if far <= 16:
            break
    small = io.BytesIO()
    few.save(small, format="png", optimize=True)
    return small


def plain(text: str) -> str:
    """Text for Markdown, in which no letter of a name means anything."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~])", r"\\\1", text)


def short(name: str, width: int = 22) -> str:
    """A name cut to the width of so many Latin letters (those of Chinese are twice as wide)."""
    kept = ""
    for letter in name:
        width -= 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if width < 0:
            break
        kept += letter
    return kept


def headline(figure: plt.Figure, finding: str, note: str = "", size: float = 11) -> None:
    """Title a figure with its finding, in bold and wrapped to its width, and a note below it."""
    room = int(figure.get_figwidth() * 97 / size)  # letters that fit into a line
    finding = finding.replace(" %", "\u00a0%")  # a number keeps its unit on its line
    lines = textwrap.wrap(finding, room) + (textwrap.wrap(note, room) if note else [])
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=size, fontweight="bold")


def contact_sheet(
    images: list[np.ndarray], captions: list[str], columns: int, title: str, cell: float = 1.5
) -> plt.Figure:
    """A page of images (uint8 HxWx3 or HxW, any sizes), each with a caption below.

    With one caption a row of images, it stands above its row.
    """
    rows = -(-len(images) // columns)
    if len(captions) == rows < len(images):
        return _labelled_rows(images, captions, columns, title, cell)
    size = (columns * cell, rows * (cell + 0.22) + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(caption, fontsize=8, fontweight="normal", loc="center", y=-0.16, pad=0)
    headline(figure, title)
    return figure


def _labelled_rows(
    images: list[np.ndarray], labels: list[str], columns: int, title: str, cell: float
) -> plt.Figure:
    size = (columns * cell, len(labels) * (cell + 0.3) + 0.4)
    figure, axes = plt.subplots(len(labels), columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image in zip(axes.flat, images, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    for axis, words in zip(axes[:, 0], labels, strict=True):
        axis.text(0, 1.04, words, transform=axis.transAxes, fontsize=14, in_layout=False)
    figure.get_layout_engine().set(h_pad=0.14, hspace=0)  # room for the words
    headline(figure, title)
    return figure


def framed(axis: plt.Axes, image: np.ndarray, right: bool | None) -> None:
    """An image in a frame: green for a right one, grey for a wrong one, black for a query."""
    colour = "black" if right is None else "#009E73" if right else "#bbbbbb"
    axis.imshow(image)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color=colour, linewidth=3)


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with everything outside the mask faded and the mask's outline drawn."""
    soft = mask[..., None] / 255
    faded = image * 0.25 + 190 * 0.75
    mixed = image * soft + faded * (1 - soft)
    inside = mask >= 128
    edge = inside ^ (
        inside
        & np.roll(inside, 1, 0)
        & np.roll(inside, -1, 0)
        & np.roll(inside, 1, 1)
        & np.roll(inside, -1, 1)
    )
    mixed[edge] = (0, 114, 178)
    return mixed.astype(np.uint8)


def rounded(value: float, digits: int = 1, sign: str = "") -> str:
    """`value` with so many digits, one more where it would read as zero and is not.

    So the reader sees on which side of zero the end of an interval lies. `sign` "+" writes the
    sign of positive numbers, too. A number that is not known is a dash.
    """
    if np.isnan(value):
        return "–"
    digits += round(value, digits) == 0 and round(value, digits + 1) != 0
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no -0.0
