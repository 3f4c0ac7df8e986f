"""The first run, as a stranger has it: `make repro` in a bare clone, on this processor and on less.

    python -m benchmarks.first_run [--only avx2] [--verb "make test"]
    python -m benchmarks.first_run --plan     say what would run

Three numbers: `make repro` in a fresh clone (packages come from the cache of the package manager,
so a second clone installs in seconds; the time of `make setup` is printed apart), the same with
nothing changed, and both once more with the processor held to AVX2: oneDNN, OpenVINO, MKL and torch
are told to use nothing newer, and the study is told that there is no bf16. That is a processor of
2015 at this machine's clock, caches and memory: not a slow machine, but its kernels.

Goals on two cores: six minutes with AVX2, four with bf16; nothing changed, three seconds.
"""

import argparse
import os
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch's and OpenVINO's copies of oneDNN
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
HAS_BF16 = 'return any(has for name, has in found.items() if "bf16" in name)'
HELD = {"as it is": {}, "avx2": AVX2}


def clone(folder: Path, held: dict[str, str]) -> None:
    """The last commit, in `folder`; held to AVX2, its study sees no bf16."""
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    if held:
        file = folder / "lib" / "core" / "hardware.py"
        text = file.read_text(encoding="utf-8")
        if HAS_BF16 not in text:
            raise SystemExit(
                f"{file} asks for bf16 in other words than {HAS_BF16!r}: mend HAS_BF16."
            )
        file.write_text(text.replace(HAS_BF16, "return False"), encoding="utf-8")


def seconds(command: str, folder: Path, held: dict[str, str]) -> float:
    """Wall-clock seconds of a command; its output goes to first_run.log in the clone's parent."""
    start = time.perf_counter()
    with open(folder.parent / "first_run.log", "a", encoding="utf-8") as log:
        done = subprocess.run(
            shlex.split(command), cwd=folder, env=os.environ | held, stdout=log, stderr=log,
            check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}; see {log.name}")
    return time.perf_counter() - start


def main() -> None:
    """Print a row a processor, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=list(HELD))
    parser.add_argument("--verb", default="make repro")
    parser.add_argument("--plan", action="store_true")
    given = parser.parse_args()
    took = {}
    for name in [given.only] if given.only else HELD:
        held = HELD[name]
        print(f"{name}: {' '.join(f'{k}={v}' for k, v in held.items())} {given.verb}", flush=True)
        if given.plan:
            continue
        folder = Path(tempfile.mkdtemp(prefix="first_run-")) / "clone"
        clone(folder, held)
        setup = seconds("make setup", folder, held)
        took[name] = seconds(given.verb, folder, held)
        again = seconds(given.verb, folder, held) if given.verb == "make repro" else float("nan")
        print(f"  setup {setup:6.0f} s   {given.verb} {took[name]:6.0f} s   again {again:5.1f} s   "
              f"({folder})", flush=True)  # fmt: skip
    if len(took) == len(HELD):
        print(f"avx2 takes {took['avx2'] / took['as it is']:.2f} times as long")


if __name__ == "__main__":
    main()
