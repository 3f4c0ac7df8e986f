"""The machines of a grid: reached over Dask, compared with this one, made ready or refused.

A cluster on this machine, one that runs already, or jobs by dask-jobqueue. Nothing else in lib
imports Dask; docs/scale.md says what travels and who may listen.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.files import digest
from lib.core.hardware import THREADS
from lib.core.hardware import workers as cores
from lib.core.progress import say
from lib.run import pieces

LOOK = 1.0  # seconds between two looks for new machines
GRACE = 20.0  # seconds in which others may come, where all that are there were refused
WAITING = 30.0  # seconds between two lines that say what is waited for
BACK = "10 minutes"  # in which a killed worker of this machine comes back; Dask gives it 15 s
PART = 2**24  # bytes of a file in one message


def dask_itself() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise StudyError(
            "make grid needs Dask, which is not installed: pip install '.[grid]'"
        ) from error
    return distributed


@dataclass(frozen=True)
class Cluster:
    """Machines that can be reached: their client, and what is particular to them."""

    client: Any
    gpus: int = 0  # that the grid shares out itself, of this machine
    awaited: str = "a worker"  # in a sentence, while there is none
    ask: Callable[[int], None] = lambda count: None  # for machines for so many pieces


@contextmanager
def connected(scheduler: str = "", cluster: str = "", workers: int = 0) -> Iterator[Cluster]:
    """The cluster that was asked for.

    Args:
        scheduler: address of a running one. cluster: a YAML file for dask-jobqueue.
        workers: of a cluster on this machine; 0: one a GPU, or one for every two cores.
    """
    dask = dask_itself()
    if scheduler:
        try:
            client = dask.Client(scheduler, timeout="30s")
        except OSError as error:
            raise StudyError(f"no Dask scheduler answers at {scheduler} ({error}).") from error
        with client:
            warn_if_open(client.scheduler_info()["address"])
            start = f"`dask worker {scheduler} --nthreads 1 --memory-limit 0` in a checkout"
            yield Cluster(client, awaited=f"a worker at {scheduler} (start one: {start})")
    elif cluster:
        made, ask = jobs_of(cluster)
        with made, dask.Client(made) as client:
            warn_if_open(made.scheduler_address)
            ask(0)
            queue = f"the first job of {type(made).__name__}"
            yield Cluster(client, awaited=f"{queue} (your queue says where it stands)", ask=ask)
    else:
        import torch
        from dask import config

        gpus = torch.cuda.device_count()
        count = workers or gpus or max(1, cores() // THREADS)
        # A worker's memory is not limited: the mapped store would count as its own. TLS with
        # certificates made for this run, so that no other user of this machine can connect.
        with (
            config.set({"distributed.deploy.lost-worker-timeout": BACK}),
            dask.LocalCluster(
                n_workers=count, threads_per_worker=1, processes=True, security=True,
                host="127.0.0.1", dashboard_address=None, memory_limit=0,
            ) as made,
            dask.Client(made) as client,
        ):  # fmt: skip
            yield Cluster(client, gpus, "a worker on this machine")


def warn_if_open(address: str) -> None:
    """Say so where others can reach a scheduler, and nothing asks them who they are."""
    scheme, _, place = address.rpartition("://")
    host = place.rpartition(":")[0].strip("[]")
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if scheme not in ("tls", "wss", "inproc") and not here:
        say(
            f"{address} is not encrypted: whoever reaches its port can run code on it, on its "
            "workers and here. docs/scale.md, Who may listen, says how to use TLS."
        )


def jobs_of(file: str) -> tuple[Any, Callable[[int], None]]:
    """A cluster of dask-jobqueue from YAML: class, jobs (or minimum and maximum), options.

    Returns:
        The cluster without a job, and what submits them: called with a number of pieces, it keeps
        as many jobs in the queue, within the file's bounds, and sends those that end again.
    """
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
    least = asked.get("jobs", asked.get("minimum", 1))
    most = asked.get("jobs", asked.get("maximum", least))
    if not all(type(count) is int and count >= 0 for count in (least, most)):
        raise StudyError(f"{file}: `jobs`, `minimum` and `maximum` are numbers of jobs.")
    options = asked.get("options") or {}
    if options.get("processes", 1) != 1:
        say(f"{file}: dask-jobqueue sends ended jobs again only where `processes` is 1.")
    made, asked_for = getattr(dask_jobqueue, name)(**options), 0

    def ask(count: int) -> None:
        """Dask itself would see no need of more: pieces wait here, not in its scheduler."""
        nonlocal asked_for
        count = max(1, least, min(count, most))  # without a first job, nobody would ask for one
        if count != asked_for:
            made.adapt(minimum_jobs=count, maximum_jobs=count)
            asked_for = count

    return made, ask


@dataclass
class Crew:
    """The machines of a cluster: those that may take pieces, and why others may not."""

    cluster: Cluster
    study: str
    trunk: str = ""  # to have ready on every machine; empty while there is none to train
    # Whether files travel with results, since machines do not see this folder; the first decide.
    carry: bool | None = None
    own: dict[str, Any] = field(default_factory=pieces.identity)
    admitted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    key: str = field(default_factory=lambda: f"study-{uuid.uuid4().hex[:8]}")

    def look(self) -> None:
        """Take or refuse the machines that have come since the last look, all at once.

        A machine that was started anew under its old address lacks our key: it is new.
        """
        there = self._there()
        self.refused = {who: why for who, why in self.refused.items() if who in there}
        known = {who for who, facts in there.items() if self.key in facts["resources"]}
        self.admitted = known - self.refused.keys()
        if new := there.keys() - known - self.refused.keys():
            self._admit(new)

    def _there(self) -> dict[str, dict[str, Any]]:
        return self.cluster.client.scheduler_info(n_workers=-1)["workers"]

    def _ask(self, workers: Iterable[str], what: Callable[..., Any], *given: Any) -> dict[str, Any]:
        """What machines answer, asked at the same time; those that cannot answer are refused."""
        if not (asked := list(workers)):
            return {}
        answers = self.cluster.client.run(what, *given, workers=asked, on_error="return")
        failed = {who: said for who, said in answers.items() if isinstance(said, Exception)}
        there = self._there() if failed else {}
        for who, error in failed.items():  # whatever its code raises, it is not ours
            if who in there:
                told = f"{type(error).__name__}: {error}"
                self._refuse([who], f"it does not answer as this code does ({told})")
        return {who: said for who, said in answers.items() if who not in failed}

    def _refuse(self, workers: Iterable[str], why: str) -> None:
        for worker in workers:
            self.refused[worker] = why
            self.admitted.discard(worker)
            say(f"worker {worker} is refused: {why}")

    def wait(self) -> None:
        """Look for machines; say so while there is none, and end where all were refused."""
        began = told = time.monotonic()
        while True:
            self.look()
            if self.admitted:
                return
            if self.refused and time.monotonic() - began > GRACE:
                raise StudyError(self._nobody())
            if time.monotonic() - told > WAITING:
                told = time.monotonic()
                say(f"{self.study}: waiting for {self.cluster.awaited}, {told - began:.0f} s")
            time.sleep(LOOK)

    def _nobody(self) -> str:
        reasons = defaultdict(list)
        for who, why in sorted(self.refused.items()):
            reasons[why].append(who)
        lines = [f"  {', '.join(who)}: {why}" for why, who in reasons.items()]
        return "\n".join([
            f"no worker of this cluster can be used, and no other came in {GRACE:.0f} s. Refused:",
            *lines, "What is finished is kept: run again when they are as this machine is.",
        ])  # fmt: skip

    def _admit(self, new: Iterable[str]) -> None:
        """Refuse the machines that would compute something else; make the others ready."""
        fit = set()
        for worker, theirs in self._ask(new, pieces.start, self.cluster.gpus).items():
            other = [name for name in self.own if theirs.get(name) != self.own[name]]
            told = (f"{name} {theirs.get(name)} instead of {self.own[name]}" for name in other)
            if other:
                self._refuse([worker], f"it would compute something else: {', '.join(told)}")
            else:
                fit.add(worker)
        seen = self._seen(fit)
        far = {worker for worker, sees in seen.items() if not sees}
        if self.carry is None and seen:
            self.carry = len(far) == len(seen)
        if self.carry:
            self.send(far)
        else:
            self._refuse(far, "it does not see the folder that the others share")
        self._prepare(seen.keys() - self.refused.keys())
        fit = seen.keys() - self.refused.keys()
        self.admitted |= self._ask(fit, pieces.admit, self.key).keys()

    def _seen(self, workers: Iterable[str]) -> dict[str, bool]:
        """Which machines see what is written here."""
        file = paths.ROOT / "data" / "scratch" / self.study / "grid" / f"{uuid.uuid4().hex}.seen"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.stem, encoding="utf-8")
        try:
            found = self._ask(workers, pieces.sees, file.relative_to(paths.ROOT).as_posix())
        finally:
            file.unlink()
        return {worker: text == file.stem for worker, text in found.items()}

    def make_ready(self, trunk: str) -> None:
        """Have a trunk on every machine."""
        self.trunk = trunk
        self._prepare(self.admitted)

    def _prepare(self, workers: Iterable[str]) -> None:
        if self.trunk:
            for some in self._in_turn(workers):
                self._ask(some, pieces.prepared, self.trunk)

    def _in_turn(self, workers: Iterable[str]) -> list[set[str]]:
        """One worker a host, then the others, which find on its disk what the first has fetched.

        All at once in a shared folder, where this machine has fetched it.
        """
        if not self.carry:
            return [set(workers)]
        there = self._there()
        first = {there[who]["host"]: who for who in workers if who in there}
        return [set(first.values()), set(workers) - set(first.values())]

    def send(self, workers: Iterable[str]) -> None:
        """Bring images, backgrounds and masks to machines that do not share our folder."""
        if not (workers := set(workers)):
            return
        where = paths.StudyPaths(self.study)
        files = [file for home in (where.prepared, where.masks) for file in home.rglob("*")]
        found = [
            (file, {"size": file.stat().st_size, "sha256": digest(file)})
            for file in sorted(files) if file.is_file()
        ]  # fmt: skip
        for some in self._in_turn(workers):
            for file, whole in found:
                self._send(file, whole, some - self.refused.keys())

    def _send(self, file: Path, whole: dict[str, Any], workers: set[str]) -> None:
        name, offset = file.relative_to(paths.ROOT).as_posix(), 0
        with open(file, "rb") as stream:
            while workers:
                part = stream.read(PART)
                answers = self._ask(workers, pieces.receive, name, offset, part, whole)
                workers = {worker for worker, arrived in answers.items() if not arrived}
                offset += len(part)
