"""The first image a reader sees: one query, its nearest neighbours, and then only its background
is changed.

The query is picked by a rule, never by hand: of the first loss, the one whose average precision
falls most (lib.evaluation.query_examples). Page 04 shows the median query, too.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lib.core.tiles import read_tiles
from lib.report.style import framed, headline, keep, label, plt, use_style
from lib.training import arms

RULE, CLEAN, SHIFTED = "largest drop", "clean", "random_background"
WORDS = {CLEAN: "photographs as they are", SHIFTED: "other backgrounds"}
ALT = (
    "A query and its five nearest neighbours, green where the class is right: on photographs as "
    "they are, on other backgrounds, and on other backgrounds after training with them"
)


def lines(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The (arm, condition) that are shown, as far as they were measured: the reference before and
    after, then the first arm that is compared with it."""
    mine = table[table["rule"] == RULE]
    there = set(zip(mine["arm"], mine["condition"], strict=True))
    pairs = arms.pairs(list(dict.fromkeys(mine["arm"])))
    arm, reference = pairs[0] if pairs else ("", next(iter(mine["arm"]), ""))
    wanted = [(reference, CLEAN), (reference, SHIFTED), (arm, SHIFTED)]
    return [line for line in wanted if line in there]


def figure(study: Path) -> Figure | None:
    """The figure of a study's folder in reports; None where it has no such images."""
    where = study / "measured" / "evaluation" / "gallery"
    if not where.with_suffix(".jpg").exists():
        return None
    tiles, table = read_tiles(where)
    shown = lines(table)
    if len(shown) < 2:
        return None
    across = int(table["place"].max()) + 1
    drawn, axes = plt.subplots(
        len(shown), across, figsize=(1.35 * across, 1.62 * len(shown) + 0.55), squeeze=False
    )
    for row, (arm, condition) in zip(axes, shown, strict=True):
        part = table[(table["rule"] == RULE) & (table["arm"] == arm)]
        part = part[part["condition"] == condition]
        for axis, (at, entry) in zip(row, part.iterrows(), strict=True):
            framed(axis, tiles[at], None if entry["place"] == 0 else bool(entry["right"]))
        right = int(part[part["place"] > 0]["right"].sum())
        words = f"{label(arm)}, {WORDS[condition]}: {right} of {across - 1} right"
        row[0].set_title(words, fontsize=10, loc="left")
    headline(drawn, "Only the background changes: the query (black) and its five nearest images")
    return drawn


def write(studies: list[Path], folder: Path, name: str) -> str | None:
    """Draw the first study that has such images into `<folder>/<name>.jpg`; its alternative text.

    None: no study has any, and nothing is written.
    """
    use_style()
    for study in studies:
        if (drawn := figure(study)) is not None:
            keep(drawn, folder, name, photographs=True)
            return ALT
    return None
