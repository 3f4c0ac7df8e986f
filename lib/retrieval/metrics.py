"""Exact retrieval metrics, one value per query: MAP@R, R-precision, P@1."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.retrieval.search import (
    check_exclude,
    check_search,
    chunk_size,
    drafts_of,
    exact_nearest,
    neighbours,
)


def _chance_of_hit(r: Tensor, candidates: Tensor) -> Tensor:
    return r.double() / candidates


def _chance_map_at_r(r: Tensor, candidates: Tensor) -> Tensor:
    # Rank i is a hit with probability p = R/M; given that, each of the i-1 ranks before it is one
    # with probability s = (R-1)/(M-1). Averaged over i: p/R * sum_i (1 + (i-1) s) / i.
    r = r.double()
    p, s = r / candidates, (r - 1) / (candidates - 1).clamp(min=1)
    harmonic = torch.digamma(r + 1) - torch.digamma(torch.ones_like(r))
    return p / r * (harmonic * (1 - s) + r * s)


@dataclass(frozen=True)
class Metric:
    """A retrieval metric: plot label, direction, range, chance level and source.

    `chance(r, candidates)` is the expected value per query under a random ranking, for `r`
    relevant images (N,) among `candidates` gallery images (N,); NaN where r = 0.
    """

    label: str
    direction: str
    low: float
    high: float
    chance: Callable[[Tensor, Tensor], Tensor]
    reference: str


MUSGRAVE = "Musgrave et al. 2020, arXiv 2003.08505, section 3.2"
METRICS = {
    "map_at_r": Metric("MAP@R", "higher", 0.0, 1.0, _chance_map_at_r, MUSGRAVE),
    "r_precision": Metric("R-precision", "higher", 0.0, 1.0, _chance_of_hit, MUSGRAVE),
    "p_at_1": Metric("P@1", "higher", 0.0, 1.0, _chance_of_hit, "Recall@1, arXiv 1511.06452"),
}


@torch.no_grad()
def evaluate(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    *,
    exclude: Tensor | None = None,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Score every query by the labels of its nearest gallery images.

    With R gallery images of the query's label and precision P(i) among the first i neighbours:
    P@1 = P(1), R-precision = P(R), MAP@R = sum of P(i) over the hits i <= R, divided by R.

    Args:
        queries: (N, D) L2-normalised embeddings; similarity is the inner product.
        query_labels: (N,) integer labels.
        gallery: (M, D) embeddings, on the device of `queries`. None: the queries search among
            themselves, each without itself.
        gallery_labels: (M,) integer labels; given if and only if `gallery` is.
        exclude: (N,) gallery index of the same photograph as the query, or -1. It is never a
            neighbour, nor counted in R. Only with `gallery`.
        chunk: queries at a time; by default as many as keep a chunk's similarities within 128 MiB.

    Returns:
        `map_at_r`, `r_precision`, `p_at_1`: (N,) float64 in [0, 1], NaN where R = 0 (undefined:
        there is nothing to find; count these, take nanmean of the rest); `r`: (N,) int64.

    Raises:
        ValueError: wrong shapes or types, NaN, infinite, zero or not normalised rows.
    """
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels belong together: give both or neither")
    queries, gallery, exclude = check_search(queries, gallery, exclude)
    r, _, query_labels, gallery_labels = _count(query_labels, gallery_labels, exclude, gallery)
    scores = {name: torch.full_like(r, torch.nan, dtype=torch.float64) for name in METRICS}
    order = r.argsort(stable=True)  # so that a few large classes do not make every chunk wide
    order = order[r[order] > 0]
    if not len(order):
        return {**scores, "r": r}
    drafts = drafts_of(queries[order], gallery, exclude[order], int(r[order].median()))
    for rows in order.split(chunk_size(chunk, gallery)):
        depth = r[rows]
        _, found = exact_nearest(queries[rows], gallery, exclude[rows], int(depth[-1]), drafts)
        hits = gallery_labels[found] == query_labels[rows, None]
        for name, values in _score(hits, depth).items():
            scores[name][rows] = values
    return {**scores, "r": r}


@torch.no_grad()
def evaluate_apart(embeddings: Tensor, labels: Tensor, groups: Tensor) -> dict[str, Tensor]:
    """`evaluate` among themselves, without the gallery images that share the query's group.

    These are never neighbours, nor counted in R. Where a group is a background photograph, nothing
    is found by the photograph alone.

    Args:
        embeddings: (N, D) L2-normalised. labels, groups: (N,) integers.

    Returns:
        As `evaluate`; undefined (NaN) where no image of the class is left.
    """
    pairs = torch.stack([labels, groups], dim=1)
    kin, grouped = _sizes(pairs), _sizes(groups[:, None])
    r = _sizes(labels[:, None]) - kin
    scores = {name: torch.full_like(r, torch.nan, dtype=torch.float64) for name in METRICS}
    most = min(len(labels) - 1, int((r + grouped - 1).max()))
    near, _ = neighbours(embeddings, k=most)
    apart = groups[near] != groups[:, None]
    order = apart.logical_not().int().argsort(dim=1, stable=True)
    hits = (labels[near] == labels[:, None]).gather(1, order)
    rows = torch.where(r > 0)[0]
    for name, values in _score(hits[rows, : int(r.max())], r[rows]).items():
        scores[name][rows] = values
    return {**scores, "r": r}


def _sizes(keys: Tensor) -> Tensor:
    """How many rows of `keys` (N, K) are equal to each, itself among them."""
    _, code, counts = keys.unique(dim=0, return_inverse=True, return_counts=True)
    return counts[code]


def chance_levels(
    query_labels: Tensor, gallery_labels: Tensor | None = None, *, exclude: Tensor | None = None
) -> dict[str, float]:
    """Mean of every metric under a random ranking, over the queries with R > 0.

    Arguments as in `evaluate`; NaN if no query has anything to find.
    """
    exclude = check_exclude(exclude, query_labels, gallery_labels)
    r, candidates, _, _ = _count(query_labels, gallery_labels, exclude)
    known = r > 0
    return {
        name: float(metric.chance(r[known], candidates[known]).mean())
        for name, metric in METRICS.items()
    }


def _score(hits: Tensor, r: Tensor) -> dict[str, Tensor]:
    """Metrics of (n, k) ranked hits, of which the first `r` (n,) of each row count."""
    rank = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    counted = (hits & (rank <= r[:, None])).double()
    precision = counted.cumsum(1) / rank
    return {
        "map_at_r": (precision * counted).sum(1) / r,
        "r_precision": counted.sum(1) / r,
        "p_at_1": counted[:, 0],
    }


def _count(
    query_labels: Tensor,
    gallery_labels: Tensor | None,
    exclude: Tensor,
    gallery: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R and the number of candidates per query (N,), and both label vectors, checked."""
    if gallery_labels is None:
        gallery_labels = query_labels
    expected = len(gallery) if gallery is not None else len(gallery_labels)
    query_labels = _check_labels(query_labels, "query_labels", len(exclude), exclude.device)
    gallery_labels = _check_labels(gallery_labels, "gallery_labels", expected, exclude.device)
    _, code = torch.cat([gallery_labels, query_labels]).unique(return_inverse=True)
    in_gallery, wanted = code[: len(gallery_labels)], code[len(gallery_labels) :]
    r = torch.bincount(in_gallery, minlength=int(code.max()) + 1)[wanted]
    left_out = exclude >= 0
    r = r - (left_out & (gallery_labels[exclude] == query_labels)).long()
    return r, len(gallery_labels) - left_out.long(), query_labels, gallery_labels


def _check_labels(labels: Tensor, name: str, expected: int, device: torch.device) -> Tensor:
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != (expected,) or not whole:
        raise ValueError(
            f"{name} is {labels.dtype} of shape {tuple(labels.shape)}; "
            f"expected whole numbers of shape ({expected},), one per embedding"
        )
    return labels.to(device)
