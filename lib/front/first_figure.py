"""The first image a reader sees: two queries, their nearest neighbours, and then only the
background is changed.

The queries are picked by a rule, never by hand: of the first loss, the one whose average precision
falls most, and the one that falls by the median (lib.evaluation.query_examples).
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lib.core.tiles import read_tiles
from lib.report.style import framed, headline, keep, label, plt, use_style
from lib.training import arms

MOST, MEDIAN = "largest drop", "median"
CLEAN, SHIFTED = "clean", "random_background"
WORDS = {CLEAN: "as photographed", SHIFTED: "other backgrounds"}
QUERIES = {MOST: "Largest fall", MEDIAN: "Median fall"}
DPI = 165  # of a figure narrow enough for its words to be read on a phone
ALT = (
    "Two queries and their five nearest neighbours, green where the class is right: on photographs "
    "as they are, on other backgrounds, and on other backgrounds after training with them"
)


def lines(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The (rule, arm, condition) that are shown, as far as they were measured: the reference before
    and after, then the first arm that is compared with it; the median query by the reference."""
    there = set(zip(table["rule"], table["arm"], table["condition"], strict=True))
    pairs = arms.pairs(list(dict.fromkeys(table["arm"])))
    arm, reference = pairs[0] if pairs else ("", next(iter(table["arm"]), ""))
    before, after = (reference, CLEAN), (reference, SHIFTED)
    wanted = [(MOST, *before), (MOST, *after), (MOST, arm, SHIFTED)]
    wanted += [(MEDIAN, *before), (MEDIAN, *after)]
    return [line for line in wanted if line in there]


def figure(study: Path) -> Figure | None:
    """The figure of a study's folder in reports; None where it has no such images."""
    where = study / "measured" / "evaluation" / "gallery"
    if not where.with_suffix(".jpg").exists():
        return None
    tiles, table = read_tiles(where)
    shown = lines(table)
    if SHIFTED not in {condition for *_, condition in shown}:
        return None
    across = int(table["place"].max()) + 1
    drawn, axes = plt.subplots(
        len(shown),
        across,
        figsize=(0.9 * across, 1.15 * len(shown) + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for row, (rule, arm, condition) in zip(axes, shown, strict=True):
        part = table[(table["rule"] == rule) & (table["arm"] == arm)]
        part = part[part["condition"] == condition]
        for axis, (at, entry) in zip(row, part.iterrows(), strict=True):
            framed(axis, tiles[at], None if entry["place"] == 0 else bool(entry["right"]))
        right = int(part[part["place"] > 0]["right"].sum())
        words = f"{QUERIES[rule]}, {label(arm)}, {WORDS[condition]}: {right} of {across - 1} right"
        row[0].text(0, 1.07, words, transform=row[0].transAxes, fontsize=10, in_layout=False)
    drawn.get_layout_engine().set(h_pad=0.17, hspace=0)  # room for the words
    note = "query: black; right neighbour: green"
    headline(drawn, "Only the background changes", note)
    return drawn


def write(studies: list[Path], folder: Path, name: str) -> str | None:
    """Draw the first study that has such images into `<folder>/<name>.jpg`; its alternative text.

    None: no study has any, and nothing is written.
    """
    use_style()
    for study in studies:
        if (drawn := figure(study)) is not None:
            keep(drawn, folder, name, photographs=True, dpi=DPI)
            return ALT
    return None
