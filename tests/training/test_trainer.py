import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib.core import hardware, paths
from lib.core.errors import StudyError
from lib.core.files import read_json, write_json
from lib.evaluation import models
from lib.images.composite import composite
from lib.images.scenes import Scenes, TrainingBatch
from lib.models import trunks
from lib.models.embedder import Embedder, load_weights, save_weights
from lib.training import arms, fit, losses, sampling, trainer
from lib.training import recipe as recipes
from lib.training import study as training


class Tiny(nn.Module):
    """Two convolutions and a BatchNorm: trains in milliseconds."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2)
        )

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


TINY = {
    "dataset": "cub200", "loss": "triplet", "arm": "base", "seed": 0, "trunk": "tiny",
    "embedding": 4, "image_size": 32, "optimiser": "adamw", "lr_trunk": 1e-3, "lr_head": 1e-2,
    "lr_loss": 1e-2, "weight_decay": 0.0, "batch": 8, "iterations": 3, "epochs": 3, "patience": 9,
    "precision": "f32",
}  # fmt: skip


# The arguments of lib.training.study.measure
STUDY = {key: value for key, value in TINY.items() if key not in ("dataset", "loss", "arm", "seed")}
STUDY |= {"losses": ["triplet"], "arms": ["base", "bgaugment"], "seeds": [0, 1]}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> recipes.Recipe:
    entry = trunks.Trunk(lambda pretrained: Tiny(), "", trunks.LITE, 8, "")
    monkeypatch.setitem(trunks.TRUNKS, "tiny", entry)
    return recipes.Recipe(**TINY)


def weights(path: Path) -> bytes:
    return path.read_bytes()


# The paper's appendix, typed again: loss, data set, arguments, learning rate of its own weights.
PUBLISHED = """
contrastive         cars196  pos_margin=0.2652 neg_margin=0.5409
contrastive         cub200   pos_margin=-0.2000 neg_margin=0.3841
contrastive         sop      pos_margin=0.2850 neg_margin=0.5130
triplet             cars196  margin=0.1190
triplet             cub200   margin=0.0961
triplet             sop      margin=0.0452
multi_similarity    cars196  alpha=14.36 beta=75.83 base=0.6616
multi_similarity    cub200   alpha=0.01 beta=50.60 base=0.5625
multi_similarity    sop      alpha=8.492 beta=57.39 base=0.4167
arcface             cars196  margin=20.52 scale=49.50 lr=7.398e-6
arcface             cub200   margin=23.23 scale=100.0 lr=5.138e-3
arcface             sop      margin=18.63 scale=220.4 lr=2.019e-3
normalized_softmax  cars196  temperature=0.08863 lr=1.105e-2
normalized_softmax  cub200   temperature=0.1087 lr=4.469e-3
normalized_softmax  sop      temperature=0.06306 lr=5.468e-4
"""


@pytest.mark.parametrize("line", PUBLISHED.split("\n")[1:-1])
def test_the_values_are_the_papers_and_reach_the_loss(line: str) -> None:
    name, dataset, *values = line.split()
    expected = {key: float(value) for key, value in (value.split("=") for value in values)}
    assert losses.learning_rate(name, dataset) == expected.pop("lr", None)
    assert losses.arguments(name, dataset) == expected
    made = losses.build(name, expected, classes=3, size=4)
    for key, value in expected.items():
        seen = getattr(made, key)
        assert seen == pytest.approx(np.radians(value) if (name, key) == ("arcface", "margin")
                                     else value)  # fmt: skip
    assert losses.get(name).per_class == (1 if made.state_dict() else 4)


def test_a_data_set_without_published_values_gets_a_sentence(monkeypatch) -> None:
    assert losses.arguments("triplet", "rendered") == losses.arguments("triplet", "cub200")
    with pytest.raises(StudyError, match="no arguments for data set 'flowers'"):
        losses.arguments("triplet", "flowers")
    entry = replace(losses.get("triplet"), published={losses.ANY: {"margin": 0.5}})
    monkeypatch.setitem(losses.LOSSES, "mine", entry)
    assert losses.arguments("mine", "flowers") == {"margin": 0.5}
    with pytest.raises(StudyError, match="loss mine does not take .*'wrong'"):
        losses.build("mine", {"wrong": 1}, 3, 4)


@pytest.mark.fault(
    "parameters/range",
    "training values out of range",
    "precision, optimiser, arm, patience",
    "refused, value and possible ones told",
)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"optimiser": "sgd"}, "optimiser is 'sgd'; known: adamw, rmsprop"),
        ({"arm": "other"}, "unknown arm 'other'; known: base, bgaugment"),
        ({"patience": 0}, "patience is not a positive number"),
    ],
)
def test_an_impossible_recipe_is_refused_in_words(recipe, change: dict, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        recipes.check(replace(recipe, **change))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_learns_to_tell_classes_apart(study: str, recipe, name: str, tmp_path) -> None:
    made = replace(recipe, loss=name, iterations=25, epochs=1)
    run = trainer.Run(made, Scenes(study, "drawn"))
    fixed = np.arange(12)  # always the same images in the same crops: the loss must fall
    values = [float(run.step(fixed, number=0)) for _ in range(25)]
    assert values[-1] < values[0]
    assert min(values[:3]) > 0


def test_batchnorm_stays_as_it_is_and_the_rest_moves(study: str, recipe) -> None:
    run = trainer.Run(recipe, Scenes(study, "drawn"))
    run.model.train()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.step(np.arange(8), 0)
    for name, value in run.model.state_dict().items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(value, before[name]), name
    moved = [n for n, v in run.model.state_dict().items() if not torch.equal(v, before[n])]
    assert {"trunk.body.0.weight", "head.weight"} <= set(moved)


@pytest.mark.parametrize(("name", "m"), [("triplet", 4), ("arcface", 1)])
def test_the_sampler_gives_m_images_of_a_class(recipe, name: str, m: int) -> None:
    labels = np.repeat(np.arange(10), 7)
    rows = sampling.epoch_rows(labels, replace(recipe, loss=name), epoch=1)
    assert rows.shape == (3, 8)
    for batch in rows:
        assert set(np.unique(labels[batch], return_counts=True)[1]) == {m}
    again = sampling.epoch_rows(labels, replace(recipe, loss=name), epoch=1)
    np.testing.assert_array_equal(rows, again)
    other = sampling.epoch_rows(labels, replace(recipe, loss=name, seed=1), epoch=1)
    assert (rows != other).any()


def test_few_classes_give_more_images_of_each(recipe) -> None:
    labels = np.repeat([0, 1], 30)
    rows = sampling.epoch_rows(labels, replace(recipe, loss="arcface"), epoch=1)
    assert all(np.bincount(labels[batch]).tolist() == [4, 4] for batch in rows)


@pytest.mark.fault(
    "numbers/m",
    "m per class larger than a class",
    "classes of two and three pictures, m = 4",
    "some are drawn twice, as in the paper's sampler; said on the page",
)
def test_a_class_with_too_few_images_gives_some_twice_and_it_is_said(study, recipe) -> None:

    labels = np.repeat(np.arange(4), [7, 2, 3, 9])
    assert sampling.short_classes(labels, 4) == 2 and sampling.short_classes(labels, 2) == 0
    rows = sampling.epoch_rows(labels, replace(recipe, batch=16), epoch=1)
    for batch in rows:
        assert np.bincount(labels[batch]).tolist() == [4, 4, 4, 4]
        assert len(set(batch[labels[batch] == 0])) == 4  # enough images: no repetition
        assert set(batch[labels[batch] == 1]) <= {7, 8}


@pytest.mark.fault(
    "numbers/batch-m",
    "batch that m does not divide",
    "batch of 10, m = 4",
    "the nearest batch that it divides; the page says so",
)
def test_a_batch_that_m_does_not_divide_becomes_the_nearest(recipe) -> None:
    rows = sampling.epoch_rows(np.repeat(np.arange(5), 6), replace(recipe, batch=10), epoch=1)
    assert rows.shape[1] == 12  # of 8 and 12 the nearer, ties upwards
    rows = sampling.epoch_rows(np.repeat(np.arange(3), 12), replace(recipe, batch=32), epoch=1)
    assert all(np.bincount(np.repeat(np.arange(3), 12)[b]).tolist() == [11] * 3 for b in rows)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_any_number_of_classes_and_images_can_be_sampled(recipe, name: str) -> None:
    for classes in [*range(2, 40), 98]:
        for batch in (2, 7, 8, 32, 33):
            labels = np.repeat(np.arange(classes), np.resize([2, 3, 12], classes))
            asked = replace(recipe, loss=name, batch=batch, iterations=2)
            m = losses.get(name).per_class
            for rows in sampling.epoch_rows(labels, asked, epoch=1):
                counts = np.unique(labels[rows], return_counts=True)[1]
                assert len(set(counts)) == 1 and len(counts) >= 2 and counts[0] >= m
                assert abs(len(rows) - batch) <= max(counts[0] / 2, 2 * m - batch)
            if batch % m == 0 and m * classes >= batch >= 2 * m:
                assert len(rows) == batch and counts[0] == m  # as in the paper


def test_the_number_of_threads_changes_nothing(study, recipe, tmp_path, monkeypatch) -> None:
    scenes, seen, step = Scenes(study, "drawn"), set(), trainer.Run.step

    def spy(self: trainer.Run, *args: object) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return step(self, *args)

    monkeypatch.setattr(trainer.Run, "step", spy)
    before, made = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        made.append(weights(fit.fit(recipe, scenes, tmp_path / str(count))[0]))
        assert torch.get_num_threads() == count
    torch.set_num_threads(before)
    assert seen == {hardware.THREADS} and made[0] == made[1]


def test_dropout_repeats_too(study, recipe, tmp_path, monkeypatch) -> None:
    entry = trunks.TRUNKS["tiny"]

    def build(pretrained: bool) -> nn.Module:
        model = entry.build(pretrained)
        model.body.append(nn.Dropout(0.5))
        return model

    monkeypatch.setitem(trunks.TRUNKS, "tiny", replace(entry, build=build))
    scenes = Scenes(study, "drawn")
    first, second = (fit.fit(recipe, scenes, tmp_path / name)[0] for name in "ab")
    assert weights(first) == weights(second)


def test_a_killed_run_ends_with_the_same_weights(study, recipe, tmp_path, monkeypatch) -> None:
    scenes = Scenes(study, "drawn")
    whole, history = fit.fit(recipe, scenes, tmp_path / "whole")
    steps, step = [], trainer.Run.step

    def dies(self: trainer.Run, *args: object) -> float:
        steps.append(args)
        if len(steps) == 5:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(trainer.Run, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(recipe, scenes, tmp_path / "cut")
    assert not list((tmp_path / "cut").glob("*/history.csv"))
    resumed, again = fit.fit(recipe, scenes, tmp_path / "cut")
    assert len(steps) == 5 + 6  # one epoch was kept, two were run again
    pd.testing.assert_frame_equal(history, again)
    assert weights(whole) == weights(resumed)


def test_a_finished_run_is_not_trained_again(study, recipe, tmp_path, monkeypatch) -> None:
    scenes = Scenes(study, "drawn")
    first, history = fit.fit(recipe, scenes, tmp_path)
    monkeypatch.setattr(trainer.Run, "step", lambda *a: pytest.fail("trained again"))
    second, again = fit.fit(recipe, scenes, tmp_path)
    assert first == second
    pd.testing.assert_frame_equal(history, again)
    with pytest.raises(pytest.fail.Exception):
        fit.fit(replace(recipe, lr_trunk=5e-4), scenes, tmp_path)


def test_the_best_epoch_is_kept_and_patience_stops(study, recipe, tmp_path, monkeypatch) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.25, 0.9])
    seen = []

    def validate(self: trainer.Run) -> dict[str, float]:
        seen.append({k: v.clone() for k, v in self.model.state_dict().items()})
        value = next(scores)
        return {"clean": value, "random_background": 1 - value}

    monkeypatch.setattr(trainer.Run, "validate", validate)
    made = replace(recipe, epochs=9, patience=2)
    path, history = fit.fit(made, Scenes(study, "drawn"), tmp_path)
    assert history["epoch"].max() == 3 and set(history["best"]) == {1}
    kept = load_weights(Embedder("tiny", 4), path).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in seen[1].items())


def test_bgaugment_is_chosen_on_replaced_backgrounds() -> None:
    assert arms.get("base").select_on == "clean"
    assert arms.get("bgaugment").select_on == "random_background"


@pytest.mark.fault(
    "numbers/loss",
    "loss NaN or infinite",
    "a step that returns one",
    "stops; step, pictures and learning rates named; the last whole epoch is kept",
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_step_images_and_rates(
    study, recipe, value: float, monkeypatch
) -> None:
    run, step = trainer.Run(replace(recipe, arm="bgaugment"), Scenes(study, "drawn")), []
    kept = trainer.Run.step

    def breaks(self: trainer.Run, positions: np.ndarray, number: int) -> torch.Tensor:
        loss = kept(self, positions, number)
        return loss * value if number in (4, 5) else loss

    monkeypatch.setattr(trainer.Run, "step", breaks)
    run.train_epoch(1)  # steps 0 to 2
    with pytest.raises(StudyError) as caught:
        run.train_epoch(2)
    step = run.rows[sampling.epoch_rows(run.labels, run.recipe, 2)[1]]
    text = str(caught.value)
    assert f"became {value} at step 4 (epoch 2" in text
    assert f"this batch: {step.tolist()}" in text and len(step) == 8
    assert "lr_trunk 0.001, lr_head 0.01, lr_loss 0.01" in text


@pytest.mark.fault(
    "parameters/seeds",
    "seed given twice",
    "seeds [1, 1]",
    "refused",
)
def test_seeds_losses_and_arms_are_given_once_each(study, recipe) -> None:
    for name, given in (("seeds", [1, 1]), ("losses", []), ("arms", ["base", "base"])):
        with pytest.raises(StudyError, match=f"`{name}` is .*each once"):
            training.measure(study, **{**STUDY, name: given})
    for name, given in (("losses", ["other"]), ("arms", ["other"])):
        with pytest.raises(StudyError, match="unknown .* 'other'; known"):
            training.measure(study, **{**STUDY, name: given})


def test_a_study_writes_what_the_next_step_reads(study, recipe) -> None:
    table = training.measure(study, **STUDY)
    assert set(zip(table["arm"], table["seed"], strict=True)) == {
        ("base", 0), ("base", 1), ("bgaugment", 0), ("bgaugment", 1),
    }  # fmt: skip
    found = models.models_of(study)
    assert [m.arm for m in found] == ["untrained", "base", "bgaugment", "base", "bgaugment"]
    assert all(m.weights.exists() for m in found[1:])
    assert models.trained(study) == {
        "losses": ["triplet"], "arms": ["base", "bgaugment"], "seeds": [0, 1],
    }  # fmt: skip
    training.measure(study, **{**STUDY, "losses": ["arcface"], "arms": ["base"], "seeds": [2]})
    assert [(m.loss, m.seed) for m in models.models_of(study)[1:]] == [("arcface", 2)]
    assert not (paths.StudyPaths(study).models / "triplet").exists()


def test_what_was_measured_before_is_not_trained_again(study, recipe, monkeypatch) -> None:
    """Only where KEEP_MEASURED asks for it, and only by the very same recipe, data and code."""
    few = {**STUDY, "arms": ["base"], "seeds": [0]}
    first = training.measure(study, **few)
    where = paths.StudyPaths(study)
    [entry] = read_json(where.models / "triplet" / "models.json")
    folder = where.measured / "evaluation"
    manifest = {"model": entry["sha256"]} | {
        name: entry[name] for name in ("training", "precision", "origin", "recipe")
    }
    write_json(folder / "models" / "triplet-base-0.json", manifest)
    first.to_csv(folder / "training.csv", index=False)
    trained = []

    def fit_and_note(recipe, scenes, scratch):
        trained.append(recipe.name)
        return fit.fit(recipe, scenes, scratch)

    monkeypatch.setattr(training, "fit", fit_and_note)

    def again(**changed) -> list[str]:
        trained.clear()
        shutil.rmtree(where.models)
        shutil.rmtree(where.scratch)
        training.measure(study, **{**few, **changed})
        return list(trained)

    assert again() == ["triplet-base-0"]
    monkeypatch.setenv("KEEP_MEASURED", "1")
    assert again(seeds=[0, 1]) == ["triplet-base-1"]
    kept, new = models.models_of(study)[1:]
    assert kept.identity == entry["sha256"] and not kept.weights.exists() and new.weights.exists()
    with pytest.raises(StudyError, match="measured on another machine"):
        kept.load()
    history = pd.read_csv(where.models / "training.csv")
    assert history[history["seed"] == 0]["map_at_r"].tolist() == first["map_at_r"].tolist()
    assert again(lr_head=STUDY["lr_head"] * 2) == ["triplet-base-0"]


def test_an_arm_may_show_views_and_add_a_term(study, recipe, monkeypatch) -> None:
    """Each image twice, on its own and on grey; the term pulls both views together."""
    seen = []

    def half_grey(batch: TrainingBatch) -> torch.Tensor:
        half = len(batch.images) // 2
        moved = composite(batch.images, batch.masks, arms.grey(batch))
        return torch.cat([batch.images[:half], moved[half:]])

    def apart(step: arms.Step) -> torch.Tensor:
        seen.append(step)
        a, b = step.embeddings.chunk(2)
        return 1000 * (a - b).square().sum(1).mean()

    entry = arms.Arm("Pairs", half_grey, views=2, term=apart)
    monkeypatch.setitem(arms.ARMS, "pairs", entry)
    run = trainer.Run(replace(recipe, arm="pairs"), Scenes(study, "drawn"))
    losses_seen = [float(run.step(np.arange(8), number)) for number in range(15)]
    first = seen[0]
    assert first.images.shape == (8, 3, 32, 32) and first.masks.shape == (8, 1, 32, 32)
    assert first.labels[:4].tolist() == first.labels[4:].tolist() == run.labels[:4].tolist()
    gaps = [float((a - b).norm()) for a, b in (step.embeddings.chunk(2) for step in seen)]
    assert gaps[-1] < 0.5 * gaps[0] and losses_seen[-1] < losses_seen[0]


def test_other_code_is_another_model(study, recipe, tmp_path, monkeypatch) -> None:
    scenes = Scenes(study, "drawn")
    one = fit.folder_of(recipe, scenes, tmp_path)
    monkeypatch.setattr(fit, "fingerprint", lambda *rooms: "other")
    assert fit.folder_of(recipe, scenes, tmp_path) != one


@pytest.mark.fault(
    "foreign/weights",
    "foreign or missing weights",
    "a pickle, no file, another network's",
    "refused, file named",
)
def test_foreign_weights_are_refused(tmp_path, recipe) -> None:
    model = Embedder("tiny", 4)
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(StudyError, match="does not hold weights of this model"):
        load_weights(model, tmp_path / "a.safetensors")
    with pytest.raises(StudyError, match="Run 03_train"):
        load_weights(model, tmp_path / "b.safetensors")
    save_weights(Embedder("tiny", 5), tmp_path / "c.safetensors")
    with pytest.raises(StudyError, match="c.safetensors"):
        load_weights(model, tmp_path / "c.safetensors")


def test_efficientnet_lite0_knows_imagenet() -> None:
    model = trunks.efficientnet_lite0(True)
    assert model.width == 1280
    assert model.features(torch.zeros(1, 3, 64, 64)).shape == (1, 1280, 2, 2)
    untrained = trunks.efficientnet_lite0(False)
    mean = [m.model.conv_stem.weight.abs().mean() for m in (model, untrained)]
    assert abs(mean[0] - mean[1]) > 0.01


@pytest.mark.fault(
    "parameters/names",
    "unknown loss or trunk",
    "a wrong name",
    "refused, known names listed",
)
def test_an_unknown_name_lists_the_known_ones() -> None:
    for get in (losses.get, trunks.get):
        with pytest.raises(StudyError, match="unknown .* 'tripletts'; known: "):
            get("tripletts")


def test_normalise_is_per_channel_and_may_turn_rgb_round() -> None:
    pixels = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)
    assert trunks.CAFFE(pixels).flatten().tolist() == [30 - 104, 20 - 117, 10 - 128]
    assert trunks.LITE(pixels).flatten()[0] == (10 - 127) / 128
