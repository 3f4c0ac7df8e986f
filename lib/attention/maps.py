"""Attribution maps of a study's models on chosen test images, made once and kept in scratch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.attention import attribution, scores
from lib.attention.attribution import PAPER, Explanation
from lib.core.cache import kept
from lib.core.code import fingerprint
from lib.core.files import key_of
from lib.core.hardware import fixed_threads
from lib.evaluation.embeddings import View, loaded
from lib.evaluation.models import Model
from lib.images.scenes import Scenes
from lib.models import embedding
from lib.models.embedder import Embedder
from lib.models.openvino_forward import Forward

ROOMS = ("images", "models", "attention")  # whose code decides a map
CLASS_MATES = 8  # images whose embeddings make the class mean: enough for a mean, soon embedded


@dataclass(frozen=True)
class Altered:
    """A model with other weights that no file holds, under a name that says how they came."""

    model: Model  # as trained: it says which images a target compares with
    identity: str
    network: Embedder

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.model.image_size


def chosen_rows(scenes: Scenes, count: int, seed: int) -> np.ndarray:
    """Test rows to look at: usable masks only, spread over the classes, decided by the seed.

    Fewer rows of the same seed are among the more.
    """
    rows = scenes.store.rows("test")
    rows = rows[scenes.usable[rows]]
    labels = torch.as_tensor(scenes.store.labels[rows])
    return rows[scores.pick_images(labels, count, seed).numpy()]


def pictures(scenes: Scenes, rows: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Images (B, 3, s, s) on 0 to 255 and masks (B, s, s) in [0, 1] at the test crop."""
    images, masks = scenes.split(scenes.images.centre(rows, size), rows)
    return images, masks[:, 0].cpu().clamp(0, 1)  # resampling may end a rounding error above 1


def partners_of(
    study: str, model: Model, scenes: Scenes, rows: np.ndarray, target: str
) -> list[np.ndarray]:
    """Rows of the test images that each of `rows` is compared with under a target.

    The nearest image under `model`, or up to CLASS_MATES others of the class; never itself.
    Empty for targets that compare with the black image.
    """
    gallery = scenes.store.rows("test")
    labels = scenes.store.labels
    if target == "similarity_to_class_mean":
        return [
            gallery[(labels[gallery] == labels[r]) & (gallery != r)][:CLASS_MATES] for r in rows
        ]
    if target != "similarity_to_nearest":
        return [gallery[:0] for _ in rows]
    known = View(study, model, scenes).embeddings("clean")
    at = np.searchsorted(gallery, rows)
    alike = known[at] @ known.T
    alike[torch.arange(len(rows)), at] = -torch.inf
    return list(gallery[alike.argmax(dim=1).numpy()][:, None])


def opened(subject: Model | Altered) -> tuple[Embedder, Forward]:
    """The network, and how it embeds; an altered one by torch, since it embeds few images."""
    if isinstance(subject, Model):
        return loaded(subject)

    @torch.inference_mode()
    def forward(images: Tensor) -> Tensor:
        return subject.network(images).float().cpu()

    return subject.network, forward


def references(
    network: Embedder, scenes: Scenes, partners: list[np.ndarray], size: int, forward: Forward
) -> Tensor:
    """Mean embedding (B, D) of each image's partners under `network`, embedded by `forward`.

    Zero where there is no partner: the similarity is then constant, the map zero, its score
    undefined and left out by rule.
    """
    needed = np.unique(np.concatenate(partners))
    if not len(needed):
        needed = scenes.store.rows("test")[:1]  # to learn the width
    known = embedding.embed(
        network, scenes, needed, "clean", draw=0, seed=0, size=size, forward=forward
    )
    means = [known[np.searchsorted(needed, rows)].sum(0) / max(1, len(rows)) for rows in partners]
    return torch.stack(means)


@fixed_threads()
def maps_of(
    study: str,
    subject: Model | Altered,
    scenes: Scenes,
    rows: np.ndarray,
    seed: int,
    explanation: Explanation = PAPER,
    **settings: float,
) -> Tensor:
    """Raw maps (len(rows), s, s) of a model, computed once and kept in scratch.

    Args:
        subject: an altered model is asked about the images that the trained one is asked about:
            the question stays, the answer goes.
        seed: of the noise. explanation: method and target; by default the paper's.
        settings: fields of lib.attention.attribution.Settings.
    """
    settings, size = explanation.needs(settings), subject.image_size
    black = attribution.TARGETS[explanation.target].black
    asked = subject.model if isinstance(subject, Altered) else subject
    partners = None if black else partners_of(study, asked, scenes, rows, explanation.target)
    key = key_of(
        code=fingerprint(*ROOMS), model=subject.identity, data=scenes.fingerprint, size=size,
        rows=rows.tolist(), seed=seed, explanation=str(explanation), **settings,
        partners=partners and [part.tolist() for part in partners],
    )  # fmt: skip

    def make() -> dict[str, Tensor]:
        network, forward = opened(subject)
        images, _ = pictures(scenes, rows, size)
        made = attribution.attribute(
            explanation.method, network, network.normalise(images),
            black=network.normalise(torch.zeros_like(images[:1])), target=explanation.target,
            reference=None if black else references(network, scenes, partners, size, forward),
            seeds=torch.as_tensor(rows) + 1_000_003 * seed,
            batch=25 if images.device.type == "cpu" else 250, **settings,
        )  # fmt: skip
        return {"maps": made.float().cpu().contiguous()}

    return kept(study, "maps", key, make)["maps"]
