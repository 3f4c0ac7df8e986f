"""Nothing runs at import: no network, no file written in the repository."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WATCH = """
import importlib, os, sys
from pathlib import Path
root, found = Path(sys.argv[1]), []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        found.append((event, str(arguments[1:])))
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (writes or event == "os.mkdir") and isinstance(arguments[0], str):
        if Path(arguments[0]).absolute().is_relative_to(root):
            found.append((event, arguments[0]))
sys.addaudithook(watch)
for file in sorted((root / "lib").rglob("*.py")):
    importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))
print(found)
"""


def test_nothing_runs_at_import() -> None:
    command = [sys.executable, "-B", "-c", WATCH, str(ROOT)]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr[-2000:]
