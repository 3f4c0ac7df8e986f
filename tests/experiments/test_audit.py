"""The audit finds what was built in: a model that sees places loses, one that sees objects not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib.core.errors import StudyError
from lib.evaluation import remedies, statistics
from lib.evaluation.models import Model
from lib.experiments import audit_images, foreign
from lib.experiments.audit import Asked, audit, expected, opened
from lib.experiments.audit_search import CLEAN, NONE, QUERY, SHIFTED, Pass, Search
from lib.experiments.audit_tables import plain, ratio
from lib.models.embedder import Embedder, save_weights
from tests.experiments import small_audit
from tests.experiments.small_audit import catalogue, photographs


@pytest.fixture
def asked(home: Path, monkeypatch: pytest.MonkeyPatch):
    """`asked(model, ...)`: what to ask of a tiny catalogue."""
    monkeypatch.setattr(remedies, "predicted", small_audit.predicted)
    catalogue(home / "shop")
    backgrounds = photographs(home / "photographs")

    def made(model: str, **more) -> Asked:
        values = {
            "images": str(home / "shop"), "size": small_audit.SIDE, "reference": "",
            "masks": "true", "backgrounds": str(backgrounds), "attention": "none",
            "conditions": (CLEAN, SHIFTED, "own_background", "background_only"), "draws": 2,
            "remedies": ("cut_out", "late_mask"),
        }  # fmt: skip
        return Asked(model=f"{small_audit.MODULE}:{model}", **values | more)

    return made


def test_a_model_that_sees_the_place_loses_and_one_that_sees_the_object_does_not(asked) -> None:
    place, thing = audit(asked("border")), audit(asked("middle"))
    clean, shift = place.level(CLEAN), place.level(SHIFTED)
    assert clean["value"] > 0.9 and shift["lost"] > 0.4 and shift["lost_low"] > 0.2
    assert shift["lost"] == pytest.approx(1 - shift["value"] / clean["value"])
    assert place.level("background_only")["value"] == pytest.approx(clean["value"], abs=0.05)
    assert thing.lost == pytest.approx(0, abs=0.02)
    assert thing.best == {}  # nothing to mend
    assert place.classes["change"].iloc[0] == place.classes["change"].min() < -0.2


def test_a_remedy_is_measured_on_both_sides_and_on_queries_alone(asked) -> None:
    found = audit(asked("border"))
    table = found.remedies.set_index(["remedy", "applied"])
    assert set(table.index) == {("cut_out", way) for way in ("both", "query_clean_gallery", QUERY)}
    row = table.loc[("cut_out", "both")]
    bare = found.level(SHIFTED)["value"]
    draw = found_value(found, 0)
    assert row["gain"] == pytest.approx(row["shifted"] - draw)
    assert row["clean_change"] == pytest.approx(row["clean"] - found.level(CLEAN)["value"])
    assert bare == pytest.approx((draw + found_value(found, 1)) / 2)
    assert any("late_mask" in t or "pooled" in t for t in found.told)  # said, not dropped


def found_value(found, draw: int) -> float:
    """Mean MAP@R of one draw, from the queries themselves."""
    table = found.search.scores(Pass("model", SHIFTED, draw, NONE), "both")
    return float(table["map_at_r"].mean())


def test_scores_are_those_of_a_loop_over_queries(asked) -> None:
    search = audit(asked("border")).search
    run = Pass("model", SHIFTED, 0, NONE)
    table = search.scores(run, QUERY)
    moved, there = (
        search.vectors(run).double(),
        search.vectors(run._replace(condition=CLEAN)).double(),
    )
    labels = search.labels.tolist()
    for query in range(0, len(labels), 5):
        order = sorted(
            (i for i in range(len(labels)) if i != query),
            key=lambda i: (-float(moved[query] @ there[i]), i),
        )
        r = labels.count(labels[query]) - 1
        hits, total = 0, 0.0
        for place, other in enumerate(order[:r], start=1):
            if labels[other] == labels[query]:
                hits += 1
                total += hits / place
        assert table["map_at_r"][query] == pytest.approx(total / r)


def test_numbers_are_json_without_nan_and_say_what_masks_are_worth(asked, home: Path) -> None:
    catalogue(home / "few", classes=3)
    found = audit(asked("border", images=str(home / "few")))
    text = json.dumps(found.numbers(), allow_nan=False)
    assert found.level(SHIFTED)["lost_low"] is None and found.level(SHIFTED)["lost"] is not None
    assert json.loads(text)["masks"]["usable"] == 1.0 and not found.masks["warnings"]


def test_masks_that_miss_the_object_are_warned_of(asked, home: Path) -> None:
    catalogue(home / "crates", area=0.08)
    small = audit(asked("border", images=str(home / "crates"), remedies=()))
    assert any("crate" in warning for warning in small.masks["warnings"])
    for file in sorted((home / "crates" / "masks").rglob("*.png"))[:8]:
        Image.fromarray(np.zeros_like(np.asarray(Image.open(file)))).save(file)
    few = audit(asked("border", images=str(home / "crates"), remedies=()))
    assert few.masks["usable"] == pytest.approx(16 / 24)
    assert any("67 %" in warning for warning in few.masks["warnings"])


def test_what_was_done_is_not_done_again(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    first = audit(asked("border"))

    def refused(*_args):
        raise AssertionError("embedded again")

    monkeypatch.setattr("lib.experiments.audit_search.Search.shown", seen := _counted())
    monkeypatch.setattr(remedies, "predicted", refused)
    again = audit(asked("border"))
    pd.testing.assert_frame_equal(first.levels, again.levels)
    assert seen.passes == 0


def _counted():
    real = Search.shown

    def shown(self, part, condition, draw):
        shown.passes += len(part) == len(self.images.rows)
        return real(self, part, condition, draw)

    shown.passes = 0
    return shown


def test_queries_and_catalogue_may_be_apart(asked, home: Path) -> None:
    for folder, seed in (("shop", 0), ("customers", 1)):
        catalogue(home / "both" / folder, seed=seed)
    twin = home / "both" / "shop" / "images" / "class 0" / "0.png"
    (home / "both" / "customers" / "images" / "class 0" / "1.png").write_bytes(twin.read_bytes())
    places = {"images": str(home / "both" / "customers"), "gallery": str(home / "both" / "shop")}
    found = audit(asked("border", masks="box_of_test", **places, remedies=()))
    assert found.images["apart"] and found.images["queries"] == found.images["gallery"] == 24
    own = found.search.own.tolist()
    index = found.search.images.scenes.store.index
    (query,) = [at for at, place in enumerate(own) if place >= 0]
    assert index["path"][query].startswith("customers/") and index["path"][query].endswith("1.png")
    table = found.search.scores(Pass("model", CLEAN, 0, NONE), "both")
    assert len(table) == 24 and found.level(CLEAN)["value"] > 0.9


@pytest.fixture(autouse=True)
def middle_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask source for folders apart, where no masks/ lies beside images/ at the top."""
    from lib.masks import sources

    def make(_name, _study, store, _workers):
        for row in store.index.itertuples():
            mask = np.zeros((row.height, row.width), np.uint8)
            mask[row.height // 3 : -(row.height // 3), row.width // 3 : -(row.width // 3)] = 255
            yield mask

    entry = sources.Source("middle", make, lambda _study: "middle")
    monkeypatch.setitem(sources.SOURCES, "box_of_test", entry)


def test_a_place_of_another_image_needs_other_images(asked, home: Path) -> None:
    names = (CLEAN, SHIFTED, "unshared_background")
    found = audit(asked("border", conditions=names, remedies=()))
    assert found.level("unshared_background") == {}
    assert any("further images" in told for told in found.told)
    table = catalogue(home / "split", classes=8)
    table["split"] = np.where(table["label"] < "class 4", "train", "test")
    table.to_csv(home / "split" / "labels.csv", index=False)
    found = audit(asked("border", images=str(home / "split"), conditions=names, remedies=()))
    assert found.images["classes"] == 4 and found.level("unshared_background")["value"] < 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"conditions": (CLEAN,)},
        {"conditions": (CLEAN, SHIFTED, "nothing")},
        {"remedies": ("nothing",)},
        {"attention": "nothing"},
        {"draws": 0},
        {"conditions": (CLEAN, CLEAN, SHIFTED)},
        {"remedies": ("cut_out", "box_crop", "cut_out")},
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(wrong: dict) -> None:
    with pytest.raises(StudyError):
        Asked(**wrong)


def test_an_unknown_mask_source_is_refused_before_images_are_read(asked, monkeypatch) -> None:
    monkeypatch.setattr(audit_images, "prepare", None)
    with pytest.raises(StudyError, match="u2netpp"):
        audit(asked("border", masks="u2netpp"))


def test_a_gradient_of_what_has_none_is_refused(asked) -> None:
    for method in ("smoothgrad", "grad_cam"):
        with pytest.raises(StudyError, match="occlusion"):
            audit(asked("border", attention=method))


def test_a_gallery_inside_the_images_is_no_query_and_splits_are_honoured(home: Path) -> None:
    for part in ("train", "test", "catalogue"):
        catalogue(home / part, images=2)
        (home / part / "labels.csv").unlink()
        shutil.rmtree(home / part / "masks")
    for part in ("train", "test"):
        (home / part / "images").rename(home / f"shop-{part}")
    (home / "queries").mkdir()
    for part in ("train", "test"):
        (home / f"shop-{part}").rename(home / "queries" / part)
    gallery = str(home / "catalogue" / "images")
    table = audit_images.tables(str(home / "queries"), gallery)[3]
    assert table.groupby("side")["in_search"].sum().to_dict() == {"gallery": 12, "query": 12}
    assert set(table.loc[~table["in_search"], "side"]) == {"query"}
    (home / "catalogue" / "images").rename(home / "queries" / "test" / "catalogue")
    images, gallery = home / "queries" / "test", home / "queries" / "test" / "catalogue"
    *_, table, (told,) = audit_images.tables(str(images), str(gallery))
    queries = table.loc[table["side"] == "query", "path"]
    assert len(queries) == 12 and not queries.str.startswith("catalogue/").any()
    assert told.startswith("12 images")


def test_the_time_is_said_before_the_masks_and_holds_masks_and_attention(
    asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for module in ("audit", "audit_images"):
        monkeypatch.setattr(f"lib.experiments.{module}.say", said.append)
    audit(asked("border", remedies=()))
    times = [at for at, text in enumerate(said) if " min at most" in text]
    masks = [at for at, text in enumerate(said) if text.startswith("masks by")]
    assert len(times) == 2 and times[0] < masks[0] < times[1]
    monkeypatch.setattr("lib.core.hardware.workers", lambda: 2)
    bare = Asked(attention="none", remedies=(), masks="u2netp")
    least = expected(bare, 0.0, 1, 400, 400, 0)
    assert least == pytest.approx(400 * 0.29 / 2 / 60)
    more = expected(replace(bare, remedies=("cut_out",)), 0.0, 1, 400, 400, 0)
    assert more == pytest.approx(3 * least)
    seen = replace(bare, attention="occlusion")
    assert expected(seen, 1.0, 2, 400, 0, 0) == pytest.approx(24 * 65 * 2 / 60)


def test_attention_by_occlusion_tells_object_from_place(asked) -> None:
    names = {"conditions": (CLEAN, SHIFTED), "remedies": (), "attention": "occlusion"}
    scores = {
        model: audit(asked(model, **names)).attention["score"].iloc[0]
        for model in ("border", "middle")
    }
    assert scores["border"] < -0.05 < 0.5 < scores["middle"]


@pytest.mark.parametrize("method", ["gradient", "smoothgrad"])
def test_attention_by_gradients_tells_object_from_place(asked, home: Path, method: str) -> None:
    names = {"conditions": (CLEAN, SHIFTED), "remedies": (), "attention": method}
    scores = {}
    for model in (small_audit.Rim(), small_audit.Middle()):
        file = str(home / f"{type(model).__name__}.pt")
        torch.jit.save(torch.jit.script(model), file)
        found = audit(replace(asked("border", **names), model=file))
        scores[type(model)] = found.attention["score"].iloc[0]
    assert scores[small_audit.Rim] < 0 < 0.5 < scores[small_audit.Middle]


def test_a_trunk_pools_under_the_mask_and_has_every_remedy(asked) -> None:
    names = ("cut_out", "box_crop", "late_mask")
    whole = asked("border", remedies=names, attention="grad_cam", size=64)
    found = audit(replace(whole, model=foreign.DEFAULT))
    assert set(found.remedies["remedy"]) == set(names)
    assert found.remedies[["clean", "shifted"]].stack().between(0, 1).all()
    assert found.attention["score"].notna().all()


def test_a_model_of_a_study_is_found_by_its_name(home: Path, monkeypatch) -> None:
    trunk = "efficientnet_lite0"
    made, file = Embedder(trunk, 8, seed=1).eval(), home / "base-0.safetensors"
    save_weights(made, file)
    model = Model("triplet", "base", 0, trunk, 8, 64, "f32", file)
    monkeypatch.setattr("lib.experiments.audit.models.models_of", lambda study: [model])
    found = opened("study:tiny/triplet/base/0", foreign.Given())
    assert (found.size, found.width) == (64, 8)
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    with torch.no_grad():
        wanted = made(made.normalise(torch.from_numpy(image).permute(0, 3, 1, 2).float()))
    wanted = torch.nn.functional.normalize(wanted, dim=1)
    torch.testing.assert_close(found.embed(image), wanted, atol=1e-4, rtol=0)
    with pytest.raises(StudyError, match="has triplet/base/0"):
        opened("study:tiny/triplet/base/1", foreign.Given())


def test_sampling_takes_whole_classes_and_leaves_places() -> None:
    rows = [
        (f"{label}/{k}.png", f"c{label}", "both", True) for label in range(9) for k in range(30)
    ]
    table = pd.DataFrame(rows, columns=["path", "class_name", "side", "in_search"])
    made = audit_images.sampled(table, 100)
    test = made[made["split"] == "test"]
    assert (test.groupby("class_name").size() == audit_images.A_CLASS).all() and len(test) == 100
    spare = made[made["split"] == "train"]
    assert len(spare) == 60 and not set(spare["path"]) & set(test["path"])
    assert len(audit_images.sampled(table, 0)) == len(table)


def test_files_that_are_no_images_are_named_and_split_folders_honoured(asked, home: Path) -> None:
    catalogue(home / "tree")
    (home / "tree" / "labels.csv").unlink()
    folders = sorted((home / "tree" / "images").iterdir())
    for folder in folders:
        part = "train" if folder.name < "class 2" else "test"
        (home / "tree" / part).mkdir(exist_ok=True)
        folder.rename((home / "tree" / part).joinpath(folder.name))
    (home / "tree" / "images").rmdir()
    shutil.rmtree(home / "tree" / "masks")
    (home / "tree" / "test" / "class 3" / "notes.txt").write_text("no image")
    (home / "tree" / "test" / "class 3" / ".hidden.png").write_bytes(b"")
    names = {"images": str(home / "tree"), "remedies": (), "masks": "box_of_test"}
    found = audit(asked("border", **names))
    assert found.images["classes"] == 4 and found.images["queries"] == 16
    (told,) = [told for told in found.told if "left out" in told]
    assert told.startswith("1 ") and "notes.txt" in told and "hidden" not in told


def test_broken_images_and_copies_are_counted_and_named(asked, home: Path) -> None:
    """Said again by a second audit, which decodes nothing; the others are measured."""
    catalogue(home / "some")
    images = home / "some" / "images"
    (images / "class 0" / "0.png").write_bytes(b"no image")
    shutil.copy(images / "class 1" / "0.png", images / "class 1" / "3.png")  # of one size
    for _ in range(2):
        found = audit(asked("border", images=str(home / "some"), remedies=()))
        assert found.images["queries"] == 23
        (broken,) = [told for told in found.told if "cannot be read" in told]
        assert broken.startswith("1 ") and "class 0/0.png" in broken
        assert any(told.startswith("1 images are byte for byte copies") for told in found.told)


def test_what_is_assumed_of_a_callable_is_said(asked) -> None:
    assumed = opened(asked("border").model, foreign.Given()).assumed
    assert "RGB" in assumed and "224 pixels" in assumed and "mean" not in assumed
    assert opened(asked("border").model, foreign.Given(size=32, bgr=True)).assumed == ""


def test_split_folders_that_are_not_used_are_said(home: Path) -> None:
    catalogue(home / "shop")
    (home / "shop" / "labels.csv").unlink()
    shutil.rmtree(home / "shop" / "masks")
    for folder in sorted((home / "shop" / "images").iterdir()):
        for number, file in enumerate(sorted(folder.iterdir())):
            part = folder / ("train" if number < 3 else "test")
            part.mkdir(exist_ok=True)
            file.rename(part / file.name)
    *_, table, told = audit_images.tables(str(home / "shop" / "images"), "")
    assert len(table) == 24 and table["in_search"].all() and table["class_name"].nunique() == 6
    assert [text.split(" ", 1)[0] for text in told] == ["24"]


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_to_find_is_refused(home: Path, count: int) -> None:
    catalogue(home / "lone", classes=count, images=1)
    with pytest.raises(StudyError, match="two|classes"):
        audit_images.prepare(str(home / "lone"), "", 40, 0, "true", "rendered")


def test_a_ratio_has_the_interval_of_a_mean_where_the_whole_is_a_count() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(9), rng.integers(2, 9, 9))
    values = rng.random(len(classes)) + classes / 9
    part = pd.Series(np.bincount(classes, weights=values))
    found = ratio(part, pd.Series(np.bincount(classes).astype(float)))
    wanted = statistics.mean_by_class_bootstrap(values, classes)
    assert found == pytest.approx((wanted.mean, wanted.low, wanted.high))
    assert ratio(part, part * 0) == (None, None, None)
    assert ratio(part[:3], part[:3])[1:] == (None, None)


def test_plain_leaves_no_nan() -> None:
    made = plain({"a": np.float64("nan"), "b": [np.int64(3), float("inf")], "c": np.bool_(True)})
    assert made == {"a": None, "b": [3, None], "c": True}
