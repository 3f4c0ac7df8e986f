"""Is a committed study still what its code, parameters and data would give? `make stale`

dvc.lock holds the checksum of everything that a stage read and wrote when it ran. What differs
today is named, study by study; nothing is renewed by hand. Photographs and weights are not in git:
where they are not on this machine, they are passed over. So is the page of this machine's studies.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.core import params, paths
from lib.core.files import digest

PASSED_OVER = ("__pycache__", ".ipynb_checkpoints")  # as in .dvcignore
LOCAL = "data/"  # what git does not hold
OF_THIS_MACHINE = "reports/local."
KEPT_BY_DVC = "/metrics.json"
FACTS = "data/facts"


def locked() -> dict[str, list[dict[str, Any]]]:
    """The stages of dvc.lock and of the pipelines' locks, by study; of the front page under "".

    A pipeline's stages run at the top of the repository, so that all paths begin there.
    """
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in [paths.ROOT / "dvc.lock", *sorted(paths.ROOT.glob("pipelines/*/dvc.lock"))]:
        stages = params.load(file.read_text(encoding="utf-8"))["stages"] if file.exists() else {}
        for name, stage in stages.items():
            found[study_of(name, stage)].append(stage)
    return dict(found)


def study_of(name: str, stage: dict[str, Any]) -> str:
    """`train@demo` -> `demo`; without a name in it, whose folder it writes to; "" for nobody's."""
    outs = [out["path"].split("/") for out in stage.get("outs", [])]
    folders = [parts[1] for parts in outs if parts[0] == "reports" and len(parts) > 2]
    return name.partition("@")[2] or next(iter(folders), "")


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
        same = seen == entry["md5"] or (seen is None and local)
        if same or path.startswith(OF_THIS_MACHINE):
            continue
        kind = (
            "results"
            if out
            else {"lib": "code", "notebooks": "notebooks"}.get(path.split("/")[0], "data")
        )
        yield kind, path if seen else f"{path} (gone)"
    now = params.everything()
    for name, value in stage.get("params", {}).get("params.yaml", {}).items():
        if value != _at(now, name):
            yield "parameters", name


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def together(stages: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What has changed of some stages: kind -> names."""
    found: dict[str, set[str]] = defaultdict(set)
    for kind, name in (what for stage in stages for what in changed(stage)):
        found[kind].add(name)
    return {kind: sorted(names) for kind, names in found.items()}


def by_study() -> dict[str, dict[str, list[str]]]:
    """What has changed of every study with a report: study -> kind -> names.

    An empty entry is a study that is what it would be if it ran again.
    """
    checksum.cache_clear()
    stages, unknown = locked(), {"results": ["dvc.lock does not know them"]}
    return {s: together(stages[s]) if s in stages else unknown for s in _studies()}


def _studies() -> list[str]:
    return sorted(page.parent.name for page in paths.REPORTS.glob("*/06_report.html"))


def sentence(changes: dict[str, list[str]], most: int | None = 4) -> str:
    """What has changed, in words; "" for nothing. Of every kind so many names; None: all."""
    if not changes:
        return ""
    words = []
    for kind, names in changes.items():
        shown = names[:most]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        words.append(f"{kind} ({', '.join(shown)}{more})")
    return "Stale: changed since these results were made: " + "; ".join(words) + "."


def main() -> None:
    """Print a line for every stale study, those of one notebook too, and for the front page."""
    told = by_study()
    for study, stages in locked().items():
        if study not in told and any((paths.REPORTS / study).glob("*.html")):
            told[study or "front page"] = together(stages)
    for who, changes in told.items():
        if changes:
            print(f"{who}: {sentence(changes, most=None)}")


if __name__ == "__main__":
    main()
