"""Execute a notebook of the study: strict parameters, atomic results, the same bytes every time.

    python -m lib.execute 03_train --study demo -p loss=triplet --stem 03_train_triplet

The source notebook is only read. What is written is `<stem>.ipynb` and `<stem>.html` in the
output folder; a run that fails leaves `<stem>.failed.ipynb` there and touches nothing else.
"""

import argparse
import ast
import difflib
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from lib import params, runlog
from lib.errors import StudyError
from lib.files import atomic
from lib.html import harmless, harmless_markdown, page
from lib.lock import one_at_a_time
from lib.paths import NOTEBOOKS, ROOT, StudyPaths

EXAMPLES = {int: 3, float: 0.5, str: "triplet", bool: True, list: [0, 1], dict: {"key": 1}}
KINDS = {kind.__name__: kind for kind in EXAMPLES}

# For glibc's allocator (others ignore it): one arena that gives nothing back. A training step frees
# and asks for the same hundreds of megabytes, and every page of them would be faulted in again.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


class ParameterError(ValueError):
    """A parameter that the notebook does not have, or a value of the wrong type."""


class NotebookFailed(RuntimeError):
    """A cell raised, or the kernel died; `failed_copy` is the half-executed notebook."""

    def __init__(self, message: str, failed_copy: Path):
        super().__init__(message)
        self.failed_copy = failed_copy


# ------------------------------------------------------------------ parameters, before any kernel


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: `name: kind = default  # help`."""

    name: str
    kind: type
    default: Any


def declared_parameters(notebook: NotebookNode, name: str = "notebook") -> dict[str, Parameter]:
    """The parameters in the cell tagged `parameters`; {} where there is no such cell.

    Raises ParameterError where a line is not `name: type = literal`.
    """
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if not cells:
        return {}
    try:
        lines = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise ParameterError(f"{name}: the parameters cell is no Python ({error.msg}).") from error
    found = [_declared(line, name) for line in lines if not isinstance(line, ast.Expr)]
    return {parameter.name: parameter for parameter in found}


def _declared(line: ast.stmt, notebook: str) -> Parameter:
    target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
    try:
        default = ast.literal_eval(line.value)  # type: ignore[attr-defined]
        annotation = getattr(line, "annotation", None)
        if annotation is None:
            kind = type(default)
        else:  # list[int] counts as list
            kind = KINDS[getattr(annotation, "value", annotation).id]
        if kind not in EXAMPLES:
            raise KeyError(kind)
        return Parameter(target.id, kind, default)  # type: ignore[union-attr]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ParameterError(
            f"{notebook}: line {line.lineno} of the parameters cell, '{ast.unparse(line)}', "
            f"should read 'name: type = plain value  # help' with a type of {', '.join(KINDS)}."
        ) from error


def check_parameters(declared: dict[str, Parameter], given: dict[str, Any], name: str) -> None:
    """Raise ParameterError for an unknown name or a wrong type; an int is fine for a float."""
    for key, value in given.items():
        if key not in declared:
            raise ParameterError(_unknown(key, list(declared), name))
        if not _fits(value, declared[key]):
            raise ParameterError(_mistyped(value, declared[key], name))


def _unknown(key: str, names: list[str], notebook: str) -> str:
    if not names:
        return f"{notebook} takes no parameters (no cell is tagged 'parameters'), not even '{key}'."
    closest = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
    listed = ", ".join(sorted(names))
    return f"{notebook} has no parameter '{key}'; the closest is '{closest}', all are: {listed}."


def _fits(value: Any, parameter: Parameter) -> bool:
    if value is None:
        return parameter.default is None
    if isinstance(value, bool):
        return parameter.kind is bool
    allowed = (int, float) if parameter.kind is float else parameter.kind
    return isinstance(value, allowed)


def _mistyped(value: Any, parameter: Parameter, notebook: str) -> str:
    usable = parameter.default not in (None, "", [], {})
    example = parameter.default if usable else EXAMPLES[parameter.kind]
    shown = yaml.safe_dump(example, default_flow_style=True, width=1000).splitlines()[0]
    return (
        f"{notebook}: parameter '{parameter.name}' takes {parameter.kind.__name__}, "
        f"for example {parameter.name}={shown}, and was given {value!r} ({type(value).__name__})."
    )


# ---------------------------------------------------------------------------------- the same bytes


def clean(notebook: NotebookNode) -> NotebookNode:
    """A copy without what differs from run to run: times, ids, addresses, progress bars, paths."""
    cells, styles = [], {}
    for index, cell in enumerate(notebook.cells):
        kept = nbformat.from_dict(dict(cell, id=f"cell-{index:02d}"))
        kept.metadata = NotebookNode(
            {k: v for k, v in cell.metadata.items() if k not in ("papermill", "execution") and v}
        )
        if cell.cell_type == "code":
            outputs = _streams_merged([nbformat.from_dict(o) for o in cell.outputs])
            kept.outputs = [o for o in (_clean_output(o, styles) for o in outputs) if o]
        cells.append(kept)
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.from_dict(
        {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    )


def _streams_merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Between two displays: one stdout, then one stderr (their interleaving is a race)."""
    merged: list[NotebookNode] = []
    run: dict[str, NotebookNode] = {}
    for output in outputs:
        if output.output_type != "stream":
            merged += [run[name] for name in ("stdout", "stderr") if name in run] + [output]
            run = {}
        elif output.name in run:
            run[output.name].text += output.text
        else:
            run[output.name] = output
    return merged + [run[name] for name in ("stdout", "stderr") if name in run]


def _clean_output(output: NotebookNode, styles: dict[str, str]) -> NotebookNode | None:
    if output.output_type == "stream":
        lines = output.text.splitlines(keepends=True) if output.name == "stdout" else []
        if output.name == "stderr":  # tqdm redraws its line with carriage returns
            lines = [x for x in re.findall(r"[^\n]*\n|[^\n]+", output.text) if "\r" not in x]
        output.text = _clean_text("".join(lines))
        return output if output.text else None
    if output.output_type == "error":
        output.traceback = [_clean_text(line) for line in output.traceback]
        return output
    if "application/vnd.jupyter.widget-view+json" in output.data:
        return None  # a widget is blank without a live kernel, and its ids are random
    for kind in ("text/plain", "text/html"):
        if kind in output.data:
            output.data[kind] = _clean_text(output.data[kind])
    if "text/html" in output.data:
        output.data["text/html"] = harmless(output.data["text/html"])
    if "text/markdown" in output.data:
        output.data["text/markdown"] = harmless_markdown(output.data["text/markdown"])
    if "<style" in output.data.get("text/html", ""):  # pandas' Styler draws a random table id
        output.data["text/html"] = re.sub(
            r"\bT_[0-9a-f]{5}(?![0-9a-f])",
            lambda match: styles.setdefault(match[0], f"T_style{len(styles)}"),
            output.data["text/html"],
        )
    return output


def _clean_text(text: str) -> str:
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text)
    text = re.sub(r"[^\s'\"(]*/ipykernel_\d+/\d+\.py", "<cell>", text)
    text = re.sub(r"[^\s'\"(]*/site-packages/", "", text)
    return re.sub(rf"{re.escape(str(ROOT))}(?![\w.-])", ".", text.replace(f"{ROOT}/", ""))


# -------------------------------------------------------------------------------------- the kernel


@dataclass
class _Session:
    """What one run knows: where the kernel works, what it is told, how it is stopped."""

    folder: Path
    scratch: Path
    stem: str
    client: PapermillNotebookClient | None = field(default=None)

    def environment(self) -> dict[str, str]:
        """The kernel's environment: this repository's lib first, nothing of the user's setup."""
        inherited = os.environ.get("PYTHONPATH")
        return {
            **KEEP_MEMORY,
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *([inherited] if inherited else [])]),
            "PYTHONHASHSEED": "0",
            "NUMBA_DISABLE_JIT": "1",  # importing rembg would compile for a minute
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm asks for widgets at import
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "COLUMNS": "100",  # pandas and others ask the terminal for its width
            "IPYTHONDIR": str(self.scratch / "ipython"),  # no personal startup files
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "STUDY_PROGRESS": str(self.scratch / "progress"),
        }

    def announce(self, cell: NotebookNode, cell_index: int) -> None:
        """One line to the terminal: which cell runs, under which heading."""
        cells = self.client.nb.cells
        code = [i for i, c in enumerate(cells) if c.cell_type == "code" and c.source.strip()]
        text = "\n".join(c.source for c in cells[:cell_index] if c.cell_type == "markdown")
        headings = re.findall(r"^#+ +(.+)$", text, flags=re.MULTILINE) or [""]
        place = f"[{code.index(cell_index) + 1}/{len(code)}]"
        print(f"{self.stem} {place} {headings[-1]}".rstrip(), file=sys.stderr, flush=True)

    def kill(self) -> None:
        """End the kernel and its workers at once (it leads a process group of its own)."""
        provisioner = getattr(getattr(self.client, "km", None), "provisioner", None)
        if getattr(provisioner, "pid", None):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(provisioner.pid, signal.SIGKILL)


class _Engine(NBClientEngine):
    """Papermill's own engine, with our kernel process and our progress lines."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, session, **_) -> None:
        """Start the kernel of `session` and run the cells of `nb_man.nb` in it."""
        session.client = PapermillNotebookClient(
            nb_man,
            kernel_name=kernel_name,
            timeout=None,
            startup_timeout=120,
            iopub_timeout=60,
            record_timing=False,
            on_cell_execute=session.announce,
        )
        manager = session.client.km = session.client.create_kernel_manager()
        # Whatever is installed under the name python3: run the interpreter that runs us.
        manager.kernel_spec.argv[0] = sys.executable
        if os.name == "posix":  # sockets in a private folder: no ports to fight over
            manager.transport = "ipc"
            manager.connection_file = str(session.scratch / "kernel.json")
            manager.ip = str(session.scratch / "kernel")
        session.client.execute(cwd=str(session.folder), env=session.environment())


@contextmanager
def _kernel_ends_with_us(session: _Session) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into: kill the kernel, then leave."""

    def stop(number: int, _: Any) -> None:
        session.kill()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may set handlers
    numbers = [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _relayed(path: Path, every: float = 0.3) -> Iterator[None]:
    """Copy what is appended to `path` to stderr (ipykernel captures the kernel's own fd 2)."""
    path.touch()
    done = threading.Event()

    def pump() -> None:
        with open(path, encoding="utf-8", errors="replace") as stream:
            last = False
            while not last:
                last = done.wait(every)
                sys.stderr.write(stream.read())
                sys.stderr.flush()

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _run(source: NotebookNode, parameters: dict[str, Any], session: _Session) -> str | None:
    """Run into `scratch/executed.ipynb`; return what went wrong in words, or None."""
    papermill_engines.register("study", _Engine)
    output = str(session.scratch / "executed.ipynb").replace("{", "{{").replace("}", "}}")
    try:
        with _kernel_ends_with_us(session), _relayed(session.scratch / "progress"):
            papermill.execute_notebook(
                source,
                output,
                parameters,
                engine_name="study",
                kernel_name="python3",
                language="python",
                progress_bar=False,
                session=session,
            )
        executed = nbformat.read(session.scratch / "executed.ipynb", as_version=4)
        outputs = [o for cell in executed.cells for o in cell.get("outputs", [])]
        if any(output.output_type == "error" for output in outputs):  # Papermill lets exit() pass
            return "A cell ended the notebook early (SystemExit)."
    except PapermillExecutionError as error:
        message = _clean_text(error.evalue)
        if "marshal data too short" in message:  # Python keeps a .pyc that a full disk cut short
            message += f". A compiled file is cut short: delete __pycache__ below {sys.prefix}."
        return message if error.ename == StudyError.__name__ else f"{error.ename}: {message}"
    except DeadKernelError:
        return "The kernel died while it executed a cell; the usual cause is too little memory."
    return None


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
    with tempfile.TemporaryDirectory() as scratch:
        session = _Session(notebook.parent, Path(scratch), stem)
        problem = _run(source, parameters, session)
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


def parse_override(text: str) -> tuple[str, Any]:
    """Split `name=value` and read the value as params.yaml is read (`1e-4` is a number).

    Raises ParameterError where there is no name or the value is no YAML.
    """
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise ParameterError(f"-p takes name=value, for example -p loss=triplet, not '{text}'.")
    try:
        return name, params.load(value)
    except yaml.YAMLError as error:
        raise ParameterError(f"The value of -p {text} is no YAML; quote it.") from error


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lib.execute", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("notebook", help="03_train, or a path that ends in .ipynb")
    parser.add_argument("--study", required=True, help="a study of params.yaml")
    parser.add_argument("-p", action="append", default=[], metavar="name=value", dest="overrides")
    parser.add_argument("--out", type=Path, help="output folder (default: reports/<study>)")
    parser.add_argument("--stem", "--name", help="name of the results (default: the notebook's)")
    parser.add_argument("--previous", help="stem of the page before ('': none; default: by number)")
    parser.add_argument("--next", help="stem of the page after ('': none; default: by number)")
    return parser.parse_args(argv)


def _execute_for_study(given: argparse.Namespace) -> Path:
    named = given.notebook.endswith(".ipynb")
    notebook = Path(given.notebook) if named else NOTEBOOKS / f"{given.notebook}.ipynb"
    if not notebook.is_file():
        names = ", ".join(sorted(path.stem for path in notebook.parent.glob("*.ipynb")))
        raise StudyError(f"There is no notebook '{given.notebook}'; there are: {names or 'none'}.")
    values = params.section(given.study, re.sub(r"^\d+_", "", notebook.stem))
    overrides = dict(parse_override(text) for text in given.overrides)
    parameters = {"study": given.study, **values, **overrides}
    out_dir = given.out or StudyPaths(given.study).reports
    with one_at_a_time(given.study):
        watch = runlog.Watch(given.study)
        made = execute(notebook, parameters, out_dir, given.stem, (given.previous, given.next))
        if not given.out:
            runlog.note(given.study, made.stem, parameters, watch.read())
    return made


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
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
