"""The numbers of an audit: what a condition costs, what a remedy gains, what the masks are worth.

Values are fractions. What could not be measured is None, never NaN.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.evaluation import effects, statistics
from lib.evaluation.remedies import REMEDIES
from lib.experiments.audit_images import Images
from lib.experiments.audit_search import CLEAN, NONE, QUERY, SHIFTED

METRIC = "map_at_r"
FEW = 0.8  # share of usable masks below which the verdict is in doubt
SMALL = 0.12  # masks below this share of the image often miss objects
LARGE = 0.7  # masks above this share of the image leave little background to change


def ratio(part: pd.Series, whole: pd.Series) -> tuple[float | None, float | None, float | None]:
    """Sum of `part` over sum of `whole` (both one value a class) with its 95 % interval.

    The interval is that of a ratio over resampled classes (lib.evaluation.statistics, whose mean
    over queries is such a ratio). None where there are too few classes, or nothing to divide by.
    """
    total = float(whole.sum())
    if abs(total) < 1e-9:
        return None, None, None
    if total < 0:
        part, whole, total = -part, -whole, -total
    floor = 1e-6 * total / len(whole)  # a resample of classes that are all zero is no ratio
    value, half = statistics.class_bootstrap(
        part.to_numpy()[:, None], np.maximum(whole.to_numpy(), floor)
    )
    return ends(float(part.sum()) / total, float(half[0]))


def ends(value: float, half: float) -> tuple[float | None, float | None, float | None]:
    known = math.isfinite(half)
    return value, value - half if known else None, value + half if known else None


def levels_of(classes: pd.DataFrame) -> pd.DataFrame:
    """One row a who, remedy, condition and sides: MAP@R, change and share lost, with intervals.

    Change and share are against the same model's clean images (both sides) without a remedy.
    """
    sums, counts = effects.class_sums(classes, METRIC, effects.LEVEL)
    out = []
    for column in sums.columns:
        who, remedy, _, condition, sides = column
        clean = sums[(who, NONE, 0, CLEAN, "both")]
        value, low, high = ratio(sums[column], counts)
        change = ratio(sums[column] - clean, counts)
        lost = ratio(clean - sums[column], clean)
        out.append([who, remedy, condition, sides, value, low, high, *change, *lost])
    measures = ["value", "low", "high", "change", "change_low", "change_high"]
    names = ["who", "remedy", "condition", "sides", *measures, "lost", "lost_low", "lost_high"]
    table = pd.DataFrame(out, columns=names, dtype=object)  # None stays None
    order = {name: place for place, name in enumerate(classes["condition"].unique())}
    keys = table["condition"].map(order)
    return (
        table.assign(_at=keys)
        .sort_values(["who", "remedy", "_at", "sides"], kind="stable", ignore_index=True)
        .drop(columns="_at")
    )


def remedy_table(classes: pd.DataFrame) -> pd.DataFrame:
    """One row a remedy and way to apply it: what it costs on clean images, gains on shifted ones.

    `applied` is both (queries and gallery; both shifted), query_clean_gallery (treated queries and
    gallery, only queries shifted) or query (treated, shifted queries; an untouched clean gallery).
    `gain` is against the same search without the remedy, `recovered` its share of what the shift
    costs there.
    """
    columns = [
        "remedy", "label", "applied", "clean", "clean_change", "clean_change_low",
        "clean_change_high", "shifted", "gain", "gain_low", "gain_high", "recovered",
        "recovered_low", "recovered_high",
    ]  # fmt: skip
    mine = classes[(classes["loss"] == "model") & (classes["draw"] == 0)]
    sums, counts = effects.class_sums(mine, METRIC, ["arm", "condition", "sides"])
    out, clean = [], sums[(NONE, CLEAN, "both")]
    for name in REMEDIES:
        if (name, SHIFTED, "both") not in sums:
            continue
        ways = (
            ("both", name, "both"),
            ("query_clean_gallery", name, QUERY),
            (QUERY, f"{name} {QUERY}", QUERY),
        )
        for applied, arm, sides in ways:
            treated, moved = sums[(arm, CLEAN, "both")], sums[(arm, SHIFTED, sides)]
            bare = sums[(NONE, SHIFTED, sides)]
            fall = clean - bare
            lost = ratio(fall, clean)
            recovered = (None,) * 3
            if lost[0] and (lost[1] is None or lost[1] > 0) and lost[0] > 0:
                recovered = ratio(moved - bare, fall)
            row = [name, REMEDIES[name].label, applied, ratio(treated, counts)[0]]
            row += [*ratio(treated - clean, counts), ratio(moved, counts)[0]]
            out.append([*row, *ratio(moved - bare, counts), *recovered])
    return pd.DataFrame(out, columns=columns, dtype=object)  # None stays None


def mask_facts(images: Images) -> dict[str, Any]:
    """Share of usable masks in the search, their areas, and warnings in words."""
    pixels, usable = images.scenes.images.stores[1], images.scenes.usable[images.rows]
    areas = np.array([pixels.image(row).mean() / 255 for row in images.rows])
    share, known = float(usable.mean()), areas[usable]
    small = float((known < SMALL).mean()) if len(known) else 0.0
    large = float((known > LARGE).mean()) if len(known) else 0.0
    warnings = []
    if share < FEW:
        warnings.append(
            f"Only {100 * share:.0f} % of the masks show an object; the other images kept their "
            "background in every condition, so the true effect is probably larger."
        )
    if small > 0.5:
        warnings.append(
            f"{100 * small:.0f} % of the masks cover less than {100 * SMALL:.0f} % of their image. "
            "If the objects are larger, or there are several in an image (a crate of fruit), parts "
            "of them were replaced as if they were background, and the effect is overstated. Look "
            "at the masks."
        )
    if large > 0.5:
        warnings.append(
            f"{100 * large:.0f} % of the masks cover more than {100 * LARGE:.0f} % of their image: "
            "little background is left to change, so the effect is a lower bound."
        )
    middle = float(np.median(known)) if len(known) else None
    return {
        "source": images.mask_source, "usable": share, "median_area": middle,
        "small": small, "large": large, "warnings": warnings,
    }  # fmt: skip


def plain(value: Any) -> Any:
    """A value that json takes in every reader: no NaN, no infinity, no numpy."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
