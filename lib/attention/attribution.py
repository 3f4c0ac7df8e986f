"""Attribution maps of an embedding: which pixels move it? Methods and targets in one table each.

`embed` is a module that maps normalised images (N, 3, H, W) to embeddings (N, D) of length 1.
An image's map depends on the image, the model and the image's own seed; not on its batch.
"""

import copy
import difflib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import torch
from captum.attr import IntegratedGradients, Occlusion
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lib.core.errors import StudyError
from lib.core.hardware import autocast, workers


@dataclass(frozen=True)
class Target:
    """The number to explain: `value(embeddings (N, D), reference (N, D)) -> (N,)`."""

    label: str
    short: str  # for tables and figures
    value: Callable[[Tensor, Tensor], Tensor]
    black: bool = False  # the reference is the black image's embedding; else the caller gives it


def _distance(embeddings: Tensor, reference: Tensor) -> Tensor:
    return (embeddings - reference).norm(dim=1)


def _similarity(embeddings: Tensor, reference: Tensor) -> Tensor:
    return (embeddings * reference).sum(dim=1)


# The authors take "the distance" of the loss: Euclidean for contrastive and triplet, the inner
# product for the other three. Both are here; one target for all losses keeps models comparable.
TARGETS: dict[str, Target] = {
    "distance_to_black": Target("Euclidean distance to a black image", "black", _distance, True),
    "similarity_to_black": Target(
        "similarity to a black image", "black (cosine)", _similarity, True
    ),
    "similarity_to_nearest": Target(
        "similarity to the nearest gallery image", "nearest", _similarity
    ),
    "similarity_to_class_mean": Target("similarity to the class mean", "class mean", _similarity),
}


@dataclass(frozen=True)
class Settings:
    """How maps are computed; every value may be given to `attribute` by its name."""

    copies: int = 25  # SmoothGrad: noisy copies of an image (the paper: 25)
    noise: float = 0.15  # SmoothGrad: std of the noise as a share of the image's range
    steps: int = 16  # integrated gradients: points on the way from black
    cells: int = 8  # occlusion: cells a side
    batch: int = 25  # rows through the network at once; the result does not depend on it
    precision: str = "f32"  # or bf16
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Values that cannot work raise in words."""
        for name in ("copies", "steps", "cells", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.precision not in ("f32", "bf16"):
            raise ValueError(f"precision is {self.precision!r}; give 'f32' or 'bf16'")


@dataclass(frozen=True)
class Task:
    """What a method works on: images (B, 3, H, W) and reference (B, D) on one device."""

    embed: nn.Module  # a private frozen copy
    value: Callable[[Tensor, Tensor], Tensor]
    images: Tensor
    reference: Tensor
    black: Tensor
    seeds: list[int]
    settings: Settings

    def explained(self, rows: Tensor, reference: Tensor) -> Tensor:
        """The target's value (N,), float32, of images (N, 3, H, W)."""
        return self.value(_embeddings(self.embed, rows, self.settings), reference)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and their references, `batch` at a time."""
        size = self.settings.batch
        return zip(self.images.split(size), self.reference.split(size), strict=True)


def smoothgrad(task: Task) -> Tensor:
    """|mean over colours of the gradient|, summed over noisy copies (Smilkov 2017; the paper).

    The absolute value comes after the mean over colours and before the sum over copies. Copies of
    several images share a batch; each copy's gradient is its own, so nothing mixes.
    """
    maps = torch.zeros_like(task.images[:, 0], dtype=torch.float32)
    for rows, owner in _noisy(task):
        saliency = _saliency(task, rows, task.reference[owner])
        for image in owner.unique().tolist():  # not index_add: its order varies on a GPU
            maps[image] += saliency[owner == image].sum(dim=0)
    return maps


def gradient(task: Task) -> Tensor:
    """|mean over colours of the gradient| of the image itself (Simonyan et al. 2014)."""
    return torch.cat([_saliency(task, x.clone(), r) for x, r in task.chunks()])


def integrated_gradients(task: Task) -> Tensor:
    """|mean over colours| of captum's integrated gradients from black (Sundararajan 2017)."""
    steps = {"n_steps": task.settings.steps, "internal_batch_size": task.settings.batch}
    return _captum(IntegratedGradients, task, lambda _: steps)


def grad_cam(task: Task) -> Tensor:
    """Grad-CAM on `embed.trunk.features`, bilinear to the image size (Selvaraju et al. 2017).

    Only what speaks for the target is kept, so a map can be all zero (and its score undefined).
    """
    seen = _record_features(task.embed)
    parts = []
    for x, r in task.chunks():
        value = task.explained(x, r).sum()
        features = seen.pop()
        (slope,) = torch.autograd.grad(value, features)
        cam = (slope.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1, keepdim=True).relu()
        parts.append(interpolate(cam.float(), x.shape[-2:], mode="bilinear").squeeze(1))
    return torch.cat(parts)


def occlusion(task: Task) -> Tensor:
    """|change of the target| when a cell of a cells x cells grid turns black (Zeiler 2014)."""
    sides = (-(-side // task.settings.cells) for side in task.images.shape[-2:])
    cell = (task.images.shape[1], *sides)
    windows = {"sliding_window_shapes": cell, "strides": cell}
    size = task.settings.batch
    return _captum(
        Occlusion, task, lambda rows: windows | {"perturbations_per_eval": max(1, size // rows)}
    )


def _captum(kind: type, task: Task, options: Callable[[int], dict[str, Any]]) -> Tensor:
    """|mean over colours| of a captum method from black; `options` for a number of images."""
    method = kind(task.explained)
    parts = [
        method.attribute(
            x.clone(), baselines=task.black.expand_as(x), additional_forward_args=(r,),
            **options(len(x)),
        )
        for x, r in task.chunks()
    ]  # fmt: skip
    return torch.cat(parts).mean(dim=1).abs()


@dataclass(frozen=True)
class Method:
    """One way to make maps (B, H, W) of a task."""

    label: str
    function: Callable[[Task], Tensor]
    reference: str


METHODS: dict[str, Method] = {
    "smoothgrad": Method("SmoothGrad", smoothgrad, "Smilkov et al. 2017"),
    "gradient": Method("gradient", gradient, "Simonyan et al. 2014"),
    "integrated_gradients": Method(
        "integrated gradients", integrated_gradients, "Sundararajan et al. 2017"
    ),
    "grad_cam": Method("Grad-CAM", grad_cam, "Selvaraju et al. 2017"),
    "occlusion": Method("occlusion", occlusion, "Zeiler & Fergus 2014"),
}


@dataclass(frozen=True)
class Explanation:
    """A method and the number that it explains; `str()` is how params.yaml names it."""

    method: str = "smoothgrad"
    target: str = "distance_to_black"

    @classmethod
    def parse(cls, text: str) -> "Explanation":
        """`grad_cam/similarity_to_nearest`; without a target: the distance to black.

        Raises:
            StudyError: a method or target that is in neither table.
        """
        method, _, target = text.partition("/")
        found = cls(method, target or cls.target)
        for name, table in ((method, METHODS), (found.target, TARGETS)):
            if name not in table:
                near = difflib.get_close_matches(name, table, n=1, cutoff=0.0)[0]
                raise StudyError(
                    f"{text!r} is no explanation: there is no {name!r}; the closest is "
                    f"{near!r}, all are: {', '.join(table)}. Write method/target."
                )
        return found

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return f"{self.method}/{self.target}"

    @property
    def label(self) -> str:
        """For tables and figures."""
        return f"{METHODS[self.method].label}, {TARGETS[self.target].short}"

    def needs(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The `settings` that matter to the method: only SmoothGrad makes noisy copies."""
        noisy = self.method == "smoothgrad"
        return {k: v for k, v in settings.items() if noisy or k not in ("copies", "noise")}


PAPER = Explanation()
PRESETS: dict[str, tuple[str, ...]] = {
    "paper": ("smoothgrad",),
    "all": (
        "smoothgrad", "smoothgrad/similarity_to_nearest", "smoothgrad/similarity_to_class_mean",
        "gradient", "integrated_gradients", "occlusion", "grad_cam/similarity_to_nearest",
        "grad_cam/similarity_to_class_mean",
    ),
}  # fmt: skip


def explanations(names: list[str] | str) -> list[Explanation]:
    """The explanations that a study names, each once, the paper's first.

    Args:
        names: `method/target` or a word of PRESETS; one or several, as a list or with commas.
    """
    given = names.split(",") if isinstance(names, str) else names
    found = [text for name in given for text in PRESETS.get(name.strip(), (name.strip(),))]
    return list(dict.fromkeys([PAPER, *map(Explanation.parse, found)]))


def attribute(
    method: str,
    embed: nn.Module,
    images: Tensor,
    *,
    black: Tensor,
    target: str = "distance_to_black",
    reference: Tensor | None = None,
    seeds: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """Raw non-negative maps (B, H, W), float32, of `images` (B, 3, H, W), normalised.

    `black` (1, 3, H, W) is the normalised black image; `reference` (B, D) holds the embeddings
    that the similarity targets compare with. `seeds` (B,) int64 gives every image's noise (drawn
    on the CPU: the same on every device), by default the row number. `settings` are the fields of
    `Settings`. `embed` is copied, not changed. Wrong names and shapes raise ValueError.
    """
    _check(method, target, images, black, reference, seeds, settings)
    options = Settings(**settings)
    private = _private(embed, options)
    if TARGETS[target].black:
        with torch.no_grad():  # once for all images
            reference = _embeddings(private, black.to(images), options)
        reference = reference.expand(len(images), -1)
    task = Task(
        embed=private,
        value=TARGETS[target].value,
        images=images.detach(),
        reference=reference.to(images.device),
        black=black.to(images),
        seeds=list(range(len(images))) if seeds is None else seeds.tolist(),
        settings=options,
    )
    return METHODS[method].function(task).detach()


def _check(method, target, images, black, reference, seeds, settings) -> None:
    for name, table in ((method, METHODS), (target, TARGETS)):
        if name not in table:
            raise ValueError(f"unknown name {name!r}; known: {', '.join(table)}")
    known = [field.name for field in fields(Settings)]
    for name in settings:
        if name not in known:
            raise ValueError(f"unknown setting {name!r}; known: {', '.join(known)}")
    if images.ndim != 4 or black.shape != (1, *images.shape[1:]):
        raise ValueError(
            f"images are {tuple(images.shape)}, black {tuple(black.shape)}; expected "
            "(images, 3, height, width) and one image of the same size"
        )
    rows = {"reference": reference, "seeds": seeds}
    if reference is None and not TARGETS[target].black:
        raise ValueError(f"target {target} needs reference: one embedding for each image")
    for name, given in rows.items():
        if given is not None and len(given) != len(images):
            raise ValueError(f"{name} has {len(given)} rows for {len(images)} images")


def _embeddings(embed: nn.Module, rows: Tensor, settings: Settings) -> Tensor:
    if settings.channels_last:
        rows = rows.contiguous(memory_format=torch.channels_last)
    with autocast(rows.device, settings.precision):
        return embed(rows).float()


def _saliency(task: Task, rows: Tensor, reference: Tensor) -> Tensor:
    value = task.explained(rows.requires_grad_(), reference)
    if not value.requires_grad:  # a model that ignores its input
        return torch.zeros_like(rows[:, 0])
    (slope,) = torch.autograd.grad(value.sum(), rows)
    return slope.mean(dim=1).abs()


def _noisy(task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    """Noisy copies (n, 3, H, W) of all images in order, and the image (n,) each one is of."""
    images, copies, batch = task.images, task.settings.copies, task.settings.batch
    spread = images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3))
    deviation = (task.settings.noise * spread).view(-1, 1, 1, 1)
    threads = 0 if images.device.type == "cpu" else workers()
    noise = _noise(task.seeds, copies, images.shape[1:], threads)
    for owner in torch.arange(len(images)).repeat_interleave(copies).split(batch):
        drawn = torch.stack([next(noise) for _ in owner]).to(images)
        yield images[owner] + deviation[owner] * drawn, owner


def _draws(seed: int, copies: int, shape: torch.Size) -> Iterator[Tensor]:
    """One copy's noise at a time: the first ten of 25 copies are those of ten copies."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(copies):
        yield torch.randn(shape, generator=generator)


def _noise(seeds: list[int], copies: int, shape: torch.Size, threads: int = 0) -> Iterator[Tensor]:
    """The copies' noise of all images in order.

    With `threads` whole images are drawn ahead of time: the same numbers, so that a GPU does not
    wait for the CPU's generator. A CPU that also runs the network gains nothing (0).
    """
    if not threads:
        for seed in seeds:
            yield from _draws(seed, copies, shape)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        for seed in seeds:
            waiting.append(pool.submit(lambda s: list(_draws(s, copies, shape)), seed))
            if len(waiting) > threads:  # no more than this many images' noise in memory
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _record_features(embed: nn.Module) -> list[Tensor]:
    """A list that receives the trunk's feature map at every forward pass of `embed`.

    The map is cut off from the trunk: the gradient needs only what comes after it.
    """
    seen: list[Tensor] = []
    inner = embed.trunk.features

    def keep(features: Tensor) -> Tensor:
        seen.append(features.detach().requires_grad_())
        return seen[-1]

    if isinstance(inner, nn.Module):
        inner.register_forward_hook(lambda _module, _inputs, output: keep(output))
    else:
        embed.trunk.features = lambda x: keep(inner(x))
    return seen


def _private(embed: nn.Module, settings: Settings) -> nn.Module:
    """A frozen copy in evaluation mode: no weight gradients, and free to be rearranged."""
    private = copy.deepcopy(embed).eval().requires_grad_(False)
    if settings.channels_last:
        private = private.to(memory_format=torch.channels_last)
    return private
