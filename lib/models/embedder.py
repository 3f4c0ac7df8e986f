"""The embedder: trunk, average pool, one linear layer, length 1."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from lib.core.errors import StudyError
from lib.core.files import atomic
from lib.core.hardware import device
from lib.models import trunks


class _FloatOnCpu:
    """Mixed into a convolution: float32 inside bf16 autocast where the CPU takes gradients."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)


def keep_slow_depthwise_in_float(model: nn.Module) -> None:
    """Spare the CPU the bf16 gradient of depthwise convolutions that it is slow at.

    With AVX-512 bf16 the strided ones take 4 to 20 times as long as in float32, those of 5x5 two
    to three times; 3x3 without stride and all other convolutions are faster in bf16.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or module.groups == 1:
            continue
        if max(module.stride) > 1 or max(module.kernel_size) > 3:
            kind = type(module)
            module.__class__ = type(f"Float{kind.__name__}", (_FloatOnCpu, kind), {})


def restored(model: nn.Module) -> nn.Module:
    """Undo `keep_slow_depthwise_in_float`, in place: for exporters, which read classes."""
    for module in model.modules():
        if isinstance(module, _FloatOnCpu):
            module.__class__ = type(module).__mro__[2]
    return model


class Embedder(nn.Module):
    """Maps normalised images (N, 3, H, W) to embeddings (N, size) of length 1.

    With `size=0` there is no linear layer: the pooled features of the trunk itself.
    """

    def __init__(self, trunk: str, size: int = 128, pretrained: bool = True, seed: int = 0):
        super().__init__()
        entry = trunks.get(trunk)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # an untrained trunk and the linear layer depend on the seed
            self.trunk = entry.build(pretrained)
            self.head = nn.Linear(self.trunk.width, size) if size else nn.Identity()
        keep_slow_depthwise_in_float(self.trunk)
        self.normalise = entry.normalise

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings in float32 whatever the precision of the trunk."""
        pooled = self.trunk.features(x).float().mean(dim=(2, 3))
        with torch.autocast(x.device.type, enabled=False):
            return normalize(self.head(pooled), dim=1)

    def train(self, mode: bool = True) -> "Embedder":
        """Training mode, but BatchNorm stays in evaluation mode, as in the paper."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the weights as safetensors."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, temporary)


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Load weights written by `save_weights`; anything else is refused with its name."""
    if not path.exists():
        raise StudyError(f"{path} does not exist. Run 03_train for this study and loss first.")
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:
        raise StudyError(f"{path} does not hold weights of this model ({error}).") from error
    return model


def trained(path: Path, recipe_trunk: str, embedding: int) -> Embedder:
    """A trained embedder in evaluation mode on the device."""
    model = Embedder(recipe_trunk, embedding, pretrained=False)
    load_weights(model, path)
    return model.to(device(), memory_format=torch.channels_last).eval()
