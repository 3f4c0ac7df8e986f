"""Figures of the real shift: who is found in the catalogue, and do composites predict it?"""

import pandas as pd
from matplotlib.figure import Figure

from lib.evaluation import effects
from lib.experiments.catalogue import CONDITION
from lib.report.shift_tables import arms_of, told
from lib.report.style import colour, headline, label, marker, plt
from lib.training import arms

ALL = "all products"
PREDICTORS = {
    "lost": "lost on composites",
    "clean": "clean P@1",
    "lost given clean": "lost on composites, clean P@1 taken off",
}


def levels(catalogue: pd.DataFrame) -> pd.DataFrame:
    """P@1 per kind of product and arm, means over losses and seeds with joint intervals."""
    parts = [
        effects.joint_levels(part, metric="p_at_1").assign(kind=name, classes=_classes(part))
        for name, part in _kinds(catalogue).items()
    ]
    return pd.concat(parts, ignore_index=True)


def _kinds(catalogue: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {ALL: catalogue, **dict([*catalogue.groupby("kind", sort=True)])}


def _classes(catalogue: pd.DataFrame) -> int:
    return catalogue["label"].nunique()


def gain(catalogue: pd.DataFrame, contrast: str) -> pd.DataFrame:
    """What an arm gains over its reference in the catalogue, per kind of product."""
    parts = [
        effects.joint(part, contrast, CONDITION, "both", "p_at_1").assign(kind=name)
        for name, part in _kinds(catalogue).items()
    ]
    return pd.concat(parts, ignore_index=True)


def found_figure(table: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """P@1 in the catalogue: a row a kind of product, a mark an arm."""
    drawn, axis = plt.subplots(figsize=(8, 3.6))
    kinds, names = list(dict.fromkeys(table["kind"])), arms_of(table)
    for shift, arm in enumerate(names):
        part = table[table["arm"] == arm]
        value, where = 100 * part["value"], [kinds.index(kind) for kind in part["kind"]]
        error = [value - 100 * part["low"], 100 * part["high"] - value]
        axis.errorbar(
            value, [y + 0.18 * (shift - (len(names) - 1) / 2) for y in where], xerr=error,
            color=colour(arm), marker=marker(arm), ls="", capsize=3, label=label(arm),
        )  # fmt: skip
    sizes = table.groupby("kind")["classes"].first()
    axis.set_yticks(range(len(kinds)), [f"{kind} ({sizes[kind]} classes)" for kind in kinds])
    axis.invert_yaxis()
    axis.set_xlabel("P@1 in the catalogue in % ↑")
    drawn.legend(loc="outside lower center", ncols=len(names))
    headline(drawn, found_finding(gains), "bars: 95 % intervals over classes (and seeds)")
    return drawn


def found_finding(gains: pd.DataFrame) -> str:
    """What training on replaced backgrounds does to the search of the catalogue."""
    whole = gains[gains["kind"] == ALL].iloc[0]
    arm, up = str(whole["arm"]), whole["value"] > 0
    reference, word = arms.get(arm).reference or "", "more" if up else "fewer"
    sure = "" if whole["low"] > 0 or whole["high"] < 0 else ", which may be chance"
    return (
        f"{label(arm)} finds {told(whole, 100 if up else -100)} points {word} of the products in "
        f"the catalogue than {label(reference)}{sure}"
    )


def predicted_finding(links: pd.DataFrame, arm: str) -> str:
    """Do classes that suffer from composites fail in the catalogue?"""
    own = links[links["arm"] == arm].set_index("predictor")
    raw, rest = own.loc["lost"], own.loc["lost given clean"]
    verdict = "predicts" if raw["high"] < 0 else "does not predict"
    return (
        f"The loss on composites {verdict} which classes fail in the catalogue: rank correlation "
        f"{told(raw, 1, 2)}; with clean P@1 taken off {told(rest, 1, 2)} ({label(arm)})"
    )


def predicted_figure(table: pd.DataFrame, links: pd.DataFrame, arm: str) -> Figure:
    """A mark a class: what composites took, against what the catalogue gave."""
    drawn, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    own = table[table["arm"] == arm]
    for axis, (name, text) in zip(axes, list(PREDICTORS.items())[:2], strict=True):
        for mark, (kind, part) in zip("osv^", own.groupby("kind", sort=True), strict=False):
            axis.plot(100 * part[name], 100 * part["found"], mark, alpha=0.7, label=kind)
        axis.set_xlabel(f"{text}, {'points' if name == 'lost' else '%'}")
    axes[0].set_ylabel("found in the catalogue in % ↑")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    headline(
        drawn, predicted_finding(links, arm), "a mark a test class, means over losses and seeds"
    )
    return drawn
