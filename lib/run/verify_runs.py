"""Does a study come out the same? Two runs from nothing, and reports/, are compared.

    python -m lib.run.verify_runs [--study demo] [--keep FOLDER]

Two clones of the last commit in a temporary folder, run by DVC without anything from before, share
only the environment and the models that were downloaded. Every table, executed notebook and weight
of the two must have the same bytes. Where reports/ holds the study, its tables must be equal to
theirs if they were made on this machine (kind of processor, cores, versions in run.json); made
elsewhere, numbers may differ by TOLERANCE.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.core import paths, run_log
from lib.core.compact import read_compact
from lib.core.errors import StudyError
from lib.core.files import digest, read_json

TABLES = ("reports/{}/**/*.csv", "reports/{}/**/*.parquet", "reports/{}/answers.json")
TABLES += ("reports/summaries/{}.json",)
EVERYTHING = (*TABLES, "reports/{}/*.ipynb", "data/models/{}/*/*.safetensors")
TOLERANCE = 0.05  # of shares (0 to 1), and of what is larger in proportion, on another processor
LOOSE = {"low", "high", "p", "p_holm", "best"}  # these jump where what they are about moves little
# Correlations over a few models, and single classes of few images: a small change moves them much.
UNSTEADY = ("attention_link.csv", "classes.parquet")


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
    first: Path, second: Path, study: str, patterns: tuple[str, ...] = EVERYTHING
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
    """Tables of two folders that differ in rows, words or counts, or in numbers by too much."""
    kinds = ("reports/{}/*.csv", "reports/{}/*.parquet")
    one, two = (found(root, study, kinds) for root in (first, second))
    out = [Difference(name, "missing") for name in sorted(set(one) ^ set(two))]
    for name in sorted(set(one) & set(two)):
        free = name.endswith(UNSTEADY)
        how = _far(_table(one[name]), _table(two[name]), None if free else tolerance)
        out += [Difference(name, how)] if how else []
    return out


def _table(file: Path) -> pd.DataFrame:
    return read_compact([file]) if file.suffix == ".parquet" else pd.read_csv(file)


def _far(one: pd.DataFrame, two: pd.DataFrame, tolerance: float | None) -> str:
    """How two tables differ; "" if they hold the same rows, in whatever order, and near numbers."""
    if list(one) != list(two) or len(one) != len(two):
        return f"{one.shape} and {two.shape}: other rows or columns"
    if not one.dtypes.equals(two.dtypes):
        return "another kind of values in a column"
    numbers = [column for column in one if one[column].dtype.kind == "f"]
    keys = [column for column in one if column not in {*numbers, *LOOSE}]
    if keys:
        one, two = (table.sort_values(keys, ignore_index=True) for table in (one, two))
    if not one[keys].equals(two[keys]):
        return "other names or counts in its rows"
    for column in numbers:
        a, b = one[column].to_numpy(), two[column].to_numpy()
        if (np.isnan(a) != np.isnan(b)).any():
            return f"`{column}` is empty in other rows"
        held = tolerance is not None and column not in LOOSE
        if held and not np.allclose(a, b, atol=tolerance, rtol=tolerance, equal_nan=True):
            return f"`{column}` differs by {np.nanmax(abs(a - b)):.3f}, allowed {tolerance}"
    return ""


def same_machine(root: Path, study: str, here: dict[str, Any] | None = None) -> bool:
    """Whether every step of the study in `root` was run on a machine like `here` (this one)."""
    here = here or run_log.machine()
    runs = read_json(root / "reports" / study / "run.json").values()
    return all(run["machine"] == here for run in runs)


# ------------------------------------------------------------------------------ the two fresh runs


def fresh(folder: Path, study: str) -> Path:
    """A clone of the last commit in `folder`, without anything that a run left."""
    _run(["git", "clone", "--quiet", "--no-hardlinks", str(paths.ROOT), str(folder)], paths.ROOT)
    for name in ("dvc.lock", f"reports/summaries/{study}.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "reports" / study, ignore_errors=True)
    if paths.WEIGHTS.exists():  # downloads, checked by md5 before use
        shutil.copytree(paths.WEIGHTS, folder / "data" / "weights")
    file = folder / "params.yaml"
    text = re.sub(r"(?m)^run:.*$", f"run: [{study}]", file.read_text(encoding="utf-8"))
    file.write_text(text, encoding="utf-8")
    return folder


def _run(command: list[str], root: Path) -> None:
    found = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "0", "NUMBA_DISABLE_JIT": "1"}
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=root, env=found, check=False)
    if done.returncode:
        raise StudyError(f"{' '.join(command)} ended with {done.returncode}; its words are above.")


def repeat(folder: Path, study: str) -> tuple[Path, Path]:
    """Run the study from nothing in two clones under `folder`."""
    made = (fresh(folder / "first", study), fresh(folder / "second", study))
    for root in made:
        print(f"running {study} from nothing in {root}", flush=True)
        _run([sys.executable, "-m", "dvc", "repro"], root)
    return made


def report(title: str, differences: list[Difference], count: int) -> bool:
    """Print what was compared and how it came out; True if nothing differs."""
    print(f"{title}: {count} files, {len(differences)} differ")
    for one in differences:
        print(f"  {one.file}: {one.how}")
    return not differences


def verify(folder: Path, study: str) -> bool:
    """Both comparisons; True if they hold."""
    first, second = repeat(folder, study)
    every, tables = (len(found(first, study, kind)) for kind in (EVERYTHING, TABLES))
    holds = report("two runs from nothing, by checksum", compare(first, second, study), every)
    if not (paths.REPORTS / study / "run.json").exists():
        print(f"reports/{study} does not hold the study: there is nothing else to compare with")
    elif same_machine(paths.ROOT, study):
        apart = compare(paths.ROOT, first, study, TABLES)
        holds &= report("tables of reports/, by checksum (the same machine)", apart, tables)
    else:
        apart = near(paths.ROOT, first, study, TOLERANCE)
        holds &= report(f"tables of reports/, within {TOLERANCE} (another machine)", apart, tables)
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
        with nullcontext(given.keep) if given.keep else tempfile.TemporaryDirectory() as folder:
            return 0 if verify(Path(folder).resolve(), given.study) else 1
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
