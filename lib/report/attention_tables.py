"""Tables of 05_attention, from what lib.attention measured: means, paired differences, intervals.

Values are of images, intervals resample classes (lib.evaluation.statistics). Nothing here needs
photographs or weights. The tables of methods are imported where they are used: they bring
torchvision, five seconds that pages 06 and 07 can do without.
"""

from typing import Any

import numpy as np
import pandas as pd

from lib.core.compact import Kept, read_compact
from lib.core.files import read_json
from lib.evaluation import statistics
from lib.evaluation.models import MODEL
from lib.training import arms

SCORE = "attention_score"
EXPLANATION = ["method", "target"]
CHECKED = [*MODEL, *EXPLANATION]


class Looked(Kept):
    """What lib.attention.measure wrote of one study."""

    part = "attention"


def asked(study: str) -> dict[str, Any]:
    """What was measured: models, images, images_methods, images_checks, copies, noise, levels."""
    return read_json(Looked(study).there("measured.json"))


def read(study: str, name: str) -> pd.DataFrame:
    """A measured table by its name; of `scores` and `similarity` all models, in order."""
    looked = Looked(study)
    several = [f"{name}/{model}" for model in asked(study)["models"]]
    wanted = several if (looked.folder / name).is_dir() else [name]
    return read_compact([looked.there(f"{file}.parquet") for file in wanted])


def trained(table: pd.DataFrame) -> list[str]:
    """The trained arms of a table, in its order."""
    return [arm for arm in table["arm"].unique() if arm in arms.ARMS]


def means(table: pd.DataFrame, keys: list[str], level: float = 0.95) -> pd.DataFrame:
    """Mean and interval over classes per group; undefined (NaN) values are left out."""
    out = []
    for names, part in table.groupby(keys, sort=False):
        found = statistics.mean_by_class_bootstrap(
            part["value"].to_numpy(), part["label"].to_numpy(), level=level
        )
        out.append([*names, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=[*keys, "value", "low", "high", "n"])


def summary(rows: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Mean, std over images and interval per model, explanation and measure."""
    known, keys = rows[rows["defined"]], [*CHECKED, "metric"]
    table = means(known, keys, level)
    spread = known.groupby(keys, sort=False)["value"].std()
    table.insert(table.shape[1] - 1, "std_over_images", spread.to_numpy())
    return table


def differences(
    rows: pd.DataFrame, pairs: list[tuple[str, str]] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Paired differences of arms per loss, seed, explanation and measure: interval and p.

    Args:
        rows: a row an image, model and measure. pairs: (arm, than); by default every trained arm
            and its reference. `contrast` names them.
    """
    out, keys = [], ["loss", "seed", *EXPLANATION, "metric"]
    for arm, than in arms.pairs(trained(rows)) if pairs is None else pairs:
        both = rows[rows["defined"] & rows["arm"].isin([arm, than])]
        for names, part in both.groupby(keys, sort=False):
            wide = part.pivot(index=["row", "label"], columns="arm", values="value").dropna()
            classes = wide.index.get_level_values("label")
            found = statistics.paired_difference(wide[arm], wide[than], classes, level=level)
            numbers = [found.diff, found.low, found.high, found.p, found.n]
            out.append([f"{arm}-{than}", *names, *numbers])
    return pd.DataFrame(out, columns=["contrast", *keys, "value", "low", "high", "p", "n"])


def over_models(rows: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, image and measure: the mean over losses and seeds (`loss` is "all").

    Intervals of these are those of the mean over models; a mean of the models' ends is too wide.
    """
    keys = ["arm", *EXPLANATION, "metric", "row", "label"]
    mean = rows[rows["defined"]].groupby(keys, sort=False)["value"].mean().reset_index()
    return mean.assign(loss="all", seed=-1, defined=True)


def method_differences(methods: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """`differences` of the methods: the reference arm from random weights, then every other arm."""
    own = trained(methods)
    first = next((arm for arm in own if arms.get(arm).reference is None), own[0])
    return differences(methods, [(first, "random"), *arms.pairs(own)], level)


def control_table(
    controls: pd.DataFrame, methods: pd.DataFrame, level: float = 0.95
) -> pd.DataFrame:
    """Mean attention score of the maps that know no model, and of SmoothGrad on random weights."""
    from lib.attention.attribution import PAPER

    drawn = methods[(methods["arm"] == "random") & (methods["metric"] == SCORE)]
    same = (drawn["method"] == PAPER.method) & (drawn["target"] == PAPER.target)
    drawn = drawn[drawn["defined"] & same].assign(control="random_weights")
    both = pd.concat([controls, drawn[["row", "label", "control", "value"]]], ignore_index=True)
    return means(both, ["control"], level)


def stability_table(found: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Means per arm, and the paired difference of the score of every pair (arm `a-b`)."""
    setting = ["factor", "level", "metric"]
    keys = ["loss", "seed", *setting, "row", "label"]
    score = found[found["metric"] == SCORE]
    wide, parts = score.pivot(index=keys, columns="arm", values="value"), [found]
    for arm, than in arms.pairs(trained(found)):
        moved = (wide[arm] - wide[than]).rename("value").reset_index()
        parts.append(moved.assign(arm=f"{arm}-{than}"))
    return means(pd.concat(parts, ignore_index=True), [*MODEL, *setting], level)


def faithfulness_table(found: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Mean areas, and paired differences from both random orders (`..._minus_random_pixels`)."""
    from lib.attention.sanity_checks import ORDERS

    on, parts = [*MODEL, "metric", "row", "label"], [found]
    for order in ORDERS:
        known = found[found["map"] == order].drop(columns="map")
        both = found[~found["map"].isin(ORDERS)].merge(known, on=on, suffixes=("", "_random"))
        both["value"] -= both["value_random"]
        parts.append(both.assign(metric=both["metric"] + f"_minus_{order}"))
    return means(pd.concat(parts, ignore_index=True), [*MODEL, "map", "metric"], level)


def label_of(name: str) -> str:
    """How a map is called in figures: an explanation, a control or an order."""
    from lib.attention.attribution import METHODS, Explanation
    from lib.attention.controls import CONTROLS

    if name.partition("/")[0] in METHODS:
        return Explanation.parse(name).label
    return CONTROLS[name].label if name in CONTROLS else name.replace("_", " ")


def matrix(methods: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Mean attention score: one row an explanation or control, one column a kind of weights.

    Args:
        methods: of `summary`. controls: of `means`, of the same images.
    """
    from lib.attention.attribution import Explanation

    part = methods[methods["metric"] == SCORE]
    names = [Explanation(*pair).label for pair in zip(part["method"], part["target"], strict=True)]
    part = part.assign(name=names)
    wide = part.pivot(index="name", columns="arm", values="value")
    wide = wide.loc[part["name"].unique(), part["arm"].unique()]
    known = {label_of(row.control): row.value for row in controls.itertuples()}
    return pd.concat([wide, pd.DataFrame({arm: known for arm in wide}, dtype=np.float64)])
