"""A study's pieces on many machines, over Dask: `python -m lib.run.grid --study cub200`.

Without more, the machines are the GPUs of this one (or its cores); `--scheduler` names a Dask
cluster that runs, `--cluster` a file for dask-jobqueue. The client lists the pieces
(lib.run.pieces), hands out those whose predecessors are done, and runs each measuring step through
DVC when its pieces are there: the step finds them done, and afterwards so does `dvc repro`.
docs/scale.md says what travels, who may listen, and where it stops scaling.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.files import digest, read_json, write_json
from lib.core.hardware import THREADS
from lib.core.hardware import workers as cores
from lib.core.progress import say
from lib.core.stage import in_words, locked
from lib.run import pieces
from lib.run.pieces import Piece

STAGES = ("data", "masks", "train", "shift", "attention", "remedies")
TRIES = 3  # of a piece that fails
AGAIN = 5.0  # seconds until a piece that another client is making is asked for again
TOLD = 10.0  # seconds between two lines of progress
LOOK = 1.0  # seconds between two looks for new machines
GRACE = 20.0  # seconds in which others may come, where all that are there were refused
PART = 2**24  # bytes of a file in one message
# Seconds a piece, of CUB by docs/scale.md. Only ratios count: what takes longest goes first, and
# kinds that no piece of is done yet are guessed from those that were seen.
USUAL = {
    "masks": 75, "model": 13_508, "trunk": 30, "embedding": 119, "evaluation": 10,
    "attention": 1_831, "check": 13_680, "variant": 477,
}  # fmt: skip


# --- the cluster ---------------------------------------------------------------------------------


def _dask() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise StudyError(
            "make grid needs Dask, which is not installed: pip install '.[grid]'"
        ) from error
    return distributed


@contextmanager
def connected(scheduler: str = "", cluster: str = "", workers: int = 0) -> Iterator[tuple]:
    """A client of the cluster that was asked for, and the GPUs that the grid shares out itself.

    Args:
        scheduler: address of a running one. cluster: a YAML file for dask-jobqueue.
        workers: of a cluster on this machine; 0: one a GPU, or one for every two cores.
    """
    dask = _dask()
    if scheduler:
        if scheduler.startswith("tcp://") and not scheduler.startswith("tcp://127.0.0.1:"):
            say(
                f"{scheduler} is not encrypted: whoever reaches its port can run code on it, its "
                "workers and here. docs/scale.md says how to use TLS."
            )
        try:
            client = dask.Client(scheduler, timeout="30s")
        except OSError as error:
            raise StudyError(f"no Dask scheduler answers at {scheduler} ({error}).") from error
        with client:
            yield client, 0
    elif cluster:
        with jobs_of(cluster) as made, dask.Client(made) as client:
            yield client, 0
    else:
        import torch

        gpus = torch.cuda.device_count()
        count = workers or gpus or max(1, cores() // THREADS)
        # A worker's memory is not limited: the mapped store would count as its own. TLS with
        # certificates made for this run, so that no other user of this machine can connect.
        with (
            dask.LocalCluster(
                n_workers=count, threads_per_worker=1, processes=True, security=True,
                host="127.0.0.1", dashboard_address=None, memory_limit=0,
            ) as made,
            dask.Client(made) as client,
        ):  # fmt: skip
            yield client, gpus


def jobs_of(file: str) -> Any:
    """A cluster of dask-jobqueue from YAML: class, jobs (or minimum and maximum), options."""
    try:
        import dask_jobqueue
    except ImportError as error:
        raise StudyError("--cluster needs dask-jobqueue: pip install '.[grid]'") from error
    try:
        asked = params.load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{file} cannot be read ({error}).") from error
    known = [name for name in dir(dask_jobqueue) if name.endswith("Cluster")]
    name = asked.get("class") if isinstance(asked, dict) else None
    if name not in known or set(asked) - {"class", "jobs", "minimum", "maximum", "options"}:
        raise StudyError(
            f"{file} must hold `class` (one of {', '.join(known)}), `jobs` (or `minimum` and "
            "`maximum`) and `options`, the class's own; docs/scale.md has an example."
        )
    made = getattr(dask_jobqueue, name)(**asked.get("options", {}))
    if "maximum" in asked:
        made.adapt(minimum=asked.get("minimum", 0), maximum=asked["maximum"])
    else:
        made.scale(jobs=asked.get("jobs", 1))
    return made


@dataclass
class Crew:
    """The machines of a cluster: those that may take pieces, and why others may not."""

    client: Any
    study: str
    gpus: int = 0
    trunk: str = ""  # to have ready on every machine; empty while there is none to train
    carry: bool = False  # files travel with results: a machine does not see the shared folder
    own: dict[str, Any] = field(default_factory=pieces.identity)
    admitted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    key: str = field(default_factory=lambda: f"study-{uuid.uuid4().hex[:8]}")

    def look(self) -> None:
        """Take or refuse the machines that have come since the last look."""
        here = self._here()
        self.admitted &= here
        self.refused = {who: why for who, why in self.refused.items() if who in here}
        for worker in here - self.admitted - set(self.refused):
            try:
                why = self._why_not(worker)
                if not why:
                    self._ask(worker, pieces.admit, self.key)
                    self.admitted.add(worker)
            except Exception as error:  # whatever its code raises, it is not ours
                if worker not in self._here():
                    continue
                why = f"it does not answer as this code does ({type(error).__name__}: {error})"
            if why:
                self.refused[worker] = why
                say(f"worker {worker} is refused: {why}")

    def _here(self) -> set[str]:
        return set(self.client.scheduler_info(n_workers=-1)["workers"])

    def _ask(self, worker: str, what: Callable[..., Any], *given: Any) -> Any:
        return self.client.run(what, *given, workers=[worker], nanny=False)[worker]

    def wait(self) -> None:
        """Look for machines; say so while there is none, and end where all were refused."""
        began = time.monotonic()
        told = began - 30
        while True:
            self.look()
            if self.admitted:
                return
            if self.refused and time.monotonic() - began > GRACE:
                why = "; ".join(f"{who}: {why}" for who, why in self.refused.items())
                raise StudyError(f"no worker of this cluster can be used. {why}")
            if time.monotonic() - told > 30:
                say("no worker is there yet: waiting")
                told = time.monotonic()
            time.sleep(LOOK)

    def _why_not(self, worker: str) -> str:
        """Why a machine gets no piece; empty if it may. It is made ready on the way."""
        theirs = self._ask(worker, pieces.start, self.gpus)
        other = [name for name in self.own if theirs.get(name) != self.own[name]]
        if other:
            told = (f"{name} {theirs.get(name)} instead of {self.own[name]}" for name in other)
            return f"it would compute something else: {', '.join(told)}"
        if not self._shares(worker):
            if self.admitted and not self.carry:
                return "it does not see the folder that the others share"
            self.carry = True
            self.send(worker)
        if self.trunk:
            self._ask(worker, pieces.prepared, self.trunk)
        return ""

    def _shares(self, worker: str) -> bool:
        """Whether a machine sees what is written here."""
        file = paths.ROOT / "data" / "scratch" / self.study / "grid" / f"{uuid.uuid4().hex}.seen"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.stem, encoding="utf-8")
        try:
            name = file.relative_to(paths.ROOT).as_posix()
            return self._ask(worker, pieces.sees, name) == file.stem
        finally:
            file.unlink()

    def make_ready(self, trunk: str) -> None:
        """Have a trunk on every machine, one after the other: several may share a disk."""
        self.trunk = trunk
        for worker in self.admitted:
            self._ask(worker, pieces.prepared, trunk)

    def send(self, worker: str) -> None:
        """Bring images, backgrounds and masks to a machine that does not share our folder."""
        where = paths.StudyPaths(self.study)
        files = [file for home in (where.prepared, where.masks) for file in home.rglob("*")]
        for file in sorted(file for file in files if file.is_file()):
            whole = {"size": file.stat().st_size, "sha256": digest(file)}
            name, offset = file.relative_to(paths.ROOT).as_posix(), 0
            with open(file, "rb") as stream:
                while True:
                    part = stream.read(PART)
                    if self._ask(worker, pieces.receive, name, offset, part, whole):
                        break
                    offset += len(part)


# --- the pieces ----------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far it is and how long it takes, told every few seconds."""

    study: str
    total: Counter
    done: Counter = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)

    def add(self, piece: Piece, seconds: float | None = None) -> None:
        """A piece is done; `seconds` where it was made now."""
        self.done[piece.kind] += 1
        if seconds is not None:
            self.seconds[piece.kind].append(seconds)

    def left(self, workers: int) -> float | None:
        """Seconds left: kinds that were seen by their mean, others by their usual part of these."""
        if not self.seconds:
            return None
        mean = {kind: sum(spent) / len(spent) for kind, spent in self.seconds.items()}
        scale = sum(mean.values()) / sum(USUAL[kind] for kind in mean)
        rest = self.total - self.done
        spent = (mean.get(kind, scale * USUAL[kind]) * count for kind, count in rest.items())
        return sum(spent) / max(1, workers)

    def tell(self, workers: int) -> None:
        """One line, if the last is long enough ago."""
        if time.monotonic() - self.last < TOLD:
            return
        self.last, left = time.monotonic(), self.left(workers)
        kinds = ", ".join(f"{kind} {self.done[kind]}/{n}" for kind, n in self.total.items())
        rest = f"about {left / 60:.1f} min left" if left is not None else "time left not yet known"
        say(f"{self.study}: {kinds}; {rest}; {workers} worker(s)")


@dataclass
class Grid:
    """The pieces of one study on a crew; what was done is noted, and found by the next run."""

    crew: Crew
    study: str
    sections: dict[str, dict[str, Any]]
    tries: int = TRIES
    failed: dict[str, dict[str, str]] = field(default_factory=dict)  # piece: error, log
    left_out: list[str] = field(default_factory=list)

    @property
    def _notes(self) -> Path:
        return paths.StudyPaths(self.study).scratch / "grid" / "done"

    def make(self, todo: list[Piece]) -> bool:
        """Have all pieces made; those that fail, and those that need them, are noted.

        Returns:
            Whether all are done.
        """
        self.crew.wait()
        told = {p.id: pieces.text_of(self.study, p, self.sections, self.crew.carry) for p in todo}
        keys = {name: pieces.key(text, self._data()) for name, text in told.items()}
        progress = Progress(self.study, Counter(piece.kind for piece in todo))
        by_id, tried = {piece.id: piece for piece in todo}, Counter()
        done: dict[str, Any] = {}  # what came of a piece, where files travel
        for piece in todo:
            if (outputs := self._found(keys[piece.id])) is not None:
                done[piece.id] = outputs
                progress.add(piece)
        waiting = {p.id: {a for a in p.after if a not in done} for p in todo if p.id not in done}
        soon: dict[str, float] = {}  # pieces to be handed out, and not before when
        running: dict[Any, str] = {}
        looked = 0.0
        while waiting or soon or running:
            if time.monotonic() - looked > LOOK:
                self.crew.wait()
                looked = time.monotonic()
            ready = [name for name, after in waiting.items() if not after]
            for name in ready:
                del waiting[name]
                soon[name] = 0.0
            for name in [name for name, when in soon.items() if when <= time.monotonic()]:
                del soon[name]
                running[self._submit(by_id[name], told[name], done)] = name
            for future in [future for future in running if future.done()]:
                name = running.pop(future)
                result = self._result(future)
                if result.get("held"):
                    soon[name] = time.monotonic() + AGAIN
                elif "error" in result:
                    tried[name] += 1
                    say(f"{name} failed ({tried[name]} of {self.tries}): {result['error']}")
                    if tried[name] < self.tries:
                        soon[name] = 0.0
                    else:
                        self.failed[name] = result
                        self._leave_out(name, waiting)
                else:
                    self._take(result, keys[name])
                    done[name] = future if self.crew.carry else result["outputs"]
                    for after in waiting.values():
                        after.discard(name)
                    if self.crew.carry:  # a worker keeps the files that are still asked for
                        asked = {a for other in (*waiting, *soon) for a in by_id[other].after}
                        for other in done.keys() - asked:
                            done[other] = []
                    progress.add(by_id[name], result["seconds"])
            progress.tell(len(self.crew.admitted))
            time.sleep(0.05)
        return not self.failed

    def _data(self) -> list[str]:
        where = paths.StudyPaths(self.study)
        files = [*where.prepared.rglob("store.json"), *where.masks.glob("*/masks.json")]
        return [digest(file) for file in sorted(files)]

    def _found(self, key: str) -> list[str] | None:
        """The files of a piece that an earlier run has finished, if they are still there."""
        file = self._notes / f"{key}.json"
        if not file.exists():
            return None
        outputs = read_json(file)
        return outputs if all((paths.ROOT / name).exists() for name in outputs) else None

    def _submit(self, piece: Piece, told: str, done: dict[str, Any]) -> Any:
        inputs = [self._travelling(done[name]) for name in piece.after] if self.crew.carry else []
        return self.crew.client.submit(
            pieces.run, told, *inputs, key=f"{self.study}/{piece.id}-{uuid.uuid4().hex[:8]}",
            pure=False, resources={self.crew.key: 1}, priority=USUAL[piece.kind],
        )  # fmt: skip

    def _travelling(self, result: Any) -> Any:
        """The files of a piece as an argument: as they are on a worker, or from our disk."""
        if not isinstance(result, list):
            return result
        files = {name: (paths.ROOT / name).read_bytes() for name in result}
        ledgers = [name for name in files if name.endswith("measured.json")]
        return {"files": {name: files[name] for name in files if name not in ledgers}}

    def _result(self, future: Any) -> dict[str, Any]:
        """What a piece returned; a worker that died over it several times is an error too."""
        if future.status == "finished":
            return future.result()
        error = future.exception() if future.status == "error" else None
        words = f"{type(error).__name__}: {error}" if error else "it was cancelled"
        return {"error": words, "log": "its worker is gone; see the worker's own log"}

    def _take(self, result: dict[str, Any], key: str) -> None:
        """Write what travelled, and note that the piece is done."""
        pieces.unpack(result.get("files", {}))
        if result.get("ledger"):
            from lib.attention.measure import Ledger

            folder = paths.StudyPaths(self.study).measured / "attention"
            Ledger(folder, {}).merge(result["ledger"])
        write_json(self._notes / f"{key}.json", result["outputs"])

    def _leave_out(self, name: str, waiting: dict[str, set[str]]) -> None:
        for later in [other for other, after in waiting.items() if name in after]:
            if waiting.pop(later, None) is not None:
                self.left_out.append(later)
                self._leave_out(later, waiting)


# --- a study -------------------------------------------------------------------------------------


def _dvc(*words: str, capture: bool = False) -> subprocess.CompletedProcess:
    """Run DVC as make does, one at a time in this folder."""
    own = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with locked(paths.ROOT / "data" / "locks" / "dvc.lock"):
        return subprocess.run(
            [sys.executable, "-m", "dvc", *words], cwd=paths.ROOT, check=False, text=True,
            env={**os.environ, "PATH": own}, stdout=subprocess.PIPE if capture else None,
        )  # fmt: skip


def to_do(study: str) -> list[str]:
    """The stages that DVC would run, and all after the first of them."""
    asked = _dvc("status", "--json", *(f"{stage}@{study}" for stage in STAGES), capture=True)
    if asked.returncode:
        raise StudyError("DVC cannot say what has changed; see above.")
    changed = json.loads(asked.stdout)
    first = next((n for n, s in enumerate(STAGES) if f"{s}@{study}" in changed), len(STAGES))
    return list(STAGES[first:])


def step(study: str, stage: str) -> None:
    """Let DVC run one measuring step, which finds its pieces done."""
    if _dvc("repro", "--single-item", f"{stage}@{study}").returncode:
        raise StudyError(f"the step {stage} of {study} failed; see above.")


def bring(study: str, connect: Callable[[], Any], foreign: bool) -> int:
    """Bring a study's measuring steps up to date. Returns 0, or 1 where a piece has failed.

    Args:
        connect: `connected`. foreign: whether the cluster has more machines than this one.
    """
    sections = params.study(study)
    if params.ALONE in sections or study not in params.everything().get("run", []):
        raise StudyError(
            f"study {study} is not in `run` of params.yaml, so DVC does not know its steps. Put it "
            "there, and run again."
        )
    todo = to_do(study)
    if not todo:
        say(f"{study}: models and maps are measured; `make repro` adds remedies and pages.")
        return 0
    if "data" in todo:
        step(study, "data")
    chunks = []
    if "masks" in todo and foreign:  # on one machine the step itself takes every core
        chunks = pieces.of_masks(study, sections["masks"]["source"])
        if chunks:
            from lib.masks.rembg_models import fetch

            fetch(sections["masks"]["source"].split("+")[0])
    if "masks" in todo and not chunks:
        step(study, "masks")
    trunk = sections["train"]["trunk"]
    pieces.prepared(trunk)  # fetched once, before any worker asks
    with connect() as (client, gpus):
        crew = Crew(client, study, gpus)
        grid = Grid(crew, study, sections)
        if chunks:
            crew.wait()
            if not crew.carry and not grid.make(chunks):  # originals do not travel
                return tell(grid)
            step(study, "masks")
            for worker in crew.admitted if crew.carry else ():
                crew.send(worker)
        crew.make_ready(trunk)
        if not grid.make(pieces.of_study(sections)):
            return tell(grid)
    for stage in ("train", "shift", "attention"):
        if stage in todo:
            step(study, stage)
    say(f"{study}: models and maps are measured; `make repro` adds remedies and pages.")
    return 0


def tell(grid: Grid) -> int:
    """Name the pieces that failed, with the end of their logs, and those that needed them."""
    for name, result in grid.failed.items():
        print(f"\n{name} failed {grid.tries} times: {result['error']}", file=sys.stderr)
        print(f"its log: {pieces.log_of(grid.study, name)}, which ends in", file=sys.stderr)
        print(result["log"], file=sys.stderr)
    if grid.left_out:
        print(f"\nleft out, for they need these: {', '.join(grid.left_out)}", file=sys.stderr)
    print(
        f"\n{grid.study}: {len(grid.failed)} piece(s) failed; all others are done and kept. Run "
        "again when the cause is gone.",
        file=sys.stderr,
    )
    return 1


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 1 (a piece failed), 2 (told in words) or 130 (stopped)."""
    parser = argparse.ArgumentParser(prog="python -m lib.run.grid", description=__doc__)
    parser.add_argument("--study", required=True, help="a study of `run` in params.yaml")
    parser.add_argument(
        "--scheduler", default="", help="of a running Dask cluster: tls://host:port"
    )
    parser.add_argument("--cluster", default="", help="a YAML file for dask-jobqueue")
    parser.add_argument("--workers", type=int, default=0, help="of a cluster on this machine")
    asked = parser.parse_args(argv)

    def connect() -> Any:
        return connected(asked.scheduler, asked.cluster, asked.workers)

    def run() -> int:
        _dask()
        return bring(asked.study, connect, bool(asked.scheduler or asked.cluster))

    return in_words(run)


if __name__ == "__main__":
    sys.exit(main())
