"""The bias dial: how much bias in training does how much harm? A study on embedded data alone.

    python -m lib.experiments.bias_dose --study dial

In training, an image stands in its class's own kind of place with probability `bias`. The test is
always drawn with one and the same bias, so that only what was learned differs.

    reports/<study>/measured/dial/
        dial.json                what was turned, in which order
        settings/<bias>.json     what it was measured with
        settings/<bias>.csv      a row a model and metric
        seen.jpg, .csv           training images of two classes at the lowest and the highest bias
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lib.attention import maps as attention_maps
from lib.attention import scores
from lib.core import hardware, stage
from lib.core.code import fingerprint
from lib.core.compact import Kept
from lib.core.errors import StudyError
from lib.core.files import key_of, read_json, write_json, write_table
from lib.core.progress import say
from lib.core.tiles import write_tiles
from lib.data import prepare
from lib.data.backgrounds import prepare_backgrounds
from lib.evaluation import embeddings, models
from lib.images.scenes import Scenes
from lib.masks import sources
from lib.training import study as training

CODE = ("data", "masks", "images", "models", "training", "retrieval", "attention",
        "evaluation/embeddings", "experiments/bias_dose")  # fmt: skip
SEEN = 4  # pictures of a class


class Measured(Kept):
    """What git holds of the dial."""

    part = "dial"

    @property
    def facts(self) -> dict[str, Any]:
        """dial.json: biases, losses, arms, seeds."""
        return read_json(self.there("dial.json"))

    @property
    def codes(self) -> set[str]:
        """Fingerprints of the code that measured the settings."""
        return {read_json(file)["code"] for file in self.folder.glob("settings/*.json")}

    @property
    def rows(self) -> pd.DataFrame:
        """One row a bias, model and metric; fractions, `drop` is shifted - clean."""
        names = [f"settings/{bias:g}.csv" for bias in self.facts["biases"]]
        return pd.concat([pd.read_csv(self.there(name)) for name in names], ignore_index=True)

    def there(self, name: str):
        """As in lib.core.compact; the dial has a verb of its own."""
        try:
            return super().there(name)
        except StudyError as error:
            raise StudyError(f"{self.folder / name} does not exist: run `make dial`.") from error


@dataclass(frozen=True)
class Dial:
    """What stays the same while the bias is turned.

    `side` and `backgrounds` (how many) of the data; `options` of the drawn set but for `bias`;
    `recipe` the fields of Recipe; `draws` of random backgrounds; `images`, `copies` and
    `noise` for the attention score.
    """

    losses: list[str]
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
        """Train every loss, seed and arm at one setting and measure them: rows of its table."""
        study, scenes = self.at(bias)
        training.measure(study, self.losses, self.arms, self.seeds, **self.recipe)
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


def measure(
    study: str, biases: list[float], losses: list[str], arms: list[str], seeds: list[int],
    side: int, background_count: int, options: dict, recipe: dict, draws: int, images: int,
    copies: int, noise: float,
) -> None:  # fmt: skip
    """Turn the dial: every setting trains every loss, arm and seed, and measures them.

    A setting that was measured already, with the same code and values, is passed over.
    """
    turned = Dial(
        losses, arms, seeds, side, background_count, options, recipe, draws, images, copies, noise
    )
    folder = Measured(study).folder
    precision = hardware.used(recipe["precision"], hardware.device().type)
    told = key_of(**asdict(turned))
    for number, bias in enumerate(training.names("biases", biases), start=1):
        say(f"{study}: setting {number} of {len(biases)}, bias {bias:g}")
        made = {"code": fingerprint(*CODE), "told": told, "precision": precision}
        file = folder / "settings" / f"{bias:g}.json"
        if file.exists() and read_json(file) == made:
            continue
        file.unlink(missing_ok=True)
        write_table(file.with_suffix(".csv"), pd.DataFrame(turned.measure(bias)))
        write_json(file, made)
    for file in folder.glob("settings/*.*"):
        if file.stem not in {f"{bias:g}" for bias in biases}:
            file.unlink()
    pictures, shown = _seen(turned, [min(biases), max(biases)])
    write_tiles(folder / "seen", pictures, shown)
    facts = {"biases": biases, "losses": losses, "arms": arms, "seeds": seeds}
    write_json(folder / "dial.json", facts | {"precision": precision})


def _seen(turned: Dial, biases: list[float]) -> tuple[list, pd.DataFrame]:
    """Training images of two classes at some settings, and which they are."""
    pictures, rows = [], []
    for bias in biases:
        store = turned.at(bias)[1].store
        for label in sorted(store.index["label"][store.rows("train")].unique())[:2]:
            found = store.index.index[store.index["label"] == label][:SEEN]
            pictures += [store.image(row) for row in found]
            rows += [{"bias": bias, "label": label}] * len(found)
    return pictures, pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(stage.main(measure, "dial"))
