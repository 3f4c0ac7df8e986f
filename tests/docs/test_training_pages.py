"""The pages on training do what they say: their code is taken from the page and run."""

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.core import hardware
from lib.evaluation import remedies
from lib.images.scenes import Scenes
from lib.models import trunks
from lib.models.embedder import Embedder
from lib.training import arms, losses, trainer
from lib.training import recipe as recipes
from tests.helpers import run, text_of
from tests.training.test_trainer import TINY, Tiny


@pytest.fixture
def tables() -> Iterator[None]:
    """The tables of losses, trunks and arms are put back afterwards."""
    kept = [(table, dict(table)) for table in (losses.LOSSES, trunks.TRUNKS, arms.ARMS)]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)


def test_every_added_loss_trains(study: str, tables: None) -> None:
    known = set(losses.LOSSES)
    run("add-a-loss.md")
    added = sorted(set(losses.LOSSES) - known)
    assert added == ["circle", "cosface", "pull_and_push"]
    trunks.TRUNKS["tiny"] = trunks.Trunk(lambda pretrained: Tiny(), "", trunks.LITE, 8, "")
    scenes, recipe = Scenes(study, "drawn"), recipes.Recipe(**TINY)
    for name in added:
        training = trainer.Run(replace(recipe, loss=name), scenes)
        values = [float(training.step(np.arange(12), number=0)) for _ in range(20)]
        assert values[-1] < values[0], name


def test_every_added_arm_trains(study: str, tables: None) -> None:
    known = set(arms.ARMS)
    run("add-an-arm.md")
    added = [name for name in arms.ARMS if name not in known]
    assert added == ["blackaugment", "tenth", "faded", "pulled"]
    trunks.TRUNKS["tiny"] = trunks.Trunk(lambda pretrained: Tiny(), "", trunks.LITE, 8, "")
    scenes, recipe = Scenes(study, "drawn"), recipes.Recipe(**TINY)
    seen = {}
    for name in ("base", *added):
        made = trainer.Run(replace(recipe, arm=name), scenes)
        made.step(np.arange(8), number=0)
        seen[name] = made.model.head.weight.detach().clone()
    for name in added:
        assert not torch.equal(seen[name], seen["base"]), name
    assert arms.pairs(["base", "pulled", "tenth"]) == [("pulled", "base"), ("tenth", "base")]


def test_the_added_remedy_dims_the_background_alone() -> None:
    try:
        run("add-a-remedy.md")
        show = remedies.REMEDIES["dimmed"].show
    finally:
        remedies.REMEDIES.pop("dimmed", None)
    masks = np.zeros((1, 4, 4), np.float32)
    masks[:, 1:3] = 1
    made = show(np.full((1, 4, 4, 3), 90, np.uint8), masks)
    assert (made[0, 1:3] == 90).all() and (made[0, [0, 3]] == 30).all()


def test_the_added_trunk_embeds(tables: None) -> None:
    run("add-a-trunk.md")
    model = Embedder("mobilenet_v3_small", 8, pretrained=False).eval()
    assert model.trunk.width == trunks.get("mobilenet_v3_small").width
    made = model(model.normalise(torch.rand(2, 3, 64, 64) * 255))
    torch.testing.assert_close(made.norm(dim=1), torch.ones(2))


def test_the_timm_name_on_the_page_builds(tables: None) -> None:
    name = re.search(r"trunk: (timm:\w+)", text_of("add-a-trunk.md"))[1]
    assert Embedder(name, 8, pretrained=False)(torch.zeros(1, 3, 64, 64)).shape == (1, 8)


def test_the_number_of_threads_on_the_page_is_the_codes() -> None:
    words = {1: "one", 2: "two", 4: "four"}
    text = " ".join(text_of("training.md").split())
    assert f"always uses {words[hardware.THREADS]} (`THREADS`" in text
