"""Execute notebooks of the study: strict parameters, atomic results, the same bytes every time.

    python -m lib.execute 04_shift 05_attention 06_report --study demo
    python -m lib.execute 04_shift --study demo -p conditions=paper --stem 04_shift_paper

The source notebook is only read. What is written is `<stem>.ipynb` and `<stem>.html` in the
output folder; a run that fails leaves `<stem>.failed.ipynb` there and touches nothing else.
"""

import argparse
import os
import re
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import nbformat

from lib.core import params, run_log
from lib.core.errors import StudyError
from lib.core.files import atomic
from lib.core.parameters import ParameterError, check_parameters
from lib.core.paths import NOTEBOOKS, StudyPaths
from lib.core.stage import one_at_a_time
from lib.execute.cleaning import clean
from lib.execute.html import exporter, page
from lib.execute.kernel import Session, run_cells
from lib.execute.parameters import declared_parameters, parse_override


class NotebookFailed(RuntimeError):
    """A cell raised, or the kernel died; `failed_copy` is the half-executed notebook."""

    def __init__(self, message: str, failed_copy: Path):
        super().__init__(message)
        self.failed_copy = failed_copy


# ----------------------------------------------------------------------------------- one execution


def execute(
    notebook: Path,
    parameters: dict[str, Any],
    out_dir: Path,
    stem: str | None = None,
    neighbours: tuple[str | None, str | None] = (None, None),
) -> Path:
    """Execute a notebook with Papermill and write `<stem>.ipynb` and `<stem>.html` to `out_dir`.

    Args:
        notebook: the source `.ipynb`; it is never changed.
        parameters: values for the cell tagged `parameters`; names and types are checked first.
        out_dir: made if missing.
        stem: name of the results, by default the notebook's own.
        neighbours: stems of the previous and next page, where these are not the previous and
            next notebook of the source folder (03_train has one page a loss, for example).

    Returns:
        The path of the executed notebook.

    Raises:
        ParameterError: before a kernel starts.
        NotebookFailed: a cell raised or the kernel died; earlier results are untouched.
    """
    notebook, out_dir = Path(notebook).resolve(), Path(out_dir).resolve()
    source = nbformat.read(notebook, as_version=4)
    check_parameters(declared_parameters(source, notebook.stem), parameters, notebook.stem)
    stem = stem or notebook.stem
    failed_copy = out_dir / f"{stem}.failed.ipynb"
    threading.Thread(target=exporter, daemon=True).start()  # its import, while the kernel works
    with tempfile.TemporaryDirectory() as scratch:
        session = Session(notebook.parent, Path(scratch), stem)
        problem = run_cells(source, parameters, session)
        executed = clean(nbformat.read(Path(scratch) / "executed.ipynb", as_version=4))
    if problem:
        _write(failed_copy, nbformat.writes(executed))
        raise NotebookFailed(problem, failed_copy)
    html = page(executed, notebook, out_dir, stem, neighbours)
    _write(out_dir / f"{stem}.html", html)
    _write(out_dir / f"{stem}.ipynb", nbformat.writes(executed))
    failed_copy.unlink(missing_ok=True)
    return out_dir / f"{stem}.ipynb"


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


ONE = ("overrides", "stem", "previous", "next")  # options that are for a single notebook


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lib.execute", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("notebooks", nargs="+", help="03_train, or paths that end in .ipynb")
    parser.add_argument("--study", required=True, help="a study of params.yaml")
    parser.add_argument("-p", action="append", default=[], metavar="name=value", dest="overrides")
    parser.add_argument("--out", type=Path, help="output folder (default: reports/<study>)")
    parser.add_argument("--stem", "--name", help="name of the results (default: the notebook's)")
    parser.add_argument("--previous", help="stem of the page before ('': none; default: by number)")
    parser.add_argument("--next", help="stem of the page after ('': none; default: by number)")
    return parser.parse_args(argv)


def _notebook(name: str) -> Path:
    path = Path(name) if name.endswith(".ipynb") else NOTEBOOKS / f"{name}.ipynb"
    if not path.is_file():
        names = ", ".join(sorted(other.stem for other in path.parent.glob("*.ipynb")))
        raise StudyError(f"There is no notebook '{name}'; there are: {names or 'none'}.")
    return path


def _parameters(notebook: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The study's section, where it is for this notebook, and what `-p` says."""
    params.study(given.study)
    part = re.sub(r"^\d+_", "", notebook.stem)
    own = part in params.OF_NOTEBOOKS and part != params.ALONE  # the dial's is what is measured
    values = params.section(given.study, part) if own else {}
    return {"study": given.study, **values, **dict(map(parse_override, given.overrides))}


def _execute_for_study(given: argparse.Namespace) -> None:
    if len(given.notebooks) > 1 and any(getattr(given, name) not in (None, []) for name in ONE):
        raise StudyError("-p, --stem, --previous and --next are for one notebook at a time.")
    runs = [(path, _parameters(path, given)) for path in map(_notebook, given.notebooks)]
    out_dir = given.out or StudyPaths(given.study).reports
    with one_at_a_time(given.study):
        for notebook, values in runs:
            watch = run_log.Watch(given.study)
            made = execute(notebook, values, out_dir, given.stem, (given.previous, given.next))
            if not given.out:
                run_log.note(given.study, made.stem, values, watch.read())


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 1 (the notebook failed), 2 (wrong input) or 130 (stopped)."""
    try:
        _execute_for_study(_arguments(argv))
    except NotebookFailed as failure:
        copy = os.path.relpath(failure.failed_copy)
        print(f"{failure}\nThe half-executed notebook is {copy}", file=sys.stderr)
        return 1
    except (ParameterError, StudyError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; pages that were finished are kept.", file=sys.stderr)
        return 130
    return 0
