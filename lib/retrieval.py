"""Exact retrieval metrics, one value per query: MAP@R, R-precision, P@1.

Each coordinate is rounded to a multiple of 2**-25 (less than what float32 loses on a similarity),
so that every product and every partial sum of an inner product fits a float64 without rounding.
The ranking therefore depends neither on the chunk size nor on threads or device, and two copies
of an embedding tie exactly. Ties go to the lower gallery index, also where the list is cut.

On a CPU the exact products would take most of the time, so a coarse product (bfloat16 where the
processor has it, then float32) draws up a short list, which is scored exactly and taken only where
the error bound of the coarse product proves that nothing better was left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.precision import cpu_has_bf16

CHUNK_ELEMENTS = 2**24  # similarities held at once (float64: 128 MiB)
GRID = 2.0**25
NORM_TOLERANCE = 1e-3
SPARE = 12  # candidates beyond k in the short list
BLOCK = 32  # columns of a coarse product of which first only the greatest is looked at
SAMPLE = 64  # queries that a coarse product is tried on


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
    queries, gallery, exclude = _check_search(queries, gallery, exclude)
    r, _, query_labels, gallery_labels = _count(query_labels, gallery_labels, exclude, gallery)
    scores = {name: torch.full_like(r, torch.nan, dtype=torch.float64) for name in METRICS}
    order = r.argsort(stable=True)  # so that a few large classes do not make every chunk wide
    order = order[r[order] > 0]
    if not len(order):
        return {**scores, "r": r}
    drafts = _drafts(queries[order], gallery, exclude[order], int(r[order].median()))
    for rows in order.split(_chunk(chunk, gallery)):
        depth = r[rows]
        _, found = _nearest(queries[rows], gallery, exclude[rows], int(depth[-1]), drafts)
        hits = gallery_labels[found] == query_labels[rows, None]
        for name, values in _score(hits, depth).items():
            scores[name][rows] = values
    return {**scores, "r": r}


@torch.no_grad()
def neighbours(
    queries: Tensor,
    gallery: Tensor | None = None,
    *,
    k: int,
    exclude: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` nearest gallery images of every query, best first; arguments as in `evaluate`.

    Returns:
        (N, k) int64 gallery indices and (N, k) float32 similarities in [-1, 1].

    Raises:
        ValueError: as `evaluate`, and if `k` is larger than the number of candidates.
    """
    queries, gallery, exclude = _check_search(queries, gallery, exclude)
    most = len(gallery) - int((exclude >= 0).any())
    if not 1 <= k <= most:
        raise ValueError(f"k is {k}; every query has {most} candidates, so give 1 <= k <= {most}")
    drafts = _drafts(queries, gallery, exclude, k)
    every = torch.arange(len(queries), device=queries.device)
    found = [
        _nearest(queries[rows], gallery, exclude[rows], k, drafts)
        for rows in every.split(_chunk(chunk, gallery))
    ]
    values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return indices, values.float()


def chance_levels(
    query_labels: Tensor, gallery_labels: Tensor | None = None, *, exclude: Tensor | None = None
) -> dict[str, float]:
    """Mean of every metric under a random ranking, over the queries with R > 0.

    Arguments as in `evaluate`; NaN if no query has anything to find.
    """
    exclude = _check_exclude(exclude, query_labels, gallery_labels)
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


@dataclass(frozen=True)
class _Draft:
    """The gallery in a coarse type, and how far (norm) any row of it is from the exact one."""

    gallery: Tensor
    residual: Tensor


def _coarse(exact: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`exact` (n, D) in a coarse type, and the norm of what each row lost (n,)."""
    made = exact.to(dtype)
    return made, (exact - made).norm(dim=1)


def _drafts(queries: Tensor, gallery: Tensor, exclude: Tensor, k: int) -> tuple[_Draft, ...]:
    """From the coarsest, those that prove most of a sample of queries at the usual `k`.

    Embeddings that all lie close together are too much for bfloat16. None in a small gallery, nor
    on a GPU, whose exact products are fast enough.
    """
    if gallery.device.type != "cpu" or _is_small(gallery, k):
        return ()
    made = [_coarse(gallery, dtype) for dtype in _draft_types()]
    drafts = [_Draft(coarse, lost.max()) for coarse, lost in made]
    some = slice(None, None, max(1, len(queries) // SAMPLE))
    tried = queries[some], gallery, exclude[some], k
    return tuple(d for d in drafts if _from_list(d, *tried)[2].double().mean() > 0.5)


def _is_small(gallery: Tensor, k: int) -> bool:
    """Whether the blocks that a list of `k` looks into are too large a part of the gallery."""
    return 8 * BLOCK * (k + SPARE) > len(gallery)


def _draft_types() -> tuple[torch.dtype, ...]:
    """bfloat16 only where the processor multiplies it: elsewhere it is slower than float32."""
    return (torch.bfloat16, torch.float32) if cpu_has_bf16() else (torch.float32,)


def _nearest(
    queries: Tensor, gallery: Tensor, exclude: Tensor, k: int, drafts: tuple[_Draft, ...]
) -> tuple[Tensor, Tensor]:
    """Exact similarities and gallery indices (n, k), best first, ties by lower index.

    The first draft lists candidates; a row whose list may lack a better one goes to the next
    draft, and in the end to the search through all exact similarities.
    """
    if not drafts or _is_small(gallery, k):
        return _search(queries, gallery, exclude, k)
    values, indices, sure = _from_list(drafts[0], queries, gallery, exclude, k)
    redo = torch.where(~sure)[0]
    if len(redo):
        again = _nearest(queries[redo], gallery, exclude[redo], k, drafts[1:])
        values[redo], indices[redo] = again
    return values, indices


def _from_list(
    draft: _Draft, queries: Tensor, gallery: Tensor, exclude: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_nearest`, from the list of one draft; and for which rows it is proven (n,).

    Coarse and exact similarity differ by at most |q - q'||g| + |q'||g - g'| (Cauchy-Schwarz), the
    rounding of a float32 sum, and the rounding of the result.
    """
    coarse, lost = _coarse(queries, draft.gallery.dtype)
    rough, indices = _list(_similarity(coarse, draft.gallery, exclude), k + SPARE)
    exact = torch.bmm(gallery[indices], queries[:, :, None])[:, :, 0]
    products = (1 + 2 * NORM_TOLERANCE) * (lost + draft.residual) + queries.shape[1] * 2.0**-23
    error = products[:, None] + 1.01 * torch.finfo(coarse.dtype).eps / 2 * rough.abs()
    as_promised = ((exact - rough).abs() <= error).all(1)  # else this machine computes otherwise
    bound = rough[:, -1] + error[:, -1]  # nothing outside the list is better
    values, indices = (ranked[:, :k] for ranked in _rank(exact, indices))
    return values, indices, as_promised & (values[:, -1] > bound)


def _list(rough: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The `length` greatest of every row of `rough` (n, M) as float64, and their columns.

    They lie in the `length` blocks with the greatest maxima, so only those are looked into;
    column j is in block j mod (M // BLOCK), and the few columns that fill no block are all taken.
    """
    rows, blocks = len(rough), rough.shape[1] // BLOCK
    best = rough[:, : blocks * BLOCK].view(rows, BLOCK, blocks).amax(1)
    top = best.topk(length, dim=1)[1]
    inside = (top[:, :, None] + torch.arange(BLOCK) * blocks).flatten(1)
    rest = torch.arange(blocks * BLOCK, rough.shape[1]).expand(rows, -1)
    columns = torch.cat([inside, rest], dim=1)
    values, at = rough.gather(1, columns).float().topk(length, dim=1)
    return values.double(), columns.gather(1, at)


def _search(queries: Tensor, gallery: Tensor, exclude: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `_nearest`, from all exact similarities."""
    similarity = _similarity(queries, gallery, exclude)
    values, indices = similarity.topk(min(k + 1, len(gallery)), dim=1)
    if k < len(gallery):  # topk breaks a tie across the cut as it likes: redo those rows
        cut = torch.where(values[:, k] == values[:, k - 1])[0]
        values, indices = values[:, :k], indices[:, :k]
        if len(cut):
            indices[cut] = _first_by_index(similarity[cut], values[cut, -1:], k)
            values[cut] = similarity[cut].gather(1, indices[cut])
    return _rank(values, indices)


def _similarity(queries: Tensor, gallery: Tensor, exclude: Tensor) -> Tensor:
    """Inner products (n, M), -inf for the excluded."""
    similarity = queries @ gallery.T
    rows = torch.where(exclude >= 0)[0]
    similarity[rows, exclude[rows]] = -torch.inf
    return similarity


def _rank(values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Both (n, k) sorted by falling value, then by rising index."""
    indices, by_index = indices.sort(dim=1)
    values, by_value = values.gather(1, by_index).sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, by_value)


def _first_by_index(similarity: Tensor, threshold: Tensor, k: int) -> Tensor:
    """Per row the indices of all above `threshold` and the first at it, `k` in total."""
    above, at = similarity > threshold, similarity == threshold
    room = k - above.sum(1, keepdim=True)
    chosen = above | (at & (at.cumsum(1, dtype=torch.int32) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)


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


def _chunk(chunk: int | None, gallery: Tensor) -> int:
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; give the number of queries at a time, at least 1")
    return chunk or max(1, CHUNK_ELEMENTS // len(gallery))


def _check_search(
    queries: Tensor, gallery: Tensor | None, exclude: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides on the exact grid, and the excluded gallery index of every query."""
    exclude = _check_exclude(exclude, queries, gallery)
    exact = _check_embeddings(queries, "queries")
    if gallery is None:
        return exact, exact, exclude.to(exact.device)
    if gallery.device != queries.device or gallery.shape[1:] != queries.shape[1:]:
        raise ValueError(
            f"queries are {tuple(queries.shape)} on {queries.device}, gallery is "
            f"{tuple(gallery.shape)} on {gallery.device}; both need one width and one device"
        )
    return exact, _check_embeddings(gallery, "gallery"), exclude.to(exact.device)


def _check_embeddings(embeddings: Tensor, name: str) -> Tensor:
    if embeddings.ndim != 2 or not embeddings.is_floating_point() or not embeddings.numel():
        raise ValueError(
            f"{name} is {embeddings.dtype} of shape {tuple(embeddings.shape)}; expected floating "
            "point (images, dimensions), at least one of each"
        )
    if embeddings.device.type == "mps":
        embeddings = embeddings.cpu()  # no float64 there
    norm = embeddings.double().norm(dim=1)
    for bad, what, remedy in (
        (~norm.isfinite(), "NaN or infinite values", "look at the model and its input"),
        (norm == 0, "zero rows", "their direction is undefined; look at the model"),
        ((norm - 1).abs() > NORM_TOLERANCE, "rows of norm other than 1", "normalise in float32"),
    ):
        if bad.any():
            raise ValueError(f"{name} has {what}: {_listed(bad)}; {remedy}")
    return (embeddings.double() * GRID).round() / GRID


def _check_labels(labels: Tensor, name: str, expected: int, device: torch.device) -> Tensor:
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != (expected,) or not whole:
        raise ValueError(
            f"{name} is {labels.dtype} of shape {tuple(labels.shape)}; "
            f"expected whole numbers of shape ({expected},), one per embedding"
        )
    return labels.to(device)


def _check_exclude(exclude: Tensor | None, queries: Tensor, gallery: Tensor | None) -> Tensor:
    if gallery is None:
        if exclude is not None:
            raise ValueError("exclude needs a gallery; without one each query excludes itself")
        return torch.arange(len(queries), device=queries.device)
    if exclude is None:
        return torch.full((len(queries),), -1, device=queries.device)
    if exclude.shape != (len(queries),) or exclude.dtype != torch.int64:
        raise ValueError(
            f"exclude is {exclude.dtype} of shape {tuple(exclude.shape)}; expected int64 of shape "
            f"({len(queries)},): a gallery index per query, or -1"
        )
    bad = (exclude < -1) | (exclude >= len(gallery))
    if bad.any():
        raise ValueError(
            f"exclude points outside the gallery of {len(gallery)}: {_listed(bad)}; "
            "give an index from 0, or -1 for none"
        )
    return exclude.to(queries.device)


def _listed(bad: Tensor) -> str:
    """Row numbers of a mask in words, the first ten of them."""
    rows = torch.where(bad)[0].tolist()
    more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    return f"row {', '.join(map(str, rows[:10]))}{more}"
