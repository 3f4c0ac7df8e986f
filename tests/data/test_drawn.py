"""The rendered data set: determinism, exact masks, disjoint classes, the asked-for bias."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.core.errors import StudyError
from lib.data.drawn import dataset, objects, surroundings

SMALL = {
    "seed": 3,
    "bias": 0.5,
    "test_bias": 0.5,
    "classes": {"train": 4, "test": 4},
    "images_per_class": 2,
    "side": 32,
}


def _digests(root: Path) -> dict[str, str]:
    """Checksum of every file under a folder, by relative path."""
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("render") / "set"
    dataset.render_dataset(root, **SMALL)
    return root


def test_files_agree_with_the_index(drawn: Path) -> None:
    table = pd.read_csv(drawn / "index.csv")
    assert list(table.columns) == ["path", "label", "class_name", "split", "habitat_class"]
    assert len(table) == 16 and table.path.is_unique
    for path in table.path:
        image, mask = Image.open(drawn / "images" / path), Image.open(drawn / "masks" / path)
        assert (image.mode, mask.mode) == ("RGB", "L")
        assert image.size == mask.size and min(image.size) == 32 and max(image.size) == 43
        assert 0.1 < (np.asarray(mask) / 255).mean() < 0.5
    assert len(list(drawn.rglob("*.png"))) == 32  # and nothing else


def test_bytes_do_not_depend_on_threads_or_on_earlier_runs(drawn, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dataset, "workers", lambda: 1)
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "images" / "old.png").touch()  # a leftover of other settings must go
    dataset.render_dataset(root, **SMALL)
    assert _digests(root) == _digests(drawn)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_another_seed_gives_other_pictures(drawn: Path, tmp_path: Path) -> None:
    dataset.render_dataset(tmp_path / "set", **(SMALL | {"seed": 4}))
    ours, theirs = (set(_digests(r / "images").values()) for r in (drawn, tmp_path / "set"))
    assert len(ours) == 16 and not ours & theirs


def test_a_failed_run_leaves_the_old_folder_alone(drawn, tmp_path, monkeypatch) -> None:
    dataset.render_backgrounds(tmp_path / "pool", seed=0, count=2, side=16)
    before = _digests(tmp_path / "pool")

    def fail(*_):
        raise RuntimeError("no light")

    monkeypatch.setattr(dataset, "view", fail)
    with pytest.raises(RuntimeError, match="no light"):
        dataset.render_backgrounds(tmp_path / "pool", seed=1, count=2, side=16)
    assert [p.name for p in tmp_path.iterdir()] == ["pool"]
    assert _digests(tmp_path / "pool") == before


def test_splits_share_no_class_and_hold_several_families() -> None:
    table = dataset.plan(0, 0.9, 0.5, {"train": 16, "val": 4, "test": 20}, 1)
    assert table.groupby("split").class_name.nunique().to_dict() == {
        "train": 16,
        "val": 4,
        "test": 20,
    }
    assert table.class_name.nunique() == 40 and table.label.tolist() == list(range(40))
    families = table.class_name.str.split("_").str[0].groupby(table.split).nunique()
    assert families.min() >= 3


def test_the_order_in_which_splits_are_named_changes_nothing() -> None:
    """Options are kept with sorted keys, so that two orders are one request."""
    one = dataset.plan(0, 0.9, 0.5, {"train": 3, "val": 2, "test": 2}, 2)
    pd.testing.assert_frame_equal(
        one, dataset.plan(0, 0.9, 0.5, {"test": 2, "val": 2, "train": 3}, 2)
    )


def test_habitats_follow_the_bias_and_stay_in_the_split() -> None:
    table = dataset.plan(1, 0.8, 0.25, {"train": 6, "test": 5}, 200)
    own = (table.class_name == table.habitat_class).groupby(table.split).mean()
    assert own["train"] == pytest.approx(0.8, abs=0.04)  # 3.5 standard errors
    assert own["test"] == pytest.approx(0.25, abs=0.05)
    split_of = table.drop_duplicates("class_name").set_index("class_name").split
    assert (table.habitat_class.map(split_of) == table.split).all()
    away = table[table.class_name != table.habitat_class]
    counts = away.groupby(["class_name", "habitat_class"]).size()
    assert len(counts) == 6 * 5 + 5 * 4 and counts.min() > 0


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_extreme_bias(bias: float) -> None:
    table = dataset.plan(0, bias, bias, {"train": 3}, 20)
    assert (table.class_name == table.habitat_class).mean() == bias


def test_classes_are_distinct_and_share_palettes_in_pairs() -> None:
    toys = objects.draw_toys(0, 40)
    assert len({(t.family, t.texture, t.palette) for t in toys}) == 40
    palettes = {t.name: t.palette for t in toys}
    for family in objects.FAMILIES:
        assert palettes[f"{family}_0"] == palettes[f"{family}_1"] != palettes[f"{family}_2"]


def test_more_classes_do_not_change_the_first_ones() -> None:
    few, many = objects.draw_toys(5, 11), objects.draw_toys(5, 30)
    assert many[:11] == few


@pytest.mark.parametrize("family", objects.FAMILIES)
@pytest.mark.parametrize("shape", [(0.0, 0.0, 0.0), (0.99, 0.0, 0.99), (0.4, 0.99, 0.6)])
def test_traced_hits_lie_on_the_surface_and_misses_outside(family, shape) -> None:
    """Against brute force: small fixed steps along each ray until the sign changes."""
    toy = objects.Toy("t", family, shape, "plain", 0)
    turn = objects._turn(0.7, 0.3, 0.1)
    x, y = (g.ravel() for g in np.meshgrid(*[np.linspace(-1.5, 1.5, 26, dtype=np.float32)] * 2))
    hit, points = objects.trace(toy, turn, x, y)
    depths = np.linspace(0, 3.4, 400, dtype=np.float32)
    start = turn.T @ np.stack([x, y, np.full_like(x, 1.7)])
    closest = np.min([toy.distance(start - turn[2][:, None] * d) for d in depths], axis=0)
    assert hit[closest < 0].mean() > 0.99  # a ray that enters the thing is a hit
    assert closest[hit].max() < 0.018  # a hit comes as near as the tolerance and the small step
    assert np.abs(toy.distance(points[:, hit])).max() < 0.02
    assert hit.mean() > 0.05


def test_mask_is_the_composite_weight() -> None:
    """The same toy on black and on white differs by the background's share of every pixel."""
    toy = objects.draw_toys(0, 1)[0]
    flat = {
        v: surroundings.Place(*[lambda u, w, v=v: np.full((len(u), 3), v, "f")] * 2, 3.0)
        for v in (0, 1)
    }
    (dark, mask), (light, again) = (
        objects.picture(toy, flat[v], np.random.default_rng(2), 48) for v in (0, 1)
    )
    assert np.array_equal(mask, again) and set(np.unique(mask)) <= {0, 64, 128, 191, 255}
    assert len(np.unique(mask)) == 5
    assert np.array_equal(dark[mask == 255], light[mask == 255])
    assert (light[mask == 0].mean(-1) > dark[mask == 0].mean(-1) + 20).all()


def test_views_of_a_place_differ_but_look_alike() -> None:
    """Mean colour tells two views of one place from views of other places, pixels do not repeat."""
    places = [surroundings.draw_place("parlour", np.random.default_rng(s)) for s in range(4)]
    views = np.array(
        [
            [surroundings.view(p, np.random.default_rng([s, 1]), 24, 32) for s in (1, 2)]
            for p in places
        ]
    )
    assert (views[:, 0] != views[:, 1]).mean() > 0.9
    colour = views.mean((2, 3))
    within = np.linalg.norm(colour[:, 0] - colour[:, 1], axis=-1)
    across = np.linalg.norm(colour[:, None, 0] - colour[None, :, 1], axis=-1)
    assert within.mean() < 0.6 * across[~np.eye(4, dtype=bool)].mean()


@pytest.mark.parametrize("kind", surroundings.HABITATS | surroundings.BACKDROPS)
def test_every_place_paints_valid_colours(kind: str) -> None:
    picture = surroundings.view(
        surroundings.draw_place(kind, np.random.default_rng(0)), np.random.default_rng(1), 40, 30
    )
    assert picture.shape == (40, 30, 3) and picture.dtype == np.float32
    assert np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1
    assert picture.std() > 0.02  # a scene, not a flat card


def test_backgrounds(tmp_path: Path) -> None:
    """Other kinds of place than any class's; pools of different seeds share no picture."""
    pairs = [
        {v[:2] for v in table.values()} for table in (surroundings.HABITATS, surroundings.BACKDROPS)
    ]
    assert not pairs[0] & pairs[1]
    for seed in (0, 1):
        dataset.render_backgrounds(tmp_path / str(seed), seed=seed, count=12, side=24)
    dataset.render_backgrounds(tmp_path / "again", seed=0, count=3, side=24)
    zero, one, again = (_digests(tmp_path / name) for name in ("0", "1", "again"))
    assert len(set(zero.values()) | set(one.values())) == 24
    assert list(zero)[:2] == ["000.png", "001.png"] and again.items() <= zero.items()
    assert all(min(Image.open(p).size) == 24 for p in (tmp_path / "0").iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": 1.5}, "bias in \\[0, 1\\]"),
        ({"classes": {"train": 4, "test": 1}}, "'test': 1 classes"),
        ({"classes": {"train": 500}}, "500 classes"),
        ({"images_per_class": 0}, "x 0 images"),
    ],
)
def test_impossible_values_stop_in_words(change: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=words):
        dataset.render_dataset(tmp_path / "set", **(SMALL | change))
    assert not list(tmp_path.iterdir())
