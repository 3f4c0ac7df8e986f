"""Embedding on a CPU through OpenVINO: the same network in float32, two to three times as fast.

The graph of a trunk is exported once, with its weights as inputs, and kept in data/weights; for a
model the weights are put in as constants and the graph is compiled, a third of a second. Results
are the same bytes at every run, and an image's embedding does not depend on the others in its
batch (tests/models/test_openvino_forward.py). Sources: torch.export; OpenVINO's convert_model.
"""

import copy
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.core import paths
from lib.core.code import fingerprint
from lib.core.files import atomic, key_of
from lib.core.hardware import THREADS
from lib.core.progress import say
from lib.models.embedder import Embedder, restored

Forward = Callable[[Tensor], Tensor]
LARGEST = 256  # images in a batch
SIDE = 64  # of the images at export; the graph takes any
OPTIONS = {
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_NUM_THREADS": THREADS,
    "ENABLE_CPU_PINNING": False,
}


class _WeightsAsInputs(nn.Module):
    """A model as a function of images and of its own weights, for export."""

    def __init__(self, model: nn.Module, names: list[str]):
        super().__init__()
        self.__dict__["model"], self.names = model, names  # no parameters of this module

    def forward(self, images: Tensor, *weights: Tensor) -> Tensor:
        """Embeddings of `images` under `weights`, in the order of `names`."""
        state = dict(zip(self.names, weights, strict=True))
        return torch.func.functional_call(self.__dict__["model"], state, (images,))


def compiled(model: Embedder) -> Forward:
    """`model` as a function of normalised images (N, 3, s, s), float32, of one size, to (N, D).

    Raises whatever export or OpenVINO raise for a network that they cannot take.
    """
    import openvino
    from openvino import opset13

    plain = restored(copy.deepcopy(model).eval().cpu())
    state = {name: value.detach().contiguous() for name, value in plain.state_dict().items()}
    state = {name: value for name, value in state.items() if value.ndim}
    graph = openvino.Core().read_model(_template(plain, state))
    for parameter, value in zip(graph.get_parameters()[1:], state.values(), strict=True):
        parameter.output(0).replace(opset13.constant(value.numpy()).output(0))
        graph.remove_parameter(parameter)
    request = openvino.Core().compile_model(graph, "CPU", OPTIONS).create_infer_request()
    return lambda images: torch.from_numpy(request.infer([images.contiguous().numpy()])[0].copy())


def _template(model: Embedder, state: dict[str, Tensor]) -> Path:
    """The file of a trunk's graph without weights; exported where it is not there yet."""
    versions = {name: version(name) for name in ("torch", "openvino", "timm")}
    shapes = [(name, tuple(value.shape)) for name, value in state.items()]
    key = key_of(shapes=shapes, code=fingerprint("models"), **versions)
    file = paths.TEMPLATES / f"{key}.xml"
    if not file.exists():
        _export(model, state, file)
    return file


def _export(model: Embedder, state: dict[str, Tensor], file: Path) -> None:
    import openvino

    say("preparing the trunk for OpenVINO (once)")
    count = {0: torch.export.Dim("count", min=1, max=LARGEST)}
    inputs = (torch.zeros(2, 3, SIDE, SIDE), *state.values())
    shapes = {"images": count, "weights": tuple(None for _ in state)}
    with torch.no_grad():
        program = torch.export.export(
            _WeightsAsInputs(model, list(state)), inputs, dynamic_shapes=shapes
        )
    graph = openvino.convert_model(program)
    with atomic(file.with_suffix(".bin")) as weights, atomic(file) as temporary:
        openvino.serialize(graph, str(temporary), str(weights))
