"""What ran, when, for how long, on what, with how much memory: reports/<study>/run.json.

It is the one file under reports/ that two runs do not share, so nothing depends on it. Work that
was kept from an earlier run (data/scratch) takes no time the second time.
`python -m lib.core.run_log` writes the table of docs/resources.md from these files.
"""

import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lib.core import paths
from lib.core.files import atomic, digest, key_of, read_json, write_json

PACKAGES = ("torch", "numpy", "pytorch-metric-learning", "timm", "rembg", "onnxruntime")


def _first(file: str, start: str) -> str:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(start)), "")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, GPU and versions of this machine.

    `kind` tells processors apart that share a name: their sums differ in the last digits.
    """
    parts = {name: _first("/proc/cpuinfo", name) for name in ("cpu family", "model\t", "stepping")}
    memory = _first("/proc/meminfo", "MemTotal").split()
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "kind": ", ".join(f"{name.strip()} {value}" for name, value in parts.items() if value),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[0]) / 1e6) if memory else None,
        "gpu": _told("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _told(*command: str) -> str | None:
    """What a program prints; None where it is missing, fails or hangs."""
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _commit() -> str | None:
    return _told("git", "-C", str(paths.ROOT), "rev-parse", "--short=12", "HEAD")


def origin() -> dict[str, Any]:
    """Where and by what something was made: commit, processor, torch."""
    here = machine()
    kept = {name: here[name] for name in ("processor", "kind", "gpu")}
    return {"commit": _commit(), "torch": here["packages"]["torch"], **kept}


def code() -> str:
    """Fingerprint of the code: every module of lib and every source notebook, names and bytes."""
    files = [*(paths.ROOT / "lib").rglob("*.py"), *(paths.ROOT / "notebooks").glob("*.ipynb")]
    return key_of(**{f.relative_to(paths.ROOT).as_posix(): digest(f) for f in files})


def data(study: str) -> dict[str, str]:
    """Fingerprints of the study's stores, as far as they are there: images, backgrounds, masks."""
    where = paths.StudyPaths(study)
    stores = {name: where.prepared / name for name in ("images", "backgrounds")}
    if (where.masks / "source.json").exists():
        stores["masks"] = where.masks / read_json(where.masks / "source.json")["source"]
    files = {name: folder / "store.json" for name, folder in stores.items()}
    return {name: read_json(f)["fingerprint"][:16] for name, f in files.items() if f.exists()}


@dataclass(frozen=True)
class Watch:
    """What a run of a study uses, from the making of the watch until it is read."""

    study: str
    start: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.time)

    def read(self) -> dict[str, float | None]:
        """Seconds, peak memory of the largest process (MB), size of the files written (MB).

        Memory is that of this process or of one that has ended: a kernel or a worker, also those of
        notebooks that the same command executed before.
        """
        home = paths.ROOT / "data"
        folders = [folder / self.study for folder in home.glob("*") if folder.name != "raw"]
        files = (
            file for folder in [*folders, paths.REPORTS / self.study] for file in folder.rglob("*")
        )
        sizes = (file.stat() for file in files if file.is_file())
        written = sum(size.st_size for size in sizes if size.st_mtime >= self.began)
        return {
            "seconds": round(time.monotonic() - self.start, 1),
            "peak_memory_mb": _peak(),
            "written_mb": round(written / 1e6, 1),
        }


def _peak() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    most = max(resource.getrusage(who).ru_maxrss for who in whose)
    return round(most / (1e6 if platform.system() == "Darwin" else 1e3))  # bytes there, KiB here


def note(study: str, stem: str, parameters: dict[str, Any], used: dict[str, Any]) -> None:
    """Write down one execution: parameters, what it used (`Watch.read`), date, commit, code,
    data, machine.
    """
    file = paths.StudyPaths(study).reports / "run.json"
    noted = read_json(file) if file.exists() else {}
    noted[stem] = {
        "parameters": parameters,
        **used,
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "code": code(),
        "data": data(study),
        "machine": machine(),
    }
    write_json(file, noted)


def table(reports: Path | None = None) -> str:
    """What every recorded stage used, as a Markdown table; stages without a record are left out."""
    lines = ["| study | page | seconds | peak memory, MB | files written, MB | processor, cores |"]
    lines += ["|---|---|---:|---:|---:|---|"]
    for file in sorted((reports or paths.REPORTS).glob("*/run.json")):
        for stem, run in sorted(read_json(file).items()):
            if run.get("peak_memory_mb") is None:
                continue
            on = f"{run['machine']['processor']}, {run['machine']['cores']}"
            numbers = (run["seconds"], run["peak_memory_mb"], run["written_mb"])
            cells = [file.parent.name, stem, *(f"{value:,.0f}" for value in numbers), on]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def in_page(text: str, made: str) -> str:
    """A page with the table between its two marks replaced by `made`."""
    return re.sub(r"(?s)(<!-- table -->\n).*?(<!-- end -->)", rf"\1{made}\2", text)


def main() -> None:
    """Write the table into docs/resources.md."""
    page = paths.ROOT / "docs" / "resources.md"
    text = in_page(page.read_text(encoding="utf-8"), table())
    with atomic(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
