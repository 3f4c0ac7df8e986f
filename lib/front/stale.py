"""Is a committed study still what its code, parameters and data would give? `make stale`

dvc.lock holds the checksum of everything that a stage read and wrote when it ran. What differs
today is named, study by study; nothing is renewed by hand. Photographs and weights are not in git:
where they are not on this machine, they are passed over.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lib.core import params, paths
from lib.core.files import digest

PASSED_OVER = ("__pycache__", ".ipynb_checkpoints")  # as in .dvcignore
LOCAL = "data/"  # what git does not hold
KEPT_BY_DVC = "/metrics.json"
FACTS = "data/facts"
EXPONENT = re.compile(r"-?\d+e[-+]\d+")


def locked() -> dict[str, dict[str, Any]]:
    """The stages of dvc.lock; none where there is no lock."""
    file = paths.ROOT / "dvc.lock"
    if not file.exists():
        return {}
    return yaml.safe_load(file.read_text(encoding="utf-8"))["stages"]


def study_of(stage: str) -> str:
    """`train@demo` -> `demo`; "" for a stage of all studies."""
    return stage.partition("@")[2]


@lru_cache(maxsize=512)
def checksum(path: str, root: Path) -> str | None:
    """DVC's md5 of a file or folder; None where it is not there."""
    here = root / path
    if here.is_file():
        return digest(here, "md5")
    if not here.is_dir():
        return None
    files = sorted(
        file.relative_to(here).as_posix()
        for file in here.rglob("*")
        if file.is_file() and not set(file.parts) & set(PASSED_OVER) and file.suffix != ".pyc"
    )
    listed = [{"md5": digest(here / name, "md5"), "relpath": name} for name in files]
    text = json.dumps(listed, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"


def changed(stage: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What differs from a stage's entry in the lock: (kind, name).

    Kinds: code, notebooks, data, parameters, results.
    """
    for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
        path, out = entry["path"], entry in stage.get("outs", [])
        local = path.startswith(LOCAL) and not path.startswith(FACTS)
        local |= path.endswith(KEPT_BY_DVC)
        seen = checksum(path, paths.ROOT)
        if seen == entry["md5"] or (seen is None and local):
            continue
        kind = (
            "results"
            if out
            else {"lib": "code", "notebooks": "notebooks"}.get(path.split("/")[0], "data")
        )
        yield kind, path if seen else f"{path} (gone)"
    now = params.everything()
    for name, value in stage.get("params", {}).get("params.yaml", {}).items():
        if _numbers(value) != _at(now, name):
            yield "parameters", name


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _numbers(value: Any) -> Any:
    """A value of the lock with what DVC writes as 3e-05, which YAML 1.1 reads as text, as float."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def by_study() -> dict[str, dict[str, list[str]]]:
    """What has changed of every study with committed pages: study -> kind -> names.

    An empty entry is a study that is what it would be if it ran again.
    """
    checksum.cache_clear()
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, stage in locked().items():
        study = study_of(name).split("-seed-")[0]
        known = [s for s in _studies() if study == s or study.startswith(f"{s}-")]
        if known:
            mine = found[max(known, key=len)]
            for kind, what in changed(stage):
                mine[kind].add(what)
    for study in _studies():
        if study not in found:
            found[study]["results"].add("dvc.lock does not know them")
    return {study: {k: sorted(v) for k, v in kinds.items()} for study, kinds in found.items()}


def _studies() -> list[str]:
    return sorted(page.parent.name for page in paths.REPORTS.glob("*/06_report.html"))


def sentence(changes: dict[str, list[str]], most: int = 4) -> str:
    """What has changed, in words; "" for nothing."""
    if not changes:
        return ""
    words = []
    for kind, names in changes.items():
        more = f" and {len(names) - most} more" if len(names) > most else ""
        words.append(f"{kind} ({', '.join(names[:most])}{more})")
    return "Stale: changed since these results were made: " + "; ".join(words) + "."


def main() -> None:
    """Print a line for every stale study."""
    for study, changes in by_study().items():
        if changes:
            print(f"{study}: {sentence(changes)}")


if __name__ == "__main__":
    main()
