"""The first image a reader sees: queries and their nearest neighbours, before and after only the
background is changed.

The queries are picked by a rule, never by hand: of the first two data sets, with the first loss of
each, the query whose average precision falls most (lib.evaluation.query_examples). Where there is
one data set only, its query that falls by the median stands below.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.core.files import atomic
from lib.core.tiles import read_tiles
from lib.report.style import drawn, framed, headline, label, plt, use_style
from lib.training import arms

MOST, MEDIAN = "largest drop", "median"
CLEAN, SHIFTED = "clean", "random_background"
WORDS = {CLEAN: "as photographed", SHIFTED: "other backgrounds"}
QUERIES = {MOST: "Largest fall", MEDIAN: "Median fall"}
SHEET = Path("measured", "evaluation", "gallery")  # below a study's folder in reports
SETS = 2  # more do not fit above the fold
DPI = 165  # of a figure narrow enough for its words to be read on a phone
ALT = (
    "Queries and their five nearest neighbours, green where the class is right: on photographs "
    "as they are, on other backgrounds, and on other backgrounds after training with them"
)
Line = tuple[str, list[np.ndarray], pd.DataFrame]  # its words, tiles, and what they show


def lines(table: pd.DataFrame, rules: list[str]) -> list[tuple[str, str, str]]:
    """The (rule, arm, condition) that are shown, as far as they were measured: the reference before
    and after, then the first arm that is compared with it; the median query by the reference."""
    there = set(zip(table["rule"], table["arm"], table["condition"], strict=True))
    pairs = arms.pairs(list(dict.fromkeys(table["arm"])))
    arm, reference = pairs[0] if pairs else ("", next(iter(table["arm"]), ""))
    wanted = []
    for rule in rules:
        wanted += [(rule, reference, CLEAN), (rule, reference, SHIFTED)]
        wanted += [(rule, arm, SHIFTED)] * (rule == MOST)
    found = [line for line in wanted if line in there]
    return found if SHIFTED in {condition for *_, condition in found} else []


def shown(studies: dict[str, Path]) -> list[Line]:
    """The lines of the figure of studies (name: folder in reports), as far as they have images."""
    sheets = {}
    for name, folder in studies.items():
        where = folder / SHEET
        if where.with_suffix(".jpg").exists() and lines((sheet := read_tiles(where))[1], [MOST]):
            sheets[name] = sheet
    found: list[Line] = []
    for name, (tiles, table) in list(sheets.items())[:SETS]:
        for rule, arm, condition in lines(table, [MOST] if len(sheets) > 1 else [MOST, MEDIAN]):
            part = table[(table["rule"] == rule) & (table["arm"] == arm)]
            what = name if len(sheets) > 1 else QUERIES[rule]
            words = f"{what}, {label(arm)}, {WORDS[condition]}"
            found.append((words, tiles, part[part["condition"] == condition]))
    return found


def right(part: pd.DataFrame) -> str:
    """How many of the neighbours in a line are right, in words."""
    near = part[part["place"] > 0]
    return f"{near['right'].sum()} of {len(near)}"


def figure(studies: dict[str, Path]) -> Figure | None:
    """The figure of studies; None where none has such images."""
    if not (found := shown(studies)):
        return None
    across = max(len(part) for *_, part in found)
    made, axes = plt.subplots(
        len(found),
        across,
        figsize=(0.9 * across, 1.15 * len(found) + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (words, tiles, part) in zip(axes, found, strict=True):
        for axis, (at, entry) in zip(row, part.iterrows(), strict=False):
            axis.set_axis_on()
            framed(axis, tiles[at], None if entry["place"] == 0 else bool(entry["right"]))
        words = f"{words}: {right(part)} right"
        row[0].text(0, 1.07, words, transform=row[0].transAxes, fontsize=10, in_layout=False)
    made.get_layout_engine().set(h_pad=0.17, hspace=0)  # room for the words
    headline(made, "Only the background changes", "query: black frame; correct neighbour: green")
    return made


def write(studies: dict[str, Path], folder: Path, name: str) -> str | None:
    """Draw the studies that have such images into `<folder>/<name>.jpg`; its alternative text.

    None: no study has any, and nothing is written.
    """
    use_style()
    if (made := figure(studies)) is None:
        return None
    with atomic(folder / f"{name}.jpg") as temporary:
        temporary.write_bytes(drawn(made, photographs=True, dpi=DPI))
    plt.close(made)
    return ALT
