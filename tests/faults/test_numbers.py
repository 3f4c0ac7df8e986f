"""Numbers that go wrong: they stop the run with the value named, or are said on the page."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.core.errors import StudyError
from lib.evaluation import embeddings
from lib.images.scenes import Scenes
from lib.models import embedder
from lib.report import training_curves
from lib.training import fit as fitting
from lib.training import sampling, trainer


@pytest.mark.fault(
    "numbers/rate",
    "learning rate far too high",
    "rates of 1e30 and of 1e3",
    "stops with the rates named, or keeps the epoch that validation chose; weights are numbers",
)
@pytest.mark.parametrize("rate", [1e30, 1e3])
@pytest.mark.parametrize("optimiser", ["adamw", "rmsprop"])
def test_a_rate_far_too_high(study, recipe, tmp_path, rate: float, optimiser: str) -> None:
    made = replace(recipe, lr_trunk=rate, lr_head=rate, optimiser=optimiser, iterations=1, epochs=2)
    try:
        best, history = fitting.fit(made, Scenes(study, "drawn"), tmp_path)
    except StudyError as error:
        assert f"lr_trunk {rate:g}" in str(error)
        assert not list(tmp_path.glob("*/history.csv"))
    else:
        assert history["map_at_r"].notna().all()
        weights = embedder.trained(best, "tiny", 4).state_dict().values()
        assert all(torch.isfinite(value).all() for value in weights)


@pytest.mark.fault(
    "numbers/weights",
    "weights that become NaN in the last step of an epoch",
    "one weight set to NaN after a step with a sound loss",
    "stops before the epoch is judged or kept; rates named",
)
def test_weights_that_are_no_numbers_are_not_kept(study, recipe, tmp_path, monkeypatch) -> None:
    one = trainer.Run.train_epoch

    def spoils(self: trainer.Run, epoch: int) -> float:
        loss = one(self, epoch)
        if epoch == 2:
            next(self.model.parameters()).data[0] = torch.nan
        return loss

    monkeypatch.setattr(trainer.Run, "train_epoch", spoils)
    with pytest.raises(StudyError, match="no number in epoch 2 .*lr_trunk 0.001"):
        fitting.fit(recipe, Scenes(study, "drawn"), tmp_path)
    assert not list(tmp_path.glob("*/history.csv"))


@pytest.mark.fault(
    "numbers/size",
    "crops larger than the stored pictures",
    "image_size 73, side 72",
    "refused, both numbers named",
)
def test_crops_larger_than_the_store_are_refused(study, recipe, tmp_path) -> None:
    scenes = Scenes(study, "drawn")
    with pytest.raises(StudyError, match="image_size is 73 pixels, .* short side of 72"):
        fitting.fit(replace(recipe, image_size=73), scenes, tmp_path)
    trainer.Run(replace(recipe, image_size=72), scenes)


@pytest.mark.fault(
    "numbers/batch",
    "batch larger than the set",
    "batch of 64 from 12 training pictures",
    "pictures are drawn several times, as many of each class; the page says so",
)
def test_a_batch_larger_than_the_set(study, recipe) -> None:

    labels = np.repeat([0, 1], 6)
    rows = sampling.epoch_rows(labels, replace(recipe, batch=64), epoch=1)
    assert all(np.bincount(labels[batch]).tolist() == [32, 32] for batch in rows)
    assert "2 of the classes have fewer than 32" in training_curves.sampling(labels, "triplet", 64)


@pytest.mark.fault(
    "numbers/draws",
    "no draws, or no clean condition",
    "draws 0; a list without clean",
    "refused in words",
)
def test_a_plan_without_draws_is_refused() -> None:
    with pytest.raises(StudyError, match="draws are 0 and 1"):
        embeddings.plan(["clean", "random_background"], 0, 1)
    with pytest.raises(StudyError, match="must hold 'clean'"):
        embeddings.plan(["random_background"], 1, 1)
