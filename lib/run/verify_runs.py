"""Does the demo come out the same? Two runs from nothing, compared with each other and with git.

    python -m lib.run.verify_runs [--study demo] [--keep FOLDER]

Two clones of the last commit in a temporary folder, run by DVC without anything from before, share
only the environment and the models that were downloaded. Every table and weight of the two must
have the same bytes. The committed tables must be equal to them where the machine is the one that
made them (kind of processor, cores, versions in run.json); elsewhere numbers may differ by
TOLERANCE.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lib.core import paths, run_log
from lib.core.errors import StudyError
from lib.core.files import digest, read_json

TABLES = ("reports/{}/*.csv", "reports/{}/answers.json", "reports/summaries/{}.json")
ROWS = ("data/shift/{}/*.parquet", "data/attention/{}/*.parquet")
WEIGHTS = ("data/models/{}/*/*.safetensors",)
TOLERANCE = 0.05  # of the column `value` (shares, 0 to 1) on another processor or number of cores
RANKS = ("attention_link.csv",)  # correlations over a few models: a small change turns their order
CHECKED = ("01_data", "06_report")  # pages whose cells promise an output (nbval)


@dataclass(frozen=True)
class Difference:
    """One file that is not what it should be, and how."""

    file: str
    how: str


def found(root: Path, study: str, patterns: tuple[str, ...]) -> dict[str, Path]:
    """Files under `root` that match, by name relative to it."""
    files = [file for pattern in patterns for file in root.glob(pattern.format(study))]
    return {file.relative_to(root).as_posix(): file for file in sorted(files)}


def compare(
    first: Path, second: Path, study: str, patterns: tuple[str, ...] = TABLES + ROWS + WEIGHTS
) -> list[Difference]:
    """Files of two folders that are missing in one or whose checksums differ."""
    one, two = found(first, study, patterns), found(second, study, patterns)
    if not one and not two:
        raise StudyError(f"neither {first} nor {second} holds results of {study}. Run it first.")
    out = [Difference(name, "only in the first") for name in one if name not in two]
    out += [Difference(name, "only in the second") for name in two if name not in one]
    same = [name for name in one if name in two]
    return out + [Difference(n, "other bytes") for n in same if digest(one[n]) != digest(two[n])]


def near(first: Path, second: Path, study: str, tolerance: float) -> list[Difference]:
    """Tables of two folders that differ in shape, in words, or in `value` by over `tolerance`."""
    one, two = (found(root, study, ("reports/{}/*.csv",)) for root in (first, second))
    out = [Difference(name, "missing") for name in sorted(set(one) ^ set(two))]
    for name in sorted(set(one) & set(two)):
        allowed = float("inf") if name.endswith(RANKS) else tolerance
        how = _far(pd.read_csv(one[name]), pd.read_csv(two[name]), allowed)
        out += [Difference(name, how)] if how else []
    return out


def _far(one: pd.DataFrame, two: pd.DataFrame, tolerance: float) -> str:
    if list(one) != list(two) or len(one) != len(two):
        return f"{one.shape} and {two.shape}: other rows or columns"
    words = [column for column in one if not pd.api.types.is_numeric_dtype(one[column])]
    if "value" not in one:
        return ""
    if not one[words].equals(two[words]):
        return "other names in its rows"
    gap = (one["value"] - two["value"]).abs().max()
    return f"`value` differs by {gap:.3f}, allowed {tolerance}" if gap > tolerance else ""


def same_machine(root: Path, study: str, here: dict[str, Any] | None = None) -> bool:
    """Whether every stage of the committed study was run on a machine like `here` (this one)."""
    here = here or run_log.machine()
    runs = read_json(root / "reports" / study / "run.json").values()
    return all(run["machine"] == here for run in runs)


# ------------------------------------------------------------------------------ the two fresh runs


def fresh(folder: Path, study: str) -> Path:
    """A clone of the last commit in `folder`, without anything that a run left."""
    _run(["git", "clone", "--quiet", "--no-hardlinks", str(paths.ROOT), str(folder)], paths.ROOT)
    for name in ("dvc.lock", f"reports/{study}", f"reports/summaries/{study}.json"):
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    if paths.WEIGHTS.exists():  # downloads, checked by md5 before use
        shutil.copytree(paths.WEIGHTS, folder / "data" / "weights")
    file = folder / "params.yaml"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = [f"run: [{study}]\n" if line.startswith("run:") else line for line in lines]
    file.write_text("".join(changed), encoding="utf-8")
    return folder


def _environment(root: Path) -> dict[str, str]:
    found = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}
    found["NUMBA_DISABLE_JIT"] = "1"
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return found


def _run(command: list[str], root: Path) -> None:
    done = subprocess.run(command, cwd=root, env=_environment(root), check=False)
    if done.returncode:
        raise StudyError(f"{' '.join(command)} ended with {done.returncode}; its words are above.")


def repeat(folder: Path, study: str) -> tuple[Path, Path]:
    """Run the study from nothing in two clones under `folder`."""
    made = (fresh(folder / "first", study), fresh(folder / "second", study))
    for root in made:
        print(f"running {study} from nothing in {root}", flush=True)
        _run([sys.executable, "-m", "dvc", "repro"], root)
    return made


def notebooks_hold(root: Path, study: str) -> None:
    """nbval: the committed pages run again in a fresh run, the outputs they promise compared."""
    pages = [f"reports/{study}/committed_{name}.ipynb" for name in CHECKED]
    for name, page in zip(CHECKED, pages, strict=True):
        shutil.copy(paths.ROOT / "reports" / study / f"{name}.ipynb", root / page)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "-p", "no:cacheprovider"]
    _run([*command, "-c", os.devnull, *pages], root)


def report(title: str, differences: list[Difference], count: int) -> bool:
    """Print what was compared and how it came out; True if nothing differs."""
    print(f"{title}: {count} files, {len(differences)} differ")
    for one in differences:
        print(f"  {one.file}: {one.how}")
    return not differences


def verify(folder: Path, study: str) -> bool:
    """All three comparisons; True if all hold."""
    first, second = repeat(folder, study)
    every = len(found(first, study, TABLES + ROWS + WEIGHTS))
    holds = report("two runs from nothing, by checksum", compare(first, second, study), every)
    tables = len(found(first, study, TABLES))
    if same_machine(paths.ROOT, study):
        apart = compare(paths.ROOT, first, study, TABLES)
        holds &= report("committed tables, by checksum (the same machine)", apart, tables)
        notebooks_hold(first, study)
    else:
        apart = near(paths.ROOT, first, study, TOLERANCE)
        holds &= report(f"committed tables, within {TOLERANCE} (another machine)", apart, tables)
        print("the outputs that pages promise are compared only on the machine that made them")
    return holds


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 1 (something differs) or 2 (a run could not be made)."""
    parser = argparse.ArgumentParser(prog="python -m lib.run.verify_runs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--study", default="demo")
    parser.add_argument("--keep", type=Path, help="an empty folder that the two runs stay in")
    given = parser.parse_args(argv)
    try:
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            return 0 if verify(given.keep.resolve(), given.study) else 1
        with tempfile.TemporaryDirectory() as folder:
            return 0 if verify(Path(folder).resolve(), given.study) else 1
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
