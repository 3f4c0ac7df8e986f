"""Retrieval metrics against hand-worked values, a slow loop and pytorch-metric-learning."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from lib.retrieval import search as knn
from lib.retrieval.metrics import METRICS, chance_levels, evaluate, evaluate_apart
from lib.retrieval.search import neighbours

LIBRARY = {
    "map_at_r": "mean_average_precision_at_r",
    "r_precision": "r_precision",
    "p_at_1": "precision_at_1",
}


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def uneven_labels(n, seed=0):
    """Class sizes from 1 upwards, in shuffled order."""
    labels = torch.repeat_interleave(torch.arange(n), torch.arange(1, n + 1))[:n]
    return labels[torch.randperm(n, generator=torch.Generator().manual_seed(seed))] + 3


def at_angles(*degrees):
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def library(queries, labels, gallery=None, gallery_labels=None):
    calculator = AccuracyCalculator(
        include=tuple(LIBRARY.values()),
        k="max_bin_count",
        knn_func=CustomKNN(CosineSimilarity()),
        device=torch.device("cpu"),
    )
    return calculator.get_accuracy(queries, labels, gallery, gallery_labels, gallery is None)


def by_loop(queries, labels, gallery, gallery_labels, exclude):
    """Every metric by its definition, one query at a time, in plain Python."""
    rows = []
    for q, query in enumerate(queries.double().tolist()):
        ranked = sorted(
            (-sum(a * b for a, b in zip(query, item, strict=True)), g)
            for g, item in enumerate(gallery.double().tolist())
            if g != exclude[q]
        )
        hits = [int(gallery_labels[g] == labels[q]) for _, g in ranked]
        r = sum(hits)
        if r == 0:
            rows.append((float("nan"),) * 3 + (0,))
            continue
        precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(r)]
        average = sum(p * h for p, h in zip(precisions, hits[:r], strict=True)) / r
        rows.append((average, precisions[-1], precisions[0], r))
    columns = torch.tensor(rows, dtype=torch.float64).T
    return dict(zip((*METRICS, "r"), columns, strict=True))


def assert_same(found, expected):
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name].double(), values, rtol=0, atol=1e-12, equal_nan=True, msg=name
        )


def test_a_case_worked_by_hand():
    gallery = at_angles(1, 2, 3, 4, 5, 90)
    found = evaluate(
        at_angles(0, 0, 0), torch.tensor([7, 8, 9]), gallery, torch.tensor([7, 8, 7, 8, 8, 7])
    )
    # label 7: ranks 1, 3, 6 -> (1/1 + 2/3) / 3; label 8: ranks 2, 4, 5 -> (1/2) / 3; 9: none
    expected = {"map_at_r": [5 / 9, 1 / 6], "r_precision": [2 / 3, 1 / 3], "p_at_1": [1.0, 0.0]}
    for name, values in expected.items():
        assert found[name][:2].tolist() == pytest.approx(values, abs=1e-15)
        assert found[name].dtype == torch.float64 and found[name][2].isnan()
    assert found["r"].tolist() == [3, 3, 0] and found["r"].dtype == torch.int64


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_library_within_one_set(seed):
    embeddings, labels = unit(150, 6, seed=seed), uneven_labels(150, seed)
    found, expected = evaluate(embeddings, labels), library(embeddings, labels)
    assert found["r"].min() == 0 and found["r"].max() > 10
    for name, theirs in LIBRARY.items():
        assert float(found[name].nanmean()) == pytest.approx(expected[theirs], abs=1e-6)


def test_agrees_with_the_library_on_a_separate_gallery():
    queries, gallery = unit(40, 5, seed=1), unit(170, 5, seed=2)
    labels, gallery_labels = uneven_labels(60, 3)[:40], uneven_labels(170, 4)
    found = evaluate(queries, labels, gallery, gallery_labels)
    expected = library(queries, labels, gallery, gallery_labels)
    for name, theirs in LIBRARY.items():
        assert float(found[name].nanmean()) == pytest.approx(expected[theirs], abs=1e-6)


def test_where_no_query_has_anything_to_find_all_is_undefined():
    found = evaluate(unit(5, 4), torch.arange(5))
    assert all(found[name].isnan().all() for name in METRICS) and found["r"].eq(0).all()


def adversarial():
    """Embeddings and labels that a search is easily wrong on, by name."""
    random, number = unit(90, 8, seed=3), torch.arange(90)
    twins = F.normalize(random[:45].repeat(2, 1) + 1e-3 * unit(90, 8, seed=4), dim=1)
    return {
        "all of one class": (random, number * 0),
        "one pair, else single": (random, (number - 1).clamp(min=0)),
        "one large class": (random, (number - 70).clamp(min=0)),
        "nearest always wrong": (twins, number % 9 + 9 * (number // 45)),
        "far labels": (random, number % 3 * 10**12 - 7),
        "one direction apart": (at_angles(*(number**1.37 / 6).tolist()).float(), number // 7),
    }


@pytest.mark.parametrize("name", adversarial())
def test_agrees_with_the_library_on_adversarial_cases(name):
    embeddings, labels = adversarial()[name]
    found, expected = evaluate(embeddings, labels), library(embeddings, labels)
    for metric, theirs in LIBRARY.items():
        assert float(found[metric].nanmean()) == pytest.approx(expected[theirs], abs=1e-6)


@pytest.mark.parametrize("chunk", [1, 7, None])
def test_agrees_with_a_loop_with_ties_and_excluded_photographs(chunk):
    # Coordinates +-1/2: similarities are -1, -1/2, 0, 1/2 or 1, so most neighbours tie.
    corners = torch.tensor(list(itertools.product((-0.5, 0.5), repeat=4)))
    generator = torch.Generator().manual_seed(5)
    gallery = corners[torch.randint(16, (45,), generator=generator)]
    queries = corners[torch.randint(16, (23,), generator=generator)]
    gallery_labels, labels = uneven_labels(45, 6), uneven_labels(45, 7)[:23]
    exclude = torch.randint(-1, 45, (23,), generator=generator)
    exclude[:3] = -1
    found = evaluate(queries, labels, gallery, gallery_labels, exclude=exclude, chunk=chunk)
    assert_same(found, by_loop(queries, labels, gallery, gallery_labels, exclude.tolist()))
    within = evaluate(gallery, gallery_labels, chunk=chunk)
    assert_same(within, by_loop(gallery, gallery_labels, gallery, gallery_labels, range(45)))


def test_query_only_shift_leaves_the_same_photograph_out():
    gallery, labels = unit(30, 4, seed=8), uneven_labels(30, 8)
    itself = torch.arange(30)
    shifted = evaluate(gallery, labels, gallery, labels, exclude=itself)
    assert_same(shifted, {name: v.double() for name, v in evaluate(gallery, labels).items()})
    with_itself = evaluate(gallery, labels, gallery, labels)
    assert with_itself["p_at_1"].eq(1).all() and shifted["p_at_1"].nanmean() < 1
    torch.testing.assert_close(with_itself["r"], shifted["r"] + 1)


def test_an_excluded_photograph_of_another_label_still_leaves_r_alone():
    found = evaluate(
        at_angles(0), torch.tensor([1]), at_angles(0, 1, 2), torch.tensor([2, 1, 1]),
        exclude=torch.tensor([0]),
    )  # fmt: skip
    assert found["r"].item() == 2 and found["map_at_r"].item() == 1


def drafts_of(gallery, types):
    made = [knn._coarse(gallery, dtype) for dtype in types]
    return tuple(knn._Draft(coarse, lost.max()) for coarse, lost in made)


DRAFTS = {
    "bf16": (torch.bfloat16,),
    "f32": (torch.float32,),
    "both": (torch.bfloat16, torch.float32),
}


@pytest.mark.parametrize("kind", DRAFTS)
@pytest.mark.parametrize("copies", [1, 3, 40])
def test_the_short_list_of_a_large_gallery_changes_nothing(monkeypatch, copies, kind):
    # 40 copies of every embedding: ties run past the end of the short list; 3: inside it.
    distinct = 6000 // copies
    gallery = unit(distinct, 16, seed=9).repeat(copies, 1)
    pick = torch.arange(0, len(gallery), 31)
    exact = knn.check_search(gallery[pick], gallery, pick)[:2]
    drafts = drafts_of(exact[1], DRAFTS[kind])
    searched, search = [], knn._search
    monkeypatch.setattr(knn, "_search", lambda q, *a: searched.append(len(q)) or search(q, *a))
    found = knn.exact_nearest(*exact, pick, 5, drafts)
    if copies == 40:
        assert sum(searched) == len(pick)
    elif kind != "bf16":
        assert sum(searched) < len(pick) / 10
    expected = search(*exact, pick, 5)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_bfloat16_alone_proves_most_rows_of_spread_out_embeddings():
    exact, every = knn._check_embeddings(unit(3000, 64, seed=12), "x"), torch.arange(3000)
    (draft,) = drafts_of(exact, (torch.bfloat16,))
    values, indices, sure = knn._from_list(draft, exact, exact, every, 3)
    expected = knn._search(exact, exact, every, 3)
    assert sure.float().mean() > 0.9
    assert torch.equal(indices[sure], expected[1][sure])
    assert torch.equal(values[sure], expected[0][sure])


@pytest.mark.parametrize("columns", [640, 671])
def test_the_list_holds_the_greatest_also_where_no_block_is_full(columns):
    rough = torch.randperm(7 * columns, generator=torch.Generator().manual_seed(0)).float()
    rough = rough.view(7, columns)
    rough[0, -1], rough[1, :9] = 1e6, 1e5  # in the last column; many of one value
    values, indices = knn._list(rough, 10)
    assert torch.equal(values, rough.topk(10, dim=1)[0].double())
    assert torch.equal(rough.gather(1, indices).double(), values)
    assert all(len(set(row)) == 10 for row in indices.tolist())


def test_drafts_that_prove_little_are_not_used(monkeypatch):
    monkeypatch.setattr(knn, "_draft_types", lambda: (torch.bfloat16, torch.float32))
    spread, every = unit(6000, 64, seed=13), torch.arange(6000)
    close = F.normalize(torch.ones(64) + 2 * spread, dim=1)
    for embeddings, kept in ((spread, [torch.bfloat16, torch.float32]), (close, [torch.float32])):
        exact = knn._check_embeddings(embeddings, "x")
        drafts = knn.drafts_of(exact, exact, every, 5)
        assert [draft.gallery.dtype for draft in drafts] == kept
    assert knn.drafts_of(exact, exact, every, 500) == ()


def test_a_product_coarser_than_promised_is_noticed(monkeypatch):
    gallery = unit(6000, 16, seed=10)
    pick = torch.arange(20)
    exact = knn.check_search(gallery[:20], gallery, pick)[:2]
    expected = knn._search(*exact, pick, 5)
    drafts, true = drafts_of(exact[1], (torch.float32,)), knn._similarity

    def coarse(queries, others, exclude):
        found = true(queries, others, exclude)
        return found.bfloat16().float() if queries.dtype == torch.float32 else found

    monkeypatch.setattr(knn, "_similarity", coarse)
    values, indices = knn.exact_nearest(*exact, pick, 5, drafts)
    assert torch.equal(values, expected[0]) and torch.equal(indices, expected[1])


def test_threads_and_chunks_do_not_change_a_bit():
    embeddings, labels = unit(700, 33, seed=11), uneven_labels(700, 11)
    embeddings[350:] = embeddings[:350]
    threads = torch.get_num_threads()
    runs = []
    try:
        for count, chunk in ((1, None), (2, 1), (2, 333)):
            torch.set_num_threads(count)
            runs.append(neighbours(embeddings, k=9, chunk=chunk))
            runs[-1] += (evaluate(embeddings, labels, chunk=chunk)["map_at_r"].nan_to_num(-1),)
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_neighbours_break_ties_by_index_and_leave_out_the_excluded():
    gallery = at_angles(10, 0, 20, 0, 0, 10)
    indices, similarities = neighbours(at_angles(0), gallery, k=4)
    assert indices.tolist() == [[1, 3, 4, 0]]
    assert similarities[0].tolist() == pytest.approx([1, 1, 1, 0.9848078], abs=1e-6)
    indices, _ = neighbours(at_angles(0), gallery, k=5, exclude=torch.tensor([3]))
    assert indices.tolist() == [[1, 4, 0, 5, 2]]
    indices, _ = neighbours(gallery, k=2)
    assert indices.tolist() == [[5, 1], [3, 4], [0, 5], [1, 4], [1, 3], [0, 1]]
    with pytest.raises(ValueError, match="5 candidates"):
        neighbours(gallery, k=6)


def test_chance_is_the_mean_over_random_rankings():
    labels, gallery_labels = torch.tensor([0, 1, 2, 5]), torch.tensor([0, 0, 0, 1, 2, 2, 0])
    exclude = torch.tensor([1, -1, 3, -1])
    expected = chance_levels(labels, gallery_labels, exclude=exclude)
    draws = [
        evaluate(unit(4, 8, seed=s), labels, unit(7, 8, seed=s + 9999), gallery_labels,
                 exclude=exclude)
        for s in range(1500)
    ]  # fmt: skip
    for name in METRICS:
        values = torch.stack([draw[name].nanmean() for draw in draws])
        assert float(values.mean()) == pytest.approx(
            expected[name], abs=4 * float(values.std()) / len(draws) ** 0.5
        )


def test_chance_of_a_perfectly_easy_search_is_one():
    assert chance_levels(torch.tensor([1, 1])) == {name: pytest.approx(1) for name in METRICS}


def test_half_precision_and_gradients_are_accepted():
    embeddings = unit(20, 8).requires_grad_()
    assert not evaluate(embeddings, torch.arange(20) % 4)["map_at_r"].requires_grad
    half = unit(20, 8).half()
    assert_same(
        {k: v.double() for k, v in evaluate(half, torch.arange(20) % 4).items()},
        {k: v.double() for k, v in evaluate(half.float(), torch.arange(20) % 4).items()},
    )


@pytest.mark.fault(
    "numbers/embeddings",
    "NaN, infinite, zero or not normalised embeddings",
    "one row changed",
    "refused, side and row named",
)
@pytest.mark.parametrize(
    ("row", "value", "words"),
    [(3, float("nan"), "NaN or infinite.*row 3"), (4, float("inf"), "NaN or infinite.*row 4"),
     (5, 0.0, "zero rows: row 5"), (2, 0.7, "rows of norm other than 1: row 2")],
)  # fmt: skip
@pytest.mark.parametrize("side", ["queries", "gallery"])
def test_unusable_embeddings_are_refused_by_row(row, value, words, side):
    good, bad, labels = unit(8, 4), unit(8, 4), torch.arange(8) % 2
    bad[row] = value
    queries, gallery = (bad, good) if side == "queries" else (good, bad)
    with pytest.raises(ValueError, match=f"{side} has {words}"):
        evaluate(queries, labels, gallery, labels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gallery": None}, "belong together"),
        ({"gallery_labels": None}, "belong together"),
        ({"query_labels": torch.zeros(5)}, "query_labels is torch.float32"),
        ({"gallery_labels": torch.zeros(5, dtype=torch.int64)}, r"gallery_labels.*\(6,\)"),
        ({"gallery": unit(6, 3)}, "one width"),
        ({"queries": torch.ones(5, 4, dtype=torch.int64)}, "floating point"),
        ({"queries": unit(20).reshape(20)}, r"shape \(20,\)"),
        ({"exclude": torch.zeros(5)}, "exclude is torch.float32"),
        ({"exclude": torch.tensor([0, 1, 6, 2, -2])}, "row 2, 4"),
        ({"gallery": None, "gallery_labels": None, "exclude": torch.arange(5)}, "needs a gallery"),
        ({"chunk": 0}, "chunk is 0"),
    ],
)
def test_wrong_arguments_are_refused_in_words(change, words):
    given = {
        "queries": unit(5, 4),
        "query_labels": torch.arange(5),
        "gallery": unit(6, 4),
        "gallery_labels": torch.arange(6),
        "exclude": torch.full((5,), -1),
    }
    with pytest.raises(ValueError, match=words):
        evaluate(**(given | change))


def test_what_shares_a_group_is_neither_found_nor_looked_for() -> None:
    """Against a loop over queries, each with a gallery of its own."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (40,), generator=generator)
    groups = torch.randint(0, 5, (40,), generator=generator)
    labels[-1] = 9  # a class of one image
    labels[:2], groups[:2] = 8, 3  # a class whose two images share their group
    vectors = unit(40, 6, seed=4)
    found = evaluate_apart(vectors, labels, groups)
    for query in range(40):
        others = (groups != groups[query]).nonzero()[:, 0]
        alone = evaluate(
            vectors[[query]], labels[[query]], vectors[others], labels[others],
            exclude=torch.tensor([-1]),
        )  # fmt: skip
        assert found["r"][query] == alone["r"][0]
        for name in METRICS:
            torch.testing.assert_close(found[name][query], alone[name][0], equal_nan=True)
    assert found["map_at_r"][[0, 1, 39]].isnan().all()
