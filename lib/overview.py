"""The figure of the first screen: every study of photographs side by side, one mark a loss and arm.

Made from the tables of the studies by the stage that writes the front page.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lib import compare
from lib.figures import COLOURS, LABELS, MARKERS, headline, keep, plt, use_style
from lib.files import read_json

SUBJECTS = {"cub200": "birds", "cars196": "cars", "sop": "products"}  # published data sets


def subjects(reports: Path) -> dict[str, tuple[str, dict]]:
    """Studies of published photographs that are finished: study -> (subject, its summary)."""
    found = {}
    for file in sorted((reports / "summaries").glob("*.json")):
        entry = read_json(file)
        if entry["dataset"] in SUBJECTS and (reports / file.stem / "effects.csv").exists():
            found[file.stem] = (SUBJECTS[entry["dataset"]], entry)
    return dict(sorted(found.items(), key=lambda item: list(SUBJECTS.values()).index(item[1][0])))


def changes(reports: Path, study: str) -> pd.DataFrame:
    """Random background - clean in points of MAP@R, a row a loss and arm, with n; the untrained
    trunk first. Over seeds values and ends of intervals are averaged.
    """
    table = pd.read_csv(reports / study / "effects.csv")
    rows = compare.select(table, "shifted-clean", "random_background", "both")
    grouped = rows.groupby(compare.MODEL, sort=False)
    found = grouped[["value", "low", "high"]].mean() * 100
    return found.assign(n=grouped["n"].max()).reset_index()


def finding(found: dict[str, tuple[str, dict]]) -> str:
    """One sentence: what a new background takes, and what it takes with BGAugment."""
    lost = {"base": [], "bgaugment": []}
    for subject, entry in found.values():
        for arm, words in lost.items():
            level = entry["map_at_r_percent"][arm]
            words.append(
                f"{level['clean'] - level['random_background']:.1f} of {level['clean']:.1f} points "
                f"of MAP@R on {subject}"
            )
    less = [words.replace(" points of MAP@R", "") for words in lost["bgaugment"]]
    return (
        f"A new background takes {' and '.join(lost['base'])}; with BGAugment {' and '.join(less)}"
    )


def figure(reports: Path, found: dict[str, tuple[str, dict]]) -> Figure:
    """One panel a study; lines are losses, marks arms, bars 95 % over classes."""
    tables = {study: changes(reports, study) for study in found}
    names = list(dict.fromkeys(loss for table in tables.values() for loss in table["loss"]))
    size = (4.6 * len(tables) + 0.6, 0.42 * len(names) + 1.9)
    drawn, axes = plt.subplots(1, len(tables), figsize=size, sharey=True, squeeze=False)
    for axis, (study, table) in zip(axes[0], tables.items(), strict=True):
        for row in table.itertuples():
            at = names.index(row.loss) + {"base": -0.13, "bgaugment": 0.13}.get(row.arm, 0)
            axis.errorbar(
                row.value, at, xerr=[[row.value - row.low], [row.high - row.value]],
                color=COLOURS[row.arm], marker=MARKERS[row.arm], ms=6, capsize=3, ls="",
            )  # fmt: skip
        axis.axvline(0, color="black", lw=1)
        subject, entry = found[study]
        axis.set_title(f"{subject} ({study}, n = {table['n'].max():,} queries)", fontsize=10)
        axis.set_xlabel("change of MAP@R in points ↑")
    axes[0, 0].set_yticks(range(len(names)), [compare.label_of(name) for name in names])
    axes[0, 0].invert_yaxis()
    drawn.legend(
        handles=[
            plt.Line2D([], [], color=COLOURS[a], marker=MARKERS[a], ls="", label=LABELS[a])
            for a in ("untrained", "base", "bgaugment")
        ],
        loc="outside lower center", ncols=3,
    )  # fmt: skip
    seeds = {entry["seeds"] for _, entry in found.values()}
    note = f"one mark a loss and arm, {'/'.join(map(str, sorted(seeds)))} seed(s); bars: 95 % over "
    headline(drawn, finding(found), f"{note}classes; to the left: quality lost with the background")
    return drawn


def write(reports: Path) -> str | None:
    """Draw `reports/overview.png` and `.svg`; returns its finding (None: no study to draw)."""
    found = subjects(reports)
    if not found:
        return None
    use_style()
    keep(figure(reports, found), reports, "overview")
    return finding(found)
