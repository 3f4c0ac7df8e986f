"""What an audit shows beside its numbers: attention, rankings before and after, masks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.attention import attribution, scores
from lib.attention.maps import chosen_rows, pictures
from lib.core.cache import kept
from lib.core.code import fingerprint
from lib.core.files import key_of
from lib.core.hardware import fixed_threads
from lib.core.progress import say
from lib.evaluation import query_examples, statistics
from lib.evaluation.remedies import REMEDIES
from lib.experiments.audit_search import CLEAN, NONE, SHIFTED, Pass, Search
from lib.experiments.audit_tables import METRIC, ends
from lib.experiments.foreign import Foreign
from lib.images.conditions import specimen


def attention(found: Search, method: str, count: int) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Mean attention score of every model with its interval, and a few maps to look at."""
    columns = ["who", "method", "score", "low", "high", "images"]
    scenes = found.images.scenes
    if method == NONE or not scenes.usable[found.images.rows].any():
        return pd.DataFrame(columns=columns), []
    rows = chosen_rows(scenes, count, found.seed)
    shown, masks = pictures(scenes, rows, found.size)
    out, seen = [], []
    for who, model in found.models.items():
        say(f"attention of the {who} on {len(rows)} images ({method})")
        maps = _maps(found, method, model, rows, shown)
        score, defined = scores.attention_score(scores.scale_map(maps), masks)
        score, defined = score.numpy(), defined.numpy()
        labels = scenes.store.labels[rows]
        mean = statistics.mean_by_class_bootstrap(score[defined], labels[defined])
        value, low, high = ends(mean.mean, mean.high - mean.mean)
        out.append([who, method, value if mean.n else None, low, high, mean.n])
        if who == "model":
            order = np.argsort(np.where(defined, score, np.inf))
            few = order[: int(defined.sum())]
            few = (
                few[np.unique(np.linspace(0, len(few) - 1, 4).round().astype(int))]
                if len(few)
                else few
            )
            seen = [
                {
                    "image": shown[at].permute(1, 2, 0).round().byte().cpu().numpy(),
                    "mask": (255 * masks[at]).byte().numpy(),
                    "map": scores.scale_map(maps[[at]])[0].numpy(),
                    "score": float(score[at]),
                }
                for at in few
            ]
    return pd.DataFrame(out, columns=columns, dtype=object), seen


@fixed_threads()
def _maps(found: Search, method: str, model: Foreign, rows: np.ndarray, shown: Tensor) -> Tensor:
    def make() -> dict[str, Tensor]:
        embed = model.forward_only() if method == "occlusion" else model
        made = attribution.attribute(
            method, embed, model.normalise(shown).to(model.where),
            black=model.normalise(torch.zeros_like(shown[:1])).to(model.where),
            seeds=torch.as_tensor(rows), channels_last=False,
        )  # fmt: skip
        return {"maps": made.float().cpu().contiguous()}

    key = key_of(
        code=fingerprint("images", "models", "attention"), model=model.identity,
        data=found.images.scenes.fingerprint, rows=rows.tolist(), size=found.size,
        method=method,
    )  # fmt: skip
    return kept(found.images.study, "maps", key, make)["maps"]


def sheets(found: Search, conditions: list[str], rows: pd.DataFrame, best: str) -> dict[str, Any]:
    """The small pictures of the page: conditions, rankings before and after, masks.

    Args:
        rows: one row a query, of all runs. best: the remedy to show, or "none".
    """
    scenes, every = found.images.scenes, found.images.rows
    usable = every[scenes.usable[every]]
    four = (usable if len(usable) else every)[:: max(1, len(usable) // 4)][:4]
    size = min(found.size, 160)
    made = specimen(scenes, four, conditions, size, pool_rows=every, seed=found.seed)
    return {
        "conditions": made,
        "rankings": list(_rankings(found, rows, best, size)),
        "masks": _mask_sheet(found, size),
    }


def _rankings(found: Search, rows: pd.DataFrame, best: str, size: int) -> Iterator[dict]:
    """Three queries picked by a rule, clean, shifted and shifted with the best remedy."""
    mine = (rows["loss"] == "model") & (rows["arm"] == NONE) & (rows["sides"] == "both")
    table = rows[mine & (rows["draw"] == 0) & rows["condition"].isin([CLEAN, SHIFTED])]
    wide = table.pivot(index="row", columns="condition", values=METRIC).dropna()
    if not len(wide):
        return
    runs = [Pass("model", CLEAN, 0, NONE), Pass("model", SHIFTED, 0, NONE)]
    if best != NONE:
        runs.append(Pass("model", SHIFTED, 0, best))
    scenes, index = found.images.scenes, found.images.scenes.store.index
    for rule, row in query_examples.picked(table[table["row"].isin(wide.index)]).items():
        for run in runs:
            near = found.nearest(run, int(row))
            shown = found.shown(np.array([row, *near]), run.condition, run.draw)
            if run.remedy != NONE and (show := REMEDIES[run.remedy].show):
                masks = dict(zip(found.images.rows.tolist(), found.masks_of(run), strict=True))
                shown = show(shown, np.stack([masks[r] for r in (row, *near)]))
            yield {
                "rule": rule, "condition": run.condition, "remedy": run.remedy,
                "class_name": index["class_name"][row], "images": list(shown), "right": [
                    bool(scenes.store.labels[other] == scenes.store.labels[row]) for other in near
                ], "names": [index["class_name"][other] for other in near],
            }  # fmt: skip


def _mask_sheet(found: Search, size: int) -> list[dict[str, Any]]:
    """Eight images from the smallest to the largest mask, with their masks."""
    scenes, rows = found.images.scenes, found.images.rows
    areas = np.array([scenes.images.stores[1].image(row).mean() / 255 for row in rows])
    order = np.argsort(areas, kind="stable")
    picks = order[np.unique(np.linspace(0, len(order) - 1, 8).round().astype(int))]
    chosen = rows[picks]
    read = scenes.images.centre(chosen, size)
    return [
        {
            "image": pixels[:3].permute(1, 2, 0).round().byte().cpu().numpy(),
            "mask": pixels[3].round().byte().cpu().numpy(),
            "area": float(areas[at]), "usable": bool(scenes.usable[row]),
        }
        for pixels, at, row in zip(read, picks, chosen, strict=True)
    ]  # fmt: skip
