"""The checks of the attention score: references, cascade, faithfulness, stability, the link."""

import itertools
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from lib.attention import attribution, controls, sanity_checks, score_vs_drop
from lib.attention import maps as attention_maps
from lib.attention.attribution import METHODS, TARGETS, Explanation, attribute
from lib.attention.scores import SCORES
from lib.core.errors import StudyError
from lib.evaluation import embeddings
from lib.evaluation import models as trained_models
from lib.images.scenes import Scenes
from lib.models import embedding, trunks
from lib.report import attention_figures, sanity_figures
from tests.attention.test_attribution import BLACK, HEIGHT, WIDTH, Embedder, pictures

# ----------------------------------------------------------------- measures and methods, by oracle


def test_mass_and_rank_equal_quantus_on_binary_masks():
    """Values of Quantus 0.6.0 (it needs OpenCV's system libraries, so it is not in the lock)."""
    place = torch.arange(1, 55)
    maps = torch.stack([(place * k % 59).view(6, 9) for k in (7, 23, 31, 44)]).double()
    rule = ((1, 3), (2, 5), (3, 8), (5, 1))
    masks = torch.stack([(place * k % 11 < c).view(6, 9) for k, c in rule]).double()
    mass = SCORES["relevance_mass"].function(maps, masks).score.tolist()
    rank = SCORES["relevance_rank"].function(maps, masks).score.tolist()
    assert mass == pytest.approx([0.226537217, 0.468178954, 0.735958683, 0.074074074], abs=1e-8)
    assert rank == pytest.approx([0.214285714, 0.5, 0.743589744, 0.0], abs=1e-8)


def distance(embed: nn.Module, x: Tensor) -> Tensor:
    return (embed(x) - embed(BLACK)).norm(dim=1)


def test_gradients_equal_captum():
    embed, images = Embedder().eval(), pictures(3)
    forward = partial(distance, embed)
    plain = Saliency(forward).attribute(images.clone().requires_grad_(), abs=False)
    maps = attribute("gradient", embed, images, black=BLACK)
    assert torch.allclose(maps, plain.mean(dim=1).abs(), rtol=1e-4, atol=1e-6)
    path = IntegratedGradients(forward).attribute(images, BLACK.expand_as(images), n_steps=16)
    maps = attribute("integrated_gradients", embed, images, black=BLACK, steps=16)
    assert torch.allclose(maps, path.mean(dim=1).abs(), rtol=1e-3, atol=1e-5)


def test_smoothgrad_without_noise_is_captums_sum_of_equal_gradients():
    embed, images = Embedder().eval(), pictures(2)
    tunnel = NoiseTunnel(Saliency(partial(distance, embed)))
    one = tunnel.attribute(images, nt_samples=3, stdevs=0.0, abs=False).mean(dim=1).abs()
    maps = attribute("smoothgrad", embed, images, black=BLACK, copies=3, noise=0.0)
    assert torch.allclose(maps, 3 * one, rtol=1e-4, atol=1e-6)


def test_grad_cam_equals_captum():
    embed, images = Embedder().eval(), pictures(2)
    reference = embed(pictures(2, seed=6)).detach()
    embed.trunk.last = nn.Identity()  # captum hooks a module
    before = embed.trunk.features
    embed.trunk.features = lambda x: embed.trunk.last(before(x))
    method = LayerGradCam(lambda x: (embed(x) * reference).sum(dim=1), embed.trunk.last)
    cam = method.attribute(images, relu_attributions=True)
    wide = interpolate(cam, (HEIGHT, WIDTH), mode="bilinear")[:, 0]
    maps = attribute(
        "grad_cam", Embedder().eval(), images, black=BLACK, target="similarity_to_nearest",
        reference=reference,
    )  # fmt: skip
    assert maps.sum() > 0 and torch.allclose(maps, wide.detach(), rtol=1e-3, atol=1e-7)


def test_occlusion_equals_the_loop_over_cells():
    embed, images = Embedder().eval(), pictures(1)
    maps = attribute("occlusion", embed, images, black=BLACK, cells=4)
    with torch.no_grad():
        for top, left in itertools.product(range(0, HEIGHT, 3), range(0, WIDTH, 4)):
            covered = images.clone()
            cell = (..., slice(top, top + 3), slice(left, left + 4))
            covered[cell] = BLACK[cell]
            change = (distance(embed, images) - distance(embed, covered)).abs().item()
            assert torch.allclose(maps[cell], torch.tensor(change), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_noise_drawn_ahead_is_the_same_noise(threads):
    seeds, shape = [5, 3, 8, 5, 1], torch.Size((3, 4, 6))
    plain = list(attribution._noise(seeds, 3, shape))
    ahead = list(attribution._noise(seeds, 3, shape, threads))
    assert len(ahead) == 15 and torch.equal(torch.stack(plain), torch.stack(ahead))
    assert not torch.equal(plain[0], plain[3])


def test_explanations_are_named_and_misnamed_in_words():
    entry = Explanation.parse("grad_cam/similarity_to_nearest")
    assert Explanation.parse(str(entry)) == entry and entry.label == "Grad-CAM, nearest"
    assert Explanation.parse("occlusion").target == "distance_to_black"
    assert entry.needs({"copies": 3, "noise": 0.1, "precision": "f32"}) == {"precision": "f32"}
    with pytest.raises(StudyError, match="closest is 'smoothgrad'"):
        Explanation.parse("smoothgard")
    with pytest.raises(StudyError, match="closest is 'similarity_to_nearest'"):
        Explanation.parse("grad_cam/similarity_to_nearst")
    every = sanity_checks.explanations(["gradient", "smoothgrad/distance_to_black"])
    assert [str(e) for e in every] == ["smoothgrad/distance_to_black", "gradient/distance_to_black"]


def test_labels_of_explanations_differ():
    pairs = itertools.product(METHODS, TARGETS)
    labels = [Explanation(*pair).label for pair in pairs]
    assert len(set(labels)) == len(labels)


# -------------------------------------------------------------------------- a small study on disk


class Body(nn.Sequential):
    """Three layers, one of them BatchNorm."""

    def __init__(self) -> None:
        first, second = (nn.Conv2d(*size, 3, stride=2, padding=1) for size in ((3, 8), (8, 12)))
        super().__init__(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU())

    def features(self, x: Tensor) -> Tensor:
        return self(x)


class Small(nn.Module):
    """As an embedder, but small; looked at on 32 pixels."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk, self.head = Body(), nn.Linear(12, 6)
        self.normalise = trunks.LITE

    def forward(self, x: Tensor) -> Tensor:
        return normalize(self.head(self.trunk.features(x).mean(dim=(2, 3))), dim=1)


@pytest.fixture
def setup(study: str, monkeypatch: pytest.MonkeyPatch) -> sanity_checks.Setup:
    """Three networks with random weights of their own in place of trained ones."""

    seeds = {"untrained": 7, "base": 8, "bgaugment": 9}
    names = [("none", "untrained", 0), ("triplet", "base", 0), ("triplet", "bgaugment", 0)]
    options = {"trunk": "efficientnet_lite0", "embedding": 8, "image_size": 32, "precision": "f32"}
    models = [trained_models.Model(*name, **options, weights=None) for name in names]
    monkeypatch.setattr(trained_models.Model, "load", lambda model: Small(seeds[model.arm]).eval())
    monkeypatch.setattr(trained_models.Model, "identity", property(lambda model: model.arm))
    monkeypatch.setattr(trained_models, "models_of", lambda _: models)
    scenes = Scenes(study, "drawn")
    rows = attention_maps.chosen_rows(scenes, 6, 0)
    return sanity_checks.Setup(
        study, scenes, rows, 0, {"copies": 2, "noise": 0.15, "precision": "f32"}
    )


def test_partners_are_others_the_nearest_or_of_the_class(setup):
    model, gallery = setup.models["base"], setup.scenes.store.rows("test")
    labels = setup.scenes.store.labels
    known = embeddings.View(setup.study, model, setup.scenes).embeddings("clean")
    nearest = setup.partners(model, setup.rows, Explanation("gradient", "similarity_to_nearest"))
    for row, (found,) in zip(setup.rows, nearest, strict=True):
        own = known[list(gallery).index(row)]
        alike = {other: float(own @ e) for other, e in zip(gallery, known, strict=True)}
        assert found == max((o for o in gallery if o != row), key=alike.get)
    mates = setup.partners(model, setup.rows, Explanation("gradient", "similarity_to_class_mean"))
    for row, found in zip(setup.rows, mates, strict=True):
        assert set(found) == {r for r in gallery if labels[r] == labels[row] and r != row}
    assert [len(x) for x in setup.partners(model, setup.rows, attribution.PAPER)] == [0] * 6


def test_references_are_means_and_zero_without_partners(setup):
    network, rows = setup.models["base"].load(), setup.rows
    partners = [rows[1:4], rows[:0], rows[4:5]]
    found = attention_maps.references(network, setup.scenes, partners, 32, "f32")
    images, _ = setup.inputs(network, rows, 32)
    with torch.no_grad():
        known = network(images)
    assert torch.allclose(found[0], known[1:4].mean(dim=0), atol=1e-5)
    assert (found[1] == 0).all() and torch.allclose(found[2], known[4], atol=1e-5)


def test_a_picture_without_partner_has_no_score_but_does_not_stop_the_study(setup):
    entry = Explanation("gradient", "similarity_to_class_mean")
    partners = setup.partners(setup.models["base"], setup.rows, entry)
    partners[2] = partners[2][:0]
    maps = setup.maps(setup.models["base"], setup.rows, entry, partners)
    defined = maps.flatten(1).sum(dim=1) > 0
    assert defined.tolist() == [True, True, False, True, True, True]


def test_maps_of_fewer_images_are_those_of_the_main_run(setup):
    few = setup.few(3)
    assert set(few) < set(setup.rows) and len(few) == 3
    model = setup.models["base"]
    fresh = attention_maps.maps_of(
        setup.study, model, setup.scenes, few, setup.seed, **setup.settings
    )
    assert torch.allclose(setup.maps(model, few), fresh, rtol=1e-3, atol=1e-6 * float(fresh.max()))
    other = setup.maps(model, few, seed=9)
    assert not torch.allclose(other, fresh, rtol=1e-2)


def test_every_network_answers_every_explanation(setup):
    which = sanity_checks.explanations(["gradient", "grad_cam/similarity_to_nearest"])
    rows = setup.few(4)
    found = sanity_checks.method_scores(setup, rows, which)
    assert list(found["arm"].unique()) == ["random", "untrained", "base", "bgaugment"]
    assert len(found) == 4 * 3 * len(SCORES) * len(rows)
    one = found[(found["metric"] == "attention_score") & (found["method"] == "gradient")]
    spread = one.groupby("row")["value"].nunique()
    assert (spread == 4).all()  # four networks, four answers
    table = sanity_checks.control_table(sanity_checks.blind_scores(setup, setup.rows), found)
    assert list(table["control"]) == [*sanity_checks.BLIND, "random_weights"]
    known = table.set_index("control")
    assert known.loc["uniform", "value"] == pytest.approx(0) and known.loc["sobel", "n"] == 6
    own = one[one["arm"] == "random"]
    smooth = found[(found["arm"] == "random") & (found["method"] == "smoothgrad")]
    mean = smooth[smooth["metric"] == "attention_score"]["value"].mean()
    assert known.loc["random_weights", "value"] == pytest.approx(mean) != own["value"].mean()
    moved = sanity_checks.differences(found).set_index(["arm", "method", "metric"])["value"]
    base = one[one["arm"] == "base"]["value"].mean()
    change = moved["base-random", "gradient", "attention_score"]
    assert change == pytest.approx(base - own["value"].mean())
    matrix = sanity_figures.matrix(attention_maps.summary(found), table)
    assert matrix.shape == (3 + len(sanity_checks.BLIND), 4)
    assert matrix.loc["gradient, black", "random"] == pytest.approx(own["value"].mean())


def test_the_cascade_starts_at_itself_and_leaves(setup):
    rows, which = setup.few(4), sanity_checks.explanations(["occlusion"])
    found = sanity_checks.cascade(setup, rows, which)
    alike = found[found["metric"] == "rank_correlation"].groupby("share")["value"].mean()
    assert alike.iloc[0] == pytest.approx(1) and (alike.iloc[1:] < 0.99).all()
    assert len(alike) == sanity_checks.STEPS + 1
    score = found[(found["metric"] == "attention_score") & (found["share"] == 0)]
    assert len(score) == len(rows) * len(which)
    table = sanity_checks.means(found, [*sanity_checks.KEYS, "share", "metric"])
    assert "SmoothGrad, black" in sanity_figures.cascade_finding(table)


def test_copies_grow_in_blocks_and_the_gain_is_paired(setup):
    assert list(sanity_checks.copy_blocks([5, 1, 2, 2])) == [(1, 1), (2, 1), (5, 3)]
    rows = setup.few(4)
    found = sanity_checks.stability(setup, rows, copies=[1, 3], noise=[0.15, 0.3])
    part = found[(found["factor"] == "copies") & (found["metric"] == "attention_score")]
    base, model = part[(part["arm"] == "base") & (part["level"] == 3)], setup.models["base"]
    blocks = [setup.maps(model, rows, seed=1000, copies=1), setup.maps(model, rows, seed=1001)]
    masks = attention_maps.pictures(setup.scenes, rows, 32)[1]
    assert base["value"].to_numpy() == pytest.approx(
        sanity_checks._score(blocks[0] + blocks[1], masks)
    )
    table = sanity_checks.stability_table(found)
    gain = table[(table["arm"] == "bgaugment-base") & (table["factor"] == "noise")]
    wide = found[(found["factor"] == "noise") & (found["metric"] == "attention_score")]
    mean = wide.groupby(["level", "arm"])["value"].mean().unstack()
    assert gain["value"].to_numpy() == pytest.approx((mean["bgaugment"] - mean["base"]).to_numpy())


def test_faithfulness_is_paired_with_both_random_orders(setup):
    rows = setup.few(4)
    found = sanity_checks.faithfulness(setup, rows, sanity_checks.explanations([]))
    maps = ["smoothgrad/distance_to_black", *sanity_checks.BLIND[1:], *sanity_checks.ORDERS]
    assert list(found["map"].unique()) == maps
    assert found["value"].between(-1, 1.001).all()
    table = sanity_checks.faithfulness_table(found).set_index(["arm", "map", "metric"])["value"]
    for order in sanity_checks.ORDERS:
        difference = table["base", "sobel", "deletion_area"] - table["base", order, "deletion_area"]
        assert table["base", "sobel", f"deletion_area_minus_{order}"] == pytest.approx(difference)


# ------------------------------------------------------------------------------------- small parts


def test_rank_correlation_of_maps_is_scipys_with_ties_and_undefined_where_constant():
    a = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    b = (a + torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1))).round(decimals=1)
    b[2] = 1
    found = sanity_checks.rank_correlation(a, b)
    for at in range(2):
        expected = spearmanr(a[at].flatten(), b[at].flatten()).statistic
        assert found[at] == pytest.approx(expected)
    assert np.isnan(found[2])


def test_random_orders_have_their_grain_and_their_seed():
    rows = np.array([4, 9])
    patches = sanity_checks.random_order(rows, 32, 8, 0)
    assert (patches[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2) == patches).all()
    assert sanity_checks.random_order(rows, 32, 32, 0)[0].unique().numel() > 900
    assert torch.equal(patches[1], sanity_checks.random_order(rows[1:], 32, 8, 0)[0])
    assert not torch.equal(patches, sanity_checks.random_order(rows, 32, 8, 1))


def test_insertion_knows_which_random_order_is_worse_than_the_truth():
    embed, images = Embedder(left=True).eval(), pictures(3)
    left = torch.zeros(3, HEIGHT, WIDTH)
    left[..., : WIDTH // 2] = 1
    chance = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))
    good, poor = (controls.deletion_insertion(embed, images, maps) for maps in (left, chance))
    assert (good.insertion_area > poor.insertion_area).all()


@pytest.mark.parametrize(
    "low, high, expected",
    [
        ([-1, -1, 1, 2], [1, 1, 2, 3], "sure with 5 or more"),
        ([1, -1, 1, 2], [2, 1, 2, 3], "sure with 5 or more"),  # sure by accident at one copy
        ([-2, -2, -2, -2], [-1, -1, -1, -1], "sure with 1 or more"),
        ([1, 1, 1, -1], [2, 2, 2, 1], "no number of copies"),
    ],
)
def test_enough_copies_are_those_after_which_the_gain_stays_sure(low, high, expected):
    gain = pd.DataFrame({"level": [1, 2, 5, 10], "low": low, "high": high})
    assert expected in sanity_figures._enough(gain)


# ---------------------------------------------------------------------------------------- the link


def queries() -> pd.DataFrame:
    """Two models, six images: a higher score, a smaller loss; base loses more."""
    rows = []
    for arm, image in itertools.product(("base", "bgaugment"), range(6)):
        for condition, draw in (("clean", 0), ("random_background", 0), ("random_background", 1)):
            fall = (0.3 - 0.04 * image) * (1 if arm == "base" else 0.5) + 0.01 * (2 * draw - 1)
            value = 0.8 - (fall if condition != "clean" else 0)
            key = {"loss": "triplet", "arm": arm, "seed": 0, "condition": condition, "draw": draw}
            rows.append({**key, "sides": "both", "row": image, "label": image, "map_at_r": value})
    table = pd.DataFrame(rows)
    return table.assign(r_precision=table["map_at_r"], p_at_1=1.0)


def scores(values: dict[str, list[float]]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"row": range(6), "label": range(6), "value": v}).assign(
            loss="triplet", arm=arm, seed=0, metric="attention_score", defined=True
        )
        for arm, v in values.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_the_link_finds_a_perfect_order_and_its_opposite():
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    changes = {"map_at_r_change": score_vs_drop.precision_changes(queries())}
    value = changes["map_at_r_change"].set_index(["arm", "row"])["value"]
    assert value["base", 5] == pytest.approx(-0.1)  # the mean over both draws
    pairs = score_vs_drop.joined(scores({"base": rising, "bgaugment": rising[::-1]}), changes)
    found = score_vs_drop.over_images(pairs).set_index("arm")["value"]
    assert found["base"] == pytest.approx(1) and found["bgaugment"] == pytest.approx(-1)
    table = pd.concat([score_vs_drop.over_images(pairs), score_vs_drop.over_models(pairs)])
    words = score_vs_drop.verdict(table)  # with six images the interval of a perfect order is known
    assert "does not tell which images" in words and "(surely for 1 of 2 models)" in words
    assert "2 models are too few" in words and "0 of 2" in words
    sure = table.assign(low=table["low"].where(table["low"].isna(), 0.1))
    assert "score tells which images" in score_vs_drop.verdict(sure)
    gains = score_vs_drop.over_gains(
        pairs
    )  # the score's gain falls with the image, so does the outcome's
    assert gains["value"].item() == pytest.approx(1) and gains["n"].item() == 6


def test_undefined_scores_and_the_untrained_trunk_stay_out_of_the_models():
    table = scores({"base": [0.1] * 6, "bgaugment": [0.3] * 6, "untrained": [9.0] * 6})
    table.loc[0, ["defined", "value"]] = [False, 99.0]
    change = score_vs_drop.precision_changes(queries())
    more = change[change["arm"] == "base"].assign(arm="untrained")
    pairs = score_vs_drop.joined(table, {"map_at_r_change": pd.concat([change, more])})
    means = score_vs_drop.model_means(pairs).set_index("arm")["score"]
    assert means.to_dict() == pytest.approx({"base": 0.1, "bgaugment": 0.3})
    over = score_vs_drop.over_models(pairs).set_index("arm")
    assert over.loc["both", "n"] == 2 and np.isnan(over.loc["both", "low"])


def test_the_interval_of_few_models_covers_and_is_never_certain():
    low, high, _ = score_vs_drop.interval_of_few(1.0, 5)
    assert 0 < low < 0.5 and high < 1
    assert np.isnan(score_vs_drop.interval_of_few(0.5, 4)[0])
    rng, truth, inside = np.random.default_rng(0), 0.5, 0
    target = 6 / np.pi * np.arcsin(truth / 2)  # Spearman's value of a normal pair
    for _ in range(400):
        x, y = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], 10).T
        low, high, _ = score_vs_drop.interval_of_few(spearmanr(x, y).statistic, 10)
        inside += low <= target <= high
    assert inside / 400 > 0.92


def test_how_much_of_an_embedding_is_kept_is_a_cosine_over_the_draws(setup):
    model, rows = setup.models["base"], setup.rows
    table = score_vs_drop.similarity_kept(setup.study, setup.scenes, rows, 0)
    found = table[table["arm"] == "base"].set_index("row")["value"]
    embed = partial(embedding.embed, model.load(), setup.scenes, rows, seed=0, size=32)
    clean = embed("clean", draw=0, precision="f32")
    moved = [
        embed("random_background", draw=d, precision="f32") for d in range(score_vs_drop.DRAWS)
    ]
    slow = [np.mean([float(a @ m[i]) for m in moved]) for i, a in enumerate(clean)]
    assert found.to_numpy() == pytest.approx(slow, abs=1e-5)
    assert (normalize(clean) - clean).abs().max() < 1e-5 and (found < 1).all()


def test_tables_do_not_depend_on_the_number_of_threads(setup, monkeypatch):
    seen, before, plain = [], torch.get_num_threads(), attribution.attribute

    def spy(*given, **named):
        seen.append(torch.get_num_threads())
        return plain(*given, **named)

    monkeypatch.setattr(attribution, "attribute", spy)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        setup.maps(setup.models["base"], setup.rows[:2], seed=threads)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert seen == [2, 2]


def test_the_arms_stand_beside_the_controls_with_their_intervals() -> None:
    rows = [("base", 0.1, 0.0, 0.2), ("base", 0.3, 0.2, 0.6), ("bgaugment", 0.5, 0.4, 0.7)]
    table = pd.DataFrame(rows, columns=["arm", "value", "low", "high"]).assign(n=9)
    table = pd.concat(
        [table.assign(metric="attention_score"), table.assign(metric="other", value=9.0)]
    )
    models = attention_figures.by_arm(table)
    assert models.loc["base"].to_list() == pytest.approx([0.2, 0.1, 0.4, 9])
    blind = [("uniform", 0.0, np.nan), ("centred_gaussian", 0.4, 0.1), ("sobel", 0.1, 0.1)]
    blind += [("random_weights", 0.05, 0.01)]
    scores = pd.DataFrame(blind, columns=["control", "value", "half"]).assign(n=4)
    scores = scores.assign(low=scores["value"] - scores["half"])
    scores = scores.assign(high=scores["value"] + scores["half"])
    told = attention_figures.control_finding(models, scores)
    assert told.startswith("Attention score: base 0.20, BGAugment 0.50; a centred Gaussian map")
    axis = attention_figures.control_figure(models, scores, told).axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names[:3] == ["base (n = 9)", "BGAugment (n = 9)", "random weights (n = 4)"]
    bars = axis.collections[0].get_segments()
    assert bars[0].tolist() == [[pytest.approx(0.1), 0], [pytest.approx(0.4), 0]]
