"""Foreign models: every kind gives the same vectors as the network it was made of; pickles do not.

The network is tiny and looks at height and width differently, so that a swap would show.
"""

import io
import json
import pickle
import shutil
import struct
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib.attention import attribution
from lib.core.errors import StudyError
from lib.experiments import foreign
from lib.experiments.foreign import Given, load
from lib.experiments.vetting import vet_export
from lib.models.trunks import IMAGENET

SIDE = 12


class Net(nn.Module):
    """Colours of the upper and the left half, mixed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.mix = nn.Linear(6, 4)

    def forward(self, x):
        upper, left = x[:, :, : SIDE // 2].mean((2, 3)), x[:, :, :, : SIDE // 2].mean((2, 3))
        return self.mix(torch.cat([upper, left], dim=1))


net = Net().eval()


def as_function(images):
    """A callable of one's own, which returns numpy."""
    assert images.max() > 1.5  # 0 to 255
    return net(images / 255).detach().numpy()


def sometimes(images):
    """Another vector each time."""
    return net(images) + torch.randn(len(images), 4)


def tokens(images):
    """Not one vector an image."""
    return torch.zeros(len(images), 5, 4)


def nowhere(images):
    """A vector without direction, for dark images."""
    return net(images) * (images.mean((1, 2, 3), keepdim=True)[:, :, 0, 0] > 30)


def pixels(count: int = 5, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def by_hand(images: np.ndarray, mean=IMAGENET.mean, std=IMAGENET.std, bgr=False) -> np.ndarray:
    """What the network gives, from its own loop over images."""
    found = []
    for image in images:
        colours = image[..., ::-1] if bgr else image
        x = (colours.astype(np.float64) - mean) / std
        y = net(torch.tensor(x.transpose(2, 0, 1)[None], dtype=torch.float32))[0]
        found.append((y / y.norm()).detach().numpy())
    return np.array(found)


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, torch.zeros(2, 3, SIDE, SIDE)).save(str(tmp_path / "net.pt"))
    return tmp_path / "net.pt"


def exported(path: Path, batch: int | None = None) -> Path:
    shapes = None if batch else ({0: torch.export.Dim("n", min=1, max=99)},)
    program = torch.export.export(
        net, (torch.zeros(batch or 2, 3, SIDE, SIDE),), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    return path


def field(number: int, value: bytes | int | str) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    data = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(data)) + data


def _number(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def onnx(path: Path, batch: int = 0, side: int = SIDE, bytes_: bool = False) -> Path:
    """A graph that averages over height and width, written by hand (no package for it here)."""
    size = [field(2, "n") if not batch else field(1, batch), field(1, 3), *[field(1, side)] * 2]
    shape = b"".join(field(1, part) for part in size)
    source = "floats" if bytes_ else "x"
    node = field(1, source) + field(1, "axes") + field(2, "y") + field(4, "ReduceMean")
    node += field(5, field(1, "keepdims") + field(3, 0) + field(20, 2))
    out = field(2, "n") if not batch else field(1, batch)
    result = field(1, out) + field(1, field(1, 3))

    def value(name: str, dims: bytes, kind: int = 1) -> bytes:
        return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))

    axes = field(1, 2) + field(2, 7) + field(8, "axes") + field(9, struct.pack("<2q", 2, 3))
    cast = field(1, "x") + field(2, "floats") + field(4, "Cast")
    cast = field(1, cast + field(5, field(1, "to") + field(3, 1) + field(20, 2)))
    graph = (cast if bytes_ else b"") + field(1, node) + field(2, "g") + field(5, axes)
    graph += field(11, value("x", shape, 2 if bytes_ else 1)) + field(12, value("y", result))
    path.write_bytes(field(1, 8) + field(8, field(1, "") + field(2, 18)) + field(7, graph))
    return path


def test_a_torchscript_file_gives_what_its_network_gives(scripted: Path) -> None:
    model = load(str(scripted), Given(size=SIDE))
    assert model.kind == "TorchScript" and model.width == 4
    np.testing.assert_allclose(model.embed(pixels()), by_hand(pixels()), atol=1e-5)
    assert model.differentiable()


@pytest.mark.parametrize("batch", [None, 2])
def test_an_exported_file_too_also_where_its_batch_is_fixed(tmp_path: Path, batch) -> None:
    model = load(str(exported(tmp_path / "net.pt2", batch)))
    assert (model.size, model.shape, model.batch) == (SIDE, (SIDE, SIDE), batch or 0)
    np.testing.assert_allclose(model.embed(pixels()), by_hand(pixels()), atol=1e-5)


def means(images: np.ndarray) -> np.ndarray:
    """What the graph of `onnx` gives, by hand."""
    found = ((images - np.array(IMAGENET.mean)) / IMAGENET.std).mean((1, 2))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("batch", [0, 2])
def test_an_onnx_file_too(tmp_path: Path, batch: int) -> None:
    model = load(str(onnx(tmp_path / "net.onnx", batch)))
    assert (model.size, model.width, model.batch) == (SIDE, 3, batch)
    np.testing.assert_allclose(model.embed(pixels()), means(pixels()), atol=1e-5)
    assert not model.differentiable()


def test_an_openvino_file_too(tmp_path: Path) -> None:
    import openvino

    graph = openvino.Core().read_model(onnx(tmp_path / "net.onnx"))
    openvino.save_model(graph, tmp_path / "net.xml", compress_to_fp16=False)
    model = load(str(tmp_path / "net.xml"))
    assert (model.kind, model.size, model.width) == ("OpenVINO", SIDE, 3)
    np.testing.assert_allclose(model.embed(pixels()), means(pixels()), atol=1e-5)
    (tmp_path / "net.bin").unlink()
    (tmp_path / "net.xml").write_text("<net>")
    with pytest.raises(StudyError, match="net.xml cannot be read"):
        load(str(tmp_path / "net.xml"))


def test_openvino_takes_what_onnxruntime_does_not(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    model = load(str(onnx(tmp_path / "net.onnx")))
    assert any("no such operator" in told and "OpenVINO" in told for told in model.told)
    np.testing.assert_allclose(model.embed(pixels()), means(pixels()), atol=1e-5)


@pytest.mark.parametrize("opener", ["_onnx", "_openvino"])
def test_a_graph_of_bytes_gets_pixels_as_they_are(tmp_path, monkeypatch, opener: str) -> None:
    monkeypatch.setitem(
        foreign.KINDS, "onnx", replace(foreign.KINDS["onnx"], open=getattr(foreign, opener))
    )
    file = str(onnx(tmp_path / "net.onnx", bytes_=True))
    model, images = load(file), pixels()
    wanted = images.astype(np.float64).mean((1, 2))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(model.embed(images), wanted, atol=1e-5)
    assert any("bytes" in told for told in model.told) and "ImageNet" not in model.assumed
    with pytest.raises(StudyError, match="uint8"):
        load(file, Given(mean=(0.5,)))


def test_what_timm_downloads_is_not_unpickled(tmp_path: Path, monkeypatch) -> None:
    import timm

    torch.save(Evil(), tmp_path / "evil.pth")
    read = lambda *_a, **_k: torch.load(tmp_path / "evil.pth", weights_only=False)  # noqa: E731
    monkeypatch.setattr(timm, "create_model", read)
    with pytest.raises(StudyError, match="could not be built"):
        load("timm:resnet18")


def test_methods_of_attention_are_those_that_work(scripted: Path, tmp_path: Path) -> None:
    assert load(str(onnx(tmp_path / "net.onnx"))).methods() == ["occlusion"]
    able = load(str(scripted), Given(size=SIDE)).methods()
    assert "smoothgrad" in able and "grad_cam" not in able


@pytest.mark.parametrize("method", ["gradient", "smoothgrad", "occlusion"])
@pytest.mark.parametrize("kind", ["torchscript", "export", "module"])
def test_attribution_goes_through_every_differentiable_kind(
    scripted: Path, tmp_path: Path, kind: str, method: str
) -> None:
    names = {"torchscript": str(scripted), "module": f"{__name__}:net"}
    name = names.get(kind) or str(exported(tmp_path / "net.pt2"))
    given = Given(size=SIDE) if kind == "module" else Given(size=SIDE, mean=(0,), std=(1,))
    model = load(name, given)
    images = model.normalise(torch.from_numpy(pixels(3)).permute(0, 3, 1, 2).float())
    black = model.normalise(torch.zeros(1, 3, SIDE, SIDE))
    options = {"black": black, "copies": 2, "cells": 4, "channels_last": False}
    found = attribution.attribute(method, model, images, **options)
    wanted = attribution.attribute(method, Unit(), images, **options)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)


class Unit(nn.Module):
    """The network itself, with vectors of length 1, on the same scale."""

    def __init__(self):
        super().__init__()
        self.net = net

    def forward(self, x):
        return nn.functional.normalize(self.net(x), dim=1)


def test_a_function_of_ones_own_gets_0_to_255() -> None:
    model = load(f"{__name__}:as_function", Given(size=SIDE))
    np.testing.assert_allclose(model.embed(pixels()), by_hand(pixels(), 0, 255), atol=1e-5)


def test_a_module_of_ones_own_can_be_differentiated() -> None:
    model = load(f"{__name__}:net", Given(size=SIDE))
    assert model.differentiable()


def test_mean_std_and_order_of_colours_are_the_users(scripted: Path) -> None:
    given = Given(size=SIDE, mean=(0.1, 0.2, 0.3), std=(0.5,), bgr=True)
    wanted = by_hand(pixels(), np.array([0.1, 0.2, 0.3]) * 255, 127.5, bgr=True)
    np.testing.assert_allclose(load(str(scripted), given).embed(pixels()), wanted, atol=1e-5)
    caffe = Given(size=SIDE, mean=(104, 117, 128), std=(1,), scale=255)
    wanted = by_hand(pixels(), np.array([104, 117, 128]), 1)
    np.testing.assert_allclose(load(str(scripted), caffe).embed(pixels()), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        Given(mean=(104, 117, 128)),
        Given(mean=(0.1, 0.2)),
        Given(std=(0.0,)),
        Given(scale=256),
        Given(size=-1),
    ],
)
def test_an_input_that_cannot_be_meant_is_refused(scripted: Path, given: Given) -> None:
    with pytest.raises(StudyError):
        load(str(scripted), given)


def test_a_size_that_the_graph_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="12 x 12"):
        load(str(onnx(tmp_path / "net.onnx")), Given(size=24))


def test_what_a_reader_must_know_is_told(scripted: Path, tmp_path: Path) -> None:
    bare = load(str(exported(tmp_path / "net.pt2"))).assumed
    assert (
        "ImageNet" in bare and "RGB" in bare and "--std" in bare and "pixels" not in bare
    )  # the graph has its size
    said = Given(size=SIDE, mean=(0.5,), std=(0.5,), bgr=True)
    assert load(str(scripted), said).assumed == ""
    part = load(str(scripted), Given(size=SIDE, mean=(0.5,))).assumed
    assert "std 0.229" in part and "mean 0" not in part
    assert any("length 1" in told for told in load(str(scripted), Given(size=SIDE)).told)
    odd = load(f"{__name__}:sometimes", Given(size=SIDE))
    assert any("each time" in told for told in odd.told)


def test_no_vector_an_image_and_no_direction_are_refused() -> None:
    with pytest.raises(StudyError, match="one vector an image"):
        load(f"{__name__}:tokens", Given(size=SIDE))
    model = load(f"{__name__}:nowhere", Given(size=SIDE))
    with pytest.raises(StudyError, match="zero or not finite"):
        model.embed(np.concatenate([pixels(), pixels() // 30]))


def test_an_image_is_not_decided_by_its_batch(scripted: Path) -> None:
    model, images = load(str(scripted), Given(size=SIDE)), pixels(70)
    whole = model.embed(images)
    alone = torch.cat([model.embed(images[[at]]) for at in (0, 33, 69)])
    torch.testing.assert_close(whole[[0, 33, 69]], alone, atol=1e-6, rtol=0)


def test_another_weight_is_another_identity(tmp_path: Path) -> None:
    first = load(str(exported(tmp_path / "a.pt2")))
    again = load(str(tmp_path / "a.pt2"))
    with torch.no_grad():
        net.mix.weight[0, 0] += 0.5
    try:
        other = load(str(exported(tmp_path / "b.pt2")))
    finally:
        with torch.no_grad():
            net.mix.weight[0, 0] -= 0.5
    assert first.identity == again.identity != other.identity


class Evil:
    """What a pickle can do when it is opened."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_pickles_are_refused_unopened(tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "state.pth")
    torch.save(Evil(), tmp_path / "new.pt")
    torch.save(Evil(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.onnx.pkl").write_bytes(pickle.dumps(Evil()))
    for file in tmp_path.iterdir():
        with pytest.raises(StudyError, match="pickle"):
            load(str(file))


def rewritten(source: Path, target: Path, change, also: dict | None = None) -> Path:
    """A copy of an archive with some parts changed: `change(name, bytes)`; and more parts."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in (also or {}).items():
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{name}", data)
    return target


def with_target(name: str, data: bytes) -> bytes:
    return data.replace(b"torch.ops.aten.mean.dim", b"torch.hub.load")


def with_shape(name: str, data: bytes) -> bytes:
    start = data.find(b"Symbol(")
    if start < 0 or not name.endswith("model.json"):
        return data
    text = json.dumps("__import__('os').getcwd()")[1:-1].encode()
    return data.replace(data[start : data.index(b'"', start)], text)


def with_pickle(name: str, data: bytes) -> bytes:
    return data.replace(b'"use_pickle": false', b'"use_pickle": true', 1)


def with_object(name: str, data: bytes) -> bytes:
    return data.replace(b'"path_name": "weight_0"', b'"path_name": "custom_obj_0"')


@pytest.mark.parametrize("change", [with_target, with_shape, with_pickle, with_object])
def test_an_exported_archive_with_more_than_a_graph_is_refused(tmp_path: Path, change) -> None:
    good = exported(tmp_path / "net.pt2")
    vet_export(good)
    bad = rewritten(good, tmp_path / "bad.pt2", change)
    assert any(
        a.read(name) != b.read(name)
        for a, b in [(zipfile.ZipFile(good), zipfile.ZipFile(bad))]
        for name in a.namelist()
    )
    with pytest.raises(StudyError, match="refused"):
        load(str(bad))


def test_compiled_code_in_an_archive_is_refused(tmp_path: Path) -> None:
    good, also = exported(tmp_path / "net.pt2"), {"data/aotinductor/model/a.so": b"\x7fELF"}
    bad = rewritten(good, tmp_path / "bad.pt2", lambda _, data: data, also)
    with pytest.raises(StudyError, match="aotinductor"):
        load(str(bad))


def test_a_part_that_stands_twice_is_refused(tmp_path: Path) -> None:
    good = exported(tmp_path / "net.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad = rewritten(
            good, tmp_path / "bad.pt2", lambda _, data: data, {"models/model.json": b"{}"}
        )
    with pytest.raises(StudyError, match="twice"):
        load(str(bad))


def test_sample_inputs_of_an_archive_are_not_unpickled(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(Evil(), stream)

    def change(name: str, data: bytes) -> bytes:
        return stream.getvalue() if "sample_inputs" in name else data

    bad = rewritten(exported(tmp_path / "net.pt2"), tmp_path / "bad.pt2", change)
    with pytest.raises(StudyError):
        load(str(bad))


class Writer(nn.Module):
    """A TorchScript program that writes a file."""

    def forward(self, x):
        torch.save(x, "/nowhere")
        return x.mean((2, 3))


def test_a_torchscript_program_that_writes_is_refused(tmp_path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(Writer()).save(str(tmp_path / "writer.pt"))
    except RuntimeError:
        pytest.skip("this torch does not script it")
    with pytest.raises(StudyError, match="refused"):
        load(str(tmp_path / "writer.pt"), Given(size=SIDE))


def test_names_of_no_model_are_refused_with_the_forms(tmp_path: Path) -> None:
    shutil.copy(__file__, tmp_path / "a.txt")
    for name in ("resnet", "no.such.module:f", "lib.core.paths:nothing", str(tmp_path / "a.txt")):
        with pytest.raises(StudyError):
            load(name)
    with pytest.raises(StudyError, match="weights"):
        load("efficientnet_lite0", Given(weights="a.safetensors"))


def test_timm_takes_weights_of_ones_own(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    whole = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=7).eval()
    save_file(whole.state_dict(), tmp_path / "own.safetensors")
    given = Given(size=32, weights=str(tmp_path / "own.safetensors"))
    model = load("timm:mobilenetv3_small_050", given)
    whole.reset_classifier(0)
    images = pixels(2, 32)
    with torch.no_grad():
        x = model.normalise(torch.from_numpy(images).permute(0, 3, 1, 2).float())
        wanted = nn.functional.normalize(whole(x), dim=1)
    torch.testing.assert_close(model.embed(images), wanted, atol=1e-5, rtol=1e-4)
    torch.save(whole.state_dict(), tmp_path / "own.pth")
    with pytest.raises(StudyError, match="safetensors"):
        load("timm:mobilenetv3_small_050", Given(weights=str(tmp_path / "own.pth")))
