"""06_report: each question answered in sentences that are made from the tables."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lib import compare, losses, shifts, trust_figures
from lib.errors import StudyError
from lib.figures import COLOURS, LABELS, MARKERS, headline, plt
from lib.files import digest
from lib.pooled import ALL


@dataclass(frozen=True)
class Tables:
    """The tables of a study that the answers are made from."""

    retrieval: pd.DataFrame
    effects: pd.DataFrame
    pooled: pd.DataFrame
    attention: pd.DataFrame
    attention_effects: pd.DataFrame
    attention_pooled: pd.DataFrame
    attention_controls: pd.DataFrame
    attention_methods: pd.DataFrame
    masks: pd.DataFrame
    mask_sensitivity: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "Tables":
        """Read all tables; a missing one raises with the notebook to run."""
        found = {}
        for field in fields(cls):
            file = folder / f"{field.name}.csv"
            if not file.exists():
                raise StudyError(
                    f"{file} does not exist. Run notebooks 02 to 05 of this study first."
                )
            found[field.name] = pd.read_csv(file)
        return cls(**found)

    def change(self, arm: str, condition: str = "random_background", sides: str = "both"):
        """Pooled rows of shifted - clean for an arm, MAP@R."""
        return self.pool("shifted-clean", arm, condition, sides)

    def help(self, condition: str):
        """Pooled rows of bgaugment - base under a condition, MAP@R, both sides."""
        return self.pool("bgaugment-base", "bgaugment", condition)

    def gap(self, arm: str):
        """Pooled rows of the BG-gap (filled places) of an arm, MAP@R."""
        return self.pool("same-other", arm, shifts.GAPS["filled"][0])

    def pool(self, contrast: str, arm: str, condition: str, sides: str = "both") -> pd.DataFrame:
        """Rows of lib.pooled: one a loss, and "all"; empty where it was not measured."""
        rows = compare.select(self.pooled, contrast, condition, sides)
        return rows[rows["arm"] == arm]

    def level(self, arm: str, condition: str) -> float:
        """Mean MAP@R in percent of an arm under a condition (both sides), over models and draws."""
        rows = self.pool("level", arm, condition)
        return 100 * rows[rows["loss"] == ALL]["value"].mean()


def points(rows: pd.DataFrame, sign: int = 1) -> str:
    """`x.x points [low, high]` of all losses together, then their span and how many are sure.

    `rows` are one arm's of lib.pooled: one a loss, and one of all.
    """
    if rows.empty:
        return "not measured"
    whole, each = rows[rows["loss"] == ALL].iloc[0], rows[rows["loss"] != ALL]
    text = f"**{spanned(whole, 100 * sign)} points**"
    if len(each) < 2:
        return text
    value, beyond = 100 * sign * each["value"], ((each["low"] > 0) | (each["high"] < 0)).sum()
    return (
        f"{text} ({value.min():.1f} to {value.max():.1f} over {len(each)} losses, beyond zero in "
        f"{beyond}{over_seeds(whole, 100 * sign)})"
    )


def spanned(row: pd.Series, scale: float, digits: int = 1) -> str:
    """`value [low, high]`: a pooled mean with its interval over classes."""
    low, high = sorted((scale * row["low"], scale * row["high"]))
    return f"{scale * row['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def over_seeds(row: pd.Series, scale: float, digits: int = 1) -> str:
    """The interval over trainings as a half sentence; nothing where there was one."""
    if row["seeds"] < 2:
        return ""
    low, high = sorted((scale * row["seeds_low"], scale * row["seeds_high"]))
    return f"; other trainings: [{low:.{digits}f}, {high:.{digits}f}] from {row['seeds']} seeds"


def percent(tables: Tables, arm: str, condition: str) -> str:
    """MAP@R in percent of an arm under a condition, `value [low, high]`."""
    rows = tables.pool("level", arm, condition)
    whole = rows[rows["loss"] == ALL]
    return "not measured" if whole.empty else spanned(whole.iloc[0], 100)


def what_was_run(tables: Tables, training: pd.DataFrame, note: str) -> str:
    """Models, seeds and queries behind the answers, and which models never beat their start.

    `note` is what a reader must know of this copy of the data.
    """
    best = training[training["epoch"] == training["best"]]
    names = ", ".join(losses.get(name).label for name in sorted(training["loss"].unique()))
    stuck = sorted(
        {f"{r.loss} {r.arm} seed {r.seed}" for r in best[best["best"] == 0].itertuples()}
    )
    text = (
        f"{names}; arms base and BGAugment; {training['seed'].nunique()} seed(s); "
        f"{tables.retrieval['n'].max():,} test queries; the untrained ImageNet trunk as a baseline."
    )
    never = ", ".join(stuck) or "none"
    text += f"\n\nModels whose validation score never rose above their start: {never}."
    return f"{text}\n\n**{note}**" if note else text


def loss_by_shift(tables: Tables) -> str:
    """Answer to Q1."""
    return (
        f"**Answer:** trained without replaced backgrounds, the models lose "
        f"{points(tables.change('base'), -1)} of MAP@R, "
        f"from {tables.level('base', 'clean'):.1f} % to "
        f"{tables.level('base', 'random_background'):.1f} %. The untrained trunk loses "
        f"{points(tables.change('untrained'), -1)}."
    )


def background_or_scissors(tables: Tables) -> str:
    """Answer to Q2."""
    return (
        f"**Answer:** cutting the object out and putting it back where it was costs base models "
        f"{points(tables.change('base', 'own_background'), -1)}; a place of another class instead "
        f"of one of the same class costs {points(tables.gap('base'))}. With BGAugment that "
        f"gap is {points(tables.gap('bgaugment'))}."
    )


def only_the_query(tables: Tables) -> str:
    """Answer to Q3."""
    return (
        f"**Answer:** with a changed query against a clean gallery the base models lose "
        f"{points(tables.change('base', sides='query'), -1)}, with both sides changed "
        f"{points(tables.change('base'), -1)}; BGAugment loses "
        f"{points(tables.change('bgaugment', sides='query'), -1)} and "
        f"{points(tables.change('bgaugment'), -1)}."
    )


def alone(tables: Tables) -> str:
    """Answer to Q4."""
    shown = {"background alone": "background_only", "object alone": "foreground_only"}
    shown |= {"whole picture": "clean"}
    words = [
        f"{LABELS[arm]}: "
        + ", ".join(f"{name} {percent(tables, arm, kind)}" for name, kind in shown.items())
        for arm in ("untrained", "base", "bgaugment")
    ]
    return "**Answer:** MAP@R in % ↑ [95 % over classes]. " + "; ".join(words) + "."


def does_it_help(tables: Tables) -> str:
    """Answer to Q5."""
    return (
        f"**Answer:** under a random background BGAugment changes MAP@R by "
        f"{points(tables.help('random_background'))}, "
        f"on clean images by {points(tables.help('clean'))}. "
        f"It loses {points(tables.change('bgaugment'), -1)} when the background changes, base "
        f"{points(tables.change('base'), -1)}."
    )


def attention(tables: Tables) -> str:
    """Answer to Q6."""
    rows = {kind: part for kind, part in tables.attention_pooled.groupby("contrast")}
    means = rows["level"][rows["level"]["loss"] == ALL]
    words = ", ".join(f"{LABELS[row['arm']]} {spanned(row, 1, 3)}" for _, row in means.iterrows())
    moved = rows["bgaugment-base"]
    whole, each = moved[moved["loss"] == ALL].iloc[0], moved[moved["loss"] != ALL]
    up, down = int((each["low"] > 0).sum()), int((each["high"] < 0).sum())
    blind = tables.attention_controls.set_index("control")["value"]
    return (
        f"**Answer:** mean attention score {words} (0 is a uniform map). BGAugment moves it by "
        f"**{spanned(whole, 1, 3)}**{over_seeds(whole, 1, 3)}; the interval lies above zero for "
        f"{up} and below zero for {down} of {len(each)} losses. Maps that see no network get: "
        f"centred blob {blind['centred_gaussian']:.3f}, edge detector {blind['sobel']:.3f}."
    )


def how_sure(tables: Tables) -> str:
    """Answer to Q7: spread over draws and seeds, the masks, the attribution methods."""
    part = tables.retrieval
    part = part[(part["condition"] == "random_background") & (part["metric"] == "map_at_r")]
    part = part[part["sides"] == "both"]
    draws = 100 * part.groupby(["loss", "arm", "seed"])["value"].std().max()
    trained = part[part["arm"] != "untrained"].groupby(["loss", "arm", "seed"])["value"].mean()
    seeds = trained.groupby(["loss", "arm"]).agg(["std", "count"])
    known = tables.masks[tables.masks["metric"] == "iou_mean"]
    words = [
        f"{row.source} {row.value:.3f} on {row.n} images of {row.dataset}"
        for row in known.itertuples()
    ]
    text = (
        f"**Answer:** over background draws a model's MAP@R varies by at most {draws:.2f} points "
        "(std). "
    )
    if seeds["count"].min() > 1:
        text += f"Over seeds it varies by {100 * seeds['std'].mean():.2f} points (mean std). "
    else:
        text += "Only one seed was trained: **nothing here says how far another would differ**. "
    text += f"Masks, IoU where the truth is known: {'; '.join(words) or 'no truth at hand'}. "
    one = compare.label_of(tables.mask_sensitivity["loss"].iloc[0])
    text += f"With {one}, the one loss tried: {compare.mask_finding(tables.mask_sensitivity)}. "
    moved = tables.attention_methods
    return text + trust_figures.matrix_finding(moved[moved["arm"].str.contains("-")]) + "."


def surprises(tables: Tables) -> str:
    """What was not expected, with its number."""
    start, end = tables.level("untrained", "clean"), tables.level("base", "clean")
    raw = start - tables.level("untrained", "random_background")
    base = end - tables.level("base", "random_background")
    return (
        f"- The bias is brought along: features that never saw this data set lose {raw:.1f} of "
        f"{start:.1f} points ({raw / start:.0%}) when the background changes, trained base models "
        f"{base:.1f} of {end:.1f} ({base / end:.0%}).\n"
        f"- On clean images BGAugment changes MAP@R by {points(tables.help('clean'))}."
    )


def main_finding(tables: Tables) -> str:
    """The one sentence of the study."""
    words = []
    for arm in ("base", "bgaugment"):
        rows = tables.change(arm)
        lost = spanned(rows[rows["loss"] == ALL].iloc[0], -100)
        words.append(f"{lost} of {tables.level(arm, 'clean'):.1f}")
    return f"A new background takes {words[0]} points of MAP@R; with BGAugment {words[1]}"


def headline_figure(tables: Tables, title: str) -> Figure:
    """Change of MAP@R under a random background, one mark a model, bars over classes.

    The seeds of a loss and arm share its line.
    """
    arms = ("untrained", "base", "bgaugment")
    moved = compare.select(tables.effects, "shifted-clean", "random_background", "both")
    rows = [row for arm in arms for row in moved[moved["arm"] == arm].itertuples()]
    places, names = compare.lines_of([(row.loss, row.arm, row.seed) for row in rows])
    figure, axis = plt.subplots(figsize=(7.5, 0.36 * len(names) + 1.5))
    for row in rows:
        at = places[row.loss, row.arm, row.seed]
        value, low, high = (100 * x for x in (row.value, row.low, row.high))
        axis.errorbar(
            value, at, xerr=[[value - low], [high - value]], color=COLOURS[row.arm],
            marker=MARKERS[row.arm], capsize=3,
        )  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.invert_yaxis()
    axis.axvline(0, color="black", lw=1)
    axis.set_xlabel("change of MAP@R in points under a new background ↑")
    n = max(row.n for row in rows)
    headline(figure, title, f"n = {n:,} queries; bars: 95 % over classes")
    return figure


def front_page_entry(
    study: str, facts: dict, tables: Tables, finding: str, folder: Path
) -> dict[str, Any]:
    """What the front page says about the study, and the checksums of the tables behind it."""
    levels = {
        arm: {c: round(tables.level(arm, c), 2) for c in ("clean", "random_background")}
        for arm in ("untrained", "base", "bgaugment")
    }
    moved = {arm: tables.change(arm) for arm in levels}
    ends = {
        arm: [round(100 * rows[rows["loss"] == ALL].iloc[0][name], 2) for name in ("low", "high")]
        for arm, rows in moved.items()
    }
    score = tables.attention_pooled
    score = score[(score["contrast"] == "level") & (score["loss"] == ALL)]
    return {
        "study": study,
        "note": facts["note"],
        "tables_sha256": {file.name: digest(file)[:16] for file in sorted(folder.glob("*.csv"))},
        "dataset": facts["dataset"],
        "finding": finding,
        "map_at_r_percent": levels,
        "change_interval": ends,  # random background minus clean, points of MAP@R, over classes
        "attention_score": score.set_index("arm")["value"].round(4).to_dict(),
        "queries": int(tables.retrieval["n"].max()),
        "losses": sorted(set(tables.retrieval["loss"]) - {"none"}),
        "seeds": int(tables.retrieval["seed"].nunique()),
    }
