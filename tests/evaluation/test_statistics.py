"""Intervals and tests against plain loops, scipy and simulated coverage."""

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lib.evaluation import statistics
from lib.evaluation.statistics import (
    correlation,
    holm,
    mean_by_class_bootstrap,
    over_draws,
    paired_difference,
)


def sample(generator, n_classes):
    """Values in [0, 1] with skewed class means (expected 2/7) and class sizes from 5 to 60."""
    means = generator.beta(2, 5, n_classes)
    classes = np.repeat(np.arange(n_classes), generator.integers(5, 61, n_classes))
    return generator.beta(4 * means[classes], 4 * (1 - means[classes])), classes


def by_loop(values, classes, weights, level):
    """The symmetric bootstrap-t interval from its definition, one resample at a time."""
    labels = sorted(set(classes.tolist()))

    def mean_and_error(drawn):
        rows = [values[classes == label] for label in drawn]
        mean = np.concatenate(rows).mean()
        residuals = [(row - mean).sum() for row in rows]
        factor = len(labels) / (len(labels) - 1)
        return mean, np.sqrt(factor * np.square(residuals).sum()) / sum(map(len, rows))

    mean, error = mean_and_error(labels)
    t = []
    for row in weights:
        other, spread = mean_and_error(np.repeat(labels, row).tolist())
        t.append(abs(other - mean) / spread)
    half = sorted(t)[int(np.ceil(level * (len(t) - 1)))] * error
    return mean - half, mean + half


def test_the_interval_follows_its_definition():
    values, classes = sample(np.random.default_rng(0), 9)
    classes = np.array([30, 4, 8, 1, 77, 5, 2, 9, 6])[classes]  # neither sorted nor consecutive
    shuffle = np.random.default_rng(1).permutation(len(values))
    values, classes = values[shuffle], classes[shuffle]
    found = mean_by_class_bootstrap(values, classes, draws=150, level=0.9, seed=3)
    low, high = by_loop(values, classes, statistics._all_weights(9, 150, 3), 0.9)
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert found.n == len(values) and found.undefined == 0


@pytest.mark.parametrize("n_classes", [30, 100])
def test_coverage_of_the_nominal_95_percent(n_classes):
    generator, repetitions = np.random.default_rng(n_classes), 600
    hits = 0
    for _ in range(repetitions):
        found = mean_by_class_bootstrap(*sample(generator, n_classes), draws=999)
        hits += found.low <= 2 / 7 <= found.high
    assert 0.93 <= hits / repetitions <= 0.97


@pytest.mark.parametrize("n", [3, 5])
def test_coverage_of_intervals_over_draws_and_over_seeds(n):
    values = np.random.default_rng(n).normal(0.3, 0.02, (4000, n))
    found = [over_draws(row) for row in values]
    assert 0.94 <= np.mean([one.low <= 0.3 <= one.high for one in found]) <= 0.96


@pytest.mark.parametrize("between", [0.0, 0.02, 0.1])
def test_coverage_over_classes_and_trainings_together(between):
    """Classes vary by 0.16, trainings by `between`; truth is the mean over all of both."""
    generator, hits, repetitions = np.random.default_rng(7), 0, 400
    for _ in range(repetitions):
        classes = generator.beta(2, 5, 30)[:, None] - 2 / 7
        trainings = between * generator.standard_normal((1, 3))
        cells = classes + trainings + 0.02 * generator.standard_normal((30, 3))
        mean, half = statistics.class_bootstrap(cells.mean(1, keepdims=True), np.ones(30))
        half = statistics.with_trainings(half, cells.mean(0)[:, None])
        hits += abs(mean[0]) <= half[0]
    assert 0.93 <= hits / repetitions <= 0.995


def test_one_training_leaves_the_interval_over_classes():
    assert statistics.with_trainings([0.2], [[0.5]]) == [0.2]
    assert np.isnan(statistics.with_trainings([np.nan], [[0.5], [0.6]])).all()


def test_coverage_of_paired_differences():
    generator, hits = np.random.default_rng(21), 0
    for _ in range(400):
        clean, classes = sample(generator, 40)
        effect = generator.exponential(0.1, 40)[classes]  # a class loses more or less, mean 0.1
        found = paired_difference(clean - effect, clean, classes, draws=999, flips=1)
        hits += found.low <= -0.1 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_many_contrasts_share_their_sign_patterns():
    generator = np.random.default_rng(22)
    classes = np.repeat(np.arange(9), [1, 5, 2, 7, 3, 3, 9, 4, 6])[::-1]
    moved = generator.normal(0.1, 1, (40, 5))
    moved[3, 2] = np.nan
    moved[:, 4] = np.nan
    together = statistics.sign_flips(moved, classes, flips=2500, seed=4)
    zero = np.zeros(40)
    alone = [paired_difference(column, zero, classes, flips=2500, seed=4).p for column in moved.T]
    assert together[:4].tolist() == alone[:4] and np.isnan([together[4], alone[4]]).all()


def test_classes_not_queries_carry_the_uncertainty():
    generator = np.random.default_rng(4)
    means = generator.random(20)
    few = mean_by_class_bootstrap(np.repeat(means, 2), np.repeat(np.arange(20), 2))
    many = mean_by_class_bootstrap(np.repeat(means, 50), np.repeat(np.arange(20), 50))
    assert few.high - few.low == pytest.approx(many.high - many.low)
    expected = scipy_stats.t.ppf(0.975, 19) * means.std(ddof=1) / np.sqrt(20)
    assert (few.high - few.low) / 2 == pytest.approx(expected, rel=0.15)


def test_undefined_values_are_left_out_and_counted():
    values, classes = sample(np.random.default_rng(5), 12)
    holes = np.append(values, [np.nan, np.nan]), np.append(classes, [3, 99])
    found, expected = mean_by_class_bootstrap(*holes), mean_by_class_bootstrap(values, classes)
    assert found.undefined == 2 and found.n == expected.n
    assert (found.mean, found.low, found.high) == (expected.mean, expected.low, expected.high)
    none = mean_by_class_bootstrap([np.nan], [0])
    assert np.isnan([none.mean, none.low, none.high]).all() and (none.n, none.undefined) == (0, 1)


def test_few_classes_have_no_interval_and_equal_values_an_empty_one():
    few = mean_by_class_bootstrap([0.0, 1.0, 1.0, 1.0], [0, 1, 2, 3])
    assert few.mean == 0.75 and np.isnan([few.low, few.high]).all()
    same = mean_by_class_bootstrap(np.full(50, 0.1), np.arange(50) % 7)
    assert (same.low, same.high) == pytest.approx((0.1, 0.1))


def test_the_seed_and_only_the_seed_moves_the_interval(monkeypatch):
    values, classes = sample(np.random.default_rng(6), 15)
    first = mean_by_class_bootstrap(values, classes, seed=1)
    statistics._all_weights.cache_clear()
    monkeypatch.setattr(statistics, "BLOCK", 100)
    again = mean_by_class_bootstrap(values, classes, seed=1)
    assert (again.low, again.high) == pytest.approx((first.low, first.high), rel=1e-12)
    assert mean_by_class_bootstrap(values, classes, seed=2).low != first.low


def test_paired_difference_agrees_with_every_sign_pattern():
    generator = np.random.default_rng(7)
    classes = np.repeat(np.arange(8), [1, 5, 2, 7, 3, 3, 9, 4])
    a, b = generator.random((2, len(classes)))
    a += 0.12
    found = paired_difference(a, b, classes, seed=1)
    sums = [float((a - b)[classes == label].sum()) for label in range(8)]
    totals = [abs(np.dot(s, sums)) for s in itertools.product((-1, 1), repeat=8)]
    exact = np.mean([total >= abs(sum(sums)) - 1e-9 for total in totals])
    assert 0.01 < exact < 0.5
    assert found.p == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 9999))
    alone = mean_by_class_bootstrap(a - b, classes, seed=1)
    assert (found.diff, found.low, found.high) == (alone.mean, alone.low, alone.high)
    swapped = paired_difference(b, a, classes, seed=1)
    assert swapped.p == found.p and swapped.diff == pytest.approx(-found.diff)


def test_paired_p_values_under_no_effect_and_under_a_clear_one():
    generator = np.random.default_rng(8)
    classes = np.repeat(np.arange(20), 3)
    p = [
        paired_difference(*(generator.random((2, 60))), classes, draws=10, flips=199).p
        for _ in range(400)
    ]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.085
    clear = paired_difference(np.ones(60), generator.random(60), classes, flips=999)
    assert clear.p == 1 / 1000
    nothing = paired_difference(np.ones(60), np.ones(60), classes, flips=9)
    assert (nothing.diff, nothing.p) == (0, 1)


def test_a_pair_counts_only_if_both_are_defined():
    a, b = np.arange(12.0), np.zeros(12)
    a[2], b[2], b[5] = np.nan, np.nan, np.nan
    found = paired_difference(a, b, np.arange(12))
    assert (found.n, found.undefined, found.diff) == (10, 2, (66 - 7) / 10)
    empty = paired_difference([np.nan], [1], [0])
    assert np.isnan([empty.diff, empty.p]).all() and empty.n == 0


def test_holm_worked_by_hand():
    assert holm([0.04, 0.01, 0.03]).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, np.nan, 0.5])[[0, 2]].tolist() == [1, 1]
    assert np.isnan(holm([0.6, np.nan, 0.5])[1]) and holm([]).shape == (0,)
    with pytest.raises(ValueError, match="1.2"):
        holm([0.1, 1.2])


def test_over_draws_is_the_t_interval():
    values = [0.31, 0.36, 0.29, 0.40, 0.33]
    found = over_draws([*values, np.nan], level=0.9)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.n, found.undefined) == (pytest.approx(np.mean(values)), 5, 1)
    one = over_draws([0.5])
    assert one.mean == 0.5 and np.isnan([one.low, one.high]).all()
    assert np.isnan(over_draws([]).mean)


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_correlation_of_every_resample_is_that_of_the_repeated_rows(kind):
    generator = np.random.default_rng(9)
    x = generator.integers(0, 6, 25).astype(float)  # ties
    y = np.round(x + generator.normal(0, 2, 25))
    reference = {"spearman": scipy_stats.spearmanr, "pearson": scipy_stats.pearsonr}[kind]
    weights = statistics._all_weights(25, 6, 0).astype(float)
    found = statistics._correlate(x, y, weights, kind)
    for row, value in zip(weights.astype(int), found, strict=True):
        assert value == pytest.approx(reference(np.repeat(x, row), np.repeat(y, row))[0])
    assert correlation(x, y, kind=kind).mean == pytest.approx(reference(x, y)[0])


def test_correlation_interval_widens_when_classes_move_together():
    generator = np.random.default_rng(10)
    classes = np.repeat(np.arange(15), 10)
    x, y = generator.normal(size=(2, 15))[:, classes] + generator.normal(size=(2, 150)) * 0.3
    alone, grouped = correlation(x, y), correlation(x, y, classes)
    assert grouped.high - grouped.low > 1.8 * (alone.high - alone.low)
    assert -1 < grouped.low < grouped.mean < grouped.high < 1
    assert grouped.mean == alone.mean and grouped.n == 150


def test_correlation_coverage():
    generator, truth, hits = np.random.default_rng(11), 6 / np.pi * np.arcsin(0.3), 0
    for _ in range(300):
        x, noise = generator.normal(size=(2, 40))
        found = correlation(x, 0.6 * x + 0.8 * noise, draws=200)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 300 <= 0.98


def test_correlation_of_constants_gaps_and_few_rows():
    constant = correlation(np.ones(9), np.arange(9))
    assert np.isnan([constant.mean, constant.low, constant.high]).all()
    found = correlation([1, 2, np.nan, 4], [2, 4, 1, 9])
    assert (found.mean, found.n, found.undefined) == (pytest.approx(1), 3, 1)
    assert np.isnan([found.low, found.high]).all()
    assert correlation([], []).n == 0
    with pytest.raises(ValueError, match="kendall"):
        correlation([1, 2], [1, 2], kind="kendall")


@pytest.mark.parametrize(
    ("values", "classes", "options", "words"),
    [
        ([1, 2], [1], {}, r"shapes \[\(2,\), \(1,\)\]"),
        ([[1, 2]], [[1, 2]], {}, r"expected one \(N,\)"),
        ([1, np.inf], [1, 2], {}, "infinity"),
        ([1, 2], [1, 2], {"level": 95}, "level is 95"),
        ([1, 2], [1, 2], {"draws": 0}, "draws 0"),
    ],
)
def test_wrong_arguments_are_refused_in_words(values, classes, options, words):
    with pytest.raises(ValueError, match=words):
        mean_by_class_bootstrap(values, classes, **options)
