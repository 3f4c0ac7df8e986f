"""The checks of the attention score: references, cascade, faithfulness, stability, the link."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lib.attention import attribution, controls, measure, sanity_checks
from lib.attention import maps as attention_maps
from lib.attention.attribution import METHODS, TARGETS, Explanation, attribute
from lib.attention.scores import SCORES
from lib.core.errors import StudyError
from lib.evaluation import embeddings
from lib.models import embedding
from tests.attention import small
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
    paper, gradient = attribution.explanations(["gradient", "smoothgrad/distance_to_black"])
    assert (paper, str(gradient)) == (attribution.PAPER, "gradient/distance_to_black")
    assert attribution.explanations("smoothgrad, gradient") == [paper, gradient]
    assert attribution.explanations([]) == attribution.explanations(["paper"]) == [paper]
    assert len(attribution.explanations("all")) == 8
    assert attribution.explanations(["gradient", "all"])[:2] == [paper, gradient]


def test_labels_of_explanations_differ():
    pairs = itertools.product(METHODS, TARGETS)
    labels = [Explanation(*pair).label for pair in pairs]
    assert len(set(labels)) == len(labels)


# --------------------------------------------------------------------------------- a small study


@pytest.fixture
def setup(study: str, monkeypatch: pytest.MonkeyPatch) -> sanity_checks.Setup:
    """Three models; the paper's explanation beside a gradient and Grad-CAM."""
    models = small.use_models(monkeypatch, ["base", "bgaugment"])
    return small.setup_of(study, models, ["gradient", "grad_cam/similarity_to_nearest"])


def partners(setup: sanity_checks.Setup, target: str) -> list[np.ndarray]:
    return attention_maps.partners_of(setup.study, setup.base, setup.scenes, setup.rows, target)


def test_partners_are_others_the_nearest_or_of_the_class(setup):
    model, gallery = setup.base, setup.scenes.store.rows("test")
    labels = setup.scenes.store.labels
    known = embeddings.View(setup.study, model, setup.scenes).embeddings("clean")
    for row, (found,) in zip(setup.rows, partners(setup, "similarity_to_nearest"), strict=True):
        own = known[list(gallery).index(row)]
        alike = {other: float(own @ e) for other, e in zip(gallery, known, strict=True)}
        assert found == max((o for o in gallery if o != row), key=alike.get)
    for row, found in zip(setup.rows, partners(setup, "similarity_to_class_mean"), strict=True):
        assert set(found) == {r for r in gallery if labels[r] == labels[row] and r != row}
    assert [len(x) for x in partners(setup, "distance_to_black")] == [0] * 6


def test_references_are_means_and_zero_without_partners(setup):
    (network, forward), rows = attention_maps.opened(setup.base), setup.rows
    groups = [rows[1:4], rows[:0], rows[4:5]]
    found = attention_maps.references(network, setup.scenes, groups, 32, forward)
    with torch.no_grad():
        known = network(network.normalise(setup.pictures(rows)[0]))
    assert torch.allclose(found[0], known[1:4].mean(dim=0), atol=1e-5)
    assert (found[1] == 0).all() and torch.allclose(found[2], known[4], atol=1e-5)


def test_an_image_without_partner_has_no_score_but_does_not_stop_the_study(setup, monkeypatch):
    found = partners(setup, "similarity_to_class_mean")
    found[2] = found[2][:0]
    monkeypatch.setattr(attention_maps, "partners_of", lambda *_: found)
    entry = Explanation("gradient", "similarity_to_class_mean")
    scenes, settings = setup.scenes, setup.settings
    maps = attention_maps.maps_of(setup.study, setup.base, scenes, setup.rows, 0, entry, **settings)
    defined = maps.flatten(1).sum(dim=1) > 0
    assert defined.tolist() == [True, True, False, True, True, True]


def test_maps_of_fewer_images_are_those_of_the_main_run_and_made_once(setup, monkeypatch):
    assert set(setup.fewer) < set(setup.few) < set(setup.rows)
    fresh = attention_maps.maps_of(
        setup.study, setup.base, setup.scenes, setup.few, setup.seed, **setup.settings
    )
    main = setup.maps(setup.base, setup.rows)
    monkeypatch.setattr(attribution, "attribute", None)  # whatever is asked for now is there
    few = setup.maps(setup.base, setup.few)
    assert torch.allclose(few, fresh, rtol=1e-3, atol=1e-6 * float(fresh.max()))
    assert torch.equal(setup.maps(setup.base, setup.rows), main)


def test_another_seed_gives_other_noise(setup):
    own, other = setup.maps(setup.base, setup.few), setup.maps(setup.base, setup.few, seed=9)
    assert not torch.allclose(own, other, rtol=1e-2)


def test_every_model_answers_every_explanation(setup):
    found, rows = sanity_checks.method_scores(setup), setup.few
    assert list(found["arm"].unique()) == ["random", "untrained", "base", "bgaugment"]
    assert len(found) == 4 * 3 * len(SCORES) * len(rows)
    one = found[(found["metric"] == "attention_score") & (found["method"] == "gradient")]
    assert (one.groupby("row")["value"].nunique() == 4).all()  # four models, four answers
    controls = sanity_checks.control_scores(setup)
    assert len(controls) == 4 * len(setup.rows)
    assert controls[controls["control"] == "uniform"]["value"].abs().max() < 1e-6


def test_the_cascade_starts_at_itself_and_leaves(setup):
    found = sanity_checks.cascade(setup)
    alike = found[found["metric"] == "rank_correlation"]
    alike = alike[alike["method"] != "grad_cam"].groupby("share")["value"].mean()
    assert alike.iloc[0] == pytest.approx(1) and (alike.iloc[1:] < 0.99).all()
    assert len(alike) == sanity_checks.STEPS + 1
    score = found[(found["metric"] == "attention_score") & (found["share"] == 0)]
    assert len(score) == len(setup.fewer) * len(setup.which)


def test_copies_grow_in_blocks(setup):
    assert list(sanity_checks.copy_blocks([5, 1, 2, 2])) == [(1, 1), (2, 1), (5, 3)]
    found = sanity_checks.stability(setup, copies=[1, 3], noise=[0.15, 0.3])
    part = found[(found["factor"] == "copies") & (found["metric"] == "attention_score")]
    base = part[(part["arm"] == "base") & (part["level"] == 3)]
    blocks = [setup.maps(setup.base, setup.fewer, seed=1000 + n, copies=1 + n) for n in (0, 1)]
    expected = sanity_checks._score(blocks[0] + blocks[1], setup.pictures(setup.fewer)[1])
    assert base["value"].to_numpy() == pytest.approx(expected)
    assert set(found["arm"]) == {"base", "bgaugment"} and set(found["factor"]) == {
        "copies",
        "noise",
    }


def test_faithfulness_asks_every_arm_about_every_map(setup):
    found = sanity_checks.faithfulness(setup)
    blind = ["centred_gaussian", "sobel", "true_mask", *sanity_checks.ORDERS]
    assert list(found["map"].unique()) == [*map(str, setup.which), *blind]
    assert found["value"].between(-1, 1.001).all() and set(found["arm"]) == {"base", "bgaugment"}


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
    orders = {"left": left, "chance": chance}
    good, poor = controls.deletion_insertion(embed, images, orders).values()
    assert (good.insertion_area > poor.insertion_area).all()


def test_how_much_of_an_embedding_is_kept_is_a_cosine_over_the_draws(setup):
    model, rows = setup.base, setup.rows
    found = measure.similarity_kept(setup, model).set_index("row")["value"]
    embed = partial(embedding.embed, model.load(), setup.scenes, rows, seed=0, size=32)
    clean = embed("clean", draw=0, precision="f32")
    moved = [embed("random_background", draw=d, precision="f32") for d in range(measure.DRAWS)]
    slow = [np.mean([float(a @ m[i]) for m in moved]) for i, a in enumerate(clean)]
    assert found.to_numpy() == pytest.approx(slow, abs=1e-5) and (found < 1).all()


def test_tables_do_not_depend_on_the_number_of_threads(setup, monkeypatch):
    seen, before, plain = [], torch.get_num_threads(), attribution.attribute

    def spy(*given, **named):
        seen.append(torch.get_num_threads())
        return plain(*given, **named)

    monkeypatch.setattr(attribution, "attribute", spy)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        setup.maps(setup.base, setup.fewer, seed=threads)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert seen == [2, 2]
