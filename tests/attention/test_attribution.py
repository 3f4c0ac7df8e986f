"""Attention: scores by hand, maps against a slow loop, models with a known answer, controls."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lib.attention.attribution import METHODS, TARGETS, attribute
from lib.attention.controls import CONTROLS, cascade, deletion_insertion, randomised
from lib.attention.scores import SCORES, attention_score, pick_images, scale_map, score_table

HEIGHT, WIDTH = 12, 16
BLACK = torch.full((1, 3, HEIGHT, WIDTH), -0.7)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Trunk(nn.Module):
    """Two layers; with `left`, it reads only the left half and neighbours do not mix."""

    def __init__(self, left: bool):
        super().__init__()
        size, padding = (1, 0) if left else (3, 1)
        self.first = nn.Conv2d(3, 6, size, padding=padding, bias=not left)
        self.norm = nn.Identity() if left else nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, size, padding=padding, bias=not left, groups=2)
        if not left:
            self.second.stride = (2, 2)
        keep = torch.ones(1, 1, 1, WIDTH)
        keep[..., WIDTH // 2 :] = 0 if left else 1
        self.register_buffer("keep", keep)

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x * self.keep)).relu()).relu()


class Embedder(nn.Module):
    def __init__(self, left: bool = False, seed: int = 3):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = Trunk(left)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return normalize(self.head(self.trunk.features(x).mean(dim=(2, 3))), dim=1)


def pictures(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    gains = torch.arange(1, count + 1).view(-1, 1, 1, 1)  # ranges differ between images
    return torch.randn(count, 3, HEIGHT, WIDTH, generator=generator) * gains / count


def slow_score(a: Tensor, m: Tensor) -> float:
    on = everywhere = area = 0.0
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            on += float(a[y, x]) * float(m[y, x])
            everywhere += float(a[y, x])
            area += float(m[y, x]) / a.numel()
    return (on / everywhere - area) / (1 - area)


def slow_smoothgrad(embed: nn.Module, image: Tensor, seed: int, copies: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(HEIGHT, WIDTH)
    for _ in range(copies):
        noise = torch.randn(image.shape, generator=generator)
        copy = (image + 0.15 * (image.max() - image.min()) * noise).requires_grad_()
        ((embed(copy[None]) - embed(BLACK)) ** 2).sum().sqrt().backward()
        total += ((copy.grad[0] + copy.grad[1] + copy.grad[2]) / 3).abs()
    return total


def test_scores_worked_by_hand():
    maps = torch.tensor([[[4.0, 0.0, 3.0], [0.0, 1.0, 0.0]]])
    masks = torch.tensor([[[1.0, 0.5, 0.0], [0.0, 0.5, 0.0]]])  # mean 1/3, k = 2
    values = {name: m.function(maps, masks).score.item() for name, m in SCORES.items()}
    assert values["relevance_mass"] == pytest.approx(4.5 / 8)
    assert values["attention_score"] == pytest.approx((4.5 / 8 - 1 / 3) / (2 / 3))
    assert values["relevance_rank"] == pytest.approx(1.0 / 1.5)  # top: 4 (1.0), 3 (0.0)
    assert values["energy_pointing_game"] == pytest.approx(5 / 8)  # the box: columns 0 and 1
    assert values["pointing_game"] == 1.0
    chances = {name: m.chance(masks).item() for name, m in SCORES.items()}
    assert chances == pytest.approx(
        {
            "attention_score": 0,
            "relevance_mass": 1 / 3,
            "relevance_rank": 2 / 3 / 1.5,
            "energy_pointing_game": 2 / 3,
            "pointing_game": 1 / 3,
        }
    )


@pytest.mark.parametrize("name", ["relevance_mass", "relevance_rank", "pointing_game"])
def test_chance_is_what_random_maps_get(name):
    masks = torch.rand(1, 4, 7, generator=torch.Generator().manual_seed(1)) ** 3
    maps = torch.rand(4000, 4, 7, generator=torch.Generator().manual_seed(2))
    measure = SCORES[name]
    mean = measure.function(maps, masks.expand_as(maps)).score.mean().item()
    assert mean == pytest.approx(measure.chance(masks).item(), abs=0.015)


def test_attention_score_equals_the_loop_on_soft_masks():
    maps, masks = torch.rand(4, 3, 5), torch.rand(4, 3, 5) ** 2
    scores, defined = attention_score(maps, masks)
    assert defined.all()
    for score, a, m in zip(scores, maps, masks, strict=True):
        assert score.item() == pytest.approx(slow_score(a, m), abs=1e-9)


@pytest.mark.fault(
    "numbers/attention",
    "empty or full mask, zero map",
    "such a mask and map",
    "the score is left out by rule and counted, never NaN",
)
@pytest.mark.parametrize("name", SCORES)
def test_empty_full_and_zero_are_undefined_and_never_nan(name):
    maps, masks = torch.rand(4, 3, 5), torch.rand(4, 3, 5)
    masks[0], masks[1], maps[2], masks[3] = 0, 1, 0, 0.2
    masks[3, 1, 2] = 0.9
    score, defined = SCORES[name].function(maps, masks)
    assert defined.tolist() == [False, False, False, True]
    assert score.isfinite().all() and (score[:3] == 0).all()


def test_ties_go_to_the_lower_pixel():
    maps = torch.ones(1, 1, 4)
    masks = torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])
    assert SCORES["pointing_game"].function(maps, masks).score.item() == 1
    assert SCORES["relevance_rank"].function(maps, masks).score.item() == 0.5
    assert SCORES["pointing_game"].function(maps, 1 - masks).score.item() == 0


def test_scale_map_is_the_authors_and_survives_their_zero_division():
    raw = torch.rand(3, 9, 13) + 2
    scaled = scale_map(raw)
    for a, g in zip(scaled, raw, strict=True):
        high = torch.quantile(g.flatten(), 0.99)
        assert torch.allclose(a, ((g - g.min()) / (high - g.min())).clamp(0, 1), atol=1e-6)
    assert (scale_map(torch.full((1, 3, 4), 5.0)) == 1).all()
    assert (scale_map(torch.zeros(1, 3, 4)) == 0).all()
    spike = torch.zeros(1, 20, 20)
    spike[0, 3, 4] = 2
    assert scale_map(spike).sum() == 1 and scale_map(spike)[0, 3, 4] == 1


@pytest.mark.parametrize(
    "maps, masks, words",
    [
        (torch.full((1, 2, 2), float("nan")), torch.ones(1, 2, 2), "NaN"),
        (-torch.ones(1, 2, 2), torch.ones(1, 2, 2), "negative"),
        (torch.ones(1, 2, 2), torch.full((1, 2, 2), 255.0), "divide"),
        (torch.ones(1, 2, 2), torch.ones(1, 2, 3), "equal"),
    ],
)
def test_bad_input_is_refused_in_words(maps, masks, words):
    with pytest.raises(ValueError, match=words):
        attention_score(maps, masks)


def test_score_table_scales_only_what_is_to_be_scaled():
    raw = torch.rand(2, 30, 30)
    raw[:, 20, 20] = 9  # the highest; after clipping, ten pixels share the top
    masks = torch.zeros(2, 30, 30)
    masks[:, 20, 20] = 1
    table = score_table(raw, masks).set_index(["metric", "row"])
    assert len(table) == 2 * len(SCORES) and table.defined.all()
    assert table.value["pointing_game", 1] == 1
    expected = attention_score(scale_map(raw), masks).score[1].item()
    assert table.value["attention_score", 1] == pytest.approx(expected)


def test_images_are_picked_evenly_over_classes_and_by_seed():
    labels = torch.tensor([5] * 7 + [2] * 1 + [9] * 4)
    rows = pick_images(labels, 7, seed=1)
    assert labels[rows].bincount(minlength=10)[[5, 2, 9]].tolist() == [3, 1, 3]
    assert rows.tolist() == sorted(set(rows.tolist())) == pick_images(labels, 7, seed=1).tolist()
    assert any(rows.tolist() != pick_images(labels, 7, seed=s).tolist() for s in range(2, 6))
    assert pick_images(labels, 99, seed=0).tolist() == list(range(12))


@pytest.mark.parametrize("batch", [1, 4, 7, 100])
def test_batched_smoothgrad_equals_the_loop_over_images_with_the_same_noise(batch):
    embed, images = Embedder().eval(), pictures(3)
    seeds = torch.tensor([11, 5, 11])
    maps = attribute("smoothgrad", embed, images, black=BLACK, seeds=seeds, copies=5, batch=batch)
    for own, image, seed in zip(maps, images, seeds.tolist(), strict=True):
        slow = slow_smoothgrad(embed, image, seed, 5)
        assert torch.allclose(own, slow, rtol=1e-4, atol=1e-6 * slow.max())


def test_fewer_copies_are_the_first_of_more():
    one, two, both = (
        attribute("smoothgrad", Embedder(), pictures(1), black=BLACK, seeds=s, copies=c)
        for s, c in ((torch.tensor([4]), 2), (torch.tensor([4]), 3), (torch.tensor([4]), 3))
    )
    assert torch.equal(two, both)
    assert (two - one > 0).float().mean() > 0.9  # the third copy only adds


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", TARGETS)
def test_permuted_images_give_permuted_maps_and_the_model_is_left_alone(method, target):
    embed, images, order = Embedder().train(), pictures(5), torch.tensor([3, 0, 4, 2, 1])
    before = {name: value.clone() for name, value in embed.state_dict().items()}
    reference = normalize(torch.randn(5, 5, generator=torch.Generator().manual_seed(8)), dim=1)
    run = partial(attribute, method, embed, black=BLACK, target=target, copies=2, cells=4, batch=4)
    seeds = torch.arange(5) + 40
    maps = run(images, reference=reference, seeds=seeds)
    permuted = run(images[order], reference=reference[order], seeds=seeds[order])
    assert maps.shape == (5, HEIGHT, WIDTH) and maps.dtype == torch.float32
    found = maps.flatten(1).sum(dim=1) > 0  # Grad-CAM may find nothing that speaks for the target
    assert (maps >= 0).all() and (found.any() if method == "grad_cam" else found.all())
    assert torch.allclose(permuted, maps[order], rtol=1e-3, atol=1e-5 * float(maps.max()))
    assert embed.training and all(p.requires_grad for p in embed.parameters())
    assert all(torch.equal(value, before[name]) for name, value in embed.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_model_that_reads_the_left_half_scores_one_for_the_left_half(method, precision):
    masks = torch.zeros(4, HEIGHT, WIDTH)
    masks[..., : WIDTH // 2] = 1
    embed, images = Embedder(left=True), pictures(4)
    with torch.no_grad():
        reference = embed(2 * images)  # more of the same features: Grad-CAM is not all zero
    run = partial(attribute, method, embed, images, black=BLACK, cells=4, precision=precision)
    raw = run(target="similarity_to_nearest", reference=reference)
    score, defined = attention_score(scale_map(raw), masks)
    assert defined.all() and torch.allclose(score, torch.ones(4, dtype=torch.float64))
    assert torch.allclose(attention_score(scale_map(raw), 1 - masks).score, -score)
    if method != "grad_cam":
        raw = run(target="distance_to_black")
        assert torch.allclose(attention_score(scale_map(raw), masks).score, score)


def test_grad_cam_equals_the_formula():
    embed, images = Embedder().eval(), pictures(1)
    reference = embed(pictures(1, seed=6)).detach()
    features = embed.trunk.features(images).detach().requires_grad_()
    similarity = normalize(embed.head(features.mean(dim=(2, 3))), dim=1) @ reference[0]
    similarity.sum().backward()
    cam = sum(g.mean() * f for g, f in zip(features.grad[0], features[0], strict=True)).relu()
    maps = attribute(
        "grad_cam", embed, images, black=BLACK, target="similarity_to_nearest", reference=reference
    )
    wide = nn.functional.interpolate(cam[None, None], (HEIGHT, WIDTH), mode="bilinear")[0]
    assert maps.sum() > 0 and torch.allclose(maps, wide.detach(), rtol=1e-3, atol=1e-7)


def test_bf16_maps_resemble_f32_maps(monkeypatch):
    monkeypatch.setattr("lib.core.hardware.used", lambda asked, kind: asked)  # imitated, if need be
    run = partial(attribute, "smoothgrad", Embedder(), pictures(3), black=BLACK)
    exact, rough = run().flatten(), run(precision="bf16").flatten()
    assert torch.corrcoef(torch.stack([exact, rough]))[0, 1] > 0.98
    assert not torch.equal(exact, rough)


def test_a_model_that_ignores_its_input_has_a_zero_map_and_no_score():
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return normalize(torch.ones(len(x), 4), dim=1)

    raw = attribute("smoothgrad", Constant(), pictures(2), black=BLACK, copies=2)
    assert (raw == 0).all()
    masks = torch.rand(2, HEIGHT, WIDTH)
    assert not attention_score(scale_map(raw), masks).defined.any()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"method": "magic"}, "known: smoothgrad"),
        ({"target": "similarity_to_nearest"}, "needs reference"),
        ({"black": BLACK[..., 1:]}, "same size"),
        ({"seeds": torch.arange(3)}, "3 rows for 2 images"),
        ({"copy": 3}, "unknown setting 'copy'"),
        ({"copies": 0}, "at least 1"),
        ({"precision": "f16"}, "bf16"),
    ],
)
def test_wrong_calls_are_refused_in_words(change, words):
    call = {"method": "smoothgrad", "embed": Embedder(), "images": pictures(2), "black": BLACK}
    with pytest.raises(ValueError, match=words):
        attribute(**(call | change))


def test_controls_bracket_the_score():
    images, masks = pictures(3), torch.zeros(3, HEIGHT, WIDTH)
    masks[:, 4:8, 5:11] = 1
    scores = {}
    for name, control in CONTROLS.items():
        raw = control.function(images, masks)
        scores[name] = attention_score(scale_map(raw), masks)
        assert raw.shape == masks.shape and scores[name].defined.all()
    assert scores["uniform"].score.abs().max() < 1e-12
    assert torch.allclose(scores["true_mask"].score, torch.ones(3, dtype=torch.float64))
    assert (scores["centred_gaussian"].score > 0.1).all()  # the object stands in the middle
    drawn = attribute("gradient", randomised(Embedder(), 1, images), images, black=BLACK)
    assert (attention_score(scale_map(drawn), masks).score.abs() < 0.5).all()


def test_sobel_finds_the_edge_and_nothing_else():
    images = torch.zeros(1, 3, HEIGHT, WIDTH)
    images[..., 6:] = 1
    edges = CONTROLS["sobel"].function(images, torch.zeros(1, HEIGHT, WIDTH))
    assert edges[0].sum(dim=0).nonzero().flatten().tolist() == [5, 6]


def test_cascade_goes_from_the_head_downwards_and_keeps_what_it_drew():
    embed, images = Embedder(), pictures(6)
    stages = list(cascade(embed, seed=7, steps=4, images=images))
    assert [share for share, _ in stages] == [0, 0.25, 0.5, 0.75, 1]
    weights = [[m.head.weight, m.trunk.second.weight, m.trunk.first.weight] for _, m in stages]
    changed = [[not torch.equal(a, b) for a, b in zip(w, weights[0], strict=True)] for w in weights]
    assert changed == [[False] * 3, [True, False, False], [True, True, False]] + [
        [True, True, False],  # the third layer from the top is the BatchNorm
        [True, True, True],
    ]
    assert torch.equal(weights[1][0], weights[4][0])
    whole = randomised(embed, 7, images)
    assert torch.equal(whole(images), stages[-1][1](images))
    assert not torch.equal(whole(images), randomised(embed, 8, images)(images))
    assert not whole.training and whole.trunk.norm.running_var.ne(1).any()


def test_a_copy_that_still_uses_the_original_is_caught():
    original = Embedder()

    class Borrowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return original(x)

    with pytest.raises(ValueError, match="changed nothing"):
        randomised(Borrowing(), 0, pictures(2))


def test_deletion_and_insertion_prefer_the_map_that_the_model_follows():
    embed, images = Embedder(left=True).eval(), pictures(3)
    left = torch.zeros(3, HEIGHT, WIDTH)
    left[..., : WIDTH // 2] = 1
    orders = {"good": left, "poor": 1 - left}
    good, poor = deletion_insertion(embed, images, orders, steps=4, batch=2).values()
    assert good.deletion.shape == good.insertion.shape == (3, 5)
    assert torch.allclose(good.deletion[:, 0], torch.ones(3))
    assert torch.allclose(good.insertion[:, -1], torch.ones(3))
    assert torch.allclose(good.deletion[:, 2:], good.deletion[:, 2:3].expand(-1, 3))
    assert torch.allclose(poor.deletion[:, :3], torch.ones(3, 3))  # the unread half changes nothing
    assert (good.deletion_area < poor.deletion_area).all()
    assert (good.insertion_area > poor.insertion_area).all()
    assert torch.allclose(
        good.deletion_area, (good.deletion[:, :-1] + good.deletion[:, 1:]).sum(dim=1) / 8
    )
    with pytest.raises(ValueError, match="differ"):
        deletion_insertion(embed, images, {"narrow": left[..., 1:]})
