"""The table of trunks: what is built, how it is fed, how its weights are checked."""

import pickle
from pathlib import Path

import pytest
import requests
import torch
import torchvision

from lib.core.errors import StudyError
from lib.core.files import digest
from lib.data import download
from lib.models import trunks


@pytest.mark.parametrize("name", trunks.TRUNKS)
def test_every_entry_is_whole_and_gives_its_features(name: str) -> None:
    entry = trunks.get(name)
    assert entry.weights and entry.licence
    model = entry.build(False).eval()
    with torch.no_grad():
        assert model.features(torch.zeros(1, 3, 64, 64)).shape == (1, entry.width, 2, 2)
    assert model.width == entry.width


def test_the_table_can_be_shown() -> None:
    table = trunks.table()
    assert list(table.index) == list(trunks.TRUNKS)
    assert table.loc["bn_inception", "input"].startswith("BGR, (0 to 255 - (104.0, 117.0, 128.0))")


def test_googlenet_is_fed_what_torchvision_feeds_it() -> None:
    """Its published weights turn ImageNet's normalisation into another one inside the network."""
    pixels = torch.rand(2, 3, 8, 8) * 255
    model = torchvision.models.GoogLeNet(transform_input=True, init_weights=False)
    expected = model._transform_input(trunks.IMAGENET(pixels))
    torch.testing.assert_close(trunks.get("googlenet").normalise(pixels), expected)


def test_our_features_are_the_networks_own() -> None:
    """Pooled and through the network's own last layer they give its own logits."""
    torch.manual_seed(0)
    own = torchvision.models.resnet50(weights=None).eval()
    ours = trunks.get("resnet50").build(False).eval()
    names = dict(zip(ours.state_dict(), own.state_dict().values(), strict=False))
    trunks.fill(ours, names, "resnet50")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(own.fc(ours.features(images).mean((2, 3))), own(images))


def test_bn_inception_takes_the_published_file(monkeypatch) -> None:
    import pretrainedmodels

    state, asked = pretrainedmodels.bninception(1000, None).state_dict(), []
    monkeypatch.setattr(trunks, "download_weights", lambda url: asked.append(url) or state)
    model = trunks.bn_inception(True)
    assert asked == ["http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth"]
    assert torch.equal(model.model.conv1_7x7_s2.weight, state["conv1_7x7_s2.weight"])
    del state["conv2_3x3.bias"]
    with pytest.raises(StudyError, match="does not fit BNInception: 1 missing: conv2_3x3.bias"):
        trunks.bn_inception(True)


def test_timm_says_how_its_networks_are_fed() -> None:
    assert trunks.get("timm:resnet18").normalise.mean == pytest.approx(trunks.IMAGENET.mean)
    half = trunks.get("timm:tf_efficientnet_lite0").normalise
    assert half.mean == half.std == (127.5,) * 3
    with pytest.raises(StudyError, match="timm knows no model 'resnet_18'"):
        trunks.get("timm:resnet_18")
    with pytest.raises(StudyError, match="Only convolutional trunks"):
        trunks.get("timm:vit_tiny_patch16_224").build(False).features(torch.zeros(1, 3, 224, 224))


def test_tensors_that_do_not_fit_are_named() -> None:
    layer = torch.nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 4), "scale": torch.zeros(1)}
    with pytest.raises(StudyError) as caught:
        trunks.fill(layer, state, "a.pth")
    expected = "1 missing: bias; 1 not known: scale; 1 of another shape: weight."
    assert str(caught.value) == f"a.pth does not fit Linear: {expected}"


class Runs:
    """A pickle that would run code."""

    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.fault(
    "foreign/trunk",
    "foreign weights of a trunk",
    "a pickle with code",
    "refused; the code does not run",
)
def test_weights_are_checked_and_never_run(tmp_path: Path, capsys) -> None:
    good, evil = tmp_path / "good.pth", tmp_path / "evil.pth"
    torch.save({"weight": torch.ones(2)}, good)
    assert torch.equal(trunks.read_weights(good, digest(good)[:8])["weight"], torch.ones(2))
    with pytest.raises(StudyError, match="good.pth has another sha256 than 00000000"):
        trunks.read_weights(good, "00000000")
    evil.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(pickle.UnpicklingError):
        trunks.read_weights(evil, digest(evil)[:8])
    assert "it ran" not in capsys.readouterr().out


def test_published_weights_come_from_the_cache_or_not_at_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    made = tmp_path / "made.pth"
    torch.save({"weight": torch.ones(2)}, made)
    name = f"net-{digest(made)[:8]}.pth"
    (tmp_path / "checkpoints").mkdir()
    made.rename(tmp_path / "checkpoints" / name)
    kept = trunks.download_weights(f"http://127.0.0.1:9/{name}")
    assert torch.equal(kept["weight"], torch.ones(2))
    with pytest.raises(StudyError) as caught:
        trunks.download_weights("http://127.0.0.1:9/other-12345678.pth")
    for part in ("other-12345678.pth", str(tmp_path / "checkpoints"), "efficientnet_lite0"):
        assert part in str(caught.value)
    assert not list((tmp_path / "checkpoints").glob("*other*"))
    (tmp_path / "checkpoints" / name).write_bytes(b"another file")
    with pytest.raises(StudyError, match=f"{name} has sha256 .* expected {name[4:12]}"):
        trunks.download_weights(f"http://127.0.0.1:9/{name}")


def test_weights_come_by_the_downloader_that_tries_again(tmp_path, monkeypatch) -> None:
    """Cut twice, damaged once: the file gets its name only when its sha256 is the one in it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    made, tries = tmp_path / "made.pth", []
    torch.save({"weight": torch.ones(2)}, made)
    name, body = f"net-{digest(made)[:8]}.pth", made.read_bytes()

    def cut(_url: str, part: Path) -> None:
        tries.append(part)
        part.write_bytes(body[: 100 * len(tries)] if len(tries) < 3 else body)
        if len(tries) < 3:
            raise requests.ConnectionError("cut")

    monkeypatch.setattr(download, "_attempt", cut)
    assert torch.equal(trunks.download_weights(f"http://x/{name}")["weight"], torch.ones(2))
    assert len(tries) == 3
    with pytest.raises(StudyError, match="expected 12345678"):
        trunks.download_weights("http://x/net-12345678.pth")
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == [name]
