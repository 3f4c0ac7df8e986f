"""The figure of the first screen: studies side by side, one mark a loss and arm.

Studies of the paper's photographs, where there are any; else all. `Study` is front_page's: of it
only `name`, `dataset`, `entry` and `rows` are looked at.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.report.style import COLOURS, LABELS, MARKERS, headline, keep, plt, rounded, use_style

if TYPE_CHECKING:
    from lib.report.front_page import Study

SUBJECTS = {"cub200": "birds", "cars196": "cars", "sop": "products"}  # published data sets
SIDE = {"base": -0.13, "bgaugment": 0.13}  # where an arm stands on the line of its loss


def chosen(studies: list["Study"]) -> list["Study"]:
    """The studies that are drawn, birds first."""
    full = [study for study in studies if study.rows]
    known = [study for study in full if study.dataset in SUBJECTS]
    return sorted(known, key=lambda study: rank(study.dataset)) or full


def rank(dataset: str) -> int:
    """The paper's data sets in its order, then others, drawn pictures last."""
    order = [*SUBJECTS, "folder", "rendered"]
    return order.index(dataset) if dataset in order else len(SUBJECTS)


def _rows(study: "Study", *arms: str) -> Iterator[dict[str, Any]]:
    return (row for _, rows in study.rows for row in rows if row["arm"] in arms)


def subject(study: "Study") -> str:
    """What its pictures show."""
    return SUBJECTS.get(study.dataset, study.name)


def finding(studies: list["Study"]) -> str:
    """One sentence: what a new background takes, and what it takes with BGAugment [95 %]."""
    lost = {arm: [_lost(study, arm) for study in studies] for arm in ("base", "bgaugment")}
    first = lost["base"][0].replace(" on ", " points of MAP@R on ", 1)
    base = " and ".join([first, *lost["base"][1:]])
    return f"A new background takes {base}; with BGAugment {' and '.join(lost['bgaugment'])}"


def _lost(study: "Study", arm: str) -> str:
    """`6.4 [5.0, 7.8] of 11.3 on birds`: means over losses, of the ends of the intervals too."""
    rows = list(_rows(study, arm))
    drop, least, most, clean = (
        mean(row[key] for row in rows) for key in ("change", "high", "low", "clean")
    )
    low, high = rounded(-least), rounded(-most)
    return f"{rounded(-drop)} [{low}, {high}] of {clean:.1f} on {subject(study)}"


def gains(studies: list["Study"]) -> str:
    """What BGAugment adds to base, on new backgrounds and on clean pictures, [95 %] each.

    From `gain_points` of the studies' summaries; empty where one has none.
    """
    if not all(study.entry.get("gain_points") for study in studies):
        return ""
    words = []
    for condition, place in (("random_background", "on new backgrounds"), ("clean", "clean")):
        found = [(study.entry["gain_points"][condition], subject(study)) for study in studies]
        told = [
            f"{rounded(v, 1, '+')} [{rounded(low)}, {rounded(high)}] on {name}"
            for (v, low, high), name in found
        ]
        words.append(f"{place} {' and '.join(told)}")
    return f"BGAugment against base, points of MAP@R: {'; '.join(words)}"


def trained(studies: list["Study"]) -> str:
    """How many seeds stand behind a mark."""
    counts = [(study.entry.get("seeds"), subject(study)) for study in studies]
    words = [f"{seeds} seed{'s' * (seeds != 1)}" for seeds, _ in counts]
    if len(set(words)) > 1:
        words = [f"{word} on {name}" for word, (_, name) in zip(words, counts, strict=True)]
    return "mean of " + " and ".join(dict.fromkeys(words))


def figure(studies: list["Study"]) -> Figure:
    """One panel a study; lines are losses, marks arms, bars 95 % over classes."""
    names = list(dict.fromkeys(name for study in studies for name, _ in study.rows))
    size = (4.6 * len(studies) + 0.6, 0.42 * len(names) + 1.9)
    drawn, axes = plt.subplots(1, len(studies), figsize=size, sharey=True, squeeze=False)
    for axis, study in zip(axes[0], studies, strict=True):
        _panel(axis, study, names)
    axes[0, 0].set_yticks(range(len(names)), [name or LABELS["untrained"] for name in names])
    axes[0, 0].invert_yaxis()
    arms = ("untrained", "base", "bgaugment")
    styles = [{"color": COLOURS[a], "marker": MARKERS[a], "label": LABELS[a]} for a in arms]
    marks = [plt.Line2D([], [], ls="", **style) for style in styles]
    drawn.legend(handles=marks, loc="outside lower center", ncols=3)
    note = f"a mark: a loss and arm, {trained(studies)}; bars: 95 % over classes; left: worse"
    note += "; scales differ" * (len(studies) > 1)
    headline(drawn, finding(studies), note)
    return drawn


def _panel(axis: Axes, study: "Study", names: list[str]) -> None:
    for name, rows in study.rows:
        for row in rows:
            value, low, high = (row[key] for key in ("change", "low", "high"))
            axis.errorbar(
                value, names.index(name) + SIDE.get(row["arm"], 0),
                xerr=[[value - low], [high - value]], color=COLOURS[row["arm"]],
                marker=MARKERS[row["arm"]], ms=6, capsize=3, ls="",
            )  # fmt: skip
    axis.axvline(0, color="black", lw=1)
    queries = study.entry.get("queries")
    n = f", n = {queries:,} queries" if queries else ""
    axis.set_title(f"{subject(study)} ({study.name}{n})", fontsize=10)
    axis.set_xlabel("change of MAP@R in points ↑")


def write(studies: list["Study"], folder: Path) -> str | None:
    """Draw `overview.png` and `.svg` into `folder`; returns the finding (None: nothing drawn)."""
    shown = [s for s in chosen(studies) if any(_rows(s, "base")) and any(_rows(s, "bgaugment"))]
    if not shown:
        return None
    use_style()
    keep(figure(shown), folder, "overview")
    return finding(shown)
