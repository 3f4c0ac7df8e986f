"""The kernel of one execution: its environment, its progress lines, and its end."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from lib.core.errors import StudyError
from lib.core.paths import ROOT
from lib.execute.cleaning import clean_text

SOCKET = 80  # letters of a folder that still has room for a socket's name (a system's limit: 104)


@dataclass
class Session:
    """What one run knows: where the kernel works, what it is told, how it is stopped."""

    folder: Path
    scratch: Path
    stem: str
    client: PapermillNotebookClient | None = field(default=None)

    def environment(self) -> dict[str, str]:
        """The kernel's environment: this repository's lib first, nothing of the user's setup."""
        (self.scratch / "matplotlibrc").touch()
        inherited = os.environ.get("PYTHONPATH")
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *([inherited] if inherited else [])]),
            "PYTHONHASHSEED": "0",
            "NUMBA_DISABLE_JIT": "1",  # importing rembg would compile for a minute
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm asks for widgets at import
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "MATPLOTLIBRC": str(self.scratch / "matplotlibrc"),  # no personal style of figures
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
            shutdown_kernel="immediate",  # all cells are done: a kernel's own end takes seconds
            on_cell_execute=session.announce,
        )
        manager = session.client.km = session.client.create_kernel_manager()
        # Whatever is installed under the name python3: run the interpreter that runs us.
        manager.kernel_spec.argv[0] = sys.executable
        folder = os.fsencode(session.scratch)
        if os.name == "posix" and len(folder) <= SOCKET:  # no ports to fight over, all private
            manager.transport = "ipc"
            manager.connection_file = str(session.scratch / "kernel.json")
            manager.ip = str(session.scratch / "kernel")
        session.client.execute(cwd=str(session.folder), env=session.environment())


@contextmanager
def _kernel_ends_with_us(session: Session) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into: kill the kernel, then leave."""

    def stop(number: int, _: Any) -> None:
        session.kill()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {n: signal.getsignal(n) for n in numbers}
    if threading.current_thread() is not threading.main_thread():
        before = {}  # only the main thread may set handlers
    before = {n: old for n, old in before.items() if old is not signal.SIG_IGN}  # nohup
    for number in before:
        signal.signal(number, stop)
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


def run_cells(source: NotebookNode, parameters: dict[str, Any], session: Session) -> str | None:
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
        message = clean_text(error.evalue)
        if "marshal data too short" in message:  # Python keeps a .pyc that a full disk cut short
            message += f". A compiled file is cut short: delete __pycache__ below {sys.prefix}."
        return message if error.ename == StudyError.__name__ else f"{error.ename}: {message}"
    except DeadKernelError:
        return "The kernel died while it executed a cell; the usual cause is too little memory."
    return None
