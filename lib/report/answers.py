"""06_report: each question answered in sentences that are made from the tables."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lib.core.errors import StudyError
from lib.core.files import digest
from lib.evaluation import effects as effects_of
from lib.evaluation import statistics
from lib.experiments import repeats
from lib.images import conditions
from lib.report import sanity_figures, shift_tables
from lib.report import seeds as seed_tables
from lib.report.style import COLOURS, LABELS, MARKERS, headline, plt, rounded
from lib.training import losses

ENDS = ["value", "low", "high"]
BLOB = "centred_gaussian"  # the control that looks at the middle of every picture
PLACES = {"random_background": "New background", "clean": "Clean"}  # where the arms are compared


@dataclass(frozen=True)
class Tables:
    """The tables of a study that the answers are made from."""

    retrieval: pd.DataFrame
    effects: pd.DataFrame
    background_gap: pd.DataFrame
    attention: pd.DataFrame
    attention_effects: pd.DataFrame
    attention_controls: pd.DataFrame
    attention_methods: pd.DataFrame
    masks: pd.DataFrame
    mask_sensitivity: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "Tables":
        """Read all tables, repeats with other seeds included; a missing one raises in words."""
        found = {}
        for field in fields(cls):
            file = folder / f"{field.name}.csv"
            if not file.exists():
                raise StudyError(
                    f"{file} does not exist. Run notebooks 02 to 05 of this study first."
                )
            found[field.name] = repeats.joined(folder, field.name)
        return cls(**found)

    def change(self, arm: str, condition: str = "random_background", sides: str = "both"):
        """Rows of shifted - clean for an arm, MAP@R."""
        rows = effects_of.select(self.effects, "shifted-clean", condition, sides)
        return rows[rows["arm"] == arm]

    def help(self, condition: str):
        """Rows of bgaugment - base under a condition, MAP@R, both sides."""
        sides = "both"
        return effects_of.select(self.effects, "bgaugment-base", condition, sides)

    def levels(self, arm: str, condition: str) -> pd.DataFrame:
        """MAP@R of an arm's models under a condition (both sides): one row a model, over draws.

        Over draws first: seeds may have different numbers of them, and count alike.
        """
        part = self.retrieval
        keep = (part["arm"] == arm) & (part["condition"] == condition)
        part = part[keep & (part["sides"] == "both") & (part["metric"] == "map_at_r")]
        return part.groupby(["loss", "seed"], sort=False)[ENDS].mean()

    def level(self, arm: str, condition: str) -> float:
        """Mean MAP@R in percent of an arm's models under a condition (both sides)."""
        return 100 * self.levels(arm, condition)["value"].mean()


def points(rows: pd.DataFrame, sign: int = 1) -> str:
    """`x.x [low, high] points` for paired effects of models taken together, then their span.

    The interval covers other classes (`together`); where several seeds were trained, one over
    them follows.
    """
    if rows.empty:
        return "not measured"
    value, up, down = 100 * sign * rows["value"], (rows["low"] > 0).sum(), (rows["high"] < 0).sum()
    above, below = (up, down) if sign > 0 else (down, up)
    text = f"**{together(rows, 100 * sign)} points**"
    if len(rows) < 2:
        return text
    return (
        f"{text} ({value.min():.1f} to {value.max():.1f} over {len(rows)} models, surely above "
        f"zero in {above}{f', below in {below}' * bool(below)}{over_seeds(rows, 100 * sign)})"
    )


def together(rows: pd.DataFrame, scale: float, digits: int = 1) -> str:
    """`value [low, high]` of several models: the means of their values and of the ends.

    A mean varies less than its parts do on average, so this interval is never too narrow.
    """
    value, *ends = (scale * rows[name].mean() for name in ENDS)
    low, high = (rounded(end, digits) for end in sorted(ends))
    return f"{rounded(value, digits)} [{low}, {high}]"


def over_seeds(rows: pd.DataFrame, scale: float, digits: int = 1) -> str:
    """The t interval of the mean over losses, from one value a seed; nothing for one seed."""
    found = statistics.over_draws(scale * rows.groupby("seed")["value"].mean())
    if found.n < 2:
        return ""
    low, high = rounded(found.low, digits), rounded(found.high, digits)
    return f"; other trainings: [{low}, {high}], {found.n} seeds"


def answer(tables: Tables, rows: pd.DataFrame) -> str:
    """`**Answer:**`, with the seeds of `rows` where they are not all that the study has."""
    seeds = set(rows["seed"])
    if not seeds or seeds == set(tables.retrieval["seed"]):
        return "**Answer:**"
    return f"**Answer** (seed {', '.join(map(str, sorted(seeds)))} only)**:**"


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
    text += (
        "\n\nModels whose validation score never rose above their start (the trunk with a random "
        f"linear layer): {never}. Whether they rose clearly above the trunk alone, and whether "
        "they had stopped rising, is on the pages 03."
    )
    if "precision" in training:  # of repeats
        plain = training.loc[training["precision"] == "f32", "seed"].unique()
        if len(plain):
            text += f" Trained again in float32: seed {', '.join(map(str, sorted(plain)))}."
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
    gap = tables.background_gap
    return (
        f"{answer(tables, gap)} cutting the object out and putting it back where it was costs "
        f"base models {points(tables.change('base', 'own_background'), -1)}; a place of another "
        f"class instead of one of the same class costs {points(gap[gap['arm'] == 'base'])}. With "
        f"BGAugment that gap is {points(gap[gap['arm'] == 'bgaugment'])}."
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
    part = tables.retrieval
    seeds = part.loc[part["condition"] == "background_only", ["seed"]]  # compared with no others
    one = replace(tables, retrieval=part[part["seed"].isin(seeds["seed"])])
    words = [
        f"{LABELS[arm]}: "
        + ", ".join(f"{name} {_percent(one.levels(arm, kind))}" for name, kind in shown.items())
        for arm in ("untrained", "base", "bgaugment")
    ]
    return f"{answer(tables, seeds)} MAP@R in % ↑ [95 % over classes]. " + "; ".join(words) + "."


def _percent(rows: pd.DataFrame) -> str:
    return "not measured" if rows.empty else together(rows, 100)


def does_it_help(tables: Tables) -> str:
    """Answer to Q5."""
    return (
        f"**Answer:** under a random background BGAugment changes MAP@R by "
        f"{points(tables.help('random_background'))}, "
        f"on clean images by {points(tables.help('clean'))}. "
        f"It loses {points(tables.change('bgaugment'), -1)} when the background changes, base "
        f"{points(tables.change('base'), -1)}."
    )


def gains_by_loss(tables: Tables) -> pd.DataFrame:
    """BGAugment minus base in points of MAP@R, a row a loss: mean over seeds [means of the ends],
    and in how many seeds the interval over classes lies above and below zero.
    """
    made: dict[str, dict[tuple[str, str], str]] = {}
    for condition, place in PLACES.items():
        for loss, rows in tables.help(condition).groupby("loss"):
            row = made.setdefault(shift_tables.label_of(loss), {})
            row[place, "gain ↑"] = together(rows, 100)
            sure = {"better": rows["low"] > 0, "worse": rows["high"] < 0}
            row |= {(place, how): f"{which.sum()} of {len(rows)}" for how, which in sure.items()}
    return pd.DataFrame(made).T


def steady(tables: Tables, condition: str) -> dict[str, int]:
    """Loss -> 1 where BGAugment is surely better in every seed, -1 surely worse, else 0."""
    grouped = tables.help(condition).groupby("loss")
    up, down = grouped["low"].min() > 0, grouped["high"].max() < 0
    return (up.astype(int) - down.astype(int)).to_dict()


def steady_gains(tables: Tables) -> str:
    """Which losses gain or lose surely, in every seed."""
    words = []
    for condition, place in PLACES.items():
        signs = steady(tables, condition).items()
        up = ", ".join(shift_tables.label_of(loss) for loss, sign in signs if sign > 0)
        down = ", ".join(shift_tables.label_of(loss) for loss, sign in signs if sign < 0)
        words.append(
            f"{place}: surely better with {up or 'none'}, surely worse with {down or 'none'}"
        )
    seeds = tables.help("clean")["seed"].nunique()
    every = f"in every one of {seeds} seeds" if seeds > 1 else "in the one seed"
    return f"**Loss by loss, {every}.** " + ". ".join(words) + "."


def attention(tables: Tables) -> str:
    """Answer to Q6."""
    part = tables.attention[tables.attention["metric"] == "attention_score"]
    words = ", ".join(
        f"{LABELS[arm]} {together(rows, 1, 3)}" for arm, rows in part.groupby("arm", sort=False)
    )
    moved = tables.attention_effects
    moved = moved[moved["metric"] == "attention_score"]
    up = int((moved["low"] > 0).sum())
    down = int((moved["high"] < 0).sum())
    blind = tables.attention_controls.set_index("control")["value"]
    means = part.groupby("arm")["value"].mean()
    above = [LABELS[arm] for arm in ("base", "bgaugment") if means[arm] > blind[BLOB]]
    return (
        f"{answer(tables, part)} mean attention score of {part['n'].max()} images [95 % over "
        f"classes] {words} (0 is a uniform map). "
        f"BGAugment moves it by **{together(moved, 1, 3)}**; the interval lies above zero for {up} "
        f"and below zero for {down} of {len(moved)} models. Maps that see no network get: centred "
        f"blob {blind[BLOB]:.3f}, edge detector {blind['sobel']:.3f}; above the blob, on average: "
        f"{' and '.join(above) or 'none of the arms'}."
    )


def how_sure(tables: Tables) -> str:
    """Answer to Q7: spread over draws and seeds, the masks, the attribution methods."""
    part = tables.retrieval
    part = part[(part["condition"] == "random_background") & (part["metric"] == "map_at_r")]
    part = part[part["sides"] == "both"]
    draws = part.groupby(["loss", "arm", "seed"])["value"].std()
    trained = part[part["arm"] != "untrained"].groupby(["loss", "arm", "seed"])["value"].mean()
    seeds = trained.groupby(["loss", "arm"]).agg(["std", "count"])
    known = tables.masks[tables.masks["metric"] == "iou_mean"]
    words = [
        f"{row.source} {row.value:.3f} on {row.n} images of {row.dataset}"
        for row in known.itertuples()
    ]
    text = (
        f"**Answer:** over background draws a model's MAP@R varies by {mean_and_most(draws)} "
        "points (std; mean and greatest of the models). "
    )
    if seeds["count"].min() > 1:
        text += f"Over seeds it varies by {mean_and_most(seeds['std'])} points. "
    else:
        text += "Only one seed was trained: **nothing here says how far another would differ**. "
    text += f"Masks, IoU where the truth is known: {'; '.join(words) or 'no truth at hand'}. "
    one = tables.mask_sensitivity["loss"].iloc[0]
    text += (
        f"With {shift_tables.label_of(one)}, the one loss tried: "
        f"{shift_tables.mask_finding(tables.mask_sensitivity)}. "
    )
    if steady(tables, "random_background")[one] < 1:
        text += "That loss has no sure gain to lose; those of other losses were not tried. "
    moved = tables.attention_methods
    return text + sanity_figures.matrix_finding(moved[moved["arm"].str.contains("-")]) + "."


def mean_and_most(std: pd.Series) -> str:
    """`0.05 and 0.12`: mean and greatest, in points."""
    return f"{100 * std.mean():.2f} and {100 * std.max():.2f}"


# From no new background to a foreign one.
REMOVED, FOREIGN = "foreground_only", ("other_class_background", "random_background")


def distraction(tables: Tables) -> str:
    """What base networks lose without a background and before foreign ones, over one set of seeds;
    empty where that was not measured."""
    rows = {kind: tables.change("base", kind) for kind in (REMOVED, *FOREIGN)}
    if any(part.empty for part in rows.values()):
        return ""
    seeds = set.intersection(*(set(part["seed"]) for part in rows.values()))
    rows["query"] = tables.change("base", sides="query")
    lost = {k: together(part[part["seed"].isin(seeds)], -100) for k, part in rows.items()}
    return (
        f"with the background removed ({conditions.get(REMOVED).label}) base models lose "
        f"{lost[REMOVED]} points, in a place of another class {lost[FOREIGN[0]]}, before a random "
        f"photograph {lost[FOREIGN[1]]}, {lost['query']} where only the query has one "
        f"(seed {', '.join(map(str, sorted(seeds)))})"
    )


def surprises(tables: Tables) -> str:
    """What was not expected, with its number."""
    raw = -100 * tables.change("untrained")["value"].mean()
    base = -100 * tables.change("base")["value"].mean()
    start, end = tables.level("untrained", "clean"), tables.level("base", "clean")
    clean = 100 * tables.help("clean")["value"].mean()
    text = (
        f"- Before training: features not trained on this data set lose {raw:.1f} of "
        f"{start:.1f} points ({raw / start:.0%}) when the background changes, trained base models "
        f"{base:.1f} of {end:.1f} ({base / end:.0%}).\n"
        f"- On clean images BGAugment stands {rounded(clean, 1, '+')} points from base, on average."
    )
    found = distraction(tables)
    return text + (f"\n- Missing, or distracting? {found[0].upper()}{found[1:]}." * bool(found))


def main_finding(tables: Tables) -> str:
    """The one sentence of the study, with 95 % intervals over classes."""
    lost = {arm: together(tables.change(arm), -100) for arm in ("base", "bgaugment")}
    return (
        f"A new background takes {lost['base']} of {tables.level('base', 'clean'):.1f} points of "
        f"MAP@R; with BGAugment {lost['bgaugment']} of {tables.level('bgaugment', 'clean'):.1f}"
    )


def headline_figure(effects: pd.DataFrame, title: str) -> Figure:
    """Change of MAP@R under a random background, one mark a model, bars over classes.

    The seeds of a loss and arm share its line.
    """
    found = effects_of.select(effects, "shifted-clean", "random_background", "both")
    arms = ("untrained", "base", "bgaugment")
    rows = [row for arm in arms for row in found[found["arm"] == arm].itertuples()]
    places, names = shift_tables.lines_of([(row.loss, row.arm, row.seed) for row in rows])
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
    several = " (a mark a seed)" * (found["seed"].nunique() > 1)
    headline(figure, title, f"n = {n:,} queries; bars: 95 % over classes{several}")
    return figure


def front_page_entry(
    study: str, facts: dict, tables: Tables, finding: str, folder: Path
) -> dict[str, Any]:
    """What the front page says about the study, and the checksums of the tables behind it."""
    levels = {
        arm: {c: round(tables.level(arm, c), 2) for c in ("clean", "random_background")}
        for arm in ("untrained", "base", "bgaugment")
    }
    score = tables.attention[tables.attention["metric"] == "attention_score"]
    seeds = seed_tables.by_seed(tables.effects)
    return {
        "study": study,
        "note": facts["note"],
        "tables_sha256": {file.name: digest(file)[:16] for file in sorted(folder.glob("*.csv"))},
        "dataset": facts["dataset"],
        "finding": finding,
        "map_at_r_percent": levels,
        "gain_points": {
            kind: [round(100 * tables.help(kind)[end].mean(), 4) for end in ENDS]
            for kind in ("random_background", "clean")
        },
        "attention_score": score.groupby("arm")["value"].mean().round(4).to_dict(),
        "queries": int(tables.retrieval["n"].max()),
        "losses": sorted(set(tables.retrieval["loss"]) - {"none"}),
        "seeds": len(seeds),
        "over_seeds": seed_tables.seeds_finding(seeds) if len(seeds) > 1 else "",
    }
