"""Means with intervals that respect how the numbers came about.

Queries of one class share its look and its neighbours, so they are not independent: whole classes
are resampled. Intervals of the mean are symmetric bootstrap-t (Efron & Tibshirani 1993, chapter
12.5; Hall 1988); percentile intervals came out too short for few classes. Coverage of the nominal
95 % in simulation (skewed class effects, uneven classes; 4000 repetitions):

    images a class         8 classes   30 classes   100 classes
    5 to 60, uniform         94.3 %      95.5 %       95.2 %
    2 to 12, uniform         95.0 %      95.1 %       95.1 %
    geometric, mean 30       93.5 %      94.2 %       95.4 %

No interval here covers what was not varied: one over classes says nothing about another seed,
and one over seeds says nothing about other classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

MIN_CLASSES = 5  # below, resampled classes say nothing about the spread between classes
BLOCK = 2**22  # weights expanded at once
FLIPPED = 1000  # sign patterns at once: fixed, so that the patterns depend on the seed alone
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean (or correlation) with its interval; `n` values used, `undefined` left out as NaN."""

    mean: float
    low: float
    high: float
    n: int
    undefined: int = 0


@dataclass(frozen=True)
class Paired:
    """A mean difference with its interval and two-sided p-value; `n` pairs used."""

    diff: float
    low: float
    high: float
    p: float
    n: int
    undefined: int = 0


def mean_by_class_bootstrap(
    values: ArrayLike,
    classes: ArrayLike,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over queries; symmetric bootstrap-t interval from resampled whole classes.

    Covers: other classes of the same kind, with their images. Not covered: other training seeds,
    other draws of backgrounds.

    Args:
        values: (N,) one value per query; NaN (undefined) is left out and counted.
        classes: (N,) the class label of each query.
        draws: bootstrap samples. level: coverage in (0, 1). seed: of the resampling.

    Returns:
        Interval; its bounds can leave the metric's range, and are NaN for fewer than 5 classes.

    Raises:
        ValueError: shapes that do not match, infinite values, a level outside (0, 1).
    """
    (values,), classes, undefined = _known([values], classes)
    _check_level(level, draws)
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0, undefined)
    counts = _class_sums(np.ones_like(values), classes)
    mean = values.mean()
    sums = _class_sums(values - mean, classes)[:, None]
    half = class_bootstrap(sums, counts, draws=draws, level=level, seed=seed)[1][0]
    return Interval(float(mean), mean - half, mean + half, n, undefined)


def class_bootstrap(
    sums: ArrayLike,
    counts: ArrayLike,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Means over queries of many columns at once, with half-widths of their intervals.

    The interval of `mean_by_class_bootstrap`, from what it needs alone: sums over each class. All
    columns share the resamples.

    Args:
        sums: (G, K) sum of the values of each class, a column a quantity.
        counts: (G,) queries of each class. Others as `mean_by_class_bootstrap`.

    Returns:
        Means (K,) and half-widths (K,), NaN for fewer than 5 classes.
    """
    sums, counts = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    _check_level(level, draws)
    mean = sums.sum(0) / counts.sum()
    if len(counts) < MIN_CLASSES:
        return mean, np.full(len(mean), np.nan)
    centred = sums - mean * counts[:, None]
    width = max(1, BLOCK // draws)
    parts = [centred[:, start : start + width] for start in range(0, len(mean), width)]
    halves = [_bootstrap_t(part, counts, draws, level, seed) for part in parts]
    return mean, np.concatenate(halves) if halves else np.empty(0)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    classes: ArrayLike,
    *,
    draws: int = 2000,
    flips: int = 9999,
    level: float = 0.95,
    seed: int = 0,
) -> Paired:
    """Mean of a - b over the same queries, with interval and sign-flip test over classes.

    The p-value is two-sided: the share of sign patterns, one sign a class, for which the mean over
    queries is at least as far from 0 as observed, (k + 1) / (flips + 1). It assumes that without
    an effect a class is as likely to gain as to lose by the same amount. Covers: other classes,
    as `mean_by_class_bootstrap`; compare several differences through `holm`.

    Args:
        a, b: (N,) values of the same queries under two conditions; a pair with NaN is left out.
        classes: (N,) class labels. flips: random sign patterns. Others as above.

    Raises:
        ValueError: as `mean_by_class_bootstrap`.
    """
    (a, b), classes, undefined = _known([a, b], classes)
    found = mean_by_class_bootstrap(a - b, classes, draws=draws, level=level, seed=seed)
    p = sign_flips(a - b, classes, flips=flips, seed=seed) if found.n else [np.nan]
    return Paired(found.mean, found.low, found.high, float(p[0]), found.n, undefined)


def sign_flips(
    differences: ArrayLike, classes: ArrayLike, *, flips: int = 9999, seed: int = 0
) -> Array:
    """The p-values of `paired_difference` for many contrasts of the same queries at once.

    A grid of tests needs many sign patterns, since the least p-value is 1 / (flips + 1) and Holm
    multiplies it by the number of tests; here all contrasts share the patterns.

    Args:
        differences: (N,) or (N, T) values a - b; NaN (undefined) is left out.
        classes: (N,) class labels. flips: random sign patterns. seed: of the patterns.

    Returns:
        (T,) p-values; NaN for a contrast without a defined difference.
    """
    values = np.asarray(differences, dtype=float).reshape(len(np.asarray(classes)), -1)
    sums = np.stack([_class_sums(column, classes) for column in np.nan_to_num(values).T], axis=1)
    return np.where(np.isnan(values).all(0), np.nan, class_flips(sums, flips=flips, seed=seed))


def class_flips(sums: ArrayLike, *, flips: int = 9999, seed: int = 0) -> Array:
    """The p-values of `sign_flips` from the sums (G, T) of the differences of each class."""
    if flips < 1:
        raise ValueError(f"flips is {flips}; give the number of sign patterns, at least 1")
    sums = np.asarray(sums, dtype=float)
    least = np.abs(sums.sum(0)) - 1e-12 * np.abs(sums).sum(0)  # equal up to rounding
    generator, reached = np.random.default_rng((seed, 1)), np.zeros(sums.shape[1])
    for start in range(0, flips, FLIPPED):
        shape = (min(FLIPPED, flips - start), len(sums))
        signs = generator.integers(0, 2, shape, dtype=np.int8) * 2.0 - 1
        reached += (np.abs(signs @ sums) >= least).sum(0)
    return (reached + 1) / (flips + 1)


def holm(p: ArrayLike) -> Array:
    """Holm's adjusted p-values (Holm 1979), in the order given; NaN stays NaN and counts not.

    Rejecting those below alpha keeps the chance of any false rejection below alpha.
    """
    p = np.asarray(p, dtype=float)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p-values lie in [0, 1]; got {p[(p < 0) | (p > 1)].tolist()}")
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]  # NaN sorts last
    stepped = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def over_draws(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of one number per repetition (background draw or training seed), with t interval.

    Covers: other repetitions of the kind that was repeated, on the same test images; not other
    classes. Bounds are NaN for fewer than two values. NaN is left out and counted.
    """
    values = np.asarray(values, dtype=float).ravel()
    known = values[~np.isnan(values)]
    _check_level(level)
    n, undefined = len(known), len(values) - len(known)
    if n < 2:
        return Interval(float(known[0]) if n else np.nan, np.nan, np.nan, n, undefined)
    half = stats.t.ppf((1 + level) / 2, n - 1) * known.std(ddof=1) / np.sqrt(n)
    return Interval(known.mean(), known.mean() - half, known.mean() + half, n, undefined)


def with_trainings(half: ArrayLike, repeated: ArrayLike, *, level: float = 0.95) -> Array:
    """Half-widths that cover other classes and other trainings at once.

    Two independent sources of error: the half-width over classes and that of Student's t over the
    means of the trainings are added as squares (the MOVER of Zou & Donner 2008, for symmetric
    intervals). Welch and Satterthwaite's degrees of freedom covered only 91 % where three
    trainings differ much; this covers 95 % to 99 % (tests/evaluation/test_statistics.py).

    Args:
        half: (K,) half-widths over classes, as `class_bootstrap` gives them.
        repeated: (S, K) the K means of each training; with one training `half` comes back.
    """
    half, repeated = np.asarray(half, dtype=float), np.asarray(repeated, dtype=float)
    trainings = len(repeated)
    if trainings < 2:
        return half
    error = repeated.std(0, ddof=1) / np.sqrt(trainings)
    return np.hypot(half, stats.t.ppf((1 + level) / 2, trainings - 1) * error)


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    classes: ArrayLike | None = None,
    kind: str = "spearman",
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Correlation of two values per image; interval from resampled classes (or images).

    The interval is symmetric on Fisher's z = atanh(r), with the bootstrap's standard deviation
    and Student's t for (units - 1); ranks are taken anew in every resample. Covers: other classes
    (without `classes`: other images, taken as independent).

    Args:
        x, y: (N,) values; a pair with NaN is left out and counted.
        classes: (N,) labels, or None. kind: "spearman" or "pearson". Others as above.

    Returns:
        Interval; NaN where x or y is constant, NaN bounds for fewer than 5 units.

    Raises:
        ValueError: an unknown kind, and as `mean_by_class_bootstrap`.
    """
    if kind not in ("spearman", "pearson"):
        raise ValueError(f"kind is {kind!r}; expected 'spearman' or 'pearson'")
    _check_level(level, draws)
    labels = np.arange(np.size(x)) if classes is None else classes
    (x, y), labels, undefined = _known([x, y], labels)
    n, (unique, code) = len(x), np.unique(labels, return_inverse=True)
    r = float(_correlate(x, y, np.ones((1, n)), kind)[0]) if n else np.nan
    if len(unique) < MIN_CLASSES or np.isnan(r):
        return Interval(r, np.nan, np.nan, n, undefined)
    blocks = _weights(len(unique), draws, seed, n)
    resampled = np.concatenate([_correlate(x, y, w[:, code], kind) for w in blocks])
    spread = np.nanstd(_fisher(resampled), ddof=1)
    half = stats.t.ppf((1 + level) / 2, len(unique) - 1) * spread
    low, high = np.tanh(_fisher(r) - half), np.tanh(_fisher(r) + half)
    return Interval(r, float(low), float(high), n, undefined)


def _bootstrap_t(sums: Array, counts: Array, draws: int, level: float, seed: int) -> Array:
    """Half-widths (K,) of symmetric bootstrap-t intervals; `sums` (G, K) centred at the means."""
    error = _mean_and_error(sums, counts, np.ones((1, len(counts))))[1][0]
    pairs = [_mean_and_error(sums, counts, w) for w in _weights(len(counts), draws, seed)]
    shift, errors = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    tiny = 1e-12 * (1 + error)
    t = np.full(shift.shape, np.inf)  # a resample of one class alone has no spread
    np.divide(np.abs(shift), errors, out=t, where=errors > tiny)
    reached = np.quantile(t, level, axis=0, method="higher")
    return np.where(error <= tiny, 0.0, reached) * error  # 0 where all classes are alike


def _mean_and_error(sums: Array, counts: Array, weights: Array) -> tuple[Array, Array]:
    """Mean over queries and its linearised standard error over classes, a row a row of weights."""
    c, cc, units = (weights @ counts)[:, None], (weights @ counts**2)[:, None], len(counts)
    mean = weights @ sums / c
    ss, sc = weights @ sums**2, weights @ (sums * counts[:, None])
    residual = np.maximum(ss - 2 * mean * sc + mean**2 * cc, 0)  # sum of (s - mean * c)^2
    return mean, np.sqrt(residual * units / (units - 1)) / c


def _class_sums(values: Array, classes: NDArray) -> Array:
    return np.bincount(np.unique(classes, return_inverse=True)[1], weights=values)


@lru_cache(maxsize=4)
def _all_weights(units: int, draws: int, seed: int) -> NDArray[np.uint16]:
    """How often each unit is drawn (draws, units); kept, since a table asks for it many times."""
    generator = np.random.default_rng((seed, 0))
    weights = np.empty((draws, units), dtype=np.uint16)
    for row in weights:
        row[:] = np.bincount(generator.integers(0, units, units), minlength=units)
    weights.flags.writeable = False
    return weights


def _weights(units: int, draws: int, seed: int, width: int = 0) -> Iterator[Array]:
    """The rows of `_all_weights` as float64, in blocks that stay small at `width` columns."""
    weights, start = _all_weights(units, draws, seed), 0
    for size in _blocks(draws, max(units, width)):
        yield weights[start : start + size].astype(float)
        start += size


def _blocks(rows: int, width: int) -> list[int]:
    size = max(1, BLOCK // width)
    return [min(size, rows - start) for start in range(0, rows, size)]


def _correlate(x: Array, y: Array, weights: Array, kind: str) -> Array:
    """Correlation under each row of weights (B, N); NaN where a side is constant."""
    total = weights.sum(1, keepdims=True)
    if kind == "spearman":
        x, y = _midranks(x, weights), _midranks(y, weights)
    x = x - (weights * x).sum(1, keepdims=True) / total
    y = y - (weights * y).sum(1, keepdims=True) / total
    xx, yy, xy = ((weights * a * b).sum(1) for a, b in ((x, x), (y, y), (x, y)))
    defined = (xx > 1e-12 * total[:, 0]) & (yy > 1e-12 * total[:, 0])
    return np.where(defined, xy / np.sqrt(np.where(defined, xx * yy, 1)), np.nan)


def _midranks(values: Array, weights: Array) -> Array:
    """Rank of each value (B, N) when it occurs `weights` times, ties sharing their mean rank."""
    _, code, counts = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    mass = np.add.reduceat(weights[:, np.argsort(code, kind="stable")], starts, axis=1)
    return (np.cumsum(mass, axis=1) - mass / 2 + 0.5)[:, code]


def _fisher(r: ArrayLike) -> Array:
    return np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))


def _known(columns: list[ArrayLike], classes: ArrayLike) -> tuple[list[Array], NDArray, int]:
    """The rows in which no column is NaN, and how many were left out."""
    columns = [np.asarray(column, dtype=float) for column in columns]
    classes = np.asarray(classes)
    shapes = [column.shape for column in columns] + [classes.shape]
    if len(set(shapes)) > 1 or classes.ndim != 1:
        raise ValueError(f"values and classes have shapes {shapes}; expected one (N,) for all")
    if any(np.isinf(column).any() for column in columns):
        raise ValueError("values contain infinity; only numbers and NaN (undefined) are expected")
    known = ~np.isnan(columns).any(axis=0)
    return [column[known] for column in columns], classes[known], int((~known).sum())


def _check_level(level: float, draws: int = 1) -> None:
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level is {level}, draws {draws}; expected 0 < level < 1 and draws >= 1")
