"""06_report: the tables behind the answers, and the study's entry on the front page."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.core.errors import StudyError
from lib.core.files import digest
from lib.evaluation import effects as effects_of
from lib.evaluation import statistics
from lib.evaluation.measured import Measured
from lib.report import attention_tables
from lib.report.shift_tables import (
    ENDS,
    PAPER,
    SHARE,
    arms_of,
    contrasts_of,
    few_classes,
    label_of,
    means,
    pair_label,
    told,
)  # fmt: skip
from lib.report.style import label
from lib.training import arms

LITTLE, MOST = 0.10, 0.90  # of the image marked as object, of the masks usable: below, a warning

LATER = ("remedies.csv", "remedy_gains.csv")  # told by 07_remedies


def cost_table(classes: pd.DataFrame) -> pd.DataFrame:
    """MAP@R clean and under a random background, points lost and their share: a row an arm."""
    level = effects_of.joint_levels(classes).set_index(["arm", "condition"])
    lost = effects_of.joint(classes, "shifted-clean", "random_background", "both")
    shares = effects_of.share_lost(classes).set_index("arm")
    rows = {}
    for row in lost.to_dict("records"):
        clean, moved = (100 * level.loc[(row["arm"], kind), "value"] for kind in PAPER)
        rows[label(row["arm"])] = {
            "clean, % ↑": clean, "random background, % ↑": moved, "points lost ↓": told(row, -100),
            "share lost, % ↓": told(shares.loc[row["arm"]], 100, 0), "models": row["models"],
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def kinds_table(m: Measured) -> pd.DataFrame:
    """`cost_table` for each kind of class apart: what stands before the `/` of a class's name.

    Empty where the classes are of one kind. The models are those of all kinds together.
    """
    kinds, parts = m.kinds, {}
    for name in kinds.unique() if kinds.nunique() > 1 else ():
        part = m.classes[m.classes["label"].isin(kinds.index[kinds == name])]
        table = cost_table(part).drop(columns="models")
        parts[f"{name} ({part['label'].nunique()} classes)"] = table
    return pd.concat(parts) if parts else pd.DataFrame()


def alone_table(classes: pd.DataFrame) -> pd.DataFrame:
    """MAP@R in percent of the whole image, the object alone and the background alone, by arm."""
    shown = {"clean": "whole image", "foreground_only": "object alone"}
    shown |= {"background_only": "background alone"}
    found = effects_of.joint_levels(classes[classes["condition"].isin(shown)])
    found = found.assign(text=[told(row) for row in found.to_dict("records")])
    wide = found.pivot(index="arm", columns="condition", values="text").loc[arms_of(found)]
    wide = wide[[kind for kind in shown if kind in wide]].rename(columns=shown)
    return wide.rename(index=label).rename_axis(None).rename_axis(None, axis=1)


def gap_table(classes: pd.DataFrame) -> pd.DataFrame:
    """BG-gap in points, filled and tiled, and what cutting and pasting alone costs, by arm."""
    columns = {
        "BG-gap, filled ↓": ("same-other", "same_class_background", 100),
        "BG-gap, tiled ↓": ("same-other", "same_class_tiled", 100),
        "cut and pasted alone, points lost ↓": ("shifted-clean", "own_background", -100),
    }
    found = {
        name: {
            label(row["arm"]): told(row, scale)
            for row in effects_of.joint(classes, contrast, kind, "both").to_dict("records")
        }
        for name, (contrast, kind, scale) in columns.items()
    }
    return pd.DataFrame({name: values for name, values in found.items() if values})


def by_seed(effects: pd.DataFrame, contrasts: list[str]) -> pd.DataFrame:
    """Points of MAP@R under a random background, mean over losses: a row a seed.

    Columns: the change of every trained arm, then every contrast of arms.
    """
    parts = []
    for contrast in ["shifted-clean", *contrasts]:
        rows = effects_of.select(effects, contrast, "random_background", "both")
        rows = rows[rows["arm"] != arms.UNTRAINED]
        name = rows["arm"] if contrast == "shifted-clean" else contrast
        parts.append(rows.assign(name=name))
    both = pd.concat(parts)
    wide = both.pivot_table(index="seed", columns="name", values="value", sort=False)
    return (100 * wide).rename(columns=pair_label)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each column of `by_seed` with its 95 % t interval over seeds."""
    found = {column: statistics.over_draws(values) for column, values in table.items()}
    rows = {name: [x.mean, x.low, x.high, x.n] for name, x in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high", "seeds"])


def spread(table: pd.DataFrame) -> dict[str, float]:
    """Mean standard deviation of a model's MAP@R in points, over `draws` and over `seeds`.

    Under a random background; NaN where there is one of them. `table` is retrieval.parquet.
    """
    keep = (table["condition"] == "random_background") & (table["sides"] == "both")
    part = table[keep & (table["metric"] == "map_at_r")]
    draws = part.groupby(["loss", "arm", "seed"])["value"].std()
    seeds = means(part, ["loss", "arm", "seed"]).groupby(["loss", "arm"])["value"].std()
    return {"draws": 100 * draws.mean(), "seeds": 100 * seeds.mean()}


def checkpoint_choice(training: pd.DataFrame) -> pd.Series:
    """Validation MAP@R (points, random background) gained by picking the epoch on that condition.

    Against picking it on clean images, mean over the models of every arm that does so.
    """
    gains = []
    for (_, arm, _), part in training.groupby(["loss", "arm", "seed"], sort=False):
        wide = part.pivot(index="epoch", columns="condition", values="map_at_r")
        known = arm in arms.ARMS and set(PAPER) <= set(wide)
        if known and arms.get(arm).select_on == "random_background":
            moved = wide["random_background"]
            gains.append((arm, 100 * (moved[part["best"].iloc[0]] - moved[wide["clean"].idxmax()])))
    table = pd.DataFrame(gains, columns=["arm", "gain"])
    return table.groupby("arm", sort=False)["gain"].mean()


def not_trained(learning: pd.DataFrame) -> str:
    """Models that did not pass the test of page 03, in words."""
    lost, found = learning[~learning["trained"].astype(bool)], []
    for (loss, arm), part in lost.groupby(["loss", "arm"], sort=False):
        word = "seed" if len(part) == 1 else "seeds"
        found.append(f"{label_of(loss)} {label(arm)} ({word} {', '.join(map(str, part['seed']))})")
    return f"{len(lost)} of {len(learning)}: {', '.join(found)}" if found else "none"


def masks_note(file: Path, dataset: str) -> tuple[str, str]:
    """How many test masks are usable and how much they cover, and a warning ("": none), in words.

    What a mask misses of an object counts as background: where it marks little, a drop is partly
    one of objects replaced.

    Args:
        file: masks.csv of page 02.
    """
    if not file.exists():
        return "", ""
    table = pd.read_csv(file)
    keep = (table["dataset"] == dataset) & (table["split"] == "test") & (table["source"] == "used")
    known = table[keep].set_index("metric")["value"]
    if "area_mean" not in known:
        return "", ""
    usable, area = 1 - known["empty_share"] - known["full_share"], known["area_mean"]
    told = (
        f"Masks: {usable:.1%} of the test images have a usable one; on average they mark "
        f"{area:.0%} of the image as object."
    )
    if area >= LITTLE and usable >= MOST:
        return told, ""
    return told, (
        f"The masks find little (usable: {usable:.0%}, marked as object: {area:.0%} of the image): "
        "what they miss of an object is replaced with the background, so that a loss here may be "
        "one of objects. Look at page 02 before believing it."
    )


# ----------------------------------------------------------------------------- attention


def attention(study: str) -> pd.DataFrame:
    """The measured attention scores (a row a model and image); empty where there are none."""
    try:
        rows = attention_tables.read(study, "scores")
    except StudyError:
        return pd.DataFrame()
    return rows[rows["defined"] & (rows["metric"] == attention_tables.SCORE)]


def pooled(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """`attention` with the mean over all models of a group (`by`) in place of each."""
    keys = [*by, *attention_tables.EXPLANATION, "metric", "row", "label"]
    mean = rows.groupby(keys, sort=False)["value"].mean().reset_index()
    missing = {"loss": "all", "seed": -1, "defined": True}
    return mean.assign(**{key: value for key, value in missing.items() if key not in by})


def attention_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Attention score of every arm, then the gain of every contrast: value, low, high, n."""
    arm_rows = pooled(rows, ["arm"])
    level = attention_tables.means(arm_rows, ["arm"]).rename(columns={"arm": "what"})
    level = level.sort_values("what", key=lambda x: x != arms.UNTRAINED, kind="stable")
    gain = attention_tables.differences(arm_rows).rename(columns={"contrast": "what"})
    both = over_trainings(pd.concat([level, gain])[["what", *ENDS, "n"]], rows)
    return both.assign(what=both["what"].map(pair_label)).set_index("what").rename_axis(None)


def over_trainings(table: pd.DataFrame, rows: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Intervals of arms and contrasts (`what`); from two seeds on they cover trainings, too."""
    seeds = rows.groupby(["seed", "arm"])["value"].mean().unstack("arm")
    half = []
    for row in table.itertuples():
        arm, _, than = row.what.partition("-")
        each = (seeds[arm] - seeds[than] if than else seeds[arm]).dropna().to_frame()
        half.append(statistics.with_trainings([row.high - row.value], each, level=level)[0])
    return table.assign(low=table["value"] - half, high=table["value"] + half)


# ----------------------------------------------------------------------------- the front page


def model_rows(classes: pd.DataFrame) -> list[dict[str, Any]]:
    """What the front page's table shows: a row a loss and arm, percent and points, over seeds."""
    level = effects_of.joint_levels(classes, ("loss", "arm"))
    wide = level.pivot(index=["loss", "arm"], columns="condition", values="value") * 100
    by = ("loss", "arm")
    lost = effects_of.joint(classes, "shifted-clean", "random_background", "both", by=by)
    lost = lost.set_index(["loss", "arm"])[ENDS] * 100
    shares = effects_of.share_lost(classes, by=by).set_index(["loss", "arm"])[ENDS] * 100
    made = []
    for loss, arm in level[["loss", "arm"]].drop_duplicates().itertuples(index=False, name=None):
        row = {"loss": loss, "arm": arm}
        row |= {kind: wide.loc[(loss, arm), kind] for kind in PAPER if kind in wide}
        if (loss, arm) in lost.index:
            row |= dict(zip(["change", "low", "high"], lost.loc[(loss, arm)], strict=True))
            row |= dict(zip(SHARE, shares.loc[(loss, arm)], strict=True))
        made.append({k: v if isinstance(v, str) else _plain(v) for k, v in row.items()})
    return made


def _plain(value: float, digits: int = 4) -> float | None:
    return None if np.isnan(value) else round(float(value), digits)


def gains(classes: pd.DataFrame) -> dict[str, dict[str, list[float | None]]]:
    """Contrast of arms -> condition -> points of MAP@R [value, low, high], joint over models."""
    made: dict[str, dict[str, list[float | None]]] = {}
    for contrast in contrasts_of(classes):
        for condition in PAPER[::-1]:
            found = effects_of.joint(classes, contrast, condition, "both")[ENDS]
            for row in found.to_numpy():
                made.setdefault(contrast, {})[condition] = [_plain(100 * x) for x in row]
    return made


def _tables(folder: Path) -> list[Path]:
    """The study's tables that stand when page 06 is told: not those of the page after it."""
    files = [*folder.glob("*.csv"), *folder.glob("*.parquet")]
    return [file for file in sorted(files) if file.name not in LATER]


def front_page_entry(
    m: Measured, table: pd.DataFrame, scores: pd.DataFrame, finding: str, folder: Path
) -> dict[str, Any]:
    """What the front page says about the study, and the checksums of the tables behind it.

    Args:
        table: retrieval.parquet. scores: of `attention`. folder: of the study's tables.
    """
    keep = (table["sides"] == "both") & (table["metric"] == "map_at_r")
    level = 100 * means(table[keep], ["arm", "condition"]).set_index(["arm", "condition"])["value"]
    found = {
        arm: {c: round(level[arm, c], 2) for c in PAPER if (arm, c) in level}
        for arm in arms_of(table)
    }
    looked = scores.groupby("arm", sort=False)["value"].mean() if len(scores) else pd.Series()
    lost = effects_of.share_lost(m.classes).set_index("arm")
    lost = lost.loc[[arm for arm in arms_of(table) if arm in lost.index], ENDS]
    notes = m.facts["note"], *masks_note(folder / "masks.csv", m.facts["dataset"])[1:]
    notes = *notes, few_classes(len(m.labels))
    return {
        "study": m.study, "dataset": m.facts["dataset"], "note": " ".join(filter(None, notes)),
        "finding": finding, "map_at_r_percent": found, "models": model_rows(m.classes),
        "lost": {arm: [_plain(x, 6) for x in row] for arm, *row in lost.itertuples()},
        "gains": gains(m.classes),
        "attention_score": looked.round(4).to_dict(), "queries": int(table["n"].max()),
        "losses": m.losses, "arms": m.arms, "seeds": len(m.seeds),
        "not_trained": not_trained(m.learning),
        "tables_sha256": {file.name: digest(file)[:16] for file in _tables(folder)},
    }  # fmt: skip


def metrics(entry: dict[str, Any]) -> dict[str, Any]:
    """The headline numbers of `front_page_entry`, for `dvc metrics`."""
    shares = {arm: share for arm, (share, *_) in entry["lost"].items()}
    names = ("map_at_r_percent", "attention_score")
    return {name: entry[name] for name in names} | {"share_lost": shares}
