"""The images of an audit as its models embed them, and how they are searched."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.core.cache import kept
from lib.core.code import fingerprint
from lib.core.files import key_of
from lib.core.hardware import fixed_threads
from lib.evaluation import effects, remedies
from lib.evaluation.remedies import REMEDIES
from lib.experiments.audit_images import Images
from lib.experiments.foreign import Foreign
from lib.images import conditions as test_conditions
from lib.images.conditions import Batch, choose
from lib.masks import rembg_models
from lib.retrieval import metrics, search

CLEAN, SHIFTED, PLACES = "clean", "random_background", "unshared_background"
NONE = "none"  # no remedy
QUERY = "query"  # side; and, after a remedy's name, that only queries are treated
CHUNK = 512  # images kept in one file: what a killed run loses at most
NEAREST = 5
FAST = "u2netp@160"


class Pass(NamedTuple):
    """One run of a model over all images: `who` is model or reference."""

    who: str
    condition: str
    draw: int
    remedy: str


@dataclass(frozen=True)
class Search:
    """The images of an audit as its models embed them; each part is made once and kept."""

    images: Images
    models: dict[str, Foreign]
    size: int
    seed: int

    @cached_property
    def labels(self) -> Tensor:
        """Label of every image in the search."""
        return torch.as_tensor(self.images.scenes.store.labels[self.images.rows])

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the queries and of the gallery among the images in the search."""
        side = self.images.scenes.store.index["side"].to_numpy()[self.images.rows]
        return np.flatnonzero(side != "gallery"), np.flatnonzero(side != "query")

    @cached_property
    def own(self) -> Tensor:
        """Place in the gallery of every query's own photograph (the same bytes), or -1."""
        queries, gallery = self.sides
        if not self.images.apart:
            return torch.arange(len(queries))
        seals = self.images.scenes.store.index["sha256"].to_numpy()[self.images.rows]
        known = {seal: place for place, seal in enumerate(seals[gallery])}
        return torch.tensor([known.get(seal, -1) for seal in seals[queries]])

    def _choice(self, draw: int) -> test_conditions.Choice:
        return choose(self.images.scenes, self.images.rows, "test", self.seed, draw)

    @torch.inference_mode()
    @fixed_threads()
    def shown(self, part: np.ndarray, condition: str, draw: int) -> np.ndarray:
        """What a model sees of some rows: uint8 (N, s, s, 3)."""
        make, choice, found = test_conditions.get(condition).make, self._choice(draw), []
        for start in range(0, len(part), 32):
            rows = part[start : start + 32]
            made = make(Batch(self.images.scenes, rows, self.size, "test", choice.at(rows)))
            found.append(made.permute(0, 2, 3, 1).clamp(0, 255).round().byte().cpu().numpy())
        return np.concatenate(found)

    def _key(self, part: np.ndarray, condition: str, draw: int, **more: Any) -> str:
        return key_of(
            data=self.images.scenes.fingerprint,
            rows=part.tolist(), of=len(self.images.rows), condition=condition, draw=draw,
            size=self.size, seed=self.seed, **more,
        )  # fmt: skip

    def masks(self, part: np.ndarray, condition: str, draw: int) -> np.ndarray:
        """Masks (N, s, s) that a rembg model makes of the images as they are shown."""
        source = predictor(self.images.mask_source)

        def make() -> dict[str, Tensor]:
            found = remedies.predicted(self.shown(part, condition, draw), source)
            return {"masks": torch.from_numpy(np.round(255 * found).astype(np.uint8))}

        key = self._key(part, condition, draw, source=source, code=fingerprint("images", "masks"))
        return kept(self.images.study, "masks", key, make)["masks"].numpy().astype(np.float32) / 255

    def masks_of(self, run: Pass) -> np.ndarray:
        """`masks` of all images in the search."""
        rows = self.images.rows
        parts = [
            self.masks(rows[at : at + CHUNK], run.condition, run.draw)
            for at in range(0, len(rows), CHUNK)
        ]
        return np.concatenate(parts)

    def vectors(self, run: Pass) -> Tensor:
        """Vectors (N, D) of all images in the search."""
        rows = self.images.rows
        parts = [self._vectors(rows[at : at + CHUNK], run) for at in range(0, len(rows), CHUNK)]
        return torch.cat(parts)

    def _vectors(self, part: np.ndarray, run: Pass) -> Tensor:
        model = self.models[run.who]

        def make() -> dict[str, Tensor]:
            images = self.shown(part, run.condition, run.draw)
            if run.remedy == NONE:
                return {"vectors": model.embed(images)}
            remedy, masks = REMEDIES[run.remedy], self.masks(part, run.condition, run.draw)
            if remedy.show:
                return {"vectors": model.embed(remedy.show(images, masks))}
            return {"vectors": remedies.late_masked(model.module, remedy, images, masks)}

        more = {"code": fingerprint("images", "models")}
        if run.remedy != NONE:
            more |= {"remedy": run.remedy, "source": predictor(self.images.mask_source)}
            more["how"] = fingerprint("evaluation", "masks")
        key = self._key(part, run.condition, run.draw, model=model.identity, **more)
        return kept(self.images.study, "vectors", key, make)["vectors"]

    def scores(self, run: Pass, sides: str, only_query: bool = False) -> pd.DataFrame:
        """One row a query with every metric. A query's own photograph is never in its ranking.

        Args:
            sides: "both": queries and gallery under the condition; "query": a clean gallery.
            only_query: the remedy is not applied to the gallery.
        """
        queries, gallery = self.sides
        moved = self.vectors(run)
        if sides == QUERY or only_query:
            against = run._replace(remedy=NONE) if only_query else run
            if sides == QUERY:
                against = against._replace(condition=CLEAN, draw=0)
            there = self.vectors(against)
        else:
            there = moved
        found = metrics.evaluate(
            moved[queries], self.labels[queries], there[gallery], self.labels[gallery],
            exclude=self.own,
        )  # fmt: skip
        arm = f"{run.remedy} {QUERY}" if only_query else run.remedy
        values = {name: found[name].numpy() for name in effects.METRICS}
        told = {"row": self.images.rows[queries], "label": self.labels[queries].numpy()}
        return pd.DataFrame(told | values).assign(
            loss=run.who, arm=arm, seed=0, condition=run.condition, sides=sides, draw=run.draw
        )

    def nearest(self, run: Pass, row: int) -> list[int]:
        """Rows of the gallery images nearest to the query in `row`, best first."""
        queries, gallery = self.sides
        at = int(np.flatnonzero(self.images.rows[queries] == row)[0])
        known = self.vectors(run)
        count = min(NEAREST, len(gallery) - int(self.own[at] >= 0))
        found = search.neighbours(
            known[queries][[at]], known[gallery], k=count, exclude=self.own[[at]]
        )
        return self.images.rows[gallery][found[0][0].numpy()].tolist()


def predictor(mask_source: str) -> str:
    """The rembg model for masks of shifted images: the audit's own, or the small one."""
    base = mask_source.split("+")[0]
    return base if base.partition("@")[0] in rembg_models.MASK_MODELS else FAST
