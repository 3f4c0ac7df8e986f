"""Effects against plain loops over queries; cached embeddings and scores; other masks."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy import stats as scipy_stats

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import read_json, write_json
from lib.evaluation import effects as effects_of
from lib.evaluation import embeddings, mask_robustness, statistics
from lib.evaluation import models as trained_models
from lib.images import conditions
from lib.images.scenes import Scenes
from lib.models import embedding
from lib.retrieval import metrics
from lib.training import arms

MODELS = [("none", "untrained", 0), ("triplet", "base", 0), ("triplet", "bgaugment", 0)]
PLACES = ["clean", "random_background", "same_class_tiled", "other_class_tiled"]


def queries(seeds: int = 1) -> pd.DataFrame:
    """Values of 14 queries of 6 uneven classes; two draws of the random background."""
    generator, frames = np.random.default_rng(0), []
    label = np.repeat(np.arange(6) * 10, [1, 2, 3, 4, 1, 3])
    models = MODELS[:1] + [(*name[:2], s) for s in range(seeds) for name in MODELS[1:]]
    for (loss, arm, seed), condition in itertools.product(models, PLACES):
        for sides in ("both",) if condition == "clean" else ("both", "query"):
            for draw in range(2 if condition == "random_background" else 1):
                frame = pd.DataFrame({"row": np.arange(14) + 5, "label": label})
                frame = frame.assign(loss=loss, arm=arm, seed=seed, condition=condition)
                frame = frame.assign(sides=sides, draw=draw)
                values = generator.random((3, 14))
                values[:, label == 40] = np.nan  # a class with one image
                frames.append(frame.assign(**dict(zip(embeddings.METRICS, values, strict=True))))
    return pd.concat(frames, ignore_index=True)


def level(rows: pd.DataFrame, metric: str, **wanted: object) -> dict[int, float]:
    """Mean over draws of every defined query, by loop."""
    found: dict[int, list] = {}
    for line in rows.to_dict("records"):
        if (
            all(line[key] == value for key, value in wanted.items())
            and line[metric] == line[metric]
        ):
            found.setdefault(line["row"], []).append(line[metric])
    return {row: sum(values) / len(values) for row, values in found.items()}


def test_effects_are_paired_means_over_queries() -> None:
    rows = queries()
    table = effects_of.effects(embeddings.by_class(rows))
    assert table.groupby("contrast").size().to_dict() == {
        "shifted-clean": 3 * 3 * 2 * 3, "bgaugment-base": (1 + 3 * 2) * 3, "same-other": 3 * 2 * 3,
    }  # fmt: skip
    for line in table.to_dict("records"):
        mine = {key: line[key] for key in ("loss", "arm", "seed", "condition", "sides")}
        other = {
            "shifted-clean": {"condition": "clean", "sides": "both"},
            "bgaugment-base": {"arm": "base"},
            "same-other": {"condition": "other_class_tiled"},
        }[line["contrast"]]
        a = level(rows, line["metric"], **mine)
        b = level(rows, line["metric"], **{**mine, **other})
        moved = [a[row] - b[row] for row in a]
        assert (line["n"], line["value"]) == (13, pytest.approx(np.mean(moved)))
        assert line["low"] <= line["value"] <= line["high"] and 0 < line["p"] <= line["p_holm"]


def test_effects_carry_the_interval_and_the_holm_family_of_lib_stats() -> None:
    rows = queries()
    table = effects_of.effects(embeddings.by_class(rows))
    part = table[(table["contrast"] == "shifted-clean") & (table["metric"] == "p_at_1")]
    assert part["p_holm"].tolist() == statistics.holm(part["p"]).tolist()
    keys = ["loss", "arm", "condition", "sides"]
    wide = rows.pivot_table(index=["row", "label"], columns=keys, values="map_at_r")
    a, b = (
        wide["triplet", "base", "random_background", "query"],
        wide["triplet", "base", "clean", "both"],
    )
    expected = statistics.paired_difference(a, b, wide.index.get_level_values("label"), flips=9)
    row = effects_of.select(table, "shifted-clean", "random_background", "query").iloc[1]
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_more_tests_than_the_least_p_value_allows_can_still_be_rejected() -> None:
    assert 1 / (effects_of.FLIPS + 1) * 31 * 2 * len(conditions.CONDITIONS) < 0.05  # 31 models


def test_intervals_are_named_for_what_they_cover() -> None:
    table = effects_of.intervals(embeddings.by_class(queries())).set_index(
        ["covers", "loss", "arm", "condition", "sides"]
    )
    one = table[table["metric"] == "map_at_r"]
    drawn = one.loc["draws", "triplet", "base", "random_background", "both"]
    classes = one.loc["classes", "triplet", "base", "random_background", "both"]
    seeds = one.loc["seeds", "triplet", "base", "random_background", "both"]
    assert (drawn["n"], classes["n"], seeds["n"]) == (2, 5, 1)
    rows = queries()
    means = [
        np.mean(list(level(
            rows, "map_at_r", arm="base", condition="random_background", sides="both", draw=d
        ).values()))
        for d in (0, 1)
    ]  # fmt: skip
    expected = statistics.over_draws(means)
    assert (drawn["low"], drawn["high"]) == pytest.approx((expected.low, expected.high))
    assert classes["value"] == pytest.approx(np.mean(means)) == seeds["value"]
    assert np.isnan(seeds["low"]) and seeds["seed"] == "all"


def test_several_seeds_have_an_interval() -> None:
    rows = queries(seeds=3)
    table = effects_of.intervals(embeddings.by_class(rows))
    seeds = table[(table["covers"] == "seeds") & (table["arm"] == "base")]
    assert (seeds["n"] == 3).all() and seeds["low"].notna().all()


def test_classes_that_lose_and_worst_classes() -> None:
    rows = queries()
    table = effects_of.class_losses(embeddings.by_class(rows))
    assert len(table) == 3 * 5 and table["change"].dropna().is_monotonic_increasing
    row = table[(table["arm"] == "base") & (table["label"] == 20)].iloc[0]
    clean = level(rows, "map_at_r", arm="base", condition="clean", label=20)
    assert (row["n"], row["clean"]) == (3, pytest.approx(np.mean(list(clean.values()))))
    assert 40 not in set(table["label"])  # nothing to find
    worst = effects_of.worst_classes(table.assign(class_name=table["label"].astype(str)))
    base = worst[worst["arm"] == "base"].iloc[0]
    expected = table[table["arm"] == "base"].set_index("label")["clean"].idxmin()
    assert base["clean: worst class"] == str(expected)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[trained_models.Model]:
    """Three models whose embedding is the picture itself, shrunk; embed() counts its calls."""

    def embed(factor, scenes, rows, condition, *, draw, seed, size, forward):
        calls.append(condition)
        made = conditions.specimen(scenes, rows, [condition], size, rows, draw, seed)[condition]
        small = F.adaptive_avg_pool2d(torch.tensor(np.stack(made)).float().permute(0, 3, 1, 2), 4)
        return F.normalize(small.flatten(1) - factor, dim=1)

    calls: list[str] = []
    made = [
        trained_models.Model(
            *names, "trunk", 48, 40, "f32", None if k == 0 else paths.ROOT / names[1]
        )
        for k, names in enumerate(MODELS)
    ]
    monkeypatch.setattr(trained_models.Model, "identity", property(lambda self: self.arm))
    monkeypatch.setattr(trained_models.Model, "load", lambda self: 90.0 + 20 * (self.arm == "base"))
    monkeypatch.setattr(embedding, "embed", embed)
    monkeypatch.setattr(trained_models, "models_of", lambda study: made)
    monkeypatch.setattr(embeddings, "loaded", lambda model: (model.load(), None))
    made.append(calls)
    return made


def test_scores_are_computed_once_and_anew_for_other_pictures(study: str, models: list) -> None:
    calls = models.pop()
    view = embeddings.View(study, models[1], Scenes(study, "drawn"))
    first = view.scores("random_background", 1, "query")
    assert calls == ["random_background", "clean"]
    again = embeddings.View(study, models[1], Scenes(study, "drawn"))
    second = again.scores("random_background", 1, "query")
    assert len(calls) == 2 and all(torch.equal(first[name], second[name]) for name in first)
    moved, clean = view.embeddings("random_background", 1), view.embeddings("clean")
    expected = metrics.evaluate(
        moved, view.labels, clean, view.labels, exclude=torch.arange(len(moved))
    )
    torch.testing.assert_close(first["map_at_r"], expected["map_at_r"])
    keys = {
        view.key("clean", 0), view.key("clean", 1), view.key("own_background", 0),
        embeddings.View(study, models[2], view.scenes).key("clean", 0),
        embeddings.View(study, models[1], view.scenes, seed=1).key("clean", 0),
    }  # fmt: skip
    assert len(keys) == 5


def test_every_model_condition_and_side_has_its_rows(study: str, models: list) -> None:
    models.pop()
    planned = embeddings.plan(["clean", "random_background"], 2, 1)
    found = [embeddings.per_query(study, m, Scenes(study, "drawn"), planned) for m in models]
    rows = pd.concat(itertools.chain(*found))
    counts = rows.groupby(["arm", "condition", "sides", "draw"]).size()
    assert len(counts) == 3 * (1 + 3 * 2) and (counts == 12).all()
    apart = rows[rows["sides"] == "unshared"].set_index(["arm", "draw", "row"])["map_at_r"]
    both = rows[(rows["sides"] == "both") & (rows["condition"] == "random_background")]
    both = both.set_index(["arm", "draw", "row"])["map_at_r"]
    assert (apart != both.loc[apart.index]).any()  # three photographs behind twelve images


def test_masks_of_other_kinds_are_named_made_and_kept(study: str) -> None:
    assert mask_robustness.names(study, ["eroded"]) == ["drawn", "drawn+eroded"]
    assert mask_robustness.names(study, ["full"]) == ["drawn", "full"]
    with pytest.raises(StudyError, match="unknown mask variant 'erode'.*eroded.*true"):
        mask_robustness.names(study, ["erode"])
    scenes = Scenes(study, "drawn")
    store, usable = mask_robustness.load(study, "drawn+eroded")
    own = scenes.images.stores[1]
    test, train = scenes.store.rows("test")[0], scenes.store.rows("train")[0]
    assert (store.image(test) <= own.image(test)).all() and (
        store.image(test) != own.image(test)
    ).any()
    np.testing.assert_array_equal(store.image(train), own.image(train))
    assert not usable[-1] and usable[test]
    whole, none = mask_robustness.load(study, "full")  # not made by 02_masks: made in scratch
    assert (whole.image(test) == 255).all() and not none.any()
    assert not (paths.StudyPaths(study).masks / "full").exists()
    usable = usable.copy()
    again, _ = mask_robustness.load(study, "drawn+eroded")
    assert again.fingerprint == store.fingerprint
    other = mask_robustness.through(scenes, store, usable)
    assert other.fingerprint != scenes.fingerprint and scenes.images.stores[1] is own
    usable[test] = False
    assert not mask_robustness.through(scenes, store, usable).usable[test]


def test_masks_of_another_source_join_if_they_fit(study: str) -> None:
    home = paths.StudyPaths(study).masks
    (home / "better").mkdir()
    for file in (home / "drawn").iterdir():
        (home / "better" / file.name).write_bytes(file.read_bytes())
    assert mask_robustness.names(study, []) == ["drawn", "better"]
    facts = read_json(home / "better" / "masks.json")
    write_json(home / "better" / "masks.json", {**facts, "images": "of another study"})
    assert mask_robustness.names(study, []) == ["drawn"]


def test_sensitivity_compares_like_with_like(study: str, models: list) -> None:
    calls = models.pop()
    table = mask_robustness.sensitivity(study, ["eroded", "dilated"])
    assert table["masks"].unique().tolist() == ["drawn", "drawn+eroded", "drawn+dilated"]
    assert calls.count("clean") == 2 and calls.count("own_background") == 6
    assert set(table["arm"]) == {"base", "bgaugment"} and table["usable"].iloc[0] == 11 / 12
    base = table[(table["condition"] == "clean") & (table["arm"] == "base")]
    clean = base.groupby("masks")["map_at_r"].mean()
    assert clean.nunique() == 1  # no mask in a clean image


def test_a_mean_over_models_has_the_interval_of_the_mean() -> None:
    """Resampled by hand: the models' mean of each query, then whole classes, then trainings."""
    rows = queries(seeds=2)
    found = effects_of.joint(embeddings.by_class(rows), "shifted-clean", PLACES[1], "both")
    assert found["arm"].tolist() == ["untrained", "base", "bgaugment"]
    assert found["models"].tolist() == [1, 2, 2] and (found["n"] == 13).all()
    base = rows[(rows["arm"] == "base") & (rows["sides"] == "both")]
    wide = base.pivot_table(index=["row", "label"], columns="condition", values="map_at_r")
    moved = (wide[PLACES[1]] - wide["clean"]).dropna()
    labels = moved.index.get_level_values("label")
    expected = statistics.mean_by_class_bootstrap(moved.to_numpy(), labels)
    row = found.set_index("arm").loc["base"]
    assert row["value"] == pytest.approx(expected.mean)
    per_seed = base[base["condition"].isin([PLACES[1], "clean"])].dropna(subset="map_at_r")
    per_seed = per_seed.pivot_table(index="seed", columns="condition", values="map_at_r")
    seeds = per_seed[PLACES[1]] - per_seed["clean"]
    trainings = abs(seeds.iloc[0] - seeds.iloc[1]) / 2  # standard error of the mean of two
    half = np.hypot(expected.high - expected.mean, scipy_stats.t.ppf(0.975, 1) * trainings)
    assert (row["low"], row["high"]) == pytest.approx((row["value"] - half, row["value"] + half))
    level = effects_of.joint_levels(embeddings.by_class(rows)).set_index(["arm", "condition"])
    assert level.loc[("base", "clean"), "value"] == pytest.approx(wide["clean"].mean())


def test_a_share_lost_is_that_of_the_means_and_resamples_classes() -> None:
    rows = queries()
    found = effects_of.share_lost(embeddings.by_class(rows)).set_index("arm")
    base = rows[(rows["arm"] == "base") & (rows["sides"] == "both")]
    wide = base.pivot_table(index=["row", "label"], columns="condition", values="map_at_r")
    wide = wide[["clean", PLACES[1]]].dropna()
    row = found.loc["base"]
    assert row["value"] == pytest.approx(1 - wide[PLACES[1]].mean() / wide["clean"].mean())
    sums = wide.groupby(level="label").sum().to_numpy()
    rng = np.random.default_rng(3)
    drawn = [sums[rng.integers(0, len(sums), len(sums))].sum(0) for _ in range(4000)]
    shares = [1 - moved / clean for clean, moved in drawn]
    assert row["low"] < np.quantile(shares, 0.25) and row["high"] > np.quantile(shares, 0.75)
    assert row["high"] - row["value"] == pytest.approx(row["value"] - row["low"])
    assert row["high"] - row["low"] < 12 * np.std(shares)  # five classes: long tails
    assert effects_of.share_lost(embeddings.by_class(rows), "unknown").empty
    alone = effects_of.share_lost(embeddings.by_class(rows), by=("loss", "arm"))
    one = embeddings.by_class(rows[rows["loss"] == alone["loss"].iloc[-1]])
    same = effects_of.share_lost(one).set_index("arm").loc[alone["arm"].iloc[-1]]
    assert alone.iloc[-1][["value", "low", "high"]].tolist() == same[:3].tolist()


def test_what_a_setting_gives_back_is_a_share_of_the_drop() -> None:
    rows = queries()
    classes = embeddings.by_class(rows).replace({"condition": {PLACES[1]: "random_background"}})
    found = effects_of.given_back(classes, "random_background", "query").set_index("arm")
    level = {
        key: np.average(part["map_at_r"], weights=part["n"])
        for key, part in classes.groupby(["loss", "arm", "seed", "draw", "condition", "sides"])
    }
    means = pd.Series(level).groupby(level=[1, 4, 5]).mean()["base"]
    clean, random, query = (
        means[at] for at in (("clean", "both"), ("random_background", "both"),
                             ("random_background", "query"))
    )  # fmt: skip
    row = found.loc["base"]
    assert row["value"] == pytest.approx((query - random) / (clean - random))
    assert row["low"] < row["value"] < row["high"]
    assert effects_of.given_back(classes, "unknown", "both").empty
    whole = effects_of.given_back(classes, "clean", "both").set_index("arm").loc["base"]
    assert whole["value"] == pytest.approx(1) and whole["high"] == pytest.approx(1)


def test_a_third_arm_gets_its_contrast_and_one_arm_gets_none(monkeypatch) -> None:
    monkeypatch.setitem(arms.ARMS, "grey", arms.Arm("Grey", arms.replaced(arms.grey)))
    rows = queries()
    third = rows[rows["arm"] == "bgaugment"].assign(arm="grey")
    classes = embeddings.by_class(pd.concat([rows, third]))
    table = effects_of.effects(classes)
    assert {"bgaugment-base", "grey-base"} <= set(table["contrast"])
    one = effects_of.effects(classes[classes["arm"] == "base"])
    assert set(one["contrast"]) == {"shifted-clean", "same-other"}
    assert effects_of.joint(classes, "grey-nothing", PLACES[1], "both").empty
