"""The studies of params.yaml: read, checked, handed to the notebooks section by section."""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from lib import paths
from lib.errors import StudyError

SECTIONS = ("data", "masks", "train", "shift", "attention")
ALONE = "dial"  # the section of a study that is one notebook


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as text; this loader reads it as the number that it is (as DVC does)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)
_Loader.yaml_implicit_resolvers = {
    first: sorted(rules, key=lambda rule: rule[0].endswith("float"))  # integers are tried first
    for first, rules in _Loader.yaml_implicit_resolvers.items()
}


def load(text: str) -> Any:
    """Parse YAML text, numbers as DVC reads them."""
    return yaml.load(text, Loader=_Loader)


def everything(file: Path | None = None) -> dict[str, Any]:
    """All of params.yaml."""
    return load((file or paths.PARAMS).read_text(encoding="utf-8"))


def study(name: str) -> dict[str, Any]:
    """All sections of a study; an unknown name raises with the closest known one."""
    known = everything()["studies"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise StudyError(
            f"there is no study {name!r} in params.yaml{hint} Known: {', '.join(known)}"
        )
    extra = set(known[name]) ^ set(SECTIONS)
    if extra and set(known[name]) != {ALONE}:
        raise StudyError(f"study {name!r} must have the sections {SECTIONS}; look at {extra}")
    return known[name]


def section(name: str, part: str) -> dict[str, Any]:
    """One section of a study as keyword arguments; a notebook without a section gets none."""
    return dict(study(name).get(part, {}))
