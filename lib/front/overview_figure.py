"""The figure of the first screen: a panel a study, one below the other, one mark a loss and arm.

Studies of real photographs that are not stale, where there are any; else stale ones; else all. Of
one data set of photographs, the study with most trainings; of its arms, those that all have.
`Study` is front_page's: of it only `label`, `name`, `dataset`, `entry`, `rows`, `seeds`, `lost`,
`gains` and `stale` are looked at.
"""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.core.files import atomic
from lib.report.shift_tables import ENDS, pair_label, share_words, told
from lib.report.style import colour, drawn, headline, keep, label, legend, marker, plt, use_style
from lib.training import arms

if TYPE_CHECKING:
    from lib.front.front_page import Study

REAL = ("cub200", "cars196", "sop", "grocery")  # data sets of photographs: the paper's, then ours


def chosen(studies: list["Study"]) -> list["Study"]:
    """The studies that are drawn, birds first; of one data set of photographs, the largest."""
    full = [study for study in studies if study.rows]
    real = [study for study in full if study.dataset in REAL]
    current = [study for study in real if not study.stale.startswith("Stale")]
    return sorted(largest(current or real), key=lambda study: rank(study.dataset)) or full


def largest(studies: list["Study"]) -> list["Study"]:
    """Of every data set the study with most losses and seeds, the first of equals."""
    found: dict[str, Study] = {}
    for study in studies:
        other = found.setdefault(study.dataset, study)
        if trainings(study) > trainings(other):
            found[study.dataset] = study
    return list(found.values())


def trainings(study: "Study") -> int:
    """How often every arm was trained."""
    return len(study.entry["losses"]) * study.seeds


def rank(dataset: str) -> int:
    """Real photographs first, then others, the rendered images last."""
    order = [*REAL, "folder", "rendered"]
    return order.index(dataset) if dataset in order else len(REAL)


def finding(studies: list["Study"]) -> str:
    """One sentence: the share of MAP@R that every arm loses on every data set."""
    shown = arms_of(studies)
    losses = {study.label: study.lost[study.lost["arm"].isin(shown)] for study in studies}
    words = [f"{name}: {share_words(lost)}" for name, lost in losses.items() if len(lost)]
    return f"MAP@R lost when only the background changes. {'; '.join(words)}"


def title(study: "Study", shown: list[str]) -> str:
    """A panel's finding, without intervals, which the bars show: `Birds: base 50 %, ...`."""
    trained = study.lost[study.lost["arm"].isin(set(shown) - {arms.UNTRAINED})]
    shares = [f"{label(row.arm)} {100 * row.value:.0f} %" for row in trained.itertuples()]
    return f"{study.label}: {', '.join(shares)}" if shares else study.label


def gains(studies: list["Study"]) -> list[tuple[str, str, str, str]]:
    """A row a study and contrast: its name, the arms, gain on random backgrounds and on clean
    images (points of MAP@R, interval)."""

    def text(found: dict[str, list[float]], condition: str) -> str:
        values = [float("nan") if x is None else x for x in found.get(condition) or []]
        return told(dict(zip(ENDS, values, strict=True)), 1) if values else "–"

    return [
        (s.label, pair_label(pair), text(found, "random_background"), text(found, "clean"))
        for s in studies
        for pair, found in s.gains.items()
    ]


def arms_of(studies: list["Study"]) -> list[str]:
    """The arms that are drawn, the untrained trunk first: those that every study has trained.

    All of them where the studies have no trained arm in common.
    """
    each = [{row["arm"]: None for _, part in study.rows for row in part} for study in studies]
    every = {arm: None for found in each for arm in found}
    common = [arm for arm in every if all(arm in found for found in each)]
    names = common if set(common) - {arms.UNTRAINED} else every
    return sorted(names, key=lambda arm: (arm != arms.UNTRAINED, arm not in arms.ARMS))


def figure(studies: list["Study"]) -> Figure:
    """One panel a study; lines are losses, marks arms, bars 95 % over classes."""
    shown = arms_of(studies)
    heights = [(0.26 + 0.05 * len(shown)) * len(study.rows) + 0.8 for study in studies]
    size = (6.2, sum(heights) + 1.3)  # narrow: its words are read on a phone, too
    drawn, axes = plt.subplots(
        len(studies), 1, figsize=size, height_ratios=heights, sharex=True, squeeze=False
    )
    for axis, study in zip(axes[:, 0], studies, strict=True):
        names = [name for name, _ in study.rows]
        _panel(axis, study, names, shown)
        axis.set_yticks(range(len(names)), [name or label(arms.UNTRAINED) for name in names])
        axis.set_ylim(len(names) - 0.5, -0.5)
    drawn.legend(handles=legend(shown), loc="outside lower center", ncols=len(shown))
    note = "Each mark is one loss and arm; bars: 95 % intervals over classes"
    if any(study.seeds > 1 for study in studies):
        note += ", and over trainings where there are several seeds"
    axes[-1, 0].set_xlabel("share of MAP@R lost in % ↓")
    several = "Share of MAP@R lost when only the background changes"
    headline(drawn, several if len(studies) > 1 else finding(studies), note)
    return drawn


def _panel(axis: Axes, study: "Study", names: list[str], shown: list[str]) -> None:
    trained = [arm for arm in shown if arm != arms.UNTRAINED]
    for name, rows in study.rows:
        for row in (row for row in rows if row["arm"] in shown):
            value, low, high = (row[key] for key in ("lost", "lost_low", "lost_high"))
            arm, apart = row["arm"], 0.24
            shift = apart * (trained.index(arm) - (len(trained) - 1) / 2) if arm in trained else 0
            error = None if low != low else [[value - low], [high - value]]
            axis.errorbar(
                value, names.index(name) + shift, xerr=error, color=colour(arm), ms=6, capsize=3,
                marker=marker(arm), ls="",
            )  # fmt: skip
    axis.axvline(0, color="black", lw=1)
    queries = study.entry.get("queries")
    n = f", {queries:,} queries" if queries else ""
    seeds = f"{study.seeds} seed{'s' * (study.seeds != 1)}"
    axis.set_title("\n".join(textwrap.wrap(title(study, shown), 50)), fontsize=10)
    axis.text(
        0.06, 0.99, seeds + n, transform=axis.transAxes, ha="left", va="top", fontsize=9,
        color="#56606b",
    )  # fmt: skip
    axis.tick_params(labelbottom=True)
    axis.set_xlim(left=min(0, axis.get_xlim()[0]))


def write(studies: list["Study"], folder: Path, name: str = "overview") -> str | None:
    """Draw `<name>.png` and `.svg` into `folder`; returns the finding (None: nothing drawn)."""
    shown = chosen(studies)
    if not shown:
        return None
    use_style()
    made = figure(shown)
    with atomic(folder / f"{name}.png") as temporary:  # for README
        temporary.write_bytes(drawn(made, dpi=100))
    keep(made, folder, name)
    return finding(shown)
