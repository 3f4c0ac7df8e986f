"""Embedding models of other people, in one form: 8-bit images in, vectors of length 1 out.

`load(name)` knows the kinds of the table KINDS. None of them unpickles anything: a pickle can run
any code when it is opened. What a file may do instead:

- ONNX and OpenVINO files are graphs of known operations.
- TorchScript files are programs of torch's own small language; those that write or map files are
  refused.
- `torch.export` archives are graphs, but torch's reader would unpickle parts of some, evaluate the
  text of their shapes and run compiled code that lies in them; `vet_export` refuses those first.
- `package.module:callable` is code of one's own, and is run as such.
"""

import copy
import hashlib
import importlib
import os
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from lib.attention import attribution
from lib.core.errors import StudyError
from lib.core.hardware import THREADS, device, fixed_threads
from lib.experiments.vetting import vet_export, without_pickles
from lib.models import embedding, trunks
from lib.models.embedder import Embedder
from lib.models.trunks import IMAGENET, Normalise

DEFAULT = "efficientnet_lite0"
SIDE = 224  # of the input, where neither the model nor the user says
BATCH = 32
PLAIN = Normalise((0.0,) * 3, (1.0,) * 3)  # pixels in 0 to 255 as they are
EXPORT_IT = (
    "Export the model with torch.export.save, torch.jit.save or torch.onnx.export; or give a "
    "function of your own as package.module:callable; or, for an architecture of timm, "
    "timm:<name> with the weights as a safetensors file."
)


@dataclass(frozen=True)
class Given:
    """What the user says of a model's input; what is not said has a default that depends on it.

    `size` is the side in pixels (0: not said). `mean` and `std`, one or three numbers, are on the
    scale 0 to `scale` (1, as in torchvision's Normalize, or 255). `bgr`: blue first. `weights`: a
    safetensors file for `timm:<name>`.
    """

    size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: int = 1
    bgr: bool = False
    weights: str = ""

    def normalise(self, default: Normalise) -> Normalise:
        """The user's mean, std and order of colours, on the scale 0 to 255."""
        if self.scale not in (1, 255):
            raise StudyError(f"scale is {self.scale}; mean and std are on a scale of 1 or 255.")
        parts = []
        for name, own in (("mean", default.mean), ("std", default.std)):
            values = tuple(getattr(self, name))
            if len(values) not in (0, 1, 3):
                raise StudyError(f"{name} has {len(values)} numbers; give one, or three.")
            if self.scale == 1 and any(abs(value) > 2 for value in values):
                raise StudyError(
                    f"{name} {values} is off a scale of 0 to 1; for 0 to 255 say scale 255."
                )
            scaled = tuple(value * 255 / self.scale for value in values)
            parts.append(scaled * (3 // len(scaled)) if scaled else own)
        if min(parts[1]) <= 0:
            raise StudyError(f"std {self.std} must be above zero.")
        return Normalise(*parts, bgr=self.bgr or default.bgr)


@dataclass
class Opened:
    """A model as its file gives it: `run` maps normalised images (N, 3, h, w) to what it returns.

    `run` is an nn.Module where torch can see into it. `shape` and `batch` are fixed by the file,
    or None and 0; `side` is only what it was made for; `known`: so are mean, std and colours.
    `forward`: a faster way to embed than `run`, if there is one.
    """

    run: Callable[[Tensor], Any]
    normalise: Normalise = IMAGENET
    shape: tuple[int, int] | None = None
    batch: int = 0
    side: int = SIDE
    known: bool = False
    told: list[str] = field(default_factory=list)
    forward: Callable[[Tensor], Tensor] | None = None


class Foreign(nn.Module):
    """A model ready to embed: as a module, normalised images (N, 3, s, s) to vectors of length 1.

    `told` are sentences for the page: what was assumed of the model and what is odd about it.
    """

    def __init__(self, name: str, kind: str, opened: Opened, given: Given):
        super().__init__()
        self.name, self.kind, self.told = name, kind, list(opened.told)
        self.shape, self.batch = opened.shape, opened.batch
        self.size = _size(name, opened, given)
        self.normalise = given.normalise(opened.normalise)
        self.assumed = _assumed(opened, given, self.normalise, self.size)
        self.fast = opened.forward
        seen = isinstance(opened.run, nn.Module)
        self.module = opened.run.eval().to(device()) if seen else None
        self.opaque = None if seen else opened.run
        self._probe()

    def __deepcopy__(self, memo: dict) -> "Foreign":
        """What torch cannot see into has no state to copy (attribution works on copies)."""
        if self.opaque is not None:
            return self
        made = memo[id(self)] = object.__new__(Foreign)
        with torch.no_grad():  # else the weights of a copied TorchScript have a history
            for key, value in vars(self).items():
                made.__dict__[key] = value if key == "fast" else copy.deepcopy(value, memo)
        return made

    @property
    def trunk(self) -> nn.Module | None:
        """The trunk of one of the study's own embedders; None for others."""
        return self.module.trunk if isinstance(self.module, Embedder) else None

    @property
    def where(self) -> torch.device:
        """The device that images must lie on."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def forward(self, images: Tensor) -> Tensor:
        """Vectors (N, D) of length 1, float32, of normalised images (N, 3, s, s)."""
        return normalize(self.raw(images).float(), dim=1)

    def raw(self, images: Tensor) -> Tensor:
        """Vectors (N, D) as the model gives them."""
        if self.shape and tuple(images.shape[-2:]) != self.shape:
            images = interpolate(images, self.shape, mode="bilinear", align_corners=False)
        run = self.module if self.module is not None else self.opaque
        if not self.batch:
            return vectors(run(images), self.name, len(images))
        parts = []
        for part in images.split(self.batch):
            short = self.batch - len(part)
            full = torch.cat([part, part[-1:].expand(short, -1, -1, -1)]) if short else part
            parts.append(vectors(run(full), self.name, self.batch)[: len(part)])
        return torch.cat(parts)

    @torch.inference_mode()
    def embed(self, images: np.ndarray) -> Tensor:
        """Vectors (N, D) of length 1, float32 on the CPU, of uint8 images (N, s, s, 3).

        Raises:
            StudyError: a vector that is not finite, or zero.
        """
        parts = []
        with fixed_threads():
            for start in range(0, len(images), BATCH):
                pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH]))
                pixels = self.normalise(pixels.permute(0, 3, 1, 2).float().to(self.where))
                parts.append((self.fast or self)(pixels).float().cpu())
        found = torch.cat(parts)
        bad = ~found.isfinite().all(dim=1) | (found.norm(dim=1) < 0.5)
        if bad.any():
            raise StudyError(
                f"{self.name} gives {int(bad.sum())} of {len(found)} images a vector that is zero "
                f"or not finite. Is its input right ({self.normalise}, {self.size} pixels)?"
            )
        return found

    @torch.no_grad()
    def _probe(self) -> None:
        """Try the model on two images: does it work, and what must a reader know of it?"""
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (2, self.size, self.size, 3), np.uint8)
        noise[1] //= 3
        pixels = self.normalise(torch.from_numpy(noise).permute(0, 3, 1, 2).float().to(self.where))
        try:
            try:
                raw = self.raw(pixels)
            except StudyError:
                raise
            except Exception:
                if self.batch:
                    raise
                self.batch = 1  # a graph that was traced with one image
                raw = self.raw(pixels)
        except StudyError:
            raise
        except Exception as error:  # whatever foreign code raises
            raise StudyError(
                f"{self.name} does not take images of shape (N, 3, {self.size}, {self.size}): "
                f"{_first_line(error)}. Give the size of its input."
            ) from error
        self.width = raw.shape[1]
        if not bool((raw.norm(dim=1) - 1).abs().max() < 1e-3):
            self.told.append("Its vectors are not of length 1; they were normalised.")
        again = self.raw(pixels)
        unlike = float(
            (normalize(raw.float(), dim=1) - normalize(again.float(), dim=1)).abs().max()
        )
        if unlike > 1e-4:
            self.told.append(
                "It gives another vector for the same image each time: is it in training mode?"
            )
        self.identity = hashlib.sha256(
            repr((self.kind, self.size, str(self.normalise), self.width)).encode()
            + self.embed(noise).double().mul(2**16).round().numpy().tobytes()
        ).hexdigest()[:16]

    def differentiable(self) -> bool:
        """Whether a gradient reaches the image."""
        if self.module is None:
            return False
        pixels = torch.rand(1, 3, self.size, self.size, device=self.where).requires_grad_()
        try:
            return self(pixels).sum().requires_grad
        except Exception:  # graphs that were exported for inference say it in many ways
            return False

    def methods(self) -> list[str]:
        """The methods of attention that work with this model."""
        known = [name for name in attribution.METHODS if name != "occlusion"]
        if not self.differentiable():
            known = []
        elif self.trunk is None:  # Grad-CAM needs the last feature map
            known.remove("grad_cam")
        return ["occlusion", *known]

    def forward_only(self) -> nn.Module:
        """The quickest form of the model as a module; no gradient goes through it."""
        return self if self.fast is None else _Quick(self.fast)

    def about(self) -> dict[str, Any]:
        """Facts for a page or a json."""
        return {
            "name": self.name, "kind": self.kind, "size": self.size, "dimensions": self.width,
            "input": str(self.normalise), "assumed": self.assumed, "told": self.told,
            "identity": self.identity,
        }  # fmt: skip


class _Quick(nn.Module):
    """A forward function as a module without weights; a copy of it is the same."""

    def __init__(self, run: Callable[[Tensor], Tensor]):
        super().__init__()
        self.run = run

    def __deepcopy__(self, memo: dict) -> "_Quick":
        """Nothing in it changes."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Vectors of normalised images."""
        return self.run(images.detach())


def _assumed(opened: Opened, given: Given, used: Normalise, size: int) -> str:
    """What nobody said of a model's input and is taken for granted, in a sentence or ""."""
    if opened.known:
        return ""
    scaled = opened.normalise is not PLAIN
    mean, std = (" ".join(f"{v / 255:.3g}" for v in values) for values in (used.mean, used.std))
    told = {
        f"mean {mean} (ImageNet's, of 0 to 1)": scaled and not given.mean,
        f"std {std} (ImageNet's, of 0 to 1)": scaled and not given.std,
        "RGB": not used.bgr,
        f"{size} pixels": not (given.size or opened.shape),
    }
    words = ", ".join(word for word, assumed in told.items() if assumed)
    if not words:
        return ""
    return (
        f"Assumed of the model's input, since neither its file nor you say it: {words}. If that is "
        f"wrong, so are the numbers: {'--mean, --std, ' * scaled}--bgr and --size say otherwise."
    )


def _size(name: str, opened: Opened, given: Given) -> int:
    shape = opened.shape
    if given.size < 0:
        raise StudyError(f"size is {given.size}; give the side of the input in pixels.")
    if shape and given.size and given.size != max(shape):
        raise StudyError(
            f"{name} takes images of {shape[0]} x {shape[1]} pixels only, not of {given.size}."
        )
    return given.size or max(shape or (opened.side,))


def vectors(found: Any, name: str, count: int) -> Tensor:
    """What a model returned as vectors (count, D): the first of several, feature maps averaged.

    Raises:
        StudyError: anything else than one vector an image.
    """
    if isinstance(found, dict):
        found = list(found.values())
    while isinstance(found, (tuple, list)) and len(found):
        found = found[0]
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(np.ascontiguousarray(found))
    shape = tuple(getattr(found, "shape", ()))
    if not isinstance(found, Tensor) or len(shape) not in (2, 4) or shape[0] != count:
        raise StudyError(
            f"{name} returns {type(found).__name__} of shape {shape} for {count} images; wanted "
            "one vector an image, (N, D)."
        )
    return found.mean(dim=(2, 3)) if len(shape) == 4 else found


# --------------------------------------------------------------------------- the kinds of models


def _trunk(name: str, given: Given) -> Opened:
    model = Embedder(name, 0).eval()
    forward = embedding.forward_of(model.to(device()))
    return Opened(model, model.normalise, known=True, forward=forward)


def own(model: Embedder, size: int, name: str) -> Foreign:
    """An embedder of the study, trained or not, in the same form."""
    forward = embedding.forward_of(model)
    opened = Opened(model.eval(), model.normalise, known=True, forward=forward)
    return Foreign(name, "embedder of this study", opened, Given(size=size))


def _timm(name: str, given: Given) -> Opened:
    """Any model of timm with its own pooling, weights from timm or a safetensors file."""
    import timm

    label = name.removeprefix("timm:")
    default = trunks.timm_normalise(label)
    try:
        with without_pickles():  # whatever kind of file it downloads
            model = timm.create_model(label, pretrained=not given.weights, num_classes=0)
    except Exception as error:  # timm raises whatever its download raises
        raise StudyError(
            f"{name} could not be built ({_first_line(error)}). Check the name; without a network "
            "connection only weights already in timm's cache can be used, or your own "
            "(weights: a safetensors file)."
        ) from error
    if given.weights:
        _own_weights(model, Path(given.weights), label)
    facts = model.pretrained_cfg or {}
    shape = tuple(facts.get("input_size", (3, SIDE, SIDE)))[1:]
    fixed = shape if facts.get("fixed_input_size") else None
    return Opened(model, default, fixed, side=max(shape), known=True)


def _own_weights(model: nn.Module, file: Path, label: str) -> None:
    import timm
    from safetensors.torch import load_file

    if file.suffix != ".safetensors" or not file.exists():
        raise StudyError(f"{file}: weights for timm:{label} must be an existing .safetensors file.")
    try:
        state = load_file(file)
    except Exception as error:
        raise StudyError(f"{file} is no whole safetensors file ({_first_line(error)}).") from error
    heads = timm.get_pretrained_cfg(label).classifier or ()
    heads = (heads,) if isinstance(heads, str) else heads
    known = {k: v for k, v in state.items() if not k.startswith(tuple(f"{h}." for h in heads))}
    trunks.fill(model, known if heads else state, file.name)


def _torchscript(name: str, given: Given) -> Opened:
    with zipfile.ZipFile(name) as archive:
        code = "\n".join(
            archive.read(part).decode(errors="replace")
            for part in archive.namelist()
            if part.endswith(".py")
        )
    found = re.search(r"\b(?:torch\.save|from_file|aten::save|torch\.load)\b", code)
    if found:
        raise StudyError(f"{name} is a TorchScript program with {found[0]}, which is refused here.")
    try:
        model = torch.jit.load(name, map_location="cpu")
    except Exception as error:
        raise StudyError(f"{name} cannot be read as TorchScript ({_first_line(error)}).") from error
    return Opened(model)


def _exported(name: str, given: Given) -> Opened:
    vet_export(Path(name))
    try:
        with without_pickles(), open(name, "rb") as stream:
            program = torch.export.load(stream)
        module = program.module(check_guards=False)  # guards are text that would be run
        inputs = [
            node.meta["val"].shape
            for node in program.graph.nodes
            if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
        ]
    except Exception as error:
        raise StudyError(
            f"{name} cannot be read by torch.export ({_first_line(error)})."
        ) from error
    shape, batch = _fixed(
        name, [tuple(d if isinstance(d, int) else None for d in s) for s in inputs]
    )
    return Opened(_Plain(module), shape=shape, batch=batch)


class _Plain(nn.Module):
    """An exported graph, which refuses `eval()` since its mode is fixed."""

    def __init__(self, graph: nn.Module):
        super().__init__()
        self.graph = graph

    def train(self, mode: bool = True) -> "_Plain":
        return self

    def forward(self, images: Tensor) -> Any:
        return self.graph(images.contiguous())


def _fixed(name: str, inputs: list[tuple]) -> tuple[tuple[int, int] | None, int]:
    """Height and width (None if free) and batch (0 if free) of a graph's only input."""
    if len(inputs) != 1 or len(inputs[0]) != 4:
        raise StudyError(f"{name} takes {len(inputs)} inputs {inputs}; wanted one, (N, 3, h, w).")
    batch, colours, height, width = inputs[0]
    if colours not in (3, None):
        raise StudyError(f"{name} takes images of shape {inputs[0]}; wanted (N, 3, h, w).")
    return ((height, width) if height and width else None), batch or 0


def _onnx(name: str, given: Given) -> Opened:
    """Through onnxruntime; a graph that it does not take goes to OpenVINO."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    try:
        session = onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        opened = _openvino(name, given)
        opened.told.append(
            f"onnxruntime does not take it ({_first_line(error)}): OpenVINO runs it."
        )
        return opened
    inputs = session.get_inputs()
    kind = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(
        inputs[0].type, np.float32
    )
    sizes = [tuple(d if isinstance(d, int) else None for d in i.shape) for i in inputs]
    first, label, last = session.get_outputs()[0].name, inputs[0].name, _colours_last(sizes)
    shape, batch = _fixed(name, last or sizes)

    def run(images: Tensor) -> Tensor:
        pixels = _array(images, kind, bool(last))
        return torch.from_numpy(np.asarray(session.run([first], {label: pixels})[0], np.float32))

    return _graph(name, given, Opened(run, shape=shape, batch=batch), kind is np.uint8)


def _graph(name: str, given: Given, opened: Opened, bytes_: bool) -> Opened:
    """A graph as it is, or one that takes bytes: it gets pixels without mean and std."""
    if not bytes_:
        return opened
    if given.mean or given.std:
        raise StudyError(f"{name} takes pixels as bytes (uint8); mean and std are not for it.")
    opened.normalise = PLAIN
    opened.told.append("It takes pixels as bytes, 0 to 255: no mean and std are applied.")
    return opened


def _array(images: Tensor, kind: type, last: bool) -> np.ndarray:
    pixels = images.detach().cpu().permute(0, 2, 3, 1) if last else images.detach().cpu()
    if kind is np.uint8:
        pixels = pixels.round().clamp(0, 255)
    return np.ascontiguousarray(pixels.numpy()).astype(kind)


def _colours_last(sizes: list[tuple]) -> list[tuple]:
    """The shapes with the colours second, of a graph that has them last; [] if it has not."""
    if len(sizes) == 1 and len(sizes[0]) == 4 and sizes[0][3] == 3 and sizes[0][1] != 3:
        return [(sizes[0][0], 3, *sizes[0][1:3])]
    return []


def _openvino(name: str, given: Given) -> Opened:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS}
    try:
        core = openvino.Core()
        graph = core.read_model(name)
        compiled = core.compile_model(graph, "CPU", options)
    except Exception as error:
        raise StudyError(f"{name} cannot be read ({_first_line(error)}).") from error
    sizes = [
        tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
        for port in graph.inputs
    ]
    last = _colours_last(sizes)
    shape, batch = _fixed(name, last or sizes)
    request = compiled.create_infer_request()
    names = {"f16": np.float16, "u8": np.uint8}
    kind = names.get(graph.inputs[0].get_element_type().get_type_name(), np.float32)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(np.float32(request.infer([_array(images, kind, bool(last))])[0]))

    return _graph(name, given, Opened(run, shape=shape, batch=batch), kind is np.uint8)


def _callable(name: str, given: Given) -> Opened:
    """A function of one's own: images (N, 3, h, w) in 0 to 255 to vectors (N, D)."""
    module, _, attribute = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise StudyError(
            f"{name} cannot be imported ({error}). Start in the folder that holds {module}, or "
            "put that folder on PYTHONPATH."
        ) from error
    if not callable(found) or isinstance(found, type):
        raise StudyError(f"{name} is no function of images; give a function or a module instance.")
    return Opened(found, PLAIN)


@dataclass(frozen=True)
class Kind:
    """A kind of model: how it is called, how it is written, which names are of it, how it opens."""

    label: str
    form: str
    fits: Callable[[str], bool]
    open: Callable[[str, Given], Opened]


def _is(kind: str, name: str) -> bool:
    return Path(name).is_file() and _in_archive(Path(name)) == kind


def _in_archive(file: Path) -> str:
    """`torchscript` or `export`, by what lies in a zip archive; '' for anything else."""
    if not zipfile.is_zipfile(file):
        return ""
    with zipfile.ZipFile(file) as archive:
        parts = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in parts and any(part.startswith("code/") for part in parts):
        return "torchscript"
    return "export" if "archive_format" in parts else ""


KINDS: dict[str, Kind] = {
    "trunk": Kind("trunk of this study", "a trunk", lambda n: n in trunks.TRUNKS, _trunk),
    "timm": Kind("model of timm", "timm:<name>", lambda n: n.startswith("timm:"), _timm),
    "torchscript": Kind(
        "TorchScript", "a TorchScript file", partial(_is, "torchscript"), _torchscript
    ),
    "export": Kind("torch.export", "a torch.export file", partial(_is, "export"), _exported),
    "onnx": Kind(
        "ONNX", "an .onnx file", lambda n: n.endswith(".onnx") and Path(n).is_file(), _onnx
    ),
    "openvino": Kind(
        "OpenVINO",
        "an OpenVINO .xml",
        lambda n: n.endswith(".xml") and Path(n).is_file(),
        _openvino,
    ),
    "callable": Kind(
        "function of one's own",
        "package.module:callable",
        lambda n: bool(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", n)),
        _callable,
    ),
}


def load(name: str = DEFAULT, given: Given | None = None) -> Foreign:
    """The model of `name`, in one of the forms of KINDS, tried on two images.

    Raises:
        StudyError: a name of no kind, a pickle, or a model that does not work; says what to do.
    """
    given, name = given or Given(), str(name or DEFAULT)
    for kind in KINDS.values():
        if kind.fits(name):
            if given.weights and kind is not KINDS["timm"]:
                raise StudyError("weights are for timm:<name> only; other models bring their own.")
            return Foreign(name, kind.label, kind.open(name, given), given)
    if Path(name).is_file():
        raise StudyError(
            f"{name} is neither TorchScript, torch.export, ONNX nor OpenVINO. If it holds a pickle "
            f"(torch.save), it is not opened here: a pickle can run any code. {EXPORT_IT}"
        )
    forms = ", ".join(kind.form for kind in KINDS.values())
    raise StudyError(
        f"there is no model {name!r}: no such file, and none of the forms that are known: {forms} "
        f"(trunks: {', '.join(trunks.TRUNKS)})."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
