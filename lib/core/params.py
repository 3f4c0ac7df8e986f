"""The studies of params.yaml: read, checked, handed to the notebooks section by section.

`python -m lib.core.params` sees to what every stage relies on: the list `run`.
"""

import difflib
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from lib.core import paths
from lib.core.errors import StudyError

SECTIONS = ("data", "masks", "train", "shift", "attention")
OF_NOTEBOOKS = ("data", "masks", "train", "dial")  # the others belong to measuring steps
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
    """All of params.yaml; text that is no YAML, or lacks `studies`, raises in words."""
    file = file or paths.PARAMS
    try:
        values = load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise StudyError(f"{file} is no YAML ({where}). Correct it and run again.") from error
    if not isinstance(values, dict) or not isinstance(values.get("studies"), dict):
        raise StudyError(f"{file} has no `studies`. Look at the file in git.")
    return values


def check_lists(values: dict[str, Any]) -> None:
    """Refuse a `run` that is empty, no list of names, or names one twice."""
    for name in ("run",):
        given = values.get(name)
        if not isinstance(given, list) or not given or not all(isinstance(x, str) for x in given):
            raise StudyError(
                f"`{name}` in params.yaml is {given!r}; wanted: a list of one or more names."
            )
        twice = sorted({entry for entry in given if given.count(entry) > 1})
        if twice:
            raise StudyError(f"`{name}` in params.yaml names {twice[0]} twice. Keep one.")
    for entry in values["run"]:
        if ALONE in study(entry):
            raise StudyError(f"study {entry!r} is not for `run`: `make dial` runs it.")


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


def main() -> int:
    """The command line. Returns 0, or 2 where params.yaml cannot be run."""
    try:
        check_lists(everything())
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
