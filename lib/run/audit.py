"""Does a search engine look at the object or at what is behind it? One command, one page.

    python -m lib.run.audit
    python -m lib.run.audit --model timm:resnet50 --images photographs
    python -m lib.run.audit --model model.onnx --images queries --gallery catalogue --fail-above 0.3

Without arguments the embedded trunk is audited on the demo's drawn images. MODEL is one of:
a trunk of this study, timm:<name>, a TorchScript or torch.export file, an ONNX file, an OpenVINO
.xml, package.module:callable (images (N, 3, H, W) in 0 to 255 to vectors (N, D)), or
study:<study>/<loss>/<arm>/<seed>. Pickles are not opened. IMAGES is a folder with a folder for each
class, or a labels.csv. docs/audit.md says more.

What comes out: reports/audit/<name>/index.html and audit.json. Exit status: 0, 1 (--fail-above), 2
(wrong input, told in words), 130 (stopped; what was finished is kept, and the same command goes on
from there).
"""

import argparse
import re
import sys
from dataclasses import fields
from pathlib import Path

from lib.core.errors import StudyError
from lib.core.progress import say
from lib.core.stage import in_words
from lib.experiments import audit_page
from lib.experiments.audit import Asked, audit, name_of
from lib.experiments.audit_search import FAST

HELP = {
    "model": "the embedding model",
    "images": "folder of images, or demo",
    "gallery": "folder of the catalogue, where it is apart from the queries (--images)",
    "size": "side of the input in pixels (0: what the model says, else 224)",
    "mean": "mean of the input, one or three numbers (default: ImageNet's; timm and trunks know)",
    "std": "standard deviation of the input",
    "scale": "scale that mean and std are on: 1 or 255",
    "bgr": "blue first",
    "weights": "safetensors file for timm:<name>",
    "reference": "model to compare with ('': none)",
    "masks": f"mask source; {FAST} is faster and coarser",
    "backgrounds": "unsplash, rendered, a folder of yours, or auto",
    "conditions": "names with commas between",
    "draws": "draws of random backgrounds",
    "remedies": "names with commas between ('': none)",
    "attention": "occlusion (any model), smoothgrad, gradient (differentiable ones), or none",
    "attention_images": "images for it",
    "limit": "images in the search at most, drawn as whole classes (0: all)",
    "seed": "of everything drawn",
}


def _listed(kind: type):
    def read(text: str) -> tuple:
        return tuple(kind(part) for part in re.split(r"[,\s]+", text.strip()) if part)

    return read


def add_flags(parser: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    """A flag for each of some fields of Asked."""
    for entry in (entry for entry in fields(Asked) if entry.name in names):
        flag, default = f"--{entry.name.replace('_', '-')}", entry.default
        if entry.name == "bgr":
            parser.add_argument(flag, action="store_true", help=HELP[entry.name])
            continue
        kind = type(default)
        if kind is tuple:
            kind = _listed(float if entry.name in ("mean", "std") else str)
        told = ",".join(map(str, default)) if isinstance(default, tuple) else default
        told = f" (default: {told})" if told != "" else ""
        parser.add_argument(flag, type=kind, default=default, help=HELP[entry.name] + told)


def parser() -> argparse.ArgumentParser:
    """The command line: a flag for every field of Asked, and where the page goes."""
    made = argparse.ArgumentParser(prog="python -m lib.run.audit", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add_flags(made, tuple(HELP))
    made.add_argument("--fast", action="store_true", help=f"masks by {FAST}")
    made.add_argument("--name", default="", help="of the page (default: model and images)")
    made.add_argument("--out", type=Path, help="folder of the page (default: reports/audit/<name>)")
    made.add_argument(
        "--fail-above", type=float, metavar="SHARE",
        help="exit with 1 if a random background costs more than this share of MAP@R (0.3)",
    )  # fmt: skip
    return made


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 1 (--fail-above), 2 (wrong input) or 130 (stopped)."""
    given = parser().parse_args(argv)
    values = {entry.name: getattr(given, entry.name) for entry in fields(Asked)}
    if given.fast:
        values["masks"] = FAST

    def run() -> int:
        if given.fail_above is not None and not 0 <= given.fail_above <= 1:
            raise StudyError(f"--fail-above is {given.fail_above}; give a share from 0 to 1.")
        asked = Asked(**values)
        found = audit(asked)
        page = audit_page.write(found, given.out or audit_page.home(given.name or name_of(asked)))
        print("\n".join(audit_page.verdict(found)))
        print(f"Open {page}")
        return _limit(found.lost, given.fail_above)

    return in_words(run, "Stopped; what was finished is kept, the same command goes on.")


def _limit(lost: float | None, limit: float | None) -> int:
    if limit is None:
        return 0
    if lost is None:
        say("--fail-above: there is no loss to compare, since nothing is found on clean images.")
        return 1
    if lost > limit:
        say(f"--fail-above {limit:g}: {lost:.3f} of MAP@R is lost.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
