"""What further seeds say: tables of a study joined with those of its repeats."""

import pandas as pd

from lib.evaluation import effects as effects_of
from lib.evaluation import statistics
from lib.report.style import LABELS, rounded


def by_seed(effects: pd.DataFrame) -> pd.DataFrame:
    """Change of MAP@R in points under a new background, mean over losses: a row a seed, an arm
    a column, and the gain of BGAugment over base under the new background."""
    down = effects_of.select(effects, "shifted-clean", "random_background", "both")
    up = effects_of.select(effects, "bgaugment-base", "random_background", "both")
    both = pd.concat([down, up.assign(arm="gain")])
    wide = 100 * both.pivot_table(index="seed", columns="arm", values="value", aggfunc="mean")
    return wide[["base", "bgaugment", "gain"]]


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each column of `by_seed` with its 95 % t interval over seeds (none for one)."""
    found = {column: statistics.over_draws(values) for column, values in table.items()}
    rows = {name: [x.mean, x.low, x.high, x.n] for name, x in found.items()}
    return pd.DataFrame(rows, index=["mean", "low", "high", "seeds"]).T


def finding(table: pd.DataFrame, seed: int) -> str:
    """What the seed says, beside the mean of the others."""
    others = table.drop(index=seed).mean()
    words = [
        f"{LABELS[arm]} {-table[arm][seed]:.1f} points of MAP@R (other seeds: {-others[arm]:.1f})"
        for arm in ("base", "bgaugment")
    ]
    return f"Trained again with seed {seed}, a new background costs {', '.join(words)}"


def seeds_finding(table: pd.DataFrame) -> str:
    """How far the seeds lie apart (`by_seed`), in words."""
    names = {arm: f"change of {LABELS[arm]}" for arm in ("base", "bgaugment")}
    names["gain"] = "gain of BGAugment over base"
    words = []
    for name, values in table.items():
        low, high = (rounded(end, sign="+") for end in (values.min(), values.max()))
        words.append(f"{names[name]} {low}" + ("" if low == high else f" to {high}"))
    return f"Over {len(table)} seeds, points of MAP@R under a new background: {', '.join(words)}."
