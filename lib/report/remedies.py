"""Tables and figure of 07_remedies: every remedy, trained or at inference, beside the base arm."""

import itertools
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from lib.core.compact import Kept, read_compact
from lib.core.errors import StudyError
from lib.core.files import read_json
from lib.evaluation import effects as effects_of
from lib.evaluation.measured import Measured
from lib.evaluation.remedies import REMEDIES
from lib.evaluation.remedies_measure import NONE, ON_QUERY
from lib.report.shift_tables import told
from lib.report.style import colour, headline, label, rounded
from lib.training import arms

ROW = ["arm", "remedy"]
CLEAN, MOVED = ("clean", "both"), ("random_background", "both")
# What is shown: (condition, sides) by its heading
COLUMNS = {
    "clean": CLEAN,
    "random background": MOVED,
    "place of a training image": ("unshared_background", "both"),
    "other-class place": ("other_class_background", "both"),
    "random, query only": ("random_background", "query"),
}


class Tried(Kept):
    """What lib.evaluation.remedies_measure wrote of one study."""

    part = "remedies"


def facts(study: str) -> dict[str, Any]:
    """What was asked: classes, images, masks, usable share by condition, conditions, remedies."""
    return read_json(Tried(study).there("study.json"))


def read(m: Measured) -> pd.DataFrame:
    """The measured classes: a row a model, remedy, condition, sides, draw and class.

    Raises:
        StudyError: study.json, from which the page tells what was asked, is of other tables.
    """
    table = read_compact([Tried(m.study).there(f"classes/{name}.parquet") for name in m.models])
    file = Tried(m.study).there("study.json")
    asked, plain = read_json(file), table[(table["arm"] == m.arms[0]) & (table["remedy"] == NONE)]
    clean = plain[plain["condition"] == "clean"].drop_duplicates("label")
    # The tables leave out a class of one image: where nothing else is missing, the two are equal.
    images, classes = asked["images"] - clean["n"].sum(), asked["classes"] - len(clean)
    if sorted(asked["conditions"]) != sorted(set(table["condition"])) or images != classes:
        raise StudyError(
            f"{file} is of an earlier run: it names {asked['classes']} classes, {asked['images']} "
            f"images and {', '.join(asked['conditions'])}; the tables beside it hold {len(clean)} "
            f"classes, {clean['n'].sum()} images and {', '.join(sorted(set(table['condition'])))}. "
            "Delete it and run `make repro`."
        )
    return table


def rows_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The (arm, remedy) in order: untrained, the arms, then what is done at inference."""
    names = [NONE, *(name + end for name in REMEDIES for end in ("", ON_QUERY))]
    found = list(table[ROW].drop_duplicates().itertuples(index=False, name=None))
    order = [arms.UNTRAINED, *arms.ARMS]
    return sorted(found, key=lambda row: (names.index(row[1]), order.index(row[0])))


def name_of(arm: str, remedy: str) -> str:
    """`BGAugment, crop to the object` for a row."""
    if remedy == NONE:
        return label(arm)
    bare = remedy.removesuffix(ON_QUERY)
    return f"{label(arm)}, {REMEDIES[bare].label}" + ", query only" * (bare != remedy)


def levels(table: pd.DataFrame) -> pd.DataFrame:
    """MAP@R with joint interval: a row an arm, remedy, condition and sides."""
    keys = ["loss", "arm", "seed", "remedy", "condition", "sides"]
    sums, counts = effects_of.class_sums(table, "map_at_r", keys)
    return effects_of.over_models(sums, counts, [*ROW, "condition", "sides"])


def gains(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """MAP@R minus that of the reference arm without a remedy, same loss and seed: rows as `levels`.

    The untrained trunk has no loss in common with it: it is left out.
    """
    keys = ["loss", "arm", "seed", "remedy", "condition", "sides"]
    sums, counts = effects_of.class_sums(table, "map_at_r", keys)
    moved = {}
    for column in sums.columns:
        loss, arm, seed, remedy, condition, sides = column
        other = (loss, reference, seed, NONE, condition, sides)
        if other in sums.columns and (arm, remedy) != (reference, NONE):
            moved[column] = sums[column] - sums[other]
    if not moved:
        return pd.DataFrame(columns=[*ROW, "condition", "sides", "value", "low", "high"])
    differences = pd.DataFrame(moved)
    differences.columns = pd.MultiIndex.from_tuples(differences.columns, names=keys)
    return effects_of.over_models(differences, counts, [*ROW, "condition", "sides"])


def _at(table: pd.DataFrame, arm: str, remedy: str, where: tuple[str, str]) -> pd.Series | None:
    keep = (table["arm"] == arm) & (table["remedy"] == remedy)
    keep &= (table["condition"] == where[0]) & (table["sides"] == where[1])
    return table[keep].iloc[0] if keep.any() else None


def needs(arm: str, remedy: str) -> tuple[str, str, str]:
    """Masks in training, masks at search time, passes an image in training."""
    inference = "query" if remedy.endswith(ON_QUERY) else "query and gallery"
    inference = "–" if remedy == NONE else inference
    if arm == arms.UNTRAINED:
        return "–", inference, "0"
    entry = arms.get(arm)
    return "yes" if entry.needs_masks else "–", inference, f"{3 + entry.extra:g}"


def level_table(table: pd.DataFrame) -> pd.DataFrame:
    """MAP@R in percent with joint intervals: a row a remedy, a column a kind of images."""
    level, out = levels(table), {}
    for arm, remedy in _told(table):
        row = {}
        for name, where in COLUMNS.items():
            if remedy.endswith(ON_QUERY) and where == CLEAN:
                where = ("clean", "query")
            found = _at(level, arm, remedy, where)
            row[f"{name} ↑"] = "–" if found is None else told(found)
        out[name_of(arm, remedy)] = row
    found = pd.DataFrame.from_dict(out, orient="index")
    return found.loc[:, (found != "–").any()]


def cost_table(table: pd.DataFrame, reference: str, looked: pd.Series) -> pd.DataFrame:
    """Gain in points under random backgrounds, and what it needs: a row a remedy.

    Args:
        looked: attention score of each arm; {} where it was not measured.
    """
    gain, out = gains(table, reference), {}
    for arm, remedy in _told(table):
        where = ("random_background", "query" if remedy.endswith(ON_QUERY) else "both")
        found = _at(gain, arm, remedy, where)
        trained, inference, passes = needs(arm, remedy)
        score = looked.get(arm) if remedy == NONE else None
        out[name_of(arm, remedy)] = {
            "gain ↑": "–" if found is None else told(found), "masks in training": trained,
            "masks at search time": inference, "passes": passes,
            "attention score ↑": "–" if score is None else f"{score:.2f}",
        }  # fmt: skip
    found = pd.DataFrame.from_dict(out, orient="index")
    return found.loc[:, (found != "–").any()]


def _told(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The rows of the tables: the untrained trunk's remedies are in the figure and the csv."""
    rows = rows_of(table)
    return [(arm, remedy) for arm, remedy in rows if arm != arms.UNTRAINED or remedy == NONE]


def front(level: pd.DataFrame) -> pd.DataFrame:
    """Clean and shifted MAP@R (percent) of every row, and whether none is better at both."""
    both = level[level["sides"] == "both"]
    wide = both.pivot(index=ROW, columns="condition", values="value") * 100
    wide = wide[[CLEAN[0], MOVED[0]]].dropna().set_axis(["clean", "shifted"], axis=1)
    best = [
        not (wide.ge(row).all(axis=1) & wide.gt(row).any(axis=1)).any()
        for _, row in wide.iterrows()
    ]
    return wide.assign(front=best)


def figure(table: pd.DataFrame, reference: str) -> tuple[plt.Figure, str]:
    """Clean against shifted quality, a point a remedy; in bold what nothing beats at both."""
    found, top = front(levels(table)), gains(table, reference)
    top = top[(top["condition"] == MOVED[0]) & (top["sides"] == "both")]
    finding = "No remedy was measured"
    if len(top):
        finding = _leads(table, top, reference)
    drawn, axis = plt.subplots(figsize=(7.4, 5.6))
    shapes = dict(zip([NONE, *REMEDIES], itertools.cycle("o^sDvP"), strict=False))
    for (arm, remedy), row in found.iterrows():
        size, edge = (110, "black") if row["front"] else (60, "none")
        axis.scatter(
            row["clean"], row["shifted"], s=size, color=colour(arm), edgecolor=edge,
            marker=shapes[remedy], zorder=3,
        )  # fmt: skip
    both = found[["clean", "shifted"]]
    low, high = both.min(axis=None), both.max(axis=None)
    axis.plot([low, high], [low, high], color="#888888", lw=1, ls=":", zorder=1)
    axis.set_xlabel("MAP@R on clean images, %  (better to the right)")
    axis.set_ylabel("MAP@R on random backgrounds, %  (better above)")
    arm_names = [arm for arm, remedy in rows_of(table) if remedy == NONE]
    handles = [plt.Line2D([], [], ls="", marker="o", color=colour(a), label=label(a))
               for a in arm_names]  # fmt: skip
    handles += [
        plt.Line2D([], [], ls="", marker=shapes[name], color="#444444", mfc="none",
                   label="nothing at search time" if name == NONE else REMEDIES[name].label)
        for name in dict.fromkeys(found.index.get_level_values("remedy"))
    ]  # fmt: skip
    drawn.legend(handles=handles, loc="outside right center", fontsize=9)
    headline(drawn, finding, "Black edge: nothing beats it on both axes. Dotted: no loss.")
    return drawn, finding


def _leads(table: pd.DataFrame, gain: pd.DataFrame, reference: str) -> str:
    """The row that gains most on random backgrounds; arms not told apart from it share the title.

    Args:
        gain: of `gains` over the reference arm, on random backgrounds, both sides.
    """
    row = gain.loc[gain["value"].idxmax()]
    what = f"points of MAP@R on random backgrounds over {label(reference)}"
    on = f"on {table['label'].nunique()} test classes"
    alike = _alike(table, row["arm"], reference) if row["remedy"] == NONE else []
    if not alike:
        return f"{name_of(row['arm'], row['remedy'])} gains {told(row)} {what}, {on}"
    arm_alone = gain[gain["remedy"] == NONE]
    among = arm_alone[arm_alone["arm"].isin([row["arm"], *alike])]
    least, most = (rounded(100 * end, 1) for end in (among["value"].min(), among["value"].max()))
    names = "; ".join(label(arm) for arm in among["arm"])
    several = f"{len(among)} arms gain {least} to {most} {what}"
    return f"{several} and cannot be told apart, {on}: {names}"


def best(table: pd.DataFrame, reference: str) -> list[str]:
    """A sentence for each kind of user: who can retrain, who can make masks of queries, who both.

    Named is the row with the highest MAP@R on random backgrounds, with its gain over the reference
    arm, and the arms whose difference from it may be 0; a gain whose interval reaches 0 is said to
    be none. Where a trained arm alone exceeds all masks there, the kinds of backgrounds on which it
    does not are named.
    """
    everywhere = gains(table, reference)
    gain = everywhere[(everywhere["condition"] == MOVED[0]) & (everywhere["sides"] == "both")]
    can_train = "If you can retrain (with masks of the training images), without masks"
    users = {
        f"{can_train} at search time": gain["remedy"] == NONE,
        "If you cannot retrain but can mask queries and gallery": gain["arm"] == reference,
        "If you can do both": (gain["arm"] != reference) & (gain["remedy"] != NONE).any(),
    }
    sentences = []
    for user, keep in users.items():
        part = gain[keep & ~gain["remedy"].str.endswith(ON_QUERY)]
        part = part[(part["arm"] != reference) | (part["remedy"] != NONE)]
        if not len(part):
            continue
        row = part.loc[part["value"].idxmax()]
        name = name_of(row["arm"], row["remedy"])
        words = f"{told(row)} points of MAP@R on random backgrounds over {label(reference)}"
        if row["remedy"] == NONE and part["remedy"].nunique() > 1:
            sentences.append(
                f"{user}: on random backgrounds, no mask that we tried beats {name} alone."
                f"{_masked_elsewhere(everywhere, reference)}"
            )
        elif row["low"] > 0 or row["low"] != row["low"]:
            alike = _alike(table, row["arm"], reference) if row["remedy"] == NONE else []
            rest = f" Not told apart from it: {'; '.join(map(label, alike))}." if alike else ""
            sentences.append(f"{user}: {name}, {words}.{rest}")
        else:
            few = f"on these {table['label'].nunique()} classes nothing helps for certain"
            sentences.append(f"{user}: {few}; the best, {name}, {words}.")
    return sentences


def _masked_elsewhere(gain: pd.DataFrame, reference: str) -> str:
    """The other new backgrounds on which a mask has the highest MAP@R, with its gain; "" if none.

    Args:
        gain: of `gains` over the reference arm.
    """
    found = []
    for heading, (condition, sides) in COLUMNS.items():
        part = gain[(gain["condition"] == condition) & (gain["sides"] == sides)]
        part = part[~part["remedy"].str.endswith(ON_QUERY)]
        if condition in (CLEAN[0], MOVED[0]) or part.empty:
            continue
        row = part.loc[part["value"].idxmax()]
        if row["remedy"] != NONE and row["value"] > 0:
            found.append(f"{heading}: {name_of(row['arm'], row['remedy'])}, {told(row)}")
    words = " On other backgrounds, masks lead"
    words += f" (points of MAP@R over {label(reference)}): "
    return f"{words}{'; '.join(found)}." if found else ""


def _alike(table: pd.DataFrame, arm: str, reference: str) -> list[str]:
    """The trained arms but the reference that random backgrounds do not tell from `arm`."""
    gain = gains(table, arm)
    gain = gain[(gain["remedy"] == NONE) & (gain["condition"] == MOVED[0])]
    gain = gain[(gain["sides"] == "both") & (gain["arm"] != reference)]
    return [row.arm for row in gain.itertuples() if row.low <= 0 <= row.high]


def beside(table: pd.DataFrame, reference: str, than: str = "bgaugment") -> pd.DataFrame:
    """Points of MAP@R that every other arm gains over `than`, the paper's remedy: a row an arm.

    No rows where the study has no arm beside these two.
    """
    gain = gains(table, than)
    gain, out = gain[gain["remedy"] == NONE], {}
    for arm in gain["arm"].drop_duplicates():
        if arm != reference:
            found = {name: _at(gain, arm, NONE, where) for name, where in COLUMNS.items()}
            out[label(arm)] = {f"{k} ↑": "–" if x is None else told(x) for k, x in found.items()}
    found = pd.DataFrame.from_dict(out, orient="index")
    return found.loc[:, (found != "–").any()]
