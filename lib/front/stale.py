"""Is a committed study still what its code, parameters and data would give? `make stale`

dvc.lock holds the checksum of everything that a stage read and wrote when it ran. What differs
today is named, study by study; nothing is renewed by hand. Photographs and weights are not in git:
where they are not on this machine, they are passed over. So is the page of this machine's studies.

DVC compares bytes. What was measured carries fingerprints of its own, of the data and of what the
code that decides its numbers does (lib.core.code): an edited comment, or a room that was rearranged
elsewhere, changes bytes and no number. So "measured by code that was edited since" is told apart
from "other code would give other numbers".
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lib.core import params, paths
from lib.core.code import fingerprint
from lib.core.files import digest, key_of, read_json
from lib.evaluation import measured
from lib.evaluation.measured import name_of

PASSED_OVER = ("__pycache__", ".ipynb_checkpoints")  # as in .dvcignore
LOCAL = "data/"  # what git does not hold
OF_THIS_MACHINE = "reports/local."
KEPT_BY_DVC = "/metrics.json"
FACTS = "data/facts"
MEASURING = "measuring code"


def locked() -> dict[str, list[dict[str, Any]]]:
    """The stages of dvc.lock and of the pipelines' locks, by study; of the front page under "".

    A pipeline's stages run at the top of the repository, so that all paths begin there.
    """
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in [paths.ROOT / "dvc.lock", *sorted(paths.ROOT.glob("pipelines/*/dvc.lock"))]:
        stages = YAML(typ="safe").load(file)["stages"] if file.exists() else {}  # as DVC does
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

    Kinds: code, notebooks, data, parameters, results; MEASURING: code of a stage that writes no
    page; and pages, where a page's stage has any of them.
    """
    pages = [Path(o["path"]).stem for o in stage.get("outs", []) if o["path"].endswith(".html")]
    found = list(_differing(stage, "code" if pages else MEASURING))
    yield from found
    yield from (("pages", name) for name in pages if found)


def _differing(stage: dict[str, Any], code: str) -> Iterator[tuple[str, str]]:
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
            else {"lib": code, "notebooks": "notebooks"}.get(path.split("/")[0], "data")
        )
        yield kind, path if seen else f"{path} (gone)"
    now = _parameters(paths.PARAMS.read_text(encoding="utf-8"))
    for name, value in stage.get("params", {}).get("params.yaml", {}).items():
        if value != _at(now, name):
            yield "parameters", name


@lru_cache(maxsize=1)
def _parameters(_text: str) -> dict[str, Any]:
    return params.everything()  # read once, not by every stage


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


def other_numbers(study: str) -> list[str]:
    """Measured tables of a study that today's code or data would not give, by their fingerprints.

    Of images and masks those are compared that were looked at last (measured/data, masks).
    """
    from lib.attention import maps  # seconds of imports, where something has changed
    from lib.evaluation import measure, remedies_measure
    from lib.experiments import bias_dose
    from lib.training import fit

    if params.ALONE in params.everything()["studies"].get(study, {}):
        codes = bias_dose.Measured(study).codes
        return [bias_dose.Measured.part] * bool(codes - {fingerprint(*bias_dose.CODE)})
    m, where, found = measured.read(study), paths.StudyPaths(study).measured, []
    files = {part: where / part / f"{part}.json" for part in ("data", "masks")}
    seen = {part: read_json(file) if file.exists() else {} for part, file in files.items()}
    now = [seen["data"].get("images"), seen["masks"].get("masks"), seen["data"].get("backgrounds")]
    for made in m.manifest:
        pairs = zip(made["data"].split("-"), now, strict=True)
        same = [made["code"] == fingerprint(*measure.CODE)]
        same += [known is None or known.startswith(then) for then, known in pairs]
        if "recipe" in made:
            recipe = made["recipe"] | {"precision": made["precision"]}
            key = key_of(code=fingerprint(*fit.ROOMS), data=made["data"], **recipe)
            same.append(made["training"] == key)
        found += [name_of(made["loss"], made["arm"], made["seed"])] * (not all(same))
    first = read_json(m.there("first.json"))["code"] == fingerprint(*measure.FIRST)
    found += ["mask_robustness"] * (not first)
    for part, rooms in (("attention", maps.ROOMS), ("remedies", remedies_measure.CODE)):
        codes = {entry["code"] for entry in _entries(where / part)}
        found += [part] * bool(codes - {fingerprint(*rooms)})
    return found


def _entries(folder: Path) -> list[dict[str, Any]]:
    """What attention's ledger, or the manifests of remedies, say of every table."""
    ledger = folder / "measured.json"
    made = list(read_json(ledger)["made"].values()) if ledger.exists() else []
    return made + [read_json(file) for file in sorted(folder.glob("models/*.json"))]


def of_study(study: str, changes: dict[str, list[str]], most: int | None = 4) -> str:
    """What has changed of a study, in words. It starts with "Stale" where numbers may differ."""
    if not changes:
        return ""
    harmless = {MEASURING, "code", "notebooks", "pages"}
    where = paths.StudyPaths(study).measured
    kept = any((where / name).exists() for name in ("evaluation/study.json", "dial/dial.json"))
    if not kept or set(changes) - harmless or other_numbers(study):
        return sentence(changes, most)
    words = []
    if pages := changes.get("pages"):
        why = _some([*changes.get("notebooks", []), *changes.get("code", [])], most)
        words.append(f"Older than their notebook or code ({why}): {', '.join(pages)}.")
    if MEASURING in changes:
        words.append(
            f"Measured before {_some(changes[MEASURING], most)} were edited; by their fingerprints "
            "the data, and the code that decides these numbers, are the same."
        )
    return " ".join(words)


def _some(names: list[str], most: int | None) -> str:
    shown = names[:most]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


def sentence(changes: dict[str, list[str]], most: int | None = 4) -> str:
    """What has changed, in words; "" for nothing. Of every kind so many names; None: all."""
    if not changes:
        return ""
    words = [f"{kind} ({_some(names, most)})" for kind, names in changes.items()]
    return "Stale: changed since these results were made: " + "; ".join(words) + "."


def main() -> None:
    """Print a line for every stale study, those of one notebook too, and for the front page."""
    told = by_study()
    for study, stages in locked().items():
        if study not in told and any((paths.REPORTS / study).glob("*.html")):
            told[study or "front page"] = together(stages)
    for who, changes in told.items():
        if changes:
            print(f"{who}: {of_study(who, changes, most=None)}")


if __name__ == "__main__":
    main()
