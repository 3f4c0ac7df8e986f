"""Exact retrieval metrics, one value per query: MAP@R, R-precision, P@1.

Each coordinate is rounded to a multiple of 2**-25 (less than what float32 loses on a similarity),
so that every product and every partial sum of an inner product fits a float64 without rounding.
The ranking therefore depends neither on the chunk size nor on threads or device, and two copies
of an embedding tie exactly. Ties go to the lower gallery index, also where the list is cut.

On a CPU the exact products would take most of the time, so a coarse product (bfloat16 where the
processor has it, then float32) draws up a short list, which is scored exactly and taken only where
the error bound of the coarse product proves that nothing better was left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.core.hardware import cpu_has_bf16

CHUNK_ELEMENTS = 2**24  # similarities held at once (float64: 128 MiB)
GRID = 2.0**25
NORM_TOLERANCE = 1e-3
SPARE = 12  # candidates beyond k in the short list
BLOCK = 32  # columns of a coarse product of which first only the greatest is looked at
ROWS = 2**16  # of a gallery at a time, where a difference of all would take its memory again
SAMPLE = 64  # queries that a coarse product is tried on


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
    queries, gallery, exclude = check_search(queries, gallery, exclude)
    most = len(gallery) - int((exclude >= 0).any())
    if not 1 <= k <= most:
        raise ValueError(f"k is {k}; every query has {most} candidates, so give 1 <= k <= {most}")
    drafts = drafts_of(queries, gallery, exclude, k)
    every = torch.arange(len(queries), device=queries.device)
    found = [
        exact_nearest(queries[rows], gallery, exclude[rows], k, drafts)
        for rows in every.split(chunk_size(chunk, gallery))
    ]
    values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return indices, values.float()


@dataclass(frozen=True)
class _Draft:
    """The gallery in a coarse type, and how far (norm) any row of it is from the exact one."""

    gallery: Tensor
    residual: Tensor


def _coarse(exact: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`exact` (n, D) in a coarse type, and the norm of what each row lost (n,)."""
    made = exact.to(dtype)
    pairs = zip(exact.split(ROWS), made.split(ROWS), strict=True)
    return made, torch.cat([(one - other).norm(dim=1) for one, other in pairs])


def drafts_of(queries: Tensor, gallery: Tensor, exclude: Tensor, k: int) -> tuple[_Draft, ...]:
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


def exact_nearest(
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
        again = exact_nearest(queries[redo], gallery, exclude[redo], k, drafts[1:])
        values[redo], indices[redo] = again
    return values, indices


def _from_list(
    draft: _Draft, queries: Tensor, gallery: Tensor, exclude: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As `exact_nearest`, from the list of one draft; and for which rows it is proven (n,).

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
    """As `exact_nearest`, from all exact similarities."""
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


def chunk_size(chunk: int | None, gallery: Tensor) -> int:
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; give the number of queries at a time, at least 1")
    return chunk or max(1, CHUNK_ELEMENTS // len(gallery))


def check_search(
    queries: Tensor, gallery: Tensor | None, exclude: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides on the exact grid, and the excluded gallery index of every query."""
    exclude = check_exclude(exclude, queries, gallery)
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
    exact = embeddings.to(torch.float64, copy=True)  # in place from here: a gallery may be large
    norm = exact.norm(dim=1)
    for bad, what, remedy in (
        (~norm.isfinite(), "NaN or infinite values", "look at the model and its input"),
        (norm == 0, "zero rows", "their direction is undefined; look at the model"),
        ((norm - 1).abs() > NORM_TOLERANCE, "rows of norm other than 1", "normalise in float32"),
    ):
        if bad.any():
            raise ValueError(f"{name} has {what}: {listed(bad)}; {remedy}")
    return exact.mul_(GRID).round_().div_(GRID)


def check_exclude(exclude: Tensor | None, queries: Tensor, gallery: Tensor | None) -> Tensor:
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
            f"exclude points outside the gallery of {len(gallery)}: {listed(bad)}; "
            "give an index from 0, or -1 for none"
        )
    return exclude.to(queries.device)


def listed(bad: Tensor) -> str:
    """Row numbers of a mask in words, the first ten of them."""
    rows = torch.where(bad)[0].tolist()
    more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    return f"row {', '.join(map(str, rows[:10]))}{more}"
