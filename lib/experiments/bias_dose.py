"""The bias dial: how much bias in training does how much harm? A study on embedded data alone.

In training, an image stands in its class's own kind of place with probability `bias`. The test is
always drawn with one and the same bias, so that only what was learned differs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lib.attention import maps as attention_maps
from lib.attention import scores
from lib.core import hardware
from lib.core.progress import say
from lib.data import prepare
from lib.data.backgrounds import prepare_backgrounds
from lib.evaluation import embeddings, models, statistics
from lib.images.scenes import Scenes
from lib.masks import sources
from lib.training import study as training

MEASURES = {
    "clean": "MAP@R in %, clean ↑",
    "drop": "change under a new background, points ↑",
    "attention_score": "attention score ↑",
}


@dataclass(frozen=True)
class Dial:
    """What stays the same while the bias is turned.

    `side` and `backgrounds` (how many) of the data; `options` of the drawn set but for `bias`;
    `recipe` the fields of Recipe; `draws` of random backgrounds; `images`, `copies` and
    `noise` for the attention score.
    """

    loss: str
    arms: list[str]
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
        prepare_backgrounds(study, "rendered", self.backgrounds, seed=0, side=self.side)
        sources.make_masks(study, "true")
        return study, Scenes(study, "true", hardware.device())

    def measure(self, bias: float) -> Iterator[dict[str, Any]]:
        """Train every seed and arm at one setting and measure them: rows of `table`."""
        study, scenes = self.at(bias)
        training.measure(study, [self.loss], self.arms, self.seeds, **self.recipe)
        rows = attention_maps.chosen_rows(scenes, self.images, 0)
        for model in models.models_of(study):
            say(f"{study}: {model.loss} {model.arm} seed {model.seed}")
            values = self._retrieval(embeddings.View(study, model, scenes))
            values["attention_score"] = self._attention(study, model, scenes, rows)
            for name, value in values.items():
                yield {
                    "bias": bias, "loss": model.loss, "arm": model.arm, "seed": model.seed,
                    "metric": name, "value": value, "n": len(scenes.store.rows("test")),
                }  # fmt: skip

    def _retrieval(self, view: embeddings.View) -> dict[str, float]:
        clean = view.scores("clean")["map_at_r"].nanmean()
        moved = [
            view.scores("random_background", draw)["map_at_r"].nanmean()
            for draw in range(self.draws)
        ]
        return {"clean": float(clean), "drop": float(sum(moved) / self.draws - clean)}

    def _attention(self, study: str, model: models.Model, scenes: Scenes, rows) -> float:
        maps = attention_maps.maps_of(
            study, model, scenes, rows, 0, copies=self.copies, noise=self.noise,
            precision=model.precision,
        )  # fmt: skip
        _, soft = attention_maps.pictures(scenes, rows, model.image_size)
        found = scores.attention_score(scores.scale_map(maps), soft)
        return float(found.score[found.defined].mean())


def table(dial: Dial, biases: list[float]) -> pd.DataFrame:
    """One row a bias, model and metric (MEASURES); fractions, `drop` is shifted - clean."""
    return pd.DataFrame([row for bias in biases for row in dial.measure(bias)])


def response(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student's t over seeds) per bias, arm and metric."""
    out = []
    for names, part in rows.groupby(["bias", "arm", "metric"], sort=False):
        found = statistics.over_draws(part["value"])
        out.append([*names, found.mean, found.low, found.high, found.n])
    columns = ["bias", "arm", "metric", "value", "low", "high", "seeds"]
    return pd.DataFrame(out, columns=columns)


def slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """Change of each metric from the lowest to the highest bias, paired by seed, per arm."""
    low, high = rows["bias"].min(), rows["bias"].max()
    wide = rows.pivot_table(index=["arm", "metric", "seed"], columns="bias", values="value")
    change, out = (wide[high] - wide[low]).rename("value").reset_index(), []
    for names, part in change.groupby(["arm", "metric"], sort=False):
        found = statistics.over_draws(part["value"])
        out.append([*names, found.mean, found.low, found.high, found.n])
    return pd.DataFrame(out, columns=["arm", "metric", "value", "low", "high", "seeds"])
