"""The bias dial: how much bias in training does how much harm? A study on embedded data alone.

In training, an image stands in its class's own kind of place with probability `bias`. The test is
always drawn with one and the same bias, so that only what was learned differs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lib import attend, attention, backgrounds, evaluate, masks, prepare, stats, train
from lib.figures import COLOURS, LABELS, MARKERS, headline, plt
from lib.progress import say
from lib.scenes import Scenes

MEASURES = {
    "clean": "MAP@R in %, clean ↑",
    "drop": "change under a new background, points ↑",
    "attention_score": "attention score ↑",
}


@dataclass(frozen=True)
class Dial:
    """What stays the same while the bias is turned.

    `side` and `backgrounds` (how many) of the data; `options` are lib.render's but for `bias`;
    `recipe` the fields of lib.train.Recipe; `draws` of random backgrounds; `images`, `copies` and
    `noise` for the attention score.
    """

    loss: str
    seeds: list[int]
    side: int
    backgrounds: int
    options: dict[str, Any]
    recipe: dict[str, Any]
    draws: int
    images: int
    copies: int
    noise: float

    def at(self, bias: float) -> tuple[str, Scenes]:
        """The data of one setting, prepared: name of its study, its scenes (exact masks)."""
        study = f"dial-{bias:g}"
        prepare.prepare_images(study, "rendered", self.side, {**self.options, "bias": bias})
        backgrounds.prepare_backgrounds(study, "rendered", self.backgrounds, seed=0, side=self.side)
        masks.make_masks(study, "true")
        return study, Scenes(study, "true", train.device())

    def measure(self, bias: float) -> Iterator[dict[str, Any]]:
        """Train every seed and arm at one setting and measure them: rows of `table`."""
        study, scenes = self.at(bias)
        recipe = dict(self.recipe)
        train.train_study(
            study, self.loss, self.seeds, recipe.pop("p"), scenes, dataset="rendered", **recipe
        )
        rows = attend.chosen_rows(scenes, self.images, 0)
        for model in evaluate.models_of(study):
            say(f"{study}: {model.loss} {model.arm} seed {model.seed}")
            values = self._retrieval(evaluate.View(study, model, scenes))
            values["attention_score"] = self._attention(study, model, scenes, rows)
            for name, value in values.items():
                yield {
                    "bias": bias, "loss": model.loss, "arm": model.arm, "seed": model.seed,
                    "metric": name, "value": value, "n": len(scenes.store.rows("test")),
                }  # fmt: skip

    def _retrieval(self, view: evaluate.View) -> dict[str, float]:
        clean = view.scores("clean")["map_at_r"].nanmean()
        moved = [
            view.scores("random_background", draw)["map_at_r"].nanmean()
            for draw in range(self.draws)
        ]
        return {"clean": float(clean), "drop": float(sum(moved) / self.draws - clean)}

    def _attention(self, study: str, model: evaluate.Model, scenes: Scenes, rows) -> float:
        maps = attend.maps_of(
            study, model, scenes, rows, 0, copies=self.copies, noise=self.noise,
            precision=model.precision,
        )  # fmt: skip
        _, soft = attend.pictures(scenes, rows, model.image_size)
        found = attention.attention_score(attention.scale_map(maps), soft)
        return float(found.score[found.defined].mean())


def table(dial: Dial, biases: list[float]) -> pd.DataFrame:
    """One row a bias, model and metric (MEASURES); fractions, `drop` is shifted - clean."""
    return pd.DataFrame([row for bias in biases for row in dial.measure(bias)])


def response(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student's t over seeds) per bias, arm and metric."""
    out = []
    for names, part in rows.groupby(["bias", "arm", "metric"], sort=False):
        found = stats.over_draws(part["value"])
        out.append([*names, found.mean, found.low, found.high, found.n])
    columns = ["bias", "arm", "metric", "value", "low", "high", "seeds"]
    return pd.DataFrame(out, columns=columns)


def slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """Change of each metric from the lowest to the highest bias, paired by seed, per arm."""
    low, high = rows["bias"].min(), rows["bias"].max()
    wide = rows.pivot_table(index=["arm", "metric", "seed"], columns="bias", values="value")
    change, out = (wide[high] - wide[low]).rename("value").reset_index(), []
    for names, part in change.groupby(["arm", "metric"], sort=False):
        found = stats.over_draws(part["value"])
        out.append([*names, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=["arm", "metric", "value", "low", "high", "seeds"])


def finding(rows: pd.DataFrame) -> str:
    """The answer in one sentence: paired changes with their 95 % interval over seeds."""
    change = slopes(rows).set_index(["metric", "arm"])

    def told(metric: str, scale: float, digits: int) -> str:
        words = []
        for arm in ("base", "bgaugment"):
            row = change.loc[(metric, arm)]
            low, high = sorted((scale * row["low"], scale * row["high"]))
            moved = f"{scale * row['value']:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
            words.append(f"{moved} ({LABELS[arm]})")
        return " and ".join(words)

    return (
        f"As the bias of training goes from {rows['bias'].min():g} to {rows['bias'].max():g}, the "
        f"cost of a new background moves by {told('drop', -100, 1)} points of MAP@R, the attention "
        f"score by {told('attention_score', 1, 3)}"
    )


def figure(rows: pd.DataFrame, title: str) -> Figure:
    """Dose and response: one panel a measure, one line an arm, bars 95 % over seeds."""
    found = response(rows)
    drawn, axes = plt.subplots(1, len(MEASURES), figsize=(11, 3.8))
    for axis, (metric, label) in zip(axes, MEASURES.items(), strict=True):
        scale = 1 if metric == "attention_score" else 100
        for arm, part in found[found["metric"] == metric].groupby("arm", sort=False):
            value = scale * part["value"]
            error = [value - scale * part["low"], scale * part["high"] - value]
            axis.errorbar(
                part["bias"], value, error, color=COLOURS[arm], marker=MARKERS[arm], capsize=3,
                label=LABELS[arm],
            )  # fmt: skip
        axis.set_title(label, fontsize=9)
        axis.set_xlabel("bias of training")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    seeds = found["seeds"].max()
    headline(drawn, title, f"{seeds} seeds a point; bars, brackets: 95 % over seeds")
    return drawn
