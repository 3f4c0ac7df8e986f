"""The studies of params.yaml: read, checked, handed on section by section."""

import difflib
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from lib.core import paths
from lib.core.errors import StudyError

SECTIONS = ("data", "masks", "train", "shift", "attention", "remedies")
ALONE = "dial"  # the section of a study that is one notebook
OF_NOTEBOOKS = ("data", "masks", "train", ALONE)  # the others are for measuring steps only


def load(text: str) -> Any:
    """Parse YAML 1.2 as DVC does: 1e-4 is a number, a key that stands twice is refused."""
    return YAML(typ="safe", pure=True).load(text)


def everything(file: Path | None = None) -> dict[str, Any]:
    """All of params.yaml; text that is no YAML, or lacks `studies`, raises in words."""
    file = file or paths.PARAMS
    try:
        values = load(file.read_text(encoding="utf-8"))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{getattr(error, 'problem', error)}, line {mark.line + 1}" if mark else error
        raise StudyError(f"{file} is no YAML ({where}). Correct it and run again.") from error
    if not isinstance(values, dict) or not isinstance(values.get("studies"), dict):
        raise StudyError(f"{file} has no `studies`. Look at the file in git.")
    return values


def check_run(values: dict[str, Any]) -> None:
    """Refuse a `run` that is empty, no list of names, or names a study twice or the dial."""
    run = values.get("run")
    if not isinstance(run, list) or not run or not all(isinstance(name, str) for name in run):
        raise StudyError(f"`run` in params.yaml is {run!r}; wanted: a list of one or more names.")
    for name in run:
        if run.count(name) > 1:
            raise StudyError(f"`run` in params.yaml names {name} twice. Keep one.")
        if ALONE in study(name):
            raise StudyError(f"study {name!r} is not for `run`: `make dial` runs it.")


def study(name: str) -> dict[str, Any]:
    """All sections of a study; an unknown name raises with the closest known one."""
    known = everything()["studies"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise StudyError(
            f"there is no study {name!r} in params.yaml{hint} Known: {', '.join(known)}"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise StudyError(
            f"study {name!r}: its name is also that of its folders. Use only the letters a to z, "
            "digits, - and _ (params.yaml)."
        )
    extra = set(known[name]) ^ set(SECTIONS)
    if extra and set(known[name]) != {ALONE}:
        raise StudyError(f"study {name!r} must have the sections {SECTIONS}; look at {extra}")
    return known[name]


def section(name: str, part: str) -> dict[str, Any]:
    """One section of a study as keyword arguments; {} where the study has none of that name."""
    return dict(study(name).get(part, {}))
