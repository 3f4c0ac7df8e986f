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
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.files import digest, read_json, write_json
from lib.core.progress import say
from lib.core.stage import in_words, locked
from lib.run import check_studies, machines, pieces
from lib.run.machines import Cluster, Crew, connected, dask_itself
from lib.run.pieces import Piece

STAGES = ("data", "masks", "train", "shift", "attention", "remedies")
TRIES = 3  # of a piece that fails
LOST = 10  # workers that may be lost over a piece: a long training outlives several jobs
AGAIN = 5.0  # seconds until a piece that another client is making is asked for again
TOLD = 10.0  # seconds between two lines of progress
ARRIVAL = 600.0  # seconds that a result may take from a machine to here
# Seconds a piece, of CUB by docs/scale.md. Only ratios count: what takes longest goes first, and
# kinds that no piece of is done yet are guessed from those that were seen.
USUAL = {
    "masks": 75, "model": 13_508, "trunk": 30, "embedding": 119, "evaluation": 10,
    "attention": 1_831, "check": 13_680, "variant": 477,
}  # fmt: skip


# --- the pieces ----------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far it is and how long it takes, told every few seconds."""

    study: str
    total: Counter
    done: Counter = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
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
    """The pieces of one study on a crew; what was done is noted, and found by the next run.

    One piece at a time goes to each machine, and to that machine alone: one that dies costs no
    other piece, and where its piece goes then is decided here.
    """

    crew: Crew
    study: str
    sections: dict[str, dict[str, Any]]
    tries: int = TRIES
    failed: dict[str, dict[str, str]] = field(default_factory=dict)  # piece: error, log
    left_out: list[str] = field(default_factory=list)
    tried: Counter = field(default_factory=Counter)
    lost: Counter = field(default_factory=Counter)  # workers, by the piece that they had
    # Of the pieces that are being made:
    by_id: dict[str, Piece] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)  # piece: what a machine is sent
    keys: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, set[str]] = field(default_factory=dict)  # piece: those it waits for
    soon: dict[str, float] = field(default_factory=dict)  # to be handed out, and not before when
    running: dict[str, tuple[Any, str]] = field(default_factory=dict)  # piece: future, worker
    # What came of a piece: names of files, or the future of a result with files that travel.
    done: dict[str, Any] = field(default_factory=dict)
    progress: Progress = field(init=False)

    @property
    def _notes(self) -> Path:
        return paths.StudyPaths(self.study).scratch / "grid" / "done"

    def make(self, todo: list[Piece]) -> bool:
        """Have all pieces made; those that fail, and those that need them, are noted.

        Returns:
            Whether all are done.
        """
        self.crew.wait()
        self._begin(todo)
        looked = 0.0
        while self.waiting or self.soon or self.running:
            if time.monotonic() - looked > machines.LOOK:
                self.crew.wait()
                self._find_lost()
                looked = time.monotonic()
            self._hand_out()
            for name in [name for name, (future, _) in self.running.items() if future.done()]:
                self._collect(name)
            self.progress.tell(len(self.crew.admitted))
            time.sleep(0.05)
        return not self.failed

    def _begin(self, todo: list[Piece]) -> None:
        """Note what is to be done, without what an earlier run has finished."""
        self.by_id = {piece.id: piece for piece in todo}
        self.told = {
            name: pieces.text_of(self.study, piece, self.sections, bool(self.crew.carry))
            for name, piece in self.by_id.items()
        }
        data = self._data()
        self.keys = {name: pieces.key(text, data) for name, text in self.told.items()}
        self.progress = Progress(self.study, Counter(piece.kind for piece in todo))
        self.done = {}
        for name, piece in self.by_id.items():
            if (outputs := self._found(name)) is not None:
                self.done[name] = outputs
                self.progress.add(piece)
        self.waiting = {
            name: set(piece.after) - self.done.keys()
            for name, piece in self.by_id.items() if name not in self.done
        }  # fmt: skip

    def _data(self) -> list[str]:
        where = paths.StudyPaths(self.study)
        files = [*where.prepared.rglob("store.json"), *where.masks.glob("*/masks.json")]
        return [digest(file) for file in sorted(files)]

    def _found(self, name: str) -> list[str] | None:
        """The files of a piece that was finished, if they are still there."""
        file = self._notes / f"{self.keys[name]}.json"
        if not file.exists():
            return None
        outputs = read_json(file)
        return outputs if all((paths.ROOT / name).exists() for name in outputs) else None

    def _hand_out(self) -> None:
        """Give every free machine a piece, what takes longest first."""
        for name in [name for name, after in self.waiting.items() if not after]:
            del self.waiting[name]
            self.soon[name] = 0.0
        self.crew.cluster.ask(len(self.soon) + len(self.running))
        free = self.crew.admitted - {worker for _, worker in self.running.values()}
        ready = [name for name, when in self.soon.items() if when <= time.monotonic()]
        ready.sort(key=lambda name: -USUAL[self.by_id[name].kind])
        for name, worker in zip(ready, sorted(free), strict=False):
            del self.soon[name]
            self.running[name] = (self._submit(name, worker), worker)

    def _submit(self, name: str, worker: str) -> Any:
        """Start a piece on a machine: only there, and only while it has our key (Crew.look)."""
        before = self.by_id[name].after if self.crew.carry else ()
        return self.crew.cluster.client.submit(
            pieces.run, self.told[name], *(self._travelling(self.done[other]) for other in before),
            key=f"{self.study}/{name}-{uuid.uuid4().hex[:8]}", pure=False, workers=[worker],
            resources={self.crew.key: 1},
        )  # fmt: skip

    def _travelling(self, result: Any) -> Any:
        """The files of a piece as an argument: as they are on a worker, or from our disk."""
        if not isinstance(result, list):
            return result
        names = [name for name in result if not name.endswith("measured.json")]
        return {"files": {name: (paths.ROOT / name).read_bytes() for name in names}}

    def _find_lost(self) -> None:
        """Take back the pieces of machines that are gone, and those whose files went with one."""
        for name, (future, worker) in list(self.running.items()):
            if worker not in self.crew.admitted and not future.done():
                self._lose(name)
        gone = {
            name for name, result in self.done.items()
            if not isinstance(result, list) and result.status != "finished"
        }  # fmt: skip
        for name in gone:
            self.done[name] = self._found(name) or []
        for name, (future, _) in list(self.running.items()):
            if gone.intersection(self.by_id[name].after) and not future.done():
                self._take_back(name)

    def _lose(self, name: str) -> None:
        worker = self._take_back(name)
        self.lost[name] += 1
        say(f"{name}: worker {worker} is gone ({self.lost[name]} of {LOST})")
        if self.lost[name] >= LOST:
            words = f"{LOST} workers were lost over it: too little memory, or time?"
            self._give_up(name, words)

    def _take_back(self, name: str) -> str:
        """Have a piece handed out again; returns the machine that had it."""
        future, worker = self.running.pop(name)
        future.cancel()
        self.soon[name] = 0.0
        return worker

    def _collect(self, name: str) -> None:
        """Take what came of a piece that has ended."""
        future, worker = self.running[name]
        try:
            result = self._result(future)
        except TimeoutError:  # it went with its machine between its end and now
            return self._lose(name)
        del self.running[name]
        if result.get("held"):
            self.soon[name] = time.monotonic() + AGAIN
        elif "error" in result:
            self.tried[name] += 1
            say(f"{name} failed ({self.tried[name]} of {self.tries}): {result['error']}")
            self.soon[name] = 0.0
            if self.tried[name] >= self.tries:
                self._give_up(name, **result)
        else:
            self._take(name, result)
            self.done[name] = future if self.crew.carry else result["outputs"]
            for after in self.waiting.values():
                after.discard(name)
            self._release()
            self.progress.add(self.by_id[name], result["seconds"])

    def _result(self, future: Any) -> dict[str, Any]:
        """What a piece returned; one that Dask itself could not run is an error too."""
        if future.status == "finished":
            return future.result(timeout=ARRIVAL)
        error = future.exception() if future.status == "error" else None
        words = f"{type(error).__name__}: {error}" if error else "it was cancelled"
        return {"error": words}

    def _take(self, name: str, result: dict[str, Any]) -> None:
        """Write what travelled, and note that the piece is done."""
        pieces.unpack(result.get("files", {}))
        if result.get("ledger"):
            from lib.attention.measure import Ledger

            folder = paths.StudyPaths(self.study).measured / "attention"
            Ledger(folder, {}).merge(result["ledger"])
        write_json(self._notes / f"{self.keys[name]}.json", result["outputs"])

    def _release(self) -> None:
        """Let workers forget the files that no piece will ask for; they are on our disk."""
        left = (*self.waiting, *self.soon, *self.running)
        asked = {other for name in left for other in self.by_id[name].after}
        for name in self.done.keys() - asked:
            if not isinstance(self.done[name], list):
                self.done[name] = self._found(name) or []

    def _give_up(self, name: str, error: str, log: str = "") -> None:
        """Try a piece no more; without the end of its log, that is read here, if it is here."""
        log = log or pieces.end_of(pieces.log_of(self.study, name))
        self.soon.pop(name, None)
        self.failed[name] = {"error": error, "log": log}
        self._leave_out(name)

    def _leave_out(self, name: str) -> None:
        for later in [other for other, after in self.waiting.items() if name in after]:
            if self.waiting.pop(later, None) is not None:
                self.left_out.append(later)
                self._leave_out(later)


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


def bring(study: str, connect: Callable[[], AbstractContextManager[Cluster]], foreign: bool) -> int:
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
    check_studies.check(study)
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
    with connect() as cluster:
        crew = Crew(cluster, study)
        grid = Grid(crew, study, sections)
        crew.wait()
        if chunks:
            if not crew.carry and not grid.make(chunks):  # originals do not travel
                return tell(grid)
            step(study, "masks")
            if crew.carry:
                crew.send(crew.admitted)
        crew.make_ready(trunk)
        if not grid.make(pieces.of_study(sections, bool(crew.carry))):
            return tell(grid)
    for stage in ("train", "shift", "attention"):
        if stage in todo:
            step(study, stage)
    say(f"{study}: models and maps are measured; `make repro` adds remedies and pages.")
    return 0


def tell(grid: Grid) -> int:
    """Name the pieces that failed, with the end of their logs, and those that needed them."""
    for name, result in grid.failed.items():
        print(f"\n{name} was given up: {result['error']}", file=sys.stderr)
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

    def connect() -> AbstractContextManager[Cluster]:
        return connected(asked.scheduler, asked.cluster, asked.workers)

    def run() -> int:
        dask_itself()
        return bring(asked.study, connect, bool(asked.scheduler or asked.cluster))

    return in_words(run)


if __name__ == "__main__":
    sys.exit(main())
