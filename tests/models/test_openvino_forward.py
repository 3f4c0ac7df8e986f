"""OpenVINO embeds as torch does: close to it, the same at every run, image by image."""

import pytest
import torch

from lib.core import paths
from lib.models import embedding, openvino_forward
from lib.models.embedder import Embedder


@pytest.fixture(scope="module")
def model() -> Embedder:
    made = Embedder("efficientnet_lite0", 16, seed=3).eval()
    with torch.no_grad():
        for weights in made.parameters():
            weights.mul_(1.02)  # not the weights that the template was exported with
    return made


def images(count: int, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def test_it_is_the_same_network(model: Embedder) -> None:
    forward = openvino_forward.compiled(model)
    for count in (1, 7, 32):
        with torch.no_grad():
            expected = model(images(count))
        torch.testing.assert_close(forward(images(count)), expected, atol=1e-5, rtol=0)


def test_runs_repeat_and_images_do_not_depend_on_their_batch(model: Embedder) -> None:
    one, again = (openvino_forward.compiled(model) for _ in range(2))
    whole = one(images(32))
    assert torch.equal(whole, one(images(32))) and torch.equal(whole, again(images(32)))
    mixed = images(32)
    mixed[1:] = torch.randn(31, 3, 64, 64)
    assert torch.equal(one(mixed)[0], whole[0])
    assert torch.equal(one(images(32)[:5]), whole[:5])


def test_other_weights_take_the_same_template(model: Embedder) -> None:
    first = openvino_forward.compiled(model)(images(2))
    files = set(paths.TEMPLATES.glob("*.xml"))
    other = Embedder("efficientnet_lite0", 16, seed=4).eval()
    assert not torch.equal(openvino_forward.compiled(other)(images(2)), first)
    assert set(paths.TEMPLATES.glob("*.xml")) == files


def test_a_trunk_that_cannot_be_exported_is_embedded_by_torch(monkeypatch, model, capsys) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(embedding, "compiled", refuse)
    made = embedding.forward_of(model)(images(3))
    with torch.no_grad():
        torch.testing.assert_close(made, model(images(3)))
