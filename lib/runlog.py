"""What ran, when, for how long, on what: reports/<study>/run.json.

The one file under reports/ that two runs do not share, so nothing depends on it. Work that was
kept from an earlier run (data/scratch) takes no time the second time.
"""

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lib import paths
from lib.files import read_json, write_json

PACKAGES = ("torch", "numpy", "pytorch-metric-learning", "timm", "rembg", "onnxruntime")


def _first(file: str, start: str) -> str:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(start)), "")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, GPU and versions of this machine."""
    memory = _first("/proc/meminfo", "MemTotal").split()
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[0]) / 1e6) if memory else None,
        "gpu": _gpu(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _gpu() -> str | None:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _commit() -> str | None:
    command = ["git", "-C", str(paths.ROOT), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None


def code() -> str:
    """Fingerprint of the code: every module of lib and every source notebook, names and bytes."""
    files = [*(paths.ROOT / "lib").rglob("*.py"), *(paths.ROOT / "notebooks").glob("*.ipynb")]
    seal = hashlib.sha256()
    for file in sorted(files):
        seal.update(file.relative_to(paths.ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return seal.hexdigest()[:16]


def data(study: str) -> dict[str, str]:
    """Fingerprints of the study's stores, as far as they are there: images, backgrounds, masks."""
    where = paths.StudyPaths(study)
    stores = {name: where.prepared / name for name in ("images", "backgrounds")}
    if (where.masks / "source.json").exists():
        stores["masks"] = where.masks / read_json(where.masks / "source.json")["source"]
    files = {name: folder / "store.json" for name, folder in stores.items()}
    return {name: read_json(f)["fingerprint"][:16] for name, f in files.items() if f.exists()}


def note(study: str, stem: str, parameters: dict[str, Any], seconds: float) -> None:
    """Write down one execution: parameters, seconds, date, code, data, machine."""
    file = paths.StudyPaths(study).reports / "run.json"
    noted = read_json(file) if file.exists() else {}
    noted[stem] = {
        "parameters": parameters,
        "seconds": round(seconds, 1),
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "code": code(),
        "data": data(study),
        "machine": machine(),
    }
    write_json(file, noted)
